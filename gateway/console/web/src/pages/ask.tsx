/** A question made up: would it be allowed, and what would allow it? */
import { useEffect, useState } from "preact/hooks";
import { get, post, type Access, type Me, type Target, type Whole } from "../api";
import { Failure, Loading } from "../parts";
import { PolicyTabs } from "./policies";
import { Explained, Owed, Why } from "../why";
import { clean } from "../words";
import { useLoad } from "../load";

type Answer = Access | { whole: Whole; shut_out: string | null; known: string };
type About = "target" | "session" | "gateway";

const ACTIONS: { name: string; action: string; about: About; needs: Field[] }[] = [
  { name: "Open a shell", action: "startShell", about: "target", needs: [] },
  { name: "Run a command", action: "startCommand", about: "target", needs: ["command"] },
  { name: "SSH", action: "startSsh", about: "target", needs: ["port"] },
  { name: "Forward a port", action: "forwardPort", about: "target", needs: ["port"] },
  { name: "Forward a port of a host behind it", action: "forwardPortToHost", about: "target", needs: ["host", "port"] },
  { name: "See the target", action: "listTargets", about: "target", needs: [] },
  { name: "Resume a session", action: "resumeSession", about: "session", needs: [] },
  { name: "End a session", action: "terminateSession", about: "session", needs: [] },
  { name: "Watch a session", action: "watchSession", about: "session", needs: [] },
  { name: "Replay a recording", action: "replayRecording", about: "session", needs: [] },
  { name: "Hold a recording", action: "holdRecording", about: "session", needs: [] },
  { name: "Administer the gateway", action: "administer", about: "gateway", needs: [] },
];

type Field = "command" | "host" | "port";
const USUAL: Record<string, Partial<Record<Field, string>>> = {
  startCommand: { command: "uname -a" },
  startSsh: { port: "22" },
  forwardPort: { port: "80" },
  forwardPortToHost: { host: "localhost", port: "80" },
};

interface Form {
  who: string;
  action: string;
  resource: string;
  document: string;
  command: string;
  host: string;
  port: string;
  reason: string;
  mfa: "" | "yes" | "no";
  source_ip: string;
  at: string;
}

const EMPTY: Form = { who: "", action: "startShell", resource: "", document: "", command: "", host: "", port: "", reason: "", mfa: "", source_ip: "", at: "" };

function begun(query: URLSearchParams): Form {
  const action = query.get("action") ?? EMPTY.action;
  return { ...EMPTY, ...USUAL[action], action, resource: query.get("resource") ?? "" };
}

/** The form as the gateway takes it; what is empty is as it is now. */
function question(form: Form): Record<string, unknown> {
  const action = ACTIONS.find((known) => known.action === form.action);
  const has = (field: Field): boolean => action?.needs.includes(field) ?? false;
  const all = {
    who: form.who,
    action: form.action,
    resource: action?.about === "gateway" ? "" : form.resource,
    document: form.action.startsWith("start") || form.action.startsWith("forward") ? form.document : "",
    command: has("command") ? form.command : "",
    host: has("host") ? form.host : "",
    port: has("port") && form.port !== "" ? Number(form.port) : "",
    reason: form.reason,
    mfa: form.mfa === "" ? "" : form.mfa === "yes",
    source_ip: form.source_ip.trim(),
    at: form.at === "" ? "" : new Date(form.at).toISOString(),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ""));
}

