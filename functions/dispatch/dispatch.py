"""Sends a message to the queue `jobs` for each request that became PENDING.

Trigger: the stream of `requests` (INSERT as PENDING, or back to PENDING), batches of at most 100
records.
Result: batch item failures, from the first record that the queue did not take.
Errors: ValidationError for an event without records; errors of SQS when an unreadable record can't
be kept. The stream then delivers the batch again, and a message that is sent twice is harmless.
A record that can't be parsed goes to the failure queue. No table is read or written.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    ValidationError,
    checked_input,
    from_value,
    is_request_id,
    split_owner_key,
    unreadable_record,
)
from jobplane_telemetry import Telemetry

JOBS_QUEUE_URL = os.environ["JOBS_QUEUE_URL"]
FAILURES_QUEUE_URL = os.environ["FAILURES_QUEUE_URL"]

MESSAGES_PER_CALL = 10  # SQS takes no more
SEQUENCE_NUMBER = re.compile(r"[!-~]{1,128}")
MESSAGE_GROUP = re.compile(r"[!-~]{1,128}")  # what SQS allows

telemetry = Telemetry("dispatch")
sqs: Any = botocore.session.get_session().create_client("sqs", config=Config(**CLIENT_OPTIONS))


class UnreadableRecordError(ValueError):
    """A record that is not of the stream of `requests`."""


@dataclass(frozen=True, slots=True)
class Start:
    """A request that a worker is to take, as a record of the stream names it."""

    sequence: str
    owner: str
    request_id: str
    group: str
    trace_header: str | None

    @classmethod
    def of(cls, record: Any) -> Self:
        """Raises UnreadableRecordError if the record does not name a request."""
        try:
            change = record["dynamodb"]
            sequence, image = change["SequenceNumber"], change["NewImage"]
            owner, request_id = from_value(image["owner"]), from_value(image["request_id"])
            group = message_group(split_owner_key(owner)[0])
            trace_header = from_value(image.get("trace_header", {"NULL": True}))
        except Exception as error:
            raise UnreadableRecordError("it does not name a request") from error
        if not isinstance(sequence, str) or not SEQUENCE_NUMBER.fullmatch(sequence):
            raise UnreadableRecordError("its sequence number is malformed")
        if not is_request_id(request_id):
            raise UnreadableRecordError("its request_id is malformed")
        return cls(
            sequence=sequence,
            owner=owner,
            request_id=request_id,
            group=group,
            trace_header=trace_header if isinstance(trace_header, str) else None,
        )

    def entry(self, number: int) -> dict[str, Any]:
        """The message, as an entry of SendMessageBatch."""
        entry: dict[str, Any] = {
            "Id": str(number),
            "MessageBody": json.dumps({"owner": self.owner, "request_id": self.request_id}),
            "MessageGroupId": self.group,
        }
        if self.trace_header:
            trace = {"DataType": "String", "StringValue": self.trace_header}
            entry["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
        return entry


def message_group(tenant_id: str) -> str:
    """The tenant's id, or a digest of it if SQS does not allow the id as a message group."""
    if MESSAGE_GROUP.fullmatch(tenant_id):
        return tenant_id
    return sha256(tenant_id.encode()).hexdigest()


def keep_unreadable(record: Any, error: UnreadableRecordError) -> None:
    """Put a record that can't be parsed into the failure queue."""
    telemetry.exception("record can't be parsed", error)
    telemetry.metric("RecordRefused")
    sqs.send_message(QueueUrl=FAILURES_QUEUE_URL, MessageBody=unreadable_record(record, error))


def send(starts: Sequence[Start]) -> list[str]:
    """Send a message for each request; the sequence numbers of those that were not taken."""
    entries = [start.entry(number) for number, start in enumerate(starts)]
    try:
        answer = sqs.send_message_batch(QueueUrl=JOBS_QUEUE_URL, Entries=entries)
    except (BotoCoreError, ClientError) as error:
        telemetry.exception("messages not sent", error)
        return [start.sequence for start in starts]
    sent = {entry["Id"] for entry in answer.get("Successful", ())}
    failed = [start for number, start in enumerate(starts) if str(number) not in sent]
    if failed:
        telemetry.error("some messages not sent", refused=answer.get("Failed"))
    return [start.sequence for start in failed]


def dispatch(records: Sequence[Any]) -> list[str]:
    """Send the messages for some records; the sequence numbers of those that must come again."""
    starts = []
    for record in records:
        try:
            starts.append(Start.of(record))
        except UnreadableRecordError as error:
            keep_unreadable(record, error)
    if not starts:
        return []
    failed = send(starts)
    sent = [start.request_id for start in starts if start.sequence not in failed]
    if sent:
        telemetry.debug("requests dispatched", request_ids=sent)
    return failed


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    records = checked_input(event).get("Records")
    if not isinstance(records, list):
        raise ValidationError("Records", "a list is required")
    failed: list[str] = []
    for start in range(0, len(records), MESSAGES_PER_CALL):
        failed = dispatch(records[start : start + MESSAGES_PER_CALL])
        if failed:
            break  # the stream delivers everything from the first of them on again
    return {"batchItemFailures": [{"itemIdentifier": sequence} for sequence in failed]}
