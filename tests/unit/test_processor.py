"""processor: one end for each request, progress, leases, retries and the sweeper."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    ReadTimeoutError,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobplane_keys import (
    MAX_MESSAGE_BYTES,
    ValidationError,
    in_flight_shard,
    owner_key,
    tenant_shard,
)
from jobplane_leases import store_payload
from jobplane_leases.instructions import INSTRUCT
from jobplane_models.messages import CompleteMessage, ErrorMessage, ProgressMessage
from tests.unit.stack import (
    BUCKET,
    MARK,
    OWNER,
    PREFIX,
    Context,
    Output,
    Processor,
    Row,
    Run,
    Sockets,
    Stack,
    client_error,
    connection,
    ended,
    event,
    iso,
    keeping,
    message,
    request,
    subscription,
    until,
)


def test_a_pending_request_is_completed(processor: Processor, stack: Stack) -> None:
    """By conditional updates; the row ends with its result and without a lease."""
    calls = stack.calls(processor.module.dynamodb)
    row = processor.run(request(payload={"seconds": 0, "steps": 2}))
    updates = calls.of("UpdateItem")
    assert all("ConditionExpression" in update for update in updates)
    assert statuses(updates) == ["PROCESSING", "COMPLETED"]
    assert row["status"] == "COMPLETED"
    assert json.loads(row["result"]) == {"seconds": 0, "steps": 2}
    assert row["attempts"] == 1
    assert row["started_at"] <= row["ended_at"]
    assert not {"lease_owner", "lease_until", "lease_shard", "error"} & row.keys()


def statuses(updates: Iterable[Row]) -> list[str]:
    """The statuses that the updates set, in order."""
    found = []
    for update in updates:
        values = update["ExpressionAttributeValues"]
        if "status = :set_status" in update["UpdateExpression"]:
            found.append(values[":set_status"]["S"])
        elif ":until" in values:
            found.append("PROCESSING")
    return found


def test_a_failed_attempt_goes_through_retrying(processor: Processor, stack: Stack) -> None:
    calls = stack.calls(processor.module.dynamodb)
    processor.run(job=failing(TimeoutError()))
    expected = ["PROCESSING", "RETRYING", "PROCESSING", "COMPLETED"]
    assert statuses(calls.of("UpdateItem")) == expected


def failing(*errors: BaseException) -> Run:
    """A job that raises each error in turn, and then succeeds."""
    left = [*errors]

    def run(job: Any) -> Any:
        if left:
            raise left.pop(0)
        return {"fine": True}

    return run


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (request, {"status": "PROCESSING", "attempts": 1, "lease_owner": "other"}),
        (request, {"status": "RETRYING", "attempts": 1, "lease_owner": "other"}),
        (request, {"status": "RETRYING", "attempts": 1}),
        (ended, {}),
        (ended, {"status": "FAILED"}),
        (ended, {"status": "CANCELLED"}),
    ],
)
def test_a_request_that_can_not_be_taken_is_left_alone(
    processor: Processor, stack: Stack, make: Callable[..., Row], given: Row
) -> None:
    """Another worker has it, or it has ended; no message is posted."""
    row = make(**given)  # now: a lease that was written at collection may have run out
    assert processor.run(row) == row
    assert stack.sockets.attempts == {}


@pytest.mark.parametrize("status", ["PROCESSING", "RETRYING"])
def test_a_request_with_an_expired_lease_is_taken(processor: Processor, status: str) -> None:
    row = processor.run(request(status=status, attempts=1, lease_owner="gone", lease_until=1))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 2)


def test_no_row_is_created_for_an_expired_request(processor: Processor, stack: Stack) -> None:
    """Its message may still come."""
    assert processor.deliver(message(request())) == []
    assert stack.items("requests") == []


def test_a_message_of_an_ended_request_changes_nothing(processor: Processor, stack: Stack) -> None:
    row = processor.run()
    assert processor.deliver(message(request())) == []
    assert stack.request() == row
    assert len(processor.terminal()) == 1


def test_two_messages_run_a_job_once(processor: Processor, stack: Stack, runs: list[str]) -> None:
    """Those of INSERT and of the change back to PENDING may come together."""
    stack.put("requests", request())
    assert processor.deliver(message(request(), "1"), message(request(), "2")) == []
    assert runs == ["req-1"]


def test_two_messages_of_a_batch_are_not_one_worker(processor: Processor, stack: Stack) -> None:
    """The thread of the first stalls past its lease; the second message waits for it."""
    stalls, works = threading.Event(), [processor.module.work]
    ran: list[str] = []

    def run(job: Any) -> Any:
        ran.append(job.attempt)
        stack.put("requests", stack.request() | {"lease_until": int(time.time()) - 1})
        stalls.set()
        time.sleep(0.2)
        return {}

    def work(*arguments: Any) -> None:
        if not works:
            stalls.wait(5)
        (works.pop() if works else first)(*arguments)

    first = works[0]
    processor.action("delay", run)
    processor.set(work=work)
    stack.put("requests", request())
    assert processor.deliver(message(request(), "1"), message(request(), "2")) == []
    assert len(ran) == 1
    assert stack.request()["status"] == "COMPLETED"


def test_an_end_written_while_the_job_runs_stays(processor: Processor, stack: Stack) -> None:
    final = ended(status="CANCELLED")

    def run(job: Any) -> Any:
        stack.put("requests", final)
        return {"late": True}

    assert processor.run(job=run) == final
    assert processor.terminal() == []


def of_another(attempts: int = 2) -> Row:
    """A request that another worker runs."""
    end = int(time.time()) + 100
    return request(status="PROCESSING", attempts=attempts, lease_owner="other", lease_until=end)


def test_a_worker_without_its_lease_stops_at_progress(processor: Processor, stack: Stack) -> None:
    """It writes and posts nothing more."""
    stopped: list[BaseException] = []
    theirs = of_another()

    def run(job: Any) -> Any:
        job.report(10, "Mine")
        processor.posted(1)
        stack.put("requests", theirs)
        try:
            until(lambda: job.report(50, "Still mine?"))
        except BaseException as error:
            stopped.append(error)
            raise

    assert processor.run(job=run) == theirs
    assert isinstance(stopped[0], processor.module.LeaseLostError)
    assert [message["message"] for message in processor.sockets.to("conn-1")] == ["Mine"]


@pytest.mark.parametrize("end", [None, TimeoutError(), ValueError()])
def test_a_worker_without_its_lease_does_not_end_the_request(
    processor: Processor, stack: Stack, end: BaseException | None
) -> None:
    """Nor does it write a failure or a next attempt."""
    theirs = of_another()

    def run(job: Any) -> Any:
        stack.put("requests", theirs)
        if end is not None:
            raise end
        return {"late": True}

    assert processor.run(job=run) == theirs
    assert stack.sockets.posts == []


def test_an_unknown_action_fails_at_once(processor: Processor) -> None:
    row = processor.run(request(action="reboot"))
    found = (row["status"], row["error"]["code"], row["attempts"])
    assert found == ("FAILED", "PROCESSING_FAILED", 1)


def test_two_jobs_can_not_have_the_same_name(processor: Processor) -> None:
    with pytest.raises(ValueError, match="delay"):
        processor.module.action("delay")(lambda job: {})


def test_every_action_that_the_router_queues_has_a_job(processor: Processor, stack: Stack) -> None:
    actions = stack.function("router").ACTIONS.values()
    queued = {found.name for found in actions if found.mode == "async" or found.forcible}
    # The job flow runs those of `instruct`.
    assert queued == {*processor.module.ACTIONS, INSTRUCT}


@pytest.mark.parametrize(
    "case",
    [
        "delay-completed", "delay-failed", "echo-completed", "back-from-retrying",
        "delivered-again", "message-unreadable", "sweep-nothing", "sweep-puts-back",
        "sweep-never-picked-up", "sweep-fails",
    ],
)  # fmt: skip
def test_the_example_events_are_answered(processor: Processor, stack: Stack, case: str) -> None:
    """Only the unreadable message is in the failure queue."""
    answer = processor.module.handler(event("processor", case), Context())
    assert answer == ({"swept": {}} if case.startswith("sweep") else {"batchItemFailures": []})
    assert len(stack.messages("requests-failed")) == (case == "message-unreadable")


# Leases


@pytest.mark.parametrize(("seconds", "expected"), [(600, 120), (60, 60)])
def test_a_lease_ends_with_the_invocation_at_the_latest(
    processor: Processor, stack: Stack, seconds: int, expected: int
) -> None:
    """`lease_until` is two minutes away, or at the end of the invocation."""
    held: list[Row] = []
    processor.run(context=Context(seconds=seconds), job=keeping(held, lambda job: stack.request()))
    (row,) = held
    assert row["lease_owner"] == "invocation-1"
    assert expected - 3 <= row["lease_until"] - time.time() <= expected + 1
    assert row["lease_shard"] == in_flight_shard(f"{OWNER}#req-1")


def test_progress_does_not_renew_a_lease_that_is_young(processor: Processor, stack: Stack) -> None:
    """Its end is a key of the index `in-flight`, in which each change is two more writes."""
    calls = stack.calls(processor.module.dynamodb)

    def run(job: Any) -> Any:
        for seq in (1, 2):
            job.report(10 * seq, "Going on")
            processor.posted(seq)
        return {}

    processor.run(job=run)
    changed = [each["ExpressionAttributeNames"] for name, each in calls if name == "UpdateItem"]
    reports = [names.values() for names in changed if "progress" in names.values()]
    assert len(reports) == 2
    assert all("lease_until" not in names for names in reports)


def test_a_job_without_progress_keeps_its_lease(processor: Processor, stack: Stack) -> None:
    """The lease is renewed when half of it is over."""
    processor.set(LEASE_SECONDS=2)

    def run(job: Any) -> Any:
        first = stack.request()["lease_until"]
        until(lambda: stack.request()["lease_until"] > first)
        return {}

    assert processor.run(job=run)["status"] == "COMPLETED"
    assert processor.sockets.kinds() == ["complete"]


def test_a_lease_is_not_renewed_at_the_invocations_end(processor: Processor, stack: Stack) -> None:
    calls = stack.calls(processor.module.dynamodb)
    row = request(payload={"seconds": 0.5, "steps": 1})
    assert processor.run(row, context=Context(seconds=40))["status"] == "COMPLETED"
    assert calls.counts()["UpdateItem"] <= 4


# Retries


@pytest.mark.parametrize(
    "error",
    [
        client_error("ProvisionedThroughputExceededException", 400),
        client_error("ThrottlingException", 400),
        client_error("SlowDown", 503),
        client_error("TransactionConflictException", 400),
        client_error("Whatever", 500),
        client_error("Whatever", 503),
        EndpointConnectionError(endpoint_url="https://x"),
        ConnectionClosedError(endpoint_url="https://x"),
        ReadTimeoutError(endpoint_url="https://x"),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
    ],
    ids=repr,
)
def test_a_transient_failure_costs_one_attempt(processor: Processor, error: BaseException) -> None:
    """Throttling, broken connections, timeouts and 5xx."""
    row = processor.run(job=failing(error))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 2)
    assert "error" not in row
    assert processor.sockets.kinds() == ["complete"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError(MARK),
        KeyError(MARK),
        client_error("AccessDeniedException", 400),
        client_error("ValidationException", 400),
        client_error("NoSuchKey", 404),
        RecursionError(MARK),
    ],
    ids=repr,
)
def test_any_other_failure_ends_the_request_without_its_text(
    processor: Processor, output: Output, error: BaseException
) -> None:
    """The log has the text under the request's id."""
    row = processor.run(job=failing(error))
    shown = {"code": "PROCESSING_FAILED", "message": "The job failed", "retryable": False}
    assert (row["status"], row["attempts"], row["error"]) == ("FAILED", 1, shown)
    assert MARK not in json.dumps(processor.sockets.posts)
    (line,) = output.logged("attempt failed")
    assert MARK in line["stack"]
    ids = [line[name] for name in ("request_id", "tenant_id", "user_id")]
    assert ids == ["req-1", "tenant-1", "user-1"]


