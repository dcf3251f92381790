// Made by `jobplane schema` from scripts/jobplane/console/api.py; not to be edited.

export type Part = "jobs" | "workspaces" | "files" | "webhooks" | "health";
export type JobStatus =
  "SCHEDULED" | "PENDING" | "PROCESSING" | "RETRYING" | "COMPLETED" | "FAILED" | "CANCELLED";
export type Time = string;
export type Text = string;
export type Tenant = string;
export type Token = string;
export type BulkAction = "cancel" | "replay";
export type BulkOutcome = "planned" | "cancelled" | "asked" | "replayed" | "unchanged" | "failed";
export type FileState =
  "pending" | "manifested" | "processing" | "completed" | "failed" | "quarantined";
export type Reason = string;

/**
 * What each path below `/api/` takes and answers.
 */
export interface ConsoleApi {
  gets: {
    stage: {
      asks: {};
      answer: StageInfo;
    };
    findings: {
      asks: {};
      answer: Findings;
    };
    audit: {
      asks: AuditQuery;
      answer: Audit;
    };
    jobs: {
      asks: JobsQuery;
      answer: JobPage;
    };
    lanes: {
      asks: {};
      answer: Lanes;
    };
    job: {
      asks: JobKey;
      answer: Job;
    };
    "job/logs": {
      asks: JobKey;
      answer: JobLogs;
    };
    bulk: {
      asks: {};
      answer: BulkOperations;
    };
    "bulk/operation": {
      asks: BulkId;
      answer: BulkOperation;
    };
    "bulk/jobs": {
      asks: BulkJobsQuery;
      answer: BulkJobs;
    };
    workspaces: {
      asks: {};
      answer: Workspaces;
    };
    execution: {
      asks: ExecutionQuery;
      answer: ExecutionDetail;
    };
    "files/stats": {
      asks: {};
      answer: FileStats;
    };
    files: {
      asks: FilesQuery;
      answer: FilePage;
    };
    "files/orphans": {
      asks: OrphansQuery;
      answer: Orphans;
    };
    "files/timeline": {
      asks: FileQuery;
      answer: FileTimeline;
    };
    "files/validate": {
      asks: DateQuery;
      answer: Validation;
    };
    webhooks: {
      asks: WebhooksQuery;
      answer: Deliveries;
    };
    health: {
      asks: {};
      answer: Health;
    };
  };
  posts: {
    "jobs/cancel": {
      asks: JobKey;
      answer: Done;
    };
    "jobs/replay": {
      asks: JobKey;
      answer: Replayed;
    };
    "jobs/put-back": {
      asks: JobKey;
      answer: Done;
    };
    "bulk/preview": {
      asks: BulkPreviewRequest;
      answer: BulkPreview;
    };
    "bulk/run": {
      asks: BulkRunRequest;
      answer: BulkOperation;
    };
    "bulk/stop": {
      asks: BulkId;
      answer: BulkOperation;
    };
    "workspaces/interrupt": {
      asks: ClaimAction;
      answer: Done;
    };
    "workspaces/release": {
      asks: ClaimAction;
      answer: Done;
    };
    "files/reset": {
      asks: ResetRequest;
      answer: ResetAnswer;
    };
    "files/update": {
      asks: FileUpdate;
      answer: Done;
    };
    "webhooks/resend": {
      asks: AssemblyKey;
      answer: Resent;
    };
  };
}
/**
 * GET /api/stage.
 */
export interface StageInfo {
  service: string;
  stage: string;
  region: string;
  is_local: boolean;
  read_only: boolean;
  /**
   * `The stage has "prod" in its name; start with --write to change it.`
   */
  read_only_because: string | null;
  /**
   * Who acts, as audits name it: the ARN of the credentials.
   */
  operator: string;
  version: string;
  /**
   * The pages that this stage has; a project may have deleted functions.
   */
  parts: Part[];
  statuses: JobStatus[];
  poll_seconds: number;
  now: Time;
}
/**
 * GET /api/findings.
 */
export interface Findings {
  findings: Finding[];
  /**
   * What could not be looked at, and why.
   */
  unchecked: string[];
  now: Time;
}
/**
 * Something that an operator should look at: what is wrong, since when, and what to do.
 */
