/** The policy files as the gateway has them; git is where they change. */
import { useEffect, useState } from "preact/hooks";
import { get, type Me } from "../api";
import { Empty, Failure, Loading } from "../parts";
import { go } from "../route";
import { clean } from "../words";
import { useLoad } from "../load";

interface Answer {
  in_force: { policies: number; digest: string };
  folder: { state: "in_force" | "waiting" | "unreadable" | "refused"; problems: string[]; files: { name: string; bytes: number; text: string | null }[] };
}

const STATES = {
  in_force: ["good", "in force", "The folder is what decides now."],
  waiting: ["warn", "changing", "The folder has changed and is about to be taken."],
  refused: ["bad", "refused", "The folder does not pass; the set before it stays in force."],
  unreadable: ["bad", "unreadable", "The folder cannot be read; the last set stays in force."],
} as const;

/** The files, for who administers, and the questions, for everybody. */
export function PolicyTabs({ me, at }: { me: Me; at: "files" | "ask" }) {
  return (
    <div class="head">
      <h1>Policies</h1>
      {me.administers && (
        <div class="tabs" role="group" aria-label="Policies">
          <button aria-pressed={at === "files"} onClick={() => go("/policies")}>
            Files
          </button>
          <button aria-pressed={at === "ask"} onClick={() => go("/policies/ask")}>
            Ask
          </button>
        </div>
      )}
    </div>
  );
}

export function PoliciesPage({ me }: { me: Me }) {
  const { data, error, again } = useLoad((signal) => get<Answer>("/policies", signal), ["policies"], 10_000);
  const [open, setOpen] = useState<string>();
  useEffect(() => {
    document.title = "Policies · Postern";
  }, []);
  if (error !== undefined && !data) return <Failure error={error} retry={again} />;
  if (!data) return <Loading what="policies" />;
  const [tone, word, sentence] = STATES[data.folder.state];
  const shown = data.folder.files.find((file) => file.name === open) ?? data.folder.files.find((file) => file.name.endsWith(".cedar"));
  return (
    <>
      <PolicyTabs me={me} at="files" />
      <p>
        <span class={`badge ${tone}`}>{word}</span> {sentence} {data.in_force.policies} policies, set <code>{data.in_force.digest.slice(0, 16)}</code>
      </p>
      {data.folder.problems.map((problem) => (
        <pre class="problem">{problem.split("\n").map(clean).join("\n")}</pre>
      ))}
      {data.folder.files.length === 0 && <Empty title="There is no policy: everything is denied" />}
      {shown && (
        <div class="files">
          <nav aria-label="Files">
            {data.folder.files.map((file) => (
              <button aria-pressed={file === shown} onClick={() => setOpen(file.name)}>
                {clean(file.name)}
              </button>
            ))}
          </nav>
          <pre tabIndex={0} aria-label={clean(shown.name)}>
            {shown.text === null ? "too large to show here" : shown.text.split("\n").map(clean).join("\n")}
          </pre>
        </div>
      )}
      <p class="dim">They are changed where they are kept, in git; the gateway takes a change that validates within a second.</p>
    </>
  );
}
