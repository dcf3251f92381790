"""The metrics of state-manager's scheduled runs, as they are in a deployed stage's log."""

import time

import pytest

from jobplane.reference.metrics import emitted
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed
from tests.e2e.metric_lines import emitted_since, until_emitted

pytestmark = pytest.mark.e2e


async def test_scheduled_runs_emit_the_metrics_of_the_source(deployed: Deployed) -> None:
    """Each with its name, unit and dimensions."""
    began = time.time()
    for operation in ("get_stats", "find_orphans"):
        deployed.invoke("state-manager", {"source": "jobplane.schedule", "operation": operation})
    wanted = {"FilesByStatus", "Orphans", "OrphansByKind", "OldestPendingAgeSeconds"}
    await until_emitted(deployed, wanted, began)
    assert emitted_since(deployed, 0) <= emitted(Repository.here())
