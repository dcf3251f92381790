"""jobplane_files: rows, manifests, the history of a file, and changes by an operator."""

import itertools
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_files import (
    PROTECTED_FIELDS,
    Change,
    Manifest,
    Manifests,
    Row,
    check_once,
    checked_date,
    checked_key,
    claimed_at,
    disordered,
    field_problems,
    history,
    is_date,
    no_change_because,
    request_problems,
    row_update,
    timeline,
)
from jobplane_keys import from_item, to_item
from jobplane_keys.tracking import MANIFEST_STATUSES, FileStatus, RowKind, may_become
from tests.unit.file_rows import DAY, HOUR, MANIFEST, NOW, PATH, ago, manifest_row, row


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ((DAY, "a.ndjson"), RowKind.FILE),
        ((DAY, "MANIFEST#m.json"), RowKind.MANIFEST),
        (("LOCK#x", "LOCK"), RowKind.LOCK),
    ],
)
def test_kind_of_a_row(key: tuple[str, str], kind: RowKind) -> None:
    """Files, manifests and locks share the table."""
    found = Row(to_item({"date_prefix": key[0], "file_key": key[1]}))
    assert (found.kind, found.is_file) == (kind, kind is RowKind.FILE)
    assert found.label == f"{key[0]}/{key[1]}"


def test_status_in_a_further_shard_is_unknown() -> None:
    """A row knows as many shards as it is given."""
    item = row("pending#12").item
    assert (Row(item).status, Row(item, 20).status) == (None, FileStatus.PENDING)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (MANIFEST, (DAY, "MANIFEST#m.json")),
        ("pending-manifest-1", None),
        ("manifests/m.json", None),
        ("", None),
        (7, None),
        (["s3://b/k"], None),
        (None, None),
        (..., None),
        ("s3://" + "x" * 1100, None),
    ],
)
def test_manifest_key(path: Any, key: tuple[str, str] | None) -> None:
    """Only a path in S3 whose key fits the table leads to a manifest's row."""
    assert row(manifest_path=path).manifest_key == key


@pytest.mark.parametrize(
    ("status", "times", "hours"),
    [
        ("processing", {"updated_at": ago(1), "processing_start_time": ago(5)}, 1.0),
        ("processing", {"processing_start_time": ago(5), "created_at": ago(9)}, 5.0),
        ("processing", {"processing_start_time": ago(3), "manifest_time": ago(4)}, 3.0),
        ("processing", {"manifest_time": ago(4), "created_at": ago(9)}, 4.0),
        ("processing", {"created_at": ago(9), "upload_time": ago(8)}, 9.0),
        ("manifested", {"manifest_time": ago(4), "processing_start_time": ago(1)}, 4.0),
        ("pending", {"upload_time": ago(6), "created_at": None, "manifest_time": ago(1)}, 6.0),
        ("completed", {"completed_time": ago(2), "created_at": ago(9)}, 2.0),
        ("failed", {"failed_time": ago(3), "created_at": ago(9)}, 3.0),
        ("archived", {"created_at": ago(9), "upload_time": ago(8)}, 9.0),
        ("manifested", {"updated_at": None, "manifest_time": int(NOW - 5 * HOUR) * 1000}, 5.0),
        ("processing", {"updated_at": "yesterday", "created_at": ago(9)}, None),
        ("processing", {}, None),
    ],
)
def test_age_of_a_status(status: str, times: dict[str, Any], hours: float | None) -> None:
    """Measured from the first time that the row has, even if that is unreadable."""
    found = row(status, **times)
    assert found.finding(NOW)["hours_stuck"] == hours
    assert found.is_older(0.5, NOW) is (hours is not None)


def test_a_finding_shows_the_row() -> None:
    """Its key, status and age, the manifest if there is one, and what is added."""
    assert row(updated_at=ago(2)).finding(NOW, action="reset") == {
        "date_prefix": DAY, "file_key": "a.ndjson", "status": "processing#3",
        "hours_stuck": 2.0, "since": ago(2), "action": "reset",
    }  # fmt: skip
    assert row(manifest_path=MANIFEST).finding(NOW)["manifest_path"] == MANIFEST


