import { describe, expect, it } from "vitest";
import { Conversation, type Event, type Memory } from "../src/channel/conversation";
import { CHUNK, Payload, acknowledge, decode, encode, json, parseJson, type Draft, type Message } from "../src/channel/message";

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const buffer = (bytes: Uint8Array): ArrayBuffer => bytes.slice().buffer as ArrayBuffer;

const INPUT: Draft = {
  type: "input_stream_data", sequence: 0, flags: 0, id: "dd01e56b-ff48-483e-a508-b5f073f31b16",
  createdMs: 1503434274948, payloadType: Payload.Output, payload: Uint8Array.of(0x6c, 0x73, 0x0d),
};

describe("a message", () => {
  it("is, byte for byte, what the agent reads", () => {
    expect(hex(encode(INPUT))).toBe(
      "00000074696e7075745f73747265616d5f64617461202020202020202020202020202020000000010000015e0baa7884" +
        "00000000000000000000000000000000a508b5f073f31b16dd01e56bff48483e1d887ce0f8672e4914d9000e801cd74e" +
        "cd805dd9366c0bc42dc16adc0197dc2f00000001000000036c730d",
    );
  });

  it("is acknowledged in the words that the agent expects", () => {
    const message = decode(buffer(encode(INPUT)));
    const raw = acknowledge(message as Message, 1503434274948);
    expect(raw.length).toBe(295);
    expect(hex(raw.subarray(80, 88))).toBe("77da25ed457f36d5");
    expect(hex(raw.subarray(56, 64))).toBe("0000000000000003");
  });

  it("that was altered, cut or is none is not taken", () => {
    const good = encode(INPUT);
    for (const at of [80, 100, good.length - 1]) {
      const bad = good.slice();
      bad[at] = (bad[at] ?? 0) ^ 1;
      expect(decode(buffer(bad))).toBeUndefined();
    }
    expect(decode(buffer(good.slice(0, 119)))).toBeUndefined();
    const far = good.slice();
    far.set([0xff, 0xff, 0xff, 0xf0], 0);
    expect(decode(buffer(far))).toBeUndefined();
    expect(decode(new ArrayBuffer(0))).toBeUndefined();
  });
});

/** An agent at the other end of a conversation. */
class Agent {
  sent: Message[] = [];
  events: Event[] = [];
  // Between two milliseconds, as a browser's clock mostly is.
  now = 0.25;
  private next = 0;
  conversation: Conversation;

  constructor(memory?: Memory) {
    const take = (raw: Uint8Array): void => void this.sent.push(decode(buffer(raw)) as Message);
    this.conversation = new Conversation({ cols: 80, rows: 24 }, take, (event) => this.events.push(event), memory);
    this.next = memory?.expected ?? 0;
  }

  say(text: string | Uint8Array, payloadType = Payload.Output, sequence = this.next++): void {
    const payload = typeof text === "string" ? new TextEncoder().encode(text) : text;
    const draft: Draft = { ...INPUT, type: "output_stream_data", id: crypto.randomUUID(), sequence, payloadType, payload };
    this.conversation.receive(buffer(encode(draft)), this.now);
  }

  acknowledgeAll(): void {
    for (const message of this.inputs()) this.conversation.receive(buffer(acknowledge(message, 1)), this.now);
  }

  inputs(): Message[] {
    return this.sent.filter((message) => message.type === "input_stream_data");
  }

  acknowledged(): number[] {
    const acks = this.sent.filter((message) => message.type === "acknowledge");
    return acks.map((ack) => parseJson(ack.payload)["AcknowledgedMessageSequenceNumber"] as number);
  }

  shown(): string {
    return this.events.flatMap((event) => (event.kind === "output" ? [new TextDecoder().decode(event.bytes)] : [])).join("");
  }

  show(): void {
    for (const event of this.events) if (event.kind === "output") event.done();
  }
}

