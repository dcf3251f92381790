import { createHmac } from "node:crypto";
import { expect, test } from "vitest";
import { verifyWebhook } from "../src/webhooks.js";

// The example of the Standard Webhooks specification.
const headers = {
  "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
  "webhook-timestamp": "1614265330",
  "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
};
const body = '{"test": 2432232314}';
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const now = 1614265330;

test.each([
  [secret, headers],
  [`v1,${secret}`, headers],
  [["another-secret", secret], headers],
  [secret, new Headers(headers)],
])("the standard's example is accepted: %s", async (secrets, given) => {
  expect(await verifyWebhook(given, body, secrets, { now })).toEqual({ test: 2432232314 });
});

test.each([
  ["missing", { "webhook-id": "" }, body, now],
  ["malformed", { "webhook-timestamp": "soon" }, body, now],
  ["malformed", { "webhook-signature": "v2,abc" }, body, now],
  ["malformed", { "webhook-signature": ["a", "b"] }, body, now],
  ["mismatch", {}, `${body} `, now],
  ["stale", {}, body, now + 301],
  ["future", {}, body, now - 301],
])("a notification is refused as %s", async (reason, changed, text, at) => {
  const given = Object.fromEntries(
    Object.entries({ ...headers, ...changed }).map(([name, value]) => [name.toLowerCase(), value]),
  );
  const lower = {
    ...given,
    ...("webhook-id" in changed
      ? { "webhook-id": changed["webhook-id"] }
      : { "webhook-id": headers["Webhook-Id"] }),
  };
  await expect(verifyWebhook(lower, text, secret, { now: at })).rejects.toMatchObject({ reason });
});

test("a body that is not an object is refused after its signature", async () => {
  const text = "plain-secret";
  const digest = createHmac("sha256", text).update("id.100.[]").digest("base64");
  const given = {
    "webhook-id": "id",
    "webhook-timestamp": "100",
    "webhook-signature": `v1,${digest}`,
  };
  await expect(verifyWebhook(given, "[]", text, { now: 100 })).rejects.toMatchObject({
    reason: "body",
  });
});

test.each(["", "short", "whsec_!", "whsec_c2hvcnQ=", "whsk_abc", "v1a,whpk_abc"])(
  "the secret %s is an error of the caller",
  async (bad) => {
    await expect(verifyWebhook(headers, body, bad, { now })).rejects.toBeInstanceOf(TypeError);
  },
);
