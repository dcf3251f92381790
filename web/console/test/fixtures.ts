import type {
  Alarm,
  BulkJob,
  BulkOperation,
  Claim,
  ConsoleApi,
  Delivery,
  Execution,
  FileRow,
  GraphState,
  Job,
  JobRow,
  JobStatus,
  Problem,
  TimelineEvent,
  WebhookState,
} from "../src/api.js";

/** The time of all fixtures; browsers of the tests have it as well. */
export const NOW = Date.parse("2026-11-29T02:14:40.000Z") / 1000;

export function at(secondsAgo: number): string {
  return new Date((NOW - secondsAgo) * 1000).toISOString();
}

type Gets = ConsoleApi["gets"];
type Posts = ConsoleApi["posts"];
export type Reply<Value> = Value | Problem | "never" | "gone";
export type Scenario = {
  gets: { [Path in keyof Gets]: (query: URLSearchParams) => Reply<Gets[Path]["answer"]> };
  posts: { [Path in keyof Posts]: (asked: Posts[Path]["asks"]) => Reply<Posts[Path]["answer"]> };
};

export function problem(code: Problem["error"]["code"], message: string): Problem {
  return { error: { code, message } };
}

const names = ["process_assembly", "generate_report", "delay", "import_catalogue"];
const tenants = ["acme", "globex", "initech", "umbrella"];
const people = ["ada", "grace", "linus", "margaret"];
const kinds: JobStatus[] = [
  "PROCESSING",
  "PENDING",
  "FAILED",
  "COMPLETED",
  "COMPLETED",
  "RETRYING",
  "COMPLETED",
  "SCHEDULED",
  "CANCELLED",
  "COMPLETED",
];

export function jobRow(index: number, changes: Partial<JobRow> = {}): JobRow {
  const pick = <Value>(list: readonly Value[], step: number): Value =>
    list[Math.floor(index / step) % list.length] as Value;
  const status = changes.status ?? pick(kinds, 1);
  const created = 3 + index * 7.4;
  const hasStarted = !["PENDING", "SCHEDULED"].includes(status);
  const hasEnded = ["COMPLETED", "FAILED", "CANCELLED"].includes(status);
  const took = 1.2 + ((index * 37) % 190) / 10;
  return {
    tenant: pick(tenants, 2),
    user: pick(people, 3),
    id: `req-${(0x5f3a91c0 + index * 7919).toString(16)}-${String(index).padStart(5, "0")}`,
    action: pick(names, 1),
    status,
    attempts: status === "RETRYING" ? 2 : status === "FAILED" ? 4 : hasStarted ? 1 : 0,
    max_attempts: 4,
    created_at: at(created),
    started_at: hasStarted ? at(created - 0.4) : null,
    updated_at: at(Math.max(0.2, created - took)),
    ended_at: hasEnded ? at(Math.max(0.2, created - took)) : null,
    run_at: status === "SCHEDULED" ? at(-5400) : null,
    duration_seconds: hasStarted ? took : null,
    progress:
      status === "PROCESSING"
        ? { percentage: (index * 13) % 100, message: "resized 128 of 310 images", at: at(1) }
        : null,
    waiting:
      status === "PENDING"
        ? { reason: "lane_full", since: at(created) }
        : status === "RETRYING"
          ? { reason: "retrying", since: at(20), until: at(-14) }
          : status === "SCHEDULED"
            ? { reason: "scheduled", since: at(created), until: at(-5400) }
            : null,
    cancel_requested: false,
    error:
      status === "FAILED"
        ? {
            code: "PROCESSING_FAILED",
            message: "ffmpeg ended with 1: the input has no video stream (4 attempts)",
          }
        : status === "RETRYING"
          ? { code: "SERVICE_UNAVAILABLE", message: "the receiver answered 503" }
          : null,
    tags: index % 4 === 0 ? ["nightly"] : [],
    assembly_id: pick(names, 1) === "process_assembly" ? assemblyId(index) : null,
    replay_of: null,
    worker_lost_at: null,
    ...changes,
  };
}

function assemblyId(index: number): string {
  return `${(0x9e3779b1 + index * 104729).toString(16)}c4a1f07be2d95a3816c0d4e7`.slice(0, 32);
}

export function jobRows(count: number): JobRow[] {
  return Array.from({ length: count }, (_, index) => jobRow(index));
}

const webhook: WebhookState = {
  status: "delivered",
  attempts: 1,
  last_attempt_at: at(31),
  last_response_code: 200,
  error: null,
  host: "hooks.acme.example",
  explanation: "The receiver has accepted it.",
};

export const failedWebhook: WebhookState = {
  status: "failed",
  attempts: 7,
  last_attempt_at: at(940),
  last_response_code: null,
  error: "could not connect to hooks.globex.example: connection refused",
  host: "hooks.globex.example",
  explanation:
    "All 7 attempts failed, and the message is in webhooks-dlq. Correct the receiver, then send it again.",
};

function event(
  secondsAgo: number,
  kind: TimelineEvent["kind"],
  title: string,
  detail: string | null = null,
  by: string | null = null,
  is_problem = false,
  source: TimelineEvent["source"] = "row",
): TimelineEvent {
  return { at: at(secondsAgo), kind, title, detail, by, is_problem, source };
}

