"""JobWorker: runs one job after the other, with heartbeats and claim, and reports one end."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from pytest import LogCaptureFixture

from jobplane_client import Interrupt, Job, JobEnd, JobInterrupted, JobWorker, QueueMissingError
from jobplane_client._runs import MAX_CAUSE, preemption_json
from jobplane_client._worker_calls import INPUT_QUEUE, INTERRUPT_QUEUE
from jobplane_keys import TLS_ONLY_POLICY, ValidationError, input_queue_name, interrupt_queue_name
from tests.unit.worker_services import (
    INPUT,
    INSTRUCTION,
    INTERRUPTS,
    RESULT,
    RESULT_PREFIX,
    WORKSPACE,
    Stand,
    refused,
    until,
)

Handler = Callable[[Job], Any]
OTHER_THREAD = {"threadId": "t7", "messageId": "m7", "owner": "arn", "ttlSeconds": 3600}
LARGE = "x" * (256 * 1024 - 2)


@pytest.fixture
def stand() -> Stand:
    return Stand()


def worker_of(stand: Stand, handler: Handler, **options: Any) -> JobWorker:
    return JobWorker("amelia", "scott", handler, **(stand.clients() | options))


def run_once(stand: Stand, handler: Handler, **options: Any) -> JobEnd | None:
    """Let a worker run one job."""
    return stand.finish(stand.start(worker_of(stand, handler, **options).run_once))


def run_job(stand: Stand, handler: Handler, message_id: str = "m1", **order: Any) -> JobEnd | None:
    """Order a job, and let a worker run it."""
    stand.order(message_id, **order)
    return run_once(stand, handler)


class Gate:
    """A handler that waits until it is released, and ignores all signals."""

    def __init__(self, result: Any = "done") -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.result = result
        self.job: Job | None = None

    def __call__(self, job: Job) -> Any:
        self.job = job
        self.entered.set()
        assert self.leave.wait(30)
        return self.result

    def inside(self) -> Job:
        assert self.entered.wait(20)
        assert self.job is not None
        return self.job


@contextmanager
def working(stand: Stand, end: JobEnd = JobEnd.COMPLETED, **options: Any) -> Iterator[Job]:
    """The job that a worker runs; then its handler returns, and the job ends so."""
    gate = Gate()
    ended = stand.start(worker_of(stand, gate, **options).run_once)
    yield gate.inside()
    gate.leave.set()
    assert stand.finish(ended) is end


@contextmanager
def serving(stand: Stand, worker: JobWorker) -> Iterator[None]:
    """Let a worker run jobs, and stop it."""
    ended = stand.start(worker.run)
    yield
    worker.stop()
    stand.finish(ended)


def failing(job: Job) -> None:
    raise LookupError("no such page")


def obedient(job: Job) -> str:
    """A handler that runs until it is cancelled."""
    job.partial({"steps": 3})
    while not job.wait(1):
        pass
    job.check()
    return "never"


def test_the_handler_gets_all_fields_of_the_job(stand: Stand) -> None:
    seen: list[Job] = []
    body = stand.order(attachments=[{"bucket": "b", "key": "k", "size": 1, "ok": True}])
    assert run_once(stand, seen.append) is JobEnd.COMPLETED
    (job,) = seen
    assert (job.instruction, job.message_id, job.thread_id) == ("do m1", "m1", "t1")
    assert job.attachments == body["attachments"]
    assert job.project_user_id == "amelia#scott"
    assert (job.claim_id, job.fence) == (body["claimId"], body["fence"])
    assert (job.container_id, job.expires_at) == (body["containerId"], body["expiresAt"])
    assert not job.cancelled


def test_whole_numbers_with_a_decimal_point_are_accepted(stand: Stand) -> None:
    """Step Functions may write 60 as 60.0."""
    fences: list[int] = []
    stand.order(fence=1.0, heartbeatSeconds=90.0, claimTtlSeconds=3600.0)
    assert run_once(stand, lambda job: fences.append(job.fence)) is JobEnd.COMPLETED
    assert fences == [1]


def test_a_result_is_reported_before_the_message_is_deleted(stand: Stand) -> None:
    """The flow releases the claim."""
    stand.order()
    assert run_once(stand, lambda job: {"text": "é", "n": 1}) is JobEnd.COMPLETED
    assert stand.tasks.outputs == [{"text": "é", "n": 1}]
    assert len(stand.tasks.ends) == 1
    assert stand.sqs.left(INPUT) == []
    assert stand.claims.released == []


def test_an_empty_queue_is_polled_for_poll_seconds(stand: Stand) -> None:
    assert run_once(stand, Gate()) is None
    assert 10 <= stand.clock.monotonic() <= 12


def test_a_failure_is_reported_with_class_and_message(stand: Stand) -> None:
    """No stack trace leaves the container unless it is configured."""
    assert run_job(stand, failing) is JobEnd.FAILED
    assert stand.tasks.failures == [("LookupError", "no such page")]
    assert stand.sqs.left(INPUT) == []
    stand.claims.held = None
    stand.order("m2")
    run_once(stand, failing, tracebacks=True)
    (_, (_, cause)) = stand.tasks.failures
    assert cause.startswith("Traceback")
    assert cause.endswith("LookupError: no such page\n")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "name", "start"),
    [
        (ValueError("ü" * 40_000), "ValueError", "üü"),
        (type("E" * 300, (Exception,), {})("m"), "E" * 256, "m"),
        (ValueError(), "ValueError", "ValueError"),
        (Unspeakable(), "Unspeakable", "Unspeakable"),
        (ValueError("\ud800"), "ValueError", "?"),
        (SystemExit(3), "SystemExit", "3"),
    ],
)
def test_a_failure_fits_step_functions(stand: Stand, error: Any, name: str, start: str) -> None:
    def handler(job: Job) -> None:
        raise error

    assert run_job(stand, handler) is JobEnd.FAILED
    ((told, cause),) = stand.tasks.failures
    assert told == name
    assert cause.startswith(start)
    assert len(cause.encode()) <= MAX_CAUSE


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (object(), "ResultNotJsonError"),
        (float("nan"), "ResultNotJsonError"),
        ("x" * (256 * 1024 - 1), "ResultTooLargeError"),
        ("ü" * (128 * 1024), "ResultTooLargeError"),
    ],
)
def test_a_result_that_is_not_json_is_a_failure(stand: Stand, result: Any, name: str) -> None:
    assert run_job(stand, lambda job: result) is JobEnd.FAILED
    ((told, cause),) = stand.tasks.failures
    assert told == name
    assert "the result" in cause


def stored_result(stand: Stand) -> Any:
    """The only result in S3, which is the one that was reported."""
    (((bucket, key), text),) = stand.s3.objects.items()
    assert stand.tasks.outputs == [{"resultObject": {"bucket": bucket, "key": key}}]
    assert bucket == RESULT["bucket"]
    assert re.fullmatch(rf"{RESULT_PREFIX}\d+-[0-9a-f]{{16}}\.json", key)
    return json.loads(text)


def test_a_result_above_255_kb_goes_to_s3(stand: Stand) -> None:
    assert run_job(stand, lambda job: LARGE) is JobEnd.COMPLETED
    assert stored_result(stand) == LARGE


def test_an_older_flow_names_the_key_of_a_large_result(stand: Stand) -> None:
    assert run_job(stand, lambda job: LARGE, resultKeyPrefix=None) is JobEnd.COMPLETED
    assert stand.tasks.outputs == [{"resultObject": RESULT}]
    assert stand.s3.objects.keys() == {(RESULT["bucket"], RESULT["key"])}


@pytest.mark.parametrize("location", [None, RESULT])
def test_a_result_that_fits_is_sent_to_step_functions(stand: Stand, location: Any) -> None:
    """Up to 255 KB, and up to 256 KB if the flow names no place in S3."""
    size = (255 if location else 256) * 1024 - 2
    assert run_job(stand, lambda job: "x" * size, resultLocation=location) is JobEnd.COMPLETED
    assert stand.tasks.outputs == ["x" * size]
    assert stand.s3.objects == {}


def test_a_large_result_is_tried_again_after_a_fault_of_s3(stand: Stand) -> None:
    stand.s3.faults["put"] = [refused("SlowDown")] * 2
    stand.order(heartbeatSeconds=3)
    ended = stand.start(worker_of(stand, lambda job: LARGE).run_once)
    until(lambda: not stand.s3.faults["put"] or stand.pass_time(1), "S3 has refused")
    stand.pass_time(3)
    assert stand.finish(ended) is JobEnd.COMPLETED
    assert stored_result(stand) == LARGE
    assert len(stand.tasks.beats) > 1


def test_a_job_fails_if_s3_refuses_its_large_result(stand: Stand) -> None:
    stand.s3.faults["put"] = [refused("AccessDenied")] * 10
    stand.order()
    ended = stand.start(worker_of(stand, lambda job: LARGE).run_once)
    until(lambda: len(stand.s3.faults["put"]) < 7 or stand.pass_time(1), "S3 has refused")
    assert stand.finish(ended) is JobEnd.FAILED
    ((told, cause),) = stand.tasks.failures
    assert told == "ResultNotStoredError"
    assert RESULT_PREFIX in cause
    assert "s3:PutObject" in cause


def store_instruction(stand: Stand, instruction: Any) -> None:
    body = json.dumps({"instruction": instruction}).encode()
    stand.s3.objects[INSTRUCTION["bucket"], INSTRUCTION["key"]] = body


def test_a_large_instruction_is_read_from_s3(stand: Stand) -> None:
    store_instruction(stand, {"text": "x" * 250_000})
    stand.order(instruction=None, instructionObject=INSTRUCTION)
    seen: list[Any] = []
    assert run_once(stand, lambda job: seen.append(job.instruction)) is JobEnd.COMPLETED
    stand.follow_up("m2", instruction=None, instructionObject=INSTRUCTION)
    stand.claims.held = None
    assert run_once(stand, lambda job: seen.append(job.instruction)) is JobEnd.COMPLETED
    assert seen == [{"text": "x" * 250_000}] * 2


def test_a_job_runs_later_if_s3_fails_to_give_its_instruction(stand: Stand) -> None:
    store_instruction(stand, "all of it")
    stand.s3.faults["get"] = [refused("SlowDown")]
    stand.order(instruction=None, instructionObject=INSTRUCTION)
    seen: list[Any] = []
    worker = worker_of(stand, lambda job: seen.append(job.instruction))
    assert stand.finish(stand.start(worker.run_once)) is None
    stand.pass_time(20)
    assert stand.finish(stand.start(worker.run_once)) is JobEnd.COMPLETED
    assert seen == ["all of it"]


@pytest.mark.parametrize("place", [INSTRUCTION, "jobs/x", {"bucket": "files"}])
def test_a_job_with_a_missing_instruction_object_fails_at_once(stand: Stand, place: Any) -> None:
    assert run_job(stand, lambda job: None, instruction=None, instructionObject=place) is None
    ((told, cause),) = stand.tasks.failures
    assert told == "MalformedMessageError"
    assert cause.startswith("instructionObject: ")
    assert stand.sqs.left(INPUT) == []


@pytest.mark.parametrize(("window", "period"), [(90, 30), (30, 10), (6000, 30)])
def test_heartbeats_come_every_30_s_or_third_window(stand: Stand, window: int, period: int) -> None:
    stand.order(heartbeatSeconds=window)
    with working(stand):
        until(lambda: stand.clock.has_waiting(stand.threads[-1]), "the worker waits")
        stand.pass_time(95)
    expected = [float(at) for at in range(0, 95, period)]
    assert stand.tasks.beats[: len(expected)] == expected
    beaten = len(stand.tasks.beats)
    stand.pass_time(100)
    assert len(stand.tasks.beats) == beaten


def test_the_claim_is_renewed_every_third_of_its_time_to_live(stand: Stand) -> None:
    body = stand.order(ttl=60)
    with working(stand, visibility_seconds=120) as job:
        stand.pass_time(130)
    renewals = stand.claims.of("renew")
    assert [call["at"] for call in renewals[:7]] == [0, 20, 40, 60, 80, 100, 120]
    assert renewals[0]["ttlSeconds"] == 60
    assert (renewals[0]["claimId"], renewals[0]["fence"]) == (body["claimId"], body["fence"])
    assert job.expires_at >= body["expiresAt"] + 120


def test_the_message_stays_invisible_while_the_job_runs(stand: Stand) -> None:
    stand.order()
    with working(stand):
        stand.pass_time(500)
        (message,) = stand.sqs.left(INPUT)
        assert message.receives == 1
        assert message.visible_at > stand.clock.monotonic()


def test_failed_heartbeats_renewals_and_extensions_are_repeated(stand: Stand) -> None:
    stand.order(ttl=90)
    with working(stand, visibility_seconds=120) as job:
        stand.tasks.faults["heartbeat"] = [refused("ThrottlingException"), OSError("no route")]
        stand.claims.faults["renew"] = [
            refused("TooManyRequestsException"),
            {"errorType": "Sandbox.Timedout", "errorMessage": "timed out"},
        ]
        stand.sqs.faults["visibility"] = [refused("InternalError")]
        stand.pass_time(60)
        assert stand.tasks.beats[:2] == [0, 36]
        assert [call["at"] for call in stand.claims.of("renew")][:4] == [0, 30, 32, 36]
    assert not job.cancelled


def test_the_own_message_delivered_again_is_deleted_at_the_end(stand: Stand) -> None:
    """Its visibility may have run out."""
    stand.order()
    with working(stand):
        (message,) = stand.sqs.left(INPUT)
        message.visible_at = 0.0
        until(lambda: message.receives == 2, "it is received again")
    assert stand.sqs.left(INPUT) == []
    assert len(stand.tasks.ends) == 1


class Paused:
    """A service whose calls wait while the computer of one worker stands still."""

    def __init__(self, service: Any, runs: threading.Event) -> None:
        self._service = service
        self._runs = runs
        self.entered = threading.Event()
        self.meta = getattr(service, "meta", None)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)

        def call(**parameters: Any) -> Any:
            self.entered.set()
            assert self._runs.wait(30)
            return method(**parameters)

        return call


def pausing(stand: Stand, handler: Handler, runs: threading.Event, **options: Any) -> JobWorker:
    """A worker that stands still while `runs` is not set."""
    services = {"sqs": stand.sqs, "stepfunctions": stand.tasks, "lambda_": stand.claims}
    paused = {name: Paused(service, runs) for name, service in services.items()}
    return worker_of(stand, handler, **(paused | options))


@pytest.mark.parametrize("handler_returns", [False, True])
def test_a_paused_worker_loses_its_job(stand: Stand, handler_returns: bool) -> None:
    """Another worker gets a higher fence; the first one is cancelled, and reports nothing."""
    body = stand.order()
    runs, first, second = threading.Event(), Gate("first"), Gate("second")
    runs.set()
    ended = stand.start(pausing(stand, first, runs).run_once)
    old = first.inside()
    runs.clear()
    stand.pass_time(130)
    if handler_returns:
        first.leave.set()
    taking = stand.start(worker_of(stand, second).run_once)
    new = second.inside()
    runs.set()
    until(lambda: old.cancelled or handler_returns or stand.clock.advance(1), "it is cancelled")
    first.leave.set()
    until(lambda: ended or stand.clock.advance(1), "the first worker ends")
    assert ended == [JobEnd.LOST]
    assert handler_returns or old.cancelled.detail == "taken"
    assert (old.claim_id, old.fence) == (body["claimId"], body["fence"])
    assert (new.claim_id, new.fence) == (body["claimId"], body["fence"] + 1)
    assert stand.tasks.ends == []
    assert not new.cancelled
    second.leave.set()
    assert stand.finish(taking) is JobEnd.COMPLETED
    assert stand.tasks.outputs == ["second"]
    assert stand.sqs.left(INPUT) == []


def test_a_stale_worker_overwrites_no_result_of_the_next_one(stand: Stand) -> None:
    """It stands still before it stores its own result, and goes on after the job has ended."""
    stand.order()
    runs, stores, first = threading.Event(), threading.Event(), Gate("y" * 262_000)
    runs.set()
    storage = Paused(stand.s3, stores)
    ended = stand.start(pausing(stand, first, runs, s3=storage).run_once)
    first.inside()
    first.leave.set()
    until(storage.entered.is_set, "the first worker stores its result")
    runs.clear()
    stand.pass_time(130)
    taking = stand.start(worker_of(stand, lambda job: LARGE).run_once)
    assert stand.finish(taking) is JobEnd.COMPLETED
    assert stored_result(stand) == LARGE
    stores.set()
    runs.set()
    until(lambda: ended or stand.clock.advance(1), "the first worker ends")
    ((told,),) = ((output["resultObject"],) for output in stand.tasks.outputs)
    assert json.loads(stand.s3.objects[told["bucket"], told["key"]]) == LARGE


def test_a_message_that_can_not_be_hidden_stays_with_its_worker(stand: Stand) -> None:
    """While its worker renews the claim, no other takes the job over: refusals cost nothing."""
    stand.order()
    first, second = Gate("first"), Gate("second")
    ended = stand.start(worker_of(stand, first).run_once)
    job = first.inside()
    stand.sqs.faults["visibility"] = [refused("AccessDenied")] * 1000
    (message,) = stand.sqs.left(INPUT)
    stand.pass_time(115)
    stand.start(worker_of(stand, second).run)
    until(lambda: message.receives > 2 or stand.clock.advance(1), "it becomes visible")
    stand.pass_time(200)
    assert not second.entered.is_set()
    assert not job.cancelled
    first.leave.set()
    until(lambda: ended or stand.clock.advance(1), "the job ends")
    assert ended == [JobEnd.COMPLETED]
    assert stand.tasks.outputs == ["first"]


@pytest.mark.parametrize(("service", "operation"), [("claims", "renew"), ("sqs", "visibility")])
def test_an_outage_of_one_service_costs_nothing(stand: Stand, service: str, operation: str) -> None:
    """The message is hidden, or the claim is renewed: either is enough to report a result."""
    stand.order()
    with working(stand):
        getattr(stand, service).faults[operation] = [OSError("no route")] * 1000
        stand.pass_time(110)


@pytest.mark.parametrize("recovers", [True, False])
def test_an_uncertain_end_is_reported_if_the_claim_is_renewed(stand: Stand, recovers: bool) -> None:
    """Both services failed for two minutes. A message that stays is for the next worker."""
    gate = Gate()
    stand.order()
    ended = stand.start(worker_of(stand, gate, visibility_seconds=120).run_once)
    gate.inside()
    stand.claims.faults["renew"] = [OSError("no route")] * 1000
    stand.sqs.faults["visibility"] = [OSError("no route")] * 1000
    stand.pass_time(130)
    gate.leave.set()
    stand.pass_time(5)
    assert stand.tasks.ends == []
    if recovers:
        stand.claims.faults["renew"].clear()
    assert stand.finish(ended) is (JobEnd.COMPLETED if recovers else JobEnd.UNREPORTED)
    assert (len(stand.tasks.ends), len(stand.sqs.left(INPUT))) == ((1, 0) if recovers else (0, 1))


def test_a_message_that_comes_back_from_another_worker_stays(stand: Stand) -> None:
    """A job in hand that is delivered again is verified; its message stays if it was taken over."""
    stand.order()
    with working(stand, JobEnd.LOST) as job:
        held = stand.claims.held
        assert held is not None
        held.fence, held.taker = held.fence + 1, "a worker that crashed"
        (message,) = stand.sqs.left(INPUT)
        message.visible_at = 0.0
        until(lambda: job.cancelled or stand.clock.advance(1), "it is cancelled")
        assert stand.clock.monotonic() < 20
        assert job.cancelled.detail == "taken"
    assert stand.sqs.left(INPUT) == [message]
    assert stand.tasks.ends == []


def test_a_refused_receipt_renews_the_claim_at_once(stand: Stand) -> None:
    """If SQS refuses a receipt, another worker may have the message: the claim is renewed now."""
    stand.order()
    with working(stand, JobEnd.LOST, visibility_seconds=600) as job:
        held = stand.claims.held
        assert held is not None
        stand.pass_time(195)
        held.fence, held.taker = held.fence + 1, "another worker"
        (message,) = stand.sqs.left(INPUT)
        message.receipt = "another worker's"
        message.visible_at = 1e9
        held.expires_at = stand.clock.time() + 3600
        until(lambda: job.cancelled or stand.clock.advance(1), "it is cancelled")
        assert stand.clock.monotonic() < 210


@pytest.mark.parametrize(
    ("service", "operation", "fault"),
    [
        ("claims", "renew", OSError("no route")),
        ("tasks", "heartbeat", refused("ThrottlingException")),
    ],
)
def test_a_job_starts_only_after_a_renewal_and_a_heartbeat(
    stand: Stand, service: str, operation: str, fault: Exception
) -> None:
    """Without an answer it is unknown whether another worker has the job."""
    stand.order()
    getattr(stand, service).faults[operation] = [fault]
    assert run_once(stand, Gate()) is None
    (message,) = stand.sqs.left(INPUT)
    assert message.receives == 1
    stand.pass_time(2)
    assert run_once(stand, lambda job: 1) is JobEnd.COMPLETED


def test_an_older_stage_answers_without_a_fence(stand: Stand) -> None:
    """A newer worker works with it: the fence is the message's."""
    body = stand.order()
    renew = stand.claims.renew

    def older(event: Any) -> dict[str, Any]:
        known = {name: value for name, value in event.items() if not name.startswith("taker")}
        return {name: value for name, value in renew(known).items() if name != "fence"}

    stand.claims.renew = older  # type: ignore[method-assign]
    assert run_once(stand, lambda job: job.fence) is JobEnd.COMPLETED
    assert stand.tasks.outputs == [body["fence"]]


