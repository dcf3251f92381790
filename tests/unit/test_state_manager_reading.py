"""state-manager: one file, the files of a date or a status, and the history of a file."""

from typing import Any

import pytest

from jobplane_keys import from_item
from tests.unit.manager import DAY, HOUR, Manager, ago, file, manifest


def names(body: Any) -> list[str]:
    return [found["file_key"] for found in body["files"]]


def test_a_row_by_its_key(manager: Manager) -> None:
    """A row of any kind; 404 if it does not exist."""
    manager.put(file(size=1), manifest("b.json", "pending"))
    assert manager.body("get_file_state", date_prefix=DAY, file_key="a.ndjson")["file"]["size"] == 1
    found = manager.body("get_file_state", date_prefix=DAY, file_key="MANIFEST#b.json")
    assert found["file"]["status"] == "pending"
    status, body = manager.ask("get_file_state", date_prefix=DAY, file_key="b.ndjson")
    assert (status, body) == (404, {"error": f"{DAY}/b.ndjson does not exist"})


def test_the_files_of_a_date(manager: Manager) -> None:
    """By name; manifests are not files and are not read."""
    manager.put(file("Z"), file("A"), file("MANIFEST"), file("b"), file("MANIFEST$"))
    manager.put(*(manifest(f"{n}.json", "completed") for n in range(30)))
    manager.put(file("x") | {"date_prefix": "2026-11-21"})
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("get_file_state", date_prefix=DAY)
    assert names(body) == ["A", "MANIFEST", "MANIFEST$", "Z", "b"]
    assert (body["count"], "next_token" in body) == (5, False)
    assert calls.counts() == {"Query": 2}
    assert all(call["ConsistentRead"] for call in calls.of("Query"))


def test_pages_of_a_date_have_each_file_once(manager: Manager) -> None:
    """In both parts of the date; a token says that there is more."""
    keys = ["#", "A", "M", "MANIFEST", "MANIFEST$", "N", "a", "z"]
    manager.put(*(file(key) for key in keys), manifest("b", "pending"), manifest("", "failed"))
    pages = list(manager.parts("get_file_state", date_prefix=DAY, limit=3))
    assert [names(page) for page in pages] == [keys[:3], keys[3:6], keys[6:]]
    assert not any("truncated" in page for page in pages)
    assert "next_token" not in manager.body("get_file_state", date_prefix=DAY, limit=8)


def test_a_range_of_dates(manager: Manager) -> None:
    """Both ends are included, and one may be open."""
    manager.put(*(file(str(n)) | {"date_prefix": f"2026-11-0{n}"} for n in range(1, 5)))
    for date_range, found in (
        ({"start": "2026-11-02", "end": "2026-11-03"}, ["2", "3"]),
        ({"start": "2026-11-03"}, ["3", "4"]),
        ({"end": "2026-11-02"}, ["1", "2"]),
    ):
        body = manager.body("query_by_status", status="pending", date_range=date_range)
        assert names(body) == found


def test_a_status_is_read_in_all_its_forms(manager: Manager) -> None:
    """Ten shards and the plain value, oldest date first; manifests are left out."""
    manager.put(*(file(f"{n}", f"failed#{n}") | {"date_prefix": f"2026-10-1{n}"} for n in range(9)))
    manager.put(file("plain", "failed") | {"date_prefix": "2026-10-09"}, manifest("m", "failed"))
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("query_by_status", status="failed")
    assert names(body) == ["plain", *(str(n) for n in range(9))]
    asked = {from_item(c["ExpressionAttributeValues"])[":status"] for c in calls.of("Query")}
    assert asked == {"failed", *(f"failed#{n}" for n in range(10))}
    assert manager.body("query_by_status", status="completed")["count"] == 0


def test_pages_of_a_status_have_each_file_once_by_date(manager: Manager) -> None:
    """Over several shards and dates."""
    for number in range(24):
        status = "pending" if number % 5 == 4 else f"pending#{number % 5}"
        manager.put(file(f"{number}", status) | {"date_prefix": f"2026-11-0{1 + number % 4}"})
    manager.put(*(manifest(f"{n}", "pending") for n in range(20)))
    pages = list(manager.parts("query_by_status", status="pending", limit=7))
    found = [row for page in pages for row in page["files"]]
    assert sorted(int(row["file_key"]) for row in found) == list(range(24))
    dates = [row["date_prefix"] for row in found]
    assert dates == sorted(dates)
    assert [page["count"] for page in pages] == [7, 7, 7, 3]


