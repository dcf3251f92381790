"""Input and result of the job flow and of each of its functions.

Results with several shapes are unions. A `reason` is one of a fixed list of words.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from jobplane_models._base import (
    CAMEL,
    WHOLE,
    Input,
    Open,
    RequestId,
    WorkspaceId,
    WorkspaceKey,
)

MAX_FENCE = 2**53
MAX_TTL_SECONDS = 24 * 3600

Fence = Annotated[int, Field(ge=0, le=MAX_FENCE), WHOLE]
TtlSeconds = Annotated[int, Field(ge=1, le=MAX_TTL_SECONDS), WHOLE]
ShortText = Annotated[str, Field(min_length=1, max_length=2048)]

_ONE_WORKSPACE: dict[str, Any] = {
    "anyOf": [
        {"required": ["projectUserId"], "properties": {"projectUserId": {"type": "string"}}},
        {
            "required": ["projectId", "userId"],
            "properties": {"projectId": {"type": "string"}, "userId": {"type": "string"}},
        },
    ]
}


class _Workspace(Input):
    """The workspace: `projectUserId`, or its parts; if both are given, they must agree."""

    model_config = CAMEL | ConfigDict(json_schema_extra=_ONE_WORKSPACE)

    project_user_id: WorkspaceKey | None = None
    project_id: WorkspaceId | None = None
    user_id: WorkspaceId | None = None

    @model_validator(mode="after")
    def _is_one_workspace(self) -> Self:
        if self.project_user_id is None:
            if self.project_id is None or self.user_id is None:
                raise ValueError("projectUserId, or projectId and userId are required")
            return self
        project_id, _, user_id = self.project_user_id.partition("#")
        if self.project_id not in (None, project_id) or self.user_id not in (None, user_id):
            raise ValueError("projectId or userId differs from projectUserId")
        return self


class _Output(Open):
    model_config = CAMEL | ConfigDict(validate_by_name=True)


class CheckActiveJobInput(_Workspace):
    """Asks whether a job runs in the workspace, and whether this thread must interrupt it."""

    thread_id: WorkspaceId


class ActiveJob(_Output):
    """The running job; a row of an older version has fewer fields. Times in epoch seconds."""

    container_id: str | None
    thread_id: str | None
    message_id: str | None
    claim_id: str | None
    fence: int | None
    expires_at: int | None


class CheckActiveJobResult(_Output):
    """The state of the workspace. It may change before a claim: the job may end, or one begin."""

    has_active_job: bool
    same_thread: bool
    should_interrupt: bool
    reason: Literal["none", "free", "expired", "malformed", "same_thread", "other_thread"]
    active_job: ActiveJob | None
    input_queue_name: str


TakerSeconds = Annotated[int, Field(ge=0, le=12 * 3600), WHOLE]


class AcquireInput(_Workspace):
    """Asks for the claim of a workspace. The same message and owner get the same claim again.

    `taker` and `takerSeconds` are those of renew.
    """

    operation: Literal["acquire"] = "acquire"
    thread_id: WorkspaceId
    message_id: WorkspaceId
    owner: ShortText | None = None
    ttl_seconds: TtlSeconds | None = None
    min_interval_seconds: Annotated[int, Field(ge=0, le=MAX_TTL_SECONDS), WHOLE] | None = None
    taker: ShortText | None = None
    taker_seconds: TakerSeconds | None = None


class RenewInput(_Workspace):
    """Renews a claim for `ttlSeconds` from now.

    With `taker`, the name of a running worker, it takes the claim's job over: if another taker had
    the job, the fence grows, and that one can't renew any more. For `takerSeconds` after a renewal
    no other worker can take over.
    """

    operation: Literal["renew"]
    claim_id: WorkspaceId
    fence: Fence
    ttl_seconds: TtlSeconds | None = None
    taker: ShortText | None = None
    taker_seconds: TakerSeconds | None = None


class ReleaseInput(_Workspace):
    """Releases a claim; without a `taker`, whichever worker has its job."""

    operation: Literal["release"]
    claim_id: WorkspaceId
    fence: Fence
    reason: ShortText | None = None
    taker: ShortText | None = None


ClaimInput = AcquireInput | RenewInput | ReleaseInput


class Claimed(_Output):
    """The caller has the claim of the workspace until `expiresAt` (epoch seconds).

    The fence grows with each claim of a workspace: pass it with every write of the job.
    """

    claimed: Literal[True]
    claim_id: str
    fence: int
    container_id: str
    expires_at: int


class ClaimHolder(_Output):
    """The holder of the workspace, for a caller that did not get the claim."""

    thread_id: str | None
    message_id: str | None
    container_id: str | None
    claim_id: str | None
    fence: int | None
    expires_in_seconds: int | None


class NotClaimed(_Output):
    """The claim was refused. `same_thread`: send the message to the holder's job, whose claim was
    renewed.
    """

    claimed: Literal[False]
    reason: Literal["held", "same_thread"]
    holder: ClaimHolder


class ClaimedTooSoon(_Output):
    """The claim was refused: the last one is less than `minIntervalSeconds` old."""

    claimed: Literal[False]
    reason: Literal["rate_limited"]
    retry_after_seconds: int


class Renewed(_Output):
    """The claim now ends at `expiresAt` (epoch seconds). A taker's fence is `fence`."""

    renewed: Literal[True]
    expires_at: int
    fence: int | None = None