const common = {
  steps: [],
  assembly: null,
  payload: '{"seconds": 40, "steps": 10}',
  result: null,
  metadata: { campaign: "autumn" },
  lane: "tenant#acme",
  priority: "normal",
  trace_id: "1-6921a0c2-3f1d2c4b5a69788796a5b4c3",
  expires_at: at(-604_000),
  replayed_as: null,
  can: { cancel: true, replay: false, resend_webhook: false, put_back: true },
  now: at(0),
} satisfies Partial<Job>;

export const stuckJob: Job = {
  ...common,
  job: jobRow(0, {
    status: "PROCESSING",
    duration_seconds: 171,
    created_at: at(172),
    started_at: at(171),
    progress: { percentage: 40, message: "step 4 of 10", at: at(151) },
  }),
  waits: {
    summary: "Its worker has stopped: the lease ran out 31 s ago, in attempt 1 of 4.",
    next_step: "The sweeper of processor puts it back into the queue within a minute.",
    next_at: at(-20),
    is_problem: true,
    last_writer: "7c3a5d0e-51b2-4c0d-9f34-2f3a1b9e8d77",
    last_write_at: at(151),
    lease_until: at(31),
    lease_is_over: true,
    attempts_left: 3,
    lane: "tenant#acme",
    lane_running: 4,
    lane_slots: 4,
    ahead: null,
  },
  timeline: [
    event(172, "received", "Received", "delay for acme / ada", "router"),
    event(171.7, "dispatched", "Dispatched", "It has a slot of tenant#acme", "dispatch"),
    event(171, "started", "Attempt 1 started", "Lease until 02:14:09", "processor"),
    event(166, "progress", "10 %", "step 1 of 10", "processor"),
    event(161, "progress", "20 %", "step 2 of 10", "processor"),
    event(156, "progress", "30 %", "step 3 of 10", "processor"),
    event(151, "progress", "40 %", "step 4 of 10", "processor"),
  ],
};

export const failedJob: Job = {
  ...common,
  job: jobRow(2, {
    status: "FAILED",
    action: "generate_report",
    assembly_id: null,
    error: { code: "PROCESSING_FAILED", message: "TableNotFoundError: no table 'orders_2026'" },
  }),
  waits: null,
  timeline: [
    event(300, "received", "Received", "generate_report for globex / ada", "router"),
    event(299.8, "dispatched", "Dispatched", null, "dispatch"),
    event(
      299.4,
      "attempt",
      "Attempt 1 failed",
      "TableNotFoundError: no table 'orders_2026'",
      "processor",
      true,
    ),
    event(
      290,
      "attempt",
      "Attempt 2 failed",
      "TableNotFoundError: no table 'orders_2026'",
      "processor",
      true,
    ),
    event(
      262,
      "attempt",
      "Attempt 3 failed",
      "TableNotFoundError: no table 'orders_2026'",
      "processor",
      true,
    ),
    event(
      201,
      "attempt",
      "Attempt 4 failed",
      "TableNotFoundError: no table 'orders_2026'",
      "processor",
      true,
    ),
    event(201, "ended", "Failed", "No attempt is left", "processor", true),
  ],
  payload:
    '{"from": "2026-11-01", "until": "2026-11-28", "table": "orders_2026", "format": "parquet"}',
  can: { cancel: false, replay: true, resend_webhook: false, put_back: false },
  lane: null,
};

export const completedJob: Job = {
  ...common,
  job: jobRow(4, { status: "COMPLETED", action: "process_assembly", duration_seconds: 12.4 }),
  waits: null,
  timeline: [
    event(60, "received", "Received", "process_assembly for acme / ada", "router"),
    event(59.9, "dispatched", "Dispatched", null, "dispatch"),
    event(59.5, "started", "Attempt 1 started", null, "processor"),
    event(56.2, "step", "Step resize done", "310 files", "processor", false, "document"),
    event(48.8, "step", "Step compress done", "1 file", "processor", false, "document"),
    event(47.6, "ended", "Completed", "311 files, 48.2 MB", "processor"),
    event(
      47.1,
      "webhook",
      "Webhook attempt 1 failed",
      "answered 502",
      "deliver-webhook",
      true,
      "log",
    ),
    event(31, "webhook", "Webhook delivered", "answered 200", "deliver-webhook", false, "document"),
  ],
  steps: [
    { name: "resize", state: "done", result: null, files: 310 },
    { name: "compress", state: "done", result: null, files: 1 },
  ],
  assembly: {
    assembly_id: assemblyId(4),
    template_id: "web-images",
    state: "ASSEMBLY_COMPLETED",
    message: "The assembly was completed.",
    files_received: 310,
    files_made: 311,
    bytes_usage: 50_541_120,
    steps_completed: 2,
    steps_total: 2,
    current_step: null,
    warnings: ["photo-211.jpg: its colour profile was dropped"],
    webhook,
  },
  payload: null,
  result:
    '{"ok": "ASSEMBLY_COMPLETED", "files": 311, "archive": "results/9e37/compress/images.zip"}',
  can: { cancel: false, replay: true, resend_webhook: true, put_back: false },
};

