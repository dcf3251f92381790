"""The stage of a measurement of the engine: its own, with limits of lanes, or killed workers."""

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
import psutil

from jobplane.bench._usage import FUNCTION_VARIABLE
from jobplane.deploy.local_stage import down, up
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from jobplane_keys import parse_iso_time

SLOTS = "MAX_RUNNING_PER_TENANT"
KILLED = ("dispatch", "processor", "router")


@contextmanager
def own_stage(name: str) -> Iterator[Stage]:
    """A stage that is up for one measurement."""
    stage = Stage(Repository.here(), name)
    if stage.read_state() is not None:
        raise click.UsageError(f"stage {name!r} is up; name one that is not: --stage NAME")
    up(stage)
    try:
        yield stage
    finally:
        down(stage)


@contextmanager
def slots_of_tenants(stage: Stage, slots: int) -> Iterator[None]:
    """Let so many jobs of a tenant run at a time; 0 leaves the stage as it is."""
    if not slots:
        yield
        return
    client, name = stage.client("lambda"), stage.names.of("router")
    before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]

    def put(variables: Mapping[str, str]) -> None:
        environment = {"Variables": dict(variables)}
        client.update_function_configuration(FunctionName=name, Environment=environment)

    put({**before, SLOTS: str(slots)})
    try:
        yield
    finally:
        put(before)


async def keep_killing(emulator_pid: int, every: float, killed: list[str]) -> None:
    """Kill one worker after the other, at random, until cancelled; note the functions of each."""
    emulator = psutil.Process(emulator_pid)
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * every)
        found = await asyncio.to_thread(lambda: list(_workers(emulator)))
        if found:
            name, process = random.choice(found)
            with suppress(psutil.Error):
                process.kill()
                killed.append(name)


def _workers(emulator: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    for process in emulator.children(recursive=True):
        with suppress(psutil.Error):
            name = process.environ().get(FUNCTION_VARIABLE, "")
            if name.endswith(KILLED):
                yield name, process


def most_at_once(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many of these jobs ran at the same time: from their first start to their end."""
    moments: Sequence[tuple[float, int]] = sorted(
        (parse_iso_time(row[name]), change)
        for row in rows
        if "started_at" in row and "ended_at" in row
        for name, change in (("started_at", 1), ("ended_at", -1))
    )
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most
