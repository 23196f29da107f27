/** A data channel that survives its connections: lost networks, sleep, restarts. */
import { Conversation, CLIENT_VERSION, type Event, type Memory, type Size } from "./conversation";

const TICK_MS = 100;
/** A clock that jumps so far has slept. */
const SLEPT_MS = 10_000;
/** Input unanswered for so long: the connection is dead. */
const DEAF_MS = 6000;
const RETRY_MAX_MS = 5000;
/**
 * A call or a dial that takes longer goes into a network that is gone, the
 * first ones into a connection of before: they are given less time.
 */
const ATTEMPT_MS = 3000;
const ATTEMPT_MAX_MS = 10_000;
/** A connection that stood for so long was a good one. */
const STOOD_MS = 5000;
/** How long the far side may say nothing at all after the first connection. */
const FIRST_WORD_MS = 60_000;

export interface Ticket {
  session: string | null;
  token?: string;
  stream_url?: string;
  /** Whether the session has had a client before. */
  attached?: boolean;
}

export type Status =
  | { is: "connecting" }
  | { is: "open" }
  | { is: "lost"; sinceMs: number; why: string }
  | { is: "signed-out" }
  | { is: "over"; text: string };

/** Thrown by `resume` when nobody is signed in any more. */
export class SignedOut extends Error {}

export interface Callbacks {
  /** A fresh token; without one the session is over. */
  resume: (signal: AbortSignal) => Promise<Ticket>;
  event: (event: Event) => void;
  status: (status: Status) => void;
}

export class Channel {
  readonly clientId: string;
  private readonly conversation: Conversation;
  private socket: WebSocket | undefined;
  private timer = 0;
  private lastTickMs = performance.now();
  /** When the far side was heard last, or input began to wait for it. */
  private heardMs = performance.now();
  private connectedMs = 0;
  private lostMs = 0;
  private tries = 0;
  /** The call that is under way; there is one at a time. */
  private calling = new AbortController();
  /** The next attempt, or the end of the one that is under way. */
  private retryTimer = 0;
  private over = false;
  private firstMs = performance.now();

  constructor(
    private ticket: Ticket,
    size: Size,
    private readonly callbacks: Callbacks,
    memory?: Memory & { clientId?: string },
  ) {
    this.clientId = memory?.clientId ?? crypto.randomUUID();
    const send = (raw: Uint8Array): void => {
      if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(raw as Uint8Array<ArrayBuffer>);
    };
    this.conversation = new Conversation(size, send, (event) => this.hear(event), memory);
    this.timer = window.setInterval(() => this.tick(), TICK_MS);
    window.addEventListener("online", this.wake);
    window.addEventListener("offline", this.offline);
    document.addEventListener("visibilitychange", this.wake);
    callbacks.status({ is: "connecting" });
    this.dial(memory !== undefined);
  }

  /** What a page that replaces this one has to know; no token is in it. */
  memory(): Memory & { clientId: string } {
    return { ...this.conversation.memory(), clientId: this.clientId };
  }

  type(bytes: Uint8Array): boolean {
    return !this.over && this.conversation.type(bytes, performance.now());
  }

  resize(size: Size): void {
    this.conversation.resize(size, performance.now());
  }

  /** Tries again now, because somebody signed in or wants to. */
  retry(): void {
    if (this.over || this.socket?.readyState === WebSocket.OPEN) return;
    this.tries = 0;
    this.letGo();
    void this.takeUp();
  }

  /** Lets the connection go; the session goes on until somebody ends it. */
  leave(): void {
    this.stop();
    this.socket?.close();
  }

  private readonly wake = (): void => {
    if (this.over || document.visibilityState === "hidden") return;
    if (this.socket?.readyState === WebSocket.OPEN) this.probe(performance.now());
    else this.retry();
  };

  private readonly offline = (): void => this.drop("the network is gone");

  /** Asks whether anybody is there, and gives them time to answer. */
  private probe(now: number): void {
    this.heardMs = now;
    this.conversation.probe(now);
  }

