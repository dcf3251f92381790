"""Processes and files that a stage has left on the machine."""

from jobplane.stage.emulator import processes
from jobplane.tree.repository import Repository

ROOT = Repository.here().root


def commands() -> list[str]:
    """The command line of every process on this machine."""
    return [command for _, _, command in processes()]


def leftovers(stage: str) -> list[str]:
    """A stage's processes, and its files."""
    directory = ROOT / ".jobplane" / stage
    running = [line for line in commands() if f"launcher.py {stage} " in line + " "]
    running += [line for line in commands() if f"{directory}/" in line]
    return running + ([str(directory)] if directory.exists() else [])
