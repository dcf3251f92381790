"""claim: acquire, renew and release a workspace."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from jobplane_keys import ValidationError
from tests.unit.claims import (
    HOSTILE_IDS,
    HOUR,
    NOW,
    WORKSPACE,
    Jobs,
    holding,
    iso,
    older_row,
)
from tests.unit.clock import Clock
from tests.unit.stack import Output, Stack

DAY = 24 * HOUR


@pytest.fixture
def jobs(stack: Stack) -> Jobs:
    return Jobs(stack)


@pytest.fixture
def clock(jobs: Jobs) -> Clock:
    return jobs.clock


def test_a_free_workspace_is_claimed(jobs: Jobs) -> None:
    """The row has the owner, the message, the fence and the end."""
    answer = jobs.acquire(owner="arn:of:an:execution")

    assert answer.keys() == {"claimed", "claimId", "fence", "containerId", "expiresAt"}
    assert answer["claimed"] is True
    assert answer["expiresAt"] == 1_795_342_531 + HOUR
    assert re.fullmatch(r"container-1795342530250-[0-9a-f]{8}", answer["containerId"])
    assert jobs.row() == {
        "projectUserId": WORKSPACE,
        "state": "held",
        "claimId": answer["claimId"],
        "fence": answer["fence"],
        "threadId": "thread-1",
        "messageId": "message-1",
        "owner": "arn:of:an:execution",
        "containerId": answer["containerId"],
        "claimedAt": iso(0),
        "lastClaimAt": NOW,
        "expiresAt": answer["expiresAt"],
        "purgeAt": int(NOW) + 30 * DAY,
    }


def test_project_and_user_ids_name_the_same_workspace_as_the_key(jobs: Jobs) -> None:
    """projectId and userId give the composite key."""
    answer = jobs.call(
        "claim", projectId="amelia", userId="scott", threadId="thread-1", messageId="message-1"
    )
    assert jobs.row()["claimId"] == answer["claimId"]


def test_a_message_of_another_thread_is_refused_with_the_holder(jobs: Jobs) -> None:
    """The answer has the holder and the remaining time; the row stays as it is."""
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()

    answer = jobs.acquire(threadId="thread-2", messageId="message-2")

    assert answer == {
        "claimed": False,
        "reason": "held",
        "holder": {
            "threadId": "thread-1",
            "messageId": "message-1",
            "containerId": claim["containerId"],
            "claimId": claim["claimId"],
            "fence": claim["fence"],
            "expiresInSeconds": 101,
        },
    }
    assert jobs.row() == before


def test_a_message_of_the_same_thread_joins_and_extends_the_claim(jobs: Jobs, clock: Clock) -> None:
    """The claim still belongs to the first message."""
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()
    clock.advance(50)

    answer = jobs.acquire(messageId="message-2", ttlSeconds=100)

    assert (answer["claimed"], answer["reason"]) == (False, "same_thread")
    assert answer["holder"]["claimId"] == claim["claimId"]
    changed = {"expiresAt": claim["expiresAt"] + 50, "purgeAt": before["purgeAt"] + 50}
    assert jobs.row() == before | changed


def test_joining_never_shortens_a_claim(jobs: Jobs) -> None:
    """A message with a shorter time to live changes nothing."""
    jobs.acquire(ttlSeconds=HOUR)
    before = jobs.row()
    assert jobs.acquire(messageId="message-2", ttlSeconds=60)["reason"] == "same_thread"
    assert jobs.row() == before


@pytest.mark.parametrize("late", [0, 1, 1.9])
def test_an_expired_claim_is_not_joined(jobs: Jobs, clock: Clock, late: float) -> None:
    """Within the skew margin the thread's own message waits, and does not extend the claim."""
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()
    clock.now = claim["expiresAt"] + late

    answer = jobs.acquire(messageId="message-2")

    assert (answer["reason"], answer["holder"]["expiresInSeconds"]) == ("held", 0)
    assert jobs.row() == before


