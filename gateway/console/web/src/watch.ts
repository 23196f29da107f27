/** A session that somebody else has, as it goes on. */
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { call, lines } from "./api";
import { colours } from "./colours";
import { whenThemeChanges } from "./theme";

export interface WatchHandle {
  close: () => void;
}

/** `ended` is told once: with an error, or with nothing at the end. */
export function watch(place: HTMLElement, path: string, ended: (error?: unknown) => void): WatchHandle {
  const terminal = new Terminal({
    disableStdin: true,
    cursorBlink: false,
    scrollback: 2000,
    allowProposedApi: true,
    fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
    fontSize: 13,
    theme: colours(),
  });
  terminal.open(place);
  terminal.parser.registerOscHandler(52, () => true);
  Object.assign(place, { terminal });
  const scale = (): void => shrink(place, terminal);
  const observer = new ResizeObserver(scale);
  observer.observe(place);
  const unheard = whenThemeChanges(() => (terminal.options.theme = colours()));
  const abort = new AbortController();
  const run = async (): Promise<void> => {
    try {
      const answer = await call("GET", path, undefined, abort.signal);
      for await (const line of lines(answer)) {
        await show(terminal, line);
        scale();
      }
      ended();
    } catch (error) {
      if (!abort.signal.aborted) ended(error);
    }
  };
  void run();
  return {
    close: () => {
      abort.abort();
      observer.disconnect();
      unheard();
      terminal.dispose();
    },
  };
}

async function show(terminal: Terminal, line: string): Promise<void> {
  if (line.trim() === "") return;
  const said: unknown = JSON.parse(line);
  const write = (text: string): Promise<void> => new Promise((done) => terminal.write(text, done));
  if (Array.isArray(said)) {
    const [, code, data] = said as [number, string, string];
    if (code === "o") await write(data);
    else if (code === "r") resize(terminal, data);
    return;
  }
  const screen = said as { cols: number; rows: number; screen: string };
  terminal.resize(screen.cols, screen.rows);
  await write(screen.screen);
}

function resize(terminal: Terminal, size: string): void {
  const [cols, rows] = size.split("x").map(Number);
  if (cols && rows) terminal.resize(Math.min(cols, 1000), Math.min(rows, 500));
}

/** Their window may be larger than this one. */
function shrink(place: HTMLElement, terminal: Terminal): void {
  const screen = place.querySelector<HTMLElement>(".xterm-screen");
  if (!screen || screen.offsetWidth === 0) return;
  const size = terminal.options.fontSize ?? 13;
  const room = Math.min(place.clientWidth / screen.offsetWidth, (window.innerHeight * 0.7) / screen.offsetHeight);
  const fitting = Math.max(5, Math.min(14, Math.floor(size * room * 2) / 2));
  if (fitting !== size) terminal.options.fontSize = fitting;
}
