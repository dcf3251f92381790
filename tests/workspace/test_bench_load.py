"""The checks of a load: ledgers, samples and limits."""

import resource
from dataclasses import replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from jobplane.bench._ledger import Entry, Hearing, Ledger, percentiles
from jobplane.bench._phases import Outcome, Plan
from jobplane.bench._usage import Growth, Sample, Shares, Usage
from jobplane.bench.load import MAX_SOCKETS, _is_flat, allow_descriptors, command, require_loopback


@pytest.fixture
def ledger() -> Ledger:
    """The ledger of a socket that has sent one job."""
    entry = Entry("r", "delay", {}, is_job=True, sent=0.0)
    return Ledger("user", {"r": entry})


def heard(ledger: Ledger, *messages: dict[str, Any]) -> None:
    for at, message in enumerate(messages, start=1):
        ledger.hear({"request_id": "r", **message}, float(at))


ACKNOWLEDGED = {"type": "acknowledgment", "status": "queued"}
COMPLETE = {"type": "complete", "seq": 3, "success": True, "result": {}}


def step(seq: int) -> dict[str, Any]:
    return {"type": "progress", "seq": seq, "percentage": 10.0 * seq}


def test_a_complete_job_has_no_fault(ledger: Ledger) -> None:
    """Progress may come before the acknowledgment."""
    heard(ledger, step(1), ACKNOWLEDGED, step(2), COMPLETE)
    assert ledger.faults == ledger.missing() == []
    entry = ledger.entries["r"]
    assert (entry.acknowledged, entry.ended, entry.status) == (2.0, 4.0, "COMPLETED")
    ledger.agree("r", {"status": "COMPLETED", "seq": 3})
    assert ledger.faults == []


def test_a_message_that_comes_again_is_counted(ledger: Ledger) -> None:
    """Its post was repeated, since its answer did not come in time."""
    heard(ledger, ACKNOWLEDGED, step(1), step(1), step(2), COMPLETE, COMPLETE)
    assert (ledger.repeats, ledger.faults, ledger.entries["r"].ends) == (2, [], 1)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ([ACKNOWLEDGED, ACKNOWLEDGED], "acknowledged 2 times"),
        ([step(2), step(1)], "seq 1 after 2"),
        ([COMPLETE, {**COMPLETE, "seq": 4}], "ended 2 times"),
        ([COMPLETE, step(4)], "a progress after the end"),
        ([{"type": "surprise"}], "an unknown surprise"),
        ([{**step(1), "request_id": "another"}], "a stranger's progress"),
    ],
)
def test_a_wrong_message_is_a_fault(ledger: Ledger, sent: list[dict[str, Any]], fault: str) -> None:
    heard(ledger, *sent)
    assert any(found.startswith("user ") and fault in found for found in ledger.faults)


def test_an_end_known_only_by_a_look_up_is_a_fault_of_a_socket_that_stayed(ledger: Ledger) -> None:
    """A socket that was lost may need the look-up."""
    assert ledger.missing() == ["r: no acknowledgment", "r: no end"]
    heard(ledger, ACKNOWLEDGED)
    ledger.resume("r", {"status": "COMPLETED", "seq": 3}, 0, 9.0)
    assert ledger.missing() == []
    ledger.entries["r"].resumed = False
    assert ledger.missing() == ["r: no message of its end"]


def test_a_message_covered_by_the_subscriptions_answer_is_counted_as_overlap(
    ledger: Ledger,
) -> None:
    heard(ledger, ACKNOWLEDGED, step(1))
    ledger.resume("r", {"status": "PROCESSING", "seq": 2}, 1, 5.0)
    heard(ledger, step(2))
    assert (ledger.overlaps, ledger.faults) == (1, [])


def test_a_stored_state_older_than_a_received_message_is_a_fault(ledger: Ledger) -> None:
    """Unless the message came after the look-up was sent."""
    heard(ledger, ACKNOWLEDGED, step(2))
    ledger.resume("r", {"status": "PROCESSING", "seq": 1}, 1, 5.0)
    assert ledger.faults == []
    ledger.resume("r", {"status": "PROCESSING", "seq": 1}, 2, 5.0)
    assert ledger.faults == ["user r: stored seq 1, heard 2"]


def test_a_stored_state_that_differs_from_the_last_message_is_a_fault(ledger: Ledger) -> None:
    heard(ledger, ACKNOWLEDGED, COMPLETE)
    ledger.agree("r", {"status": "FAILED", "seq": 4})
    assert ledger.faults == [
        "user r: stored FAILED, heard COMPLETED",
        "user r: stored seq 4, heard 3",
    ]


