"""Cleans up after a job that its worker did not end: record, release, dead letter, in this order.

Triggers: Step Functions; the EventBridge rule for executions that ended as FAILED, TIMED_OUT or
ABORTED. For the rule's event it finishes an interrupted clean-up of the execution, and releases its
claim. Without the execution's input it takes the message from the cause, or the claim by its owner.
Input: `{projectUserId | projectId + userId, messageId, threadId?, claimId?, fence?, kind, error?,
cause?, executionArn?}`, or the rule's event.
Result: `{released, superseded, recorded, duplicate, recordId, dlqMessageId}`.
Errors: ValidationError; RecordGoneError if the record was deleted meanwhile.
A run may stop after any step, and can be repeated: the record is put if it is absent, the release
is conditional on claim and fence, the dead letter has a fixed id. For five minutes SQS drops a
repeated letter; a later one has `repeated: true`.
A newer claim is not changed; record and dead letter are written in any case.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    INTERRUPTION_TTL_SECONDS,
    MISSING_QUEUE_CODES,
    NEW_QUEUE_SECONDS,
    TIMEOUT_KIND_OF_STATUS,
    TIMEOUT_KINDS,
    ValidationError,
    Workspace,
    checked_choice,
    checked_fence,
    checked_id,
    checked_input,
    dead_letter_id,
    dead_letter_queue_name,
    from_item,
    iso_time,
    optional_id,
    parse_iso_time,
    query_items,
    read_item,
    record_id,
    refusing_plain_http,
    to_item,
    workspace_of,
)
from jobplane_leases import create, release_claim, update
from jobplane_telemetry import Telemetry

ACTIVE_JOBS_TABLE = os.environ["ACTIVE_JOBS_TABLE"]
INTERRUPTIONS_TABLE = os.environ["INTERRUPTIONS_TABLE"]
DLQ_URL = os.environ["DLQ_URL"]
DLQ_PER_WORKSPACE = os.environ.get("DLQ_PER_WORKSPACE", "").lower() == "true"
TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)

MAX_CAUSE = 4096
EXECUTION_ARN = re.compile(r"arn:[!-~]{1,2044}")
DLQ_RETENTION_SECONDS = 14 * 24 * 3600
# SQS drops repetitions for five minutes; the rest is a margin for different clocks.
DEDUPLICATION_SECONDS = 4 * 60
NOTHING: dict[str, Any] = {
    "released": False,
    "superseded": False,
    "recorded": False,
    "duplicate": False,
    "recordId": None,
    "dlqMessageId": None,
}

telemetry = Telemetry("handle-timeout")
session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
sqs: Any = session.create_client("sqs", config=config)


@dataclass(frozen=True, slots=True)
class Timeout:
    """A job that its worker did not end."""

    workspace: Workspace
    message_id: str
    thread_id: str | None
    claim_id: str | None
    fence: int | None
    kind: str
    error: str | None
    cause: str | None
    execution_arn: str | None
    record_id: str

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Timeout":
        kind = checked_choice(event, "kind", TIMEOUT_KINDS)
        claim_id = optional_id(event, "claimId")
        workspace = workspace_of(event)
        return cls(
            workspace=workspace,
            message_id=checked_id(event, "messageId"),
            thread_id=optional_id(event, "threadId"),
            claim_id=claim_id,
            fence=None if claim_id is None else checked_fence(event),
            kind=kind,
            error=trimmed(event.get("error")),
            cause=trimmed(event.get("cause")),
            execution_arn=trimmed(event.get("executionArn")),
            record_id=record_id(kind, claim_id, None, workspace.key),
        )

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Timeout":
        return cls(
            workspace=workspace_of({"projectUserId": record["projectUserId"]}),
            message_id=record["messageId"],
            thread_id=record.get("threadId"),
            claim_id=record.get("interruptedClaimId"),
            fence=record.get("fence"),
            kind=record["kind"],
            error=record.get("error"),
            cause=record.get("cause"),
            execution_arn=record["executionArn"],
            record_id=record["recordId"],
        )

    @property
    def record_key(self) -> dict[str, str]:
        return {"messageId": self.message_id, "recordId": self.record_id}

    @property
    def dead_letter_id(self) -> str:
        return dead_letter_id(self.kind, self.workspace.key, self.message_id, self.claim_id)


class RecordGoneError(Exception):
    """The record was deleted while its dead letter was sent."""


def trimmed(value: Any) -> str | None:
    """A value as text of limited length; None stays None."""
    if value is None:
        return None
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        text = "(nested too deeply)"
    return text.encode(errors="replace").decode()[:MAX_CAUSE]


def is_status_change(event: Mapping[str, Any]) -> bool:
    """Whether the event is from the EventBridge rule."""
    return event.get("detail-type") == "Step Functions Execution Status Change"


def ended_execution(event: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """ARN, status and other details of the ended execution. Raises ValidationError."""
    detail = event.get("detail")
    if isinstance(detail, Mapping):
        arn, status = detail.get("executionArn"), detail.get("status")
        if isinstance(status, str) and isinstance(arn, str) and EXECUTION_ARN.fullmatch(arn):
            return arn, status, detail
    raise ValidationError("detail", "the execution's executionArn and status are required")


def left_behind(event: Mapping[str, Any]) -> Iterator[Timeout]:
    """The unfinished clean-ups of an ended execution, then the claim that it still has."""
    execution_arn, status, detail = ended_execution(event)
    if status not in TIMEOUT_KIND_OF_STATUS:
        return
    job = job_named_in(detail.get("input"))
    if job is None:
        # EventBridge leaves out a large input.
        telemetry.warning("execution had no usable input")
        job = job_named_in(detail.get("cause"))
    for workspace, message_id in jobs_of(execution_arn) if job is None else [job]:
        for record in unfinished(message_id, execution_arn):
            yield Timeout.of_record(record)
        # Read after the records were settled, which may have released the claim.
        row = active_job(workspace)
        if row.get("owner") == execution_arn and row.get("state", "held") == "held":
            yield abandoned(workspace, message_id, row, event)


def job_named_in(text: Any) -> tuple[Workspace, str] | None:
    """Workspace and message from an execution's input, or from a cause that the flow wrote."""
    try:
        given = json.loads(text)
        return workspace_of(given), checked_id(given, "messageId")
    except (TypeError, ValueError, RecursionError):
        return None


