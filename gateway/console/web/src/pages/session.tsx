/** One session: facts, chain, its screen live or replayed, its files. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get, type Decision, type Session } from "../api";
import { Copy, Failure, Link, Loading, State } from "../parts";
import { bytes, clean, clock, hasScreen, isOver, kind, moment, span } from "../words";
import { useLoad } from "../load";
import { Connections } from "./connections";
import { Replay, Watch } from "./screen";
import { EndDialog } from "./sessions";

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
      {hasScreen(data.kind) ? over ? <Replay path={path} query={query} /> : <Watch path={path} /> : <Connections path={path} session={data} />}
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
  doubts?: string[];
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
      {data?.doubts?.map((doubt) => (
        <p>
          <span class="badge warn">not all is proved</span> {clean(doubt)}
        </p>
      ))}
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
      <Places path={path} session={session} />
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

interface PlacesAnswer {
  log: { group: string; stream: string; region: string; url: string | null } | null;
  archive: { location: string; url: string | null } | null;
}

/** Where its output lies besides the gateway; nothing for who may not replay it. */
function Places({ path, session }: { path: string; session: Session }) {
  const { data } = useLoad((signal) => get<PlacesAnswer>(`${path}/places`, signal), [path, session.archived_ms]);
  if (!data?.log && !data?.archive) return null;
  return (
    <dl class="places">
      {data.log && (
        <>
          <dt>CloudWatch Logs</dt>
          <dd>
            <Outside url={data.log.url}>
              {clean(data.log.group)} / {clean(data.log.stream)}
            </Outside>{" "}
            <span class="dim">{clean(data.log.region)}</span>
          </dd>
        </>
      )}
      {data.archive && (
        <>
          <dt>Archive</dt>
          <dd>
            <Outside url={data.archive.url}>{clean(data.archive.location)}</Outside> <Copy text={data.archive.location} label="where it is archived" />
            {session.archived_ms && <div class="dim">since {moment(session.archived_ms)}</div>}
          </dd>
        </>
      )}
    </dl>
  );
}

/** A link to AWS's pages, if there are any for it. */
function Outside({ url, children }: { url: string | null; children: ComponentChildren }) {
  const name = <code class="break">{children}</code>;
  if (!url?.startsWith("https://")) return name;
  return (
    <a href={url} target="_blank" rel="noopener noreferrer">
      {name}
    </a>
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