const claims: Claim[] = [
  {
    project: "atlas",
    user: "ada",
    state: "held",
    holder: "container-7f2a",
    taker: null,
    thread: "thread-118",
    message_id: "msg-20261128-0412",
    claim_id: "5f0c2a77-9c1b-4f7e-8a54-1a2b3c4d5e6f",
    fence: 1764376880,
    claimed_at: at(14_400),
    age_seconds: 14_400,
    expires_at: at(-72_000),
    execution: "atlas-ada-msg-20261128-0412",
    execution_status: "ABORTED",
    is_stuck: true,
    explanation:
      "Its execution was aborted 3 h 52 min ago, but the claim was not released. Until it expires in 20 h, every new message for this workspace ends with WorkspaceBusy.",
    last_released: null,
  },
  ...["borealis", "cassini", "delphi"].map(
    (project, index): Claim => ({
      project,
      user: people[index + 1] ?? "ada",
      state: "held",
      holder: `container-${index + 3}b1c`,
      taker: null,
      thread: `thread-${220 + index}`,
      message_id: `msg-20261129-000${index}`,
      claim_id: `00000000-0000-4000-8000-00000000000${index}`,
      fence: 1764381000 + index * 91,
      claimed_at: at(120 + index * 300),
      age_seconds: 120 + index * 300,
      expires_at: at(-3480 + index * 300),
      execution: `${project}-${people[index + 1]}-msg-20261129-000${index}`,
      execution_status: "RUNNING",
      is_stuck: false,
      explanation: "Its execution runs.",
      last_released: null,
    }),
  ),
];

const executions: Execution[] = [
  ...claims.map(
    (claim, index): Execution => ({
      name: claim.execution ?? "",
      status: index === 0 ? "ABORTED" : "RUNNING",
      started_at: claim.claimed_at ?? at(0),
      ended_at: index === 0 ? at(13_920) : null,
      duration_seconds: index === 0 ? 480 : (claim.age_seconds ?? 0),
      workspace: `${claim.project}#${claim.user}`,
    }),
  ),
  {
    name: "borealis-grace-msg-20261128-2310",
    status: "SUCCEEDED",
    started_at: at(4000),
    ended_at: at(3100),
    duration_seconds: 900,
    workspace: "borealis#grace",
  },
  {
    name: "atlas-ada-msg-20261129-0007",
    status: "FAILED",
    started_at: at(3600),
    ended_at: at(3000),
    duration_seconds: 600,
    workspace: "atlas#ada",
  },
];

const flow: [string, string, string[]][] = [
  ["Begin", "Pass", ["IsInputAllowed"]],
  ["IsInputAllowed", "Choice", ["InputRefused", "StoreInstruction", "CheckActiveJob"]],
  ["StoreInstruction", "Task", ["CheckActiveJob", "JobFailed"]],
  ["CheckActiveJob", "Task", ["NeedsInterrupt", "InputRefused", "JobFailed"]],
  ["NeedsInterrupt", "Choice", ["SendInterrupt", "ClaimJob"]],
  ["SendInterrupt", "Task", ["IsInterruptSent", "WaitForHolder", "JobFailed"]],
  ["IsInterruptSent", "Choice", ["RecordInterruption", "WaitForHolder"]],
  ["RecordInterruption", "Task", ["WaitForHolder", "JobFailed"]],
  ["WaitForHolder", "Wait", ["ClaimJob"]],
  ["ClaimJob", "Task", ["IsClaimed", "InputRefused", "JobFailed"]],
  [
    "IsClaimed",
    "Choice",
    ["ProcessAttachments", "OpenHolderQueue", "WorkspaceBusy", "SendInterrupt", "WaitForHolder"],
  ],
  ["OpenHolderQueue", "Task", ["MakeHolderQueue", "JobFailed", "JoinHolder"]],
  ["MakeHolderQueue", "Task", ["WaitForHolderQueue", "JobFailed"]],
  ["WaitForHolderQueue", "Wait", ["JoinHolder"]],
  ["JoinHolder", "Task", ["Joined", "JobFailed"]],
  ["ProcessAttachments", "Map", ["OpenInputQueue", "ReleaseAfterFailure"]],
  ["OpenInputQueue", "Task", ["SendToContainer", "MakeInputQueue", "ReleaseAfterFailure"]],
  ["MakeInputQueue", "Task", ["WaitForInputQueue", "ReleaseAfterFailure"]],
  ["WaitForInputQueue", "Wait", ["SendToContainer"]],
  [
    "SendToContainer",
    "Task",
    ["IsResultAllowed", "RecordPreemption", "HandleTimeout", "ReleaseAfterFailure"],
  ],
  ["IsResultAllowed", "Choice", ["ReleaseClaim", "ReleaseAfterFailure"]],
  ["RecordPreemption", "Task", ["ReleaseAfterPreemption"]],
  ["ReleaseAfterPreemption", "Task", ["Interrupted"]],
  ["HandleTimeout", "Task", ["TimedOut", "JobFailed"]],
  ["ReleaseAfterFailure", "Task", ["JobFailed"]],
  ["ReleaseClaim", "Task", ["Completed"]],
  ["Completed", "Succeed", []],
  ["Joined", "Succeed", []],
  ["Interrupted", "Succeed", []],
  ["TimedOut", "Fail", []],
  ["WorkspaceBusy", "Fail", []],
  ["InputRefused", "Fail", []],
  ["JobFailed", "Fail", []],
];

export function graph(
  visited: Record<string, number>,
  current?: string,
  failed?: string,
): GraphState[] {
  return flow.map(([name, type, next]) => ({
    name,
    type,
    next,
    is_end: next.length === 0,
    visits: visited[name] ?? 0,
    is_current: name === current,
    is_failed: name === failed,
    entered_at: visited[name] ? at(100) : null,
    comment: null,
  }));
}

