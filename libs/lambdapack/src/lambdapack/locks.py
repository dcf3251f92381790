"""One at a time: builds of a workspace, changes of a stage, runs of the framework."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lambdapack.workspace import Workspace

LOG = logging.getLogger("lambdapack")


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
            LOG.info("waiting for another command to finish (%s)", name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
