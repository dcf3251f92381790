"""jobplane_keys.tracking: statuses and shards, kinds of rows, steps and times of files."""

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_keys import iso_time, tracking
from jobplane_keys.tracking import FileStatus, RowKind, read_status, read_time, stored_statuses

NOON = 1_795_348_800
STATUSES = st.sampled_from(FileStatus)
SHARDS = st.integers(1, 50)

PENDING, MANIFESTED, PROCESSING, COMPLETED, FAILED, QUARANTINED = FileStatus
FILE_STEPS = {
    (PENDING, MANIFESTED), (MANIFESTED, PROCESSING), (PROCESSING, COMPLETED), (PROCESSING, FAILED),
    (FAILED, PENDING), (PENDING, QUARANTINED), (MANIFESTED, QUARANTINED),
    (PROCESSING, QUARANTINED), (COMPLETED, QUARANTINED), (FAILED, QUARANTINED),
    (None, QUARANTINED),
}  # fmt: skip
MANIFEST_STEPS = {
    (PENDING, PROCESSING), (PROCESSING, COMPLETED), (PROCESSING, FAILED), (FAILED, PENDING),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "steps"), [(RowKind.FILE, FILE_STEPS), (RowKind.MANIFEST, MANIFEST_STEPS)]
)
def test_only_the_pipelines_steps_are_steps(kind: RowKind, steps: set[Any]) -> None:
    pairs = itertools.product((None, *FileStatus), FileStatus)
    assert {pair for pair in pairs if tracking.may_become(kind, *pair)} == steps


@given(STATUSES, SHARDS)
def test_a_status_is_read_with_and_without_each_shard(status: FileStatus, shards: int) -> None:
    stored = stored_statuses(status, shards)
    assert len(set(stored)) == shards + 1
    assert {read_status(value, shards) for value in stored} == {status}


@pytest.mark.parametrize(
    "stored",
    [
        "", "#1", "pending#", "pending#10", "pending#-1", "pending#01", "pending#1#2", "PENDING",
        "pending ", "pending#x", "pending#٣", "done", None, 1, True, ["pending"], "pending#1.0",
    ],
)  # fmt: skip
def test_an_unknown_status_reads_as_none(stored: Any) -> None:
    assert read_status(stored, 10) is None


@given(STATUSES, STATUSES, SHARDS)
def test_a_new_status_keeps_the_shard(old: FileStatus, new: FileStatus, shards: int) -> None:
    for index, stored in enumerate(stored_statuses(old, shards)):
        assert tracking.in_same_shard(stored, new) == stored_statuses(new, shards)[index]


@pytest.mark.parametrize(
    ("date_prefix", "file_key", "kind"),
    [
        ("2026-11-22", "a.ndjson", RowKind.FILE),
        ("2026-11-22", "MANIFEST#batch.json", RowKind.MANIFEST),
        ("2026-11-22", "MANIFEST.ndjson", RowKind.FILE),
        ("LOCK#builder", "LOCK", RowKind.LOCK),
        ("LOCK#builder", "MANIFEST#x", RowKind.LOCK),
        ("2026-11-22", "LOCK", RowKind.FILE),
    ],
)
def test_the_key_decides_the_kind_of_a_row(date_prefix: str, file_key: str, kind: RowKind) -> None:
    assert tracking.row_kind(date_prefix, file_key) is kind


def test_the_key_of_a_manifests_row_is_the_last_part_of_its_path() -> None:
    assert tracking.manifest_row_key("s3://bucket/manifests/2026-11-22/batch-1.json") == (
        "MANIFEST#batch-1.json"
    )


def test_the_shard_of_a_file_comes_from_the_md5_of_its_name() -> None:
    """Builders compute it, so it must never change."""
    assert [tracking.file_shard(name) for name in ("a.ndjson", "b.ndjson", "ü.ndjson")] == [4, 9, 6]
    assert tracking.file_shard("a.ndjson", 7) == 4


@pytest.mark.parametrize(
    "stored",
    [
        "2026-11-22T12:00:00Z", "2026-11-22T12:00:00.000Z", "2026-11-22T12:00:00+00:00",
        "2026-11-22T13:30:00+01:30", "2026-11-22T12:00:00", "2026-11-22 12:00:00",
        "20261122T120000Z", NOON, float(NOON), NOON * 1000, str(NOON), str(NOON * 1000),
        f"{NOON}.0",
    ],
)  # fmt: skip
def test_a_time_is_read_in_every_format(stored: Any) -> None:
    assert read_time(stored) == NOON


@pytest.mark.parametrize(
    "stored",
    [
        "", " ", "yesterday", "2026-13-45T25:61:00Z", "2026-02-30", "nan", "inf", "1e400", "-1",
        "1.2.3", ".", -1, float("nan"), float("inf"), 10**400, "9" * 400, True, None, [NOON], {},
        "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z",
        253_402_300_800_000,
    ],
)  # fmt: skip
def test_a_malformed_time_raises_ValueError(stored: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the promise
        read_time(stored)


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60),
)
def test_the_offset_of_a_time_is_applied(naive: datetime, minutes: int) -> None:
    utc = naive.replace(tzinfo=UTC)
    there = utc.astimezone(timezone(timedelta(minutes=minutes)))
    assert read_time(there.isoformat()) == read_time(naive.isoformat()) == utc.timestamp()


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary()))
def test_any_value_is_a_writable_time_or_a_ValueError(value: Any) -> None:
    try:
        seconds = read_time(value)
    except ValueError:
        return
    assert iso_time(seconds)
