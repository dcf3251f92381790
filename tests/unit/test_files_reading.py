"""jobplane_files: queries, reading in parts, tokens, counters, and the watch of the stream."""

import base64
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_files import (
    BESIDE_MANIFESTS,
    COUNTER_SHARDS,
    FILES_CHANGED,
    ITERATORS_EXPIRED,
    STREAM_TIMED_OUT,
    Budget,
    Lane,
    Row,
    StreamWatch,
    Walk,
    after,
    by_status,
    count_query,
    counter_corrections,
    counter_update,
    date_query,
    files_counted,
    make_token,
    moved_files,
    oldest_first,
    read_token,
    status_query,
    summed,
)
from jobplane_keys import from_item, to_item
from jobplane_keys._tokens import _digest
from jobplane_keys.tracking import FileStatus
from tests.unit.file_rows import DAY, NOW, in_pages, manifest_row, row


@pytest.mark.parametrize(
    ("dates", "condition"),
    [
        ((None, None), ""),
        (("2026-11-02", "2026-11-03"), " AND date_prefix BETWEEN :first AND :last"),
        (("2026-11-03", None), " AND date_prefix >= :first"),
        ((None, "2026-11-02"), " AND date_prefix <= :last"),
    ],
)
def test_query_of_a_status(dates: tuple[str | None, str | None], condition: str) -> None:
    """Dates are in the key condition, because DynamoDB refuses a filter on an index's key."""
    query = status_query("pending#3", dates)
    assert query["KeyConditionExpression"] == f"#status = :status{condition}"
    values = from_item(query["ExpressionAttributeValues"])
    given = {name: day for name, day in zip((":first", ":last"), dates, strict=True) if day}
    assert values == {":status": "pending#3"} | given
    assert query["IndexName"] == "status-index"
    assert not {"FilterExpression", "ConsistentRead"} & query.keys()


def test_queries_of_a_date_leave_manifests_out() -> None:
    """Two parts, whose file names lie before and after those of manifests."""
    names = ["A", "MANIFEST", "MANIFEST#a", "MANIFEST#\U0010fffe", "MANIFEST$", "a"]
    found = []
    for part in BESIDE_MANIFESTS:
        query = date_query(DAY, part, ("status", "file_key"))
        assert query["ConsistentRead"]
        assert query["ProjectionExpression"] == "#0, #1"
        assert query["ExpressionAttributeNames"] == {"#0": "status", "#1": "file_key"}
        limit = from_item(query["ExpressionAttributeValues"])[":manifests"]
        is_before = query["KeyConditionExpression"].endswith("file_key < :manifests")
        found += [name for name in names if (name < limit if is_before else name > limit)]
    assert found == ["A", "MANIFEST", "MANIFEST$", "a"]
    assert "ProjectionExpression" not in date_query(DAY, BESIDE_MANIFESTS[0])


def test_going_on_after_a_row() -> None:
    """With the keys of the table and of the index that is read."""
    place = row(lock_id="x").place
    keys = {"date_prefix": DAY, "file_key": "a.ndjson"}
    for index, more in ((None, {}), ("status-index", {"status": "processing#3"}),
                        ("lock-index", {"lock_id": "x"})):  # fmt: skip
        assert after(place, index) == {"ExclusiveStartKey": to_item(keys | more)}
    assert after(None) == {}


def test_files_on_a_page_of_a_count() -> None:
    """DynamoDB counts the files of a shard; among plain statuses manifests are left out."""
    assert count_query("pending#3")["Select"] == "COUNT"
    assert count_query("pending")["ProjectionExpression"] == "date_prefix, file_key"
    assert files_counted({"Count": 7}) == 7
    assert files_counted({"Count": 2, "Items": [row().item, manifest_row().item]}) == 1
    assert files_counted({"Count": 0, "Items": []}) == 0


