import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { afterEach, beforeAll, expect, inject, test, vi } from "vitest";
import { GET as status } from "../examples/next/app/api/jobplane/status/[assemblyId]/route.js";
import { GET as token } from "../examples/next/app/api/jobplane/token/route.js";
import { POST as webhook } from "../examples/next/app/api/jobplane/webhook/route.js";

const stage = inject("stage");
const key = randomBytes(24);

beforeAll(() => {
  process.env.JOBPLANE_API = stage.api;
  process.env.JOBPLANE_SECRET = stage.secret;
  process.env.JOBPLANE_WEBHOOK_SECRET = `whsec_${key.toString("base64")}`;
});

afterEach(() => vi.restoreAllMocks());

const asked = (headers: Record<string, string> = {}) => new Request("http://app/", { headers });
const anna = { cookie: "theme=dark; user=anna" };
const of = (assemblyId: string) => ({ params: Promise.resolve({ assemblyId }) });

test("the example's routes answer 401 without a user", async () => {
  expect(token(asked()).status).toBe(401);
  expect((await status(asked(), of("x"))).status).toBe(401);
});

test("the example's token is accepted by the stage", async () => {
  const authorization = `Bearer ${await token(asked(anna)).text()}`;
  const answer = await fetch(`${stage.api}/jobs?limit=1`, { headers: { authorization } });
  expect(answer.status).toBe(200);
});

test("the example passes the stage's answer for an assembly on", async () => {
  const answer = await status(asked(anna), of(randomUUID().replaceAll("-", "").repeat(2)));
  expect(answer.status).toBe(404);
  expect(answer.headers.get("content-type")).toContain("application/json");
  expect(await answer.json()).toMatchObject({ error: expect.any(String) });
});

function delivered(body: string, by = key): Request {
  const [id, timestamp] = ["msg_1", String(Math.floor(Date.now() / 1000))];
  const signature = createHmac("sha256", by).update(`${id}.${timestamp}.${body}`).digest("base64");
  const headers = {
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": `v1,${signature}`,
  };
  return new Request("http://app/", { method: "POST", headers, body });
}

test("the example's receiver takes a webhook once, and refuses a wrong signature", async () => {
  const told = vi.spyOn(console, "log").mockImplementation(() => {});
  const body = JSON.stringify({ assembly_id: "a", ok: "ASSEMBLY_COMPLETED", message: "done" });
  expect((await webhook(delivered(body, randomBytes(24)))).status).toBe(400);
  expect(told).not.toHaveBeenCalled();
  for (let attempt = 0; attempt < 2; attempt += 1)
    expect((await webhook(delivered(body))).status).toBe(200);
  expect(told).toHaveBeenCalledOnce();
});
