/** The screen of a session: live while it runs, replayed afterwards. */
import { useEffect, useRef, useState } from "preact/hooks";
import { get, query as words } from "../api";
import { Failure, Loading } from "../parts";
import { clean, clock } from "../words";
import type { PlayerHandle } from "../player";
import type { WatchHandle } from "../watch";

export function Watch({ path }: { path: string }) {
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

export function Replay({ path, query }: { path: string; query: URLSearchParams }) {
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
