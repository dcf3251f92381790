"""deliver-webhook: schedule, signatures, attempts and their outcomes."""

import base64
import hashlib
import hmac
import json
import math
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from moto import mock_aws

from jobplane.tree.repository import Function, Repository
from jobplane.trying.cases import Case, case_paths, run_in_process
from jobplane_client import verify_webhook
from tests.examples import examples
from tests.unit.assemblies import (
    ENVIRONMENT,
    LOCAL,
    ROOT,
    Context,
    Receiver,
    assembly,
    create_table,
    events,
    load,
    log_lines,
    message,
    metric_names,
    put,
    receiving,
    reply,
    sqs,
    stored,
    write_templates,
)
from tests.unit.stack import answer_lost

NAME = "deliver-webhook"
DONE: dict[str, Any] = {"batchItemFailures": []}
FUNCTION = Function(NAME, ROOT / "functions" / NAME)
CASES = case_paths(FUNCTION)
KEPT = {"batchItemFailures": [{"itemIdentifier": "message-1"}]}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        create_table()
        yield


@pytest.fixture
def delivery(aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The function with a template whose hook is in HOOK_URL, signed with `test-secret`."""
    index = write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="env:HOOK_SECRET")
    monkeypatch.setenv("HOOK_SECRET", "test-secret")
    module = load(monkeypatch, NAME, TEMPLATES_INDEX_PATH=index, **LOCAL)
    monkeypatch.setattr(module, "postponed", [], raising=False)
    monkeypatch.setattr(
        module, "postpone", lambda receipt, seconds: module.postponed.append(math.ceil(seconds))
    )
    return module


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function as deployed by default: no allow-list, https only."""
    return load(monkeypatch, NAME)


def hook(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("HOOK_URL", receiver.url)


def deliver(delivery: ModuleType, seconds: float = 30.0) -> dict[str, Any]:
    """The answer of a delivery on demand."""
    answered: dict[str, Any] = delivery.handler({"assembly_id": "asm-1"}, Context(seconds))
    return answered


# The id and the schedule


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
    """A tenth in either direction."""
    assert strict.retry_delay(receives, 0.5) == planned
    assert strict.retry_delay(receives, 0.0) == pytest.approx(planned * 0.9)
    assert strict.retry_delay(receives, 1.0) == pytest.approx(planned * 1.1)


def test_maxReceiveCount_of_the_queue_equals_the_number_of_attempts(strict: ModuleType) -> None:
    queues = yaml.safe_load((ROOT / "resources/queues.yml").read_text())["Resources"]
    policy = queues["WebhooksQueue"]["Properties"]["RedrivePolicy"]
    assert policy["maxReceiveCount"] == strict.MAX_RECEIVES


# On demand


def test_a_delivery_on_demand_posts_the_signed_public_document(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says that it was delivered."""
    put(assembly(results={"2": [{"id": "result_1", "size": 1.0}], "a": []}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        body = deliver(delivery)
    (request,) = receiver.requests
    assert body["webhook"] | {"last_attempt_at": ""} == {
        "status": "delivered",
        "attempts": 1,
        "last_response_code": 200,
        "last_attempt_at": "",
        "delivered": True,
        "status_code": 200,
    }
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
    document = json.loads(request.body)
    assert document["assembly_id"] == "asm-1"
    assert set(document) <= set(delivery.PUBLIC_ASSEMBLY_FIELDS)
    assert stored("asm-1")["webhook"]["status"] == "delivered"


def test_the_signed_timestamp_is_that_of_the_attempt(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a receiver that checks the age accepts it."""
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        deliver(delivery)
    (request,) = receiver.requests
    document = verify_webhook(request.headers, request.body, "test-secret", tolerance=60)
    assert document["assembly_id"] == "asm-1"


def test_a_delivery_for_a_running_assembly_is_refused(delivery: ModuleType) -> None:
    put(assembly(ok=None))
    assert deliver(delivery) == {"refused": "not_ended"}


@pytest.mark.parametrize("item", [None, assembly(ttl=5)])
def test_a_delivery_for_a_missing_or_expired_assembly_is_refused(
    delivery: ModuleType, item: dict[str, Any] | None
) -> None:
    """DynamoDB may delete it later."""
    if item:
        put(item)
    assert deliver(delivery) == {"refused": "not_found"}


@pytest.mark.parametrize("event", [None, [], {}, {"assembly_id": 5}, {"assembly_id": "a/b"}])
def test_a_malformed_input_is_an_error(delivery: ModuleType, event: Any) -> None:
    """It names the field."""
    with pytest.raises(delivery.ValidationError, match="assembly_id|input"):
        delivery.handler(event, Context())


def test_a_second_delivery_on_demand_within_thirty_seconds_is_refused(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        deliver(delivery)
        again = deliver(delivery)
    assert again["refused"] == "too_soon"
    assert 1 <= again["retry_after"] <= 30
    assert len(receiver.requests) == 1


def test_a_delivery_on_demand_whose_reservation_has_no_answer_is_made(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore's repetition finds the reservation of this invocation, and not of another one."""
    put(assembly())
    with receiving() as receiver, answer_lost(delivery.dynamodb, "UpdateItem") as lost:
        hook(monkeypatch, receiver)
        assert deliver(delivery)["webhook"]["delivered"] is True
    assert (lost["UpdateItem"], len(receiver.requests)) == (1, 1)


def test_a_delivered_webhook_can_be_sent_again_after_thirty_seconds(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(webhook_cooldown_until=time.time() - 1, webhook={"status": "delivered"}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert deliver(delivery)["webhook"]["delivered"] is True
    assert len(receiver.requests) == 1


def test_a_failed_attempt_on_demand_is_repeated_with_the_same_id(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    pauses: list[float] = []
    monkeypatch.setattr(delivery.time, "sleep", pauses.append)
    with receiving(reply(503), reply(429, retry_after="2"), reply(204)) as receiver:
        hook(monkeypatch, receiver)
        body = deliver(delivery)
    assert body["webhook"]["delivered"] is True
    assert body["webhook"]["attempts"] == 3
    assert pauses == [0.0, 1.0, 2.0]
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert stored("asm-1")["webhook"]["attempts"] == 3


def test_little_remaining_time_allows_one_attempt(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer still comes."""
    put(assembly())
    with receiving(reply(503)) as receiver:
        hook(monkeypatch, receiver)
        body = deliver(delivery, seconds=4.5)
    assert body["webhook"]["attempts"] == 1
    assert body["webhook"] | {"delivered": False, "status_code": 503} == body["webhook"]


def test_without_remaining_time_no_attempt_is_made(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        body = deliver(delivery, seconds=3.2)
    assert body["webhook"]["error"] == "no_time"
    assert receiver.requests == []


def test_a_410_ends_all_deliveries_of_the_assembly(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving(reply(410)) as receiver:
        hook(monkeypatch, receiver)
        first = deliver(delivery)
        second = deliver(delivery)
        assert delivery.handler(message(), Context()) == DONE
    assert first["webhook"]["status"] == "disabled"
    assert second["webhook"]["error"] == "disabled"
    assert len(receiver.requests) == 1


def test_nothing_is_sent_without_a_secret(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document has the reason."""
    put(assembly())
    monkeypatch.delenv("HOOK_SECRET")
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        body = deliver(delivery)
    assert body["webhook"]["error"] == "unsigned_refused"
    assert receiver.requests == []
    assert stored("asm-1")["webhook"]["status"] == "unsigned_refused"


@pytest.mark.parametrize("secret", ["whsec_!!!", "literal", "whsec_"])
def test_nothing_is_sent_with_an_unusable_secret(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> None:
    """Invalid base64, or a malformed reference."""
    if secret == "literal":
        write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="literal")
    else:
        monkeypatch.setenv("HOOK_SECRET", secret)
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert deliver(delivery)["webhook"]["error"] == "unsigned_refused"
    assert receiver.requests == []


def test_allow_unsigned_sends_without_signatures(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With id and timestamp."""
    write_templates(tmp_path, webhook_url="env:HOOK_URL", allow_unsigned=True)
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert deliver(delivery)["webhook"]["delivered"] is True
    headers = receiver.requests[0].headers
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


SETTINGS = {
    "webhook_url": "ssm:/{service}/{stage}/webhooks/url",
    "webhook_secret": "ssm:/{service}/{stage}/webhooks/secret",
}


def test_a_missing_parameter_is_named_in_answer_and_log(
    delivery: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_templates(tmp_path, **SETTINGS)
    put(assembly())
    webhook = deliver(delivery)["webhook"]
    assert webhook["error"] == "not_configured"
    assert webhook["missing"] == [
        "ssm:/jobplane/test/webhooks/url",
        "ssm:/jobplane/test/webhooks/secret",
    ]
    (told,) = [line for line in log_lines(capsys.readouterr().out) if line.get("missing")]
    assert (told["level"], told["missing"]) == ("WARNING", webhook["missing"])


def test_a_missing_variable_is_named_by_the_templates_reference(delivery: ModuleType) -> None:
    put(assembly())
    assert deliver(delivery)["webhook"]["missing"] == ["env:HOOK_URL"]


def test_a_missing_secret_is_named_and_nothing_is_sent_unsigned(
    delivery: ModuleType, tmp_path: Path
) -> None:
    """An unset parameter does not mean `allow_unsigned`."""
    write_templates(tmp_path, **SETTINGS)
    boto3.client("ssm").put_parameter(
        Name="/jobplane/test/webhooks/url", Value="https://hooks.example.com/x", Type="String"
    )
    put(assembly())
    webhook = deliver(delivery)["webhook"]
    assert webhook["error"] == "unsigned_refused"
    assert webhook["missing"] == ["ssm:/jobplane/test/webhooks/secret"]


def test_a_missing_template_index_is_answered_with_that_reason(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(delivery, "TEMPLATES_INDEX", tmp_path / "absent.json")
    put(assembly())
    assert deliver(delivery)["webhook"]["error"] == "configuration_unavailable"


def test_a_url_of_a_private_address_is_refused(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer does not have the address."""
    monkeypatch.setenv("HOOK_URL", "https://169.254.169.254/latest/meta-data")
    put(assembly())
    body = deliver(delivery)
    assert body["webhook"]["error"] == "refused"
    assert "169.254" not in json.dumps(body)
    assert stored("asm-1")["webhook"]["status"] == "refused"


# References


def test_secrets_are_read_from_ssm_once_a_minute(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ssm:/… with {stage}, decrypted; one parameter may hold several secrets."""
    write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="ssm:/j/{stage}/secret")
    boto3.client("ssm").put_parameter(
        Name="/j/test/secret", Value="whsec_bmV3, old", Type="SecureString"
    )
    monkeypatch.setenv("HOOK_URL", "https://example.com/")
    first = delivery.hook_of(delivery.templates()["tpl"])
    boto3.client("ssm").delete_parameter(Name="/j/test/secret")
    assert first.secrets == ("whsec_bmV3", "old")
    assert delivery.hook_of(delivery.templates()["tpl"]) == first
    later = time.time() + 61
    monkeypatch.setattr(delivery.parameter("/j/test/secret"), "_clock", lambda: later)
    assert delivery.hook_of(delivery.templates()["tpl"]).secrets == ()


def test_the_url_may_be_an_ssm_parameter(delivery: ModuleType, tmp_path: Path) -> None:
    write_templates(tmp_path, webhook_url="ssm:/j/{stage}/url")
    boto3.client("ssm").put_parameter(
        Name="/j/test/url", Value="https://hooks.example.com/x", Type="String"
    )
    assert delivery.hook_of(delivery.templates()["tpl"]).url == "https://hooks.example.com/x"


# From the queue


def test_a_message_of_the_queue_makes_one_attempt(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 2xx ends the delivery, and is stored."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(), Context()) == DONE
    assert len(receiver.requests) == 1
    item = stored("asm-1")
    assert item["webhook"]["status"] == "delivered"
    assert item["webhook"]["attempts"] == 1
    assert item["webhook"]["last_response_code"] == 200
    assert "webhook_claim_until" not in item
    assert item["rev"] == 4
    out = capsys.readouterr().out
    (line,) = [line for line in log_lines(out) if line.get("message") == "webhook_delivery"]
    assert line["host"] == "127.0.0.1"
    assert (line["attempt"], line["status_code"], line["result"]) == (1, 200, "delivered")
    assert {"WebhookAttempts", "WebhookDelivered"} <= set(metric_names(out))
    assert "test-secret" not in out
    assert "tenant=1" not in out


@pytest.mark.parametrize("write", ["webhook_claim_until = :until", "webhook = :state"])
def test_a_delivery_whose_write_has_no_answer_is_made_once(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """The message is not kept for another receive; a worker's mark stays as it is."""
    put(assembly(webhook={"status": "pending", "attempts": 0}, write_id="worker"))
    lost = answer_lost(delivery.dynamodb, "UpdateItem", when=lambda body: f"#{write}" in body)
    with receiving() as receiver, lost as losses:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(), Context()) == DONE
    assert (losses["UpdateItem"], len(receiver.requests)) == (1, 1)
    assert stored("asm-1")["webhook"]["status"] == "delivered"
    assert stored("asm-1")["write_id"] == "worker"


def test_a_message_repeated_after_its_delivery_is_dropped(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(), Context()) == DONE
        assert delivery.handler(message(), Context()) == DONE
    assert len(receiver.requests) == 1


def test_a_new_execution_is_delivered_with_a_new_id(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        delivery.handler(message(), Context())
        put(stored("asm-1") | {"execution": 2})
        delivery.handler(message(execution=2), Context())
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert ids == ["msg_asm-1_1", "msg_asm-1_2"]
    assert stored("asm-1")["webhook"]["attempts"] == 1


def test_a_message_of_a_replaced_execution_is_dropped(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(execution=2))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(execution=1), Context()) == DONE
    assert receiver.requests == []


def test_a_duplicate_waits_while_another_receive_delivers(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(webhook_claim_until=time.time() + 10))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(), Context()) == KEPT
    assert receiver.requests == []
    assert delivery.postponed == [20]


def test_a_message_delivered_after_the_read_is_not_delivered_again(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next receive drops it."""
    put(assembly())
    claim = delivery.claim_delivery

    def then_delivered(item: dict[str, Any], now: float) -> bool:
        state = {"status": "delivered", "attempts": 1}
        put(stored("asm-1") | {"webhook": state, "webhook_execution": 1})
        claimed: bool = claim(item, now)
        return claimed

    monkeypatch.setattr(delivery, "claim_delivery", then_delivered)
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(), Context()) == KEPT
        assert delivery.handler(message(receives=2), Context()) == DONE
    assert receiver.requests == []


def test_a_5xx_hides_the_message_until_the_next_attempt(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving(reply(503)) as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(receives=2), Context()) == KEPT
    assert len(receiver.requests) == 1
    assert 27 <= delivery.postponed[0] <= 33
    assert stored("asm-1")["webhook"]["status"] == "retrying"
    assert stored("asm-1")["webhook"]["last_response_code"] == 503


def test_retries_share_an_id_and_have_new_timestamps_and_signatures(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of attempts grows."""
    put(assembly())
    with receiving(reply(500), reply(200)) as receiver:
        hook(monkeypatch, receiver)
        delivery.handler(message(), Context())
        delivery.handler(message(receives=2), Context())
    first, second = (request.headers["webhook-id"] for request in receiver.requests)
    assert first == second
    assert stored("asm-1")["webhook"]["attempts"] == 2
    assert stored("asm-1")["webhook"]["status"] == "delivered"


def test_retry_after_is_respected_up_to_six_hours(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving(reply(429, retry_after="1000"), reply(503, retry_after="999999")) as receiver:
        hook(monkeypatch, receiver)
        delivery.handler(message(), Context())
        delivery.handler(message(), Context())
    assert delivery.postponed == [1000, 21600]


@pytest.mark.parametrize(("code", "word"), [(404, "failed"), (302, "failed"), (410, "disabled")])
def test_other_4xx_redirects_and_410_end_the_delivery(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, code: int, word: str
) -> None:
    put(assembly())
    with receiving(reply(code, location="/x")) as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(), Context()) == DONE
    assert len(receiver.requests) == 1
    assert stored("asm-1")["webhook"]["status"] == word


def test_log_lines_and_post_have_the_request_and_trace_ids_of_the_message(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(assembly(request_id="req-1"))
    event = message()
    event["Records"][0]["attributes"]["AWSTraceHeader"] = (
        "Root=1-6921a0c2-3f1d2c4b5a69788796a5b4c3;Parent=53995c3f42cd8ad8;Sampled=0"
    )
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(event, Context()) == DONE
    (line,) = [
        line
        for line in log_lines(capsys.readouterr().out)
        if line.get("message") == "webhook_delivery"
    ]
    assert line["request_id"] == "req-1"
    assert line["xray_trace_id"] == "1-6921a0c2-3f1d2c4b5a69788796a5b4c3"
    trace = "00-6921a0c23f1d2c4b5a69788796a5b4c3-53995c3f42cd8ad8-00"
    assert receiver.requests[0].headers["traceparent"] == trace


def test_the_seventh_failure_sends_the_message_to_the_dead_letter_queue(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stored state is `failed`."""
    put(assembly())
    with receiving(reply(500)) as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(receives=7), Context()) == KEPT
    assert len(receiver.requests) == 1
    assert delivery.postponed == [0]
    assert stored("asm-1")["webhook"]["status"] == "failed"
    assert "WebhookFailed" in metric_names(capsys.readouterr().out)


def test_the_sixth_failure_plans_the_last_attempt_after_six_hours(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    with receiving(reply(500)) as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(receives=6), Context()) == KEPT
    assert delivery.postponed[0] > 5 * 3600
    assert stored("asm-1")["webhook"]["status"] == "retrying"


def test_a_queued_webhook_without_a_secret_is_refused_at_once(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    monkeypatch.delenv("HOOK_SECRET")
    monkeypatch.setenv("HOOK_URL", "http://127.0.0.1:9/")
    assert delivery.handler(message(), Context()) == DONE
    assert stored("asm-1")["webhook"]["status"] == "unsigned_refused"


def test_a_message_without_a_configured_webhook_is_dropped(delivery: ModuleType) -> None:
    """The state is not left pending."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    assert delivery.handler(message(), Context()) == DONE
    assert "webhook" not in stored("asm-1")


@pytest.mark.parametrize("item", [None, assembly(ttl=5)])
def test_a_message_of_a_missing_or_expired_assembly_is_dropped(
    delivery: ModuleType, item: dict[str, Any] | None
) -> None:
    if item:
        put(item)
    assert delivery.handler(message(), Context()) == DONE


def test_a_message_that_comes_before_the_assemblys_end_is_repeated(delivery: ModuleType) -> None:
    put(assembly(ok=None))
    assert delivery.handler(message(), Context()) == KEPT
    assert delivery.postponed


def test_a_message_of_an_execution_that_is_not_stored_yet_is_repeated(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an earlier execution is not sent under its id."""
    put(assembly(execution=1))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(message(execution=2), Context()) == KEPT
    assert receiver.requests == []


def test_an_unreadable_configuration_is_a_failed_attempt(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Up to the last one."""
    monkeypatch.setattr(delivery, "TEMPLATES_INDEX", tmp_path / "absent.json")
    put(assembly())
    assert delivery.handler(message(), Context()) == KEPT
    assert stored("asm-1")["webhook"]["status"] == "retrying"
    assert delivery.handler(message(receives=7), Context()) == KEPT
    assert stored("asm-1")["webhook"]["status"] == "failed"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"assembly_id":5}',
        '{"assembly_id":"a/b"}',
        '{"assembly_id":"asm-1","execution":"1"}',
        "[" * 100_000,
    ],
)
def test_an_unreadable_message_goes_to_the_dead_letter_queue(
    delivery: ModuleType, body: str
) -> None:
    """It is kept without delay."""
    put(assembly())
    assert delivery.handler(sqs(body), Context()) == KEPT
    assert delivery.postponed == [0]


@pytest.mark.parametrize(
    "record",
    [
        {"eventSource": "aws:sqs"},
        {"eventSource": "aws:sqs", "messageId": "message-1", "body": None, "attributes": 5},
        {"eventSource": "aws:sqs", "messageId": "message-1", "body": {"assembly_id": "asm-1"}},
    ],
)
def test_a_malformed_record_fails_alone(delivery: ModuleType, record: dict[str, Any]) -> None:
    failures = delivery.handler({"Records": [record]}, Context())["batchItemFailures"]
    assert failures == [{"itemIdentifier": record.get("messageId", "")}]


@pytest.mark.parametrize("message_id", [None, 7, {}, "", "a b", "\ud800", "m" * 129])
def test_a_record_without_an_id_fails_its_whole_batch(
    delivery: ModuleType, message_id: Any
) -> None:
    """No answer can name the record."""
    record = {"eventSource": "aws:sqs", "messageId": message_id, "body": "nonsense"}
    answer = delivery.handler({"Records": [record]}, Context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": ""}]}


def test_only_the_faulty_message_of_a_batch_is_kept(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly())
    good = json.dumps({"assembly_id": "asm-1", "execution": 1, "template_id": "tpl"})
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        answered = delivery.handler(sqs("{", good), Context())
    assert answered == KEPT
    assert len(receiver.requests) == 1


def test_the_messages_of_a_batch_are_delivered_concurrently(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Barrier

    together = Barrier(5, timeout=10)

    def wait(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        reply(200)(handler)

    bodies = []
    for number in range(5):
        put(assembly(f"asm-{number}"))
        bodies.append(json.dumps({"assembly_id": f"asm-{number}", "execution": 1}))
    with receiving(wait) as receiver:
        hook(monkeypatch, receiver)
        assert delivery.handler(sqs(*bodies), Context()) == DONE
    assert len(receiver.requests) == 5


def test_a_message_is_repeated_if_the_table_fails(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(**_: Any) -> Any:
        raise RuntimeError("no table")

    monkeypatch.setattr(delivery.dynamodb, "get_item", fail)
    assert delivery.handler(message(), Context()) == KEPT
    assert 4 <= delivery.postponed[0] <= 6


def test_a_postponed_message_is_hidden_in_its_queue(
    aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs_client = boto3.client("sqs")
    url = sqs_client.create_queue(QueueName="webhooks")["QueueUrl"]
    module = load(monkeypatch, NAME, WEBHOOKS_QUEUE_URL=url)
    sqs_client.send_message(QueueUrl=url, MessageBody="x")
    (received,) = sqs_client.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"]
    module.postpone(received["ReceiptHandle"], 4.2)
    assert "Messages" not in sqs_client.receive_message(QueueUrl=url)


def test_a_failed_change_of_visibility_is_only_logged(
    aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The queue's own timeout brings the message back."""
    module = load(monkeypatch, NAME)
    module.postpone("no-such-receipt", 5)
    assert "message not postponed" in capsys.readouterr().out


def test_the_outcome_of_an_earlier_execution_does_not_overwrite_a_newer_state(
    delivery: ModuleType,
) -> None:
    put(assembly(execution=2, webhook={"status": "pending", "attempts": 0}))
    delivery.record_webhook(assembly(execution=1), "failed", 7, 500)
    assert stored("asm-1")["webhook"] == {"status": "pending", "attempts": 0}


def test_a_failed_delivery_on_demand_keeps_the_state_delivered(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(webhook={"status": "delivered", "attempts": 1}, webhook_execution=1))
    with receiving(reply(404)) as receiver:
        hook(monkeypatch, receiver)
        assert deliver(delivery)["webhook"]["delivered"] is False
    assert stored("asm-1")["webhook"]["status"] == "delivered"


def test_the_outcome_for_an_expired_assembly_creates_no_row(delivery: ModuleType) -> None:
    delivery.record_webhook(assembly("asm-9"), "delivered", 1, 200)
    with pytest.raises(KeyError):
        stored("asm-9")


def test_a_failed_delivery_on_demand_does_not_end_the_queues_retries(
    delivery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(webhook={"status": "retrying", "attempts": 1}, webhook_execution=1))
    with receiving(reply(404)) as receiver:
        hook(monkeypatch, receiver)
        assert deliver(delivery)["webhook"]["delivered"] is False
    assert stored("asm-1")["webhook"]["status"] == "retrying"
    assert stored("asm-1")["webhook"]["attempts"] == 2


def test_the_user_agent_has_the_functions_version(strict: ModuleType) -> None:
    project = tomllib.loads((FUNCTION.directory / "pyproject.toml").read_text())["project"]
    assert f"Jobplane/{project['version']}" == strict.USER_AGENT


@pytest.mark.parametrize("name", CASES)
def test_each_example_event_gets_its_expected_answer(name: str) -> None:
    case = Case.read(FUNCTION, CASES[name])
    assert case.expect is not None
    assert run_in_process(case, Repository(ROOT)).problems == []


@settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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
