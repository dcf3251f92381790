"""The workspace's command: a package a room, and in `verbs` a module a verb."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILDER = Path("libs", "lambdapack")
"""The lib that makes artifacts; none holds it."""
SOURCE_FOLDERS = (Path("scripts"), BUILDER / "src")
"""Where the command's own code lies in the repository."""
SOURCES = tuple(ROOT / folder for folder in SOURCE_FOLDERS)


def _drop_python_path() -> None:
    """Import what is installed: a yaml.py on the user's PYTHONPATH is another program's."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    ours = {str(folder) for folder in SOURCES}
    foreign = {os.path.abspath(entry) for entry in entries} - ours  # noqa: PTH100 - as site does
    sys.path[:] = [entry for entry in sys.path if entry not in foreign]


if os.environ.get("PYTHONPATH"):
    _drop_python_path()
