"""state-manager: `get_stats` from the counters and by counting, and the counters' correction."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from jobplane_files import FILES_CHANGED, ITERATORS_EXPIRED, STREAM_TIMED_OUT
from tests.unit.manager import DAY, NONE, NOW, STATUSES, Manager, Record, file, manifest, record


def deliver(manager: Manager, *records: Record) -> None:
    """Let count-files count these."""
    assert manager.counter.handler({"Records": list(records)}, manager.context()) is None


def counted(manager: Manager) -> dict[str, int]:
    """The counters that are not zero."""
    stats = manager.body("get_stats")["stats"]
    return {status: number for status, number in stats.items() if number}


ROWS = [
    *(file(f"{n}", f"pending#{n}") for n in range(10)),
    file("plain", "pending"),
    file("c", "completed#4"),
    manifest("m", "pending"),
    manifest("n", "completed"),
    file("odd", "archived"),
    file("other", "failed#1") | {"date_prefix": "2026-11-01"},
]
TRUTH = NONE | {"pending": 11, "completed": 1, "failed": 1}


def test_an_exact_count_reads_all_shards(manager: Manager) -> None:
    """Files alone, sharded and plain, of all dates."""
    manager.put(*ROWS)
    body = manager.body("get_stats", exact=True)
    assert (body["stats"], body["total"], body["source"]) == (TRUTH, 13, "count")


def test_a_date_is_counted_exactly(manager: Manager) -> None:
    """Only its files are read, and the counters stay as they are."""
    manager.put(*ROWS)
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("get_stats", date_prefix=DAY)
    assert (body["stats"], body["source"]) == (TRUTH | {"failed": 0}, "count")
    assert {call["TableName"] for call in calls.of("Query")} == {manager.table}
    assert "drift" not in body


def test_stats_do_not_read_the_table(manager: Manager) -> None:
    """One query of the counters, whatever the table holds."""
    manager.put(*ROWS)
    calls = manager.calls(manager.module.dynamodb)
    body = manager.body("get_stats")
    assert [call["TableName"] for call in calls.of("Query")] == [manager.aws.tables["metrics"]]
    assert (calls.counts(), body["source"]) == ({"Query": 1}, "counters")
    assert 0 < body["consumed_capacity"]["read_units"] <= 10


@pytest.mark.parametrize("question", [{"exact": True}, {"date_prefix": DAY}])
def test_without_time_a_count_goes_on_in_parts(manager: Manager, question: dict[str, Any]) -> None:
    """Each part has the files up to there; the last one has all."""
    manager.put(*(row for row in ROWS if row["date_prefix"] == DAY))
    pages = list(manager.parts("get_stats", seconds=0, **question))
    assert pages[-1]["stats"] == TRUTH | {"failed": 0}
    totals = [page["total"] for page in pages]
    assert totals == sorted(totals)
    assert len(pages) > 1
    assert all(page["truncated"] and "drift" not in page for page in pages[:-1])


def test_a_drift_is_corrected(manager: Manager) -> None:
    """The difference is added once."""
    manager.put(*ROWS)
    deliver(manager, record(1, None, "completed#1"), record(2, None, "quarantined#1"))
    body = manager.body("get_stats", exact=True)
    assert body["counters"] == NONE | {"completed": 1, "quarantined": 1}
    assert body["drift"] == NONE | {"pending": 11, "failed": 1, "quarantined": -1}
    assert body["reconciled"]
    assert manager.body("get_stats")["stats"] == TRUTH
    again = manager.body("get_stats", exact=True)
    assert (again["drift"], again["reconciled"]) == (NONE, True)


def while_counting(manager: Manager, page: int, act: Callable[[], None]) -> None:
    """Do something before the n-th page of an exact count is read, from 1."""
    read = Counter[str]()

    def before(params: dict[str, Any]) -> None:
        if json.loads(params["body"])["TableName"] == manager.table:
            read["pages"] += 1
            if read["pages"] == page:
                act()

    manager.on(manager.module.dynamodb, "Query", before)


PAGES = len(STATUSES) * 11


@pytest.mark.parametrize("page", [1, PAGES], ids=["counted", "not counted"])
@pytest.mark.parametrize("is_late", [True, False], ids=["late", "at once"])
def test_counters_are_not_corrected_when_a_file_moves(
    manager: Manager, page: int, is_late: bool
) -> None:
    """It is not known which count has the change, whenever its record comes."""
    manager.put(*ROWS)
    change = record(7, None, "pending#1", "new", created=int(NOW) + 2)

    def move() -> None:
        manager.put(file("new", "pending#1"))
        if not is_late:
            deliver(manager, change)

    while_counting(manager, page, move)
    body = manager.body("get_stats", exact=True)
    assert (body["reconciled"], body["reason"]) == (
        False,
        "files changed during the count; repeat it later",
    )
    deliver(manager, change)
    assert counted(manager) == {"pending": 1}
    assert manager.body("get_stats", exact=True)["reconciled"]
    assert counted(manager)["pending"] == TRUTH["pending"] + 1


def test_other_rows_may_change(manager: Manager) -> None:
    """Locks, manifests, and files that keep their status."""
    manager.put(*ROWS)

    def move() -> None:
        manager.put(manifest("m", "completed"), file("c", "completed#4", output_path="s3://x"))
        manager.put({"date_prefix": "LOCK#x", "file_key": "LOCK", "lock_id": "x"})

    while_counting(manager, 1, move)
    assert manager.body("get_stats", exact=True)["reconciled"]
    assert manager.body("get_stats")["stats"] == TRUTH


def test_a_stream_that_is_behind(manager: Manager) -> None:
    """Earlier changes may be counted during the count or after it."""
    manager.put(*ROWS)
    before = int(NOW) - 60
    late = [record(n, None, f"pending#{n}", f"{n}", created=before) for n in range(3)]
    while_counting(manager, 9, lambda: deliver(manager, late[0]))
    body = manager.body("get_stats", exact=True)
    assert (body["reconciled"], body["counters"]) == (True, NONE | {"pending": 1})
    deliver(manager, *late)
    assert manager.body("get_stats")["stats"] == TRUTH


def test_a_count_leaves_time_for_the_stream(manager: Manager) -> None:
    """When little is left, the next part reads only the stream."""
    manager.put(*ROWS)
    calls = manager.calls(manager.module.dynamodb)
    counted_at: list[int] = []
    parts = in_parts(manager, lambda _: counted_at.append(len(calls.of("Query"))))
    assert all(part["truncated"] for part in parts[:-1])
    assert (parts[-2]["stats"], parts[-1]["stats"]) == (TRUTH, TRUTH)
    assert parts[-1]["reconciled"]
    (query,) = calls.of("Query")[counted_at[-2] :]
    assert query["TableName"] == manager.aws.tables["metrics"]


def in_parts(manager: Manager, between: Callable[[int], None]) -> list[Any]:
    """The parts of an exact count; `between` is called after each, with its number."""
    parts: list[Any] = []
    for part in manager.parts("get_stats", seconds=15, exact=True):
        parts.append(part)
        between(len(parts))
    return parts


def test_a_file_that_moves_between_parts(manager: Manager) -> None:
    """The last part still knows it."""
    manager.put(*ROWS)

    def move(number: int) -> None:
        if number == 3:
            manager.put(file("new", "failed#1"))

    *_, body = in_parts(manager, move)
    assert (body["reconciled"], body["reason"]) == (False, FILES_CHANGED)
    assert counted(manager) == {}


@pytest.mark.parametrize(
    ("code", "seconds", "reason"),
    [
        ("ExpiredIteratorException", 300, ITERATORS_EXPIRED),
        ("TrimmedDataAccessException", 300, ITERATORS_EXPIRED),
        (None, 4, STREAM_TIMED_OUT),
    ],
)
def test_a_stream_that_is_not_read(
    manager: Manager, code: str | None, seconds: int, reason: str
) -> None:
    """After too long a pause between the parts, or without time, nothing is corrected."""
    manager.put(*ROWS)
    streams = manager.module.streams()
    if code:
        while_counting(manager, 1, lambda: manager.fail(streams, "GetRecords", code) and None)
    *_, body = manager.parts("get_stats", seconds=seconds, exact=True)
    assert (body["reconciled"], body["reason"]) == (False, reason)
    assert counted(manager) == {}


def test_a_change_that_is_counted_before_the_correction(manager: Manager) -> None:
    """The counters have changed since they were read, so the correction fails."""
    manager.put(*ROWS)
    late = record(7, None, "failed#1")
    client = manager.module.dynamodb
    manager.once(client, "TransactWriteItems", lambda: deliver(manager, late))
    assert not manager.body("get_stats", exact=True)["reconciled"]
    assert counted(manager) == {"failed": 1}


def test_a_late_record_of_an_earlier_change(manager: Manager) -> None:
    """The exact count has included the change, so it is not counted again, although the stream's
    clock may be two seconds ahead.
    """
    manager.put(*ROWS)
    manager.body("get_stats", exact=True)
    before, after = int(NOW) - 60, int(NOW) + 60
    deliver(
        manager,
        record(1, None, "pending#1", created=before),
        record(4, None, "pending#1", created=int(NOW + 2)),
        record(2, "pending#1", "failed#1", created=after),
        record(3, None, "completed#1", created=before + 1),
    )
    deliver(manager, record(1, None, "pending#1", created=before))
    expected = TRUTH | {"pending": TRUTH["pending"] - 1, "failed": TRUTH["failed"] + 1}
    assert manager.body("get_stats")["stats"] == expected
