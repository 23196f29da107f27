/** What a port or SSH session carried, connection by connection. */
import { get, type Session } from "../api";
import { Empty, Failure, Loading } from "../parts";
import { bytes, clean, clock, isOver, span } from "../words";
import { useLoad } from "../load";

interface Flow {
  connection: number;
  opened_ms: number;
  closed_ms: number | null;
  up: number;
  down: number;
  guesses: { protocol: string; server_name?: string; host?: string; method?: string }[];
  end: string | null;
}

export function Connections({ path, session }: { path: string; session: Session }) {
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
              <th>Looks like</th>
              <th class="number">Up</th>
              <th class="number">Down</th>
              <th>Ended by</th>
            </tr>
          </thead>
          <tbody>
            {flows.map((flow) => (
              <tr>
                <td data-name="#">{flow.connection}</td>
                <td data-name="Opened">{clock(flow.opened_ms)}</td>
                <td data-name="For">{flow.closed_ms === null ? "open" : span(flow.closed_ms - flow.opened_ms)}</td>
                <td data-name="Looks like">{looksLike(flow)}</td>
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
      {data.table && data.table.omitted > 0 && (
        <p class="dim">Only the last {flows.length} are shown; the table to download has them all.</p>
      )}
    </section>
  );
}

/** What its first bytes show: a protocol, and whom it asks for. */
function looksLike(flow: Flow): string {
  const told = flow.guesses.map((guess) => [guess.protocol, guess.server_name ?? guess.host].filter(Boolean).join(" "));
  return clean([...new Set(told)].join(", "));
}