def test_a_claim_released_before_the_extension_is_not_joined(jobs: Jobs) -> None:
    """The message must try again."""
    claim = jobs.acquire(ttlSeconds=100)
    module = jobs.function("claim")
    write_held = module.write_held

    def release_first(*arguments: Any) -> Any:
        jobs.stack.monkeypatch.setattr(module, "write_held", write_held)
        assert jobs.release(claim)["released"]
        return write_held(*arguments)

    jobs.stack.monkeypatch.setattr(module, "write_held", release_first)

    assert jobs.acquire(messageId="message-2")["reason"] == "held"
    assert jobs.row()["state"] == "free"
    assert jobs.acquire(messageId="message-2")["claimed"] is True


def test_a_claim_taken_over_before_the_extension_is_not_joined(jobs: Jobs) -> None:
    """Another thread released and claimed the workspace in between."""
    claim = jobs.acquire(ttlSeconds=100)
    module = jobs.function("claim")
    write_held = module.write_held

    def take_first(*arguments: Any) -> Any:
        jobs.stack.monkeypatch.setattr(module, "write_held", write_held)
        assert jobs.release(claim)["released"]
        assert jobs.acquire(threadId="thread-2", messageId="message-3")["claimed"]
        return write_held(*arguments)

    jobs.stack.monkeypatch.setattr(module, "write_held", take_first)
    assert jobs.acquire(messageId="message-2")["reason"] == "held"


@pytest.mark.parametrize(
    ("offset", "claimed"), [(-1, False), (0, False), (1, False), (1.9, False), (2, True), (3, True)]
)
def test_a_claim_can_be_taken_two_seconds_after_its_end(
    jobs: Jobs, clock: Clock, offset: float, claimed: bool
) -> None:
    """The margin allows for clocks that differ."""
    first = jobs.acquire(ttlSeconds=100)
    clock.now = first["expiresAt"] + offset

    answer = jobs.acquire(threadId="thread-2", messageId="message-2")

    assert answer["claimed"] is claimed
    if claimed:
        assert answer["fence"] == first["fence"] + 1
        assert answer["claimId"] != first["claimId"]


def test_a_repeated_acquisition_gets_the_same_claim(jobs: Jobs, clock: Clock) -> None:
    """The same message and owner get the same answer, and the row stays as it is."""
    first = jobs.acquire(owner="execution-1")
    before = jobs.row()
    clock.advance(5)
    assert jobs.acquire(owner="execution-1") == first
    assert jobs.acquire(owner="execution-1", minIntervalSeconds=60) == first
    assert jobs.row() == before


@pytest.mark.parametrize("late", [0, 1.9])
def test_a_repeated_acquisition_does_not_get_an_expired_claim(
    jobs: Jobs, clock: Clock, late: float
) -> None:
    """Within the skew margin the message must wait, because it could not renew the claim."""
    claim = jobs.acquire(ttlSeconds=100, owner="execution-1")
    clock.now = claim["expiresAt"] + late
    assert jobs.acquire(owner="execution-1")["reason"] == "held"


@pytest.mark.parametrize("owner", ["execution-2", None])
def test_the_same_message_of_another_execution_joins(jobs: Jobs, owner: str | None) -> None:
    """It does not get the claim of the first execution."""
    jobs.acquire(owner="execution-1")
    assert jobs.acquire(owner=owner)["reason"] == "same_thread"


def test_the_fence_grows_over_release_expiry_and_deletion(jobs: Jobs, clock: Clock) -> None:
    """Every claim has a higher fence than the one before."""
    fences = []
    for number in range(3):
        claim = jobs.acquire(messageId=f"message-{number}")
        fences.append(claim["fence"])
        assert jobs.release(claim)["released"]
        clock.advance(1)
    jobs.acquire(ttlSeconds=1)
    fences.append(jobs.row()["fence"])
    clock.advance(30 * DAY + 1)
    jobs.delete()
    fences.append(jobs.acquire(messageId="message-9")["fence"])

    assert fences == sorted(set(fences))
    assert fences[:4] == [fences[0] + number for number in range(4)]


def test_a_renewal_sets_the_end_to_the_requested_time(jobs: Jobs, clock: Clock) -> None:
    """Any number of renewals is possible."""
    claim = jobs.acquire(ttlSeconds=100)
    clock.advance(50)
    for _ in range(2):
        assert jobs.renew(claim, ttlSeconds=100) == {
            "renewed": True,
            "expiresAt": claim["expiresAt"] + 50,
        }
    assert jobs.row()["expiresAt"] == claim["expiresAt"] + 50


