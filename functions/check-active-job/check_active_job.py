"""Returns whether a job runs in a workspace, and whether a new message must interrupt it.

Trigger: Step Functions. Input: `{projectUserId | projectId + userId, threadId}`.
Result: `{hasActiveJob, sameThread, shouldInterrupt, reason, activeJob | null, inputQueueName}`.
The state may change before the caller claims the workspace: the function claim decides.
Errors: ValidationError. Reads one row of `active-jobs`, consistently.
"""

import os
import time
from typing import Any

import botocore.session
from botocore.config import Config

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    checked_id,
    claim_expiry,
    claim_state,
    input_queue_name,
    read_item,
    workspace_of,
)
from jobplane_telemetry import Telemetry

ACTIVE_JOBS_TABLE = os.environ["ACTIVE_JOBS_TABLE"]
TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)

SHOWN = ("containerId", "threadId", "messageId", "claimId", "fence")

telemetry = Telemetry("check-active-job")
dynamodb: Any = botocore.session.get_session().create_client(
    "dynamodb", config=Config(**CLIENT_OPTIONS)
)


def result_of(row: dict[str, Any], thread_id: str, now: float) -> dict[str, Any]:
    """The result for a new message of a thread; {} without a row. `now` in seconds."""
    state = claim_state(row, now)
    same_thread = state.live and row.get("threadId") == thread_id
    if state.live and not state.malformed:
        reason = "same_thread" if same_thread else "other_thread"
    else:
        reason = state.reason
    return {
        "hasActiveJob": state.live,
        "sameThread": same_thread,
        "shouldInterrupt": state.live and not same_thread,
        "reason": reason,
        "activeJob": shown(row) if state.live else None,
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The public fields of a running job; `expiresAt` in epoch seconds for every stored form."""
    expiry = claim_expiry(row)
    ends = None if expiry is None else int(expiry)
    return {name: row.get(name) for name in SHOWN} | {"expiresAt": ends}


def active_job(key: str) -> dict[str, Any]:
    """The row of the workspace; {} if it does not exist."""
    return read_item(dynamodb, ACTIVE_JOBS_TABLE, {"projectUserId": key}) or {}


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    workspace = workspace_of(event)
    thread_id = checked_id(event, "threadId")
    telemetry.bind(project_user_id=workspace.key, thread_id=thread_id)
    answer = result_of(active_job(workspace.key), thread_id, time.time())
    telemetry.info("checked", reason=answer["reason"])
    return answer | {"inputQueueName": input_queue_name(TABLE_PREFIX, workspace)}