def test_after_the_last_attempt_the_client_gets_the_last_failure_once(processor: Processor) -> None:
    runs: list[int] = []

    def run(job: Any) -> Any:
        runs.append(job.row["attempts"])
        raise client_error("ThrottlingException", 400)

    row = processor.run(job=run)
    assert runs == [1, 2, 3, 4]
    assert row["status"] == "FAILED"
    assert (row["error"]["code"], row["error"]["retryable"]) == ("SERVICE_UNAVAILABLE", True)
    assert [m["error"] for m in processor.sockets.to("conn-1")] == [row["error"]]


@pytest.mark.parametrize("status", ["PROCESSING", "RETRYING", "PENDING"])
def test_a_spent_request_is_left_to_the_sweeper(processor: Processor, status: str) -> None:
    row = request(status=status, attempts=4, lease_until=1)
    assert processor.run(row, job=failing(AssertionError("it ran"))) == row


def test_the_text_of_a_jobs_own_transient_failure_is_kept(processor: Processor) -> None:
    """The diagnostic action may fail on purpose."""
    payload = {"seconds": 0, "steps": 2, "fail_at": 1, "transient": True}
    row = processor.run(request(payload=payload))
    assert row["attempts"] == 4
    assert row["error"]["message"] == "Failed at step 1 of 2, as asked"


@given(attempt=st.integers(min_value=1, max_value=60))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_backoff_is_full_jitter_below_a_cap(processor: Processor, attempt: int) -> None:
    processor.set(BACKOFF_BASE_SECONDS=1.0)
    wait = processor.module.backoff_seconds(attempt)
    assert 0 <= wait <= min(30.0, 2.0 ** (attempt - 1))


def test_a_wait_that_does_not_fit_is_left_to_the_sweeper(processor: Processor) -> None:
    """It waits without an owner, and the invocation goes on."""
    processor.set(backoff_seconds=lambda attempt: 500.0)
    row = processor.run(job=failing(TimeoutError()))
    assert (row["status"], row["attempts"]) == ("RETRYING", 1)
    assert "lease_owner" not in row
    assert 490 < row["lease_until"] - time.time() <= 500
    assert processor.sockets.posts == []


def test_the_lease_of_a_request_outlasts_its_wait(processor: Processor, stack: Stack) -> None:
    """Between two attempts of one invocation."""
    processor.set(backoff_seconds=lambda attempt: 5.0)
    waiting: list[Row] = []
    stack.monkeypatch.setattr(
        processor.module.time, "sleep", lambda seconds: waiting.append(stack.request())
    )
    processor.run(job=failing(TimeoutError()))
    (row,) = waiting
    assert (row["status"], row["lease_owner"]) == ("RETRYING", "invocation-1")
    assert row["lease_until"] > time.time() + 100


def test_the_sweeper_requeues_a_parked_request_when_due(processor: Processor, stack: Stack) -> None:
    """Not before; PENDING reaches the stream."""
    processor.set(backoff_seconds=lambda attempt: 500.0)
    row = processor.run(job=failing(TimeoutError()))
    assert processor.sweep() == {}
    stack.put("requests", row | {"lease_until": int(time.time()) - 1})
    assert processor.sweep() == {"requeued": 1}
    waiting = stack.request()
    assert waiting["status"] == "PENDING"
    assert processor.deliver(message(waiting)) == []
    assert (stack.request()["status"], stack.request()["attempts"]) == ("COMPLETED", 2)


def test_a_job_out_of_time_is_put_back(processor: Processor) -> None:
    """It waits for the next invocation."""

    def run(job: Any) -> Any:
        job.report(30, "Working")
        processor.set(SAFETY_SECONDS=1e9, MIN_WORK_SECONDS=1e9)
        job.check()

    row = processor.run(job=run)
    assert (row["status"], row["progress"]["percentage"]) == ("RETRYING", 30)
    assert processor.terminal() == []


def test_a_job_out_of_time_in_its_last_attempt_ends_with_TIMEOUT(processor: Processor) -> None:
    def run(job: Any) -> Any:
        processor.set(SAFETY_SECONDS=1e9)
        job.check()

    row = processor.run(request(attempts=3), job=run)
    found = (row["status"], row["error"]["code"], row["error"]["retryable"])
    assert found == ("FAILED", "TIMEOUT", True)


def test_a_write_that_meets_a_transaction_is_repeated(processor: Processor, stack: Stack) -> None:
    code = "TransactionConflictException"
    failed = stack.fail(processor.module.dynamodb, "UpdateItem", code, times=3)
    row = processor.run(request(payload={"seconds": 0, "steps": 1}))
    assert failed["UpdateItem"] == 3
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)


def test_a_failed_progress_write_costs_nothing(processor: Processor, stack: Stack) -> None:
    """While the lease is safe; the report is written later."""

    def run(job: Any) -> Any:
        failed = stack.fail(processor.module.dynamodb, "UpdateItem", times=2)
        job.report(10, "Late")
        until(lambda: stack.request().get("progress"))
        return failed["UpdateItem"]

    row = processor.run(job=run)
    assert (row["status"], row["attempts"], row["result"]) == ("COMPLETED", 1, "2")


def test_a_lease_that_can_not_be_renewed_ends_the_attempt(
    processor: Processor, stack: Stack
) -> None:
    """Before another worker may take the job; no progress is posted that was not written."""
    processor.set(LEASE_SECONDS=2)
    stopped_at: list[float] = []

    def run(job: Any) -> Any:
        if job.row["attempts"] == 1:
            writes = stack.fail(processor.module.dynamodb, "UpdateItem")
            try:
                until(lambda: job.report(10, "Lost"), 60)
            finally:
                stopped_at.append(job.row["lease_until"] - time.time())
                stack.monkeypatch.setattr(processor.module, "LEASE_SECONDS", 120)
                writes["UpdateItem"] = 1_000_000
        return {}

    row = processor.run(job=run)
    assert (row["status"], row["attempts"], len(stopped_at)) == ("COMPLETED", 2, 1)
    assert processor.sockets.kinds() == ["complete"]


class BlackHole:
    """A management API that takes each call and answers none until `open` is set."""

    def __init__(self, sockets: Sockets) -> None:
        self.open = threading.Event()
        self.sockets = sockets

    def post_to_connection(self, **parameters: Any) -> None:
        self.open.wait()
        self.sockets.post_to_connection(**parameters)