def abandoned(
    workspace: Workspace, message_id: str, row: Mapping[str, Any], event: Mapping[str, Any]
) -> Timeout:
    """The claim that an ended execution still has; one of an older version has no id and fence."""
    execution_arn, status, detail = ended_execution(event)
    claim_id, kind = row.get("claimId"), TIMEOUT_KIND_OF_STATUS[status]
    return Timeout(
        workspace=workspace,
        message_id=message_id,
        thread_id=row.get("threadId"),
        claim_id=claim_id,
        fence=None if claim_id is None else row["fence"],
        kind=kind,
        error=trimmed(detail.get("error") or status),
        cause=trimmed(detail.get("cause")),
        execution_arn=execution_arn,
        record_id=record_id(kind, claim_id, None, workspace.key),
    )


def dead_letter(timeout: Timeout, recorded_at: str, *, repeated: bool) -> dict[str, Any]:
    """The dead letter; its id is the same when it is sent again.

    `repeated`: an earlier run may have sent it, too long ago for SQS to drop the repetition.
    """
    return {
        "type": "JOB_TIMEOUT",
        "deadLetterId": timeout.dead_letter_id,
        "projectUserId": timeout.workspace.key,
        "messageId": timeout.message_id,
        "threadId": timeout.thread_id,
        "claimId": timeout.claim_id,
        "fence": timeout.fence,
        "kind": timeout.kind,
        "error": timeout.error,
        "cause": timeout.cause,
        "executionArn": timeout.execution_arn,
        "timestamp": recorded_at,
        "repeated": repeated,
    }


def active_job(workspace: Workspace) -> dict[str, Any]:
    """The row of the workspace; {} if it does not exist."""
    return read_item(dynamodb, ACTIVE_JOBS_TABLE, {"projectUserId": workspace.key}) or {}


def jobs_of(execution_arn: str) -> Iterator[tuple[Workspace, str]]:
    """Workspace and message of the claims that an execution has, found by its ARN."""
    found = dynamodb.query(
        TableName=ACTIVE_JOBS_TABLE,
        IndexName="by-owner",
        KeyConditionExpression="#owner = :owner",
        ExpressionAttributeNames={"#owner": "owner"},
        ExpressionAttributeValues=to_item({":owner": execution_arn}),
    )
    for row in map(from_item, found["Items"]):
        yield workspace_of(row), checked_id(row, "messageId")


def unfinished(message_id: str, execution_arn: str) -> list[dict[str, Any]]:
    """The records of an execution without the id of a sent dead letter."""
    query = {
        "TableName": INTERRUPTIONS_TABLE,
        "ConsistentRead": True,
        "KeyConditionExpression": "messageId = :message",
        "FilterExpression": "executionArn = :execution AND attribute_not_exists(dlqMessageId)",
        "ExpressionAttributeValues": to_item({":message": message_id, ":execution": execution_arn}),
    }
    return list(query_items(dynamodb, **query))


