"""send-interrupt: which targets get a message, its content, and the queue."""

import json
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobplane_keys import (
    TLS_ONLY_POLICY,
    ValidationError,
    Workspace,
    interrupt_id,
    interrupt_queue_name,
)
from tests.unit.claims import HOSTILE_IDS, NOW, WORKSPACE, Jobs, iso, queue_url
from tests.unit.stack import PREFIX, Context, Output

QUEUE = interrupt_queue_name(PREFIX, Workspace("amelia", "scott"))
TARGET = {
    "claimId": "claim-1", "fence": 1_795_000_000_001, "containerId": "container-1",
    "threadId": "thread-1", "messageId": "message-1", "expiresAt": int(NOW) + 60,
}  # fmt: skip
EVENT = {
    "projectUserId": WORKSPACE, "target": TARGET, "newThreadId": "thread-2",
    "interruptingMessageId": "message-2",
}  # fmt: skip
ID = interrupt_id("claim-1", "message-2")


def send(jobs: Jobs, **event: Any) -> dict[str, Any]:
    return jobs.call("send-interrupt", **EVENT | event)


def received(jobs: Jobs, queue: str = QUEUE) -> list[dict[str, Any]]:
    """The messages of a queue, with their attributes."""
    found: list[dict[str, Any]] = jobs.stack.sqs.receive_message(
        QueueUrl=queue_url(queue), MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages", [])
    return found


def queues(jobs: Jobs) -> list[str]:
    return [url.rpartition("/")[2] for url in jobs.stack.sqs.list_queues().get("QueueUrls", [])]


def test_the_message_has_the_claim_and_the_interrupting_message(jobs: Jobs) -> None:
    answer = send(jobs, reason="a mail came")
    (message,) = received(jobs)
    assert answer == {
        "sent": True, "interruptId": ID, "queueUrl": queue_url(QUEUE),
        "messageId": message["MessageId"],
    }  # fmt: skip
    assert json.loads(message["Body"]) == {
        "type": "INTERRUPT",
        "interruptId": ID,
        "containerId": "container-1",
        "target": {
            "projectUserId": WORKSPACE, "claimId": "claim-1", "fence": 1_795_000_000_001,
            "containerId": "container-1", "threadId": "thread-1",
        },
        "newThreadId": "thread-2",
        "interruptingMessageId": "message-2",
        "timestamp": iso(0),
        "reason": "a mail came",
        "expiresAt": int(NOW) + 24 * 3600,
    }  # fmt: skip
    attributes = {
        name: (value["DataType"], value["StringValue"])
        for name, value in message["MessageAttributes"].items()
    }
    assert attributes == {
        "type": ("String", "INTERRUPT"), "projectUserId": ("String", WORKSPACE),
        "containerId": ("String", "container-1"), "targetClaimId": ("String", "claim-1"),
        "fence": ("Number", "1795000000001"),
    }  # fmt: skip


def test_unknown_values_of_a_target_are_omitted(jobs: Jobs) -> None:
    """SQS accepts no empty attributes."""
    assert send(jobs, target={"claimId": "claim-1", "fence": 7})["sent"] is True
    (message,) = received(jobs)
    assert json.loads(message["Body"])["containerId"] is None
    assert "containerId" not in message["MessageAttributes"]
    assert json.loads(message["Body"])["reason"] == "another thread needs the workspace"


def test_a_repeated_interrupt_has_the_same_id(jobs: Jobs) -> None:
    assert send(jobs)["interruptId"] == ID
    jobs.clock.advance(7)
    assert send(jobs)["interruptId"] == ID
    assert {json.loads(message["Body"])["interruptId"] for message in received(jobs)} == {ID}
    assert send(jobs, interruptingMessageId="message-3")["interruptId"] != ID
    assert send(jobs, target=TARGET | {"claimId": "claim-2"})["interruptId"] != ID


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"expiresAt": int(NOW)}, "expired"),
        ({"expiresAt": NOW}, "expired"),
        ({"expiresAt": NOW - 1}, "expired"),
        ({"expiresAt": (NOW - 1) * 1000}, "expired"),
        ({"threadId": "thread-2"}, "same_thread"),
        ({"threadId": "thread-2", "expiresAt": NOW - 1}, "same_thread"),
        ({"claimId": None, "fence": None}, "unaddressable"),
        ({"claimId": None, "fence": None, "expiresAt": None}, "unaddressable"),
    ],
)
def test_a_target_that_can_not_be_interrupted_gets_no_message(
    jobs: Jobs, change: dict[str, Any], reason: str
) -> None:
    """It has ended, is of the same thread, or has no claim."""
    target = TARGET | change
    named = None if target["claimId"] is None else ID
    assert send(jobs, target=target) == {"sent": False, "reason": reason, "interruptId": named}
    assert QUEUE not in queues(jobs)


