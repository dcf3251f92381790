import type { ErrorBody, RequestState, ServerMessage } from "./contracts.js";
import { isObject, missed, now, refusal } from "./protocol.js";
import type { Socket } from "./session.js";

interface Request {
  id?: string;
  action: string;
  payload?: { request_id?: string; since_seq?: number; since_event?: number; user_id?: string };
}

/** So many jobs are waited for at a time; more of them are looked at in turn. */
const mostWaits = 4;
const waitSeconds = 20;
const leastPause = 1_000;

/**
 * A socket where none is let through: a message becomes a request of the HTTP API, and the changes
 * of a job come by long-polling.
 */
export class PollingSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  onclose: (() => void) | null = null;
  private readonly closed = new AbortController();
  private readonly followed = new Map<string, object>();

  constructor(
    private readonly api: string,
    private readonly token: string,
  ) {
    queueMicrotask(() => this.onopen?.());
  }

  send(frame: string): void {
    this.perform(JSON.parse(frame) as Request, frame).catch(() => this.fail());
  }

  close(): void {
    this.closed.abort();
  }

  private fail(): void {
    if (this.closed.signal.aborted) return;
    this.close();
    this.onclose?.();
  }

  private async perform({ id, action, payload = {} }: Request, frame: string): Promise<void> {
    const job = String(payload.request_id);
    if (action === "ping") await this.ping();
    else if (action === "subscribe") await this.subscribe(id, job, payload);
    else if (action === "unsubscribe") this.followed.delete(job);
    else {
      const { status, data } = await this.call("jobs", frame);
      const head = { request_id: String(id), timestamp: now() };
      if (status >= 400) this.post(refusal(head.request_id, errorOf(data)));
      else if (status === 200) {
        const result = data.result as Record<string, unknown>;
        this.post({ ...head, type: "response", success: true, data: result } as ServerMessage);
      } else {
        const { request_id: _, ...accepted } = data;
        this.post({ ...head, type: "acknowledgment", ...accepted } as unknown as ServerMessage);
        await this.follow(head.request_id, 0, 0, undefined);
      }
    }
  }

  private async ping(): Promise<void> {
    const { status, data } = await this.call("jobs?limit=1");
    if (status < 400) this.post({ type: "pong", timestamp: now() });
    else this.post({ type: "error", timestamp: now(), error: errorOf(data) });
  }

  private async subscribe(
    id: string | undefined,
    job: string,
    { since_seq = 0, since_event, user_id }: NonNullable<Request["payload"]>,
  ): Promise<void> {
    const { status, data } = await this.look(job, user_id, eventsSince(since_event));
    const head = { request_id: String(id), timestamp: now() };
    if (status >= 400) {
      this.post(refusal(head.request_id, errorOf(data)));
      return;
    }
    const state = data as unknown as RequestState;
    this.post({ ...head, type: "response", success: true, data } as ServerMessage);
    const event = since_event === undefined ? undefined : lastEvent(state, since_event);
    if (!isEnded(state)) await this.follow(job, Math.max(since_seq, state.seq), event, user_id);
  }

  /** Posts the changes of a job up to its end; a later call for the same job takes over. */
  private async follow(
    job: string,
    since: number,
    sinceEvent: number | undefined,
    userId: string | undefined,
  ): Promise<void> {
    const turn = {};
    this.followed.set(job, turn);
    let [seq, event] = [since, sinceEvent];
    while (this.followed.get(job) === turn && !this.closed.signal.aborted) {
      const asked = Date.now();
      const isWaiting = this.followed.size <= mostWaits;
      const query = isWaiting ? { wait: String(waitSeconds), since_seq: String(seq) } : {};
      const all = { ...query, ...eventsSince(event) };
      const { status, data } = await this.look(job, userId, all);
      if (this.followed.get(job) !== turn) return;
      if (status >= 400) {
        this.followed.delete(job);
        this.post(refusal(job, errorOf(data)));
        return;
      }
      const state = data as unknown as RequestState;
      const hasEvents = event !== undefined && lastEvent(state, event) > event;
      if (state.events && (hasEvents || state.events.gap)) {
        const { first, events, gap } = state.events;
        const head = { request_id: job, timestamp: state.updated_at };
        this.post({ ...head, type: "event", first, events, gap });
      }
      if (event !== undefined) event = lastEvent(state, event);
      // The end comes after the last of the events.
      if (hasEvents && state.events?.more) continue;
      for (const message of missed(state, seq)) this.post(message);
      if (isEnded(state)) this.followed.delete(job);
      else {
        const isNews = hasEvents || state.seq > seq;
        seq = Math.max(seq, state.seq);
        const due = isWaiting ? leastPause : (leastPause * this.followed.size) / mostWaits;
        if (!isNews || !isWaiting) await this.pause(asked + due - Date.now());
      }
    }
  }

  private look(
    job: string,
    userId: string | undefined,
    query: Record<string, string> = {},
  ): Promise<{ status: number; data: Record<string, unknown> }> {
    const all = new URLSearchParams({ ...query, ...(userId && { user_id: userId }) });
    return this.call(`jobs/${encodeURIComponent(job)}?${all}`);
  }

  /** An answer of the service. Rejects when there is none. */
  private async call(
    path: string,
    body?: string,
  ): Promise<{ status: number; data: Record<string, unknown> }> {
    const answer = await fetch(`${this.api}/${path}`, {
      signal: this.closed.signal,
      headers: {
        authorization: `Bearer ${this.token}`,
        ...(body && { "content-type": "application/json" }),
      },
      ...(body && { method: "POST", body }),
    });
    const { status } = answer;
    const data: unknown = await answer.json();
    if (status === 401)
      return { status, data: { error: "the token has expired", code: "UNAUTHORIZED" } };
    // API Gateway's own answers have no code.
    if (!isObject(data) || (status >= 400 && !data.code)) throw new Error(`answered ${status}`);
    return { status, data };
  }

  private post(message: ServerMessage): void {
    if (!this.closed.signal.aborted) this.onmessage?.({ data: JSON.stringify(message) });
  }

  private pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

function eventsSince(event: number | undefined): Record<string, string> {
  return event === undefined ? {} : { since_event: String(event) };
}

/** The number of the last event that an answer has, or that was known before. */
function lastEvent({ events: page }: RequestState, known: number): number {
  return page ? Math.max(known, page.first + page.events.length - 1) : known;
}

function isEnded({ status }: RequestState): boolean {
  return /^(COMPLETED|FAILED|CANCELLED)$/.test(status);
}

/** The error of a refusal, `{error, code, retryable, details?}`. */
function errorOf({ error, code, retryable, details }: Record<string, unknown>): ErrorBody {
  return {
    code: (code ?? "SERVICE_UNAVAILABLE") as ErrorBody["code"],
    message: String(error),
    retryable: retryable === true,
    ...(details ? { details: details as never } : {}),
  };
}
