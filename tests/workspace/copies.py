"""Copies of the workspace that tests build in, change, run commands in and deploy."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from jobplane import SOURCE_FOLDERS
from jobplane.stage.framework import install_framework
from jobplane.stage.stages import Stage
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.artifacts import Artifact
from lambdapack.environments import uv_command

# What neither builds nor deployments read.
UNREAD = ("contracts", "docs", "tests")
INSTALLED = Path("_build", "wheels")
AUTHOR = ("-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false")

type Copy = Callable[[Path], Repository]
type Built = tuple[Repository, dict[str, Artifact]]


def copy_here(target: Path) -> Repository:
    """A copy of this workspace, the framework installed."""
    install_framework(Repository.here())
    return copy_of(Repository.here(), target)


def copy_of(source: Repository, target: Path) -> Repository:
    """A copy without artifacts and state."""
    return copy_repository(source, target, without=UNREAD)


def share_wheels(source: Repository, target: Repository) -> None:
    """Link the installed distributions of another workspace into this one."""
    for installed in (source.scratch / INSTALLED).glob("*/[!.]*"):
        link = target.scratch / INSTALLED / installed.parent.name / installed.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(installed.resolve())


def share_artifacts(source: Repository, target: Repository) -> None:
    """Give a workspace the artifacts of another one."""
    shutil.copytree(source.dist, target.dist)


def built_copy(built: Built, target: Path) -> Repository:
    """A copy whose artifacts are built."""
    repository = copy_of(built[0], target)
    share_wheels(built[0], repository)
    share_artifacts(built[0], repository)
    return repository


@contextmanager
def stage_of(repository: Repository, name: str) -> Iterator[Stage]:
    """A stage of a copy, until the block ends."""
    stage = Stage(repository, f"{name}-{os.getpid()}")
    try:
        succeeded(jobplane(repository, "up", "--stage", stage.name))
        yield stage
    finally:
        jobplane(repository, "down", "--stage", stage.name)


def deploy(stage: Stage, *arguments: str) -> "Done":
    """Deploy to a stage of a copy."""
    return jobplane(stage.repository, "deploy", *arguments, "--stage", stage.name)


def under_git(repository: Repository) -> Repository:
    """Make the copy a git repository with one commit."""
    git(repository, "init", "--quiet", "--initial-branch=main")
    with (repository.root / ".gitignore").open("a") as ignored:
        ignored.write("node_modules\n")  # a link
    commit(repository)
    return repository


def commit(repository: Repository) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "as it is")


def git(repository: Repository, *arguments: str) -> str:
    return succeeded(program("git", *AUTHOR, *arguments, cwd=repository.root))


type Done = "subprocess.CompletedProcess[str]"


def jobplane(repository: Repository, *arguments: str, **environment: str) -> Done:
    """Run the copy's command, without a terminal."""
    return run(repository, "jobplane", *arguments, **environment)


def run(repository: Repository, *command: str, **environment: str) -> Done:
    """Run a Python program in the copy."""
    given = command_environment(repository) | environment
    return program(sys.executable, "-m", *command, cwd=repository.root, env=given)


def program(*command: str | Path, cwd: Path | str, env: dict[str, str] | None = None) -> Done:
    """Run a program, without a terminal."""
    return subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def succeeded(done: Done) -> str:
    """The output of a command that must succeed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refusal(done: Done, code: int = 2) -> str:
    """The message of a command that must fail with a code, and without a traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def command_environment(repository: Repository) -> dict[str, str]:
    """An environment without an AWS account, with the copy's command first in PATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return kept | {
        "PYTHONPATH": os.pathsep.join(str(repository.root / folder) for folder in SOURCE_FOLDERS),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def printed(done: Done) -> Any:
    """The JSON that a command printed."""
    return json.loads(succeeded(done))


def edit(repository: Repository, path: str, old: str, new: str) -> None:
    """Replace a text that must occur."""
    file = repository.root / path
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def add_function(repository: Repository, name: str, *, like: str) -> None:
    """Copy a function under a new name, and update the lock."""
    folder = repository.root / "functions" / name
    shutil.copytree(repository.root / "functions" / like, folder)
    (folder / f"{like}.py").rename(folder / f"{name}.py")
    edit(repository, f"functions/{name}/pyproject.toml", f"jobplane-{like}", f"jobplane-{name}")
    environment = command_environment(repository)
    succeeded(program(uv_command(), "lock", "--quiet", cwd=repository.root, env=environment))


def touch(repository: Repository, path: str) -> None:
    """Change a Python file's bytes, each time to others, without changing what it does."""
    with (repository.root / path).open("a", encoding="utf-8") as file:
        file.write(f"\n# {uuid4()}\n")
