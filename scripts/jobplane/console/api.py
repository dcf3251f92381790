"""The console's API: what each path takes and answers. `web/console/src/api.ts` is made from it.

All paths are below `/api`. A GET takes its fields as query parameters, of which a list is one
parameter with commas; a POST takes them as a JSON object. An answer other than 2xx is a `Problem`.
Times are ISO-8601 UTC with milliseconds. A page polls: every GET answers with an `ETag`, and with
304 if that is the same as `If-None-Match`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

type Time = str
type Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
type Tenant = Annotated[str, StringConstraints(min_length=1, max_length=256)]
type Reason = Annotated[str, StringConstraints(min_length=1, max_length=512)]
type Token = Annotated[str, StringConstraints(min_length=1, max_length=262_144)]
type JobStatus = Literal[
    "SCHEDULED", "PENDING", "PROCESSING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED"
]
type FileState = Literal[
    "pending", "manifested", "processing", "completed", "failed", "quarantined"
]
type Part = Literal["jobs", "workspaces", "files", "webhooks", "health"]


class Asked(BaseModel):
    """What the page asks: unknown fields are refused. Numbers of a query are text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Shown(BaseModel):
    """What the page shows: every field is there, and null if it has no value."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ProblemText(Shown):
    """`code` is one of a few words for the page; `message` says what happened and what to do."""

    code: Literal[
        "UNAUTHORIZED",  # no cookie, or a wrong one: open the URL that the command prints
        "FORBIDDEN",  # another host or origin
        "READ_ONLY",
        "VALIDATION_ERROR",
        "NOT_FOUND",
        "CONFLICT",  # changed in the meantime: load again
        "NOT_AVAILABLE",  # the stage does not have this part
        "AWS_ERROR",  # AWS refused a call: credentials, a permission, throttling
        "FUNCTION_ERROR",  # a function raised an error, see its log
        "INTERNAL_ERROR",
    ]
    message: str


class Problem(Shown):
    error: ProblemText


class StageInfo(Shown):
    """GET /api/stage."""

    service: str
    stage: str
    region: str
    is_local: bool
    read_only: bool
    read_only_because: str | None
    """`The stage has "prod" in its name; start with --write to change it.`"""
    operator: str
    """Who acts, as audits name it: the ARN of the credentials."""
    version: str
    parts: list[Part]
    """The pages that this stage has; a project may have deleted functions."""
    statuses: list[JobStatus]
    poll_seconds: float
    now: Time


# What needs a look, and what operators have done.


class Finding(Shown):
    """Something that an operator should look at: what is wrong, since when, and what to do."""

    part: Part
    title: str
    since: Time | None
    remedy: str
    count: int
    is_more: bool
    """There are more than were counted."""
    is_urgent: bool
    """False if it may be as it should be, such as a lane that is full."""
    place: list[str]
    """The page where it is corrected, as the path of its address."""
    filter: dict[str, str]
    """The filters of that page."""


class Findings(Shown):
    """GET /api/findings."""

    findings: list[Finding]
    unchecked: list[str]
    """What could not be looked at, and why."""
    now: Time


class AuditQuery(Asked):
    """GET /api/audit."""

    before: Time | None = None


class AuditEntry(Shown):
    """What an operator did: one action, or an operation on many jobs, which `bulk` names.

    `begun`: the console ended before it knew the outcome. `refused`: nothing was changed, and
    `message` says why.
    """

    id: str
    at: Time
    who: str
    action: str
    subject: str
    reason: str | None
    outcome: Literal["begun", "done", "refused", "failed"]
    message: str | None
    bulk: str | None


class Audit(Shown):
    """What was done with consoles in the last 90 days, the newest first."""

    entries: list[AuditEntry]
    next: Time | None
    """`before` of the next page."""


# Jobs.


class JobFilter(Asked):
    """Which jobs. All conditions must hold; those of `status` and `action` are lists of choices.

    `since` and `until` are about `created_at`. `tenant` and `user` are exact; `user` needs a tenant
    as well.
    """

    status: list[JobStatus] = []
    action: list[Text] = []
    tenant: Tenant | None = None
    user: Tenant | None = None
    tag: Text | None = None
    since: Time | None = None
    until: Time | None = None


class JobsQuery(JobFilter):
    """GET /api/jobs."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
    next: Token | None = None


class JobKey(Asked):
    """Names one job. GET /api/job, /api/job/logs, POST /api/jobs/cancel, /replay, /put-back."""

    tenant: Tenant
    user: Tenant
    id: Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Progress(Shown):
    percentage: float
    message: str
    at: Time


