"""A copy of the repository in which `jobplane new` has made a function for every trigger."""

import shutil
from pathlib import Path

from jobplane.stage.framework import install_framework
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.locks import exclusive
from tests.workspace.copies import jobplane, share_artifacts, share_wheels

# A short name, one of the greatest length, and the likes of what people choose.
NAMES = {
    "invoke": "zz",
    "websocket": "tell-whose-socket-1",
    "http": "show-the-request-19",
    "sqs": "cancel-by-messages1",
    "stream": "measure-ends",
    "s3": "measure-new-objects",
    "schedule": "count-overdue",
    "step-functions": "interruptions-of",
}


def made_in(shared: Path, built: Repository) -> Repository:
    """The copy, created by the first caller; only new functions are built."""
    here, made = Repository.here(), Repository(shared / "made")
    with exclusive(Repository(shared / "made-lock"), "made"):
        if not (made.root / "complete").exists():
            shutil.rmtree(made.root, ignore_errors=True)
            install_framework(here)
            copy_repository(here, made.root)
            share_wheels(built, made)
            share_artifacts(built, made)
            for trigger, name in NAMES.items():
                done = jobplane(made, "new", name, "--trigger", trigger)
                assert done.returncode == 0, done.stderr
            for follow_up in (["schema"], ["docs", "commands", "metrics"]):
                done = jobplane(made, *follow_up)
                assert done.returncode == 0, done.stderr
            (made.root / "complete").touch()
    return made
