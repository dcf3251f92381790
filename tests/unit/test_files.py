"""jobplane_files: the rules of a pipeline's files, on values alone."""

import subprocess
import sys
from typing import Any

import pytest

from jobplane_files import (
    COUNTER_SHARDS,
    ORPHAN_KINDS,
    PROTECTED_FIELDS,
    Buckets,
    Manifest,
    Pipeline,
    Row,
    by_status,
    claimed_at,
    counter_corrections,
    counter_update,
    disordered,
    field_problems,
    is_stale,
    moved_files,
    no_reset_because,
    object_issues,
    orphan_kind,
    resets_of,
    row_issues,
    row_update,
    summed,
    timeline,
)
from jobplane_keys import iso_time, to_item
from jobplane_keys.tracking import FileStatus, RowKind

NOW = 1_795_342_530.25
DAY = "2026-11-22"
HOUR = 3600
PATH = f"s3://input/pipeline/input/{DAY}/a.ndjson"
MANIFEST = "s3://manifests/2026-11-22/m.json"
PIPELINE = Pipeline(input_bucket="input", output_bucket="output")
LISTS = Manifest(frozenset({PATH}))
MISSING = Manifest(missing=True)


def row(status: str = "processing#3", **more: Any) -> Row:
    """A file's row, without any time."""
    key = {"date_prefix": DAY, "file_key": "a.ndjson"}
    return Row(to_item(key | {"status": status} | more))


def ago(hours: float) -> str:
    return iso_time(NOW - hours * HOUR)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ((DAY, "a.ndjson"), RowKind.FILE),
        ((DAY, "MANIFEST#m.json"), RowKind.MANIFEST),
        (("LOCK#x", "LOCK"), RowKind.LOCK),
    ],
)
def test_a_row_by_its_key(key: tuple[str, str], kind: RowKind) -> None:
    """Three kinds of row share the table."""
    found = Row(to_item({"date_prefix": key[0], "file_key": key[1]}))
    assert (found.kind, found.is_file) == (kind, kind is RowKind.FILE)
    assert found.label == f"{key[0]}/{key[1]}"


def test_a_row_knows_as_many_shards_as_it_is_given() -> None:
    """A status in a further shard is unknown."""
    item = row("pending#12").item
    assert (Row(item).status, Row(item, 20).status) == (None, FileStatus.PENDING)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (MANIFEST, (DAY, "MANIFEST#m.json")),
        ("pending-manifest-1", None),
        (None, None),
        ("s3://" + "x" * 1100, None),
    ],
)
def test_the_row_of_its_manifest(path: str | None, key: tuple[str, str] | None) -> None:
    """Only a path in S3, whose key DynamoDB takes, has one."""
    assert row(manifest_path=path).manifest_key == key


@pytest.mark.parametrize(
    ("times", "hours"),
    [
        ({"updated_at": ago(1), "processing_start_time": ago(5)}, 1.0),
        ({"processing_start_time": ago(5), "created_at": ago(9)}, 5.0),
        ({"created_at": ago(9)}, 9.0),
        ({"updated_at": "yesterday", "created_at": ago(9)}, None),
        ({}, None),
    ],
)
def test_since_when(times: dict[str, Any], hours: float | None) -> None:
    """By the best time that the row has; an unreadable one is not replaced by another."""
    found = row(**times)
    assert found.finding(NOW)["hours_stuck"] == hours
    assert found.is_older(0.5, NOW) is (hours is not None)
    assert found.unreadable_times() == {n: v for n, v in times.items() if v == "yesterday"}


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        (b'{"fileLocations": [{"URIPrefixes": ["s3://b/a%20b"]}]}', {"s3://b/a%20b", "s3://b/a b"}),
        (b'{"fileLocations": []}', set()),
        (b'{"fileLocations": [{"URIPrefixes": "s3://b/a"}]}', None),
        (b"[]", None),
        (b"{", None),
        (b"[" * 100_000, None),
    ],
)
def test_what_a_manifest_lists(text: bytes, listed: set[str] | None) -> None:
    """As written and URL-decoded; what is malformed is unknown."""
    found = Manifest.read(text)
    assert (found.unknown is None, found.listed) == (listed is not None, listed or set())