export interface Finding {
  part: Part;
  title: string;
  since: Time | null;
  remedy: string;
  count: number;
  /**
   * There are more than were counted.
   */
  is_more: boolean;
  /**
   * False if it may be as it should be, such as a lane that is full.
   */
  is_urgent: boolean;
  /**
   * The page where it is corrected, as the path of its address.
   */
  place: string[];
  /**
   * The filters of that page.
   */
  filter: {
    [k: string]: string;
  };
}
/**
 * GET /api/audit.
 */
export interface AuditQuery {
  before?: Time | null;
}
/**
 * What was done with consoles in the last 90 days, the newest first.
 */
export interface Audit {
  entries: AuditEntry[];
  /**
   * `before` of the next page.
   */
  next: Time | null;
}
/**
 * What an operator did: one action, or an operation on many jobs, which `bulk` names.
 *
 * `begun`: the console ended before it knew the outcome. `refused`: nothing was changed, and
 * `message` says why.
 */
export interface AuditEntry {
  id: string;
  at: Time;
  who: string;
  action: string;
  subject: string;
  reason: string | null;
  outcome: "begun" | "done" | "refused" | "failed";
  message: string | null;
  bulk: string | null;
}
/**
 * GET /api/jobs.
 */
export interface JobsQuery {
  status?: JobStatus[];
  action?: Text[];
  tenant?: Tenant | null;
  user?: Tenant | null;
  tag?: Text | null;
  since?: Time | null;
  until?: Time | null;
  limit?: number;
  next?: Token | null;
}
/**
 * Jobs, newest first. A page may be shorter than `limit`, or empty, and have a `next`.
 */
export interface JobPage {
  jobs: JobRow[];
  next: string | null;
  /**
   * The index that was read; docs/console.md says what each costs.
   */
  access: "in-flight" | "by-tenant" | "by-owner" | "all-tenants";
  /**
   * What the answer cost: rows that were read for this page.
   */
  rows_read: number;
  /**
   * More jobs are in flight than are sorted: narrow the filter by tenant or time.
   */
  is_cut: boolean;
  now: Time;
}
/**
 * One row of the table of jobs.
 */
export interface JobRow {
  tenant: string;
  user: string;
  id: string;
  action: string;
  status: JobStatus;
  attempts: number;
  max_attempts: number | null;
  created_at: Time;
  started_at: Time | null;
  updated_at: Time | null;
  ended_at: Time | null;
  run_at: Time | null;
  /**
   * From the first start until now, or until the end.
   */
  duration_seconds: number | null;
  progress: Progress | null;
  waiting: Waiting | null;
  cancel_requested: boolean;
  error: JobError | null;
  tags: string[];
  assembly_id: string | null;
  replay_of: string | null;
  /**
   * When the lease of a job in processing ran out: its worker has stopped.
   */
  worker_lost_at: Time | null;
}
export interface Progress {
  percentage: number;
  message: string;
  at: Time;
}
/**
 * Why a job does not run, since when, and until when if that is known.
 *
 * `queued`: a worker will take it. `lane_full`: as many jobs of its lane run as may. `retrying`:
 * an attempt has failed, or the job waits in a step. `scheduled`: it is not due. `rate`: as many
 * jobs of its action have started in the last minute as may. `callback`: it waits for an answer
 * from outside.
 */
export interface Waiting {
  reason: "queued" | "lane_full" | "retrying" | "scheduled" | "rate" | "callback";
  since: Time;
  until?: Time | null;
}
export interface JobError {
  code: string;
  message: string;
}
/**
 * GET /api/lanes. Without limits of tenants and actions there are no lanes, only totals.
 */
export interface Lanes {
  lanes: LaneRow[];
  totals: StatusTotal[];
  /**
   * More jobs are in flight than were counted.
   */
  at_least: boolean;
  now: Time;
}
/**
 * A lane: so many of its jobs may run at a time. `oldest` waits longest.
 */
export interface LaneRow {
  lane: string;
  kind: "tenant" | "action";
  name: string;
  slots: number | null;
  per_minute: number | null;
  running: number;
  waiting: number;
  oldest_since: Time | null;
  oldest: JobKey | null;
  is_full: boolean;
}
/**
 * Names one job. GET /api/job, /api/job/logs, POST /api/jobs/cancel, /replay, /put-back.
 */
