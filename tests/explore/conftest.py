"""The functions over an AWS in memory, for the explorer's tests."""

from collections.abc import Iterator

import pytest

from jobplane.explore.world import Stage
from jobplane.tree.repository import Repository


@pytest.fixture(scope="module")
def explored() -> Iterator[Stage]:
    with Stage(Repository.here()) as stage:
        yield stage