class Waiting(Shown):
    """Why a job does not run, since when, and until when if that is known.

    `queued`: a worker will take it. `lane_full`: as many jobs of its lane run as may. `retrying`:
    an attempt has failed, or the job waits in a step. `scheduled`: it is not due. `rate`: as many
    jobs of its action have started in the last minute as may. `callback`: it waits for an answer
    from outside.
    """

    reason: Literal["queued", "lane_full", "retrying", "scheduled", "rate", "callback"]
    since: Time
    until: Time | None = None


class JobError(Shown):
    code: str
    message: str


class JobRow(Shown):
    """One row of the table of jobs."""

    tenant: str
    user: str
    id: str
    action: str
    status: JobStatus
    attempts: int
    max_attempts: int | None
    created_at: Time
    started_at: Time | None
    updated_at: Time | None
    ended_at: Time | None
    run_at: Time | None
    duration_seconds: float | None
    """From the first start until now, or until the end."""
    progress: Progress | None
    waiting: Waiting | None
    cancel_requested: bool
    error: JobError | None
    tags: list[str]
    assembly_id: str | None
    replay_of: str | None
    worker_lost_at: Time | None
    """When the lease of a job in processing ran out: its worker has stopped."""


class JobPage(Shown):
    """Jobs, newest first. A page may be shorter than `limit`, or empty, and have a `next`."""

    jobs: list[JobRow]
    next: str | None
    access: Literal["in-flight", "by-tenant", "by-owner", "all-tenants"]
    """The index that was read; docs/console.md says what each costs."""
    rows_read: int
    """What the answer cost: rows that were read for this page."""
    is_cut: bool
    """More jobs are in flight than are sorted: narrow the filter by tenant or time."""
    now: Time


class LaneRow(Shown):
    """A lane: so many of its jobs may run at a time. `oldest` waits longest."""

    lane: str
    kind: Literal["tenant", "action"]
    name: str
    slots: int | None
    per_minute: int | None
    running: int
    waiting: int
    oldest_since: Time | None
    oldest: JobKey | None
    is_full: bool


class StatusTotal(Shown):
    """Jobs that have not ended, of one status; `oldest_since` is when the oldest was created."""

    status: JobStatus
    count: int
    oldest_since: Time | None


class Lanes(Shown):
    """GET /api/lanes. Without limits of tenants and actions there are no lanes, only totals."""

    lanes: list[LaneRow]
    totals: list[StatusTotal]
    at_least: bool
    """More jobs are in flight than were counted."""
    now: Time


class TimelineEvent(Shown):
    """Something that happened to a job. `detail` is one line for people.

    `row`: from the job's row; `document`: of the assembly; `log`: from a function's log.
    """

    at: Time
    kind: Literal[
        "received",
        "scheduled",
        "dispatched",
        "waiting",
        "started",
        "attempt",
        "step",
        "progress",
        "callback",
        "cancel_requested",
        "put_back",
        "ended",
        "webhook",
    ]
    title: str
    detail: str | None
    by: str | None
    """The function that did it."""
    is_problem: bool
    source: Literal["row", "document", "log"]


class WhyItWaits(Shown):
    """Why a job is where it is, and what happens next. For a job that has not ended."""

    summary: str
    """One sentence: `It waits for a slot of tenant#acme: 4 of 4 are taken, 17 wait before it.`"""
    next_step: str
    """Who acts when: `The sweeper of processor puts it back at 10:04:12 (in 71 s).`"""
    next_at: Time | None
    is_problem: bool
    """True if it waits for longer than it should: an operator should act."""
    last_writer: str | None
    """The worker that has the lease or had it last: the id of an invocation of processor."""
    last_write_at: Time | None
    lease_until: Time | None
    lease_is_over: bool
    attempts_left: int | None
    lane: str | None
    lane_running: int | None
    lane_slots: int | None
    ahead: int | None
    """Jobs that wait before it in its lane."""


class StepRow(Shown):
    """A stored step of a job, or a template's step; `result` is JSON text, cut after 2,000."""

    name: str
    state: Literal["stored", "done", "running", "waiting"]
    result: str | None
    files: int | None


class WebhookState(Shown):
    """The delivery of an assembly's webhook. `host` is null if the template is not known here."""

    status: (
        Literal[
            "pending", "delivered", "retrying", "failed", "disabled", "unsigned_refused", "refused"
        ]
        | None
    )
    attempts: int
    last_attempt_at: Time | None
    last_response_code: int | None
    error: str | None
    host: str | None
    explanation: str
    """What the status means, and what to do."""


