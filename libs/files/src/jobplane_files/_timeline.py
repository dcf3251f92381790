"""What happened to a file, and whether it can have happened in this order."""

from collections.abc import Iterator, Sequence
from typing import Any

from jobplane_files._rows import Row
from jobplane_keys.tracking import FileStatus

type Event = dict[str, Any]

# What each time of a row says has happened, in the order in which it should.
_EVENTS = {
    "created_at": "uploaded",
    "upload_time": "uploaded",
    "manifest_time": "manifested",
    "processing_start_time": "processing_started",
    "completed_time": "completed",
    "failed_time": "failed",
}
_STATUSES = {
    "uploaded": FileStatus.PENDING,
    "manifested": FileStatus.MANIFESTED,
    "processing_started": FileStatus.PROCESSING,
    "completed": FileStatus.COMPLETED,
    "failed": FileStatus.FAILED,
    "quarantined": FileStatus.QUARANTINED,
}
# The times of its manifest's row that a file shares.
_SHARED = {
    "manifested": "created_at",
    "processing_started": "processing_start_time",
    "completed": "completed_time",
    "failed": "failed_time",
}


def timeline(file: Row, manifest: Row | None) -> list[Event]:
    """The events of a file, by time; times that it lacks are taken from its manifest's row.

    Each has `event`, `timestamp` (epoch seconds) and `status`, and where they apply `source`,
    `error` and `reset_count`.
    """
    events: dict[str, Event] = {}

    def add(event: str, when: float | None, **more: Any) -> None:
        if when is not None and event not in events:
            status = _STATUSES.get(event, FileStatus.PENDING).value
            events[event] = {"event": event, "timestamp": when, "status": status, **more}

    for name, event in _EVENTS.items():
        add(event, file.time(name))
    # A manifest's end is its files' end only when they say so themselves.
    shared = {"manifested", "processing_started", file.status}
    for event, name in _SHARED.items():
        if manifest is not None and event in shared:
            add(event, manifest.time(name), source="manifest")
    for event, status in _STATUSES.items():
        if status is file.status is not FileStatus.PENDING:
            add(event, file.time("updated_at"), source="updated_at")
    if "failed" in events and file.values.get("error_message"):
        events["failed"]["error"] = file.values["error_message"]
    add("reset", file.time("last_reset_time"), reset_count=file.values.get("reset_count"))
    return sorted(events.values(), key=lambda event: event["timestamp"])


def disordered(events: Sequence[Event]) -> Iterator[list[str]]:
    """The names of the events before and after a reset, if they can't have come in this order."""
    order = list(_STATUSES)
    names = [event["event"] for event in events]
    reset = names.index("reset") if "reset" in names else len(names)
    for steps in (names[:reset], names[reset + 1 :]):
        if steps != sorted(steps, key=order.index):
            yield steps
