"""Checks of an operator's request, and the problems of one that is refused."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

_MAX_KEY_BYTES = 1024


def checked_date(text: str) -> str:
    """A date as YYYY-MM-DD; ValueError for any other text."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("expected a date as YYYY-MM-DD")
    date.fromisoformat(text)
    return text


def is_date(text: str) -> bool:
    """Whether a text is a date as YYYY-MM-DD."""
    try:
        checked_date(text)
    except ValueError:
        return False
    return True


def checked_key(text: str) -> str:
    """A text that fits a key of the table; ValueError if it is longer."""
    if len(text.encode()) > _MAX_KEY_BYTES:
        raise ValueError(f"is longer than {_MAX_KEY_BYTES} bytes")
    return text


def check_once(labels: Iterable[str]) -> None:
    """ValueError if a batch changes a file more than once: such changes have no order."""
    times = Counter(labels)
    if repeated := [label for label, number in times.items() if number > 1]:
        raise ValueError(f"has more than one change of {', '.join(repeated)}")


def request_problems(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Pydantic's errors as `field`, such as `files[2].new_status`, and `message`."""
    problems = []
    for error in errors:
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
        name = "".join(parts).lstrip(".") or "request"
        message = error["msg"].removeprefix("Value error, ")
        problems.append({"field": name, "message": f"{name}: {message}"})
    return problems
