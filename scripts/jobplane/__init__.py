"""The workspace command: one module a verb."""

import os
import sys
from pathlib import Path


def _drop_python_path() -> None:
    """Import what is installed: a yaml.py on the user's PYTHONPATH is another program's."""
    ours = str(Path(__file__).resolve().parents[1])
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    foreign = {os.path.abspath(entry) for entry in entries} - {ours}  # noqa: PTH100 - as site does
    sys.path[:] = [entry for entry in sys.path if entry not in foreign]


if os.environ.get("PYTHONPATH"):
    _drop_python_path()