const way = [
  "Begin",
  "IsInputAllowed",
  "CheckActiveJob",
  "NeedsInterrupt",
  "ClaimJob",
  "IsClaimed",
];
const toWork = [...way, "ProcessAttachments", "OpenInputQueue", "SendToContainer"];

function once(list: readonly string[]): Record<string, number> {
  return Object.fromEntries(list.map((name) => [name, 1]));
}

export const runningExecution: Gets["execution"]["answer"] = {
  execution: executions[1] as Execution,
  start: "Begin",
  states: graph(once(toWork), "SendToContainer"),
  events: toWork.map((state, index) => ({
    at: at(120 - index),
    state,
    title: `Entered ${state}`,
    detail:
      state === "SendToContainer"
        ? "Message sent to the input queue; waits for its task token"
        : null,
    is_problem: false,
  })),
  summary:
    "A worker has the job, or its message waits for one: the execution waits for the result. Since 02:12:48 UTC.",
  input:
    '{"projectUserId": "borealis#grace", "threadId": "thread-220", "messageId": "msg-20261129-0000", "instruction": {"text": "Compare the two drafts."}}',
  output: null,
  error: null,
  cause: null,
  is_complete: true,
  now: at(0),
};

const busy = {
  ...once(way),
  SendInterrupt: 1,
  IsInterruptSent: 1,
  WaitForHolder: 10,
  ClaimJob: 11,
  IsClaimed: 11,
  WorkspaceBusy: 1,
};

export const failedExecution: Gets["execution"]["answer"] = {
  execution: executions.at(-1) as Execution,
  start: "Begin",
  states: graph(busy, undefined, "WorkspaceBusy"),
  events: [
    { at: at(3600), state: "Begin", title: "Entered Begin", detail: null, is_problem: false },
    {
      at: at(3598),
      state: "ClaimJob",
      title: "Entered ClaimJob",
      detail: "held by container-7f2a",
      is_problem: false,
    },
    {
      at: at(3000),
      state: "WorkspaceBusy",
      title: "Failed with WorkspaceBusy",
      detail: "The holder neither ended nor reacted to an interrupt",
      is_problem: true,
    },
  ],
  summary: "It gave up: another job holds the workspace, and did not end in time.",
  input: '{"projectUserId": "atlas#ada"}',
  output: null,
  error: "WorkspaceBusy",
  cause:
    '{"holder":{"containerId":"container-7f2a"},"messageId":"msg-20261129-0007","projectUserId":"atlas#ada"}',
  is_complete: true,
  now: at(0),
};

function file(index: number, changes: Partial<FileRow> = {}): FileRow {
  return {
    date: "2026-11-28",
    key: `events-${String(index).padStart(4, "0")}-7d1f.ndjson`,
    status: "processing#3",
    age_seconds: 18_000 + index * 700,
    updated_at: at(18_000 + index * 700),
    manifest: `s3://jobplane-prod-manifests/manifests/2026-11-28/builder-2-${index}.json`,
    error: null,
    resets: index % 3,
    fields: { size_mb: 12.4, processing_started_at: at(18_000) },
    ...changes,
  };
}

const files = Array.from({ length: 40 }, (_, index) =>
  file(index, {
    status: "failed#1",
    error: "schema of column 'price' changed: expected double, got string",
  }),
);

const orphanKinds: Gets["files/orphans"]["answer"]["kinds"] = [
  [
    "stuck_in_processing",
    "Stuck in processing",
    "Its worker has not ended it. Reset stuck files sets it back.",
    12,
  ],
  [
    "not_in_manifest",
    "Not in its manifest",
    "The manifest that it names does not list it. Reset stuck files sets it back.",
    4,
  ],
  [
    "lagging_files",
    "Behind its manifest",
    "Its manifest is completed, it is not. Set it to completed.",
    3,
  ],
  ["stale_locks", "Stale lock", "Its time is over; the next builder replaces it.", 1],
].map(([kind, title, explanation, count]) => ({
  kind: String(kind),
  title: String(title),
  explanation: String(explanation),
  count: Number(count),
  oldest_seconds: Number(count) * 5400,
  files: Array.from({ length: Number(count) }, (_, index) => file(index)),
}));

const deliveries: Delivery[] = Array.from({ length: 60 }, (_, index) => {
  const failing = index % 5 === 0;
  const state: WebhookState = failing
    ? { ...failedWebhook, last_attempt_at: at(940 + index) }
    : { ...webhook, last_attempt_at: at(31 + index * 20) };
  return {
    assembly_id: assemblyId(index),
    template_id: failing ? "invoices" : "web-images",
    tenant: failing ? "globex" : "acme",
    user: "ada",
    request_id: `req-${index}`,
    ended_at: at(35 + index * 20),
    webhook: state,
  };
});

const section = `Messages of the queue failed for good; no function reads them.

| queue | holds | then |
|---|---|---|
| \`webhooks-dlq\` | webhooks after seven attempts | fix the receiver, then send them again |
| \`requests-failed\` | stream batches that were given up | the sweeper finds the requests |

Look at the messages; they stay in the queues:

\`\`\`sh
queue=$(aws sqs get-queue-url --queue-name jobplane-staging-webhooks-dlq --query QueueUrl --output text)
aws sqs receive-message --queue-url $queue --max-number-of-messages 10 --visibility-timeout 0
\`\`\`

To send webhooks again, move them **back** with \`start-message-move-task\`; see [late messages](#late-messages).`;

