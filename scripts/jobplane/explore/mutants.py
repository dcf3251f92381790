"""Mutants of the conditional writes: does an exploration find each?

A mutant counts the condition of one write as met, always (`drop`); or it hides from one write its
own result, so that a repetition takes it for another's (`own`); or it is a fault that the code
once had (`fault`). The name of a write's mutant has the function that makes the write, and a
digest of the condition: `drop/RequestLease.cancel/1f3a5c`. With a number at the end, only that
part of the condition is dropped: `drop/RequestLease.cancel/1f3a5c.2` is without the third one.
"""

import math
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from jobplane.explore.expressions import parts, twins
from jobplane.explore.guarantees import Guarantee
from jobplane.explore.planted import Fault, explored, known_faults
from jobplane.explore.search import Line, Outcome, Plan, Scenario, explore, parse, run, shrink
from jobplane.explore.world import Stage, World
from lambdapack.tools import ToolError

# A call that is carried out later than it was made: its writer is not known.
LATE = "?"
HELPERS = ("_writes.py", "/jobplane/explore/", "/stage/recorder.py", "/botocore/", "contextlib.py")


KINDS = {"drop": "condition dropped", "own": "own write unknown", "fault": "fault put back"}
TABLE_HEAD = "| mutant | condition or fault | schedules | time | verdict |\n|---|---|---|---|---|"
BEGIN, END = "<!-- mutants: written by `jobplane explore --mutants --table` -->", "<!-- end -->"
SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True, order=True)
class Write:
    """A conditional write of the code."""

    function: str
    table: str
    condition: str

    @property
    def name(self) -> str:
        return (
            f"{self.function}/{sha256(f'{self.table} {self.condition}'.encode()).hexdigest()[:6]}"
        )


@dataclass
class Verdict:
    """What an exploration of a mutant has found."""

    name: str
    about: str
    """The condition, or the fault."""
    scenario: str = ""
    """The one that has shown it; empty: none has."""
    guarantee: str = ""
    replay: str = ""
    moments: int = 0
    seconds: float = 0.0
    schedules: int = 0
    effects: int = 0
    """How often it made a difference to a call."""
    specified: str = ""
    """The promise that TLC finds broken without the condition."""
    implied: str = ""
    """Why the promises are kept without the condition, by the specification or by IMPLIED."""

    @property
    def is_good(self) -> bool:
        """Whether it was found, by one of both, or need not be."""
        return bool(self.scenario or self.specified or self.implied)

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """One line of the table."""
        tried = f"{self.seconds:5.0f} s {self.schedules:6,}"
        return f"{self.name:46} {tried}  {self.how}"

    @property
    def how(self) -> str:
        """What became of it."""
        if self.scenario:
            return f"{self.guarantee} by `{self.replay}`"
        if self.specified:
            return f"TLC: {self.specified}"
        if self.implied:
            return f"implied: {self.implied}"
        if not self.effects:
            return "not found: no schedule has a call that it changes"
        return f"not found: it changed {self.effects:,} calls, and no guarantee broke"

    @property
    def row(self) -> str:
        """One row of the table in docs/faults.md."""
        shown = self.about
        if not self.name.startswith("fault/"):
            is_long = len(shown) > SHOWN_CHARACTERS
            shown = f"`{shown[:SHOWN_CHARACTERS]}{' …' * is_long}`"
        cells = (f"`{self.name}`", shown, f"{self.schedules:,}", f"{self.seconds:.0f} s", self.how)
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


# Without these, everything holds, too, and why. Each schedule that is run checks it: a part of a
# condition refuses no call alone.
IMPLIED = {
    "drop/prolong/c69b22.2": "the row ends with its token at the latest",
    "drop/prolong/daf2cd.2": "the row ends with its token at the latest",
    "drop/update_assembly/7fcc2d.0": "a row that is gone has no claim",
    "drop/write_claim/0cbf5a.2": "a comparison with a number is false for any other type",
    "drop/write_claim/0cbf5a.7": "a comparison with a number is false for any other type",
    "own/put_record/78f33c": "the record is shown; for five minutes a new one is treated alike",
    "own/release_claim/adda8a": "the row that is shown names the claim that was released last",
}

# Of a scenario: so many schedules, and for each write so many of those in which it is refused.
SURVEYED = 100
MOST_PLANS = 6
# With these, clocks differ in the usual order.
SEEDS = range(1, 9)
type Places = list[tuple[Scenario, list[Plan]]]
"""Scenarios that make a write, with plans by which a mutant would change a call."""
type Schedules = Sequence[tuple[Scenario, int, Plan]]
"""Each by its scenario, seed and plan."""


