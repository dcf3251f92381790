"""Events that a job emits: stored in order under the lease, and read again from a position."""

import json
import time
from typing import Any

import pytest

from jobplane_keys import from_item, to_item
from jobplane_leases import (
    EventError,
    LeaseLostError,
    RequestLease,
    read_events,
    store_events,
)
from jobplane_leases._events import EVENT_TTL_SECONDS, MAX_EVENT_BYTES, MAX_EVENTS, MAX_TAIL_BYTES
from tests.unit.stack import OWNER, PREFIX, Processor, Row, Stack, request

TABLE = f"{PREFIX}requests"


def page(stack: Stack, since: int = 0, later: float = 0.0, **options: Any) -> Row:
    row = stack.request()
    return read_events(stack.dynamodb, TABLE, row, since, time.time() + later, **options)


def batches_of(stack: Stack) -> list[Row]:
    items = map(from_item, stack.dynamodb.scan(TableName=TABLE)["Items"])
    return sorted((row for row in items if "events" in row), key=lambda row: str(row["request_id"]))


def emitted(processor: Processor) -> list[Row]:
    return [post for post in processor.sockets.to("conn-1") if post["type"] == "event"]


def test_events_are_stored_and_posted_in_order(processor: Processor, stack: Stack) -> None:
    """A few events are one write, one post, and one page."""

    def job(job: Any) -> Row:
        for number in range(3):
            job.emit({"line": number})
        return {}

    row = processor.run(job=job)
    events = [{"line": number} for number in range(3)]
    assert (row["status"], row["event_count"]) == ("COMPLETED", 3)
    assert [(post["first"], post["events"]) for post in emitted(processor)] == [(1, events)]
    assert processor.terminal()[-1]["event_count"] == 3
    assert page(stack) == {"first": 1, "events": events, "count": 3, "more": False, "gap": False}
    assert page(stack, since=2)["events"] == events[2:]
    assert page(stack, since=3) == {
        "first": 4, "events": [], "count": 3, "more": False, "gap": False,
    }  # fmt: skip


def test_pages_end_where_a_message_is_full(processor: Processor, stack: Stack) -> None:
    """Pages follow each other without a gap, whatever batches the events came in."""
    texts = [f"{number:03d}" * 1000 for number in range(100)]

    def job(job: Any) -> Row:
        for text in texts:
            job.emit(text)
        return {}

    processor.run(job=job)
    assert len(emitted(processor)) > 1
    found: list[str] = []
    while len(found) < len(texts):
        part = page(stack, len(found), max_bytes=20_000)
        assert part["first"] == len(found) + 1 and part["events"] and not part["gap"]
        found += part["events"]
        assert part["more"] == (len(found) < len(texts))
    assert found == texts


def test_events_of_a_failed_attempt_stay(processor: Processor, stack: Stack) -> None:
    """The next attempt's events follow them; those in a stored step are not emitted again."""
    attempts: list[int] = []

    def job(job: Any) -> Row:
        job.step("one", lambda: job.emit("in the step"))
        attempts.append(len(attempts))
        job.emit(f"attempt {len(attempts)}")
        if len(attempts) == 1:
            raise processor.module.TransientError("once")
        return {}

    processor.set(backoff_seconds=lambda attempts: 0.0)
    processor.run(job=job)
    assert page(stack)["events"] == ["in the step", "attempt 1", "attempt 2"]


def test_what_is_gone_is_a_gap(processor: Processor, stack: Stack) -> None:
    """A day later, the answer says that the events are gone, and where to go on."""
    processor.run(job=lambda job: job.emit("old" * 500) or {})
    gone = page(stack, later=EVENT_TTL_SECONDS + 1)
    assert gone == {"first": 2, "events": [], "count": 1, "more": False, "gap": True}


def test_a_gap_between_events_is_shown(processor: Processor, stack: Stack) -> None:
    """A page ends before it; the next one begins after it."""

    def job(job: Any) -> Row:
        for number in range(4):
            job.emit(f"{number}" * 2000)
            job.flush()
        return {}

    processor.run(job=job)
    batches = batches_of(stack)
    for row in batches[1:3]:
        stack.dynamodb.delete_item(
            TableName=TABLE, Key=to_item({name: row[name] for name in ("owner", "request_id")})
        )
    one, other = page(stack), page(stack, since=1)
    assert (one["first"], len(one["events"]), one["more"], one["gap"]) == (1, 1, True, False)
    assert (other["first"], len(other["events"]), other["gap"]) == (4, 1, True)


def test_few_events_are_on_the_row_until_they_are_more(processor: Processor, stack: Stack) -> None:
    """Reading them needs no query then; a kilobyte of them becomes a batch."""

    def job(job: Any) -> Row:
        for number in range(30):
            job.emit(f"{number:02d}" * 24)
            job.flush()
        return {}

    row = processor.run(job=job)
    batches = [row["first"] for row in batches_of(stack)]
    assert batches == [1]
    assert 0 < len(row["event_tail"]) <= MAX_TAIL_BYTES
    events = [f"{number:02d}" * 24 for number in range(30)]
    assert [page(stack, since=since)["events"] for since in (0, 20, 21, 29)] == [
        events, events[20:], events[21:], events[29:],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (float("nan"), "not a JSON value"),
        ({1, 2}, "not a JSON value"),
        ("\ud800", "not a JSON value"),
        ("x" * MAX_EVENT_BYTES, f"at most {MAX_EVENT_BYTES}"),
    ],
)
def test_an_event_that_is_refused(processor: Processor, event: Any, expected: str) -> None:
    """It fails the job, with what is wrong with it."""
    row = processor.run(job=lambda job: job.emit(event) or {})
    assert (row["status"], row["error"]["code"]) == ("FAILED", "PROCESSING_FAILED")
    assert expected in row["error"]["message"]


def test_a_count_goes_on_after_what_an_earlier_attempt_has_emitted(
    processor: Processor, stack: Stack
) -> None:
    """Its worker was killed; each number is emitted once."""
    before = {"attempts": 1, "event_count": 2, "event_bytes": 2, "event_tail": "1,2"}
    row = processor.run(request(action="count", payload={"to": 4, "seconds": 0}, **before))
    assert json.loads(row["result"]) == {"to": 4}
    assert [(post["first"], post["events"]) for post in emitted(processor)] == [(3, [3, 4])]
    assert page(stack)["events"] == [1, 2, 3, 4]


def stored(stack: Stack, owner: str, before: Row) -> Row:
    lease = RequestLease(stack.dynamodb, TABLE, OWNER, "req-1")
    return store_events(lease, owner, before, ['"more"'], time.time())


def test_a_worker_without_the_lease_stores_nothing(stack: Stack) -> None:
    """Neither the events nor their count change."""
    row = request(status="PROCESSING", lease_owner="me")
    stack.put("requests", row)
    with pytest.raises(LeaseLostError):
        stored(stack, "other", {})
    assert "event_count" not in stack.request()
    assert stored(stack, "me", {})["event_count"] == 1
    # It does not know of the first batch, whose answer was lost.
    assert stored(stack, "me", {})["event_count"] == 2
    assert page(stack)["events"] == ["more", "more"]


def test_a_job_emits_so_many_events_at_most(stack: Stack) -> None:
    """The error names the limits."""
    stack.put("requests", request(status="PROCESSING", lease_owner="me"))
    with pytest.raises(EventError, match=str(MAX_EVENTS)):
        stored(stack, "me", {"event_count": MAX_EVENTS})
