"""The `jobplane` command: one package per subject; `verbs` has one module per verb."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILDER = Path("libs", "lambdapack")
"""The lib that makes artifacts; no artifact contains it."""
SOURCE_FOLDERS = (Path("scripts"), BUILDER / "src")
"""The folder of the command's own code in the repository."""
SOURCES = tuple(ROOT / folder for folder in SOURCE_FOLDERS)


def _drop_python_path() -> None:
    """Ignore PYTHONPATH: a yaml.py there would hide the installed package."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    ours = {str(folder) for folder in SOURCES}
    foreign = {os.path.abspath(entry) for entry in entries} - ours  # noqa: PTH100 - as site does
    sys.path[:] = [entry for entry in sys.path if entry not in foreign]


if os.environ.get("PYTHONPATH"):
    _drop_python_path()
