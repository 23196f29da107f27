/** Which page an address means. */
import { useEffect, useState } from "preact/hooks";

export const BASE = "/console";

export interface Place {
  path: string;
  query: URLSearchParams;
}

function here(): Place {
  return { path: location.pathname.slice(BASE.length) || "/", query: new URLSearchParams(location.search) };
}

/** Where to go on to after signing in: a page of the console, and nothing else. */
export function onwards(wanted: string | null): string | undefined {
  if (!wanted?.startsWith(`${BASE}/`)) return undefined;
  const url = new URL(wanted, location.origin);
  const to = url.pathname.slice(BASE.length);
  // Taken apart again: dots may lead elsewhere than it looks.
  if (url.origin !== location.origin || !url.pathname.startsWith(`${BASE}/`) || /^\/(api|enter)(\/|$)/.test(to)) return undefined;
  return to + url.search;
}

const listeners = new Set<() => void>();

export function go(to: string, replace = false): void {
  history[replace ? "replaceState" : "pushState"](null, "", BASE + to);
  for (const listener of listeners) listener();
}

export function usePlace(): Place {
  const [place, setPlace] = useState(here);
  useEffect(() => {
    const changed = (): void => setPlace(here());
    listeners.add(changed);
    window.addEventListener("popstate", changed);
    return () => {
      listeners.delete(changed);
      window.removeEventListener("popstate", changed);
    };
  }, []);
  return place;
}

/** Follows links of ours without loading the page anew. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const link = (event.target as Element | null)?.closest?.("a");
  if (!link || link.target !== "" || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (!link.pathname.startsWith(`${BASE}/`) || link.pathname.startsWith(`${BASE}/api/`)) return;
  event.preventDefault();
  go(link.pathname.slice(BASE.length) + link.search);
  window.scrollTo(0, 0);
}
