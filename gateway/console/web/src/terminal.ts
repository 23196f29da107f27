/** The terminal of a shell: xterm.js on a data channel. */
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { Channel, type Status, type Ticket } from "./channel/channel";
import type { Memory } from "./channel/conversation";
import { colours } from "./colours";
import { channelKey } from "./kept";
import { whenThemeChanges } from "./theme";

const FONT_KEY = "postern-font-size";
const FONT = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
/** Lines that can be scrolled back to. */
const SCROLLBACK = 10_000;

/** Nobody knows the numbers of its keys any more. */
const UNKNOWN =
  "The tab that had this shell is gone, and the gateway was started again since, so nothing can be typed here. The shell still runs: watch it or end it under Details.";

export interface Snapshot {
  cols: number;
  rows: number;
  screen: string;
  /** The numbers of the next messages, as far as the gateway knows them. */
  next_output: number | null;
  next_input: number | null;
}

export interface TerminalOptions {
  session: string;
  resume: (signal?: AbortSignal) => Promise<Ticket>;
  /** What the screen showed before that message, or by now, out of the recording. */
  screen: (before: number | null) => Promise<Snapshot>;
  status: (status: Status) => void;
  title: (title: string) => void;
}

export interface TerminalHandle {
  zoom: (by: number) => void;
  find: (text: string, forward: boolean) => void;
  focus: () => void;
  retry: () => void;
  close: () => void;
}

