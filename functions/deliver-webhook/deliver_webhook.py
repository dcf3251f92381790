"""Delivers the signed webhook of an ended assembly, from the queue or on demand.

Trigger: SQS messages of the queue `webhooks`; on demand, an invoke by status.
Input: a batch of SQS messages, each `{assembly_id, execution?, template_id?}`; on demand
`{assembly_id}`, if the caller has checked that the user owns the assembly.
Result: the batch item failures; on demand `{webhook}`, the result of the delivery, or `{refused}`:
`not_found`, `not_ended`, or `too_soon` with `retry_after` in seconds.
Errors: ValidationError on demand; a message that fails stays in the queue.
Reads `assemblies`; writes only its attributes `webhook…`. Signs links to results in S3.
"""

import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeGuard
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config

from jobplane_keys import (
    CLIENT_OPTIONS,
    PUBLIC_ASSEMBLY_FIELDS,
    ValidationError,
    assembly_document,
    checked_input,
    is_assembly_id,
    is_past,
    is_terminal_assembly,
    iso_time,
    json_object,
    link_signer,
    read_item,
    s3_options,
    sign_links,
)
from jobplane_leases import Written, update
from jobplane_parameters import Parameter, split_secrets
from jobplane_telemetry import Telemetry
from jobplane_webhooks import Outcome, TargetRules, compact_json, deliver, signing_key

TABLE = os.environ["DYNAMODB_TABLE"]
FILES_BUCKET = os.environ["FILES_BUCKET"]
WEBHOOKS_QUEUE_URL = os.environ["WEBHOOKS_QUEUE_URL"]
STAGE = os.environ.get("STAGE", "local")
SERVICE = os.environ["SERVICE"]
TEMPLATES_INDEX = os.environ.get("TEMPLATES_INDEX_PATH") or "templates/index.json"
WEBHOOK_RULES = TargetRules.from_environment(os.environ)
LINK_SECONDS = int(os.environ.get("RESULT_LINK_SECONDS") or 3600)

USER_AGENT = "Jobplane/0.1.0"
MESSAGE_ID = re.compile(r"[!-~]{1,128}")
READ_FIELDS = frozenset(PUBLIC_ASSEMBLY_FIELDS) | {
    "ttl", "execution", "webhook_execution", "webhook_disabled",
}  # fmt: skip
ATTEMPT_SECONDS = 10.0
MIN_ATTEMPT_SECONDS = 1.0
RESERVED_SECONDS = 3.0  # of the remaining time, to record the outcome and to answer
ON_DEMAND_SECONDS = 24.0  # status waits for it, and the limit of API Gateway is 29 s
ON_DEMAND_ATTEMPTS = 3
COOLDOWN_SECONDS = 30
CLAIM_SECONDS = 20
PARALLEL_DELIVERIES = 5
RETRY_DELAYS = (5, 30, 120, 600, 3600, 21600)
MAX_RECEIVES = len(RETRY_DELAYS) + 1  # maxReceiveCount of the queue
JITTER = 0.1
PARAMETER_SECONDS = 60.0
NOT_DELIVERED = "NOT (#webhook.#status = :delivered AND #webhook_execution = :execution)"
SAME_EXECUTION = "attribute_not_exists(#execution) OR #execution = :execution"

telemetry = Telemetry("deliver-webhook")
session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
ssm: Any = session.create_client("ssm", config=config)

type Document = dict[str, Any]
type Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueuedDelivery:
    """A message of the webhook queue."""

    assembly_id: str
    execution: int | None
    template_id: str | None
    receives: int


@dataclass(frozen=True, slots=True)
class Hook:
    """The URL of a template's webhooks and the secrets that sign them, the current one first."""

    template_id: str
    url: str
    secrets: tuple[str, ...]
    allow_unsigned: bool


@dataclass(frozen=True, slots=True)
class NoHook:
    """Why nothing is sent, and the settings that are missing."""

    reason: Literal["disabled", "configuration_unavailable", "not_configured", "unsigned_refused"]
    missing: tuple[str, ...] = ()


