"""Errors of the client library. The package's docstring shows them as a tree."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobplane_models.assemblies import AssemblyDocument


class JobplaneError(Exception):
    """Base class of all errors of this library."""


class RefusedError(JobplaneError):
    """The service refused the request.

    `code` is the service's error code, `status_code` the HTTP status or None, `retry_after` the
    seconds to wait or None, `request_id` the refused request of a socket or None. `fields` lists
    the invalid fields; the error's text names them too.
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
        unnamed = [fault for fault in fields if str(fault.get("message")) not in message]
        faults = "; ".join(f"{fault.get('field')}: {fault.get('message')}" for fault in unnamed)
        super().__init__(f"{message}: {faults}" if faults else message)
        self.code = code
        self.status_code = status_code
        self.retry_after = retry_after
        self.request_id = request_id
        self.fields = tuple(dict(field) for field in fields)


class InvalidRequestError(RefusedError):
    """The request is malformed; `fields` lists the invalid fields as `{field, message}`."""


class UnauthorizedError(RefusedError):
    """The token is missing, expired or invalid."""


class ForbiddenError(RefusedError):
    """The assembly or request belongs to another user, or a permission is missing."""


class NotFoundError(RefusedError):
    """The assembly or request does not exist, or an assembly does not exist yet."""


class ConflictError(RefusedError):
    """A webhook was requested for a running job, the id belongs to another request, or the job does
    not wait for the callback.
    """


class RateLimitedError(RefusedError):
    """Too many calls; `retry_after` is the seconds to wait, None if the service gave no time."""


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
    """The job took longer than its timeout."""


class JobInterrupted(BaseException):
    """The handler must stop; raised by `Job.check`.

    It derives from BaseException, so that `except Exception` in the handler does not catch it.
    `reason` is `interrupt`, `lost` or `stopping`; `detail` explains it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class WorkerError(JobplaneError):
    """A worker has failed at its queues, its claim or its execution."""


class ResultTooLargeError(WorkerError):
    """A handler's result is too large for Step Functions; `size` and `limit` in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the result has {size:,} bytes of JSON; at most {limit:,} are allowed")
        self.size = size
        self.limit = limit


class ResultNotStoredError(WorkerError):
    """A large result could not be written to S3; `place` is its `s3://` address."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"the result could not be written to {place};"
            " check that the worker's role allows s3:PutObject for it"
        )
        self.place = place


class ResultNotJsonError(WorkerError):
    """A handler's result can't be written as JSON."""


class MalformedMessageError(WorkerError):
    """A message of the input queue does not have the fields that the job flow sends."""


class ClaimLostError(WorkerError):
    """The worker has lost a job's claim: `reason` is superseded, expired, released,
    absent or taken (by another worker).
    """

    def __init__(self, claim_id: str, fence: int, reason: str) -> None:
        super().__init__(f"claim {claim_id} with fence {fence} is lost: {reason}")
        self.claim_id = claim_id
        self.fence = fence
        self.reason = reason


class QueueMissingError(WorkerError):
    """The workspace's queue does not exist, and `create_queues` is false; `queue_name`."""

    def __init__(self, queue_name: str) -> None:
        super().__init__(f"queue {queue_name} does not exist; create it, or set create_queues=True")
        self.queue_name = queue_name


class FunctionError(JobplaneError):
    """The function crashed or timed out; `error_type` is Lambda's name of the error."""

    def __init__(self, message: str, *, error_type: str | None) -> None:
        super().__init__(f"{error_type}: {message}" if error_type else message)
        self.message = message
        self.error_type = error_type


class InvocationError(JobplaneError):
    """The function could not be invoked: it is missing, not permitted, or there are no credentials.

    `code` is AWS's error code, None if the call failed before AWS answered.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class CallTimeoutError(JobplaneError):
    """The service did not answer in time."""


class WaitTimeoutError(JobplaneError):
    """The job did not end in time; `document` is that of its assembly, None if it was not read."""

    def __init__(
        self,
        assembly_id: str,
        timeout: float,
        document: "AssemblyDocument | None",
        *,
        what: str = "assembly",
    ) -> None:
        super().__init__(f"{what} {assembly_id} did not end within {timeout:g} s")
        self.assembly_id = assembly_id
        self.timeout = timeout
        self.document = document


class BadPayloadError(JobplaneError):
    """The answer is not JSON, or does not have the documented fields."""


class ConnectionLostError(JobplaneError):
    """The socket was closed, or the connection could not be opened again."""


class UploadError(JobplaneError):
    """A file could not be uploaded; `file` is its name, `reason` the text without it."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class UnreadableFileError(UploadError):
    """The file is missing, or can't be read."""


class ChangedFileError(UploadError):
    """The file was written during its upload."""

    def __init__(self, file: str) -> None:
        super().__init__(file, "the file has changed during its upload; upload it again")


class UploadRefusedError(UploadError):
    """The service or S3 refuses the file, such as one that is too large."""


class UploadFailedError(UploadError):
    """The file could not be sent in several attempts; with `resume`, a later call goes on."""


class WebhookError(JobplaneError):
    """The notification must not be trusted."""


class MissingSignatureError(WebhookError):
    """A header that is needed to verify the signature is missing."""


class MalformedSignatureError(WebhookError):
    """A header of the signature is malformed."""


class SignatureMismatchError(WebhookError):
    """No signature matches the body and one of the secrets."""


class TimestampError(WebhookError):
    """The signature is valid, but its time is too far from now; `age` in seconds."""

    def __init__(self, message: str, *, age: float) -> None:
        super().__init__(message)
        self.age = age


class StaleTimestampError(TimestampError):
    """The notification is too old; it may be a replay."""


class FutureTimestampError(TimestampError):
    """The notification's time is in the future."""


class WebhookBodyError(WebhookError):
    """The signature is valid, but the body is not a JSON object."""
