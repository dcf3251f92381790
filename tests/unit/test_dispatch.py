"""dispatch: one message for each request that became PENDING, whatever SQS does."""

import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from jobplane_keys import ValidationError, owner_key, to_item
from tests.unit.stack import (
    OWNER,
    PREFIX,
    Context,
    Output,
    Row,
    Stack,
    client_error,
    event,
    request,
)

TRACE = "Root=1-6560f3a2-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"


class Dispatch:
    """The function, its stream, and the two queues that it writes to."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.module: ModuleType = stack.function("dispatch")
        self.calls = stack.calls(self.module.sqs)

    def deliver(self, *records: Any) -> list[str]:
        """Hand records to the function; the sequence numbers that it wants again."""
        answer = self.module.handler({"Records": list(records)}, Context())
        assert answer.keys() == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def entries(self) -> list[Row]:
        """The entries of all SendMessageBatch calls, in order."""
        return [entry for call in self.calls.of("SendMessageBatch") for entry in call["Entries"]]

    def queued(self) -> list[str]:
        """The ids of the requests that the queue holds, taken out of it."""
        return [body["request_id"] for body in self.stack.messages("jobs")]

    def answering(self, answer: Callable[[list[Row]], Row]) -> None:
        """What SQS answers to a batch, in place of moto; an exception is raised."""
        stand_in = SimpleNamespace(send_message_batch=lambda **call: answer(call["Entries"]))
        self.stack.monkeypatch.setattr(self.module, "sqs", stand_in)


@pytest.fixture
def dispatch(stack: Stack) -> Dispatch:
    return Dispatch(stack)


def record(row: Row, sequence: str = "100") -> Row:
    """The stream record of a row that became PENDING."""
    found: Row = event("dispatch", "queued")["Records"][0]
    found["dynamodb"] |= {"NewImage": to_item(row), "SequenceNumber": sequence}
    found["dynamodb"]["Keys"] = to_item({name: row[name] for name in ("owner", "request_id")})
    return found


def records(count: int) -> list[Row]:
    """Records of so many requests, `req-0` with the sequence number 1000 first."""
    return [record(request(f"req-{n}"), str(1000 + n)) for n in range(count)]


def ok(entries: list[Row]) -> Row:
    return {"Successful": [{"Id": entry["Id"]} for entry in entries]}


def test_a_record_becomes_a_message(dispatch: Dispatch) -> None:
    """The message names the request, and its group is the tenant."""
    assert dispatch.deliver(record(request())) == []
    (entry,) = dispatch.entries()
    assert json.loads(entry["MessageBody"]) == {"owner": OWNER, "request_id": "req-1"}
    assert entry["MessageGroupId"] == "tenant-1"
    (call,) = dispatch.calls.of("SendMessageBatch")
    assert call["QueueUrl"].endswith(f"/{PREFIX}jobs")
    assert dispatch.stack.messages("jobs") == [{"owner": OWNER, "request_id": "req-1"}]


def test_the_trace_goes_on_with_the_message(dispatch: Dispatch) -> None:
    """The message has the trace header of the request's row, if that is a text."""
    rows = [request("req-1", trace_header=TRACE), request("req-2"), request("req-3")]
    rows[2]["trace_header"] = 5
    dispatch.deliver(*map(record, rows))
    sent = {"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}}
    found = [entry.get("MessageSystemAttributes") for entry in dispatch.entries()]
    assert found == [sent, None, None]


@pytest.mark.parametrize("lane", [None, "tenant#tenant-1"])
def test_a_message_is_delayed_until_its_request_is_due(
    dispatch: Dispatch, lane: str | None
) -> None:
    """One that is due later than SQS can delay is left to the sweep. With a lane, no slot is taken:
    the message says that the request is to be put into the stream again.
    """
    now = 1_800_000_000
    clock = SimpleNamespace(time=lambda: now + 0.25)
    dispatch.stack.monkeypatch.setattr(dispatch.module, "time", clock)
    dues = [now - 9, now + 60, now + 890, now + 910]
    more: Row = {"status": "SCHEDULED", "lane": lane, "lane_limit": lane and 1}
    rows = [request(f"req-{n}", lease_until=due, **more) for n, due in enumerate(dues)]
    assert dispatch.deliver(*map(record, rows)) == []
    assert [entry.get("DelaySeconds", 0) for entry in dispatch.entries()] == [0, 60, 890]
    bodies = [json.loads(entry["MessageBody"]) for entry in dispatch.entries()]
    assert [body.get("due", False) for body in bodies] == [lane is not None] * 3
    assert dispatch.stack.items("lanes") == []


class Flow:
    """Step Functions and Lambda, as dispatch calls them."""

    def __init__(self, dispatch: Dispatch, fault: str | None = None) -> None:
        self.started: list[Row] = []
        self.invoked: list[Row] = []
        self.fault = fault
        kinds = ("StateMachineDoesNotExist", "ExecutionAlreadyExists")
        self.exceptions = SimpleNamespace(**{k: type(k, (ClientError,), {}) for k in kinds})
        client = dispatch.module.client
        dispatch.stack.monkeypatch.setattr(
            dispatch.module,
            "client",
            lambda name: self if name in {"stepfunctions", "lambda"} else client(name),
        )

    def start_execution(self, **call: Any) -> None:
        self.started.append(call)
        if self.fault:
            kind = getattr(self.exceptions, self.fault, ClientError)
            raise kind({"Error": {"Code": self.fault}}, "StartExecution")

    def invoke(self, **call: Any) -> None:
        self.invoked.append(call)


PAYLOAD = {"project": "amelia", "thread": "t-1", "instruction": "go", "attachments": []}


def instructed(dispatch: Dispatch, **changes: Any) -> Row:
    row = request("req-1", "instruct", PAYLOAD, execution="name-1", **changes)
    dispatch.stack.put("requests", row)
    return record(row)


def test_an_instruction_starts_its_execution(dispatch: Dispatch) -> None:
    """The input is the same each time, so that a repetition is the same execution."""
    flow, record_ = Flow(dispatch), instructed(dispatch, trace_header=TRACE)
    assert dispatch.deliver(record_) == dispatch.deliver(record_) == []
    first, second = flow.started
    assert first == second
    assert (first["name"], first["traceHeader"]) == ("name-1", TRACE)
    assert json.loads(first["input"]) == {
        "request": {"owner": OWNER, "requestId": "req-1"},
        "projectId": "tenant-1+amelia",
        "userId": "user-1",
        "threadId": "t-1",
        "messageId": "req-1",
        "instruction": "go",
        "attachments": [],
    }
    assert dispatch.queued() == []


def test_an_execution_that_exists_is_looked_at(dispatch: Dispatch) -> None:
    """It may have ended, and the event of its end be lost."""
    flow = Flow(dispatch, "ExecutionAlreadyExists")
    assert dispatch.deliver(instructed(dispatch)) == []
    (call,) = flow.invoked
    assert (call["FunctionName"], call["InvocationType"]) == (PREFIX + "report-job", "Event")
    event_ = json.loads(call["Payload"])
    assert event_["operation"] == "settle"
    assert event_["executionArn"].endswith(f":execution:{PREFIX}job-flow:name-1")


def test_an_execution_that_can_not_be_started_comes_again(dispatch: Dispatch) -> None:
    Flow(dispatch, "ServiceUnavailable")
    other = record(request("req-2"), "101")
    assert dispatch.deliver(instructed(dispatch), other) == ["100"]
    assert dispatch.queued() == ["req-2"]


def test_without_a_job_flow_the_worker_ends_an_instruction(dispatch: Dispatch) -> None:
    """As it ends every action that it does not know."""
    Flow(dispatch, "StateMachineDoesNotExist")
    assert dispatch.deliver(instructed(dispatch)) == []
    assert dispatch.queued() == ["req-1"]


@pytest.mark.parametrize("status", ["CANCELLED", "SCHEDULED"])
def test_no_execution_is_started_before_or_after_its_time(dispatch: Dispatch, status: str) -> None:
    flow, pending = Flow(dispatch), instructed(dispatch)
    changed = instructed(dispatch, status=status)
    assert dispatch.deliver(pending, changed) == []
    assert flow.started == []


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (10, [10]), (25, [10, 10, 5])])
def test_ten_messages_in_a_call(dispatch: Dispatch, count: int, sizes: list[int]) -> None:
    """SQS takes no more; all are sent, in the order of the records, under distinct ids."""
    assert dispatch.deliver(*records(count)) == []
    calls = dispatch.calls.of("SendMessageBatch")
    assert [len(call["Entries"]) for call in calls] == sizes
    assert all(len({entry["Id"] for entry in call["Entries"]}) == size
               for call, size in zip(calls, sizes, strict=True))  # fmt: skip
    assert dispatch.queued() == [f"req-{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("tenant", "allowed"),
    [("acme", True), ("a#b%c", True), ("x" * 128, True), ("x" * 129, False),
     ("Café Ångström", False), ("two words", False)],
)  # fmt: skip
def test_the_group_is_one_that_sqs_allows(dispatch: Dispatch, tenant: str, allowed: bool) -> None:
    """A tenant whose id is not allowed as a group has a digest of it, always the same."""
    row = request(owner=owner_key(tenant, "ann"))
    dispatch.deliver(record(row), record(row))
    (found,) = {entry["MessageGroupId"] for entry in dispatch.entries()}
    assert found == tenant if allowed else len(found) == 64 and found.isalnum()