class AssemblySummary(Shown):
    assembly_id: str
    template_id: str
    state: str
    """The document's `ok` or `error`, or EXECUTING."""
    message: str
    files_received: int
    files_made: int
    bytes_usage: int
    steps_completed: int | None
    steps_total: int | None
    current_step: str | None
    warnings: list[str]
    webhook: WebhookState | None


class JobActions(Shown):
    """What can be done with a job now; false in a read-only console too."""

    cancel: bool
    replay: bool
    resend_webhook: bool
    put_back: bool
    """Its lease is over: the sweep of processor puts it back, or ends it."""


class Job(Shown):
    """GET /api/job."""

    job: JobRow
    waits: WhyItWaits | None
    timeline: list[TimelineEvent]
    """From the row and the document, oldest first. The answer of /api/job/logs has more."""
    steps: list[StepRow]
    assembly: AssemblySummary | None
    payload: str | None
    """JSON text, cut after 20,000 characters; null if it is stored apart."""
    result: str | None
    metadata: dict[str, str]
    lane: str | None
    priority: str
    trace_id: str | None
    expires_at: Time | None
    replayed_as: str | None
    """The id of its replay: a job is replayed once, and then its replay."""
    can: JobActions
    now: Time


class LogLine(Shown):
    at: Time
    function: str
    level: str
    message: str
    invocation: str | None
    fields: dict[str, Any]
    is_problem: bool


class JobLogs(Shown):
    """GET /api/job/logs: the lines of all functions with the job's id or its assembly's."""

    lines: list[LogLine]
    events: list[TimelineEvent]
    """What these lines add to the timeline."""
    is_complete: bool
    """False: there are more lines than were read, or a log group could not be read."""
    note: str | None


class Done(Shown):
    """The answer to an action: a sentence for people."""

    message: str


class Replayed(Shown):
    """POST /api/jobs/replay: the new job."""

    message: str
    job: JobKey


# Bulk: preview, run, progress.

type BulkAction = Literal["cancel", "replay"]
type BulkOutcome = Literal["planned", "cancelled", "asked", "replayed", "unchanged", "failed"]


class BulkPreviewRequest(Asked):
    """POST /api/bulk/preview: plans the change of all jobs of a filter, and changes nothing.

    A cancel needs jobs that have not ended, a replay those that have; others are left out.
    """

    action: BulkAction
    filter: JobFilter


class Count(Shown):
    name: str
    count: int


class BulkPreview(Shown):
    """Exactly these jobs will be changed: the plan is stored, and does not grow.

    `id` is the token with which the run is started, within an hour.
    """

    id: str
    action: BulkAction
    total: int
    by_status: list[Count]
    by_action: list[Count]
    by_tenant: list[Count]
    sample: list[JobRow]
    """The first of them, at most 50; all are in /api/bulk/jobs."""
    is_cut: bool
    """More jobs match than one run may change: run it, then preview again."""
    expires_at: Time


class BulkRunRequest(Asked):
    """POST /api/bulk/run: starts a planned operation, or resumes one that was interrupted."""

    id: Text
    reason: Reason | None = None
    """Required to start; audits show it."""


class BulkId(Asked):
    """GET /api/bulk/operation, POST /api/bulk/stop."""

    id: Text


class BulkOperation(Shown):
    """An operation and how far it is. `interrupted`: it has work left, and no console runs it.

    Outcomes: `cancelled` has ended as cancelled; `asked`: its worker was asked to end it;
    `unchanged`: it had ended before in another way; `failed`: see the job's message.
    """

    id: str
    action: BulkAction
    state: Literal["planned", "running", "interrupted", "done", "expired"]
    filter: JobFilter
    who: str
    reason: str | None
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    total: int
    outcomes: dict[BulkOutcome, int]
    runs_here: bool
    """This console drives it."""
    problem: str | None
    """Why this console stopped driving it."""


class BulkOperations(Shown):
    """GET /api/bulk: the newest first."""

    operations: list[BulkOperation]


class BulkJobsQuery(Asked):
    """GET /api/bulk/jobs."""

    id: Text
    outcome: BulkOutcome | None = None
    next: Token | None = None


class BulkJob(Shown):
    """What an operation did to one job: a row of the audit. `new_id` is that of a replay."""

    job: JobKey
    action: str
    status_before: JobStatus
    outcome: BulkOutcome
    message: str | None
    new_id: str | None
    at: Time | None


class BulkJobs(Shown):
    jobs: list[BulkJob]
    next: str | None


