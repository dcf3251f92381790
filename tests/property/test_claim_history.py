"""The check of histories of claims passes exactly those that can be explained."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.e2e.claim_history import Operation, faults

END = 1000.0


def acquired(
    start: float, end: float, message: str, fence: int, *, claim: str = "", expires: float = END
) -> Operation:
    answer = {
        "claimed": True, "claimId": claim or f"claim-{message}", "fence": fence,
        "expiresAt": expires,
    }  # fmt: skip
    return Operation("a#b", "acquire", message, 0, start, end, answer)


def refused(start: float, end: float, message: str, holder: str, fence: int) -> Operation:
    answer = {"claimed": False, "reason": "held", "holder": {"claimId": holder, "fence": fence}}
    return Operation("a#b", "acquire", message, 0, start, end, answer)


def renewed(
    start: float, end: float, claim: str, fence: int, *, ok: bool = True, expires: float = END
) -> Operation:
    answer = {"renewed": ok, "expiresAt": expires} if ok else {"renewed": ok}
    return Operation("a#b", "renew", claim, fence, start, end, answer)


def released(
    start: float, end: float, claim: str, fence: int, *, ok: bool = True, repeated: bool = False
) -> Operation:
    answer = {"released": ok, "repeated": repeated}
    return Operation("a#b", "release", claim, fence, start, end, answer)


def timed_out(start: float, end: float, claim: str, fence: int, *, ok: bool = True) -> Operation:
    return Operation("a#b", "timeout", claim, fence, start, end, {"released": ok})


FIRST = acquired(0, 1, "m1", 1)
BRIEF = acquired(0, 1, "m1", 1, expires=5)
FREED = released(2, 3, "claim-m1", 1)
SECOND, LATE = acquired(2, 3, "m2", 2), acquired(8, 9, "m2", 2)


def unanswered(start: float, kind: str, subject: str, fence: int = 0) -> Operation:
    """Its answer never came."""
    return Operation("a#b", kind, subject, fence, start, start + 1, None)


RIGHT = {
    "a release without an answer that took effect": [
        FIRST, unanswered(2, "release", "claim-m1", 1), acquired(8, 9, "m2", 2),
    ],
    "a release without an answer that took effect long after, or never": [
        FIRST, unanswered(2, "release", "claim-m1", 1), renewed(4, 5, "claim-m1", 1),
        refused(6, 7, "m2", "claim-m1", 1), acquired(8, 9, "m2", 2),
    ],
    "an acquisition without an answer that others find": [
        unanswered(0, "acquire", "m1"), refused(4, 5, "m2", "claim-m1", 1),
        acquired(6, 7, "m1", 1), released(8, 9, "claim-m1", 1),
    ],
    "a renewal without an answer that kept the claim": [
        BRIEF, unanswered(3, "renew", "claim-m1", 1), refused(8, 9, "m2", "claim-m1", 1),
        renewed(10, 11, "claim-m1", 1),
    ],
    "nothing": [],
    "one after the other": [
        FIRST, FREED, acquired(4, 5, "m2", 2), renewed(6, 7, "claim-m2", 2),
        released(8, 9, "claim-m2", 2),
    ],
    "granted while the release was under way": [
        FIRST, released(2, 9, "claim-m1", 1), acquired(3, 4, "m2", 2),
    ],
    "a slow first grant that was over before the second": [
        acquired(0, 9, "m1", 1, expires=5), acquired(7, 8, "m2", 2),
    ],
    "a takeover after the expiry": [
        acquired(0, 1, "m1", 1, expires=10), refused(11, 11.5, "m2", "claim-m1", 1),
        acquired(12, 13, "m2", 2), renewed(14, 15, "claim-m1", 1, ok=False),
        released(14, 15, "claim-m1", 1, ok=False),
    ],
    "a lost answer given again": [
        FIRST, acquired(2, 3, "m1", 1), refused(2, 3, "m2", "claim-m1", 1),
    ],
    "released twice": [FIRST, FREED, released(4, 5, "claim-m1", 1, repeated=True)],
    "released and timed out at once": [
        FIRST, timed_out(2, 5, "claim-m1", 1), released(3, 4, "claim-m1", 1, repeated=True),
        acquired(4, 5, "m2", 2),
    ],
    "an expired claim without a successor is released": [
        acquired(0, 1, "m1", 1, expires=2), released(9, 10, "claim-m1", 1),
    ],
    "renewed before it ran out": [
        BRIEF, renewed(4, 5, "claim-m1", 1, expires=20), renewed(15, 16, "claim-m1", 1, expires=30),
        refused(21, 22, "m2", "claim-m1", 1),
    ],
    "the same message again, after its claim was over": [
        FIRST, FREED, acquired(4, 5, "m1", 2, claim="claim-m1-again"),
    ],
}  # fmt: skip

WRONG = {
    "a grant before a release without an answer began": (
        [FIRST, SECOND, unanswered(4, "release", "claim-m1", 1)], "was granted while"),
    "a grant that a renewal without an answer can't explain": (
        [FIRST, unanswered(1, "renew", "claim-m1", 1), SECOND], "was granted while"),
    "a holder from nowhere, before anybody asked": (
        [refused(0, 1, "m1", "claim-0", 1), unanswered(4, "acquire", "m2")],
        "that was never granted"),
    "a double grant": ([FIRST, SECOND], "was granted while"),
    "a double grant at one moment": (
        [acquired(0, 2, "m1", 1), acquired(1, 3, "m2", 2)], "were held at once"),
    "a grant before the release began": (
        [FIRST, SECOND, released(4, 5, "claim-m1", 1)], "was granted while"),
    "a grant while a renewal kept the claim": (
        [BRIEF, renewed(2, 3, "claim-m1", 1, expires=50), LATE], "was granted while"),
    "a lost answer that became another claim": (
        [FIRST, acquired(2, 3, "m1", 2, claim="claim-other")], "was sent again and got no"),
    "a lost answer that was refused": (
        [FIRST, refused(2, 3, "m1", "claim-m1", 1)], "was sent again and got no"),
    "a fence that restarts": (
        [acquired(0, 1, "m1", 7), released(2, 3, "claim-m1", 7), acquired(4, 5, "m2", 1)],
        "is below that of the earlier"),
    "a fence that stands still": (
        [acquired(0, 1, "m1", 7), released(2, 3, "claim-m1", 7), acquired(4, 5, "m2", 7)],
        "have one fence"),
    "a renewal after a takeover": (
        [BRIEF, LATE, renewed(10, 11, "claim-m1", 1)], "renewed by a stale holder"),
    "a renewal after the expiry": (
        [BRIEF, renewed(6, 7, "claim-m1", 1)], "renewed by a stale holder"),
    "a renewal after the release": (
        [FIRST, FREED, renewed(4, 5, "claim-m1", 1)], "renewed by a stale holder"),
    "a renewal after a clean-up": (
        [FIRST, timed_out(2, 3, "claim-m1", 1), renewed(4, 5, "claim-m1", 1)],
        "renewed by a stale holder"),
    "an unconditional release": (
        [BRIEF, LATE, released(10, 11, "claim-m1", 1)], "released by a stale holder"),
    "a claim released twice": (
        [FIRST, FREED, released(4, 5, "claim-m1", 1)], "released by a stale holder"),
    "an unconditional clean-up": (
        [BRIEF, LATE, timed_out(10, 11, "claim-m1", 1)], "released by a stale clean-up"),
    "a repetition of nothing": (
        [FIRST, released(2, 3, "claim-m1", 1, repeated=True)], "which it was not"),
    "a holder that is not renewed": (
        [FIRST, renewed(2, 3, "claim-m1", 1, ok=False)], "was refused while it was held"),
    "a holder that can't release": (
        [FIRST, released(2, 3, "claim-m1", 1, ok=False)], "was refused while it was held"),
    "a claim that blocks after its release": (
        [FIRST, FREED, refused(4, 5, "m2", "claim-m1", 1)], "which was over"),
    "a claim that blocks past its end": (
        [BRIEF, refused(8, 9, "m2", "claim-m1", 1)], "which was over"),
    "a holder from nowhere": ([refused(0, 1, "m1", "claim-0", 1)], "that was never granted"),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_a_history_that_can_be_explained_has_no_fault(case: str) -> None:
    assert faults(list(RIGHT[case])) == []


@pytest.mark.parametrize("case", WRONG)
def test_a_history_that_can_not_be_explained_has_its_fault(case: str) -> None:
    operations, words = WRONG[case]
    assert any(words in fault for fault in faults(operations))


def test_claims_of_two_workspaces_at_once_are_no_fault() -> None:
    there = replace(acquired(0, 1, "m2", 1), workspace="c#d")
    assert faults([acquired(0, 1, "m1", 1), there]) == []


@dataclass
class Service:
    """A claim service with bugs on request."""

    bug: str = ""
    row: dict[str, Any] = field(default_factory=dict)
    fence: int = 0
    freed: set[str] = field(default_factory=set)

    def acquire(self, message: str, now: float, number: int) -> dict[str, Any]:
        held = bool(self.row) and now < self.row["expiresAt"] + 2
        if held and self.row["message"] == message and self.bug != "no retry":
            return {"claimed": True, **self.row}
        if held and not (self.bug == "double grant" and number % 5 == 0):
            return {"claimed": False, "reason": "held", "holder": dict(self.row)}
        restarts = self.bug == "fence restarts" and number % 7 == 0
        self.fence = 1 if restarts else self.fence + 1
        self.row = {
            "claimId": f"claim-{number}", "fence": self.fence, "expiresAt": now + 20,
            "message": message,
        }  # fmt: skip
        return {"claimed": True, **self.row}

    def is_mine(self, claim: str, fence: int) -> bool:
        return (self.row.get("claimId"), self.row.get("fence")) == (claim, fence)

    def renew(self, claim: str, fence: int, now: float) -> dict[str, Any]:
        live = bool(self.row) and now < self.row["expiresAt"]
        if not (self.is_mine(claim, fence) and live or self.bug == "renews all" and self.row):
            return {"renewed": False}
        self.row["expiresAt"] = now + 20
        return {"renewed": True, "expiresAt": now + 20}

    def release(self, claim: str, fence: int) -> dict[str, Any]:
        if self.is_mine(claim, fence) or (self.bug == "releases all" and self.row):
            self.row = {}
            self.freed.add(claim)
            return {"released": True, "repeated": False}
        return {"released": claim in self.freed, "repeated": claim in self.freed}


def simulated(bug: str, seed: int) -> list[Operation]:
    """A history of sixteen concurrent clients; each operation takes effect within its time."""
    chance = random.Random(seed)
    service = Service(bug)
    claims: list[tuple[str, int]] = []
    instant = 0.0
    operations: list[Operation] = []
    for number in range(400):
        instant += chance.choice([0.1, 0.5, 3, 30])
        start, end = instant - chance.random() * 2, instant + chance.random() * 2
        kind = chance.choice(["acquire", "acquire", "renew", "release"])
        if kind == "acquire" or not claims:
            message = f"m{number - chance.choice([0, 1, 2])}"
            answer = service.acquire(message, instant, number)
            if answer["claimed"]:
                claims.append((answer["claimId"], answer["fence"]))
            operations.append(Operation("a#b", "acquire", message, 0, start, end, answer))
            continue
        claim, fence = claims[-min(len(claims), chance.choice([1, 1, 2, 3]))]
        if kind == "renew":
            answer = service.renew(claim, fence, instant)
        else:
            answer = service.release(claim, fence)
        operations.append(Operation("a#b", kind, claim, fence, start, end, answer))
    return operations


@pytest.mark.parametrize("seed", range(30))
def test_lost_answers_of_a_correct_service_are_no_fault(seed: int) -> None:
    """Whichever of its answers are lost."""
    chance = random.Random(seed)
    operations = [
        replace(each, answer=None) if chance.random() < 0.2 else each
        for each in simulated("", seed)
    ]
    assert faults(operations) == []


@pytest.mark.parametrize("seed", range(30))
def test_a_correct_service_has_no_fault(seed: int) -> None:
    assert faults(simulated("", seed)) == []


@pytest.mark.parametrize(
    "bug", ["double grant", "fence restarts", "renews all", "releases all", "no retry"]
)
def test_every_planted_bug_is_found(bug: str) -> None:
    """In each of ten histories."""
    assert all(faults(simulated(bug, seed)) for seed in range(10))
