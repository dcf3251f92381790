"""state-manager: a date's rows against the buckets, and nothing said that is not known."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.manager import DAY, HOUR, Manager, ago, file, manifest

NAME = "a.ndjson"
BYTES = 1_048_576


def validate(manager: Manager, **request: Any) -> Any:
    return manager.body("validate_consistency", date_prefix=DAY, **request)


def issues(manager: Manager) -> list[tuple[str, str]]:
    """Type and name of all that does not fit."""
    body = validate(manager)
    assert body["issues_found"] == len(body["issues"])
    return [(issue["type"], issue["file_key"]) for issue in body["issues"]]


def upload(manager: Manager, name: str = NAME, body: bytes = b"", folder: str = "") -> None:
    manager.lay("input", f"pipeline/input/{DAY}/{folder}{name}", body)


def test_what_fits_is_no_issue(manager: Manager) -> None:
    """A row, its object of the same size, its manifest and its output."""
    path = manager.publish("b.json", NAME)
    manager.put(file(status="completed#1", file_path=manager.path(NAME), file_size_mb=0.000001,
                     manifest_path=path), manifest("b.json", "completed"))  # fmt: skip
    upload(manager, body=b"1")
    upload(manager, "notes.txt")
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/part-0.parquet")
    body = validate(manager)
    assert (body["db_file_count"], body["s3_file_count"], body["issues"]) == (1, 1, [])
    assert body["unknown"] == []


def test_an_object_without_a_row(manager: Manager) -> None:
    """Its event was lost; what was refused lies in the quarantine and needs none."""
    upload(manager)
    upload(manager, "refused.ndjson")
    upload(manager, "deep.ndjson", folder="source/7/")
    manager.lay("quarantine", f"quarantine/{DAY}/refused.ndjson")
    body = validate(manager)
    assert body["issues"] == [
        {"type": "missing_in_dynamodb", "file_key": NAME, "key": f"pipeline/input/{DAY}/{NAME}"},
        {"type": "missing_in_dynamodb", "file_key": "deep.ndjson",
         "key": f"pipeline/input/{DAY}/source/7/deep.ndjson"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "is_missing"),
    [
        ({"status": "pending#1"}, True),
        ({"status": "failed"}, True),
        ({"status": "completed#1"}, False),
        ({"status": "quarantined"}, False),
        ({"status": "failed", "created_at": ago(6.9 * 24 * HOUR)}, True),
        ({"status": "failed", "created_at": ago(7.1 * 24 * HOUR)}, False),
        ({"status": "failed", "upload_time": ago(8 * 24 * HOUR)}, False),
        ({"status": "failed", "created_at": "?", "upload_time": None}, True),
    ],
)
def test_a_row_without_an_object(manager: Manager, row: dict[str, Any], is_missing: bool) -> None:
    """Not of what was read or refused, nor of what the lifecycle has removed."""
    manager.put(file(**row))
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/p")
    assert issues(manager) == ([("missing_in_s3", NAME)] if is_missing else [])


def test_an_old_date_without_times(manager: Manager) -> None:
    """Then the date itself tells that the lifecycle has been there, however old it is."""
    for day in ("2026-11-01", "0001-01-01"):
        manager.put({"date_prefix": day, "file_key": NAME, "status": "failed"})
        assert manager.body("validate_consistency", date_prefix=day)["issues"] == []


@pytest.mark.parametrize(
    ("key", "name"),
    [("a%20b.ndjson", "a b.ndjson"), ("a+b.ndjson", "a b.ndjson"), ("a+b.ndjson", "a+b.ndjson"),
     ("%C3%BC.ndjson", "ü.ndjson"), ("100%.ndjson", "100%.ndjson")],
)  # fmt: skip
def test_an_encoded_key_is_the_same_key(manager: Manager, key: str, name: str) -> None:
    """Events carry keys encoded, and so do some rows."""
    manager.put(file(key, file_path=manager.path(key), file_size_mb=0.0))
    upload(manager, name)
    assert issues(manager) == []


def test_only_ndjson_counts(manager: Manager) -> None:
    """On both sides."""
    manager.put(file("a.csv"), file("b.ndjson.gz"), file("c.NDJSON"))
    upload(manager, "d.csv")
    body = validate(manager)
    assert (body["db_file_count"], body["s3_file_count"], body["issues"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("recorded", "differs"),
    [(1, False), (1.009, False), (1.02, True), (0.98, True), (None, False), ("1.5", False),
     (True, False), (0, True)],
)  # fmt: skip
def test_a_size(manager: Manager, recorded: Any, differs: bool) -> None:
    """A hundredth of a megabyte is rounding; what is no number says nothing."""
    manager.put(file(file_size_mb=recorded))
    upload(manager, body=b"x" * BYTES)
    body = validate(manager)
    expected = {"type": "size_mismatch", "file_key": NAME, "status": "pending#3",
                "db_size_mb": recorded, "s3_size_mb": 1.0}  # fmt: skip
    assert body["issues"] == ([expected] if differs else [])


def test_one_name_in_two_folders(manager: Manager) -> None:
    """The second was lost, for it has no row; the size is that of the row's own object."""
    manager.put(file(file_path=manager.path(f"x/{NAME}"), file_size_mb=1))
    upload(manager, body=b"", folder="a/")
    upload(manager, body=b"x" * BYTES, folder="x/")
    (issue,) = validate(manager)["issues"]
    assert issue == {
        "type": "basename_collision",
        "file_key": NAME,
        "keys": [f"pipeline/input/{DAY}/a/{NAME}", f"pipeline/input/{DAY}/x/{NAME}"],
    }


