"""Webhooks of the deployed stage: concurrent triggers, retries, and final failures."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from jobplane_client import SignatureMismatchError, verify_webhook
from tests.e2e.deployed import SIGNING_SECRET, Deployed, Receiver, receiver, unique, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def hooks(deployed: Deployed, webhooks: Receiver) -> Iterator[Receiver]:
    """A receiver of every template's webhooks within a test."""
    with receiver() as there:
        deployed.set_webhook(there.url)
        try:
            yield there
        finally:
            deployed.set_webhook(webhooks.url)


def received(assembly_id: str) -> dict[str, Any]:
    """A message of the queue, as deliver-webhook receives it."""
    body = {"assembly_id": assembly_id, "execution": 1, "template_id": "tpl_fingerprint"}
    content = {"body": json.dumps(body), "messageAttributes": {}}
    ids = {"messageId": unique("message"), "receiptHandle": unique("receipt")}
    source = {"eventSource": "aws:sqs", "awsRegion": "eu-west-1"}
    arn = {"eventSourceARN": "arn:aws:sqs:eu-west-1:000000000000:webhooks"}
    count = {"attributes": {"ApproximateReceiveCount": "1"}}
    return {"Records": [{**ids, **content, **source, **arn, **count}]}


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
    assert verify_webhook(headers, body, [SIGNING_SECRET])["ok"] == "ASSEMBLY_COMPLETED"


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
    assembly_id = await deployed.complete(unique("user"))
    retrying = await settled(deployed, assembly_id, "retrying")
    delivered = await settled(deployed, assembly_id, "delivered")

    assert (retrying["attempts"], retrying["last_response_code"]) == (1, 503)
    assert (delivered["attempts"], delivered["last_response_code"]) == (2, 200)
    (first, body), (second, again) = hooks.of(assembly_id)
    assert header(first, "webhook-id") == header(second, "webhook-id")
    times = [int(header(headers, "webhook-timestamp")) for headers in (first, second)]
    assert times[1] - times[0] >= 4, times
    for headers, sent in ((first, body), (second, again)):
        assert verify_webhook(headers, sent, [SIGNING_SECRET])["assembly_id"] == assembly_id


async def test_two_listed_secrets_both_verify_during_a_rotation(
    deployed: Deployed, hooks: Receiver
) -> None:
    """Then only the new one."""
    new = "whsec_dGhlLXNlY3JldC10aGF0LWNvbWVzLW5leHQtZm9yLWFsbA=="
    deployed.set_webhook(hooks.url, f"{new} {SIGNING_SECRET}")
    during = await deployed.complete(unique("user"))
    await settled(deployed, during, "delivered")
    deployed.set_webhook(hooks.url, new)
    after = await deployed.complete(unique("user"))
    await settled(deployed, after, "delivered")

    ((headers, body),) = hooks.of(during)
    for secret in (SIGNING_SECRET, new):
        assert verify_webhook(headers, body, secret)["assembly_id"] == during
    ((headers, body),) = hooks.of(after)
    assert verify_webhook(headers, body, new)["assembly_id"] == after
    with pytest.raises(SignatureMismatchError):
        verify_webhook(headers, body, SIGNING_SECRET)


async def test_nothing_is_sent_after_a_410(deployed: Deployed, hooks: Receiver) -> None:
    """Not even on demand."""
    hooks.answers.append(410)
    user = unique("user")
    assembly_id = await deployed.complete(user)
    assert (await settled(deployed, assembly_id, "disabled"))["last_response_code"] == 410
    async with deployed.http(user) as http:
        answer = await http.get(f"/status/{assembly_id}?triggerWebhook=true")

    assert answer.status_code == 200
    assert answer.json()["webhook"]["delivered"] is False
    assert answer.json()["webhook"]["error"] == "disabled"
    assert len(hooks.of(assembly_id)) == 1