SLOW = {
    "visibility": ("sqs", "change_message_visibility"),
    "claims": ("claims", "invoke"),
    "heartbeats": ("tasks", "send_task_heartbeat"),
    "results": ("s3", "put_object"),
    "deletions": ("sqs", "delete_message"),
}


@pytest.mark.parametrize("service", SLOW)
def test_slow_services_delay_nothing_else(stand: Stand, service: str) -> None:
    """Heartbeats, renewals and visibility wait for no other service, nor for the clean-up."""
    owner, operation = SLOW[service]
    stand.order()
    for number in range(4):
        stand.follow_up(f"f{number}", group=f"g{number}")
    gate = Gate(LARGE)

    def handler(job: Job) -> Any:
        taken = 0
        while taken < 4 and not job.wait(1):
            taken += len(job.follow_ups())
        result = gate(job)
        job.follow_ups()
        return result

    ended = stand.start(worker_of(stand, handler).run_once)
    until(lambda: gate.entered.is_set() or stand.clock.advance(1), "the follow-ups are taken")
    stand.pass_time(max(0, 35 - int(stand.clock.monotonic())))
    begun = stand.clock.monotonic()
    kept: list[float] = []
    keep = stand.sqs.change_message_visibility

    def slow(**parameters: Any) -> Any:
        stand.clock.wait(threading.Event(), 23)
        raise TimeoutError("no answer")

    def watched(**parameters: Any) -> Any:
        kept.append(stand.clock.monotonic())
        return keep(**parameters)

    stand.sqs.change_message_visibility = watched  # type: ignore[method-assign]
    setattr(getattr(stand, owner), operation, slow)
    if service in {"results", "deletions"}:
        gate.leave.set()
    stand.pass_time(80)
    assert stand.tasks.ends == []
    renewals = [call["at"] for call in stand.claims.of("renew")]
    seen = {"heartbeats": stand.tasks.beats, "claims": renewals, "visibility": [begun, *kept]}
    for other in seen.keys() - {service}:
        times = [*seen[other], stand.clock.monotonic()]
        limit = 31 if other == "heartbeats" else 41
        assert max(later - earlier for earlier, later in pairwise(times)) <= limit
    delattr(getattr(stand, owner), operation)
    gate.leave.set()
    stand.finish(ended)


