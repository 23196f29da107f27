/** One session: facts, chain, its screen live or replayed, its files. */
import { useEffect, useRef, useState } from "preact/hooks";
import { get, query as words, type Decision, type Session } from "../api";
import { Copy, Empty, Failure, Link, Loading, State } from "../parts";
import { bytes, clean, clock, hasScreen, isOver, kind, moment, span } from "../words";
import { useLoad } from "../load";
import { EndDialog } from "./sessions";
import type { PlayerHandle } from "../player";
import type { WatchHandle } from "../watch";

export function SessionPage({ id, query }: { id: string; query: URLSearchParams }) {
  const path = `/sessions/${encodeURIComponent(id)}`;
  const { data, error, again } = useLoad((signal) => get<Session>(path, signal), [path], 3000);
  const [ending, setEnding] = useState(false);
  useEffect(() => {
    document.title = "Session · Postern";
  }, []);
  if (error !== undefined && !data) return <Failure error={error} retry={again} />;
  if (!data) return <Loading what="the session" />;
  const over = isOver(data.state);
  return (
    <>
      <div class="head">
        <div>
          <p class="dim crumbs">
            <Link to={over ? "/sessions?state=history" : "/sessions"}>Sessions</Link> /
          </p>
          <h1>
            {clean(data.name)} on {clean(data.target_name ?? data.target)} <State state={data.state} />
          </h1>
        </div>
        <div class="do">
          {!over && data.mine && hasScreen(data.kind) && (
            <Link class="button" to={`/shell/${encodeURIComponent(id)}`}>
              To the shell
            </Link>
          )}
          {!over && (
            <button class="danger" onClick={() => setEnding(true)}>
              End…
            </button>
          )}
        </div>
      </div>
      {hasScreen(data.kind) ? over ? <Replay id={id} path={path} query={query} /> : <Watch path={path} /> : <Connections path={path} session={data} />}
      <div class="columns">
        <Facts session={data} />
        <div>
          <Files path={path} session={data} />
          <Chain path={path} />
        </div>
      </div>
      {ending && <EndDialog session={data} close={() => setEnding(false)} ended={again} />}
    </>
  );
}

function Facts({ session }: { session: Session }) {
  const rows: [string, string | null | undefined][] = [
    ["Person", session.principal],
    ["Target", `${session.target_name ? `${session.target_name} · ` : ""}${session.target}`],
    ["Kind", `${kind(session.kind)} (${session.document})`],
    ["Goes to", session.host ? `${session.host}:${session.port ?? ""}` : null],
    ["Reason", session.reason],
    ["Started", moment(session.started_ms)],
    ["Ended", session.ended_ms ? `${moment(session.ended_ms)}, after ${span(session.ended_ms - session.started_ms)}` : null],
    ["Ended because", session.end_reason],
    ["In / out", `${bytes(session.bytes_in)} / ${bytes(session.bytes_out)}`],
    ["Encrypted with", session.kms_key_id],
    ["Node", session.node],
    ["Legal hold", session.hold ? `since ${moment(session.hold.since_ms)} by ${session.hold.by}${session.hold.reason ? `: ${session.hold.reason}` : ""}` : null],
  ];
  return (
    <section class="card">
      <h2>Session</h2>
      <dl>
        {rows
          .filter(([, value]) => value)
          .map(([name, value]) => (
            <>
              <dt>{name}</dt>
              <dd>{clean(value)}</dd>
            </>
          ))}
        <dt>Id</dt>
        <dd>
          <code>{session.id}</code> <Copy text={session.id} label="the session's id" />
        </dd>
      </dl>
    </section>
  );
}

interface Verified {
  result: "sealed" | "unsealed" | "damaged";
  key?: string;
  end?: string;
  what?: string;
  lines?: number;
  recovered?: boolean;
  lines_sha256?: string;
  proved?: { until_ms: number; key_id: string } | null;
}

function Files({ path, session }: { path: string; session: Session }) {
  const { data, error } = useLoad((signal) => get<Verified>(`${path}/verify`, signal), [path, session.state, session.recording_sha256]);
  const files: [string, string][] = hasScreen(session.kind)
    ? [
        ["cast", ".cast"],
        ["zst", ".cast.zst"],
        ["txt", "Text"],
      ]
    : [
        ["zst", ".cast.zst"],
        ["txt", "Table"],
        ["pcapng", ".pcapng"],
      ];
  return (
    <section class="card">
      <h2>Recording</h2>
      {error !== undefined && <p class="dim">{error instanceof Error ? clean(error.message) : ""}</p>}
      {data?.result === "sealed" && (
        <p>
          <span class="badge good">signed, unaltered</span> every byte is as it was sealed{data.recovered ? ", put together after a crash" : ""}. Key{" "}
          <code>{clean(data.key)}</code>
        </p>
      )}
      {data?.result === "unsealed" && (
        <p>
          <span class="badge warn">not sealed yet</span> {data.proved ? `proved up to ${clock(data.proved.until_ms)} by key ${clean(data.proved.key_id)}` : "nothing is proved yet"}
        </p>
      )}
      {data?.result === "damaged" && (
        <p>
          <span class="badge bad">altered</span> {clean(data.what)}
        </p>
      )}
      {session.archived_ms && <p class="dim">Archived {moment(session.archived_ms)}</p>}
      {error === undefined && (
        <p class="actions left">
          {files.map(([format, name]) => (
            <a class="button small" href={`/console/api${path}/download/${format}`} download aria-label={`Download ${name}`}>
              ↓ {name}
            </a>
          ))}
        </p>
      )}
    </section>
  );
}