@dataclass(frozen=True, slots=True, order=True)
class Mutant:
    """A mutant of a write; `part` is that of its condition which is dropped, if it is not all."""

    kind: str
    write: Write
    part: int = -1

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.write.name}{'' if self.part < 0 else f'.{self.part}'}"

    @property
    def about(self) -> str:
        """What is dropped, or the condition of the write whose result is hidden."""
        return self.write.condition if self.part < 0 else " OR ".join(self.texts)

    @property
    def texts(self) -> list[str]:
        """What is dropped: one part, or alternatives of which none restricts without the others."""
        known = parts(self.write.condition)
        same = next(each for each in twins(self.write.condition) if self.part in each)
        return [known[number] for number in same]


def survey(stage: Stage, scenarios: Iterable[Scenario]) -> dict[Mutant, Places]:
    """Every mutant of a conditional write, and where it could show."""
    found: dict[Mutant, Places] = {}
    for scenario in scenarios:
        for mutant, plans in _writes_of(stage, scenario).items():
            found.setdefault(mutant, []).append((scenario, plans))
    return dict(sorted(found.items()))


def _writes_of(stage: Stage, scenario: Scenario) -> "Survey":
    """The mutants of the writes of a scenario's first schedules."""
    found = Survey(stage.prefix)
    watched = replace(scenario, change=found.watch)
    explore(stage, watched, seconds=math.inf, schedules=SURVEYED, note=found.note)
    return found


class Survey(dict[Mutant, list[Plan]]):
    """The mutants of the writes that are made, with schedules in which they change a call."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix
        self._changed: set[Mutant] = set()

    def watch(self, world: World) -> None:
        world.tables.is_dropped, world.tables.is_forgotten = self._is_dropped, self._is_forgotten

    def note(self, outcome: Outcome) -> None:
        for mutant in self._changed & self.keys():
            if len(self[mutant]) < MOST_PLANS and outcome.seed == 0:
                self[mutant].append(outcome.plan)
        self._changed.clear()

    def _made(self, mutant: Mutant, *, is_changed: bool) -> None:
        if mutant.write.function == LATE:
            return
        self.setdefault(mutant, [])
        if is_changed:
            self._changed.add(mutant)

    def _is_dropped(
        self, table: str, condition: str, is_met: bool, would_be: Callable[[int], bool]
    ) -> bool:
        write = current_write(table.removeprefix(self._prefix), condition)
        self._made(Mutant("drop", write), is_changed=not is_met)
        apart = [part for part, *_ in twins(condition)]
        for part in apart if len(apart) > 1 else ():
            self._made(Mutant("drop", write, part), is_changed=not is_met and would_be(part))
        return False

    def _is_forgotten(self, table: str, condition: str) -> bool:
        write = current_write(table.removeprefix(self._prefix), condition)
        self._made(Mutant("own", write), is_changed=True)
        return False


def mutated(
    scenario: Scenario, stage: Stage, name: str, effect: Callable[[], None] = lambda: None
) -> Scenario:
    """The scenario with a mutant of a write, which reports each call that it changes.

    Raises ToolError for a name that is not one.
    """
    kind, _, rest = name.partition("/")
    function, separator, digest = rest.rpartition("/")
    digest, _, part = digest.partition(".")
    if kind not in {"drop", "own"} or not separator:
        raise ToolError(f"no mutant {name!r}; docs/faults.md has the names", "")

    def is_it(
        table: str,
        condition: str,
        is_met: bool = False,
        would_be: Callable[[int], bool] = lambda _: True,
    ) -> bool:
        write = Write(function, table.removeprefix(stage.prefix), condition)
        if is_met or write.name != f"{function}/{digest}" or (part and not would_be(int(part))):
            return False
        if current_write(write.table, condition).function not in {function, LATE}:
            return False
        effect()
        return True

    def change(world: World) -> None:
        if kind == "drop":
            world.tables.is_dropped = is_it
        else:
            world.tables.is_forgotten = is_it

    return replace(scenario, change=change, mutant=name)


def specified(stage: Stage, mutant: Mutant) -> tuple[str, str]:
    """What tests/specifications say of a write without its conditions or one of them: the promises
    that TLC finds broken, or else why none is. Both are empty if they don't have it.
    """
    write = mutant.write
    table = stage.template.repository.root / "tests" / "specifications" / "conditions.toml"
    if not table.exists():
        return "", ""
    listed = tomllib.loads(table.read_text(encoding="utf-8"))["writes"]
    conditions = [
        condition
        for actions in listed.values()
        for action in actions.values()
        if any(name.partition(".")[2] == write.function for name in action["code"])
        and _consists_of(write.condition, action)
        for condition in action["conditions"].values()
        if mutant.part < 0 or condition["text"] in mutant.texts
    ]
    breaks, reasons = (
        "; ".join(dict.fromkeys(condition[name] for condition in conditions if name in condition))
        for name in ("breaks", "implied")
    )
    return breaks, "" if breaks else reasons


def _consists_of(condition: str, action: dict[str, Any]) -> bool:
    """Whether an action of a specification has all parts of a condition."""
    texts = {part["text"] for part in action["conditions"].values()} | {*action.get("beside", ())}
    for part in sorted(texts, key=len, reverse=True):
        condition = condition.replace(part, "")
    return not re.sub(r"\b(?:AND|OR|NOT)\b|[()\s]", "", condition)


SHOWN = {guarantee.__name__ for guarantee in Guarantee.known} | {"AssertionError"}


def tried(
    stage: Stage,
    scenarios: list[Scenario],
    seconds: float,
    seed: int = 1,
    only: str = "",
    known: Iterable[Line] = (),
) -> Iterator[Verdict]:
    """Explore every mutant for some seconds, in the scenarios that make its write.

    `only`: the name of the one mutant to explore. `known`: the lines that showed mutants before;
    those of a write are tried first for all of its mutants.
    """
    for fault in known_faults():
        is_wanted = only in {"", fault.mutant}
        if is_wanted and {scenario.name for scenario in scenarios}.issuperset(fault.scenarios):
            yield _of_fault(stage, fault, seconds, seed)
    if only.startswith("fault/"):
        return
    by_name = {scenario.name: scenario for scenario in scenarios}
    for mutant, where in survey(stage, scenarios).items():
        if only in {"", mutant.name}:
            of_write = f"/{mutant.write.name}"
            lines = [
                (by_name[one.scenario], one.seed, one.plan)
                for one in known
                if of_write in one.mutant and one.scenario in by_name
            ]
            yield _of_write(stage, mutant, where, seconds, seed, lines)


def write_table(document: Path, verdicts: Iterable[Verdict]) -> None:
    """Put the table into a document, between its marks."""
    text = document.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ToolError(f"{document} has no place for the table", f"expected {BEGIN} … {END}")
    rows = "\n".join([TABLE_HEAD, *(verdict.row for verdict in verdicts)])
    document.write_text(f"{head}{BEGIN}\n{rows}\n{END}{tail}", encoding="utf-8")


def known_lines(document: Path) -> list[Line]:
    """The lines of a document's table."""
    found = (re.search(r" by `(.+)`", verdict) for verdict in read_table(document).values())
    return [parse(one[1]) for one in found if one]


