"""What a deployment does with the stack that it finds: AWS's states and waits, of which the
emulator has only some.
"""

import json
import subprocess
from typing import Any

import pytest

from tests.workspace.templates import REPOSITORY


def called(function: str, *arguments: Any) -> Any:
    """The result of a function of scripts/serverless/recovery.js."""
    script = (
        f"const {{ {function} }} = require('./scripts/serverless/recovery');"
        f"console.log(JSON.stringify({function}(...{json.dumps(arguments)})))"
    )
    command = ["node", "--no-warnings", "-e", script]
    return json.loads(subprocess.check_output(command, cwd=REPOSITORY.root))


STEPS = {
    "ready": (
        "CREATE_COMPLETE", "IMPORT_ROLLBACK_COMPLETE", "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    ),
    "delete": ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"),
    "wait": (
        "CREATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS",
    ),
    "refuse": ("DELETE_FAILED",),
    "continue": ("UPDATE_ROLLBACK_FAILED",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "step"), [(status, step) for step, each in STEPS.items() for status in each]
)
def test_every_state_of_a_stack_has_its_step(status: str, step: str) -> None:
    """Wait, delete, continue or refuse."""
    assert called("stepFor", status, 3600) == step


def test_a_stack_in_review_is_deleted_only_after_a_while() -> None:
    """It may belong to another deployment."""
    assert called("stepFor", "REVIEW_IN_PROGRESS", 5) == "wait"
    assert called("stepFor", "REVIEW_IN_PROGRESS", 600) == "delete"


def test_a_deployment_waits_a_minute_for_names_of_deleted_queues() -> None:
    deleted = 1_700_000_000_000
    assert called("secondsUntilFree", deleted, deleted + 10_000) == 50
    assert called("secondsUntilFree", deleted, deleted + 90_000) == 0
    assert called("secondsUntilFree", None, deleted) == 0