@pytest.mark.parametrize(
    "expires_at", [None, NOW + 1, int(NOW) + 1, (NOW + 1) * 1000, int(NOW + 1) * 1000]
)
def test_a_live_target_gets_a_message(jobs: Jobs, expires_at: Any) -> None:
    """Its end is in the future, in seconds or milliseconds, or unknown."""
    assert send(jobs, target=TARGET | {"expiresAt": expires_at})["sent"] is True


def test_CREATE_QUEUES_creates_a_missing_queue(jobs: Jobs) -> None:
    """It denies access without TLS."""
    assert send(jobs)["sent"] is True
    url = queue_url(QUEUE)
    found = jobs.stack.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (found["VisibilityTimeout"], found["MessageRetentionPeriod"]) == ("60", "86400")
    assert json.loads(found["Policy"]) == json.loads(TLS_ONLY_POLICY)
    assert len(QUEUE) <= 80


@pytest.mark.parametrize("setting", [None, "", "false", "no"])
def test_without_CREATE_QUEUES_a_missing_queue_is_an_error(jobs: Jobs, setting: str | None) -> None:
    """The flow catches it by name."""
    module = jobs.function("send-interrupt", CREATE_QUEUES=setting)
    with pytest.raises(module.InterruptQueueMissingError, match=QUEUE) as missing:
        module.handler(dict(EVENT), Context())
    assert missing.value.queue_name == QUEUE
    assert isinstance(missing.value.__cause__, ClientError)
    assert type(missing.value).__name__ == "InterruptQueueMissingError"
    assert QUEUE not in queues(jobs)


def test_a_created_queue_is_used_after_one_second(jobs: Jobs) -> None:
    """SQS may refuse messages before."""
    module = jobs.function("send-interrupt")
    with jobs.new_queues_refused(module):
        assert module.handler(dict(EVENT), Context())["sent"]


@pytest.mark.parametrize("setting", ["true", ""])
def test_an_existing_queue_costs_one_SendMessage(jobs: Jobs, setting: str) -> None:
    jobs.stack.sqs.create_queue(QueueName=QUEUE)
    module = jobs.function("send-interrupt", CREATE_QUEUES=setting)
    calls = jobs.stack.calls(module.sqs)
    assert module.handler(dict(EVENT), Context())["sent"] is True
    assert calls.counts() == {"SendMessage": 1}


@pytest.mark.parametrize("code", ["AccessDenied", "RequestThrottled", "InternalError"])
def test_other_errors_of_sqs_are_raised_without_creating_a_queue(jobs: Jobs, code: str) -> None:
    module = jobs.function("send-interrupt")
    jobs.stack.fail(module.sqs, "SendMessage", code)
    with pytest.raises(ClientError) as raised:
        send(jobs)
    assert raised.value.response["Error"]["Code"] == code
    assert QUEUE not in queues(jobs)


