"""`jobplane bench flood`: what one tenant's flood, and long jobs, cost the jobs of others."""

import asyncio
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import click

from jobplane.bench._crowd import Crowd, Member, gathered
from jobplane.bench._engine import own_stage, slots_of_tenants
from jobplane.bench._fair_queue import Queue, Sent
from jobplane.bench._ledger import Entry, percentiles
from jobplane.bench._report import Report, Table, reported
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane.terminal.console import note
from jobplane_client import mint_token

STRANGERS = 24
SHORT = {"seconds": 0.2, "steps": 1}
AT_ONCE = 16
PATIENCE = 120.0
GOAL = 1.5
# Invocations at a time: `maximumConcurrency` of a local stage, and of one on AWS.
CAPACITIES = {"local stage": 40, "default on AWS": 400}
# With how many enqueues a second the flood is simulated.
FLOOD_A_SECOND = 500

type Waits = list[float]


@click.command()
@click.option("--jobs", type=click.IntRange(1, 50_000), default=2000, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True,
    help="What a job of the flood takes.",
)  # fmt: skip
@click.option(
    "--long-jobs", type=click.IntRange(0, 100), default=20, show_default=True,
    help="Jobs of other tenants that run while short ones are sent.",
)  # fmt: skip
@click.option(
    "--long-seconds", type=click.FloatRange(1, 60), default=60.0, show_default=True,
    help="What a long job takes here, in place of 15 minutes.",
)  # fmt: skip
@click.option(
    "--slots", type=click.IntRange(0, 10_000), default=8, show_default=True,
    help="Jobs of a tenant that may run at a time; 0: no lanes.",
)  # fmt: skip
@click.option(
    "--window", type=click.FloatRange(1, 600), default=20.0, show_default=True,
    help="Seconds within which each of the others sends its jobs.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option("--small", is_flag=True, help="200 jobs, 12 s of long jobs, one round of 8 s.")
@click.option("--stage", default="flood", show_default=True, help="A stage of its own.")
@reported("flood")
def command(stage: str, *, small: bool, **given: Any) -> Report:
    """How long short jobs of 24 tenants take: alone, beside long jobs, and during a flood.

    All in one run, on a stage of its own. Also simulates the flood on a queue: by arrival, and
    by the rule of SQS's fair queues, which the emulator does not have.
    """
    if small:
        given |= {"jobs": 200, "long_seconds": 12.0, "window": 8.0, "rounds": 1}
    with own_stage(stage) as own, slots_of_tenants(own, given["slots"]):
        measured = asyncio.run(_measure(own, given))
    return report(measured, given)


async def _measure(stage: Stage, given: Mapping[str, Any]) -> dict[str, Waits]:
    state = stage.read_state()
    assert state is not None
    secret, url, mark = jwt_secret(stage), state.description["websocket_url"], secrets.token_hex(3)

    def url_of(user: str) -> str:
        return f"{url}?Authorization={mint_token(secret, user=user, tenant=f'tenant-{user}')}"

    async def crowd(stack: AsyncExitStack, name: str, size: int) -> Crowd:
        users = [f"{name}-{mark}-{number}" for number in range(size)]
        found = await stack.enter_async_context(gathered(users, url_of, AT_ONCE))
        await found.each(lambda member: member.open(), lambda _user: None)
        return found

    found = {}
    async with AsyncExitStack() as stack:
        others = await crowd(stack, "other", STRANGERS)
        lasting = await crowd(stack, "long", max(1, given["long_jobs"]))
        (flooder,) = (await crowd(stack, "flood", 1)).members
        await _short_ones(others.members, 1.0)  # workers start
        note("flood: alone")
        found["alone"] = await _rounds(others.members, given)
        if given["long_jobs"]:
            note("flood: beside long jobs")
            payload = {"seconds": given["long_seconds"], "steps": 4}
            lasting_entries = await asyncio.gather(
                *(_send(member, payload) for member in lasting.members)
            )
            await asyncio.sleep(1.0)
            found["beside long jobs"] = await _rounds(others.members, {**given, "rounds": 1})
            await _all_ended(lasting.members, lasting_entries, given["long_seconds"] * 4)
        note(f"flood: {given['jobs']} jobs are queued")
        payload = {"seconds": given["seconds"], "steps": 1}
        entries = await asyncio.gather(*(_send(flooder, payload) for _ in range(given["jobs"])))
        found["during the flood"] = await _rounds(others.members, given)
        left = sum(entry.ended is None for entry in entries)
        note(f"flood: {left} of {given['jobs']} jobs have not ended")
        found["left"] = [float(left)]
        faults = [fault for member in others.members for fault in member.ledger.faults]
        if faults:
            raise click.ClickException("\n".join(faults[:10]))
    return found


async def _send(member: Member, payload: Mapping[str, Any]) -> Entry:
    return await member.send("delay", dict(payload), is_job=True, due=time.monotonic())


async def _all_ended(members: Sequence[Member], entries: Sequence[Entry], seconds: float) -> None:
    waits = (member.ended(entry) for member, entry in zip(members, entries, strict=True))
    await asyncio.wait_for(asyncio.gather(*waits), seconds + PATIENCE)


async def _rounds(members: Sequence[Member], given: Mapping[str, Any]) -> Waits:
    found = []
    for _ in range(given["rounds"]):
        found += await _short_ones(members, given["window"])
    return found


async def _short_ones(members: Sequence[Member], window: float) -> Waits:
    """Each sends a short job at a random moment: seconds until its end."""

    async def one(member: Member) -> float:
        await asyncio.sleep(random.uniform(0, window))
        entry = await _send(member, SHORT)
        await asyncio.wait_for(member.ended(entry), window + PATIENCE)
        assert entry.ended is not None
        return entry.ended - entry.sent

    return await asyncio.gather(*map(one, members))


def simulated(given: Mapping[str, Any], invocations: int, *, is_fair: bool) -> tuple[Waits, Waits]:
    """Seconds of the short jobs alone and during the flood, by the rule of a queue alone."""
    chance = random.Random(7)  # noqa: S311 - a simulation
    flood = [
        Sent(number / FLOOD_A_SECOND, "flood", given["seconds"] * chance.uniform(0.9, 1.1))
        for number in range(given["jobs"])
    ]
    # While the flood is worked off.
    lasts = max(given["jobs"] * given["seconds"] / invocations, 1.0)
    short = [
        Sent(chance.uniform(0, lasts), f"other-{number}-{round_}", SHORT["seconds"])
        for round_ in range(20)
        for number in range(STRANGERS)
    ]
    queues = [Queue(invocations, is_fair=is_fair) for _ in range(2)]
    alone, together = queues[0].run(short), queues[1].run([*flood, *short])
    return [alone[one] for one in short], [together[one] for one in short]


def report(measured: Mapping[str, Waits], given: Mapping[str, Any]) -> Report:
    phases = {name: waits for name, waits in measured.items() if name != "left"}
    alone = percentiles(phases["alone"])["p95"]
    rows = [_row(name, waits, alone) for name, waits in phases.items()]
    simulations = []
    for where, invocations in CAPACITIES.items():
        for is_fair in (False, True):
            first, second = simulated(given, invocations, is_fair=is_fair)
            name = f"{where}, {'fair' if is_fair else 'by arrival'}"
            simulations.append(_row(name, second, percentiles(first)["p95"]))
    lanes = f"{given['slots']} slots a tenant" if given["slots"] else "no lanes"
    flood = f"{given['jobs']:,} jobs of {given['seconds']:g} s"
    columns = ("short jobs", "count", "p50", "p95", "max", "p95 ÷ alone", f"≤ {GOAL}")
    tables = [
        Table(
            f"Short jobs of {STRANGERS} tenants, from socket to end, {lanes}: milliseconds",
            columns,
            rows,
            [f"The flood: {flood} of one user; {measured['left'][0]:.0f} of them had not ended "
             f"when the last short one had. Long jobs: {given['long_jobs']} of as many tenants, of "
             f"{given['long_seconds']:g} s."],
        ),
        Table(
            "The same flood without lanes, simulated: milliseconds in the queue and at work",
            columns,
            simulations,
            [f"A discrete-event simulation of {' and '.join(map(str, CAPACITIES.values()))} "
             f"invocations that receive one message each, once in order of arrival and once "
             f"by the documented rule of SQS's fair queues. Nothing else takes time in it."],
        ),
    ]  # fmt: skip
    document = {
        "given": dict(given),
        "milliseconds": {name: percentiles(waits) for name, waits in phases.items()},
        "simulated": {row[0]: row[2:] for row in simulations},
    }
    return Report(document, tables)


def _row(name: str, waits: Waits, alone: float) -> tuple[Any, ...]:
    of = percentiles(waits)
    ratio = of["p95"] / alone
    met = "–" if name == "alone" else "yes" if ratio <= GOAL else "no"
    return name, len(waits), of["p50"], of["p95"], of["max"], round(ratio, 2), met