def test_a_row_under_another_date(manager: Manager) -> None:
    """It is told by the path; whether its object is there is that date's question."""
    manager.put(file(file_path=manager.path(NAME, "2026-11-20")))
    manager.put(file("b.ndjson", file_path=f"s3://elsewhere/2026-11-20/{NAME}"))
    upload(manager, "b.ndjson")
    (issue,) = validate(manager)["issues"]
    assert (issue["type"], issue["expected_date"]) == ("wrong_date_partition", "2026-11-20")


@pytest.mark.parametrize("prefix", ["", "landing/"])
def test_another_layout(manager: Manager, monkeypatch: Any, prefix: str) -> None:
    """The prefix may be any, also none."""
    pipeline = replace(manager.module.PIPELINE, input_prefix=prefix)
    monkeypatch.setattr(manager.module, "PIPELINE", pipeline)
    root = f"s3://{manager.buckets['input']}/{prefix}"
    manager.put(
        file(file_path=f"{root}{DAY}/{NAME}"), file("b.ndjson", file_path=f"{root}2026-11-20/b")
    )
    manager.lay("input", f"{prefix}{DAY}/{NAME}")
    assert issues(manager) == [("wrong_date_partition", "b.ndjson")]


@pytest.mark.parametrize(
    ("output_path", "is_missing"),
    [
        (None, False),
        ("", False),
        ("{where}part-0.parquet", False),
        ("{where}", False),
        ("{where}part-1.parquet", True),
        ("s3://elsewhere/part-1.parquet", False),
        (7, False),
    ],
)
def test_an_output(manager: Manager, output_path: Any, is_missing: bool) -> None:
    """What the row names has to be there; without a path of the date's output, any of it."""
    where = f"s3://{manager.buckets['output']}/pipeline/output/merged-parquet-{DAY}/"
    if isinstance(output_path, str):
        output_path = output_path.format(where=where)
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/part-0.parquet")
    manager.put(file(status="completed#1", output_path=output_path))
    assert issues(manager) == ([("missing_output", NAME)] if is_missing else [])


def test_a_date_without_output(manager: Manager) -> None:
    """Every completed file misses it, and no other."""
    manager.put(file(status="completed"), file("b.ndjson", "processing"))
    upload(manager, "b.ndjson")
    (issue,) = validate(manager)["issues"]
    assert (issue["type"], issue["file_key"]) == ("missing_output", NAME)
    assert issue["output_path"].endswith(f"/pipeline/output/merged-parquet-{DAY}/")


@pytest.mark.parametrize(
    ("status", "missing", "unlisted"),
    [
        ("manifested", True, True),
        ("processing#1", True, True),
        ("completed#1", False, True),
        ("pending", False, False),
        ("failed", False, False),
        ("quarantined", False, False),
    ],
)
def test_a_manifest(manager: Manager, status: str, missing: bool, unlisted: bool) -> None:
    """It must be there for what is in flight, and list what it has taken."""
    path = manager.manifest_path("b.json")
    manager.put(file(status=status, manifest_path=path))
    upload(manager)
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/p")
    assert issues(manager) == ([("missing_manifest", NAME)] if missing else [])
    manager.publish("b.json", "another.ndjson")
    assert issues(manager) == ([("not_in_manifest", NAME)] if unlisted else [])