@pytest.mark.parametrize(
    ("uris", "file_path", "is_listed"),
    [
        ({PATH}, PATH, True),
        ({PATH.rpartition("/")[0] + "/"}, PATH, True),
        ({PATH.rpartition("/")[0]}, PATH, False),
        ({"s3://elsewhere/a.ndjson"}, None, True),
        ({"s3://elsewhere/b.ndjson"}, None, False),
    ],
)
def test_a_file_in_a_manifest(uris: set[str], file_path: str | None, is_listed: bool) -> None:
    """By its path or a folder of it; without a path by its name."""
    assert Manifest(frozenset(uris)).lists(row(file_path=file_path)) is is_listed


def test_a_file_was_claimed_when_its_manifest_was_written() -> None:
    """By its own time, else by the manifest's row, else since it has its status, else unknown."""
    manifest = row("pending", created_at=ago(2))
    assert claimed_at(row(manifest_time=ago(1)), manifest) == NOW - HOUR
    assert claimed_at(row(updated_at=ago(3)), manifest) == NOW - 2 * HOUR
    assert claimed_at(row(updated_at=ago(3)), None) == NOW - 3 * HOUR
    assert claimed_at(row(), None) == 0


def test_a_timeline_with_a_reset() -> None:
    """By time, with the times of the manifest; before and after the reset, steps are in order."""
    file = row("pending", created_at=ago(9), failed_time=ago(5), last_reset_time=ago(4),
               reset_count=1, error_message="no space")  # fmt: skip
    events = timeline(file, row("failed", created_at=ago(8)))
    assert [event["event"] for event in events] == ["uploaded", "manifested", "failed", "reset"]
    assert (events[1]["source"], events[2]["error"]) == ("manifest", "no space")
    assert list(disordered(events)) == []
    swapped = [events[1], events[0], *events[2:]]
    assert list(disordered(swapped)) == [["manifested", "uploaded", "failed"]]


@pytest.mark.parametrize(
    ("status", "more", "manifest", "manifest_row", "kind"),
    [
        ("pending", {"updated_at": ago(5)}, None, None, "stuck_pending"),
        ("pending", {"updated_at": ago(1)}, None, None, None),
        ("manifested", {"updated_at": ago(5)}, LISTS, None, "stuck_manifested"),
        ("processing#1", {"updated_at": ago(5)}, LISTS, None, "stuck_in_processing"),
        ("processing", {"updated_at": ago(0)}, Manifest(), None, "not_in_manifest"),
        ("processing", {"updated_at": ago(0)}, LISTS, row("completed"), "lagging_files"),
        ("processing", {"manifest_time": ago(1)}, MISSING, None, "missing_manifests"),
        ("processing", {"manifest_time": ago(99)}, MISSING, None, "expired_manifests"),
        ("processing", {"updated_at": ago(1)}, Manifest(unknown="S3 returned x"), None, None),
        ("manifested", {"updated_at": ago(1), "manifest_path": "pending-manifest-1"}, None, None,
         "abandoned_claims"),
    ],
)  # fmt: skip
def test_the_kind_of_an_orphan(
    status: str,
    more: dict[str, Any],
    manifest: Manifest | None,
    manifest_row: Row | None,
    kind: str | None,
) -> None:
    """The most telling one, of files that may stay for two hours."""
    file = row(status, **{"file_path": PATH} | more)
    assert orphan_kind(file, manifest, manifest_row, PIPELINE, now=NOW, hours=2) == kind
    assert kind is None or kind in ORPHAN_KINDS


def test_a_stale_lock() -> None:
    """Its expiry is over or unreadable."""
    assert [is_stale(row(ttl=ttl), NOW) for ttl in (NOW - 1, NOW + 1, "x")] == [True, False, True]


