/** Light or dark: as the system says, unless somebody chose. */

export type Theme = "system" | "light" | "dark";
const KEY = "postern-theme";

export function currentTheme(): Theme {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function nextTheme(): Theme {
  const order: Theme[] = ["system", "light", "dark"];
  const next = order[(order.indexOf(currentTheme()) + 1) % order.length] ?? "system";
  localStorage.setItem(KEY, next);
  apply();
  return next;
}

export function isDark(): boolean {
  const theme = currentTheme();
  return theme === "dark" || (theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
}

const listeners = new Set<() => void>();

/** Calls it whenever the page turns light or dark, until the answer is called. */
export function whenThemeChanges(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function apply(): void {
  const now = isDark() ? "dark" : "light";
  if (document.documentElement.dataset["theme"] === now) return;
  document.documentElement.dataset["theme"] = now;
  for (const listener of listeners) listener();
}

apply();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
// Somebody chose in another tab.
window.addEventListener("storage", (event) => event.key === KEY && apply());
