"""Times as text: ISO-8601, UTC, milliseconds, `Z`."""

from datetime import UTC, datetime


def iso_time(epoch_seconds: float) -> str:
    """The text of a time: `2026-11-22T10:15:30.250Z` for 1795342530.25."""
    moment = datetime.fromtimestamp(epoch_seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def parse_iso_time(text: str) -> float:
    """Epoch seconds of an ISO-8601 time; without an offset it is UTC.

    Raises ValueError for any other text.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
