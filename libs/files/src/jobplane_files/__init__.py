"""The rules of the files of an NDJSON → Parquet pipeline, whose table is `jobplane_keys.tracking`.

Values in, values out: nothing here makes a call, holds a client or reads the clock or the
environment. Times are epoch seconds.
"""

from jobplane_files._consistency import Buckets, is_ndjson, object_issues, row_issues
from jobplane_files._counters import (
    COUNTER_SHARDS,
    by_status,
    counter_corrections,
    counter_update,
    moved_files,
    summed,
)
from jobplane_files._fields import PROTECTED_FIELDS, field_problems
from jobplane_files._manifests import Manifest, claimed_at, spellings
from jobplane_files._orphans import ORPHAN_KINDS, gaps, is_stale, orphan_kind
from jobplane_files._pipeline import Pipeline
from jobplane_files._resets import no_reset_because, resets_of, row_update
from jobplane_files._rows import IN_FLIGHT, Row
from jobplane_files._timeline import disordered, timeline

__all__ = [
    "COUNTER_SHARDS",
    "IN_FLIGHT",
    "ORPHAN_KINDS",
    "PROTECTED_FIELDS",
    "Buckets",
    "Manifest",
    "Pipeline",
    "Row",
    "by_status",
    "claimed_at",
    "counter_corrections",
    "counter_update",
    "disordered",
    "field_problems",
    "gaps",
    "is_ndjson",
    "is_stale",
    "moved_files",
    "no_reset_because",
    "object_issues",
    "orphan_kind",
    "resets_of",
    "row_issues",
    "row_update",
    "spellings",
    "summed",
    "timeline",
]
