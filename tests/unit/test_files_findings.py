"""jobplane_files: orphans, resets, and what contradicts the buckets."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobplane_files import (
    ORPHAN_KINDS,
    Buckets,
    Manifest,
    Manifests,
    Orphans,
    Pipeline,
    Row,
    gaps,
    is_stale,
    no_reset_because,
    object_issues,
    orphan_kind,
    reset_of,
    resets_of,
    row_issues,
)
from tests.unit.file_rows import DAY, MANIFEST, MINUTE, NOW, PATH, PIPELINE, ago, manifest_row, row

LISTS = Manifest(frozenset({PATH}))
LISTS_OTHERS = Manifest()
MISSING = Manifest(missing=True)
UNKNOWN = Manifest(unknown="S3 returned AccessDenied")
OLD, NEW = {"updated_at": ago(5)}, {"updated_at": ago(0.5)}
CLAIM = "pending-manifest-2026-11-22-7"


def ended(hours: float) -> Row:
    return manifest_row("completed", completed_time=ago(hours))


@pytest.mark.parametrize(
    ("status", "more", "manifest", "manifest_row", "kind"),
    [
        ("pending", OLD, None, None, "stuck_pending"),
        ("pending#9", OLD, None, None, "stuck_pending"),
        ("pending", NEW, None, None, None),
        ("pending", OLD, LISTS_OTHERS, None, "stuck_pending"),
        ("manifested", OLD, LISTS, None, "stuck_manifested"),
        ("processing#1", OLD, LISTS, None, "stuck_in_processing"),
        ("processing", NEW, LISTS, None, None),
        ("processing", {}, LISTS, None, None),
        ("processing", NEW, LISTS_OTHERS, None, "not_in_manifest"),
        ("processing", NEW, LISTS_OTHERS, ended(1), "not_in_manifest"),
        ("processing", NEW, LISTS, ended(16 / 60), "lagging_files"),
        ("processing", NEW, LISTS, ended(14 / 60), None),
        ("processing", NEW, LISTS, manifest_row("completed", **OLD), "lagging_files"),
        ("processing", NEW, LISTS, manifest_row("completed", updated_at=ago(0.1)), None),
        ("processing", NEW, LISTS, manifest_row("completed"), "lagging_files"),
        ("processing", NEW, LISTS, manifest_row("failed", completed_time=ago(5)), None),
        ("processing", NEW, MISSING, ended(1), "lagging_files"),
        ("processing", NEW, MISSING, None, "missing_manifests"),
        ("manifested", OLD, MISSING, None, "missing_manifests"),
        ("processing", NEW | {"manifest_time": ago(73)}, MISSING, None, "expired_manifests"),
        ("processing", {"updated_at": ago(73)}, MISSING, None, "expired_manifests"),
        ("processing", NEW, MISSING, manifest_row("failed", created_at=ago(73)),
         "expired_manifests"),
        ("processing", NEW, UNKNOWN, None, None),
        ("processing", OLD, UNKNOWN, None, "stuck_in_processing"),
        ("manifested", {"updated_at": ago(16 / 60), "manifest_path": CLAIM}, None, None,
         "abandoned_claims"),
        ("manifested", {"updated_at": ago(14 / 60), "manifest_path": CLAIM}, None, None, None),
    ],
)  # fmt: skip
def test_kind_of_an_orphan(
    status: str,
    more: dict[str, Any],
    manifest: Manifest | None,
    manifest_row: Row | None,
    kind: str | None,
) -> None:
    """The kind that says most, of files that may keep their status for two hours."""
    file = row(status, **{"file_path": PATH} | more)
    assert orphan_kind(file, manifest, manifest_row, PIPELINE, now=NOW, hours=2) == kind
    assert kind is None or kind in ORPHAN_KINDS


@pytest.mark.parametrize(
    ("ttl", "stale"),
    [
        (NOW + 10, False),
        (NOW - 10, True),
        (int(NOW - 10) * 1000, True),
        ("soon", True),
        (..., True),
    ],
)
def test_stale_locks(ttl: Any, stale: bool) -> None:
    """A lock is stale when it has expired, or when its expiry can't be read."""
    assert is_stale(row(ttl=ttl), NOW) is stale


