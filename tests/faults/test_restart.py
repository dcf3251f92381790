"""The emulator is restarted with its stored data while jobs run."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from jobplane.deploy import local_stage
from jobplane.stage import emulator
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, assert_ended_once, until
from tests.faults.running_jobs import JOBS, ended, jobs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # as in test_stage

plain_environment = emulator.environment


def keeping(*place: Any) -> dict[str, str]:
    """The emulator's variables, with persistence at its end."""
    return plain_environment(*place) | {"PERSIST_STATE": "1", "S3_PERSIST": "1"}


@pytest.fixture
def kept() -> Iterator[Deployed]:
    """A stage whose emulator persists its data."""
    stage = Stage(Repository.here(), f"kept-{os.getpid()}")
    with patch.object(emulator, "environment", keeping):
        try:
            local_stage.up(stage)
            yield Deployed(stage)
        finally:
            local_stage.down(stage)


def forget_positions(stage: Stage) -> None:
    """Delete the stored positions of streams, because MiniStack does not store the streams."""
    path = stage.directory / "services" / "lambda.json"
    stored = json.loads(path.read_text())
    stored["payload"]["dynamodb_stream_positions"]["data"].clear()
    path.write_text(json.dumps(stored))


def restart(deployed: Deployed) -> Deployed:
    """End the emulator as a machine's crash would, workers first, and start it again."""
    stage = deployed.stage
    before = stage.read_state()
    assert before is not None
    os.kill(before.pid, signal.SIGTERM)
    for function in ("connect", "router", "processor"):
        deployed.kill_workers(function)
    os.waitpid(before.pid, 0)
    forget_positions(stage)
    process, after = emulator.launch(stage, before.port, before.region)
    stage.write_state(replace(before, pid=after.pid, started=after.started))
    emulator.wait_until_up(process, after)
    return Deployed(stage)


async def test_restart_under_running_jobs(kept: Deployed) -> None:
    """What ran is taken up again; every job ends once, and who comes back hears how.

    The test waits until all are begun: what the launcher has read of a stream is not stored.
    """
    async with jobs(kept, 6.0) as (user, sockets):
        names = [f"job-{number}" for number in range(JOBS)]

        def running() -> set[str] | None:
            rows = [kept.row(user, name) for name in names]
            if any(row["status"] == "PENDING" for row in rows):
                return None
            return {row["request_id"] for row in rows if row["status"] == "PROCESSING"}

        cut_off = await until(running, "the last job's beginning while one runs")
        for socket in sockets:
            socket.cut()
        deployed = await asyncio.to_thread(restart, kept)
        async with deployed.socket(user) as again:
            for name in cut_off:
                said = await again.ask({"action": "subscribe", "payload": {"request_id": name}})
                assert said["success"], said
            rows = await ended(deployed, user)
            again_taken = {row["request_id"] for row in rows if row["attempts"] == 2}
            assert again_taken
            assert again_taken <= cut_off
            assert {row["attempts"] for row in rows} <= {1, 2}
            for name in again_taken:
                await again.end_of(name)
                assert_ended_once(again.of(name), are_copies_allowed=True)
