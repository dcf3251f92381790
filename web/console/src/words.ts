import type { JobRow, JobStatus, Waiting } from "./api.js";
import { duration, epoch, number } from "./format.js";
import type { Tone } from "./parts.js";

export const statuses: readonly JobStatus[] = [
  "SCHEDULED",
  "PENDING",
  "PROCESSING",
  "RETRYING",
  "COMPLETED",
  "FAILED",
  "CANCELLED",
];

export const ended: readonly JobStatus[] = ["COMPLETED", "FAILED", "CANCELLED"];

const tones: Record<JobStatus, Tone> = {
  SCHEDULED: "off",
  PENDING: "wait",
  PROCESSING: "run",
  RETRYING: "wait",
  COMPLETED: "good",
  FAILED: "bad",
  CANCELLED: "off",
};

export function toneOf(status: JobStatus): Tone {
  return tones[status];
}

/** `not_in_manifest` and `PROCESSING` as words: `Not in manifest`, `Processing`. */
export function titled(code: string): string {
  const words = code
    .replaceAll("_", " ")
    .toLowerCase()
    .replace("dynamodb", "DynamoDB")
    .replace(/\bmb\b/, "MB");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

const reasons: Record<Waiting["reason"], string> = {
  queued: "A worker will take it",
  lane_full: "Waits for a slot of its lane",
  retrying: "Goes on later, in another attempt or after a wait",
  scheduled: "Not due yet",
  rate: "Waits for its start time: the rate of its action is used up",
  callback: "Waits for an answer from outside",
};

/** What a row of the table says about a job besides its status. */
export function summary(job: JobRow, now: number): string {
  if (job.status === "FAILED" && job.error) return job.error.message;
  const lost = epoch(job.worker_lost_at);
  if (lost !== undefined)
    return `Its worker has stopped: its lease ran out ${duration(Math.max(0, now - lost))} ago`;
  if (job.cancel_requested && !ended.includes(job.status))
    return "Cancellation requested; its worker ends it";
  if (job.waiting) {
    const until = epoch(job.waiting.until);
    const when = until !== undefined && until > now ? `, in ${duration(until - now)}` : "";
    const error = job.error ? ` (${job.error.message})` : "";
    return reasons[job.waiting.reason] + error + when;
  }
  if (job.progress && !ended.includes(job.status))
    return `${number(job.progress.percentage)} % ${job.progress.message}`.trim();
  // A cancelled job says no more than its status.
  return job.error && job.status !== "CANCELLED" ? job.error.message : "";
}

function either(choices: readonly string[]): string {
  return [choices.slice(0, -1).join(", "), choices.at(-1)].filter(Boolean).join(" or ");
}

/** Conditions of a filter as one sentence, for dialogs and the audit. */
export function filterWords(filter: {
  status?: readonly string[];
  action?: readonly string[];
  tenant?: string | null;
  user?: string | null;
  tag?: string | null;
  since?: string | null;
  until?: string | null;
}): string {
  const parts = [
    filter.status?.length && `status ${either(filter.status.map(titled))}`,
    filter.action?.length && `action ${either(filter.action)}`,
    filter.tenant && `tenant ${filter.tenant}`,
    filter.user && `user ${filter.user}`,
    filter.tag && `tag ${filter.tag}`,
    filter.since && `created since ${filter.since.slice(0, 16).replace("T", " ")} UTC`,
    filter.until && `created until ${filter.until.slice(0, 16).replace("T", " ")} UTC`,
  ].filter(Boolean);
  return parts.length ? parts.join(", ") : "no condition: all jobs";
}