@settings(deadline=None)
@given(st.sets(st.dates(date(2026, 1, 1), date(2026, 1, 31))))
def test_gaps_are_the_other_dates(days: set[date]) -> None:
    """Every date is one of the days, or in one gap; none is before the first or after the last."""
    known = {day.isoformat() for day in days}
    ranges = gaps(known)
    for number in range(-2, 34):
        day = (date(2026, 1, 1) + timedelta(days=number)).isoformat()
        inside = [1 for first, last in ranges if (first or "") <= day <= (last or "9")]
        assert len(inside) == (day not in known)
    for first, last in gaps({"0001-01-01", "9999-12-31"}):
        assert not (first or "") <= "0001-01-01" <= (last or "9999-12-31~")
        assert not (first or "") <= "9999-12-31" <= (last or "9999-12-31~")


def orphans_of(
    *rows: Row, objects: Mapping[str, Manifest] | None = None, most: float = 9
) -> tuple[Orphans, list[Any]]:
    """The orphans among rows, and what was kept."""
    kept: list[Any] = []
    manifests = Manifests(lambda keys: {}, lambda paths: objects or {})
    manifests.look_up_objects(rows)
    orphans = Orphans(PIPELINE, manifests, now=NOW, hours=2, on_kept=kept.append, most=most)
    for found in rows:
        orphans.add(found)
    return orphans, kept


def test_orphans_by_kind() -> None:
    """Locks, completed files of dates without output, and files in flight; manifests are not."""
    lock = row(date="LOCK#a", key="LOCK", ttl=1)
    done, stuck = row("completed#1"), row("processing", **OLD)
    held = row(date="LOCK#b", key="LOCK", ttl=NOW + 9)
    orphans, kept = orphans_of(lock, held, done, stuck, manifest_row("processing", **OLD))
    output = f"s3://output/pipeline/output/merged-parquet-{DAY}/"
    assert orphans.findings == {
        "stale_locks": [lock.values],
        "missing_outputs": [done.finding(NOW, output_prefix=output)],
        "stuck_in_processing": [stuck.finding(NOW)],
        "missing_manifests": [],
    }
    assert orphans.numbers == dict.fromkeys(
        ("stale_locks", "missing_outputs", "stuck_in_processing"), 1
    )
    assert (len(kept), orphans.unknown, orphans.oldest_pending_age) == (3, [], None)


def test_files_about_which_too_little_is_known() -> None:
    """Unreadable times are findings beside the kind; an unreadable manifest is unknown."""
    odd = row("pending", created_at="?", **OLD)
    ageless = row("pending")
    unread = row("processing", manifest_path=MANIFEST, **NEW)
    orphans, kept = orphans_of(odd, ageless, unread, objects={MANIFEST: UNKNOWN})
    assert orphans.findings["unreadable_times"] == [
        odd.finding(NOW, attributes={"created_at": "?"}), ageless.finding(NOW, attributes={}),
    ]  # fmt: skip
    assert orphans.findings["stuck_pending"] == [odd.finding(NOW)]
    assert orphans.unknown == [unread.finding(NOW, reason=UNKNOWN.unknown)]
    assert (orphans.unknowns, orphans.numbers.total(), len(kept)) == (1, 3, 4)


def test_numbers_are_complete_when_findings_are_not() -> None:
    """Of each kind only some are kept; the summary has numbers and examples."""
    files = [row("pending", key=f"{n}", **OLD) for n in range(3)]
    orphans, kept = orphans_of(*files, most=2)
    orphans.add_unknown({"subject": "outputs", "reason": "x"})
    assert (orphans.numbers["stuck_pending"], len(kept)) == (3, 3)
    assert orphans.summary() == {
        "orphans": {"stuck_pending": 3},
        "unknown": 1,
        "examples": {"stuck_pending": [f"{DAY}/0", f"{DAY}/1"]},
    }