@pytest.mark.parametrize("gone", ["claim", "execution", "token"])
def test_a_job_without_its_claim_or_execution_is_not_run(stand: Stand, gone: str) -> None:
    """An execution gets the reason if it still waits."""
    body = stand.order()
    match gone:
        case "claim":
            stand.claims.held = None
        case "execution":
            stand.tasks.time_out(body["taskToken"])
        case "token":
            stand.tasks.open.clear()
    assert run_once(stand, Gate()) is None
    errors = [error for error, _ in stand.tasks.failures]
    assert errors == (["ClaimLostError"] if gone == "claim" else [])
    assert stand.sqs.left(INPUT) == []


@pytest.mark.parametrize(
    "detail", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken", "superseded", "expired"]
)
def test_a_handler_is_cancelled_as_lost_with_execution_or_claim(stand: Stand, detail: str) -> None:
    """An execution that still waits gets one failure; the message is deleted."""
    seen: list[Job] = []

    def handler(job: Job) -> None:
        seen.append(job)
        assert stand.claims.held is not None
        match detail:
            case "superseded":
                stand.claims.held.claim_id = "another"
            case "expired":
                stand.claims.held.expires_at = 0
            case _:
                stand.tasks.faults["heartbeat"] = [refused(detail)]
        obedient(job)

    assert run_job(stand, handler, ttl=60) is JobEnd.LOST
    assert (seen[0].cancelled.reason, seen[0].cancelled.detail) == ("lost", detail)
    cause = f"claim claim-1 with fence 1 is lost: {detail}"
    assert stand.tasks.failures == ([("ClaimLostError", cause)] if detail.islower() else [])
    assert len(stand.tasks.ends) == len(stand.tasks.failures)
    assert stand.sqs.left(INPUT) == []


