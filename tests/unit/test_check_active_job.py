"""check-active-job: the answer to a new message, by the workspace's row."""

from typing import Any

import pytest

from jobplane_keys import ValidationError
from tests.unit.claims import HOSTILE_IDS, HOUR, NOW, WORKSPACE, Jobs, iso, older_row
from tests.unit.stack import PREFIX, Output, Stack

NO_JOB = {"hasActiveJob": False, "sameThread": False, "shouldInterrupt": False, "activeJob": None}


@pytest.fixture
def jobs(stack: Stack) -> Jobs:
    return Jobs(stack)


def check(jobs: Jobs, thread: str = "thread-1", **event: Any) -> dict[str, Any]:
    """The answer without the queue's name, which is the same for every row."""
    answer = jobs.call(
        "check-active-job", **{"projectUserId": WORKSPACE, "threadId": thread} | event
    )
    assert answer.pop("inputQueueName").startswith(f"{PREFIX}input-amelia-scott-")
    return answer


def test_a_workspace_without_a_row_has_no_active_job(jobs: Jobs) -> None:
    """The answer has no job and no interruption."""
    assert check(jobs) == NO_JOB | {"reason": "none"}


def test_a_released_workspace_has_no_active_job(jobs: Jobs) -> None:
    """Its row only keeps the fence."""
    jobs.let_go(jobs.hold())
    assert check(jobs, "thread-2") == NO_JOB | {"reason": "free"}


def test_a_message_of_the_same_thread_joins_the_active_job(jobs: Jobs) -> None:
    """The answer names the job, without an interruption."""
    claim = jobs.hold()
    assert check(jobs) == {
        "hasActiveJob": True,
        "sameThread": True,
        "shouldInterrupt": False,
        "reason": "same_thread",
        "activeJob": {
            "threadId": "thread-1",
            "messageId": "message-1",
            "containerId": claim["containerId"],
            "claimId": claim["claimId"],
            "fence": claim["fence"],
            "expiresAt": claim["expiresAt"],
        },
    }


def test_an_expired_job_of_the_same_thread_is_not_joined(jobs: Jobs) -> None:
    """An expired claim counts as no job."""
    jobs.clock.now = jobs.hold()["expiresAt"]
    assert check(jobs) == NO_JOB | {"reason": "expired"}


def test_a_message_of_another_thread_interrupts_the_active_job(jobs: Jobs) -> None:
    """The answer names the job to interrupt."""
    claim = jobs.hold()
    answer = check(jobs, "thread-2")
    assert (answer["hasActiveJob"], answer["sameThread"], answer["shouldInterrupt"]) == (
        True,
        False,
        True,
    )
    assert answer["reason"] == "other_thread"
    assert answer["activeJob"]["claimId"] == claim["claimId"]


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
            "threadId": "thread-old",
            "messageId": "message-old",
            "containerId": "container-old",
            "claimId": None,
            "fence": None,
            "expiresAt": expires_at,
        }


def test_a_malformed_row_causes_no_interruption(jobs: Jobs) -> None:
    """The answer reports a malformed row."""
    jobs.put(**older_row(claimedAt=iso(-60)))
    answer = check(jobs, "thread-old")
    assert (answer["reason"], answer["sameThread"], answer["shouldInterrupt"]) == (
        "malformed",
        True,
        False,
    )


def test_a_check_makes_one_consistent_read(jobs: Jobs) -> None:
    """One GetItem, and no other call."""
    calls = jobs.stack.calls(jobs.function("check-active-job").dynamodb)
    check(jobs)
    assert calls == [
        (
            "GetItem",
            {
                "TableName": f"{PREFIX}active-jobs",
                "Key": {"projectUserId": {"S": WORKSPACE}},
                "ConsistentRead": True,
            },
        )
    ]


def test_a_repeated_check_gets_the_same_answer(jobs: Jobs) -> None:
    """The row stays as it is."""
    jobs.hold()
    before = jobs.row()
    assert check(jobs, "thread-2") == check(jobs, "thread-2")
    assert jobs.row() == before


def test_project_and_user_ids_name_the_same_workspace_as_the_key(jobs: Jobs) -> None:
    """projectId and userId find the row of projectUserId."""
    jobs.hold()
    parts = {"projectUserId": None, "projectId": "amelia", "userId": "scott"}
    assert check(jobs, "thread-2", **parts) == check(jobs, "thread-2")


@pytest.mark.parametrize("value", HOSTILE_IDS)
def test_a_malformed_thread_id_is_refused(jobs: Jobs, value: Any) -> None:
    """ValidationError of threadId, without a read."""
    calls = jobs.stack.calls(jobs.function("check-active-job").dynamodb)
    with pytest.raises(ValidationError, match="^threadId: "):
        jobs.call("check-active-job", projectUserId=WORKSPACE, threadId=value)
    assert calls == []


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "projectId"),
        ({"projectUserId": "amelia/scott"}, "projectUserId"),
        ({"projectUserId": WORKSPACE, "userId": "other"}, "userId"),
        ({"projectUserId": WORKSPACE}, "threadId"),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, event: dict[str, Any], field: str
) -> None:
    """The message says what is wrong with the field."""
    with pytest.raises(ValidationError) as refused:
        jobs.call("check-active-job", **event)
    assert refused.value.field == field


def test_an_error_of_dynamodb_is_raised_unchanged(jobs: Jobs) -> None:
    """The flow's Retry matches errors by name."""
    module = jobs.function("check-active-job")
    jobs.stack.fail(module.dynamodb, "GetItem")
    with pytest.raises(module.dynamodb.exceptions.ProvisionedThroughputExceededException):
        check(jobs)


def test_the_answer_is_logged(jobs: Jobs, output: Output) -> None:
    """The log line has the workspace and the thread."""
    check(jobs)
    (line,) = output.logged("checked")
    assert (line["project_user_id"], line["thread_id"]) == (WORKSPACE, "thread-1")
    assert line["reason"] == "none"
