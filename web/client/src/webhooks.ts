import type { AssemblyDocument } from "./contracts.js";
import { WebhookError } from "./errors.js";

export { WebhookError } from "./errors.js";

type Headers_ = Headers | Record<string, string | string[] | undefined>;

export interface VerifyOptions {
  /** Seconds that the notification's time may differ from now. */
  tolerance?: number;
  /** Epoch seconds; for tests. */
  now?: number;
}

const text = new TextEncoder();

/**
 * Verifies a webhook and returns its document. Throws a WebhookError.
 *
 * `body` is the body as it arrived, before any parsing. `secrets` is one secret, or several while
 * they rotate. All attempts of a delivery have the same `webhook-id`: store it to recognise them.
 */
export async function verifyWebhook(
  headers: Headers_,
  body: string | Uint8Array,
  secrets: string | readonly string[],
  { tolerance = 300, now = Date.now() / 1000 }: VerifyOptions = {},
): Promise<AssemblyDocument> {
  const [id, time, signature] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(
    (name) => header(headers, name),
  ) as [string, string, string];
  if (id.includes(".")) throw new WebhookError("malformed", "webhook-id contains a dot");
  if (!/^[0-9]{1,12}$/.test(time)) {
    throw new WebhookError("malformed", "webhook-timestamp is not a number of seconds");
  }
  const bytes = typeof body === "string" ? text.encode(body) : body;
  const signed = joined(text.encode(`${id}.${time}.`), bytes);
  const given = signature
    .split(" ")
    .filter((entry) => entry.startsWith("v1,"))
    .map((entry) => decoded(entry.slice(3)))
    .filter((digest) => digest !== null);
  if (!given.length) throw new WebhookError("malformed", "webhook-signature has no v1 signature");
  let found = false;
  // Every pair is compared: the duration does not show which secret fits.
  for (const secret of typeof secrets === "string" ? [secrets] : secrets) {
    const key = await crypto.subtle.importKey(
      "raw",
      keyOf(secret),
      { name: "HMAC", hash: "SHA-256" },
      false,
      ["verify"],
    );
    for (const digest of given) {
      found = (await crypto.subtle.verify("HMAC", key, digest, signed)) || found;
    }
  }
  if (!found) throw new WebhookError("mismatch", "no signature matches the body and a secret");
  const age = Math.round(now - Number(time));
  if (age > tolerance) throw new WebhookError("stale", `the notification is ${age} s old`);
  if (-age > tolerance) {
    throw new WebhookError("future", `the notification's time is ${-age} s in the future`);
  }
  return documentOf(bytes);
}

function header(headers: Headers_, name: string): string {
  const values =
    headers instanceof Headers
      ? [headers.get(name)]
      : Object.entries(headers)
          .filter(([each]) => each.toLowerCase() === name)
          .flatMap(([, value]) => value);
  const value = values[0];
  if (!value) throw new WebhookError("missing", `the notification has no ${name} header`);
  if (values.length > 1) throw new WebhookError("malformed", `the ${name} header appears twice`);
  return value;
}

/** The key of `whsec_…` is the base64 after it, decoded; of another secret its text. */
function keyOf(secret: string): Uint8Array<ArrayBuffer> {
  const bare = secret.replace(/^v1,(?=whsec_)/, "");
  if (/^(v1a,|wh[sp]k_)/.test(bare)) {
    throw new TypeError("a webhook secret is a key for asymmetric signatures; use a whsec_ secret");
  }
  const encoded = bare.startsWith("whsec_");
  const key = encoded ? decoded(bare.slice(6)) : text.encode(bare);
  if (!key) throw new TypeError("a whsec_ secret is not base64 after its prefix");
  const least = encoded ? 24 : 8;
  if (key.length < least) {
    throw new TypeError(`a webhook secret has ${key.length} bytes, but needs ${least}`);
  }
  return key;
}

function decoded(base64: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

function documentOf(bytes: Uint8Array): AssemblyDocument {
  try {
    const document: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof document === "object" && document && !Array.isArray(document)) {
      return document as AssemblyDocument;
    }
  } catch {
    // Answered below.
  }
  throw new WebhookError("body", "the body is not a JSON object");
}