def test_a_token_belongs_to_its_question() -> None:
    """Another question, or one changed character: it is refused."""
    position = {"place": {"file_key": "ü"}, "n": 1}
    token = make_token(position, ["table", "op", {"a": 1}])
    assert read_token(token, ["table", "op", {"a": 1}]) == position
    forged = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :]
              for i in range(len(token) - 4)]  # fmt: skip
    for other in ("", "x", "é", "AAAA", token[:-4], *forged):
        with pytest.raises(ValueError, match="is damaged, or belongs to another request"):
            read_token(other, ["table", "op", {"a": 1}])
    deep = zlib.compress(b"[" * 100_000)
    for payload in (b"", b"x", zlib.compress(b"x"), deep):
        forged_token = base64.urlsafe_b64encode(_digest("q", payload) + payload).decode()
        with pytest.raises(ValueError, match="is damaged, or belongs to another request"):
            read_token(forged_token, "q")
    for question in (["table", "op", {"a": 2}], ["other", "op", {"a": 1}], None):
        with pytest.raises(ValueError, match="is damaged, or belongs to another request"):
            read_token(token, question)


def test_a_token_is_not_unpacked_to_more_than_8_mb() -> None:
    """A caller can compute its digest, so it may be a bomb."""
    with pytest.raises(ValueError, match="is damaged, or belongs to another request"):
        read_token(make_token("x" * 8 * 1024 * 1024, "q"), "q")


def a_budget(seconds: float = 9, full_bytes: int = 100) -> tuple[Budget, list[float]]:
    clock = [NOW]
    return Budget(deadline=NOW + seconds, clock=lambda: clock[0], full_bytes=full_bytes), clock


def test_a_budget_ends_with_its_time_or_room() -> None:
    """By the clock, and by the bytes that an answer has when it is JSON text in JSON."""
    budget, clock = a_budget(seconds=9)
    assert (budget.seconds_left(), budget.is_late(), budget.is_over()) == (9, False, False)
    clock[0] += 9
    assert (budget.is_late(), budget.is_over()) == (True, True)
    budget, _ = a_budget(full_bytes=20)
    assert budget.sized('"' * 3) == '"' * 3
    assert (budget.is_over(), budget.is_late()) == (False, False)
    budget.sized("")
    assert (budget.is_over(), budget.is_late()) == (True, False)


def test_a_budget_adds_capacity() -> None:
    """Reads and writes apart, of one table or several, or not reported."""
    budget, _ = a_budget()
    budget.charge({"ConsumedCapacity": {"CapacityUnits": 1.5}})
    budget.charge({"ConsumedCapacity": [{"CapacityUnits": 1}, {"CapacityUnits": 2}]})
    budget.charge({})
    budget.charge({"ConsumedCapacity": {"CapacityUnits": 4}}, write=True)
    assert (budget.read_units, budget.write_units) == (4.5, 4)


type Steps = dict[str, list[Row]]


def rows_of(sizes: list[int]) -> Steps:
    """So many rows in each step."""
    return {
        f"{step}": [row(key=f"{n:02}-{step}") for n in range(size)]
        for step, size in enumerate(sizes)
    }


def reading(steps: Steps, size: int) -> Callable[[str, dict[str, Any] | None], Iterator[Any]]:
    """Read the rows of a step after a place, in pages."""

    def read(step: str, place: dict[str, Any] | None) -> Iterator[list[Row]]:
        begin = "" if place is None else place["file_key"]
        return in_pages([found for found in steps[step] if found.file_key > begin], size)

    return read