def test_unreadable_times() -> None:
    """By name and value; NULL is not a time."""
    odd = {"updated_at": "yesterday", "manifest_time": True, "created_at": {"a": [1]}}
    more = {"completed_time": "nan", "failed_time": None, "upload_time": ago(1), "ttl": "x"}
    assert row(**odd, **more).unreadable_times() == odd | {"completed_time": "nan"}


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ('{"fileLocations": [{"URIPrefixes": ["s3://b/a%20b"]}]}', {"s3://b/a%20b", "s3://b/a b"}),
        ('{"fileLocations": [{"URIPrefixes": ["x"]}, {"URIPrefixes": ["y"]}]}', {"x", "y"}),
        ('{"fileLocations": []}', set()),
        ('{"fileLocations": [{"URIPrefixes": "s3://b/a"}]}', None),
        ('{"fileLocations": [{"URIPrefixes": [7]}]}', None),
        ('{"fileLocations": [7]}', None),
        ('{"fileLocations": 7}', None),
        *((text, None) for text in ("", "{", "{}", "[]", "7", "null", "[" * 100_000, "\udcff")),
    ],
)
def test_what_a_manifest_lists(text: str, listed: set[str] | None) -> None:
    """The URIs as written and URL-decoded; a malformed manifest is unknown."""
    found = Manifest.read(text.encode("utf-8", "surrogateescape"))
    assert (found.unknown is None, found.listed) == (listed is not None, listed or set())


FOLDER = PATH.rpartition("/")[0] + "/"


@pytest.mark.parametrize(
    ("uri", "file_path", "is_listed"),
    [
        (PATH, PATH, True),
        (FOLDER, PATH, True),
        (FOLDER, f"{FOLDER}sub/a.ndjson", True),
        (FOLDER[:-1], PATH, False),
        (f"{FOLDER}b.ndjson", PATH, False),
        ("s3://elsewhere/a.ndjson", PATH, False),
        ("s3://elsewhere/a.ndjson", None, True),
        ("s3://elsewhere/b.ndjson", None, False),
        ("s3://b/a b", "s3://b/a%20b", True),
        ("s3://b/a+b", "s3://b/a b", True),
        ("s3://b/a%20b", "s3://b/a+b", True),
        ("s3://b/%C3%BC", "s3://b/ü", True),
        ("s3://b/a+b", "s3://b/a+b", True),
    ],
)
def test_a_file_in_a_manifest(uri: str, file_path: str | None, is_listed: bool) -> None:
    """By its path, encoded or not, or a folder of it; without a path by its name."""
    text = json.dumps({"fileLocations": [{"URIPrefixes": [uri]}]})
    assert Manifest.read(text.encode()).lists(row(file_path=file_path)) is is_listed


def test_time_of_a_claim() -> None:
    """Its own time, else the manifest's row, else since when it has its status, else 0."""
    manifest = manifest_row(created_at=ago(2))
    assert claimed_at(row(manifest_time=ago(1)), manifest) == NOW - HOUR
    assert claimed_at(row(updated_at=ago(3)), manifest) == NOW - 2 * HOUR
    assert claimed_at(row(updated_at=ago(3)), None) == NOW - 3 * HOUR
    assert claimed_at(row(), None) == 0


def test_each_manifest_is_read_once() -> None:
    """Rows that do not exist and files without a manifest are not read again either."""
    asked: list[Any] = []
    exists = manifest_row("failed")
    gone = Manifest(unknown="S3 returned AccessDenied")

    def read_rows(keys: set[tuple[str, str]]) -> dict[tuple[str, str], Row]:
        asked.append(sorted(keys))
        return {(DAY, "MANIFEST#m.json"): exists}

    def read_objects(paths: list[str]) -> dict[str, Manifest]:
        asked.append(paths)
        return dict.fromkeys(paths, gone)

    manifests = Manifests(read_rows, read_objects)
    one, other = row(manifest_path=MANIFEST), row(manifest_path=f"{MANIFEST}2")
    none = row(manifest_path="pending-manifest-1")
    assert (manifests.row_of(one), manifests.object_of(one)) == (None, None)
    for files in ([one, none], [one, other], [one, other, none]):
        manifests.look_up_rows(files)
        manifests.look_up_objects(files)
    assert asked == [
        [(DAY, "MANIFEST#m.json")], [MANIFEST], [(DAY, "MANIFEST#m.json2")], [f"{MANIFEST}2"],
    ]  # fmt: skip
    assert [manifests.row_of(file) for file in (one, other, none)] == [exists, None, None]
    assert [manifests.object_of(file) for file in (one, other, none)] == [gone, gone, None]
    assert manifests.unknown() == [
        {"subject": path, "reason": gone.unknown} for path in (MANIFEST, f"{MANIFEST}2")
    ]