def test_a_failure_is_counted_by_its_code(ledger: Ledger) -> None:
    error = {"type": "error", "error": {"code": "RATE_LIMITED", "message": "later"}}
    heard(ledger, error)
    entry = ledger.entries["r"]
    assert (entry.status, entry.code) == ("FAILED", "RATE_LIMITED")
    assert ledger.errors == {"RATE_LIMITED": 1}
    assert ledger.missing() == []


def test_a_listener_gets_messages_in_order_and_once(ledger: Ledger) -> None:
    ledger.hearings["r"] = hearing = Hearing(since=0)
    heard(ledger, step(1), step(2))
    assert (sorted(hearing.times), ledger.faults) == ([1, 2], [])
    heard(ledger, step(2))
    assert (ledger.repeats, ledger.faults) == (1, [])
    heard(ledger, step(1))
    assert ledger.faults


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([]) == {}
    assert percentiles([0.004]) == {"p50": 4.0, "p95": 4.0, "p99": 4.0, "max": 4.0}
    hundred = percentiles(number / 1000 for number in range(1, 101))
    assert hundred == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


@pytest.mark.parametrize(
    ("functions", "emulator", "client", "others", "named"),
    [
        (0.5, 0.95, 0.2, 0.0, "the emulator: its single process"),
        (0.2, 0.3, 0.99, 0.0, "the client: its single process"),
        (1.5, 0.4, 0.1, 0.0, "our functions: all cores are busy, 75%"),
        (0.4, 0.1, 0.0, 1.5, "our functions: all cores are busy, 80%"),
        (0.0, 0.0, 0.0, 1.9, "not the load: other processes use 95%"),
        (0.1, 0.1, 0.0, 0.0, "none: cores are idle, the schedule sets the pace"),
    ],
)
def test_the_bottleneck_is_a_saturated_process_or_the_largest_share(
    functions: float, emulator: float, client: float, others: float, named: str
) -> None:
    shares = Shares(10.0, 2, client, emulator, functions, others)
    bottleneck = shares.bottleneck("the schedule")
    assert bottleneck.startswith(named)
    assert ("other processes use" in bottleneck) is bool(others)


def test_growth_is_from_the_second_fifth_of_a_workers_samples_to_the_last() -> None:
    nobody = {"client": 0.0, "emulator": 0.0, "functions": 0.0, "machine": 0.0}
    workers = [{1: 50_000_000 + 1_000_000 * at, 2: 40_000_000} for at in range(40)]
    workers.append({3: 90_000_000})
    usage = Usage([Sample(float(at), nobody, 0, {"f": f}) for at, f in enumerate(workers)])
    growth = usage.growth()["f"]
    assert (growth.workers, growth.largest_growth, growth.median_growth) == (2, 24.0, 12.0)
    assert not growth.is_flat
    assert usage.most_workers() == 2


def test_growth_up_to_a_twentieth_is_flat() -> None:
    """It is reported only for a soak."""
    growth = Growth(3, typical=40.0, median_growth=0.5, largest_growth=2.0)
    assert growth.is_flat
    assert not replace(growth, largest_growth=2.1).is_flat
    plan = Plan(10, 1, 1.0, 0.0, 0.0, 60.0, 0, 8, 60.0)
    assert _is_flat(Outcome(plan), growth) is None
    assert _is_flat(Outcome(plan, phases={"soak": (0.0, 600.0)}), growth) is True


def test_too_many_requests_or_subscribers_are_refused_before_the_start() -> None:
    for options in ("--sockets 5000 --jobs 11", "--sockets 5 --subscribers 5"):
        done = CliRunner().invoke(command, options)
        assert (done.exit_code, done.exception.__class__) == (2, SystemExit), done.output


def test_a_load_on_another_machine_is_refused() -> None:
    here = {"websocket_url": "ws://127.0.0.1:1/x", "http_url": "http://localhost:1/y"}
    require_loopback(here)
    for name in here:
        with pytest.raises(click.UsageError, match=name):
            require_loopback(here | {name: "ws://127.0.0.1.example.org/x"})


def test_too_low_a_limit_of_open_files_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _what, new: limits.__setitem__(0, new[0]))
    allow_descriptors(2000)
    assert limits[0] > 2000
    with pytest.raises(click.ClickException, match="ulimit"):
        allow_descriptors(MAX_SOCKETS)
