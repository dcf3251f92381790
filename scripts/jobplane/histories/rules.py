"""The rules of the specifications for one request, one claim and one row of a lane, as functions.

Each takes the state before a write and what the write was given, and returns the state after it, or
None if the write has to be refused. Clocks of callers are wrong by two seconds at most, in each
direction: so much earlier than its end a lease may be taken.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jobplane.histories.operations import CLAIMS, LANES, Row
from jobplane_keys import TERMINAL_STATUSES

SKEW_SECONDS = 2.0


class Request(NamedTuple):
    """The state of a request's row."""

    status: str
    owner: str | None = None
    until: float | None = None
    attempts: int = 0
    most: int = 0
    seq: int = 0
    asked: bool = False
    waits: bool = False
    write: str | None = None
    ttl: float = 0
    steps: int = 0
    step: str | None = None
    """The id of the last write of its steps."""
    token: str | None = None
    """The digest of the callback that is open."""
    expires: float = 0
    answered: bool = False
    starts: str | None = None
    """The start time that a lane's rate gives."""

    @classmethod
    def of(cls, row: Row) -> "Request | None":
        if not row:
            return None
        seq = row["seq"] if "seq" in row else (row.get("progress") or {}).get("seq", 0)
        callback = row.get("callback") or {}
        return cls(
            row.get("status", ""), row.get("lease_owner"), row.get("lease_until"),
            row.get("attempts", 0), row.get("max_attempts", 0), seq,
            row.get("cancel_requested", False), "waiting_lane" in row, row.get("write_id"),
            row.get("ttl", 0), row.get("step_count", 0), row.get("step_write_id"),
            callback.get("digest"), callback.get("expires", 0), "callback_answer" in row,
            row.get("starts_at"),
        )  # fmt: skip

    def __str__(self) -> str:
        owner = f" of {self.owner}" if self.owner else ""
        until = f" until {self.until:.0f}" if self.until is not None else ""
        steps = f", {self.steps} steps" if self.steps else ""
        return f"{self.status}{owner}{until}, attempt {self.attempts}, seq {self.seq}{steps}"


class Claim(NamedTuple):
    """The state of a workspace's row."""

    state: str
    claim: str | None = None
    fence: int = 0
    first: int | None = None
    expires: float = 0
    taker: str | None = None
    taken: float | None = None
    released: str | None = None
    last: float = 0

    @classmethod
    def of(cls, row: Row) -> "Claim | None":
        if not row:
            return None
        return cls(
            row.get("state", ""), row.get("claimId"), row.get("fence", 0), row.get("firstFence"),
            row.get("expiresAt", 0), row.get("taker"), row.get("takenUntil"),
            (row.get("lastReleased") or {}).get("claimId"), row.get("lastClaimAt", 0),
        )  # fmt: skip

    def __str__(self) -> str:
        if self.state == "free":
            return f"free, fence {self.fence}"
        return f"{self.state} by {self.claim} until {self.expires:.0f}, fence {self.fence}"


class LaneRow(NamedTuple):
    """The state of a row of a lane; it may be there without anything."""

    exists: bool = False
    slots: frozenset[str] = frozenset()
    waiting: int | None = None
    next_start: int | None = None

    @classmethod
    def of(cls, row: Row) -> "LaneRow":
        slots = frozenset(row.get("slots", ()))
        return cls(bool(row), slots, row.get("waiting_at"), row.get("next_start"))

    def __str__(self) -> str:
        if not self.exists:
            return "no row"
        waiting = f", requests wait since {self.waiting}" if self.waiting is not None else ""
        return f"{len(self.slots)} slots taken{waiting}"


type State = Request | Claim | LaneRow | None
"""None: there is no row."""
type Given = Mapping[str, Any]
type Rule = Callable[[Any, Given, float], State]


def _now(given: Given, start: float) -> float:
    """The time by the caller's clock, which may be ahead."""
    return min(float(given["now"]), start + SKEW_SECONDS)


def _is_over(request: Request, now: float) -> bool:
    return request.until is not None and request.until <= now


def _as_read(request: Request, given: Given) -> bool:
    return (request.status, request.until) == (given["status"], given["lease_until"]) and (
        "read_id" not in given or request.write == given["read_id"]
    )


def _is_owned(request: Request | None, given: Given) -> bool:
    return request is not None and (request.status, request.owner) == ("PROCESSING", given["me"])


