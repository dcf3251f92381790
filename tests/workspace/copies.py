"""Copies of the workspace that tests build in, change, run commands in and deploy."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from jobplane import SOURCE_FOLDERS
from jobplane.stage.framework import install_framework
from jobplane.tree.copies import copy_workspace
from jobplane.tree.workspace import Workspace
from lambdapack.artifacts import Artifact
from lambdapack.environments import uv_command

# What neither builds nor deployments read.
UNREAD = ("contracts", "docs", "tests")
INSTALLED = Path("_build", "wheels")
AUTHOR = ("-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false")

type Copy = Callable[[Path], Workspace]
type Built = tuple[Workspace, dict[str, Artifact]]


def copy_here(target: Path) -> Workspace:
    """A copy of this workspace, the framework installed."""
    install_framework(Workspace.here())
    return copy_of(Workspace.here(), target)


def copy_of(source: Workspace, target: Path) -> Workspace:
    """What is written, without artifacts and state."""
    return copy_workspace(source, target, without=UNREAD)


def share_wheels(source: Workspace, target: Workspace) -> None:
    """Give a workspace the distributions that another has installed already, as links."""
    for installed in (source.scratch / INSTALLED).glob("*/[!.]*"):
        link = target.scratch / INSTALLED / installed.parent.name / installed.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(installed.resolve())


def share_artifacts(source: Workspace, target: Workspace) -> None:
    """Give a workspace the artifacts that another has built."""
    shutil.copytree(source.dist, target.dist)


def under_git(workspace: Workspace) -> Workspace:
    """Make the copy a repository of one commit."""
    git(workspace, "init", "--quiet", "--initial-branch=main")
    with (workspace.root / ".gitignore").open("a") as ignored:
        ignored.write("node_modules\n")  # a link
    commit(workspace)
    return workspace


def commit(workspace: Workspace) -> None:
    git(workspace, "add", "--all")
    git(workspace, "commit", "--quiet", "--message", "as it is")


def git(workspace: Workspace, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *AUTHOR, *arguments],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


type Done = "subprocess.CompletedProcess[str]"


def jobplane(workspace: Workspace, *arguments: str, **environment: str) -> Done:
    """Run the copy's own command, with nobody to ask."""
    return run(workspace, "jobplane", *arguments, **environment)


def run(workspace: Workspace, *command: str, **environment: str) -> Done:
    """Run a Python program in the copy."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=workspace.root,
        env=command_environment(workspace) | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def command_environment(workspace: Workspace) -> dict[str, str]:
    """Without an AWS account, and with the copy's command before this one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return kept | {
        "PYTHONPATH": os.pathsep.join(str(workspace.root / folder) for folder in SOURCE_FOLDERS),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def printed(done: Done) -> Any:
    """The JSON that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def edit(workspace: Workspace, path: str, old: str, new: str) -> None:
    """Replace a text that has to be there."""
    file = workspace.root / path
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def add_function(workspace: Workspace, name: str, *, like: str) -> None:
    """Add a function that is another one under a new name, to the lock as well."""
    folder = workspace.root / "functions" / name
    shutil.copytree(workspace.root / "functions" / like, folder)
    (folder / f"{like}.py").rename(folder / f"{name}.py")
    edit(workspace, f"functions/{name}/pyproject.toml", f"jobplane-{like}", f"jobplane-{name}")
    subprocess.run(
        [uv_command(), "lock", "--quiet"],
        cwd=workspace.root,
        env=command_environment(workspace),
        check=True,
    )


def touch(workspace: Workspace, path: str) -> None:
    """Change a Python file's bytes, each time to others, and nothing that it does."""
    with (workspace.root / path).open("a", encoding="utf-8") as file:
        file.write(f"\n# {uuid4()}\n")
