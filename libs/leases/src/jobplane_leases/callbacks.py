"""Callbacks: tokens that an outside service or a person returns once, with the result of a step.

A token names its job and has a secret of 32 random bytes. The request's row has only the digest of
the secret, so that who reads rows can't return a token:

- `callback`: the one that is open: its `step`, its `digest`, until when it is good (`expires`, in
  epoch seconds), and whether it was `sent`;
- `callback_answer`: what was returned, as JSON text, until the step has it;
- `callbacks_past`: the newest that are not open any more: `digest`, and `used` if one was returned.
"""

import base64
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from jobplane_keys import ErrorCode, read_item, request_key, split_owner_key, split_request_key
from jobplane_leases._requests import RequestLease

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_ERROR_LENGTH",
    "MAX_TOKEN_LENGTH",
    "AnswerError",
    "TokenError",
    "TokenOverError",
    "TokenUnknownError",
    "TokenUsedError",
    "new_token",
    "past_callbacks",
    "return_callback",
]

MAX_TOKEN_LENGTH = 2048
MAX_ANSWER_BYTES = 8 * 1024
"""Of the JSON text. A row keeps room for it."""
MAX_ERROR_LENGTH = 1000
_SECRET_BYTES = 32
_MAX_PAST = 20


class AnswerError(ValueError):
    """What is returned with a token is not valid; `field` says where."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TokenError(Exception):
    """Nothing can be returned with the token; `code` is that of the refusal."""

    code = ErrorCode.CALLBACK_OVER


class TokenUnknownError(TokenError):
    """It is of no job, or of one that has expired."""

    code = ErrorCode.NOT_FOUND


class TokenUsedError(TokenError):
    """It was returned before."""

    code = ErrorCode.CALLBACK_USED


class TokenOverError(TokenError):
    """Its time is over, its job has ended, or a newer token was sent in its place."""


def new_token(owner: str, request_id: str) -> tuple[str, str]:
    """A token of a job, and its digest."""
    secret = os.urandom(_SECRET_BYTES)
    name = request_key(owner, request_id).encode()
    return f"{_encoded(name)}.{_encoded(secret)}", _digest(secret)


def past_callbacks(row: Mapping[str, Any], *, used: bool) -> list[dict[str, Any]]:
    """`callbacks_past` of a row whose callback is not open any more."""
    past = [*row.get("callbacks_past", ())]
    if callback := row.get("callback"):
        past.append({"digest": callback["digest"], "used": used})
    return past[-_MAX_PAST:]


def return_callback(
    dynamodb: Any, table: str, token: Any, answer: Mapping[str, Any], now: float
) -> RequestLease:
    """Give a job the answer that its callback waits for, and queue it; the job's request.

    Any caller that has the token may do so. `answer` has either `result`, a JSON value, or `error`,
    a text. Raises AnswerError, TokenUnknownError, TokenUsedError and TokenOverError.
    """
    text = _answer_text(answer)
    owner, request_id, digest = _read_token(token)
    request = RequestLease(dynamodb, table, owner, request_id)
    row = read_item(dynamodb, table, {"owner": owner, "request_id": request_id}) or {}
    done = False
    while not done:
        _require_open(row, digest, now)
        waits = row["status"] == "RETRYING" and "lease_owner" not in row
        done, row = request.answer_callback(digest, text, now, waits=waits)
    return request


def _require_open(row: Mapping[str, Any], digest: str, now: float) -> None:
    """Raise TokenError unless a callback with this digest waits for its answer."""
    callback = row.get("callback", {})
    used = {past["digest"]: past["used"] for past in row.get("callbacks_past", ())}
    if row.get("ttl", 0) <= now or digest not in {callback.get("digest"), *used}:
        raise TokenUnknownError("The token is unknown, or its job has expired")
    is_open = callback.get("digest") == digest and "lease_shard" in row
    if used.get(digest) or (is_open and "callback_answer" in row):
        raise TokenUsedError("The token was returned before")
    if not is_open or callback["expires"] <= now:
        raise TokenOverError("The job does not wait for this token any more")


def _answer_text(answer: Mapping[str, Any]) -> str:
    if len(answer.keys() & {"result", "error"}) != 1:
        raise AnswerError("result", "expected either 'result' or 'error'")
    (name,) = answer.keys() & {"result", "error"}
    if name == "error" and not isinstance(answer[name], str):
        raise AnswerError(name, "expected a text")
    if name == "error" and len(answer[name]) > MAX_ERROR_LENGTH:
        raise AnswerError(name, f"expected at most {MAX_ERROR_LENGTH} characters")
    try:
        text = json.dumps(
            {name: answer[name]}, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise AnswerError(name, "expected a JSON value") from error
    if size > MAX_ANSWER_BYTES:
        most = f"expected at most {MAX_ANSWER_BYTES} bytes of JSON"
        raise AnswerError(name, f"{most}; store it as a file, and return its name")
    return text


def _read_token(token: Any) -> tuple[str, str, str]:
    """The owner, the id and the digest of a token. Raises TokenUnknownError."""
    try:
        if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH:
            raise ValueError("its length")
        name, secret = (_decoded(part) for part in token.split("."))
        if len(secret) != _SECRET_BYTES:
            raise ValueError("its secret")
        owner, request_id = split_request_key(name.decode())
        split_owner_key(owner)
    except ValueError as error:
        raise TokenUnknownError("The token is malformed; return it as it was sent") from error
    return owner, request_id, _digest(secret)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _digest(secret: bytes) -> str:
    return _encoded(sha256(secret).digest())