def test_age_of_the_oldest_pending_file() -> None:
    """Stuck or not; other statuses and unknown ages do not count."""
    ages = [row("pending", updated_at=ago(n / 60)) for n in (2, 5, 3)]
    others = [row("manifested", updated_at=ago(1)), row("pending", updated_at="?")]
    assert orphans_of(*ages, *others)[0].oldest_pending_age == 5 * MINUTE


COMPLETED = "its manifest is completed: the data is in the output"
NO_AGE = "its age is unknown: no readable timestamp"
UNKNOWN_AGE = "its manifest is processing, and its age is unknown: no readable timestamp"
STUCK = row(**OLD)


@pytest.mark.parametrize(
    ("file", "manifest", "reason"),
    [
        (STUCK, None, None),
        (row(), None, NO_AGE),
        (row(updated_at=["x"]), None, NO_AGE),
        (row("failed", **OLD, reset_count=3), None, "it was reset 3 times already"),
        (row("failed", **OLD, reset_count=2), None, None),
        (row(**OLD, reset_count=3), None, None),
        (STUCK, manifest_row("failed"), None),
        (STUCK, row(..., key="MANIFEST#m.json"), None),
        (STUCK, manifest_row("completed"), COMPLETED),
        (STUCK, manifest_row("processing", processing_start_time=ago(1)),
         "its manifest is still processing"),
        (STUCK, manifest_row("pending", created_at=ago(1)), "its manifest is still pending"),
        (STUCK, manifest_row("processing", updated_at=ago(1), created_at=ago(9)),
         "its manifest is still processing"),
        (STUCK, manifest_row("processing"), UNKNOWN_AGE),
        (STUCK, manifest_row("processing", processing_start_time="?", updated_at=ago(1)),
         UNKNOWN_AGE),
        (STUCK, manifest_row("processing", processing_start_time=ago(3)), None),
    ],
)  # fmt: skip
def test_files_that_are_not_reset(file: Row, manifest: Row | None, reason: str | None) -> None:
    """The manifest may still end the file, or it was reset too often, or its age is unknown."""
    assert no_reset_because(file, manifest, now=NOW, hours=2, max_resets=3) == reason


@pytest.mark.parametrize(
    ("count", "action", "then"),
    [(..., "reset", 1), (0, "reset", 1), (2, "reset", 3), ("2", "reset", 1), (3, "fail", 3),
     (7, "fail", 7)],
)  # fmt: skip
def test_a_reset_is_counted(count: Any, action: str, then: int) -> None:
    """After three resets a file fails; a count that is not a number is 0."""
    file = row(reset_count=count, **OLD)
    assert resets_of(file) == (count if isinstance(count, int) else 0)
    found, change = reset_of(file, 3, began=NOW, now=NOW + 60, changed_by="manager", reason=None)
    assert found == file.finding(NOW, reset_count=then, action=action)
    at = ago(-1 / 60)
    assert change.fields == (
        {"last_reset_time": at, "reset_count": then}
        if action == "reset"
        else {"failed_time": at, "error_message": f"stuck again after {then} resets"}
    )
    assert change.status == ("pending" if action == "reset" else "failed")
    assert (change.changed_by, change.reason) == ("manager", "stuck for 5.0 hours")
    assert change.removed == ("manifest_path", "glue_job_run_id")
    _, change = reset_of(STUCK, 3, began=NOW, now=NOW, changed_by="x", reason="Glue lost it")
    assert change.reason == "Glue lost it"


def stored(key: str, size: float = 1) -> dict[str, Any]:
    return {"Key": key, "Size": size * 1024 * 1024}


def holding(*keys: str) -> Buckets:
    buckets = Buckets()
    buckets.add_listing("input", [stored(key) for key in keys])
    return buckets


EMPTY, ONE = Buckets(inputs={}), holding("x/a.ndjson")
OUTPUTS = f"pipeline/output/merged-parquet-{DAY}/"
DONE = Buckets(outputs={f"{OUTPUTS}part-0.parquet"})
DAYS = 24