function alarm(
  name: string,
  state: Alarm["state"],
  says: string,
  changes: Partial<Alarm> = {},
): Alarm {
  return {
    name: `jobplane-staging-${name}`,
    state,
    says,
    state_reason: null,
    since: at(900),
    subject: null,
    section_title: "Dead letters",
    section,
    link: "docs/observing.md#dead-letters",
    ...changes,
  };
}

const functions = [
  "router",
  "processor",
  "dispatch",
  "deliver-webhook",
  "status",
  "connect",
  "disconnect",
  "claim",
  "state-manager",
];

function operation(changes: Partial<BulkOperation> = {}): BulkOperation {
  return {
    id: "bulk-20261129-021201-4f7c",
    action: "cancel",
    state: "running",
    filter: { status: ["PENDING", "RETRYING"], action: ["import_catalogue"], tenant: "globex" },
    who: "arn:aws:sts::123456789012:assumed-role/operators/ada",
    reason: "The supplier's catalogue is broken; they send a new one at 6",
    created_at: at(160),
    started_at: at(130),
    ended_at: null,
    total: 10_000,
    outcomes: { planned: 3_712, cancelled: 6_204, asked: 61, unchanged: 21, failed: 2 },
    runs_here: true,
    problem: null,
    ...changes,
  };
}

const bulkJobs: BulkJob[] = jobRows(300).map((job, index) => ({
  job: { tenant: job.tenant, user: job.user, id: job.id },
  action: job.action,
  status_before: index % 9 ? "PENDING" : "RETRYING",
  outcome: index === 0 ? "failed" : index % 40 === 3 ? "unchanged" : "cancelled",
  message:
    index === 0 ? "DynamoDB refused the write (ThrottlingException); resume tries it again" : null,
  new_id: null,
  at: at(120 - index / 3),
}));

const counts = {
  pending: 1_204,
  manifested: 310,
  processing: 96,
  completed: 184_220,
  failed: 41,
  quarantined: 7,
};

const findings: Gets["findings"]["answer"]["findings"] = [
  {
    part: "jobs",
    title: "1 job has lost its worker",
    since: at(31),
    remedy:
      "The sweep puts it back within a minute. If that does not happen, open the job and press “Put it back now”.",
    count: 1,
    is_more: false,
    is_urgent: true,
    place: ["job", "acme", "ada", "req-5f3a91c0-00000"],
    filter: {},
  },
  {
    part: "workspaces",
    title: "The workspace atlas#ada can't run jobs: its claim is stuck",
    since: at(5400),
    remedy: "Press “Release” beside it.",
    count: 1,
    is_more: false,
    is_urgent: true,
    place: ["workspaces"],
    filter: {},
  },
  {
    part: "files",
    title: "20 files and locks are stuck, lost or contradictory, most of them: stuck in processing",
    since: at(64_800),
    remedy: "Each kind has its remedy there. “Reset stuck files” corrects most of them.",
    count: 20,
    is_more: false,
    is_urgent: true,
    place: ["files"],
    filter: {},
  },
  {
    part: "webhooks",
    title: "12 webhooks to hooks.globex.example failed: it did not answer",
    since: at(25_300),
    remedy: "Correct the receiver, then press “Send again”.",
    count: 12,
    is_more: false,
    is_urgent: true,
    place: ["webhooks"],
    filter: { failing: "yes" },
  },
  {
    part: "health",
    title:
      "An alarm rings: The queue webhooks-dlq holds messages that failed for good; an operator must handle them.",
    since: at(900),
    remedy: "Health has what the runbook says to do.",
    count: 1,
    is_more: false,
    is_urgent: true,
    place: ["health"],
    filter: {},
  },
  {
    part: "jobs",
    title: "The lane of tenant globex is full: 4 of 4 slots are taken, and 317 jobs wait",
    since: at(1490),
    remedy:
      "Look at the jobs that have its slots. Cancel those that hang; if they all work, raise the limit of the lane.",
    count: 317,
    is_more: false,
    is_urgent: false,
    place: ["jobs"],
    filter: { tenant: "globex", status: "PROCESSING,RETRYING" },
  },
];

const auditEntries: Gets["audit"]["answer"]["entries"] = [
  {
    id: "20261129T021230-1c5b2f70",
    at: at(130),
    who: "arn:aws:sts::123456789012:assumed-role/operators/ada",
    action: "bulk/cancel",
    subject: "10,000 jobs",
    reason: "The supplier's catalogue is broken; they send a new one at 6",
    outcome: "begun",
    message: "It is running.",
    bulk: "bulk-20261129-021201-4f7c",
  },
  {
    id: "20261129T020412-9f0e11aa",
    at: at(628),
    who: "arn:aws:sts::123456789012:assumed-role/operators/ada",
    action: "workspaces/release",
    subject: "claim of borealis#grace, fence 41",
    reason: "Its container was deleted",
    outcome: "done",
    message: "The claim of borealis#grace was released.",
    bulk: null,
  },
  {
    id: "20261129T015803-77c2d0b4",
    at: at(997),
    who: "arn:aws:sts::123456789012:assumed-role/operators/grace",
    action: "jobs/cancel",
    subject: "job req-5f3a91c0-00000 of acme / ada",
    reason: null,
    outcome: "refused",
    message: "router: NOT_FOUND: no such request",
    bulk: null,
  },
  {
    id: "20261129T013120-0d1e88c1",
    at: at(2600),
    who: "arn:aws:sts::123456789012:assumed-role/operators/grace",
    action: "files/reset",
    subject: "files processing or manifested for at least 2 h",
    reason: "the run was killed",
    outcome: "done",
    message: "16 reset, 1 skipped, 0 failed",
    bulk: null,
  },
  {
    id: "20261128T221009-5a61f9d2",
    at: at(14_670),
    who: "arn:aws:sts::123456789012:assumed-role/operators/ada",
    action: "webhooks/resend",
    subject: "webhook of assembly 9e3779b1c4a1f07be2d95a3816c0d4e7",
    reason: null,
    outcome: "done",
    message: "The receiver accepted it (200).",
    bulk: null,
  },
];

