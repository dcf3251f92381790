"""Which attributes an operator may add to a row."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

# DynamoDB's limits: levels below an attribute, digits.
_MAX_DEPTH = 31
_MAX_DIGITS = 38
_MAX_FIELDS = 100
_MAX_FIELDS_BYTES = 300 * 1024
PROTECTED_FIELDS = frozenset(
    {
        "date_prefix", "file_key", "status", "lock_id", "ttl", "updated_at", "previous_status",
        "last_changed_by", "last_changed_reason", "last_reset_time", "reset_count", "write_id",
    }
)  # fmt: skip
"""Keys of the table and its indexes, the record of an operator's change, and the id of a write."""


def field_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    """Why these can't be added to a row."""
    for name in sorted(PROTECTED_FIELDS & fields.keys()):
        yield f"{name!r} can't be set"
    if len(fields) > _MAX_FIELDS:
        yield f"more than {_MAX_FIELDS} fields"
    try:
        if len(json.dumps(fields, allow_nan=False).encode()) > _MAX_FIELDS_BYTES:
            yield "the fields are larger than 300 KB"
        yield from _value_problems("", fields, 0)
    except (ValueError, RecursionError) as error:
        yield f"the fields are not JSON that can be stored ({error})"


def _value_problems(path: str, value: Any, depth: int) -> Iterator[str]:
    """What DynamoDB would refuse in a JSON value."""
    if depth > _MAX_DEPTH:
        yield f"{path} is nested deeper than {_MAX_DEPTH} levels"
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if not 0 < len(name.encode()) <= 255:
                yield f"a name under {path or 'it'!r} is empty or longer than 255 bytes"
            yield from _value_problems(f"{path}.{name}".lstrip("."), part, depth + 1)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _value_problems(f"{path}[{index}]", part, depth + 1)
    elif isinstance(value, str):
        value.encode()
    elif not _is_dynamodb_number(value):
        yield f"{path} is outside of DynamoDB's range of numbers"


def _is_dynamodb_number(value: Any) -> bool:
    """Whether it is not a number, or one of at most 38 digits in range."""
    if isinstance(value, float):
        return value == 0 or 1e-130 <= abs(value) < 1e126
    if value is None or value == 0:
        return True
    return abs(value) < 10**126 and len(str(abs(value)).rstrip("0")) <= _MAX_DIGITS