def test_nothing_of_a_row_but_its_key_is_needed(dispatch: Dispatch) -> None:
    """Attributes of other versions, or of unknown types, don't matter."""
    found = record(request())
    found["dynamodb"]["NewImage"] |= {"payload": {"X": 1}, "status": {}}
    assert dispatch.deliver(found) == []
    assert dispatch.queued() == ["req-1"]


def test_a_repeated_delivery_sends_again(dispatch: Dispatch) -> None:
    """The stream may deliver a record twice; the lease makes the second message harmless."""
    assert dispatch.deliver(*records(2)) == dispatch.deliver(*records(2)) == []
    assert sorted(dispatch.queued()) == ["req-0", "req-0", "req-1", "req-1"]


# What SQS does not take


@pytest.mark.parametrize(
    ("refused", "again"),
    [({0}, ["1000"]), ({3}, ["1003"]), ({1, 9}, ["1001", "1009"]),
     (set(range(10)), [str(1000 + number) for number in range(10)])],
)  # fmt: skip
def test_entries_that_fail_come_again(
    dispatch: Dispatch, output: Output, refused: set[int], again: list[str]
) -> None:
    """SendMessageBatch may take a part: only the records of the rest are named."""

    def answer(entries: list[Row]) -> Row:
        failed = [e for number, e in enumerate(entries) if number in refused]
        return ok([e for e in entries if e not in failed]) | {
            "Failed": [{"Id": e["Id"], "Code": "InternalError", "SenderFault": False}
                       for e in failed]}  # fmt: skip

    dispatch.answering(answer)
    assert dispatch.deliver(*records(10)) == again
    assert output.logged("some messages not sent")