@pytest.fixture
def hole(processor: Processor, stack: Stack) -> Iterator[BlackHole]:
    stack.monkeypatch.setattr("jobplane_sockets._outbox.SILENCE_SECONDS", 0.2)
    hole = BlackHole(stack.sockets)
    processor.set(management=lambda: hole)
    yield hole
    hole.open.set()


def test_a_silent_endpoint_costs_neither_lease_nor_end(
    processor: Processor, stack: Stack, output: Output, hole: BlackHole
) -> None:
    """The lease is renewed, the end is written, and the function returns. What waits is posted
    when the endpoint answers again: progress first, of which the newest is left, then the end.
    """
    processor.set(LEASE_SECONDS=2)

    def run(job: Any) -> Any:
        first = stack.request()["lease_until"]
        for number in range(1, 5):
            job.report(number, "Going on")
            until(lambda n=number: stack.request().get("progress", {}).get("seq") == n)  # type: ignore[misc]
        until(lambda: stack.request()["lease_until"] > first)
        return {}

    row = processor.run(job=run)
    assert (row["status"], row["attempts"], stack.sockets.posts) == ("COMPLETED", 1, [])
    assert output.logged("messages not posted in time")
    hole.open.set()
    processor.posted(2)
    assert processor.sockets.kinds() == ["progress", "complete"]


def test_a_silent_endpoint_holds_up_no_sweep(
    processor: Processor, stack: Stack, hole: BlackHole
) -> None:
    """Nor does it lose a listener the end that was written."""
    spent = [request(f"req-{n}", attempts=4, lease_until=1, status="PROCESSING") for n in range(4)]
    stack.put("requests", *spent)
    assert processor.sweep() == {"failed": 4}
    assert {row["status"] for row in stack.items("requests")} == {"FAILED"}
    hole.open.set()
    processor.posted(4)
    assert set(told(processor)) == {row["request_id"] for row in spent}


def test_a_request_cancelled_before_it_began_is_not_run(processor: Processor) -> None:
    """The flag is read when it is taken."""
    row = processor.run(request(cancel_requested=True), job=failing(AssertionError("it ran")))
    assert (row["status"], row["error"]["code"]) == ("CANCELLED", "CANCELLED")
    assert [m["error"]["code"] for m in processor.terminal()] == ["CANCELLED"]


def test_a_running_job_is_cancelled_at_its_progress(processor: Processor, stack: Stack) -> None:
    """The job's own clean-up runs, then the request ends CANCELLED."""
    cleaned: list[bool] = []

    def run(job: Any) -> Any:
        job.report(10, "Begun")
        stack.put("requests", stack.request() | {"cancel_requested": True})
        try:
            until(lambda: job.report(20, "Going on"))
        finally:
            cleaned.append(True)

    row = processor.run(job=run)
    assert cleaned == [True]
    assert row["status"] == "CANCELLED"
    assert [m["error"]["code"] for m in processor.terminal()] == ["CANCELLED"]


def test_a_waiting_job_is_cancelled_without_progress(processor: Processor, stack: Stack) -> None:
    """The renewal of the lease reads the flag as well."""
    processor.set(LEASE_SECONDS=2)

    def run(job: Any) -> Any:
        stack.put("requests", stack.request() | {"cancel_requested": True})
        job.sleep(60)

    started = time.monotonic()
    assert processor.run(job=run)["status"] == "CANCELLED"
    assert time.monotonic() - started < 30


def test_progress_is_stored_and_posted(processor: Processor, stack: Stack) -> None:
    """Row and message have the same values, and fit the protocol's model."""
    seen: list[Row] = []

    def run(job: Any) -> Any:
        job.report(12.345, "Receiving", step="one")
        processor.posted(1)
        seen.append(stack.request()["progress"])
        return {}

    processor.run(job=run)
    message = processor.sockets.to("conn-1")[0]
    ProgressMessage.model_validate(message)
    assert message["metadata"] == {"step": "one"}
    for name in ("seq", "percentage", "message"):
        assert message[name] == seen[0][name]
    assert (message["seq"], message["percentage"]) == (1, 12.35)


def test_the_first_and_the_last_progress_are_never_dropped(processor: Processor) -> None:
    """Even if the job ends before the first write."""

    def run(job: Any) -> Any:
        for percentage in range(0, 101, 10):
            job.report(percentage, f"At {percentage}")
        return {}

    processor.run(job=run)
    shown = processor.percentages()
    assert (shown[0], shown[-1]) == (0, 100)


def test_progress_is_written_at_most_once_an_interval(processor: Processor) -> None:
    """The newest value wins."""
    assert processor.module.PROGRESS_INTERVAL_SECONDS == 0.5
    processor.set(PROGRESS_INTERVAL_SECONDS=0.1)
    elapsed: list[float] = []

    def run(job: Any) -> Any:
        started = time.monotonic()
        while (passed := time.monotonic() - started) < 0.45:
            job.report(100 * passed, "Going on")
        job.report(99, "Nearly")
        elapsed.append(time.monotonic() - started)
        return {}

    processor.run(job=run)
    shown = processor.percentages()
    # One at the start, one for each interval, one at the end.
    assert 2 <= len(shown) <= elapsed[0] / 0.1 + 2
    assert shown[-1] == 99


def test_progress_is_clamped_and_never_falls(processor: Processor) -> None:
    given = [math.nan, -5, 10, 5, math.nan, math.inf, -math.inf, 42.5, 250]

    def run(job: Any) -> Any:
        for number, percentage in enumerate(given, 1):
            job.report(percentage, "Going on")
            processor.posted(number)
        return {}

    processor.run(job=run)
    assert processor.percentages() == [0, 0, 10, 10, 10, 10, 10, 42.5, 100]


def test_progress_costs_a_write_and_a_post_per_listener(processor: Processor, stack: Stack) -> None:
    """With three subscribers and the origin."""
    others = ["conn-2", "conn-3", "conn-4"]
    stack.put("connections", *map(connection, others))
    stack.put("subscriptions", *(subscription("req-1", who) for who in others))

    def run(job: Any) -> Any:
        for number in range(1, 4):
            job.report(number * 10, "Going on")
            processor.posted(4 * number)
        return {}

    calls = stack.calls(processor.module.dynamodb)
    processor.run(request(subscriber_count=3), job=run)
    taken_and_ended = 2
    of_a_minute = {"BatchGetItem": 1}
    assert calls.counts() == {"UpdateItem": 3 + taken_and_ended, "Query": 4, **of_a_minute}
    assert processor.sockets.attempts == dict.fromkeys(["conn-1", *others], 4)


def test_without_subscribers_no_listeners_are_queried(processor: Processor, stack: Stack) -> None:
    """The row has their count."""
    calls = stack.calls(processor.module.dynamodb)
    processor.run()
    assert "Query" not in calls.counts()


def test_a_later_subscriber_gets_later_messages(processor: Processor, stack: Stack) -> None:
    """The next progress write reads the new count."""
    stack.put("connections", connection("conn-2"))

    def run(job: Any) -> Any:
        job.report(10, "Alone")
        processor.sockets.wait_for(lambda: len(processor.sockets.to("conn-1")) == 1)
        stack.put("subscriptions", subscription("req-1", "conn-2"))
        stack.put("requests", stack.request() | {"subscriber_count": 1})
        job.report(20, "Together")
        processor.sockets.wait_for(lambda: len(processor.sockets.to("conn-2")) == 1)
        return {}

    processor.run(job=run)
    assert [m.get("message") for m in processor.sockets.to("conn-2")] == ["Together", None]
    assert processor.sockets.kinds("conn-2") == ["progress", "complete"]


def test_seq_is_strictly_increasing_across_attempts(processor: Processor) -> None:
    """So a client can drop messages that it has seen."""

    def run(job: Any) -> Any:
        for step in range(3):
            job.report(30 * step, f"Attempt {job.row['attempts']}")
        if job.row["attempts"] < 4:
            raise TimeoutError
        return {}

    processor.run(job=run)
    numbers = [message["seq"] for message in processor.sockets.to("conn-1")]
    assert numbers == sorted(set(numbers))
    assert processor.sockets.kinds()[-1] == "complete"
    assert len(processor.terminal()) == 1
    assert processor.percentages() == sorted(processor.percentages())


def test_a_lost_connection_does_not_stop_the_job(processor: Processor, stack: Stack) -> None:
    """After a 410 its row and its subscription are deleted, and it gets no more posts."""
    stack.put("requests", request("req-0", subscriber_count=1))
    for name in ("req-0", "req-1"):
        stack.put("subscriptions", subscription(name, "conn-1"))
    stack.sockets.gone.add("conn-1")

    def run(job: Any) -> Any:
        for number in range(1, 4):
            job.report(number, "Going on")
            until(lambda n=number: stack.request()["progress"]["seq"] == n)  # type: ignore[misc]
        return {"kept": True}

    row = processor.run(request(progress={"seq": 0, "percentage": 0}), job=run)
    assert row["status"] == "COMPLETED"
    assert json.loads(row["result"]) == {"kept": True}
    assert stack.sockets.attempts == {"conn-1": 1}
    assert stack.items("connections") == []
    (other,) = stack.items("subscriptions")
    assert other["request_key"].endswith("req-0")


