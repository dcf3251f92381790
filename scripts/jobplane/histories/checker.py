"""Whether a history can be explained: is there an order of its operations that the rules allow?

The order has each operation at one moment between its start and its end. One without an answer is
anywhere after its start, or nowhere. The search is that of Wing and Gong with the states that
Lowe adds to it: of two orders of the same operations with the same state, one is continued. It
looks only at operations that may be next, so that its time grows with the length of a history.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jobplane.histories.operations import DONE, OUTSIDE, REFUSED, Operation
from jobplane.histories.rules import State, rules_of

MOST_STEPS = 200_000


@dataclass(frozen=True)
class Unexplained:
    """A history without an explanation."""

    subject: str
    culprit: Operation
    """The first operation that no order of the earlier ones allows."""
    order: list[tuple[Operation, State]]
    """The longest explanation: each operation with the state after it."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The explanation up to the operation that it has no place for, as a table."""
        began = min([self.culprit.start, *(operation.start for operation, _ in self.order)])
        yield f"{self.subject}: {self.culprit.action} by {self.culprit.actor} can't be explained"
        table = [(operation, str(state or "no row")) for operation, state in self.order]
        said = self.culprit.row
        if said is not None:
            found = rules_of(self.subject)[1](said)
            said_state = f"<< its answer shows: {found or 'no row'}"
        else:
            said_state = "<< no rule allows this now"
        for operation, state in [*table, (self.culprit, said_state)]:
            yield (
                f"  {operation.start - began:9.3f} {operation.end - began:9.3f} s"
                f"  {operation.actor:36.36}  {operation.action:14} {operation.outcome:8} {state}"
            )


@dataclass
class Verdict:
    """What a check of some histories has found."""

    operations: int = 0
    indeterminate: int = 0
    skipped: int = 0
    """Histories that a write from outside has changed."""
    unexplained: list[Unexplained] = field(default_factory=list)

    @property
    def line(self) -> str:
        failed = len(self.unexplained)
        return (
            f"{self.operations:,} operations, {self.indeterminate:,} indeterminate,"
            f" {f'{failed:,} unexplained histories' if failed else 'explained'}"
        )


def check(histories: Mapping[str, list[Operation]], *, clocks_differ_by: float = 0.0) -> Verdict:
    """Look for an explanation of each history.

    `clocks_differ_by`: the difference between the clocks by which two actors note their times.
    """
    verdict = Verdict()
    for subject, operations in histories.items():
        if any(operation.action == OUTSIDE for operation in operations):
            verdict.skipped += 1
            continue
        verdict.operations += len(operations)
        verdict.indeterminate += sum(not operation.is_required for operation in operations)
        if found := unexplained(subject, operations, clocks_differ_by):
            verdict.unexplained.append(found)
    return verdict


def unexplained(
    subject: str, operations: Iterable[Operation], clocks_differ_by: float = 0.0
) -> Unexplained | None:
    """None if the history of one subject can be explained.

    Raises ValueError for one with so many possible orders that the search takes too long.
    """
    history = _History(subject, operations, clocks_differ_by)
    best: list[_Step] = []
    begin = _Step(None, history.begin)
    path, continued = [begin], [history.steps_from(begin)]
    known = {begin.key}
    while path:
        if path[-1].first == len(history.required):
            return None
        step = next(continued[-1], None)
        if step is None:
            if path[-1].explained > (best[-1].explained if best else -1):
                best = path.copy()
            path.pop()
            continued.pop()
        elif step.key not in known:
            known.add(step.key)
            if len(known) > MOST_STEPS:
                many = len(history.required) + len(history.possible)
                raise ValueError(f"{subject}: {many} operations have too many orders to check")
            path.append(step)
            continued.append(history.steps_from(step))
    order = [(step.operation, step.state) for step in best if step.operation]
    left = [one for n, one in enumerate(history.required) if not best[-1].has(n)]
    return Unexplained(subject, min(left, key=lambda operation: operation.end), order)


class _Step(NamedTuple):
    """An operation in an order, and what holds after it."""

    operation: Operation | None
    state: State
    first: int = 0
    """All required operations before this one are in the order."""
    beyond: int = 0
    """The others that are, as bits; the lowest one is `first`."""
    used: int = 0
    """Those without an answer that are, as bits."""

    @property
    def key(self) -> tuple[State, int, int, int]:
        return self.state, self.first, self.beyond, self.used

    @property
    def explained(self) -> int:
        return self.first + self.beyond.bit_count()

    def has(self, number: int) -> bool:
        return number < self.first or bool(self.beyond >> (number - self.first) & 1)


class _History:
    """The operations of one subject, and which of them may come next."""

    def __init__(
        self, subject: str, operations: Iterable[Operation], clocks_differ_by: float
    ) -> None:
        ordered = sorted(operations, key=lambda operation: (operation.start, operation.end))
        self.required = [one for one in ordered if one.is_required]
        self.possible = [one for one in ordered if not one.is_required]
        self.rules, self.state_of = rules_of(subject)
        self.begin = self.state_of({})
        self.clocks_differ_by = clocks_differ_by

    def steps_from(self, step: _Step) -> Iterator[_Step]:
        """What may come next: first what surely happened, the earliest before the others."""
        before: list[Operation] = []
        horizon = math.inf
        for number in range(step.first, len(self.required)):
            operation = self.required[number]
            if operation.start > horizon:
                break
            if step.has(number):
                continue
            if self._may_follow(operation, before) and (new := self._after(step.state, operation)):
                yield self._with(step, number, operation, new[0])
            before.append(operation)
            horizon = min(horizon, operation.end + self.clocks_differ_by)
        for number, operation in enumerate(self.possible):
            if operation.start > horizon:
                break
            if step.used >> number & 1 or not self._may_follow(operation, before):
                continue
            if new := self._after(step.state, operation):
                yield step._replace(operation=operation, state=new[0], used=step.used | 1 << number)

    def _may_follow(self, operation: Operation, left: Iterable[Operation]) -> bool:
        """Whether none of the operations that are left surely came before this one."""
        return not any(
            other.end + (0.0 if other.actor == operation.actor else self.clocks_differ_by)
            < operation.start
            for other in left
        )

    def _with(self, step: _Step, number: int, operation: Operation, state: State) -> _Step:
        first, beyond = step.first, step.beyond | 1 << (number - step.first)
        while beyond & 1:
            first, beyond = first + 1, beyond >> 1
        return _Step(operation, state, first, beyond, step.used)

    def _after(self, state: State, operation: Operation) -> tuple[State] | None:
        """The state after an operation; None if it may not happen in this one."""
        new = self.rules[operation.action](state, operation.given, operation.start)
        shown = None if operation.row is None else (self.state_of(operation.row),)
        if operation.outcome == REFUSED:
            return (state,) if new is None and shown in {None, (state,)} else None
        if operation.outcome == DONE and shown not in {None, (new,)}:
            return None
        return None if new is None else (new,)
