/** A shell in a tab of its own; the terminal is loaded when it is needed. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, post, query as words, type Session } from "../api";
import { Failure, Link, Loading, State } from "../parts";
import { clean } from "../words";
import { SignedOut, type Status, type Ticket } from "../channel/channel";
import { EndDialog } from "./sessions";
import type { TerminalHandle } from "../terminal";

export function ShellPage({ id }: { id: string }) {
  const place = useRef<HTMLDivElement>(null);
  const handle = useRef<TerminalHandle>();
  const [status, setStatus] = useState<Status>({ is: "connecting" });
  const [session, setSession] = useState<Session>();
  const [error, setError] = useState<unknown>();
  const [ending, setEnding] = useState(false);
  const [finding, setFinding] = useState(false);

  const look = async (): Promise<void> => {
    try {
      setSession(await get<Session>(`/sessions/${encodeURIComponent(id)}`));
    } catch {
      // The terminal works without it.
    }
  };

  useEffect(() => {
    document.title = "Shell · Postern";
    let gone = false;
    const open = async (): Promise<void> => {
      try {
        await look();
        const { openTerminal } = await import("../terminal");
        if (gone || !place.current) return;
        handle.current = await openTerminal(place.current, {
          session: id,
          resume: (signal) => resume(id, signal),
          screen: (before) => get(`/sessions/${encodeURIComponent(id)}/screen${words({ before })}`),
          status: (status) => {
            setStatus(status);
            if (status.is === "over") setTimeout(() => void look(), 1000);
          },
          title: (title) => (document.title = `${clean(title)} · Postern`),
        });
      } catch (caught) {
        if (!gone) setError(caught);
      }
    };
    void open();
    return () => {
      gone = true;
      handle.current?.close();
    };
  }, [id]);
  useEffect(() => {
    if (session) document.title = `${clean(session.target_name ?? session.target)} · Postern`;
  }, [session?.target]);

  const over = status.is === "over";
  const elsewhere = over && ELSEWHERE.test(status.text);
  return (
    <div class="shell">
      <header class="bar">
        <Link to="/targets" class="brand" label="Postern, to the targets">
          <img src="/console/icon.svg" alt="" width="20" height="20" />
        </Link>
        <strong>{session ? clean(session.target_name ?? session.target) : "…"}</strong>
        <StatusBadge status={status} />
        <span class="grow" />
        <button class="small" onClick={() => setFinding(!finding)} aria-pressed={finding}>
          Find
        </button>
        <button class="small" aria-label="Smaller letters" onClick={() => handle.current?.zoom(-1)}>
          A−
        </button>
        <button class="small" aria-label="Larger letters" onClick={() => handle.current?.zoom(1)}>
          A+
        </button>
        <Link class="button small" to={`/sessions/${encodeURIComponent(id)}`} tab>
          Details
        </Link>
        {!over && session && (
          <button class="small danger" onClick={() => setEnding(true)}>
            End…
          </button>
        )}
      </header>
      {finding && <Find handle={() => handle.current} close={() => (setFinding(false), handle.current?.focus())} />}
      <Interrupted status={status} retry={() => handle.current?.retry()} />
      {error !== undefined && <Failure error={error} />}
      <div class="terminal" ref={place} />
      {status.is === "connecting" && !handle.current && error === undefined && <Loading what="the terminal" />}
      {elsewhere && (
        <div class="after" role="status">
          <strong>This shell goes on in another window.</strong>
          <span class="grow" />
          <button class="primary" onClick={() => location.reload()}>
            Take it here
          </button>
        </div>
      )}
      {over && !elsewhere && (
        <div class="after" role="status">
          <strong>The session is over.</strong> {clean(status.text)}
          <span class="grow" />
          {session && <Again session={session} />}
          <Link class="button" to={`/sessions/${encodeURIComponent(id)}`}>
            Replay
          </Link>
          <Link class="button" to="/targets">
            Targets
          </Link>
        </div>
      )}
      {ending && session && <EndDialog session={session} close={() => setEnding(false)} ended={() => {}} />}
    </div>
  );
}

/** What the gateway says to who was displaced by another window. */
const ELSEWHERE = /in use by another client/;

async function resume(id: string, signal?: AbortSignal): Promise<Ticket> {
  try {
    return await post<Ticket>(`/sessions/${encodeURIComponent(id)}/resume`, {}, signal);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) throw new SignedOut();
    throw error;
  }
}

function StatusBadge({ status }: { status: Status }) {
  switch (status.is) {
    case "open":
      return <State state="Connected" />;
    case "connecting":
      return <span class="badge warn">connecting</span>;
    case "over":
      return <span class="badge plain">over</span>;
    default:
      return <span class="badge warn">reconnecting</span>;
  }
}

function Interrupted({ status, retry }: { status: Status; retry: () => void }) {
  if (status.is === "lost") {
    return (
      <div class="banner warn" role="status">
        <span class="spinner" aria-hidden="true" /> {status.why}; the session goes on and is taken up again. What you type meanwhile is sent then.
        <button class="small" onClick={retry}>
          Now
        </button>
      </div>
    );
  }
  if (status.is === "signed-out") {
    return (
      <div class="banner warn" role="alert">
        You are not signed in any more; the session goes on.{" "}
        <Link to="/enter" tab>
          Sign in in another tab
        </Link>
        , then{" "}
        <button class="small" onClick={retry}>
          Go on
        </button>
      </div>
    );
  }
  return null;
}

function Again({ session }: { session: Session }) {
  const [error, setError] = useState<string>();
  const start = async (): Promise<void> => {
    try {
      const ticket = await post<Ticket>("/sessions", {
        Target: session.target,
        ...(session.reason ? { Reason: session.reason } : {}),
      });
      location.href = `/console/shell/${encodeURIComponent(ticket.session ?? "")}`;
    } catch (caught) {
      setError(caught instanceof Error ? caught.message : String(caught));
    }
  };
  return (
    <>
      {error && <span role="alert">{clean(error)}</span>}
      <button class="primary" onClick={() => void start()}>
        Another shell
      </button>
    </>
  );
}

function Find({ handle, close }: { handle: () => TerminalHandle | undefined; close: () => void }) {
  const [text, setText] = useState("");
  return (
    <form
      class="find"
      onSubmit={(event) => (event.preventDefault(), handle()?.find(text, true))}
      onKeyDown={(event) => event.key === "Escape" && close()}
    >
      <input
        type="search"
        autoFocus
        aria-label="Find in the terminal"
        placeholder="Find in what the terminal has shown"
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          handle()?.find(event.currentTarget.value, true);
        }}
      />
      <button type="button" class="small" onClick={() => handle()?.find(text, false)} aria-label="Previous">
        ↑
      </button>
      <button class="small" aria-label="Next">
        ↓
      </button>
      <button type="button" class="small" onClick={close}>
        Close
      </button>
    </form>
  );
}
