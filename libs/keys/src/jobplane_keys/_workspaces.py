"""Claims on workspaces: keys, ids, lifetimes, queue names, and the state of a stored claim."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jobplane_keys._clock import parse_iso_time

CLAIM_TTL_SECONDS = 3600
CLAIM_SKEW_SECONDS = 2
CLAIM_PURGE_SECONDS = 30 * 24 * 3600
INTERRUPTION_TTL_SECONDS = 30 * 24 * 3600
# How long a claim without a readable end is valid.
MALFORMED_CLAIM_SECONDS = 3600
# A start further in the future is malformed; less may be a wrong clock or offset.
MALFORMED_CLAIM_AHEAD_SECONDS = 24 * 3600

# As seconds, larger numbers are after the year 5000: they are milliseconds.
MILLISECONDS_FROM = 10**11

# The end of the year 9999, in milliseconds.
_LAST_MOMENT = 253_402_300_799_999

# Expressions of the three functions that release claims. Names: #state, #owner; values: :held,
# :claim, :fence, :owner, :free, :released, :purge.
HELD_CLAIM = "#state = :held AND claimId = :claim AND fence = :fence"
# The claim of an execution, whichever worker has its job: each that takes it over raises the fence.
ISSUED_CLAIM = (
    "#state = :held AND claimId = :claim"
    " AND (fence = :fence OR (fence >= :fence AND firstFence <= :fence))"
)
# For a claim whose owner has ended; claims of older writers have no claimId.
OWNED_CLAIM = (
    "#owner = :owner AND (attribute_not_exists(#state) OR #state = :held)"
    " AND (attribute_not_exists(claimId) OR claimId = :claim)"
)
RELEASE_CLAIM = (
    "SET #state = :free, lastReleased = :released, purgeAt = :purge"
    " REMOVE claimId, threadId, messageId, #owner, containerId, claimedAt, expiresAt, firstFence,"
    " taker, takenUntil"
)

# Kinds of the records of jobs that their workers did not end, and the kind for each status of an
# execution.
TIMEOUT_KINDS = frozenset({"timeout", "heartbeat_lost", "forced"})
TIMEOUT_KIND_OF_STATUS = {"TIMED_OUT": "timeout", "FAILED": "forced", "ABORTED": "forced"}

_MAX_FENCE = 2**53
MAX_QUEUE_NAME = 80
# SQS's error codes for a queue that does not exist, in its two protocols.
MISSING_QUEUE_CODES = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
# SQS requires one second between the creation of a queue and its use.
NEW_QUEUE_SECONDS = 1
# For all callers; in a queue's policy the resource is that queue.
TLS_ONLY_POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"sqs:*",'
    '"Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}'
)
WORKSPACE_ID_PATTERN = r"[A-Za-z0-9._@+-]{1,128}"
_WORKSPACE_ID = re.compile(WORKSPACE_ID_PATTERN)
PROJECT_PATTERN = r"[A-Za-z0-9._@-]{1,64}"
_PROJECT = re.compile(PROJECT_PATTERN)


class ValidationError(ValueError):
    """A field of the input is missing or malformed; `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Workspace:
    """A project and a user. At most one job of the job flow runs in it at a time."""

    project_id: str
    user_id: str

    @property
    def key(self) -> str:
        """`project#user`."""
        return f"{self.project_id}#{self.user_id}"


def workspace_of(event: Mapping[str, Any]) -> Workspace:
    """The workspace of a function's input: `projectUserId`, or `projectId` and `userId`.

    Raises ValidationError.
    """
    composite = checked_input(event).get("projectUserId")
    if composite is None:
        return Workspace(checked_id(event, "projectId"), checked_id(event, "userId"))
    if not isinstance(composite, str):
        raise ValidationError("projectUserId", "a string project#user is required")
    project_id, separator, user_id = composite.partition("#")
    if not separator or not _WORKSPACE_ID.fullmatch(project_id):
        raise ValidationError("projectUserId", _PATTERN_TEXT)
    if not _WORKSPACE_ID.fullmatch(user_id):
        raise ValidationError("projectUserId", _PATTERN_TEXT)
    for field, part in (("projectId", project_id), ("userId", user_id)):
        if event.get(field) not in (None, part):
            raise ValidationError(field, "differs from projectUserId")
    return Workspace(project_id, user_id)


