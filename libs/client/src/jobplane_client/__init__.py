"""Clients for Jobplane: status look-ups, sockets, webhook verification, workers.

StatusClient, AsyncStatusClient              look-ups by Lambda invoke (needs the extra `aws`)
HttpStatusClient, AsyncHttpStatusClient      look-ups over HTTP, as the user of a token
JobSocket                                    sends jobs, receives their progress and results
HttpJobs, AsyncHttpJobs                      sends, reads and lists jobs over HTTP
assemble, AssembleOptions                    files to the document of their assembly
Reply                                        the answer to a request, and the request's id
verify_webhook                               the document of a notification, if it is authentic
progress_message                             the state of a job in one line
mint_token                                   a token for tests (extra `tokens`)
JobWorker                                    runs a workspace's jobs in a container (extra `aws`)
Job, Cancellation, FollowUp, Interrupt       what a worker's handler receives
JobEnd, StopReason                           how a job ended, why it must stop
JobInterrupted                               raised by `Job.check`; not caught by `except Exception`

Importing the package loads only the errors; each other name loads its module at first use.

JobplaneError
├── RefusedError                    the service refused the request
│   ├── InvalidRequestError         400; `fields`
│   ├── UnauthorizedError           401
│   ├── ForbiddenError              403
│   ├── NotFoundError               404
│   ├── ConflictError               409
│   ├── RateLimitedError            429; `retry_after`
│   └── ServiceUnavailableError     5xx, a throttle, or no connection; `retry_after`
├── JobError                        the job ended without a result
│   ├── JobFailedError
│   ├── JobCancelledError
│   └── JobTimeoutError
├── WorkerError                     a worker has failed at its queues, claim or execution
│   ├── ResultTooLargeError         `size`
│   ├── ResultNotStoredError        `place`
│   ├── ResultNotJsonError
│   ├── MalformedMessageError
│   ├── ClaimLostError              `reason`
│   └── QueueMissingError           `queue_name`
├── FunctionError                   the function crashed or timed out; `error_type`
├── InvocationError                 the function could not be invoked; `code`
├── CallTimeoutError                the service did not answer in time
├── WaitTimeoutError                the job took longer than the timeout of `wait`; `document`
├── BadPayloadError                 the answer does not have the documented fields
├── ConnectionLostError             the socket was closed, or could not be opened again
├── UploadError                     a file could not be uploaded; `file`, `reason`
│   ├── UnreadableFileError
│   ├── ChangedFileError
│   ├── UploadRefusedError
│   └── UploadFailedError
└── WebhookError                    the notification must not be trusted
    ├── MissingSignatureError
    ├── MalformedSignatureError
    ├── SignatureMismatchError
    ├── TimestampError              `age`
    │   ├── StaleTimestampError
    │   └── FutureTimestampError
    └── WebhookBodyError
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobplane_client._errors import (
    BadPayloadError,
    CallTimeoutError,
    ChangedFileError,
    ClaimLostError,
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    FunctionError,
    FutureTimestampError,
    InvalidRequestError,
    InvocationError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobInterrupted,
    JobplaneError,
    JobTimeoutError,
    MalformedMessageError,
    MalformedSignatureError,
    MissingSignatureError,
    NotFoundError,
    QueueMissingError,
    RateLimitedError,
    RefusedError,
    ResultNotJsonError,
    ResultNotStoredError,
    ResultTooLargeError,
    ServiceUnavailableError,
    SignatureMismatchError,
    StaleTimestampError,
    TimestampError,
    UnauthorizedError,
    UnreadableFileError,
    UploadError,
    UploadFailedError,
    UploadRefusedError,
    WaitTimeoutError,
    WebhookBodyError,
    WebhookError,
    WorkerError,
)

if TYPE_CHECKING:
    from jobplane_client._answers import NotifiedStatus, WebhookDelivery
    from jobplane_client._assembling import AssembleOptions, assemble
    from jobplane_client._http import AsyncHttpStatusClient, HttpStatusClient
    from jobplane_client._http_jobs import AsyncHttpJobs, HttpJobs
    from jobplane_client._jobs import (
        Cancellation,
        FollowUp,
        Interrupt,
        Job,
        JobEnd,
        StopReason,
    )
    from jobplane_client._lambda import AsyncStatusClient, StatusClient
    from jobplane_client._progress import progress_message
    from jobplane_client._protocol import Reply, UnknownMessage
    from jobplane_client._socket import JobSocket
    from jobplane_client._tokens import mint_token
    from jobplane_client._webhooks import verify_webhook
    from jobplane_client._worker import JobWorker

_MODULES = {
    "AssembleOptions": "_assembling",
    "AsyncHttpJobs": "_http_jobs",
    "AsyncHttpStatusClient": "_http",
    "AsyncStatusClient": "_lambda",
    "Cancellation": "_jobs",
    "FollowUp": "_jobs",
    "HttpJobs": "_http_jobs",
    "HttpStatusClient": "_http",
    "Interrupt": "_jobs",
    "Job": "_jobs",
    "JobEnd": "_jobs",
    "JobSocket": "_socket",
    "JobWorker": "_worker",
    "NotifiedStatus": "_answers",
    "Reply": "_protocol",
    "StatusClient": "_lambda",
    "StopReason": "_jobs",
    "UnknownMessage": "_protocol",
    "WebhookDelivery": "_answers",
    "assemble": "_assembling",
    "mint_token": "_tokens",
    "progress_message": "_progress",
    "verify_webhook": "_webhooks",
}

__all__ = [
    "AssembleOptions",
    "AsyncHttpJobs",
    "AsyncHttpStatusClient",
    "AsyncStatusClient",
    "BadPayloadError",
    "CallTimeoutError",
    "ChangedFileError",
    "Cancellation",
    "ClaimLostError",
    "ConflictError",
    "ConnectionLostError",
    "FollowUp",
    "ForbiddenError",
    "FunctionError",
    "FutureTimestampError",
    "HttpJobs",
    "HttpStatusClient",
    "Interrupt",
    "InvalidRequestError",
    "InvocationError",
    "Job",
    "JobCancelledError",
    "JobEnd",
    "JobError",
    "JobFailedError",
    "JobInterrupted",
    "JobSocket",
    "JobTimeoutError",
    "JobWorker",
    "JobplaneError",
    "MalformedMessageError",
    "MalformedSignatureError",
    "MissingSignatureError",
    "NotFoundError",
    "NotifiedStatus",
    "QueueMissingError",
    "RateLimitedError",
    "RefusedError",
    "Reply",
    "ResultNotJsonError",
    "ResultNotStoredError",
    "ResultTooLargeError",
    "ServiceUnavailableError",
    "SignatureMismatchError",
    "StaleTimestampError",
    "StatusClient",
    "StopReason",
    "TimestampError",
    "UnauthorizedError",
    "UnknownMessage",
    "UnreadableFileError",
    "UploadError",
    "UploadFailedError",
    "UploadRefusedError",
    "WaitTimeoutError",
    "WebhookBodyError",
    "WebhookDelivery",
    "WebhookError",
    "WorkerError",
    "assemble",
    "mint_token",
    "progress_message",
    "verify_webhook",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
