"""Rows of the tracking table, as stored and as plain values."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobplane_keys import from_item, iso_time
from jobplane_keys.tracking import (
    DEFAULT_STATUS_SHARDS,
    FileStatus,
    RowKind,
    manifest_row_key,
    read_status,
    read_time,
    row_kind,
)

HOUR, DAY = 3600, 86400
IN_FLIGHT = (FileStatus.PENDING, FileStatus.MANIFESTED, FileStatus.PROCESSING)
# The times that say since when a file has its status, after updated_at.
_SINCE = {
    FileStatus.PENDING: ("created_at", "upload_time"),
    FileStatus.MANIFESTED: ("manifest_time", "created_at", "upload_time"),
    FileStatus.PROCESSING: ("processing_start_time", "manifest_time", "created_at", "upload_time"),
    FileStatus.COMPLETED: ("completed_time", "created_at", "upload_time"),
    FileStatus.FAILED: ("failed_time", "created_at", "upload_time"),
}
_TIMES = (
    "created_at", "upload_time", "manifest_time", "processing_start_time", "completed_time",
    "failed_time", "updated_at", "last_reset_time",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """An item of the tracking table: a file, a manifest or a lock."""

    item: dict[str, Any]
    """In DynamoDB's typed form."""
    shards: int = DEFAULT_STATUS_SHARDS
    """The number of shards of a status."""

    @cached_property
    def values(self) -> dict[str, Any]:
        """The item as JSON values."""
        return from_item(self.item)

    @cached_property
    def date_prefix(self) -> str:
        """The first part of its key."""
        return str(self.values["date_prefix"])

    @cached_property
    def file_key(self) -> str:
        """The second part of its key."""
        return str(self.values["file_key"])

    @property
    def label(self) -> str:
        """Its key as one text: `2026-11-22/a.ndjson`."""
        return f"{self.date_prefix}/{self.file_key}"

    @property
    def place(self) -> dict[str, Any]:
        """Its keys in the table and the indexes, after which a reading can go on."""
        names = ("date_prefix", "file_key", "status", "lock_id")
        return {name: self.values[name] for name in names if name in self.values}

    @property
    def kind(self) -> RowKind:
        """Whether it is the row of a file, a manifest or a lock."""
        return row_kind(self.date_prefix, self.file_key)

    @property
    def is_file(self) -> bool:
        """Whether it is the row of a file."""
        return self.kind is RowKind.FILE

    @cached_property
    def status(self) -> FileStatus | None:
        """Its status without the shard; None when it is unknown."""
        return read_status(self.values.get("status"), self.shards)

    @property
    def manifest_path(self) -> str:
        """The path of its manifest, or an empty text."""
        return str(self.values.get("manifest_path") or "")

    @property
    def manifest_key(self) -> tuple[str, str] | None:
        """The key of its manifest's row; None unless it points to a manifest in S3."""
        key = manifest_row_key(self.manifest_path)
        if not self.manifest_path.startswith("s3://") or len(key.encode()) > 1024:
            return None
        return self.date_prefix, key

    def time(self, name: str) -> float | None:
        """A time of the row in epoch seconds; None when it is missing or unreadable."""
        try:
            return read_time(self.values.get(name))
        except ValueError:
            return None

    @cached_property
    def since(self) -> float | None:
        """Since when it has its status; None when the first time that it has is unreadable."""
        names = ("updated_at", *_SINCE.get(self.status or FileStatus.PENDING, ("created_at",)))
        return next((self.time(name) for name in names if self.values.get(name) is not None), None)

    def is_older(self, hours: float, now: float) -> bool:
        """Whether it has had its status for more than so many hours."""
        return self.since is not None and now - self.since > hours * HOUR

    def unreadable_times(self) -> dict[str, Any]:
        """The times that can't be read, by name."""
        present = (name for name in _TIMES if self.values.get(name) is not None)
        return {name: self.values[name] for name in present if self.time(name) is None}

    def finding(self, now: float, **more: Any) -> dict[str, Any]:
        """Its entry in a list of stuck or orphaned files."""
        found: dict[str, Any] = {
            "date_prefix": self.date_prefix,
            "file_key": self.file_key,
            "status": self.values.get("status"),
            "hours_stuck": None if self.since is None else round((now - self.since) / HOUR, 2),
            "since": None if self.since is None else iso_time(self.since),
        }
        if self.manifest_path:
            found["manifest_path"] = self.manifest_path
        return found | more