export interface JobKey {
  tenant: Tenant;
  user: Tenant;
  id: string;
}
/**
 * Jobs that have not ended, of one status; `oldest_since` is when the oldest was created.
 */
export interface StatusTotal {
  status: JobStatus;
  count: number;
  oldest_since: Time | null;
}
/**
 * GET /api/job.
 */
export interface Job {
  job: JobRow;
  waits: WhyItWaits | null;
  /**
   * From the row and the document, oldest first. The answer of /api/job/logs has more.
   */
  timeline: TimelineEvent[];
  steps: StepRow[];
  assembly: AssemblySummary | null;
  /**
   * JSON text, cut after 20,000 characters; null if it is stored apart.
   */
  payload: string | null;
  result: string | null;
  metadata: {
    [k: string]: string;
  };
  lane: string | null;
  priority: string;
  trace_id: string | null;
  expires_at: Time | null;
  /**
   * The id of its replay: a job is replayed once, and then its replay.
   */
  replayed_as: string | null;
  can: JobActions;
  now: Time;
}
/**
 * Why a job is where it is, and what happens next. For a job that has not ended.
 */
export interface WhyItWaits {
  /**
   * One sentence: `It waits for a slot of tenant#acme: 4 of 4 are taken, 17 wait before it.`
   */
  summary: string;
  /**
   * Who acts when: `The sweeper of processor puts it back at 10:04:12 (in 71 s).`
   */
  next_step: string;
  next_at: Time | null;
  /**
   * True if it waits for longer than it should: an operator should act.
   */
  is_problem: boolean;
  /**
   * The worker that has the lease or had it last: the id of an invocation of processor.
   */
  last_writer: string | null;
  last_write_at: Time | null;
  lease_until: Time | null;
  lease_is_over: boolean;
  attempts_left: number | null;
  lane: string | null;
  lane_running: number | null;
  lane_slots: number | null;
  /**
   * Jobs that wait before it in its lane.
   */
  ahead: number | null;
}
/**
 * Something that happened to a job. `detail` is one line for people.
 *
 * `row`: from the job's row; `document`: of the assembly; `log`: from a function's log.
 */
export interface TimelineEvent {
  at: Time;
  kind:
    | "received"
    | "scheduled"
    | "dispatched"
    | "waiting"
    | "started"
    | "attempt"
    | "step"
    | "progress"
    | "callback"
    | "cancel_requested"
    | "put_back"
    | "ended"
    | "webhook";
  title: string;
  detail: string | null;
  /**
   * The function that did it.
   */
  by: string | null;
  is_problem: boolean;
  source: "row" | "document" | "log";
}
/**
 * A stored step of a job, or a template's step; `result` is JSON text, cut after 2,000.
 */
export interface StepRow {
  name: string;
  state: "stored" | "done" | "running" | "waiting";
  result: string | null;
  files: number | null;
}
export interface AssemblySummary {
  assembly_id: string;
  template_id: string;
  /**
   * The document's `ok` or `error`, or EXECUTING.
   */
  state: string;
  message: string;
  files_received: number;
  files_made: number;
  bytes_usage: number;
  steps_completed: number | null;
  steps_total: number | null;
  current_step: string | null;
  warnings: string[];
  webhook: WebhookState | null;
}
/**
 * The delivery of an assembly's webhook. `host` is null if the template is not known here.
 */
export interface WebhookState {
  status:
    | (
        | "pending"
        | "delivered"
        | "retrying"
        | "failed"
        | "disabled"
        | "unsigned_refused"
        | "refused"
      )
    | null;
  attempts: number;
  last_attempt_at: Time | null;
  last_response_code: number | null;
  error: string | null;
  host: string | null;
  /**
   * What the status means, and what to do.
   */
  explanation: string;
}
/**
 * What can be done with a job now; false in a read-only console too.
 */
export interface JobActions {
  cancel: boolean;
  replay: boolean;
  resend_webhook: boolean;
  /**
   * Its lease is over: the sweep of processor puts it back, or ends it.
   */
  put_back: boolean;
}
/**
 * GET /api/job/logs: the lines of all functions with the job's id or its assembly's.
 */
