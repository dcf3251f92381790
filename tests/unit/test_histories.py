"""jobplane.histories: what is recorded, and whether it can be explained by the specifications."""

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore import client as botocore_client

from jobplane.histories.checker import Verdict, check, unexplained
from jobplane.histories.operations import Call, Operation, calls_in, operations_of
from jobplane.histories.rules import OF_CLAIMS, OF_LANES, OF_REQUESTS
from jobplane.stage import recorder
from jobplane_keys import to_item
from jobplane_leases import (
    Lane,
    Lease,
    RequestLease,
    enqueue_request,
    remove_lane_row,
)
from tests.unit.claims import NOW, Jobs
from tests.unit.stack import OWNER, PREFIX, ROOT, Row, Stack, request

REQUESTS = PREFIX + "requests"
ID = "req-1"


class Recording:
    """The writes of this process, as a worker of the stage records them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def calls(self) -> list[Call]:
        # What the recorder notes is the machine's time, and the rows have another one.
        return [
            replace(call, start=n * 1.0 + NOW, end=call.end and n + 0.5 + NOW)
            for n, call in enumerate(sorted(calls_in(self.folder), key=lambda c: c.start))
        ]

    def check(self) -> Verdict:
        return check(operations_of(self.calls()))

    def unnoted(self, write: Callable[[], Any]) -> None:
        """Make a write that the recorder does not see."""
        away = self.folder.rename(self.folder.with_name("away"))
        try:
            write()
        finally:
            away.rename(self.folder)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    kind: Any = botocore_client.BaseClient
    monkeypatch.setattr(kind, "_make_api_call", kind._make_api_call)
    folder = tmp_path / "history"
    folder.mkdir()
    recorder.install(str(folder), "worker")
    return Recording(folder)


@pytest.fixture
def lease(stack: Stack) -> RequestLease:
    return RequestLease(stack.dynamodb, REQUESTS, OWNER, ID)


def stored(stack: Stack) -> None:
    row = {**request(ID), "owner": OWNER, "request_id": ID, "max_attempts": 3}
    enqueue_request(stack.dynamodb, REQUESTS, row, NOW)


def leased(name: str, until: float = NOW + 60) -> Lease:
    return Lease(name, int(until))


OUTCOME: Row = {"status": "COMPLETED", "seq": 2, "result": "x" * 9000}


def finish(lease: RequestLease, name: str) -> None:
    lease.finish(name, OUTCOME, NOW + 9)


def named(verdict: Verdict) -> tuple[str, str]:
    """The action and the state before it of the operation that can't be explained."""
    [found] = verdict.unexplained
    return found.culprit.action, re.split("[ ,]", str(found.order[-1][1]))[0]


def test_the_history_of_a_request_is_recorded_and_explained(
    stack: Stack, lease: RequestLease, recording: Recording
) -> None:
    """From its beginning to its end, with a worker that is refused."""
    stored(stack)
    lease.take(leased("a"), NOW)
    assert lease.take(leased("b"), NOW + 1) is None
    lease.renew(leased("a", NOW + 90), NOW + 2, {"seq": 1})
    finish(lease, "a")
    [history] = operations_of(recording.calls()).values()
    assert [(one.action, one.outcome) for one in history] == [
        ("Enqueue", "done"), ("Take", "done"), ("Take", "refused"), ("Renew", "done"),
        ("Finish", "done"),
    ]  # fmt: skip
    assert recording.check().line == "5 operations, 0 indeterminate, explained"


def test_a_planted_double_take_is_refused(
    stack: Stack, lease: RequestLease, recording: Recording
) -> None:
    """The second take is named, and the table shows the state in which it was made."""
    stored(stack)
    lease.take(leased("a"), NOW)
    events, planted = stack.dynamodb.meta.events, "before-parameter-build.dynamodb.UpdateItem"
    events.register(planted, _without_condition)
    try:
        lease.take(leased("b"), NOW + 1)
    finally:
        events.unregister(planted, _without_condition)
    verdict = recording.check()
    assert named(verdict) == ("Take", "PROCESSING")
    [found] = verdict.unexplained
    assert found.culprit.given["me"] == "b"
    first, *table, last = found.lines()
    assert first.startswith(f"requests {OWNER}#{ID}: Take by worker-")
    assert len(table) == 2 and "PROCESSING of a until" in table[1]
    assert "Take           done     << its answer shows: PROCESSING of b" in last


def _without_condition(params: Row, **_: Any) -> None:
    del params["ConditionExpression"]
    values = params["ExpressionAttributeValues"]
    used = params["UpdateExpression"]
    params["ExpressionAttributeValues"] = {n: v for n, v in values.items() if n in used}