class NotRenewed(_Output):
    """The claim is lost, and can't be renewed again."""

    renewed: Literal[False]
    reason: Literal["absent", "released", "expired", "superseded"]


class TakenOver(_Output):
    """The claim is held, and another worker has its job."""

    renewed: Literal[False]
    reason: Literal["taken"]


class Released(_Output):
    """The claim was released; `repeated` is true if that was done before."""

    released: Literal[True]
    repeated: bool


class NotReleased(_Output):
    """The claim was not released, because the caller does not have it."""

    released: Literal[False]
    reason: Literal["absent", "expired", "superseded"]


ClaimResult = (
    Claimed
    | NotClaimed
    | ClaimedTooSoon
    | Renewed
    | NotRenewed
    | TakenOver
    | Released
    | NotReleased
)


class _InterruptTarget(Input):
    model_config = CAMEL

    container_id: WorkspaceId | None = None
    thread_id: WorkspaceId | None = None
    expires_at: Annotated[float, Field(ge=0, le=MAX_FENCE, allow_inf_nan=False)] | None = None


class NumberedTarget(_InterruptTarget):
    """The claim to interrupt."""

    claim_id: WorkspaceId
    fence: Fence


class OlderTarget(_InterruptTarget):
    """A claim of an older version without an id, which an interrupt can't name."""

    claim_id: None
    fence: None


class SendInterruptInput(_Workspace):
    """Asks the worker of a claim to stop for another message."""

    target: NumberedTarget | OlderTarget
    new_thread_id: WorkspaceId
    interrupting_message_id: WorkspaceId
    reason: Annotated[str, Field(max_length=1024)] | None = None


class InterruptSent(_Output):
    """The interrupt was sent to the worker's queue."""

    sent: Literal[True]
    interrupt_id: str
    queue_url: str
    message_id: str


class InterruptNotSent(_Output):
    """No interrupt was sent: no job runs, or its claim has no id."""

    sent: Literal[False]
    reason: Literal["expired", "same_thread", "unaddressable"]
    interrupt_id: str | None


SendInterruptResult = InterruptSent | InterruptNotSent


class RecordInterruptionInput(_Workspace):
    """Records an interruption; `messageId` is that of the interrupted job.

    Missing fields are taken from `cause`, if that is JSON.
    """

    message_id: WorkspaceId
    kind: Literal["interruption", "timeout", "heartbeat_lost", "forced"] = "interruption"
    interrupted_claim_id: WorkspaceId | None = None
    interrupted_container: WorkspaceId | None = None
    new_thread_id: WorkspaceId | None = None
    interrupting_message_id: WorkspaceId | None = None
    cause: Any = None


class RecordInterruptionResult(_Output):
    """The record's id; `duplicate` is true if the record existed before."""

    recorded: Literal[True]
    duplicate: bool
    record_id: str


class PreemptionCause(_Output):
    """The cause of PREEMPTED, as JSON text: a worker has stopped for another thread."""

    interrupt_id: str
    interrupting_message_id: str
    new_thread_id: str
    partial: Any


class HandleTimeoutInput(_Workspace):
    """Cleans up after a job that its worker did not end."""

    model_config = ConfigDict(
        json_schema_extra={
            **_ONE_WORKSPACE,
            "if": {"required": ["claimId"], "properties": {"claimId": {"type": "string"}}},
            "then": {"required": ["fence"], "properties": {"fence": {"type": "integer"}}},
        }
    )

    message_id: WorkspaceId
    kind: Literal["timeout", "heartbeat_lost", "forced"]
    thread_id: WorkspaceId | None = None
    claim_id: WorkspaceId | None = None
    fence: Fence | None = None
    error: Any = None
    cause: Any = None
    execution_arn: Any = None

    @model_validator(mode="after")
    def _claim_has_its_fence(self) -> Self:
        if self.claim_id is not None and self.fence is None:
            raise ValueError("fence is required with claimId")
        return self


