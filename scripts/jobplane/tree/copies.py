"""A copy of the repository, to build in and to change while the original stays as it is."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from jobplane.tree.repository import Repository

TOOLS = "node_modules"


def copy_repository(source: Repository, target: Path, *, without: Iterable[str] = ()) -> Repository:
    """Copy the files that git doesn't ignore, uncommitted changes included; link node_modules."""
    ignored = (source.root / ".gitignore").read_text(encoding="utf-8").split()
    left_out = {".git", TOOLS, *(name.rstrip("/") for name in ignored), *without}
    shutil.copytree(
        source.root,
        target,
        symlinks=True,
        ignore=shutil.ignore_patterns(*left_out),
        dirs_exist_ok=True,
    )
    installed = source.root / TOOLS
    if installed.is_dir():
        (target / TOOLS).symlink_to(installed.resolve())
    return Repository(target)
