"""state-manager: stats from the counters, exact counts, and how the two are reconciled."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import pytest

from jobplane_files import FILES_CHANGED, ITERATORS_EXPIRED, STREAM_TIMED_OUT
from tests.unit.manager import (
    DAY,
    NONE,
    NOW,
    STATUSES,
    Manager,
    Record,
    file,
    manifest,
    record,
)


def deliver(manager: Manager, *records: Record) -> None:
    """What count-files is given."""
    assert manager.counter.handler({"Records": list(records)}, manager.context()) is None


def counted(manager: Manager) -> dict[str, int]:
    """What the counters say, without what is zero."""
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


def test_an_exact_count_has_all_shards(manager: Manager) -> None:
    """Files alone, sharded and plain, of all dates."""
    manager.put(*ROWS)
    body = manager.body("get_stats", exact=True)
    assert (body["stats"], body["total"], body["source"]) == (TRUTH, 13, "count")


def test_a_date_is_counted_exactly(manager: Manager) -> None:
    """Its files, and no other's; the counters are left alone."""
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
def test_without_time_the_count_goes_on_later(manager: Manager, question: dict[str, Any]) -> None:
    """Each part says how far it is; the last one has all."""
    manager.put(*(row for row in ROWS if row["date_prefix"] == DAY))
    pages = list(manager.parts("get_stats", seconds=0, **question))
    assert pages[-1]["stats"] == TRUTH | {"failed": 0}
    totals = [page["total"] for page in pages]
    assert totals == sorted(totals)
    assert len(pages) > 1
    assert all(page["truncated"] and "drift" not in page for page in pages[:-1])


def test_a_drift_is_corrected(manager: Manager) -> None:
    """What the counters lack is added, once."""
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
def test_what_moves_is_not_corrected(manager: Manager, page: int, is_late: bool) -> None:
    """Nobody can say which count has a change that is made meanwhile, whenever its record comes."""
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


def test_what_is_no_file_may_move(manager: Manager) -> None:
    """Builders write locks and manifests all the time, and files without another status."""
    manager.put(*ROWS)

    def move() -> None:
        manager.put(manifest("m", "completed"), file("c", "completed#4", output_path="s3://x"))
        manager.put({"date_prefix": "LOCK#x", "file_key": "LOCK", "lock_id": "x"})

    while_counting(manager, 1, move)
    assert manager.body("get_stats", exact=True)["reconciled"]
    assert manager.body("get_stats")["stats"] == TRUTH


def test_a_stream_that_is_behind_is_no_reason(manager: Manager) -> None:
    """What was written before the count may be counted while it goes on, or after it."""
    manager.put(*ROWS)
    before = int(NOW) - 60
    late = [record(n, None, f"pending#{n}", f"{n}", created=before) for n in range(3)]
    while_counting(manager, 9, lambda: deliver(manager, late[0]))
    body = manager.body("get_stats", exact=True)
    assert (body["reconciled"], body["counters"]) == (True, NONE | {"pending": 1})
    deliver(manager, *late)
    assert manager.body("get_stats")["stats"] == TRUTH


class Stream:
    """A table's stream as DynamoDB keeps it: shards that end, and pages without records."""

    def __init__(self, manager: Manager) -> None:
        self.exceptions = manager.module.streams().exceptions
        self.clock = manager.clock
        self.shards: dict[str, list[list[Record] | None]] = {}
        """Pages; None at the end of a shard that is closed."""
        self.reads = Counter[str]()
        manager.replace(streams=lambda: self)

    def describe_stream(self, **asked: Any) -> Any:
        names = list(self.shards)
        start = names.index(asked["ExclusiveStartShardId"]) + 1 if len(asked) > 1 else 0
        described = [
            {
                "ShardId": name,
                "SequenceNumberRange": {"StartingSequenceNumber": "1"}
                | ({"EndingSequenceNumber": "9"} if self.shards[name][-1:] == [None] else {}),
            }
            for name in names[start : start + 1]
        ]
        more = {"LastEvaluatedShardId": names[start]} if len(names) > start + 1 else {}
        return {"StreamDescription": {"Shards": described, **more}}

    def get_shard_iterator(self, **asked: Any) -> Any:
        latest = asked["ShardIteratorType"] == "LATEST"
        place = len(self.shards[asked["ShardId"]]) if latest else 0
        return {"ShardIterator": self._iterator(asked["ShardId"], place)}

    def get_records(self, **asked: Any) -> Any:
        name, place, given = asked["ShardIterator"].split("/")
        if self.clock.now - float(given) > QUARTER_OF_AN_HOUR:
            raise self.exceptions.ExpiredIteratorException({}, "GetRecords")
        self.reads[name] += 1
        pages = self.shards[name][int(place) :]
        if pages[:1] == [None]:
            return {"Records": []}
        following = self._iterator(name, int(place) + len(pages[:1]))
        records = [as_read(record) for record in pages[0] or []] if pages else []
        return {"Records": records, "NextShardIterator": following}

    def _iterator(self, name: str, place: int) -> str:
        return f"{name}/{place}/{self.clock.now}"


