"""Ids: of requests (sortable by time), uploads and results."""

import os
import re
import uuid

REQUEST_ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)


def is_request_id(value: object) -> bool:
    """Whether a client may use the value as the id of its request."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None


def new_request_id(now: float) -> str:
    """A UUID version 7 for the given epoch seconds: ids sort by the time they were made."""
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
