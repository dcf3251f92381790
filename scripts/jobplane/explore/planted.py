"""Faults that the code once had, put back into a copy of the repository and explored there."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobplane.tree.repository import Repository
from lambdapack.tools import ToolError

FAULTS = Path(__file__).with_name("planted.toml")
COPIED = ("functions", "libs", "scripts", "resources", "templates", "serverless.yml")
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".venv", "node_modules")


# The copies come before what is installed, whatever the environment puts in front.
START = (
    "import os, sys; sys.path[:0] = os.environ['EXPLORED'].split(os.pathsep); "
    "from jobplane.cli import main; main()"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, the scenarios that could show it, and the edits that put it back."""

    name: str
    scenarios: tuple[str, ...]
    edits: tuple[tuple[str, str, str], ...]

    @property
    def mutant(self) -> str:
        """Its name in a line that replays a schedule."""
        return "fault/" + re.sub(r"\W+", "-", self.name)


def known_faults() -> list[Fault]:
    """The faults of planted.toml."""
    listed = tomllib.loads(FAULTS.read_text(encoding="utf-8"))["faults"]
    return [
        Fault(one["name"], tuple(one["scenarios"]), tuple(tuple(edit) for edit in one["edits"]))
        for one in listed
    ]


def edited(root: Path, fault: Fault) -> dict[str, str]:
    """The files of a fault with its edits. Raises ToolError if the code is not as they say."""
    texts: dict[str, str] = {}
    for file, old, new in fault.edits:
        text = texts.get(file) or (root / file).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise ToolError(f"{fault.name}: {file} does not have this text once", old)
        texts[file] = text.replace(old, new)
    return texts


@contextlib.contextmanager
def planted(repository: Repository, fault: Fault) -> Iterator[Path]:
    """A copy of the code with the fault. Raises ToolError as `edited` does."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = repository.root / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=NOT_COPIED)
            else:
                shutil.copy(source, root / name)
        for file, text in edited(repository.root, fault).items():
            (root / file).write_text(text, encoding="utf-8")
        yield root


def explored(repository: Repository, fault: Fault, *, minutes: float, seed: int) -> list[Any]:
    """What an exploration of the scenarios says, as JSON documents."""
    options = ("--json", "--minutes", str(minutes), "--seed", str(seed))
    done = _explore(repository, fault, *fault.scenarios, *options)
    if not done.stdout.startswith("{"):
        raise ToolError(f"exploring {fault.name!r} failed", done.stdout + done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def replayed(repository: Repository, fault: Fault, line: str) -> tuple[bool, str]:
    """Whether every guarantee holds in a schedule with the fault, and the schedule as text."""
    done = _explore(repository, fault, "--replay", line)
    return done.returncode == 0, done.stdout


def _explore(
    repository: Repository, fault: Fault, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """`jobplane explore` in a copy with the fault. Raises ToolError if it can't run."""
    with planted(repository, fault) as root:
        sources = [root / "scripts", *sorted(root.glob("libs/*/src"))]
        done = subprocess.run(
            [sys.executable, "-c", START, "explore", *arguments],
            cwd=root,
            env=os.environ | {"EXPLORED": os.pathsep.join(map(str, sources))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in {0, 1}:
            raise ToolError(f"exploring {fault.name!r} failed", done.stdout + done.stderr)
        return done
