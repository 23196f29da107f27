/** What the browser and the agent say to each other, without I/O or clock. */
import { CHUNK, Payload, acknowledge, decode, encode, json, parseJson, type Message } from "./message";

/** Above every feature switch of the agent; of four parts, as they compare it. */
export const CLIENT_VERSION = "1.2.999.0";
/** Messages of keys on their way: Ctrl-C is never far behind a paste. */
const WINDOW = 256;
/** Messages held that came before their turn. */
const HELD_MAX = 10_000;
/** An agent silent for so long is a plain program that wants no handshake. */
const SILENCE_MS = 3000;
const RTO_MIN_MS = 200;
const RTO_MAX_MS = 1000;
/** Typed and not yet sent, bytes; what is more is not taken. */
const TYPED_MAX = 32 * 1024 * 1024;

export interface Size {
  cols: number;
  rows: number;
}

export type Event =
  /** Output for the terminal; `done` once it has been shown. */
  | { kind: "output"; bytes: Uint8Array; done: () => void }
  | { kind: "message"; text: string }
  | { kind: "exit"; text: string }
  | { kind: "unsupported"; text: string }
  | { kind: "closed"; text: string };

/** What goes on after a reload: numbers, and what was not acknowledged. */
export interface Memory {
  /** The next output message; null: the first one that comes. */
  expected: number | null;
  next: number;
  waiting: { sequence: number; raw: string }[];
  open: boolean;
}

interface Sent {
  raw: Uint8Array;
  sentMs: number;
  again: boolean;
}

/** One session's data channel, over all its connections. */
export class Conversation {
  private expected: number | null = 0;
  private next = 0;
  private readonly held = new Map<number, Message>();
  private readonly waiting = new Map<number, Sent>();
  private readonly unshown = new Set<number>();
  private typed: Uint8Array[] = [];
  private typedBytes = 0;
  private phase: "quiet" | "handshake" | "open" = "quiet";
  private rto = RTO_MIN_MS;
  private rtt = 100;
  private heard = false;
  /** Whether the far side has yet to hear the size of this page's window. */
  private owesSize = false;

  constructor(
    private size: Size,
    private readonly send: (raw: Uint8Array) => void,
    private readonly tell: (event: Event) => void,
    memory?: Memory,
  ) {
    if (!memory) return;
    this.expected = memory.expected;
    this.next = memory.next;
    this.phase = memory.open ? "open" : "quiet";
    this.heard = memory.open;
    this.owesSize = memory.open;
    for (const { sequence, raw } of memory.waiting) {
      this.waiting.set(sequence, { raw: Uint8Array.from(atob(raw), (c) => c.charCodeAt(0)), sentMs: 0, again: true });
    }
  }

  /** What a page that replaces this one has to know. */
  memory(): Memory {
    const waiting = [...this.waiting].map(([sequence, sent]) => ({
      sequence,
      raw: btoa(String.fromCharCode(...sent.raw)),
    }));
    // What was not shown is sent again: it is not acknowledged.
    const expected = this.expected === null ? null : Math.min(this.expected, ...this.unshown);
    return { expected, next: this.next, waiting, open: this.phase === "open" };
  }

  wasHeard(): boolean {
    return this.heard;
  }

  /** Whether input waits for the far side. */
  isBehind(): boolean {
    return this.waiting.size > 0;
  }

  receive(raw: ArrayBuffer, nowMs: number): void {
    const message = decode(raw);
    // What is altered is not acknowledged, so it comes again.
    if (!message) return;
    switch (message.type) {
      case "output_stream_data":
        this.heard = true;
        return this.take(message, nowMs);
      case "acknowledge": {
        const sequence = parseJson(message.payload)["AcknowledgedMessageSequenceNumber"];
        if (typeof sequence === "number") this.acknowledged(sequence, nowMs);
        return;
      }
      case "channel_closed": {
        const text = parseJson(message.payload)["Output"];
        return this.tell({ kind: "closed", text: typeof text === "string" ? text : "" });
      }
    }
  }

  /** Takes keys; they go out as fast as the far side takes them. */
  type(bytes: Uint8Array, nowMs: number): boolean {
    if (this.typedBytes + bytes.length > TYPED_MAX) return false;
    for (let at = 0; at < bytes.length; at += CHUNK) this.typed.push(bytes.subarray(at, at + CHUNK));
    this.typedBytes += bytes.length;
    this.flush(nowMs);
    return true;
  }

  resize(size: Size, nowMs: number): void {
    if (size.cols === this.size.cols && size.rows === this.size.rows) return;
    this.size = size;
    if (this.phase === "open") this.sendSize(nowMs);
  }

  /** Says the size again, to hear whether anybody answers. */
  probe(nowMs: number): void {
    if (this.phase === "open") this.sendSize(nowMs);
  }

  /** Sends again what is due. */
  tick(nowMs: number, connectedMs: number): void {
    if (this.phase === "quiet" && nowMs - connectedMs >= SILENCE_MS) this.open(nowMs);
    let oldest = true;
    for (const sent of this.waiting.values()) {
      if (oldest && nowMs - sent.sentMs >= this.rto) {
        sent.sentMs = nowMs;
        sent.again = true;
        this.send(sent.raw);
      }
      oldest = false;
    }
    this.flush(nowMs);
  }

