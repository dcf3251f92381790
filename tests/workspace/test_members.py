"""A function's own dependencies are installed by plain `uv run`."""

import os
import subprocess
from pathlib import Path

import pytest

from jobplane.tree import members
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment, uv_command
from tests.workspace.copies import edit

# Small, pure Python, and not a dependency of this project.
ADDED = "tabulate"


def test_a_new_dependency_of_a_function_can_be_imported(tmp_path: Path) -> None:
    """By cases, tests and `check`, without --all-packages."""
    repository = copy_repository(Repository.here(), tmp_path / "copy", without=("docs",))

    def uv_run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [uv_command(), "run", "--quiet", *command],
            cwd=repository.root, env=plain_environment(), capture_output=True, text=True,
        )  # fmt: skip

    assert uv_run("jobplane", "new", "vin").returncode == 0
    declared, imported = "dependencies = [", "from jobplane_keys import"
    edit(repository, "functions/vin/pyproject.toml", declared, f'{declared}"{ADDED}",')
    edit(repository, "functions/vin/vin.py", imported, f"import {ADDED}\n\n{imported}")
    done = uv_run("jobplane", "invoke", "vin", "--all", "--in-process")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" passed")
    subprocess.run(
        [uv_command(), "sync", "--quiet"], cwd=repository.root, env=plain_environment(), check=True
    )
    done = uv_run("pytest", "-q", "-n", "0", "tests/unit/test_vin.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_in_another_environment_does_not_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "run_quietly", pytest.fail)
    monkeypatch.delenv("UV_PROJECT_ENVIRONMENT", raising=False)
    members.install_dependencies(Repository(tmp_path))
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", os.fspath(tmp_path))
    members.install_dependencies(Repository.here())
