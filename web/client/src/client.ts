import type { AssembleOptions } from "./assemble.js";
import type {
  AcknowledgmentMessage,
  AssemblyDocument,
  ProgressMessage,
  RequestState,
} from "./contracts.js";
import { errorOf, JobFailedError } from "./errors.js";
import { Http, type JobList, type ListOptions, type Started } from "./http.js";
import { type Action, type End, isEnd, newId, type Payload, type Result } from "./protocol.js";
import {
  type ConnectionState,
  type Listener,
  Session,
  type SessionOptions,
  type Token,
  type Watcher,
} from "./session.js";

/** Browsers send a message as one frame, and API Gateway refuses a larger one. */
const mostFrameBytes = 32 * 1024;

export interface ConnectOptions extends SessionOptions {
  /** The address of the HTTP API: for lists, replays, large payloads and uploads. */
  api?: string;
}

export interface StartOptions {
  /** With an id of your own, a request can be repeated: one id makes one job. */
  id?: string;
  metadata?: Record<string, string>;
}

export interface WaitOptions {
  onProgress?: (progress: ProgressMessage) => void;
  /** Called with each event that the job emits: all of them, in order, once. */
  onEvent?: (event: unknown) => void;
  /** Stops waiting; the job goes on. */
  signal?: AbortSignal;
}

export interface SubscribeOptions {
  /** Leaves out the messages up to this number. */
  sinceSeq?: number;
  /** Leaves out the events up to this number. */
  sinceEvent?: number;
  /** The job's owner, if that is another user of the tenant. */
  userId?: string;
}

/** A job that the service has accepted. */
export interface Job {
  id: string;
  status: string;
  assemblyId: string | undefined;
}

/** Connects to a service; the first call need not wait for the connection. */
export function connect(url: string, token: Token, options: ConnectOptions = {}): Jobplane {
  return new Jobplane(url, token, options);
}

export class Jobplane {
  readonly jobs: Jobs;
  private readonly session: Session;
  private readonly http: Http | null;

  constructor(
    url: string,
    private readonly token: Token,
    private readonly options: ConnectOptions,
  ) {
    const { api, ...rest } = options;
    this.session = new Session(url, token, rest, api?.replace(/\/$/, "") ?? null);
    this.http = api === undefined ? null : new Http(api, token);
    this.jobs = new Jobs(this.session, this.http);
  }

  get state(): ConnectionState {
    return this.session.state;
  }

  /**
   * Sends files to S3 and runs a template over them; the document of the assembly. Rejects with an
   * UploadError, and as `jobs.run`.
   *
   * A file of more than 8 MiB goes in parts. After a reload, call it again with the same files: what
   * S3 has is not sent again.
   */
  async assemble(
    files: Iterable<File>,
    template: string,
    options: AssembleOptions = {},
  ): Promise<AssemblyDocument> {
    const { api } = this.options;
    if (api === undefined) throw new TypeError(missingApi("assemble"));
    // An input's list of files changes with the input.
    const chosen = [...files];
    const { assembled } = await import("./assemble.js");
    return assembled(this.jobs, api.replace(/\/$/, ""), this.token, chosen, template, options);
  }

  /** The document of an assembly; null if it does not exist yet. */
  async assembly(id: string): Promise<AssemblyDocument | null> {
    if (!this.http) throw new TypeError(missingApi("assembly"));
    return this.http.assembly(id);
  }

  /** Whether the HTTP API's address is known. */
  get hasApi(): boolean {
    return this.http !== null;
  }

  /** Calls the listener at each change. Returns a function that ends this. */
  onState(listener: (state: ConnectionState) => void): () => void {
    this.session.stateListeners.add(listener);
    return () => this.session.stateListeners.delete(listener);
  }

  /**
   * Calls the listener with each message of a job, up to exactly one last message, over lost
   * connections. Returns a function that ends this. `failed` is called instead of a last message
   * when the client is closed.
   */
  subscribe(
    requestId: string,
    listener: Listener,
    { sinceSeq = 0, sinceEvent = 0, userId }: SubscribeOptions = {},
    failed: (error: Error) => void = () => {},
  ): () => void {
    const watcher = { message: listener, failed, events: true };
    return this.session.subscribe(requestId, sinceSeq, sinceEvent, userId, watcher);
  }

  /** Closes the connection. Jobs go on; what waits is rejected with a ConnectionLostError. */
  close(): void {
    this.session.close();
  }
}

export class Jobs {
  constructor(
    private readonly session: Session,
    private readonly http: Http | null,
  ) {}

