"""The simulated queue, the killed workers and the ratios of the engine's measurements."""

import asyncio
import contextlib
from typing import Any

import pytest

from jobplane.bench import drops, rate, steps
from jobplane.bench._engine import most_at_once
from jobplane.bench._fair_queue import Queue, Sent
from jobplane.bench.flood import report, simulated
from jobplane.bench.load import command
from jobplane_keys import iso_time


def flooded(seconds: float = 2.0, jobs: int = 400) -> tuple[list[Sent], Sent]:
    """A flood of one group, and the message of another one that comes after it."""
    flood = [Sent(number / 1000, "flood", seconds) for number in range(jobs)]
    return flood, Sent(1.0, "quiet", 0.2)


def test_in_order_of_arrival_a_flood_delays_whatever_comes_after_it() -> None:
    flood, quiet = flooded()
    found = Queue(40, is_fair=False).run([*flood, quiet])
    assert found[quiet] > 15  # 400 jobs of 2 s in 40 invocations take 20 s


def test_a_fair_queue_delivers_a_quiet_group_first() -> None:
    """As soon as an invocation is free."""
    flood, quiet = flooded()
    found = Queue(40, is_fair=True).run([*flood, quiet])
    assert found[quiet] <= 2.2 + 1e-9
    assert len(found) == len(flood) + 1, "nothing is lost"


def test_a_group_with_all_recent_processing_time_comes_last() -> None:
    later = [Sent(0.1, "a", 1.0), Sent(0.2, "b", 1.0)]
    found = Queue(1, is_fair=True).run([Sent(0.0, "a", 1.0), *later])
    assert found[later[1]] == pytest.approx(1.8)
    assert found[later[0]] == pytest.approx(2.9)


def test_a_fair_queue_is_better_for_short_jobs_than_one_by_arrival() -> None:
    given = {"jobs": 400, "seconds": 2.0}
    _, by_arrival = simulated(given, 40, is_fair=False)
    alone, fair = simulated(given, 40, is_fair=True)
    assert max(alone) < max(fair)
    assert max(fair) < max(by_arrival) / 2


def test_jobs_at_a_time_are_counted_from_first_start_to_end() -> None:
    times = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]
    rows: list[dict[str, Any]] = [
        {"started_at": iso_time(start), "ended_at": iso_time(end)} for start, end in times
    ]
    assert most_at_once(rows) == 2
    assert most_at_once([{}, {"started_at": iso_time(1.0)}]) == 0


@pytest.mark.parametrize(("now", "said"), [(50.0, "not met"), (90.0, "met")])
def test_a_rate_is_the_median_of_the_turns(now: float, said: str) -> None:
    (table,) = rate.report({"before": [40.0, 40.0], "now": [now, now]}, 800).tables
    assert table.rows[1][2] == f"{now / 40:.2f} ({now / 40:.2f}–{now / 40:.2f})"
    assert table.notes[0].endswith(f"times as many: {said}.")


def test_the_report_of_a_flood_says_whether_the_goal_is_met() -> None:
    given = {"jobs": 200, "seconds": 2.0, "slots": 8, "long_jobs": 20, "long_seconds": 60.0}
    measured = {"alone": [0.3] * 24, "during the flood": [0.5] * 24, "left": [80.0]}
    document = report(measured, given)
    assert [row[-1] for row in document.tables[0].rows] == ["–", "no"]
    assert document.tables[0].rows[1][-2] == 1.67


def test_the_report_of_drops_counts_what_arrives_once() -> None:
    given = {"events": 4, "seconds": 1.0, "longest": 2.0}
    heard = {drops.SOCKET: [[1, 2, 3, 4]], drops.PLAIN: [[1, 4, 4]]}
    found = drops.report(heard, [0.5, 1.0], given)
    assert [row[1:] for row in found.tables[0].rows] == [
        (4, 4, "100.0 %", 0, "yes"), (4, 2, "50.0 %", 1, "yes"),
    ]  # fmt: skip
    assert found.faults == []


@pytest.mark.parametrize("numbers", [[1, 2, 4], [1, 2, 3, 3, 4], [1, 3, 2, 4]])
def test_an_event_that_is_missed_repeated_or_late_is_a_fault(numbers: list[int]) -> None:
    given = {"events": 4, "seconds": 1.0, "longest": 2.0}
    found = drops.report({drops.SOCKET: [numbers], drops.PLAIN: [[]]}, [], given)
    assert found.faults == [f"round 1: {len(numbers)} events, not 1 to 4 in order"]


async def test_a_line_that_is_down_ends_its_connections_and_takes_no_others() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(2))

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        async with drops.line_to(url) as (line, way):
            port = int(way.rpartition(":")[2].removesuffix("/x"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hi")
            assert await reader.readexactly(2) == b"hi"
            line.is_down = True
            refused, _ = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionResetError):
                assert await refused.read() == b""


def test_lanes_and_kills_are_options_of_a_load() -> None:
    assert {"slots", "kill_every"} <= {parameter.name for parameter in command.params}


def test_the_report_of_steps_compares_round_by_round() -> None:
    """A round in which the machine was busy counts in both."""
    job = [{"seconds": seconds, "busy": 1.0, "calls": 10.0} for seconds in (1.0, 4.0, 1.0)]
    durable = [{"seconds": seconds, "busy": 2.0, "calls": 20.0} for seconds in (2.0, 8.0, 4.0)]
    found = steps.report({steps.HERE: job, steps.DURABLE: durable}, 10)
    [table] = found.tables
    assert table.rows[0] == (steps.HERE, "100.00 (100.00–400.00)", "100.00", "1.00")
    assert table.rows[2] == ("ratio", "0.50", "0.50", "0.50")