@given(st.lists(st.integers(0, 5), max_size=4), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_a_walk_in_parts_has_each_row_once(
    sizes: list[int], size: int, limit: int, is_over: bool
) -> None:
    """Whatever the limit, and if each part is over at once."""
    steps = rows_of(sizes)
    seen: list[Row] = []
    position, parts = None, 0
    while parts == 0 or position is not None:
        walk = Walk(list(steps), reading(steps, size), lambda: is_over, position, limit)
        part = list(walk)
        assert is_over or walk.position is None or len(part) == limit
        seen += part
        position, parts = walk.position, parts + 1
        assert parts < 50
    assert [r.file_key for r in seen] == [r.file_key for rows in steps.values() for r in rows]


def test_an_empty_step_is_progress() -> None:
    """A walk without time ends after it, and the next one begins with the following step."""
    walk = Walk(["0", "1"], reading(rows_of([0, 1]), 1), lambda: True)
    assert (list(walk), walk.position) == ([], {"step": 1, "place": None})


def test_a_limit_that_is_just_enough() -> None:
    """A position means that there is another row."""
    steps = rows_of([2, 0])
    for limit, has_more in ((1, True), (2, False), (3, False)):
        walk = Walk(list(steps), reading(steps, 1), lambda: False, None, limit)
        assert len(list(walk)) == min(limit, 2)
        assert (walk.position is not None) is has_more


def lanes_of(
    lanes: list[list[Row]], places: list[Any], is_late: Callable[[], bool] = lambda: False
) -> list[Lane]:
    made = []
    for rows, place in zip(lanes, places, strict=True):
        begin = -1 if place is None else [found.place for found in rows].index(place)
        made.append(Lane(in_pages(rows[begin + 1 :], 2), is_late, place))
        made[-1].fill()
    return made


@given(st.lists(st.lists(st.integers(1, 6), max_size=9), min_size=1, max_size=3), st.integers(1, 4))
def test_pages_of_several_lanes_are_by_date(dates: list[list[int]], limit: int) -> None:
    """Each file once and the oldest date first over all pages; manifests are left out."""
    lanes = []
    for number, days in enumerate(dates):
        rows = [row(date=f"2026-11-0{day}", key=f"{number}-{n}") for n, day in
                enumerate(sorted(days))]  # fmt: skip
        lanes.append([*(manifest_row() for _ in range(number * 3)), *rows])
    seen: list[Row] = []
    places: list[Any] = [None] * len(lanes)
    for _ in range(50):
        made = lanes_of(lanes, places)
        part = [file for _, file in zip(range(limit), oldest_first(made), strict=False)]
        seen += part
        places = [lane.place for lane in made]
        if not any(lane.has_more for lane in made):
            break
        assert len(part) == limit
    assert sorted(f.file_key for f in seen) == sorted(
        f"{number}-{n}" for number, days in enumerate(dates) for n in range(len(days))
    )
    found = [file.date_prefix for file in seen]
    assert found == sorted(found)


def test_an_unread_lane_may_hold_the_oldest_file() -> None:
    """Then nothing is given, and the lane goes on after the manifests that it has read."""
    rows = [manifest_row() for _ in range(4)] + [row(date="2026-11-01")]
    late, known = lanes_of([rows, [row()]], [None, None], lambda: True)
    assert (late.is_known, known.is_known) == (False, True)
    assert list(oldest_first([late, known])) == []
    assert (late.has_more, late.place) == (True, rows[1].place)


def change(old: str | None, new: str | None, name: str = "a.ndjson", at: float = NOW) -> Any:
    """A change of the stream, as botocore reads it."""
    key = {"date_prefix": DAY, "file_key": name}
    images = {"OldImage": old, "NewImage": new}
    written = {image: to_item(key | {"status": s}) for image, s in images.items() if s}
    created = datetime.fromtimestamp(int(at), UTC)
    return {"Keys": to_item(key), "ApproximateCreationDateTime": created} | written


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
    """Files alone, by known statuses."""
    assert moved_files(given) == numbers


def test_counters_are_the_sum_of_their_rows() -> None:
    """With the number of counted changes beside the six statuses."""
    total = summed({0: {"pending": 2, "changes": 3}, 7: {"pending": -1, "changes": 1, "ttl": 5}})
    assert total == {"pending": 1, "changes": 4}
    assert by_status(total) == dict.fromkeys(FileStatus, 0) | {"pending": 1}


def test_a_correction_fails_after_a_further_change() -> None:
    """Every row is compared, counted, and gets counted_from; the first has the drift."""
    updates = counter_corrections("metrics", {0: {"changes": 3}}, {"pending": -2}, 1000)
    assert len(updates) == COUNTER_SHARDS
    assert updates[0]["ConditionExpression"] == "changes = :seen"
    assert updates[0]["UpdateExpression"] == "ADD #0 :0, #1 :1 SET counted_from = :from"
    assert updates[0]["ExpressionAttributeValues"] == to_item(
        {":0": 1, ":1": -2, ":from": 1000, ":seen": 3}
    )
    assert updates[1]["ConditionExpression"] == "attribute_not_exists(changes)"
    assert updates[1]["UpdateExpression"] == "ADD #0 :0 SET counted_from = :from"
    assert {update["Key"]["metric_type"]["S"] for update in updates} == {"files_by_status"}
    assert updates[9]["Key"] == counter_update("metrics", 9, {"changes": 1})["Key"]


class Stream:
    """A table's stream as DynamoDB keeps it: shards that end, and pages without records."""

    class exceptions:  # noqa: N801 - as a client has it
        class ExpiredIteratorException(Exception):
            pass

        class TrimmedDataAccessException(Exception):
            pass

    def __init__(self, shards: dict[str, list[Any]]) -> None:
        self.shards = {name: list(pages) for name, pages in shards.items()}
        """Pages; None at the end of a shard that is closed."""
        self.now = 0.0
        self.lasts = math.inf
        """Seconds until the watch is late."""
        self.reads = Counter[str]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def watch(self, **state: Any) -> StreamWatch:
        return StreamWatch(self, "arn", lambda: self.now >= self.lasts, self.sleep, **state)

    def describe_stream(self, **asked: Any) -> Any:
        """One shard a page."""
        names = list(self.shards)
        start = names.index(asked["ExclusiveStartShardId"]) + 1 if len(asked) > 1 else 0
        name = names[start]
        end = {"EndingSequenceNumber": "9"} if self.shards[name][-1:] == [None] else {}
        shard = {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "1"} | end}
        more = {"LastEvaluatedShardId": name} if len(names) > start + 1 else {}
        return {"StreamDescription": {"Shards": [shard], **more}}

    def get_shard_iterator(self, **asked: Any) -> Any:
        latest = asked["ShardIteratorType"] == "LATEST"
        place = len(self.shards[asked["ShardId"]]) if latest else 0
        return {"ShardIterator": f"{asked['ShardId']}/{place}/{self.now}"}

    def get_records(self, **asked: Any) -> Any:
        name, place, given = asked["ShardIterator"].split("/")
        if self.now - float(given) > QUARTER_OF_AN_HOUR:
            raise self.exceptions.ExpiredIteratorException
        self.reads[name] += 1
        pages = self.shards[name][int(place) :]
        if pages[:1] == [None]:
            return {"Records": []}
        following = f"{name}/{int(place) + len(pages[:1])}/{self.now}"
        records = [{"dynamodb": found} for found in pages[0] or []] if pages else []
        return {"Records": records, "NextShardIterator": following}