/** A stage on which everything is there, and something is wrong on every page. */
export function full(): Scenario {
  return {
    gets: {
      stage: () => ({
        service: "jobplane",
        stage: "staging",
        region: "eu-central-1",
        is_local: false,
        read_only: false,
        read_only_because: null,
        operator: "arn:aws:sts::123456789012:assumed-role/operators/ada",
        version: "0.3.0",
        parts: ["jobs", "workspaces", "files", "webhooks", "health"],
        statuses: [...new Set(kinds)],
        poll_seconds: 2,
        now: at(0),
      }),
      findings: () => ({ findings, unchecked: [], now: at(0) }),
      audit: () => ({ entries: auditEntries, next: null }),
      jobs: (query) => {
        const wanted = query.get("status")?.split(",");
        const jobs = jobRows(120).filter(({ status }) => !wanted || wanted.includes(status));
        return {
          jobs,
          next: null,
          is_cut: false,
          access: "all-tenants",
          rows_read: 120,
          now: at(0),
        };
      },
      lanes: () => ({
        lanes: [
          {
            lane: "tenant#globex",
            kind: "tenant",
            name: "globex",
            slots: 4,
            per_minute: null,
            running: 4,
            waiting: 317,
            oldest_since: at(1490),
            oldest: { tenant: "globex", user: "ada", id: "req-7" },
            is_full: true,
          },
          {
            lane: "action#import_catalogue",
            kind: "action",
            name: "import_catalogue",
            slots: 10,
            per_minute: 60,
            running: 3,
            waiting: 0,
            oldest_since: null,
            oldest: null,
            is_full: false,
          },
          {
            lane: "tenant#acme",
            kind: "tenant",
            name: "acme",
            slots: 4,
            per_minute: null,
            running: 1,
            waiting: 0,
            oldest_since: null,
            oldest: null,
            is_full: false,
          },
        ],
        totals: [
          { status: "SCHEDULED", count: 12, oldest_since: at(7200) },
          { status: "PENDING", count: 329, oldest_since: at(1490) },
          { status: "PROCESSING", count: 18, oldest_since: at(171) },
          { status: "RETRYING", count: 6, oldest_since: at(640) },
        ],
        at_least: false,
        now: at(0),
      }),
      job: () => stuckJob,
      "job/logs": () => ({
        lines: [
          {
            at: at(172),
            function: "router",
            level: "INFO",
            message: "request acknowledged",
            invocation: "a1",
            fields: { connection_id: "L0SM9cOFvHcCIhw=", action: "delay" },
            is_problem: false,
          },
          {
            at: at(171.7),
            function: "dispatch",
            level: "INFO",
            message: "message sent",
            invocation: "b2",
            fields: {},
            is_problem: false,
          },
          {
            at: at(171),
            function: "processor",
            level: "INFO",
            message: "attempt 1 started",
            invocation: "7c3a5d0e",
            fields: { lease_seconds: 120 },
            is_problem: false,
          },
          {
            at: at(150),
            function: "processor",
            level: "WARNING",
            message: "post to a connection failed, and is tried again: GoneException",
            invocation: "7c3a5d0e",
            fields: { error: "GoneException" },
            is_problem: true,
          },
        ],
        events: [],
        is_complete: true,
        note: null,
      }),
      bulk: () => ({
        operations: [
          operation(),
          operation({
            id: "b2",
            state: "done",
            action: "replay",
            total: 48,
            outcomes: { replayed: 48 },
            filter: { status: ["FAILED"], tenant: "acme" },
            reason: "Receiver is back",
            created_at: at(7300),
          }),
          operation({
            id: "b3",
            state: "expired",
            total: 3,
            outcomes: { planned: 3 },
            reason: null,
            created_at: at(86_000),
          }),
        ],
      }),
      "bulk/operation": () => operation(),
      "bulk/jobs": () => ({ jobs: bulkJobs, next: "more" }),
      workspaces: () => ({
        claims,
        executions,
        interruptions: [
          {
            project: "cassini",
            user: "linus",
            at: at(800),
            kind: "preempted",
            message_id: "msg-20261129-0001",
            reason: "another thread took the workspace",
            detail: null,
          },
          {
            project: "atlas",
            user: "ada",
            at: at(15_000),
            kind: "heartbeat_lost",
            message_id: "msg-20261128-0399",
            reason: "no heartbeat for 60 s",
            detail: null,
          },
        ],
        is_complete: true,
        now: at(0),
      }),
      execution: () => runningExecution,
      "files/stats": () => ({
        counts,
        total: Object.values(counts).reduce((sum, one) => sum + one, 0),
        at: at(0),
        history: Array.from({ length: 48 }, (_, hour) => ({
          at: at((48 - hour) * 3600),
          counts: {
            pending: 900 + Math.round(Math.sin(hour / 4) * 300) + hour * 6,
            manifested: 300 + ((hour * 7919) % 60),
            processing: 60 + ((hour * 104_729) % 44),
            completed: 171_000 + hour * 275,
            failed: 20 + Math.floor(hour / 2.4),
            quarantined: 7,
          },
        })),
      }),
      files: () => ({ files, next: "more" }),
      "files/orphans": () => ({
        total: 20,
        kinds: orphanKinds,
        next: null,
        is_complete: true,
        at: at(4),
      }),
      "files/timeline": () => ({
        file: file(3),
        events: [
          { at: at(90_000), title: "Arrived in the input", detail: "12.4 MB", source: "S3" },
          {
            at: at(88_000),
            title: "Listed in a manifest",
            detail: "builder-2-3.json",
            source: "row",
          },
          {
            at: at(18_000),
            title: "Processing started",
            detail: "run mr-20261128-2",
            source: "row",
          },
        ],
        problems: [
          "It has been processing for 5 h 35 min, but its run has ended. Read in the log of the run why, then reset the file.",
        ],
      }),
      "files/validate": () => ({
        date: "2026-11-28",
        is_consistent: false,
        files: 6_180,
        issues: [
          {
            kind: "missing_in_dynamodb",
            file: "events-0411-9a2c.ndjson",
            message: "It is in the input without a row: the event was lost.",
          },
          {
            kind: "size_mismatch",
            file: "events-0007-7d1f.ndjson",
            message: "The row says 12.40 MB, the object has 13.02 MB.",
          },
          {
            kind: "missing_output",
            file: null,
            message: "The date has completed files and no output.",
          },
        ],
        next: null,
      }),
      webhooks: (query) => {
        const failing = query.get("failing") === "true";
        return {
          deliveries: deliveries.filter(
            ({ webhook: { status } }) => !failing || status !== "delivered",
          ),
          groups: [
            {
              template_id: "invoices",
              host: "hooks.globex.example",
              delivered: 0,
              pending: 2,
              failing: 12,
            },
            {
              template_id: "web-images",
              host: "hooks.acme.example",
              delivered: 48,
              pending: 1,
              failing: 0,
            },
          ],
          next: null,
          rows_read: 60,
          queued: 3,
          given_up: 12,
          now: at(0),
        };
      },
      health: () => ({
        alarms: [
          alarm(
            "webhooks-dlq-not-empty",
            "ALARM",
            "The queue webhooks-dlq holds messages that failed for good; an operator must handle them.",
            { subject: "webhooks-dlq", state_reason: "12 messages, threshold 1" },
          ),
          alarm("claim-errors", "OK", "claim raised an error or reached its time limit."),
          alarm(
            "orphans",
            "OK",
            "Two runs in a row found files that are stuck, lost or contradict the objects in S3.",
          ),
          alarm("http-5xx", "INSUFFICIENT_DATA", "The HTTP API answered with a server error."),
        ],
        alarms_off: false,
        queues: [
          {
            name: "jobs",
            is_dead_letter: false,
            visible: 12,
            in_flight: 18,
            delayed: 2,
            oldest_seconds: 41,
          },
          {
            name: "webhooks",
            is_dead_letter: false,
            visible: 0,
            in_flight: 3,
            delayed: 0,
            oldest_seconds: null,
          },
          {
            name: "webhooks-dlq",
            is_dead_letter: true,
            visible: 12,
            in_flight: 0,
            delayed: 0,
            oldest_seconds: 940,
          },
          {
            name: "requests-failed",
            is_dead_letter: true,
            visible: 0,
            in_flight: 0,
            delayed: 0,
            oldest_seconds: null,
          },
          {
            name: "jobs-dlq.fifo",
            is_dead_letter: true,
            visible: 0,
            in_flight: 0,
            delayed: 0,
            oldest_seconds: null,
          },
        ],
        functions: functions.map((name, index) => ({
          name,
          invocations: 42_000 / (index + 1),
          errors: index === 3 ? 84 : 0,
          throttles: 0,
          p50_ms: 8 + index * 3,
          p95_ms: 41 + index * index * 60,
        })),
        window_minutes: 60,
        now: at(0),
      }),
    },
    posts: {
      "jobs/put-back": ({ id }) => ({
        message: `${id} was put back into the queue; the next free worker takes it.`,
      }),
      "jobs/cancel": ({ id }) => ({ message: `${id} was cancelled.` }),
      "jobs/replay": ({ tenant, user }) => ({
        message: "It was sent again.",
        job: { tenant, user, id: "req-new" },
      }),
      "bulk/preview": ({ action }) => ({
        id: "bulk-20261129-021201-4f7c",
        action,
        total: 10_000,
        by_status: [
          { name: "PENDING", count: 9_820 },
          { name: "RETRYING", count: 180 },
        ],
        by_action: [
          { name: "import_catalogue", count: 9_400 },
          { name: "delay", count: 600 },
        ],
        by_tenant: [
          { name: "globex", count: 9_990 },
          { name: "initech", count: 10 },
        ],
        sample: Array.from({ length: 50 }, (_, index) =>
          jobRow(index, { status: "PENDING", tenant: "globex", action: "import_catalogue" }),
        ),
        is_cut: false,
        expires_at: at(-3600),
      }),
      "bulk/run": () => operation(),
      "bulk/stop": () => operation({ state: "interrupted", runs_here: false }),
      "workspaces/interrupt": () => ({ message: "The worker was asked to stop." }),
      "workspaces/release": ({ project, user }) => ({
        message: `The claim of ${project}#${user} was released.`,
      }),
      "files/reset": ({ dry_run }) => ({
        dry_run: dry_run ?? true,
        reset: Array.from({ length: 16 }, (_, index) => ({
          date: "2026-11-28",
          key: file(index).key,
          status: "processing#3",
          detail: index % 5 === 2 ? "fail: it was reset three times" : "reset to pending",
        })),
        skipped: [
          {
            date: "2026-11-28",
            key: file(20).key,
            status: "processing#3",
            detail: "its manifest is still processing",
          },
        ],
        failed: [],
        next: null,
      }),
      "files/update": ({ key, new_status }) => ({ message: `${key} is now ${new_status}.` }),
      "webhooks/resend": () => ({ message: "The receiver accepted it.", webhook }),
    },
  };
}

