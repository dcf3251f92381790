import { afterEach, beforeEach, expect, expectTypeOf, test, vi } from "vitest";
import { WebSocket as Ws } from "ws";
import {
  ConnectionLostError,
  type ConnectOptions,
  connect,
  type DelayResult,
  JobCancelledError,
  JobFailedError,
  type Jobplane,
  JobTimeoutError,
  RefusedError,
  type ServerMessage,
} from "../src/index.js";
import { Service } from "./service.js";

let service: Service;
const clients: Jobplane[] = [];

function client(options: ConnectOptions = {}, token: string | (() => string) = "t1"): Jobplane {
  const WebSocket = Ws as unknown as typeof globalThis.WebSocket;
  const made = connect(service.url, token, { WebSocket, ...options });
  clients.push(made);
  return made;
}

beforeEach(async () => {
  service = await Service.start();
  // Pauses between connections are drawn from 0 up to their limit: draw 0.
  vi.spyOn(Math, "random").mockReturnValue(0);
});

afterEach(async () => {
  for (const each of clients.splice(0)) each.close();
  await service.close();
  vi.restoreAllMocks();
});

const until = (check: () => unknown) => vi.waitFor(() => expect(check()).toBeTruthy(), 60_000);

test("a job's progress and result arrive", async () => {
  const seen: number[] = [];
  const running = client().jobs.run(
    "delay",
    { seconds: 1 },
    { id: "a", onProgress: (progress) => seen.push(progress.percentage) },
  );
  expectTypeOf(running).resolves.toEqualTypeOf<DelayResult>();
  await until(() => service.jobs.has("a"));
  service.progress("a", 50);
  service.complete("a", { seconds: 1 });
  expect(await running).toEqual({ seconds: 1 });
  expect(seen).toEqual([50]);
});

test("a short action is answered at once", async () => {
  expect((await client().jobs.run("echo", { n: 1 })).echo).toEqual({ n: 1 });
});

test.each([
  ["FAILED", "PROCESSING_FAILED", JobFailedError],
  ["CANCELLED", "CANCELLED", JobCancelledError],
  ["FAILED", "TIMEOUT", JobTimeoutError],
] as const)("a job that ends %s with %s rejects", async (status, code, Kind) => {
  const { jobs } = client();
  const { id } = await jobs.start("delay", {});
  const waiting = expect(jobs.wait(id)).rejects.toThrow(Kind);
  await until(() => service.count("subscribe"));
  service.fail(id, status, code);
  await waiting;
  await expect(jobs.wait(id)).rejects.toMatchObject({ code, requestId: id });
});

test("a refusal names the invalid fields", async () => {
  service.intercept = ({ id }, socket) => {
    const details = [{ field: "payload.seconds", message: "must be a number" }];
    const error = { code: "VALIDATION_ERROR", message: "invalid", details, retryable: false };
    socket.send(JSON.stringify({ type: "error", request_id: id, error }));
    return true;
  };
  const refused = client().jobs.start("delay", {});
  await expect(refused).rejects.toThrow("invalid: payload.seconds: must be a number");
  await expect(refused).rejects.toBeInstanceOf(RefusedError);
});

test("each watcher gets one last message, over many lost connections", async () => {
  const one = client();
  const ids = Array.from({ length: 20 }, (_, n) => `job-${n}`);
  const ends = new Map(ids.map((id) => [id, 0]));
  for (const id of ids) await one.jobs.start("delay", {}, { id });
  for (const id of ids) {
    one.subscribe(id, (message) => {
      if (message.type === "complete") ends.set(id, (ends.get(id) ?? 0) + 1);
    });
  }
  for (let round = 0; round < 50; round += 1) {
    service.drop();
    const id = ids[round % ids.length] as string;
    if (round < 20) service.complete(id, { round });
    await until(() => one.state === "open");
  }
  await until(() => [...ends.values()].every((count) => count === 1));
  service.received.length = 0;
  service.drop();
  await until(() => one.state === "open" && service.sockets.size === 1);
  await one.jobs.run("echo", {});
  expect([...ends.values()]).toEqual(ids.map(() => 1));
  expect(service.count("subscribe")).toBe(0);
});

test("a request without an acknowledgement is sent again with its id", async () => {
  let lost = 0;
  service.intercept = ({ action }, socket) => {
    if (action !== "delay" || lost === 3) return false;
    lost += 1;
    socket.terminate();
    return true;
  };
  expect(await client().jobs.start("delay", {}, { id: "a" })).toMatchObject({ id: "a" });
  expect(service.received.filter(({ id }) => id === "a")).toHaveLength(4);
});

