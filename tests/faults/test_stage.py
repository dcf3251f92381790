"""The deployed stage with killed workers, a broken network, lost clients, a stopped emulator."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import pytest

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, recorded
from tests.faults.network import Stretch, between
from tests.faults.running_jobs import assert_heard, ended, jobs

# A job whose message is lost with its worker begins again after five minutes.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def deployed(stage_name: str) -> Iterator[Deployed]:
    """Its histories have operations without an answer: of killed workers, and of lost answers."""
    with recorded(Deployed(Stage(Repository.here(), stage_name))) as there:
        yield there


@pytest.fixture
def network(deployed: Deployed) -> Iterator[Stretch]:
    """The proxy between the processor and the emulator."""
    with between(deployed, "processor") as opened:
        yield opened


async def test_jobs_of_killed_workers_are_taken_over_and_end_once(deployed: Deployed) -> None:
    """At any moment of the job."""
    chance = random.Random(3)
    async with jobs(deployed, 2.0) as (user, sockets):
        for _ in range(2):
            await sockets[0].wait_for(lambda message: message.get("seq", 0) >= 1)
            await asyncio.sleep(chance.random())
            deployed.kill_workers("processor")
        rows = await ended(deployed, user)
        assert max(row["attempts"] for row in rows) >= 2
        await assert_heard(enumerate(sockets))


@pytest.mark.parametrize("trouble", ["reset", "lost", "server-error", "throttled"])
async def test_jobs_end_once_although_every_third_request_fails(
    deployed: Deployed, network: Stretch, trouble: str
) -> None:
    network.trouble, network.every = trouble, 3
    async with jobs(deployed, 1.0) as (user, sockets):
        rows = await ended(deployed, user)
        assert network.done[trouble] > 0
        assert {row["result"] for row in rows} == {'{"seconds":1.0,"steps":8}'}
        await assert_heard(enumerate(sockets))


async def test_jobs_of_lost_clients_complete(deployed: Deployed) -> None:
    """Other clients get all messages."""
    chance = random.Random(5)
    async with jobs(deployed, 2.0) as (user, sockets):
        for socket in sockets[::2]:
            await asyncio.sleep(chance.random() / 2)
            socket.cut()
        await ended(deployed, user)
        await assert_heard(list(enumerate(sockets))[1::2])


async def test_jobs_go_on_after_the_emulator_stood_still_for_seconds(deployed: Deployed) -> None:
    async with jobs(deployed, 1.0) as (user, sockets):
        os.kill(deployed.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(4)
        finally:
            os.kill(deployed.pid, signal.SIGCONT)
        await ended(deployed, user)
        await assert_heard(enumerate(sockets))