def test_a_renewal_lasts_an_hour_by_default(jobs: Jobs) -> None:
    claim = jobs.acquire(ttlSeconds=100)
    assert jobs.renew(claim)["expiresAt"] == 1_795_342_531 + HOUR


@pytest.mark.parametrize(("offset", "renewed"), [(-1, True), (-0.1, True), (0, False), (1, False)])
def test_an_expired_claim_is_not_renewed(
    jobs: Jobs, clock: Clock, offset: float, renewed: bool
) -> None:
    """From its end on, even if the workspace is still free."""
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()
    clock.now = claim["expiresAt"] + offset

    answer = jobs.renew(claim)

    assert answer["renewed"] is renewed
    if not renewed:
        assert answer["reason"] == "expired"
        assert jobs.row() == before


def test_a_release_keeps_the_row_with_fence_and_reason(jobs: Jobs, clock: Clock) -> None:
    """The row also has the last holder."""
    claim = jobs.acquire()
    clock.advance(10)

    assert jobs.release(claim, reason="finished") == {"released": True, "repeated": False}

    row = jobs.row()
    assert len(row.pop("write_id")) == 16
    assert row == {
        "projectUserId": WORKSPACE,
        "state": "free",
        "fence": claim["fence"],
        "lastClaimAt": NOW,
        "lastReleased": {"claimId": claim["claimId"], "at": iso(10), "reason": "finished"},
        "purgeAt": int(NOW) + 10 + 30 * DAY,
    }


def test_a_release_whose_answer_is_lost_is_not_repeated(jobs: Jobs) -> None:
    """Only the caller's second release is; also if another thread has the workspace by then."""
    claim = jobs.acquire()
    lost = jobs.stack.lose_answer(jobs.function("claim").dynamodb, "UpdateItem")
    assert jobs.release(claim) == {"released": True, "repeated": False}
    assert lost["UpdateItem"] == 1


@pytest.mark.parametrize("message", ["message-1", "message-2"])
def test_a_renewal_whose_answer_is_lost_is_made(jobs: Jobs, clock: Clock, message: str) -> None:
    """By its holder, and by a message that joins the job."""
    claim = jobs.acquire(ttlSeconds=100)
    clock.advance(10)
    dynamodb = jobs.function("claim").dynamodb
    if message == "message-1":
        lost = jobs.stack.lose_answer(dynamodb, "UpdateItem")
        assert jobs.renew(claim, ttlSeconds=100)["renewed"] is True
    else:
        lost = jobs.stack.lose_answer(
            dynamodb, "UpdateItem", when=lambda body: "expiresAt < :expires" in body
        )
        assert jobs.acquire(messageId=message, ttlSeconds=100)["reason"] == "same_thread"
    assert (jobs.row()["expiresAt"], lost["UpdateItem"]) == (int(NOW) + 111, 1)


def test_an_acquisition_whose_answer_is_lost_is_granted(jobs: Jobs) -> None:
    """With the claim that it made, and not with another one."""
    lost = jobs.stack.lose_answer(jobs.function("claim").dynamodb, "UpdateItem")
    claim = jobs.acquire()
    assert (claim["claimed"], lost["UpdateItem"]) == (True, 1)
    assert claim["claimId"] == jobs.row()["claimId"]


def test_a_second_release_succeeds_and_changes_nothing(jobs: Jobs, clock: Clock) -> None:
    """Nor does it change the claim of a successor."""
    claim = jobs.acquire()
    jobs.release(claim)
    before = jobs.row()
    clock.advance(1)
    assert jobs.release(claim, reason="again") == {"released": True, "repeated": True}
    assert jobs.row() == before

    jobs.acquire(threadId="thread-2", messageId="message-2")
    taken = jobs.row()
    assert jobs.release(claim) == {"released": True, "repeated": True}
    assert jobs.row() == taken


def test_an_expired_claim_can_be_released(jobs: Jobs, clock: Clock) -> None:
    """Its holder may release it until another execution takes it."""
    claim = jobs.acquire(ttlSeconds=1)
    clock.advance(HOUR)
    assert jobs.release(claim)["released"] is True