COMPLETED = "its manifest is completed: the data is in the output"


@pytest.mark.parametrize(
    ("file", "manifest", "reason"),
    [
        (row(updated_at=ago(5)), None, None),
        (row(), None, "its age is unknown: no readable timestamp"),
        (row("failed", updated_at=ago(5), reset_count=3), None, "it was reset 3 times already"),
        (row(updated_at=ago(5)), row("failed"), None),
        (row(updated_at=ago(5)), row("completed"), COMPLETED),
        (row(updated_at=ago(5)), row(updated_at=ago(1)), "its manifest is still processing#3"),
        (row(updated_at=ago(5)), row(updated_at=ago(3)), None),
    ],
)  # fmt: skip
def test_why_a_file_is_not_reset(file: Row, manifest: Row | None, reason: str | None) -> None:
    """Its manifest may still end it, or it was reset too often."""
    assert no_reset_because(file, manifest, now=NOW, hours=2, max_resets=3) == reason


def test_resets_are_counted_as_numbers() -> None:
    """A count that is not a number counts as none."""
    assert [resets_of(row(reset_count=count)) for count in (2, "2", None)] == [2, 0, 0]


def test_an_update_compares_what_was_read() -> None:
    """The status, its time, and what is removed; what was absent must still be."""
    update = row_update(row(manifest_path=MANIFEST), {"status": "pending#3"}, ["manifest_path"])
    assert update["UpdateExpression"] == "SET #0 = :0 REMOVE #2"
    assert update["ConditionExpression"].split(" AND ") == [
        "attribute_exists(date_prefix)",
        "#0 = :seen_status",
        "attribute_not_exists(#1)",
        "#2 = :seen_manifest_path",
    ]
    assert update["ExpressionAttributeValues"][":seen_status"] == {"S": "processing#3"}


def stored(key: str, size: float = 1) -> dict[str, Any]:
    return {"Key": key, "Size": size * 1024 * 1024}


ONE_MEGABYTE = Buckets(inputs={"a.ndjson": [stored("x/a.ndjson")]})
ELSEWHERE = PATH.replace("-22/", "-21/")


@pytest.mark.parametrize(
    ("file", "buckets", "types"),
    [
        (row("pending", created_at=ago(1)), Buckets(inputs={}), ["missing_in_s3"]),
        (row("pending", created_at=ago(24 * 8)), Buckets(inputs={}), []),
        (row("pending", created_at=ago(1)), Buckets(), []),
        (row("archived"), Buckets(), ["unknown_status"]),
        (row("pending", file_path=ELSEWHERE), Buckets(), ["wrong_date_partition"]),
        (row("pending", file_size_mb=2.0), ONE_MEGABYTE, ["size_mismatch"]),
        (row("pending", file_size_mb=1.0), ONE_MEGABYTE, []),
        (row("completed"), Buckets(outputs=set()), ["missing_output"]),
        (row("completed"), Buckets(outputs={"any"}), []),
    ],
)  # fmt: skip
def test_a_row_against_the_buckets(file: Row, buckets: Buckets, types: list[str]) -> None:
    """What contradicts it; nothing where S3 did not say it all."""
    found = row_issues(DAY, file, buckets, None, PIPELINE, NOW)
    assert [issue["type"] for issue in found] == types


@pytest.mark.parametrize(
    ("status", "manifest", "types"),
    [
        ("processing", MISSING, ["missing_manifest"]),
        ("completed", MISSING, []),
        ("completed", Manifest(), ["not_in_manifest"]),
        ("completed", LISTS, []),
        ("pending", Manifest(), []),
        ("processing", Manifest(unknown="S3 returned x"), []),
    ],
)
def test_a_row_against_its_manifest(status: str, manifest: Manifest, types: list[str]) -> None:
    """It must be there while it is worked on, and list the file."""
    found = row_issues(DAY, row(status, file_path=PATH), Buckets(), manifest, PIPELINE, NOW)
    assert [issue["type"] for issue in found] == types