def read_table(document: Path) -> dict[str, str]:
    """The verdict on each mutant of a document's table."""
    rows = document.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows[3:]]
    return {first.strip("`"): last for first, *_, last in cells}


def _of_fault(stage: Stage, fault: Fault, seconds: float, seed: int) -> Verdict:
    verdict = Verdict(fault.mutant, fault.name)
    repository = stage.template.repository
    for report in explored(repository, fault, minutes=max(1.0, seconds / 60), seed=seed):
        verdict.schedules += report["schedules"]
        verdict.seconds += report["seconds"]
        found = report["found"]
        # An error of the simulation itself shows nothing.
        if found and found["guarantee"] in SHOWN and not verdict.scenario:
            verdict.scenario, verdict.guarantee = report["scenario"], found["guarantee"]
            verdict.replay = f"{found['line']} mutant={fault.mutant}"
            verdict.moments = found["moments"]
    return verdict


def _of_write(
    stage: Stage,
    mutant: Mutant,
    where: Places,
    seconds: float,
    seed: int,
    lines: Schedules,
) -> Verdict:
    verdict = Verdict(mutant.name, mutant.about)
    if mutant.kind == "drop":
        verdict.specified, verdict.implied = specified(stage, mutant)

    def effect() -> None:
        verdict.effects += 1

    began = time.monotonic()

    def changed(scenario: Scenario) -> Scenario:
        return mutated(scenario, stage, verdict.name, effect)

    places = [(changed(scenario), plans) for scenario, plans in where]
    known = [
        *((changed(scenario), with_seed, plan) for scenario, with_seed, plan in lines),
        *((scenario, 0, plan) for scenario, plans in places for plan in plans),
    ]
    usual = [(scenario, with_seed, ()) for scenario, _ in places for with_seed in SEEDS]
    for scenario, with_seed, plan in [*known, *usual]:
        verdict.schedules += 1
        outcome = run(stage, scenario, with_seed, plan)
        if outcome.failure is not None:
            return _found(verdict, shrink(stage, scenario, outcome), began)
    # Short turns first: a fault that a scenario shows at all, it shows soon.
    for share in (0.2, 0.8):
        for scenario, _ in places:
            turn = seconds * share / len(where)
            report = explore(stage, scenario, seed=seed, seconds=turn)
            verdict.schedules += report.schedules
            if report.found is not None:
                return _found(verdict, report.found, began)
    verdict.seconds = time.monotonic() - began
    if mutant.kind == "own" or not verdict.effects:
        verdict.implied = verdict.implied or IMPLIED.get(verdict.name, "")
    return verdict


def _found(verdict: Verdict, outcome: Outcome, began: float) -> Verdict:
    verdict.seconds = time.monotonic() - began
    verdict.scenario, verdict.guarantee = outcome.scenario, outcome.kind
    verdict.replay, verdict.moments = outcome.line, outcome.calls
    return verdict