def test_a_row_that_changes_between_pages(manager: Manager) -> None:
    """Every row that does not change is on one page."""
    manager.put(*(file(f"{n:02}", f"pending#{n % 3}") for n in range(12)))
    first = manager.body("query_by_status", status="pending", limit=5)
    seen = names(first)
    gone = next(f"{n:02}" for n in range(12) if f"{n:02}" not in seen)
    manager.put(file(gone, "completed#1"), file("00-new", "pending#2"))
    token = first["next_token"]
    rest = [
        name
        for page in manager.parts("query_by_status", status="pending", limit=5)
        for name in names(page)
    ]
    second = names(manager.body("query_by_status", status="pending", next_token=token))
    kept = {f"{n:02}" for n in range(12)} - {gone}
    assert {*seen, *second} - {"00-new"} == kept
    assert not set(seen) & set(second)
    assert gone not in rest


def test_a_plain_status_full_of_manifests(manager: Manager) -> None:
    """Pages grow while they have no files, so a file behind many manifests is soon found."""
    manager.put(*(manifest(f"{n:04}", "completed") for n in range(150)))
    manager.put(file("a.ndjson", "completed"))
    calls = manager.calls(manager.module.dynamodb)
    assert names(manager.body("query_by_status", status="completed", limit=1)) == ["a.ndjson"]
    assert calls.counts()["Query"] < 22


def test_a_large_answer_comes_in_parts(manager: Manager) -> None:
    """Lambda can return each part, and together they have all."""
    manager.put(*(file(f"{n:02}", blob='"\n' * 90_000) for n in range(12)))
    for operation in ("get_file_state", "query_by_status"):
        question = {"date_prefix": DAY} if operation == "get_file_state" else {"status": "pending"}
        pages = list(manager.parts(operation, **question))
        assert [name for page in pages for name in names(page)] == [f"{n:02}" for n in range(12)]
        assert len(pages) > 1
        assert all(page["truncated"] for page in pages[:-1])
        answer = manager.module.handler({"operation": operation, **question}, manager.context())
        assert len(str(answer).encode()) < 6_000_000


@pytest.mark.parametrize(
    ("operation", "question"),
    [("get_file_state", {"date_prefix": DAY}), ("query_by_status", {"status": "pending"})],
)
def test_without_time_it_goes_on_in_parts(
    manager: Manager, operation: str, question: dict[str, str]
) -> None:
    """Each part advances, and together they have all."""
    manager.put(*(file(f"{n}", f"pending#{n}") for n in range(6)))
    pages = list(manager.parts(operation, seconds=0, **question))
    assert sorted(name for page in pages for name in names(page)) == [f"{n}" for n in range(6)]
    assert all(page["truncated"] for page in pages[:-1])


def history(manager: Manager, name: str = "a.ndjson") -> Any:
    return manager.body("get_processing_timeline", date_prefix=DAY, file_key=name)


def test_history_of_a_file(manager: Manager) -> None:
    """Its own times, and those of its manifest's row."""
    manager.put(
        file(status="manifested#1", created_at=ago(4 * HOUR),
             manifest_path=manager.manifest_path("b.json")),
        manifest("b.json", "completed", created_at=ago(3 * HOUR), completed_time=ago(HOUR)),
    )  # fmt: skip
    body = history(manager)
    assert [(event["event"], event.get("source")) for event in body["timeline"]] == [
        ("uploaded", None), ("manifested", "manifest"),
    ]  # fmt: skip
    assert body["durations_seconds"] == {"uploaded_to_manifested": HOUR}


@pytest.mark.parametrize("path", [None, "pending-manifest-2026-11-22-1-1"])
def test_a_file_without_a_manifest(manager: Manager, path: Any) -> None:
    """Nothing else is read."""
    manager.put(file(manifest_path=path, created_at=ago(9)))
    calls = manager.calls(manager.module.dynamodb)
    assert [event["event"] for event in history(manager)["timeline"]] == ["uploaded"]
    assert calls.counts() == {"GetItem": 1}
