"""New functions run on a stage after the README's commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from tests.workspace.copies import Built, Done, jobplane, share_artifacts, share_wheels
from tests.workspace.made_functions import NAMES, made_in

pytestmark = pytest.mark.e2e

README = Repository.here().root / "README.md"
FIVE_MINUTES = re.compile(
    r"^## Add your own function.*?^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE
)


def commands() -> list[list[str]]:
    """The README's commands, without `uv run jobplane`."""
    found = FIVE_MINUTES.search(README.read_text())
    assert found is not None
    lines = found[1].replace("&&", "\n").splitlines()
    typed = [shlex.split(line, comments=True) for line in lines]
    assert all(words[:3] == ["uv", "run", "jobplane"] for words in typed), typed
    return [words[3:] for words in typed]


@dataclass(frozen=True)
class Followed:
    """A copy with the README's commands run, and the output of each."""

    repository: Repository
    done: dict[str, Done]


@pytest.fixture(scope="module")
def followed(
    shared: Path, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Followed]:
    """A copy with a new function for every trigger, on a running stage."""
    made = made_in(shared, built[0])
    repository = copy_repository(made, tmp_path_factory.mktemp("readme") / "copy")
    share_wheels(made, repository)
    share_artifacts(made, repository)
    try:
        yield Followed(repository, {shlex.join(of): jobplane(repository, *of) for of in commands()})
    finally:
        jobplane(repository, "down")


def test_the_readmes_commands_succeed(followed: Followed) -> None:
    """The last one shows the new function's answers."""
    for command, done in followed.done.items():
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    *_, last = followed.done.values()
    name = next(iter(commands()))[1]
    assert re.search(rf"^ok +{name}/", last.stdout, re.MULTILINE), last.stdout


def test_the_cases_of_new_functions_pass_on_a_stage(followed: Followed) -> None:
    for name in NAMES.values():
        done = jobplane(followed.repository, "invoke", name, "--all")
        assert done.returncode == 0, done.stdout + done.stderr
