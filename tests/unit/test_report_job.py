"""report-job: what becomes of a job of the flow is written once, and its listeners hear of it."""

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jobplane_keys import ValidationError, execution_name, tenant_workspace
from tests.unit.stack import (
    BUCKET,
    OWNER,
    TENANT,
    USER,
    Context,
    Row,
    Stack,
    connection,
    request,
)

PAYLOAD = {"project": "amelia", "thread": "t-1", "instruction": "go", "attachments": []}
REQUEST = {"owner": OWNER, "requestId": "req-1"}
CLAIM = {"claimId": "claim-1", "fence": 7}
NAME = execution_name(tenant_workspace(TENANT, USER, "amelia"), "req-1")
ARN = f"arn:aws:states:eu-west-1:123456789012:execution:job-flow:{NAME}"
IDS = {"projectUserId": "tenant-1+amelia#user-1", "threadId": "t-1", "messageId": "req-1"}


class Reporting:
    """The function; the test plays Step Functions."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.module: ModuleType = stack.function("report-job")
        self.execution: Row = {}
        self.stack.monkeypatch.setattr(
            self.module,
            "stepfunctions",
            lambda: SimpleNamespace(describe_execution=lambda **_: self.execution),
        )
        stack.put("connections", connection())
        stack.put(
            "requests",
            request("req-1", "instruct", PAYLOAD, execution=NAME, connection_id="conn-1"),
        )

    def ask(self, **event: Any) -> Row:
        answer: Row = self.module.handler(event, Context())
        return answer

    def begin(self, **more: Any) -> Row:
        return self.ask(operation="begin", request=REQUEST, seconds=60, **{**CLAIM, **more})

    def report(self, **more: Any) -> Row:
        return self.ask(operation="report", request=REQUEST, **{**CLAIM, **more})

    def ended(self, status: str, output: Any = None, **more: Any) -> Row:
        """The event of EventBridge for the execution's end."""
        text = json.dumps({"request": REQUEST})
        self.execution = {"status": status, "input": text, "output": json.dumps(output), **more}
        detail = {"executionArn": ARN, "status": status, "input": text}
        change = {"detail-type": "Step Functions Execution Status Change", "detail": detail}
        answer: Row = self.module.handler(change, Context())
        return answer

    @property
    def row(self) -> Row:
        return self.stack.request()

    @property
    def heard(self) -> list[Row]:
        return self.stack.sockets.to("conn-1")


@pytest.fixture
def reporting(stack: Stack) -> Reporting:
    return Reporting(stack)


def test_a_claimed_job_is_processing(reporting: Reporting) -> None:
    assert reporting.begin() == {"begun": True}
    assert (reporting.row["status"], reporting.row["lease_owner"]) == ("PROCESSING", "claim-1/7")
    assert reporting.begin() == {"begun": True}  # the answer to the first call was lost
    assert reporting.row["attempts"] == 1


def test_a_cancelled_request_does_not_begin(reporting: Reporting, stack: Stack) -> None:
    stack.put("requests", request("req-1", "instruct", PAYLOAD, status="CANCELLED"))
    assert reporting.begin() == {"begun": False}
    assert reporting.row["status"] == "CANCELLED"


def test_progress_is_stored_and_sent(reporting: Reporting) -> None:
    """A percentage never falls, and the numbers of the messages grow."""
    reporting.begin()
    assert reporting.report(percentage=50, message="half")["accepted"]
    assert reporting.report(percentage=20, message="again")["accepted"]
    assert [(m["type"], m["seq"], m["percentage"], m["message"]) for m in reporting.heard] == [
        ("progress", 1, 50, "half"),
        ("progress", 2, 50, "again"),
    ]
    assert reporting.row["progress"]["message"] == "again"


