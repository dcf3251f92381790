"""count-files: each record of the stream counts once, however often it is delivered."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import with_fixtures
from tests.unit.clock import Clock
from tests.unit.manager import NOW, STATUSES, Record, record
from tests.unit.stack import PREFIX, Calls, Context, Stack


class Counting:
    """The function on its own clock, with its counters."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.clock = stack, Clock(NOW)
        self.module: Any = stack.function("count-files")
        stack.monkeypatch.setattr(self.module, "time", self.clock)

    def deliver(self, *records: Record) -> None:
        assert self.module.handler({"Records": list(records)}, Context()) is None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the counters."""
        rows = self.stack.items("metrics")
        return [row for row in rows if row["metric_type"] == "files_by_status"]

    @property
    def counted(self) -> dict[str, int]:
        """Files by status, without zeros."""
        total = Counter[str]()
        for row in self.rows:
            total.update({status: row[status] for status in STATUSES if status in row})
        return {status: number for status, number in total.items() if number}

    def calls(self) -> Calls:
        return self.stack.calls(self.module.dynamodb)

    def before_write(self, act: Callable[[], None]) -> None:
        """Call a function before each transaction."""
        hooked = "before-call.dynamodb.TransactWriteItems"
        self.stack._register([self.module.dynamodb], hooked, lambda **_: act())

    def clear(self) -> None:
        table = PREFIX + "metrics"
        for row in self.stack.dynamodb.scan(TableName=table)["Items"]:
            key = {name: row[name] for name in ("metric_type", "timestamp")}
            self.stack.dynamodb.delete_item(TableName=table, Key=key)


@pytest.fixture
def counting(stack: Stack) -> Counting:
    stack.create("files")
    return Counting(stack)


@pytest.mark.parametrize(
    ("records", "counters"),
    [
        ([record(1, None, "pending#3")], {"pending": 1}),
        ([record(1, "pending#3", "manifested#3")], {"pending": -1, "manifested": 1}),
        ([record(1, "completed", None)], {"completed": -1}),
        ([record(1, "failed#1", "failed#1")], {}),
        ([record(1, "failed#1", "failed")], {}),
        ([record(1, None, "pending#1", "MANIFEST#b")], {}),
        ([record(1, None, "pending#1", "LOCK", date="LOCK#x")], {}),
        ([record(1, None, "archived"), record(2, None, "pending#99")], {}),
        ([record(1, "archived", "failed#1")], {"failed": 1}),
        ([record(1, "failed#1", "FAILED")], {"failed": -1}),
        ([record(1)], {}),
    ],
)
def test_a_record_moves_a_file_from_its_old_to_its_new_status(
    counting: Counting, records: list[Record], counters: dict[str, int]
) -> None:
    """Manifests, locks and unknown statuses do not count, and cost no write."""
    calls = counting.calls()
    counting.deliver(*records)
    assert calls.counts() == ({"TransactWriteItems": 1} if counters else {})
    assert counting.counted == counters


def test_a_repeated_record_counts_once(counting: Counting) -> None:
    """In the same batch, in another, and among new ones."""
    first, second, third = (record(n, None, "pending#1") for n in range(3))
    counting.deliver(first, first)
    counting.deliver(first)
    counting.deliver(first, second)
    counting.deliver(third, second, first)
    assert counting.counted == {"pending": 3}


@pytest.mark.parametrize(
    "records",
    [
        None, {}, "records", [None], [7], [{}], [{"eventID": "event-1"}],
        [record(1) | {"eventID": None}], [record(1) | {"eventID": "e" * 129}],
        [record(1, created=-1)],
        [record(1, created=float("nan"))], [record(1, created=10**400)], [record(1, created="x")],
        [{"eventID": "event-1", "dynamodb": {"Keys": {"date_prefix": {"N": "1"}}}}],
    ],
)  # fmt: skip
def test_a_malformed_batch_raises_and_counts_nothing(counting: Counting, records: Any) -> None:
    calls = counting.calls()
    with pytest.raises(counting.module.UnreadableRecordError):
        counting.module.handler({"Records": records}, Context())
    assert calls == []


def test_the_counter_and_the_events_mark_are_one_transaction(counting: Counting) -> None:
    """A mark lasts as long as a stream can repeat its event."""
    calls = counting.calls()
    counting.deliver(record(1, None, "pending#1"), record(2, None, "failed#1"))
    (call,) = calls.of("TransactWriteItems")
    update, *marks = call["TransactItems"]
    assert update["Update"]["UpdateExpression"].startswith("ADD ")
    assert [mark["Put"]["Item"]["metric_type"]["S"] for mark in marks] == [
        "counted#event-1",
        "counted#event-2",
    ]
    for mark in marks:
        assert mark["Put"]["ConditionExpression"] == "attribute_not_exists(metric_type)"
        assert int(mark["Put"]["Item"]["ttl"]["N"]) - NOW > 24 * 3600


def test_a_batch_of_more_than_100_writes_is_split(counting: Counting) -> None:
    """The limit of a transaction."""
    calls = counting.calls()
    counting.deliver(*(record(n, None, "pending#1") for n in range(200)))
    sizes = [len(call["TransactItems"]) for call in calls.of("TransactWriteItems")]
    assert sizes == [91, 91, 21]
    assert counting.counted == {"pending": 200}


def test_counters_are_spread_over_rows(counting: Counting) -> None:
    """So that shards of the stream seldom write the same one."""
    for number in range(40):
        counting.deliver(record(number, None, "pending#1"))
    assert len(counting.rows) > 5
    assert counting.counted == {"pending": 40}


def test_a_conflicting_transaction_is_repeated_after_a_pause(counting: Counting) -> None:
    """Another shard of the stream wrote the same counter; a lasting conflict is raised."""
    reasons = [{"Code": "TransactionConflict"}, {"Code": "None"}]
    conflict = counting.module.dynamodb.exceptions.TransactionCanceledException(
        {"Error": {"Code": "TransactionCanceledException", "Message": ""},
         "CancellationReasons": reasons},
        "TransactWriteItems",
    )  # fmt: skip
    conflicts = [conflict] * 3

    def act() -> None:
        if conflicts:
            raise conflicts.pop()

    counting.before_write(act)
    counting.deliver(record(1, None, "pending#1"))
    assert counting.counted == {"pending": 1}
    assert len(counting.clock.slept) == 3
    conflicts += [conflict] * 99
    with pytest.raises(type(conflict)):
        counting.deliver(record(2, None, "pending#1"))


def test_a_repetition_of_an_interrupted_batch_counts_only_the_rest(counting: Counting) -> None:
    """However the repetition is cut."""
    records = [record(n, None, "pending#1") for n in range(120)]
    done = Counter[str]()

    def act() -> None:
        done["calls"] += 1
        if done["calls"] == 2:
            raise RuntimeError

    counting.before_write(act)
    with pytest.raises(RuntimeError):
        counting.deliver(*records)
    assert counting.counted == {"pending": 90}
    counting.deliver(*records[:60])
    counting.deliver(*records[60:])
    assert counting.counted == {"pending": 120}


HISTORIES = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([None, *STATUSES, "archived"])), max_size=30
)


@with_fixtures(15)
@given(HISTORIES, st.randoms(use_true_random=False))
def test_counters_equal_a_count_of_the_rows_after_any_history(
    counting: Counting, history: list[tuple[int, str | None]], chance: random.Random
) -> None:
    counting.clear()
    rows: dict[int, str] = {}
    records = []
    for number, (name, status) in enumerate(history):
        stored = None if status is None else f"{status}#{name}"
        records.append(record(number, rows.get(name), stored, f"{name}"))
        rows.pop(name, None)
        if stored is not None:
            rows[name] = stored
    while records:
        size = chance.randint(1, 5)
        batch, records = records[:size], records[size:]
        counting.deliver(*batch)
        for _ in range(chance.randint(0, 2)):
            counting.deliver(*chance.sample(batch, chance.randint(1, len(batch))))
    left = Counter(status.partition("#")[0] for status in rows.values())
    assert counting.counted == {status: left[status] for status in STATUSES if left[status]}
