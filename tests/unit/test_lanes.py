"""Lanes: never more requests run than a lane has slots, and none waits for ever."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, ReadTimeoutError

from jobplane_keys import iso_time, parse_iso_time, to_item
from jobplane_keys.lanes import lane_rows, tenant_lane, waiting_order, why_waiting
from jobplane_leases import Lane, Lease, RequestLease, remove_lane_row
from tests.unit.stack import OWNER, PREFIX, TENANT, Context, Row, Stack, event, request

REQUESTS, LANES = PREFIX + "requests", PREFIX + "lanes"
LANE = tenant_lane(TENANT)


class Lanes:
    """dispatch, with its stream, its queue and workers that a test moves."""

    def __init__(self, stack: Stack, limit: int) -> None:
        self.stack, self.limit = stack, limit
        self.module: ModuleType = stack.function("dispatch")
        stack.monkeypatch.setattr(self.module, "QUEUE_LOOKS_SECONDS", ())
        self.lane = Lane(stack.dynamodb, LANES, LANE, limit)
        self.stream: list[Row] = []
        self.running: set[str] = set()
        self.started: list[str] = []
        self.most = self.count = 0

    def queue(self, priority: str = "normal", **changes: Any) -> str:
        """A new request; its record is in the stream."""
        self.count += 1
        name = f"req-{self.count:03}"
        order = waiting_order(priority, iso_time(1_800_000_000 + self.count))
        given = {"lane": LANE, "lane_limit": self.limit, "waiting_order": order} | changes
        row = request(name, **given)
        self.stack.put("requests", row)
        self.stream.append(row)
        return name

    def deliver(self, most: int = 100) -> None:
        """Hand a batch of the stream to dispatch until it has taken it."""
        batch, self.stream = self.stream[:most], self.stream[most:]
        records = [record(row, str(number)) for number, row in enumerate(batch)]
        for _ in range(20):
            try:
                answer = self.module.handler({"Records": records}, Context())
            except (ClientError, ReadTimeoutError):
                continue
            failed = [int(each["itemIdentifier"]) for each in answer["batchItemFailures"]]
            if not failed:
                break
            records = records[min(failed) :]
        else:
            raise AssertionError("dispatch does not take the batch")
        self.work()

    def work(self) -> None:
        """Workers take the messages of the queue."""
        for body in self.stack.messages("jobs"):
            row = self.row(body["request_id"])
            lease = RequestLease(self.stack.dynamodb, REQUESTS, OWNER, row["request_id"])
            if lease.take(Lease("worker", int(time.time()) + 60), time.time()) is not None:
                self.running.add(row["request_id"])
                self.started.append(row["request_id"])
        self.most = max(self.most, len(self.running))

    def end(self, name: str, status: str = "COMPLETED") -> None:
        """A worker ends a request; the record is in the stream."""
        lease = RequestLease(self.stack.dynamodb, REQUESTS, OWNER, name)
        self.running.remove(name)
        self.stream.append(lease.finish("worker", {"status": status}, time.time()))

    def cancel(self, name: str) -> None:
        lease = RequestLease(self.stack.dynamodb, REQUESTS, OWNER, name)
        ended = lease.cancel(self.row(name), {}, time.time())
        assert ended is not None
        self.stream.append(ended)

    def sweep(self) -> Row:
        found = self.module.handler({"sweep": "lanes"}, Context())["swept"]
        self.work()
        return dict(found)

    def row(self, name: str) -> Row:
        return self.stack.get("requests", owner=OWNER, request_id=name)

    def slots(self) -> set[str]:
        """The names of the requests that have a slot."""
        return {key.rpartition("#")[2] for key in self.lane.read().slots}


def record(row: Row, sequence: str) -> Row:
    found: Row = event("dispatch", "queued")["Records"][0]
    found["dynamodb"] |= {"NewImage": to_item(row), "SequenceNumber": sequence}
    return found


@pytest.fixture
def lanes(stack: Stack) -> Lanes:
    """A lane of two slots."""
    return Lanes(stack, 2)


@pytest.fixture(params=[1, 2, 40])
def sizes(stack: Stack, request: pytest.FixtureRequest) -> Lanes:
    return Lanes(stack, request.param)


def test_a_full_lane_lets_the_next_wait(lanes: Lanes) -> None:
    """Its status says why, and since when; the sweeper of leases leaves it alone, and so does the
    TTL.
    """
    names = [lanes.queue(ttl=int(time.time()) + 60) for _ in range(4)]
    lanes.deliver()
    assert lanes.started == names[:2]
    assert lanes.slots() == set(names[:2])
    row = lanes.row(names[2])
    assert why_waiting(row) == {"reason": "lane_full", "since": row["waiting_since"]}
    assert row["lease_until"] > time.time() + 3000
    assert row["ttl"] > time.time() + 6 * 24 * 3600
    assert why_waiting(lanes.row(names[0])) is None


def test_the_next_starts_when_one_ends(sizes: Lanes) -> None:
    """First in, first out; a slot is free again as soon as the end is in the stream."""
    names = [sizes.queue() for _ in range(sizes.limit + 5)]
    sizes.deliver()
    for name in names:
        assert name in sizes.running
        sizes.end(name)
        sizes.deliver()
    assert (sizes.started, sizes.most) == (names, sizes.limit)
    assert sizes.slots() == set()
    assert "waiting_lane" not in sizes.row(names[-1])


def test_priority_comes_before_age(lanes: Lanes) -> None:
    first = [lanes.queue(), lanes.queue()]
    low, normal, high = (lanes.queue(each) for each in ("low", "normal", "high"))
    lanes.deliver()
    for name in (*first, high):
        lanes.end(name)
        lanes.deliver()
    assert lanes.started == [*first, high, normal, low]


def test_a_new_request_does_not_overtake(lanes: Lanes) -> None:
    """While requests wait, a free slot is for the first of them."""
    names = [lanes.queue() for _ in range(3)]
    lanes.deliver()
    lanes.end(names[0])
    newest = lanes.queue()
    lanes.stream.reverse()
    lanes.deliver(1)
    assert lanes.running == {names[1]}
    lanes.deliver()
    assert lanes.running == {names[1], names[2]}
    lanes.end(names[1])
    lanes.deliver()
    assert lanes.running == {names[2], newest}


def test_lanes_do_not_share_slots(lanes: Lanes) -> None:
    own = [lanes.queue() for _ in range(3)]
    other = lanes.queue(lane="action#transcribe", lane_limit=1)
    plain = lanes.queue(lane=None, lane_limit=None)
    lanes.deliver()
    assert sorted(lanes.started) == sorted([*own[:2], other, plain])


class Rated(Lanes):
    """A lane with ten slots and a rate. Messages are kept, nothing works, and time stands still."""

    def __init__(self, stack: Stack, rate: int) -> None:
        super().__init__(stack, 10)
        self.rate, self.calls, self.now = rate, stack.calls(self.module.sqs), time.time()
        clock = SimpleNamespace(time=lambda: self.now, sleep=lambda _: None)
        stack.monkeypatch.setattr(self.module, "time", clock)

    def queue(self, priority: str = "normal", **changes: Any) -> str:
        return super().queue(priority, lane_rate=self.rate, **changes)

    def work(self) -> None:
        """No worker takes a message."""

    def delays(self) -> dict[str, int]:
        """The largest delay of the messages of each request."""
        entries = [e for call in self.calls.of("SendMessageBatch") for e in call["Entries"]]
        found = [(json.loads(e["MessageBody"])["request_id"], e) for e in entries]
        return {name: entry.get("DelaySeconds", 0) for name, entry in found}

    def starts(self) -> list[float]:
        """The start times, by the names of the requests."""
        rows = sorted(self.stack.items("requests"), key=lambda row: str(row["request_id"]))
        return [parse_iso_time(row["starts_at"]) for row in rows if "starts_at" in row]


@pytest.mark.parametrize("rate", [1, 60, 600])
def test_a_rate_spaces_the_starts(stack: Stack, rate: int) -> None:
    """In their order, so that no minute has more than the rate. Messages are delayed until then, at
    most for three minutes; the rest waits, without a slot, until the sweep comes near.
    """
    lanes = Rated(stack, rate)
    names = [lanes.queue() for _ in range(5)]
    again = list(lanes.stream)
    lanes.deliver()
    starts, slots = lanes.starts(), lanes.slots()
    count = 3 if rate == 1 else 5
    assert [name for name in names if name in slots] == names[:count] == list(lanes.delays())
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == [pytest.approx(62 / rate, abs=0.01)] * (count - 1)
    assert all(0 <= delay <= 181 for delay in lanes.delays().values())
    why = why_waiting(lanes.row(names[1]), starts[0])
    assert why is not None
    assert (why["reason"], why["until"]) == ("rate", iso_time(starts[1]))
    late = why_waiting(lanes.row(names[1]), starts[1])
    assert late is not None
    assert late["reason"] == "queued"
    lanes.stream += again  # the same start times once more
    lanes.deliver()
    assert lanes.starts() == starts
    if rate > 1:
        return
    waits = why_waiting(lanes.row(names[3]), lanes.now)
    assert waits == {"reason": "rate", "since": lanes.row(names[3])["waiting_since"]}
    lanes.sweep()
    assert lanes.starts() == starts
    near = to_item({":at": int(lanes.now * 1000) + 100_000})
    stack.dynamodb.update_item(
        TableName=LANES, Key=to_item({"lane": f"{LANE}#0"}), ExpressionAttributeValues=near,
        UpdateExpression="SET next_start = :at",
    )  # fmt: skip
    lanes.sweep()
    assert len(lanes.starts()) == 5
    assert lanes.slots() == set(names)
    assert "waiting_lane" not in lanes.row(names[4])


def test_a_further_attempt_is_not_counted(stack: Stack) -> None:
    """It keeps its start time, and is sent at once when that has passed."""
    lanes = Rated(stack, 1)
    past = iso_time(lanes.now - 60)
    name = lanes.queue(starts_at=past, attempts=1)
    lanes.queue()
    lanes.deliver()
    assert lanes.delays()[name] == 0
    assert lanes.row(name)["starts_at"] == past
    assert lanes.starts()[1] <= lanes.now


@pytest.mark.parametrize("lost", [False, True], ids=["failed", "answer lost"])
@pytest.mark.parametrize(
    "operation", ["BatchGetItem", "GetItem", "UpdateItem", "TransactWriteItems"]
)
@pytest.mark.parametrize("number", range(4))
def test_a_start_time_is_given_once_whatever_fails(
    stack: Stack, operation: str, lost: bool, number: int
) -> None:
    """The stream delivers the batch again: the starts go on where they were, and none is lost."""
    lanes = Rated(stack, 600)
    names = [lanes.queue() for _ in range(4)]
    client, calls = lanes.module.client("dynamodb"), iter(range(99))

    def fails(_: str) -> bool:
        return next(calls) == number

    if lost:
        method = xform_name(operation)
        whole = getattr(client, method)

        def losing(**parameters: Any) -> Any:
            answer = whole(**parameters)
            if fails(""):
                raise ReadTimeoutError(endpoint_url="the answer is lost")
            return answer

        stack.monkeypatch.setattr(client, method, losing)
    else:
        stack.fail(client, operation, times=3, when=fails)
    lanes.deliver()
    assert list(lanes.delays()) == names
    starts = lanes.starts()
    assert len(starts) == 4
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(starts))
    assert starts[-1] - starts[0] < 60
    assert lanes.slots() == set(names)


@pytest.mark.parametrize("name", [0, 2])
def test_a_cancelled_request_frees_its_place(lanes: Lanes, name: int) -> None:
    """That of its slot, or that in the queue."""
    names = [lanes.queue() for _ in range(4)]
    lanes.work = lambda: None  # type: ignore[method-assign]
    lanes.deliver()
    lanes.cancel(names[name])
    lanes.deliver()
    rest = [each for each in names if each != names[name]]
    assert lanes.slots() == set(rest[:2])
    assert "waiting_lane" not in lanes.row(names[name])


def test_a_request_that_has_ended_gets_no_slot(lanes: Lanes) -> None:
    """It was cancelled before its record was read: both are in one batch."""
    lanes.cancel(lanes.queue())
    lanes.deliver()
    assert lanes.slots() == set()


def test_what_is_delivered_twice_starts_once(lanes: Lanes) -> None:
    names = [lanes.queue() for _ in range(3)]
    again = list(lanes.stream)
    lanes.deliver()
    lanes.stream += again
    lanes.deliver()
    assert lanes.started == names[:2]
    lanes.end(names[0])
    lanes.stream *= 2
    lanes.deliver()
    assert lanes.running == set(names[1:])
    assert lanes.slots() == set(names[1:])


def test_a_retried_request_keeps_its_slot(lanes: Lanes) -> None:
    names = [lanes.queue() for _ in range(3)]
    lanes.deliver()
    lease = RequestLease(lanes.stack.dynamodb, REQUESTS, OWNER, names[0])
    lease.put_back("worker", int(time.time()), time.time(), keep=False)
    assert lease.requeue(time.time())
    lanes.running.remove(names[0])
    lanes.stream.append(lanes.row(names[0]))
    lanes.deliver()
    assert lanes.running == set(names[:2])


def test_the_sweep_frees_what_ended_unseen(lanes: Lanes) -> None:
    """The record of an end was lost, or the request is gone from the table."""
    names = [lanes.queue() for _ in range(4)]
    lanes.deliver()
    lanes.end(names[0])
    lanes.stack.dynamodb.delete_item(
        TableName=REQUESTS, Key=to_item({"owner": OWNER, "request_id": names[1]})
    )
    lanes.running.remove(names[1])
    lanes.stream.clear()
    assert lanes.sweep() == {"rows": 1, "freed": 2}
    assert lanes.running == set(names[2:])
    for name in names[2:]:
        lanes.end(name)
    lanes.deliver()
    lanes.stack.monkeypatch.setattr(lanes.module, "QUEUE_LAG_SECONDS", -1.0)
    lanes.sweep()
    lanes.sweep()
    assert lanes.stack.items("lanes") == []


def test_the_sweep_keeps_what_runs(lanes: Lanes) -> None:
    names = [lanes.queue() for _ in range(3)]
    lanes.deliver()
    assert lanes.sweep() == {"rows": 1, "freed": 0}
    assert lanes.slots() == lanes.running == set(names[:2])


def test_the_sweep_sends_what_has_a_slot_and_no_message(stack: Stack) -> None:
    """SQS was away when its turn came, and requests of a higher priority hide it in the queue."""
    lanes = Lanes(stack, 1)
    names = [lanes.queue(), lanes.queue()]
    lanes.deliver()
    lanes.end(names[0])
    stack.fail(lanes.module.sqs, "SendMessageBatch", times=1)
    ended = record(lanes.stream.pop(), "1")
    assert lanes.module.handler({"Records": [ended]}, Context())["batchItemFailures"]
    for _ in range(12):
        lanes.queue("high")
    lanes.deliver()
    assert (lanes.running, lanes.slots()) == (set(), {names[1]})
    lanes.sweep()
    assert lanes.started == names


def test_the_sweep_keeps_to_a_smaller_limit(stack: Stack) -> None:
    """Although rows of the larger one still have slots; they go with those."""
    lanes = Lanes(stack, 40)
    old = [lanes.queue() for _ in range(40)]
    lanes.deliver()
    lanes.limit = 2
    new = [lanes.queue() for _ in range(5)]
    lanes.deliver()
    for name in old:
        lanes.end(name)
    lanes.stream.clear()
    for _ in range(2):
        lanes.sweep()
    assert lanes.running == set(new[:2])
    assert len(stack.items("lanes")) == 1


def test_a_larger_limit_holds_at_once(stack: Stack) -> None:
    """The next request brings it; those that wait start first."""
    lanes = Lanes(stack, 1)
    names = [lanes.queue() for _ in range(5)]
    lanes.deliver()
    lanes.limit = 20
    names += [lanes.queue() for _ in range(17)]
    lanes.deliver()
    assert (lanes.started, len(lanes.running)) == (names[:20], 20)
    lanes.sweep()
    assert len(lanes.running) == 20


def test_the_sweep_starts_what_the_index_showed_late(lanes: Lanes) -> None:
    """The lane seemed to have no queue when its slots became free."""
    names = [lanes.queue() for _ in range(4)]
    lanes.deliver()
    with lanes.stack.monkeypatch.context() as patch:
        patch.setattr(lanes.module, "QUEUE_LAG_SECONDS", -1.0)
        patch.setattr(lanes.module, "first_in_queue", lambda *_: [])
        for name in names[:2]:
            lanes.end(name)
        lanes.deliver()
    assert lanes.running == set()
    lanes.sweep()
    assert lanes.running == set(names[2:])


def test_a_lane_that_can_not_be_swept_stops_no_other(lanes: Lanes) -> None:
    """Its error is raised after the others were swept."""
    other = [lanes.queue(lane="action#a", lane_limit=1) for _ in range(2)]
    names = [lanes.queue() for _ in range(3)]
    lanes.deliver()
    lanes.end(names[0])
    lanes.end(other[0])
    lanes.stream.clear()
    lanes.stack.fail(lanes.module.client("dynamodb"), "Query", when=lambda body: f"{LANE}/" in body)
    with pytest.raises(ClientError):
        lanes.sweep()
    lanes.work()
    assert lanes.running == {names[1], other[1]}


def test_a_slow_look_at_the_queue_does_not_end_it(lanes: Lanes) -> None:
    """A request that begins to wait during the look is among those that the mark stands for."""
    now = [time.time()]
    clock = SimpleNamespace(time=lambda: now[0], sleep=lambda seconds: None)
    lanes.stack.monkeypatch.setattr(lanes.module, "time", clock)
    look = lanes.module.first_in_queue

    def slow(*arguments: Any) -> Any:
        now[0] += 10
        return look(*arguments)

    lanes.stack.monkeypatch.setattr(lanes.module, "first_in_queue", slow)
    waiting_at = lanes.lane.set_waiting(now[0] - 1)
    lanes.module.start_waiting(lanes.lane)
    assert lanes.lane.read().waiting_at == waiting_at
    lanes.module.start_waiting(lanes.lane)
    assert lanes.lane.read().waiting_at is None


def test_a_slow_wait_does_not_make_the_mark_old(lanes: Lanes) -> None:
    """The end of another request leaves it, although the index does not show the queue yet."""
    names = [lanes.queue() for _ in range(3)]
    lanes.deliver(2)
    now = [time.time()]
    clock = SimpleNamespace(time=lambda: now[0], sleep=lambda seconds: None)
    lanes.stack.monkeypatch.setattr(lanes.module, "time", clock)
    wait = RequestLease.wait_for_lane

    def slow(*arguments: Any) -> bool:
        now[0] += 10
        return wait(*arguments)

    lanes.stack.monkeypatch.setattr(RequestLease, "wait_for_lane", slow)
    lanes.deliver()
    with lanes.stack.monkeypatch.context() as patch:
        patch.setattr(lanes.module, "first_in_queue", lambda *_: [])
        lanes.end(names[0])
        lanes.deliver()
    assert lanes.lane.read().waiting_at is not None
    lanes.sweep()
    assert lanes.running == set(names[1:])


def test_a_write_to_a_lane_is_refused(lanes: Lanes) -> None:
    """Each condition of each write, where its callers would seldom meet it."""
    lane, row = lanes.lane, lanes.lane.name + "#0"
    lane.leave(["a"])
    assert lanes.stack.items("lanes") == []
    for keys, entered in [(["a"], ["a"]), (["b", "c"], ["b"]), (["c"], [])]:
        assert lane.enter(keys, is_next=True) == entered
    assert not remove_lane_row(lanes.stack.dynamodb, LANES, row)
    marked = lane.set_waiting(2.0)
    lane.set_waiting(1.0)
    lane.clear_waiting(marked - 1)
    assert lane.read().waiting_at == marked
    lane.leave(["a", "b"])
    assert not remove_lane_row(lanes.stack.dynamodb, LANES, row)
    lane.clear_waiting(marked)
    assert remove_lane_row(lanes.stack.dynamodb, LANES, row)


@pytest.mark.parametrize(
    ("of_lane", "of_request", "given"),
    [
        ({"next_start": 9_000_000_000_000}, {}, None),
        ({}, {"status": "CANCELLED"}, 0.0),
        ({}, {"starts_at": iso_time(5.0)}, 5.0),
        ({}, {}, 7.0),
    ],
    ids=["other next start", "ended", "other start", "as read"],
)
def test_each_condition_of_a_reservation_alone(
    stack: Stack, of_lane: Row, of_request: Row, given: float | None
) -> None:
    """What changes between its reads and its write counts: it reads again. Its lane's row stays."""
    before, now = {"lane": f"{LANE}#0", "lane_limit": 1, "next_start": 7000}, 1.0
    stack.put("lanes", before)
    stack.put("requests", request("req-1"))
    whole = stack.dynamodb.transact_write_items

    def meanwhile(**parameters: Any) -> Any:
        stack.put("lanes", before | of_lane)
        stack.put("requests", request("req-1", **of_request))
        return whole(**parameters)

    stack.monkeypatch.setattr(stack.dynamodb, "transact_write_items", meanwhile)
    lease = RequestLease(stack.dynamodb, REQUESTS, OWNER, "req-1")
    assert Lane(stack.dynamodb, LANES, LANE, 1, 62).reserve(lease, now) == given
    is_made = not of_lane and not of_request
    assert (stack.items("lanes") == [before | of_lane]) is not is_made
    assert not remove_lane_row(stack.dynamodb, LANES, f"{LANE}#0")


