"""JSON of unknown form."""

import json
import math
from typing import Any


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text that an answer can contain. Raises ValueError.

    Half a surrogate pair and very deep nesting are valid JSON that it can't contain.
    """
    try:
        found = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        json.dumps([[[[found]]]], ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("the nesting is too deep") from error
    return found


def json_object(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def json_objects(value: Any) -> list[dict[str, Any]]:
    """The objects in the value if it is a list, else none."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