def test_listings_of_a_date() -> None:
    """Objects by the last part of their keys; only .ndjson counts in the input."""
    buckets = Buckets()
    assert (buckets.input_count, buckets.inputs, buckets.outputs) == (None, None, None)
    one, same, other = stored("x/a.ndjson"), stored("y/a.ndjson"), stored("y/b.csv")
    buckets.add_listing("input", [one, same, other, stored("c.NDJSON"), stored("d.ndjson.gz")])
    buckets.add_listing("output", [stored("o/p.parquet")])
    buckets.add_listing("quarantine", [stored("q/r.ndjson")])
    assert buckets.inputs == {"a.ndjson": [one, same]}
    assert (buckets.outputs, buckets.quarantined) == ({"o/p.parquet"}, {"r.ndjson"})
    assert buckets.input_count == 2


@pytest.mark.parametrize(
    ("file", "buckets", "types"),
    [
        (row("pending", created_at=ago(1)), EMPTY, ["missing_in_s3"]),
        (row("failed"), EMPTY, ["missing_in_s3"]),
        (row("failed", created_at="?", upload_time=None), EMPTY, ["missing_in_s3"]),
        (row("failed", created_at=ago(6.9 * DAYS)), EMPTY, ["missing_in_s3"]),
        (row("failed", created_at=ago(7.1 * DAYS)), EMPTY, []),
        (row("failed", upload_time=ago(8 * DAYS)), EMPTY, []),
        (row("completed"), EMPTY, []),
        (row("quarantined"), EMPTY, []),
        (row("pending", key="a.csv"), EMPTY, []),
        (row("pending"), ONE, []),
        (row("pending"), Buckets(), []),
        (row("archived"), ONE, ["unknown_status"]),
        (row("PENDING"), ONE, ["unknown_status"]),
        (row("pending#99"), ONE, ["unknown_status"]),
        (row("pending", file_path=PATH.replace("-22/", "-21/")), EMPTY, ["wrong_date_partition"]),
        (row("pending", file_path="s3://elsewhere/2026-11-20/a.ndjson"), ONE, []),
        (row("completed"), Buckets(outputs=set()), ["missing_output"]),
        (row("processing"), Buckets(outputs=set()), []),
        (row("completed"), Buckets(), []),
    ],
)  # fmt: skip
def test_a_row_and_the_buckets(file: Row, buckets: Buckets, types: list[str]) -> None:
    """What contradicts it; nothing where a listing is incomplete."""
    found = row_issues(DAY, file, buckets, None, PIPELINE, NOW)
    assert [issue["type"] for issue in found] == types


@pytest.mark.parametrize("day", ["2026-11-01", "0001-01-01"])
def test_an_old_date_without_times(day: str) -> None:
    """The lifecycle has removed the object, as the date itself says."""
    assert not list(row_issues(day, row("failed", date=day), EMPTY, None, PIPELINE, NOW))


@pytest.mark.parametrize(
    ("key", "name"),
    [("a%20b.ndjson", "a b.ndjson"), ("a+b.ndjson", "a b.ndjson"), ("a+b.ndjson", "a+b.ndjson"),
     ("%C3%BC.ndjson", "ü.ndjson"), ("100%.ndjson", "100%.ndjson")],
)  # fmt: skip
def test_an_encoded_key_is_the_same_key(key: str, name: str) -> None:
    """Events carry keys encoded, and so do some rows."""
    file = row("pending", key=key, file_path=f"{PIPELINE.input_root}{DAY}/{key}", file_size_mb=1)
    assert not list(row_issues(DAY, file, holding(f"x/{name}"), None, PIPELINE, NOW))


@pytest.mark.parametrize(
    ("recorded", "differs"),
    [(1, False), (1.009, False), (1.011, True), (0.989, True), (0, True), (None, False),
     ("1.5", False), (False, False)],
)  # fmt: skip
def test_size_of_a_file(recorded: Any, differs: bool) -> None:
    """A hundredth of a megabyte is rounding; a value that is not a number is ignored."""
    found = list(row_issues(DAY, row(file_size_mb=recorded), ONE, None, PIPELINE, NOW))
    expected = {"type": "size_mismatch", "file_key": "a.ndjson", "status": "processing#3",
                "db_size_mb": recorded, "s3_size_mb": 1.0}  # fmt: skip
    assert found == ([expected] if differs else [])


