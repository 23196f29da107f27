/** Search over all recordings that one may replay. */
import { useEffect, useState } from "preact/hooks";
import { post, type Hit } from "../api";
import { Empty, Failure, Link } from "../parts";
import { go } from "../route";
import { query as words } from "../api";
import { clean, clock, moment } from "../words";

export function SearchPage({ query }: { query: URLSearchParams }) {
  const asked = { text: query.get("q") ?? "", kind: query.get("kind") ?? "lines", regex: query.get("regex") === "1" };
  const [text, setText] = useState(asked.text);
  const [kind, setKind] = useState(asked.kind);
  const [regex, setRegex] = useState(asked.regex);
  const [hits, setHits] = useState<Hit[]>();
  const [next, setNext] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const search = async (token?: string): Promise<void> => {
    setBusy(true);
    setError(undefined);
    try {
      const body = {
        ...(asked.regex ? { regex: asked.text } : { text: asked.text }),
        commands: asked.kind === "commands",
        limit: 50,
        ...(token ? { token } : {}),
      };
      const answer = await post<{ hits: Hit[]; next: string | null }>("/search", body);
      setHits((before) => (token ? [...(before ?? []), ...answer.hits] : answer.hits));
      setNext(answer.next);
    } catch (caught) {
      setError(caught);
    }
    setBusy(false);
  };
  useEffect(() => {
    document.title = "Search · Postern";
    setHits(undefined);
    if (asked.text !== "") void search();
  }, [asked.text, asked.kind, asked.regex]);
  const submit = (event: Event): void => {
    event.preventDefault();
    go(`/search${words({ q: text.trim(), kind, regex: regex ? 1 : "" })}`);
  };
  return (
    <>
      <div class="head">
        <h1>Search recordings</h1>
      </div>
      <form class="filters" role="search" onSubmit={submit}>
        <label class="wide">
          Text
          <input type="search" value={text} autoFocus placeholder="permission denied" onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <label>
          In
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
            <option value="lines">all that was shown</option>
            <option value="commands">commands</option>
          </select>
        </label>
        <label class="check">
          <input type="checkbox" checked={regex} onChange={(event) => setRegex(event.currentTarget.checked)} /> Regular expression
        </label>
        <button class="primary" disabled={text.trim() === ""}>
          Search
        </button>
      </form>
      {error !== undefined && <Failure error={error} />}
      {busy && !hits && <p role="status">Searching…</p>}
      {!hits && !busy && error === undefined && (
        <Empty title="Find what was on any screen">Every recording that you may replay is searched, once it is sealed.</Empty>
      )}
      {hits && hits.length === 0 && <Empty title="Nothing found">Sessions that still run are not searched; open them to look.</Empty>}
      <ul class="hits">
        {(hits ?? []).map((hit) => (
          <li>
            <Link to={`/sessions/${encodeURIComponent(hit.session)}?t=${Math.max(0, Math.floor(hit.time_ms / 1000))}`}>
              <code>{clean(hit.text)}</code>
              <span class="dim">
                {clean(hit.principal.split("/").pop() ?? hit.principal)} on {clean(hit.target)} · {moment(hit.started_ms)} · at {clock(hit.time_ms)}
                {hit.source && ` · ${hit.source === "guess" ? "looks like a command" : `command, known from the ${clean(hit.source)}`}`}
              </span>
            </Link>
          </li>
        ))}
      </ul>
      {next && (
        <p class="actions">
          <button disabled={busy} onClick={() => void search(next)}>
            More
          </button>
        </p>
      )}
    </>
  );
}
