"""Explores the schedules of a scenario: all with few deviations first, then samples with more.

A schedule is the default order of the tasks and its deviations from it. A deviation is a moment of
a task (`processor@5`: its fifth) and a choice: another task goes on (`processor@5>sweeper`), or a
fault meets the call (`processor@5!kill`). The default order lets a task go on until it waits, then
the oldest that can go on.
"""

import contextlib
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobplane.explore.guarantees import BrokenGuaranteeError, at_rest, watch
from jobplane.explore.tasks import Task
from jobplane.explore.world import Stage, World
from jobplane.histories.operations import Call

DEVIATION = re.compile(r"([^\s>!]+@\d+)([>!])(\S+)")
NUMBERS = re.compile(r"\d+")
# Of a sampled schedule.
MOST_DEVIATIONS = 8
# Of one scenario of several.
TURN_SECONDS = 20.0

type Deviation = tuple[str, str]
"""A moment, and the choice at it: `>task` or a fault."""
type Plan = tuple[Deviation, ...]
type Pick = Callable[[list[str]], str]
type Play = Callable[[World], Callable[[], None] | None]
"""Sets a scenario up; returns what must hold at the end besides the guarantees."""


@dataclass(frozen=True)
class Scenario:
    """What a schedule is made of: its actors, added by `play`."""

    name: str
    play: Play
    bound: int = 2
    """How many deviations an exhaustive exploration tries."""
    faults: frozenset[str] | None = None
    """The faults that are tried; None: all."""
    functions: tuple[str, ...] = ()
    """The functions that must be there."""
    change: Callable[[World], None] = lambda _: None
    """What a mutant changes in its world."""
    mutant: str = ""
    """Its name."""

    @property
    def about(self) -> str:
        return " ".join((self.play.__doc__ or "").split("\n\n")[0].split())


@dataclass
class Moment:
    label: str
    kind: str
    """Which call of which program, without numbers."""
    options: list[str]
    state: int


@dataclass
class Outcome:
    """One schedule that was run."""

    scenario: str
    seed: int
    plan: Plan
    failure: BaseException | None
    moments: list[Moment]
    log: list[tuple[float, str, str]]
    writes: list[Call] = field(default_factory=list)
    """Those of DynamoDB, as their callers saw them."""
    mutant: str = ""

    @property
    def line(self) -> str:
        """The line that replays it."""
        parts = [
            f"{label}{choice}" if choice.startswith(">") else f"{label}!{choice}"
            for label, choice in self.plan
        ]
        named = [f"mutant={self.mutant}"] if self.mutant else []
        return " ".join([self.scenario, f"seed={self.seed}", *named, *parts])

    @property
    def calls(self) -> int:
        return len(self.moments)

    @property
    def kind(self) -> str:
        """What a failure is about."""
        if isinstance(self.failure, BrokenGuaranteeError):
            return self.failure.guarantee
        return type(self.failure).__name__


class Line(NamedTuple):
    """A line that replays a schedule."""

    scenario: str
    seed: int
    plan: Plan
    mutant: str = ""


def parse(line: str) -> Line:
    """The parts of a line. Raises ValueError."""
    name, *parts = line.split()
    seed, plan, mutant = 0, [], ""
    for part in parts:
        if part.startswith("seed="):
            seed = int(part.removeprefix("seed="))
        elif part.startswith("mutant="):
            mutant = part.removeprefix("mutant=")
        elif found := DEVIATION.fullmatch(part):
            label, mark, choice = found.groups()
            plan.append((label, f">{choice}" if mark == ">" else choice))
        else:
            raise ValueError(f"malformed deviation {part!r}; expected TASK@N>TASK or TASK@N!FAULT")
    return Line(name, seed, tuple(plan), mutant)


