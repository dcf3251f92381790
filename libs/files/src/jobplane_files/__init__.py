"""The rules of the files of an NDJSON → Parquet pipeline, whose table is `jobplane_keys.tracking`.

Values in, values out: nothing here makes a client, or reads the clock or the environment. Where
rows have to be read, the caller passes the function or the client. Times are epoch seconds.
"""

from jobplane_files._budgets import Budget
from jobplane_files._changes import Change, no_change_because, row_update
from jobplane_files._consistency import Buckets, is_ndjson, object_issues, row_issues
from jobplane_files._counters import (
    COUNTER_SHARDS,
    by_status,
    counter_corrections,
    counter_update,
    moved_before,
    moved_files,
    summed,
)
from jobplane_files._fields import PROTECTED_FIELDS, field_problems
from jobplane_files._manifests import Manifest, Manifests, claimed_at, spellings
from jobplane_files._orphans import ORPHAN_KINDS, Orphans, gaps, is_stale, orphan_kind
from jobplane_files._pipeline import Pipeline
from jobplane_files._queries import (
    BESIDE_MANIFESTS,
    after,
    count_query,
    date_query,
    files_counted,
    status_query,
)
from jobplane_files._requests import (
    check_once,
    checked_date,
    checked_key,
    is_date,
    request_problems,
)
from jobplane_files._resets import no_reset_because, reset_of, resets_of
from jobplane_files._rows import IN_FLIGHT, Row
from jobplane_files._timeline import disordered, history, timeline
from jobplane_files._walks import Lane, Walk, oldest_first
from jobplane_files._watch import FILES_CHANGED, ITERATORS_EXPIRED, STREAM_TIMED_OUT, StreamWatch
from jobplane_keys import make_token, read_token

__all__ = [
    "FILES_CHANGED",
    "ITERATORS_EXPIRED",
    "STREAM_TIMED_OUT",
    "StreamWatch",
    "BESIDE_MANIFESTS",
    "Buckets",
    "Budget",
    "COUNTER_SHARDS",
    "Change",
    "IN_FLIGHT",
    "Lane",
    "Manifest",
    "Manifests",
    "ORPHAN_KINDS",
    "Orphans",
    "PROTECTED_FIELDS",
    "Pipeline",
    "Row",
    "Walk",
    "after",
    "by_status",
    "check_once",
    "checked_date",
    "checked_key",
    "claimed_at",
    "count_query",
    "counter_corrections",
    "counter_update",
    "date_query",
    "disordered",
    "field_problems",
    "files_counted",
    "gaps",
    "history",
    "is_date",
    "is_ndjson",
    "is_stale",
    "make_token",
    "moved_before",
    "moved_files",
    "no_change_because",
    "no_reset_because",
    "object_issues",
    "oldest_first",
    "orphan_kind",
    "read_token",
    "request_problems",
    "reset_of",
    "resets_of",
    "row_issues",
    "row_update",
    "spellings",
    "status_query",
    "summed",
    "timeline",
]