def test_a_superseded_holder_neither_renews_nor_releases(jobs: Jobs, clock: Clock) -> None:
    """Its successor's claim stays as it is."""
    stale = jobs.acquire(ttlSeconds=1)
    clock.advance(10)
    jobs.acquire(threadId="thread-2", messageId="message-2")
    before = jobs.row()

    assert jobs.renew(stale) == {"renewed": False, "reason": "superseded"}
    assert jobs.release(stale) == {"released": False, "reason": "superseded"}
    assert jobs.row() == before


def test_a_release_after_several_successors_is_superseded(jobs: Jobs, clock: Clock) -> None:
    """It is not taken for a repetition."""
    stale = jobs.acquire(ttlSeconds=1)
    clock.advance(10)
    jobs.release(jobs.acquire(threadId="thread-2", messageId="message-2"))
    assert jobs.release(stale) == {"released": False, "reason": "superseded"}
    assert jobs.renew(stale) == {"renewed": False, "reason": "superseded"}


def test_a_released_claim_is_not_renewed(jobs: Jobs) -> None:
    claim = jobs.acquire()
    jobs.release(claim)
    before = jobs.row()
    assert jobs.renew(claim) == {"renewed": False, "reason": "released"}
    assert jobs.row() == before


def test_a_free_row_with_leftover_ids_is_neither_renewed_nor_released(jobs: Jobs) -> None:
    """Other writers may leave ids on a row that they free."""
    claim = jobs.acquire()
    freed = jobs.row() | {"state": "free"}
    jobs.put(**freed)
    assert jobs.renew(claim)["renewed"] is False
    assert jobs.release(claim)["released"] is False
    assert jobs.row() == freed


def test_renewal_and_release_create_no_row(jobs: Jobs) -> None:
    """For a workspace without a row."""
    claim = {"claimId": "claim-1", "fence": 7}
    assert jobs.renew(claim) == {"renewed": False, "reason": "absent"}
    assert jobs.release(claim) == {"released": False, "reason": "absent"}
    assert jobs.row() == {}


# Workers that take a claim's job over


def test_the_first_taker_keeps_the_fence(jobs: Jobs) -> None:
    """The worker that gets a job's message first works under the fence of the claim."""
    claim = jobs.acquire()
    taken = jobs.renew(claim, taker="worker-1", takerSeconds=120)
    assert (taken["renewed"], taken["fence"]) == (True, claim["fence"])
    assert jobs.renew(claim, takerSeconds=120)["renewed"] is True


@pytest.mark.parametrize("is_lost", [False, True])
def test_taking_over_raises_the_fence(jobs: Jobs, clock: Clock, is_lost: bool) -> None:
    """The worker before can't renew any more, and an answer that was lost is given again."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1", takerSeconds=120)
    clock.advance(123)
    for _ in range(2 if is_lost else 1):
        taken = jobs.renew(claim, taker="worker-2", takerSeconds=120)
        assert (taken["renewed"], taken["fence"]) == (True, claim["fence"] + 1)
    assert jobs.renew(claim) == {"renewed": False, "reason": "taken"}
    assert jobs.renew(claim | {"fence": taken["fence"]})["renewed"] is True
    clock.advance(123)
    assert jobs.renew(claim, taker="worker-3")["fence"] == claim["fence"] + 2


def test_a_working_taker_is_not_relieved(jobs: Jobs, clock: Clock) -> None:
    """Its renewals keep every other one away, though the message be delivered again."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1", takerSeconds=120)
    for _ in range(4):
        clock.advance(100)
        assert jobs.renew(claim, taker="worker-2") == {"renewed": False, "reason": "taken"}
        assert jobs.renew(claim, takerSeconds=120)["renewed"] is True


