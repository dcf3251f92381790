"""Which files nothing will end unless an operator does."""

from collections.abc import Collection
from datetime import date
from itertools import pairwise

from jobplane_files._manifests import Manifest, claimed_at
from jobplane_files._pipeline import Pipeline
from jobplane_files._rows import DAY, Row
from jobplane_keys.tracking import CLAIM_PLACEHOLDER, FileStatus

type Dates = tuple[str | None, str | None]
"""The first and the last date of a range; None where it is open."""

_STUCK = {
    FileStatus.PENDING: "stuck_pending",
    FileStatus.MANIFESTED: "stuck_manifested",
    FileStatus.PROCESSING: "stuck_in_processing",
}
ORPHAN_KINDS = (
    "stuck_in_processing", "missing_manifests", "missing_outputs", "stuck_pending",
    "stuck_manifested", "expired_manifests", "abandoned_claims", "not_in_manifest",
    "lagging_files", "stale_locks", "unreadable_times",
)  # fmt: skip
"""The kinds of orphans, those that every answer lists first."""


def orphan_kind(
    file: Row,
    manifest: Manifest | None,
    manifest_row: Row | None,
    pipeline: Pipeline,
    *,
    now: float,
    hours: float,
) -> str | None:
    """The most telling kind of a file in flight; None when it may still come to its end.

    `manifest` is None when the file points to no manifest; `hours` is how long it may stay.
    """
    if file.status is not FileStatus.PENDING and manifest is not None:
        if not (manifest.missing or manifest.unknown or manifest.lists(file)):
            return "not_in_manifest"
        if _has_lagged(manifest_row, pipeline, now):
            return "lagging_files"
        if manifest.missing:
            expired = now - claimed_at(file, manifest_row) > pipeline.manifest_days * DAY
            return "expired_manifests" if expired else "missing_manifests"
    if file.manifest_path.startswith(CLAIM_PLACEHOLDER) and file.is_older(
        pipeline.abandoned_minutes / 60, now
    ):
        return "abandoned_claims"
    return _STUCK[file.status or FileStatus.PENDING] if file.is_older(hours, now) else None


def _has_lagged(manifest: Row | None, pipeline: Pipeline, now: float) -> bool:
    """Whether a manifest was completed so long ago that its files should be, too."""
    if manifest is None or manifest.values.get("status") != FileStatus.COMPLETED:
        return False
    ended = manifest.time("completed_time") or manifest.time("updated_at")
    return ended is None or now - ended > pipeline.abandoned_minutes * 60


def is_stale(lock: Row, now: float) -> bool:
    """Whether a lock has no readable expiry, or one that is over."""
    expires = lock.time("ttl")
    return expires is None or expires < now


def gaps(days: Collection[str]) -> list[Dates]:
    """The ranges, both ends included, that hold every date but these."""
    edges = [None, *sorted(days), None]
    ranges = [
        # What comes right after a date as text; no date lies between.
        (None if one is None else f"{one}~", None if other is None else _day_before(other))
        for one, other in pairwise(edges)
    ]
    return [(first, last) for first, last in ranges if not first or not last or first <= last]


def _day_before(day: str) -> str:
    ordinal = date.fromisoformat(day).toordinal()
    return date.fromordinal(ordinal - 1).isoformat() if ordinal > 1 else "0"
