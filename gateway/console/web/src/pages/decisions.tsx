/** The decision ledger. */
import { useEffect, useState } from "preact/hooks";
import { get, query as words, type Decision, type Me } from "../api";
import { Empty, Failure, Link, Loading } from "../parts";
import { go } from "../route";
import { clean, moment } from "../words";
import { useLoad } from "../load";

interface Answer {
  decisions: Decision[];
  next: string | null;
  all: boolean;
}

export function DecisionsPage({ query, me }: { query: URLSearchParams; me: Me }) {
  const filter = { allowed: query.get("allowed") ?? "", owner: query.get("owner") ?? "", target: query.get("target") ?? "", session: query.get("session") ?? "" };
  const { data, error, again } = useLoad((signal) => get<Answer>(`/decisions${words({ ...filter, limit: 50 })}`, signal), [filter], 5000);
  const [older, setOlder] = useState<{ of: string; rows: Decision[]; next: string | null }>();
  useEffect(() => {
    document.title = "Decisions · Postern";
  }, []);
  const key = JSON.stringify(filter);
  const rest = older?.of === key ? older : undefined;
  const next = rest ? rest.next : (data?.next ?? null);
  const rows = [...(data?.decisions ?? []), ...(rest?.rows ?? [])];
  const narrow = (change: Partial<typeof filter>): void => go(`/decisions${words({ ...filter, ...change })}`);
  const more = async (): Promise<void> => {
    const page = await get<Answer>(`/decisions${words({ ...filter, limit: 50, token: next })}`);
    setOlder({ of: key, rows: [...(rest?.rows ?? []), ...page.decisions], next: page.next });
  };
  return (
    <>
      <div class="head">
        <h1>Decisions</h1>
      </div>
      <p class="dim">{data?.all ? "Everybody’s." : `Those that ${clean(me.name)} asked for, and those about sessions that ${clean(me.name)} may see.`}</p>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <label>
          Answer
          <select value={filter.allowed} onChange={(event) => narrow({ allowed: event.currentTarget.value })}>
            <option value="">any</option>
            <option value="false">denied</option>
            <option value="true">allowed</option>
          </select>
        </label>
        <label>
          Target
          <input value={filter.target} placeholder="i-… or mi-…" onChange={(event) => narrow({ target: event.currentTarget.value.trim() })} />
        </label>
        <label>
          Person
          <input value={filter.owner} placeholder="ARN" onChange={(event) => narrow({ owner: event.currentTarget.value.trim() })} />
        </label>
        <label>
          Session
          <input value={filter.session} placeholder="id" onChange={(event) => narrow({ session: event.currentTarget.value.trim() })} />
        </label>
      </form>
      {error !== undefined && <Failure error={error} retry={again} />}
      {!data && error === undefined && <Loading what="decisions" />}
      {data && rows.length === 0 && <Empty title="No decision fits" />}
      <ul class="decisions">
        {rows.map((decision) => (
          <li key={decision.id} class="card">
            <details>
              <summary>
                <span class={`badge ${decision.allowed ? "good" : "bad"}`}>{decision.allowed ? "allowed" : "denied"}</span>
                <strong>{clean(decision.name)}</strong> {clean(decision.action)} {decision.target && <>on {clean(decision.target)}</>}
                <span class="grow" />
                <span class="dim">{moment(decision.at_ms)}</span>
              </summary>
              <p>{clean(decision.sentence)}</p>
              <dl>
                <dt>Policies</dt>
                <dd>{decision.policies.map(clean).join(", ") || "none permits it"}</dd>
                <dt>Person</dt>
                <dd>{clean(decision.principal)}</dd>
                <dt>From</dt>
                <dd>{clean(decision.source_ip)}</dd>
                <dt>Policy set</dt>
                <dd>
                  <code class="break">{decision.policy_digest}</code>
                </dd>
                <dt>Decision</dt>
                <dd>
                  <code>{decision.id}</code>
                </dd>
                {decision.session && (
                  <>
                    <dt>Session</dt>
                    <dd>
                      <Link to={`/sessions/${encodeURIComponent(decision.session)}`}>{clean(decision.session)}</Link>
                    </dd>
                  </>
                )}
              </dl>
            </details>
          </li>
        ))}
      </ul>
      {next && (
        <p class="actions">
          <button onClick={() => void more()}>Older ones</button>
        </p>
      )}
    </>
  );
}
