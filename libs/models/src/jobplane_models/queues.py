"""What lies in the queues: the webhook queue, a worker's input and interrupts, dead letters."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field

from jobplane_models._base import (
    CAMEL,
    WHOLE,
    AssemblyId,
    Input,
    IsoTime,
    Open,
    WorkspaceId,
    WorkspaceKey,
)
from jobplane_models.workspaces import Fence, TtlSeconds


class WebhookDelivery(Input):
    """An ended assembly whose webhook is due; `execution` tells a replay from the first run."""

    assembly_id: AssemblyId
    execution: int | None = None
    template_id: str | None = None


class FoundAttachment(Input):
    """An attachment that is there; `size` in bytes."""

    bucket: str
    key: str
    size: int
    ok: Literal[True]


class MissingAttachment(Input):
    """An attachment that could not be read, and the error's name."""

    bucket: str
    key: str
    ok: Literal[False]
    error: str


class ObjectPlace(Input):
    """An object in the stage's files bucket."""

    bucket: str
    key: str


class _WorkerMessage(Input):
    """`instructionObject` names the JSON object `{"instruction": …}` that holds an instruction
    which is too large for the message; `instruction` is null then.
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
    """A job for the workspace's worker, which heartbeats and ends it by the task token.

    `expiresAt` (epoch seconds) is when the claim ends unless the worker renews it. A result of more
    than 255 KB is put at `resultLocation`, and sent as `{"resultObject": {"bucket", "key"}}`.
    """

    type: Literal["JOB"]
    task_token: Annotated[str, Field(min_length=1)]
    container_id: WorkspaceId
    attachments: list[FoundAttachment | MissingAttachment]
    heartbeat_seconds: Annotated[int, Field(ge=1), WHOLE]
    claim_ttl_seconds: TtlSeconds
    expires_at: Annotated[int, Field(ge=0), WHOLE]
    result_location: ObjectPlace | None = None


class FollowUpAttachment(Input):
    """An object that a follow-up names; it may not exist."""

    bucket: str
    key: str


class FollowUpMessage(_WorkerMessage):
    """A further message for the thread whose job runs; claim and fence are that job's."""

    type: Literal["FOLLOW_UP"]
    attachments: list[FollowUpAttachment]


WorkerMessage = Annotated[JobMessage | FollowUpMessage, Discriminator("type")]


class InterruptedClaim(Open):
    """The claim that an interrupt is for; no other job obeys it."""

    model_config = CAMEL

    project_user_id: str
    claim_id: str
    fence: int
    container_id: str | None
    thread_id: str | None


class InterruptMessage(Open):
    """Asks the worker of one claim to stop. `expiresAt` (epoch seconds): then it is moot."""

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
    """A job that did not end by itself, for an operator. Its id is the same for every sending.

    `repeated`: a letter of this id may be in the queue already.
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
    """A record of the requests' stream that could not be read, kept for an operator.

    The text is cut at 250,000 characters; then it is not valid JSON.
    """

    error: str
    record: Any