def _enqueue(request: Request | None, given: Given, start: float) -> State:
    if request is not None and request.ttl > _now(given, start):
        return None
    return Request.of(given["set"])


def _take(request: Request | None, given: Given, start: float) -> State:
    if request is None or request.attempts >= request.most:
        return None
    over = _is_over(request, _now(given, start))
    may = {
        "PENDING": True, "RETRYING": over or request.owner == given["me"], "PROCESSING": over,
        "SCHEDULED": over,
    }  # fmt: skip
    if not may.get(request.status):
        return None
    return _leased(request, given)._replace(attempts=request.attempts + 1)


def _leased(request: Request, given: Given) -> Request:
    return request._replace(
        status="PROCESSING", owner=given["me"], until=given["until"], waits=False,
        write=given["write_id"],
    )  # fmt: skip


def _take_over(request: Request | None, given: Given, start: float) -> State:
    if request is None or not _as_read(request, given):
        return None
    if _is_over(request, start + SKEW_SECONDS) or _relieves(given["me"], request.owner):
        return _leased(request, given)
    return None


def _relieves(worker: str, owner: str | None) -> bool:
    """Whether a job worker has the claim of the one before, with a newer fence: both are
    `claim/fence`.
    """
    claim, _, fence = worker.rpartition("/")
    before, _, older = (owner or "").rpartition("/")
    return bool(claim) and claim == before and older.isdigit() and int(fence) > int(older)


def _owned(request: Request | None, given: Given, **more: Any) -> State:
    if request is None or not _is_owned(request, given):
        return None
    return request._replace(write=given["write_id"], **more)


def _renew(request: Request | None, given: Given, _: float) -> State:
    if request is None:
        return None
    seq = (given["set"].get("progress") or {}).get("seq", request.seq)
    until = given["set"].get("lease_until", request.until)
    if seq < request.seq or (until or 0) < (request.until or 0):
        return None
    return _owned(request, given, until=until, seq=seq)


def _finish(request: Request | None, given: Given, _: float) -> State:
    new = given["set"]
    if request is not None and new["seq"] <= request.seq:
        return None
    return _owned(
        request, given, status=new["status"], owner=None, until=None, seq=new["seq"], waits=False,
        steps=0, step=None, answered=False,
    )  # fmt: skip


def _put_back(request: Request | None, given: Given, _: float) -> State:
    new = given["set"]
    return _owned(
        request, given, status="RETRYING", until=new["lease_until"],
        owner=given["me"] if given["keep"] else None,
        attempts=new.get("attempts", request.attempts if request else 0),
    )  # fmt: skip


def _park(request: Request | None, given: Given, start: float) -> State:
    if request is None or not _as_read(request, given):
        return None
    if not _is_over(request, start + SKEW_SECONDS):
        return None
    return request._replace(status="RETRYING", owner=None, write=given["write_id"])


def _requeue(request: Request | None, given: Given, _: float) -> State:
    if request is None or (request.status, request.owner) != ("RETRYING", None):
        return None
    until = given["set"]["lease_until"]
    return request._replace(status="PENDING", until=until, write=given["write_id"])


def _start(request: Request | None, given: Given, start: float) -> State:
    if request is None or request.status != "SCHEDULED":
        return None
    if not _is_over(request, _now(given, start)):
        return None
    until = given["set"]["lease_until"]
    return request._replace(status="PENDING", until=until, write=given["write_id"])


def _cancel(request: Request | None, given: Given, _: float) -> State:
    if request is None or request.status not in {"PENDING", "SCHEDULED"}:
        return None
    if not _as_read(request, given):
        return None
    return request._replace(
        status="CANCELLED", owner=None, until=None, seq=given["set"]["seq"], asked=True,
        waits=False, write=given["write_id"], steps=0, step=None, answered=False,
    )  # fmt: skip


def _ask_to_cancel(request: Request | None, _given: Given, _: float) -> State:
    if request is None or request.status in TERMINAL_STATUSES:
        return None
    return request._replace(asked=True)


def _wait_for_lane(request: Request | None, given: Given, _: float) -> State:
    if request is None or request.status != "PENDING":
        return None
    return request._replace(until=given["until"], waits=True, ttl=given["ttl"])