/** A stage without anything in it. */
export function empty(): Scenario {
  const scenario = full();
  const { gets } = scenario;
  return {
    ...scenario,
    gets: {
      ...gets,
      jobs: () => ({
        jobs: [],
        next: null,
        is_cut: false,
        access: "all-tenants",
        rows_read: 0,
        now: at(0),
      }),
      findings: () => ({ findings: [], unchecked: [], now: at(0) }),
      audit: () => ({ entries: [], next: null }),
      lanes: () => ({ lanes: [], totals: [], at_least: false, now: at(0) }),
      bulk: () => ({ operations: [] }),
      workspaces: () => ({
        claims: [],
        executions: [],
        interruptions: [],
        is_complete: true,
        now: at(0),
      }),
      "job/logs": () => ({ lines: [], events: [], is_complete: true, note: null }),
      "files/stats": () => ({ counts: {}, total: 0, at: at(0), history: [] }),
      files: () => ({ files: [], next: null }),
      "files/orphans": () => ({ total: 0, kinds: [], next: null, is_complete: true, at: at(0) }),
      "files/validate": () => ({
        date: "2026-11-28",
        is_consistent: true,
        files: 6_180,
        issues: [],
        next: null,
      }),
      webhooks: () => ({
        deliveries: [],
        groups: [],
        next: null,
        rows_read: 0,
        queued: 0,
        given_up: 0,
        now: at(0),
      }),
      health: () => ({
        alarms: [alarm("claim-errors", "OK", "claim raised an error or reached its time limit.")],
        alarms_off: false,
        queues: [],
        functions: [],
        window_minutes: 60,
        now: at(0),
      }),
    },
    posts: {
      ...scenario.posts,
      "bulk/preview": ({ action }) => ({
        id: "b0",
        action,
        total: 0,
        by_status: [],
        by_action: [],
        by_tenant: [],
        sample: [],
        is_cut: false,
        expires_at: at(-3600),
      }),
      "files/reset": () => ({ dry_run: true, reset: [], skipped: [], failed: [], next: null }),
    },
  };
}