def test_history_of_a_file() -> None:
    """Its own times in order, in one form, with the seconds between them; or nothing is known."""
    shown = history(
        row("failed#1", upload_time=int(NOW - 4 * HOUR), failed_time=ago(1)[:-1],
            manifest_time=int(NOW - 3 * HOUR) * 1000, processing_start_time=ago(2),
            error_message="bad line"),
        None,
    )  # fmt: skip
    assert [(event["event"], event["status"]) for event in shown["timeline"]] == [
        ("uploaded", "pending"), ("manifested", "manifested"),
        ("processing_started", "processing"), ("failed", "failed"),
    ]  # fmt: skip
    assert shown["timeline"][3] == {
        "event": "failed", "timestamp": ago(1), "status": "failed", "error": "bad line",
    }  # fmt: skip
    assert (shown["file"], shown["current_status"]) == (f"{DAY}/a.ndjson", "failed")
    assert list(shown["durations_seconds"].values()) == pytest.approx([HOUR] * 3, abs=1)
    assert "manifested_to_processing_started" in shown["durations_seconds"]
    assert shown["total_processing_time"] == sum(shown["durations_seconds"].values())
    assert "anomalies" not in shown
    shown = history(row("archived"), None)
    assert (shown["timeline"], shown["durations_seconds"]) == ([], {})
    assert (shown["total_processing_time"], shown["current_status"]) == (None, None)


def test_anomalies_in_a_history() -> None:
    """Unreadable times of both rows, and steps in an impossible order."""
    shown = history(
        row("completed", created_at=ago(9), manifest_time="soon", processing_start_time=ago(5),
            completed_time=ago(8)),
        manifest_row("completed", completed_time=True),
    )  # fmt: skip
    assert shown["anomalies"] == [
        {"type": "unreadable_time", "attribute": "manifest_time", "value": "soon",
         "row": "a.ndjson"},
        {"type": "unreadable_time", "attribute": "completed_time", "value": True,
         "row": "MANIFEST#m.json"},
        {"type": "out_of_order", "events": ["uploaded", "completed", "processing_started"]},
    ]  # fmt: skip
    assert all(seconds >= 0 for seconds in shown["durations_seconds"].values())


def test_times_from_the_manifest() -> None:
    """A file shares its manifest's times, but its end only when it is at this end itself."""
    manifest = manifest_row(
        "completed", created_at=ago(3), processing_start_time=ago(2), completed_time=ago(1)
    )
    events = timeline(row("manifested#1", created_at=ago(4)), manifest)
    assert [(event["event"], event.get("source")) for event in events] == [
        ("uploaded", None), ("manifested", "manifest"), ("processing_started", "manifest"),
    ]  # fmt: skip
    last = timeline(row("completed#1", updated_at=ago()), manifest)[-1]
    assert (last["event"], last["timestamp"]) == ("completed", NOW - HOUR)
    assert [e["event"] for e in timeline(row("failed"), manifest_row("failed", failed_time=ago()))
            ] == ["failed"]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "event"),
    [("completed#1", "completed"), ("failed", "failed"), ("quarantined#2", "quarantined"),
     ("processing", "processing_started"), ("manifested#3", "manifested")],
)  # fmt: skip
def test_last_change_as_an_event(status: str, event: str) -> None:
    """Without another time of its status, updated_at is used, except for pending."""
    (found,) = timeline(row(status, updated_at=ago(1)), None)
    assert found == {
        "event": event, "timestamp": NOW - HOUR, "status": status.partition("#")[0],
        "source": "updated_at",
    }  # fmt: skip
    assert timeline(row("pending", updated_at=ago(1)), None) == []


