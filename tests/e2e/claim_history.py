"""A history of operations on claims, and the faults in it.

Every operation with an answer took effect at some instant between its start and its end. One
without an answer may have taken effect at any instant after its start, also after its end, or
never. A claim is *surely held* from the end of the operation that granted it to its expiry, or to
the start of the first operation that ended it or may have. Whatever contradicts that, whichever
instants are assumed, is a fault.
"""

import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

type Answer = Mapping[str, Any]
type Key = tuple[str, int]
"""A claim: its id and its fence."""

# The margin for which an expired claim still blocks others.
SKEW_SECONDS = 2


@dataclass(frozen=True)
class Operation:
    """A call: `acquire` for a message, or `renew`, `release`, `timeout` of a claim."""

    workspace: str
    kind: str
    subject: str
    """The message that wants a claim, or the id of the claim."""
    fence: int
    start: float
    end: float
    answer: Answer | None
    """None if it never came."""

    @property
    def grant(self) -> Key | None:
        """The claim that an acquisition got."""
        if self.answer is None or self.kind != "acquire" or not self.answer["claimed"]:
            return None
        return self.answer["claimId"], self.answer["fence"]

    @property
    def frees(self) -> bool:
        """Whether it ended a claim, or reports that it was ended."""
        return self._would_free and self.answer is not None and bool(self.answer["released"])

    @property
    def may_free(self) -> bool:
        """Whether it may have ended a claim: it did, or its answer never came."""
        return self._would_free and (self.answer is None or bool(self.answer["released"]))

    @property
    def _would_free(self) -> bool:
        return self.kind in ("release", "timeout")

    @property
    def renews(self) -> bool:
        """Whether it renewed a claim."""
        return self.kind == "renew" and self.answer is not None and bool(self.answer["renewed"])


class History:
    """Operations as they are made, from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.operations: list[Operation] = []

    def note(
        self, workspace: str, kind: str, subject: str, fence: int, call: Callable[[], Answer]
    ) -> Answer:
        """Make a call, and record its answer with start and end; None if it raises."""
        start = self._clock()
        answer: Answer | None = None
        try:
            answer = call()
        finally:
            operation = Operation(workspace, kind, subject, fence, start, self._clock(), answer)
            with self._lock:
                self.operations.append(operation)
        return answer


@dataclass(frozen=True)
class Tenure:
    """A claim's life: when it was granted, surely held, and surely over."""

    key: Key
    granted: Operation
    surely_until: float
    over: float
    """From then on it is over, whatever else is assumed."""
    expiry: float
    since: float
    """It was not granted before."""

    def surely_held(self, start: float, end: float) -> bool:
        """Whether it was held from start to end."""
        return self.granted.end <= start and end <= self.surely_until


def faults(operations: list[Operation]) -> list[str]:
    """The faults of a history, one line each; empty if it can be explained."""
    of_workspace = defaultdict(list)
    for operation in operations:
        of_workspace[operation.workspace].append(operation)
    return [
        f"{name}: {fault}"
        for name, its in of_workspace.items()
        for fault in _faults(sorted(its, key=lambda operation: operation.start))
    ]


def _faults(operations: list[Operation]) -> Iterator[str]:
    tenures = _tenures(operations)
    yield from _two_holders(tenures)
    yield from _fences(tenures)
    for operation in operations:
        if operation.answer is None:
            continue
        if operation.kind == "acquire":
            yield from _acquisition(operation, operations, tenures)
        else:
            yield from _of_a_holder(operation, operations, tenures)


def _tenures(operations: list[Operation]) -> dict[Key, Tenure]:
    tenures = {}
    for operation in operations:
        key = operation.grant
        # The first answer with a claim granted it; later ones repeat it.
        if key is None or key in tenures:
            continue
        its = [other for other in operations if (other.subject, other.fence) == key]
        assert operation.answer is not None
        ends = [operation.answer["expiresAt"]]
        ends += [other.answer["expiresAt"] for other in its if other.renews and other.answer]
        # A renewal without an answer may have set any end, also a later one.
        unknown = any(other.kind == "renew" and other.answer is None for other in its)
        expiry = math.inf if unknown else ends[-1]
        surely_until = min([ends[-1], *(other.start for other in its if other.may_free)])
        over = min([expiry, *(other.end for other in its if other.frees)])
        asked = [
            other.start
            for other in operations
            if _unanswered_acquisition(other) and other.subject == operation.subject
        ]
        since = min([operation.start, *asked])
        tenures[key] = Tenure(key, operation, surely_until, over, expiry, since)
    return tenures


def _unanswered_acquisition(operation: Operation) -> bool:
    return operation.kind == "acquire" and operation.answer is None