def test_events_are_stored_once(reporting: Reporting) -> None:
    """A repetition, whose answer was lost, adds none."""
    reporting.begin()
    for _ in range(2):
        assert reporting.report(events=["a", {"b": 1}], after=0)["eventCount"] == 2
    assert reporting.report(events=["c"], after=2)["eventCount"] == 3
    assert [(m["first"], m["events"]) for m in reporting.heard] == [
        (1, ["a", {"b": 1}]),
        (3, ["c"]),
    ]


def test_a_worker_that_was_relieved_is_refused(reporting: Reporting) -> None:
    """The one with the newer fence takes the request over at its first report."""
    reporting.begin()
    assert reporting.report(fence=8, percentage=10)["accepted"]
    assert not reporting.report(fence=7, percentage=99)["accepted"]
    assert not reporting.report(fence=7, events=["late"])["accepted"]
    assert not reporting.report(claimId="claim-0", fence=9, percentage=99)["accepted"]
    assert (reporting.row["lease_owner"], reporting.row["progress"]["percentage"]) == (
        "claim-1/8",
        10,
    )


def test_a_report_tells_of_a_cancellation(reporting: Reporting) -> None:
    reporting.begin()
    reporting.module.request_of({"request": REQUEST}).ask_to_cancel()
    assert reporting.report(percentage=5)["cancelRequested"]


OUTCOMES = [
    (
        "SUCCEEDED",
        {"outcome": "Completed", "job": IDS, "result": [1, 2], "resultObject": None},
        {},
        {"outcome": "Completed", "result": [1, 2]},
    ),
    (
        "SUCCEEDED",
        {"outcome": "Joined", "job": IDS, "holder": {"messageId": "a+b"}},
        {},
        {"outcome": "Joined", "request_id": "a:b"},
    ),
    (
        "SUCCEEDED",
        {"outcome": "Interrupted", "job": IDS, "cause": '{"newThreadId": "t-2", "partial": 3}'},
        {},
        ("INTERRUPTED", {"thread": "t-2", "partial": 3}),
    ),
    (
        "FAILED",
        None,
        {"error": "TimedOut", "cause": '{"kind": "heartbeat_lost"}'},
        ("TIMED_OUT", {"kind": "heartbeat_lost"}),
    ),
    ("FAILED", None, {"error": "WorkspaceBusy", "cause": "{}"}, ("WORKSPACE_BUSY", None)),
    (
        "FAILED",
        None,
        {"error": "ValidationError", "cause": '{"cause": "attachments: a list is required"}'},
        ("VALIDATION_ERROR", None),
    ),
    (
        "FAILED",
        None,
        {"error": "KeyError", "cause": "'secret'"},
        ("PROCESSING_FAILED", {"error": "KeyError"}),
    ),
    ("TIMED_OUT", None, {}, ("TIMED_OUT", None)),
    ("ABORTED", None, {}, ("PROCESSING_FAILED", None)),
]


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize(("status", "output", "more", "expected"), OUTCOMES)
def test_each_end_of_an_execution_is_an_end_of_its_request(
    reporting: Reporting, status: str, output: Any, more: Row, expected: Any, has_begun: bool
) -> None:
    """It is written and sent once, however often EventBridge delivers its event."""
    if has_begun:
        reporting.begin()
    assert reporting.ended(status, output, **more) == {"ended": True}
    assert reporting.ended(status, output, **more) == {"ended": False}

    (message,) = reporting.heard
    assert "secret" not in json.dumps(message)
    if isinstance(expected, tuple):
        code, details = expected
        assert (message["type"], message["error"]["code"]) == ("error", code)
        assert message["error"].get("details") == details
        assert reporting.row["status"] == "FAILED"
    else:
        assert (message["type"], message["result"]) == ("complete", expected)
        assert reporting.row["status"] == "COMPLETED"
    assert "lease_shard" not in reporting.row