def test_a_callback_after_the_end_of_the_execution_is_not_repeated(stand: Stand) -> None:
    body = stand.order()
    tries: list[str] = []

    def handler(job: Job) -> str:
        tries.append(job.message_id)
        stand.tasks.time_out(body["taskToken"])
        return "late"

    assert run_once(stand, handler) is JobEnd.LOST
    assert stand.tasks.ends == []
    assert stand.sqs.left(INPUT) == []
    assert tries == ["m1"]


def test_a_claim_without_renewal_is_lost_after_its_time_to_live(stand: Stand) -> None:
    """Another execution may have taken the workspace."""
    stopped: list[float] = []

    def handler(job: Job) -> None:
        stand.claims.faults["renew"] = [OSError("no route")] * 100
        job.cancelled.wait()
        stopped.append(stand.clock.monotonic())
        job.check()

    assert run_job(stand, handler, ttl=60) is JobEnd.LOST
    assert 60 <= stopped[0] <= 62
    assert stand.tasks.failures[0][0] == "ClaimLostError"


def test_a_renewed_claim_lasts_from_the_time_of_the_request(stand: Stand) -> None:
    """Not from the time of a late answer."""
    stand.order(ttl=60)
    stopped: list[float] = []
    invoke, asked = stand.claims.invoke, []

    def slow(**arguments: Any) -> Any:
        answer = invoke(**arguments)
        if not asked:
            asked.append(stand.clock.monotonic())
            stand.claims.faults["renew"] = [OSError("no route")] * 100
            stand.clock.wait(threading.Event(), 15)
        return answer

    def handler(job: Job) -> None:
        stand.claims.invoke = slow  # type: ignore[method-assign]
        job.cancelled.wait()
        stopped.append(stand.clock.monotonic())
        job.check()

    assert run_once(stand, handler) is JobEnd.LOST
    assert asked[0] + 60 <= stopped[0] <= asked[0] + 62


@pytest.mark.parametrize(
    ("faults", "end", "outputs"), [(7, JobEnd.COMPLETED, [1]), (10, JobEnd.UNREPORTED, [])]
)
def test_the_report_is_repeated_until_step_functions_accepts_it(
    stand: Stand, faults: int, end: JobEnd, outputs: list[int]
) -> None:
    """Else the message stays: another worker can find out whether the execution still waits."""
    stand.order()
    stand.tasks.faults["success"] = [OSError("reset")] * faults
    assert run_once(stand, lambda job: 1) is end
    assert (stand.tasks.outputs, stand.tasks.failures) == (outputs, [])
    assert stand.tasks.beats[:3] == [0, 30, 60]
    assert len(stand.sqs.left(INPUT)) + len(outputs) == 1


def test_a_repeated_report_of_an_ended_task_is_success(stand: Stand) -> None:
    """The answer to the first report was lost."""
    body = stand.order()

    def lose(*, taskToken: str, output: str) -> None:
        del stand.tasks.send_task_success  # type: ignore[attr-defined]
        stand.tasks.send_task_success(taskToken=taskToken, output=output)
        raise OSError("the answer is lost")

    stand.tasks.send_task_success = lose  # type: ignore[method-assign]
    assert run_once(stand, lambda job: 1) is JobEnd.COMPLETED
    assert [token for token, _, _ in stand.tasks.ends] == [body["taskToken"]]


def test_a_result_that_step_functions_refuses_becomes_a_failure(stand: Stand) -> None:
    stand.order()
    stand.tasks.faults["success"] = [refused("InvalidOutput")]
    assert run_once(stand, lambda job: 1) is JobEnd.FAILED
    assert stand.tasks.failures[0][0] == "ResultNotJsonError"


@pytest.mark.parametrize("kind", ["job", "follow-up"])
def test_a_message_that_was_not_deleted_is_not_run_again(stand: Stand, kind: str) -> None:
    runs: list[str] = []
    if kind == "job":
        stand.order()
    else:
        stand.follow_up("f1")
    stand.sqs.faults["delete"] = [OSError("reset")] * 4
    worker = worker_of(stand, lambda job: runs.append(job.message_id))
    assert stand.finish(stand.start(worker.run_once)) is JobEnd.COMPLETED
    (message,) = stand.sqs.left(INPUT)
    message.visible_at = 0.0
    assert stand.finish(stand.start(worker.run_once)) is None
    assert stand.sqs.left(INPUT) == []
    assert len(runs) == 1


def test_a_heartbeat_during_the_report_changes_nothing(stand: Stand) -> None:
    seen: list[Job] = []

    def handler(job: Job) -> str:
        seen.append(job)
        stand.tasks.faults["success"] = [OSError("reset")] * 7
        stand.tasks.faults["heartbeat"] = [refused("TaskTimedOut")]
        return "done"

    assert run_job(stand, handler) is JobEnd.COMPLETED
    assert stand.tasks.faults == {"success": [], "heartbeat": []}
    assert stand.tasks.outputs == ["done"]
    assert not seen[0].cancelled


def test_an_interrupt_stops_the_handler_and_is_reported_as_preempted(stand: Stand) -> None:
    body = stand.order()
    ended = stand.start(worker_of(stand, obedient).run_once)
    until(lambda: stand.tasks.beats, "the job runs")
    stand.interrupt(body)
    assert stand.finish(ended) is JobEnd.INTERRUPTED
    ((error, cause),) = stand.tasks.failures
    assert error == "PREEMPTED"
    ids = {"interruptId": "i-claim-1-m9", "interruptingMessageId": "m9", "newThreadId": "t9"}
    assert json.loads(cause) == ids | {"partial": {"steps": 3}}
    assert stand.sqs.left(INPUT) == []
    assert stand.sqs.left(INTERRUPTS) == []


def test_an_interrupt_outlives_its_worker(stand: Stand) -> None:
    """It stays until the job has ended: the worker that takes the job over hears of it, too."""
    body = stand.order()
    runs, first = threading.Event(), Gate()
    runs.set()
    ended = stand.start(pausing(stand, first, runs, grace_seconds=500).run_once)
    job = first.inside()
    interrupt = stand.interrupt(body)
    until(job.cancelled.is_set, "it acts")
    assert stand.sqs.left(INTERRUPTS) == [interrupt]
    runs.clear()
    stand.pass_time(130)
    taking = stand.start(worker_of(stand, obedient).run_once)
    assert stand.finish(taking) is JobEnd.INTERRUPTED
    assert stand.sqs.left(INTERRUPTS) == []
    runs.set()
    first.leave.set()
    until(lambda: ended or stand.clock.advance(1), "the first worker ends")
    assert ended == [JobEnd.LOST]
    assert len(stand.tasks.ends) == 1


@pytest.mark.parametrize(("faults", "end"), [(7, JobEnd.COMPLETED), (10, JobEnd.UNREPORTED)])
def test_an_interrupt_during_the_report_goes_only_with_the_job(
    stand: Stand, faults: int, end: JobEnd
) -> None:
    """A job whose end is not reported goes on: its next worker hears of the interrupt, too."""
    body = stand.order()
    stand.tasks.faults["success"] = [OSError("reset")] * faults
    ended = stand.start(worker_of(stand, lambda job: 1).run_once)
    until(lambda: len(stand.tasks.faults["success"]) < faults, "the end is decided")
    interrupt = stand.interrupt(body)
    until(lambda: interrupt.receives or stand.clock.advance(1), "it is seen")
    assert stand.finish(ended) is end
    if end is JobEnd.UNREPORTED:
        assert stand.sqs.left(INTERRUPTS) == [interrupt]
        stand.pass_time(130)
        assert stand.finish(stand.start(worker_of(stand, obedient).run_once)) is JobEnd.INTERRUPTED
    assert stand.sqs.left(INTERRUPTS) == []


def test_job_cancelled_has_all_fields_of_the_interrupt(stand: Stand) -> None:
    """`check` raises an error that `except Exception` does not catch."""
    seen: list[Any] = []

    def handler(job: Job) -> None:
        job.cancelled.wait()
        try:
            job.check()
        except Exception:
            seen.append("swallowed")
        except JobInterrupted as interrupted:
            seen.extend([interrupted.reason, job.cancelled.reason, job.cancelled.interrupt])
            raise

    stand.interrupt(stand.order())
    assert run_once(stand, handler) is JobEnd.INTERRUPTED
    reason = "another thread needs the workspace"
    assert seen == ["interrupt", "interrupt", Interrupt("i-claim-1-m9", "m9", "t9", reason)]


