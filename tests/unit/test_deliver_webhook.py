"""deliver-webhook: schedule, signatures, attempts and their outcomes."""

import base64
import hashlib
import hmac
import json
import math
import time
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
import yaml
from hypothesis import given

from jobplane_client import verify_webhook
from tests.examples import examples, with_fixtures
from tests.unit.assemblies import (
    LOCAL,
    ROOT,
    Context,
    assembly,
    events,
    load,
    message,
    put,
    receiving,
    reply,
    sqs,
    stored,
    write_templates,
)
from tests.unit.stack import Output, answer_lost

type Container = Callable[..., ModuleType]

NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAME = "deliver-webhook"
DONE: dict[str, Any] = {"batchItemFailures": []}
KEPT = {"batchItemFailures": [{"itemIdentifier": "message-1"}]}


@pytest.fixture
def delivery(
    container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ModuleType]:
    """The function with a template whose hook is `delivery.receiver`, signed with `test-secret`."""
    index = write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="env:HOOK_SECRET")
    monkeypatch.setenv("HOOK_SECRET", "test-secret")
    module: Any = container(NAME, TEMPLATES_INDEX_PATH=index, **LOCAL)
    module.postponed = []
    module.postpone = lambda receipt, seconds: module.postponed.append(math.ceil(seconds))
    with receiving() as module.receiver:
        monkeypatch.setenv("HOOK_URL", module.receiver.url)
        yield module


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function as deployed by default: no allow-list, https only."""
    return load(monkeypatch, NAME)


def deliver(delivery: ModuleType, seconds: float = 30.0) -> dict[str, Any]:
    """The answer of a delivery on demand."""
    answered: dict[str, Any] = delivery.handler({"assembly_id": "asm-1"}, Context(seconds))
    return answered


def test_the_webhook_id_depends_only_on_assembly_and_execution(strict: ModuleType) -> None:
    """It has no dot, so that it can be part of the signed content."""
    assert strict.webhook_id("asm-1", 2) == strict.webhook_id("asm-1", 2)
    assert strict.webhook_id("asm-1", 2) != strict.webhook_id("asm-1", 3)
    assert "." not in strict.webhook_id("asm-1", 2)


@pytest.mark.parametrize(
    ("receives", "planned"),
    [(1, 5), (2, 30), (3, 120), (4, 600), (5, 3600), (6, 21600), (9, 21600)],
)
def test_each_receive_is_followed_by_its_delay_with_jitter(
    strict: ModuleType, receives: int, planned: int
) -> None:
    assert strict.retry_delay(receives, 0.5) == planned
    assert strict.retry_delay(receives, 0.0) == pytest.approx(planned * 0.9)
    assert strict.retry_delay(receives, 1.0) == pytest.approx(planned * 1.1)


def test_maxReceiveCount_of_the_queue_equals_the_number_of_attempts(strict: ModuleType) -> None:
    queues = yaml.safe_load((ROOT / "resources/queues.yml").read_text())["Resources"]
    policy = queues["WebhooksQueue"]["Properties"]["RedrivePolicy"]
    assert policy["maxReceiveCount"] == strict.MAX_RECEIVES


def test_a_delivery_on_demand_posts_the_signed_public_document(delivery: ModuleType) -> None:
    put(assembly(results={"2": [{"id": "result_1", "size": 1.0}], "a": []}))
    body = deliver(delivery)
    (request,) = delivery.receiver.requests
    assert body["webhook"] | {"last_attempt_at": ""} == {
        "status": "delivered", "attempts": 1, "last_response_code": 200, "last_attempt_at": "",
        "delivered": True, "status_code": 200,
    }  # fmt: skip
    assert request.method == "POST"
    assert request.path == "/hooks?tenant=1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == delivery.USER_AGENT
    expected = hmac.digest(b"test-secret", request.body, hashlib.sha256).hex()
    assert request.headers["x-transflow-signature"] == f"sha256={expected}"
    content = f"msg_asm-1_1.{request.headers['webhook-timestamp']}.".encode() + request.body
    signature = base64.b64encode(hmac.digest(b"test-secret", content, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{signature}"
    assert request.headers["webhook-id"] == "msg_asm-1_1"
    document = verify_webhook(request.headers, request.body, "test-secret", tolerance=60)
    assert document["assembly_id"] == "asm-1"
    assert set(document) <= set(delivery.PUBLIC_ASSEMBLY_FIELDS)
    assert stored("asm-1")["webhook"]["status"] == "delivered"


@pytest.mark.parametrize(
    ("changes", "refused", "answer"),
    [(None, "not_found", DONE), ({"ttl": 5}, "not_found", DONE), ({"ok": None}, "not_ended", KEPT)],
    ids=["missing", "expired", "running"],
)  # fmt: skip
def test_only_the_end_of_a_stored_assembly_is_delivered(
    delivery: ModuleType, changes: Any, refused: str, answer: Any
) -> None:
    """On demand it is refused; a message of the queue is dropped, or comes again later."""
    if changes:
        put(assembly(**changes))
    assert deliver(delivery) == {"refused": refused}
    assert delivery.handler(message(), Context()) == answer
    assert bool(delivery.postponed) is (answer is KEPT)
    assert delivery.receiver.requests == []


@pytest.mark.parametrize("event", [None, [], {}, {"assembly_id": 5}, {"assembly_id": "a/b"}])
def test_a_malformed_input_is_an_error(delivery: ModuleType, event: Any) -> None:
    with pytest.raises(delivery.ValidationError, match="assembly_id|input"):
        delivery.handler(event, Context())


def test_a_second_delivery_on_demand_within_thirty_seconds_is_refused(delivery: ModuleType) -> None:
    put(assembly())
    deliver(delivery)
    again = deliver(delivery)
    assert again["refused"] == "too_soon"
    assert 1 <= again["retry_after"] <= 30
    assert len(delivery.receiver.requests) == 1
    put(stored("asm-1") | {"webhook_cooldown_until": time.time() - 1})
    assert deliver(delivery)["webhook"]["delivered"] is True
    assert len(delivery.receiver.requests) == 2


def test_a_delivery_on_demand_whose_reservation_has_no_answer_is_made(delivery: ModuleType) -> None:
    """botocore's repetition finds the reservation of this invocation, and not of another one."""
    put(assembly())
    with answer_lost(delivery.dynamodb, "UpdateItem") as lost:
        assert deliver(delivery)["webhook"]["delivered"] is True
    assert (lost["UpdateItem"], len(delivery.receiver.requests)) == (1, 1)