  /** A new connection: everything unacknowledged goes out again, in order. */
  reconnected(nowMs: number): void {
    for (const sent of this.waiting.values()) {
      sent.sentMs = nowMs;
      sent.again = true;
      this.send(sent.raw);
    }
    if (this.owesSize) this.sendSize(nowMs);
    this.owesSize = false;
    this.flush(nowMs);
  }

  private acknowledged(sequence: number, nowMs: number): void {
    const sent = this.waiting.get(sequence);
    if (!sent) return;
    this.waiting.delete(sequence);
    if (!sent.again) {
      this.rtt += (Math.min(nowMs - sent.sentMs, RTO_MAX_MS) - this.rtt) / 8;
      this.rto = Math.min(Math.max(2 * this.rtt, RTO_MIN_MS), RTO_MAX_MS);
    }
    this.flush(nowMs);
  }

  private take(message: Message, nowMs: number): void {
    // What nobody has acknowledged comes first, so nothing before it is missing.
    this.expected ??= message.sequence;
    if (message.sequence < this.expected) {
      // The acknowledge was lost, unless the message is still to be shown.
      if (!this.unshown.has(message.sequence)) this.send(acknowledge(message, Date.now()));
      return;
    }
    if (message.sequence > this.expected) {
      if (this.held.size < HELD_MAX) this.held.set(message.sequence, message);
      return;
    }
    let next: Message | undefined = message;
    while (next) {
      this.held.delete(next.sequence);
      this.expected = next.sequence + 1;
      this.deliver(next, nowMs);
      next = this.held.get(this.expected);
    }
  }

  private deliver(message: Message, nowMs: number): void {
    const done = (): void => {
      this.unshown.delete(message.sequence);
      this.send(acknowledge(message, Date.now()));
    };
    switch (message.payloadType) {
      case Payload.HandshakeRequest:
        done();
        return this.shakeHands(message, nowMs);
      case Payload.HandshakeComplete: {
        done();
        const text = parseJson(message.payload)["CustomerMessage"];
        if (typeof text === "string" && text !== "") this.tell({ kind: "message", text });
        return this.open(nowMs);
      }
      case Payload.EncChallengeRequest:
        return this.tell({ kind: "unsupported", text: "the session asks for an encryption that a browser cannot do" });
      case Payload.Flag:
        return done();
      case Payload.ExitCode:
        done();
        return this.tell({ kind: "exit", text: new TextDecoder().decode(message.payload) });
      default:
        if (this.phase === "quiet") this.open(nowMs);
        // Acknowledged once it is shown: so a flood comes as fast as it can be shown.
        this.unshown.add(message.sequence);
        this.tell({ kind: "output", bytes: message.payload, done });
    }
  }

  private shakeHands(message: Message, nowMs: number): void {
    this.phase = "handshake";
    const requested = parseJson(message.payload)["RequestedClientActions"];
    const actions = (Array.isArray(requested) ? requested : []) as { ActionType?: string; ActionParameters?: { SessionType?: string } }[];
    const terminal = ["Standard_Stream", "InteractiveCommands", "NonInteractiveCommands"];
    const processed = actions.map((action) => {
      const fits = action.ActionType === "SessionType" && terminal.includes(action.ActionParameters?.SessionType ?? "");
      const error = fits ? "" : `a browser cannot do ${action.ActionType ?? "this"} ${action.ActionParameters?.SessionType ?? ""}`.trim();
      return { ActionType: action.ActionType ?? "", ActionStatus: fits ? 1 : 3, ActionResult: null, Error: error };
    });
    const errors = processed.map((action) => action.Error).filter((error) => error !== "");
    const answer = {
      ClientVersion: CLIENT_VERSION,
      ProcessedClientActions: processed,
      Errors: errors.length > 0 ? errors : null,
    };
    this.post(Payload.HandshakeResponse, json(answer), nowMs);
    if (errors.length > 0) this.tell({ kind: "unsupported", text: errors.join("; ") });
  }

  private open(nowMs: number): void {
    if (this.phase === "open") return;
    this.phase = "open";
    this.sendSize(nowMs);
    this.flush(nowMs);
  }

  private sendSize(nowMs: number): void {
    this.post(Payload.Size, json(this.size), nowMs);
  }

  private flush(nowMs: number): void {
    while (this.phase === "open" && this.waiting.size + 1 < WINDOW) {
      const chunk = this.typed.shift();
      if (!chunk) return;
      this.typedBytes -= chunk.length;
      this.post(Payload.Output, chunk, nowMs);
    }
  }

  private post(payloadType: Payload, payload: Uint8Array, nowMs: number): void {
    const sequence = this.next;
    this.next += 1;
    const raw = encode({
      type: "input_stream_data",
      sequence,
      flags: 0,
      id: crypto.randomUUID(),
      payloadType,
      payload,
      createdMs: Date.now(),
    });
    // Kept before it is sent: no acknowledge is too early.
    this.waiting.set(sequence, { raw, sentMs: nowMs, again: false });
    this.send(raw);
  }
}