@pytest.mark.parametrize(
    ("owner", "is_explained"),
    [("claim-1/8", True), ("claim-1/6", False), ("claim-2/8", False), ("another", False)],
)
def test_only_a_newer_fence_of_the_claim_relieves_a_worker(
    stack: Stack, lease: RequestLease, recording: Recording, owner: str, is_explained: bool
) -> None:
    """Of a job of the flow, whose lease has the claim and the fence of its worker."""
    stored(stack)
    row = lease.take(leased("claim-1/7"), NOW + 1)
    assert row is not None
    lease.take_over(row, leased(owner), NOW + 2)
    assert (recording.check().unexplained == []) is is_explained


def test_a_lost_end_is_refused(stack: Stack, lease: RequestLease, recording: Recording) -> None:
    """The write that finds the row as it was before is named."""
    stored(stack)
    lease.take(leased("a"), NOW)
    before = stack.get("requests", owner=OWNER, request_id=ID)
    finish(lease, "a")
    recording.unnoted(lambda: stack.put("requests", before))
    lease.renew(leased("a", NOW + 90), NOW + 10)
    assert named(recording.check()) == ("Renew", "COMPLETED")


def test_a_reused_fence_is_refused(jobs: Jobs, recording: Recording) -> None:
    """The claim that got it is named."""
    for message in ("m1", "m2"):
        claim = jobs.acquire(messageId=message, threadId=message)
        jobs.release(claim)
        row = jobs.row() | {"fence": claim["fence"] - 1}
        recording.unnoted(partial(jobs.stack.put, "active-jobs", row))
    assert named(recording.check()) == ("Acquire", "free")


def test_a_write_without_an_answer_may_have_happened_later(
    stack: Stack, lease: RequestLease, recording: Recording
) -> None:
    """It is in the history as indeterminate; without it the history has no explanation."""
    stored(stack)
    lease.take(leased("a"), NOW)
    assert lease.take(leased("b"), NOW + 1) is None
    lease.renew(leased("a", NOW + 90), NOW + 2, {"seq": 1})
    assert lease.take(leased("b"), NOW + 3) is None
    begun, taken, before, renewed, after = recording.calls()
    late = replace(renewed, start=taken.start + 0.6, end=None, answer=None)
    verdict = check(operations_of([begun, taken, late, before, after]))
    assert verdict.line == "5 operations, 1 indeterminate, explained"
    assert named(check(operations_of([begun, taken, before, after]))) == ("Take", "PROCESSING")


def test_a_write_that_is_sent_again_may_have_happened_the_first_time(
    stack: Stack, lease: RequestLease, recording: Recording
) -> None:
    """Its repetition finds its own result, and another writer has seen that before."""
    stored(stack)
    lease.take(leased("a"), NOW)
    finish(lease, "a")
    assert lease.take(leased("b"), NOW + 9) is None
    begun, taken, ended, seen = recording.calls()
    row = seen.answer["Item"] if seen.answer else {}
    refused = {"Error": {"Code": "ConditionalCheckFailedException"}, "Item": row}
    again = replace(ended, start=seen.start + 1, end=seen.start + 2, answer=refused)
    calls = [begun, taken, replace(ended, end=None, answer=None), seen, again]
    assert check(operations_of(calls)).unexplained == []


def test_a_call_of_a_killed_process_has_no_answer(
    stack: Stack, lease: RequestLease, recording: Recording
) -> None:
    """Its last line may be a part of one."""
    stored(stack)
    lease.take(leased("a"), NOW)
    [file] = recording.folder.iterdir()
    text = file.read_text()
    file.write_text(text[: text.rindex("{") + 9])
    operations = [one.outcome for one in operations_of(recording.calls())[_subject()]]
    assert operations == ["done", "unknown"]


def _subject() -> str:
    return f"requests {OWNER}#{ID}"


def test_a_write_without_a_key_has_no_history() -> None:
    """DynamoDB refuses it."""
    call = Call("worker", "PutItem", {"TableName": REQUESTS, "Item": {}}, start=NOW)
    assert operations_of([call]) == {}


def test_a_row_that_was_changed_from_outside_is_not_checked(
    stack: Stack, lease: RequestLease, recording: Recording
) -> None:
    """No rule describes such a write."""
    stored(stack)
    stack.dynamodb.delete_item(TableName=REQUESTS, Key=to_item({"owner": OWNER, "request_id": ID}))
    assert (recording.check().skipped, recording.check().operations) == (1, 0)


SAW = {"status": "COMPLETED", "seq": 2}


@pytest.mark.parametrize(("difference", "is_explained"), [(0.0, False), (4.0, True)])
def test_clocks_of_actors_may_differ(difference: float, is_explained: bool) -> None:
    """A client whose clock is slow sees an end before its worker has noted the write."""
    given = {"set": {"status": "PENDING", "max_attempts": 1}, "now": 0, "write_id": "0"}
    take = {"me": "a", "until": 90, "now": 0, "write_id": "1"}
    end = {"me": "a", "set": SAW, "write_id": "2"}
    history = [
        Operation("r", "Enqueue", "router", 0, 1, "done", given),
        Operation("r", "Take", "worker", 5, 6, "done", take),
        Operation("r", "Finish", "worker", 10, 11, "done", end),
        Operation("r", "See", "client", 7, 8, "done", SAW),
    ]
    assert (unexplained("r", history, difference) is None) is is_explained


