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

export function apply(): void {
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
}

apply();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
