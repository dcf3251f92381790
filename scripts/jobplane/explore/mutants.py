"""Mutants of the conditional writes: does an exploration find each?

A mutant counts the condition of one write as met, always; or it hides from one write its own
result, so that a repetition takes it for another's. A write is named by the function that makes it,
and by its condition if the function makes several.
"""

import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobplane.explore.guarantees import Guarantee
from jobplane.explore.planted import Fault, explored, known_faults
from jobplane.explore.search import Outcome, Plan, Scenario, explore, run, shrink
from jobplane.explore.world import Stage, World

# A call that is carried out later than it was made: its writer is not known.
LATE = "?"
HELPERS = ("_writes.py", "/jobplane/explore/", "/botocore/", "contextlib.py")


TABLE_HEAD = "| mutant | of | schedules | time | verdict |\n|---|---|---|---|---|"


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
    effects: int = 0
    """How often it made a difference to a call."""
    reason: str = ""
    """Why it need not be found."""

    @property
    def is_found(self) -> bool:
        return bool(self.scenario)

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """One line of the table."""
        tried = f"{self.seconds:5.0f} s {self.schedules:6,}"
        return f"{self.kind:18} {self.where:64.64} {tried}  {self.how}"

    @property
    def how(self) -> str:
        """What became of it."""
        if self.is_found:
            return f"{self.guarantee} by `{self.replay}`"
        if self.reason:
            return f"implied: {self.reason}"
        if not self.effects:
            return "not found: no schedule has a call that it changes"
        return f"not found: it changed {self.effects:,} calls, and no guarantee broke"

    @property
    def row(self) -> str:
        """One row of the table in docs/faults.md."""
        where = self.where if self.kind == "fault put back" else f"`{self.where}`"
        cells = (self.kind, where, f"{self.schedules:,}", f"{self.seconds:.0f} s", self.how)
        return f"| {' | '.join(cells)} |"


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


SURVEYED = 60
SURVEY_SECONDS = 5.0
type Places = list[tuple[Scenario, Plan | None]]
"""Scenarios that make a write, with a plan by which its condition is not met, if one is known."""


def survey(stage: Stage, scenarios: list[Scenario]) -> dict[Write, Places]:
    """Every conditional write, and where it is made."""
    found: dict[Write, Places] = {}
    for scenario in scenarios:
        for write, plan in _writes_of(stage, scenario).items():
            found.setdefault(write, []).append((scenario, plan))
    return dict(sorted(found.items()))


def _writes_of(stage: Stage, scenario: Scenario) -> dict[Write, Plan | None]:
    """The writes of a scenario's first schedules."""
    found: dict[Write, Plan | None] = {}
    refused: set[Write] = set()

    def made(table: str, condition: str, is_met: bool) -> bool:
        write = current_write(table.removeprefix(stage.prefix), condition)
        found.setdefault(write, None)
        if not is_met:
            refused.add(write)
        return False

    def change(world: World) -> None:
        world.tables.is_dropped = made

    def note(outcome: Outcome) -> None:
        for write in refused:
            if found[write] is None and outcome.seed == 0:
                found[write] = outcome.plan
        refused.clear()

    changed = replace(scenario, change=change)
    explore(stage, changed, seconds=SURVEY_SECONDS, schedules=SURVEYED, note=note)
    return {write: plan for write, plan in found.items() if write.function != LATE}


def mutated(
    scenario: Scenario, kind: str, stage: Stage, write: Write, effect: Callable[[], None]
) -> Scenario:
    """The scenario with a mutant, which reports each call that it changes."""

    def is_it(table: str, condition: str, is_met: bool = False) -> bool:
        if is_met or condition != write.condition:
            return False
        if table.removeprefix(stage.prefix) != write.table:
            return False
        if current_write(write.table, condition).function not in {write.function, LATE}:
            return False
        effect()
        return True

    def change(world: World) -> None:
        if kind == "condition dropped":
            world.tables.is_dropped = is_it
        else:
            world.tables.is_forgotten = is_it

    return replace(scenario, change=change)


def implied(stage: Stage, write: Write) -> str:
    """Why the specifications keep their promises without a write's conditions; empty: they don't,
    or have no such write.
    """
    table = stage.template.repository.root / "tests" / "specifications" / "conditions.toml"
    if not table.exists():
        return ""
    listed = tomllib.loads(table.read_text(encoding="utf-8"))["writes"]
    conditions = [
        condition
        for actions in listed.values()
        for action in actions.values()
        if any(name.partition(".")[2] == write.function for name in action["code"])
        for condition in action["conditions"].values()
    ]
    reasons = dict.fromkeys(condition.get("implied", "") for condition in conditions)
    return "; ".join(reasons) if all(reasons) else ""


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
    for report in explored(repository, fault, minutes=max(1.0, seconds / 60), seed=seed):
        verdict.schedules += report["schedules"]
        verdict.seconds += report["seconds"]
        found = report["found"]
        # An error of the simulation itself shows nothing.
        if found and found["guarantee"] in SHOWN and not verdict.is_found:
            verdict.scenario, verdict.guarantee = report["scenario"], found["guarantee"]
            verdict.replay, verdict.moments = found["line"], found["moments"]
    return verdict


def _of_write(
    stage: Stage, kind: str, write: Write, where: Places, seconds: float, seed: int
) -> Verdict:
    verdict = Verdict(kind, f"{write.function}: {write.condition}")
    if kind == "condition dropped":
        verdict.reason = implied(stage, write)

    def effect() -> None:
        verdict.effects += 1

    began = time.monotonic()
    for scenario, plan in where:
        changed = mutated(scenario, kind, stage, write, effect)
        if plan is not None:
            verdict.schedules += 1
            outcome = run(stage, changed, plan=plan)
            if outcome.failure is not None:
                return _found(verdict, shrink(stage, changed, outcome), began)
    # Short turns first: a fault that a scenario shows at all, it shows soon.
    for share in (0.2, 0.8):
        for scenario, _ in where:
            changed = mutated(scenario, kind, stage, write, effect)
            turn = seconds * share / len(where)
            report = explore(stage, changed, seed=seed, seconds=turn)
            verdict.schedules += report.schedules
            if report.found is not None:
                return _found(verdict, report.found, began)
    verdict.seconds = time.monotonic() - began
    return verdict


def _found(verdict: Verdict, outcome: Outcome, began: float) -> Verdict:
    verdict.seconds = time.monotonic() - began
    verdict.scenario, verdict.guarantee = outcome.scenario, outcome.kind
    verdict.replay, verdict.moments = outcome.line, outcome.calls
    return verdict