export interface JobLogs {
  lines: LogLine[];
  /**
   * What these lines add to the timeline.
   */
  events: TimelineEvent[];
  /**
   * False: there are more lines than were read, or a log group could not be read.
   */
  is_complete: boolean;
  note: string | null;
}
export interface LogLine {
  at: Time;
  function: string;
  level: string;
  message: string;
  invocation: string | null;
  fields: {
    [k: string]: unknown;
  };
  is_problem: boolean;
}
/**
 * GET /api/bulk: the newest first.
 */
export interface BulkOperations {
  operations: BulkOperation[];
}
/**
 * An operation and how far it is. `interrupted`: it has work left, and no console runs it.
 *
 * Outcomes: `cancelled` has ended as cancelled; `asked`: its worker was asked to end it;
 * `unchanged`: it had ended before in another way; `failed`: see the job's message.
 */
export interface BulkOperation {
  id: string;
  action: BulkAction;
  state: "planned" | "running" | "interrupted" | "done" | "expired";
  filter: JobFilter;
  who: string;
  reason: string | null;
  created_at: Time;
  started_at: Time | null;
  ended_at: Time | null;
  total: number;
  outcomes: {
    [k: string]: number;
  };
  /**
   * This console drives it.
   */
  runs_here: boolean;
  /**
   * Why this console stopped driving it.
   */
  problem: string | null;
}
/**
 * Which jobs. All conditions must hold; those of `status` and `action` are lists of choices.
 *
 * `since` and `until` are about `created_at`. `tenant` and `user` are exact; `user` needs a tenant
 * as well.
 */
export interface JobFilter {
  status?: JobStatus[];
  action?: Text[];
  tenant?: Tenant | null;
  user?: Tenant | null;
  tag?: Text | null;
  since?: Time | null;
  until?: Time | null;
}
/**
 * GET /api/bulk/operation, POST /api/bulk/stop.
 */
export interface BulkId {
  id: Text;
}
/**
 * GET /api/bulk/jobs.
 */
export interface BulkJobsQuery {
  id: Text;
  outcome?: BulkOutcome | null;
  next?: Token | null;
}
export interface BulkJobs {
  jobs: BulkJob[];
  next: string | null;
}
/**
 * What an operation did to one job: a row of the audit. `new_id` is that of a replay.
 */
export interface BulkJob {
  job: JobKey;
  action: string;
  status_before: JobStatus;
  outcome: BulkOutcome;
  message: string | null;
  new_id: string | null;
  at: Time | null;
}
/**
 * GET /api/workspaces: held claims first, the newest executions and interruptions.
 */
export interface Workspaces {
  claims: Claim[];
  executions: Execution[];
  interruptions: Interruption[];
  is_complete: boolean;
  now: Time;
}
/**
 * A workspace's claim. `is_stuck`: its time or its execution has ended, and it still holds.
 */
export interface Claim {
  project: string;
  user: string;
  state: "held" | "free" | "expired" | "malformed";
  /**
   * The container of the job.
   */
  holder: string | null;
  taker: string | null;
  thread: string | null;
  message_id: string | null;
  claim_id: string | null;
  fence: number | null;
  claimed_at: Time | null;
  age_seconds: number | null;
  expires_at: Time | null;
  execution: string | null;
  execution_status: string | null;
  is_stuck: boolean;
  explanation: string;
  last_released: string | null;
}
export interface Execution {
  name: string;
  status: "RUNNING" | "SUCCEEDED" | "FAILED" | "TIMED_OUT" | "ABORTED" | "PENDING_REDRIVE";
  started_at: Time;
  ended_at: Time | null;
  duration_seconds: number;
  /**
   * `project#user`, of those whose claims are shown.
   */
  workspace: string | null;
}
export interface Interruption {
  project: string;
  user: string;
  at: Time | null;
  kind: string;
  message_id: string | null;
  reason: string | null;
  detail: string | null;
}
export interface ExecutionQuery {
  name: Text;
}
/**
 * GET /api/execution?name=…
 */
