import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WebSocket as Ws } from "ws";
import {
  ConnectionLostError,
  type ConnectOptions,
  connect,
  JobCancelledError,
  type Jobplane,
} from "../src/index.js";
import { Service } from "./service.js";

type State = Record<string, unknown> & { seq: number; status: string };

/** The HTTP API's jobs, behind `fetch`; a test says what happens to a request. */
class Api {
  readonly requests: string[] = [];
  readonly tokens: (string | null)[] = [];
  readonly jobs: Map<string, State> = new Map();
  intercept: (request: string) => Response | Promise<Response> | null = () => null;

  readonly fetch = async (address: string, options: RequestInit = {}): Promise<Response> => {
    const { pathname, searchParams } = new URL(address);
    const request = `${options.method ?? "GET"} ${pathname}`;
    this.requests.push(request);
    this.tokens.push(new Headers(options.headers).get("authorization"));
    const other = this.intercept(request);
    if (other) return other;
    if (request === "GET /jobs") return Response.json({ jobs: [], next: null });
    if (request === "POST /jobs") return this.start(JSON.parse(String(options.body)));
    const id = pathname.slice("/jobs/".length);
    const since = Number(searchParams.get("since_seq"));
    const sinceEvent = Number(searchParams.get("since_event") ?? Number.POSITIVE_INFINITY);
    const { signal } = options;
    if (searchParams.has("wait")) {
      await until(
        () => signal?.aborted || this.isNews(id, since) || this.emitted(id).length > sinceEvent,
      );
      signal?.throwIfAborted();
    }
    const job = this.jobs.get(id);
    const all = this.emitted(id);
    if (job && searchParams.has("since_event")) {
      // Pages of two.
      const events = all.slice(sinceEvent, sinceEvent + 2);
      const more = all.length > sinceEvent + 2;
      const page = { first: sinceEvent + 1, events, count: all.length, more, gap: false };
      return Response.json({ ...job, event_count: all.length, events: page });
    }
    if (job) return Response.json({ ...job, event_count: all.length });
    const refusal = { error: "The request does not exist", code: "NOT_FOUND", retryable: false };
    return Response.json(refusal, { status: 404 });
  };

  put(id: string, change: object = {}): void {
    const job = this.jobs.get(id) ?? { seq: 0, status: "PENDING", progress: null };
    const seq = job.seq + 1;
    this.jobs.set(id, { request_id: id, updated_at: "", ...job, ...change, seq });
  }

  progress(id: string, percentage: number): void {
    const seq = (this.jobs.get(id)?.seq ?? 0) + 1;
    const progress = { seq, percentage, message: `${percentage} %`, at: "" };
    this.put(id, { status: "PROCESSING", progress });
  }

  private readonly events: Map<string, unknown[]> = new Map();

  emit(id: string, ...events: unknown[]): void {
    this.events.set(id, [...this.emitted(id), ...events]);
  }

  private emitted(id: string): unknown[] {
    return this.events.get(id) ?? [];
  }

  private isNews(id: string, since: number): boolean {
    const job = this.jobs.get(id);
    return !job || job.seq > since || /COMPLETED|CANCELLED/.test(job.status);
  }

  private start({ id, action, payload }: Record<string, string>): Response {
    if (action === "echo") return Response.json({ request_id: id, result: { echo: payload } });
    if (action === "unknown") {
      const refusal = { error: "no such action", code: "INVALID_ACTION", retryable: false };
      return Response.json(refusal, { status: 400 });
    }
    if (!this.jobs.has(String(id))) this.put(String(id));
    const accepted = { request_id: id, status: "queued", message: "Request queued" };
    return Response.json(accepted, { status: 202 });
  }
}

let service: Service;
let api: Api;
const clients: Jobplane[] = [];

function client(options: ConnectOptions = {}, token: string | (() => string) = "t1"): Jobplane {
  const WebSocket = Ws as unknown as typeof globalThis.WebSocket;
  const made = connect(service.url, token, { WebSocket, api: "https://api", ...options });
  clients.push(made);
  return made;
}

const until = (check: () => unknown) => vi.waitFor(() => expect(check()).toBeTruthy(), 60_000);

beforeEach(async () => {
  service = await Service.start();
  service.refuse = () => true;
  api = new Api();
  vi.spyOn(Math, "random").mockReturnValue(0);
  vi.stubGlobal("fetch", api.fetch);
});