test("what API Gateway could not deliver is sent again", async () => {
  let failures = 0;
  service.intercept = (_, socket) => {
    failures += 1;
    if (failures > 2) return false;
    socket.send(JSON.stringify({ message: "Internal server error", connectionId: "c" }));
    return true;
  };
  expect(await client().jobs.start("delay", {}, { id: "a" })).toMatchObject({ status: "queued" });
});

test("missed progress is asked for, and old progress is dropped", async () => {
  const one = client();
  const seen: ServerMessage[] = [];
  await one.jobs.start("delay", {}, { id: "a" });
  one.subscribe("a", (message) => seen.push(message));
  await until(() => service.count("subscribe"));
  service.progress("a", 10);
  await until(() => seen.length === 1);
  service.drop();
  service.progress("a", 30);
  service.progress("a", 60);
  await until(() => seen.length === 2);
  service.drop();
  await until(() => service.count("subscribe") === 3);
  service.complete("a", {});
  await until(() => seen.length === 3);
  expect(seen.map((message) => ("seq" in message ? message.seq : 0))).toEqual([1, 3, 4]);
});

test.each([[[]], [[0]], [[1, 2]], [[4]], [[0, 1, 2, 3, 4]]])(
  "all events arrive once and in order, although the posts %j are lost",
  async (lost: number[]) => {
    const one = client();
    const heard: unknown[] = [];
    const running = one.jobs.run("delay", {}, { id: "a", onEvent: (event) => heard.push(event) });
    await until(() => service.jobs.has("a"));
    for (let number = 0; number < 5; number += 1) {
      if (number === 3) {
        service.drop();
        await until(() => one.state === "open" && service.sockets.size === 1);
        await until(() => service.count("subscribe"));
      }
      service.emit("a", number, lost.includes(number));
    }
    service.complete("a", { n: 1 });
    expect(await running).toEqual({ n: 1 });
    expect(heard).toEqual([0, 1, 2, 3, 4]);
  },
);

test("events without a listener are not asked for", async () => {
  const running = client().jobs.run("delay", {}, { id: "a" });
  await until(() => service.jobs.has("a"));
  service.emit("a", 0, true);
  service.complete("a", { n: 1 });
  expect(await running).toEqual({ n: 1 });
  expect(service.count("subscribe")).toBe(0);
});

test("a token function gives a new token after a refusal", async () => {
  let count = 0;
  service.intercept = ({ id, action }, socket) => {
    if (action !== "delay" || service.tokens.at(-1) !== "t1") return false;
    service.refuseMessage(socket, String(id), "UNAUTHORIZED");
    return true;
  };
  const one = client({}, () => `t${++count}`);
  await one.jobs.start("delay", {}, { id: "a" });
  expect(service.tokens).toEqual(["t1", "t2"]);
});

const shortToken = (): string => `h.${btoa(JSON.stringify({ exp: Date.now() / 1000 + 0.2 }))}.s`;

test("a newer token is sent on the open connection before the present one expires", async () => {
  client({}, shortToken);
  await until(() => service.count("authenticate") >= 2);
  const sent = service.received.map(({ payload }) => (payload as { token: string }).token);
  expect(new Set([...service.tokens, ...sent]).size).toBe(1 + sent.length);
  expect(service.tokens).toHaveLength(1);
});

test.each(["FORBIDDEN", "INVALID_ACTION"])(
  "a connection whose newer token is refused with %s is replaced",
  async (code) => {
    service.intercept = ({ id, action }, socket) => {
      if (action !== "authenticate") return false;
      service.refuseMessage(socket, String(id), code);
      return true;
    };
    const one = client({}, shortToken);
    await until(() => service.tokens.length >= 2);
    expect(one.state).not.toBe("closed");
  },
);

test("a connection is replaced if the newer token gets no answer, or there is none", async () => {
  service.intercept = ({ action }) => action === "authenticate";
  client({ answerWithin: 50 }, shortToken);
  await until(() => service.tokens.length >= 2);
  let calls = 0;
  client({}, () => {
    calls += 1;
    if (calls === 2) throw new Error("the issuer is down");
    return `${shortToken()}${calls}`;
  });
  await until(() => service.tokens.some((token) => token?.endsWith(".s3")));
});

test("an expired token that can't be replaced closes the client, and the error says why", async () => {
  service.intercept = ({ id }, socket) => {
    service.refuseMessage(socket, String(id), "UNAUTHORIZED");
    return true;
  };
  const one = client();
  await expect(one.jobs.start("delay", {})).rejects.toThrow("give connect a function");
  expect(one.state).toBe("closed");
});

