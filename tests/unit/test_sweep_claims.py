"""sweep-claims: releases claims of ended executions, and no other."""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from tests.unit.claims import NOW, WORKSPACE, Jobs
from tests.unit.stack import ACCOUNT, PREFIX, REGION, Context, Output, Stack

MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{PREFIX}job-flow"
EXECUTION = MACHINE.replace("stateMachine", "execution") + ":run-1"
SWEEP = {"sweep": "claims"}


type Json = dict[str, Any]


def fault(code: str, operation: str = "DescribeExecution") -> ClientError:
    return ClientError({"Error": {"Code": code}}, operation)


class Sweep:
    """The function; the test plays Step Functions and Lambda."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.module: ModuleType = jobs.function("sweep-claims", STATE_MACHINE_ARN=MACHINE)
        self.executions: Json = {}
        self.asked: list[str] = []
        self.handed: list[Json] = []
        self.letters: list[Json] = []
        self.lambda_fault: Exception | None = None
        self.sqs_fault: Exception | None = None

    def describe(self, *, executionArn: str) -> Json:
        self.asked.append(executionArn)
        found = self.executions.get(executionArn)
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise self.module.stepfunctions.exceptions.ExecutionDoesNotExist(
                {"Error": {"Code": "ExecutionDoesNotExist"}}, "DescribeExecution"
            )
        return dict(found)

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> Json:
        assert (FunctionName, InvocationType) == (PREFIX + "handle-timeout", "Event")
        if self.lambda_fault is not None:
            raise self.lambda_fault
        self.handed.append(json.loads(Payload))
        return {"StatusCode": 202, "Payload": io.BytesIO()}

    def send(self, *, QueueUrl: str, MessageBody: str) -> None:
        assert QueueUrl.endswith("execution-events-dlq")
        if self.sqs_fault is not None:
            raise self.sqs_fault
        self.letters.append(json.loads(MessageBody))

    def run(self, seconds: float = 60) -> Json:
        answer: Json = self.module.handler(dict(SWEEP), Context(seconds))
        return answer

    def ended(self, status: str = "ABORTED", after: float = 60, **more: Any) -> None:
        """The execution has ended so many seconds after its claim."""
        stopped = datetime.fromtimestamp(NOW + after, UTC)
        self.executions[EXECUTION] = {"status": status, "stopDate": stopped, **more}


@pytest.fixture
def sweep(stack: Stack) -> Iterator[Sweep]:
    sweep = Sweep(Jobs(stack))
    module = sweep.module
    with (
        patch.object(module.stepfunctions, "describe_execution", sweep.describe),
        patch.object(module.functions, "invoke", sweep.invoke),
        patch.object(module.sqs, "send_message", sweep.send),
    ):
        yield sweep


@pytest.fixture
def claim(sweep: Sweep) -> Json:
    """An execution's claim that is three minutes old."""
    claim = sweep.jobs.hold(owner=EXECUTION)
    sweep.jobs.clock.advance(180)
    return claim


@pytest.mark.parametrize(
    ("status", "kind"), [("FAILED", "forced"), ("ABORTED", "forced"), ("TIMED_OUT", "timeout")]
)
def test_a_claim_of_an_ended_execution_is_released(
    sweep: Sweep, claim: Json, status: str, kind: str, output: Output
) -> None:
    sweep.ended(status, error="Broken", cause="x" * 10_000)
    assert sweep.run() == {"held": 1, "asked": 1, "freed": 1}
    row = sweep.jobs.row()
    assert (row["state"], row["lastReleased"]["claimId"]) == ("free", claim["claimId"])
    assert row["fence"] == claim["fence"]
    (handed,) = sweep.handed
    assert handed == {
        "projectUserId": WORKSPACE, "messageId": "message-1", "threadId": "thread-1",
        "claimId": claim["claimId"], "fence": claim["fence"], "kind": kind, "error": "Broken",
        "cause": "x" * 10_000, "executionArn": EXECUTION,
    }  # fmt: skip
    assert output.metric("ClaimSwept")
    assert sweep.run() == {"held": 0, "asked": 0, "freed": 0}