afterEach(async () => {
  for (const each of clients.splice(0)) each.close();
  await service.close();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test("where sockets are blocked, a job's progress and end come over HTTP, and then nothing is asked", async () => {
  const seen: number[] = [];
  const running = client().jobs.run(
    "delay",
    { seconds: 1 },
    { id: "a", onProgress: ({ percentage }) => seen.push(percentage) },
  );
  await until(() => api.jobs.has("a"));
  api.progress("a", 30);
  await until(() => seen.length === 1);
  api.progress("a", 60);
  await until(() => seen.length === 2);
  api.put("a", { status: "COMPLETED", result: { seconds: 1 } });
  expect(await running).toEqual({ seconds: 1 });
  expect(seen).toEqual([30, 60]);
  const before = api.requests.length;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(api.requests).toHaveLength(before);
});

test("events come in order and once, and the end after the last of them", async () => {
  const { jobs } = client();
  const [heard, later]: [unknown[], unknown[]] = [[], []];
  const ended = jobs.run("count", {}, { id: "a", onEvent: (event) => heard.push(event) });
  await until(() => api.jobs.has("a"));
  api.emit("a", 1, 2, 3);
  await until(() => heard.length === 3);
  api.emit("a", 4, 5, 6, 7);
  api.put("a", { status: "COMPLETED", result: { n: 1 } });
  expect(await ended).toEqual({ n: 1 });
  expect(heard).toEqual([1, 2, 3, 4, 5, 6, 7]);
  await client().jobs.wait("a", { sinceEvent: 2, onEvent: (event) => later.push(event) });
  expect(later).toEqual([3, 4, 5, 6, 7]);
});

test("a job of another tab is followed, a short action answered, a refusal passed on", async () => {
  const { jobs } = client();
  api.put("a");
  const waiting = expect(jobs.wait("a")).rejects.toBeInstanceOf(JobCancelledError);
  await until(() => api.requests.includes("GET /jobs/a"));
  api.put("a", { status: "CANCELLED" });
  await waiting;
  expect((await jobs.run("echo", { n: 1 })).echo).toEqual({ n: 1 });
  // A browser sends no frame of this size.
  const large = { text: "x".repeat(40_000) };
  expect((await jobs.run("echo", large)).echo).toEqual(large);
  await expect(jobs.start("unknown", {})).rejects.toMatchObject({ code: "INVALID_ACTION" });
  await expect(jobs.wait("absent")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("more jobs than are waited for at a time all end", async () => {
  const { jobs } = client();
  const ids = Array.from({ length: 8 }, (_, number) => `job-${number}`);
  const running = ids.map((id) => jobs.run("delay", {}, { id }));
  await until(() => api.jobs.size === ids.length);
  for (const id of ids) api.put(id, { status: "COMPLETED", result: { id } });
  expect(await Promise.all(running)).toEqual(ids.map((id) => ({ id })));
});

test("requests that fail are sent again, under one id and with a new token", async () => {
  const faults = [
    () => Promise.reject(new TypeError("network")),
    () => new Response("{}", { status: 503 }),
    () => Response.json({ error: "Unauthorized" }, { status: 401 }),
  ];
  let count = 0;
  const { jobs } = client({}, () => `t${++count}`);
  await jobs.run("echo", {});
  api.requests.length = api.tokens.length = 0;
  api.intercept = () => faults.shift()?.() ?? null;
  const running = jobs.run("delay", {}, { id: "a" });
  await until(() => api.jobs.has("a"));
  api.put("a", { status: "COMPLETED", result: { n: 1 } });
  expect(await running).toEqual({ n: 1 });
  expect(api.requests.slice(0, 4)).toEqual(Array(4).fill("POST /jobs"));
  expect(new Set(api.tokens.slice(0, 4)).size).toBe(4);
});

test("a socket is tried again, and used when it is let through", async () => {
  const one = client({ maxAge: 200 });
  await one.jobs.run("echo", {});
  service.refuse = () => false;
  await until(() => one.state === "open" && service.sockets.size);
  await one.jobs.run("echo", {});
  expect(service.count("echo")).toBe(1);
});

test("without an answer of either, the waiting calls end", async () => {
  api.intercept = () => Promise.reject(new TypeError("network"));
  await expect(client().jobs.start("delay", {})).rejects.toThrow(ConnectionLostError);
});

test("a service of a version without jobs over HTTP is asked by sockets again", async () => {
  api.intercept = () => Response.json({ message: "Not Found" }, { status: 404 });
  const refusals = [1, 2, 3];
  service.refuse = () => refusals.pop() !== undefined;
  expect((await client().jobs.run("echo", { n: 1 })).echo).toEqual({ n: 1 });
});

test("a ping is an answered request", async () => {
  const one = client({ pingEvery: 20, answerWithin: 200 });
  await one.jobs.run("echo", {});
  await until(() => api.requests.includes("GET /jobs"));
  expect(one.state).toBe("open");
});