def checked_input(event: Any) -> Mapping[str, Any]:
    """A function's input, if it is an object. Raises ValidationError for anything else."""
    if not isinstance(event, Mapping):
        raise ValidationError("input", "an object is required")
    return event


def checked_id(event: Mapping[str, Any], field: str) -> str:
    """A required id of a function's input. Raises ValidationError if it is missing or malformed."""
    value = event.get(field)
    if not isinstance(value, str) or not _WORKSPACE_ID.fullmatch(value):
        raise ValidationError(field, "1 to 128 of A-Z a-z 0-9 . _ @ + - are required")
    return value


def optional_id(event: Mapping[str, Any], field: str) -> str | None:
    """An optional id of a function's input. Raises ValidationError if it is malformed."""
    return None if event.get(field) is None else checked_id(event, field)


def checked_number(
    event: Mapping[str, Any], field: str, default: int | None, low: int, high: int
) -> int:
    """A whole number of a function's input; required if `default` is None.

    Raises ValidationError if it is missing, of another type, or not from `low` to `high`.
    """
    value = event.get(field)
    if value is None and default is not None:
        return default
    # JSON has one type of number, and Step Functions may write 60 as 60.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValidationError(field, f"a whole number from {low} to {high} is required")
    return value


def checked_choice(
    event: Mapping[str, Any], field: str, choices: Collection[str], default: str | None = None
) -> str:
    """A text that must be one of `choices`. Without a default it is required.

    Raises ValidationError.
    """
    value = event.get(field, default)
    if not isinstance(value, str) or value not in choices:
        raise ValidationError(field, f"one of {', '.join(sorted(choices))} is required")
    return value


def checked_fence(event: Mapping[str, Any]) -> int:
    """The required `fence` of a claim. Raises ValidationError."""
    return checked_number(event, "fence", None, 0, _MAX_FENCE)


def claim_expiry(row: Mapping[str, Any]) -> float | None:
    """Epoch seconds at which a stored claim ends; None without a readable time.

    Older rows have `ttl` instead of `expiresAt`, and some of their times are in milliseconds.
    """
    for name in ("expiresAt", "ttl"):
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _epoch_seconds(value)
    return None


def claim_start(row: Mapping[str, Any]) -> float | None:
    """Epoch seconds at which a stored claim began; None without a readable time."""
    return _epoch_seconds(row.get("claimedAt"))


@dataclass(frozen=True, slots=True)
class ClaimState:
    """The state of a stored claim. `reason`: none, free, expired, malformed or live."""

    live: bool
    reason: str

    @property
    def malformed(self) -> bool:
        """Whether the row has no readable end."""
        return self.reason == "malformed"


def claim_state(row: Mapping[str, Any], now: float) -> ClaimState:
    """The state of a stored claim at `now` (epoch seconds); an empty row means no claim.

    A claim without a readable end is malformed, and valid for an hour after `claimedAt`.
    """
    if not row:
        return ClaimState(False, "none")
    if row.get("state") == "free":
        return ClaimState(False, "free")
    expiry = claim_expiry(row)
    if expiry is None:
        began = claim_start(row)
        if began is None:
            return ClaimState(False, "malformed")
        age = now - began
        held = -MALFORMED_CLAIM_AHEAD_SECONDS < age < MALFORMED_CLAIM_SECONDS
        return ClaimState(held, "malformed")
    return ClaimState(True, "live") if expiry > now else ClaimState(False, "expired")


def tenant_workspace(tenant_id: str, user_id: str, project: str) -> Workspace:
    """The workspace of a user's project in a tenant: its project id is `tenant+project`.

    A project has no `+`, so no two tenants have the same workspace. Raises ValidationError for
    `project`, or for `user` if the ids of the token's user can't be in the name of a workspace.
    """
    if not _PROJECT.fullmatch(project):
        raise ValidationError("project", "1 to 64 of A-Z a-z 0-9 . _ @ - are required")
    found = Workspace(f"{tenant_id}+{project}", user_id)
    if not all(map(_WORKSPACE_ID.fullmatch, (found.project_id, user_id))):
        text = "tenant and user must be of A-Z a-z 0-9 . _ @ + - and short, to have workspaces"
        raise ValidationError("user", text)
    return found


