"""Each mutant of the table in docs/faults.md is found again."""

import re
from dataclasses import replace

import pytest

from jobplane.explore.mutants import IMPLIED, Survey, mutated, read_table
from jobplane.explore.planted import known_faults, replayed
from jobplane.explore.scenarios import SCENARIOS
from jobplane.explore.search import explore, parse, run
from jobplane.explore.world import Stage
from jobplane.tree.repository import Repository

LISTED = read_table(Repository.here().root / "docs" / "faults.md")
FOUND = {
    name: found.group(1)
    for name, verdict in LISTED.items()
    if (found := re.search(r" by `(.+)`", verdict))
}
FAULTS = {fault.mutant: fault for fault in known_faults()}
SCHEDULES = 1_000


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_conditional_write_is_in_the_table(explored: Stage, name: str) -> None:
    """With its parts, as far as the first schedules make it."""
    writes = Survey(explored.prefix)
    scenario = replace(SCENARIOS[name], change=writes.watch)
    explore(explored, scenario, seconds=1e9, schedules=25, note=writes.note)
    unlisted = {mutant.name for mutant in writes} - LISTED.keys()
    # Where only a wrong clock leads to a write, and where nothing is a row.
    assert writes or name in {"past", "uploads"}
    assert not unlisted, "run `jobplane explore --mutants --table`"


def test_the_table_has_what_is_implied_and_leaves_nothing_open() -> None:
    """A reason for a mutant that is found by now, or for another condition, is superfluous."""
    assert {name for name in IMPLIED if not LISTED[name].startswith("implied: ")} == set()
    assert [name for name, verdict in LISTED.items() if verdict.startswith("not found")] == []


@pytest.mark.parametrize("name", sorted(FOUND.keys() - FAULTS.keys()))
def test_a_mutant_is_found_in_its_scenario(explored: Stage, name: str) -> None:
    """By its line, or by another schedule when the calls have another order by now; without the
    mutant, everything holds in it.
    """
    line = parse(FOUND[name])
    assert run(explored, SCENARIOS[line.scenario], line.seed, line.plan).failure is None
    scenario = mutated(SCENARIOS[line.scenario], explored, name)
    if run(explored, scenario, line.seed, line.plan).failure is None:
        assert explore(explored, scenario, seconds=1e9, schedules=SCHEDULES).found is not None


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_put_back_breaks_a_guarantee(name: str) -> None:
    """In the schedule of its line, in a copy of the code."""
    line = FOUND[name].replace(f" mutant={name}", "")
    holds, text = replayed(Repository.here(), FAULTS[name], line)
    assert not holds, text
    assert "replay with: jobplane explore" in text
