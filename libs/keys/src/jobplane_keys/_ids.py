"""Ids: of connections, requests (sortable by time), uploads and results."""

import os
import re
import uuid
from typing import Any

from jobplane_keys._json import json_object
from jobplane_keys._workspaces import ValidationError, checked_input

REQUEST_ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
_CONNECTION_ID = re.compile(r"[!-~]{1,128}")


def is_request_id(value: object) -> bool:
    """Whether the value is valid as a client's id of a request."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None


def connection_id_of(event: Any) -> str:
    """The connection id of a WebSocket event. Raises ValidationError without a valid one."""
    context = json_object(checked_input(event).get("requestContext"))
    connection_id = context.get("connectionId")
    if not isinstance(connection_id, str) or not _CONNECTION_ID.fullmatch(connection_id):
        raise ValidationError(
            "requestContext.connectionId", "1 to 128 printable characters of ASCII are required"
        )
    return connection_id


def new_request_id(now: float) -> str:
    """A UUID version 7 for the given epoch seconds: ids sort by the time of their creation."""
    milliseconds = int(now * 1000) & 0xFFFF_FFFF_FFFF
    bits = milliseconds << 80 | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=bits))


def new_upload_id() -> str:
    """`upload_<uuid>`, the id of one input file of an assembly."""
    return f"upload_{uuid.uuid4()}"


def new_result_id() -> str:
    """`result_<uuid>`, the id of one output file of an assembly."""
    return f"result_{uuid.uuid4()}"
