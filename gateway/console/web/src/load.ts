/** Loads what a page shows: once, again and again, or whenever it changes. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, call, lines, unreachable } from "./api";

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  again: () => void;
}

/** `everyMs` 0: once. While the page is hidden nothing is asked for. */
export function useLoad<T>(load: (signal: AbortSignal) => Promise<T>, about: unknown[], everyMs = 0): Loaded<T> {
  const [data, setData] = useState<T>();
  const [error, setError] = useState<unknown>();
  const [round, setRound] = useState(0);
  const key = JSON.stringify(about);
  const shown = useRef(key);
  useEffect(() => {
    if (shown.current !== key) {
      shown.current = key;
      setData(undefined);
    }
    const abort = new AbortController();
    let timer = 0;
    const once = async (): Promise<void> => {
      if (!document.hidden || everyMs === 0) {
        try {
          const fresh = await load(abort.signal);
          if (abort.signal.aborted) return;
          setData(fresh);
          setError(undefined);
        } catch (caught) {
          if (abort.signal.aborted) return;
          setError(caught);
        }
      }
      if (everyMs > 0) timer = window.setTimeout(() => void once(), everyMs);
    };
    void once();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [key, everyMs, round]);
  const again = useCallback(() => setRound((round) => round + 1), []);
  return { data, error, again };
}

/** Longest pause before a list that broke off is followed again. */
const PAUSE_MAX_MS = 10_000;
/** Silence after which a connection is dead: the gateway says something more often. */
const SILENT_MS = 40_000;

/**
 * Follows an answer that goes on, line by line; each is the whole data.
 *
 * While the page is hidden it is not followed: a browser has few connections.
 */
export function useFollow<T>(path: string): Loaded<T> {
  const [state, setState] = useState<Followed<T>>({ of: path });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let abort = new AbortController();
    let [timer, tries] = [0, 0];
    const follow = async (signal: AbortSignal): Promise<void> => {
      let failed: unknown;
      const attempt = new AbortController();
      const give = (): void => attempt.abort();
      const listen = (): void => {
        window.clearTimeout(timer);
        timer = window.setTimeout(give, SILENT_MS);
      };
      signal.addEventListener("abort", give);
      listen();
      try {
        for await (const line of lines(await call("GET", path, undefined, attempt.signal))) {
          listen();
          tries = 0;
          if (line !== "" && !signal.aborted) setState({ of: path, data: JSON.parse(line) as T });
        }
      } catch (caught) {
        failed = caught;
      }
      if (signal.aborted) return;
      const refused = failed instanceof ApiError && failed.status !== 0;
      // One that broke off may be there again in a moment.
      if (refused || (failed !== undefined && tries > 0)) {
        const error = failed instanceof ApiError ? failed : unreachable();
        setState((before) => ({ ...kept(before, path), error }));
      }
      window.clearTimeout(timer);
      if (failed instanceof ApiError && failed.status === 401) return;
      timer = window.setTimeout(() => void follow(signal), Math.min(500 * 2 ** tries, PAUSE_MAX_MS));
      tries += 1;
    };
    const look = (): void => {
      abort.abort();
      window.clearTimeout(timer);
      abort = new AbortController();
      tries = 0;
      if (!document.hidden) void follow(abort.signal);
    };
    document.addEventListener("visibilitychange", look);
    look();
    return () => {
      document.removeEventListener("visibilitychange", look);
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [path, round]);
  const again = useCallback(() => setRound((round) => round + 1), []);
  const shown = kept(state, path);
  return { data: shown.data, error: shown.error, again };
}

interface Followed<T> {
  of: string;
  data?: T;
  error?: unknown;
}

/** What was told of that path; nothing yet, if it is another one. */
function kept<T>(state: Followed<T>, path: string): Followed<T> {
  return state.of === path ? state : { of: path };
}
