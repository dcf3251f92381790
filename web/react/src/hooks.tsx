import {
  type AssemblyDocument,
  type ErrorMessage,
  errorOf,
  type Jobplane,
  type JobplaneError,
  type ProgressMessage,
  RefusedError,
  type ServerMessage,
} from "@jobplane/client";
import {
  createContext,
  type JSX,
  type ReactNode,
  useContext,
  useEffect,
  useRef,
  useState,
} from "react";

const Context = createContext<Jobplane | null>(null);

/** Gives the hooks below it a client: `connect(…)` of @jobplane/client, made once. */
export function JobplaneProvider(props: { client: Jobplane; children: ReactNode }): JSX.Element {
  return <Context.Provider value={props.client}>{props.children}</Context.Provider>;
}

export function useJobplane(): Jobplane {
  const client = useContext(Context);
  if (!client) throw new Error("render this component inside of <JobplaneProvider>");
  return client;
}

export type JobState = "waiting" | "running" | "completed" | "failed" | "cancelled";

export interface JobView<Result = unknown> {
  state: JobState;
  progress: ProgressMessage | null;
  result: Result | null;
  error: JobplaneError | null;
  /** Whether the job has ended; nothing more is asked for then. */
  ended: boolean;
}

const unknown: JobView<never> = {
  state: "waiting",
  progress: null,
  result: null,
  error: null,
  ended: false,
};

/**
 * A job, live. With null instead of an id, it waits. `onEvent` is called with each event that the
 * job emits: all of them, in order, once.
 */
export function useJob<Result = unknown>(
  id: string | null,
  { userId, onEvent }: { userId?: string; onEvent?: (event: unknown) => void } = {},
): JobView<Result> {
  const client = useJobplane();
  const hear = useRef(onEvent);
  useEffect(() => {
    hear.current = onEvent;
  });
  const [seen, setSeen] = useState<{ id: string | null; view: JobView<Result> }>({
    id,
    view: unknown,
  });
  useEffect(() => {
    if (id === null) return;
    let view: JobView<Result> = unknown;
    const show = (next: JobView<Result>): void => {
      view = next;
      setSeen({ id, view });
    };
    return client.subscribe(
      id,
      (message) => {
        if (message.type !== "event") show(next(view, message));
        else for (const event of message.events) hear.current?.(event);
      },
      userId === undefined ? {} : { userId },
      (error) => show({ ...view, error: error as JobplaneError }),
    );
  }, [client, id, userId]);
  return seen.id === id ? seen.view : unknown;
}

function next<Result>(view: JobView<Result>, message: ServerMessage): JobView<Result> {
  switch (message.type) {
    case "progress":
      return { ...view, state: "running", progress: message };
    case "complete":
      if (message.success) {
        return { ...view, state: "completed", result: message.result as Result, ended: true };
      }
      return { ...view, state: "failed", ended: true };
    case "error":
      return failed(view, message);
    default:
      return view;
  }
}

function failed<Result>(view: JobView<Result>, message: ErrorMessage): JobView<Result> {
  const error = errorOf(message.error, message.request_id, message.seq !== undefined);
  const state = message.error.code === "CANCELLED" ? "cancelled" : "failed";
  return { ...view, state, error, ended: true };
}

/** Reads an assembly's document; null if it does not exist yet. */
export type ReadAssembly = (id: string, signal: AbortSignal) => Promise<AssemblyDocument | null>;

export interface AssemblyView {
  status: AssemblyDocument | null;
  loading: boolean;
  error: string | null;
}

/**
 * The document of an assembly, read every `every` milliseconds until it has ended.
 *
 * By default the client of the provider reads it. With `url`, or without an HTTP API, it is a GET of
 * `${url}/status/${id}` with the cookies of the page, and `read` is your own way.
 */
export function useAssembly(
  id: string | null,
  { url, every = 2_000, read }: { url?: string; every?: number; read?: ReadAssembly } = {},
): AssemblyView {
  const client = useContext(Context);
  const empty: AssemblyView = { status: null, loading: true, error: null };
  const [seen, setSeen] = useState({ id, view: empty });
  useEffect(() => {
    if (id === null) return;
    const stopped = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ofClient = url === undefined && client?.hasApi ? client : null;
    const reader =
      read ?? (ofClient ? (id: string) => ofClient.assembly(id) : fetched(url ?? "/api/jobplane"));
    let view: AssemblyView = { status: null, loading: true, error: null };
    const show = (change: Partial<AssemblyView>): void => {
      if (stopped.signal.aborted) return;
      view = { ...view, ...change };
      setSeen({ id, view });
    };
    const look = async (): Promise<void> => {
      try {
        const status = await reader(id, stopped.signal);
        if (status) show({ status, loading: false, error: null });
        if (status && hasEnded(status)) return;
      } catch (error) {
        show({ loading: false, error: error instanceof Error ? error.message : String(error) });
        if (error instanceof Refused || isFinal(error)) return;
      }
      if (!stopped.signal.aborted) timer = setTimeout(look, every);
    };
    void look();
    return () => {
      stopped.abort();
      clearTimeout(timer);
    };
  }, [client, id, url, every, read]);
  return seen.id === id ? seen.view : empty;
}

/** An answer that a repetition does not change. */
class Refused extends Error {}

function isFinal(error: unknown): boolean {
  const status = error instanceof RefusedError ? error.status : undefined;
  return status !== undefined && status < 500 && status !== 429;
}

function fetched(url: string): ReadAssembly {
  return async (id, signal) => {
    const answer = await fetch(`${url}/status/${encodeURIComponent(id)}`, { signal });
    if (answer.status === 404) return null;
    if (answer.ok) return (await answer.json()) as AssemblyDocument;
    const message = `the status can't be read: the service answered ${answer.status}`;
    throw answer.status < 500 && answer.status !== 429 ? new Refused(message) : new Error(message);
  };
}

/** Whether an assembly's document does not change any more. */
export function hasEnded({ ok, error }: AssemblyDocument): boolean {
  return error !== undefined || ok === "ASSEMBLY_COMPLETED" || ok === "ASSEMBLY_CANCELED";
}
