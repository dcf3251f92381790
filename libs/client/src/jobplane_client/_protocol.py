"""The socket protocol for a client: encodes requests, parses messages, maps errors."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from jobplane_client._errors import (
    BadPayloadError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from jobplane_keys import MAX_MESSAGE_BYTES, TERMINAL_STATUSES, ErrorCode, RequestStatus, iso_time
from jobplane_models.messages import (
    ClientMessage,
    CompleteMessage,
    ErrorBody,
    ErrorMessage,
    PongMessage,
    ProgressMessage,
    ResponseMessage,
    ServerMessage,
)

PING = '{"action":"ping"}'

_SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)

_REFUSALS: Mapping[ErrorCode, type[RefusedError]] = {
    ErrorCode.VALIDATION_ERROR: InvalidRequestError,
    ErrorCode.INVALID_ACTION: InvalidRequestError,
    ErrorCode.INVALID_MESSAGE: InvalidRequestError,
    ErrorCode.PAYLOAD_TOO_LARGE: InvalidRequestError,
    ErrorCode.UNAUTHORIZED: UnauthorizedError,
    ErrorCode.FORBIDDEN: ForbiddenError,
    ErrorCode.NOT_FOUND: NotFoundError,
    ErrorCode.DUPLICATE_REQUEST: ConflictError,
    ErrorCode.CALLBACK_USED: ConflictError,
    ErrorCode.CALLBACK_OVER: ConflictError,
    ErrorCode.RATE_LIMITED: RateLimitedError,
    ErrorCode.SERVICE_UNAVAILABLE: ServiceUnavailableError,
    ErrorCode.INTERNAL_ERROR: ServiceUnavailableError,
}
_JOB_ERRORS: Mapping[ErrorCode, type[JobError]] = {
    ErrorCode.CANCELLED: JobCancelledError,
    ErrorCode.TIMEOUT: JobTimeoutError,
}


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A message of a type that this version of the library does not know; `data` is its JSON."""

    type: str | None
    request_id: str | None
    data: Mapping[str, Any]


type Message = ServerMessage | UnknownMessage