def test_objects_against_the_rows() -> None:
    """Two of a name, and one without a row, unless it may be one that was refused."""
    inputs = {"a.ndjson": [stored("x/a.ndjson"), stored("y/a.ndjson")]}
    known = Buckets(inputs=inputs, quarantined=set())
    types = [issue["type"] for issue in object_issues("a.ndjson", [], known)]
    assert types == ["basename_collision", "missing_in_dynamodb"]
    for quarantined in ({"a.ndjson"}, None):
        refused = Buckets(inputs=inputs, quarantined=quarantined)
        (issue,) = object_issues("a.ndjson", [], refused)
        assert issue["type"] == "basename_collision"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status": "x"}, "'status' can't be set"),
        ({f"{n}": n for n in range(101)}, "more than 100 fields"),
        ({"a": "x" * 300 * 1024}, "the fields are larger than 300 KB"),
        ({"a": float("nan")}, "the fields are not JSON that can be stored"),
        ({"a": {"": 1}}, "a name under 'a' is empty or longer than 255 bytes"),
        ({"a": [1, 1e127]}, "a[1] is outside of DynamoDB's range of numbers"),
        ({"a": 10**38 + 1}, "a is outside of DynamoDB's range of numbers"),
    ],
)
def test_why_fields_are_not_stored(fields: dict[str, Any], problem: str) -> None:
    """Each problem names the place."""
    (found,) = field_problems(fields)
    assert found.startswith(problem)
    assert list(field_problems({"a": [None, True, 1.5, 10**37, {"b": "c"}]})) == []
    assert "status" in PROTECTED_FIELDS


def change(old: str | None, new: str | None, name: str = "a.ndjson") -> dict[str, Any]:
    key = {"date_prefix": DAY, "file_key": name}
    images = {"OldImage": old, "NewImage": new}
    written = {image: to_item(key | {"status": s}) for image, s in images.items() if s}
    return {"Keys": to_item(key)} | written


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (change(None, "pending#1"), {"pending": 1}),
        (change("pending#1", "failed#1"), {"pending": -1, "failed": 1}),
        (change("failed#1", None), {"failed": -1}),
        (change("failed#1", "failed"), {}),
        (change(None, "pending", "MANIFEST#m"), {}),
        (change(None, "pending#11"), {}),
    ],
)
def test_what_a_change_moves(given: dict[str, Any], numbers: dict[str, int]) -> None:
    """Files alone, by the statuses of the vocabulary."""
    assert moved_files(given) == numbers


def test_the_counters_are_the_sum_of_their_rows() -> None:
    """With the number of counted changes beside the six statuses."""
    total = summed({0: {"pending": 2, "changes": 3}, 7: {"pending": -1, "changes": 1, "ttl": 5}})
    assert total == {"pending": 1, "changes": 4}
    assert by_status(total) == dict.fromkeys(FileStatus, 0) | {"pending": 1}


def test_a_correction_fails_when_a_change_was_counted_meanwhile() -> None:
    """Every row is compared, marked and told from when on to count; the first has the drift."""
    updates = counter_corrections("metrics", {0: {"changes": 3}}, {"pending": -2}, 1000)
    assert len(updates) == COUNTER_SHARDS
    assert updates[0]["ConditionExpression"] == "changes = :seen"
    assert updates[0]["UpdateExpression"] == "ADD #0 :0, #1 :1 SET counted_from = :from"
    assert updates[1]["ConditionExpression"] == "attribute_not_exists(changes)"
    assert updates[1]["UpdateExpression"] == "ADD #0 :0 SET counted_from = :from"
    assert {update["Key"]["metric_type"]["S"] for update in updates} == {"files_by_status"}
    assert updates[9]["Key"] == counter_update("metrics", 9, {"changes": 1})["Key"]


def test_nothing_is_loaded_that_makes_calls() -> None:
    """The package needs the standard library and jobplane_keys alone."""
    code = "import sys, jobplane_files; print({*sys.modules} & {'botocore', 'pydantic', 'boto3'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
