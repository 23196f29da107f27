/** Signing in: by a link of the command line, or in a demo by picking. */
import { useEffect, useState } from "preact/hooks";
import { ApiError, get, post, query } from "../api";
import { Copy, Failure } from "../parts";
import { BASE, go, onwards } from "../route";
import { clean } from "../words";

interface Person {
  name: string;
  arn: string;
  may: string;
}

/** What the address brought; it never leaves the browser but to sign in. */
interface Brought {
  /** A link of the command line, which may be anybody's. */
  code?: string;
  /** From the provider, good in the browser alone that began it. */
  begun?: string;
  demo?: string;
}

function brought(): Brought {
  const text = decodeURIComponent(location.hash.slice(1));
  if (text.startsWith("demo=")) return { demo: text.slice(5) };
  if (text.startsWith("begun=")) return { begun: text.slice(6) };
  return text === "" ? {} : { code: text };
}

function isEntrance(): boolean {
  return location.pathname.startsWith(`${BASE}/enter`);
}

/** The page that somebody came for, for who sends the browser back. */
function wanted(): string {
  const to = isEntrance() ? new URLSearchParams(location.search).get("to") : location.pathname + location.search;
  return BASE + (onwards(to) ?? "/");
}

export function SignInPage({ ended, done }: { ended: boolean; done: () => void }) {
  const [bring] = useState(brought);
  const [people, setPeople] = useState<Person[]>();
  const [whose, setWhose] = useState<{ name: string; arn: string }>();
  const [error, setError] = useState<unknown>();
  const [provider, setProvider] = useState(false);
  const arrived = (): void => {
    if (isEntrance()) go(onwards(new URLSearchParams(location.search).get("to")) ?? "/targets", true);
    done();
  };
  const enter = async (body: unknown): Promise<void> => {
    setError(undefined);
    try {
      await post("/sign-in", body);
      arrived();
    } catch (caught) {
      setError(caught);
    }
  };
  useEffect(() => {
    document.title = "Sign in · Postern";
    // Without an answer the other ways are still shown.
    get<{ provider: boolean }>("/ways").then((ways) => setProvider(ways.provider), () => {});
    // A code stays in no history.
    if (bring.code || bring.begun) history.replaceState(null, "", location.pathname + location.search);
    if (bring.begun) void enter({ begun: bring.begun });
    // Somebody else's link must not sign this browser in without a word.
    if (bring.code) {
      post<{ name: string; arn: string }>("/whose", { code: bring.code }).then(setWhose, (caught: unknown) => setError(caught));
    }
    if (bring.demo) {
      post<{ people: Person[] }>("/people", { key: bring.demo })
        .then((answer) => setPeople(answer.people))
        .catch((caught: unknown) => setError(caught instanceof ApiError ? caught : new Error("the demo did not answer")));
    }
  }, []);
  return (
    <main class="sign-in">
      <div class="card">
        <h1>
          <img src="/console/icon.svg" alt="" width="32" height="32" /> Postern
        </h1>
        {ended && <p class="notice">You are not signed in any more. Sign in to go on.</p>}
        {error !== undefined && <Failure error={error} />}
        {(bring.begun || (bring.code && !whose)) && error === undefined && <p role="status">Signing in…</p>}
        {whose && error === undefined && (
          <>
            <p>
              This link signs this browser in as <code>{clean(whose.arn)}</code>. Go on only if you asked for it yourself.
            </p>
            <button class="primary" onClick={() => void enter({ code: bring.code })}>
              Sign in as {clean(whose.name)}
            </button>
          </>
        )}
        {people && (
          <>
            <p>This is a demo: who are you?</p>
            <ul class="people">
              {people.map((person) => (
                <li>
                  <button onClick={() => void enter({ key: bring.demo, name: person.name })}>
                    <strong>{clean(person.name)}</strong>
                    <span>{clean(person.may)}</span>
                  </button>
                </li>
              ))}
            </ul>
          </>
        )}
        {provider && !bring.demo && !whose && (
          <p>
            <a class="button primary" href={`/v1/login/oidc${query({ return_to: wanted() })}`}>
              Sign in with your company account
            </a>
          </p>
        )}
        {!bring.code && !bring.begun && !people && (
          <>
            <p>{provider ? "Or use your AWS identity: in a terminal, run" : "Your AWS identity opens this door. In a terminal, run"}</p>
            <p class="line">
              <code>postern console</code> <Copy text="postern console" label="the command" />
            </p>
            <p>and open the link that it prints. It works once, within two minutes, and only for you.</p>
            <p class="dim">No profile yet? <code>postern configure --gateway {location.origin}</code> writes one.</p>
          </>
        )}
        {bring.code && error !== undefined && (
          <p>
            Run <code>postern console</code> again for a new link.
          </p>
        )}
      </div>
    </main>
  );
}
