"""The answer of each socket action: the `data` of a response, the `result` of a job."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jobplane_keys import RequestStatus
from jobplane_models._base import AssemblyId, Bytes, IsoTime, Open
from jobplane_models.messages import ErrorBody


class Echo(Open):
    """The payload of the request, unchanged."""

    echo: dict[str, Any]
    action: Literal["echo"]
    received_at: IsoTime


class HealthCheck(Open):
    """The check of one part of the service, and its duration."""

    status: Literal["healthy"]
    latency_ms: float


class Health(Open):
    """The checks by name: `requests_table`, or `queue` when the action was queued."""

    status: Literal["healthy"]
    version: str
    checks: dict[str, HealthCheck]


class PresignedUpload(Open):
    """The URL for one file: PUT exactly the file of the request, with these headers."""

    key: str
    name: str
    size: Bytes
    mime: str
    md5hash: str
    method: Literal["PUT"]
    url: str
    headers: dict[str, str]


class CreatedUpload(Open):
    """The uploads of one assembly; `completed` is true if the assembly is already completed.

    If the message would be larger than 128 KB, `url` leads to an object with the list instead.
    """

    assembly_id: AssemblyId
    completed: bool
    expires_at: IsoTime
    uploads: list[PresignedUpload] = []
    url: str | None = None


class StoredProgress(Open):
    """The last progress of a request."""

    seq: int
    percentage: Annotated[float, Field(ge=0, le=100)]
    message: str
    at: IsoTime


class WhyWaiting(Open):
    """Why a job does not run, since when, and until when if that is known.

    `queued`: a worker will take it. `lane_full`: as many jobs of its tenant or its action run as
    may. `retrying`: an attempt has failed, and another one follows. `scheduled`: it is not due.
    `rate`: as many jobs of its action have started in the last minute as may. `callback`: it waits
    for an answer from outside.
    """

    reason: Literal["queued", "lane_full", "retrying", "scheduled", "rate", "callback"]
    since: IsoTime
    until: IsoTime | None = None


class EventPage(Open):
    """Events of a job, the first of which has the number `first`; it has emitted `count`.

    `more`: ask again, since the last one. `gap`: events before `first` are no longer kept.
    """

    first: int
    events: list[Any]
    count: int
    more: bool
    gap: bool


class RequestState(Open):
    """The stored state of a request; `seq` is that of its last message.

    `replay_of` is the job that this one repeats. `result_omitted` is true if the result is too
    large for a socket message.
    """

    request_id: str
    action: str
    status: RequestStatus
    attempts: int
    assembly_id: AssemblyId | None = None
    cancel_requested: bool
    created_at: IsoTime
    run_at: IsoTime | None = None
    started_at: IsoTime | None = None
    updated_at: IsoTime
    ended_at: IsoTime | None = None
    replay_of: str | None = None
    event_count: int | None = None
    seq: int
    progress: StoredProgress | None
    why_waiting: WhyWaiting | None = None
    error: ErrorBody | None = None
    result: Any = None
    result_omitted: bool | None = None
    events: EventPage | None = None


class Subscribed(RequestState):
    """The current state of the request; `subscribed` is false if it has ended."""

    subscribed: bool


class Unsubscribed(Open):
    """The subscription has ended; also the answer if it did not exist."""

    request_id: str
    was_subscribed: bool


class Cancelled(Open):
    """`cancelling`: the job runs, and was asked to stop. Else how the request has ended."""

    request_id: str
    status: Literal["cancelled", "cancelling", "completed", "failed"]


class Authenticated(Open):
    """The connection lasts until its token expires, and two hours after its handshake at most."""

    expires_at: IsoTime


class CallbackReturned(Open):
    """The job has the answer, and is queued."""

    returned: Literal[True]


class DelayResult(Open):
    """The result of a `delay` without `fail_at`."""

    seconds: float
    steps: int


class Instructed(Open):
    """How an instruction ended well. `Completed`: with the `result` of its worker, any JSON value,
    or a link to it, if it is large. `Joined`: it was sent to the running job of its thread, whose
    id is `request_id`.
    """

    outcome: Literal["Completed", "Joined"]
    result: Any = None
    result_url: str | None = None
    request_id: str | None = None


class CountResult(Open):
    """The result of a `count`."""

    to: int


class Report(Open):
    """A link to a report; `size` in bytes."""

    format: Literal["csv", "json"]
    rows: int
    size: Bytes
    sha256: str
    url: str


class LinkedResult(Open):
    """A link to a result that is too large for a socket message."""

    url: str