class CooldownError(Exception):
    """The webhook was sent on demand shortly before; it can be sent again in `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the next delivery on demand may begin in {seconds} s")
        self.seconds = seconds


class UnreadableMessageError(ValueError):
    """A message of the webhook queue is malformed, so that retries are useless."""


def is_queue_event(event: Any) -> bool:
    """Whether the event is a batch of SQS messages."""
    records = json_object(event).get("Records")
    return (
        isinstance(records, list)
        and bool(records)
        and all(json_object(record).get("eventSource") == "aws:sqs" for record in records)
    )


def execution_of(item: Document) -> int:
    """The number of the assembly's run; 1 if the row has none."""
    execution = item.get("execution")
    return execution if isinstance(execution, int) else 1


def earlier_attempts(item: Document) -> int:
    """The number of attempts to send the webhook of this execution."""
    attempts = json_object(item.get("webhook")).get("attempts")
    is_same = item.get("webhook_execution") == execution_of(item)
    return attempts if is_same and isinstance(attempts, int) else 0


def is_delivered(item: Document) -> bool:
    """Whether the receiver has accepted the webhook of this execution."""
    return json_object(item.get("webhook")).get("status") == "delivered" and item.get(
        "webhook_execution"
    ) == execution_of(item)


def is_usable_secret(secret: str) -> bool:
    """Whether the secret is well-formed."""
    try:
        signing_key(secret)
    except ValueError:
        return False
    return True


def webhook_id(assembly_id: str, execution: int) -> str:
    """The id of an execution's webhook, the same for all attempts."""
    return f"msg_{assembly_id}_{execution}"


def retry_delay(receives: int, chance: float) -> float:
    """Seconds until the attempt after the n-th receive; `chance` is a random number in 0..1."""
    planned = RETRY_DELAYS[min(max(receives, 1), len(RETRY_DELAYS)) - 1]
    return planned * (1 + JITTER * (2 * chance - 1))


