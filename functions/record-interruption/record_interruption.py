"""Puts on record that a job was interrupted: which, by what, and what its worker said.

Trigger: Step Functions, of the execution that interrupts and of the one that was interrupted; both
describe one event, and the second to come changes nothing.
Input: `{projectUserId | projectId + userId, messageId, kind?, interruptedClaimId?,
interruptedContainer?, newThreadId?, interruptingMessageId?, cause?}`; `messageId` is that of the
interrupted job. What is missing is taken from a cause that is JSON.
Result: `{recorded, duplicate, recordId}`. Errors: ValidationError. Puts one item, if absent.
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
# A DynamoDB item nests 32 deep, and its numbers have 38 digits and end at 10^126.
MAX_DEPTH = 30
MAX_INTEGER = 10**38
FLOATS = (1e-130, 1e125)

telemetry = Telemetry("record-interruption")
dynamodb: Any = botocore.session.get_session().create_client(
    "dynamodb", config=Config(**CLIENT_OPTIONS)
)


def parsed_cause(cause: Any) -> Any:
    """A cause as JSON when it is that and can be stored, as text otherwise; at most 32 KB."""
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
    """Whether a JSON value fits into an item as it is."""
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
    """The record that an input asks for."""
    workspace = workspace_of(event)
    message_id = checked_id(event, "messageId")
    kind = checked_choice(event, "kind", KINDS, "interruption")
    cause = parsed_cause(event.get("cause"))
    told = json_object(cause)
    claim_id = optional_id(event, "interruptedClaimId")
    interrupting = optional_id(event, "interruptingMessageId") or told_id(
        told, "interruptingMessageId"
    )
    return {
        "messageId": message_id,
        "recordId": record_id(kind, claim_id, interrupting),
        "projectUserId": workspace.key,
        "kind": kind,
        "interruptedClaimId": claim_id,
        "interruptedContainer": optional_id(event, "interruptedContainer"),
        "interruptingMessageId": interrupting,
        "newThreadId": optional_id(event, "newThreadId") or told_id(told, "newThreadId"),
        "cause": cause,
        "timestamp": iso_time(now),
        "ttl": int(now) + INTERRUPTION_TTL_SECONDS,
    }


def told_id(told: Mapping[str, Any], field: str) -> str | None:
    """An id that a worker put into its cause, if it is one."""
    try:
        return optional_id(told, field)
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
