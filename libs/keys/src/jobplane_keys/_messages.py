"""Messages of the server on a socket, as router and processor send them."""

from collections.abc import Mapping
from typing import Any

from jobplane_keys._clock import iso_time
from jobplane_keys._errors import RETRYABLE_CODES, ErrorCode


def server_message(kind: str, request_id: str | None, now: float, **content: Any) -> dict[str, Any]:
    """A message of this `type`, at `now` in epoch seconds; without an id if no request has one."""
    head: dict[str, Any] = {"type": kind}
    if request_id is not None:
        head["request_id"] = request_id
    return head | content | {"timestamp": iso_time(now)}


def end_message(row: Mapping[str, Any], now: float, result: Any = None) -> dict[str, Any]:
    """The last message of a request that has ended: `error` if its row has one, else `complete`."""
    content = {name: row[name] for name in ("seq", "error", "event_count") if name in row}
    if "error" not in row:
        content |= {"success": True, "result": result}
    kind = "error" if "error" in row else "complete"
    return server_message(kind, row["request_id"], now, **content)


def error_body(code: ErrorCode, message: str, **more: Any) -> dict[str, Any]:
    """The `error` of a message or of a request; `more` is, for example, `details`."""
    return {"code": code, "message": message, "retryable": code in RETRYABLE_CODES, **more}