def test_an_entry_without_an_answer_comes_again(dispatch: Dispatch) -> None:
    """Only what SQS names as successful is done."""
    dispatch.answering(lambda entries: ok(entries[:-1]))
    assert dispatch.deliver(*records(3)) == ["1002"]
    dispatch.answering(lambda entries: {})
    assert dispatch.deliver(*records(1)) == ["1000"]


@pytest.mark.parametrize(
    "error",
    [
        client_error("ThrottlingException", 400),
        client_error("AWS.SimpleQueueService.NonExistentQueue", 400),
        client_error("AccessDenied", 403),
        client_error("InternalError", 500),
        ConnectTimeoutError(endpoint_url="https://x"),
        ReadTimeoutError(endpoint_url="https://x"),
    ],
    ids=repr,
)
def test_a_failed_call_comes_again(dispatch: Dispatch, output: Output, error: Exception) -> None:
    """All of its records, in whatever way it failed; the error is logged."""

    def refuse(entries: list[Row]) -> Row:
        raise error

    dispatch.answering(refuse)
    assert dispatch.deliver(*records(3)) == ["1000", "1001", "1002"]
    (line,) = output.logged("messages not sent")
    assert line["error"] == type(error).__name__


def test_after_a_failure_nothing_more_is_sent(dispatch: Dispatch) -> None:
    """What was not sent comes again."""
    sent: list[int] = []

    def answer(entries: list[Row]) -> Row:
        sent.append(len(entries))
        return ok(entries if len(sent) == 1 else entries[:4])

    dispatch.answering(answer)
    named = dispatch.deliver(*records(40))
    assert (sent, named) == ([10, 10], [str(1000 + number) for number in range(14, 40)])


