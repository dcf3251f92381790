"""The metrics that functions of a stage have written to their logs."""

from jobplane.reference.metrics import Metric
from jobplane.stage import log_lines
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, until
from tests.workspace.emitted import in_lines


def emitted_since(deployed: Deployed, since: float) -> set[Metric]:
    """The metrics in the log lines of all functions since a time in seconds."""
    events = log_lines.events(deployed.stage, Repository.here().functions(), int(since * 1000))
    return {metric for event in events for metric in in_lines([event.text], event.function)}


async def until_emitted(deployed: Deployed, names: set[str], since: float) -> None:
    """Wait until metrics of these names are in the logs."""
    await until(
        lambda: names <= {metric.name for metric in emitted_since(deployed, since)},
        f"{sorted(names)} in the logs",
    )
