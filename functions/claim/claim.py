"""The exclusive claim on a workspace: acquire, renew, release.

Trigger: Step Functions, and job workers by direct invoke.
Input: `{operation = "acquire", projectUserId | projectId + userId, …}`; acquire takes `threadId,
messageId, owner?, ttlSeconds?, minIntervalSeconds?`, renew and release `claimId, fence`. A worker
names itself as `taker`: renew with it takes the claim's job over, and raises the fence if another
worker had it, unless that one has renewed within its `takerSeconds` (reason `taken`).
Result: `{claimed | renewed | released: bool, …}`; a refusal is a result with a `reason`.
Errors: ValidationError. Acquire is one conditional UpdateItem of `active-jobs` without a read; for
a message of the thread whose job runs, a second one renews the claim of that job.
The fence grows with each claim of a workspace, for ever: pass it with every write of the job.
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
from botocore.config import Config

from jobplane_keys import (
    CLAIM_PURGE_SECONDS,
    CLAIM_SKEW_SECONDS,
    CLAIM_TTL_SECONDS,
    CLIENT_OPTIONS,
    HELD_CLAIM,
    ISSUED_CLAIM,
    MALFORMED_CLAIM_AHEAD_SECONDS,
    MALFORMED_CLAIM_SECONDS,
    MILLISECONDS_FROM,
    ValidationError,
    Workspace,
    checked_choice,
    checked_fence,
    checked_id,
    checked_input,
    checked_number,
    claim_expiry,
    claim_state,
    iso_time,
    workspace_of,
)
from jobplane_leases import Written, release_claim, update
from jobplane_telemetry import Telemetry

ACTIVE_JOBS_TABLE = os.environ["ACTIVE_JOBS_TABLE"]

MAX_TTL_SECONDS = 24 * 3600
# Bytes; the owner is the key of an index, which allows no more.
MAX_TEXT = 2048
# The longest visibility of a message in SQS.
MAX_TAKER_SECONDS = 12 * 3600

# A workspace is available without a row, and with a row that is released or expired, also in the
# forms of older versions (`ttl`, milliseconds, no end). Values of another type are ignored.
AVAILABLE = """
    attribute_not_exists(projectUserId) OR #state = :free
    OR (attribute_type(expiresAt, :number) AND (
        expiresAt <= :cutoff OR (expiresAt > :milliseconds AND expiresAt <= :cutoff_ms)))
    OR (NOT attribute_type(expiresAt, :number) AND attribute_type(#ttl, :number) AND (
        #ttl <= :cutoff OR (#ttl > :milliseconds AND #ttl <= :cutoff_ms)))
    OR (NOT attribute_type(expiresAt, :number) AND NOT attribute_type(#ttl, :number) AND NOT (
        (attribute_type(claimedAt, :number) AND (
            (claimedAt > :hour_ago AND claimedAt < :day_ahead)
            OR (claimedAt > :hour_ago_ms AND claimedAt < :day_ahead_ms)))
        OR (attribute_type(claimedAt, :string) AND
            claimedAt > :hour_ago_iso AND claimedAt < :day_ahead_iso)))
"""

telemetry = Telemetry("claim")
dynamodb: Any = botocore.session.get_session().create_client(
    "dynamodb", config=Config(**CLIENT_OPTIONS)
)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """A request for a workspace."""

    workspace: Workspace
    thread_id: str
    message_id: str
    owner: str | None
    ttl: int
    min_interval: int
    taker: str | None
    taker_seconds: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Acquisition":
        return cls(
            workspace=workspace_of(event),
            thread_id=checked_id(event, "threadId"),
            message_id=checked_id(event, "messageId"),
            owner=optional_text(event, "owner"),
            ttl=checked_number(event, "ttlSeconds", CLAIM_TTL_SECONDS, 1, MAX_TTL_SECONDS),
            min_interval=checked_number(event, "minIntervalSeconds", 0, 0, MAX_TTL_SECONDS),
            taker=optional_text(event, "taker"),
            taker_seconds=taker_seconds(event),
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """A claim that the caller says it holds."""

    workspace: Workspace
    claim_id: str
    fence: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Holding":
        return cls(
            workspace=workspace_of(event),
            claim_id=checked_id(event, "claimId"),
            fence=checked_fence(event),
        )


def taker_seconds(event: Mapping[str, Any]) -> int:
    """For how long no other worker may take a claim's job over; ValidationError."""
    return checked_number(event, "takerSeconds", 0, 0, MAX_TAKER_SECONDS)


def optional_text(event: Mapping[str, Any], field: str) -> str | None:
    """An optional text. Raises ValidationError for other values."""
    value = event.get(field)
    if value is None:
        return None
    try:
        size = len(value.encode()) if isinstance(value, str) else 0
    except UnicodeEncodeError:
        # Halves of surrogate pairs, which DynamoDB does not store.
        size = 0
    if not isinstance(value, str) or not 0 < size <= MAX_TEXT:
        raise ValidationError(field, f"a string of 1 to {MAX_TEXT} bytes of UTF-8 is required")
    return value


def new_claim(now: float) -> dict[str, str]:
    """The ids of a new claim."""
    container = f"container-{int(now * 1000)}-{secrets.token_hex(4)}"
    return {"claimId": str(uuid.uuid4()), "containerId": container}


def granted(row: Mapping[str, Any]) -> dict[str, Any]:
    """The result for a granted claim."""
    names = ("claimId", "fence", "containerId", "expiresAt")
    return {"claimed": True} | {name: row[name] for name in names}


def holder_of(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The holder of the workspace, for a caller that did not get the claim."""
    names = ("threadId", "messageId", "containerId", "claimId", "fence")
    expiry = claim_expiry(row)
    left = None if expiry is None else max(0, math.ceil(expiry - now))
    return {name: row.get(name) for name in names} | {"expiresInSeconds": left}


def is_same_claim(row: Mapping[str, Any], wish: Acquisition) -> bool:
    """Whether an earlier attempt of this wish, whose answer was lost, made the row."""
    return (
        "claimId" in row
        and row.get("messageId") == wish.message_id
        and row.get("owner") == wish.owner
    )


def refusal_of(row: Mapping[str, Any], wish: Acquisition, now: float) -> dict[str, Any]:
    """Why the workspace is not available, by the row that stood in the way."""
    # The write gives the holder a margin for wrong clocks; within it the claim is still valid.
    if wish.min_interval and not claim_state(row, now - CLAIM_SKEW_SECONDS).live:
        wait = row.get("lastClaimAt", now) + wish.min_interval - now
        seconds = max(1, math.ceil(wait))
        return {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": seconds}
    # A job whose claim has expired accepts no messages, even within the margin.
    joins = row.get("threadId") == wish.thread_id and claim_state(row, now).live
    reason = "same_thread" if joins else "held"
    return {"claimed": False, "reason": reason, "holder": holder_of(row, now)}


def loss_of(row: Mapping[str, Any], holding: Holding, now: float) -> str:
    """Why a claim is not held: `absent`, `released`, `expired`, `superseded` by another claim, or
    `taken` by another worker.
    """
    if not row:
        return "absent"
    fence = row.get("fence") or 0
    is_issued = row.get("firstFence", fence) <= holding.fence <= fence
    if row.get("claimId") == holding.claim_id and is_issued:
        return "taken" if claim_state(row, now).live else "expired"
    released = row.get("lastReleased") or {}
    return "released" if released.get("claimId") == holding.claim_id else "superseded"


def write_claim(wish: Acquisition, ids: Mapping[str, str], now: float) -> Written:
    """Take the workspace if it is available.

    The write needs no mark: `is_same_claim` recognises its repetition, and that of its caller.
    """
    hour_ago = now - MALFORMED_CLAIM_SECONDS
    day_ahead = now + MALFORMED_CLAIM_AHEAD_SECONDS
    values: dict[str, Any] = {
        "held": "held",
        "free": "free",
        "claim": ids["claimId"],
        "container": ids["containerId"],
        "one": 1,
        # Without a row the fence starts at the time, which is larger than every earlier fence.
        "start": int(now * 1000),
        "thread": wish.thread_id,
        "message": wish.message_id,
        # The key of an index must not be null.
        **({"owner": wish.owner} if wish.owner is not None else {}),
        "moment": iso_time(now),
        "now": round(now, 3),
        "expires": math.ceil(now) + wish.ttl,
        "purge": int(now) + CLAIM_PURGE_SECONDS,
        **({"taker": wish.taker, "until": now + wish.taker_seconds} if wish.taker else {}),
        "cutoff": now - CLAIM_SKEW_SECONDS,
        "cutoff_ms": (now - CLAIM_SKEW_SECONDS) * 1000,
        "milliseconds": MILLISECONDS_FROM,
        "number": "N",
        "string": "S",
        "hour_ago": hour_ago,
        "hour_ago_ms": hour_ago * 1000,
        "hour_ago_iso": iso_time(hour_ago),
        "day_ahead": day_ahead,
        "day_ahead_ms": day_ahead * 1000,
        "day_ahead_iso": iso_time(day_ahead),
    }
    condition = f"({AVAILABLE})"
    if wish.min_interval:
        condition += " AND (attribute_not_exists(lastClaimAt) OR lastClaimAt <= :earliest)"
        values["earliest"] = now - wish.min_interval
    return update(
        dynamodb,
        ACTIVE_JOBS_TABLE,
        {"projectUserId": wish.workspace.key},
        change=(
            "SET #state = :held, claimId = :claim, fence = if_not_exists(fence, :start) + :one,"
            f" threadId = :thread, messageId = :message,{' #owner = :owner,' if wish.owner else ''}"
            " containerId = :container, claimedAt = :moment, lastClaimAt = :now,"
            " expiresAt = :expires, purgeAt = :purge"
            f"{', taker = :taker, takenUntil = :until' if wish.taker else ''}"
            f" REMOVE #ttl, firstFence{'' if wish.owner else ', #owner'}"
            f"{'' if wish.taker else ', taker, takenUntil'}"
        ),
        condition=" ".join(condition.split()),
        values=values,
        mark=None,
    )


def prolong(row: Mapping[str, Any], wish: Acquisition, now: float) -> bool:
    """Renew the claim of a thread's job for another message of it; return whether the job runs.

    Never shortens a claim, and does not renew an expired or another one.
    """
    if "claimId" not in row:
        return True
    done, left = write_held(
        Holding(wish.workspace, row["claimId"], row["fence"]),
        "SET expiresAt = :expires, purgeAt = :purge",
        "expiresAt > :now AND expiresAt < :expires",
        {"expires": math.ceil(now) + wish.ttl, "now": now},
        now,
    )
    return done or (left.get("claimId") == row["claimId"] and claim_state(left, now).live)


def write_held(
    holding: Holding,
    change: str,
    condition: str,
    values: Mapping[str, Any],
    now: float,
    held: str = HELD_CLAIM,
) -> Written:
    """Change the row of a claim that is held. Never makes a row.

    The write needs no mark: its repetition succeeds, or its caller finds what it wanted in the row.
    """
    return update(
        dynamodb,
        ACTIVE_JOBS_TABLE,
        {"projectUserId": holding.workspace.key},
        change=change,
        condition=f"{held} AND {condition}",
        values={
            "held": "held",
            "claim": holding.claim_id,
            "fence": holding.fence,
            "purge": int(now) + CLAIM_PURGE_SECONDS,
            **values,
        },
        mark=None,
    )


def take(holding: Holding, taker: str, seconds: int, ttl: int, now: float) -> Written:
    """Make `taker` the one worker that has the claim's job.

    If another worker had it, the fence grows, and that worker can't renew any more. It is refused
    if the claim is lost, or another worker surely works.
    """
    change = "SET expiresAt = :expires, purgeAt = :purge, taker = :taker, takenUntil = :until"
    values = {
        "expires": math.ceil(now) + ttl,
        "now": now,
        "taker": taker,
        "until": now + seconds,
    }
    first = "expiresAt > :now AND (attribute_not_exists(taker) OR taker = :taker)"
    written = write_held(holding, change, first, values, now, held=ISSUED_CLAIM)
    previous = written.item.get("taker")
    if written.done or previous is None:
        return written
    later = "expiresAt > :now AND taker = :previous AND takenUntil <= :cutoff"
    raised = ", firstFence = if_not_exists(firstFence, fence), fence = fence + :one"
    values |= {"previous": previous, "one": 1, "cutoff": now - CLAIM_SKEW_SECONDS}
    done, row = write_held(holding, change + raised, later, values, now, held=ISSUED_CLAIM)
    # This very write, or another call of the same worker, has made it the taker.
    is_taker = row.get("claimId") == holding.claim_id and row.get("taker") == taker
    return Written(done or is_taker, row)


def acquire(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Claim the workspace, or return its holder."""
    wish = Acquisition.of(event)
    done, row = write_claim(wish, new_claim(now), now)
    if not done and is_same_claim(row, wish) and claim_state(row, now).live:
        if wish.taker is None:
            return granted(row)
        holding = Holding(wish.workspace, row["claimId"], row["fence"])
        done, row = take(holding, wish.taker, wish.taker_seconds, wish.ttl, now)
    if done:
        return granted(row)
    refusal = refusal_of(row, wish, now)
    if refusal["reason"] == "same_thread" and not prolong(row, wish, now):
        refusal["reason"] = "held"
    return refusal


def renew(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Renew a claim. An expired one can't be renewed, even if the workspace is free."""
    holding = Holding.of(event)
    ttl = checked_number(event, "ttlSeconds", CLAIM_TTL_SECONDS, 1, MAX_TTL_SECONDS)
    taker, seconds = optional_text(event, "taker"), taker_seconds(event)
    if taker is not None:
        done, row = take(holding, taker, seconds, ttl, now)
    else:
        done, row = write_held(
            holding,
            "SET expiresAt = :expires, purgeAt = :purge"
            f"{', takenUntil = :until' if seconds else ''}",
            "expiresAt > :now",
            {"expires": math.ceil(now) + ttl, "now": now}
            | ({"until": now + seconds} if seconds else {}),
            now,
        )
    if not done:
        return {"renewed": False, "reason": loss_of(row, holding, now)}
    taken = {"fence": row["fence"]} if taker is not None else {}
    return {"renewed": True, "expiresAt": row["expiresAt"], **taken}


def release(event: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Release a claim; repeating it succeeds. The row stays, because it has the fence."""
    holding = Holding.of(event)
    done, row = release_claim(
        dynamodb,
        ACTIVE_JOBS_TABLE,
        holding.workspace.key,
        claim_id=holding.claim_id,
        fence=holding.fence,
        # A worker releases what it has; the execution, whichever worker has it.
        is_worker=optional_text(event, "taker") is not None,
        reason=optional_text(event, "reason") or "done",
        now=now,
    )
    if done:
        return {"released": True, "repeated": False}
    lost = loss_of(row, holding, now)
    if lost == "released":
        return {"released": True, "repeated": True}
    return {"released": False, "reason": "superseded" if lost == "taken" else lost}


OPERATIONS: dict[str, Callable[[Mapping[str, Any], float], dict[str, Any]]] = {
    "acquire": acquire,
    "renew": renew,
    "release": release,
}


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    operation = checked_choice(checked_input(event), "operation", OPERATIONS, "acquire")
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