/** Everything fails, or never answers. */
export function broken(reply: "never" | "gone" | Problem): Scenario {
  const scenario = full();
  const gets = Object.fromEntries(
    Object.keys(scenario.gets).map((path) => [path, () => reply]),
  ) as unknown as Scenario["gets"];
  return { ...scenario, gets: { ...gets, stage: scenario.gets.stage } };
}

export { operation };

/** Texts that a user may send, and that must change nothing but their own place. */
export const hostile = [
  '<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>',
  "\u202eexe.txt\u202c and \u2067mirrored",
  "\u0645\u0647\u0645\u0629 \u0627\u0644\u0639\u0645\u064a\u0644",
  "\u{1f469}\u200d\u{1f469}\u200d\u{1f467}\u200d\u{1f466}\u{1f3f3}\ufe0f\u200d\u{1f308}".repeat(30),
  "x".repeat(100_000),
  "\u0000\u0007\n\n\ttabs and `ticks` & 100 %2F % of #/../?",
  " ",
] as const;

const texts = new Set([
  ...["tenant", "user", "action", "message", "subject", "reason", "who", "summary", "next_step"],
  ...["title", "detail", "by", "remedy", "host", "template_id", "explanation", "manifest", "key"],
  ...["payload", "result", "project", "holder", "cause", "input", "output", "function", "says"],
]);

/** A scenario in which every text that comes from users is hostile. */
export function attacked(): Scenario {
  const scenario = full();
  let turn = 0;
  const changed = (value: unknown, name = ""): unknown => {
    if (typeof value === "string") {
      if (!texts.has(name)) return value;
      const text = hostile[turn++ % hostile.length] ?? "";
      // The server cuts the texts of lists: one long text is enough.
      return turn > hostile.length ? text.slice(0, 1_000) : text;
    }
    if (Array.isArray(value)) return value.map((one) => changed(one, name));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, changed(one, key)]));
  };
  const gets = scenario.gets as Record<string, (query: URLSearchParams) => unknown>;
  for (const [path, answer] of Object.entries(gets)) gets[path] = (query) => changed(answer(query));
  return scenario;
}
