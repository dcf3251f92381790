"""The client library with the functions `status` and `deliver-webhook`, in process."""

import io
import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import jobplane_client
from jobplane_client import StatusClient, WaitTimeoutError, verify_webhook
from jobplane_webhooks import signed_headers
from tests.unit.assemblies import assembly
from tests.unit.clock import Clock
from tests.unit.stack import Stack

FILE = {
    "id": "upload_1", "name": "a.txt", "basename": "a", "ext": "txt", "size": 5,
    "mime": "text/plain", "field": "file", "md5hash": "5d41402abc4b2a76b9719d911017c592",
    "key": "uploads/x/a.txt",
}  # fmt: skip


class InProcessLambda:
    """A Lambda client whose only function runs here."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def invoke(
        self, *, FunctionName: str, Payload: bytes, InvocationType: str = "RequestResponse"
    ) -> dict[str, Any]:
        context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 30_000)
        answer = self._module.handler(json.loads(Payload), context)
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode())}


@pytest.fixture
def status(stack: Stack) -> ModuleType:
    return stack.function("status")


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def client(status: ModuleType, clock: Clock) -> StatusClient:
    fake = InProcessLambda(status)
    return StatusClient("status", client=fake, clock=clock, sleep=clock.sleep)


def store(stack: Stack, assembly_id: str = "asm-1", **changes: Any) -> None:
    result = {name: value for name, value in FILE.items() if name != "md5hash"}
    result |= {"id": "result_1", "original_id": "upload_1", "key": f"results/{assembly_id}/s/a"}
    stack.put(
        "assemblies",
        assembly(assembly_id, **({"uploads": [FILE], "results": {"s": [result]}} | changes)),
    )


def test_a_look_up_returns_a_document_with_links(client: StatusClient, stack: Stack) -> None:
    store(stack)
    document = client.get_status("asm-1", "user-1")
    assert document.uploads[0].md5hash == FILE["md5hash"]
    assert document.results["s"][0].ssl_url.startswith("https://")
    assert jobplane_client.progress_message(document) == "Completed in 5.2s"


def test_a_tenants_client_reads_nothing_of_another_tenant(status: ModuleType, stack: Stack) -> None:
    """Although a user there has the same id."""
    store(stack)
    store(stack, "asm-2", tenant_id="tenant-2")
    client = StatusClient("status", tenant_id="tenant-2", client=InProcessLambda(status))
    with pytest.raises(jobplane_client.ForbiddenError):
        client.get_status("asm-1", "user-1")
    assert client.get_status("asm-2", "user-1").assembly_id == "asm-2"
    found = client.get_batch_status(["asm-1", "asm-2"], "user-1")
    assert [name for name, document in found.items() if document] == ["asm-2"]


def test_each_refusal_raises_its_own_error(client: StatusClient, stack: Stack) -> None:
    store(stack)
    with pytest.raises(jobplane_client.ForbiddenError):
        client.get_status("asm-1", "user-2")
    with pytest.raises(jobplane_client.UnauthorizedError):
        client.get_status("asm-1")
    with pytest.raises(jobplane_client.NotFoundError) as missing:
        client.get_status("asm-2", "user-1")
    assert missing.value.retry_after == 2
    with pytest.raises(jobplane_client.InvalidRequestError) as invalid:
        client.get_status("asm-1", "u" * 300)
    assert invalid.value.fields[0]["field"] == "userId"


def test_a_batch_makes_one_invocation(client: StatusClient, stack: Stack) -> None:
    store(stack, "asm-1")
    store(stack, "asm-2", user={"userId": "user-2"}, user_id="user-2")
    found = client.get_batch_status(["asm-1", "asm-2", "asm-3"], "user-1")
    assert [name for name, document in found.items() if document] == ["asm-1"]


def test_wait_polls_as_the_function_says(client: StatusClient, stack: Stack, clock: Clock) -> None:
    with pytest.raises(WaitTimeoutError):
        client.wait("asm-1", 5, "user-1")
    assert clock.slept == [2, 2, 1]
    clock.slept.clear()
    store(stack, ok=None, execution_start=None, execution_duration=None)
    with pytest.raises(WaitTimeoutError) as raised:
        client.wait("asm-1", 10, "user-1")
    assert raised.value.document is not None
    assert clock.slept == [5, 5]


def test_a_trigger_has_its_outcome(client: StatusClient, status: ModuleType, stack: Stack) -> None:
    """A running job is a conflict; a template without a webhook is reported."""
    deliver_webhook = InProcessLambda(stack.function("deliver-webhook"))
    status.functions = lambda: deliver_webhook
    store(stack, "asm-1", ok=None)
    store(stack, "asm-2")
    with pytest.raises(jobplane_client.ConflictError):
        client.get_status_with_webhook("asm-1", "user-1")
    delivery = client.get_status_with_webhook("asm-2", "user-1").delivery
    assert delivery is not None
    assert not delivery.delivered
    assert isinstance(delivery, jobplane_client.WebhookDelivery)


@pytest.mark.parametrize("secret", ["a plain secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_the_client_verifies_what_the_function_signs(secret: str) -> None:
    body = b'{"assembly_id":"asm-1"}'
    headers = signed_headers([secret, "old text"], "msg_asm-1_1", 1000, body)
    for known in (secret, "old text"):
        assert verify_webhook(headers, body, known, now=1000)
    with pytest.raises(jobplane_client.SignatureMismatchError):
        verify_webhook(headers, body, "another one", now=1000)
    legacy = {"X-Transflow-Signature": headers["X-Transflow-Signature"]}
    assert verify_webhook(legacy, body, secret, allow_legacy=True)
