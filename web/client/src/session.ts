import type { EventMessage, ServerMessage, Subscribed } from "./contracts.js";
import { ConnectionLostError, RefusedError } from "./errors.js";
import { isEnd, isGatewayError, missed, newId, now, parse, refusal } from "./protocol.js";

/** A token, or a function that returns a new one: for each connection, and before one expires. */
export type Token = string | (() => string | Promise<string>);

export async function tokenOf(token: Token): Promise<string> {
  return typeof token === "string" ? token : await token();
}

export type ConnectionState = "connecting" | "open" | "waiting" | "closed";

/** What the session uses of a WebSocket. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: string }) => void) | null;
  onerror: (() => void) | null;
  onclose: (() => void) | null;
  send: (frame: string) => void;
  close: () => void;
}

export interface SessionOptions {
  /** Milliseconds between two pings; API Gateway closes a socket after ten idle minutes. */
  pingEvery?: number;
  /** Milliseconds to wait for a handshake, or for any message after a ping. */
  answerWithin?: number;
  /** Milliseconds after which a connection is replaced; API Gateway's limit is two hours. */
  maxAge?: number;
  /** Attempts in a row that may fail before the client gives up; the first connection has five. */
  maxFailures?: number;
  WebSocket?: typeof WebSocket;
}

export type Listener = (message: ServerMessage) => void;

export interface Watcher {
  /** Whether it wants the job's events; without it, missed ones are not asked for. */
  events?: boolean;
  message: Listener;
  failed: (error: Error) => void;
}

interface Request {
  id: string;
  /** Null for a job that is only subscribed to. */
  frame: string | null;
  /** The owner of a job that is another user's. */
  userId: string | undefined;
  acknowledged: boolean;
  /** The number of the connection on which it was sent; 0: send it. */
  sentOn: number;
  sentAgain: boolean;
  lastSeq: number;
  /** The number of the last event that was passed on. */
  lastEvent: number;
  /** So many events the service is known to have; one that knows none refuses `since_event`. */
  knownEvents: number;
  latest: ServerMessage | null;
  quiet: boolean;
  retries: number;
  expired: boolean;
  watchers: Set<Watcher>;
}

const backoffBase = 1_000;
const backoffMost = 30_000;
const mostRetries = 5;
const firstFailures = 5;
/** After two failures in a row the HTTP API takes the socket's place for the third attempt. */
const pollingTurn = 3;
/** Milliseconds until a socket is tried again. */
const pollingAge = 10 * 60_000;
/** Milliseconds for the first handshake, where the HTTP API can take the socket's place. */
const firstHandshake = 10_000;

/**
 * One user's requests, over any number of connections.
 *
 * A request without an acknowledgement is sent again on the next connection with the same id: one
 * id makes one job. For the others, the missed messages are asked for. Each watcher gets exactly
 * one last message.
 */
export class Session {
  state: ConnectionState = "connecting";
  readonly stateListeners: Set<(state: ConnectionState) => void> = new Set();
  private readonly requests = new Map<string, Request>();
  private readonly subscribing = new Map<string, string>();
  private readonly options: Required<SessionOptions>;
  private socket: Socket | null = null;
  private connections = 0;
  /** Whether the service was reached, by whatever way. */
  private reached = false;
  /** Milliseconds for which a renewable token is good. */
  private tokenAge = Number.POSITIVE_INFINITY;
  /** The id of the message that sent a newer token. */
  private renewal = "";
  private failures = 0;
  private failure: Error | null = null;
  private readonly timers = new Map<string, ReturnType<typeof setTimeout>>();
  private readonly online = (): void => {
    // A browser that is online again need not wait out its pause.
    if (this.state === "waiting") void this.connect();
  };

  constructor(
    private readonly url: string,
    private readonly token: Token,
    options: SessionOptions,
    private readonly api: string | null,
  ) {
    this.options = {
      pingEvery: 240_000,
      answerWithin: 30_000,
      maxAge: 110 * 60_000,
      maxFailures: Number.POSITIVE_INFINITY,
      WebSocket: globalThis.WebSocket,
      ...options,
    };
    globalThis.addEventListener?.("online", this.online);
    void this.connect();
  }

  /** Sends a request, or watches it if it is known. Returns a function that stops watching. */
  send(id: string, frame: string, watcher: Watcher): () => void {
    return this.watch(id, frame, undefined, -1, 0, watcher);
  }

  /** Watches a job that somebody has sent. */
  subscribe(
    id: string,
    sinceSeq: number,
    sinceEvent: number,
    userId: string | undefined,
    watcher: Watcher,
  ): () => void {
    return this.watch(id, null, userId, sinceSeq > 0 ? sinceSeq : -1, sinceEvent, watcher);
  }