export interface ExecutionDetail {
  execution: Execution;
  start: string;
  states: GraphState[];
  events: ExecutionEvent[];
  /**
   * Where it is and what it waits for, or how it ended.
   */
  summary: string;
  input: string | null;
  output: string | null;
  error: string | null;
  cause: string | null;
  is_complete: boolean;
  now: Time;
}
/**
 * A state of the flow. `visits` counts how often this execution entered it.
 */
export interface GraphState {
  name: string;
  type: string;
  next: string[];
  is_end: boolean;
  visits: number;
  is_current: boolean;
  is_failed: boolean;
  entered_at: Time | null;
  comment: string | null;
}
export interface ExecutionEvent {
  at: Time;
  state: string | null;
  title: string;
  detail: string | null;
  is_problem: boolean;
}
/**
 * GET /api/files/stats.
 */
export interface FileStats {
  counts: {
    [k: string]: number;
  };
  total: number;
  at: Time;
  /**
   * Of the hourly run, oldest first; empty if CloudWatch has no values.
   */
  history: FilesAt[];
}
export interface FilesAt {
  at: Time;
  counts: {
    [k: string]: number;
  };
}
/**
 * GET /api/files: of a status, or of a date.
 */
export interface FilesQuery {
  status?: FileState | null;
  date?: Text | null;
  /**
   * Dates, for a status.
   */
  since?: Text | null;
  until?: Text | null;
  next?: Token | null;
}
export interface FilePage {
  files: FileRow[];
  next: string | null;
}
export interface FileRow {
  date: string;
  key: string;
  status: string;
  age_seconds: number | null;
  updated_at: Time | null;
  manifest: string | null;
  error: string | null;
  resets: number;
  fields: {
    [k: string]: unknown;
  };
}
/**
 * GET /api/files/orphans.
 */
export interface OrphansQuery {
  hours?: number;
  next?: Token | null;
}
export interface Orphans {
  total: number;
  kinds: OrphanKind[];
  next: string | null;
  is_complete: boolean;
  at: Time;
}
/**
 * `oldest_seconds` is null if the kind has no readable time.
 */
export interface OrphanKind {
  kind: string;
  title: string;
  explanation: string;
  count: number;
  oldest_seconds: number | null;
  files: FileRow[];
}
/**
 * GET /api/files/timeline.
 */
export interface FileQuery {
  date: Text;
  key: Text;
}
export interface FileTimeline {
  file: FileRow;
  events: FileEvent[];
  problems: string[];
}
export interface FileEvent {
  at: Time;
  title: string;
  detail: string | null;
  source: string | null;
}
/**
 * GET /api/files/validate.
 */
export interface DateQuery {
  date: Text;
  next?: Token | null;
}
export interface Validation {
  date: string;
  is_consistent: boolean;
  files: number;
  issues: Issue[];
  next: string | null;
}
export interface Issue {
  kind: string;
  file: string | null;
  message: string;
}
/**
 * GET /api/webhooks. `failing`: only those that an operator should look at.
 */
export interface WebhooksQuery {
  tenant?: Tenant | null;
  template?: Text | null;
  host?: Text | null;
  failing?: boolean;
  since?: Time | null;
  next?: Token | null;
}
export interface Deliveries {
  deliveries: Delivery[];
  groups: DeliveryGroup[];
  next: string | null;
  rows_read: number;
  /**
   * Messages of the queue `webhooks` that wait or are being delivered.
   */
  queued: number | null;
  /**
   * Messages of its dead-letter queue.
   */
  given_up: number | null;
  now: Time;
}
export interface Delivery {
  assembly_id: string;
  template_id: string;
  tenant: string | null;
  user: string | null;
  request_id: string | null;
  ended_at: Time | null;
  webhook: WebhookState;
}
/**
 * The deliveries of a template, of those that were read for this page.
 */
export interface DeliveryGroup {
  template_id: string;
  host: string | null;
  delivered: number;
  pending: number;
  failing: number;
}
/**
 * GET /api/health: alarms that ring first.
 */
export interface Health {
  alarms: Alarm[];
  /**
   * The stage has no alarms: `custom.stages` in serverless.yml.
   */
  alarms_off: boolean;
  queues: Queue[];
  functions: FunctionHealth[];
  window_minutes: number;
  now: Time;
}
/**
 * `section` is the runbook's text for an alarm that rings, in Markdown; `link` its place.
 */
