/** What the pages ask the gateway for. */

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export interface Me {
  name: string;
  arn: string;
  account: string;
  role: string | null;
  until_ms: number;
  now_ms: number;
  token: string;
  administers: boolean;
  demo: boolean;
  gateway: string;
  version: string;
}

export interface Target {
  id: string;
  name: string | null;
  account: string;
  region: string;
  platform: string | null;
  platform_name: string | null;
  platform_version: string | null;
  agent: string | null;
  online: boolean;
  last_ping_ms: number | null;
  tags: Record<string, string>;
}

export interface Access {
  allowed: boolean;
  sentence: string;
  policies: string[];
  obligations: Record<string, unknown>;
  /** What one could do to be allowed; null if nobody had the time to look. */
  hints: string[] | null;
}

/** A policy that has to do with an answer. */
export interface Decider {
  id: string;
  effect: string;
  file?: string;
  line?: number;
  text?: string;
  message: string | null;
  needs: { clause: string; holds: boolean }[];
}

/** An answer with everything that led to it. */
export interface Whole {
  allowed: boolean;
  principal: string;
  action: string;
  resource: string;
  decided_by: Decider[];
  failed: Decider[];
  needs_reason: boolean;
  nearest: Decider[];
  changes: string[][];
  obligations: Record<string, unknown> | null;
  policy_set: string;
}

export interface Session {
  id: string;
  principal: string;
  name: string;
  target: string;
  target_name: string | null;
  document: string;
  kind: string;
  reason: string | null;
  state: string;
  started_ms: number;
  ended_ms: number | null;
  end_reason: string | null;
  upstream_id: string | null;
  decision_id: string;
  node: string;
  recording_sha256: string | null;
  bytes_in: number;
  bytes_out: number;
  mine: boolean;
  idle_ms: number | null;
  kms_key_id?: string;
  archived_ms?: number;
  hold?: { since_ms: number; by: string; reason: string | null };
  host?: string;
  port?: number;
  connections?: number;
  connections_open?: number;
}

export interface Decision {
  id: string;
  at_ms: number;
  principal: string;
  name: string;
  action: string;
  target: string | null;
  document: string | null;
  session: string | null;
  allowed: boolean;
  policies: string[];
  sentence: string;
  policy_digest: string;
  source_ip: string | null;
}

export interface Hit {
  session: string;
  principal: string;
  target: string;
  started_ms: number;
  time_ms: number;
  text: string;
  source: string | null;
}

export interface Page<K extends string, T> {
  next: string | null;
  rows: T[];
  key: K;
}

/** Repeats in a header what only a page of ours was told. */
let token = "";
/** What to do when nobody is signed in any more. */
let signedOut: () => void = () => {};

export function remember(me: Me, whenSignedOut: () => void): void {
  token = me.token;
  signedOut = whenSignedOut;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await call("GET", path, undefined, signal)).json() as Promise<T>;
}

export async function post<T>(path: string, body: unknown = {}, signal?: AbortSignal): Promise<T> {
  return (await call("POST", path, body, signal)).json() as Promise<T>;
}

export async function call(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(`/console/api${path}`, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      headers: body === undefined ? {} : { "content-type": "application/json", "x-postern-token": token },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable();
  }
  if (answer.ok) return answer;
  const said = (await answer.json().catch(() => ({}))) as { error?: string; message?: string };
  if (answer.status === 401) signedOut();
  throw new ApiError(answer.status, said.error ?? "", said.message ?? `The gateway answered ${answer.status}.`);
}

export function unreachable(): ApiError {
  return new ApiError(0, "Unreachable", "The gateway cannot be reached. This page tries again by itself.");
}

export function query(values: Record<string, string | number | boolean | null | undefined>): string {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") words.set(key, String(value));
  }
  const text = words.toString();
  return text === "" ? "" : `?${text}`;
}

/** The lines of an answer that goes on. */
export async function* lines(answer: Response): AsyncGenerator<string> {
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (reader) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const whole = rest.split("\n");
    rest = whole.pop() ?? "";
    yield* whole;
  }
}
