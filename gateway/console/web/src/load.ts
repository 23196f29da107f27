/** Loads what a page shows, again and again while somebody looks. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

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