def test_timeline_with_a_reset() -> None:
    """Steps before and after a reset are each in order."""
    file = row("pending", created_at=ago(9), failed_time=ago(5), last_reset_time=ago(4),
               reset_count=2, manifest_time=ago(3))  # fmt: skip
    events = timeline(file, None)
    assert [event["event"] for event in events] == ["uploaded", "failed", "reset", "manifested"]
    assert events[2]["reset_count"] == 2
    assert list(disordered(events)) == []
    swapped = [events[1], events[0], *events[2:]]
    assert list(disordered(swapped)) == [["failed", "uploaded"]]


@pytest.mark.parametrize("is_manifest", [False, True])
def test_refused_steps(is_manifest: bool) -> None:
    """Steps of the pipeline need no force; a manifest never gets the statuses of files alone."""
    make, kind = (manifest_row, RowKind.MANIFEST) if is_manifest else (row, RowKind.FILE)
    for old, new in itertools.product(FileStatus, FileStatus):
        forced = no_change_because(make(old), new, force=True)
        plain = no_change_because(make(old), new)
        if is_manifest and new not in MANIFEST_STATUSES:
            assert forced == plain == f"is a manifest and can't be {new}"
        else:
            assert forced is None
            text = f"can't go from {old} to {new} without force and a reason"
            assert plain == (None if may_become(kind, old, new) else text)


def test_an_expected_status_ignores_the_shard() -> None:
    """Force does not make up for another status."""
    file = row("processing#3")
    wanted = FileStatus.FAILED
    assert no_change_because(file, wanted, expected=FileStatus.PROCESSING) is None
    reason = no_change_because(file, wanted, expected=FileStatus.MANIFESTED, force=True)
    assert reason == "is processing#3, not manifested"


@pytest.mark.parametrize(
    ("stored", "new"),
    [("pending#7", "manifested#7"), ("pending", "manifested"), ("archived", "manifested"),
     (..., "manifested"), (None, "manifested")],
)  # fmt: skip
def test_a_change_records_itself(stored: Any, new: str) -> None:
    """It keeps the shard, and writes who, why, when, and the status before."""
    file = row(stored)
    change = Change(FileStatus.MANIFESTED, "ann", "by hand", {"size": 1.5}, ("manifest_path",))
    update = change.update(file, NOW)
    assert written(update) == {
        "status": new, "previous_status": stored if isinstance(stored, str) else None,
        "last_changed_by": "ann", "last_changed_reason": "by hand", "updated_at": ago(),
        "size": 1.5,
    }  # fmt: skip
    places = {name: place for place, name in update["ExpressionAttributeNames"].items()}
    assert update["UpdateExpression"].endswith(f" REMOVE {places['manifest_path']}")


def written(update: dict[str, Any]) -> dict[str, Any]:
    """The attributes that an UpdateItem sets."""
    names = update["ExpressionAttributeNames"]
    values = from_item(update["ExpressionAttributeValues"])
    steps = update["UpdateExpression"].removeprefix("SET ").partition(" REMOVE ")[0].split(", ")
    pairs = (step.split(" = ") for step in steps)
    return {names[place]: values[value] for place, value in pairs}


def test_an_update_compares_what_was_read() -> None:
    """The status, its time, and what is removed; what was absent must still be absent."""
    update = row_update(row(manifest_path=MANIFEST), {"status": "pending#3"}, ["manifest_path"])
    assert update["Key"] == to_item({"date_prefix": DAY, "file_key": "a.ndjson"})
    assert update["UpdateExpression"] == "SET #0 = :0 REMOVE #2"
    assert update["ConditionExpression"].split(" AND ") == [
        "attribute_exists(date_prefix)",
        "#0 = :seen_status",
        "attribute_not_exists(#1)",
        "#2 = :seen_manifest_path",
    ]
    assert update["ExpressionAttributeNames"] == {"#0": "status", "#1": "updated_at",
                                                  "#2": "manifest_path"}  # fmt: skip
    assert update["ExpressionAttributeValues"] == {
        ":0": {"S": "pending#3"}, ":seen_status": {"S": "processing#3"},
        ":seen_manifest_path": {"S": MANIFEST},
    }  # fmt: skip


