"""Records that a job was interrupted: which job, by which message, and the worker's cause.

Trigger: Step Functions, in the interrupting and in the interrupted execution; both describe the
same event, and the later call changes nothing.
Input: `{projectUserId | projectId + userId, messageId, kind?, interruptedClaimId?,
interruptedContainer?, newThreadId?, interruptingMessageId?, cause?}`; `messageId` is that of the
interrupted job. Missing fields are taken from `cause`, if that is JSON.
Result: `{recorded, duplicate, recordId}`. Errors: ValidationError. Puts one row of `interruptions`,
if it is absent.
"""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.config import Config

from jobplane_keys import (
    CLIENT_OPTIONS,
    INTERRUPTION_TTL_SECONDS,
    TIMEOUT_KINDS,
    ValidationError,
    checked_choice,
    checked_id,
    iso_time,
    json_object,
    optional_id,
    record_id,
    workspace_of,
)
from jobplane_leases import create
from jobplane_telemetry import Telemetry

INTERRUPTIONS_TABLE = os.environ["INTERRUPTIONS_TABLE"]

KINDS = TIMEOUT_KINDS | {"interruption"}
MAX_CAUSE_BYTES = 32 * 1024
# Limits of DynamoDB: 32 levels of nesting; numbers of 38 digits, less than 10^126.
MAX_DEPTH = 30
MAX_INTEGER = 10**38
FLOATS = (1e-130, 1e125)

telemetry = Telemetry("record-interruption")
dynamodb: Any = botocore.session.get_session().create_client(
    "dynamodb", config=Config(**CLIENT_OPTIONS)
)


def parsed_cause(cause: Any) -> Any:
    """A cause as JSON if it is JSON that can be stored, else as text; at most 32 KB."""
    if cause is None:
        return None
    try:
        text = cause if isinstance(cause, str) else json.dumps(cause)
    except RecursionError:
        return "(nested too deeply)"
    if len(text.encode(errors="replace")) > MAX_CAUSE_BYTES:
        return text.encode(errors="replace")[:MAX_CAUSE_BYTES].decode(errors="ignore")
    try:
        parsed = json.loads(text, parse_constant=str)
        json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text.encode(errors="replace").decode()
    return parsed if is_storable(parsed) else text


def is_storable(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether DynamoDB can store a JSON value without changes."""
    match value:
        case dict():
            return depth > 0 and all(
                name and is_storable(part, depth - 1) for name, part in value.items()
            )
        case list():
            return depth > 0 and all(is_storable(part, depth - 1) for part in value)
        case int():
            return abs(value) < MAX_INTEGER
        case float():
            return value == 0 or FLOATS[0] <= abs(value) <= FLOATS[1]
    return True


def interruption_of(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The record for an input. Raises ValidationError."""
    workspace = workspace_of(event)
    message_id = checked_id(event, "messageId")
    kind = checked_choice(event, "kind", KINDS, "interruption")
    cause = parsed_cause(event.get("cause"))
    cause_fields = json_object(cause)
    claim_id = optional_id(event, "interruptedClaimId")
    interrupting = optional_id(event, "interruptingMessageId") or id_in_cause(
        cause_fields, "interruptingMessageId"
    )
    return {
        "messageId": message_id,
        "recordId": record_id(kind, claim_id, interrupting, workspace.key),
        "projectUserId": workspace.key,
        "kind": kind,
        "interruptedClaimId": claim_id,
        "interruptedContainer": optional_id(event, "interruptedContainer"),
        "interruptingMessageId": interrupting,
        "newThreadId": optional_id(event, "newThreadId")
        or id_in_cause(cause_fields, "newThreadId"),
        "cause": cause,
        "timestamp": iso_time(now),
        "ttl": int(now) + INTERRUPTION_TTL_SECONDS,
    }


def id_in_cause(cause_fields: Mapping[str, Any], field: str) -> str | None:
    """An id from a worker's cause; None if it is missing or malformed."""
    try:
        return optional_id(cause_fields, field)
    except ValidationError:
        return None


def put_if_absent(record: Mapping[str, Any]) -> bool:
    """Store a record; False if another one is stored under its key."""
    item = {name: value for name, value in record.items() if value is not None}
    condition = "attribute_not_exists(messageId)"
    return create(dynamodb, INTERRUPTIONS_TABLE, item, condition=condition).done


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    record = interruption_of(event, time.time())
    telemetry.bind(project_user_id=record["projectUserId"], message_id=record["messageId"])
    is_new = put_if_absent(record)
    if is_new:
        telemetry.metric("InterruptionRecorded", Kind=record["kind"])
    telemetry.info("interruption recorded", duplicate=not is_new, kind=record["kind"])
    return {"recorded": True, "duplicate": not is_new, "recordId": record["recordId"]}
