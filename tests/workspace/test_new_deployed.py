"""What `jobplane new` made runs on a stage after one `up`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace.copies import Built, jobplane
from workspace.made import NAMES, made_in

from jobplane.workspace import Workspace

pytestmark = pytest.mark.e2e

STAGE = f"new-{os.getpid()}"


@pytest.fixture(scope="module")
def up(shared: Path, built: Built) -> Iterator[Workspace]:
    """The copy with its own stage up: the tree's functions and a new one for every trigger."""
    made = made_in(shared, built[0])
    try:
        done = jobplane(made, "up", "--stage", STAGE)
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        jobplane(made, "down", "--stage", STAGE)


def test_every_event_is_answered_as_expected(up: Workspace) -> None:
    """By the deployed artifact with its own role, for each of the new functions."""
    for name in NAMES.values():
        done = jobplane(up, "invoke", name, "--all", "--stage", STAGE)
        assert done.returncode == 0, done.stdout + done.stderr