def _may_be_granted(operations: list[Operation], before: float) -> bool:
    """Whether a claim that no caller knows may have been granted by then."""
    return any(_unanswered_acquisition(each) and each.start < before for each in operations)


def _two_holders(tenures: Mapping[Key, Tenure]) -> Iterator[str]:
    by_grant = sorted(tenures.values(), key=lambda tenure: tenure.granted.end)
    for one, other in itertools.combinations(by_grant, 2):
        if other.granted.end < one.surely_until and other.granted.start >= one.granted.end:
            yield f"{other.key} was granted while {one.key} was held"
        elif other.granted.end < min(one.surely_until, other.surely_until):
            yield f"{one.key} and {other.key} were held at once"


def _fences(tenures: Mapping[Key, Tenure]) -> Iterator[str]:
    by_grant = sorted(tenures.values(), key=lambda tenure: tenure.granted.end)
    for one, other in itertools.combinations(by_grant, 2):
        if one.key[1] == other.key[1]:
            yield f"{one.key} and {other.key} have one fence"
        elif one.granted.end <= other.since and one.key[1] > other.key[1]:
            yield f"the fence of {other.key} is below that of the earlier {one.key}"


def _acquisition(
    operation: Operation, operations: list[Operation], tenures: Mapping[Key, Tenure]
) -> Iterator[str]:
    span = (operation.start, operation.end)
    for tenure in tenures.values():
        repeats = tenure.granted.subject == operation.subject and tenure.granted is not operation
        if repeats and tenure.surely_held(*span) and operation.grant != tenure.key:
            yield f"{operation.subject} was sent again and got no {tenure.key}"
    if operation.answer is not None and not operation.answer["claimed"]:
        holder = operation.answer["holder"]
        yield from _refusal(operation, (holder["claimId"], holder["fence"]), operations, tenures)


def _refusal(
    operation: Operation,
    holder: Key,
    operations: list[Operation],
    tenures: Mapping[Key, Tenure],
) -> Iterator[str]:
    tenure = tenures.get(holder)
    if tenure is None:
        if _may_be_granted(operations, operation.end):
            return
        yield f"{operation.subject} was refused for a claim that was never granted"
        return
    released = tenure.over < tenure.expiry and tenure.over < operation.start
    if released or tenure.expiry + SKEW_SECONDS < operation.start:
        yield f"{operation.subject} was refused for {tenure.key}, which was over"


def _of_a_holder(
    operation: Operation, operations: list[Operation], tenures: Mapping[Key, Tenure]
) -> Iterator[str]:
    key = (operation.subject, operation.fence)
    tenure = tenures.get(key)
    if tenure is not None:
        yield from _of_a_claim(operation, operations, tenures, tenure)
    elif not _may_be_granted(operations, operation.end):
        yield f"{operation.kind} of {key}, which was never granted"


def _of_a_claim(
    operation: Operation,
    operations: list[Operation],
    tenures: Mapping[Key, Tenure],
    tenure: Tenure,
) -> Iterator[str]:
    key, answer = tenure.key, operation.answer or {}
    its = [other for other in operations if (other.subject, other.fence) == key]
    earlier = [other for other in its if other.may_free and other is not operation]
    # Taken by a claim with a higher fence, before this began.
    superseded = any(
        other.key[1] > key[1] and other.granted.end < operation.start for other in tenures.values()
    )
    freed = any(other.frees and other.end < operation.start for other in earlier)
    succeeded: bool = answer["renewed" if operation.kind == "renew" else "released"]
    if not succeeded:
        if tenure.surely_held(operation.start, operation.end):
            yield f"{operation.kind} of {key} was refused while it was held"
    elif operation.kind == "renew":
        if superseded or freed or _expired_before(operation, tenure, operations):
            yield f"{key} was renewed by a stale holder"
    elif answer.get("repeated"):
        if not any(other.start < operation.end for other in earlier):
            yield f"{key} is said to have been released before, which it was not"
    elif operation.kind == "release" and (superseded or freed):
        yield f"{key} was released by a stale holder"
    elif operation.kind == "timeout" and superseded and not earlier:
        yield f"{key} was released by a stale clean-up"


def _expired_before(operation: Operation, tenure: Tenure, operations: list[Operation]) -> bool:
    """Whether the claim had expired before a renewal began."""
    its = [
        other
        for other in operations
        if other.kind == "renew"
        and other is not operation
        and (other.subject, other.fence) == tenure.key
        and other.start < operation.end
    ]
    if any(other.answer is None for other in its) or tenure.granted.answer is None:
        return False
    ends = [other.answer["expiresAt"] for other in its if other.renews and other.answer]
    return bool(max([tenure.granted.answer["expiresAt"], *ends]) < operation.start)