def test_a_failed_attempt_on_demand_is_repeated_with_the_same_id(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    pauses: list[float] = []
    monkeypatch.setattr(delivery.time, "sleep", pauses.append)
    delivery.receiver.behaviours = [reply(503), reply(429, retry_after="2"), reply(204)]
    body = deliver(delivery)
    assert body["webhook"]["delivered"] is True
    assert body["webhook"]["attempts"] == 3
    assert pauses == [0.0, 1.0, 2.0]
    assert len({request.headers["webhook-id"] for request in delivery.receiver.requests}) == 1
    assert stored("asm-1")["webhook"]["attempts"] == 3


@pytest.mark.parametrize(
    ("seconds", "attempts", "shown"),
    [(4.5, 1, {"status_code": 503}), (3.2, 0, {"error": "no_time"})],
)
def test_little_remaining_time_allows_one_attempt_or_none(
    delivery: ModuleType, seconds: float, attempts: int, shown: dict[str, Any]
) -> None:
    put(assembly())
    delivery.receiver.behaviours = [reply(503)]
    webhook = deliver(delivery, seconds)["webhook"]
    assert webhook | {"attempts": attempts, "delivered": False} | shown == webhook
    assert len(delivery.receiver.requests) == attempts


def test_a_410_ends_all_deliveries_of_the_assembly(delivery: ModuleType) -> None:
    put(assembly())
    delivery.receiver.behaviours = [reply(410)]
    first = deliver(delivery)
    second = deliver(delivery)
    assert delivery.handler(message(), Context()) == DONE
    assert first["webhook"]["status"] == "disabled"
    assert second["webhook"]["error"] == "disabled"
    assert len(delivery.receiver.requests) == 1


@pytest.mark.parametrize("secret", ["", "whsec_!!!", "literal", "whsec_"])
def test_nothing_is_sent_without_a_usable_secret(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> None:
    """None, invalid base64, or a malformed reference; from the queue or on demand."""
    if secret == "literal":
        write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="literal")
    else:
        monkeypatch.setenv("HOOK_SECRET", secret)
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    assert delivery.handler(message(), Context()) == DONE
    assert stored("asm-1")["webhook"]["status"] == "unsigned_refused"
    put(assembly())
    assert deliver(delivery)["webhook"]["error"] == "unsigned_refused"
    assert delivery.receiver.requests == []
    assert stored("asm-1")["webhook"]["status"] == "unsigned_refused"


def test_allow_unsigned_sends_without_signatures(delivery: ModuleType, tmp_path: Path) -> None:
    write_templates(tmp_path, webhook_url="env:HOOK_URL", allow_unsigned=True)
    put(assembly())
    assert deliver(delivery)["webhook"]["delivered"] is True
    headers = delivery.receiver.requests[0].headers
    assert headers["webhook-id"] == "msg_asm-1_1"
    assert not {"webhook-signature", "x-transflow-signature"} & set(headers)


@pytest.mark.parametrize("template_id", ["other", None])
def test_a_template_without_a_webhook_is_answered_with_that_reason(
    delivery: ModuleType, template_id: str | None
) -> None:
    put(assembly(template_id=template_id))
    assert deliver(delivery)["webhook"] == {
        "delivered": False,
        "attempts": 0,
        "error": "not_configured",
    }


def test_missing_parameters_are_named_in_answer_and_log(
    delivery: ModuleType, output: Output, tmp_path: Path
) -> None:
    """An unset parameter of the secret does not mean `allow_unsigned`."""
    url, secret = (f"ssm:/jobplane/test/webhooks/{name}" for name in ("url", "secret"))
    references = {
        f"webhook_{name}": f"ssm:/{{service}}/{{stage}}/webhooks/{name}"
        for name in ("url", "secret")
    }
    write_templates(tmp_path, **references)
    put(assembly())
    webhook = deliver(delivery)["webhook"]
    assert (webhook["error"], webhook["missing"]) == ("not_configured", [url, secret])
    (warned,) = [line for line in output.lines if line.get("missing")]
    assert (warned["level"], warned["missing"]) == ("WARNING", webhook["missing"])
    boto3.client("ssm").put_parameter(
        Name=url.removeprefix("ssm:"), Value="https://hooks.example.com/x", Type="String"
    )
    delivery.parameter.cache_clear()
    webhook = deliver(delivery)["webhook"]
    assert (webhook["error"], webhook["missing"]) == ("unsigned_refused", [secret])


def test_a_missing_variable_is_named_by_the_templates_reference(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of the queue is dropped, and its state is not left pending."""
    monkeypatch.delenv("HOOK_URL")
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    assert deliver(delivery)["webhook"]["missing"] == ["env:HOOK_URL"]
    assert delivery.handler(message(), Context()) == DONE
    assert "webhook" not in stored("asm-1")


def test_a_url_of_a_private_address_is_refused(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_URL", "https://169.254.169.254/latest/meta-data")
    put(assembly())
    body = deliver(delivery)
    assert body["webhook"]["error"] == "refused"
    assert "169.254" not in json.dumps(body)
    assert stored("asm-1")["webhook"]["status"] == "refused"


def test_settings_are_read_from_ssm_once_a_minute(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ssm:/… with {stage}, decrypted; one parameter may hold several secrets."""
    write_templates(tmp_path, webhook_url="ssm:/j/{stage}/url", webhook_secret="ssm:/j/{stage}/key")
    ssm = boto3.client("ssm")
    ssm.put_parameter(Name="/j/test/key", Value=f"v1,{NEW}, old-secret", Type="SecureString")
    ssm.put_parameter(Name="/j/test/url", Value="https://hooks.example.com/x", Type="String")
    first = delivery.hook_of(delivery.templates()["tpl"])
    assert (first.url, first.secrets) == (
        "https://hooks.example.com/x",
        (NEW, "old-secret"),
    )
    ssm.delete_parameter(Name="/j/test/key")
    assert delivery.hook_of(delivery.templates()["tpl"]) == first
    later = time.time() + 61
    monkeypatch.setattr(delivery.parameter("/j/test/key"), "_clock", lambda: later)
    assert delivery.hook_of(delivery.templates()["tpl"]).secrets == ()


def test_a_message_of_the_queue_makes_one_attempt(delivery: ModuleType, output: Output) -> None:
    """A 2xx ends the delivery, and is stored; the message is dropped when it comes again."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    for _ in range(2):
        assert delivery.handler(message(), Context()) == DONE
    assert len(delivery.receiver.requests) == 1
    item = stored("asm-1")
    assert item["webhook"]["status"] == "delivered"
    assert item["webhook"]["attempts"] == 1
    assert item["webhook"]["last_response_code"] == 200
    assert "webhook_claim_until" not in item
    assert item["rev"] == 4
    (line,) = output.logged("webhook_delivery")
    assert line["host"] == "127.0.0.1"
    assert (line["attempt"], line["status_code"], line["result"]) == (1, 200, "delivered")
    assert output.metric("WebhookAttempts") and output.metric("WebhookDelivered")
    assert "test-secret" not in output.text
    assert "tenant=1" not in output.text


@pytest.mark.parametrize("write", ["webhook_claim_until = :until", "webhook = :state"])
def test_a_delivery_whose_write_has_no_answer_is_made_once(
    delivery: ModuleType, write: str
) -> None:
    """The message is not kept for another receive; a worker's mark stays as it is."""
    put(assembly(webhook={"status": "pending", "attempts": 0}, write_id="worker"))
    lost = answer_lost(delivery.dynamodb, "UpdateItem", when=lambda body: f"#{write}" in body)
    with lost as losses:
        assert delivery.handler(message(), Context()) == DONE
    assert (losses["UpdateItem"], len(delivery.receiver.requests)) == (1, 1)
    assert stored("asm-1")["webhook"]["status"] == "delivered"
    assert stored("asm-1")["write_id"] == "worker"


def test_the_document_of_an_older_run_is_not_sent_after_it_was_read(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The assembly is run again, and ends, between the look at it and the claim on its delivery."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    whole = delivery.claim_delivery

    def claim(item: dict[str, Any], now: float) -> bool:
        put(assembly(execution=2, webhook={"status": "pending", "attempts": 0}))
        return bool(whole(item, now))

    monkeypatch.setattr(delivery, "claim_delivery", claim)
    assert delivery.handler(message(), Context()) == KEPT
    monkeypatch.undo()
    assert delivery.handler(message(), Context()) == DONE
    assert delivery.receiver.requests == []
    assert "webhook_claim_until" not in stored("asm-1")


def test_a_new_execution_is_delivered_with_a_new_id(delivery: ModuleType) -> None:
    put(assembly())
    delivery.handler(message(), Context())
    put(stored("asm-1") | {"execution": 2})
    delivery.handler(message(execution=2), Context())
    ids = [request.headers["webhook-id"] for request in delivery.receiver.requests]
    assert ids == ["msg_asm-1_1", "msg_asm-1_2"]
    assert stored("asm-1")["webhook"]["attempts"] == 1


@pytest.mark.parametrize(("execution", "answer"), [(1, DONE), (3, KEPT)], ids=["replaced", "new"])
def test_only_the_stored_execution_is_delivered(
    delivery: ModuleType, execution: int, answer: Any
) -> None:
    """A message of a replaced one is dropped, and of one that is not stored yet repeated."""
    put(assembly(execution=2))
    assert delivery.handler(message(execution=execution), Context()) == answer
    assert delivery.receiver.requests == []


def test_a_duplicate_waits_while_another_receive_delivers(delivery: ModuleType) -> None:
    put(assembly(webhook_claim_until=time.time() + 10))
    assert delivery.handler(message(), Context()) == KEPT
    assert delivery.receiver.requests == []
    assert delivery.postponed == [20]


def test_a_message_delivered_after_the_read_is_not_delivered_again(delivery: ModuleType) -> None:
    """The next receive drops it."""
    put(assembly())
    claim = delivery.claim_delivery

    def then_delivered(item: dict[str, Any], now: float) -> bool:
        state = {"status": "delivered", "attempts": 1}
        put(stored("asm-1") | {"webhook": state, "webhook_execution": 1})
        claimed: bool = claim(item, now)
        return claimed

    delivery.claim_delivery = then_delivered
    assert delivery.handler(message(), Context()) == KEPT
    assert delivery.handler(message(receives=2), Context()) == DONE
    assert delivery.receiver.requests == []


@pytest.mark.parametrize("late", [200, 404, 500])
@pytest.mark.parametrize("other", ["delivered", "retrying"])
def test_a_late_receive_replaces_no_outcome_of_the_next_one(
    delivery: ModuleType, late: int, other: str
) -> None:
    """It stood still until another receive had claimed the delivery; only its success counts."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    attempt, state = delivery.attempt, {"status": other, "attempts": 2}

    def slow(*arguments: Any) -> Any:
        outcome = attempt(*arguments)
        until = {} if other == "delivered" else {"webhook_claim_until": time.time() + 20}
        row = stored("asm-1") | {"webhook": state, "webhook_execution": 1} | until
        put(row if until else {k: v for k, v in row.items() if k != "webhook_claim_until"})
        return outcome

    delivery.attempt = slow
    delivery.receiver.behaviours = [reply(late)]
    assert delivery.handler(message(), Context()) == (DONE if late == 200 else KEPT)
    item = stored("asm-1")
    if late == 200:
        assert item["webhook"]["status"] == "delivered"
    else:
        assert item["webhook"] == state
        assert ("webhook_claim_until" in item) is (other == "retrying")


@pytest.mark.parametrize("code", [404, 500])
@pytest.mark.parametrize("made", ["delivered", "disabled", "failed"])
@pytest.mark.parametrize("read", ["retrying", "delivered", None])
def test_a_failure_on_demand_does_not_undo_an_outcome_recorded_meanwhile(
    delivery: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    made: str,
    read: str | None,
) -> None:
    known = {"webhook": {"status": read, "attempts": 1}, "webhook_execution": 1} if read else {}
    put(assembly(**known))
    attempts = delivery.attempt_repeatedly
    meanwhile = {
        "webhook": {"status": made, "attempts": 2},
        "webhook_execution": 1,
        "webhook_disabled": made == "disabled",
        "webhook_claim_until": 7,
    }

    def slow(*arguments: Any) -> Any:
        outcome = attempts(*arguments)
        put(stored("asm-1") | meanwhile)
        return outcome

    delivery.attempt_repeatedly = slow
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    delivery.receiver.behaviours = [reply(code)] * 3
    answer = deliver(delivery)["webhook"]
    assert (answer["delivered"], answer["status"]) == (False, made)
    assert meanwhile.items() <= stored("asm-1").items()


def test_retries_share_an_id_and_have_new_timestamps_and_signatures(delivery: ModuleType) -> None:
    put(assembly())
    delivery.receiver.behaviours = [reply(500), reply(200)]
    delivery.handler(message(), Context())
    delivery.handler(message(receives=2), Context())
    first, second = (request.headers["webhook-id"] for request in delivery.receiver.requests)
    assert first == second
    assert stored("asm-1")["webhook"]["attempts"] == 2
    assert stored("asm-1")["webhook"]["status"] == "delivered"


def test_retry_after_is_respected_up_to_six_hours(delivery: ModuleType) -> None:
    put(assembly())
    delivery.receiver.behaviours = [reply(429, retry_after="1000"), reply(503, retry_after="99999")]
    delivery.handler(message(), Context())
    delivery.handler(message(), Context())
    assert delivery.postponed == [1000, 21600]


@pytest.mark.parametrize(
    ("code", "receives", "waits", "status"),
    [
        (503, 2, range(27, 34), "retrying"),
        (500, 6, range(5 * 3600, 7 * 3600), "retrying"),
        (500, 7, range(1), "failed"),
        (404, 1, None, "failed"),
        (302, 1, None, "failed"),
        (410, 1, None, "disabled"),
    ],
)
def test_a_failed_attempt_is_repeated_or_ends_the_delivery(
    delivery: ModuleType, output: Output, code: int, receives: int, waits: Any, status: str
) -> None:
    """After the seventh the message goes to the dead-letter queue without a further wait."""
    put(assembly())
    delivery.receiver.behaviours = [reply(code, location="/x")]
    answer = delivery.handler(message(receives=receives), Context())
    assert answer == (KEPT if waits else DONE)
    assert [seconds in waits for seconds in delivery.postponed] == ([True] if waits else [])
    assert len(delivery.receiver.requests) == 1
    webhook = stored("asm-1")["webhook"]
    assert (webhook["status"], webhook["last_response_code"]) == (status, code)
    assert len(output.metric("WebhookFailed")) == (status != "retrying")


def test_log_lines_and_post_have_the_request_and_trace_ids_of_the_message(
    delivery: ModuleType, output: Output
) -> None:
    put(assembly(request_id="req-1"))
    event = message()
    event["Records"][0]["attributes"]["AWSTraceHeader"] = (
        "Root=1-6921a0c2-3f1d2c4b5a69788796a5b4c3;Parent=53995c3f42cd8ad8;Sampled=0"
    )
    assert delivery.handler(event, Context()) == DONE
    (line,) = output.logged("webhook_delivery")
    assert line["request_id"] == "req-1"
    assert line["xray_trace_id"] == "1-6921a0c2-3f1d2c4b5a69788796a5b4c3"
    trace = "00-6921a0c23f1d2c4b5a69788796a5b4c3-53995c3f42cd8ad8-00"
    assert delivery.receiver.requests[0].headers["traceparent"] == trace


def test_an_unreadable_configuration_is_a_failed_attempt(
    delivery: ModuleType, tmp_path: Path
) -> None:
    """Up to the last one; a delivery on demand is answered with that reason."""
    delivery.TEMPLATES_INDEX = tmp_path / "absent.json"
    put(assembly())
    assert deliver(delivery)["webhook"]["error"] == "configuration_unavailable"
    for receives, status in ((1, "retrying"), (7, "failed")):
        assert delivery.handler(message(receives=receives), Context()) == KEPT
        assert stored("asm-1")["webhook"]["status"] == status


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "{}", '{"assembly_id":5}', '{"assembly_id":"a/b"}',
     '{"assembly_id":"asm-1","execution":"1"}', "[" * 100_000],
)  # fmt: skip
def test_an_unreadable_message_goes_to_the_dead_letter_queue(
    delivery: ModuleType, body: str
) -> None:
    put(assembly())
    assert delivery.handler(sqs(body), Context()) == KEPT
    assert delivery.postponed == [0]


@pytest.mark.parametrize(
    "record",
    [
        {"eventSource": "aws:sqs"},
        {"eventSource": "aws:sqs", "messageId": "message-1", "body": None, "attributes": 5},
        {"eventSource": "aws:sqs", "messageId": "message-1", "body": {"assembly_id": "asm-1"}},
        *({"eventSource": "aws:sqs", "messageId": name, "body": "nonsense"}
          for name in (None, 7, {}, "", "a b", "\ud800", "m" * 129)),
    ],
)  # fmt: skip
def test_a_malformed_record_fails_alone(delivery: ModuleType, record: dict[str, Any]) -> None:
    """Without an id that can be answered the whole batch fails."""
    name = record.get("messageId")
    answer = delivery.handler({"Records": [record]}, Context())
    expected = "message-1" if name == "message-1" else ""
    assert answer == {"batchItemFailures": [{"itemIdentifier": expected}]}


def test_only_the_faulty_message_of_a_batch_is_kept(delivery: ModuleType) -> None:
    put(assembly())
    good = json.dumps({"assembly_id": "asm-1", "execution": 1, "template_id": "tpl"})
    answered = delivery.handler(sqs("{", good), Context())
    assert answered == KEPT
    assert len(delivery.receiver.requests) == 1


def test_the_messages_of_a_batch_are_delivered_concurrently(delivery: ModuleType) -> None:
    from threading import Barrier

    together = Barrier(5, timeout=10)

    def wait(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        reply(200)(handler)

    bodies = []
    for number in range(5):
        put(assembly(f"asm-{number}"))
        bodies.append(json.dumps({"assembly_id": f"asm-{number}", "execution": 1}))
    delivery.receiver.behaviours = [wait]
    assert delivery.handler(sqs(*bodies), Context()) == DONE
    assert len(delivery.receiver.requests) == 5


def test_a_message_is_repeated_if_the_table_fails(delivery: ModuleType) -> None:

    def fail(**_: Any) -> Any:
        raise RuntimeError("no table")

    delivery.dynamodb.get_item = fail
    assert delivery.handler(message(), Context()) == KEPT
    assert 4 <= delivery.postponed[0] <= 6


def test_a_postponed_message_is_hidden_in_its_queue(container: Container) -> None:
    sqs_client = boto3.client("sqs")
    url = sqs_client.create_queue(QueueName="webhooks")["QueueUrl"]
    module = container(NAME, WEBHOOKS_QUEUE_URL=url)
    sqs_client.send_message(QueueUrl=url, MessageBody="x")
    (received,) = sqs_client.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"]
    module.postpone(received["ReceiptHandle"], 4.2)
    assert "Messages" not in sqs_client.receive_message(QueueUrl=url)


def test_a_failed_change_of_visibility_is_only_logged(container: Container, output: Output) -> None:
    """The queue's own timeout brings the message back."""
    module = container(NAME)
    module.postpone("no-such-receipt", 5)
    assert output.logged("message not postponed")


def test_the_outcome_of_an_earlier_execution_does_not_overwrite_a_newer_state(
    delivery: ModuleType,
) -> None:
    put(assembly(execution=2, webhook={"status": "pending", "attempts": 0}))
    delivery.record_webhook(assembly(execution=1), "failed", 7, 500)
    assert stored("asm-1")["webhook"] == {"status": "pending", "attempts": 0}


@pytest.mark.parametrize("status", ["delivered", "retrying"])
def test_a_failed_delivery_on_demand_keeps_the_state(delivery: ModuleType, status: str) -> None:
    """It neither undoes a delivery nor ends the retries of the queue."""
    put(assembly(webhook={"status": status, "attempts": 1}, webhook_execution=1))
    delivery.receiver.behaviours = [reply(404)]
    assert deliver(delivery)["webhook"]["delivered"] is False
    webhook = stored("asm-1")["webhook"]
    assert (webhook["status"], webhook["attempts"]) == (status, 2)


def test_the_outcome_for_an_expired_assembly_creates_no_row(delivery: ModuleType) -> None:
    delivery.record_webhook(assembly("asm-9"), "delivered", 1, 200)
    with pytest.raises(KeyError):
        stored("asm-9")


def test_the_user_agent_has_the_functions_version(strict: ModuleType) -> None:
    project = tomllib.loads((ROOT / "functions" / NAME / "pyproject.toml").read_text())["project"]
    assert f"Jobplane/{project['version']}" == strict.USER_AGENT


@with_fixtures(examples(200))
@given(event=events("Records", "eventSource", "messageId", "body", "attributes", "assembly_id"))
def test_any_json_event_gets_a_valid_answer_or_a_named_error(
    delivery: ModuleType, event: Any
) -> None:
    put(assembly())
    try:
        answered = delivery.handler(event, Context())
    except delivery.ValidationError as error:
        assert error.field in {"assembly_id", "input"}
    else:
        assert len(answered.keys() & {"batchItemFailures", "webhook", "refused"}) == 1
