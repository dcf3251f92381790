"""Locks between processes: for builds, changes of a stage, runs of the framework."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lambdapack.workspace import Workspace

LOG = logging.getLogger("lambdapack")


@contextmanager
def exclusive(workspace: Workspace, name: str) -> Iterator[None]:
    """Wait until no other process of this workspace is in a block with the same name.

    `name` is shown to a user who waits: `build`, `stage-local`.
    """
    path = workspace.scratch / "_locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("waiting for another command to finish (%s)", name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