def test_two_takers_at_once(jobs: Jobs, clock: Clock) -> None:
    """One gets the job; the other, whose writes it came between, nothing."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-0")
    clock.advance(3)
    module = jobs.function("claim")
    update_item = module.dynamodb.update_item

    def overtaken(**parameters: Any) -> Any:
        if "firstFence" in parameters["UpdateExpression"]:
            module.dynamodb.update_item = update_item
            assert jobs.renew(claim, taker="worker-2", takerSeconds=60)["renewed"] is True
        return update_item(**parameters)

    with patch.object(module.dynamodb, "update_item", overtaken):
        answer = module.renew(holding(claim) | {"taker": "worker-1"}, clock.now)
    assert answer == {"renewed": False, "reason": "taken"}
    row = jobs.row()
    assert (row["taker"], row["fence"]) == ("worker-2", claim["fence"] + 1)


def test_an_answer_lost_to_sdk_retries_is_known(jobs: Jobs, clock: Clock) -> None:
    """The write that takes over, sent twice by the SDK, finds its own row."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1")
    clock.advance(3)
    module = jobs.function("claim")
    update_item = module.dynamodb.update_item

    def twice(**parameters: Any) -> Any:
        if "firstFence" in parameters["UpdateExpression"]:
            update_item(**parameters)
        return update_item(**parameters)

    with patch.object(module.dynamodb, "update_item", twice):
        taken = module.renew(holding(claim) | {"taker": "worker-2"}, clock.now)
    assert taken["fence"] == claim["fence"] + 1
    assert jobs.row()["fence"] == claim["fence"] + 1


@pytest.mark.parametrize("state", ["expired", "released", "superseded", "absent"])
def test_a_lost_claim_is_not_taken_over(jobs: Jobs, clock: Clock, state: str) -> None:
    """A late message brings nothing back."""
    claim = jobs.acquire(ttlSeconds=60)
    jobs.renew(claim, taker="worker-1", ttlSeconds=60)
    if state == "released":
        jobs.release(claim)
    else:
        clock.advance(70)
    if state == "superseded":
        jobs.acquire(threadId="thread-2", messageId="message-2")
    if state == "absent":
        jobs.delete()
    before = jobs.row()
    assert jobs.renew(claim, taker="worker-2") == {"renewed": False, "reason": state}
    assert jobs.row() == before


def test_the_execution_releases_whoever_has_its_job(jobs: Jobs, clock: Clock) -> None:
    """It knows the fence of its claim; a worker releases under the fence that it has."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1")
    clock.advance(3)
    taken = claim | {"fence": jobs.renew(claim, taker="worker-2")["fence"]}
    assert jobs.release(claim, taker="worker-1") == {"released": False, "reason": "superseded"}
    assert jobs.release(claim)["released"] is True
    again = jobs.acquire()
    assert again["fence"] == taken["fence"] + 1
    assert {"taker", "takenUntil", "firstFence"}.isdisjoint(jobs.row())


def test_a_follow_up_is_for_one_worker(jobs: Jobs, clock: Clock) -> None:
    """Workers that share an owner's name do not share a fence."""
    wish = {"owner": "worker", "takerSeconds": 120}
    first = jobs.acquire(taker="worker/1", **wish)
    assert jobs.acquire(taker="worker/1", **wish) == first
    assert jobs.acquire(taker="worker/2", **wish)["reason"] == "same_thread"
    clock.advance(123)
    second = jobs.acquire(taker="worker/2", **wish)
    assert (second["claimId"], second["fence"]) == (first["claimId"], first["fence"] + 1)
    assert jobs.renew(first) == {"renewed": False, "reason": "taken"}


@pytest.mark.parametrize("change", [{"claimId": "claim-0"}, {"fence": 1}])
def test_renewal_and_release_need_both_claim_id_and_fence(
    jobs: Jobs, change: dict[str, Any]
) -> None:
    """One wrong value is enough for a refusal."""
    claim = jobs.acquire()
    before = jobs.row()
    assert jobs.renew(claim | change)["reason"] == "superseded"
    assert jobs.release(claim | change)["reason"] == "superseded"
    assert jobs.row() == before


