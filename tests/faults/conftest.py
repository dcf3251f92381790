"""The scenarios' cloud, and the option for the number of faults."""

from collections.abc import Iterator

import pytest

from tests.faults.cloud import Cloud, open_cloud


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        choices=["some", "all"],
        default="some",
        help="some: a kill at every call, other faults at a part of them; all: at every call",
    )


@pytest.fixture(scope="session")
def tries_all(pytestconfig: pytest.Config) -> bool:
    """Whether every fault is tried at every call."""
    # Without this folder among the arguments its options are not known.
    return bool(pytestconfig.getoption("faults", "some") == "all")


@pytest.fixture(scope="module")
def shared_cloud() -> Iterator[Cloud]:
    with open_cloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Cloud:
    """The functions in moto, with nothing stored."""
    shared_cloud.empty()
    return shared_cloud