  private dial(resumed: boolean): void {
    const url = new URL(this.ticket.stream_url ?? "");
    // The page's own name for the gateway; a proxy may give it several.
    url.host = location.host;
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.limit(() => this.drop("the gateway does not answer"));
    socket.onopen = () => {
      if (this.socket !== socket) return socket.close();
      window.clearTimeout(this.retryTimer);
      socket.send(
        JSON.stringify({
          MessageSchemaVersion: "1.0",
          RequestId: crypto.randomUUID(),
          TokenValue: this.ticket.token,
          ClientId: this.clientId,
          ClientVersion: CLIENT_VERSION,
        }),
      );
      const now = performance.now();
      [this.connectedMs, this.heardMs, this.lostMs] = [now, now, 0];
      this.callbacks.status({ is: "open" });
      if (resumed) this.conversation.reconnected(now);
    };
    socket.onmessage = (message: MessageEvent) => {
      if (this.socket !== socket || !(message.data instanceof ArrayBuffer)) return;
      this.heardMs = performance.now();
      this.conversation.receive(message.data, this.heardMs);
    };
    socket.onclose = () => {
      if (this.socket === socket) this.lose("the connection was lost");
    };
  }

  private drop(why: string): void {
    if (!this.socket || this.over) return;
    this.letGo();
    this.lose(why);
  }

  /** Forgets the connection: what it still says is not heard. */
  private letGo(): void {
    const socket = this.socket;
    this.socket = undefined;
    socket?.close();
  }

  private lose(why: string): void {
    if (this.over) return;
    this.socket = undefined;
    if (this.connectedMs > 0 && performance.now() - this.connectedMs > STOOD_MS) this.tries = 0;
    this.connectedMs = 0;
    if (this.lostMs === 0) this.lostMs = performance.now();
    this.callbacks.status({ is: "lost", sinceMs: this.lostMs, why });
    this.again();
  }

  private again(): void {
    const pause = Math.min(200 * 2 ** this.tries, RETRY_MAX_MS);
    this.tries += 1;
    this.after(pause * (0.75 + Math.random() / 2), () => void this.takeUp());
  }

  /** What happens if the attempt that is under way comes to nothing. */
  private limit(otherwise: () => void): void {
    this.after(Math.min(ATTEMPT_MS * 2 ** Math.max(0, this.tries - 1), ATTEMPT_MAX_MS), otherwise);
  }

  private after(ms: number, what: () => void): void {
    window.clearTimeout(this.retryTimer);
    this.retryTimer = window.setTimeout(what, ms);
  }

  private async takeUp(): Promise<void> {
    this.calling.abort();
    const calling = new AbortController();
    this.calling = calling;
    const isLate = (): boolean => this.over || calling.signal.aborted;
    this.limit(() => (calling.abort(), this.again()));
    try {
      const ticket = await this.callbacks.resume(calling.signal);
      if (isLate()) return;
      if (!ticket.token || !ticket.stream_url) return this.end("the session is over");
      this.ticket = ticket;
      this.dial(true);
    } catch (error) {
      if (isLate()) return;
      if (error instanceof SignedOut) {
        window.clearTimeout(this.retryTimer);
        return this.callbacks.status({ is: "signed-out" });
      }
      this.again();
    }
  }

  private hear(event: Event): void {
    if (event.kind === "closed") return this.end(event.text);
    if (event.kind === "unsupported") this.end(event.text);
    this.callbacks.event(event);
  }

  private end(text: string): void {
    if (this.over) return;
    this.stop();
    this.socket?.close();
    this.callbacks.status({ is: "over", text });
  }

  private stop(): void {
    this.over = true;
    this.calling.abort();
    window.clearInterval(this.timer);
    window.clearTimeout(this.retryTimer);
    window.removeEventListener("online", this.wake);
    window.removeEventListener("offline", this.offline);
    document.removeEventListener("visibilitychange", this.wake);
  }

  private tick(): void {
    const now = performance.now();
    const slept = now - this.lastTickMs > SLEPT_MS && document.visibilityState === "visible";
    this.lastTickMs = now;
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    if (slept) this.probe(now);
    // Silence counts from where somebody owes an answer.
    if (!this.conversation.isBehind()) this.heardMs = now;
    this.conversation.tick(now, this.connectedMs);
    if (this.conversation.isBehind() && now - this.heardMs > DEAF_MS) this.drop("nobody answers");
    if (!this.conversation.wasHeard() && now - this.firstMs > FIRST_WORD_MS) {
      this.end("the target did not answer within 60 s; try again, or look at its SSM agent");
    }
  }
}