@pytest.mark.parametrize(
    ("on_disconnect", "status"), [("cancel", "CANCELLED"), ("detach", "COMPLETED")]
)
def test_a_job_ends_with_its_connection_without_a_disconnect_event(
    processor: Processor, stack: Stack, on_disconnect: str, status: str
) -> None:
    """A post that is refused as gone is enough; `$disconnect` may never come."""
    stack.sockets.gone.add("conn-1")

    def run(job: Any) -> Any:
        job.report(1, "Going on")
        until(lambda: stack.sockets.attempts.get("conn-1"))
        job.sleep(0.2)
        return {}

    processor.action("delay", run)
    assert processor.run(request(on_disconnect=on_disconnect))["status"] == status


def row_of_its_connection(stack: Stack, state: str) -> None:
    """A connection without `$disconnect`: open, or gone in one of the ways that can be seen."""
    stack.dynamodb.delete_item(
        TableName=f"{PREFIX}connections", Key={"connection_id": {"S": "conn-1"}}
    )
    past = int(time.time()) - 1
    expired = {"no more row": None, "old": {"ttl": past}, "no token": {"token_expires_at": past}}
    if (changes := expired.get(state, {})) is not None:
        stack.put("connections", connection(**changes))
    if state == "closed":
        stack.sockets.gone.add("conn-1")
    if state == "unknown":
        stack.sockets.failing["conn-1"] = (500, "InternalServerError")


@pytest.mark.parametrize("age", [0, 3600], ids=["new", "after a long wait"])
@pytest.mark.parametrize(
    ("state", "code"),
    [("no more row", "CANCELLED"), ("old", "CANCELLED"), ("no token", "CANCELLED"),
     ("closed", "CANCELLED"), ("open", "COMPLETED"), ("unknown", "COMPLETED")],
)  # fmt: skip
def test_a_job_that_posts_nothing_ends_with_its_connection(
    processor: Processor, stack: Stack, age: int, state: str, code: str
) -> None:
    """Without `$disconnect`; one that has waited is looked at when it begins."""
    processor.set(LEASE_SECONDS=120 if age else 1)
    row_of_its_connection(stack, state)
    asked: list[Any] = []
    look = processor.module.is_connected
    processor.set(is_connected=lambda *given: asked.append(given) or look(*given))

    def run(job: Any) -> Any:
        until(lambda: asked)
        job.sleep(0.3)
        return {}

    created = iso(time.time() - age)
    row = processor.run(request(on_disconnect="cancel", created_at=created), job=run)
    assert row["status"] == code


def test_a_job_that_outlives_its_connection_asks_for_none(
    processor: Processor, stack: Stack
) -> None:
    """Only one that is cancelled with its connection costs these calls."""
    processor.set(is_connected=None, LEASE_SECONDS=1)
    assert processor.run(job=lambda job: job.sleep(1.1) or {})["status"] == "COMPLETED"


def test_subscribers_get_messages_without_the_origin(processor: Processor, stack: Stack) -> None:
    stack.put("connections", connection("conn-2"))
    stack.put("subscriptions", subscription("req-1", "conn-2"))
    stack.sockets.gone.add("conn-1")
    processor.run(request(subscriber_count=1))
    assert processor.sockets.kinds("conn-2")[-1] == "complete"


PAST = {"token_expires_at": 1}, {"ttl": 1}, {"connected_at": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("changes", [None, *PAST], ids=["no row", "token", "row", "two hours"])
@pytest.mark.parametrize("who", ["conn-1", "conn-2"])
def test_listeners_hear_nothing_after_their_rights_have_ended(
    processor: Processor, stack: Stack, who: str, changes: Row | None
) -> None:
    """Neither progress nor the end, and their subscription counts no more; the others hear all."""
    stack.put("connections", connection("conn-1"), connection("conn-2"))
    stack.put("subscriptions", subscription("req-1", "conn-2"))
    if changes is None:
        key = {"connection_id": {"S": who}}
        stack.dynamodb.delete_item(TableName=f"{PREFIX}connections", Key=key)
    else:
        stack.put("connections", connection(who, **changes))
    row = processor.run(request(subscriber_count=1, payload={"seconds": 0, "steps": 2}))
    (other,) = {"conn-1", "conn-2"} - {who}
    assert stack.sockets.attempts.keys() == {other}
    assert stack.sockets.kinds(other)[-2:] == ["progress", "complete"]
    assert row["subscriber_count"] == len(stack.items("subscriptions")) == (who == "conn-1")
    assert [row["connection_id"] for row in stack.items("connections")] == [other]


def test_rights_that_end_during_a_job_end_its_messages(processor: Processor, stack: Stack) -> None:
    """Its row is read again when the end comes, and nothing is posted."""
    stack.put("connections", connection(token_expires_at=int(time.time()) + 30))
    calls = stack.calls(processor.module.dynamodb)

    def run(job: Any) -> Row:
        job.report(10, "With rights")
        processor.posted(1)
        job.listeners.send(processor.module.management(), {"type": "progress"}, 0)
        later = time.time() + 31
        stack.monkeypatch.setattr(processor.module.time, "time", lambda: later)
        return {}

    assert processor.run(job=run)["status"] == "COMPLETED"
    assert processor.sockets.kinds() == ["progress", "progress"]
    assert calls.counts()["BatchGetItem"] == 2


@pytest.mark.parametrize(("policy", "end"), [("cancel", "CANCELLED"), ("detach", "COMPLETED")])
def test_a_job_ends_with_its_connections_rights(
    processor: Processor, stack: Stack, policy: str, end: str
) -> None:
    stack.put("connections", connection(token_expires_at=1))

    def run(job: Any) -> Row:
        job.report(1, "Going on")
        until(lambda: job.listeners.is_origin_gone)
        job.sleep(0.2)
        return {}

    assert processor.run(request(on_disconnect=policy), job=run)["status"] == end
    assert stack.sockets.attempts == {}


def test_connections_that_are_not_read_get_no_message(
    processor: Processor, stack: Stack, output: Output
) -> None:
    """The job ends as it would otherwise, whatever its policy, and deletes nothing."""
    stack.fail(processor.module.dynamodb, "BatchGetItem")
    row = processor.run(request(on_disconnect="cancel"))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)
    assert stack.sockets.attempts == {}
    assert len(stack.items("connections")) == 1
    assert output.metric("PostFailed")
    (reason,) = output.logged("message not delivered")[0]["connections"].values()
    assert reason == "ProvisionedThroughputExceededException"


@pytest.mark.parametrize(("status", "code"), [(429, "LimitExceededException"), (500, "Internal")])
def test_a_failed_post_is_counted_and_the_job_completes(
    processor: Processor, stack: Stack, output: Output, status: int, code: str
) -> None:
    stack.sockets.failing["conn-1"] = (status, code)
    assert processor.run()["status"] == "COMPLETED"
    assert len(stack.items("connections")) == 1
    assert output.metric("PostFailed")
    assert output.logged("message not delivered")[0]["connections"] == {"conn-1": code}


def test_failed_queries_cost_no_attempt(processor: Processor, stack: Stack, output: Output) -> None:
    """The origin still gets every message."""
    stack.fail(processor.module.dynamodb, "Query")
    row = processor.run(request(subscriber_count=1))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)
    assert processor.sockets.kinds()[-1] == "complete"
    assert output.logged("subscribers not read")


def test_a_completed_request_posts_one_complete_message(processor: Processor) -> None:
    row = processor.run()
    (message,) = processor.terminal()
    CompleteMessage.model_validate(message)
    assert (message["success"], message["seq"]) == (True, row["seq"])
    assert message["result"] == json.loads(row["result"])


def test_a_failed_request_posts_one_error_message(processor: Processor) -> None:
    row = processor.run(request(payload={"seconds": 0, "steps": 3, "fail_at": 2}))
    (message,) = processor.terminal()
    ErrorMessage.model_validate(message)
    assert message["error"] == row["error"]
    assert message["seq"] == row["seq"]


def lose_answer(processor: Processor, status: str, *, wholly: bool = False) -> None:
    """The first write of a status is carried out, and sent again since its answer does not come.

    `wholly`: nor does any answer to botocore's repetitions.
    """
    dynamodb = processor.module.dynamodb
    whole, lost = dynamodb.update_item, list[bool]()

    def update_item(**update: Any) -> Any:
        if not lost and statuses([update]) == [status]:
            lost.append(True)
            whole(**update)
            if wholly:
                raise ReadTimeoutError(endpoint_url="https://dynamodb")
        return whole(**update)

    processor.stack.monkeypatch.setattr(dynamodb, "update_item", update_item)


@pytest.fixture
def impatient(stack: Stack) -> None:
    """Waits before a final write is repeated take no time."""
    stack.closing_waits(*(0.0,) * 5)


@pytest.mark.parametrize(
    ("status", "wholly", "errors"),
    [
        ("PROCESSING", False, []),
        ("RETRYING", False, [TimeoutError()]),
        ("COMPLETED", False, []),
        ("COMPLETED", True, []),
    ],
)
def test_a_request_ends_once_although_the_answer_to_a_write_was_lost(
    processor: Processor, impatient: None, status: str, wholly: bool, errors: list[BaseException]
) -> None:
    """botocore repeats the write, and the refusal shows that the first one succeeded."""
    lose_answer(processor, status, wholly=wholly)
    row = processor.run(job=failing(*errors))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1 + len(errors))
    assert [message["seq"] for message in processor.terminal()] == [row["seq"]]