class _Chooser:
    def __init__(self, plan: Mapping[str, str], pick: Pick, faults: frozenset[str] | None) -> None:
        self.plan = plan
        self.taken: list[Deviation] = []
        self.moments: list[Moment] = []
        self.state: Callable[[], int] = lambda: 0
        self._pick = pick
        self._faults = faults

    def __call__(self, task: Task, kind: str, options: list[str]) -> str:
        if self._faults is not None:
            options = [one for one in options if one[0] == ">" or one in self._faults]
        label = task.label
        self.moments.append(
            Moment(label, NUMBERS.sub("", f"{label} {kind}"), options, self.state())
        )
        choice = self.plan[label] if label in self.plan else self._pick(options)
        if choice and choice in options:
            self.taken.append((label, choice))
            return choice
        return ""


def run(
    stage: Stage,
    scenario: Scenario,
    seed: int = 0,
    plan: Plan = (),
    pick: Pick = lambda _: "",
    *,
    with_states: bool = False,
) -> Outcome:
    """Run one schedule to its rest."""
    chooser = _Chooser(dict(plan), pick, scenario.faults)
    world = World(stage, chooser, seed)
    scenario.change(world)
    if with_states:
        chooser.state = world.state
    with contextlib.closing(world):
        return _played(world, scenario, chooser, seed)


def _played(world: World, scenario: Scenario, chooser: _Chooser, seed: int) -> Outcome:
    guarantees = watch(world)
    holds = scenario.play(world)
    world.scheduler.go()
    failure = world.scheduler.failure
    if failure is None:
        try:
            for error in world.errors():
                raise error
            at_rest(guarantees)
            if holds is not None:
                holds()
        except (BrokenGuaranteeError, AssertionError) as error:
            failure = error
    taken = tuple(chooser.taken)
    log, writes = world.scheduler.log, world.writes
    named = (scenario.name, seed, taken)
    return Outcome(*named, failure, chooser.moments, log, writes, scenario.mutant)


@dataclass
class Report:
    """What an exploration of a scenario has done."""

    scenario: str
    schedules: int = 0
    states: Collection[int] = ()
    steps: int = 0
    """Moments of all schedules."""
    faults: int = 0
    """Faults that have met a call."""
    seconds: float = 0.0
    complete: int = 0
    """Up to so many deviations, all schedules were run."""
    longest: int = 0
    found: Outcome | None = None
    found_after: float = 0.0


type Note = Callable[[Outcome], None]


def explore(
    stage: Stage,
    scenario: Scenario,
    *,
    seed: int = 0,
    seconds: float = 60.0,
    schedules: int | None = None,
    note: Note = lambda _: None,
) -> Report:
    """Look for a schedule that breaks a guarantee, and shrink the first one that does.

    `note` is given the outcome of each schedule.
    """
    search = Search(stage, scenario, seed, note)
    search.go_on(seconds, schedules)
    return search.report


def explore_in_turns(
    stage: Stage,
    scenarios: Sequence[Scenario],
    *,
    seed: int = 0,
    seconds: float,
    note: Note,
    found: Note,
) -> list[Report]:
    """Like `explore`, for several scenarios that have the time in equal parts, in turns.

    `found` is given each finding, at once.
    """
    searches = [Search(stage, scenario, seed, note) for scenario in scenarios]
    end = time.monotonic() + seconds
    while going := [search for search in searches if not search.is_over]:
        for search in going:
            if (left := end - time.monotonic()) <= 0:
                return [search.report for search in searches]
            search.go_on(min(left, TURN_SECONDS))
            if search.report.found is not None:
                found(search.report.found)
    return [search.report for search in searches]


