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
    done = subprocess.run(
        ["node", "--no-warnings", "-e", script],
        cwd=REPOSITORY.root,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("status", "step"),
    [
        ("CREATE_COMPLETE", "ready"),
        ("CREATE_FAILED", "delete"),
        ("CREATE_IN_PROGRESS", "wait"),
        ("DELETE_FAILED", "refuse"),
        ("DELETE_IN_PROGRESS", "wait"),
        ("IMPORT_ROLLBACK_COMPLETE", "ready"),
        ("ROLLBACK_COMPLETE", "delete"),
        ("ROLLBACK_FAILED", "delete"),
        ("ROLLBACK_IN_PROGRESS", "wait"),
        ("UPDATE_COMPLETE", "ready"),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "wait"),
        ("UPDATE_IN_PROGRESS", "wait"),
        ("UPDATE_ROLLBACK_COMPLETE", "ready"),
        ("UPDATE_ROLLBACK_FAILED", "continue"),
        ("UPDATE_ROLLBACK_IN_PROGRESS", "wait"),
    ],
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