def test_a_second_message_does_not_take_a_request_of_this_invocation(processor: Processor) -> None:
    """The lease is the same, but the attempt is another."""
    row = request(status="PROCESSING", attempts=1, lease_owner=Context().aws_request_id)
    assert processor.run(row, job=failing(AssertionError("it ran"))) == row


@pytest.mark.parametrize("status", ["RETRYING", "PENDING"])
def test_a_requeue_without_answer_counts(processor: Processor, stack: Stack, status: str) -> None:
    stack.put("requests", request(lease_until=1))
    lose_answer(processor, status)
    assert processor.sweep() == {"requeued": 1}
    assert stack.request()["status"] == "PENDING"


def test_a_lost_answer_is_resolved_without_a_read(processor: Processor, stack: Stack) -> None:
    """The refusal returns the row."""
    for status in ("PROCESSING", "COMPLETED"):
        lose_answer(processor, status)
    calls = stack.calls(processor.module.dynamodb)
    processor.run()
    assert "GetItem" not in calls.counts()


def sets(*expected: str) -> Callable[[str], bool]:
    """Whether an update sets one of these statuses."""
    return lambda body: any(status in expected for status in statuses([json.loads(body)]))


CLOSING = sets("COMPLETED", "RETRYING", "FAILED")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("code", "http"),
    [("ProvisionedThroughputExceededException", 400), ("InternalServerError", 500)],
)
def test_a_result_is_written_after_failures_of_the_table(
    processor: Processor, stack: Stack, code: str, http: int
) -> None:
    """The job does not run twice."""
    runs: list[int] = []
    ends = sets("COMPLETED")
    stack.fail(processor.module.dynamodb, "UpdateItem", code, status=http, times=5, when=ends)
    row = processor.run(job=keeping(runs, lambda job: job.row["attempts"]))
    assert (row["status"], row["attempts"], runs) == ("COMPLETED", 1, [1])
    assert len(processor.terminal()) == 1


@pytest.mark.usefixtures("impatient")
def test_an_attempt_is_put_back_after_failed_writes(processor: Processor, stack: Stack) -> None:
    """The request goes on in this invocation."""
    failed = stack.fail(processor.module.dynamodb, "UpdateItem", times=5, when=sets("RETRYING"))
    row = processor.run(job=failing(TimeoutError()))
    assert (failed["UpdateItem"], row["status"], row["attempts"]) == (5, "COMPLETED", 2)


@pytest.mark.parametrize(
    ("waits", "seconds", "code", "writes"),
    [
        ([0.0] * 5, 300.0, "ThrottlingException", 6),
        ([150.0], 300.0, "ThrottlingException", 1),  # the lease has 120
        ([28.7], 30.0, "ThrottlingException", 1),
        ([0.0] * 5, 300.0, "AccessDeniedException", 1),
    ],
    ids=["all waits", "end of the lease", "end of the invocation", "permanent error"],
)
def test_repetitions_of_a_final_write_are_bounded(
    processor: Processor, stack: Stack, waits: list[float], seconds: float, code: str, writes: int
) -> None:
    """Then the message comes again, and the lease keeps other workers away until it ends."""
    stack.closing_waits(*waits)
    slept: list[float] = []
    stack.monkeypatch.setattr(processor.module.time, "sleep", slept.append)
    failed = stack.fail(processor.module.dynamodb, "UpdateItem", code, when=CLOSING)
    stack.put("requests", request())
    assert processor.deliver(message(request()), context=Context(seconds=seconds)) == ["m-1"]
    assert stack.request()["status"] == "PROCESSING"
    assert (failed["UpdateItem"], sum(slept)) == (2 * writes, 0)


def test_queued_echo_and_health_equal_the_immediate(processor: Processor, stack: Stack) -> None:
    stack.put("requests", request("req-2", "health", {}))
    processor.run(request("req-1", "echo", {"a": ["ü", 1.5]}))
    assert processor.deliver(message(request("req-2", "health", {}))) == []
    echo, health = (message["result"] for message in processor.terminal())
    assert (echo["echo"], echo["action"]) == ({"a": ["ü", 1.5]}, "echo")
    assert (health["status"], health["checks"]["queue"]["status"]) == ("healthy", "healthy")


@pytest.mark.parametrize("size", [2_000, 96_000])
def test_a_payload_that_lives_apart_is_read(processor: Processor, stack: Stack, size: int) -> None:
    """One read more, and only of such a job."""
    text = json.dumps({"text": "x" * size})

    def put(key: str, body: bytes) -> None:
        stack.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    key = (OWNER, "req-1")
    place = store_payload(stack.dynamodb, PREFIX + "requests", key, text, time.time(), put)
    row = {name: value for name, value in request(action="echo").items() if name != "payload"}
    ended = processor.run(row | place)
    assert json.loads(ended["result"])["echo"] == json.loads(text)


def test_a_job_whose_payload_has_expired_fails(processor: Processor) -> None:
    row = {name: value for name, value in request(action="echo").items() if name != "payload"}
    ended = processor.run(row | {"payload_item": "req-1/gone"})
    assert (ended["status"], ended["error"]["code"]) == ("FAILED", "PROCESSING_FAILED")


def test_an_echo_of_an_object_key_gets_no_link(processor: Processor) -> None:
    """It is the client's own text, in the row and in the message."""
    payload = {"key": "results/of-others.json", "url_key": "reports/theirs.csv"}
    row = processor.run(request(action="echo", payload=payload))
    (message,) = processor.terminal()
    assert message["result"]["echo"] == payload
    assert row["links"] == []


@pytest.mark.parametrize(("size", "on_the_row"), [(150_000, True), (390_000, False)])
def test_a_large_result_is_stored_in_the_bucket(
    processor: Processor, stack: Stack, size: int, on_the_row: bool
) -> None:
    """Above 96 KB the message is a link; the row holds a copy if it has room for one."""
    text = "ü" * (size // 2)
    row = processor.run(job=lambda job: {"text": text})
    (message,) = processor.terminal()
    assert json.loads(stack.object(row["result_key"])) == {"text": text}
    assert row["result_key"].startswith("results/requests/")
    assert ("result" in row) == on_the_row
    if not on_the_row:
        assert json.loads(stack.object(row["source_key"])) == {"text": text}
    assert list(message["result"]) == ["url"]
    assert row["result_key"].rpartition("/")[2] in message["result"]["url"]


def test_a_payload_that_leaves_no_room_for_its_result(processor: Processor, stack: Stack) -> None:
    """Payload and result together are more than an item holds, and the request ends."""
    payload = {"a": "x" * 250_000}
    row = processor.run(request(action="echo", payload=payload))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)
    assert json.loads(stack.object(row["source_key"]))["echo"] == payload


def test_attempts_do_not_share_objects(processor: Processor, stack: Stack) -> None:
    """A later attempt at a request stores its result under another key."""
    processor.action("delay", lambda job: {"text": "x" * 150_000})
    keys = {processor.run()["result_key"], processor.run()["result_key"]}
    assert len(keys) == 2
    assert set(stack.keys("results/requests/")) == keys


def test_an_endless_message_is_cut(processor: Processor) -> None:
    """A row has room for a progress message of 1,000 characters."""

    def run(job: Any) -> Any:
        job.report(50, "x" * 500_000)
        return {}

    assert len(processor.run(job=run)["progress"]["message"]) == 1000


def test_a_result_of_96_kb_is_sent_whole(processor: Processor) -> None:
    frame = len(json.dumps({"t": ""}))
    row = processor.run(job=lambda job: {"t": "x" * (MAX_MESSAGE_BYTES - frame)})
    assert "result_key" not in row
    assert len(processor.terminal()[0]["result"]["t"]) == MAX_MESSAGE_BYTES - frame


def test_ends_are_counted_and_timed(processor: Processor, output: Output) -> None:
    processor.run(job=failing(TimeoutError()))
    processor.run(request("req-2", action="reboot"))
    assert len(output.metric("RequestCompleted")) == 1
    assert len(output.metric("RequestRetried")) == 1
    assert [line["Cause"] for line in output.metric("RequestFailed")] == ["request"]
    assert all(line["QueueLatency"] >= -1 for line in output.metric("QueueLatency"))
    assert output.metric("ProcessingLatency")[0]["Action"] == "delay"


def test_an_unexpected_error_is_the_services_failure(processor: Processor, output: Output) -> None:
    processor.run(job=failing(KeyError("x")))
    assert [line["Cause"] for line in output.metric("RequestFailed")] == ["service"]


def broken(**changes: Any) -> Row:
    """A message with other parts; None leaves a part out."""
    found = message(request()) | changes
    return {name: part for name, part in found.items() if part is not None}


