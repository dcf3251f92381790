"""One local stage for the whole run, and one for files, started by the first test that needs it."""

import fcntl
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from jobplane.parts import Needs
from jobplane.stage.emulator import LIFELINE
from jobplane.stage.stages import Stage
from jobplane.terminal.environments import spare_proxies
from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Repository
from jobplane.trying.inprocess import service_models_read_once
from tests.examples import try_fewer

ROOT = Path(__file__).resolve().parents[1]
STAGE_VARIABLE = "JOBPLANE_TEST_STAGE"
DURATIONS = ROOT / "tests" / "durations.json"
LONG = ROOT / "tests" / "long.txt"
HELD = pytest.StashKey[Any]()

# What is collected stays to the end, and the collector of cycles takes a third of the time to
# look at it again and again: it looks less often, and not at what was there before the tests.
gc.set_threshold(50_000, *gc.get_threshold()[1:])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-durations",
        action="store_true",
        help="Note in tests/durations.json how long each module took that was run.",
    )
    parser.addoption(
        "--everything",
        action="store_true",
        help="Run also the modules of tests/long.txt, which take long.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the run's stage in the process that starts the workers, so that all use the same."""
    spare_proxies(os.environ)
    if not hasattr(config, "workerinput"):
        if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
            config.option.everything = True  # What is named is meant.
        keep_bytecode()
        install_dependencies(Repository(ROOT))
        os.environ.setdefault(STAGE_VARIABLE, f"test-{os.getpid()}")
        hold_lifeline(config)
        if config.getoption("record_durations", False):
            config.pluginmanager.register(DurationsRecorder())
    if not config.option.everything:
        try_fewer()


def keep_bytecode() -> None:
    """Write bytecode whatever the shell says: hundreds of processes import the same modules."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def hold_lifeline(config: pytest.Config) -> None:
    """Let the emulators that this run starts end with this process, also when it is killed.

    The system releases a lock when the process that holds it ends.
    """
    file = tempfile.NamedTemporaryFile(prefix="jobplane-tests-")
    fcntl.flock(file, fcntl.LOCK_EX)
    os.environ[LIFELINE] = file.name
    config.stash[HELD] = file


class LongestFirst(LoadScopeScheduling):
    """A worker is given whole modules, first those that take longest.

    Modules that use the same stage are one unit: their tests run one after the other. By the
    modules' text, for xdist's own groups do nothing under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = _module_of(nodeid)
        return _stage_used_by(module) or module

    def _assign_work_unit(self, node: WorkerController) -> None:
        longest = max(self.workqueue, key=lambda scope: _seconds_of(self.workqueue[scope]))
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)


def _module_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@cache
def _stage_used_by(module: str) -> str | None:
    text = (ROOT / module).read_text()
    if "pipeline_operator" in text:
        return "files"
    return "stage" if module.startswith("tests/e2e/") or "stage_name" in text else None


def _seconds_of(unit: Iterable[str]) -> float:
    """How long a unit of tests takes; a second each where that is not known."""
    tests, recorded = Counter(map(_module_of, unit)), _recorded()
    return sum(recorded.get(module, number) for module, number in tests.items())


@cache
def _recorded() -> dict[str, float]:
    durations: dict[str, float] = json.loads(DURATIONS.read_text())
    return durations


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LongestFirst:
    return LongestFirst(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since many tests wait for the stage."""
    return (os.cpu_count() or 1) + 1


class DurationsRecorder:
    """Sums what the tests of each module took, and writes it down in the end."""

    def __init__(self) -> None:
        self._took: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[_module_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        took = {module: round(seconds, 1) for module, seconds in self._took.items()}
        known = {name: s for name, s in (_recorded() | took).items() if (ROOT / name).is_file()}
        DURATIONS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a module that takes long, or needs a function whose folder is not in the tree."""
    if not config.option.everything and collection_path in _long():
        return True
    return True if collection_path in unmet() else None


@cache
def _long() -> frozenset[Path]:
    lines = LONG.read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return frozenset(path for pattern in patterns for path in LONG.parent.glob(pattern))


@cache
def unmet() -> frozenset[Path]:
    needs = Needs(Repository(ROOT))
    return frozenset(needs.unmet(needs.absent)) if needs.absent else frozenset()


def pytest_collection_finish() -> None:
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take the stages down, unless they were up before the run."""
    name = os.environ[STAGE_VARIABLE]
    if not hasattr(session.config, "workerinput") and name == f"test-{os.getpid()}":
        for stage in (name, stage_of_files(name)):
            if Stage(Repository(ROOT), stage).is_local:
                jobplane("down", "--stage", stage)


def stage_of_files(name: str) -> str:
    """The stage beside another one for tests that fill the table of files."""
    return f"{name[:14]}-files"


def jobplane(*arguments: str) -> str:
    """Run the project's command; its standard output."""
    done = subprocess.run(["jobplane", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"jobplane {' '.join(arguments)}: {done.stderr}\n{done.stdout}"
    return done.stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def service_models() -> Iterator[None]:
    """Read each of botocore's models of a service once: most of what making a client takes."""
    with service_models_read_once():
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