  /** Starts a job. Rejects with a RefusedError when the service refuses it. */
  async start<A extends Action | (string & {})>(
    action: A,
    payload: Payload<A>,
    options: StartOptions = {},
  ): Promise<Job> {
    const { id = newId(), metadata } = options;
    const frame = encoded(id, action, payload, metadata);
    if (frame === null) return (await this.sent(id, action, payload, metadata)).job;
    const first = await new Promise<AcknowledgmentMessage | End>((resolve, reject) => {
      const stop = this.session.send(id, frame, {
        message: (message) => {
          if (message.type !== "acknowledgment" && !isEnd(message)) return;
          queueMicrotask(() => stop());
          resolve(message);
        },
        failed: reject,
      });
    });
    if (first.type === "acknowledgment") {
      return { id, status: first.status, assemblyId: first.assembly_id };
    }
    settled(first, action);
    return { id, status: "COMPLETED", assemblyId: undefined };
  }

  /** Starts a job and returns its result; for a short action, its answer. Rejects as `wait`. */
  async run<A extends Action | (string & {})>(
    action: A,
    payload: Payload<A>,
    { id = newId(), metadata, ...waiting }: StartOptions & WaitOptions = {},
  ): Promise<Result<A>> {
    const frame = encoded(id, action, payload, metadata);
    if (frame === null) {
      const { answer } = await this.sent(id, action, payload, metadata);
      return (answer ? answer.result : await this.wait(id, waiting)) as Result<A>;
    }
    const end = await ended(waiting, (watcher) => this.session.send(id, frame, watcher));
    return settled(end, action) as Result<A>;
  }

  /**
   * Waits for the end of a job and returns its result. Rejects with a JobFailedError,
   * JobCancelledError or JobTimeoutError when it has none, and with a RefusedError when the caller
   * has no such job.
   */
  async wait(id: string, options: WaitOptions & SubscribeOptions = {}): Promise<unknown> {
    const { sinceSeq = 0, sinceEvent = 0, userId } = options;
    const end = await ended(options, (watcher) =>
      this.session.subscribe(id, sinceSeq, sinceEvent, userId, watcher),
    );
    return settled(end, id);
  }

  /** The state of a job. */
  get(id: string): Promise<RequestState> {
    return this.run("status", { request_id: id });
  }

  cancel(id: string): Promise<Result<"cancel">> {
    return this.run("cancel", { request_id: id });
  }

  /** The caller's jobs, the newest first. */
  async list(options: ListOptions = {}): Promise<JobList> {
    return this.api("list").list(options);
  }

  /** Starts a new job with the action and payload of one that has ended. */
  async replay(id: string): Promise<Job> {
    return this.api("replay").replay(id);
  }

  private sent(
    id: string,
    action: string,
    payload: object,
    metadata: Record<string, string> | undefined,
  ): Promise<Started> {
    return this.api("start with a large payload").start(id, action, payload, metadata);
  }

  private api(call: string): Http {
    if (!this.http) throw new TypeError(missingApi(`jobs.${call}`));
    return this.http;
  }
}

function missingApi(call: string): string {
  return `${call} needs the option api of connect, the HTTP API's address`;
}

/** The frame of a request; null when a browser can't send it by a socket. */
function encoded(
  id: string,
  action: string,
  payload: object,
  metadata: Record<string, string> | undefined,
): string | null {
  const frame = JSON.stringify({ id, action, payload, metadata });
  return new TextEncoder().encode(frame).length > mostFrameBytes ? null : frame;
}

/** The last message of what `watch` watches. */
function ended(
  { onProgress, onEvent, signal }: WaitOptions,
  watch: (watcher: Watcher) => () => void,
): Promise<End> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const aborted = (): void => {
      stop();
      reject(signal?.reason);
    };
    const stop = watch({
      events: onEvent !== undefined,
      message: (message) => {
        if (message.type === "progress") onProgress?.(message);
        if (message.type === "event") for (const event of message.events) onEvent?.(event);
        if (!isEnd(message)) return;
        signal?.removeEventListener("abort", aborted);
        resolve(message);
      },
      failed: (error) => {
        signal?.removeEventListener("abort", aborted);
        reject(error);
      },
    });
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/** The data of a last message; throws its error. */
function settled(message: End, action: string): unknown {
  switch (message.type) {
    case "error":
      throw errorOf(message.error, message.request_id, message.seq !== undefined);
    case "pong":
      return {};
    case "response":
      if (message.success) return message.data;
      break;
    case "complete":
      if (message.success) return message.result;
  }
  const details = "result" in message ? message.result : message.data;
  throw new JobFailedError(`${action} did not succeed`, {
    code: "PROCESSING_FAILED",
    requestId: message.request_id,
    details,
  });
}
