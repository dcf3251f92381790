"""check-active-job: the answer to a new message, by the workspace's row."""

from typing import Any

import pytest

from jobplane_keys import ValidationError
from tests.unit.claims import HOSTILE_IDS, HOUR, NOW, WORKSPACE, Jobs, iso, older_row
from tests.unit.stack import PREFIX, Output

NO_JOB = {"hasActiveJob": False, "sameThread": False, "shouldInterrupt": False, "activeJob": None}


def check(jobs: Jobs, thread: str = "thread-1", **event: Any) -> dict[str, Any]:
    """The answer without the queue's name, which is the same for every row."""
    event = {"projectUserId": WORKSPACE, "threadId": thread} | event
    answer = jobs.call("check-active-job", **event)
    assert answer.pop("inputQueueName").startswith(f"{PREFIX}input-amelia-scott-")
    return answer


def test_a_workspace_without_a_job_has_no_active_job(jobs: Jobs) -> None:
    """Without a row, with a released one, whose row only keeps the fence, and an expired one."""
    assert check(jobs) == NO_JOB | {"reason": "none"}
    jobs.let_go(jobs.hold())
    assert check(jobs, "thread-2") == NO_JOB | {"reason": "free"}
    jobs.clock.now = jobs.hold()["expiresAt"]
    assert check(jobs) == NO_JOB | {"reason": "expired"}


@pytest.mark.parametrize("is_same", [True, False], ids=["same thread", "other thread"])
def test_a_message_joins_or_interrupts_the_active_job(jobs: Jobs, is_same: bool) -> None:
    """The answer names the job."""
    claim = jobs.hold()
    names = ("containerId", "claimId", "fence", "expiresAt")
    assert check(jobs, "thread-1" if is_same else "thread-2") == {
        "hasActiveJob": True,
        "sameThread": is_same,
        "shouldInterrupt": not is_same,
        "reason": "same_thread" if is_same else "other_thread",
        "activeJob": {"threadId": "thread-1", "messageId": "message-1"}
        | {name: claim[name] for name in names},
    }


@pytest.mark.parametrize(("offset", "active"), [(-1, True), (-0.01, True), (0, False), (1, False)])
def test_a_job_is_active_until_its_claim_expires(jobs: Jobs, offset: float, active: bool) -> None:
    """The function compares the times itself, and does not wait for DynamoDB to delete the row."""
    jobs.clock.now = jobs.hold()["expiresAt"] + offset
    answer = check(jobs, "thread-2")
    assert answer["hasActiveJob"] is active
    if not active:
        assert answer == NO_JOB | {"reason": "expired"}


@pytest.mark.parametrize(
    ("attributes", "active", "reason", "expires_at"),
    [
        ({"ttl": int(NOW) + 60}, True, "other_thread", int(NOW) + 60),
        ({"ttl": int(NOW + 60) * 1000}, True, "other_thread", int(NOW + 60)),
        ({"expiresAt": (NOW + 60) * 1000}, True, "other_thread", int(NOW + 60)),
        ({"expiresAt": NOW + 60.5}, True, "other_thread", int(NOW + 60.5)),
        ({"ttl": int(NOW) - 1}, False, "expired", None),
        ({"expiresAt": (NOW - 1) * 1000}, False, "expired", None),
        ({"claimedAt": iso(-60)}, True, "malformed", None),
        ({"claimedAt": (NOW - 60) * 1000}, True, "malformed", None),
        ({"claimedAt": iso(-HOUR)}, False, "malformed", None),
        ({"claimedAt": (NOW - HOUR) * 1000}, False, "malformed", None),
        ({"claimedAt": "yesterday"}, False, "malformed", None),
        ({}, False, "malformed", None),
    ],
)
def test_rows_without_claim_ids_are_read(
    jobs: Jobs, attributes: dict[str, Any], active: bool, reason: str, expires_at: int | None
) -> None:
    """Older writers used other units of time; the answer is in whole seconds."""
    jobs.put(**older_row(**attributes))
    answer = check(jobs)
    assert (answer["hasActiveJob"], answer["reason"]) == (active, reason)
    if active:
        assert answer["shouldInterrupt"] is True
        assert answer["activeJob"] == {
            "threadId": "thread-old", "messageId": "message-old",
            "containerId": "container-old", "claimId": None, "fence": None,
            "expiresAt": expires_at,
        }  # fmt: skip


def test_a_malformed_row_of_the_same_thread_causes_no_interruption(jobs: Jobs) -> None:
    jobs.put(**older_row(claimedAt=iso(-60)))
    answer = check(jobs, "thread-old")
    assert (answer["reason"], answer["sameThread"]) == ("malformed", True)
    assert answer["shouldInterrupt"] is False


def test_a_check_makes_one_consistent_read(jobs: Jobs) -> None:
    calls = jobs.stack.calls(jobs.function("check-active-job").dynamodb)
    check(jobs)
    key = {"projectUserId": {"S": WORKSPACE}}
    table = f"{PREFIX}active-jobs"
    assert calls == [("GetItem", {"TableName": table, "Key": key, "ConsistentRead": True})]


def test_project_and_user_ids_name_the_same_workspace_as_the_key(jobs: Jobs) -> None:
    jobs.hold()
    parts = {"projectUserId": None, "projectId": "amelia", "userId": "scott"}
    assert check(jobs, "thread-2", **parts) == check(jobs, "thread-2")


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "projectId"),
        ({"projectUserId": "amelia/scott"}, "projectUserId"),
        ({"projectUserId": WORKSPACE, "userId": "other"}, "userId"),
        ({"projectUserId": WORKSPACE}, "threadId"),
        *(({"projectUserId": WORKSPACE, "threadId": value}, "threadId") for value in HOSTILE_IDS),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, event: dict[str, Any], field: str
) -> None:
    """Without a read."""
    calls = jobs.stack.calls(jobs.function("check-active-job").dynamodb)
    with pytest.raises(ValidationError) as refused:
        jobs.call("check-active-job", **event)
    assert (refused.value.field, calls) == (field, [])


def test_an_error_of_dynamodb_is_raised_unchanged(jobs: Jobs) -> None:
    """The flow's Retry matches errors by name."""
    module = jobs.function("check-active-job")
    jobs.stack.fail(module.dynamodb, "GetItem")
    with pytest.raises(module.dynamodb.exceptions.ProvisionedThroughputExceededException):
        check(jobs)


def test_the_answer_is_logged(jobs: Jobs, output: Output) -> None:
    check(jobs)
    (line,) = output.logged("checked")
    assert (line["project_user_id"], line["thread_id"]) == (WORKSPACE, "thread-1")
    assert line["reason"] == "none"