def test_a_return_value_after_the_signal_is_not_a_result(stand: Stand) -> None:
    """It may be incomplete."""
    stand.interrupt(stand.order())

    def handler(job: Job) -> list[int]:
        job.cancelled.wait()
        return [1, 2]

    assert run_once(stand, handler) is JobEnd.INTERRUPTED
    assert json.loads(stand.tasks.failures[0][1])["partial"] == [1, 2]


def test_an_interrupt_for_another_claim_or_fence_is_deleted(stand: Stand) -> None:
    stand.claims.fence = 5
    body = stand.order()
    stand.interrupt({"claimId": "claim-5", "fence": 5})
    stand.interrupt({"claimId": "claim-5", "fence": body["fence"]})
    stand.interrupt({"claimId": body["claimId"], "fence": 5})
    with working(stand):
        until(lambda: not stand.sqs.left(INTERRUPTS), "the stale ones are deleted")


def test_an_interrupt_for_a_newer_claim_is_kept_for_its_job(stand: Stand) -> None:
    gate = Gate()
    stand.order()
    interrupt = stand.interrupt({"claimId": "claim-2", "fence": 2})
    worker = worker_of(stand, lambda job: gate(job) if job.fence == 1 else obedient(job))
    first = stand.start(worker.run_once)
    job = gate.inside()
    until(lambda: interrupt.receives, "it is looked at")
    stand.pass_time(100)
    assert not job.cancelled
    gate.leave.set()
    assert stand.finish(first) is JobEnd.COMPLETED
    assert stand.sqs.left(INTERRUPTS) == [interrupt]
    stand.claims.held = None
    stand.order("m2")
    assert stand.finish(stand.start(worker.run_once)) is JobEnd.INTERRUPTED
    assert stand.sqs.left(INTERRUPTS) == []


def test_a_repeated_interrupt_has_no_effect(stand: Stand) -> None:
    """The grace period does not restart, and the next job is not interrupted."""
    body = stand.order()
    with working(stand, JobEnd.INTERRUPTED, on_grace_exceeded=lambda job: None) as job:
        stand.interrupt(body)
        until(job.cancelled.is_set, "it acts")
        given = stand.clock.monotonic()
        stand.pass_time(20)
        stand.interrupt(body)
        until(lambda: len(stand.sqs.left(INTERRUPTS)) == 1, "the second one goes")
        stand.pass_time(10)
        until(lambda: stand.tasks.ends, "the grace ends")
        assert stand.clock.monotonic() - given <= 31
        stand.interrupt(body)
    assert len(stand.tasks.failures) == 1
    stand.claims.held = None
    stand.order("m2")
    with working(stand) as job:
        until(lambda: not stand.sqs.left(INTERRUPTS), "the third one goes")
        assert not job.cancelled


@pytest.mark.parametrize(
    "body",
    ["no json", "[]", {"type": "INTERRUPT"}, {"target": {"claimId": "c", "fence": "x"}}, "too old"],
)
def test_a_malformed_or_old_interrupt_is_deleted_without_effect(stand: Stand, body: Any) -> None:
    stand.order()
    if body == "too old":
        stand.interrupt({"claimId": "claim-2", "fence": 2}, expiresAt=int(stand.clock.time()))
    else:
        stand.sqs.send(INTERRUPTS, body)
    with working(stand):
        until(lambda: not stand.sqs.left(INTERRUPTS), "it is deleted")


def test_heartbeats_and_renewals_go_on_during_the_grace_period(stand: Stand) -> None:
    body = stand.order(heartbeatSeconds=15)
    stand.interrupt(body)

    def handler(job: Job) -> None:
        job.cancelled.wait()
        start = stand.clock.monotonic()
        stand.clock.wait_for(lambda: stand.clock.monotonic() >= start + 22, None)

    assert run_once(stand, handler) is JobEnd.INTERRUPTED
    assert stand.tasks.beats[:5] == [0, 5, 10, 15, 20]


def test_a_handler_that_ignores_the_grace_period_blocks_the_next_job(stand: Stand) -> None:
    """PREEMPTED is reported; later neither renewals nor its result are sent."""
    left_alone: list[Job] = []
    gate = Gate()
    body = stand.order()
    next_job: list[str] = []
    worker = worker_of(
        stand,
        lambda job: gate(job) if job.fence == 1 else next_job.append(job.message_id),
        on_grace_exceeded=left_alone.append,
    )
    with serving(stand, worker):
        job = gate.inside()
        job.partial("half")
        stand.interrupt(body)
        until(job.cancelled.is_set, "the signal")
        stand.pass_time(31)
        until(lambda: left_alone, "the grace is over")
        assert json.loads(stand.tasks.failures[0][1])["partial"] == "half"
        assert left_alone == [job]
        stand.claims.held = None
        stand.order("m2")
        beats, renewals = len(stand.tasks.beats), len(stand.claims.of("renew"))
        stand.pass_time(300)
        assert (len(stand.tasks.beats), len(stand.claims.of("renew"))) == (beats, renewals)
        assert next_job == []
        assert stand.sqs.left(INPUT)[-1].receives <= 1
        gate.leave.set()
        finishing = until(lambda: next_job or stand.clock.advance(1), "the next job runs")
        assert finishing == ["m2"]
    assert len(stand.tasks.failures) == 1
    assert len(stand.tasks.outputs) == 1


def test_a_message_that_comes_while_a_lost_job_is_settled_is_received_once(stand: Stand) -> None:
    """Its handler still runs, and SQS does not take the deletion of its message at first."""
    gate = Gate()
    body = stand.order()
    ended = stand.start(worker_of(stand, gate).run_once)
    gate.inside()
    stand.sqs.faults["delete"] = [refused("ServiceUnavailable")] * 2
    stand.tasks.time_out(body["taskToken"])
    stand.pass_time(30)
    until(lambda: len(stand.sqs.faults["delete"]) < 2, "the job is being settled")
    message = stand.follow_up("f1")
    until(lambda: message.receives, "it arrives")
    until(lambda: stand.clock.has_waiting(stand.threads[-1]), "the worker waits")
    assert message.receives == 1
    gate.leave.set()
    assert stand.finish(ended) is JobEnd.LOST
    assert stand.sqs.left(INPUT) == [message]


def test_an_error_of_the_grace_callback_is_only_logged(stand: Stand) -> None:
    stand.interrupt(stand.order())
    options: Any = {"on_grace_exceeded": failing, "grace_seconds": 5}
    with working(stand, JobEnd.INTERRUPTED, **options) as job:
        until(job.cancelled.is_set, "the signal")
        stand.pass_time(6)
        until(lambda: stand.tasks.failures, "PREEMPTED")


def test_only_one_of_end_and_interrupt_is_reported(stand: Stand) -> None:
    for number in range(30):
        stand.claims.held = None
        body = stand.order(f"m{number}")
        start = threading.Barrier(2)

        def handler(job: Job, start: threading.Barrier = start) -> str:
            start.wait(20)
            return "done"

        ended = stand.start(worker_of(stand, handler).run_once)
        start.wait(20)
        stand.interrupt(body)
        assert stand.finish(ended) in {JobEnd.COMPLETED, JobEnd.INTERRUPTED}
        assert len(stand.tasks.ends) == number + 1
    assert stand.sqs.left(INPUT) == []


def test_large_partial_work_is_cut_but_ids_are_kept() -> None:
    interrupt = Interrupt("i", "m", "t")
    whole = json.loads(preemption_json(interrupt, {"text": "é" * 40_000}))
    assert set(whole) == {"interruptId", "interruptingMessageId", "newThreadId", "partial"}
    assert whole["partial"].startswith('{"text":"éé')
    assert whole["partial"].endswith("...")
    for work in ({"text": '"' * 40_000}, object(), ["\x00" * 20_000]):
        assert len(preemption_json(interrupt, work).encode()) <= MAX_CAUSE


def test_partial_work_must_be_json_and_is_copied(stand: Stand) -> None:
    kept: list[Any] = []

    def handler(job: Job) -> None:
        work = [1]
        job.partial(work)
        work.append(2)
        with pytest.raises(TypeError):
            job.partial(object())
        with pytest.raises(ValueError):
            job.partial(float("inf"))
        kept.append(job.partial_work)

    assert run_job(stand, handler) is JobEnd.COMPLETED
    assert kept == [[1]]


