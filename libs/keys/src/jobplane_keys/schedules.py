"""When a job is due: `run_at` and `delay_seconds` of a request's metadata.

Imported by name (`from jobplane_keys import schedules`), since few requests need it.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from jobplane_keys._workspaces import ValidationError

FIELDS = ("run_at", "delay_seconds")

MAX_AHEAD_SECONDS = 30 * 24 * 3600
_WHOLE = re.compile(r"[0-9]{1,9}")


def due_at(metadata: Mapping[str, str], now: float) -> float | None:
    """The epoch seconds at which a job is due; None if it is due now.

    Raises ValidationError, which names the field. A time that has passed is due now: a client may
    send a request again.
    """
    if "run_at" in metadata and "delay_seconds" in metadata:
        raise ValidationError("metadata.run_at", "give either run_at or delay_seconds, not both")
    if "run_at" in metadata:
        due = _time(metadata["run_at"])
        if abs(due - now) > MAX_AHEAD_SECONDS:
            raise ValidationError("metadata.run_at", "expected a time within 30 days of now")
    else:
        due = now + _delay(metadata.get("delay_seconds", "0"))
    return due if due > now else None


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return moment.timestamp()
    except (ValueError, OverflowError) as error:
        expected = "expected an ISO 8601 time with an offset, such as 2026-11-22T10:15:30Z"
        raise ValidationError("metadata.run_at", expected) from error


def _delay(text: str) -> int:
    if not _WHOLE.fullmatch(text) or int(text) > MAX_AHEAD_SECONDS:
        expected = f"expected a whole number from 0 to {MAX_AHEAD_SECONDS}"
        raise ValidationError("metadata.delay_seconds", expected)
    return int(text)
