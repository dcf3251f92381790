"""The history of a file, and whether its order is possible."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from jobplane_files._rows import Row
from jobplane_keys import iso_time
from jobplane_keys.tracking import FileStatus

type Event = dict[str, Any]

# The event of each time of a row, in the expected order.
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
# The times of its manifest's row that apply to a file.
_SHARED = {
    "manifested": "created_at",
    "processing_started": "processing_start_time",
    "completed": "completed_time",
    "failed": "failed_time",
}


def timeline(file: Row, manifest: Row | None) -> list[Event]:
    """The events of a file, by time; missing times are taken from its manifest's row.

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
    # The end of a manifest is the end of a file only if the file has the same status.
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
    """The names of the events before or after a reset, if their order is impossible."""
    order = list(_STATUSES)
    names = [event["event"] for event in events]
    reset = names.index("reset") if "reset" in names else len(names)
    for steps in (names[:reset], names[reset + 1 :]):
        if steps != sorted(steps, key=order.index):
            yield steps


def history(file: Row, manifest: Row | None) -> dict[str, Any]:
    """A file's timeline with ISO times, the seconds between its events, and its anomalies."""
    events = timeline(file, manifest)
    anomalies = [
        {"type": "unreadable_time", "attribute": name, "value": value, "row": row.file_key}
        for row in (file, manifest)
        if row is not None
        for name, value in row.unreadable_times().items()
    ]
    anomalies += [{"type": "out_of_order", "events": names} for names in disordered(events)]
    return {
        "file": file.label,
        "current_status": None if file.status is None else file.status.value,
        "timeline": [{**event, "timestamp": iso_time(event["timestamp"])} for event in events],
        "durations_seconds": {
            f"{one['event']}_to_{other['event']}": _seconds(one, other)
            for one, other in pairwise(events)
        },
        "total_processing_time": _seconds(events[0], events[-1]) if events else None,
        **({"anomalies": anomalies} if anomalies else {}),
    }


def _seconds(one: Event, other: Event) -> float:
    return round(float(other["timestamp"] - one["timestamp"]), 3)
