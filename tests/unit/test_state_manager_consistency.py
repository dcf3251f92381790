"""state-manager: `validate_consistency` reads rows, manifests and buckets, and reports doubts."""

from typing import Any

import pytest

from tests.unit.manager import DAY, HOUR, Manager, ago, file, manifest

NAME = "a.ndjson"


def validate(manager: Manager, **request: Any) -> Any:
    return manager.body("validate_consistency", date_prefix=DAY, **request)


def issues(manager: Manager) -> list[tuple[str, str]]:
    """Type and name of every issue."""
    body = validate(manager)
    assert body["issues_found"] == len(body["issues"])
    return [(issue["type"], issue["file_key"]) for issue in body["issues"]]


def upload(manager: Manager, name: str = NAME, body: bytes = b"", folder: str = "") -> None:
    manager.lay("input", f"pipeline/input/{DAY}/{folder}{name}", body)


def test_a_date_without_issues(manager: Manager) -> None:
    """A row, its object of the same size, its manifest and its output; manifests are not files."""
    path = manager.publish("b.json", NAME)
    manager.put(
        file(status="completed#1", file_path=manager.path(NAME), file_size_mb=0.000001,
             manifest_path=path),
        file("a.csv"), manifest("b.json", "completed"), manifest("c.ndjson", "processing"),
    )  # fmt: skip
    upload(manager, body=b"1")
    upload(manager, "notes.txt")
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/part-0.parquet")
    body = validate(manager)
    assert (body["db_file_count"], body["s3_file_count"], body["issues"]) == (1, 1, [])
    assert body["unknown"] == []


def test_an_object_without_a_row(manager: Manager) -> None:
    """In any folder of the date; an object in the quarantine needs no row."""
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


def test_issues_of_rows(manager: Manager) -> None:
    """Each part of the date's state is compared; issues are sorted by type and name."""
    manager.publish("b.json", "another.ndjson")
    listed = {"manifest_path": manager.manifest_path("b.json")}
    gone = {"manifest_path": manager.manifest_path("gone.json")}
    manager.put(
        file("1.ndjson"), file("2.ndjson", file_size_mb=3), file("3.ndjson", "archived"),
        file("4.ndjson", file_path=manager.path("4.ndjson", "2026-11-20")),
        file("5.ndjson", "completed"), file("6.ndjson", "processing", **listed),
        file("7.ndjson", "manifested", **gone),
    )  # fmt: skip
    for number in (2, 3, 6, 7):
        upload(manager, f"{number}.ndjson")
    upload(manager, "2.ndjson", folder="x/")
    assert issues(manager) == [
        ("basename_collision", "2.ndjson"), ("missing_in_s3", "1.ndjson"),
        ("missing_manifest", "7.ndjson"), ("missing_output", "5.ndjson"),
        ("not_in_manifest", "6.ndjson"), ("size_mismatch", "2.ndjson"),
        ("unknown_status", "3.ndjson"), ("wrong_date_partition", "4.ndjson"),
    ]  # fmt: skip


def test_an_expired_manifest_is_not_read(manager: Manager) -> None:
    """Beyond the lifecycle it can't exist."""
    path = manager.manifest_path("b.json")
    manager.put(file(status="manifested", manifest_path=path, manifest_time=ago(73 * HOUR)))
    upload(manager)
    calls = manager.calls(manager.module.s3())
    assert issues(manager) == []
    assert "GetObject" not in calls.counts()


@pytest.mark.parametrize("subject", ["input", "output", "quarantine"])
def test_an_unlisted_bucket_is_unknown(manager: Manager, subject: str) -> None:
    """None of its files is reported as missing."""
    manager.put(file("done", "completed"), file("waiting.ndjson"))
    upload(manager, "unknown.ndjson")
    manager.refuse("ListObjectsV2", "AccessDenied", 403, when=f"{subject}/")
    body = validate(manager)
    assert body["unknown"] == [{"subject": subject, "reason": "S3 returned AccessDenied"}]
    types = {issue["type"] for issue in body["issues"]}
    silent = {
        "input": {"missing_in_dynamodb", "missing_in_s3"},
        "output": {"missing_output"},
        "quarantine": {"missing_in_dynamodb"},
    }[subject]
    assert types == {"missing_in_dynamodb", "missing_in_s3", "missing_output"} - silent
    assert (body["s3_file_count"] is None) == (subject == "input")


@pytest.mark.parametrize(
    ("seconds", "reason"), [(300, "S3 returned SlowDown"), (0, "the listing timed out")]
)
def test_an_incomplete_listing_is_unknown(manager: Manager, seconds: int, reason: str) -> None:
    """Its second page fails: the first one alone would make the other files seem lost."""
    for number in range(3):
        upload(manager, f"{number}.ndjson")
    manager.put(file("2.ndjson"))
    manager.list_by(2)
    if seconds:
        manager.refuse("ListObjectsV2", "SlowDown", 503, when="continuation-token")
    body = validate(manager, seconds=seconds)
    assert body["unknown"] == [{"subject": "input", "reason": reason}]
    assert (body["issues"], body["s3_file_count"]) == ([], None)


def test_an_unread_manifest_is_unknown(manager: Manager) -> None:
    """It does not fail to list the file either."""
    path = manager.publish("b.json", "another")
    manager.put(file(status="manifested", manifest_path=path))
    upload(manager)
    manager.refuse("GetObject", "AccessDenied", 403)
    body = validate(manager)
    assert body["unknown"] == [{"subject": path, "reason": "S3 returned AccessDenied"}]
    assert body["issues"] == []


@pytest.mark.parametrize("full", [0, 700])
def test_an_answer_in_parts(manager: Manager, monkeypatch: Any, full: int) -> None:
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