export interface Alarm {
  name: string;
  state: "OK" | "ALARM" | "INSUFFICIENT_DATA";
  says: string;
  state_reason: string | null;
  since: Time | null;
  subject: string | null;
  section_title: string | null;
  section: string | null;
  link: string | null;
}
export interface Queue {
  name: string;
  is_dead_letter: boolean;
  visible: number;
  in_flight: number;
  delayed: number;
  /**
   * From CloudWatch, which is some minutes late; null if it has no value.
   */
  oldest_seconds: number | null;
}
/**
 * Of the last hour, from CloudWatch; null without values.
 */
export interface FunctionHealth {
  name: string;
  invocations: number | null;
  errors: number | null;
  throttles: number | null;
  p50_ms: number | null;
  p95_ms: number | null;
}
/**
 * The answer to an action: a sentence for people.
 */
export interface Done {
  message: string;
}
/**
 * POST /api/jobs/replay: the new job.
 */
export interface Replayed {
  message: string;
  job: JobKey;
}
/**
 * POST /api/bulk/preview: plans the change of all jobs of a filter, and changes nothing.
 *
 * A cancel needs jobs that have not ended, a replay those that have; others are left out.
 */
export interface BulkPreviewRequest {
  action: BulkAction;
  filter: JobFilter;
}
/**
 * Exactly these jobs will be changed: the plan is stored, and does not grow.
 *
 * `id` is the token with which the run is started, within an hour.
 */
export interface BulkPreview {
  id: string;
  action: BulkAction;
  total: number;
  by_status: Count[];
  by_action: Count[];
  by_tenant: Count[];
  /**
   * The first of them, at most 50; all are in /api/bulk/jobs.
   */
  sample: JobRow[];
  /**
   * More jobs match than one run may change: run it, then preview again.
   */
  is_cut: boolean;
  expires_at: Time;
}
export interface Count {
  name: string;
  count: number;
}
/**
 * POST /api/bulk/run: starts a planned operation, or resumes one that was interrupted.
 */
export interface BulkRunRequest {
  id: Text;
  /**
   * Required to start; audits show it.
   */
  reason?: Reason | null;
}
/**
 * POST /api/workspaces/interrupt, /api/workspaces/release: of the claim as it was shown.
 */
export interface ClaimAction {
  project: Text;
  user: Text;
  claim_id: Text;
  fence: number;
  reason: Reason;
}
/**
 * POST /api/files/reset. First with `dry_run`, which changes nothing.
 */
export interface ResetRequest {
  dry_run?: boolean;
  hours?: number;
  statuses?: FileState[];
  reason?: Reason | null;
  next?: Token | null;
}
export interface ResetAnswer {
  dry_run: boolean;
  /**
   * Those that were reset; of a dry run those that would be.
   */
  reset: FileOutcome[];
  skipped: FileOutcome[];
  failed: FileOutcome[];
  next: string | null;
}
export interface FileOutcome {
  date: string;
  key: string;
  status: string;
  detail: string | null;
}
/**
 * POST /api/files/update: refused with CONFLICT if the file no longer has `expected_status`.
 */
export interface FileUpdate {
  date: Text;
  key: Text;
  new_status: FileState;
  expected_status: FileState;
  /**
   * Also a step that the pipeline does not have.
   */
  force?: boolean;
  reason: Reason;
}
/**
 * POST /api/webhooks/resend.
 */
export interface AssemblyKey {
  assembly_id: Text;
}
export interface Resent {
  message: string;
  webhook: WebhookState;
}
export interface Problem {
  error: ProblemText;
}
/**
 * `code` is one of a few words for the page; `message` says what happened and what to do.
 */
export interface ProblemText {
  code:
    | "UNAUTHORIZED"
    | "FORBIDDEN"
    | "READ_ONLY"
    | "VALIDATION_ERROR"
    | "NOT_FOUND"
    | "CONFLICT"
    | "NOT_AVAILABLE"
    | "AWS_ERROR"
    | "FUNCTION_ERROR"
    | "INTERNAL_ERROR";
  message: string;
}