@pytest.mark.parametrize(
    ("endpoint", "region", "base"),
    [
        ("", "eu-west-1", "https://sqs.eu-west-1.amazonaws.com"),
        (None, "eu-west-1", "https://sqs.eu-west-1.amazonaws.com"),
        ("http://127.0.0.1:4566", "eu-west-1", "http://127.0.0.1:4566"),
        (None, "us-east-1", "https://sqs.us-east-1.amazonaws.com"),
        (None, "ap-southeast-5", "https://sqs.ap-southeast-5.amazonaws.com"),
        (None, "cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn"),
        (None, "us-gov-west-1", "https://sqs.us-gov-west-1.amazonaws.com"),
        (None, "us-iso-east-1", "https://sqs.us-iso-east-1.c2s.ic.gov"),
    ],
)
def test_the_queues_url_has_the_sdks_host_and_the_account(
    jobs: Jobs, endpoint: str | None, region: str, base: str
) -> None:
    """Or SQS_ENDPOINT, which is set on a local stage."""
    place = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "ACCOUNT_ID": "000000000042"}
    module = jobs.function("send-interrupt", SQS_ENDPOINT=endpoint, **place)
    sent = capture(jobs, module)
    answer = module.handler(dict(EVENT), Context())
    assert answer["queueUrl"] == sent[0]["QueueUrl"] == f"{base}/000000000042/{QUEUE}"


def capture(jobs: Jobs, module: ModuleType) -> list[dict[str, Any]]:
    """Records the messages that the function sends, without SQS."""
    sent: list[dict[str, Any]] = []

    def send_message(**message: Any) -> dict[str, str]:
        sent.append(message)
        return {"MessageId": "m"}

    jobs.stack.monkeypatch.setattr(module.sqs, "send_message", send_message)
    return sent


def test_workspaces_with_similar_names_have_different_queues(jobs: Jobs) -> None:
    one = send(jobs, projectUserId="a-b#c")["queueUrl"]
    other = send(jobs, projectUserId=None, projectId="a", userId="b-c")["queueUrl"]
    assert one != other
    assert one.startswith(queue_url(f"{PREFIX}interrupts-a-b-c-"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"target": TARGET | {field: value}}, field) for field, value in (
            ("claimId", "a#b"), ("claimId", None), ("fence", None), ("fence", "7"), ("fence", 1.5),
            ("containerId", "a/b"), ("threadId", ""), ("expiresAt", "soon"), ("expiresAt", True),
        )),
        *(({field: value}, field) for field in ("newThreadId", "interruptingMessageId")
          for value in HOSTILE_IDS),
        ({"target": None}, "target"),
        ({"target": "claim-1"}, "target"),
        ({"target": {}}, "claimId"),
        ({"target": {"claimId": "claim-1"}}, "fence"),
        ({"reason": "x" * 1025}, "reason"),
        ({"reason": ["why"]}, "reason"),
        ({"projectUserId": "amelia"}, "projectUserId"),
        ({"projectId": "other"}, "projectId"),
    ],
)  # fmt: skip
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, change: dict[str, Any], field: str
) -> None:
    """Nothing is sent."""
    with pytest.raises(ValidationError) as refused:
        send(jobs, **change)
    assert refused.value.field == field
    assert QUEUE not in queues(jobs)


def test_a_missing_variable_stops_the_container_and_is_named(jobs: Jobs) -> None:
    with pytest.raises(KeyError, match="ACCOUNT_ID"):
        jobs.function("send-interrupt", ACCOUNT_ID=None)


def test_only_sent_interrupts_are_counted(jobs: Jobs, output: Output) -> None:
    send(jobs)
    send(jobs, target=TARGET | {"expiresAt": 1})
    assert len(output.metric("InterruptSent")) == 1
    (line,) = output.logged("interrupt sent")
    names = ("project_user_id", "claim_id", "interrupt_id")
    assert [line[name] for name in names] == [WORKSPACE, "claim-1", ID]
    assert output.logged("interrupt not needed")[0]["reason"] == "expired"