@pytest.mark.parametrize("is_invoked", [True, False])
def test_handle_timeout_accepts_the_sweeps_event(
    sweep: Sweep, claim: Json, is_invoked: bool
) -> None:
    """Although the claim is released; if it can't be invoked, the event goes to a queue."""
    sweep.ended()
    if not is_invoked:
        sweep.lambda_fault = fault("TooManyRequestsException", "Invoke")
    assert sweep.run()["freed"] == 1
    assert sweep.jobs.row()["state"] == "free"
    (sent,) = sweep.handed if is_invoked else sweep.letters
    answer = sweep.jobs.call("handle-timeout", **sent)
    assert (answer["released"], answer["recorded"], answer["superseded"]) == (True, True, False)
    assert [letter["messageId"] for letter in sweep.jobs.letters()] == ["message-1"]


def test_a_claim_stays_if_neither_lambda_nor_sqs_accepts_its_end(sweep: Sweep, claim: Json) -> None:
    """The next run tries again."""
    sweep.ended()
    sweep.lambda_fault = sweep.sqs_fault = ConnectTimeoutError(endpoint_url="https://aws")
    with pytest.raises(sweep.module.SweepIncompleteError):
        sweep.run()
    assert sweep.jobs.row()["claimId"] == claim["claimId"]
    sweep.lambda_fault = sweep.sqs_fault = None
    assert sweep.run()["freed"] == 1
    assert len(sweep.handed) == 1


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE", "SOMETHING_NEW"])
def test_the_claim_of_a_running_execution_stays(sweep: Sweep, claim: Json, status: str) -> None:
    sweep.executions[EXECUTION] = {"status": status}
    assert sweep.run() == {"held": 1, "asked": 1, "freed": 0}
    assert sweep.jobs.row()["claimId"] == claim["claimId"]


@pytest.mark.parametrize(
    ("status", "after", "freed", "handed"),
    [("FAILED", -61, 0, 0), ("ABORTED", -15, 1, 1), ("SUCCEEDED", 60, 1, 0)],
    ids=["redriven", "stopped while it called claim", "successful"],
)
def test_an_end_and_the_claims_time(
    sweep: Sweep, claim: Json, status: str, after: float, freed: int, handed: int
) -> None:
    """Of a redriven execution Step Functions may still show the end before the claim."""
    sweep.ended(status, after=after)
    assert sweep.run()["freed"] == freed
    assert (sweep.jobs.row()["state"] == "free", len(sweep.handed)) == (freed, handed)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        fault("ThrottlingException"),
        fault("AccessDeniedException"),
        ConnectTimeoutError(endpoint_url="https://states"),
    ],
)
def test_a_claim_of_an_unknown_execution_stays(
    sweep: Sweep, claim: Json, answer: Exception | None
) -> None:
    """Also if Step Functions does not answer."""
    sweep.executions[EXECUTION] = answer
    if answer is None:
        assert sweep.run()["freed"] == 0
    else:
        with pytest.raises(sweep.module.SweepIncompleteError):
            sweep.run()
    assert sweep.jobs.row()["claimId"] == claim["claimId"]
    assert sweep.handed == []


@pytest.mark.parametrize(
    "owner",
    [None, "worker-host-1", "arn:aws:states:eu-west-1:1:execution:other:run-1", EXECUTION[:-6]],
)
def test_claims_of_other_owners_are_not_looked_up(sweep: Sweep, owner: str | None) -> None:
    """Workers, and executions of other state machines."""
    sweep.jobs.hold(owner=owner)
    sweep.jobs.clock.advance(3000)
    assert sweep.run() == {"held": 0, "asked": 0, "freed": 0}
    assert sweep.jobs.row()["state"] == "held"


def test_a_claim_younger_than_two_minutes_is_not_looked_up(sweep: Sweep) -> None:
    """The rule's event usually comes sooner."""
    sweep.jobs.hold(owner=EXECUTION)
    sweep.ended(after=1)
    sweep.jobs.clock.advance(119)
    assert sweep.run()["held"] == 0
    sweep.jobs.clock.advance(2)
    assert sweep.run()["freed"] == 1


