"""count-files: what a record of the stream counts, each once, however often it is delivered."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.manager import NOW, STATUSES, Clock, Record, record
from tests.unit.stack import PREFIX, Calls, Context, Stack


class Counting:
    """The function on a clock of its own, and what its counters say."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.clock = stack, Clock()
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
        """Files by status, without what is zero."""
        total = Counter[str]()
        for row in self.rows:
            total.update({status: row[status] for status in STATUSES if status in row})
        return {status: number for status, number in total.items() if number}

    def calls(self) -> Calls:
        return self.stack.calls(self.module.dynamodb)

    def before_write(self, act: Callable[[], None]) -> None:
        """Do something before each transaction."""
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
def test_what_a_record_counts(
    counting: Counting, records: list[Record], counters: dict[str, int]
) -> None:
    """Files by what their status was and is; manifests, locks and unknown statuses not at all."""
    counting.deliver(*records)
    assert counting.counted == counters


def test_what_counts_nothing_writes_nothing(counting: Counting) -> None:
    """A change that leaves the status as it is costs no write."""
    calls = counting.calls()
    counting.deliver(record(1, "failed#1", "failed#1"), record(2, None, "pending", "MANIFEST#b"))
    assert calls.counts() == {}


def test_a_batch_again(counting: Counting) -> None:
    """Each record counts once: in the same batch, in another, and among new ones."""
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
def test_a_malformed_batch_is_raised(counting: Counting, records: Any) -> None:
    """It raises UnreadableRecordError, and nothing of it is counted."""
    calls = counting.calls()
    with pytest.raises(counting.module.UnreadableRecordError):
        counting.module.handler({"Records": records}, Context())
    assert calls == []


def test_the_change_and_its_mark_are_one_write(counting: Counting) -> None:
    """A mark for each event, as long as a stream can repeat it, and one counter."""
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


def test_a_batch_larger_than_a_transaction(counting: Counting) -> None:
    """DynamoDB takes a hundred writes at a time."""
    calls = counting.calls()
    counting.deliver(*(record(n, None, "pending#1") for n in range(200)))
    sizes = [len(call["TransactItems"]) for call in calls.of("TransactWriteItems")]
    assert sizes == [91, 91, 21]
    assert counting.counted == {"pending": 200}


def test_counters_are_spread_over_rows(counting: Counting) -> None:
    """So that the shards of the stream seldom write to the same one."""
    for number in range(40):
        counting.deliver(record(number, None, "pending#1"))
    assert len(counting.rows) > 5
    assert counting.counted == {"pending": 40}


def cancelled(counting: Counting, *codes: str) -> ClientError:
    reasons = [{"Code": code} for code in codes]
    return counting.module.dynamodb.exceptions.TransactionCanceledException(
        {"Error": {"Code": "TransactionCanceledException", "Message": ""},
         "CancellationReasons": reasons},
        "TransactWriteItems",
    )  # fmt: skip


def test_a_conflict_is_tried_again(counting: Counting) -> None:
    """Another shard of the stream wrote the same counter: a pause comes before each attempt."""
    conflicts = [cancelled(counting, "TransactionConflict", "None") for _ in range(3)]

    def act() -> None:
        if conflicts:
            raise conflicts.pop()

    counting.before_write(act)
    counting.deliver(record(1, None, "pending#1"))
    assert counting.counted == {"pending": 1}
    assert len(counting.clock.slept) == 3


def test_a_lasting_conflict_is_raised(counting: Counting) -> None:
    """Then the stream delivers the batch again."""

    def act() -> None:
        raise cancelled(counting, "TransactionConflict", "None")

    counting.before_write(act)
    with pytest.raises(counting.module.dynamodb.exceptions.TransactionCanceledException):
        counting.deliver(record(1, None, "pending#1"))


def test_a_batch_that_broke_off_goes_on(counting: Counting) -> None:
    """What was counted before the failure is not counted by the repetition, however it is cut."""
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


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(HISTORIES, st.randoms(use_true_random=False))
def test_any_history_ends_in_the_number_of_rows(
    counting: Counting, history: list[tuple[int, str | None]], chance: random.Random
) -> None:
    """Delivered in random batches, some of them again and again, it equals a count of the rows."""
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
