"""What a stage leaves on the machine, if it leaves anything."""

from jobplane.stage.emulator import processes
from jobplane.tree.repository import Repository

ROOT = Repository.here().root


def commands() -> list[str]:
    """The command line of everything that runs on this machine."""
    return [command for _, _, command in processes()]


def leftovers(stage: str) -> list[str]:
    """Processes of a stage, and what it keeps on disk."""
    directory = ROOT / ".jobplane" / stage
    running = [line for line in commands() if f"launcher.py {stage} " in line + " "]
    running += [line for line in commands() if f"{directory}/" in line]
    return running + ([str(directory)] if directory.exists() else [])