def as_read(record: Record) -> Record:
    """A record as botocore reads it from the stream."""
    change = record["dynamodb"]
    created = datetime.fromtimestamp(change["ApproximateCreationDateTime"], UTC)
    return record | {"dynamodb": change | {"ApproximateCreationDateTime": created}}


QUARTER_OF_AN_HOUR = 900
MOVED = record(1, None, "failed#1")
SAME = record(2, "failed#1", "failed#1")
LATER = record(3, "failed#1", "failed#1", created=int(NOW) + 3600)
MOVED_LATER = record(4, None, "failed#1", created=int(NOW) + 3600)


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ({"a": [[MOVED]]}, {}, False),
        ({"a": []}, {"a": [[SAME]]}, False),
        ({"a": []}, {"a": [[SAME], [MOVED]]}, True),
        ({"a": []}, {"a": [[], [MOVED]]}, True),
        ({"a": []}, {"a": [[], [], [MOVED]]}, True),
        ({"a": []}, {"a": [*repeat([], 9), [MOVED]]}, True),
        ({"a": []}, {"a": [*repeat([], 9), [SAME], *repeat([], 9), [MOVED]]}, True),
        ({"a": [], "b": []}, {"a": [[LATER]], "b": [*repeat([], 9), [MOVED]]}, True),
        ({"a": []}, {"a": [[MOVED, LATER]]}, True),
        ({"a": []}, {"a": [[SAME, MOVED_LATER]]}, False),
        ({"a": []}, {"a": [[LATER], [MOVED_LATER]]}, False),
        ({"a": [], "b": []}, {"b": [[MOVED]]}, True),
        ({"a": []}, {"a": [None], "b": []}, False),
        ({"a": []}, {"a": [[MOVED], None]}, True),
        ({"a": []}, {"a": [None], "b": [[MOVED]]}, True),
        ({"a": []}, {"a": [None], "b": [None], "c": [[MOVED]]}, True),
        ({"a": [[MOVED], None], "b": []}, {}, False),
    ],
)
def test_every_shard_tells_what_moved(
    manager: Manager,
    before: dict[str, list[list[Record] | None]],
    after: dict[str, list[list[Record] | None]],
    moved: bool,
) -> None:
    """Those of before from where they were, those that came since from their begin."""
    stream = Stream(manager)
    stream.shards = {name: list(pages) for name, pages in before.items()}
    manager.put(*ROWS)

    def go_on() -> None:
        for name, pages in after.items():
            stream.shards[name] = stream.shards.get(name, []) + pages

    while_counting(manager, 1, go_on)
    assert manager.body("get_stats", exact=True)["reconciled"] is not moved


def test_a_quiet_shard_is_asked_no_more_often_than_it_may_be(manager: Manager) -> None:
    """Lambda asks four times a second, which leaves one; each shard is given so many seconds."""
    stream = Stream(manager)
    stream.shards = {"a": [], "b": []}
    manager.put(*ROWS)
    begun: list[tuple[float, int]] = []
    while_counting(manager, PAGES, lambda: begun.append((manager.clock.now, stream.reads["a"])))
    assert manager.body("get_stats", exact=True)["reconciled"]
    ((then, before),) = begun
    assert stream.reads["a"] == stream.reads["b"]
    assert 1 < stream.reads["a"] - before <= manager.clock.now - then


