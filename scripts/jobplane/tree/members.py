"""What the members of the workspace depend on, installed where this command and the tests run.

`uv run` installs the root project's dependencies only: a function's own are added here, so that
its cases, its tests and `check` find them without a list of all functions in the root's project.
"""

import importlib
import sys
from pathlib import Path

from jobplane.tree.repository import Repository
from lambdapack.environments import project_environment, uv_command, uv_project_environment
from lambdapack.tools import run_quietly


def install_dependencies(repository: Repository) -> None:
    """Add to the project's environment whatever a member needs; nothing is removed from it.

    Nothing happens in any other environment, such as one that was made by hand.

    Raises:
        ToolError: uv can't resolve or install a dependency.
    """
    if Path(sys.prefix).resolve() != (repository.root / project_environment()).resolve():
        return
    run_quietly(
        [
            uv_command(), "sync", "--quiet", "--inexact", "--all-packages", "--no-default-groups",
            "--python", sys.executable,
        ],
        cwd=repository.root,
        what="installing what the functions depend on (uv sync)",
        env=uv_project_environment(),
    )  # fmt: skip
    importlib.invalidate_caches()