# Workspaces.


class Claim(Shown):
    """A workspace's claim. `is_stuck`: its time or its execution has ended, and it still holds."""

    project: str
    user: str
    state: Literal["held", "free", "expired", "malformed"]
    holder: str | None
    """The container of the job."""
    taker: str | None
    thread: str | None
    message_id: str | None
    claim_id: str | None
    fence: int | None
    claimed_at: Time | None
    age_seconds: float | None
    expires_at: Time | None
    execution: str | None
    execution_status: str | None
    is_stuck: bool
    explanation: str
    last_released: str | None


class Execution(Shown):
    name: str
    status: Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"]
    started_at: Time
    ended_at: Time | None
    duration_seconds: float
    workspace: str | None
    """`project#user`, of those whose claims are shown."""


class Interruption(Shown):
    project: str
    user: str
    at: Time | None
    kind: str
    message_id: str | None
    reason: str | None
    detail: str | None


class Workspaces(Shown):
    """GET /api/workspaces: held claims first, the newest executions and interruptions."""

    claims: list[Claim]
    executions: list[Execution]
    interruptions: list[Interruption]
    is_complete: bool
    now: Time


class GraphState(Shown):
    """A state of the flow. `visits` counts how often this execution entered it."""

    name: str
    type: str
    next: list[str]
    is_end: bool
    visits: int
    is_current: bool
    is_failed: bool
    entered_at: Time | None
    comment: str | None


class ExecutionEvent(Shown):
    at: Time
    state: str | None
    title: str
    detail: str | None
    is_problem: bool


class ExecutionDetail(Shown):
    """GET /api/execution?name=…"""

    execution: Execution
    start: str
    states: list[GraphState]
    events: list[ExecutionEvent]
    summary: str
    """Where it is and what it waits for, or how it ended."""
    input: str | None
    output: str | None
    error: str | None
    cause: str | None
    is_complete: bool
    now: Time


class ExecutionQuery(Asked):
    name: Text


class ClaimAction(Asked):
    """POST /api/workspaces/interrupt, /api/workspaces/release: of the claim as it was shown."""

    project: Text
    user: Text
    claim_id: Text
    fence: int
    reason: Reason


# Files.


class FilesAt(Shown):
    at: Time
    counts: dict[FileState, int]


class FileStats(Shown):
    """GET /api/files/stats."""

    counts: dict[FileState, int]
    total: int
    at: Time
    history: list[FilesAt]
    """Of the hourly run, oldest first; empty if CloudWatch has no values."""


class FileRow(Shown):
    date: str
    key: str
    status: str
    age_seconds: float | None
    updated_at: Time | None
    manifest: str | None
    error: str | None
    resets: int
    fields: dict[str, Any]


class FilesQuery(Asked):
    """GET /api/files: of a status, or of a date."""

    status: FileState | None = None
    date: Text | None = None
    since: Text | None = None
    """Dates, for a status."""
    until: Text | None = None
    next: Token | None = None


class FilePage(Shown):
    files: list[FileRow]
    next: str | None


class OrphansQuery(Asked):
    """GET /api/files/orphans."""

    hours: Annotated[float, Field(gt=0, le=24 * 365)] = 2
    next: Token | None = None


class OrphanKind(Shown):
    """`oldest_seconds` is null if the kind has no readable time."""

    kind: str
    title: str
    explanation: str
    count: int
    oldest_seconds: float | None
    files: list[FileRow]


class Orphans(Shown):
    total: int
    kinds: list[OrphanKind]
    next: str | None
    is_complete: bool
    at: Time


class FileQuery(Asked):
    """GET /api/files/timeline."""

    date: Text
    key: Text


class FileEvent(Shown):
    at: Time
    title: str
    detail: str | None
    source: str | None


class FileTimeline(Shown):
    file: FileRow
    events: list[FileEvent]
    problems: list[str]


class ResetRequest(Asked):
    """POST /api/files/reset. First with `dry_run`, which changes nothing."""

    dry_run: bool = True
    hours: Annotated[float, Field(gt=0, le=24 * 365)] = 2
    statuses: list[FileState] = ["manifested", "processing"]
    reason: Reason | None = None
    next: Token | None = None


class FileOutcome(Shown):
    date: str
    key: str
    status: str
    detail: str | None


class ResetAnswer(Shown):
    dry_run: bool
    reset: list[FileOutcome]
    """Those that were reset; of a dry run those that would be."""
    skipped: list[FileOutcome]
    failed: list[FileOutcome]
    next: str | None