def test_a_lost_answer_sends_twice_and_loses_nothing(dispatch: Dispatch) -> None:
    """The messages are in the queue, but the function does not know."""
    plain = dispatch.module.sqs

    def carry_out_and_hang_up(entries: list[Row]) -> Row:
        plain.send_message_batch(QueueUrl=dispatch.module.JOBS_QUEUE_URL, Entries=entries)
        raise ReadTimeoutError(endpoint_url="https://x")

    dispatch.answering(carry_out_and_hang_up)
    assert dispatch.deliver(*records(2)) == ["1000", "1001"]
    dispatch.stack.monkeypatch.setattr(dispatch.module, "sqs", plain)
    assert dispatch.deliver(*records(2)) == []
    assert sorted(dispatch.queued()) == ["req-0", "req-0", "req-1", "req-1"]


# Records that can't be parsed

IMAGE = to_item(request())


def stored(**changes: Any) -> Row:
    """A record whose image differs from that of a good one."""
    return {"dynamodb": {"SequenceNumber": "7", "NewImage": to_item(request() | changes)}}


BROKEN: Row = {
    "nothing": {},
    "no record": None,
    "a text": "record",
    "no image": {"dynamodb": {"SequenceNumber": "7"}},
    "empty image": {"dynamodb": {"SequenceNumber": "7", "NewImage": {}}},
    "no sequence number": {"dynamodb": {"NewImage": IMAGE}},
    "a malformed sequence number": {"dynamodb": {"SequenceNumber": {"n": "7"}, "NewImage": IMAGE}},
    "an empty sequence number": {"dynamodb": {"SequenceNumber": "", "NewImage": IMAGE}},
    "unknown type": {"dynamodb": {"SequenceNumber": "7", "NewImage": {"owner": {"X": 1}}}},
    "no owner key": stored(owner="unknown"),
    "owner no text": stored(owner=5),
    "half a character": stored(owner="a\ud800#b"),
    "a malformed request_id": stored(request_id=""),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_unreadable_record_is_set_aside(dispatch: Dispatch, output: Output, fault: str) -> None:
    """Once, as it came; the others are sent, and none comes again."""
    first, second = records(2)
    assert dispatch.deliver(first, BROKEN[fault], second) == []
    assert dispatch.queued() == ["req-0", "req-1"]
    (kept,) = dispatch.stack.messages("requests-failed")
    assert kept["record"] == BROKEN[fault]
    assert output.metric("RecordRefused")


def test_an_unreadable_record_of_any_size_is_kept(dispatch: Dispatch) -> None:
    """What is too long for the queue is cut."""
    assert dispatch.deliver({"dynamodb": {"SequenceNumber": "1", "NewImage": "x" * 400_000}}) == []
    url = dispatch.stack.sqs.get_queue_url(QueueName=f"{PREFIX}requests-failed")["QueueUrl"]
    (kept,) = dispatch.stack.sqs.receive_message(QueueUrl=url)["Messages"]
    assert len(kept["Body"]) == 250_000


def test_an_unreadable_record_is_not_lost(dispatch: Dispatch) -> None:
    """If the failure queue can't be reached, the stream keeps the batch."""
    dispatch.stack.fail(dispatch.module.sqs, "SendMessage", "AccessDenied", status=403)
    with pytest.raises(ClientError):
        dispatch.deliver({})


@pytest.mark.parametrize(
    "given", [None, [], "Records", {}, {"Records": None}, {"Records": "aws:dynamodb"}]
)
def test_an_event_is_a_batch(dispatch: Dispatch, given: Any) -> None:
    """Anything else is a ValidationError, and nothing is sent."""
    with pytest.raises(ValidationError):
        dispatch.module.handler(given, Context())
    assert dispatch.calls == []


def test_missing_configuration_fails_at_start(stack: Stack) -> None:
    for name in ("JOBS_QUEUE_URL", "FAILURES_QUEUE_URL"):
        with pytest.raises(KeyError, match=name):
            stack.function("dispatch", **{name: None})