def test_an_expired_manifest_is_no_issue(manager: Manager) -> None:
    """Beyond the lifecycle it has to be gone."""
    path = manager.manifest_path("b.json")
    manager.put(file(status="manifested", manifest_path=path, manifest_time=ago(73 * HOUR)))
    upload(manager)
    calls = manager.calls(manager.module.s3())
    assert issues(manager) == []
    assert "GetObject" not in calls.counts()


@pytest.mark.parametrize("status", ["archived", "PENDING", "pending#99", "completed#"])
def test_an_unknown_status(manager: Manager, status: str) -> None:
    """No other operation sees such a file."""
    manager.put(file(status=status))
    upload(manager)
    assert issues(manager) == [("unknown_status", NAME)]


@pytest.mark.parametrize("subject", ["input", "output", "quarantine"])
@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("SlowDown", 503)])
def test_an_unlisted_bucket_is_unknown(
    manager: Manager, subject: str, code: str, status: int
) -> None:
    """Of what it would tell nothing is missing."""
    manager.put(file("done", "completed"), file("waiting.ndjson"))
    upload(manager, "unknown.ndjson")
    manager.refuse("ListObjectsV2", code, status, when=f"{subject}/")
    body = validate(manager)
    assert body["unknown"] == [{"subject": subject, "reason": f"S3 returned {code}"}]
    types = {issue["type"] for issue in body["issues"]}
    all_types = {"missing_in_dynamodb", "missing_in_s3", "missing_output"}
    silent = {
        "input": {"missing_in_dynamodb", "missing_in_s3"},
        "output": {"missing_output"},
        "quarantine": {"missing_in_dynamodb"},
    }[subject]
    assert types == all_types - silent
    assert (body["s3_file_count"] is None) == (subject == "input")


def test_half_a_listing_is_unknown(manager: Manager) -> None:
    """The second page fails: the first one's objects alone would make the rest seem lost."""
    for number in range(3):
        upload(manager, f"{number}.ndjson")
    manager.put(file("2.ndjson"))
    manager.list_by(2)
    manager.refuse("ListObjectsV2", "SlowDown", 503, when="continuation-token")
    body = validate(manager)
    assert [unknown["subject"] for unknown in body["unknown"]] == ["input"]
    assert (body["issues"], body["s3_file_count"]) == ([], None)


def test_an_unread_manifest_is_unknown(manager: Manager) -> None:
    """It lists nobody, and misses nobody."""
    path = manager.publish("b.json", "another")
    manager.put(file(status="manifested", manifest_path=path))
    upload(manager)
    manager.refuse("GetObject", "AccessDenied", 403)
    body = validate(manager)
    assert body["unknown"] == [{"subject": path, "reason": "S3 returned AccessDenied"}]
    assert body["issues"] == []


def test_a_listing_that_takes_too_long_is_unknown(manager: Manager) -> None:
    """Time ends between its pages: nothing is said of what was not listed."""
    for number in range(3):
        upload(manager, f"{number}.ndjson")
    manager.put(file("2.ndjson"))
    manager.list_by(2)
    body = validate(manager, seconds=0)
    assert body["unknown"] == [{"subject": "input", "reason": "the listing timed out"}]
    assert body["issues"] == []


def test_manifests_are_no_files(manager: Manager) -> None:
    """They are in the same date, and not in the input."""
    manager.put(manifest("b.json", "pending"), manifest("c.ndjson", "processing"))
    body = validate(manager)
    assert (body["db_file_count"], body["issues"]) == (0, [])


@pytest.mark.parametrize("full", [0, 700])
def test_it_goes_on_where_it_ended(manager: Manager, monkeypatch: Any, full: int) -> None:
    """Without time, or with little room: each issue is in one part, and the counts are of all."""
    if full:
        monkeypatch.setattr(manager.module, "FULL_BYTES", full)
    for number in range(8):
        manager.put(file(f"row-{number}.ndjson"))
        upload(manager, f"object-{number}.ndjson")
    pages = list(manager.parts("validate_consistency", seconds=300 if full else 0, date_prefix=DAY))
    found = [issue["file_key"] for page in pages for issue in page["issues"]]
    expected = [f"{kind}-{n}.ndjson" for kind in ("object", "row") for n in range(8)]
    assert sorted(found) == expected
    assert len(pages) > 1
    assert all(page["truncated"] for page in pages[:-1])
    assert pages[-1]["db_file_count"] == 8