class FileUpdate(Asked):
    """POST /api/files/update: refused with CONFLICT if the file no longer has `expected_status`."""

    date: Text
    key: Text
    new_status: FileState
    expected_status: FileState
    force: bool = False
    """Also a step that the pipeline does not have."""
    reason: Reason


class DateQuery(Asked):
    """GET /api/files/validate."""

    date: Text
    next: Token | None = None


class Issue(Shown):
    kind: str
    file: str | None
    message: str


class Validation(Shown):
    date: str
    is_consistent: bool
    files: int
    issues: list[Issue]
    next: str | None


# Webhooks.


class WebhooksQuery(Asked):
    """GET /api/webhooks. `failing`: only those that an operator should look at."""

    tenant: Tenant | None = None
    template: Text | None = None
    host: Text | None = None
    failing: bool = False
    since: Time | None = None
    next: Token | None = None


class Delivery(Shown):
    assembly_id: str
    template_id: str
    tenant: str | None
    user: str | None
    request_id: str | None
    ended_at: Time | None
    webhook: WebhookState


class DeliveryGroup(Shown):
    """The deliveries of a template, of those that were read for this page."""

    template_id: str
    host: str | None
    delivered: int
    pending: int
    failing: int


class Deliveries(Shown):
    deliveries: list[Delivery]
    groups: list[DeliveryGroup]
    next: str | None
    rows_read: int
    queued: int | None
    """Messages of the queue `webhooks` that wait or are being delivered."""
    given_up: int | None
    """Messages of its dead-letter queue."""
    now: Time


class AssemblyKey(Asked):
    """POST /api/webhooks/resend."""

    assembly_id: Text


class Resent(Shown):
    message: str
    webhook: WebhookState


# Health.


class Alarm(Shown):
    """`section` is the runbook's text for an alarm that rings, in Markdown; `link` its place."""

    name: str
    state: Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
    says: str
    state_reason: str | None
    since: Time | None
    subject: str | None
    section_title: str | None
    section: str | None
    link: str | None


class Queue(Shown):
    name: str
    is_dead_letter: bool
    visible: int
    in_flight: int
    delayed: int
    oldest_seconds: float | None
    """From CloudWatch, which is some minutes late; null if it has no value."""


class FunctionHealth(Shown):
    """Of the last hour, from CloudWatch; null without values."""

    name: str
    invocations: float | None
    errors: float | None
    throttles: float | None
    p50_ms: float | None
    p95_ms: float | None


class Health(Shown):
    """GET /api/health: alarms that ring first."""

    alarms: list[Alarm]
    alarms_off: bool
    """The stage has no alarms: `custom.stages` in serverless.yml."""
    queues: list[Queue]
    functions: list[FunctionHealth]
    window_minutes: int
    now: Time


GETS: dict[str, tuple[type[Asked] | None, type[Shown]]] = {
    "stage": (None, StageInfo),
    "findings": (None, Findings),
    "audit": (AuditQuery, Audit),
    "jobs": (JobsQuery, JobPage),
    "lanes": (None, Lanes),
    "job": (JobKey, Job),
    "job/logs": (JobKey, JobLogs),
    "bulk": (None, BulkOperations),
    "bulk/operation": (BulkId, BulkOperation),
    "bulk/jobs": (BulkJobsQuery, BulkJobs),
    "workspaces": (None, Workspaces),
    "execution": (ExecutionQuery, ExecutionDetail),
    "files/stats": (None, FileStats),
    "files": (FilesQuery, FilePage),
    "files/orphans": (OrphansQuery, Orphans),
    "files/timeline": (FileQuery, FileTimeline),
    "files/validate": (DateQuery, Validation),
    "webhooks": (WebhooksQuery, Deliveries),
    "health": (None, Health),
}

POSTS: dict[str, tuple[type[Asked], type[Shown]]] = {
    "jobs/cancel": (JobKey, Done),
    "jobs/replay": (JobKey, Replayed),
    "jobs/put-back": (JobKey, Done),
    "bulk/preview": (BulkPreviewRequest, BulkPreview),
    "bulk/run": (BulkRunRequest, BulkOperation),
    "bulk/stop": (BulkId, BulkOperation),
    "workspaces/interrupt": (ClaimAction, Done),
    "workspaces/release": (ClaimAction, Done),
    "files/reset": (ResetRequest, ResetAnswer),
    "files/update": (FileUpdate, Done),
    "webhooks/resend": (AssemblyKey, Resent),
}

# A console that only reads takes these if they have `dry_run`, with which they change nothing.
HARMLESS = frozenset({"files/reset"})