  close(error: Error = new ConnectionLostError("the client was closed")): void {
    if (this.failure) return;
    this.failure = error;
    globalThis.removeEventListener?.("online", this.online);
    for (const name of [...this.timers.keys()]) this.stop(name);
    this.drop();
    this.become("closed");
    const watchers = [...this.requests.values()].flatMap((request) => [...request.watchers]);
    this.requests.clear();
    for (const watcher of watchers) watcher.failed(error);
  }

  private watch(
    id: string,
    frame: string | null,
    userId: string | undefined,
    lastSeq: number,
    lastEvent: number,
    watcher: Watcher,
  ): () => void {
    if (this.failure) throw this.failure;
    const known = this.requests.get(id);
    if (known && frame !== null && known.frame !== frame) {
      if (known.frame !== null) {
        const message = `the id ${id} belongs to another request of this client`;
        throw new RefusedError(message, { code: "DUPLICATE_REQUEST", requestId: id });
      }
      Object.assign(known, { frame, acknowledged: false, sentOn: 0 });
    }
    const request: Request = known ?? {
      id,
      frame,
      userId,
      acknowledged: frame === null,
      sentOn: 0,
      sentAgain: false,
      lastSeq,
      lastEvent,
      knownEvents: 0,
      latest: null,
      quiet: false,
      retries: 0,
      expired: false,
      watchers: new Set(),
    };
    request.watchers.add(watcher);
    this.requests.set(id, request);
    const { latest } = request;
    if (latest) queueMicrotask(() => request.watchers.has(watcher) && watcher.message(latest));
    this.flush();
    return () => {
      request.watchers.delete(watcher);
      // What was sent is kept until its acknowledgement: it must arrive.
      if (!request.watchers.size && request.acknowledged) this.forget(request);
    };
  }

  private forget(request: Request): void {
    if (this.requests.get(request.id) !== request) return;
    this.requests.delete(request.id);
    if (request.frame === null && request.sentOn === this.connections) {
      this.transmit({ action: "unsubscribe", payload: { request_id: request.id } });
    }
  }

  private async connect(): Promise<void> {
    this.become("connecting");
    this.stop("reconnect");
    let url: URL;
    try {
      url = new URL(this.url);
      if (!/^wss?:$/.test(url.protocol)) throw new TypeError("not a WebSocket");
    } catch {
      this.close(new ConnectionLostError("the URL must begin with wss:// or ws://"));
      return;
    }
    let token: string;
    try {
      token = await tokenOf(this.token);
    } catch {
      this.lost("the token function failed");
      return;
    }
    url.searchParams.set("Authorization", token);
    this.tokenAge = typeof this.token === "string" ? Number.POSITIVE_INFINITY : 0.9 * ageOf(token);
    const api = (this.failures + 1) % pollingTurn ? null : this.api;
    const Polling = api === null ? null : (await import("./polling.js")).PollingSocket;
    if (this.state !== "connecting" || this.socket) return;
    const socket: Socket =
      api !== null && Polling
        ? new Polling(api, token)
        : (new this.options.WebSocket(url) as unknown as Socket);
    this.socket = socket;
    const { answerWithin } = this.options;
    const isFirst = this.api !== null && !this.reached;
    this.after("answer", isFirst ? Math.min(firstHandshake, answerWithin) : answerWithin, () =>
      this.lost("the handshake got no answer"),
    );
    socket.onopen = () => this.socket === socket && this.opened(Polling !== null);
    socket.onmessage = ({ data }) => this.socket === socket && this.receive(data);
    // Says nothing: `close` follows. Without a listener, some implementations throw.
    socket.onerror = () => {};
    socket.onclose = () => this.socket === socket && this.lost("the connection was lost");
  }

  private opened(isPolling: boolean): void {
    this.connections += 1;
    // Of the HTTP API, only an answer shows that it can be reached.
    this.reached ||= !isPolling;
    this.subscribing.clear();
    this.become("open");
    this.stop("answer");
    this.after("ping", this.options.pingEvery, () => this.ping());
    const age = isPolling ? Math.min(this.tokenAge, pollingAge) : Infinity;
    this.after("age", Math.min(this.options.maxAge, age), () => this.replace());
    if (!isPolling) this.awaitExpiry();
    this.flush();
  }

  private replace(): void {
    this.drop();
    void this.connect();
  }

  private awaitExpiry(): void {
    this.stop("token");
    if (this.tokenAge < this.options.maxAge)
      this.after("token", this.tokenAge, () => void this.renew());
  }

