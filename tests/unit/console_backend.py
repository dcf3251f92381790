"""The console's stage in moto."""

from typing import Any

from jobplane.console.backend import Backend
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from tests.unit.stack import PREFIX, Stack

TABLES = ("requests", "connections", "subscriptions", "lanes", "assemblies", "operations")
SHARDS = 2
FUNCTIONS = ("router", "processor", "dispatch")


def backend_of(stack: Stack) -> Backend:
    """A console of the stack's tables."""
    there = Backend(Stage(Repository.here(), "test"))
    described: dict[str, Any] = {
        "region": "eu-west-1",
        "functions": {name: PREFIX + name for name in FUNCTIONS},
        "tables": {name: PREFIX + name for name in TABLES},
        "queues": {},
    }
    there.__dict__ |= {
        "description": described,
        "in_flight_shards": 8,
        "tenant_shards": SHARDS,
        "operator": "arn:me",
    }
    there._clients["dynamodb"] = stack.dynamodb
    return there