def test_only_a_pending_request_waits_and_starts(lanes: Lanes) -> None:
    """The lease of a request that runs stays as its worker has set it."""
    name = lanes.queue()
    lanes.deliver()
    before = lanes.row(name)
    lease = RequestLease(lanes.stack.dynamodb, REQUESTS, OWNER, name)
    assert not lease.wait_for_lane("shard", time.time())
    assert lease.leave_queue(time.time())
    assert lanes.row(name) == before


@pytest.mark.parametrize("limit", [0, 10_001, -1, "2", None])
def test_a_limit_that_is_none_is_no_lane(stack: Stack, limit: Any) -> None:
    """A row of another version can't hold a request back."""
    lanes = Lanes(stack, 1)
    name = lanes.queue(lane_limit=limit)
    lanes.deliver()
    assert lanes.started == [name]
    assert stack.items("lanes") == []


@pytest.mark.parametrize("limit", [1, 15, 16, 17, 100, 1024, 1025, 10_000])
def test_slots_are_spread_over_rows(limit: int) -> None:
    """All of them, evenly; a row of a usual lane has at most sixteen."""
    rows = lane_rows(limit)
    assert sum(rows) == limit
    assert max(rows) - min(rows) <= 1
    assert max(rows) <= (16 if limit <= 1024 else 157)
    assert len(rows) <= 64


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_slots_are_kept(stack: Stack, seed: int) -> None:
    """Random ends, cancellations, failed calls and lost answers of dispatch: never more than the
    lane's slots run, each request starts once, and none waits for ever.
    """
    chance = random.Random(seed)
    lanes = Lanes(stack, chance.choice([1, 2, 3, 20]))
    clients = {"dynamodb": lanes.module.client("dynamodb"), "sqs": lanes.module.sqs}
    faulty = iter_faults(stack, clients, chance)
    names: set[str] = set()
    while len(names) < 3 * lanes.limit or lanes.stream or lanes.running:
        if len(names) < 3 * lanes.limit:
            names |= {lanes.queue(chance.choice(["low", "normal", "high"])) for _ in range(2)}
        next(faulty)
        lanes.deliver(chance.randint(1, 5))
        running = sorted(lanes.running)
        if running and chance.random() < 0.7:
            lanes.end(chance.choice(running), chance.choice(["COMPLETED", "FAILED"]))
        chance.shuffle(lanes.stream)
        if not lanes.stream:
            with suppress(ClientError):  # the schedule comes again
                lanes.sweep()
    assert lanes.most <= lanes.limit
    assert sorted(lanes.started) == sorted(names)
    assert lanes.slots() == set()


def iter_faults(stack: Stack, clients: Row, chance: random.Random) -> Iterator[None]:
    """Let now and then a call of dispatch fail, or its answer get lost."""
    writes = [("dynamodb", "UpdateItem"), ("sqs", "SendMessageBatch"), ("dynamodb", "Query")]
    while True:
        if chance.random() < 0.5:
            service, operation = chance.choice(writes)
            if chance.random() < 0.5:
                stack.fail(clients[service], operation, times=1)
            else:
                stack.lose_answer(clients[service], operation)
        yield