def test_a_claim_taken_during_the_run_is_not_released(sweep: Sweep, claim: Json) -> None:
    sweep.ended()

    def overtaken(*, executionArn: str) -> Json:
        sweep.jobs.let_go(claim)
        sweep.jobs.hold(owner=EXECUTION + "-2", messageId="message-2")
        return sweep.describe(executionArn=executionArn)

    with patch.object(sweep.module.stepfunctions, "describe_execution", overtaken):
        assert sweep.run()["freed"] == 0
    assert sweep.jobs.row()["messageId"] == "message-2"


@pytest.mark.parametrize("began", [NOW, NOW * 1000, "2026-11-22T10:15:30.250Z", None, "yesterday"])
def test_claims_of_older_writers_are_released(sweep: Sweep, began: Any) -> None:
    """Without id, fence or state, and with any format of times."""
    row = {"owner": EXECUTION, "messageId": "m", "ttl": NOW + 9000, "claimedAt": began}
    sweep.jobs.put(**{name: value for name, value in row.items() if value is not None})
    sweep.jobs.clock.advance(180)
    sweep.ended()
    assert sweep.run()["freed"] == 1
    assert sweep.jobs.row()["state"] == "free"
    assert sweep.handed[0].get("claimId") is None


def many(sweep: Sweep, number: int, status: Callable[[int], Any]) -> None:
    """So many workspaces, each claimed by another execution."""
    for count in range(number):
        arn = f"{EXECUTION}-{count}"
        sweep.jobs.hold(f"amelia#user-{count}", owner=arn)
        sweep.executions[arn] = status(count)
    sweep.jobs.clock.advance(180)


def test_many_claims_are_looked_up_in_turns(sweep: Sweep) -> None:
    sweep.jobs.stack.monkeypatch.setattr(sweep.module, "MAX_ASKED", 3)
    many(sweep, 8, lambda _: {"status": "RUNNING"})
    for _ in range(3):
        assert sweep.run()["asked"] <= 3
        sweep.jobs.clock.now = (sweep.jobs.clock.now // 60 + 1) * 60
    assert len(set(sweep.asked)) == 8


@pytest.mark.parametrize("code", ["InvalidArn", "ValidationException"])
def test_malformed_owners_do_not_stop_the_run(sweep: Sweep, code: str) -> None:
    many(sweep, 9, lambda _: fault(code))
    assert sweep.run() == {"held": 9, "asked": 9, "freed": 0}


def test_six_failed_look_ups_do_not_stop_the_run(sweep: Sweep) -> None:
    """Every second one fails."""
    many(sweep, 12, lambda count: fault("InternalFailure") if count % 2 else {"status": "RUNNING"})
    claims = sorted(
        sweep.module.held_claims(), key=lambda claim: int(claim["projectUserId"].rpartition("-")[2])
    )
    sweep.jobs.stack.monkeypatch.setattr(sweep.module, "held_claims", lambda: claims)
    with pytest.raises(sweep.module.SweepIncompleteError):
        sweep.run()
    assert len(sweep.asked) == 12


def test_a_run_stops_before_its_time_limit_without_an_error(sweep: Sweep) -> None:
    many(sweep, 2, lambda _: {"status": "RUNNING"})
    assert sweep.run(seconds=19) == {"held": 2, "asked": 0, "freed": 0}


def test_a_run_stops_after_a_few_throttled_look_ups(sweep: Sweep) -> None:
    many(sweep, 9, lambda _: fault("ThrottlingException"))
    with pytest.raises(sweep.module.SweepIncompleteError):
        sweep.run()
    assert len(sweep.asked) == 5


@pytest.mark.parametrize("event", [{}, {"sweep": "leases"}, {"sweep": ["claims"]}, []])
def test_an_event_other_than_the_schedules_is_refused(
    sweep: Sweep, claim: Json, event: Any
) -> None:
    sweep.ended()
    with pytest.raises(sweep.module.ValidationError, match="sweep: 'claims' is required"):
        sweep.module.handler(event, Context(60))
    assert (sweep.asked, sweep.jobs.row()["state"]) == ([], "held")