def put_record(timeout: Timeout, now: float) -> tuple[dict[str, Any], bool]:
    """Put the record if it is absent; return it, and whether this run wrote it."""
    record = timeout.record_key | {
        "projectUserId": timeout.workspace.key,
        "kind": timeout.kind,
        "interruptedClaimId": timeout.claim_id,
        "fence": timeout.fence,
        "threadId": timeout.thread_id,
        "executionArn": timeout.execution_arn,
        "error": timeout.error,
        "cause": timeout.cause,
        "timestamp": iso_time(now),
        "ttl": int(now) + INTERRUPTION_TTL_SECONDS,
    }
    is_new, stored = create(
        dynamodb,
        INTERRUPTIONS_TABLE,
        {name: value for name, value in record.items() if value is not None},
        condition="attribute_not_exists(messageId)",
    )
    return stored, is_new


def release(timeout: Timeout, now: float) -> str:
    """Release the claim: `released`, `repeated`, `superseded` by a newer claim, or `none`."""
    if timeout.claim_id is None and timeout.execution_arn is None:
        return "none"
    done, row = release_claim(
        dynamodb,
        ACTIVE_JOBS_TABLE,
        timeout.workspace.key,
        claim_id=timeout.claim_id,
        fence=timeout.fence,
        owner=timeout.execution_arn if timeout.claim_id is None else None,
        reason=timeout.kind,
        now=now,
    )
    if done:
        return "released"
    if timeout.claim_id is None:
        return "none"
    last = (row.get("lastReleased") or {}).get("claimId")
    return "repeated" if last == timeout.claim_id or not row else "superseded"


def queue_of(workspace: Workspace) -> str:
    """The URL of the queue for dead letters: the stage's, or that of the workspace.

    The queue of a workspace is created if it is missing.
    """
    if not DLQ_PER_WORKSPACE:
        return DLQ_URL
    name = dead_letter_queue_name(TABLE_PREFIX, workspace)
    attributes = {
        "FifoQueue": "true",
        "MessageRetentionPeriod": str(DLQ_RETENTION_SECONDS),
        "SqsManagedSseEnabled": "true",
    }
    # An existing queue may have other attributes than a new one.
    try:
        found = sqs.get_queue_url(QueueName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in MISSING_QUEUE_CODES:
            raise
        guarded = refusing_plain_http(attributes, sqs.meta.endpoint_url)
        found = sqs.create_queue(QueueName=name, Attributes=guarded)
        time.sleep(NEW_QUEUE_SECONDS)
    return str(found["QueueUrl"])


def send_dead_letter(timeout: Timeout, letter: Mapping[str, Any]) -> str:
    """Send the letter; return SQS's id. The FIFO queue drops a letter that was just sent."""
    sent = sqs.send_message(
        QueueUrl=queue_of(timeout.workspace),
        MessageBody=json.dumps(letter),
        MessageGroupId=timeout.dead_letter_id,
        MessageDeduplicationId=timeout.dead_letter_id,
    )
    return str(sent["MessageId"])


def mark_done(timeout: Timeout, message_id: str) -> str:
    """Mark the record as done, so that later runs skip it; the id that it has from now on.

    That of another run stays: this write may be carried out late.
    """
    _, record = update(
        dynamodb,
        INTERRUPTIONS_TABLE,
        timeout.record_key,
        change="SET dlqMessageId = :id",
        condition="attribute_exists(messageId) AND attribute_not_exists(dlqMessageId)",
        values={"id": message_id},
        mark=None,
    )
    if "dlqMessageId" not in record:
        raise RecordGoneError(timeout.message_id)
    return str(record["dlqMessageId"])


def settle(timeout: Timeout, now: float) -> dict[str, Any]:
    """Perform all steps; those of an earlier run are skipped or have no effect."""
    record, is_new = put_record(timeout, now)
    released = release(timeout, now)
    dead_letter_message = record.get("dlqMessageId")
    if dead_letter_message is None:
        recorded_at = record["timestamp"]
        repeated = not is_new and now - parse_iso_time(recorded_at) > DEDUPLICATION_SECONDS
        letter = dead_letter(timeout, recorded_at, repeated=repeated)
        dead_letter_message = mark_done(timeout, send_dead_letter(timeout, letter))
        telemetry.metric("JobTimedOut", Kind=timeout.kind)
    return {
        "released": released in {"released", "repeated"},
        "superseded": released == "superseded",
        "recorded": True,
        "duplicate": not is_new,
        "recordId": record["recordId"],
        "dlqMessageId": dead_letter_message,
    }


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    answer = NOTHING
    given = checked_input(event)
    for timeout in left_behind(given) if is_status_change(given) else [Timeout.of(given)]:
        telemetry.bind(
            project_user_id=timeout.workspace.key,
            message_id=timeout.message_id,
            claim_id=timeout.claim_id,
        )
        answer = settle(timeout, time.time())
        telemetry.warning("job timed out", kind=timeout.kind, superseded=answer["superseded"])
    if answer is NOTHING:
        telemetry.info("execution left nothing behind")
    return answer
