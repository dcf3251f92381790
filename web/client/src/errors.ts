import type { ErrorBody, ErrorCode } from "./contracts.js";

/** Base class of all errors of this package. */
export class JobplaneError extends Error {
  constructor(message: string) {
    super(message);
    this.name = new.target.name;
  }
}

interface Facts {
  code: ErrorCode;
  requestId?: string | undefined;
  /** Of the HTTP answer. */
  status?: number | undefined;
  details?: unknown;
  retryable?: boolean | undefined;
  /** Milliseconds to wait before the next attempt. */
  retryAfter?: number | undefined;
}

/** An error with the service's code. */
class CodedError extends JobplaneError {
  readonly code: ErrorCode;
  readonly requestId: string | undefined;
  readonly status: number | undefined;
  readonly details: unknown;
  readonly retryable: boolean;
  readonly retryAfter: number | undefined;

  constructor(message: string, facts: Facts) {
    super(message);
    this.code = facts.code;
    this.requestId = facts.requestId;
    this.status = facts.status;
    this.details = facts.details;
    this.retryable = facts.retryable ?? false;
    this.retryAfter = facts.retryAfter;
  }
}

/** The service refused a request: no job has begun. `details` names invalid fields. */
export class RefusedError extends CodedError {}

/** The job ended without a result. */
export class JobError extends CodedError {}

export class JobFailedError extends JobError {}
export class JobCancelledError extends JobError {}
export class JobTimeoutError extends JobError {}

/** The client was closed, or the service can't be reached or refuses the token. */
export class ConnectionLostError extends JobplaneError {}

/**
 * A file of an assembly can't be stored. `unreadable`: the browser can't read it any more, or it was
 * changed. `refused`: the service does not accept it. `failed`: the service can't be reached.
 */
export class UploadError extends JobplaneError {
  constructor(
    readonly reason: "unreadable" | "refused" | "failed" | "cancelled",
    /** The file's name. */
    readonly file: string | undefined,
    message: string,
  ) {
    super(file === undefined ? message : `${file}: ${message}`);
  }
}

/** A webhook must not be trusted; `reason` is missing, malformed, mismatch, stale, future or body. */
export class WebhookError extends JobplaneError {
  constructor(
    readonly reason: "missing" | "malformed" | "mismatch" | "stale" | "future" | "body",
    message: string,
  ) {
    super(message);
  }
}

const ends: { [code in ErrorCode]?: typeof JobError } = {
  CANCELLED: JobCancelledError,
  TIMEOUT: JobTimeoutError,
};

/** The exception for the body of an error message; `ended`: a job ended with it. */
export function errorOf(
  body: ErrorBody,
  requestId: string | undefined,
  ended: boolean,
  status?: number,
): CodedError {
  const facts: Facts = {
    code: body.code,
    requestId,
    status,
    details: body.details,
    retryable: body.retryable,
    retryAfter: body.retry_after_ms,
  };
  const refused = !ended && body.code !== "PROCESSING_FAILED" && !(body.code in ends);
  const Kind = refused ? RefusedError : (ends[body.code] ?? JobFailedError);
  return new Kind(withFields(body), facts);
}

/** The message with the fields that it does not name. */
function withFields({ message, details }: ErrorBody): string {
  const faults = (Array.isArray(details) ? details : [])
    .filter((fault) => !message.includes(String(fault.message)))
    .map((fault) => `${fault.field}: ${fault.message}`);
  return faults.length ? `${message}: ${faults.join("; ")}` : message;
}
