"""One at a time: builds of a workspace, changes of a stage, runs of the framework."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from jobplane.workspace import Workspace


@contextmanager
def exclusive(workspace: Workspace, name: str) -> Iterator[None]:
    """Wait until no other process of this workspace is in a block of the same name."""
    path = workspace.scratch / "_locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