  /** Sends a newer token on the open connection, which is replaced if that is refused. */
  private async renew(): Promise<void> {
    const { socket } = this;
    const token = await tokenOf(this.token).catch(() => null);
    if (this.socket !== socket) return;
    if (token === null) {
      this.replace();
      return;
    }
    this.tokenAge = 0.9 * ageOf(token);
    this.renewal = newId();
    this.transmit({ id: this.renewal, action: "authenticate", payload: { token } });
    this.after("token", this.options.answerWithin, () => this.replace());
  }

  /** Connects again after a pause, with full jitter. */
  private lost(reason: string): void {
    this.drop();
    if (this.failure) return;
    this.failures += 1;
    const { maxFailures } = this.options;
    if (this.failures >= (this.reached ? maxFailures : Math.min(maxFailures, firstFailures))) {
      const attempts = `${reason}, ${this.failures} times in a row`;
      this.close(new ConnectionLostError(`${attempts}; check the URL and the token`));
      return;
    }
    this.become("waiting");
    const most = Math.min(backoffBase * 2 ** Math.min(this.failures - 1, 10), backoffMost);
    this.after("reconnect", Math.random() * most, () => void this.connect());
  }

  private drop(): void {
    const socket = this.socket;
    this.socket = null;
    for (const name of ["answer", "ping", "age", "token"]) this.stop(name);
    socket?.close();
  }

  private become(state: ConnectionState): void {
    if (this.state === state) return;
    this.state = state;
    for (const listener of [...this.stateListeners]) listener(state);
  }

  private after(name: string, milliseconds: number, work: () => void): void {
    this.stop(name);
    const timer = setTimeout(() => {
      this.timers.delete(name);
      work();
    }, milliseconds);
    this.timers.set(name, timer);
  }

  private stop(name: string): void {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
  }

  private ping(): void {
    // One of the messages of a request from which nothing comes may have been lost.
    for (const request of this.requests.values()) {
      if (request.quiet) {
        request.sentOn = 0;
        request.sentAgain = true;
      }
      request.quiet = true;
    }
    this.transmit({ action: "ping" });
    this.flush();
    if (!this.timers.has("answer")) {
      this.after("answer", this.options.answerWithin, () => this.lost("a ping got no answer"));
    }
    this.after("ping", this.options.pingEvery, () => this.ping());
  }

  private transmit(message: object): void {
    this.socket?.send(JSON.stringify(message));
  }

  /** Sends, or subscribes to, what was not sent on this connection. */
  private flush(): void {
    if (this.state !== "open") return;
    for (const request of this.requests.values()) {
      if (request.sentOn === this.connections) continue;
      if (request.acknowledged || request.frame === null) {
        const id = newId();
        this.subscribing.set(id, request.id);
        const { id: request_id, userId: user_id, lastSeq } = request;
        const since_event =
          wantsEvents(request) && request.knownEvents ? request.lastEvent : undefined;
        const payload = { request_id, since_seq: Math.max(lastSeq, 0), since_event, user_id };
        this.transmit({ id, action: "subscribe", payload });
      } else {
        request.sentAgain ||= request.sentOn !== 0;
        this.socket?.send(request.frame);
      }
      request.sentOn = this.connections;
    }
  }

  private receive(frame: unknown): void {
    this.stop("answer");
    const message = parse(frame);
    if (!message) {
      if (isGatewayError(frame)) this.retryUnanswered();
      return;
    }
    const id = message.request_id;
    if (id && id === this.renewal) {
      if (message.type === "response") this.awaitExpiry();
      else this.replace();
      return;
    }
    const target = id === undefined ? undefined : this.subscribing.get(id);
    const request = this.requests.get(target ?? id ?? "");
    if (message.type === "error" && message.seq === undefined) {
      if (message.error.code === "UNAUTHORIZED" && !request?.expired) {
        if (request) {
          request.expired = true;
          request.sentOn = 0;
        }
        if (typeof this.token === "string") {
          const remedy = "give connect a function that returns a new one";
          this.close(new ConnectionLostError(`the token has expired; ${remedy}`));
        } else this.lost("the token was refused");
        return;
      }
    }
    this.failures = 0;
    this.reached = true;
    if (id !== undefined) this.subscribing.delete(id);
    if (!request) return;
    if (!target) this.deliver(request, message);
    else if (message.type === "error")
      this.deliver(request, { ...message, request_id: request.id });
    else if (message.type === "response")
      this.resume(request, message.data as unknown as Subscribed);
  }

  private resume(request: Request, state: Subscribed): void {
    request.quiet = request.expired = false;
    request.retries = 0;
    const { lastEvent, knownEvents } = request;
    request.knownEvents = Math.max(knownEvents, state.event_count ?? 0);
    if (state.events) {
      const { first, events, gap } = state.events;
      const head = { request_id: request.id, timestamp: state.updated_at };
      this.receiveEvents(request, { ...head, type: "event", first, events, gap });
    }
    if (missesEvents(request)) {
      // Without any in the answer, the next one may have some later.
      const isStuck = knownEvents > 0 && request.lastEvent === lastEvent;
      this.again(request, isStuck ? backoffBase : 0);
      return;
    }
    for (const message of missed(state, request.lastSeq)) this.deliver(request, message);
  }

