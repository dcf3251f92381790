"""What a deployment does with the stack that it finds: AWS's states and waits, of which the
emulator has only some.
"""

import json
import subprocess
from typing import Any

import pytest

from tests.workspace.templates import REPOSITORY


def called(function: str, *arguments: Any) -> Any:
    """What a function of scripts/serverless/recovery.js returns."""
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
def test_every_state_has_a_step(status: str, step: str) -> None:
    """What is under way is waited for; what can't be updated is deleted, continued or refused."""
    assert called("stepFor", status, 3600) == step


def test_somebody_elses_review_is_given_time() -> None:
    """A stack that is only reviewed may be another deployment's, a moment ago; later it is not."""
    assert called("stepFor", "REVIEW_IN_PROGRESS", 5) == "wait"
    assert called("stepFor", "REVIEW_IN_PROGRESS", 600) == "delete"


def test_names_of_deleted_queues_are_waited_for() -> None:
    """SQS refuses the name of a queue for a minute after its deletion."""
    deleted = 1_700_000_000_000
    assert called("secondsUntilFree", deleted, deleted + 10_000) == 50
    assert called("secondsUntilFree", deleted, deleted + 90_000) == 0
    assert called("secondsUntilFree", None, deleted) == 0
