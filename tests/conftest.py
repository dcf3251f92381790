"""One local stage for the whole run, started by the first test that needs it."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from jobplane.console import spare_proxies
from jobplane.stages import Stage
from jobplane.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
STAGE_VARIABLE = "JOBPLANE_TEST_STAGE"


def pytest_configure(config: pytest.Config) -> None:
    """Name the run's stage in the process that starts the workers, so that all use the same."""
    spare_proxies(os.environ)
    if not hasattr(config, "workerinput"):
        os.environ.setdefault(STAGE_VARIABLE, f"test-{os.getpid()}")


class OneStage(LoadScopeScheduling):
    """Tests of modules that use the shared stage run one after the other, on one worker.

    By the modules' text, for xdist's own groups do nothing under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "stage" if _uses_the_stage(nodeid.partition("::")[0]) else nodeid


@cache
def _uses_the_stage(module: str) -> bool:
    return module.startswith("tests/e2e/") or "stage_name" in (ROOT / module).read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneStage:
    return OneStage(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take the stage down, unless it was up before the run."""
    name = os.environ[STAGE_VARIABLE]
    if not hasattr(session.config, "workerinput") and name == f"test-{os.getpid()}":
        if Stage(Workspace(ROOT), name).is_local:
            jobplane("down", "--stage", name)


def jobplane(*arguments: str) -> str:
    """Run the project's command; its standard output."""
    done = subprocess.run(
        ["jobplane", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, f"jobplane {' '.join(arguments)}: {done.stderr}\n{done.stdout}"
    return done.stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def stage_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a stage that is up. JOBPLANE_TEST_STAGE chooses one that is up already."""
    name = os.environ[STAGE_VARIABLE]
    with locked(tmp_path_factory.getbasetemp().parent / f"{name}.lock"):
        jobplane("up", "--stage", name, "--json")
    return name