BROKEN: Row = {
    "nothing": {},
    "no message": None,
    "no body": broken(body=None),
    "a body that is not JSON": broken(body="run req-1"),
    "a body that is not an object": broken(body='["tenant-1#user-1", "req-1"]'),
    "an empty body": broken(body="{}"),
    "no owner key": broken(body='{"owner": "unknown", "request_id": "req-1"}'),
    "owner no text": broken(body='{"owner": 5, "request_id": "req-1"}'),
    "half a character": broken(body='{"owner": "a#\\ud800", "request_id": "req-1"}'),
    "request_id empty": broken(body='{"owner": "tenant-1#user-1", "request_id": ""}'),
    "request_id no text": broken(body='{"owner": "tenant-1#user-1", "request_id": {}}'),
    "nested without end": broken(body="[" * 100_000),
    "no message id": broken(messageId=None),
    "a malformed message id": broken(messageId={"id": "m-1"}),
    "an empty message id": broken(messageId=""),
    "no receipt": broken(receiptHandle=None),
    "no count of receives": broken(attributes={}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_unreadable_message_goes_to_the_failure_queue(
    processor: Processor, stack: Stack, output: Output, fault: str
) -> None:
    """It does not come again, and the rest of the batch is worked on."""
    first, second = queued(stack, 2)
    assert processor.deliver(first, BROKEN[fault], second) == []
    assert {row["status"] for row in stack.items("requests")} == {"COMPLETED"}
    (kept,) = stack.messages("requests-failed")
    assert kept["record"] == BROKEN[fault]
    assert output.metric("RecordRefused")


def test_an_unreadable_message_of_any_size_is_kept(processor: Processor, stack: Stack) -> None:
    """What is too long for the failure queue is cut."""
    assert processor.deliver(broken(body="x" * 400_000)) == []
    url = stack.sqs.get_queue_url(QueueName=f"{PREFIX}requests-failed")["QueueUrl"]
    (kept,) = stack.sqs.receive_message(QueueUrl=url)["Messages"]
    assert len(kept["Body"]) == 250_000


def test_an_unreadable_message_is_not_lost(processor: Processor, stack: Stack) -> None:
    """If the failure queue can't be reached, the queue keeps the whole batch."""
    stack.fail(processor.module.sqs(), "SendMessage", "AccessDenied", status=403)
    with pytest.raises(ClientError):
        processor.deliver(broken(body="{}"))


def test_a_batch_of_nothing_is_done(processor: Processor) -> None:
    assert processor.deliver() == []


def test_messages_that_fail_are_named(processor: Processor, stack: Stack) -> None:
    """Only they come again; the others are done."""
    messages, names = queued(stack, 5), ["req-1", "req-3"]
    stack.fail(processor.module.dynamodb, "UpdateItem", when=about(*names))
    assert processor.deliver(*messages) == names
    done = {row["request_id"] for row in stack.items("requests") if row["status"] == "COMPLETED"}
    assert done == {"req-0", "req-2", "req-4"}


def test_messages_are_not_taken_when_time_is_short(processor: Processor, stack: Stack) -> None:
    batch = queued(stack, 2)
    before = stack.everything()
    assert processor.deliver(*batch, context=Context(seconds=15)) == ["req-0", "req-1"]
    assert stack.everything() == before


@pytest.mark.parametrize(("receives", "longest"), [(1, 1), (2, 2), (4, 8), (9, 30), (10**9, 30)])
def test_a_message_is_given_back_for_a_while(
    processor: Processor, stack: Stack, receives: int, longest: int
) -> None:
    """It is hidden for a random time that grows with the number of its receives."""
    processor.set(BACKOFF_BASE_SECONDS=1.0)
    stack.monkeypatch.setattr(processor.module.random, "uniform", lambda low, high: high)
    calls = stack.calls(processor.module.sqs())
    given = message(request(), receives=receives)
    assert processor.deliver(given, context=Context(seconds=15)) == ["m-1"]
    (call,) = calls.of("ChangeMessageVisibility")
    assert call["QueueUrl"].endswith("-jobs")
    assert (call["ReceiptHandle"], call["VisibilityTimeout"]) == ("receipt-m-1", longest)


def test_a_message_that_is_given_back_can_be_received(processor: Processor, stack: Stack) -> None:
    """The queue shows it again, as its own receipt says."""
    url = stack.sqs.get_queue_url(QueueName=f"{PREFIX}jobs")["QueueUrl"]
    stack.sqs.send_message(QueueUrl=url, MessageBody=message(request())["body"])
    (received,) = stack.sqs.receive_message(QueueUrl=url)["Messages"]
    given = message(request(), received["MessageId"]) | {"receiptHandle": received["ReceiptHandle"]}
    assert "Messages" not in stack.sqs.receive_message(QueueUrl=url)
    assert processor.deliver(given, context=Context(seconds=15)) == [received["MessageId"]]
    (again,) = stack.sqs.receive_message(QueueUrl=url)["Messages"]
    assert again["MessageId"] == received["MessageId"]


def test_a_message_not_given_back_stays(processor: Processor, stack: Stack, output: Output) -> None:
    """The queue shows it after its own timeout; the answer is the same."""
    stack.fail(processor.module.sqs(), "ChangeMessageVisibility", "ServiceUnavailable", status=503)
    assert processor.deliver(message(request()), context=Context(seconds=15)) == ["m-1"]
    assert output.logged("message not given back")


def test_lines_about_a_job_name_its_action(processor: Processor, output: Output) -> None:
    """The message does not say it, so it is read from the row."""
    processor.run()
    (line,) = output.logged("request ended")
    ids = ("request_id", "tenant_id", "user_id", "action")
    assert [line[name] for name in ids] == ["req-1", "tenant-1", "user-1", "delay"]


def test_missing_configuration_fails_at_start(stack: Stack) -> None:
    for name in ("DYNAMODB_TABLE", "FILES_BUCKET", "JOBS_QUEUE_URL", "WEBHOOKS_QUEUE_URL",
                 "FAILURES_QUEUE_URL", "WEBSOCKET_ENDPOINT"):  # fmt: skip
        with pytest.raises(KeyError, match=name):
            stack.function("processor", **{name: None})


class Poller:
    """Lambda's poller of the queue, after AWS's documentation.

    What the function does not name as failed is deleted. What it names comes again, until it has
    been received as often as the queue allows. When an invocation fails, its messages stay hidden.
    """

    def __init__(self, handler: Callable[[Any, Any], Any], receives: int = 10) -> None:
        self.handler = handler
        self.receives = receives
        self.dead: list[str] = []
        self.hidden: list[str] = []
        self.invocations = 0

    def read(self, messages: list[Row]) -> None:
        waiting = [(found, 1) for found in messages]
        while waiting:
            batch, waiting = waiting[:4], waiting[4:]
            kept = self._kept([found for found, _ in batch])
            again = [(found, receives) for found, receives in batch if found["messageId"] in kept]
            self.dead += [f["messageId"] for f, receives in again if receives == self.receives]
            waiting += [(f, receives + 1) for f, receives in again if receives < self.receives]

    def _kept(self, batch: list[Row]) -> set[str]:
        self.invocations += 1
        context = Context(aws_request_id=f"invocation-{self.invocations}")
        try:
            answer = self.handler({"Records": batch}, context)
        except Exception:
            self.hidden += [found["messageId"] for found in batch]
            return set()
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}


@pytest.fixture
def runs(processor: Processor) -> list[str]:
    """Request ids in the order in which their jobs ran."""
    ran: list[str] = []
    processor.action("delay", keeping(ran, lambda job: job.request_id))
    return ran


def queued(stack: Stack, count: int = 10) -> list[Row]:
    """So many stored requests, and their messages."""
    rows = [request(f"req-{number}") for number in range(count)]
    stack.put("requests", *rows)
    return [message(row, row["request_id"]) for row in rows]


def about(*names: str) -> Callable[[str], bool]:
    """Whether a call's body has one of these ids."""
    return lambda body: any(f'"{name}"' in body for name in names)


def told(processor: Processor) -> Counter[str]:
    """Terminal messages per request."""
    return Counter(heard["request_id"] for heard in processor.terminal())


@pytest.mark.parametrize("stumbling", [{0}, {9}, {4}, {0, 9}, {1, 5, 8}, set(range(10))])
def test_redelivery_loses_and_doubles_nothing(
    processor: Processor, stack: Stack, runs: list[str], stumbling: set[int]
) -> None:
    """Each request runs once, although some messages fail at first and all are delivered twice."""
    messages = queued(stack)
    for number in stumbling:
        name = about(f"req-{number}")
        stack.fail(processor.module.dynamodb, "UpdateItem", times=2, when=name)
    poller = Poller(processor.module.handler)
    poller.read(messages * 2)
    everyone = {f"req-{number}" for number in range(10)}
    assert sorted(runs) == sorted(everyone)
    assert told(processor) == dict.fromkeys(everyone, 1)
    assert {row["status"] for row in stack.items("requests")} == {"COMPLETED"}
    assert poller.dead == []


@pytest.mark.parametrize(
    "given",
    [
        None, [], "sweep", {}, {"Records": None}, {"Records": "aws:sqs"}, {"Records": {}},
        {"Records": [{"eventSource": "aws:dynamodb", "eventName": "INSERT"}]},
    ],
)  # fmt: skip
def test_an_event_is_a_batch_or_a_sweep(processor: Processor, given: Any) -> None:
    """Anything else is a ValidationError, and no message goes to the failure queue."""
    with pytest.raises(ValidationError):
        processor.module.handler(given, Context())
    assert processor.stack.messages("requests-failed") == []


def test_one_bad_message_costs_nothing(processor: Processor, stack: Stack, runs: list[str]) -> None:
    """It is in the failure queue once, and no message is delivered twice for it."""
    messages = queued(stack, 7)
    messages.insert(3, broken(body="{}"))
    poller = Poller(processor.module.handler)
    poller.read(messages)
    assert poller.invocations == 2
    assert len(runs) == 7
    assert len(stack.messages("requests-failed")) == 1


def test_the_sweeper_runs_dead_letters(processor: Processor, stack: Stack, runs: list[str]) -> None:
    """A message that becomes a dead letter leaves its request PENDING, and it is run later."""
    messages = queued(stack)
    name = about("req-4")
    throttled = stack.fail(processor.module.dynamodb, "UpdateItem", times=50, when=name)
    poller = Poller(processor.module.handler)
    poller.read(messages)
    assert poller.dead == ["req-4"]
    assert len(runs) == 9
    left = stack.request("req-4")
    assert left["status"] == "PENDING"
    throttled["UpdateItem"] = 50
    stack.put("requests", left | {"lease_until": int(time.time()) - 1})
    assert processor.sweep() == {"requeued": 1}
    poller.read([message(stack.request("req-4"), "again")])
    assert sorted(runs) == sorted(f"req-{number}" for number in range(10))
    assert set(told(processor).values()) == {1}


def test_the_sweeper_finds_lost_jobs(processor: Processor, stack: Stack, runs: list[str]) -> None:
    """The process is gone in the middle of a job: no redelivery runs it while its lease lasts."""
    messages = queued(stack, 4)
    died: list[str] = []

    def run(job: Any) -> Any:
        if job.request_id == "req-2" and not died:
            died.append(job.request_id)
            raise SystemExit
        runs.append(job.request_id)
        return {}

    processor.action("delay", run)
    poller = Poller(dying(processor.module.handler))
    poller.read(messages)
    assert poller.hidden == [found["messageId"] for found in messages]
    poller.read(messages)
    assert "req-2" not in runs
    held = stack.request("req-2")
    assert (held["status"], poller.dead) == ("PROCESSING", [])

    stack.put("requests", held | {"lease_until": int(time.time()) - 1})
    assert processor.sweep() == {"requeued": 1}
    poller.read([message(stack.request("req-2"), "again")])
    assert sorted(runs) == ["req-0", "req-1", "req-2", "req-3"]
    assert told(processor) == dict.fromkeys(runs, 1)


def dying(handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The handler in a process whose end the poller sees as a failed invocation."""

    def invoke(event: Any, context: Any) -> Any:
        try:
            return handler(event, context)
        except SystemExit as end:
            raise RuntimeError("Runtime exited") from end

    return invoke


def test_the_sweeper_leaves_live_leases_and_ends_alone(processor: Processor, stack: Stack) -> None:
    running = request("req-2", status="PROCESSING", attempts=1, lease_owner="x")
    waiting = request("req-3", status="RETRYING", attempts=1)
    stack.put("requests", request("req-1"), running, waiting, ended("req-4"))
    before = stack.everything()
    assert processor.sweep() == {}
    assert stack.everything() == before


@pytest.mark.parametrize(
    "row",
    [
        request(lease_until=1),
        request(lease_until=1, status="RETRYING", attempts=1),
        request(lease_until=1, status="RETRYING", attempts=1, lease_owner="gone"),
        request(lease_until=1, status="PROCESSING", attempts=3, lease_owner="gone"),
    ],
    ids=["never picked up", "due", "its worker is gone", "expired lease"],
)
def test_the_sweeper_requeues_an_overdue_request(
    processor: Processor, stack: Stack, output: Output, row: Row
) -> None:
    """RETRYING, then PENDING, which passes the stream's filter."""
    stack.put("requests", row)
    calls = stack.calls(processor.module.dynamodb)
    assert processor.sweep() == {"requeued": 1}
    after = stack.request()
    assert (after["status"], after["attempts"]) == ("PENDING", row["attempts"])
    assert "lease_owner" not in after
    assert time.time() + 290 < after["lease_until"] <= time.time() + 301
    assert statuses(calls.of("UpdateItem")) == ["RETRYING", "PENDING"]
    assert output.metric("RequestRequeued")
    assert processor.sweep() == {}
    assert stack.sockets.posts == []


@pytest.mark.parametrize("lane", [None, "tenant#tenant-1"])
def test_a_request_that_is_due_is_started(
    processor: Processor, stack: Stack, output: Output, lane: str | None
) -> None:
    """By the sweep or by a message, not before; one with a lane goes to dispatch first."""
    row = request(status="SCHEDULED", lane=lane, lane_limit=lane and 1, run_at=iso(time.time()))
    due = row | {"lease_until": int(time.time())}
    found = message(row, due=True) if lane else message(row)
    stack.put("requests", row)
    assert processor.sweep() == {}
    assert processor.deliver(found) == []
    assert stack.request() == row
    stack.put("requests", due)
    assert processor.deliver(found, found) == []
    assert stack.request()["status"] == ("PENDING" if lane else "COMPLETED")
    stack.put("requests", due)
    assert processor.sweep() == {"requeued": 1}
    assert stack.request()["status"] == "PENDING"
    if not lane:
        (waited,) = output.metric("QueueLatency")
        assert waited["QueueLatency"] < 60_000


@pytest.mark.parametrize("status", ["PROCESSING", "PENDING", "RETRYING"])
def test_the_sweeper_fails_a_spent_request(processor: Processor, stack: Stack, status: str) -> None:
    """With TIMEOUT; the client gets one message."""
    owner = "gone" if status == "PROCESSING" else None
    progress = {"seq": 6, "percentage": 60}
    row = request(status=status, attempts=4, lease_until=1, lease_owner=owner)
    stack.put("requests", row | {"progress": progress})
    assert processor.sweep() == {"failed": 1}
    after = stack.request()
    assert (after["status"], after["error"]["code"]) == ("FAILED", "TIMEOUT")
    assert after["attempts"] == after["max_attempts"] == 4
    assert not {"lease_shard", "lease_until", "lease_owner"} & after.keys()
    (message,) = processor.terminal()
    assert message["seq"] == after["seq"] == 7
    assert processor.sweep() == {}
    assert len(processor.sockets.posts) == 1


def test_the_sweeper_cancels_a_spent_cancelled_request(processor: Processor, stack: Stack) -> None:
    row = request(lease_until=1, status="PROCESSING", attempts=4, cancel_requested=True)
    stack.put("requests", row)
    assert processor.sweep() == {"failed": 1}
    after = stack.request()
    assert (after["status"], after["error"]["code"]) == ("CANCELLED", "CANCELLED")


def test_the_sweeper_keeps_the_trace(processor: Processor, stack: Stack, output: Output) -> None:
    header = "Root=1-6921a0c2-3f1d2c4b5a69788796a5b4c3;Parent=53995c3f42cd8ad8;Sampled=0"
    row = request(lease_until=1, status="PROCESSING", attempts=4, lease_owner="gone")
    stack.put("requests", row | {"trace_header": header})
    processor.sweep()
    (line,) = output.logged("request ended")
    assert line["xray_trace_id"] == "1-6921a0c2-3f1d2c4b5a69788796a5b4c3"


def test_the_sweeper_fails_the_assembly_of_a_request(processor: Processor, stack: Stack) -> None:
    work = {"action": "process_assembly", "assembly_id": "a" * 64}
    stack.put("requests", request(lease_until=1, status="PROCESSING", attempts=4, **work))
    stack.put(
        "assemblies",
        {
            "assembly_id": "a" * 64, "owner": OWNER, "user_id": "user-1", "tenant_id": "tenant-1",
            "created_at": "2026-11-22T10:00:00.000Z", "template_id": "tpl_archive",
            "request_id": "req-1", "execution": 1, "rev": 3, "lease_until": 1,
            "current_step": "hashed", "message": "Processing: hashed",
            "ttl": int(time.time()) + 1000,
        },
    )  # fmt: skip
    assert processor.sweep() == {"failed": 1}
    document = stack.get("assemblies", assembly_id="a" * 64)
    assert (document["error"], document["rev"]) == ("TIMEOUT", 4)
    assert not {"lease_until", "current_step", "ok"} & document.keys()
    assert [m["assembly_id"] for m in stack.messages("webhooks")] == ["a" * 64]


def test_the_sweeper_reads_every_shard_of_the_index(processor: Processor, stack: Stack) -> None:
    rows = [request(f"req-{number}", lease_until=1) for number in range(40)]
    assert len({row["lease_shard"] for row in rows}) == 4
    stack.put("requests", *rows)
    assert processor.sweep() == {"requeued": 40}


def test_a_sweep_out_of_time_returns_the_count_so_far(processor: Processor, stack: Stack) -> None:
    stack.put("requests", request(lease_until=1))
    assert processor.sweep(Context(seconds=10)) == {}
    assert processor.sweep() == {"requeued": 1}


def test_the_sweeper_leaves_a_request_that_has_changed(processor: Processor, stack: Stack) -> None:
    """It reads the row consistently."""
    final = ended()
    stack.put("requests", final)
    invocation = processor.module.Invocation.of(Context())
    assert processor.module.sweep_one(OWNER, "req-1", invocation) == "moved"
    assert processor.module.sweep_one(OWNER, "req-0", invocation) == "moved"
    assert stack.request() == final


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_lease_renewed_in_time_is_left(processor: Processor, stack: Stack, attempts: int) -> None:
    row = of_another(attempts)
    stack.put("requests", row)
    invocation = processor.module.Invocation.of(Context())
    assert processor.module.sweep_one(OWNER, "req-1", invocation) == "moved"
    assert stack.request() == row


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_lease_renewed_late_is_left(processor: Processor, stack: Stack, attempts: int) -> None:
    """A slow worker that renews late keeps its request and its attempt."""
    renewed = of_another(attempts)
    stack.put("requests", renewed | {"lease_until": 1})
    dynamodb = processor.module.dynamodb
    get_item = dynamodb.get_item

    def then_renewed(**arguments: Any) -> Any:
        found = get_item(**arguments)
        stack.put("requests", renewed)
        return found

    stack.monkeypatch.setattr(dynamodb, "get_item", then_renewed)
    assert processor.sweep() == {"moved": 1}
    assert stack.request() == renewed
    assert stack.sockets.posts == []


def test_a_malformed_row_stops_no_sweep(processor: Processor, stack: Stack, output: Output) -> None:
    whole = [request(f"req-{number}", lease_until=1) for number in range(8)]
    broken = request("req-bad", lease_until=1, status="PROCESSING", attempts=None)
    stack.put("requests", broken, *whole)
    assert processor.sweep() == {"requeued": 8, "stuck": 1}
    assert output.logged("overdue request not dealt with")[0]["request_id"] == "req-bad"


def in_shard(number: int) -> Row:
    """An overdue request of one shard of the in-flight index."""
    rows = (request(f"req-{n}", lease_until=1) for n in range(1000))
    return next(row for row in rows if row["lease_shard"] == f"lease-{number}")


@pytest.mark.parametrize("shard", range(4))
def test_an_unreadable_shard_does_not_stop_the_sweep(
    processor: Processor, stack: Stack, output: Output, shard: int
) -> None:
    """Answer, metric and log report it."""
    stack.put("requests", *map(in_shard, range(4)))
    stack.fail(processor.module.dynamodb, "Query", when=about(f"lease-{shard}"))
    assert processor.sweep() == {"requeued": 3, "unread": 1}
    assert output.metric("SweepFailed")
    assert output.logged("shard not swept")[0]["shard"] == f"lease-{shard}"


def test_the_pages_read_before_a_failure_are_swept(processor: Processor, stack: Stack) -> None:
    rows = [request(f"req-{number}", lease_until=1) for number in range(40)]
    stack.put("requests", *rows)
    whole = processor.module.dynamodb.query

    def pages_of_one(**query: Any) -> Any:
        if "ExclusiveStartKey" in query:
            raise client_error("InternalServerError", 500)
        return whole(**query, Limit=1)

    stack.monkeypatch.setattr(processor.module.dynamodb, "query", pages_of_one)
    assert processor.sweep() == {"requeued": 4, "unread": 4}


def test_a_sweep_of_no_shard_fails(processor: Processor, stack: Stack, output: Output) -> None:
    """Lambda repeats it, and the Errors alarm counts it."""
    stack.put("requests", request(lease_until=1))
    stack.fail(processor.module.dynamodb, "Query")
    with pytest.raises(processor.module.dynamodb.exceptions.ClientError):
        processor.sweep()
    assert len(output.logged("shard not swept")) == processor.module.IN_FLIGHT_PARTITIONS == 8
    assert stack.request()["status"] == "PENDING"


DAYS = ("2026-10-31", "2026-11-01", "2026-11-15", "2026-11-30", "2026-12-01")


@pytest.fixture
def history(stack: Stack) -> None:
    """On each of five days a completed delay and a failed echo; two assemblies; two tenants."""
    for tenant in ("tenant-1", "tenant-2"):
        for day in DAYS:
            first, last = f"{day}T00:00:00.000Z", f"{day}T23:59:59.999Z"
            shard = tenant_shard(tenant, day, 4)
            own: Row = {"owner": owner_key(tenant, "user-5"), "tenant_id": shard}
            failed = ended(f"failed-{day}", "FAILED", action="echo", created_at=last, **own)
            stack.put("requests", ended(f"done-{day}", created_at=first, **own), failed)
        noon = {"tenant_id": tenant, "user_id": "user-5", "created_at": "2026-11-15T12:00:00.000Z"}
        completed = {"ok": "ASSEMBLY_COMPLETED", "bytes_usage": 70}
        stack.put("assemblies", noon | completed | {"assembly_id": f"{tenant}-0"})
        stack.put("assemblies", noon | {"error": "MD5_MISMATCH", "assembly_id": f"{tenant}-1"})


def report(processor: Processor, **changes: Any) -> tuple[Row, bytes]:
    """The result of a report over November, and its object."""
    november = {"start_date": "2026-11-01", "end_date": "2026-11-30"}
    payload = november | {"format": "json", "group_by": "day"} | changes
    later = "2027-01-01T00:00:00.000Z"
    row = processor.run(request(action="generate_report", payload=payload, created_at=later))
    assert row["status"] == "COMPLETED", row
    result = json.loads(row["result"])
    return result, processor.stack.object(result["url_key"])


def test_a_report_includes_its_first_and_last_day(processor: Processor, history: None) -> None:
    _, body = report(processor)
    content = json.loads(body)
    rows = {row["day"]: row for row in content["rows"]}
    assert list(rows) == ["2026-11-01", "2026-11-15", "2026-11-30"]
    assert rows["2026-11-01"] == {
        "day": "2026-11-01", "requests": 2, "requests_completed": 1, "requests_failed": 1,
        "requests_cancelled": 0, "requests_open": 0, "assemblies": 0,
        "assemblies_completed": 0, "assemblies_failed": 0, "bytes_usage": 0,
    }  # fmt: skip
    assert rows["2026-11-15"]["assemblies"] == 2
    assert rows["2026-11-15"]["bytes_usage"] == 70
    assert content["start_date"] == "2026-11-01"


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("action", {"delay": 3, "echo": 3, "process_assembly": 0}),
        ("status", {"COMPLETED": 3, "FAILED": 3, "ASSEMBLY_COMPLETED": 0, "MD5_MISMATCH": 0}),
    ],
)
def test_a_report_groups_by_action_and_status(
    processor: Processor, history: None, group_by: str, expected: dict[str, int]
) -> None:
    _, body = report(processor, group_by=group_by)
    rows = json.loads(body)["rows"]
    assert {row[group_by]: row["requests"] for row in rows} == expected
    assert sum(row["assemblies"] for row in rows) == 2