def _leave_queue(request: Request | None, given: Given, _: float) -> State:
    if request is None or request.status != "PENDING" or not request.waits:
        return None
    return request._replace(until=given["until"], waits=False)


def _store_step(request: Request | None, given: Given, _: float) -> State:
    if request is None or not _is_owned(request, given) or request.steps >= given["count"]:
        return None
    stored = request._replace(steps=given["count"], step=given["step_write_id"])
    return stored._replace(token=None, expires=0, answered=False) if given["ends"] else stored


def _time_out(request: Request | None, given: Given, start: float) -> State:
    return None if request is None or request.answered else _store_step(request, given, start)


def _open_callback(request: Request | None, given: Given, _: float) -> State:
    if request is None or not _is_owned(request, given) or request.answered:
        return None
    if request.step not in {None, given["seen"]}:
        return None
    return _with_callback(request, given)._replace(step=given["step_write_id"])


def _with_callback(request: Request, given: Given) -> Request:
    callback = given["set"]["callback"]
    return request._replace(token=callback["digest"], expires=callback["expires"])


def _await_callback(request: Request | None, given: Given, start: float) -> State:
    if request is None or request.answered:
        return None
    return _put_back(_with_callback(request, given), {**given, "keep": False}, start)


def _answered(request: Request, given: Given, **more: Any) -> State:
    is_open = request.token == given["digest"] and request.expires > given["now"]
    return request._replace(answered=True, **more) if is_open and not request.answered else None


def _answer_waiting(request: Request | None, given: Given, start: float) -> State:
    if request is None or _requeue(request, given, start) is None:
        return None
    until = given["set"]["lease_until"]
    return _answered(request, given, status="PENDING", until=until, write=given["write_id"])


def _answer_busy(request: Request | None, given: Given, _: float) -> State:
    if request is None or (request.status != "PENDING" and request.owner is None):
        return None
    return _answered(request, given)


def _begin(request: Request | None, given: Given, _: float) -> State:
    return request if _is_owned(request, given) else None


def _see(request: Request | None, given: Given, _: float) -> State:
    """A client has seen this much of the request: an acknowledgment, its end, its state."""
    if request is None:
        return None
    shown = {name: getattr(request, name) for name in given}
    return request if shown == given else None


def _acquire(claim: Claim | None, given: Given, start: float) -> State:
    if claim is not None:
        is_over = claim.expires <= min(given["cutoff"], start)
        is_early = "earliest" in given and claim.last > given["earliest"]
        if not (claim.state == "free" or is_over) or is_early:
            return None
    return Claim(
        "held", given["claim"], (claim.fence if claim else given["start"]) + 1, None,
        given["expires"], given.get("taker"), given.get("until"),
        claim.released if claim else None, given["now"],
    )  # fmt: skip


def _has(claim: Claim | None, given: Given, *, issued: bool) -> bool:
    """Whether the claim is held under this fence; `issued`: or was, before a worker took it."""
    if claim is None or (claim.state, claim.claim) != ("held", given["claim"]):
        return False
    first = claim.fence if claim.first is None or not issued else claim.first
    return first <= int(given["fence"]) <= claim.fence


def _renew_claim(claim: Claim | None, given: Given, _: float) -> State:
    if claim is None or not _has(claim, given, issued=False) or claim.expires <= given["now"]:
        return None
    return claim._replace(expires=given["expires"], taken=given.get("until", claim.taken))


def _prolong(claim: Claim | None, given: Given, start: float) -> State:
    if claim is not None and claim.expires >= given["expires"]:
        return None
    return _renew_claim(claim, given, start)


def _taken(claim: Claim, given: Given) -> Claim:
    return claim._replace(expires=given["expires"], taker=given["taker"], taken=given["until"])


def _take_claim(claim: Claim | None, given: Given, _: float) -> State:
    if claim is None or not _has(claim, given, issued=True) or claim.expires <= given["now"]:
        return None
    return _taken(claim, given) if claim.taker in {None, given["taker"]} else None


def _take_claim_over(claim: Claim | None, given: Given, start: float) -> State:
    if claim is None or not _has(claim, given, issued=True) or claim.expires <= given["now"]:
        return None
    if claim.taker != given["previous"] or (claim.taken or 0) > min(given["cutoff"], start):
        return None
    first = claim.fence if claim.first is None else claim.first
    return _taken(claim, given)._replace(first=first, fence=claim.fence + 1)