  /** Passes on the events that follow those before; asks for what is missing. */
  private receiveEvents(request: Request, message: EventMessage): void {
    request.acknowledged = true;
    const { first, events, gap } = message;
    request.knownEvents = Math.max(request.knownEvents, first + events.length - 1);
    if (!wantsEvents(request)) return;
    if (gap) request.lastEvent = Math.max(request.lastEvent, first - 1);
    const known = request.lastEvent + 1 - first;
    if (known < 0) {
      this.askForEvents(request);
      return;
    }
    if (events.length <= known && !(gap && !events.length)) return;
    request.lastEvent = Math.max(request.lastEvent, first + events.length - 1);
    this.pass(request, { ...message, first: first + known, events: events.slice(known) });
  }

  private askForEvents(request: Request): void {
    request.acknowledged = true;
    if (![...this.subscribing.values()].includes(request.id)) this.again(request, 0);
  }

  private deliver(request: Request, message: ServerMessage): void {
    request.quiet = false;
    if (message.type === "acknowledgment") {
      if (request.acknowledged) return;
      request.acknowledged = true;
      // A job that is older than this connection posts to another one: subscribe.
      const begun = ["queued", "scheduled", "PENDING"].includes(message.status);
      if (request.sentAgain || !begun) request.sentOn = 0;
      this.pass(request, message);
      if (!request.watchers.size) this.forget(request);
      else this.flush();
      return;
    }
    if (message.type === "event") {
      this.receiveEvents(request, message);
      return;
    }
    if ((message.type === "complete" || message.type === "error") && message.event_count) {
      request.knownEvents = Math.max(request.knownEvents, message.event_count);
      if (missesEvents(request)) {
        // The answer to a subscription has the events first, and then the end.
        this.askForEvents(request);
        return;
      }
    }
    if ("seq" in message && message.seq !== undefined) {
      // The last message is passed on even if its number is too small.
      if (message.seq <= request.lastSeq && !isEnd(message)) return;
      request.lastSeq = Math.max(message.seq, request.lastSeq + 1);
      request.acknowledged = true;
    } else if (message.type === "error" && this.retried(request, message.error)) {
      return;
    }
    if (isEnd(message) && this.requests.get(request.id) === request) {
      this.requests.delete(request.id);
    }
    this.pass(request, message);
  }

  private pass(request: Request, message: ServerMessage): void {
    request.latest = message;
    for (const watcher of [...request.watchers]) watcher.message(message);
  }

  /** A refused copy says nothing of the first one: ask again. Returns whether it does. */
  private retried(
    request: Request,
    error: { retryable: boolean; retry_after_ms?: number },
  ): boolean {
    if (!request.sentAgain || !error.retryable || request.retries >= mostRetries) return false;
    request.retries += 1;
    this.again(request, error.retry_after_ms ?? backoffBase * 2 ** request.retries);
    return true;
  }

  /** API Gateway does not name the message that failed: all that has no answer is sent again. */
  private retryUnanswered(): void {
    const subscribing = new Set(this.subscribing.values());
    for (const request of [...this.requests.values()]) {
      const unanswered = !request.acknowledged || subscribing.has(request.id);
      if (request.sentOn !== this.connections || !unanswered) continue;
      if (request.retries < mostRetries) {
        request.sentAgain = true;
        this.again(request, Math.random() * backoffBase * 2 ** request.retries);
        request.retries += 1;
      } else if (!request.acknowledged) {
        const message = `the service failed ${request.retries + 1} times`;
        const error = { code: "SERVICE_UNAVAILABLE", message, retryable: true } as const;
        this.requests.delete(request.id);
        this.pass(request, { ...refusal(request.id, error), timestamp: now() });
      }
    }
  }

  private again(request: Request, milliseconds: number): void {
    this.after(`again ${request.id}`, milliseconds, () => {
      request.sentOn = 0;
      this.flush();
    });
  }
}

/** Milliseconds until a JWT expires; infinite for another token, or a clock that is wrong. */
function ageOf(token: string): number {
  try {
    const claims = (token.split(".")[1] as string).replace(/-/g, "+").replace(/_/g, "/");
    const left = (JSON.parse(atob(claims)) as { exp: number }).exp * 1000 - Date.now();
    return left > 0 ? left : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function wantsEvents(request: Request): boolean {
  return [...request.watchers].some((watcher) => watcher.events);
}

function missesEvents(request: Request): boolean {
  return wantsEvents(request) && request.knownEvents > request.lastEvent;
}
