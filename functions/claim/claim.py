"""The exclusive claim on a workspace: acquire, renew, release.

Trigger: Step Functions, and workers by direct invoke.
Input: `{operation = "acquire", projectUserId | projectId + userId, …}`; acquire takes `threadId,
messageId, owner?, ttlSeconds?, minIntervalSeconds?`, renew and release `claimId, fence`.
Result: `{claimed | renewed | released: bool, …}`; what is refused is an answer with a `reason`.
Errors: ValidationError. Acquire is one conditional UpdateItem of the active jobs and no read; a
message that joins its own thread's job costs one more, to keep that job's claim alive.
The fence grows with every claim of a workspace, for ever: pass it to what the job writes.
"""

import math
import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.session

from jobplane_keys import (
    CLAIM_PURGE_SECONDS,
    CLAIM_SKEW_SECONDS,
    CLAIM_TTL_SECONDS,
    MALFORMED_CLAIM_SECONDS,
    MILLISECONDS_FROM,
    ValidationError,
    Workspace,
    checked_id,
    checked_number,
    claim_expiry,
    claim_state,
    from_item,
    iso_time,
    to_item,
    workspace_of,
)
from jobplane_telemetry import Telemetry

ACTIVE_JOBS_TABLE = os.environ["ACTIVE_JOBS_TABLE"]

MAX_TTL_SECONDS = 24 * 3600
MAX_TEXT = 2048
MAX_FENCE = 2**53

# Free for the taking: no row, a released one, one whose time is up, in any of the shapes that
# older writers left (`ttl`, milliseconds, no end at all).
AVAILABLE = """
    attribute_not_exists(projectUserId) OR #state = :free
    OR expiresAt <= :cutoff OR (expiresAt > :milliseconds AND expiresAt <= :cutoff_ms)
    OR (attribute_not_exists(expiresAt) AND (
        #ttl <= :cutoff OR (#ttl > :milliseconds AND #ttl <= :cutoff_ms)
        OR (attribute_not_exists(#ttl) AND (
            attribute_not_exists(claimedAt) OR claimedAt <= :hour_ago_iso
            OR claimedAt <= :hour_ago
            OR (claimedAt > :milliseconds AND claimedAt <= :hour_ago_ms)))))
"""
HELD_BY = "#state = :held AND claimId = :claim AND fence = :fence"

telemetry = Telemetry("claim")
dynamodb: Any = botocore.session.get_session().create_client("dynamodb")


