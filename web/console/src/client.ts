import type { ConsoleApi } from "./api.js";
import { ConsoleError } from "./load.js";

type Gets = ConsoleApi["gets"];
type Posts = ConsoleApi["posts"];
type Fields = Record<string, string | number | boolean | readonly string[] | null | undefined>;

/** The query of a GET: a list is one parameter with commas; what is empty is left out. */
export function queryOf(fields: Fields): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    const text = Array.isArray(value) ? value.join(",") : String(value ?? "");
    if (text) query.set(name, text);
  }
  return query.size ? `?${query}` : "";
}

/** The event after each change that the page has made. */
export const CHANGED = "jobplane-changed";

// Answers by address, with the tags by which the server tells that they are still the same.
const known = new Map<string, { tag: string; value: unknown }>();
const KEPT = 40;

async function ask(address: string, options: RequestInit): Promise<Response> {
  try {
    return await fetch(address, options);
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ConsoleError(
      "The console's server does not answer. Is `jobplane console` still running in its terminal?",
      0,
    );
  }
}

async function read<Value>(answer: Response): Promise<Value> {
  const body = await answer.json().catch(() => undefined);
  if (answer.ok && body !== undefined) return body as Value;
  const message = body?.error?.message;
  const error = new ConsoleError(
    typeof message === "string" ? message : `The console's server answered ${answer.status}.`,
    answer.status,
  );
  if (answer.status === 401) dispatchEvent(new CustomEvent(NO_SESSION, { detail: error }));
  throw error;
}

/** The event after an answer that the page has no session, with the error. */
export const NO_SESSION = "jobplane-no-session";

/** Reads; an answer that has not changed is the same object as before. */
export async function get<Path extends keyof Gets>(
  path: Path,
  asks: Gets[Path]["asks"],
  signal?: AbortSignal,
): Promise<Gets[Path]["answer"]> {
  const address = `/api/${path}${queryOf(asks as Fields)}`;
  const last = known.get(address);
  const answer = await ask(address, {
    cache: "no-store",
    headers: last ? { "if-none-match": last.tag } : {},
    ...(signal ? { signal } : {}),
  });
  if (answer.status === 304 && last) return last.value as Gets[Path]["answer"];
  const value = await read<Gets[Path]["answer"]>(answer);
  const tag = answer.headers.get("etag");
  known.delete(address);
  if (tag) known.set(address, { tag, value });
  const oldest = known.size > KEPT ? known.keys().next().value : undefined;
  if (oldest !== undefined) known.delete(oldest);
  return value;
}

export async function post<Path extends keyof Posts>(
  path: Path,
  asks: Posts[Path]["asks"],
): Promise<Posts[Path]["answer"]> {
  const answer = await ask(`/api/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(asks),
  });
  const done = await read<Posts[Path]["answer"]>(answer);
  dispatchEvent(new Event(CHANGED));
  return done;
}
