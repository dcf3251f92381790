"""The messages of the socket protocol, from and to a client."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator

from jobplane_keys import RETRYABLE_CODES, ErrorCode
from jobplane_models._base import ALWAYS, IsoTime, Open, RequestId, Strict


class ClientMessage(Strict):
    """A request. One `id` of a client makes one job; without it the service generates an id.

    `metadata` is a map of strings: `{"mode": "async"}` queues an action that is otherwise answered
    at once, `{"on_disconnect": "cancel"}` cancels the job when its connection closes, and
    `{"priority": "high"}` or `"low"` changes its place among the jobs that wait for a slot.
    """

    model_config = ConfigDict(extra="ignore")

    id: RequestId | None = None
    action: str
    payload: dict[str, Any] = {}
    metadata: dict[str, str] = {}


class ErrorBody(Open):
    """An error; `details` lists invalid fields as `{field, message}`."""

    code: ErrorCode
    message: str
    details: list[dict[str, Any]] | dict[str, Any] | None = None
    retryable: Annotated[bool, ALWAYS] = False
    retry_after_ms: int | None = None

    @classmethod
    def of(cls, code: ErrorCode, message: str, **extra: Any) -> "ErrorBody":
        """The error with `retryable` set by its code."""
        return cls(code=code, message=message, retryable=code in RETRYABLE_CODES, **extra)


class _ServerMessage(Open):
    request_id: str | None = None
    timestamp: IsoTime


class ResponseMessage(_ServerMessage):
    """The answer of a short action."""

    type: Literal["response"] = "response"
    success: Annotated[bool, ALWAYS] = True
    data: dict[str, Any]


class AcknowledgmentMessage(_ServerMessage):
    """The request was stored as a job; `complete` or `error` follows.

    `execution` is that of the assembly's document, which is there.
    """

    type: Literal["acknowledgment"] = "acknowledgment"
    status: str
    message: str
    assembly_id: str | None = None
    execution: int | None = None


class ProgressMessage(_ServerMessage):
    """The progress of a job; `seq` grows with each message of the job, `percentage` never falls."""

    type: Literal["progress"] = "progress"
    seq: int
    percentage: float
    message: str
    metadata: dict[str, Any] | None = None


class EventMessage(_ServerMessage):
    """Events that a job has emitted, in order; the first one has the number `first`.

    A job's events are numbered from 1 without gaps. A client that misses one subscribes with
    `since_event`. `gap`: events before these are no longer kept.
    """

    type: Literal["event"] = "event"
    first: int
    events: list[Any]
    gap: Annotated[bool, ALWAYS] = False


class CompleteMessage(_ServerMessage):
    """The end of a job that succeeded."""

    type: Literal["complete"] = "complete"
    seq: int
    success: Annotated[bool, ALWAYS] = True
    result: dict[str, Any]
    event_count: int | None = None


class ErrorMessage(_ServerMessage):
    """With `seq`: the end of a job that did not succeed. Without: the message was refused."""

    type: Literal["error"] = "error"
    seq: int | None = None
    error: ErrorBody
    event_count: int | None = None


class PongMessage(_ServerMessage):
    """The answer to `ping`."""

    type: Literal["pong"] = "pong"


class PingMessage(_ServerMessage):
    """A message from the server that checks the connection; needs no answer."""

    type: Literal["ping"] = "ping"


ServerMessage = Annotated[
    ResponseMessage
    | AcknowledgmentMessage
    | ProgressMessage
    | EventMessage
    | CompleteMessage
    | ErrorMessage
    | PongMessage
    | PingMessage,
    Discriminator("type"),
]
