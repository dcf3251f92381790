"""Refusals and answers of functions behind API Gateway's HTTP APIs."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobplane_keys._errors import ErrorCode

LISTED_PROBLEMS = 5

RETRY_NOT_FOUND = "2"
"""Seconds after which a job or an assembly that does not exist yet may exist."""

STATUS_OF_CODE = {
    ErrorCode.VALIDATION_ERROR: 400,
    ErrorCode.INVALID_ACTION: 400,
    ErrorCode.INVALID_MESSAGE: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.DUPLICATE_REQUEST: 409,
    ErrorCode.CALLBACK_USED: 409,
    ErrorCode.CALLBACK_OVER: 410,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.SERVICE_UNAVAILABLE: 503,
}
"""The HTTP status of each code with which a request is refused."""

type HttpAnswer = dict[str, Any]


class RefusedRequestError(Exception):
    """Base class of refusals: the request is answered with this status, body and headers."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(body["error"])
        self.status = status
        self.body = body
        self.headers = headers or {}

    def answer(self) -> HttpAnswer:
        """The answer for API Gateway."""
        return http_answer(self.status, self.body, self.headers)


class InvalidRequestError(RefusedRequestError):
    """400: each problem is a field and what it must be; the text has the first five."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        listed = [{"field": field, "message": f"{field} {text}"} for field, text in problems]
        summary = "; ".join(problem["message"] for problem in listed[:LISTED_PROBLEMS])
        super().__init__(400, {"error": summary, "problems": listed})


class UnauthorizedError(RefusedRequestError):
    """401: the caller is unknown. The text is the same for every cause; `reason` is for the log."""

    def __init__(self, reason: str) -> None:
        headers = {"WWW-Authenticate": 'Bearer realm="jobplane"'}
        super().__init__(401, {"error": "Authentication required"}, headers)
        self.reason = reason


def http_answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    """An answer for API Gateway with JSON text; not cached, unless `headers` allow it."""
    fixed = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    text = "" if body is None else json_text(body)
    return {"statusCode": status, "headers": fixed | dict(headers or {}), "body": text}


def message_answer(message: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of the HTTP answer that says what a socket's message says.

    An `error` has the same code and text; with Retry-After if it is worth another try.
    """
    named = {"request_id": message["request_id"]} if "request_id" in message else {}
    match message["type"]:
        case "error":
            fault = dict(message["error"])
            headers = {}
            if "retry_after_ms" in fault:
                headers = {"Retry-After": str(-(-fault["retry_after_ms"] // 1000))}
            elif fault["code"] == ErrorCode.NOT_FOUND:
                headers = {"Retry-After": RETRY_NOT_FOUND}
            return STATUS_OF_CODE[fault["code"]], {"error": fault.pop("message"), **fault}, headers
        case "acknowledgment":
            names = ("status", "message", "assembly_id", "execution")
            return 202, named | {name: message[name] for name in names if name in message}, {}
        case "response":
            return 200, named | {"status": "completed", "result": message["data"]}, {}
    return 200, named | {"status": "completed", "result": {}}, {}


def entity_tag(content: Any) -> str:
    """A weak entity tag of an answer with this content."""
    text = json.dumps(content, sort_keys=True)
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def matches_tag(if_none_match: str | None, tag: str) -> bool:
    """Whether a header If-None-Match contains the tag."""
    candidates = [part.strip() for part in (if_none_match or "").split(",")]
    return "*" in candidates or tag.removeprefix("W/") in [
        candidate.removeprefix("W/") for candidate in candidates
    ]


def json_text(content: Any) -> str:
    """JSON text without spaces."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def body_text(event: Mapping[str, Any]) -> str | None:
    """The text of a request's body, if it has one. Raises ValueError if it is not text."""
    body = event.get("body")
    if isinstance(body, str) and event.get("isBase64Encoded"):
        return base64.b64decode(body, validate=True).decode()
    return body if isinstance(body, str) else None


def json_body(event: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of a request's body. Raises InvalidRequestError."""
    try:
        body = body_text(event)
        content = json.loads(body) if body is not None else None
    except (ValueError, RecursionError):
        raise InvalidRequestError(("body", "must be JSON")) from None
    if not isinstance(content, dict):
        raise InvalidRequestError(("body", "must be a JSON object"))
    return content
