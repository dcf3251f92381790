"""What each socket action answers: the `data` of a response, the `result` of a job."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jobplane_keys import RequestStatus
from jobplane_models._base import AssemblyId, Bytes, IsoTime, Open
from jobplane_models.messages import ErrorBody


class Echo(Open):
    """The payload as it came."""

    echo: dict[str, Any]
    action: Literal["echo"]
    received_at: IsoTime


class HealthCheck(Open):
    """One part of the service that was tried, and how long that took."""

    status: Literal["healthy"]
    latency_ms: float


class Health(Open):
    """What was tried, by name: `requests_table`, or `queue` when the action was queued."""

    status: Literal["healthy"]
    version: str
    checks: dict[str, HealthCheck]


class PresignedUpload(Open):
    """Where one file goes: a PUT of exactly the announced bytes, with these headers."""

    key: str
    name: str
    size: Bytes
    mime: str
    md5hash: str
    method: Literal["PUT"]
    url: str
    headers: dict[str, str]


class CreatedUpload(Open):
    """The uploads of one assembly; `completed`: the same job has already ended well."""

    assembly_id: AssemblyId
    completed: bool
    expires_at: IsoTime
    uploads: list[PresignedUpload]


class StoredProgress(Open):
    """The last progress of a request."""

    seq: int
    percentage: Annotated[float, Field(ge=0, le=100)]
    message: str
    at: IsoTime


class RequestState(Open):
    """A request as it is stored; `seq` is that of its last message.

    `result_omitted`: the result is too large for a socket message.
    """

    request_id: str
    action: str
    status: RequestStatus
    attempts: int
    assembly_id: AssemblyId | None = None
    cancel_requested: bool
    created_at: IsoTime
    started_at: IsoTime | None = None
    updated_at: IsoTime
    ended_at: IsoTime | None = None
    seq: int
    progress: StoredProgress | None
    error: ErrorBody | None = None
    result: Any = None
    result_omitted: bool | None = None


class Subscribed(RequestState):
    """The state now; `subscribed` is false for a request that has ended."""

    subscribed: bool


class Unsubscribed(Open):
    """Ending a subscription that is not there is success."""

    request_id: str
    was_subscribed: bool


class Cancelled(Open):
    """`cancelling`: its worker was asked. Otherwise how the request ended."""

    request_id: str
    status: Literal["cancelled", "cancelling", "completed", "failed"]


class DelayResult(Open):
    """What a `delay` that was not asked to fail ends with."""

    seconds: float
    steps: int


class Report(Open):
    """A finished report behind a link; `size` in bytes."""

    format: Literal["csv", "json"]
    rows: int
    size: Bytes
    sha256: str
    url: str


class LinkedResult(Open):
    """In place of a result that no socket message could carry: a link to it."""

    url: str
