"""The table `files` of an NDJSON → Parquet pipeline: statuses, keys, stored values.

Imported by name (`from jobplane_keys import tracking`), so that functions without files do not
load it. Key: `date_prefix` (YYYY-MM-DD) + `file_key`; index `status-index`
(`status`, `date_prefix`). Three kinds of row share the table: files, manifests
(`file_key = MANIFEST#<name>`) and locks (`date_prefix = LOCK#…`).
"""

import hashlib
from enum import StrEnum
from typing import Any

from jobplane_keys._clock import parse_iso_time

STATUS_INDEX = "status-index"
LOCK_INDEX = "lock-index"
DEFAULT_STATUS_SHARDS = 10
FILE_SUFFIX = ".ndjson"
MANIFEST_PREFIX = "MANIFEST#"
LOCK_PREFIX = "LOCK#"
# The manifest_path of a file that a builder has locked, until its manifest is published.
CLAIM_PLACEHOLDER = "pending-manifest-"

COUNTERS = "files_by_status"
_MILLISECONDS_FROM = 100_000_000_000
_YEAR_10000 = 253_402_300_800


class FileStatus(StrEnum):
    """pending → manifested → processing → completed | failed; failed → pending; any → quarantined.

    A manifest skips `manifested`, and is never quarantined.
    """

    PENDING = "pending"
    MANIFESTED = "manifested"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    QUARANTINED = "quarantined"


class RowKind(StrEnum):
    """The kind of a row of the table."""

    FILE = "file"
    MANIFEST = "manifest"
    LOCK = "lock"


def row_kind(date_prefix: str, file_key: str) -> RowKind:
    """The kind of the row with this key."""
    if date_prefix.startswith(LOCK_PREFIX):
        return RowKind.LOCK
    return RowKind.MANIFEST if file_key.startswith(MANIFEST_PREFIX) else RowKind.FILE


_FILE_STEPS = {
    FileStatus.PENDING: {FileStatus.MANIFESTED},
    FileStatus.MANIFESTED: {FileStatus.PROCESSING},
    FileStatus.PROCESSING: {FileStatus.COMPLETED, FileStatus.FAILED},
    FileStatus.FAILED: {FileStatus.PENDING},
}
_MANIFEST_STEPS = _FILE_STEPS | {FileStatus.PENDING: {FileStatus.PROCESSING}}
MANIFEST_STATUSES = frozenset(FileStatus) - {FileStatus.MANIFESTED, FileStatus.QUARANTINED}


def may_become(kind: RowKind, old: FileStatus | None, new: FileStatus) -> bool:
    """Whether the pipeline changes a row of this kind from status `old` (None: new) to `new`."""
    if kind is RowKind.MANIFEST:
        return old in MANIFEST_STATUSES and new in _MANIFEST_STEPS.get(old, ())
    if new is FileStatus.QUARANTINED:
        return old is not FileStatus.QUARANTINED
    return old is not None and new in _FILE_STEPS.get(old, ())


def stored_statuses(status: FileStatus, shards: int) -> tuple[str, ...]:
    """All stored values of a status: `pending`, `pending#0`, `pending#1`, …"""
    return (str(status), *(f"{status}#{shard}" for shard in range(shards)))


def read_status(stored: object, shards: int) -> FileStatus | None:
    """The status of a stored value; None if the value is unknown."""
    if not isinstance(stored, str):
        return None
    base, separator, shard = stored.partition("#")
    known = not separator or (
        shard.isdecimal() and shard == str(int(shard)) and int(shard) < shards
    )
    try:
        return FileStatus(base) if known else None
    except ValueError:
        return None


def in_same_shard(stored: str, status: FileStatus) -> str:
    """The stored value of a new status, in the shard of the old value."""
    return str(status) + "".join(stored.partition("#")[1:])


def file_shard(file_name: str, shards: int = DEFAULT_STATUS_SHARDS) -> int:
    """The shard of a file's status, from its name."""
    digest = hashlib.md5(file_name.encode(), usedforsecurity=False).hexdigest()
    return int(digest, 16) % shards


def manifest_row_key(manifest_path: str) -> str:
    """`file_key` of a manifest's row: `MANIFEST#` and the last part of its path."""
    return MANIFEST_PREFIX + manifest_path.rpartition("/")[2]


def read_time(value: Any) -> float:
    """Epoch seconds of a stored time.

    Accepts ISO-8601 with `Z`, with an offset or with neither (then UTC), and numbers or their text:
    epoch seconds or, from 10^11 on, milliseconds. Raises ValueError for other values and for times
    before 1970 or after 9999.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a time: {value!r}")
    if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
        seconds = parse_iso_time(value)
    else:
        seconds = _finite(value)
        if seconds >= _MILLISECONDS_FROM:
            seconds /= 1000
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError(f"not a time: {value!r}")
    return seconds


def _finite(value: float | str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("the number is too large for a time") from error