class Reply(dict[str, Any]):
    """The data of the answer to a request; `request_id` is the id of the request."""

    def __init__(self, request_id: str, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.request_id = request_id


def is_gateway_error(message: Message) -> bool:
    """Whether API Gateway answered instead of the function; it does not name the message.

    It does so when the function fails, takes more than 29 seconds or is throttled:
    `{"message": "Internal server error", "connectionId": …, "requestId": …}`. That `requestId` is
    API Gateway's, not the id of a job.
    """
    return (
        isinstance(message, UnknownMessage)
        and message.type is None
        and message.request_id is None
        and isinstance(message.data.get("message"), str)
        and ("connectionId" in message.data or "requestId" in message.data)
    )


def instruct_payload(
    project: str, thread: str, instruction: Any, attachments: Sequence[str]
) -> dict[str, Any]:
    """The payload of the action `instruct`."""
    keys = [{"key": key} for key in attachments]
    return {
        "project": project,
        "thread": thread,
        "instruction": instruction,
        "attachments": keys,
    }


def is_end(message: Message) -> bool:
    """Whether a request ends with this message, even if its other fields are malformed."""
    if isinstance(message, UnknownMessage):
        return message.type in ("complete", "error", "response")
    return isinstance(message, CompleteMessage | ErrorMessage | ResponseMessage | PongMessage)


def is_unauthorized(message: Message) -> TypeGuard[ErrorMessage]:
    """Whether the service refused the token rather than the request."""
    return (
        isinstance(message, ErrorMessage)
        and message.seq is None
        and message.error.code is ErrorCode.UNAUTHORIZED
    )


def result_of(message: Message, action: str) -> dict[str, Any]:
    """The data of a request's last message. Raises RefusedError, JobError or BadPayloadError."""
    match message:
        case CompleteMessage(success=True):
            return message.result
        case ResponseMessage(success=True):
            return message.data
        case PongMessage():
            return {}
        case ErrorMessage():
            raise error_of(message)
        case CompleteMessage() | ResponseMessage():
            raise JobFailedError(
                f"{action} did not succeed",
                code=ErrorCode.PROCESSING_FAILED,
                request_id=message.request_id,
                details=message.model_dump().get("result"),
            )
    raise BadPayloadError(f"the answer to {action} does not have the documented fields")


def error_of(message: ErrorMessage) -> RefusedError | JobError:
    """The exception for an error message: a refusal, or the end of a job without a result."""
    error = message.error
    retry_after = error.retry_after_ms / 1000 if error.retry_after_ms else None
    refusal = None if message.seq is not None else _REFUSALS.get(error.code)
    if refusal is not None:
        details = error.details if isinstance(error.details, list) else []
        return refusal(
            error.message,
            code=error.code,
            retry_after=retry_after,
            request_id=message.request_id,
            fields=details,
        )
    return _JOB_ERRORS.get(error.code, JobFailedError)(
        error.message,
        code=error.code,
        request_id=message.request_id,
        details=error.details,
        retryable=error.retryable,
        retry_after=retry_after,
    )


def stored_messages(request_id: str, state: Mapping[str, Any], last_seq: int) -> Iterator[Message]:
    """The messages after `last_seq` that a client would have received for a request's state."""
    now = iso_time(time.time())
    status, progress = state.get("status"), state.get("progress")
    if not isinstance(status, str) or status not in TERMINAL_STATUSES:
        if isinstance(progress, Mapping):
            told = {"seq": state.get("seq"), "timestamp": progress.get("at") or now, **progress}
            with contextlib.suppress(ValidationError):
                yield ProgressMessage.model_validate({**told, "request_id": request_id})
        return
    stored_seq = state.get("seq")
    seq = max(stored_seq if isinstance(stored_seq, int) else 0, last_seq + 1)
    if status == RequestStatus.COMPLETED:
        stored = state.get("result")
        result = stored if isinstance(stored, dict) else {"result_omitted": True}
        yield CompleteMessage(request_id=request_id, timestamp=now, seq=seq, result=result)
    else:
        code = (
            ErrorCode.CANCELLED
            if status == RequestStatus.CANCELLED
            else ErrorCode.PROCESSING_FAILED
        )
        error = _error_body(state.get("error")) or ErrorBody.of(
            code, f"the request ended {str(status).lower()}"
        )
        yield ErrorMessage(request_id=request_id, timestamp=now, seq=seq, error=error)


def parse_message(raw: str | bytes) -> Message | None:
    """The message of a frame; None if it is not a JSON object."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    data.setdefault("timestamp", iso_time(time.time()))
    if data.get("type") == "error" and (body := _error_body(data.get("error"))) is not None:
        data["error"] = body
    try:
        return _SERVER_MESSAGE.validate_python(data)
    except ValidationError:
        kind, request_id = data.get("type"), data.get("request_id")
        return UnknownMessage(
            kind if isinstance(kind, str) else None,
            request_id if isinstance(request_id, str) else None,
            data,
        )


def _error_body(value: object) -> ErrorBody | None:
    """The error; an unknown code becomes INTERNAL_ERROR, with the original error in `details`."""
    if not isinstance(value, Mapping):
        return None
    try:
        return ErrorBody.model_validate(value)
    except ValidationError:
        return ErrorBody(
            code=ErrorCode.INTERNAL_ERROR,
            message=str(value.get("message") or "the request failed"),
            details=dict(value),
            retryable=value.get("retryable") is True,
        )


def encode_request(
    id: str, action: str, payload: Mapping[str, Any], metadata: Mapping[str, str]
) -> str:
    """The text of a request. Raises InvalidRequestError when it is malformed or too large."""
    try:
        message = ClientMessage(
            id=id, action=action, payload=dict(payload), metadata=dict(metadata)
        )
        frame = json.dumps(
            message.model_dump(exclude_defaults=True),
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )
        size = len(frame.encode())
    except ValidationError as error:
        faults = [
            {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]}
            for fault in error.errors()
        ]
        raise InvalidRequestError(
            "the message is malformed",
            code=ErrorCode.INVALID_MESSAGE,
            fields=faults,
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"the payload can't be written as JSON: {error}",
            code=ErrorCode.INVALID_MESSAGE,
            fields=[{"field": "payload", "message": "not JSON"}],
        ) from error
    if size > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(
            f"the message has {size} bytes; at most {MAX_MESSAGE_BYTES} are allowed",
            code=ErrorCode.PAYLOAD_TOO_LARGE,
            request_id=id,
            fields=[_largest_field(payload)],
        )
    return frame


def _largest_field(payload: Mapping[str, Any]) -> dict[str, str]:
    sizes = {name: len(json.dumps(value, ensure_ascii=False)) for name, value in payload.items()}
    name = max(sizes, key=lambda each: sizes[each], default="")
    return {
        "field": f"payload.{name}" if name else "payload",
        "message": f"{sizes.get(name, 0):,} characters of JSON; send less at a time, or put them"
        " into a file and send this with `assemble`",
    }
