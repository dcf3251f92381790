"""A load of forty sockets on the deployed stage."""

import dataclasses
import secrets
from collections.abc import Iterator

import pytest

from jobplane.bench._claims import CLAIMS
from jobplane.bench._phases import Outcome, Plan
from jobplane.bench._remains import check_tables, clear
from jobplane.bench._usage import Usage
from jobplane.bench.load import report, run
from tests.e2e.deployed import Deployed

PLAN = Plan(
    sockets=40, jobs=2, seconds=5.0, hold=0.0, soak_minutes=0.25, reconnect_every=5.0,
    subscribers=20, at_once=8, patience=120.0,
)  # fmt: skip

type Loaded = tuple[Outcome, Usage]


@pytest.fixture(scope="module")
def loaded(deployed: Deployed) -> Iterator[Loaded]:
    """A finished load."""
    tenant = f"load-{secrets.token_hex(4)}"
    try:
        yield run(deployed.stage, PLAN, tenant)
    finally:
        clear(deployed.stage, tenant)


@pytest.fixture(scope="module")
def outcome(loaded: Loaded) -> Outcome:
    return loaded[0]


@pytest.mark.timeout(600)
def test_a_load_has_no_faults(outcome: Outcome) -> None:
    """Ledgers and tables agree, and no connection is left."""
    assert outcome.faults == []


def test_the_histories_are_recorded_and_explained(outcome: Outcome) -> None:
    """Each job has an operation that enqueues, takes and ends it, and what its client saw."""
    assert outcome.history.unexplained == []
    jobs = sum(entry.is_job for of in outcome.entries.values() for entry in of)
    assert outcome.history.operations > 5 * jobs + CLAIMS


def test_every_request_is_acknowledged_once_and_ends_once(outcome: Outcome) -> None:
    """If its socket was not lost, by messages."""
    entries = outcome.entries["jobs"]
    assert len(entries) == PLAN.sockets * PLAN.jobs + 1, "every 50th socket runs an assembly too"
    assert {(entry.acknowledgments, entry.ends) for entry in entries} == {(1, 1)}
    assert {entry.status for entry in entries} == {"COMPLETED"}


def test_a_jobs_messages_are_numbered_without_a_gap(outcome: Outcome) -> None:
    jobs = [entry for entry in outcome.entries["jobs"] if entry.is_job]
    assert jobs
    for entry in jobs:
        assert entry.seqs == set(range(1, entry.seq + 1))


def test_every_subscriber_gets_every_message(outcome: Outcome) -> None:
    """From its subscription to the end."""
    fan_out = outcome.fan_out
    assert fan_out is not None
    assert fan_out.subscribers == PLAN.subscribers
    assert fan_out.last_seq in fan_out.heard
    assert {len(times) for times in fan_out.heard.values()} == {PLAN.subscribers}


def test_lost_sockets_resume_their_requests(outcome: Outcome) -> None:
    """During the soak."""
    assert outcome.reconnects > 0
    assert outcome.resumed > 0
    assert {entry.status for entry in outcome.entries["soak"]} == {"COMPLETED"}


def test_the_report_has_latencies_memory_and_bottlenecks(loaded: Loaded) -> None:
    document = report(*loaded).document
    for name in ("handshake", "jobs: acknowledgment", "jobs: end of delay"):
        latency = document["latencies_ms"][name]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert {name.rpartition("-")[2] for name in document["memory"]} >= {"router", "processor"}
    for phase in ("open", "jobs", "fan-out", "soak"):
        assert document["cores"][phase]["bottleneck"]


def test_the_check_of_the_tables_finds_a_missing_row(deployed: Deployed, outcome: Outcome) -> None:
    outcome = dataclasses.replace(outcome, faults=[])
    check_tables(deployed.stage, "load-nobody", outcome)
    jobs = sum(entry.is_job for of in outcome.entries.values() for entry in of)
    assert len(outcome.faults) == jobs