test("a service that refuses every handshake ends the waiting calls", async () => {
  service.refuse = () => true;
  const one = client();
  const states: string[] = [];
  one.onState((state) => states.push(state));
  await expect(one.jobs.start("delay", {})).rejects.toThrow(ConnectionLostError);
  expect(states.filter((state) => state === "waiting")).toHaveLength(4);
  expect(states.at(-1)).toBe("closed");
});

test("a connection on which nothing arrives is replaced", async () => {
  service.intercept = ({ action }) => action === "ping" && service.tokens.length === 1;
  client({ pingEvery: 20, answerWithin: 200 });
  await until(() => service.tokens.length > 1);
});

test("a post that was lost is asked for after two pings", async () => {
  const one = client({ pingEvery: 20 });
  const { id } = await one.jobs.start("delay", {});
  const waiting = one.jobs.wait(id);
  await until(() => service.count("subscribe"));
  const job = service.jobs.get(id);
  Object.assign(job ?? {}, { status: "COMPLETED", seq: 1, result: { silent: true } });
  expect(await waiting).toEqual({ silent: true });
});

test("a connection is replaced before it is too old", async () => {
  client({ maxAge: 20 });
  await until(() => service.tokens.length >= 3);
});

test("waiting can be stopped, and the job goes on", async () => {
  const { jobs } = client();
  const { id } = await jobs.start("delay", {});
  const controller = new AbortController();
  const waiting = jobs.wait(id, { signal: controller.signal });
  controller.abort(new Error("enough"));
  await expect(waiting).rejects.toThrow("enough");
  await until(() => service.count("unsubscribe"));
});

test("an id belongs to one request", async () => {
  const { jobs } = client();
  void jobs.run("delay", { seconds: 1 }, { id: "a" }).catch(() => {});
  await expect(jobs.start("delay", { seconds: 2 }, { id: "a" })).rejects.toMatchObject({
    code: "DUPLICATE_REQUEST",
  });
});

test("a job of somebody else is not found", async () => {
  await expect(client().jobs.wait("unknown")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("closing rejects what waits, and later calls", async () => {
  const one = client();
  const { id } = await one.jobs.start("delay", {});
  const waiting = one.jobs.wait(id);
  one.close();
  await expect(waiting).rejects.toThrow("the client was closed");
  await expect(one.jobs.start("delay", {})).rejects.toThrow(ConnectionLostError);
});

test.each(["http://x", "nothing"])("the URL %s is refused", async (url) => {
  const one = connect(url, "t1");
  await expect(one.jobs.start("delay", {})).rejects.toThrow("must begin with wss://");
});

test("lists and replays go over HTTP, and are repeated under one key", async () => {
  const answers = [
    new Response(JSON.stringify({ message: "Service Unavailable" }), { status: 503 }),
    new Response(JSON.stringify({ request_id: "new", status: "queued" }), { status: 202 }),
    new Response(JSON.stringify({ jobs: [], next: null })),
  ];
  const sent = vi.spyOn(globalThis, "fetch").mockImplementation(async () => {
    const answer = answers.shift();
    if (!answer) throw new Error("no answer is left");
    return answer;
  });
  const { jobs } = client({ api: "https://api/" });
  expect(await jobs.replay("a b")).toEqual({ id: "new", status: "queued", assemblyId: undefined });
  expect(await jobs.list({ tag: "nightly" })).toEqual({ jobs: [], next: null });
  const keys = sent.mock.calls.map(([, options]) =>
    new Headers(options?.headers).get("idempotency-key"),
  );
  expect(sent.mock.calls.map(([url]) => url)).toEqual([
    "https://api/jobs/a%20b/replay",
    "https://api/jobs/a%20b/replay",
    "https://api/jobs?tag=nightly",
  ]);
  expect([keys[0] === keys[1], Boolean(keys[0]), keys[2]]).toEqual([true, true, null]);
  sent.mockRestore();
});

test("a refusal over HTTP has the service's code and status", async () => {
  const body = { error: "The job has not ended", code: "VALIDATION_ERROR", retryable: false };
  const sent = vi
    .spyOn(globalThis, "fetch")
    .mockResolvedValue(new Response(JSON.stringify(body), { status: 400 }));
  await expect(client({ api: "https://api" }).jobs.replay("a")).rejects.toMatchObject({
    code: "VALIDATION_ERROR",
    status: 400,
    message: "The job has not ended",
  });
  sent.mockRestore();
});
