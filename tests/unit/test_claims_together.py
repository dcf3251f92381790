"""The functions of the claims together: the answer of one is the input of another."""

from typing import Any

import pytest

from jobplane_keys import interrupt_id
from tests.unit.claims import WORKSPACE, Jobs, holding


def test_send_interrupt_accepts_the_answers_of_check_and_claim(jobs: Jobs) -> None:
    """The active job of check-active-job and the holder of claim are valid targets."""
    claim = jobs.acquire()
    found = jobs.call("check-active-job", projectUserId=WORKSPACE, threadId="thread-2")
    refusal = jobs.acquire(threadId="thread-2", messageId="message-2")
    for target in (found["activeJob"], refusal["holder"]):
        event = {"newThreadId": "thread-2", "interruptingMessageId": "message-2"}
        sent = jobs.call("send-interrupt", projectUserId=WORKSPACE, target=target, **event)
        assert sent["sent"] is True
        assert sent["interruptId"] == interrupt_id(claim["claimId"], "message-2")


@pytest.mark.parametrize("owner", [None, "arn:of:an:execution"])
def test_the_helper_hold_stores_the_same_row_as_claim(jobs: Jobs, owner: str | None) -> None:
    """Only ids and fence differ."""

    def rows(claim: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows while held and after the release."""
        held = jobs.row()
        jobs.let_go(claim) if is_stored else jobs.release(claim)
        return [held, jobs.row()]

    seen = []
    for is_stored in (False, True, False):
        claim = jobs.hold(owner=owner) if is_stored else jobs.acquire(owner=owner)
        held, released = rows(claim)
        assert released["lastReleased"].pop("claimId") == claim["claimId"]
        assert held.pop("claimId") == claim["claimId"]
        assert held.pop("containerId") == claim["containerId"]
        assert held.pop("fence") == released.pop("fence") == claim["fence"]
        held.pop("lastReleased", None)
        for row in (held, released):
            row.pop("write_id", None)
        seen.append((held, released, claim.keys(), claim["expiresAt"]))
    assert seen[1] == seen[0] == seen[2]


def test_a_job_that_was_taken_over_is_released(jobs: Jobs) -> None:
    """The flow names the claim's first fence; the second worker's is higher."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1")
    jobs.clock.advance(3)
    assert jobs.renew(claim, taker="worker-2")["fence"] == claim["fence"] + 1
    event = holding(claim) | {"messageId": "message-1", "kind": "heartbeat_lost"}
    assert jobs.call("handle-timeout", **event)["released"] is True
    assert jobs.row()["state"] == "free"
