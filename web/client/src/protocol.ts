import type {
  ClientRequest,
  Contracts,
  ErrorBody,
  ErrorMessage,
  ProgressMessage,
  RequestState,
  ServerMessage,
} from "./contracts.js";

/** The actions of the service. */
export type Action = ClientRequest["action"];

/** The payload of an action. An action that these types don't know has any. */
export type Payload<A extends string> = A extends Action
  ? NonNullable<Extract<ClientRequest, { action: A }>["payload"]>
  : Record<string, unknown>;

/** `process_assembly` → `process-assembly`, as the contracts are named. */
type Dashed<A extends string> = A extends `${infer Head}_${infer Tail}`
  ? `${Head}-${Dashed<Tail>}`
  : A;
type At<Path extends string> = Path extends keyof Contracts ? Contracts[Path] : never;
type Known<A extends string> =
  | At<`socket/results/${Dashed<A>}`>
  | At<`socket/answers/${Dashed<A>}`>;

/** What a job of an action ends with, or what a short action answers. */
export type Result<A extends string> = [Known<A>] extends [never]
  ? Record<string, unknown>
  : Known<A>;

/** The end of a job, or the answer to a short action. */
export type End = Extract<ServerMessage, { type: "complete" | "error" | "response" | "pong" }>;

export function isEnd(message: ServerMessage): message is End {
  return /^(complete|error|response|pong)$/.test(message.type);
}

/** The message of a frame; null for one that is not a message of the service. */
export function parse(frame: unknown): ServerMessage | null {
  try {
    const message: unknown = JSON.parse(String(frame));
    return isObject(message) && typeof message.type === "string"
      ? (message as unknown as ServerMessage)
      : null;
  } catch {
    return null;
  }
}

/** Whether API Gateway answered, because the function failed or was throttled. */
export function isGatewayError(frame: unknown): boolean {
  try {
    const message: unknown = JSON.parse(String(frame));
    return isObject(message) && !("type" in message) && "connectionId" in message;
  } catch {
    return false;
  }
}

/** The messages after `lastSeq` that a client would have received, from a job's state. */
export function missed(state: RequestState, lastSeq: number): ServerMessage[] {
  const { request_id, status, progress, error } = state;
  const base = { request_id, timestamp: state.updated_at };
  if (!/^(COMPLETED|FAILED|CANCELLED)$/.test(status)) {
    return progress && progress.seq > lastSeq
      ? [{ ...base, type: "progress", ...progress } satisfies ProgressMessage]
      : [];
  }
  const seq = Math.max(state.seq, lastSeq + 1);
  if (status === "COMPLETED") {
    const result = isObject(state.result) ? state.result : { result_omitted: true };
    return [{ ...base, type: "complete", seq, success: true, result }];
  }
  const code = status === "CANCELLED" ? "CANCELLED" : "PROCESSING_FAILED";
  const message = `the job ended ${status.toLowerCase()}`;
  return [refusal(request_id, error ?? { code, message, retryable: false }, seq)];
}

export function refusal(request_id: string, error: ErrorBody, seq?: number): ErrorMessage {
  const message: ErrorMessage = { type: "error", request_id, timestamp: now(), error };
  return seq === undefined ? message : { ...message, seq };
}

export function now(): string {
  return new Date().toISOString();
}

/** A text that no other client makes: 128 random bits. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `req_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
