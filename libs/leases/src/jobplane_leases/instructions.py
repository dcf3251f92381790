"""Requests that the job flow runs, instead of `processor`: those of the action `instruct`.

The row of such a request has `execution`, the name of its execution. `dispatch` starts the
execution, once under this name; `report-job` writes what becomes of it to the row. The payload is
`{"project", "thread", "instruction", "attachments": [{"key"}]}`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from jobplane_keys import (
    IN_FLIGHT_SHARDS,
    TENANT_SHARDS,
    ValidationError,
    execution_name,
    message_of_request,
    owner_key,
    split_owner_key,
    tenant_shard,
    tenant_workspace,
)
from jobplane_leases._payloads import store_payload
from jobplane_leases._requests import enqueue_request
from jobplane_leases._writes import Row, Written

__all__ = [
    "INSTRUCT",
    "MAX_ATTACHMENTS",
    "enqueue_instruction",
    "flow_attributes",
    "flow_input",
]

INSTRUCT = "instruct"
MAX_ATTACHMENTS = 100
# The flow takes 24,576 characters of attachments with their buckets.
_MAX_KEYS_LENGTH = 16_000


def flow_attributes(owner: str, request_id: str, payload: Mapping[str, Any]) -> Row:
    """What the row of such a request has beside those of any job. Raises ValidationError."""
    tenant_id, user_id = split_owner_key(owner)
    keys = [each["key"] for each in payload["attachments"]]
    if len(keys) > MAX_ATTACHMENTS or sum(map(len, keys)) > _MAX_KEYS_LENGTH:
        most = f"at most {MAX_ATTACHMENTS}, with keys of {_MAX_KEYS_LENGTH} characters together"
        raise ValidationError("attachments", most)
    workspace = tenant_workspace(tenant_id, user_id, payload["project"])
    return {"execution": execution_name(workspace, message_of_request(request_id))}


def flow_input(owner: str, request_id: str, payload: Mapping[str, Any], bucket: str) -> str:
    """The input of the execution, as JSON text: the same for the same request."""
    workspace = tenant_workspace(*split_owner_key(owner), payload["project"])
    content = {
        "request": {"owner": owner, "requestId": request_id},
        "projectId": workspace.project_id,
        "userId": workspace.user_id,
        "threadId": payload["thread"],
        "messageId": message_of_request(request_id),
        "instruction": payload["instruction"],
        "attachments": [{"bucket": bucket, "key": each["key"]} for each in payload["attachments"]],
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def enqueue_instruction(
    dynamodb: Any,
    table: str,
    *,
    tenant_id: str,
    user_id: str,
    request_id: str,
    payload: Mapping[str, Any],
    put_object: Callable[[str, bytes], object],
    now: float,
    metadata: Mapping[str, str] | None = None,
    in_flight_shards: int = IN_FLIGHT_SHARDS,
    tenant_shards: int = TENANT_SHARDS,
) -> Written:
    """Store a request that the job flow runs, from a caller other than a client: once, if its id is
    free. `done` is False if there is a request with this id, which is then `item`.

    `put_object` stores a payload of more than 7,000 bytes as an object of the files bucket, from
    its key and its content. Raises ValidationError, and KeyError without a field of the payload.
    """
    owner = owner_key(tenant_id, user_id)
    row = {
        "owner": owner,
        "request_id": request_id,
        "tenant_id": tenant_shard(tenant_id, request_id, tenant_shards),
        "action": INSTRUCT,
        "metadata": dict(metadata or {}),
        "max_attempts": 4,
        "on_disconnect": "detach",
        **flow_attributes(owner, request_id, payload),
    }
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    place = store_payload(dynamodb, table, (owner, request_id), text, now, put_object)
    return enqueue_request(dynamodb, table, row | place, now, shards=in_flight_shards)
