"""Messages of the queues: requests and webhooks that wait, a job worker's jobs and interrupts, dead
letters.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field

from jobplane_models._base import (
    CAMEL,
    WHOLE,
    AssemblyId,
    Input,
    IsoTime,
    Open,
    RequestId,
    WorkspaceId,
    WorkspaceKey,
)
from jobplane_models.workspaces import Fence, RequestNamed, TtlSeconds


class WebhookDelivery(Input):
    """An ended assembly whose webhook must be sent; `execution` differs when a job is run again."""

    assembly_id: AssemblyId
    execution: int | None = None
    template_id: str | None = None


class QueuedRequest(Input):
    """A request that a worker is to take; `owner` is `tenant#user`. Its state is in its row.

    `due`: it was SCHEDULED and has a lane, and must only be put into the stream again.
    """

    owner: Annotated[str, Field(pattern=r"^[^#]+#[^#]+$")]
    request_id: RequestId
    due: bool = False


class FoundAttachment(Input):
    """An attachment that exists; `size` in bytes."""

    bucket: str
    key: str
    size: int
    ok: Literal[True]


class MissingAttachment(Input):
    """An attachment that could not be read, and the name of the error."""

    bucket: str
    key: str
    ok: Literal[False]
    error: str


class ObjectPlace(Input):
    """An object in the stage's files bucket."""

    bucket: str
    key: str


class _WorkerMessage(Input):
    """An instruction that is too large for the message is in the JSON object
    `{"instruction": …}` at `instructionObject`; `instruction` is null then.
    """

    model_config = CAMEL

    project_user_id: WorkspaceKey
    thread_id: WorkspaceId
    message_id: WorkspaceId
    claim_id: WorkspaceId
    fence: Fence
    instruction: Any
    instruction_object: ObjectPlace | None = None


class JobMessage(_WorkerMessage):
    """A job for the workspace's worker, which sends heartbeats and the end with the task token.

    The claim ends at `expiresAt` (epoch seconds) unless the worker renews it. The worker stores a
    result of more than 255 KB at `resultLocation` and sends `{"resultObject": {"bucket", "key"}}`;
    its key is `resultKeyPrefix` and up to 64 characters that no other attempt has. With a
    `request`, the worker reports progress and events of the job to `reportFunction`.
    """

    type: Literal["JOB"]
    task_token: Annotated[str, Field(min_length=1)]
    container_id: WorkspaceId
    attachments: list[FoundAttachment | MissingAttachment]
    heartbeat_seconds: Annotated[int, Field(ge=1), WHOLE]
    claim_ttl_seconds: TtlSeconds
    expires_at: Annotated[int, Field(ge=0), WHOLE]
    result_location: ObjectPlace | None = None
    result_key_prefix: str | None = None
    request: RequestNamed | None = None
    report_function: str | None = None


class FollowUpAttachment(Input):
    """An attachment of a follow-up; the object may be missing."""

    bucket: str
    key: str


class FollowUpMessage(_WorkerMessage):
    """Another message of the thread whose job runs; claim and fence are those of that job."""

    type: Literal["FOLLOW_UP"]
    attachments: list[FollowUpAttachment]


WorkerMessage = Annotated[JobMessage | FollowUpMessage, Discriminator("type")]


class InterruptedClaim(Open):
    """The claim of an interrupt; jobs with another claim ignore it."""

    model_config = CAMEL

    project_user_id: str
    claim_id: str
    fence: int
    container_id: str | None
    thread_id: str | None


class InterruptMessage(Open):
    """Asks the worker of one claim to stop; ignored after `expiresAt` (epoch seconds)."""

    model_config = CAMEL

    type: Literal["INTERRUPT"]
    interrupt_id: str
    container_id: str | None
    target: InterruptedClaim
    new_thread_id: str
    interrupting_message_id: str
    timestamp: IsoTime
    reason: str
    expires_at: int


class DeadLetter(Open):
    """A job that its worker did not end, for an operator.

    Its id is the same when it is sent again. `repeated` is true if a letter with this id may
    already be in the queue.
    """

    model_config = CAMEL

    type: Literal["JOB_TIMEOUT"]
    dead_letter_id: str
    project_user_id: str
    message_id: str
    thread_id: str | None
    claim_id: str | None
    fence: int | None
    kind: Literal["timeout", "heartbeat_lost", "forced"]
    error: str | None
    cause: str | None
    execution_arn: str | None
    timestamp: IsoTime
    repeated: bool = False


class UnreadableRecord(Open):
    """A record of the requests' stream, or of the queue `jobs`, that could not be read, kept for
    an operator.

    Its text is cut at 250,000 characters, and then is not valid JSON.
    """

    error: str
    record: Any
