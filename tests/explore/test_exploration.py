"""A bounded exploration of every scenario, and what the explorer itself must do."""

import re

import pytest

from jobplane.explore.guarantees import BrokenGuaranteeError
from jobplane.explore.mutants import mutated, read_table
from jobplane.explore.planted import edited, known_faults
from jobplane.explore.report import lines_of
from jobplane.explore.scenarios import SCENARIOS
from jobplane.explore.search import Outcome, Scenario, explore, parse, run
from jobplane.explore.tasks import UnrestError
from jobplane.explore.world import WRITE_FAULTS, Stage, World
from jobplane.histories.operations import operations_of
from jobplane.histories.rules import OF_CLAIMS, OF_LANES, OF_REQUESTS
from jobplane.tree.repository import Repository
from lambdapack.tools import ToolError
from tests.examples import examples

SCHEDULES = 25
TABLE = Repository.here().root / "docs" / "faults.md"


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_guarantee_holds_in_the_first_schedules(explored: Stage, name: str) -> None:
    """`jobplane explore` runs more of them."""
    report = explore(explored, SCENARIOS[name], seconds=1e9, schedules=examples(SCHEDULES))
    assert report.found is None, "\n".join(lines_of(report.found))
    assert report.schedules == examples(SCHEDULES)
    assert len(report.states) > 0


# Not reached by the first schedules of these scenarios.
RARE = {"Prolong", "ReleaseOwned", "See", "TakeOver", "TimeOut"}


def test_histories_have_each_action_and_some_without_an_answer(explored: Stage) -> None:
    """The guarantee HistoriesExplained checks them in each schedule."""
    seen: set[tuple[str, str]] = set()

    def note(outcome: Outcome) -> None:
        histories = operations_of(outcome.writes).values()
        seen.update((one.action, one.outcome) for history in histories for one in history)

    for name in (
        "callback", "cancel", "leave", "lanes", "queue", "rate", "schedule", "join", "sweep",
        "worker", "follow-up",
    ):  # fmt: skip
        explore(explored, SCENARIOS[name], seconds=1e9, schedules=SCHEDULES, note=note)
    assert {action for action, _ in seen} >= {*OF_REQUESTS, *OF_CLAIMS, *OF_LANES} - RARE
    assert {outcome for _, outcome in seen} == {"done", "refused", "unknown"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_schedule_is_the_same_each_time(explored: Stage, name: str) -> None:
    """Otherwise no line could replay it."""
    logs = [run(explored, SCENARIOS[name], seed=3).log for _ in range(2)]
    assert logs[0] == logs[1]


def unconditional(world: World) -> None:
    """A device cancels a job; every condition of a write counts as met."""
    world.tables.is_dropped = lambda *_: True
    SCENARIOS["cancel"].play(world)


def found_in(stage: Stage, play: Scenario) -> Outcome:
    report = explore(stage, play, seconds=1e9, schedules=500)
    assert report.found is not None
    return report.found


def test_a_planted_fault_is_found_shortened_and_replayed(explored: Stage) -> None:
    """The line alone shows it again, and no deviation of it is superfluous."""
    scenario = Scenario("planted", unconditional)
    found = found_in(explored, scenario)
    assert isinstance(found.failure, BrokenGuaranteeError)
    name, seed, plan, mutant = parse(found.line)
    assert (name, mutant) == ("planted", "")
    again = run(explored, scenario, seed, plan)
    assert (again.kind, again.log) == (found.kind, found.log)
    for number in range(len(plan)):
        shorter = run(explored, scenario, seed, plan[:number] + plan[number + 1 :])
        assert shorter.failure is None or shorter.kind != found.kind


def test_a_program_that_calls_without_a_pause_is_a_finding(explored: Stage) -> None:
    """Otherwise the exploration would not end."""

    def restless(world: World) -> None:
        world.actor("program", lambda: any(iter(lambda: world.scheduler.point(()), None)))

    assert isinstance(run(explored, Scenario("restless", restless)).failure, UnrestError)


def test_an_error_of_the_world_ends_the_schedule(explored: Stage) -> None:
    """Raised in the thread of a task, it would let the exploration hang."""

    def broken(world: World) -> None:
        world.scheduler.on_rest = lambda _: bool({}["table"])
        world.actor("program", lambda: None)

    assert isinstance(run(explored, Scenario("broken", broken)).failure, KeyError)


def test_a_mutant_is_found_again_by_its_line_alone(explored: Stage) -> None:
    """Without the mutant, every guarantee holds in the same schedule."""
    listed = read_table(TABLE)
    name = next(name for name in listed if name.startswith("drop/RequestLease.cancel/"))
    guarantee, line = listed[name].strip("`").split(" by `")
    scenario, seed, plan, mutant = parse(line)
    assert mutant == name
    again = run(explored, mutated(SCENARIOS[scenario], explored, mutant), seed, plan)
    assert (again.kind, again.line) == (guarantee, line)
    assert run(explored, SCENARIOS[scenario], seed, plan).failure is None


@pytest.mark.parametrize("name", ["drop", "drop/RequestLease.cancel", "lose/RequestLease.cancel/1"])
def test_a_name_that_is_no_mutants_is_refused(explored: Stage, name: str) -> None:
    with pytest.raises(ToolError, match=f"no mutant '{name}'"):
        mutated(SCENARIOS["cancel"], explored, name)


def test_the_table_of_a_schedule_names_calls_faults_and_the_line(explored: Stage) -> None:
    """A line for each call, with its task; the faults are marked."""
    outcome = run(explored, SCENARIOS["cancel"], plan=(("cancel@3", "kill"),))
    text = "\n".join(lines_of(outcome))
    assert re.search(r"cancel +\*\* kill: .*UpdateItem requests job", text)
    assert "jobplane explore --replay 'cancel seed=0 cancel@3!kill'" in text


def test_a_call_may_meet_each_fault(explored: Stage) -> None:
    """Each is a choice at the router's write, and leads to another history than the others."""
    logs = {}
    for fault in WRITE_FAULTS:
        outcome = run(explored, SCENARIOS["cancel"], plan=(("cancel@3", fault),))
        assert outcome.plan == (("cancel@3", fault),)
        logs[fault] = tuple(outcome.log)
    assert len(set(logs.values())) == len(logs)


@pytest.mark.parametrize("line", ["cancel what", "cancel cancel@x!kill", "cancel @3!kill"])
def test_a_malformed_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="malformed deviation"):
        parse(line)


