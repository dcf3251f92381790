import type { Job } from "./client.js";
import type { AssemblyDocument, ErrorBody, RequestState } from "./contracts.js";
import { errorOf, RefusedError } from "./errors.js";
import { isObject, newId } from "./protocol.js";
import type { Token } from "./session.js";

export interface ListOptions {
  /** One, or several with commas. */
  status?: string;
  action?: string;
  tag?: string;
  from?: string;
  to?: string;
  limit?: number;
  /** `next` of the page before. */
  next?: string;
}

export interface JobList {
  jobs: (RequestState & { tags: string[] })[];
  /** Null on the last page. */
  next: string | null;
}

/** What was started; a short action has been answered already. */
export interface Started {
  job: Job;
  answer?: { result: unknown };
}

const attempts = 4;

/** The HTTP API: what a socket can't do. */
export class Http {
  constructor(
    private readonly api: string,
    private readonly token: Token,
  ) {}

  async start(
    id: string,
    action: string,
    payload: object,
    metadata: Record<string, string> | undefined,
  ): Promise<Started> {
    const data = await this.call("POST", "jobs", { id, action, payload, metadata });
    return { job: jobOf(data), ...("result" in data && { answer: { result: data.result } }) };
  }

  async list(options: ListOptions): Promise<JobList> {
    const query = new URLSearchParams(
      Object.entries(options).map(([name, value]): [string, string] => [name, String(value)]),
    );
    return (await this.call("GET", `jobs?${query}`)) as unknown as JobList;
  }

  /** The document of an assembly; null if it does not exist yet. */
  async assembly(id: string): Promise<AssemblyDocument | null> {
    try {
      const document: unknown = await this.call("GET", `status/${encodeURIComponent(id)}`);
      return document as AssemblyDocument;
    } catch (error) {
      if (error instanceof RefusedError && error.status === 404) return null;
      throw error;
    }
  }

  async replay(id: string): Promise<Job> {
    const path = `jobs/${encodeURIComponent(id)}/replay`;
    return jobOf(await this.call("POST", path, undefined, newId()));
  }

  /** All calls are repeatable: one id makes one job. */
  private async call(
    method: string,
    path: string,
    body?: object,
    key?: string,
  ): Promise<Record<string, unknown>> {
    for (let attempt = 1; ; attempt += 1) {
      const token = typeof this.token === "string" ? this.token : await this.token();
      const answer = await fetch(`${this.api.replace(/\/$/, "")}/${path}`, {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          ...(body && { "content-type": "application/json" }),
          ...(key && { "idempotency-key": key }),
        },
        ...(body && { body: JSON.stringify(body) }),
      }).catch(() => null);
      const data: unknown = await answer?.json().catch(() => null);
      if (answer?.ok && isObject(data)) return data;
      if (attempt === attempts || (answer && answer.status < 500 && answer.status !== 429)) {
        throw refused(answer, data);
      }
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 500 * 2 ** attempt));
    }
  }
}

function jobOf(data: Record<string, unknown>): Job {
  const { request_id, status, assembly_id } = data as Record<string, string>;
  return { id: request_id ?? "", status: status ?? "", assemblyId: assembly_id };
}

/** A refusal is `{error, code, retryable, details?}`; API Gateway's has no code. */
function refused(answer: Response | null, data: unknown): Error {
  const facts = isObject(data) ? data : {};
  if (typeof facts.error === "string" && typeof facts.code === "string") {
    const body = { ...facts, message: facts.error } as unknown as ErrorBody;
    return errorOf(body, undefined, false, answer?.status);
  }
  const message = answer ? `the service answered ${answer.status}` : "the service can't be reached";
  const code = answer?.status === 401 ? "UNAUTHORIZED" : "SERVICE_UNAVAILABLE";
  return new RefusedError(message, { code, status: answer?.status });
}
