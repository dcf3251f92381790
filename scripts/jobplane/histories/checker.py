"""Whether a history can be explained: is there an order of its operations that the rules allow?

The order has each operation at one moment between its start and its end. One without an answer is
anywhere after its start, or nowhere. The search is that of Wing and Gong with the states that
Lowe adds to it: of two orders of the same operations with the same state, one is continued.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jobplane.histories.operations import DONE, OUTSIDE, REFUSED, Operation
from jobplane.histories.rules import State, rules_of

MOST_STEPS = 200_000

type _Path = tuple[int, State, tuple[int, ...]]
"""The operations so far as bits, the state after them, and their order."""


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
            found = str(rules_of(self.subject)[1](said)) if said else "no row"
            said_state = f"<< its answer shows: {found}"
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
    ordered = sorted(operations, key=lambda operation: (operation.start, operation.end))
    needed = sum(1 << number for number, one in enumerate(ordered) if one.is_required)
    after = [_predecessors(ordered, number, clocks_differ_by) for number in range(len(ordered))]
    paths: list[_Path] = [(0, None, ())]
    known: set[tuple[int, State]] = set()
    best = paths[0]
    while paths:
        done, state, order = path = paths.pop()
        if done & needed == needed:
            return None
        if (done, state) in known:
            continue
        known.add((done, state))
        if len(known) > MOST_STEPS:
            raise ValueError(f"{subject}: {len(ordered)} operations have too many orders to check")
        best = max(best, path, key=lambda one: (one[0] & needed).bit_count())
        for number in reversed(range(len(ordered))):
            bit = 1 << number
            if not done & bit and after[number] & done == after[number]:
                fits, new = _step(subject, state, ordered[number])
                if fits:
                    paths.append((done | bit, new, (*order, number)))
    left = [one for number, one in enumerate(ordered) if needed & ~best[0] & 1 << number]
    culprit = min(left, key=lambda operation: operation.end)
    shown: list[tuple[Operation, State]] = []
    for number in best[2]:
        _, state = _step(subject, shown[-1][1] if shown else None, ordered[number])
        shown.append((ordered[number], state))
    return Unexplained(subject, culprit, shown)


def _step(subject: str, state: State, operation: Operation) -> tuple[bool, State]:
    """Whether an operation may happen in a state, and the state after it."""
    rules, state_of = rules_of(subject)
    new = rules[operation.action](state, operation.given, operation.start)
    row = operation.row
    if operation.outcome == REFUSED:
        fits = row is None or (state_of(row) if row else None) == state
        return new is None and fits, state
    if operation.outcome == DONE and row is not None and state_of(row) != new:
        return False, state
    return new is not None, new


def _predecessors(ordered: list[Operation], number: int, clocks_differ_by: float) -> int:
    """The operations that surely came before another one, as bits."""
    this, found = ordered[number], 0
    for other, operation in enumerate(ordered):
        slack = 0.0 if operation.actor == this.actor else clocks_differ_by
        if operation.is_required and operation.end + slack < this.start:
            found |= 1 << other
    return found