interface ChainAnswer {
  principal: { arn: string; id: string; method: string };
  decision: Decision | null;
  source_identity: string;
  upstream_id: string | null;
  session: string;
  recording_sha256: string | null;
  archived: { at_ms: number; sha256: string } | null;
}

function Chain({ path }: { path: string }) {
  const { data } = useLoad((signal) => get<ChainAnswer>(`${path}/chain`, signal), [path], 10_000);
  if (!data) return null;
  const decision = data.decision;
  return (
    <section class="card">
      <h2>Audit chain</h2>
      <ol class="chain">
        <li>
          <strong>Principal</strong> <code>{clean(data.principal.arn)}</code>
          <span class="dim"> {data.principal.method === "sts_proof" ? "proved to STS" : clean(data.principal.method)}</span>
        </li>
        <li>
          <strong>Decision</strong> <code>{decision?.id}</code>
          {decision && (
            <div class="dim">
              {decision.allowed ? "allowed" : "denied"} by {decision.policies.map(clean).join(", ")} · set {decision.policy_digest.slice(0, 12)}
            </div>
          )}
        </li>
        <li>
          <strong>STS source identity</strong> <code>{clean(data.source_identity)}</code>
        </li>
        <li>
          <strong>SSM session</strong> <code>{clean(data.upstream_id) || "none"}</code>
        </li>
        <li>
          <strong>Recording SHA-256</strong> <code class="break">{data.recording_sha256 ?? "not sealed yet"}</code>
          {data.archived && <div class="dim">archived{data.archived.sha256 === data.recording_sha256 ? ", the same bytes" : " as other bytes"}</div>}
        </li>
      </ol>
    </section>
  );
}

function Watch({ path }: { path: string }) {
  const place = useRef<HTMLDivElement>(null);
  const [error, setError] = useState<unknown>();
  const [ended, setEnded] = useState(false);
  const [round, setRound] = useState(0);
  useEffect(() => {
    let gone = false;
    let handle: WatchHandle | undefined;
    const begin = async (): Promise<void> => {
      const { watch } = await import("../watch");
      if (gone || !place.current) return;
      handle = watch(place.current, `${path}/watch`, (caught) => (caught === undefined ? setEnded(true) : setError(caught)));
    };
    void begin();
    return () => {
      gone = true;
      handle?.close();
    };
  }, [path, round]);
  return (
    <section class="screen" aria-label="The session, live">
      <div class="caption">
        <span class={`badge ${ended ? "plain" : "good"}`}>{ended ? "the stream ended" : "live"}</span>
        <span class="dim">what the terminal shows, up to a second late</span>
      </div>
      {error !== undefined && <Failure error={error} retry={() => (setError(undefined), setRound(round + 1))} />}
      <div ref={place} class="watched" hidden={error !== undefined} />
    </section>
  );
}

const IDLE = [
  ["", "keep pauses"],
  ["1", "1 s"],
  ["3", "3 s"],
  ["10", "10 s"],
] as const;
const SPEEDS = [0.5, 1, 2, 4, 8, 16];

interface FoundLine {
  time_ms: number;
  text: string;
}

