"""Mutants of the conditional writes: does an exploration find each?

A mutant counts the condition of one write as met, always; or it hides from one write its own
result, so that a repetition takes it for another's. A write is named by the function that makes it,
and by its condition if the function makes several.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobplane.explore.guarantees import Guarantee
from jobplane.explore.planted import Fault, explored, known_faults
from jobplane.explore.search import Scenario, explore
from jobplane.explore.world import Stage, World

# A call that is carried out later than it was made: its writer is not known.
LATE = "?"
HELPERS = ("_writes.py", "/jobplane/explore/", "/botocore/", "contextlib.py")


@dataclass(frozen=True, slots=True, order=True)
class Write:
    """A conditional write of the code."""

    function: str
    table: str
    condition: str


@dataclass
class Verdict:
    """What an exploration of a mutant has found."""

    kind: str
    where: str
    scenario: str = ""
    """The one that has shown it; empty: none has."""
    guarantee: str = ""
    replay: str = ""
    moments: int = 0
    seconds: float = 0.0
    schedules: int = 0

    @property
    def is_found(self) -> bool:
        return bool(self.scenario)

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """One line of the table."""
        how = (
            f"{self.guarantee} in {self.scenario}, {self.moments} moments, by {self.replay}"
            if self.is_found
            else "not found"
        )
        return f"{self.kind:18} {self.where:64.64} {self.seconds:5.0f} s {self.schedules:6,}  {how}"


def current_write(table: str, condition: str) -> Write:
    """The write that is being made, by the first frame that is not a helper's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path, name = frame.f_code.co_filename, frame.f_code.co_qualname.partition(".<locals>")[0]
        if path.endswith("threading.py"):
            break
        is_helper = any(part in path for part in HELPERS)
        is_inner = "jobplane_leases" in path and name.rpartition(".")[2].startswith("_")
        if not (is_helper or is_inner):
            return Write(name, table, condition)
        frame = frame.f_back
    return Write(LATE, table, condition)


def writes_of(stage: Stage, scenario: Scenario) -> list[Write]:
    """The conditional writes in the schedules of a scenario with one deviation."""
    found: dict[Write, None] = {}

    def note(table: str, condition: str) -> bool:
        found[current_write(table.removeprefix(stage.prefix), condition)] = None
        return False

    def change(world: World) -> None:
        world.tables.is_dropped = note

    explore(stage, replace(scenario, change=change), seconds=1e9, schedules=SURVEYED)
    return [write for write in found if write.function != LATE]


SURVEYED = 150


def survey(stage: Stage, scenarios: list[Scenario]) -> dict[Write, list[Scenario]]:
    """Every conditional write, and the scenarios that make it."""
    found: dict[Write, list[Scenario]] = {}
    for scenario in scenarios:
        for write in writes_of(stage, scenario):
            found.setdefault(write, []).append(scenario)
    return dict(sorted(found.items()))


def mutated(scenario: Scenario, kind: str, stage: Stage, write: Write) -> Scenario:
    """The scenario with a mutant."""

    def is_it(table: str, condition: str) -> bool:
        if condition != write.condition or table.removeprefix(stage.prefix) != write.table:
            return False
        return current_write(write.table, condition).function in {write.function, LATE}

    def change(world: World) -> None:
        if kind == "condition dropped":
            world.tables.is_dropped = is_it
        else:
            world.tables.is_forgotten = is_it

    return replace(scenario, change=change)


SHOWN = {guarantee.__name__ for guarantee in Guarantee.known} | {"AssertionError"}
KINDS = ("condition dropped", "own write unknown")


def tried(
    stage: Stage, scenarios: list[Scenario], seconds: float, seed: int = 1
) -> Iterator[Verdict]:
    """Explore every mutant for some seconds, in the scenarios that make its write."""
    for fault in known_faults():
        if {scenario.name for scenario in scenarios}.issuperset(fault.scenarios):
            yield _of_fault(stage, fault, seconds, seed)
    for write, where in survey(stage, scenarios).items():
        for kind in KINDS:
            yield _of_write(stage, kind, write, where, seconds, seed)


def _of_fault(stage: Stage, fault: Fault, seconds: float, seed: int) -> Verdict:
    verdict = Verdict("fault put back", fault.name)
    repository = stage.template.repository
    for report in explored(repository, fault, minutes=seconds / 60, seed=seed):
        verdict.schedules += report["schedules"]
        verdict.seconds += report["seconds"]
        found = report["found"]
        # An error of the simulation itself shows nothing.
        if found and found["guarantee"] in SHOWN and not verdict.is_found:
            verdict.scenario, verdict.guarantee = report["scenario"], found["guarantee"]
            verdict.replay, verdict.moments = found["line"], found["moments"]
    return verdict


def _of_write(
    stage: Stage, kind: str, write: Write, where: list[Scenario], seconds: float, seed: int
) -> Verdict:
    verdict = Verdict(kind, f"{write.function}: {write.condition}")
    began = time.monotonic()
    # Short turns first: a fault that a scenario shows at all, it shows soon.
    for share in (0.2, 0.8):
        for scenario in where:
            changed = mutated(scenario, kind, stage, write)
            turn = seconds * share / len(where)
            report = explore(stage, changed, seed=seed, seconds=turn)
            verdict.schedules += report.schedules
            verdict.seconds = time.monotonic() - began
            if (found := report.found) is not None:
                verdict.scenario, verdict.guarantee = scenario.name, found.kind
                verdict.replay, verdict.moments = found.line, found.calls
                return verdict
    return verdict