@pytest.mark.parametrize(
    "body",
    [
        "no json",
        {"type": "JOB"},
        {"type": "PARCEL", "projectUserId": "amelia#scott"},
        {"type": "FOLLOW_UP", "projectUserId": "amelia#scott", "messageId": "a/b"},
    ],
)
def test_a_malformed_message_is_deleted_and_the_next_job_runs(stand: Stand, body: Any) -> None:
    worker = worker_of(stand, lambda job: 1)
    stand.sqs.send(INPUT, body, "job")
    stand.order()
    assert stand.finish(stand.start(worker.run_once)) is None
    assert stand.finish(stand.start(worker.run_once)) is JobEnd.COMPLETED


def test_a_malformed_job_with_a_token_fails_its_execution(stand: Stand) -> None:
    assert run_job(stand, Gate(), fence="seven") is None
    ((error, cause),) = stand.tasks.failures
    assert error == "MalformedMessageError"
    assert cause.startswith("fence")
    assert stand.sqs.left(INPUT) == []


@pytest.mark.parametrize("kind", ["JOB", "FOLLOW_UP", "malformed"])
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_message_of_another_workspace_is_put_back(stand: Stand, kind: str, is_busy: bool) -> None:
    """Queues of two workspaces may have one name: the message is for the other one's worker."""
    gate = Gate()
    other = "amelia#other"
    if kind == "FOLLOW_UP":
        message = stand.follow_up("f1", projectUserId=other)
    else:
        changes = {"fence": "seven"} if kind == "malformed" else {}
        body = stand.order("m9", projectUserId=other, **changes)
        (message,) = stand.sqs.left(INPUT)
        message.group = "other"
        stand.claims.held = None
        assert body["taskToken"] in stand.tasks.open
    message.visible_at = 1.0 if is_busy else 0.0
    if is_busy:
        stand.order()
    ended = stand.start(worker_of(stand, gate).run_once)
    if is_busy:
        gate.inside()
    enough = 4 if is_busy else 1
    until(lambda: message.receives >= enough or stand.clock.advance(1), "it is put back")
    gate.leave.set()
    assert stand.finish(ended) is (JobEnd.COMPLETED if is_busy else None)
    assert stand.sqs.left(INPUT) == [message]
    assert stand.tasks.failures == []


@pytest.mark.parametrize(
    "changes",
    [{}, {"interruptId": 7}, {"newThreadId": None}, {"expiresAt": "x"}],
)
def test_an_interrupt_of_another_workspace_is_put_back(
    stand: Stand, changes: dict[str, Any]
) -> None:
    """Also a malformed one, which only a worker of its workspace may delete."""
    foreign = {"claimId": "claim-1", "fence": 1, "projectUserId": "amelia#other"}
    stand.order()
    interrupt = stand.interrupt(foreign, **changes)
    with working(stand) as job:
        until(lambda: interrupt.receives > 2 or stand.clock.advance(1), "it is seen again")
    assert not job.cancelled
    assert stand.sqs.left(INTERRUPTS) == [interrupt]


def following(count: int, taken: list[str], then: Any = "done") -> Handler:
    """A handler that takes so many follow-ups, and confirms them with one more call."""

    def handler(job: Job) -> Any:
        while len(taken) < count and not job.wait(1):
            taken.extend(each.message_id for each in job.follow_ups())
        job.follow_ups()
        return then

    return handler


@pytest.mark.parametrize("groups", ["one", "each its own"])
def test_follow_ups_of_a_jobs_thread_reach_its_handler_in_order(stand: Stand, groups: str) -> None:
    taken: list[str] = []
    stand.order()
    ended = stand.start(worker_of(stand, following(3, taken)).run_once)
    until(lambda: stand.tasks.beats, "the job runs")
    for name in ("f1", "f2", "f3"):
        stand.follow_up(name, group="follow-up" if groups == "one" else name)
    assert stand.finish(ended) is JobEnd.COMPLETED
    assert taken == ["f1", "f2", "f3"]
    assert stand.sqs.left(INPUT) == []
    assert stand.claims.of("acquire") == []


def test_an_untaken_follow_up_becomes_the_next_job(stand: Stand) -> None:
    gate = Gate()
    ran: list[Job] = []

    def handler(job: Job) -> Any:
        ran.append(job)
        return gate(job) if job.message_id == "m1" else None

    worker = worker_of(stand, handler, worker_id="w1")
    stand.order()
    with serving(stand, worker):
        gate.inside()
        message = stand.follow_up("f1")
        until(lambda: message.receives, "it is in hand")
        gate.leave.set()
        until(lambda: stand.tasks.outputs, "the first job ends")
        stand.claims.held = None
        until(lambda: len(ran) == 2 or stand.clock.advance(1), "the second job runs")
    assert [job.instruction for job in ran] == ["do m1", "also f1"]
    assert ran[1].fence == ran[0].fence + 1
    assert stand.claims.of("acquire")[-1]["owner"] == "w1"
    assert stand.claims.released == [(ran[1].claim_id, "completed")]
    assert len(stand.tasks.ends) == 1
    assert stand.sqs.left(INPUT) == []


def test_a_follow_up_waits_while_another_thread_holds_the_workspace(stand: Stand) -> None:
    assert stand.claims.acquire(OTHER_THREAD)["claimed"]
    message = stand.follow_up("f1")
    ran: list[str] = []
    worker = worker_of(stand, lambda job: ran.append(job.message_id))
    with serving(stand, worker):
        until(lambda: len(stand.claims.of("acquire")) >= 9 or stand.clock.advance(1), "it is tried")
        tries = [call["at"] for call in stand.claims.of("acquire")]
        gaps = [later - earlier for earlier, later in pairwise(tries)]
        for gap, least in zip(gaps, (1, 2, 4, 8, 16, 32, 64, 90), strict=False):
            assert gap >= least
        assert stand.sqs.left(INPUT) == [message]
        stand.claims.held = None
        until(lambda: ran or stand.clock.advance(1), "it runs")
    assert stand.sqs.left(INPUT) == []


def test_a_waiting_follow_up_joins_the_next_job_of_its_thread(stand: Stand) -> None:
    stand.claims.acquire(OTHER_THREAD)
    message = stand.follow_up("f1")
    taken: list[str] = []
    worker = worker_of(stand, following(1, taken))
    with serving(stand, worker):
        until(lambda: message.receives, "it waits")
        stand.claims.held = None
        stand.order()
        until(lambda: stand.tasks.outputs or stand.clock.advance(1), "the job ends")
    assert taken == ["f1"]
    assert stand.claims.released == []


def test_a_refused_claim_does_not_keep_a_crashed_holder_alive_for_ever(stand: Stand) -> None:
    """A refused claim of the same thread extends the holder's; the pauses grow beyond that."""
    dead = {"threadId": "t1", "messageId": "f0", "owner": "crashed", "ttlSeconds": 60}
    assert stand.claims.acquire(dead)["claimed"]
    stand.follow_up("f0")
    worker = worker_of(stand, lambda job: worker.stop(), worker_id="w2")
    stand.finish(stand.start(worker.run))
    assert stand.sqs.left(INPUT) == []


def test_a_job_does_not_get_follow_ups_of_another_thread(stand: Stand) -> None:
    stand.order()
    with working(stand) as job:
        message = stand.follow_up("f1", thread_id="t2")
        until(lambda: message.receives, "it is looked at")
        stand.pass_time(5)
        assert job.follow_ups() == []
    assert stand.sqs.left(INPUT) == [message]


@pytest.mark.parametrize("end", [JobEnd.FAILED, JobEnd.INTERRUPTED, JobEnd.STOPPED, JobEnd.LOST])
def test_taken_follow_ups_come_back_unless_the_job_completes(stand: Stand, end: JobEnd) -> None:
    """Their senders' executions have ended: whatever the handler did not finish comes again."""
    body = stand.order()
    message = stand.follow_up("f1")
    taken: list[str] = []

    def handler(job: Job) -> None:
        while not taken and not job.wait(1):
            taken.extend(each.message_id for each in job.follow_ups())
        match end:
            case JobEnd.FAILED:
                raise OSError("disk full")
            case JobEnd.INTERRUPTED:
                stand.interrupt(body)
            case JobEnd.STOPPED:
                worker.stop(cancel=True)
            case JobEnd.LOST:
                stand.tasks.time_out(body["taskToken"])
        job.cancelled.wait()
        job.check()

    worker = worker_of(stand, handler)
    assert stand.finish(stand.start(worker.run_once)) is end
    assert taken == ["f1"]
    others = [each for each in stand.sqs.left(INPUT) if each is not message]
    assert [json.loads(each.body)["type"] for each in others] == ["JOB"] * (end is JobEnd.STOPPED)
    assert message in stand.sqs.left(INPUT)
    assert end is JobEnd.INTERRUPTED or message.visible_at <= stand.clock.monotonic()


