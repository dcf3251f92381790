"""Refusals and answers of functions behind API Gateway's HTTP APIs."""

import base64
import json
from collections.abc import Mapping
from typing import Any

LISTED_PROBLEMS = 5

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


def json_text(content: Any) -> str:
    """JSON text without spaces."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def json_body(event: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of a request's body. Raises InvalidRequestError."""
    body = event.get("body")
    try:
        if isinstance(body, str) and event.get("isBase64Encoded"):
            body = base64.b64decode(body, validate=True).decode()
        content = json.loads(body) if isinstance(body, str) else None
    except (ValueError, RecursionError):
        raise InvalidRequestError(("body", "must be JSON")) from None
    if not isinstance(content, dict):
        raise InvalidRequestError(("body", "must be a JSON object"))
    return content
