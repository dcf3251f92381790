"""Which files are stuck or lost, so that an operator must act."""

import math
from collections import Counter
from collections.abc import Callable, Collection
from datetime import date
from itertools import pairwise
from typing import Any

from jobplane_files._manifests import Manifest, Manifests, claimed_at
from jobplane_files._pipeline import Pipeline
from jobplane_files._rows import DAY, Row
from jobplane_keys.tracking import CLAIM_PLACEHOLDER, FileStatus, RowKind

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
"""The kinds of orphans; every answer lists the first three."""


def orphan_kind(
    file: Row,
    manifest: Manifest | None,
    manifest_row: Row | None,
    pipeline: Pipeline,
    *,
    now: float,
    hours: float,
) -> str | None:
    """The kind that says most about a file in flight; None when the pipeline may still end it.

    `manifest` is None when the file has none; `hours` is how long a file may keep its status.
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
    """Whether a manifest was completed so long ago that its files should be completed too."""
    if manifest is None or manifest.values.get("status") != FileStatus.COMPLETED:
        return False
    ended = manifest.time("completed_time") or manifest.time("updated_at")
    return ended is None or now - ended > pipeline.abandoned_minutes * 60


def is_stale(lock: Row, now: float) -> bool:
    """Whether a lock has expired, or has no readable expiry."""
    expires = lock.time("ttl")
    return expires is None or expires < now


def gaps(days: Collection[str]) -> list[Dates]:
    """The ranges, both ends included, that hold every date except these."""
    edges = [None, *sorted(days), None]
    ranges = [
        # `~` sorts after a date and before the next one.
        (None if one is None else f"{one}~", None if other is None else _day_before(other))
        for one, other in pairwise(edges)
    ]
    return [(first, last) for first, last in ranges if not first or not last or first <= last]


def _day_before(day: str) -> str:
    ordinal = date.fromisoformat(day).toordinal()
    return date.fromordinal(ordinal - 1).isoformat() if ordinal > 1 else "0"


class Orphans:
    """The orphans among the rows that are added, and the files about which too little is known.

    `now` is when the search began. Of each kind at most `most` findings are kept, and `on_kept`
    gets each of those.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        manifests: Manifests,
        *,
        now: float,
        hours: float,
        on_kept: Callable[[dict[str, Any]], object] = lambda finding: None,
        most: float = math.inf,
    ) -> None:
        self._pipeline, self._manifests = pipeline, manifests
        self._now, self._hours, self._on_kept, self._most = now, hours, on_kept, most
        self._oldest_pending: float | None = None
        self.findings: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ORPHAN_KINDS[:3]}
        self.unknown: list[dict[str, Any]] = []
        self.numbers: Counter[str] = Counter()
        """By kind, also of findings that were not kept."""
        self.unknowns = 0

    @property
    def oldest_pending_age(self) -> int | None:
        """Seconds since the oldest pending file is pending; None without one."""
        oldest = self._oldest_pending
        return None if oldest is None else round(self._now - oldest)

    def add(self, row: Row) -> None:
        """Look at a row: a file in flight, a completed file of a date without output, a lock."""
        if row.kind is RowKind.LOCK:
            if is_stale(row, self._now):
                self._add("stale_locks", row.values)
        elif row.is_file and row.status is FileStatus.COMPLETED:
            pipeline = self._pipeline
            output = f"s3://{pipeline.output_bucket}/{pipeline.outputs_of(row.date_prefix)}"
            self._add("missing_outputs", row.finding(self._now, output_prefix=output))
        elif row.is_file:
            self._add_in_flight(row)

    def _add_in_flight(self, file: Row) -> None:
        manifest, manifest_row = self._manifests.object_of(file), self._manifests.row_of(file)
        kind = orphan_kind(
            file, manifest, manifest_row, self._pipeline, now=self._now, hours=self._hours
        )
        if kind is not None:
            self._add(kind, file.finding(self._now))
        unreadable = file.unreadable_times()
        if unreadable or file.since is None:
            self._add("unreadable_times", file.finding(self._now, attributes=unreadable))
        if file.status is not FileStatus.PENDING:
            if manifest is not None and manifest.unknown:
                self.add_unknown(file.finding(self._now, reason=manifest.unknown))
        elif file.since is not None:
            self._oldest_pending = min(file.since, self._oldest_pending or file.since)

    def add_unknown(self, finding: dict[str, Any]) -> None:
        """Note something that could not be looked at, with its `reason`."""
        self.unknowns += 1
        self._keep(self.unknown, finding)

    def _add(self, kind: str, finding: dict[str, Any]) -> None:
        self.numbers[kind] += 1
        self._keep(self.findings.setdefault(kind, []), finding)

    def _keep(self, findings: list[dict[str, Any]], finding: dict[str, Any]) -> None:
        if len(findings) < self._most:
            findings.append(finding)
            self._on_kept(finding)

    def summary(self) -> dict[str, Any]:
        """Numbers by kind and examples, for a log."""
        return {
            "orphans": dict(self.numbers),
            "unknown": self.unknowns,
            "examples": {
                kind: [f"{found['date_prefix']}/{found['file_key']}" for found in findings]
                for kind, findings in self.findings.items()
                if findings
            },
        }
