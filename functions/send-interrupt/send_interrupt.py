"""Asks the worker of a running job to stop, because another thread needs the workspace.

Trigger: Step Functions. Input: `{projectUserId | projectId + userId, target: {claimId, fence,
containerId?, threadId?, expiresAt?}, newThreadId, interruptingMessageId, reason?}`.
Result: `{sent: true, interruptId, queueUrl, messageId}`, or `{sent: false, reason}` if the target
is `expired`, of the `same_thread`, or `unaddressable`: a claim of an older version without claimId.
Errors: ValidationError; InterruptQueueMissingError when the queue is missing and CREATE_QUEUES is
false. An interrupt has the id and fence of its claim, so a newer job ignores it.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    MISSING_QUEUE_CODES,
    NEW_QUEUE_SECONDS,
    ValidationError,
    Workspace,
    checked_fence,
    checked_id,
    checked_input,
    claim_expiry,
    interrupt_id,
    interrupt_queue_name,
    iso_time,
    optional_id,
    refusing_plain_http,
    workspace_of,
)
from jobplane_telemetry import Telemetry

TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)
ACCOUNT_ID = os.environ["ACCOUNT_ID"]
# Only on a local stage; elsewhere the SDK knows the host of each region and partition.
SQS_ENDPOINT = os.environ.get("SQS_ENDPOINT")
CREATE_QUEUES = os.environ.get("CREATE_QUEUES", "").lower() == "true"

VISIBILITY_SECONDS = 60
RETENTION_SECONDS = 24 * 3600
MAX_EXPIRY = 2**53
MAX_REASON = 1024

telemetry = Telemetry("send-interrupt")
sqs: Any = botocore.session.get_session().create_client("sqs", config=Config(**CLIENT_OPTIONS))


class InterruptQueueMissingError(Exception):
    """The interrupt queue of the workspace does not exist: no worker has used the workspace."""

    def __init__(self, queue_name: str) -> None:
        super().__init__(
            f"queue {queue_name} does not exist; start a worker, or set CREATE_QUEUES to true"
        )
        self.queue_name = queue_name


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A request to stop the job of a claim for a message of another thread."""

    workspace: Workspace
    claim_id: str | None
    fence: int | None
    container_id: str | None
    thread_id: str | None
    expires_at: float | None
    new_thread_id: str
    interrupting_message_id: str
    reason: str

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Interrupt":
        target = checked_input(event).get("target")
        if not isinstance(target, Mapping):
            raise ValidationError("target", "an object is required")
        reason = event.get("reason") or "another thread needs the workspace"
        if not isinstance(reason, str) or len(reason) > MAX_REASON:
            raise ValidationError("reason", f"at most {MAX_REASON} characters are allowed")
        # A row of an older version has neither; check-active-job then returns null.
        is_numbered = any(target.get(name, "") is not None for name in ("claimId", "fence"))
        return cls(
            workspace=workspace_of(event),
            claim_id=checked_id(target, "claimId") if is_numbered else None,
            fence=checked_fence(target) if is_numbered else None,
            expires_at=expiry_of(target),
            container_id=optional_id(target, "containerId"),
            thread_id=optional_id(target, "threadId"),
            new_thread_id=checked_id(event, "newThreadId"),
            interrupting_message_id=checked_id(event, "interruptingMessageId"),
            reason=reason,
        )

    @property
    def id(self) -> str | None:
        if self.claim_id is None:
            return None
        return interrupt_id(self.claim_id, self.interrupting_message_id)


def expiry_of(target: Mapping[str, Any]) -> float | None:
    """Epoch seconds at which the target's claim ends, None if unknown. Raises ValidationError."""
    given = target.get("expiresAt")
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if given is not None and not (is_number and 0 <= given <= MAX_EXPIRY):
        raise ValidationError("expiresAt", f"epoch seconds are required, from 0 to {MAX_EXPIRY}")
    return claim_expiry({"expiresAt": given})


def skip_reason(interrupt: Interrupt, now: float) -> str | None:
    """The reason not to send the interrupt; None if it must be sent."""
    if interrupt.thread_id == interrupt.new_thread_id:
        return "same_thread"
    if interrupt.expires_at is not None and interrupt.expires_at <= now:
        return "expired"
    return "unaddressable" if interrupt.claim_id is None else None


def body_of(interrupt: Interrupt, now: float) -> dict[str, Any]:
    """The message for the worker."""
    return {
        "type": "INTERRUPT",
        "interruptId": interrupt.id,
        "containerId": interrupt.container_id,
        "target": {
            "projectUserId": interrupt.workspace.key,
            "claimId": interrupt.claim_id,
            "fence": interrupt.fence,
            "containerId": interrupt.container_id,
            "threadId": interrupt.thread_id,
        },
        "newThreadId": interrupt.new_thread_id,
        "interruptingMessageId": interrupt.interrupting_message_id,
        "timestamp": iso_time(now),
        "reason": interrupt.reason,
        "expiresAt": int(now) + RETENTION_SECONDS,
    }


def attributes_of(interrupt: Interrupt) -> dict[str, Any]:
    """Message attributes, for filters that do not read the body."""
    texts = {
        "type": "INTERRUPT",
        "projectUserId": interrupt.workspace.key,
        "containerId": interrupt.container_id,
        "targetClaimId": interrupt.claim_id,
    }
    strings = {
        name: {"DataType": "String", "StringValue": text} for name, text in texts.items() if text
    }
    return strings | {"fence": {"DataType": "Number", "StringValue": str(interrupt.fence)}}


def send(queue_url: str, interrupt: Interrupt, now: float) -> str:
    """Send the interrupt; return SQS's id of the message."""
    sent = sqs.send_message(
        QueueUrl=queue_url,
        MessageBody=json.dumps(body_of(interrupt, now)),
        MessageAttributes=attributes_of(interrupt),
    )
    return str(sent["MessageId"])


def create_queue(name: str) -> None:
    """Create the queue of the workspace; has no effect if it exists."""
    attributes = {
        "VisibilityTimeout": str(VISIBILITY_SECONDS),
        "MessageRetentionPeriod": str(RETENTION_SECONDS),
        "SqsManagedSseEnabled": "true",
    }
    guarded = refusing_plain_http(attributes, sqs.meta.endpoint_url)
    sqs.create_queue(QueueName=name, Attributes=guarded)


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    now = time.time()
    interrupt = Interrupt.of(event)
    telemetry.bind(project_user_id=interrupt.workspace.key, claim_id=interrupt.claim_id)
    if reason := skip_reason(interrupt, now):
        telemetry.info("interrupt not needed", reason=reason)
        return {"sent": False, "reason": reason, "interruptId": interrupt.id}
    name = interrupt_queue_name(TABLE_PREFIX, interrupt.workspace)
    queue_url = f"{SQS_ENDPOINT or sqs.meta.endpoint_url}/{ACCOUNT_ID}/{name}"
    try:
        message_id = send(queue_url, interrupt, now)
    except ClientError as error:
        if error.response["Error"]["Code"] not in MISSING_QUEUE_CODES:
            raise
        if not CREATE_QUEUES:
            raise InterruptQueueMissingError(name) from error
        create_queue(name)
        time.sleep(NEW_QUEUE_SECONDS)
        message_id = send(queue_url, interrupt, now)
    telemetry.metric("InterruptSent")
    telemetry.info("interrupt sent", interrupt_id=interrupt.id)
    return {
        "sent": True,
        "interruptId": interrupt.id,
        "queueUrl": queue_url,
        "messageId": message_id,
    }