def test_the_history_of_a_lane_is_recorded_and_explained(
    stack: Stack, recording: Recording
) -> None:
    """Slots are taken up to the limit, the queue is served, and the row is removed."""
    lane = lane_of(stack)
    assert lane.enter(["a", "b"]) == ["a", "b"]
    assert lane.enter(["c"]) == []
    moment = lane.set_waiting(NOW)
    lane.leave(["a"])
    assert lane.enter(["d"]) == []
    assert lane.enter(["c"], is_next=True) == ["c"]
    lane.clear_waiting(moment)
    assert not remove_lane_row(stack.dynamodb, LANES, LANE_ROW)
    lane.leave(["b", "c"])
    assert remove_lane_row(stack.dynamodb, LANES, LANE_ROW)
    assert lane.enter(["e"]) == ["e"]
    verdict = recording.check()
    assert verdict.unexplained == []
    assert verdict.operations == 11


LANES, LANE_ROW = PREFIX + "lanes", "tenant#acme#0"


def lane_of(stack: Stack, limit: int = 2) -> Lane:
    return Lane(stack.dynamodb, LANES, "tenant#acme", limit)


def test_a_slot_beyond_the_limit_is_refused(stack: Stack, recording: Recording) -> None:
    """The write that took it is named."""
    lane_of(stack).enter(["a", "b"])
    events, planted = stack.dynamodb.meta.events, "before-parameter-build.dynamodb.UpdateItem"
    events.register(planted, _without_condition)
    try:
        lane_of(stack).enter(["c"])
    finally:
        events.unregister(planted, _without_condition)
    [found] = recording.check().unexplained
    assert (found.culprit.action, str(found.order[-1][1])) == ("Enter", "2 slots taken")


def test_a_slot_that_is_freed_by_another_writer_is_refused(
    stack: Stack, recording: Recording
) -> None:
    """The first answer that shows the row without it is named."""
    lane = lane_of(stack)
    lane.enter(["a", "b"])
    row = stack.get("lanes", lane=LANE_ROW)
    recording.unnoted(lambda: stack.put("lanes", row | {"slots": frozenset({"a"})}))
    lane.enter(["c"])
    [found] = recording.check().unexplained
    assert found.culprit.action == "Enter"


def test_start_times_that_are_given_twice_are_refused(stack: Stack, recording: Recording) -> None:
    """Of the lane's row, and of the request."""
    lane = Lane(stack.dynamodb, LANES, "tenant#acme", 2, rate=60)
    stored(stack)
    request_lease = RequestLease(stack.dynamodb, REQUESTS, OWNER, ID)
    assert lane.reserve(request_lease, NOW) == NOW
    assert recording.check().unexplained == []
    row, lane_row = (
        stack.get("requests", owner=OWNER, request_id=ID), stack.get("lanes", lane=LANE_ROW)
    )  # fmt: skip
    del row["starts_at"], lane_row["next_start"]
    recording.unnoted(lambda: stack.put("requests", row))
    recording.unnoted(lambda: stack.put("lanes", lane_row))
    lane.reserve(request_lease, NOW)
    found = {one.subject for one in recording.check().unexplained}
    assert found == {f"lanes {LANE_ROW}", _subject()}


def test_a_long_history_is_explained_in_a_time_that_grows_with_it() -> None:
    """A lane that 1,000 requests went through, with writes that have no answer."""
    history, slots = [], []
    for number in range(1000):
        slots = [*slots, f"r{number}"][-9:]
        room = {"wanted": slots[-1:], "room": 10}
        at = number * 4.0
        history.append(Operation(LANE, "Enter", "a", at, at + 1, "done", room))
        if number >= 8:
            outcome, end = ("unknown", math.inf) if number % 40 == 0 else ("done", at + 3)
            mine = {"mine": slots[:1]}
            history.append(Operation(LANE, "LeaveRow", "b", at + 2, end, outcome, mine))
            if outcome == "unknown":
                history.append(Operation(LANE, "LeaveRow", "b", at + 3, at + 3.5, "done", mine))
    assert unexplained(LANE, history) is None


LANE = f"lanes {LANE_ROW}"


def test_every_action_of_the_specifications_has_a_rule() -> None:
    """Except those that write an assembly's document."""
    conditions = tomllib.loads((ROOT / "tests/specifications/conditions.toml").read_text())
    writes = conditions["writes"]
    of_requests = {*writes["requests"], *writes["steps"]} - {"WriteDocument"}
    of_both = {"WaitForLane", "LeaveQueue"}
    assert of_requests | of_both <= {*OF_REQUESTS}
    assert {*writes["claims"]} == {*OF_CLAIMS}
    of_lanes = {*writes["lanes"], *writes["rows"], *writes["rates"]}
    assert {*OF_LANES} == of_lanes - of_both | {"EnterNext", "SetUp"}