class Search:
    """An exploration that can be continued."""

    def __init__(self, stage: Stage, scenario: Scenario, seed: int, note: Note) -> None:
        self.report = Report(scenario.name)
        self._stage = stage
        self._scenario = scenario
        self._note = note
        self._outcomes = _all(stage, scenario, seed, self.report)

    @property
    def is_over(self) -> bool:
        """Whether it has found something."""
        return self.report.found is not None

    def go_on(self, seconds: float, schedules: int | None = None) -> None:
        """Run more schedules, until one breaks a guarantee."""
        report, began, before = self.report, time.monotonic(), self.report.seconds
        while time.monotonic() - began <= seconds and report.schedules != schedules:
            outcome = next(self._outcomes)
            report.schedules += 1
            report.steps += outcome.calls
            report.faults += sum(choice[0] != ">" for _, choice in outcome.plan)
            report.longest = max(report.longest, outcome.calls)
            self._note(outcome)
            if outcome.failure is not None:
                report.found_after = before + time.monotonic() - began
                report.found = shrink(self._stage, self._scenario, outcome)
                break
        report.seconds = before + time.monotonic() - began


def _all(stage: Stage, scenario: Scenario, seed: int, report: Report) -> Iterator[Outcome]:
    chance = random.Random(f"{seed}/{scenario.name}")
    known: dict[int, int] = {}
    report.states = known.keys()
    level: list[Plan] = [()]
    kinds: dict[Plan, str] = {(): ""}
    usual = 1
    for depth in range(scenario.bound + 1):
        following: list[Plan] = []
        for plan in level:
            outcome = run(stage, scenario, 0, plan, with_states=True)
            yield outcome
            usual = max(1, len(outcome.moments))
            for kind, deviating in _deviations(outcome, plan, scenario.bound - depth, known):
                following.append(deviating)
                kinds[deviating] = f"{kinds[plan]} {kind}"
        report.complete = depth
        # A level that can't be finished has at least one schedule of each kind.
        chance.shuffle(following)
        level = _varied(following, kinds)
        if not level:
            break
    for number in itertools.count(1):
        yield run(stage, scenario, seed + number, (), _sampled(chance, usual))


def _deviations(
    outcome: Outcome, plan: Plan, left: int, known: dict[int, int]
) -> Iterator[tuple[str, Plan]]:
    """The plans with one deviation more, after the last one, and its kind; none from a state that
    was seen.
    """
    if left == 0 or len(outcome.plan) < len(plan):
        return
    labels = [moment.label for moment in outcome.moments]
    start = labels.index(plan[-1][0]) + 1 if plan else 0
    for moment in outcome.moments[start:]:
        if known.get(moment.state, 0) >= left:
            continue
        known[moment.state] = left
        for option in moment.options:
            kind = f"{moment.kind} {NUMBERS.sub('', option)}"
            yield kind, (*plan, (moment.label, option))


def _varied(plans: list[Plan], kinds: Mapping[Plan, str]) -> list[Plan]:
    """The plans, first one of each kind, then the second ones."""
    seen: Counter[str] = Counter()
    ranks: dict[Plan, int] = {}
    for plan in plans:
        ranks[plan] = seen[kinds[plan]]
        seen[kinds[plan]] += 1
    return sorted(plans, key=ranks.__getitem__)


def _sampled(chance: random.Random, usual: int) -> Pick:
    """Random choices, as many as some deviations a schedule."""
    left = chance.randint(2, MOST_DEVIATIONS)
    rate = left / usual

    def pick(options: list[str]) -> str:
        nonlocal left
        if left == 0 or not options or chance.random() > rate:
            return ""
        left -= 1
        others = [option for option in options if option.startswith(">")]
        return chance.choice(others if others and chance.random() < 0.6 else options)

    return pick


def shrink(stage: Stage, scenario: Scenario, outcome: Outcome) -> Outcome:
    """The same kind of failure with as few deviations as possible."""
    best, removed = outcome, True
    while removed:
        removed = False
        for number in range(len(best.plan)):
            shorter = best.plan[:number] + best.plan[number + 1 :]
            for seed in dict.fromkeys((0, best.seed)):
                tried = run(stage, scenario, seed, shorter)
                if tried.failure is not None and tried.kind == outcome.kind:
                    best, removed = tried, True
                    break
            if removed:
                break
    return best