export function AskPage({ me, query }: { me: Me; query: URLSearchParams }) {
  const { data } = useLoad((signal) => get<{ targets: Target[] }>("/targets", signal), ["targets"]);
  const [form, setForm] = useState(() => begun(query));
  const [answer, setAnswer] = useState<Answer>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    document.title = "Ask the policies · Postern";
  }, []);
  const action = ACTIONS.find((known) => known.action === form.action) ?? ACTIONS[0];
  const about = action?.about ?? "target";
  const starts = about === "target" && form.action !== "listTargets";
  const set = (change: Partial<Form>): void => setForm((before) => ({ ...before, ...change }));
  const text = (key: keyof Form) => ({ value: form[key], onInput: (event: { currentTarget: HTMLInputElement }) => set({ [key]: event.currentTarget.value }) });
  const ask = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      setAnswer(await post<Answer>("/explain", question(form)));
    } catch (caught) {
      setAnswer(undefined);
      setError(caught);
    }
    setBusy(false);
  };
  return (
    <>
      <PolicyTabs me={me} at="ask" />
      <p class="dim">
        {me.administers
          ? "What do the policies say to this, and what would change the answer? Nothing is opened; that you asked is on record."
          : "Would you be allowed, as you are signed in now? Nothing is opened. Who administers the gateway may ask about anybody."}
      </p>
      <form class="ask card" onSubmit={(event) => void ask(event)}>
        {me.administers && (
          <label>
            Who
            <input {...text("who")} placeholder="you; or an ARN, an e-mail address, group:NAME" />
          </label>
        )}
        <label>
          Does what
          <select value={form.action} onChange={(event) => set({ ...USUAL[event.currentTarget.value], action: event.currentTarget.value })}>
            {ACTIONS.map((known) => (
              <option value={known.action}>{known.name}</option>
            ))}
          </select>
        </label>
        {about !== "gateway" && (
          <label>
            {about === "target" ? "On which target" : "Which session"}
            <input {...text("resource")} required list={about === "target" ? "targets" : undefined} placeholder={about === "target" ? "name or id" : "id"} />
          </label>
        )}
        <datalist id="targets">
          {data?.targets.map((target) => (
            <option value={target.id}>{clean(target.name ?? "")}</option>
          ))}
        </datalist>
        {action?.needs.includes("command") && (
          <label>
            Command
            <input {...text("command")} required />
          </label>
        )}
        {action?.needs.includes("host") && (
          <label>
            Host
            <input {...text("host")} required />
          </label>
        )}
        {action?.needs.includes("port") && (
          <label>
            Port
            <input {...text("port")} type="number" min="1" max="65535" required />
          </label>
        )}
        {starts && (
          <label>
            Reason
            <input {...text("reason")} maxLength={256} placeholder="none" />
          </label>
        )}
        {starts && (
          <label>
            Document
            <input {...text("document")} maxLength={150} placeholder="the usual one" />
          </label>
        )}
        {me.administers && (
          <>
            <label>
              Second factor
              <select value={form.mfa} onChange={(event) => set({ mfa: event.currentTarget.value as Form["mfa"] })}>
                <option value="">as it is known</option>
                <option value="yes">used</option>
                <option value="no">not used</option>
              </select>
            </label>
            <label>
              From address
              <input {...text("source_ip")} placeholder="yours now" />
            </label>
            <label>
              When (your time)
              <input {...text("at")} type="datetime-local" />
            </label>
          </>
        )}
        <div class="actions">
          <button class="primary" disabled={busy}>
            Ask
          </button>
        </div>
      </form>
      <div aria-live="polite">
        {busy && <Loading what="the answer" />}
        {error !== undefined && <Failure error={error} />}
        {answer && !busy && <Told answer={answer} />}
      </div>
    </>
  );
}

function Told({ answer }: { answer: Answer }) {
  const whole = "whole" in answer ? answer.whole : undefined;
  const allowed = "whole" in answer ? answer.whole.allowed && answer.shut_out === null : answer.allowed;
  return (
    <section class="card told" aria-label="The answer">
      <h2>
        <span class={`badge ${allowed ? "good" : "bad"}`}>{allowed ? "allowed" : "denied"}</span>{" "}
        {whole && (
          <>
            {clean(whole.action)} on <code>{clean(whole.resource)}</code>
          </>
        )}
      </h2>
      {"whole" in answer ? (
        <>
          <p class="dim">
            for <code class="break">{clean(answer.whole.principal)}</code>, {clean(answer.known)}
          </p>
          <Explained whole={answer.whole} shutOut={answer.shut_out} />
        </>
      ) : (
        <>
          <Why access={answer} />
          {answer.allowed && <Owed obligations={answer.obligations} />}
        </>
      )}
    </section>
  );
}
