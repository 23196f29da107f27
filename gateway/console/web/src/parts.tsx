/** The small parts that every page is made of. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { BASE } from "./route";
import { clean, isOver } from "./words";

export function Link(props: { to: string; children: ComponentChildren; class?: string; tab?: boolean; label?: string }) {
  const tab = props.tab ? { target: "_blank", rel: "noopener" } : {};
  const label = props.label === undefined ? {} : { "aria-label": props.label };
  return (
    <a href={BASE + props.to} class={props.class ?? ""} {...tab} {...label}>
      {props.children}
    </a>
  );
}

export function State({ state }: { state: string }) {
  const tone = state === "Connected" ? "good" : state === "Failed" ? "bad" : isOver(state) ? "plain" : "warn";
  return <span class={`badge ${tone}`}>{state}</span>;
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const text = error instanceof Error ? error.message : String(error);
  const denied = error instanceof ApiError && error.status === 403;
  return (
    <div class="notice bad" role="alert">
      <strong>{denied ? "Not allowed" : "That did not work"}</strong>
      <p>{clean(text)}</p>
      {retry && !denied && <button onClick={retry}>Try again</button>}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{title}</strong>
      {children && <p>{children}</p>}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="loading" role="status">
      <span class="spinner" aria-hidden="true" /> Loading {what}…
    </p>
  );
}

export function Copy({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <button class="small" onClick={() => void copy()} aria-label={`Copy ${label}`}>
      {done ? "Copied" : "Copy"}
    </button>
  );
}

/** A dialog that keeps the focus and closes with Escape. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={ref} onCancel={props.close} onClose={props.close} aria-labelledby="dialog-title">
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

/** Asks for a reason; with nothing but spaces it cannot be given. */
export function ReasonDialog(props: {
  title: string;
  text: string;
  action: string;
  required: boolean;
  danger?: boolean;
  close: () => void;
  give: (reason: string) => Promise<void>;
}) {
  const [reason, setReason] = useState("");
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await props.give(reason.trim());
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };
  return (
    <Dialog title={props.title} close={props.close}>
      <form onSubmit={(event) => void submit(event)}>
        <p>{props.text}</p>
        <label>
          Reason{props.required ? "" : " (optional)"}
          <input
            value={reason}
            maxLength={256}
            autoFocus
            required={props.required}
            onInput={(event) => setReason(event.currentTarget.value)}
          />
        </label>
        {error !== undefined && <Failure error={error} />}
        <div class="actions">
          <button type="button" onClick={props.close}>
            Cancel
          </button>
          <button class={props.danger ? "danger" : "primary"} disabled={busy || (props.required && reason.trim() === "")}>
            {props.action}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