describe("a conversation", () => {
  it("tells its size once the agent was heard, and then what was typed", () => {
    const agent = new Agent();
    agent.conversation.type(new TextEncoder().encode("ls\r"), 0);
    expect(agent.inputs()).toHaveLength(0);
    agent.say("$ ");
    const [size, keys] = agent.inputs();
    expect([size?.payloadType, parseJson(size?.payload as Uint8Array)]).toEqual([Payload.Size, { cols: 80, rows: 24 }]);
    expect([keys?.sequence, new TextDecoder().decode(keys?.payload)]).toEqual([1, "ls\r"]);
  });

  it("answers a handshake, and only then takes keys", () => {
    const agent = new Agent();
    const action = { ActionType: "SessionType", ActionParameters: { SessionType: "NonInteractiveCommands" } };
    agent.say(json({ AgentVersion: "3.3.0.0", RequestedClientActions: [action] }), Payload.HandshakeRequest);
    agent.conversation.type(Uint8Array.of(3), 0);
    const [answer, ...rest] = agent.inputs();
    expect(rest).toEqual([]);
    expect(answer?.payloadType).toBe(Payload.HandshakeResponse);
    expect(parseJson(answer?.payload as Uint8Array)).toMatchObject({ Errors: null, ProcessedClientActions: [{ ActionStatus: 1 }] });
    agent.say(json({ CustomerMessage: "hello" }), Payload.HandshakeComplete);
    expect(agent.inputs().map((message) => message.payloadType)).toEqual([6, 3, 1]);
    expect(agent.events).toContainEqual({ kind: "message", text: "hello" });
  });

  it("refuses a port, which no browser can carry", () => {
    const agent = new Agent();
    const action = { ActionType: "SessionType", ActionParameters: { SessionType: "Port" } };
    agent.say(json({ RequestedClientActions: [action] }), Payload.HandshakeRequest);
    expect(agent.events).toMatchObject([{ kind: "unsupported" }]);
  });

  it("acknowledges output once it is shown, and not before", () => {
    const agent = new Agent();
    agent.say("one");
    agent.say("two");
    expect(agent.acknowledged()).toEqual([]);
    agent.say("one", Payload.Output, 0);
    expect(agent.acknowledged()).toEqual([]);
    agent.show();
    expect(agent.acknowledged()).toEqual([0, 1]);
    agent.say("one", Payload.Output, 0);
    expect(agent.acknowledged()).toEqual([0, 1, 0]);
    expect(agent.shown()).toBe("onetwo");
  });

  it("shows everything once and in order, however it comes", () => {
    const agent = new Agent();
    for (const sequence of [0, 3, 1, 1, 3, 2, 0, 4]) agent.say(String(sequence), Payload.Output, sequence);
    expect(agent.shown()).toBe("01234");
  });

  it("sends again what nobody acknowledged, and all of it on a new connection", () => {
    const agent = new Agent();
    agent.say("$ ");
    agent.acknowledgeAll();
    agent.conversation.type(new TextEncoder().encode("a"), 0);
    agent.conversation.type(new TextEncoder().encode("b"), 0);
    const before = agent.inputs().length;
    agent.conversation.tick(50, 0);
    expect(agent.inputs()).toHaveLength(before);
    agent.conversation.tick(1100, 0);
    expect(agent.inputs().at(-1)?.sequence).toBe(1);
    agent.conversation.reconnected(1200);
    expect(agent.inputs().slice(-2).map((message) => message.sequence)).toEqual([1, 2]);
  });

  it("never has more than a window on its way, and loses nothing of a paste", () => {
    const agent = new Agent();
    agent.say("$ ");
    const paste = new Uint8Array(600 * CHUNK + 7).fill(120);
    expect(agent.conversation.type(paste, 0)).toBe(true);
    const waiting = (): number => agent.inputs().length - new Set(done).size;
    const done: number[] = [];
    let most = 0;
    while (done.length < agent.inputs().length) {
      most = Math.max(most, waiting());
      const next = agent.inputs()[done.length] as Message;
      done.push(next.sequence);
      agent.conversation.receive(buffer(acknowledge(next, 1)), 0);
    }
    expect(most).toBeLessThanOrEqual(256);
    const bytes = agent.inputs().filter((message) => message.payloadType === Payload.Output).reduce((sum, message) => sum + message.payload.length, 0);
    expect(bytes).toBe(paste.length);
    expect(agent.conversation.type(new Uint8Array(33 * 1024 * 1024), 0)).toBe(false);
  });

  it("goes on in a page that is loaded anew, with the numbers of the one before", () => {
    const first = new Agent();
    first.say("shown");
    first.show();
    first.say("not shown");
    first.conversation.type(new TextEncoder().encode("typed"), 0);
    const memory = JSON.parse(JSON.stringify(first.conversation.memory())) as Memory;
    expect(memory).toMatchObject({ expected: 1, next: 2, open: true });
    const second = new Agent(memory);
    second.conversation.reconnected(0);
    // And the size of its window, which may be another one.
    expect(second.inputs().map((message) => [message.sequence, message.payloadType])).toEqual([[0, 3], [1, 1], [2, 3]]);
    second.say("not shown");
    expect(second.shown()).toBe("not shown");
    second.conversation.type(new TextEncoder().encode("more"), 0);
    expect(second.inputs().at(-1)?.sequence).toBe(3);
  });

  it("begins in a page that knows nothing with what nobody has acknowledged", () => {
    const agent = new Agent({ expected: null, next: 7, waiting: [], open: true });
    agent.conversation.reconnected(0);
    expect(agent.conversation.memory().expected).toBeNull();
    agent.say("b", Payload.Output, 42);
    agent.say("a", Payload.Output, 41);
    agent.say("c", Payload.Output, 43);
    expect(agent.shown()).toBe("bc");
    expect(agent.conversation.memory().expected).toBe(42);
    agent.conversation.type(Uint8Array.of(3), 0);
    expect(agent.inputs().map((message) => message.sequence)).toEqual([7, 8]);
  });

  it("opens after a while of silence, for programs that say nothing", () => {
    const agent = new Agent();
    agent.conversation.tick(2900, 0);
    expect(agent.inputs()).toEqual([]);
    agent.conversation.tick(3000, 0);
    expect(agent.inputs().map((message) => message.payloadType)).toEqual([Payload.Size]);
  });
});
