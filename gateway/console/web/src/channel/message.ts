/** The frames of a data channel: a header of 120 bytes, then the payload. */
import { sha256 } from "@noble/hashes/sha2";

/** Where the payload's length stands; the header ends four bytes later. */
const HEADER = 116;
const HEADER_BYTES = HEADER + 4;
const TYPE_BYTES = 32;
/** Most payload bytes of one message. */
export const CHUNK = 1024;

export const enum Payload {
  None = 0,
  Output = 1,
  Size = 3,
  HandshakeRequest = 5,
  HandshakeResponse = 6,
  HandshakeComplete = 7,
  EncChallengeRequest = 8,
  Flag = 10,
  StdErr = 11,
  ExitCode = 12,
}

export type MessageType =
  | "input_stream_data"
  | "output_stream_data"
  | "acknowledge"
  | "channel_closed"
  | "start_publication"
  | "pause_publication";

export interface Message {
  type: string;
  sequence: number;
  id: string;
  payloadType: number;
  payload: Uint8Array;
}

export interface Draft {
  type: MessageType;
  sequence: number;
  flags: number;
  id: string;
  payloadType: Payload;
  payload: Uint8Array;
  createdMs: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The bytes of a message as they go onto the wire. */
export function encode(draft: Draft): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + draft.payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, HEADER);
  bytes.fill(0x20, 4, 4 + TYPE_BYTES);
  bytes.set(encoder.encode(draft.type), 4);
  view.setUint32(36, 1);
  view.setBigUint64(40, BigInt(Math.trunc(draft.createdMs)));
  view.setBigInt64(48, BigInt(draft.sequence));
  view.setBigUint64(56, BigInt(draft.flags));
  bytes.set(swapped(fromUuid(draft.id)), 64);
  bytes.set(sha256(draft.payload), 80);
  view.setUint32(112, draft.payloadType);
  view.setUint32(116, draft.payload.length);
  bytes.set(draft.payload, HEADER_BYTES);
  return bytes;
}

/** Reads a message; undefined for what is none, or not whole, or altered. */
export function decode(buffer: ArrayBuffer): Message | undefined {
  if (buffer.byteLength < HEADER_BYTES) return undefined;
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  const start = view.getUint32(0) + 4;
  if (start < HEADER_BYTES || start > bytes.length) return undefined;
  const sequence = Number(view.getBigInt64(48));
  if (!Number.isSafeInteger(sequence)) return undefined;
  const payload = bytes.subarray(start);
  if (payload.length > 0 && !equal(sha256(payload), bytes.subarray(80, 112))) return undefined;
  return {
    type: decoder.decode(bytes.subarray(4, 4 + TYPE_BYTES)).replaceAll("\0", "").trim(),
    sequence,
    id: toUuid(swapped(bytes.subarray(64, 80))),
    payloadType: view.getUint32(112),
    payload,
  };
}

/** The acknowledge of a message. */
export function acknowledge(message: Message, createdMs: number): Uint8Array {
  const payload = {
    AcknowledgedMessageType: message.type,
    AcknowledgedMessageId: message.id,
    AcknowledgedMessageSequenceNumber: message.sequence,
    IsSequentialMessage: true,
  };
  return encode({
    type: "acknowledge",
    sequence: 0,
    flags: 3,
    id: crypto.randomUUID(),
    payloadType: Payload.None,
    payload: json(payload),
    createdMs,
  });
}

export function json(value: unknown): Uint8Array {
  return encoder.encode(JSON.stringify(value));
}

export function parseJson(payload: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(decoder.decode(payload));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** On the wire the halves of an id are swapped. */
function swapped(id: Uint8Array): Uint8Array {
  const out = new Uint8Array(16);
  out.set(id.subarray(8, 16), 0);
  out.set(id.subarray(0, 8), 8);
  return out;
}

function fromUuid(text: string): Uint8Array {
  const hex = text.replaceAll("-", "");
  return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

function toUuid(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