@dataclass(frozen=True, slots=True)
class Acquisition:
    """A wish for a workspace."""

    workspace: Workspace
    thread_id: str
    message_id: str
    owner: str | None
    ttl: int
    min_interval: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Acquisition":
        return cls(
            workspace=workspace_of(event),
            thread_id=checked_id(event, "threadId"),
            message_id=checked_id(event, "messageId"),
            owner=optional_text(event, "owner"),
            ttl=checked_number(event, "ttlSeconds", CLAIM_TTL_SECONDS, 1, MAX_TTL_SECONDS),
            min_interval=checked_number(event, "minIntervalSeconds", 0, 0, MAX_TTL_SECONDS),
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """A claim that somebody says is theirs."""

    workspace: Workspace
    claim_id: str
    fence: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Holding":
        return cls(
            workspace=workspace_of(event),
            claim_id=checked_id(event, "claimId"),
            fence=checked_number(event, "fence", None, 0, MAX_FENCE),
        )


def optional_text(event: Mapping[str, Any], field: str) -> str | None:
    """A text that may be absent; ValidationError when it is something else."""
    value = event.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise ValidationError(field, f"a string of 1 to {MAX_TEXT} characters is required")
    return value


def new_claim(now: float) -> dict[str, str]:
    """Ids of a claim that is about to be made."""
    container = f"container-{int(now * 1000)}-{secrets.token_hex(4)}"
    return {"claimId": str(uuid.uuid4()), "containerId": container}


def granted(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a claim that was made."""
    names = ("claimId", "fence", "containerId", "expiresAt")
    return {"claimed": True} | {name: row[name] for name in names}


def holder_of(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Who has the workspace, as a loser may know it."""
    names = ("threadId", "messageId", "containerId", "claimId", "fence")
    expiry = claim_expiry(row)
    left = None if expiry is None else max(0, math.ceil(expiry - now))
    return {name: row.get(name) for name in names} | {"expiresInSeconds": left}


def is_same_claim(row: Mapping[str, Any], wish: Acquisition) -> bool:
    """Whether the row is what this very wish made: the answer was lost and it is sent again."""
    return (
        "claimId" in row
        and row.get("messageId") == wish.message_id
        and row.get("owner") == wish.owner
    )


def refusal_of(row: Mapping[str, Any], wish: Acquisition, now: float) -> dict[str, Any]:
    """Why the workspace can't be had, told from the row that stood in the way."""
    # The write left a skew margin to the holder; within it the claim still holds.
    if not claim_state(row, now - CLAIM_SKEW_SECONDS).live:
        wait = row.get("lastClaimAt", now) + wish.min_interval - now
        seconds = max(1, math.ceil(wait))
        return {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": seconds}
    same_thread = row.get("threadId") == wish.thread_id
    reason = "same_thread" if same_thread else "held"
    return {"claimed": False, "reason": reason, "holder": holder_of(row, now)}


def loss_of(row: Mapping[str, Any], holding: Holding, now: float) -> str:
    """Why a holding is none: `absent`, `released`, `expired` or `superseded`."""
    if not row:
        return "absent"
    if row.get("claimId") == holding.claim_id and row.get("fence") == holding.fence:
        return "expired"
    released = row.get("lastReleased") or {}
    return "released" if released.get("claimId") == holding.claim_id else "superseded"


def write_claim(wish: Acquisition, ids: Mapping[str, str], now: float) -> dict[str, Any]:
    """Take the workspace if it is available; the new row.

    Raises ConditionalCheckFailedException with the row that stood in the way.
    """
    values: dict[str, Any] = {
        ":held": "held",
        ":free": "free",
        ":claim": ids["claimId"],
        ":container": ids["containerId"],
        ":one": 1,
        # A row that was purged would start again at 1; the clock is past every earlier fence.
        ":start": int(now * 1000),
        ":thread": wish.thread_id,
        ":message": wish.message_id,
        ":owner": wish.owner,
        ":moment": iso_time(now),
        ":now": round(now, 3),
        ":expires": math.ceil(now) + wish.ttl,
        ":purge": int(now) + CLAIM_PURGE_SECONDS,
        ":cutoff": now - CLAIM_SKEW_SECONDS,
        ":cutoff_ms": (now - CLAIM_SKEW_SECONDS) * 1000,
        ":milliseconds": MILLISECONDS_FROM,
        ":hour_ago": now - MALFORMED_CLAIM_SECONDS,
        ":hour_ago_ms": (now - MALFORMED_CLAIM_SECONDS) * 1000,
        ":hour_ago_iso": iso_time(now - MALFORMED_CLAIM_SECONDS),
    }
    condition = f"({AVAILABLE})"
    if wish.min_interval:
        condition += " AND (attribute_not_exists(lastClaimAt) OR lastClaimAt <= :earliest)"
        values[":earliest"] = now - wish.min_interval
    updated = dynamodb.update_item(
        TableName=ACTIVE_JOBS_TABLE,
        Key=to_item({"projectUserId": wish.workspace.key}),
        UpdateExpression=(
            "SET #state = :held, claimId = :claim, fence = if_not_exists(fence, :start) + :one,"
            " threadId = :thread, messageId = :message, #owner = :owner,"
            " containerId = :container, claimedAt = :moment, lastClaimAt = :now,"
            " expiresAt = :expires, purgeAt = :purge REMOVE #ttl"
        ),
        ConditionExpression=" ".join(condition.split()),
        ExpressionAttributeNames={"#state": "state", "#owner": "owner", "#ttl": "ttl"},
        ExpressionAttributeValues=to_item(values),
        ReturnValues="ALL_NEW",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    return from_item(updated["Attributes"])


def prolong(row: Mapping[str, Any], wish: Acquisition, now: float) -> None:
    """Keep a thread's job alive for a message that joins it; never shortens, never takes over."""
    if "claimId" not in row:
        return
    try:
        write_held(
            Holding(wish.workspace, row["claimId"], row["fence"]),
            "SET expiresAt = :expires, purgeAt = :purge",
            "expiresAt < :expires",
            {":expires": math.ceil(now) + wish.ttl},
            now,
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        telemetry.debug("nothing to prolong")


def write_held(
    holding: Holding, update: str, condition: str, values: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """Change the row while the holding is true; the new row.

    Raises ConditionalCheckFailedException with the row as it is. Never makes a row.
    """
    bound = {
        ":held": "held",
        ":claim": holding.claim_id,
        ":fence": holding.fence,
        ":purge": int(now) + CLAIM_PURGE_SECONDS,
        **values,
    }
    updated = dynamodb.update_item(
        TableName=ACTIVE_JOBS_TABLE,
        Key=to_item({"projectUserId": holding.workspace.key}),
        UpdateExpression=update,
        ConditionExpression=f"{HELD_BY} AND {condition}" if condition else HELD_BY,
        ExpressionAttributeNames={"#state": "state"}
        | ({"#owner": "owner"} if "#owner" in update else {}),
        ExpressionAttributeValues=to_item(bound),
        ReturnValues="ALL_NEW",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    return from_item(updated["Attributes"])


def acquire(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Take the workspace, or say who has it."""
    wish = Acquisition.of(event)
    try:
        return granted(write_claim(wish, new_claim(now), now))
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        row = from_item(error.response.get("Item", {}))
    if is_same_claim(row, wish) and claim_state(row, now).live:
        return granted(row)
    refusal = refusal_of(row, wish, now)
    if refusal["reason"] == "same_thread":
        prolong(row, wish, now)
    return refusal


def renew(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Keep a claim. One that has run out is gone, even when nobody took it since."""
    holding = Holding.of(event)
    ttl = checked_number(event, "ttlSeconds", CLAIM_TTL_SECONDS, 1, MAX_TTL_SECONDS)
    try:
        row = write_held(
            holding,
            "SET expiresAt = :expires, purgeAt = :purge",
            "expiresAt > :now",
            {":expires": math.ceil(now) + ttl, ":now": now},
            now,
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        lost = loss_of(from_item(error.response.get("Item", {})), holding, now)
        return {"renewed": False, "reason": lost}
    return {"renewed": True, "expiresAt": row["expiresAt"]}


def release(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Give a claim back; the row stays, so that the fence does. Twice is success."""
    holding = Holding.of(event)
    reason = optional_text(event, "reason") or "done"
    released = {"claimId": holding.claim_id, "at": iso_time(now), "reason": reason}
    try:
        write_held(
            holding,
            "SET #state = :free, lastReleased = :released, purgeAt = :purge"
            " REMOVE claimId, threadId, messageId, #owner, containerId, claimedAt, expiresAt",
            "",
            {":free": "free", ":released": released},
            now,
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        lost = loss_of(from_item(error.response.get("Item", {})), holding, now)
        if lost == "released":
            return {"released": True, "repeated": True}
        return {"released": False, "reason": lost}
    return {"released": True, "repeated": False}


OPERATIONS: dict[str, Callable[[Mapping[str, Any], float], dict[str, Any]]] = {
    "acquire": acquire,
    "renew": renew,
    "release": release,
}


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    operation = event.get("operation", "acquire")
    if operation not in OPERATIONS:
        raise ValidationError("operation", f"one of {', '.join(OPERATIONS)} is required")
    telemetry.bind(project_user_id=workspace_of(event).key, operation=operation)
    answer = OPERATIONS[operation](event, time.time())
    telemetry.metric("ClaimOperation", Action=operation)
    telemetry.info(
        "claim",
        reason=answer.get("reason"),
        claim_id=answer.get("claimId") or event.get("claimId"),
        fence=answer.get("fence") or event.get("fence"),
    )
    return answer