export async function openTerminal(place: HTMLElement, options: TerminalOptions): Promise<TerminalHandle> {
  let memory: (Memory & { clientId?: string }) | undefined = recall(options.session);
  const ticket = await options.resume();
  if (!ticket.token) {
    options.status({ is: "over", text: "" });
    return nothing();
  }
  let snapshot: Snapshot | undefined;
  if (memory) {
    // The screen as the page before this one had shown it.
    snapshot = await options.screen(memory.expected).catch(() => undefined);
  } else if (ticket.attached) {
    // The tab that had it was closed, or has crashed.
    snapshot = await options.screen(null);
    if (snapshot.next_input === null) throw new Error(UNKNOWN);
    memory = { expected: snapshot.next_output, next: snapshot.next_input, waiting: [], open: true };
  }
  const terminal = new Terminal({
    fontFamily: FONT,
    fontSize: Number(localStorage.getItem(FONT_KEY)) || 14,
    scrollback: SCROLLBACK,
    cursorBlink: true,
    allowProposedApi: true,
    rightClickSelectsWord: true,
    macOptionIsMeta: true,
    theme: colours(),
    // A link opens in a tab that knows nothing of this one.
    linkHandler: { activate: (_event, uri) => openLink(uri) },
  });
  const [fit, search] = [new FitAddon(), new SearchAddon()];
  terminal.loadAddon(fit);
  terminal.loadAddon(search);
  terminal.loadAddon(new WebLinksAddon((_event, uri) => openLink(uri)));
  terminal.open(place);
  gpu(terminal);
  fit.fit();
  // The remote side may not read our clipboard nor write to it unasked.
  terminal.parser.registerOscHandler(52, () => true);

  if (snapshot) {
    const { cols, rows, screen } = snapshot;
    terminal.resize(cols, rows);
    await new Promise<void>((done) => terminal.write(screen, done));
    fit.fit();
  }

  const written = new Written(terminal);
  const encoder = new TextEncoder();
  let over = false;
  const channel = new Channel(
    ticket,
    { cols: terminal.cols, rows: terminal.rows },
    {
      resume: options.resume,
      status: (status) => {
        if (status.is === "over") {
          // What was typed and is good for nothing any more stays nowhere.
          over = true;
          forget(options.session);
          terminal.options.cursorBlink = false;
          terminal.write(`\r\n\x1b[0m\x1b[2m[${plain(status.text) || "the session is over"}]\x1b[0m\r\n`);
        }
        options.status(status);
      },
      event: (event) => {
        if (event.kind === "output") written.add(event.bytes, event.done);
        else if (event.kind === "message") terminal.write(`${event.text.split("\n").map(plain).join("\r\n")}\r\n`);
      },
    },
    memory,
  );
  terminal.onData((text) => void channel.type(encoder.encode(text)));
  terminal.onBinary((text) => void channel.type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  terminal.onResize((size) => channel.resize(size));
  terminal.onTitleChange((title) => options.title(plain(title)));
  terminal.attachCustomKeyEventHandler((event) => !isOurs(event, terminal));

  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(place);
  const unheard = whenThemeChanges(() => (terminal.options.theme = colours()));
  const keep = (): void => {
    if (!over) sessionStorage.setItem(channelKey(options.session), JSON.stringify(channel.memory()));
  };
  window.addEventListener("pagehide", keep);
  terminal.focus();
  // Tests and assistive scripts read the text here; it is nobody else's.
  Object.assign(place, { terminal });

  return {
    zoom: (by) => {
      const size = Math.min(32, Math.max(8, (terminal.options.fontSize ?? 14) + by));
      terminal.options.fontSize = size;
      localStorage.setItem(FONT_KEY, String(size));
      fit.fit();
    },
    find: (text, forward) => void (forward ? search.findNext(text) : search.findPrevious(text)),
    focus: () => terminal.focus(),
    retry: () => channel.retry(),
    close: () => {
      keep();
      window.removeEventListener("pagehide", keep);
      unheard();
      observer.disconnect();
      channel.leave();
      terminal.dispose();
    },
  };
}

/** Bytes that go into the terminal at once while it is busy. */
const AT_ONCE = 256 * 1024;

/** Output on its way: at once while it is quiet, in large pieces in a flood. */
class Written {
  private pieces: { bytes: Uint8Array; done: () => void }[] = [];
  private busy = false;

  constructor(private readonly terminal: Terminal) {}

  add(bytes: Uint8Array, done: () => void): void {
    this.pieces.push({ bytes, done });
    if (!this.busy) this.write();
  }

  private write(): void {
    let [count, length] = [0, 0];
    while (count < this.pieces.length && length < AT_ONCE) length += this.pieces[count++]?.bytes.length ?? 0;
    if (count === 0) return;
    const taken = this.pieces.splice(0, count);
    const all = new Uint8Array(length);
    let at = 0;
    for (const { bytes } of taken) {
      all.set(bytes, at);
      at += bytes.length;
    }
    this.busy = true;
    this.terminal.write(all, () => {
      for (const { done } of taken) done();
      this.busy = false;
      this.write();
    });
  }
}

/** A GPU draws it where there is one; else the page does. */
function gpu(terminal: Terminal): void {
  // One that is only pretended is slower than the page's own drawing.
  const real = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!real) return;
  try {
    const webgl = new WebglAddon();
    webgl.onContextLoss(() => webgl.dispose());
    terminal.loadAddon(webgl);
  } catch {
    // Without it the terminal is drawn with elements.
  }
}

/** Copy and paste as terminals have them; true: not for the session. */
function isOurs(event: KeyboardEvent, terminal: Terminal): boolean {
  if (event.type !== "keydown") return false;
  const control = event.ctrlKey && event.shiftKey;
  if (control && event.code === "KeyC" && terminal.hasSelection()) {
    event.preventDefault();
    void navigator.clipboard.writeText(terminal.getSelection());
    return true;
  }
  // The browser's own paste event brings it, bracketed if the program asked.
  return control && event.code === "KeyV";
}

function openLink(uri: string): void {
  if (!/^https?:\/\//i.test(uri)) return;
  window.open(uri, "_blank", "noopener,noreferrer");
}

/** Text of the gateway or a program without what a terminal obeys. */
function plain(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "");
}

function recall(session: string): (Memory & { clientId: string }) | undefined {
  const text = sessionStorage.getItem(channelKey(session));
  if (!text) return undefined;
  // Used once: a copied tab must not speak with the same numbers.
  sessionStorage.removeItem(channelKey(session));
  try {
    return JSON.parse(text) as Memory & { clientId: string };
  } catch {
    return undefined;
  }
}

function forget(session: string): void {
  sessionStorage.removeItem(channelKey(session));
}

function nothing(): TerminalHandle {
  const none = (): void => {};
  return { zoom: none, find: none, focus: none, retry: none, close: none };
}
