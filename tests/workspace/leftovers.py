"""What a stage leaves on the machine, if it leaves anything."""

import subprocess
from pathlib import Path

from jobplane.workspace import Workspace

ROOT = Workspace.here().root


def commands() -> list[str]:
    """The command line of everything that runs on this machine."""
    if not Path("/proc/self/cmdline").exists():
        listing = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True)
        return listing.stdout.splitlines()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def leftovers(stage: str) -> list[str]:
    """Processes of a stage, and what it keeps on disk."""
    directory = ROOT / ".jobplane" / stage
    running = [line for line in commands() if f"launcher.py {stage} " in line + " "]
    running += [line for line in commands() if f"{directory}/" in line]
    return running + ([str(directory)] if directory.exists() else [])