def test_a_follow_up_delivered_again_is_passed_on_once(stand: Stand) -> None:
    stand.order()
    with working(stand) as job:
        message = stand.follow_up("f1")
        until(lambda: message.receives, "it is in hand")
        message.visible_at = 0.0
        until(lambda: message.receives == 2, "it comes again")
        joined = until(job.follow_ups, "it joins")
        assert [each.message_id for each in joined] == ["f1"]
        assert job.follow_ups() == []
    assert stand.sqs.left(INPUT) == []


def test_a_job_of_a_follow_up_can_be_interrupted(stand: Stand) -> None:
    """It releases its claim, and runs again after the thread that interrupted."""
    stand.follow_up("f1")
    ended = stand.start(worker_of(stand, obedient).run_once)
    until(lambda: stand.claims.held, "it runs")
    stand.interrupt({"claimId": "claim-1", "fence": 1})
    assert stand.finish(ended) is JobEnd.INTERRUPTED
    assert stand.claims.released == [("claim-1", "preempted")]
    (message,) = stand.sqs.left(INPUT)
    assert message.visible_at > stand.clock.monotonic() + 10


def test_a_follow_ups_failed_job_is_only_logged(stand: Stand, caplog: LogCaptureFixture) -> None:
    stand.follow_up("f1")
    assert run_once(stand, failing) is JobEnd.FAILED
    assert "f1 failed: LookupError: no such page" in caplog.text
    assert stand.claims.released == [("claim-1", "failed")]
    assert stand.sqs.left(INPUT) == []


def test_the_claim_of_a_follow_ups_job_is_renewed(stand: Stand) -> None:
    stand.follow_up("f1")
    with working(stand):
        stand.pass_time(200)
        assert stand.claims.live() is not None


def test_a_job_with_a_newer_claim_ends_a_follow_ups_job(stand: Stand) -> None:
    """Its fence shows that the claim is gone; the follow-up runs again later."""
    stand.follow_up("f1")
    told: list[str | None] = []

    def handler(job: Job) -> Any:
        if job.message_id == "f1":
            job.cancelled.wait()
            told.append(job.cancelled.detail)
        return job.message_id

    worker = worker_of(stand, handler, follow_up_ttl=3000)
    with serving(stand, worker):
        until(lambda: stand.claims.held, "the follow-up runs")
        stand.claims.held = None
        stand.order("m2", "t2")
        until(lambda: stand.tasks.outputs or stand.clock.advance(1), "the newer job runs")
        assert stand.clock.monotonic() < 500  # the next renewal was due at 1000
    assert told == ["superseded"]
    assert stand.tasks.outputs == ["m2"]
    assert [json.loads(each.body)["messageId"] for each in stand.sqs.left(INPUT)] == ["f1"]


def test_run_takes_one_job_at_a_time_in_order(stand: Stand) -> None:
    inside: list[str] = []

    def handler(job: Job) -> str:
        assert inside == []
        inside.append(job.message_id)
        job.wait(3)
        inside.remove(job.message_id)
        return job.message_id

    worker = worker_of(stand, handler)
    with serving(stand, worker):
        for number in range(4):
            stand.claims.held = None
            stand.order(f"m{number}")
            until(
                lambda n=number: len(stand.tasks.ends) > n or stand.clock.advance(1), "it is done"
            )
    assert stand.tasks.outputs == ["m0", "m1", "m2", "m3"]


def test_stop_waits_for_the_running_job(stand: Stand) -> None:
    gate = Gate()
    stand.order()
    worker = worker_of(stand, gate)
    ended = stand.start(worker.run)
    job = gate.inside()
    worker.stop()
    stand.pass_time(100)
    assert ended == []
    assert not job.cancelled
    message = stand.follow_up("f9", thread_id="t2")
    gate.leave.set()
    stand.finish(ended)
    assert stand.tasks.outputs == ["done"]
    assert stand.sqs.left(INPUT) == [message]


def test_stop_with_cancel_hands_the_job_over(stand: Stand) -> None:
    """The next worker does it under a higher fence, and its execution hears of nothing else."""
    first = stand.order()
    reasons: list[Any] = []

    def handler(job: Job) -> None:
        job.cancelled.wait()
        reasons.append(job.cancelled.reason)
        job.check()

    worker = worker_of(stand, handler)
    ended = stand.start(worker.run)
    until(lambda: stand.tasks.beats, "the job runs")
    worker.stop(cancel=True)
    stand.finish(ended)
    assert reasons == ["stopping"]
    assert stand.tasks.ends == []
    (message,) = stand.sqs.left(INPUT)
    assert message.visible_at <= stand.clock.monotonic()
    beats = len(stand.tasks.beats)

    fences: list[int] = []
    assert run_once(stand, lambda job: fences.append(job.fence)) is JobEnd.COMPLETED
    assert fences[0] > first["fence"]
    assert len(stand.tasks.beats) > beats
    assert [kind for _, kind, _ in stand.tasks.ends] == ["success"]
    assert stand.sqs.left(INPUT) == []


def test_a_hand_over_is_not_renewed_or_hidden_again(stand: Stand) -> None:
    """By a call of another thread that was under way: the next worker would have to wait for it."""
    body = stand.order()
    worker = worker_of(stand, obedient)
    ended = stand.start(worker.run)
    until(lambda: stand.tasks.beats, "the job runs")
    worker.stop(cancel=True)
    stand.finish(ended)
    held = stand.claims.held
    assert held is not None
    assert held.taken_until <= stand.clock.time()
    run = worker._run
    assert run is not None
    calls = len(stand.claims.calls)
    run._renew()
    run._extend()
    assert len(stand.claims.calls) == calls
    assert stand.sqs.left(INPUT)[0].visible_at <= stand.clock.monotonic()
    assert body["claimId"] == held.claim_id


@pytest.mark.parametrize("fault", ["taken", "over"])
def test_a_job_that_is_lost_is_not_handed_over(stand: Stand, fault: str) -> None:
    """Another worker has it, or its execution has ended: the message is that worker's, or done."""
    body = stand.order()
    worker = worker_of(stand, obedient)
    ended = stand.start(worker.run)
    until(lambda: stand.tasks.beats, "the job runs")
    if fault == "over":
        stand.tasks.time_out(body["taskToken"])
    elif stand.claims.held is not None:
        stand.claims.held.taker = "another"
        stand.claims.held.taken_until = stand.clock.time() + 1e6
    worker.stop(cancel=True)
    stand.finish(ended)
    assert worker._run is not None
    assert worker._run.end is JobEnd.LOST
    assert stand.tasks.ends == []


def test_stop_with_cancel_returns_a_follow_up_to_the_queue(stand: Stand) -> None:
    message = stand.follow_up("f1")
    worker = worker_of(stand, obedient)
    ended = stand.start(worker.run)
    until(lambda: stand.claims.held, "it runs")
    worker.stop(cancel=True)
    stand.finish(ended)
    assert stand.claims.released == [("claim-1", "stopped")]
    assert stand.sqs.left(INPUT) == [message]


@pytest.mark.parametrize("first", ["stop", "interrupt"])
def test_an_interrupted_job_is_reported_so_despite_a_stop(stand: Stand, first: str) -> None:
    gate = Gate()
    body = stand.order()
    worker = worker_of(stand, gate)
    ended = stand.start(worker.run)
    job = gate.inside()

    def interrupt() -> None:
        stand.interrupt(body)
        until(lambda: job.cancelled.reason == "interrupt", "the interrupt is heard")

    acts = [partial(worker.stop, cancel=True), interrupt]
    for act in acts if first == "stop" else acts[::-1]:
        act()
        until(job.cancelled.is_set, "the signal")
        stand.pass_time(20)
    until(lambda: stand.tasks.failures, "the end is reported")
    gate.leave.set()
    stand.finish(ended)
    assert [error for error, _ in stand.tasks.failures] == ["PREEMPTED"]


def test_stop_during_the_start_of_a_job_cancels_it(stand: Stand) -> None:
    stand.order()
    renew = stand.claims.renew

    def stop_and_renew(event: Any) -> dict[str, Any]:
        if len(stand.claims.of("renew")) == 1:
            worker.stop(cancel=True)
        return renew(event)

    stand.claims.renew = stop_and_renew  # type: ignore[method-assign]
    worker = worker_of(stand, obedient)
    stand.finish(stand.start(worker.run))
    take, hand_over = stand.claims.of("renew")
    assert (take["takerSeconds"], hand_over["takerSeconds"]) == (45, 0)
    assert stand.tasks.ends == []


