import { type JSX, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { clock, duration, epoch, relative, stamp } from "./format.js";
import type { Answer } from "./load.js";

export type Tone = "good" | "bad" | "wait" | "run" | "off";

export function Badge({ tone, children }: { tone: Tone; children: ReactNode }): JSX.Element {
  return (
    <span className="badge" data-tone={tone}>
      {children}
    </span>
  );
}

export function Card(props: {
  title: string;
  aside?: ReactNode;
  flush?: boolean;
  children: ReactNode;
}): JSX.Element {
  const id = useId();
  return (
    <section className="card" aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        {props.aside && <span className="quiet small">{props.aside}</span>}
      </header>
      {props.flush ? props.children : <div className="body">{props.children}</div>}
    </section>
  );
}

/** A place without rows: what it would show, and what to do. */
export function Empty(props: {
  title: string;
  children?: ReactNode;
  actions?: ReactNode;
}): JSX.Element {
  return (
    <div className="state">
      <strong>{props.title}</strong>
      {props.children && <p>{props.children}</p>}
      {props.actions && <div className="actions">{props.actions}</div>}
    </div>
  );
}

export function Failure({ error, retry }: { error: Error; retry: () => void }): JSX.Element {
  return (
    <div className="state" role="alert">
      <strong className="bad">This could not be loaded</strong>
      <p className="break">{error.message}</p>
      <div className="actions">
        <button type="button" onClick={retry}>
          Try again
        </button>
      </div>
    </div>
  );
}

export function Bones({ rows = 8 }: { rows?: number }): JSX.Element {
  return (
    <div className="body bones" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, row) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: they are all alike
        <div key={row} className="bone" style={{ width: `${92 - ((row * 37) % 50)}%` }} />
      ))}
    </div>
  );
}

/** What was loaded; bones until it is there, and what went wrong if it never was. */
export function Loaded<Value>(props: {
  answer: Answer<Value>;
  rows?: number;
  children: (value: Value) => ReactNode;
}): JSX.Element {
  const { answer, rows } = props;
  if (answer.value !== undefined) return <>{props.children(answer.value)}</>;
  if (answer.error) return <Failure error={answer.error} retry={answer.again} />;
  return <Bones {...(rows === undefined ? {} : { rows })} />;
}

/** When the page was read, or since when it can't be. */
export function Freshness({ answer }: { answer: Answer<unknown> }): JSX.Element | null {
  const now = useNow();
  if (answer.readAt === undefined) return null;
  if (answer.error)
    return (
      <span className="bad small break" role="status">
        {`Not refreshed for ${duration(now - answer.readAt)}: ${answer.error.message}`}
      </span>
    );
  return <span className="quiet small wide">Updated {clock(answer.readAt).slice(0, 8)}</span>;
}

export function useNow(seconds = 1): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return now;
}

export function Ago({ time, now }: { time: string | null | undefined; now: number }): JSX.Element {
  const at = epoch(time);
  if (at === undefined) return <span className="quiet">–</span>;
  return (
    <time dateTime={time ?? ""} title={stamp(at)}>
      {relative(at, now)}
    </time>
  );
}

export function Facts({
  facts,
}: {
  /** Name, value, and a key where several may have one name, as two numbers do. */
  facts: readonly (readonly [string, ReactNode, string?])[];
}): JSX.Element {
  return (
    <dl className="facts">
      {facts
        .filter(([, value]) => value !== undefined && value !== null && value !== "")
        .map(([name, value, key]) => (
          <div key={key ?? name} style={{ display: "contents" }}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** Asks before something is changed, and names what is touched. */
export function Confirm(props: {
  title: string;
  /** What happens, and whether it can be undone. */
  children?: ReactNode;
  verb: string;
  danger?: boolean;
  /** A text that has to be typed first. */
  typed?: string | undefined;
  /** Asks for a reason, which the audit keeps. */
  reason?: "required" | "optional";
  ready?: boolean;
  act: (reason: string) => Promise<void>;
  close: () => void;
}): JSX.Element {
  const { typed, reason, ready = true } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const title = useId();
  useEffect(() => {
    if (!dialog.current?.open) dialog.current?.showModal();
  }, []);
  const isAllowed =
    ready &&
    !busy &&
    (typed === undefined || text.trim() === typed) &&
    (reason !== "required" || why.trim() !== "");
  const act = async () => {
    setBusy(true);
    setError("");
    try {
      await props.act(why.trim());
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} aria-labelledby={title} onClose={props.close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (isAllowed) void act();
        }}
      >
        <h2 id={title}>{props.title}</h2>
        {props.children}
        {reason && (
          <label className="field">
            Reason{reason === "optional" ? " (optional)" : ""}
            <input value={why} maxLength={500} onChange={(event) => setWhy(event.target.value)} />
          </label>
        )}
        {typed !== undefined && (
          <label className="field">
            <span>
              Type <code>{typed}</code> to confirm
            </span>
            <input
              value={text}
              autoComplete="off"
              spellCheck={false}
              onChange={(event) => setText(event.target.value)}
            />
          </label>
        )}
        {error && (
          <p className="bad break" role="alert">
            {error}
          </p>
        )}
        <div className="actions">
          <button type="button" onClick={() => dialog.current?.close()}>
            Close
          </button>
          <button
            type="submit"
            className={`main${props.danger ? " danger" : ""}`}
            disabled={!isAllowed}
          >
            {busy ? "Working…" : props.verb}
          </button>
        </div>
      </form>
    </dialog>
  );
}
