import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocket, WebSocketServer } from "ws";

type Message = Record<string, unknown>;

interface Job {
  request_id: string;
  action: string;
  status: string;
  seq: number;
  progress: Message | null;
  result?: unknown;
  error?: unknown;
  listeners: Set<WebSocket>;
  events: unknown[];
}

/** A service on loopback: jobs, acknowledgements, subscriptions; a test says what happens to them. */
export class Service {
  readonly jobs: Map<string, Job> = new Map();
  readonly received: Message[] = [];
  readonly tokens: (string | null)[] = [];
  /** What becomes of a message instead of the usual answer; true: it was dealt with. */
  intercept: (message: Message, socket: WebSocket) => boolean = () => false;
  /** Whether a handshake is refused. */
  refuse: (token: string | null) => boolean = () => false;
  private readonly server: WebSocketServer;

  private constructor(server: WebSocketServer) {
    this.server = server;
    server.on("connection", (socket, request) => {
      this.tokens.push(new URL(request.url ?? "", "ws://x").searchParams.get("Authorization"));
      socket.on("message", (data) => this.answer(JSON.parse(String(data)), socket));
    });
  }

  static async start(): Promise<Service> {
    let service: Service | undefined;
    const server = new WebSocketServer({
      port: 0,
      host: "127.0.0.1",
      verifyClient: ({ req }: { req: IncomingMessage }) =>
        !service?.refuse(new URL(req.url ?? "", "ws://x").searchParams.get("Authorization")),
    });
    await new Promise((resolve) => server.once("listening", resolve));
    service = new Service(server);
    return service;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  get sockets(): Set<WebSocket> {
    return this.server.clients;
  }

  /** Ends all connections without a closing handshake. */
  drop(): void {
    for (const socket of this.sockets) socket.terminate();
  }

  progress(id: string, percentage: number): void {
    const job = this.job(id);
    job.seq += 1;
    const at = new Date().toISOString();
    job.progress = { seq: job.seq, percentage, message: `${percentage} %`, at };
    this.post(job, { type: "progress", seq: job.seq, percentage, message: `${percentage} %` });
  }

  /** Stores an event, and posts it if it is not lost. */
  emit(id: string, event: unknown, isLost = false): void {
    const job = this.job(id);
    const first = job.events.push(event);
    if (!isLost) this.post(job, { type: "event", first, events: [event], gap: false });
  }

  complete(id: string, result: Message): void {
    const job = this.job(id);
    Object.assign(job, { status: "COMPLETED", seq: job.seq + 1, result });
    const event_count = job.events.length || undefined;
    this.post(job, { type: "complete", seq: job.seq, success: true, result, event_count });
  }

  fail(id: string, status: "FAILED" | "CANCELLED", code: string): void {
    const job = this.job(id);
    const error = { code, message: `the job ended with ${code}`, retryable: false };
    Object.assign(job, { status, seq: job.seq + 1, error });
    this.post(job, { type: "error", seq: job.seq, error });
  }

  /** The number of messages with an action. */
  count(action: string): number {
    return this.received.filter((message) => message.action === action).length;
  }

  async close(): Promise<void> {
    this.drop();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private job(id: string): Job {
    const job = this.jobs.get(id);
    if (!job) throw new Error(`no job ${id}`);
    return job;
  }

  private post(job: Job, message: Message): void {
    for (const socket of job.listeners)
      this.send(socket, { request_id: job.request_id, ...message });
  }

  private send(socket: WebSocket, message: Message): void {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify({ timestamp: new Date().toISOString(), ...message }));
  }

  private answer(message: Message, socket: WebSocket): void {
    this.received.push(message);
    if (this.intercept(message, socket)) return;
    const { id, action, payload } = message as { id: string; action: string; payload: Message };
    const respond = (data: unknown): void =>
      this.send(socket, { request_id: id, type: "response", success: true, data });
    if (action === "ping") this.send(socket, { type: "pong" });
    else if (action === "authenticate") respond({ expires_at: new Date().toISOString() });
    else if (action === "echo") respond({ echo: payload, action });
    else if (/^(subscribe|unsubscribe|status|cancel)$/.test(action)) {
      const job = this.jobs.get(String(payload.request_id));
      if (action === "subscribe") job?.listeners.add(socket);
      if (action === "unsubscribe") job?.listeners.delete(socket);
      if (payload.since_event !== undefined && !job?.events.length) {
        this.refuseMessage(socket, id, "VALIDATION_ERROR");
      } else if (job) respond({ ...job, listeners: undefined, ...eventsOf(job, payload) });
      else this.refuseMessage(socket, id, "NOT_FOUND");
    } else this.accept(id, action, socket);
  }

  private accept(id: string, action: string, socket: WebSocket): void {
    const known = this.jobs.get(id);
    if (!known) {
      const listeners = new Set([socket]);
      const job = {
        request_id: id,
        action,
        status: "PENDING",
        seq: 0,
        progress: null,
        listeners,
        events: [],
      };
      this.jobs.set(id, job);
    }
    const status = known?.status ?? "queued";
    this.send(socket, { request_id: id, type: "acknowledgment", status, message: "the job waits" });
  }

  refuseMessage(socket: WebSocket, request_id: string, code: string): void {
    const error = { code, message: `refused with ${code}`, retryable: false };
    this.send(socket, { type: "error", request_id, error });
  }
}

/** What a subscription answers of the events: two at a time, if it asks for them. */
function eventsOf({ events }: Job, { since_event }: Message): Message {
  if (typeof since_event !== "number")
    return { events: undefined, event_count: events.length || undefined };
  const part = events.slice(since_event, since_event + 2);
  const count = events.length;
  const more = since_event + part.length < count;
  const page = { first: since_event + 1, events: part, count, more, gap: false };
  return { events: page, event_count: count };
}
