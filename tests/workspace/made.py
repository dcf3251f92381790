"""A copy of the repository in which `jobplane new` has made a function for every trigger."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from workspace.copies import share_wheels

from jobplane.deployment import install_framework
from jobplane.locks import exclusive
from jobplane.workspace import Workspace

ROOT = Workspace.here().root
# A short name, one of the greatest length, and the likes of what people choose.
NAMES = {
    "invoke": "zz",
    "websocket": "tell-whose-socket-1",
    "http": "show-the-request-19",
    "sqs": "cancel-by-messages1",
    "stream": "measure-ends",
    "schedule": "count-overdue",
    "step-functions": "interruptions-of",
}


def made_in(shared: Path) -> Path:
    """The copy, made by whoever comes first."""
    root = shared / "made"
    with exclusive(Workspace(shared / "made-lock"), "made"):
        if not (root / "complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            copy_repository(root)
            share_wheels(Workspace(ROOT), Workspace(root))
            for trigger, name in NAMES.items():
                done = jobplane(root, "new", name, "--trigger", trigger)
                assert done.returncode == 0, done.stderr
            for follow_up in (["schema"], ["docs", "commands", "metrics"]):
                done = jobplane(root, *follow_up)
                assert done.returncode == 0, done.stderr
            (root / "complete").touch()
    return root


def copy_repository(root: Path) -> None:
    """Everything that git tracks or would, as it is now, and the framework."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    install_framework(Workspace(ROOT))
    (root / "node_modules").symlink_to(ROOT / "node_modules")


def environment(root: Path) -> dict[str, str]:
    """Of programs that take the copy's command for the installed one."""
    return os.environ | {"PYTHONPATH": str(root / "scripts")}


def run(root: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a Python program in the copy."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )


def jobplane(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(root, "jobplane", *arguments)
