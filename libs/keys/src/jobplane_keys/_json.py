"""Objects in JSON of unknown form."""

from typing import Any


def json_object(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def json_objects(value: Any) -> list[dict[str, Any]]:
    """The objects in the value if it is a list, else none."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