@pytest.mark.parametrize(
    ("passed", "answer"),
    [
        (0, {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": 60}),
        (0.5, {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": 60}),
        (59, {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": 1}),
        (59.9, {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": 1}),
        (60, {"claimed": True}),
        (61, {"claimed": True}),
    ],
)
def test_a_claim_within_the_minimum_interval_is_rate_limited(
    jobs: Jobs, clock: Clock, passed: float, answer: dict[str, Any]
) -> None:
    """The answer says when to try again."""
    jobs.release(jobs.acquire())
    before = jobs.row()
    clock.advance(passed)

    given = jobs.acquire(messageId="message-2", minIntervalSeconds=60)

    assert {name: given[name] for name in answer} == answer
    if not given["claimed"]:
        assert given == answer
        assert jobs.row() == before


def test_only_a_claim_starts_the_minimum_interval(jobs: Jobs, clock: Clock) -> None:
    """Refusals, renewals and releases do not restart it."""
    claim = jobs.acquire()
    clock.advance(30)
    jobs.renew(claim)
    jobs.release(claim)
    assert jobs.acquire(messageId="message-2", minIntervalSeconds=60)["claimed"] is False
    clock.advance(30)
    assert jobs.acquire(messageId="message-2", minIntervalSeconds=60)["claimed"] is True


def test_the_minimum_interval_also_counts_from_an_expired_claim(jobs: Jobs, clock: Clock) -> None:
    """A live claim is reported as held in any case."""
    jobs.acquire(ttlSeconds=1)
    other = {"threadId": "thread-2", "messageId": "message-2", "minIntervalSeconds": 60}
    assert jobs.acquire(**other)["reason"] == "held"
    clock.advance(10)
    assert jobs.acquire(**other)["reason"] == "rate_limited"
    assert jobs.acquire(**other | {"minIntervalSeconds": 0})["claimed"] is True


def test_the_first_claim_of_a_workspace_is_never_rate_limited(jobs: Jobs) -> None:
    assert jobs.acquire(minIntervalSeconds=60)["claimed"] is True


OLDER = {
    "ttl, live": ({"ttl": NOW + 60}, "held", 60),
    "ttl in ms, live": ({"ttl": (NOW + 60) * 1000}, "held", 60),
    "expiresAt in ms, live": ({"expiresAt": (NOW + 60) * 1000, "ttl": 1}, "held", 60),
    "ttl within the margin": ({"ttl": NOW - 1}, "held", 0),
    "ttl in ms within the margin": ({"ttl": (NOW - 1) * 1000}, "held", 0),
    "ttl, past": ({"ttl": NOW - 2}, None, None),
    "ttl in ms, past": ({"ttl": (NOW - 2) * 1000}, None, None),
    "expiresAt in ms, past": ({"expiresAt": (NOW - 2) * 1000, "ttl": NOW + 60}, None, None),
    "no end, ISO, young": ({"claimedAt": iso(-HOUR + 1)}, "held", None),
    "no end, ISO, old": ({"claimedAt": iso(-HOUR)}, None, None),
    "no end, ms, young": ({"claimedAt": (NOW - HOUR + 1) * 1000}, "held", None),
    "no end, ms, old": ({"claimedAt": (NOW - HOUR) * 1000}, None, None),
    "no end, seconds, young": ({"claimedAt": NOW - HOUR + 1}, "held", None),
    "no end, seconds, old": ({"claimedAt": NOW - HOUR}, None, None),
    "no end, in an hour": ({"claimedAt": iso(HOUR)}, "held", None),
    "no end, in two days": ({"claimedAt": iso(2 * DAY)}, None, None),
    "no end, in two days, ms": ({"claimedAt": (NOW + 2 * DAY) * 1000}, None, None),
    "no end, no beginning": ({}, None, None),
    "no end, beginning unreadable": ({"claimedAt": "yesterday"}, None, None),
    "no end, beginning null": ({"claimedAt": None}, None, None),
    "end is text, old": ({"expiresAt": iso(60), "claimedAt": iso(-HOUR)}, None, None),
    "end is text, young": ({"expiresAt": iso(-60), "claimedAt": iso(-60)}, "held", None),
    "end is null": ({"expiresAt": None, "ttl": None}, None, None),
    "end is null, ttl live": ({"expiresAt": None, "ttl": NOW + 60}, "held", 60),
    "end is text, ttl past": ({"expiresAt": "soon", "ttl": NOW - 2}, None, None),
    "end is true": ({"expiresAt": True}, None, None),
}


@pytest.mark.parametrize("case", OLDER)
def test_rows_of_older_writers_hold_until_their_end_or_an_hour(jobs: Jobs, case: str) -> None:
    """After that the workspace is claimed as usual."""
    attributes, reason, seconds = OLDER[case]
    jobs.put(**older_row(**attributes))
    before = jobs.row()

    answer = jobs.acquire()

    assert answer.get("reason") == reason
    if reason is None:
        row = jobs.row()
        assert (row["claimId"], row["expiresAt"]) == (answer["claimId"], answer["expiresAt"])
        assert "ttl" not in row
        assert jobs.release(answer)["released"] is True
    else:
        assert jobs.row() == before
        assert answer["holder"] == {
            "threadId": "thread-old",
            "messageId": "message-old",
            "containerId": "container-old",
            "claimId": None,
            "fence": None,
            "expiresInSeconds": seconds,
        }


def test_an_expired_row_of_an_older_writer_is_not_joined(jobs: Jobs) -> None:
    """Within the skew margin the message waits."""
    jobs.put(**older_row(expiresAt=int(NOW)))
    assert jobs.acquire(threadId="thread-old")["reason"] == "held"


def test_a_row_of_an_older_writer_is_joined_without_extension(jobs: Jobs) -> None:
    """It has no claim to extend, and is not taken for a repetition."""
    jobs.put(**older_row(ttl=int(NOW) + 60))
    before = jobs.row()
    answer = jobs.acquire(threadId="thread-old", messageId="message-old")
    assert (answer["claimed"], answer["reason"]) == (False, "same_thread")
    assert jobs.row() == before


def test_a_first_fence_comes_from_the_clock(jobs: Jobs) -> None:
    """Without a stored fence, it is higher than any counter of an older writer."""
    jobs.put(**older_row(ttl=1))
    assert jobs.acquire()["fence"] == int(NOW * 1000) + 1


@pytest.mark.parametrize("prepare", ["nothing", "held", "free", "own", "rate_limited"])
def test_acquire_is_one_write_and_no_read(jobs: Jobs, prepare: str) -> None:
    """An acquisition is one UpdateItem, whether granted, refused or repeated."""
    event: dict[str, Any] = {"threadId": "thread-2", "messageId": "message-2"}
    if prepare != "nothing":
        claim = jobs.acquire()
        if prepare in ("free", "rate_limited"):
            jobs.release(claim)
        if prepare == "own":
            event = {}
        if prepare == "rate_limited":
            event["minIntervalSeconds"] = 60
    calls = jobs.stack.calls(jobs.function("claim").dynamodb)

    jobs.acquire(**event)

    assert calls.counts() == {"UpdateItem": 1}


def test_joining_renewing_and_releasing_make_no_reads(jobs: Jobs) -> None:
    """Joining makes a second write; renewal and release make one each."""
    claim = jobs.acquire()
    calls = jobs.stack.calls(jobs.function("claim").dynamodb)
    jobs.acquire(messageId="message-2", ttlSeconds=2 * HOUR)
    assert calls.counts() == {"UpdateItem": 2}
    jobs.renew(claim)
    jobs.release(claim)
    assert calls.counts() == {"UpdateItem": 4}


@pytest.mark.parametrize("value", HOSTILE_IDS)
@pytest.mark.parametrize("field", ["threadId", "messageId"])
def test_malformed_ids_are_refused_with_the_fields_name(jobs: Jobs, field: str, value: Any) -> None:
    """Nothing is written."""
    with pytest.raises(ValidationError) as refused:
        jobs.acquire(**{field: value})
    assert refused.value.field == field
    assert jobs.row() == {}


@pytest.mark.parametrize("operation", ["renew", "release"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"claimId": "a#b"}, "claimId"),
        ({"claimId": None}, "claimId"),
        ({"fence": None}, "fence"),
        ({"fence": "7"}, "fence"),
        ({"fence": 7.5}, "fence"),
        ({"fence": -1}, "fence"),
        ({"fence": 2**53 + 1}, "fence"),
        ({"projectUserId": "amelia"}, "projectUserId"),
        ({"projectUserId": None}, "projectId"),
    ],
)
def test_renewal_and_release_refuse_malformed_claim_fields(
    jobs: Jobs, operation: str, change: dict[str, Any], field: str
) -> None:
    """Claim id, fence and workspace are required."""
    claim = jobs.acquire()
    before = jobs.row()
    with pytest.raises(ValidationError) as refused:
        jobs.call("claim", operation=operation, **holding(claim) | change)
    assert refused.value.field == field
    assert jobs.row() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"operation": "steal"}, "operation"),
        ({"operation": ["acquire"]}, "operation"),
        ({"operation": None}, "operation"),
        ({"ttlSeconds": 0}, "ttlSeconds"),
        ({"ttlSeconds": DAY + 1}, "ttlSeconds"),
        ({"ttlSeconds": "60"}, "ttlSeconds"),
        ({"ttlSeconds": True}, "ttlSeconds"),
        ({"minIntervalSeconds": -1}, "minIntervalSeconds"),
        ({"minIntervalSeconds": float("nan")}, "minIntervalSeconds"),
        ({"owner": ""}, "owner"),
        ({"owner": 7}, "owner"),
        ({"owner": "x" * 2049}, "owner"),
        ({"owner": "é" * 1025}, "owner"),
        ({"owner": "\ud800"}, "owner"),
        ({"projectId": "other"}, "projectId"),
        ({"projectUserId": "a#b#c"}, "projectUserId"),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, change: dict[str, Any], field: str
) -> None:
    """The message says what is wrong with the field, and nothing is written."""
    event = {"projectUserId": WORKSPACE, "threadId": "thread-1", "messageId": "message-1"}
    with pytest.raises(ValidationError) as refused:
        jobs.call("claim", **event | change)
    assert refused.value.field == field
    assert type(refused.value).__name__ == "ValidationError"
    assert jobs.row() == {}


@pytest.mark.parametrize("reason", ["", 7, "x" * 2049, "\udfff"])
def test_a_release_with_a_malformed_reason_is_refused(jobs: Jobs, reason: Any) -> None:
    """A reason is a short text, or absent."""
    claim = jobs.acquire()
    with pytest.raises(ValidationError, match="^reason: "):
        jobs.release(claim, reason=reason)
    assert jobs.row()["state"] == "held"


def test_whole_numbers_with_a_decimal_point_are_accepted(jobs: Jobs) -> None:
    """Step Functions may write 60 as 60.0."""
    claim = jobs.acquire(ttlSeconds=60.0)
    assert claim["expiresAt"] == 1_795_342_531 + 60
    assert jobs.renew(claim, fence=float(claim["fence"]), ttlSeconds=120.0)["renewed"] is True


@pytest.mark.parametrize("operation", ["acquire", "renew", "release"])
def test_an_error_of_dynamodb_is_raised_unchanged(jobs: Jobs, operation: str) -> None:
    """The flow's Retry matches errors by name."""
    claim = jobs.acquire()
    module = jobs.function("claim")
    jobs.stack.fail(module.dynamodb, "UpdateItem")
    with pytest.raises(module.dynamodb.exceptions.ProvisionedThroughputExceededException):
        jobs.call("claim", operation=operation, threadId="t", messageId="m", **holding(claim))


def test_claims_of_two_workspaces_are_independent(jobs: Jobs) -> None:
    """The same message may run in both."""
    one, other = jobs.acquire("a#b-c"), jobs.acquire("a-b#c")
    assert one["claimed"] and other["claimed"]
    assert one["claimId"] != other["claimId"]


def test_every_claim_has_a_new_claim_id_and_container_id(jobs: Jobs) -> None:
    """Even two claims at the same time."""
    claims = [jobs.acquire(f"amelia#user-{number}") for number in range(20)]
    assert len({claim["claimId"] for claim in claims}) == 20
    assert len({claim["containerId"] for claim in claims}) == 20


def test_each_operation_is_logged_and_counted(jobs: Jobs, output: Output) -> None:
    """The log line has the workspace, the claim and the reason."""
    claim = jobs.acquire()
    jobs.acquire(threadId="thread-2", messageId="message-2")

    granted, refused = output.logged("claim")
    assert (granted["project_user_id"], granted["claim_id"]) == (WORKSPACE, claim["claimId"])
    assert granted["fence"] == claim["fence"]
    assert refused["reason"] == "held"
    assert [line["Action"] for line in output.metric("ClaimOperation")] == ["acquire"] * 2


def test_concurrent_calls_in_one_process_do_not_mix(jobs: Jobs) -> None:
    """Each workspace gets its own answer."""
    module = jobs.function("claim")
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda number: module.acquire(
                    {"projectUserId": f"a#{number}", "threadId": "t", "messageId": f"m-{number}"},
                    NOW,
                ),
                range(8),
            )
        )
    rows = [jobs.row(f"a#{number}") for number in range(8)]
    assert [row["claimId"] for row in rows] == [answer["claimId"] for answer in answers]
