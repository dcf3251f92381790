"""One local stage for the whole run, and one for files, started by the first test that needs it."""

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
    """Tests of modules that use the same stage run one after the other, on one worker.

    By the modules' text, for xdist's own groups do nothing under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _stage_used_by(nodeid.partition("::")[0]) or nodeid


@cache
def _stage_used_by(module: str) -> str | None:
    text = (ROOT / module).read_text()
    if "pipeline_operator" in text:
        return "files"
    return "stage" if module.startswith("tests/e2e/") or "stage_name" in text else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneStage:
    return OneStage(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take the stages down, unless they were up before the run."""
    name = os.environ[STAGE_VARIABLE]
    if not hasattr(session.config, "workerinput") and name == f"test-{os.getpid()}":
        for stage in (name, stage_of_files(name)):
            if Stage(Workspace(ROOT), stage).is_local:
                jobplane("down", "--stage", stage)


def stage_of_files(name: str) -> str:
    """The stage beside another one for tests that fill the table of files."""
    return f"{name[:14]}-files"


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


@pytest.fixture(scope="session")
def files_stage_name() -> str:
    """The name of a stage whose table of files belongs to one module at a time.

    Thousands of rows make thousands of changes to count, and the emulator runs one batch of a
    stream at a time: other tests' jobs would wait behind them.
    """
    name = stage_of_files(os.environ[STAGE_VARIABLE])
    jobplane("up", "--stage", name, "--json")
    return name