def test_a_csv_report_has_a_header_and_groups(processor: Processor, history: None) -> None:
    result, body = report(processor, format="csv", group_by="action")
    lines = body.decode().splitlines()
    assert lines[0].startswith("action,requests,requests_completed")
    assert lines[1].startswith("delay,3,3,0")
    assert (result["format"], result["rows"], len(lines)) == ("csv", 3, 4)


def test_the_result_of_a_report_has_size_hash_and_link(processor: Processor, history: None) -> None:
    """A link instead of the key."""
    result, body = report(processor)
    (message,) = processor.terminal()
    assert (result["size"], result["sha256"]) == (len(body), sha256(body).hexdigest())
    assert "X-Amz-Signature" in message["result"]["url"]
    assert "url_key" not in message["result"]
    assert result["url_key"].startswith("reports/")


def test_a_report_of_an_empty_range_has_no_rows(processor: Processor) -> None:
    result, body = report(processor, start_date="2020-01-01", end_date="2020-01-01")
    assert (result["rows"], json.loads(body)["rows"]) == (0, [])


def test_waiting_and_running_count_as_open_in_a_report(processor: Processor, stack: Stack) -> None:
    day = "2026-11-05T10:00:00.000Z"
    states = ("PENDING", "PROCESSING", "RETRYING")
    stack.put("requests", *(request(f"req-{s}", status=s, created_at=day) for s in states))
    stack.put("requests", ended("req-c", "CANCELLED", created_at=day))
    _, body = report(processor)
    (row,) = json.loads(body)["rows"]
    assert (row["requests"], row["requests_open"], row["requests_cancelled"]) == (4, 3, 1)


def test_a_report_reads_every_page(processor: Processor, stack: Stack) -> None:
    day = "2026-11-05T10:00:00.000Z"
    stack.put("requests", *(ended(f"req-{number}", created_at=day) for number in range(2, 25)))
    whole = processor.module.dynamodb.query
    stack.monkeypatch.setattr(processor.module.dynamodb, "query", lambda **q: whole(**q, Limit=5))
    _, body = report(processor)
    assert json.loads(body)["rows"][0]["requests"] == 23


def test_the_shipped_templates_are_valid(processor: Processor) -> None:
    """Each webhook secret is a reference."""
    found = processor.module.templates()
    assert {"tpl_fingerprint", "tpl_archive", "tpl_records", "tpl_table"} <= set(found)
    secrets = [each.webhook_secret for each in found.values() if each.webhook_secret]
    assert all(secret.startswith("ssm:") for secret in secrets)
    assert Path(processor.module.TEMPLATES_INDEX_PATH).is_absolute()
    assert BUCKET in processor.module.FILES_BUCKET
    assert processor.module.REQUESTS == f"{PREFIX}requests"
