/** Who is where, and who was. */
import { useEffect, useState } from "preact/hooks";
import { get, post, query as words, type Session } from "../api";
import { Empty, Failure, Link, Loading, ReasonDialog, State } from "../parts";
import { go } from "../route";
import { ago, bytes, clean, hasScreen, isOver, kind, moment, span } from "../words";
import { useFollow } from "../load";

interface Answer {
  sessions: Session[];
  next: string | null;
}

const STATES = ["Connecting", "Connected", "Disconnected", "Terminating", "Terminated", "Failed"];

export function SessionsPage({ query }: { query: URLSearchParams }) {
  const state = query.get("state") === "history" ? "history" : "active";
  const [status, target, owner] = [query.get("status") ?? "", query.get("target") ?? "", query.get("owner") ?? ""];
  const filter = { state, status, target, owner };
  const { data, error, again } = useFollow<Answer>(`/session-list${words({ ...filter, limit: 50 })}`);
  const [older, setOlder] = useState<{ of: string; rows: Session[]; next: string | null }>();
  const [ending, setEnding] = useState<Session>();
  useEffect(() => {
    document.title = "Sessions · Postern";
  }, []);
  const key = JSON.stringify(filter);
  const rest = older?.of === key ? older : undefined;
  const next = rest ? rest.next : (data?.next ?? null);
  const more = async (): Promise<void> => {
    const page = await get<Answer>(`/sessions${words({ ...filter, limit: 50, token: next })}`);
    setOlder({ of: key, rows: [...(rest?.rows ?? []), ...page.sessions], next: page.next });
  };
  const narrow = (change: Partial<typeof filter>): void => go(`/sessions${words({ ...filter, ...change })}`);
  const rows = [...(data?.sessions ?? []), ...(rest?.rows ?? [])];
  const now = Date.now();
  return (
    <>
      <div class="head">
        <h1>Sessions</h1>
        <div class="tabs" role="group" aria-label="Which sessions">
          <button aria-pressed={state === "active"} onClick={() => narrow({ state: "active", status: "" })}>
            Active
          </button>
          <button aria-pressed={state === "history"} onClick={() => narrow({ state: "history", status: "" })}>
            History
          </button>
        </div>
      </div>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <label>
          Status
          <select value={status} onChange={(event) => narrow({ status: event.currentTarget.value })}>
            <option value="">any</option>
            {STATES.filter((word) => isOver(word) === (state === "history")).map((word) => (
              <option value={word}>{word}</option>
            ))}
          </select>
        </label>
        <label>
          Target
          <input value={target} placeholder="i-… or mi-…" onChange={(event) => narrow({ target: event.currentTarget.value.trim() })} />
        </label>
        <label>
          Owner
          <input value={owner} placeholder="ARN" onChange={(event) => narrow({ owner: event.currentTarget.value.trim() })} />
        </label>
      </form>
      {error !== undefined && <Failure error={error} retry={again} />}
      {!data && error === undefined && <Loading what="sessions" />}
      {data && rows.length === 0 && (
        <Empty title={state === "active" ? "No session is running" : "No session has ended yet"}>
          You see your own sessions, and those that policy lets you watch.
        </Empty>
      )}
      {rows.length > 0 && (
        <div class="scroll">
          <table class="list">
            <thead>
              <tr>
                <th>Who</th>
                <th>Target</th>
                <th>Kind</th>
                <th>Status</th>
                <th>{state === "active" ? "Since" : "Started"}</th>
                <th class="number">In / out</th>
                <th>
                  <span class="unseen">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((session) => (
                <tr key={session.id}>
                  <td data-name="Who">
                    <Link to={`/sessions/${encodeURIComponent(session.id)}`}>{clean(session.name)}</Link>
                    {session.mine && <span class="dim"> (you)</span>}
                  </td>
                  <td data-name="Target">
                    {clean(session.target_name ?? session.target)}
                    {session.reason && <div class="dim reason">“{clean(session.reason)}”</div>}
                  </td>
                  <td data-name="Kind">{kind(session.kind)}</td>
                  <td data-name="Status">
                    <State state={session.state} />
                  </td>
                  <td data-name="When" title={moment(session.started_ms)}>
                    {session.ended_ms ? `${moment(session.started_ms)}, ${span(session.ended_ms - session.started_ms)}` : ago(session.started_ms, now)}
                    {session.idle_ms !== null && session.idle_ms > 60_000 && <div class="dim reason">idle {span(session.idle_ms)}</div>}
                  </td>
                  <td data-name="In / out" class="number">
                    {bytes(session.bytes_in)} / {bytes(session.bytes_out)}
                  </td>
                  <td class="do">
                    <Link class="button small" to={`/sessions/${encodeURIComponent(session.id)}`} label={`${isOver(session.state) ? "Replay" : "Watch"} ${session.id}`}>
                      {isOver(session.state) ? (hasScreen(session.kind) ? "Replay" : "Show") : hasScreen(session.kind) ? "Watch" : "Show"}
                    </Link>
                    {!isOver(session.state) && (
                      <button class="small danger" aria-label={`End ${session.id}`} onClick={() => setEnding(session)}>
                        End…
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {next && (
        <p class="actions">
          <button onClick={() => void more()}>Older ones</button>
        </p>
      )}
      {ending && <EndDialog session={ending} close={() => setEnding(undefined)} ended={again} />}
    </>
  );
}

export function EndDialog({ session, close, ended }: { session: Session; close: () => void; ended: () => void }) {
  return (
    <ReasonDialog
      title={`End ${clean(session.name)}’s session on ${clean(session.target_name ?? session.target)}?`}
      text="What runs in it is cut off. The person reads your reason on their screen, and it is recorded."
      action="End session"
      danger
      required={false}
      close={close}
      give={async (reason) => {
        await post(`/sessions/${encodeURIComponent(session.id)}/end`, reason === "" ? {} : { reason });
        close();
        ended();
      }}
    />
  );
}