def test_every_planted_fault_fits_the_code() -> None:
    """An edit whose text has changed would put nothing back."""
    for fault in known_faults():
        assert SCENARIOS.keys() >= set(fault.scenarios)
        assert edited(Repository.here().root, fault)


def test_a_service_that_is_not_simulated_is_named_with_the_remedy(explored: Stage) -> None:
    world = World(explored, lambda *_: pytest.fail("nothing is to choose"))
    with pytest.raises(ToolError, match="not simulate the service kms: add Decrypt to World"):
        world._effect("kms", "Decrypt", {})


@pytest.mark.parametrize(
    "line",
    [
        # Broke a guarantee before a job that is put back waited for its posts.
        "files seed=0 cancel@2!hang processor.1.1.1@3>dispatch#2",
        "files seed=0 cancel@2!outage processor.1.1.1@3>processor.1",
        # Broke one before a late write kept the dead letter that a record already named.
        "swept seed=0 flow-m2/handle-timeout@4!delayed",
        # Require what the schedule makes impossible.
        "demands seed=28 demand-1@3!kill",
        "follow-up seed=0 worker-a/claim@1!lost worker-a@11!outage",
        "interrupt seed=0 worker-a/claim#2@1!lost worker-a@25!outage",
    ],
)
def test_a_schedule_that_was_once_a_finding_is_none(explored: Stage, line: str) -> None:
    name, seed, plan, _ = parse(line)
    assert run(explored, SCENARIOS[name], seed, plan).failure is None