function Replay({ id, path, query }: { id: string; path: string; query: URLSearchParams }) {
  const place = useRef<HTMLDivElement>(null);
  const player = useRef<PlayerHandle>();
  const [idle, setIdle] = useState("3");
  const [speed, setSpeed] = useState(1);
  const [error, setError] = useState<unknown>();
  const [marks, setMarks] = useState<[number, string][]>([]);
  const [busy, setBusy] = useState(true);
  const [copied, setCopied] = useState(false);
  const at = useRef(Number(query.get("t") ?? 0) * 1000);
  useEffect(() => {
    let gone = false;
    let mine: PlayerHandle | undefined;
    setBusy(true);
    const begin = async (): Promise<void> => {
      try {
        const { openPlayer } = await import("../player");
        if (gone || !place.current) return;
        mine = await openPlayer(place.current, { path, idle, speed, atMs: at.current });
        if (gone) return mine.close();
        player.current = mine;
        setMarks(mine.marks);
        setBusy(false);
      } catch (caught) {
        if (!gone) setError(caught);
      }
    };
    void begin();
    return () => {
      gone = true;
      if (mine) {
        at.current = mine.nowMs();
        mine.close();
      }
      player.current = undefined;
    };
  }, [path, idle, speed]);
  const jump = (ms: number): void => void player.current?.seek(ms);
  const link = async (): Promise<void> => {
    const seconds = Math.floor((player.current?.nowMs() ?? 0) / 1000);
    history.replaceState(null, "", `${location.pathname}?t=${seconds}`);
    await navigator.clipboard.writeText(location.href);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  if (error !== undefined) return <Failure error={error} />;
  return (
    <section class="screen replay" aria-label="Replay">
      <div class="stage">
        {busy && <Loading what="the recording" />}
        <div ref={place} class="player" />
        <div class="caption">
          <label>
            Speed{" "}
            <select value={String(speed)} onChange={(event) => setSpeed(Number(event.currentTarget.value))}>
              {SPEEDS.map((value) => (
                <option value={String(value)}>{value}×</option>
              ))}
            </select>
          </label>
          <label>
            Longest pause{" "}
            <select value={idle} onChange={(event) => setIdle(event.currentTarget.value)}>
              {IDLE.map(([value, name]) => (
                <option value={value}>{name}</option>
              ))}
            </select>
          </label>
          <button class="small" onClick={() => void link()}>
            {copied ? "Copied" : "Link to this moment"}
          </button>
        </div>
      </div>
      <div class="moments">
        <FindIn path={path} jump={jump} />
        <h2>Commands and marks</h2>
        {marks.length === 0 && <p class="dim">None in this recording.</p>}
        <ol class="marks">
          {marks.map(([ms, label]) => (
            <li>
              <button onClick={() => jump(ms)}>
                <time>{clock(ms)}</time> <code>{clean(label)}</code>
              </button>
            </li>
          ))}
        </ol>
      </div>
      <span hidden>{id}</span>
    </section>
  );
}

function FindIn({ path, jump }: { path: string; jump: (ms: number) => void }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState<{ lines: FoundLine[]; more: boolean }>();
  const [error, setError] = useState<unknown>();
  const find = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (text.trim() === "") return setFound(undefined);
    try {
      setFound(await get(`${path}/find${words({ text: text.trim() })}`));
      setError(undefined);
    } catch (caught) {
      setError(caught);
    }
  };
  return (
    <form class="find-in" role="search" onSubmit={(event) => void find(event)}>
      <input type="search" aria-label="Find in the recording" placeholder="Find in the recording" value={text} onInput={(event) => setText(event.currentTarget.value)} />
      {error !== undefined && <Failure error={error} />}
      {found && found.lines.length === 0 && <p class="dim" role="status">Not on any line.</p>}
      {found && found.lines.length > 0 && (
        <ol class="marks" aria-label="Lines found">
          {found.lines.map((line) => (
            <li>
              <button type="button" onClick={() => jump(line.time_ms)}>
                <time>{clock(line.time_ms)}</time> <code>{clean(line.text)}</code>
              </button>
            </li>
          ))}
        </ol>
      )}
      {found?.more && <p class="dim">Only the first {found.lines.length} are shown.</p>}
    </form>
  );
}

interface Flow {
  connection: number;
  opened_ms: number;
  closed_ms: number | null;
  up: number;
  down: number;
  guesses: { protocol?: string; word?: string }[];
  end: string | null;
}

function Connections({ path, session }: { path: string; session: Session }) {
  const { data, error, again } = useLoad(
    (signal) => get<{ table: { connections: Flow[]; omitted: number } | null }>(`${path}/connections`, signal),
    [path],
    isOver(session.state) ? 0 : 5000,
  );
  if (error !== undefined && !data) return <Failure error={error} retry={again} />;
  if (!data) return <Loading what="connections" />;
  const flows = data.table?.connections ?? [];
  if (flows.length === 0) return <Empty title="No connection yet">This session carries a port; its connections appear here.</Empty>;
  return (
    <section class="card">
      <h2>Connections</h2>
      <div class="scroll">
        <table class="list">
          <thead>
            <tr>
              <th>#</th>
              <th>Opened</th>
              <th>For</th>
              <th class="number">Up</th>
              <th class="number">Down</th>
              <th>Ended by</th>
            </tr>
          </thead>
          <tbody>
            {flows.slice(-200).map((flow) => (
              <tr>
                <td data-name="#">{flow.connection}</td>
                <td data-name="Opened">{clock(flow.opened_ms)}</td>
                <td data-name="For">{flow.closed_ms === null ? "open" : span(flow.closed_ms - flow.opened_ms)}</td>
                <td data-name="Up" class="number">
                  {bytes(flow.up)}
                </td>
                <td data-name="Down" class="number">
                  {bytes(flow.down)}
                </td>
                <td data-name="Ended by">{flow.end ?? ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
