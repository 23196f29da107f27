/** The machines that one may reach, and a shell with one click. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, get, post, query, type Access, type Target } from "../api";
import { Copy, Dialog, Empty, Failure, Link, Loading, ReasonDialog } from "../parts";
import { BASE } from "../route";
import { Advice, Why } from "../why";
import { clean, heard, shellWord, system } from "../words";
import { useLoad } from "../load";
import type { Ticket } from "../channel/channel";

export function TargetsPage() {
  const { data, error, again } = useLoad((signal) => get<{ targets: Target[] }>("/targets", signal), ["targets"], 15_000);
  const [words, setWords] = useState("");
  const [asked, setAsked] = useState<Target>();
  const [denied, setDenied] = useState<{ target: Target; error: unknown }>();
  const [more, setMore] = useState<Target>();
  const search = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Targets · Postern";
    const focus = (event: KeyboardEvent): void => {
      if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
        event.preventDefault();
        search.current?.focus();
      }
    };
    document.addEventListener("keydown", focus);
    return () => document.removeEventListener("keydown", focus);
  }, []);
  const shown = useMemo(() => (data?.targets ?? []).filter((target) => fits(target, words)), [data, words]);

  const start = async (target: Target, reason: string): Promise<void> => {
    const ticket = await post<Ticket>("/sessions", { Target: target.id, ...(reason === "" ? {} : { Reason: reason }) });
    const url = `${BASE}/shell/${encodeURIComponent(ticket.session ?? "")}`;
    setAsked(undefined);
    // A browser that has forgotten the click by now opens no tab.
    if (!window.open(url, "_blank")) location.href = url;
  };
  const click = async (target: Target): Promise<void> => {
    try {
      await start(target, "");
    } catch (caught) {
      const wantsReason = caught instanceof ApiError && caught.status === 403 && / without a reason /.test(caught.message);
      if (wantsReason) setAsked(target);
      else setDenied({ target, error: caught });
    }
  };

  return (
    <>
      <div class="head">
        <h1>Targets</h1>
        <input
          ref={search}
          type="search"
          placeholder="Name, id, tag… ( / )"
          aria-label="Filter targets"
          value={words}
          onInput={(event) => setWords(event.currentTarget.value)}
        />
      </div>
      {error !== undefined && <Failure error={error} retry={again} />}
      {!data && error === undefined && <Loading what="targets" />}
      {data && data.targets.length === 0 && (
        <Empty title="No target is shown to you">Policy decides which machines you see. Ask whoever writes it, or look at your decisions.</Empty>
      )}
      {data && data.targets.length > 0 && shown.length === 0 && <Empty title={`No target fits “${clean(words)}”`} />}
      <ul class="targets">
        {shown.map((target) => (
          <li key={target.id} class="card">
            <div class="what">
              <h2>
                <span class={`dot ${target.online ? "good" : "off"}`} aria-hidden="true" />
                {clean(target.name ?? target.id)}
              </h2>
              <p class="dim">
                <code>{clean(target.id)}</code> · {heard(target, Date.now())}
                {system(target) !== "" && ` · ${system(target)}`}
                {target.agent && ` · agent ${clean(target.agent)}`}
                {target.region && ` · ${clean(target.region)}`}
              </p>
              <ul class="tags" aria-label="Tags">
                {Object.entries(target.tags)
                  .filter(([key]) => key !== "Name")
                  .map(([key, value]) => (
                    <li>
                      <button onClick={() => setWords(`${clean(key)}=${clean(value)}`)}>
                        {clean(key)}={clean(value)}
                      </button>
                    </li>
                  ))}
              </ul>
            </div>
            <div class="do">
              <button class="primary" onClick={() => void click(target)} aria-label={`Open a shell on ${clean(target.name ?? target.id)}`}>
                Open shell
              </button>
              <button onClick={() => setMore(target)} aria-label={`Other ways to ${clean(target.name ?? target.id)}`}>
                More…
              </button>
            </div>
          </li>
        ))}
      </ul>
      {asked && (
        <ReasonDialog
          title={`A shell on ${clean(asked.name ?? asked.id)}`}
          text="Policy wants to know why. Your reason is recorded with the session."
          action="Open shell"
          required
          close={() => setAsked(undefined)}
          give={(reason) => start(asked, reason)}
        />
      )}
      {denied && (
        <Dialog title={`No shell on ${clean(denied.target.name ?? denied.target.id)}`} close={() => setDenied(undefined)}>
          <Failure error={denied.error} />
          <Helps target={denied.target} />
          <p class="dim">
            The decision is in <a href={`${BASE}/decisions`}>your decisions</a>, with the policies that made it.
          </p>
          <div class="actions">
            <button autoFocus onClick={() => setDenied(undefined)}>
              Close
            </button>
          </div>
        </Dialog>
      )}
      {more && <More target={more} close={() => setMore(undefined)} />}
    </>
  );
}

/** What would have let a refused shell open. */
function Helps({ target }: { target: Target }) {
  const { data } = useLoad(() => post<Access>("/access", { Target: target.id }), [target.id]);
  return data && !data.allowed ? <Advice hints={data.hints} /> : null;
}