def message_of_request(request_id: str) -> str:
    """The id of the job flow's message for a request. A message's id may have no colon."""
    return request_id.replace(":", "+")


def request_of_message(message_id: str) -> str:
    """The id of the request that `message_of_request` has made a message id of."""
    return message_id.replace("+", ":")


def execution_name(workspace: Workspace, message_id: str) -> str:
    """The name of the job flow's execution for a message; one name is executed once."""
    return _digest("execution", workspace.key, message_id)


def interrupt_id(claim_id: str, interrupting_message_id: str) -> str:
    """The id of an interrupt; the same when it is sent again."""
    return _digest("interrupt", claim_id, interrupting_message_id)


def record_id(
    kind: str,
    claim_id: str | None,
    interrupting_message_id: str | None,
    workspace_key: str | None = None,
) -> str:
    """The id of an interruption's record; the same when it is written again.

    The records of a message id have one partition, whatever their workspaces: pass the workspace,
    or two workspaces have one record if there is no claim.
    """
    parts = [kind, claim_id or "", interrupting_message_id or ""]
    if workspace_key is not None:
        parts.append(workspace_key)
    return f"{kind}#{_digest(*parts)}"


def dead_letter_id(kind: str, workspace_key: str, message_id: str, claim_id: str | None) -> str:
    """The id of a dead letter; the same when it is sent again."""
    return _digest("dead-letter", kind, workspace_key, message_id, claim_id or "")


def interrupt_queue_name(prefix: str, workspace: Workspace) -> str:
    """The queue of interrupts for a workspace: `{prefix}interrupts-{project}-{user}-{hash}`."""
    return _queue_name(f"{prefix}interrupts", workspace, "")


def input_queue_name(prefix: str, workspace: Workspace) -> str:
    """The FIFO queue of jobs for a workspace's job worker."""
    return _queue_name(f"{prefix}input", workspace, ".fifo")


def dead_letter_queue_name(prefix: str, workspace: Workspace) -> str:
    """The FIFO queue of dead letters of a workspace."""
    return _queue_name(f"{prefix}dlq", workspace, ".fifo")


def refusing_plain_http(attributes: Mapping[str, str], endpoint_url: str) -> dict[str, str]:
    """The attributes of a workspace's queue, with a policy that refuses requests without TLS.

    With an http endpoint, of an emulator, the attributes do not change. All creators must send the
    same attributes: SQS refuses to create an existing queue with different ones.
    """
    if not endpoint_url.startswith("https:"):
        return dict(attributes)
    return {**attributes, "Policy": TLS_ONLY_POLICY}


def _epoch_seconds(value: Any) -> float | None:
    """Epoch seconds of a time in seconds, milliseconds or ISO-8601; None for other values."""
    if isinstance(value, str):
        try:
            return parse_iso_time(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    # An integer may be too large for a float.
    value = max(-_LAST_MOMENT, min(value, _LAST_MOMENT))
    return value / 1000 if value > MILLISECONDS_FROM else float(value)


def _queue_name(head: str, workspace: Workspace, tail: str) -> str:
    # The hash distinguishes `a-b` + `c` from `a` + `b-c`, and names that were shortened. With its
    # 64 bits, no two of a billion workspaces have one, but for a chance of 3 in 100.
    end = f"-{_digest(workspace.project_id, workspace.user_id)[:16]}{tail}"
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", f"{head}-{workspace.project_id}-{workspace.user_id}")
    return readable[: MAX_QUEUE_NAME - len(end)] + end


def _digest(*parts: str) -> str:
    # No part has a line break: neither ids nor kinds can.
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


_PATTERN_TEXT = "expected project#user, each 1 to 128 of A-Z a-z 0-9 . _ @ + -"
