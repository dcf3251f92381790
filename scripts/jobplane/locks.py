"""One at a time: builds of a workspace, changes of a stage, runs of the framework."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from jobplane.console import note
from jobplane.workspace import Workspace


@contextmanager
def exclusive(workspace: Workspace, name: str) -> Iterator[None]:
    """Wait until no other process of this workspace is in a block of the same name.

    `name` is what the other one does, for people who wait: `build`, `stage-local`.
    """
    path = workspace.scratch / "_locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting for another jobplane command to finish ({name})")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
