"""Each scenario with one fault, at each of its AWS calls in turn."""

import zlib
from collections.abc import Sequence

import pytest

from tests.faults.cloud import ROOT, Cloud
from tests.faults.inbox import MESSAGES
from tests.faults.injecting import KINDS, Exchange, Fault, Plan
from tests.faults.scenarios import JOBS
from tests.faults.workspaces import OTHERS

SCENARIOS = JOBS | OTHERS | MESSAGES

# Their kills alone would take longer than all other scenarios.
LONG = {"cancelled-assembly", "intake-json", "parts", "twins"}
ONE_IN = 8

_clean: dict[str, Plan] = {}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_holds_without_a_fault(cloud: Cloud, scenario: str) -> None:
    """It makes the same calls each time, as many as docs/faults.md says."""
    again = run(cloud, scenario, NONE, 0)
    assert again.calls == clean(cloud, scenario).calls
    assert documented_calls()[scenario] == len(again.calls)


def documented_calls() -> dict[str, int]:
    """The calls of each scenario, from the table of the page."""
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    table = page.partition("| scenario | calls |")[2].partition("\n\n")[0]
    found: dict[str, int] = {}
    for row in table.splitlines()[2:]:
        names, numbers, *_ = (cell.strip().split(", ") for cell in row.strip("|").split("|"))
        found |= dict(zip(names, map(int, numbers), strict=True))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_holds_with_a_fault(
    cloud: Cloud, scenario: str, kind: str, tries_all: bool
) -> None:
    """At each of its calls in turn."""
    fault = KINDS[kind]
    number = sum(map(fault.concerns, clean(cloud, scenario).exchanges))
    for at in chosen(scenario, kind, range(1, number + 1), tries_all):
        assert run(cloud, scenario, fault, at).hit


def chosen(scenario: str, kind: str, calls: range, tries_all: bool) -> Sequence[int]:
    """The calls at which a fault is tried: all, one in some, or one."""
    if tries_all or not calls:
        return calls
    start = zlib.crc32(f"{scenario} {kind}".encode())
    if kind == "killed-before":
        return calls[start % ONE_IN :: ONE_IN] if scenario in LONG else calls
    return [calls[start % len(calls)]]


def clean(cloud: Cloud, scenario: str) -> Plan:
    """A run without a fault."""
    if scenario not in _clean:
        _clean[scenario] = run(cloud, scenario, NONE, 0)
    return _clean[scenario]


NONE = Fault("none", Exchange.carry_out)


def run(cloud: Cloud, scenario: str, fault: Fault, at: int) -> Plan:
    """A run with a fault at its n-th call."""
    cloud.empty()
    played = SCENARIOS[scenario](cloud)
    plan = Plan(fault, at)
    try:
        with played.prepared():
            cloud.plan = plan
            played.play()
            plan.over = True
            played.finish()
    except AssertionError as broken:
        broken.add_note(f"{scenario}: {fault} at call {at}: {plan.hit}")
        raise
    return plan
