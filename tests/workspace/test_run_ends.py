"""A test run leaves no process and no stage, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobplane.stage.emulator import processes
from jobplane.tree.repository import Repository
from tests.workspace.leftovers import leftovers

ROOT = Repository.here().root
DEADLINE_SECONDS = 120


def until_there(state: Path, run: "subprocess.Popen[bytes]") -> None:
    """Wait for the emulator of a run."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not state.is_file():
        assert run.poll() is None and time.monotonic() < end, "the run started no emulator"
        time.sleep(0.05)


def members(groups: set[int]) -> list[str]:
    """The command lines of the processes in these groups."""
    return [command for _, group, command in processes() if group in groups]


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_or_killed_run_leaves_no_process_and_no_stage(name: str) -> None:
    ours = ("JOBPLANE_TEST_STAGE", "PYTEST_")
    environment = {key: text for key, text in os.environ.items() if not key.startswith(ours)}
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/e2e/test_transport.py"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stage = f"test-{run.pid}"
    try:
        until_there(ROOT / ".jobplane" / stage / "state.json", run)
        emulator = json.loads((ROOT / ".jobplane" / stage / "state.json").read_text())["pid"]
        run.send_signal(signal.Signals[name])
        run.wait(DEADLINE_SECONDS)

        end = time.monotonic() + DEADLINE_SECONDS
        while left := leftovers(stage) + members({run.pid, emulator}):
            assert time.monotonic() < end, left
            time.sleep(0.1)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
