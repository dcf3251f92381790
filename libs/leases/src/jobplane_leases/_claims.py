"""The release of a workspace's claim, for every function that does it."""

from typing import Any

from jobplane_keys import (
    CLAIM_PURGE_SECONDS,
    HELD_CLAIM,
    ISSUED_CLAIM,
    OWNED_CLAIM,
    RELEASE_CLAIM,
    iso_time,
)
from jobplane_leases._writes import Row, Written, update


def release_claim(
    dynamodb: Any,
    table: str,
    project_user_id: str,
    *,
    claim_id: str | None,
    fence: int | None = None,
    owner: str | None = None,
    is_worker: bool = False,
    reason: str,
    now: float,
) -> Written:
    """Free a workspace that is held by this claim: that of `claim_id` and `fence`, or, for the
    claim of an owner that is gone, that of `owner`; an older writer's claim has no id.

    A worker whose job another one has taken over has an older fence, and can't release the claim;
    the execution can, with any fence of its claim.

    The row stays, since its fence must never be used again.
    """
    held = HELD_CLAIM if is_worker else ISSUED_CLAIM
    released = {"claimId": claim_id, "at": iso_time(now), "reason": reason}
    whose: Row = {"fence": fence} if owner is None else {"owner": owner}
    return update(
        dynamodb,
        table,
        {"projectUserId": project_user_id},
        change=RELEASE_CLAIM,
        condition=held if owner is None else OWNED_CLAIM,
        values={
            "free": "free",
            "held": "held",
            "claim": claim_id,
            "released": {name: value for name, value in released.items() if value is not None},
            "purge": int(now) + CLAIM_PURGE_SECONDS,
            **whose,
        },
    )