/** Every word has to be somewhere in it. */
function fits(target: Target, words: string): boolean {
  const tags = Object.entries(target.tags).map(([key, value]) => `${key}=${value}`);
  const all = [target.id, target.name ?? "", target.platform ?? "", system(target), target.region, target.account, ...tags].join("\n").toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

const WAYS = [
  { name: "Shell", action: "startShell", document: "SSM-SessionManagerRunShell", parameters: {}, line: (t: string) => `postern connect ${t}` },
  { name: "Command", action: "startCommand", document: "AWS-StartNonInteractiveCommand", parameters: { command: ["uname -a"] }, line: (t: string) => `postern exec ${t} -- uname -a` },
  { name: "Port forward", action: "forwardPort", document: "AWS-StartPortForwardingSession", parameters: { portNumber: ["80"] }, line: (t: string) => `postern forward ${t} 8080:80` },
  { name: "Port of a host", action: "forwardPortToHost", document: "AWS-StartPortForwardingSessionToRemoteHost", parameters: { host: ["localhost"], portNumber: ["80"] }, line: (t: string) => `postern forward ${t} 8080:localhost:80` },
  { name: "SSH", action: "startSsh", document: "AWS-StartSSHSession", parameters: { portNumber: ["22"] }, line: (t: string) => `postern ssh ${t}` },
  { name: "Shell with the AWS CLI", action: "", document: "", parameters: {}, line: (_: string, id: string) => `aws ssm start-session --target ${id}` },
];

function More({ target, close }: { target: Target; close: () => void }) {
  const name = shellWord(clean(target.name ?? target.id));
  return (
    <Dialog title={clean(target.name ?? target.id)} close={close}>
      <p>Paste one of these into a terminal:</p>
      <ul class="ways">
        {WAYS.map((way) => (
          <Way way={way} target={target} line={way.line(name, shellWord(target.id))} />
        ))}
      </ul>
      <div class="actions">
        <button autoFocus onClick={close}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

function Way({ way, target, line }: { way: (typeof WAYS)[number]; target: Target; line: string }) {
  const ask = { Target: target.id, DocumentName: way.document, Parameters: way.parameters };
  const { data } = useLoad(() => (way.document === "" ? Promise.resolve(undefined) : post<Access>("/access", ask)), [target.id, way.name]);
  return (
    <li>
      <div class="line">
        <span class="way">{way.name}</span>
        <code>{line}</code>
        <Copy text={line} label={way.name} />
      </div>
      {data && (
        <details class="why">
          <summary>
            <span class={`badge ${data.allowed ? "good" : "bad"}`}>{data.allowed ? "allowed" : "denied"}</span> {data.allowed ? "Why?" : "Why can’t I?"}
          </summary>
          <Why access={data} />
          <p>
            <Link to={`/policies/ask${query({ action: way.action, resource: target.id })}`}>Ask with other values</Link>
          </p>
        </details>
      )}
    </li>
  );
}
