/** Why an answer is what it is, and what would make it another one. */
import type { ComponentChildren } from "preact";
import type { Access, Decider, Whole } from "./api";
import { clean } from "./words";

/** What somebody is told about themselves. */
export function Why({ access }: { access: Access }) {
  return (
    <div class="why-text">
      <p>{clean(access.sentence)}</p>
      <p class="dim">Policies: {access.policies.map(clean).join(", ") || "none permits it"}</p>
      {!access.allowed && <Advice hints={access.hints} />}
    </div>
  );
}

/** What one could do, in words that tell nothing one does not know. */
export function Advice({ hints }: { hints: string[] | null }) {
  if (hints === null) return <p class="advice dim">The gateway had no time to look for what would allow it; ask again in a moment.</p>;
  if (hints.length === 0) {
    return <p class="advice dim">Nothing that you can do alone would allow it. Ask for access, or for the policy to be changed.</p>;
  }
  return (
    <p class="advice">
      <strong>To be allowed:</strong> {hints.map(clean).join(", and ")}.
    </p>
  );
}

/** Everything, for those who write policies. */
export function Explained({ whole, shutOut }: { whole: Whole; shutOut: string | null }) {
  const by = whole.allowed ? "Permitted by" : whole.needs_reason ? "Permitted, if a reason were given, by" : "Forbidden by";
  return (
    <>
      {shutOut !== null && (
        <p class="notice bad">
          <strong>Shut out before any policy is asked:</strong> {clean(shutOut)}
        </p>
      )}
      <Deciders title={by} found={whole.decided_by} />
      <Deciders title="Could not be evaluated, which denies" found={whole.failed} />
      <Deciders title="No policy permits it; nearest is" found={whole.nearest} />
      {!whole.allowed && (
        <section>
          <h3>The smallest change that would allow it</h3>
          {whole.changes.length === 0 ? (
            <p class="dim">No change that was tried would allow it.</p>
          ) : (
            <ul class="changes">
              {whole.changes.map((set) => (
                <li>{set.map(clean).join(", and ")}</li>
              ))}
            </ul>
          )}
        </section>
      )}
      {whole.obligations && <Owed obligations={whole.obligations} />}
      <p class="dim">
        Policy set <code>{whole.policy_set.slice(0, 16)}</code>
      </p>
    </>
  );
}

function Deciders({ title, found }: { title: string; found: Decider[] }): ComponentChildren {
  if (found.length === 0) return null;
  return (
    <section>
      <h3>{title}</h3>
      {found.map((policy) => (
        <article class="decider">
          <p>
            <strong>{clean(policy.id)}</strong>{" "}
            {policy.file !== undefined && (
              <code>
                {clean(policy.file)}:{policy.line}
              </code>
            )}
          </p>
          {policy.message && <p>“{clean(policy.message)}”</p>}
          <ul class="needs" aria-label={`What ${clean(policy.id)} needs`}>
            {policy.needs.map((need) => (
              <li class={need.holds ? "good" : "bad"}>
                <span aria-hidden="true">{need.holds ? "✓" : "✗"}</span>
                <span class="unseen">{need.holds ? "holds:" : "does not hold:"}</span> <code>{clean(need.clause)}</code>
              </li>
            ))}
          </ul>
          {policy.text !== undefined && (
            <details>
              <summary>Its text</summary>
              <pre tabIndex={0} aria-label={`Text of ${clean(policy.id)}`}>
                {policy.text.split("\n").map(clean).join("\n")}
              </pre>
            </details>
          )}
        </article>
      ))}
    </section>
  );
}

/** Only what is owed: an obligation that is none is left out. */
export function Owed({ obligations }: { obligations: Record<string, unknown> }) {
  const owed = Object.entries(obligations).filter(([, value]) => value !== null && value !== false && !(Array.isArray(value) && value.length === 0));
  if (owed.length === 0) return null;
  return (
    <section>
      <h3>What the gateway owes then</h3>
      <dl>
        {owed.map(([name, value]) => (
          <>
            <dt>{clean(name.replaceAll("_", " "))}</dt>
            <dd>{clean(typeof value === "string" ? value : JSON.stringify(value))}</dd>
          </>
        ))}
      </dl>
    </section>
  );
}