def test_a_busy_shard_is_read_until_it_has_told_all(manager: Manager) -> None:
    """It never answers with nothing, and need not: what it tells of is later than the count."""
    stream = Stream(manager)
    stream.shards = {"a": []}
    manager.put(*ROWS)

    def go_on() -> None:
        stream.shards["a"] = [[SAME]] * 50 + [[LATER]] * 5000

    while_counting(manager, 1, go_on)
    assert manager.body("get_stats", exact=True)["reconciled"]
    assert stream.reads["a"] == 52


def test_a_stream_that_is_not_told_in_time(manager: Manager) -> None:
    """What can't be shown is not corrected, and the answer says why."""
    stream = Stream(manager)
    stream.shards = {"a": []}
    manager.put(*ROWS)
    *_, body = manager.parts("get_stats", seconds=4, exact=True)
    assert (body["reconciled"], body["reason"]) == (False, STREAM_TIMED_OUT)
    assert counted(manager) == {}


def test_a_count_leaves_time_for_the_stream(manager: Manager) -> None:
    """One that ends when there is little left goes on in a part that reads the stream alone."""
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
    """The parts of an exact count; something is done after each, which is told its number."""
    parts: list[Any] = []
    for part in manager.parts("get_stats", seconds=15, exact=True):
        parts.append(part)
        between(len(parts))
    return parts


def test_parts_keep_the_stream_in_mind(manager: Manager) -> None:
    """Each goes on with the shards' iterators, so that all together may take hours."""
    Stream(manager).shards = {"a": [], "b": [None]}
    manager.put(*ROWS)
    parts = in_parts(manager, lambda _: manager.clock.sleep(QUARTER_OF_AN_HOUR - 60))
    assert len(parts) == PAGES + 1
    assert parts[-1]["reconciled"]


def test_parts_with_a_pause_correct_nothing(manager: Manager) -> None:
    """An iterator is forgotten after a quarter of an hour."""
    Stream(manager).shards = {"a": []}
    manager.put(*ROWS)
    *_, body = in_parts(manager, lambda _: manager.clock.sleep(QUARTER_OF_AN_HOUR + 1))
    assert (body["reconciled"], body["reason"]) == (False, ITERATORS_EXPIRED)
    assert counted(manager) == {}


def test_what_moved_during_an_early_part(manager: Manager) -> None:
    """It is known in the last one."""
    stream = Stream(manager)
    stream.shards = {"a": []}
    manager.put(*ROWS)

    def move(number: int) -> None:
        if number == 3:
            stream.shards["a"] += [[MOVED]]

    *_, body = in_parts(manager, move)
    assert (body["reconciled"], body["reason"]) == (False, FILES_CHANGED)


@pytest.mark.parametrize("code", ["ExpiredIteratorException", "TrimmedDataAccessException"])
def test_a_stream_that_is_forgotten_tells_nothing(manager: Manager, code: str) -> None:
    """A count whose parts were asked for over too long a time corrects nothing."""
    manager.put(*ROWS)
    streams = manager.module.streams()
    while_counting(manager, 1, lambda: manager.fail(streams, "GetRecords", code) and None)
    assert not manager.body("get_stats", exact=True)["reconciled"]
    assert counted(manager) == {}


def test_what_moves_at_the_last_moment_is_not_corrected(manager: Manager) -> None:
    """A change between reading the counters and correcting them makes the correction fail."""
    manager.put(*ROWS)
    late = [record(7, None, "failed#1")]

    def act(_: Any) -> None:
        if late:
            deliver(manager, late.pop())

    manager.on(manager.module.dynamodb, "TransactWriteItems", act)
    assert not manager.body("get_stats", exact=True)["reconciled"]
    assert counted(manager) == {"failed": 1}


def test_a_late_record_of_before_the_count_is_not_counted(manager: Manager) -> None:
    """The stream was behind: what the exact count has seen already must not come on top."""
    manager.put(*ROWS)
    manager.body("get_stats", exact=True)
    before, after = int(NOW) - 60, int(NOW) + 60
    deliver(
        manager,
        record(1, None, "pending#1", created=before),
        record(4, None, "pending#1", created=int(NOW)),
        record(2, "pending#1", "failed#1", created=after),
        record(3, None, "completed#1", created=before + 1),
    )
    deliver(manager, record(1, None, "pending#1", created=before))
    expected = TRUTH | {"pending": TRUTH["pending"] - 1, "failed": TRUTH["failed"] + 1}
    assert manager.body("get_stats")["stats"] == expected
