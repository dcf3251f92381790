"""Each scenario with one fault, at each of its AWS calls in turn."""

import zlib

import pytest

from faults.cloud import Cloud
from faults.injecting import KINDS, Exchange, Fault, Plan
from faults.scenarios import JOBS
from faults.workspaces import OTHERS

SCENARIOS = JOBS | OTHERS

ALWAYS_EVERYWHERE = {"killed-before", "killed-after"}
STRIDE = 5


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_fault(cloud: Cloud, scenario: str) -> None:
    """What is to hold after a fault holds without one, and the calls are the same each time."""
    plans = [run(cloud, scenario, Fault("none", Exchange.carry_out), 0) for _ in range(2)]
    assert plans[0].calls == plans[1].calls != []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_one_fault(cloud: Cloud, scenario: str, kind: str, tries_all: bool) -> None:
    """Whatever happens to one call, everything ends once, and nothing is lost or doubled."""
    step, at = 1, 1
    if not tries_all and kind not in ALWAYS_EVERYWHERE:
        step, at = STRIDE, 1 + zlib.crc32(f"{scenario} {kind}".encode()) % STRIDE
    while run(cloud, scenario, KINDS[kind], at).hit:
        at += step


def run(cloud: Cloud, scenario: str, fault: Fault, at: int) -> Plan:
    """One run, with a fault at its n-th call if there are so many."""
    cloud.empty()
    played = SCENARIOS[scenario](cloud)
    plan = Plan(fault, at)
    try:
        with played.prepared():
            cloud.plan = plan
            played.play()
            plan.over = True
            played.rest()
            played.check()
    except AssertionError as broken:
        broken.add_note(f"{scenario}: {fault} at call {at}: {plan.hit}")
        raise
    return plan
