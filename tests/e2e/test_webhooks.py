"""Webhooks of the deployed stage: concurrent triggers, retries, and final failures."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from jobplane_client import SignatureMismatchError, verify_webhook
from tests.e2e.deployed import Deployed, Receiver, receiver, unique, until

pytestmark = pytest.mark.e2e

SECRET = "whsec_c2VjcmV0LW9mLXRoZS1lbmQtdG8tZW5kLXRlc3Rz"


@pytest.fixture
def hooks(deployed: Deployed, webhooks: Receiver) -> Iterator[Receiver]:
    """A receiver of every template's webhooks within a test."""
    with receiver() as there:
        deployed.set_webhook(there.url, SECRET)
        try:
            yield there
        finally:
            deployed.set_webhook(webhooks.url, SECRET)


async def complete(deployed: Deployed, user: str) -> str:
    """Run a job; its assembly's id."""
    async with deployed.socket(user) as socket:
        payload = await deployed.upload(socket, "tpl_fingerprint", {"a": unique("x").encode()})
        end = await socket.run("process_assembly", payload)
    assert end["type"] == "complete", end
    return str(end["result"]["assembly_id"])


def received(assembly_id: str, receives: int = 1) -> dict[str, Any]:
    """A message of the queue, as deliver-webhook receives it."""
    body = {"assembly_id": assembly_id, "execution": 1, "template_id": "tpl_fingerprint"}
    record = {
        "messageId": unique("message"),
        "receiptHandle": unique("receipt"),
        "body": json.dumps(body),
        "attributes": {"ApproximateReceiveCount": str(receives)},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:000000000000:webhooks",
        "awsRegion": "eu-west-1",
    }
    return {"Records": [record]}


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value; names are case-insensitive."""
    return next(value for key, value in headers.items() if key.lower() == name)


async def settled(deployed: Deployed, assembly_id: str, status: str) -> dict[str, Any]:
    """The webhook of a stored document, once it has that status."""

    def found() -> dict[str, Any] | None:
        webhook: dict[str, Any] = deployed.assembly(assembly_id).get("webhook", {})
        return webhook if webhook.get("status") == status else None

    webhook: dict[str, Any] = await until(found, f"webhook of {assembly_id} to be {status}")
    return webhook


async def test_one_of_many_concurrent_triggers_delivers(
    deployed: Deployed, hooks: Receiver
) -> None:
    """The others get the time to try again."""
    user = unique("user")
    assembly_id = deployed.put_assembly(user)
    async with deployed.http(user) as http:
        url = f"/status/{assembly_id}?triggerWebhook=true"
        answers = await asyncio.gather(*(http.get(url) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429]
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["webhook"]["delivered"] is True
        else:
            assert 1 <= int(answer.headers["Retry-After"]) <= 30
    ((headers, body),) = hooks.of(assembly_id)
    assert verify_webhook(headers, body, [SECRET])["ok"] == "ASSEMBLY_COMPLETED"


async def test_a_message_received_several_times_is_delivered_once(
    deployed: Deployed, hooks: Receiver
) -> None:
    """At once, and one after the other."""
    assembly_id = deployed.put_assembly(unique("user"))
    event = received(assembly_id)
    first = await asyncio.gather(
        *(asyncio.to_thread(deployed.invoke, "deliver-webhook", event) for _ in range(4))
    )
    later = deployed.invoke("deliver-webhook", event)

    assert {"batchItemFailures": []} in first
    assert later == {"batchItemFailures": []}
    assert len(hooks.of(assembly_id)) == 1
    assert (await settled(deployed, assembly_id, "delivered"))["attempts"] == 1


async def test_the_same_webhook_is_delivered_again_after_a_503(
    deployed: Deployed, hooks: Receiver
) -> None:
    hooks.answers.append(503)
    assembly_id = await complete(deployed, unique("user"))
    retrying = await settled(deployed, assembly_id, "retrying")
    delivered = await settled(deployed, assembly_id, "delivered")

    assert (retrying["attempts"], retrying["last_response_code"]) == (1, 503)
    assert (delivered["attempts"], delivered["last_response_code"]) == (2, 200)
    (first, body), (second, again) = hooks.of(assembly_id)
    assert header(first, "webhook-id") == header(second, "webhook-id")
    times = [int(header(headers, "webhook-timestamp")) for headers in (first, second)]
    assert times[1] - times[0] >= 4, times
    for headers, sent in ((first, body), (second, again)):
        assert verify_webhook(headers, sent, [SECRET])["assembly_id"] == assembly_id


async def test_two_listed_secrets_both_verify_during_a_rotation(
    deployed: Deployed, hooks: Receiver
) -> None:
    """Then only the new one."""
    new = "whsec_dGhlLXNlY3JldC10aGF0LWNvbWVzLW5leHQtZm9yLWFsbA=="
    deployed.set_webhook(hooks.url, f"{new} {SECRET}")
    during = await complete(deployed, unique("user"))
    await settled(deployed, during, "delivered")
    deployed.set_webhook(hooks.url, new)
    after = await complete(deployed, unique("user"))
    await settled(deployed, after, "delivered")

    ((headers, body),) = hooks.of(during)
    for secret in (SECRET, new):
        assert verify_webhook(headers, body, secret)["assembly_id"] == during
    ((headers, body),) = hooks.of(after)
    assert verify_webhook(headers, body, new)["assembly_id"] == after
    with pytest.raises(SignatureMismatchError):
        verify_webhook(headers, body, SECRET)


async def test_nothing_is_sent_after_a_410(deployed: Deployed, hooks: Receiver) -> None:
    """Not even on demand."""
    hooks.answers.append(410)
    user = unique("user")
    assembly_id = await complete(deployed, user)
    assert (await settled(deployed, assembly_id, "disabled"))["last_response_code"] == 410
    async with deployed.http(user) as http:
        answer = await http.get(f"/status/{assembly_id}?triggerWebhook=true")

    assert answer.status_code == 200
    assert answer.json()["webhook"]["delivered"] is False
    assert answer.json()["webhook"]["error"] == "disabled"
    assert len(hooks.of(assembly_id)) == 1


async def test_the_seventh_failure_is_the_last(deployed: Deployed, hooks: Receiver) -> None:
    """The state is `failed`, and the message is left to the queue."""
    assembly_id = deployed.put_assembly(unique("user"))
    hooks.answers += [503, 503]
    event = received(assembly_id, receives=6)
    kept = {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}
    assert deployed.invoke("deliver-webhook", event) == kept
    assert deployed.assembly(assembly_id)["webhook"]["status"] == "retrying"

    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "7"
    assert deployed.invoke("deliver-webhook", event) == kept
    webhook = deployed.assembly(assembly_id)["webhook"]
    assert (webhook["status"], webhook["attempts"]) == ("failed", 2)


async def test_a_message_received_seven_times_moves_to_the_dead_letter_queue(
    deployed: Deployed,
) -> None:
    """Here an unreadable one."""
    queue, dead = (deployed.info["queues"][name] for name in ("webhooks", "webhooks-dlq"))
    told = deployed.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])
    policy = json.loads(told["Attributes"]["RedrivePolicy"])
    assert int(policy["maxReceiveCount"]) == 7
    assert policy["deadLetterTargetArn"].rpartition(":")[2] == dead.rpartition("/")[2]

    body = unique("no-json")
    deployed.sqs.send_message(QueueUrl=queue, MessageBody=body)
    moved = await until(
        lambda: next(
            (
                message
                for message in deployed.sqs.receive_message(
                    QueueUrl=dead, MaxNumberOfMessages=10, VisibilityTimeout=1
                ).get("Messages", [])
                if message["Body"] == body
            ),
            None,
        ),
        "the message in the dead-letter queue",
    )
    deployed.sqs.delete_message(QueueUrl=dead, ReceiptHandle=moved["ReceiptHandle"])