class HandleTimeoutResult(_Output):
    """What was done, by this run or an earlier one.

    `superseded`: the workspace has a newer claim, which was not changed.
    """

    released: bool
    superseded: bool
    recorded: bool
    duplicate: bool
    record_id: str | None
    dlq_message_id: str | None


class Attachment(Input):
    """An object in S3 that belongs to a message."""

    bucket: str
    key: str


class RequestNamed(Input):
    """The request that an execution runs; its progress and its end are written to its row."""

    model_config = CAMEL

    owner: Annotated[str, Field(min_length=3, max_length=1024)]
    request_id: RequestId


class _OfRequest(Input):
    model_config = CAMEL

    request: RequestNamed


class BeginJobInput(_OfRequest):
    """The execution of a request has its claim, for at most so many seconds."""

    operation: Literal["begin"]
    claim_id: WorkspaceId
    fence: Fence
    seconds: TtlSeconds


class JobBegun(Open):
    """Whether the job may go on: the request has not been cancelled."""

    begun: bool


class ReportJobInput(_OfRequest):
    """A worker's report about its job: progress, or events after the first `after` ones."""

    operation: Literal["report"]
    claim_id: WorkspaceId
    fence: Fence
    percentage: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    message: str = ""
    events: Annotated[list[Any], Field(max_length=500)] = []
    after: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] | None = None


class JobReported(_Output):
    """Whether it was stored: not if the request has ended, or another worker has the job.

    `eventCount`: how many events the request has now.
    """

    accepted: bool
    cancel_requested: bool
    event_count: int


class SettleJobInput(Input):
    """Asks to end the request of an execution that has ended."""

    model_config = CAMEL

    operation: Literal["settle"]
    execution_arn: Annotated[str, Field(pattern="^arn:[!-~]{1,2044}$")]
    input: str | None = None


class JobSettled(Open):
    """Whether this call has ended a request."""

    ended: bool


class JobFlowInput(_Workspace):
    """One message for a workspace; start the execution with the name from `execution_name`.

    `instruction` may have at most 255 KB of JSON. `timeoutSeconds` is shortened to end before the
    claim of `claimTtlSeconds`, and `heartbeatSeconds` to less than `timeoutSeconds`.
    """

    thread_id: WorkspaceId
    message_id: WorkspaceId
    instruction: Any
    attachments: Annotated[list[Attachment], Field(max_length=500)] | None = None
    request: RequestNamed | None = None
    claim_ttl_seconds: Annotated[int, Field(ge=3, le=MAX_TTL_SECONDS), WHOLE] = 3600
    timeout_seconds: Annotated[int, Field(ge=2, le=99_999_999), WHOLE] = 86400
    heartbeat_seconds: Annotated[int, Field(ge=1, le=99_999_999), WHOLE] = 90
    max_claim_tries: Annotated[int, Field(ge=1, le=1000), WHOLE] = 30
    claim_wait_seconds: Annotated[int, Field(ge=0, le=MAX_TTL_SECONDS), WHOLE] = 5
    min_interval_seconds: Annotated[int, Field(ge=0, le=MAX_TTL_SECONDS), WHOLE] | None = None


class JobIds(_Output):
    """The ids of the message of an execution."""

    project_user_id: str
    thread_id: str
    message_id: str


class ResultObject(Open):
    """The object with a result of more than 255 KB; it is kept for thirty days."""

    bucket: str
    key: str


class JobCompleted(_Output):
    """The job ended with `result`, which is null if there is a `resultObject`."""

    outcome: Literal["Completed"]
    job: JobIds
    result: Any
    result_object: ResultObject | None = None


class JobJoined(Open):
    """The message was sent to the running job of its thread."""

    outcome: Literal["Joined"]
    job: JobIds
    holder: ClaimHolder


class JobCancelled(Open):
    """The request was cancelled before its job began."""

    outcome: Literal["Cancelled"]
    job: JobIds


class JobInterrupted(Open):
    """The job was interrupted by another thread; `cause` is a PreemptionCause as JSON text."""

    outcome: Literal["Interrupted"]
    job: JobIds
    cause: str


JobFlowResult = JobCompleted | JobJoined | JobCancelled | JobInterrupted