def queued_delivery(record: Mapping[str, Any]) -> QueuedDelivery:
    """The delivery that an SQS message asks for. Raises UnreadableMessageError."""
    try:
        message = json.loads(record["body"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableMessageError("the body is not JSON") from error
    assembly_id = json_object(message).get("assembly_id")
    if not is_assembly_id(assembly_id):
        raise UnreadableMessageError("assembly_id is missing or malformed")
    execution = message.get("execution")
    if not isinstance(execution, int | None) or isinstance(execution, bool):
        raise UnreadableMessageError("execution is not a number")
    template_id = message.get("template_id")
    return QueuedDelivery(
        assembly_id=assembly_id,
        execution=execution,
        template_id=template_id if isinstance(template_id, str) else None,
        receives=receives_of(record),
    )


def receives_of(record: Mapping[str, Any]) -> int:
    """How often the message was received, including this time."""
    count = json_object(record.get("attributes")).get("ApproximateReceiveCount")
    return int(count) if isinstance(count, str) and count.isdecimal() else 1


def message_id_of(record: Mapping[str, Any]) -> str:
    """The id of a message; empty without one, which makes Lambda retry the whole batch."""
    message_id = record.get("messageId")
    named = isinstance(message_id, str) and MESSAGE_ID.fullmatch(message_id)
    return str(message_id) if named else ""


def trace_of(record: Mapping[str, Any]) -> str | None:
    """The X-Ray header of the sender of the message."""
    header = json_object(record.get("attributes")).get("AWSTraceHeader")
    return header if isinstance(header, str) else None


@cache
def s3() -> Any:
    """The client that signs links; created at first use, as many deliveries have no links."""
    return session.create_client("s3", config=Config(**CLIENT_OPTIONS, **s3_options(os.environ)))


# A link to an object of the files bucket, from its key.
sign_download = link_signer(s3, FILES_BUCKET, LINK_SECONDS)


@cache
def sqs() -> Any:
    """The client of the queue; created at first use, as deliveries on demand don't need it."""
    return session.create_client("sqs", config=config)


@cache
def templates() -> dict[str, Document]:
    """The templates of this artifact by id."""
    from pathlib import Path  # not needed for messages that need no delivery

    index = json.loads(Path(__file__).parent.joinpath(TEMPLATES_INDEX).read_bytes())
    return {template["id"]: template for template in index["templates"]}


def linked_document(item: Document, now: float) -> Document:
    """The public document, with a new link for each result in the bucket."""
    return assembly_document(sign_links(item, sign_download), now)


@cache
def parameter(name: str) -> Parameter[str | None]:
    """An SSM parameter, at most PARAMETER_SECONDS old; its value is None if it does not exist."""
    return Parameter(
        ssm, name, lambda text: text, max_age=PARAMETER_SECONDS, report=telemetry.error
    )


def is_reference(setting: Any) -> TypeGuard[str]:
    """Whether a setting of a template is `env:NAME` or `ssm:/path`."""
    return isinstance(setting, str) and setting.startswith(("env:", "ssm:"))


def in_stage(reference: str) -> str:
    """A reference of a template, with the names of this service and stage."""
    return reference.replace("{service}", SERVICE).replace("{stage}", STAGE)


def referenced(reference: str) -> str | None:
    """The value of a reference; None if it does not exist."""
    kind, _, name = in_stage(reference).partition(":")
    return os.environ.get(name) if kind == "env" else parameter(name).value()


def hook_of(template: Document) -> Hook | None:
    """The template's webhook, or None if it has none."""
    url, secret = template.get("webhook_url"), template.get("webhook_secret")
    if is_reference(url):
        url = referenced(url)
    if not url:
        return None
    secrets = split_secrets((referenced(secret) if is_reference(secret) else None) or "")
    usable = tuple(filter(is_usable_secret, secrets))
    if len(usable) < len(secrets):
        telemetry.error("webhook secret is not usable", template_id=template["id"])
    return Hook(template["id"], url.strip(), usable, template.get("allow_unsigned") is True)


def missing_settings(template: Document) -> tuple[str, ...]:
    """The references of the template's webhook that have no value and must be set."""
    needed = [template.get("webhook_url")]
    if template.get("allow_unsigned") is not True:
        needed.append(template.get("webhook_secret"))
    return tuple(in_stage(each) for each in needed if is_reference(each) and not referenced(each))


def update_assembly(assembly_id: str, change: str, condition: str, **values: Any) -> Written:
    """Change a row if it exists and the condition is met."""
    return update(
        dynamodb,
        TABLE,
        {"assembly_id": assembly_id},
        change=change,
        condition=f"attribute_exists(assembly_id) AND ({condition})",
        values=values,
        mark="webhook_write_id",
    )


def start_cooldown(assembly_id: str, now: float) -> None:
    """Reserve the next delivery on demand. Raises CooldownError shortly after another one."""
    done, item = update_assembly(
        assembly_id,
        "SET #webhook_cooldown_until = :until",
        "attribute_not_exists(#webhook_cooldown_until) OR #webhook_cooldown_until <= :now",
        until=now + COOLDOWN_SECONDS,
        now=now,
    )
    if not done:
        left = item.get("webhook_cooldown_until", now + COOLDOWN_SECONDS) - now
        raise CooldownError(min(max(1, math.ceil(left)), COOLDOWN_SECONDS))


def claim_delivery(item: Document, now: float) -> bool:
    """Claim the delivery, so that no other receive delivers; False if one does, or the assembly has
    begun again: so the document of an older run is not sent after that of a newer one.
    """
    return update_assembly(
        item["assembly_id"],
        "SET #webhook_claim_until = :until",
        "(attribute_not_exists(#webhook_claim_until) OR #webhook_claim_until <= :now)"
        f" AND ({SAME_EXECUTION}) AND {NOT_DELIVERED}",
        until=now + CLAIM_SECONDS,
        now=now,
        delivered="delivered",
        execution=execution_of(item),
    ).done


def record_webhook(
    item: Document,
    status: str,
    attempts: int,
    code: int | None,
    claim: float | None = None,
    *,
    is_outcome: bool = True,
) -> Written:
    """Record the webhook's state, and end the claim on its delivery.

    Neither the row of a newer execution is changed, nor a delivery undone; and with `claim`, the
    end of the delivery's claim, only `delivered` is recorded once another receive has claimed it.
    A state that ends nothing changes only the state that was read: a receive may have ended it.
    """
    state: Document = {"status": status, "attempts": attempts}
    if code is not None:
        state["last_response_code"] = code
    if attempts:
        state["last_attempt_at"] = iso_time(time.time())
    others: list[str] = []
    values: Document = {"execution": execution_of(item)}
    if status not in {"delivered", "disabled"}:
        others.append(NOT_DELIVERED)
        values["delivered"] = "delivered"
    if not is_outcome:
        known = "webhook" in item
        others.append("#webhook = :read" if known else "attribute_not_exists(#webhook)")
        values |= {"read": item["webhook"]} if known else {}
    change = "SET #webhook = :state, #webhook_execution = :execution, #webhook_disabled = :disabled"
    if claim is not None:
        change += " REMOVE #webhook_claim_until"
        if status != "delivered":
            others.append("#webhook_claim_until = :claim")
            values["claim"] = claim
    written = update_assembly(
        item["assembly_id"],
        change,
        " AND ".join([f"({SAME_EXECUTION})", *others]) if others else SAME_EXECUTION,
        state=state,
        disabled=status == "disabled",
        **values,
    )
    if not written.done:
        telemetry.info("webhook state is out of date", status=status)
        return written
    if status in {"failed", "disabled", "refused", "unsigned_refused"}:
        telemetry.metric("WebhookFailed")
    elif status == "delivered":
        telemetry.metric("WebhookDelivered")
    return written


def forget_webhook(item: Document) -> None:
    """Remove the state of a webhook that is not sent, as the template has none."""
    update_assembly(
        item["assembly_id"], "REMOVE #webhook", SAME_EXECUTION, execution=execution_of(item)
    )


def postpone(receipt: str, seconds: float) -> None:
    """Hide a message until its next attempt. On failure the queue's own timeout applies."""
    try:
        sqs().change_message_visibility(
            QueueUrl=WEBHOOKS_QUEUE_URL, ReceiptHandle=receipt, VisibilityTimeout=math.ceil(seconds)
        )
    except Exception as error:
        telemetry.exception("message not postponed", error)


def attempt(hook: Hook, item: Document, number: int, seconds: float) -> Outcome:
    """Send the assembly's document once; log and count the attempt."""
    started = time.monotonic()
    outcome = deliver(
        hook.url,
        compact_json(linked_document(item, time.time())).encode(),
        hook.secrets,
        message_id=webhook_id(item["assembly_id"], execution_of(item)),
        user_agent=USER_AGENT,
        seconds=seconds,
        rules=WEBHOOK_RULES,
        allow_unsigned=hook.allow_unsigned,
        trace_header=telemetry.trace_header,
    )
    telemetry.metric("WebhookAttempts")
    telemetry.info(
        "webhook_delivery",
        assembly_id=item["assembly_id"],
        template_id=hook.template_id,
        host=host_to_log(hook.url),
        attempt=number,
        status_code=outcome.status_code,
        duration_ms=round((time.monotonic() - started) * 1000),
        result=outcome.result,
        cause=outcome.cause,
    )
    return outcome


def host_to_log(url: str) -> str | None:
    """The host of a URL, without path and query: these may contain secrets."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def hook_for(item: Document, template_id: Any) -> Hook | NoHook:
    """The webhook to send to, or why it is not sent."""
    if item.get("webhook_disabled") is True:
        return NoHook("disabled")
    try:
        template = templates().get(template_id, {}) if isinstance(template_id, str) else {}
        hook = hook_of(template)
        if hook is not None and (hook.secrets or hook.allow_unsigned):
            return hook
        missing = missing_settings(template)
    except Exception as error:
        telemetry.exception("webhook configuration not read", error)
        return NoHook("configuration_unavailable")
    if missing:
        telemetry.warning("webhook settings are missing", template_id=template_id, missing=missing)
    if hook is None:
        telemetry.info("template has no webhook", template_id=template_id)
        return NoHook("not_configured", missing)
    telemetry.error("webhook without a secret is not sent", template_id=template_id)
    return NoHook("unsigned_refused", missing)


def deliver_on_demand(item: Document, remaining: Callable[[], float]) -> Document:
    """Deliver at once, with as many attempts as the time allows; return the result for callers.

    Raises CooldownError shortly after another delivery on demand.
    """
    recorded, earlier, made = json_object(item.get("webhook")), earlier_attempts(item), 0
    hook = hook_for(item, item.get("template_id"))
    named: Document = {}
    if isinstance(hook, NoHook):
        named = {"missing": [*hook.missing]} if hook.missing else {}
    if isinstance(hook, NoHook) and hook.reason != "unsigned_refused":
        return recorded | {"delivered": False, "attempts": 0, "error": hook.reason} | named
    start_cooldown(item["assembly_id"], time.time())
    if isinstance(hook, Hook):
        outcome, made = attempt_repeatedly(hook, item, earlier, remaining)
    else:
        outcome = Outcome("unsigned_refused", error="unsigned_refused")
    status = status_on_demand(recorded, outcome, is_delivered(item))
    try:
        is_outcome = outcome.result in {"delivered", "disabled"}
        code = outcome.status_code
        written = record_webhook(item, status, earlier + made, code, is_outcome=is_outcome)
        recorded = json_object(written.item.get("webhook")) or recorded
    except Exception as error:
        telemetry.exception("webhook outcome not recorded", error)
    shown = {"status_code": outcome.status_code, "error": outcome.error}
    return (
        recorded
        | {"delivered": outcome.result == "delivered", "attempts": made}
        | {name: value for name, value in shown.items() if value is not None}
        | named
    )


def attempt_repeatedly(
    hook: Hook, item: Document, earlier: int, remaining: Callable[[], float]
) -> tuple[Outcome, int]:
    """Make up to ON_DEMAND_ATTEMPTS attempts; return the last outcome and their number."""
    outcome, made = Outcome("retry", error="no_time"), 0
    while outcome.result == "retry" and made < ON_DEMAND_ATTEMPTS:
        pause = max(2.0 ** (made - 1), outcome.retry_after) if made else 0.0
        if remaining() < pause + MIN_ATTEMPT_SECONDS:
            break
        time.sleep(pause)
        made += 1
        outcome = attempt(hook, item, earlier + made, min(ATTEMPT_SECONDS, remaining()))
    return outcome, made


def status_on_demand(recorded: Document, outcome: Outcome, delivered: bool) -> str:
    """The status to record: a failure on demand replaces no `delivered` or queued delivery."""
    if outcome.result in {"delivered", "disabled"}:
        return outcome.result
    if delivered:
        return "delivered"
    if recorded.get("status") in {"pending", "retrying"}:
        return str(recorded["status"])
    return "failed" if outcome.result == "retry" else outcome.result


def standing_of(item: Document | None, message: QueuedDelivery, now: float) -> str:
    """The state of a queued delivery: `due`, `early` or `done`."""
    if item is None or is_past(item.get("ttl"), now):
        telemetry.warning("assembly of the webhook is gone")
        return "done"
    execution = execution_of(item)
    ahead = (message.execution or execution) - execution
    if ahead < 0 or is_delivered(item):
        telemetry.info("webhook needs no delivery", webhook=item.get("webhook"), behind=-ahead)
        return "done"
    if ahead > 0 or not is_terminal_assembly(item):
        telemetry.warning("assembly of the webhook has not ended")
        return "early"
    return "due"


def deliver_queued(message: QueuedDelivery, seconds: float) -> float | None:
    """Make one attempt for a message. Returns the seconds to the next one, None if it is done."""
    item = read_item(dynamodb, TABLE, {"assembly_id": message.assembly_id}, READ_FIELDS)
    standing = standing_of(item, message, time.time())
    if item is None or standing == "done":
        return None
    telemetry.bind(request_id=item.get("request_id"))
    if standing == "early":
        return retry_delay(message.receives, random.random())
    number = earlier_attempts(item)
    match hook := hook_for(item, item.get("template_id") or message.template_id):
        case NoHook("not_configured"):
            forget_webhook(item)
            return None
        case NoHook("configuration_unavailable"):
            return settle(item, message, number, Outcome("retry"), None)
        case NoHook(reason):
            record_webhook(item, reason, number, None)
            return None
    now = time.time()
    if not claim_delivery(item, now):
        telemetry.info("webhook is being delivered by another receive, or out of date")
        return float(CLAIM_SECONDS)
    outcome = attempt(hook, item, number + 1, seconds)
    return settle(item, message, number + 1, outcome, now + CLAIM_SECONDS)


def settle(
    item: Document, message: QueuedDelivery, number: int, outcome: Outcome, claim: float | None
) -> float | None:
    """Record an attempt. Returns the seconds to the next one, None if the message is done."""
    is_last = message.receives >= MAX_RECEIVES
    is_open = outcome.result == "retry"
    status = ("failed" if is_last else "retrying") if is_open else outcome.result
    recorded = record_webhook(item, status, number, outcome.status_code, claim).done
    if not recorded and status != "delivered":
        return float(CLAIM_SECONDS)  # what another receive has recorded decides
    if not is_open:
        return None
    if is_last:
        return 0.0  # at its next receive SQS moves the message to the dead-letter queue
    return max(retry_delay(message.receives, random.random()), outcome.retry_after)


def take_record(record: Mapping[str, Any], remaining: Callable[[], float]) -> str | None:
    """Process one SQS message; return its id if it must stay in the queue, else None."""
    with telemetry.ids(message_id=message_id_of(record)), telemetry.trace(trace_of(record)):
        try:
            message = queued_delivery(record)
            telemetry.bind(assembly_id=message.assembly_id, execution=message.execution)
            delay = deliver_queued(message, max(0.1, min(ATTEMPT_SECONDS, remaining())))
        except UnreadableMessageError as error:
            telemetry.exception("webhook message is unreadable", error)
            delay = 0.0
        except Exception as error:
            telemetry.exception("webhook not delivered", error)
            delay = retry_delay(receives_of(record), random.random())
        if delay is None:
            return None
        postpone(str(record.get("receiptHandle")), delay)
        return message_id_of(record)


def take_records(records: Sequence[Mapping[str, Any]], remaining: Callable[[], float]) -> Answer:
    """Deliver a batch at the same time, so that a slow receiver does not delay the others."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL_DELIVERIES) as pool:
        kept = pool.map(lambda record: take_record(record, remaining), records)
        return {
            "batchItemFailures": [{"itemIdentifier": name} for name in kept if name is not None]
        }


def time_left(context: Any, most: float) -> Callable[[], float]:
    """A function that returns the seconds left for deliveries, at most `most`."""
    clock = getattr(context, "get_remaining_time_in_millis", None)
    granted = clock() / 1000 - RESERVED_SECONDS if clock else most
    deadline = time.monotonic() + min(most, granted)
    return lambda: deadline - time.monotonic()


def take_demand(event: Any, remaining: Callable[[], float]) -> Answer:
    """Answer an invoke on demand: deliver the webhook, or return why that is refused."""
    assembly_id = checked_input(event).get("assembly_id")
    if not is_assembly_id(assembly_id):
        raise ValidationError("assembly_id", "1 to 128 of A-Z, a-z, 0-9, _ and - are required")
    telemetry.bind(assembly_id=assembly_id)
    item = read_item(dynamodb, TABLE, {"assembly_id": assembly_id}, READ_FIELDS)
    if item is None or is_past(item.get("ttl"), time.time()):
        return {"refused": "not_found"}
    telemetry.bind(request_id=item.get("request_id"))
    if not is_terminal_assembly(item):
        return {"refused": "not_ended"}
    try:
        return {"webhook": deliver_on_demand(item, remaining)}
    except CooldownError as error:
        return {"refused": "too_soon", "retry_after": error.seconds}


@telemetry.handler
def handler(event: Any, context: Any) -> Answer:
    remaining = time_left(context, ON_DEMAND_SECONDS)
    if is_queue_event(event):
        return take_records(event["Records"], remaining)
    return take_demand(event, remaining)