def test_an_interrupted_job_that_was_cancelled_ends_as_cancelled(reporting: Reporting) -> None:
    reporting.begin()
    reporting.module.request_of({"request": REQUEST}).ask_to_cancel()
    output = {"outcome": "Interrupted", "job": IDS, "cause": "{}"}
    assert reporting.ended("SUCCEEDED", output) == {"ended": True}
    assert reporting.row["status"] == "CANCELLED"
    assert reporting.heard[-1]["error"]["code"] == "CANCELLED"


def test_a_result_that_no_message_can_carry_becomes_a_link(reporting: Reporting) -> None:
    reporting.begin()
    large = "x" * 200_000
    reporting.ended("SUCCEEDED", {"outcome": "Completed", "result": large, "resultObject": None})
    (message,) = reporting.heard
    assert message["result"].keys() == {"outcome", "result_url"}
    (key,) = reporting.stack.keys("jobs/")
    assert json.loads(reporting.stack.object(key)) == large


def test_a_result_that_the_worker_has_stored_becomes_a_link(reporting: Reporting) -> None:
    key = f"jobs/{NAME}/result-claim-1-7-x.json"
    place = {"bucket": BUCKET, "key": key}
    reporting.begin()
    reporting.ended("SUCCEEDED", {"outcome": "Completed", "result": None, "resultObject": place})
    assert key in reporting.heard[0]["result"]["result_url"]


def test_an_end_while_a_worker_takes_over_is_written(reporting: Reporting) -> None:
    """The row changes between its read and the write of the end."""
    reporting.begin()
    read, done = reporting.module.read, []

    def reading(lease: Any) -> Row:
        row: Row = read(lease)
        if not done:
            done.append(True)
            reporting.report(fence=8, percentage=1)
        return row

    reporting.stack.monkeypatch.setattr(reporting.module, "read", reading)
    output = {"outcome": "Completed", "result": 1, "resultObject": None}
    assert reporting.ended("SUCCEEDED", output) == {"ended": True}
    assert reporting.row["status"] == "COMPLETED"


def test_executions_of_others_and_running_ones_are_left_alone(reporting: Reporting) -> None:
    settle = {"operation": "settle", "executionArn": ARN}
    reporting.execution = {"status": "RUNNING", "input": json.dumps({"request": REQUEST})}
    assert reporting.ask(**settle) == {"ended": False}
    reporting.execution = {"status": "FAILED", "input": "{}", "error": "x"}
    assert reporting.ask(**settle) == {"ended": False}
    assert reporting.ask(**settle, input="{}") == {"ended": False}
    assert reporting.row["status"] == "PENDING"


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"operation": "stop"}, "operation"),
        ({"operation": "settle", "executionArn": "x"}, "executionArn"),
        ({"operation": "begin", **CLAIM, "seconds": 60}, "request.owner"),
        (
            {"operation": "begin", **CLAIM, "seconds": 60, "request": REQUEST | {"requestId": "#"}},
            "request.requestId",
        ),
        ({"operation": "begin", **CLAIM, "request": REQUEST}, "seconds"),
        ({"operation": "begin", "claimId": "c", "seconds": 1, "request": REQUEST}, "fence"),
        ({"operation": "report", **CLAIM, "request": REQUEST, "percentage": 101}, "percentage"),
        ({"operation": "report", **CLAIM, "request": REQUEST, "percentage": True}, "percentage"),
        (
            {"operation": "report", **CLAIM, "request": REQUEST, "percentage": 1, "message": 2},
            "message",
        ),
        ({"operation": "report", **CLAIM, "request": REQUEST, "events": "abc"}, "events"),
        ({"operation": "report", **CLAIM, "request": REQUEST, "after": "1"}, "after"),
    ],
)
def test_malformed_input_is_refused_by_its_field(
    reporting: Reporting, event: Row, field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        reporting.ask(**event)
    assert refused.value.field == field


def test_an_event_that_is_too_large_is_refused(reporting: Reporting) -> None:
    reporting.begin()
    with pytest.raises(ValidationError, match="events: The event has"):
        reporting.report(events=["x" * 40_000])
    assert "event_count" not in reporting.row