@pytest.mark.parametrize(
    "stored", [{"N": "1795342530.250"}, {"NULL": True}, {"L": [{"S": "x"}]}, {"S": "nonsense"}]
)
def test_an_update_compares_times_as_stored(stored: dict[str, Any]) -> None:
    """In the type and spelling of the table, whatever that is."""
    file = Row(row().item | {"updated_at": stored})
    values = row_update(file, {"status": "failed"})["ExpressionAttributeValues"]
    assert values[":seen_updated_at"] == stored


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text(), min_size=1, max_size=6))
def test_an_update_takes_any_name(fields: dict[str, Any]) -> None:
    """Reserved words, dots and placeholders stand in the names, never in the expression."""
    update = row_update(row(updated_at=ago()), fields)
    assert written(update) == fields
    allowed = set("SET#:=, 0123456789")
    assert set(update["UpdateExpression"]) <= allowed


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        *(({name: 1}, f"{name!r} can't be set") for name in sorted(PROTECTED_FIELDS)),
        ({f"{n}": n for n in range(101)}, "more than 100 fields"),
        ({"a": "x" * 300 * 1024}, "the fields are larger than 300 KB"),
        ({"a": math.nan}, "the fields are not JSON that can be stored"),
        ({"a": [math.inf]}, "the fields are not JSON that can be stored"),
        ({"a": json.loads("[" * 5000 + "]" * 5000)}, "a[0][0][0]"),
        ({"a": json.loads("[" * 32 + "]" * 32)}, "a[0][0][0]"),
        ({"": 1}, "a name under 'it' is empty or longer than 255 bytes"),
        ({"x" * 256: 1}, "a name under 'it' is empty or longer than 255 bytes"),
        ({"a": {"": 1}}, "a name under 'a' is empty or longer than 255 bytes"),
        *(({"a": [1, number]}, "a[1] is outside of DynamoDB's range of numbers")
          for number in (1e127, 1e126, 1e-131, 10**126, 10**38 + 1, int("1" * 39))),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_fields_that_can_not_be_stored(fields: dict[str, Any], problem: str) -> None:
    """Each problem names the place."""
    (found,) = field_problems(fields)
    assert found.startswith(problem)


def test_fields_that_can_be_stored() -> None:
    """Any JSON up to DynamoDB's limits."""
    values = {"a": [None, True, 1.5, {"b": "c"}], "#0": 1, "a.b": {}, "size": "",
              "numbers": [int("1" * 38), 10**37, 10**125, 1e-130, -1e125, 0, 0.0],
              "x" * 255: "y" * 200_000, "deep": json.loads("[" * 31 + "]" * 31)}  # fmt: skip
    assert list(field_problems(values)) == []


@pytest.mark.parametrize(
    "text",
    ["", "2025-02-30", "2025-1-1", "2025-01-01T00:00", "LOCK#x", " 2025-01-01", "٢٠٢٥-٠١-٠١"],
)
def test_texts_that_are_not_dates(text: str) -> None:
    """A date has exactly one form."""
    assert (is_date(text), is_date(DAY), checked_date(DAY)) == (False, True, DAY)
    with pytest.raises(ValueError, match="expected a date|out of range|day"):
        checked_date(text)


def test_other_checks_of_a_request() -> None:
    """Keys fit the table, and each file is changed once."""
    assert checked_key("ü" * 512) == "ü" * 512
    with pytest.raises(ValueError, match="is longer than 1024 bytes"):
        checked_key("ü" * 513)
    check_once(["a", "b"])
    with pytest.raises(ValueError, match="has more than one change of a, c$"):
        check_once(["a", "b", "a", "c", "c"])


def test_problems_of_a_request() -> None:
    """Each names its field as a path."""
    errors = [
        {"loc": ("files", 2, "new_status"), "msg": "Value error, is wrong"},
        {"loc": (), "msg": "is not an object"},
    ]
    assert request_problems(errors) == [
        {"field": "files[2].new_status", "message": "files[2].new_status: is wrong"},
        {"field": "request", "message": "request: is not an object"},
    ]


def test_no_heavy_imports() -> None:
    """The package needs the standard library and jobplane_keys alone."""
    code = "import sys, jobplane_files; print({*sys.modules} & {'botocore', 'pydantic', 'boto3'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
