"""One built copy of the workspace for all tests, and copies that a test may change."""

import os
from pathlib import Path

import pytest
from workspace.copies import Built, Copy, copy_workspace, share_wheels

from jobplane.artifacts import Builder, Settings
from jobplane.locks import exclusive
from jobplane.workspace import Workspace


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A copy in which every function was built, and its artifacts; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    workspace = Workspace(shared / "built")
    with exclusive(Workspace(shared / "locks"), "copy"):
        if not workspace.root.is_dir():
            copy_workspace(workspace.root)
            share_wheels(Workspace.here(), workspace)
    artifacts = Builder(workspace, Settings.local()).build(workspace.functions())
    return workspace, {artifact.name: artifact for artifact in artifacts}


@pytest.fixture(scope="session")
def copied(built: Built) -> Copy:
    """Makes a copy of the workspace in a folder, with the wheels that are installed already."""

    def copy(target: Path) -> Workspace:
        workspace = copy_workspace(target)
        share_wheels(built[0], workspace)
        return workspace

    return copy
