import type { Job } from "./client.js";
import type { AssemblyDocument, ErrorBody, RequestState } from "./contracts.js";
import { errorOf, RefusedError } from "./errors.js";
import { isObject } from "./protocol.js";
import type { Token } from "./session.js";

export interface ListOptions {
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
  jobs: RequestState[];
  next?: string;
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
  ): Promise<Job> {
    return jobOf(await this.call("POST", "jobs", { id, action, payload, metadata }));
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
    return jobOf(await this.call("POST", `jobs/${encodeURIComponent(id)}/replay`));
  }

  /** All calls are repeatable: one id makes one job. */
  private async call(
    method: string,
    path: string,
    body?: object,
  ): Promise<Record<string, unknown>> {
    for (let attempt = 1; ; attempt += 1) {
      const token = typeof this.token === "string" ? this.token : await this.token();
      const answer = await fetch(`${this.api.replace(/\/$/, "")}/${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
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

function refused(answer: Response | null, data: unknown): Error {
  const error = isObject(data) ? data.error : null;
  if (isObject(error)) return errorOf(error as unknown as ErrorBody, undefined, false);
  const message = answer ? `the service answered ${answer.status}` : "the service can't be reached";
  return new RefusedError(message, { code: "SERVICE_UNAVAILABLE", status: answer?.status });
}