def test_size_among_objects_of_the_same_name() -> None:
    """The object at the row's own path is compared."""
    path = f"{PIPELINE.input_root}{DAY}/x/a.ndjson"
    buckets = Buckets(inputs={"a.ndjson": [stored("y/a.ndjson", 0), stored("x/a.ndjson", 2)]})
    file = row("pending", file_path=path, file_size_mb=2)
    assert not list(row_issues(DAY, file, buckets, None, PIPELINE, NOW))


@pytest.mark.parametrize("prefix", ["", "landing/", "since-2020-01-01/"])
def test_another_folder_of_the_input(prefix: str) -> None:
    """The prefix may be any, or empty."""
    pipeline = Pipeline(input_bucket="in", output_bucket="out", input_prefix=prefix)
    for day, types in ((DAY, []), ("2026-11-20", ["wrong_date_partition"])):
        file = row("pending", file_path=f"s3://in/{prefix}{day}/a.ndjson")
        found = row_issues(DAY, file, ONE, None, pipeline, NOW)
        assert [issue["type"] for issue in found] == types
    assert pipeline.input_root == f"s3://in/{prefix}"


@pytest.mark.parametrize(
    ("path", "is_missing"),
    [(..., False), ("", False), (7, False), ("s3://elsewhere/part-1.parquet", False),
     (f"s3://output/{OUTPUTS}part-0.parquet", False), (f"s3://output/{OUTPUTS}", False),
     (f"s3://output/{OUTPUTS}part-1.parquet", True)],
)  # fmt: skip
def test_output_of_a_completed_file(path: Any, is_missing: bool) -> None:
    """What the row names must exist; without a path of that date, any output of it is enough."""
    found = list(row_issues(DAY, row("completed", output_path=path), DONE, None, PIPELINE, NOW))
    assert [issue["type"] for issue in found] == (["missing_output"] if is_missing else [])
    (issue,) = row_issues(DAY, row("completed"), Buckets(outputs=set()), None, PIPELINE, NOW)
    assert issue["output_path"] == f"s3://output/{OUTPUTS}"


@pytest.mark.parametrize(
    ("status", "missing", "unlisted"),
    [("manifested", True, True), ("processing#1", True, True), ("completed#1", False, True),
     ("pending", False, False), ("failed", False, False), ("quarantined", False, False)],
)  # fmt: skip
def test_a_row_and_its_manifest(status: str, missing: bool, unlisted: bool) -> None:
    """A manifest must exist while it is worked on, and list the files that it has."""
    file = row(status, file_path=PATH)
    for manifest, is_issue, kind in (
        (MISSING, missing, "missing_manifest"),
        (LISTS_OTHERS, unlisted, "not_in_manifest"),
        (LISTS, False, ""),
        (UNKNOWN, False, ""),
        (None, False, ""),
    ):
        found = row_issues(DAY, file, Buckets(), manifest, PIPELINE, NOW)
        assert [issue["type"] for issue in found] == ([kind] if is_issue else [])


def test_objects_and_the_rows() -> None:
    """Two of a name, and one without a row, unless it may be quarantined."""
    keys = ["x/a.ndjson", "y/a.ndjson"]
    buckets = holding(*reversed(keys))
    buckets.quarantined = set()
    collision = {"type": "basename_collision", "file_key": "a.ndjson", "keys": keys}
    missing = {"type": "missing_in_dynamodb", "file_key": "a.ndjson", "key": keys[0]}
    assert list(object_issues("a.ndjson", [], buckets)) == [collision, missing]
    assert list(object_issues("a.ndjson", ["a.ndjson"], buckets)) == [collision]
    for quarantined in ({"a.ndjson"}, None):
        buckets.quarantined = quarantined
        assert list(object_issues("a.ndjson", [], buckets)) == [collision]
