/** The console: signed in or not, and which page. */
import { render } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import { ApiError, get, post, remember, type Me } from "./api";
import { forgetChannels } from "./kept";
import { Failure, Link, Loading } from "./parts";
import { AskPage } from "./pages/ask";
import { DecisionsPage } from "./pages/decisions";
import { PoliciesPage } from "./pages/policies";
import { SearchPage } from "./pages/search";
import { SessionPage } from "./pages/session";
import { SessionsPage } from "./pages/sessions";
import { ShellPage } from "./pages/shell";
import { SignInPage } from "./pages/sign-in";
import { TargetsPage } from "./pages/targets";
import { followLinks, go, usePlace } from "./route";
import { currentTheme, nextTheme } from "./theme";
import "./style.css";

type Who = { is: "asking" } | { is: "nobody"; ended: boolean } | { is: "somebody"; me: Me } | { is: "unknown"; error: unknown };

function App() {
  const place = usePlace();
  const [who, setWho] = useState<Who>({ is: "asking" });
  const ask = useCallback(async () => {
    try {
      const me = await get<Me>("/me");
      remember(me, () => setWho({ is: "nobody", ended: true }));
      setWho({ is: "somebody", me });
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) setWho({ is: "nobody", ended: false });
      else setWho({ is: "unknown", error });
    }
  }, []);
  useEffect(() => void ask(), [ask]);

  if (place.path === "/enter" || who.is === "nobody") {
    return <SignInPage ended={who.is === "nobody" && who.ended} done={() => void ask()} />;
  }
  if (who.is === "asking") return <Loading what="the console" />;
  if (who.is === "unknown") {
    return (
      <main class="narrow">
        <Failure error={who.error} retry={() => void ask()} />
      </main>
    );
  }
  const shell = /^\/shell\/([^/]+)$/.exec(place.path);
  if (shell?.[1]) return <ShellPage key={shell[1]} id={decodeURIComponent(shell[1])} />;
  return (
    <>
      <Top me={who.me} path={place.path} />
      <main id="content" tabIndex={-1}>
        <CurrentPage path={place.path} query={place.query} me={who.me} />
      </main>
    </>
  );
}

function CurrentPage({ path, query, me }: { path: string; query: URLSearchParams; me: Me }) {
  const session = /^\/sessions\/([^/]+)$/.exec(path);
  if (session?.[1]) return <SessionPage key={session[1]} id={decodeURIComponent(session[1])} query={query} />;
  switch (path) {
    case "/":
    case "/targets":
      return <TargetsPage />;
    case "/sessions":
      return <SessionsPage query={query} />;
    case "/search":
      return <SearchPage query={query} />;
    case "/decisions":
      return <DecisionsPage query={query} me={me} />;
    case "/policies":
      return me.administers ? <PoliciesPage me={me} /> : <AskPage me={me} query={query} />;
    case "/policies/ask":
      return <AskPage me={me} query={query} />;
    default:
      return (
        <div class="empty">
          <strong>There is no such page</strong>
          <p>
            <Link to="/targets">To the targets</Link>
          </p>
        </div>
      );
  }
}

const PAGES = [
  ["/targets", "Targets"],
  ["/sessions", "Sessions"],
  ["/search", "Search"],
  ["/decisions", "Decisions"],
  ["/policies", "Policies"],
] as const;

function Top({ me, path }: { me: Me; path: string }) {
  const [theme, setTheme] = useState(currentTheme);
  const leave = async (everywhere: boolean): Promise<void> => {
    await post("/sign-out", { everywhere }).catch(() => {});
    forgetChannels();
    go("/", true);
    location.reload();
  };
  const current = path === "/" ? "/targets" : path;
  return (
    <header class="top">
      <a class="skip" href="#content">
        To the content
      </a>
      <Link to="/targets" class="brand" label="Postern, to the targets">
        <img src="/console/icon.svg" alt="" width="24" height="24" /> <span>Postern</span>
      </Link>
      <nav aria-label="Pages">
        {PAGES.map(([to, name]) => (
          <a href={`/console${to}`} aria-current={current.startsWith(to) ? "page" : undefined}>
            {name}
          </a>
        ))}
      </nav>
      <details class="who">
        <summary aria-label={`Signed in as ${me.name}`}>
          <span class="face" aria-hidden="true">
            {me.name.slice(0, 1).toUpperCase()}
          </span>
          <span class="name">{me.name}</span>
        </summary>
        <div class="menu">
          <p>
            <strong>{me.name}</strong>
            <br />
            <code>{me.arn}</code>
          </p>
          <p class="dim">Signed in until {new Date(me.until_ms).toLocaleTimeString()}</p>
          <button onClick={() => setTheme(nextTheme())}>Theme: {theme}</button>
          <button onClick={() => void leave(false)}>Sign out</button>
          <button onClick={() => void leave(true)}>Sign out everywhere</button>
          <p class="dim">
            Postern {me.version} · <a href="/console/licences.txt">licences</a>
          </p>
        </div>
      </details>
    </header>
  );
}

document.addEventListener("click", followLinks);
const root = document.getElementById("app");
if (root) render(<App />, root);