def test_stop_does_not_wait_for_a_handler_after_the_grace_period(stand: Stand) -> None:
    """Its job is handed over; the process may exit."""
    gate = Gate()
    stand.order()
    worker = worker_of(stand, gate)
    ended = stand.start(worker.run)
    gate.inside()
    worker.stop(cancel=True)
    stand.finish(ended)
    assert stand.tasks.ends == []
    assert len(stand.sqs.left(INPUT)) == 1
    gate.leave.set()


def test_sigterm_cancels_the_job_and_restores_the_former_handler(stand: Stand) -> None:
    stand.order()
    before = signal.getsignal(signal.SIGTERM)

    def handler(job: Job) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        obedient(job)

    done = threading.Event()
    stand.start(lambda: until(lambda: done.is_set() or stand.clock.advance(1), "the end"))
    worker_of(stand, handler).run(handle_sigterm=True)
    done.set()
    stand.threads[-1].join()
    assert stand.tasks.ends == []
    assert len(stand.sqs.left(INPUT)) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_worker_goes_on_after_faults_of_sqs(stand: Stand) -> None:
    worker = worker_of(stand, obedient)
    stand.sqs.faults[f"receive:{INPUT}"] = [OSError("reset")] * 3
    stand.sqs.faults[f"receive:{INTERRUPTS}"] = [OSError("reset")] * 3
    body = stand.order()
    stand.interrupt(body)
    with serving(stand, worker):
        until(lambda: stand.tasks.ends or stand.clock.advance(1), "the job ends")
    assert stand.tasks.failures[0][0] == "PREEMPTED"


@pytest.mark.parametrize(
    ("endpoint", "guard"),
    [
        ("https://sqs.eu-west-1.amazonaws.com", {"Policy": TLS_ONLY_POLICY}),
        ("http://127.0.0.1:4566", {}),
    ],
)
def test_queues_are_created_with_the_attributes_of_flow_and_send_interrupt(
    stand: Stand, endpoint: str, guard: dict[str, str]
) -> None:
    """An emulator has no TLS, so the policy would refuse every call."""
    stand.sqs.queues.clear()
    stand.sqs.meta.endpoint_url = endpoint
    worker_of(stand, Gate())
    assert stand.sqs.created == {INPUT: INPUT_QUEUE | guard, INTERRUPTS: INTERRUPT_QUEUE | guard}
    worker_of(stand, Gate(), create_queues=False)


@pytest.mark.parametrize("missing", [INPUT, INTERRUPTS])
def test_a_new_queue_is_used_after_one_second(stand: Stand, missing: str) -> None:
    """SQS requires it."""
    del stand.sqs.queues[missing]
    seen: list[float] = []
    receive = stand.sqs.receive_message

    def watched(**arguments: Any) -> dict[str, Any]:
        seen.append(stand.clock.monotonic())
        return receive(**arguments)

    stand.sqs.receive_message = watched  # type: ignore[method-assign]
    worker = worker_of(stand, lambda job: job.instruction)
    stand.order()
    ended = stand.start(worker.run_once)
    until(lambda: stand.clock.has_waiting(stand.threads[0]), "the worker waits")
    stand.clock.advance(0.9)
    assert seen == []
    stand.clock.advance(0.1)
    stand.finish(ended)
    assert min(seen) == 1.0
    assert stand.tasks.outputs == ["do m1"]


def test_the_default_clients_create_queues_in_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        for _ in range(2):
            JobWorker(
                "amelia", "scott", Gate(), claim_function="c", prefix="p-", region="eu-west-1"
            )
        urls = boto3.client("sqs", region_name="eu-west-1").list_queues()["QueueUrls"]
    names = sorted(url.rpartition("/")[2] for url in urls)
    assert names == [input_queue_name("p-", WORKSPACE), interrupt_queue_name("p-", WORKSPACE)]


def test_the_flow_creates_the_same_queue_and_sends_the_same_messages(stand: Stand) -> None:
    root = Path(__file__).parents[2]
    states = yaml.safe_load((root / "resources" / "job-flow.asl.yml").read_text())["States"]
    for name in ("MakeInputQueue", "MakeHolderQueue"):
        attributes = states[name]["Arguments"]["Attributes"]
        assert attributes == INPUT_QUEUE | {"Policy": "${param:madeQueuePolicy}"}
    stages = yaml.safe_load((root / "serverless.yml").read_text())["custom"]["stages"]
    assert stages["default"]["madeQueuePolicy"] == TLS_ONLY_POLICY
    job = states["SendToContainer"]["Arguments"]["MessageBody"]
    assert set(job) == set(stand.order())
    assert job["type"] == "JOB"
    joined = states["JoinHolder"]["Arguments"]["MessageBody"]
    assert set(joined) == set(json.loads(stand.follow_up("f1").body))
    assert joined["type"] == "FOLLOW_UP"


def test_a_missing_queue_is_an_error_if_queues_are_not_created(stand: Stand) -> None:
    stand.sqs.queues.clear()
    with pytest.raises(QueueMissingError) as caught:
        worker_of(stand, Gate(), create_queues=False)
    assert caught.value.queue_name == INPUT
    assert stand.sqs.created == {}


def test_malformed_ids_are_refused_with_the_fields_name(stand: Stand) -> None:
    with pytest.raises(ValidationError) as caught:
        JobWorker("amelia", "a#b", Gate(), **stand.clients())
    assert caught.value.field == "userId"
    assert stand.sqs.created == {}


@pytest.mark.parametrize("name", ["prefix", "claim_function"])
def test_a_missing_or_empty_prefix_is_an_error(stand: Stand, name: str) -> None:
    clients = stand.clients()
    with pytest.raises(ValidationError, match=f"^{name}: "):
        JobWorker("amelia", "scott", Gate(), **clients | {name: ""})
    del clients[name]
    with pytest.raises(TypeError, match=name):
        JobWorker("amelia", "scott", Gate(), **clients)
    assert stand.sqs.created == {}


REQUEST = {"owner": "acme#ann", "requestId": "job-1"}
LISTENED = {"request": REQUEST}


def test_a_job_reports_to_its_request(stand: Stand) -> None:
    """All events arrive in order before the end; of the progress, the newest at each time."""

    def handler(job: Job) -> str:
        for number in range(1200):
            job.emit({"number": number})
            job.report(number / 12, f"{number} of 1200")
        job.wait(5)
        return "done"

    assert run_job(stand, handler, **LISTENED) is JobEnd.COMPLETED
    assert stand.claims.events == [{"number": number} for number in range(1200)]
    last = stand.claims.reports[-1]
    assert (last["request"], last["message"]) == (REQUEST, "1199 of 1200")
    times = [report["at"] for report in stand.claims.reports]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
    assert len(times) < 10


def test_a_lost_answer_stores_no_event_twice(stand: Stand) -> None:
    stand.claims.faults["report"] = [OSError("reset")] * 3

    def handler(job: Job) -> None:
        job.emit("a")
        job.emit("b")
        while len(stand.claims.events) < 2:
            job.wait(1)
        job.emit("c")

    assert run_job(stand, handler, **LISTENED) is JobEnd.COMPLETED
    assert stand.claims.events == ["a", "b", "c"]


def test_a_report_that_is_refused_lets_the_worker_look_at_its_claim(stand: Stand) -> None:
    """Another worker has the job."""
    stand.order(**LISTENED)
    with working(stand, JobEnd.LOST) as job:
        held = stand.claims.held
        assert held is not None
        held.fence += 1
        job.report(50, "half")
        until(lambda: job.cancelled.is_set() or stand.clock.advance(1), "the job is lost")
        assert job.cancelled.detail == "taken"
        job.emit("late")
    assert stand.claims.events == []


@pytest.mark.parametrize("event", [object(), float("nan"), "x" * 40_000])
def test_an_event_that_can_not_be_sent_is_refused_at_once(stand: Stand, event: Any) -> None:
    stand.order(**LISTENED)
    with working(stand) as job:
        with pytest.raises(ValueError, match="event"):
            job.emit(event)
        with pytest.raises(ValueError, match="percentage"):
            job.report(float("nan"))


def test_a_job_without_a_request_reports_to_nobody(stand: Stand) -> None:
    stand.order()
    with working(stand) as job:
        job.report(50, "half")
        job.emit("x")
    assert (stand.claims.reports, stand.claims.events) == ([], [])
