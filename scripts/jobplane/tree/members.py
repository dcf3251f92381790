"""Install the members' dependencies into the project's environment.

`uv run` installs the root project's dependencies only. The functions' own are added here: their
cases, their tests and `check` need them, and the root project need not list every function.
"""

import importlib
import sys
from pathlib import Path

from jobplane.tree.repository import Repository
from lambdapack.environments import project_environment, uv_command, uv_project_environment
from lambdapack.tools import run_quietly


def install_dependencies(repository: Repository) -> None:
    """Install what the members need, only into the project's own environment; remove nothing."""
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