def begun(stream: Stream) -> StreamWatch:
    watch = stream.watch()
    watch.begin()
    return watch


QUARTER_OF_AN_HOUR = 900
MOVED = change(None, "failed#1")
SAME = change("failed#1", "failed#1")
LATER = change("failed#1", "failed#1", at=NOW + 3600)
MOVED_LATER = change(None, "failed#1", at=NOW + 3600)


@pytest.mark.parametrize(
    ("before", "then", "moved"),
    [
        ({"a": [[MOVED]]}, {}, False),
        ({"a": []}, {"a": [[SAME]]}, False),
        ({"a": []}, {"a": [[SAME], [MOVED]]}, True),
        ({"a": []}, {"a": [[], [], [MOVED]]}, True),
        ({"a": []}, {"a": [*repeat([], 9), [MOVED]]}, True),
        ({"a": []}, {"a": [*repeat([], 10), [MOVED]]}, False),
        ({"a": []}, {"a": [*repeat([], 9), [SAME], *repeat([], 9), [MOVED]]}, True),
        ({"a": [], "b": []}, {"a": [[LATER]], "b": [*repeat([], 9), [MOVED]]}, True),
        ({"a": []}, {"a": [[MOVED, LATER]]}, True),
        ({"a": []}, {"a": [[MOVED, SAME]]}, True),
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
@pytest.mark.parametrize("in_parts", [False, True])
def test_every_shard_is_read_up_to_the_moment(
    before: dict[str, Any], then: dict[str, Any], moved: bool, in_parts: bool
) -> None:
    """Known shards from where they were, new ones from their begin; parts go on with the state."""
    stream = Stream(before)
    watch = begun(stream)
    closed = {name for name, iterator in watch.iterators.items() if iterator is None}
    assert closed == {name for name, pages in before.items() if pages[-1:] == [None]}
    for name, pages in then.items():
        stream.shards[name] = stream.shards.get(name, []) + pages
    if in_parts:
        watch = stream.watch(**watch.state)
    watch.end(NOW + 2)
    assert watch.doubt == (FILES_CHANGED if moved else None)


def test_a_shard_that_splits_during_the_last_reads_is_read_on() -> None:
    stream = Stream({"a": []})
    watch = begun(stream)
    watch.sleep = lambda _: stream.shards.update({"a": [None], "b": [None], "c": [[MOVED]]})
    watch.end(NOW)
    assert watch.doubt == FILES_CHANGED


def test_a_quiet_shard_is_read_once_a_second() -> None:
    """Lambda reads four times a second, and DynamoDB allows five."""
    stream = Stream({"a": [], "b": []})
    watch = begun(stream)
    stream.reads.clear()
    watch.end(NOW)
    assert stream.reads == {"a": 10, "b": 10}
    assert stream.now == 10


def test_a_busy_shard_is_read_up_to_a_later_record() -> None:
    """It never gives an empty page, and need not."""
    stream = Stream({"a": []})
    watch = begun(stream)
    stream.shards["a"] = [[SAME]] * 50 + [[LATER]] * 5000
    watch.end(NOW)
    assert (watch.doubt, stream.reads["a"]) == (None, 52)


def test_iterators_are_kept_by_reading_on() -> None:
    """Hours may pass between the parts of a count, if no pause is longer than they last."""
    for pause, doubt in ((QUARTER_OF_AN_HOUR - 60, None), (QUARTER_OF_AN_HOUR + 1,
                                                           ITERATORS_EXPIRED)):  # fmt: skip
        stream = Stream({"a": [], "b": [None]})
        watch = begun(stream)
        for _ in range(3):
            stream.sleep(pause)
            watch = stream.watch(**watch.state)
            watch.keep()
        watch.end(NOW)
        assert watch.doubt == doubt


def test_a_file_that_moves_in_an_early_part() -> None:
    """The last part still knows it."""
    stream = Stream({"a": []})
    watch = begun(stream)
    stream.shards["a"] += [[MOVED]]
    watch.keep()
    later = stream.watch(**watch.state)
    later.keep()
    later.end(NOW)
    assert later.doubt == FILES_CHANGED


def test_a_watch_that_is_late() -> None:
    """The end of the stream was not reached, so nothing is certain."""
    stream = Stream({"a": []})
    watch = begun(stream)
    stream.lasts = 4
    watch.end(NOW)
    assert (watch.doubt, stream.now) == (STREAM_TIMED_OUT, 4)
