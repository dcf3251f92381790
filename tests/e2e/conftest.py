"""Fixtures of the end-to-end suite."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, Receiver, receiver, recorded


@pytest.fixture(scope="session")
def deployed(stage_name: str) -> Iterator[Deployed]:
    """The stage that this run's tests share."""
    with recorded(Deployed(Stage(Repository.here(), stage_name))) as there:
        yield there


@pytest.fixture(scope="session")
def webhooks(deployed: Deployed) -> Iterator[Receiver]:
    """The receiver of every template's webhooks."""
    with receiver() as there:
        deployed.set_webhook(there.url)
        yield there


@pytest.fixture(scope="session")
def operator(files_stage_name: str) -> Any:
    """The operator of a stage whose files are used by one test worker only."""
    pipeline_operator = importlib.import_module("tests.e2e.pipeline_operator")
    return pipeline_operator.Operator(Deployed(Stage(Repository.here(), files_stage_name)))
