"""state-manager: one file, files of a date or of a status, and what happened to a file."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobplane_keys import from_item
from tests.unit.manager import DAY, HOUR, NOW, Manager, ago, file, manifest

PROPERTY = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def names(body: Any) -> list[str]:
    return [found["file_key"] for found in body["files"]]


def test_a_row_by_its_key(manager: Manager) -> None:
    """Of any kind; what is not there is 404."""
    manager.put(file(size=1), manifest("b.json", "pending"))
    assert manager.body("get_file_state", date_prefix=DAY, file_key="a.ndjson")["file"]["size"] == 1
    found = manager.body("get_file_state", date_prefix=DAY, file_key="MANIFEST#b.json")
    assert found["file"]["status"] == "pending"
    status, body = manager.ask("get_file_state", date_prefix=DAY, file_key="b.ndjson")
    assert (status, body) == (404, {"error": f"{DAY}/b.ndjson does not exist"})


def test_the_files_of_a_date(manager: Manager) -> None:
    """By name, on both sides of the manifests, which are no files and are not read."""
    manager.put(file("Z"), file("A"), file("MANIFEST"), file("b"), file("MANIFEST$"))
    manager.put(*(manifest(f"{n}.json", "completed") for n in range(30)))
    manager.put(file("x") | {"date_prefix": "2026-11-21"})
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("get_file_state", date_prefix=DAY)
    assert names(body) == ["A", "MANIFEST", "MANIFEST$", "Z", "b"]
    assert (body["count"], "next_token" in body) == (5, False)
    assert calls.counts() == {"Query": 2}
    assert all(call["ConsistentRead"] for call in calls.of("Query"))


def test_a_limit_that_is_just_enough_leaves_no_token(manager: Manager) -> None:
    """A token says that there is more."""
    manager.put(file("a"), file("b"))
    assert "next_token" not in manager.body("get_file_state", date_prefix=DAY, limit=2)
    body = manager.body("get_file_state", date_prefix=DAY, limit=1)
    assert ("next_token" in body, "truncated" in body) == (True, False)


@PROPERTY
@given(st.sets(st.text("aMNZ#$", min_size=1, max_size=4), max_size=20), st.integers(1, 9))
def test_pages_of_a_date_have_each_file_once(manager: Manager, keys: set[str], limit: int) -> None:
    """Whatever the names and the limit."""
    manager.clear_table("files")
    manager.put(*(file(key) for key in keys), manifest("b", "pending"), manifest("", "failed"))
    pages = list(manager.parts("get_file_state", date_prefix=DAY, limit=limit))
    assert [name for page in pages for name in names(page)] == sorted(keys)
    assert all(page["count"] == limit for page in pages[:-1])


@pytest.mark.parametrize(
    ("date_range", "condition", "found"),
    [
        ({"start": "2026-11-02", "end": "2026-11-03"}, "BETWEEN :first AND :last", ["2", "3"]),
        ({"start": "2026-11-03"}, ">= :first", ["3", "4"]),
        ({"end": "2026-11-02"}, "<= :last", ["1", "2"]),
        ({"start": "2026-11-02", "end": "2026-11-02"}, "BETWEEN :first AND :last", ["2"]),
    ],
)
def test_a_range_of_dates_is_in_the_key_condition(
    manager: Manager, date_range: dict[str, str], condition: str, found: list[str]
) -> None:
    """DynamoDB refuses a filter on a key of the index, which moto would let pass."""
    manager.put(*(file(str(n)) | {"date_prefix": f"2026-11-0{n}"} for n in range(1, 5)))
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("query_by_status", status="pending", date_range=date_range)
    assert names(body) == found
    for call in calls.of("Query"):
        expected = f"#status = :status AND date_prefix {condition}"
        assert call["KeyConditionExpression"] == expected
        assert "FilterExpression" not in call
        given_dates = {from_item(call["ExpressionAttributeValues"])[f":{side}"] for side in
                       ("first", "last") if f":{side}" in condition}  # fmt: skip
        assert given_dates == set(date_range.values())


def test_a_status_is_looked_for_in_all_its_forms(manager: Manager) -> None:
    """Ten shards and the plain value, oldest date first; manifests are no files."""
    manager.put(*(file(f"{n}", f"failed#{n}") | {"date_prefix": f"2026-10-1{n}"} for n in range(9)))
    manager.put(file("plain", "failed") | {"date_prefix": "2026-10-09"}, manifest("m", "failed"))
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("query_by_status", status="failed")
    assert names(body) == ["plain", *(str(n) for n in range(9))]
    asked = {from_item(c["ExpressionAttributeValues"])[":status"] for c in calls.of("Query")}
    assert asked == {"failed", *(f"failed#{n}" for n in range(10))}
    assert manager.body("query_by_status", status="completed")["count"] == 0


@PROPERTY
@given(
    st.dictionaries(
        st.integers(0, 60), st.tuples(st.integers(1, 5), st.integers(-1, 9)), max_size=40
    ),
    st.integers(1, 15),
)
def test_pages_of_a_status_have_each_file_once_by_date(
    manager: Manager, rows: dict[int, tuple[int, int]], limit: int
) -> None:
    """Over random shards, dates and limits: all of them, each once, in the order of dates."""
    manager.clear_table("files")
    for number, (day, shard) in rows.items():
        status = "pending" if shard < 0 else f"pending#{shard}"
        manager.put(file(f"{number}", status) | {"date_prefix": f"2026-11-0{day}"})
    manager.put(*(manifest(f"{n}", "pending") for n in range(20)))
    pages = list(manager.parts("query_by_status", status="pending", limit=limit))
    found = [row for page in pages for row in page["files"]]
    assert sorted(int(row["file_key"]) for row in found) == sorted(rows)
    dates = [row["date_prefix"] for row in found]
    assert dates == sorted(dates)
    assert all(page["count"] == limit for page in pages[:-1])


def test_a_row_that_changes_between_pages_disturbs_no_other(manager: Manager) -> None:
    """The rows that stay are there once, whatever goes, comes or moves."""
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
    assert sorted({*seen, *second} - {"00-new"}) == [
        f"{n:02}" for n in range(12) if f"{n:02}" != gone
    ]
    assert not set(seen) & set(second)
    assert gone not in rest


def test_a_plain_status_full_of_manifests(manager: Manager) -> None:
    """Pages grow while they hold no file, so that a file behind many manifests is soon found."""
    manager.put(*(manifest(f"{n:04}", "completed") for n in range(150)))
    manager.put(file("a.ndjson", "completed"))
    calls = manager.calls(manager.module.dynamodb)
    assert names(manager.body("query_by_status", status="completed", limit=1)) == ["a.ndjson"]
    assert calls.counts()["Query"] < 22


def test_a_large_answer_comes_in_parts(manager: Manager) -> None:
    """Each part can be sent by Lambda, and together they have all."""
    manager.put(*(file(f"{n:02}", blob='"\n' * 90_000) for n in range(12)))
    for operation in ("get_file_state", "query_by_status"):
        question = {"date_prefix": DAY} if operation == "get_file_state" else {"status": "pending"}
        pages = list(manager.parts(operation, **question))
        assert [name for page in pages for name in names(page)] == [f"{n:02}" for n in range(12)]
        assert len(pages) > 1
        assert all(page["truncated"] for page in pages[:-1])
        for event in ({"operation": operation, **question},):
            answer = manager.module.handler(event, manager.context())
            assert len(str(answer).encode()) < 6_000_000


@pytest.mark.parametrize(
    ("operation", "question"),
    [("get_file_state", {"date_prefix": DAY}), ("query_by_status", {"status": "pending"})],
)
def test_without_any_time_it_still_goes_on(
    manager: Manager, operation: str, question: dict[str, str]
) -> None:
    """Each part has something, and together they have all."""
    manager.put(*(file(f"{n}", f"pending#{n}") for n in range(6)))
    pages = list(manager.parts(operation, seconds=0, **question))
    assert sorted(name for page in pages for name in names(page)) == [f"{n}" for n in range(6)]
    assert all(page["truncated"] for page in pages[:-1])


def history(manager: Manager, name: str = "a.ndjson") -> Any:
    return manager.body("get_processing_timeline", date_prefix=DAY, file_key=name)


def test_a_files_own_times(manager: Manager) -> None:
    """In order, in one spelling, with the time between them."""
    manager.put(
        file(
            status="failed#1",
            upload_time=int(NOW - 4 * HOUR),
            manifest_time=int(NOW - 3 * HOUR) * 1000,
            processing_start_time=ago(2 * HOUR),
            failed_time=ago(HOUR)[:-1],
            error_message="bad line",
        )
    )
    body = history(manager)
    assert [(e["event"], e["status"]) for e in body["timeline"]] == [
        ("uploaded", "pending"),
        ("manifested", "manifested"),
        ("processing_started", "processing"),
        ("failed", "failed"),
    ]
    assert body["timeline"][3]["error"] == "bad line"
    assert all(event["timestamp"].endswith("Z") for event in body["timeline"])
    assert (body["file"], body["current_status"]) == (f"{DAY}/a.ndjson", "failed")
    assert list(body["durations_seconds"]) == [
        "uploaded_to_manifested",
        "manifested_to_processing_started",
        "processing_started_to_failed",
    ]
    assert body["total_processing_time"] == sum(body["durations_seconds"].values())
    assert body["total_processing_time"] == pytest.approx(3 * HOUR, abs=1)
    assert "anomalies" not in body


def test_missing_times_come_from_the_manifest(manager: Manager) -> None:
    """What all files of a manifest share; its end only when the file has come to it, too."""
    manager.put(
        file(status="manifested#1", created_at=ago(4 * HOUR),
             manifest_path=manager.manifest_path("b.json")),
        manifest("b.json", "completed", created_at=ago(3 * HOUR),
                 processing_start_time=ago(2 * HOUR), completed_time=ago(HOUR)),
    )  # fmt: skip
    events = history(manager)["timeline"]
    assert [event["event"] for event in events] == ["uploaded", "manifested", "processing_started"]
    assert [event.get("source") for event in events] == [None, "manifest", "manifest"]
    manager.put(file(status="completed#1", manifest_path=manager.manifest_path("b.json")))
    completed = history(manager)["timeline"][-1]
    assert (completed["event"], completed["timestamp"]) == ("completed", ago(HOUR))


@pytest.mark.parametrize(
    ("status", "event"),
    [("completed#1", "completed"), ("failed", "failed"), ("quarantined#2", "quarantined"),
     ("processing", "processing_started"), ("manifested#3", "manifested")],
)  # fmt: skip
def test_the_last_change_stands_in(manager: Manager, status: str, event: str) -> None:
    """With no better time of its status, updated_at says when it came there."""
    manager.put(file(status=status))
    (found,) = history(manager)["timeline"]
    assert (found["event"], found["source"], found["timestamp"]) == (event, "updated_at", ago())


def test_a_reset_shows(manager: Manager) -> None:
    """What was before it and what came after are each in order: nothing is wrong with it."""
    manager.put(
        file(created_at=ago(500), processing_start_time=ago(400), last_reset_time=ago(300),
             reset_count=2, manifest_time=ago(200), status="manifested#3")
    )  # fmt: skip
    body = history(manager)
    assert [event["event"] for event in body["timeline"]] == [
        "uploaded", "processing_started", "reset", "manifested",
    ]  # fmt: skip
    assert body["timeline"][2]["reset_count"] == 2
    assert body["durations_seconds"]["processing_started_to_reset"] == 100
    assert "anomalies" not in body


def test_what_can_not_be_right(manager: Manager) -> None:
    """Steps out of order and times that can't be read are anomalies; no duration is negative."""
    path = manager.manifest_path("b.json")
    manager.put(
        file(status="completed", created_at=ago(100), manifest_time="soon", manifest_path=path,
             processing_start_time=ago(50), completed_time=ago(80)),
        manifest("b.json", "completed", completed_time=True),
    )  # fmt: skip
    body = history(manager)
    assert body["anomalies"] == [
        {"type": "unreadable_time", "attribute": "manifest_time", "value": "soon",
         "row": "a.ndjson"},
        {"type": "unreadable_time", "attribute": "completed_time", "value": True,
         "row": "MANIFEST#b.json"},
        {"type": "out_of_order", "events": ["uploaded", "completed", "processing_started"]},
    ]  # fmt: skip
    assert all(seconds >= 0 for seconds in body["durations_seconds"].values())


@pytest.mark.parametrize(
    "path", [None, "", "pending-manifest-2026-11-22-1-1", "s3://b/" + "x" * 2000]
)
def test_a_file_without_a_manifest(manager: Manager, path: Any) -> None:
    """NULL, nothing, a placeholder or what is no path: there is nothing to look up."""
    manager.put(file(manifest_path=path, created_at=ago(9)))
    calls = manager.calls(manager.module.dynamodb)
    assert [event["event"] for event in history(manager)["timeline"]] == ["uploaded"]
    assert calls.counts() == {"GetItem": 1}


def test_a_file_without_times(manager: Manager) -> None:
    """There is no history, which is no error; a status of no vocabulary is none."""
    manager.put({"date_prefix": DAY, "file_key": "a.ndjson", "status": "archived"})
    body = history(manager)
    assert (body["timeline"], body["durations_seconds"]) == ([], {})
    assert (body["total_processing_time"], body["current_status"]) == (None, None)
