"""A copy of the workspace that tests may build in and change."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from jobplane.artifacts import Artifact
from jobplane.workspace import Workspace

COPIED = (
    "pyproject.toml",
    "uv.lock",
    "serverless.yml",
    "functions",
    "libs",
    "resources",
    "templates",
)
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "tests")

type Copy = Callable[[Path], Workspace]
type Built = tuple[Workspace, dict[str, Artifact]]


INSTALLED = Path("_build", "wheels")


def share_wheels(source: Workspace, target: Workspace) -> None:
    """Give a workspace the distributions that another has installed already."""
    installed = source.scratch / INSTALLED
    if installed.is_dir():
        shutil.copytree(
            installed,
            target.scratch / INSTALLED,
            copy_function=os.link,
            ignore=shutil.ignore_patterns(".filling-*"),
        )


def copy_workspace(target: Path) -> Workspace:
    """Copy what builds read; the command itself stays where it is."""
    source = Workspace.here().root
    target.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        path = source / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=IGNORED)
        elif path.is_file():
            shutil.copy2(path, target / name)
    (target / "scripts" / "jobplane").mkdir(parents=True)
    shutil.copy2(source / "scripts" / "pyproject.toml", target / "scripts")
    (target / "scripts" / "jobplane" / "__init__.py").touch()
    return Workspace(target)
