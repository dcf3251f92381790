"""Error codes and limits of the socket protocol."""

from enum import StrEnum

# API Gateway closes a socket at a message above 128 KB; the difference is for the envelope.
MAX_MESSAGE_BYTES = 96 * 1024
# Of a payload in an object: the largest list of 1,000 files has 1.5 MB.
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024


class ErrorCode(StrEnum):
    """`error.code` of a server message."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    INVALID_ACTION = "INVALID_ACTION"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    DUPLICATE_REQUEST = "DUPLICATE_REQUEST"
    CALLBACK_USED = "CALLBACK_USED"
    CALLBACK_OVER = "CALLBACK_OVER"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    PROCESSING_FAILED = "PROCESSING_FAILED"
    INTERRUPTED = "INTERRUPTED"
    TIMED_OUT = "TIMED_OUT"
    WORKSPACE_BUSY = "WORKSPACE_BUSY"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INTERNAL_ERROR = "INTERNAL_ERROR"


RETRYABLE_CODES = frozenset(
    {
        ErrorCode.TIMEOUT,
        ErrorCode.RATE_LIMITED,
        ErrorCode.WORKSPACE_BUSY,
        ErrorCode.SERVICE_UNAVAILABLE,
        ErrorCode.INTERNAL_ERROR,
    }
)