def _free(claim: Claim, given: Given) -> Claim:
    released = given["released"].get("claimId")
    return Claim("free", fence=claim.fence, released=released, last=claim.last)


def _release_issued(claim: Claim | None, given: Given, _: float) -> State:
    return _free(claim, given) if claim and _has(claim, given, issued=True) else None


def _release_held(claim: Claim | None, given: Given, _: float) -> State:
    return _free(claim, given) if claim and _has(claim, given, issued=False) else None


def _release_owned(claim: Claim | None, given: Given, _: float) -> State:
    if claim is None or (claim.state, claim.claim) != ("held", given["claim"]):
        return None
    return _free(claim, given)


def _start_at(request: Request | None, given: Given, _: float) -> State:
    if request is None or request.status != "PENDING" or request.starts is not None:
        return None
    return request._replace(starts=given["at"])


def _set_up(lane: LaneRow, given: Given, _: float) -> State:
    """A scenario begins with this row; no function writes one so."""
    return None if lane.exists else LaneRow.of(given["row"])


def _enter(lane: LaneRow, given: Given, start: float) -> State:
    return None if lane.waiting is not None else _enter_next(lane, given, start)


def _enter_next(lane: LaneRow, given: Given, _: float) -> State:
    wanted = frozenset(given["wanted"])
    if len(lane.slots) + len(wanted) > given["room"]:
        return None
    return lane._replace(exists=True, slots=lane.slots | wanted)


def _leave(lane: LaneRow, given: Given, _: float) -> State:
    return lane._replace(slots=lane.slots - {*given["mine"]}) if lane.exists else None


def _set_waiting(lane: LaneRow, given: Given, _: float) -> State:
    if lane.waiting is not None and lane.waiting >= given["at"]:
        return None
    return lane._replace(exists=True, waiting=given["at"])


def _clear_waiting(lane: LaneRow, given: Given, _: float) -> State:
    if lane.waiting is None or lane.waiting > given["read"]:
        return None
    return lane._replace(waiting=None)


def _reserve(lane: LaneRow, given: Given, _: float) -> State:
    if lane.next_start not in {None, given["read"]}:
        return None
    return lane._replace(exists=True, next_start=given["next"])


def _remove_row(lane: LaneRow, given: Given, _: float) -> State:
    waits = lane.waiting is not None and not given["is_beyond"]
    return None if lane.slots or lane.next_start is not None or waits else LaneRow()


OF_REQUESTS: dict[str, Rule] = {
    "Enqueue": _enqueue, "Take": _take, "TakeOver": _take_over, "Renew": _renew,
    "Finish": _finish, "PutBack": _put_back, "Park": _park, "Requeue": _requeue,
    "Start": _start, "Cancel": _cancel, "AskToCancel": _ask_to_cancel, "BeginDocument": _begin,
    "WaitForLane": _wait_for_lane, "LeaveQueue": _leave_queue, "See": _see,
    "StoreStep": _store_step, "TimeOut": _time_out, "OpenCallback": _open_callback,
    "AwaitCallback": _await_callback, "AnswerWaiting": _answer_waiting, "AnswerBusy": _answer_busy,
    "Reserve": _start_at,
}  # fmt: skip
OF_CLAIMS: dict[str, Rule] = {
    "Acquire": _acquire, "Prolong": _prolong, "Take": _take_claim, "TakeOver": _take_claim_over,
    "Renew": _renew_claim, "ReleaseIssued": _release_issued, "ReleaseHeld": _release_held,
    "ReleaseOwned": _release_owned,
}  # fmt: skip


OF_LANES: dict[str, Rule] = {
    "Enter": _enter, "EnterNext": _enter_next, "LeaveRow": _leave, "SetWaiting": _set_waiting,
    "ClearWaiting": _clear_waiting, "Reserve": _reserve, "RemoveRow": _remove_row,
    "SetUp": _set_up,
}  # fmt: skip


def rules_of(subject: str) -> tuple[Mapping[str, Rule], Callable[[Row], State]]:
    """The rules of a history's subject, and how its state is read from a row; {}: no row."""
    match subject.partition(" ")[0]:
        case table if table == CLAIMS:
            return OF_CLAIMS, Claim.of
        case table if table == LANES:
            return OF_LANES, LaneRow.of
    return OF_REQUESTS, Request.of
