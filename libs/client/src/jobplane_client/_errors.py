"""Errors of the client library. Their tree is drawn at the top of the package."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobplane_models.assemblies import AssemblyDocument


class JobplaneError(Exception):
    """Base class of all errors of this library."""


class RefusedError(JobplaneError):
    """The service refused the request.

    `code` is the service's error code, `status_code` the HTTP status if there was one,
    `retry_after` in seconds, `request_id` the socket request that was refused. Its text names
    the `fields` that are at fault.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status_code: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        fields: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        untold = [fault for fault in fields if str(fault.get("message")) not in message]
        faults = "; ".join(f"{fault.get('field')}: {fault.get('message')}" for fault in untold)
        super().__init__(f"{message}: {faults}" if faults else message)
        self.code = code
        self.status_code = status_code
        self.retry_after = retry_after
        self.request_id = request_id
        self.fields = tuple(dict(field) for field in fields)


class InvalidRequestError(RefusedError):
    """The request is malformed; `fields` lists the faults as `{field, message}`."""


class UnauthorizedError(RefusedError):
    """The token is missing, or not accepted."""


class ForbiddenError(RefusedError):
    """The assembly or request belongs to another user, or a permission is missing."""


class NotFoundError(RefusedError):
    """There is no such assembly or request; an assembly may still appear."""


class ConflictError(RefusedError):
    """A webhook was requested for a running job, or the id belongs to another request."""


class RateLimitedError(RefusedError):
    """Too many calls; `retry_after` says how many seconds to wait, if the service said so."""


class ServiceUnavailableError(RefusedError):
    """The service failed, is throttled or can't be reached; the same call may succeed later."""


class JobError(JobplaneError):
    """The job ended without a result."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        request_id: str | None,
        details: Any = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.details = details
        self.retryable = retryable
        self.retry_after = retry_after


class JobFailedError(JobError):
    """The job failed."""


class JobCancelledError(JobError):
    """The job was cancelled."""


class JobTimeoutError(JobError):
    """The job did not end in its time."""


class JobInterrupted(BaseException):
    """The handler must stop; raised by `Job.check`.

    No error, so `except Exception` around a step of the work does not swallow it. `reason` is
    `interrupt`, `lost` or `stopping`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class WorkerError(JobplaneError):
    """A fault between a worker and its queues, its claim or its execution."""


class ResultTooLargeError(WorkerError):
    """A handler's result is more than Step Functions takes; `size` in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the result has {size:,} bytes of JSON; at most {limit:,} are possible")
        self.size = size
        self.limit = limit


class ResultNotStoredError(WorkerError):
    """A result that is too large for Step Functions could not be written to S3; `place`."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"the result could not be written to {place};"
            " the worker's role needs s3:PutObject there"
        )
        self.place = place


class ResultNotJsonError(WorkerError):
    """A handler's result can't be written as JSON."""


class MalformedMessageError(WorkerError):
    """A message of the input queue is not what the flow sends."""


class ClaimLostError(WorkerError):
    """The claim of a job is gone: `reason` is superseded, expired, released or absent."""

    def __init__(self, claim_id: str, fence: int, reason: str) -> None:
        super().__init__(f"claim {claim_id} with fence {fence} is gone: {reason}")
        self.claim_id = claim_id
        self.fence = fence
        self.reason = reason


class WorkerStoppedError(WorkerError):
    """The worker had to stop before the job was done."""


class QueueMissingError(WorkerError):
    """The workspace's queue does not exist, and `create_queues` is false; `queue_name`."""

    def __init__(self, queue_name: str) -> None:
        super().__init__(f"queue {queue_name} does not exist")
        self.queue_name = queue_name


class FunctionError(JobplaneError):
    """The function crashed or ran out of time; `error_type` is what Lambda calls it."""

    def __init__(self, message: str, *, error_type: str | None) -> None:
        super().__init__(f"{error_type}: {message}" if error_type else message)
        self.message = message
        self.error_type = error_type


class InvocationError(JobplaneError):
    """Lambda did not run the status function: no permission, no such function, no credentials."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class CallTimeoutError(JobplaneError):
    """No answer came in time."""


class WaitTimeoutError(JobplaneError):
    """The job did not end in time; `document` is its last known state, None if there is none."""

    def __init__(
        self, assembly_id: str, timeout: float, document: "AssemblyDocument | None"
    ) -> None:
        super().__init__(f"assembly {assembly_id} did not end within {timeout:g} s")
        self.assembly_id = assembly_id
        self.timeout = timeout
        self.document = document


class BadPayloadError(JobplaneError):
    """The answer is not JSON, or not of the documented shape."""


class ConnectionLostError(JobplaneError):
    """The socket is closed, or could not be reopened."""


class WebhookError(JobplaneError):
    """The notification must not be trusted."""


class MissingSignatureError(WebhookError):
    """A header that the signature needs is absent."""


class MalformedSignatureError(WebhookError):
    """A signature header can't be read."""


class SignatureMismatchError(WebhookError):
    """No signature was made with a known secret over this body."""


class TimestampError(WebhookError):
    """The signature is good, and its time too far from now; `age` in seconds."""

    def __init__(self, message: str, *, age: float) -> None:
        super().__init__(message)
        self.age = age


class StaleTimestampError(TimestampError):
    """The notification is too old, perhaps a replay."""


class FutureTimestampError(TimestampError):
    """The notification claims to be from the future."""


class WebhookBodyError(WebhookError):
    """The signature is valid, but the body is not a JSON object."""
