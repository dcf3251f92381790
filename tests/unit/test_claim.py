"""claim: acquire, renew and release a workspace."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from jobplane_keys import ValidationError
from tests.unit.claims import HOSTILE_IDS, HOUR, NOW, WORKSPACE, Jobs, holding, iso, older_row
from tests.unit.stack import Output

DAY = 24 * HOUR


def test_a_free_workspace_is_claimed(jobs: Jobs) -> None:
    answer = jobs.acquire(owner="arn:of:an:execution")
    assert answer.keys() == {"claimed", "claimId", "fence", "containerId", "expiresAt"}
    assert answer["claimed"] is True
    assert answer["expiresAt"] == 1_795_342_531 + HOUR
    assert re.fullmatch(r"container-1795342530250-[0-9a-f]{8}", answer["containerId"])
    assert jobs.row() == {
        "projectUserId": WORKSPACE, "state": "held", "claimId": answer["claimId"],
        "fence": answer["fence"], "threadId": "thread-1", "messageId": "message-1",
        "owner": "arn:of:an:execution", "containerId": answer["containerId"],
        "claimedAt": iso(0), "lastClaimAt": NOW, "expiresAt": answer["expiresAt"],
        "purgeAt": int(NOW) + 30 * DAY,
    }  # fmt: skip


def test_project_and_user_ids_name_the_same_workspace_as_the_key(jobs: Jobs) -> None:
    answer = jobs.acquire(None, projectId="amelia", userId="scott")
    assert jobs.row()["claimId"] == answer["claimId"]


def test_a_message_of_another_thread_is_refused_with_the_holder(jobs: Jobs) -> None:
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()
    answer = jobs.acquire(threadId="thread-2", messageId="message-2")
    assert answer == {
        "claimed": False,
        "reason": "held",
        "holder": {
            "threadId": "thread-1", "messageId": "message-1",
            "containerId": claim["containerId"], "claimId": claim["claimId"],
            "fence": claim["fence"], "expiresInSeconds": 101,
        },
    }  # fmt: skip
    assert jobs.row() == before


@pytest.mark.parametrize(("ttl", "later"), [(100, 50), (10, 0)], ids=["extends", "is shorter"])
def test_a_message_of_the_same_thread_joins_the_claim(jobs: Jobs, ttl: int, later: int) -> None:
    """The claim still belongs to the first message, and never becomes shorter."""
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()
    jobs.clock.advance(50)
    answer = jobs.acquire(messageId="message-2", ttlSeconds=ttl)
    assert (answer["claimed"], answer["reason"]) == (False, "same_thread")
    assert answer["holder"]["claimId"] == claim["claimId"]
    changed = {"expiresAt": claim["expiresAt"] + later, "purgeAt": before["purgeAt"] + later}
    assert jobs.row() == before | changed


@pytest.mark.parametrize("late", [0, 1, 1.9])
@pytest.mark.parametrize("message", ["message-1", "message-2"])
def test_an_expired_claim_is_neither_joined_nor_given_again(
    jobs: Jobs, late: float, message: str
) -> None:
    """Within the skew margin the message waits: its claim could not be renewed."""
    claim = jobs.acquire(ttlSeconds=100, owner="execution-1")
    before = jobs.row()
    jobs.clock.now = claim["expiresAt"] + late
    answer = jobs.acquire(messageId=message, owner="execution-1")
    assert (answer["reason"], answer["holder"]["expiresInSeconds"]) == ("held", 0)
    assert jobs.row() == before


@pytest.mark.parametrize("is_taken", [False, True], ids=["released", "taken over"])
def test_a_claim_lost_before_the_extension_is_not_joined(jobs: Jobs, is_taken: bool) -> None:
    """The message must try again."""
    claim = jobs.acquire(ttlSeconds=100)
    module = jobs.function("claim")
    write_held = module.write_held

    def release_first(*arguments: Any) -> Any:
        jobs.stack.monkeypatch.setattr(module, "write_held", write_held)
        assert jobs.release(claim)["released"]
        if is_taken:
            assert jobs.acquire(threadId="thread-2", messageId="message-3")["claimed"]
        return write_held(*arguments)

    jobs.stack.monkeypatch.setattr(module, "write_held", release_first)
    assert jobs.acquire(messageId="message-2")["reason"] == "held"
    assert jobs.row()["state"] == ("held" if is_taken else "free")
    assert jobs.acquire(messageId="message-2")["claimed"] is not is_taken


@pytest.mark.parametrize(
    ("offset", "claimed"), [(-1, False), (0, False), (1, False), (1.9, False), (2, True), (3, True)]
)
def test_a_claim_can_be_taken_two_seconds_after_its_end(
    jobs: Jobs, offset: float, claimed: bool
) -> None:
    """The margin allows for clocks that differ."""
    first = jobs.acquire(ttlSeconds=100)
    jobs.clock.now = first["expiresAt"] + offset
    answer = jobs.acquire(threadId="thread-2", messageId="message-2")
    assert answer["claimed"] is claimed
    if claimed:
        assert answer["fence"] == first["fence"] + 1
        assert answer["claimId"] != first["claimId"]


def test_a_repeated_acquisition_gets_the_same_claim(jobs: Jobs) -> None:
    first = jobs.acquire(owner="execution-1")
    before = jobs.row()
    jobs.clock.advance(5)
    assert jobs.acquire(owner="execution-1") == first
    assert jobs.acquire(owner="execution-1", minIntervalSeconds=60) == first
    assert jobs.row() == before


@pytest.mark.parametrize("owner", ["execution-2", None])
def test_the_same_message_of_another_execution_joins(jobs: Jobs, owner: str | None) -> None:
    jobs.acquire(owner="execution-1")
    assert jobs.acquire(owner=owner)["reason"] == "same_thread"


def test_the_fence_grows_over_release_expiry_and_deletion(jobs: Jobs) -> None:
    fences = []
    for number in range(3):
        claim = jobs.acquire(messageId=f"message-{number}")
        fences.append(claim["fence"])
        assert jobs.release(claim)["released"]
        jobs.clock.advance(1)
    jobs.acquire(ttlSeconds=1)
    fences.append(jobs.row()["fence"])
    jobs.clock.advance(30 * DAY + 1)
    jobs.delete()
    fences.append(jobs.acquire(messageId="message-9")["fence"])
    assert fences == sorted(set(fences))
    assert fences[:4] == [fences[0] + number for number in range(4)]


def test_a_renewal_sets_the_end_to_the_requested_time(jobs: Jobs) -> None:
    """As often as wanted; by default to an hour later."""
    claim = jobs.acquire(ttlSeconds=100)
    jobs.clock.advance(50)
    expected = {"renewed": True, "expiresAt": claim["expiresAt"] + 50}
    for _ in range(2):
        assert jobs.renew(claim, ttlSeconds=100) == expected
    assert jobs.row()["expiresAt"] == claim["expiresAt"] + 50
    assert jobs.renew(claim)["expiresAt"] == 1_795_342_531 + 50 + HOUR


@pytest.mark.parametrize(("offset", "renewed"), [(-1, True), (-0.1, True), (0, False), (1, False)])
def test_an_expired_claim_is_not_renewed(jobs: Jobs, offset: float, renewed: bool) -> None:
    claim = jobs.acquire(ttlSeconds=100)
    before = jobs.row()
    jobs.clock.now = claim["expiresAt"] + offset
    answer = jobs.renew(claim)
    assert answer["renewed"] is renewed
    if not renewed:
        assert answer["reason"] == "expired"
        assert jobs.row() == before


def test_a_release_keeps_the_row_with_fence_and_reason(jobs: Jobs) -> None:
    claim = jobs.acquire()
    jobs.clock.advance(10)
    assert jobs.release(claim, reason="finished") == {"released": True, "repeated": False}
    row = jobs.row()
    assert len(row.pop("write_id")) == 16
    assert row == {
        "projectUserId": WORKSPACE, "state": "free", "fence": claim["fence"],
        "lastClaimAt": NOW,
        "lastReleased": {"claimId": claim["claimId"], "at": iso(10), "reason": "finished"},
        "purgeAt": int(NOW) + 10 + 30 * DAY,
    }  # fmt: skip


def test_a_claim_or_release_whose_answer_is_lost_is_made_once(jobs: Jobs) -> None:
    """The answer has the claim that was made; only the caller's second release is repeated."""
    lost = jobs.stack.lose_answer(jobs.function("claim").dynamodb, "UpdateItem")
    claim = jobs.acquire()
    assert (claim["claimed"], lost["UpdateItem"]) == (True, 1)
    assert claim["claimId"] == jobs.row()["claimId"]
    lost = jobs.stack.lose_answer(jobs.function("claim").dynamodb, "UpdateItem")
    assert jobs.release(claim) == {"released": True, "repeated": False}
    assert lost["UpdateItem"] == 1


@pytest.mark.parametrize("message", ["message-1", "message-2"])
def test_a_renewal_whose_answer_is_lost_is_made(jobs: Jobs, message: str) -> None:
    claim = jobs.acquire(ttlSeconds=100)
    jobs.clock.advance(10)
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


def test_a_second_release_succeeds_and_changes_nothing(jobs: Jobs) -> None:
    """Nor is the claim renewed, even if it had expired before; a successor's claim stays."""
    claim = jobs.acquire(ttlSeconds=1)
    jobs.clock.advance(HOUR)
    assert jobs.release(claim)["released"] is True
    before = jobs.row()
    jobs.clock.advance(1)
    assert jobs.renew(claim) == {"renewed": False, "reason": "released"}
    assert jobs.release(claim, reason="again") == {"released": True, "repeated": True}
    assert jobs.row() == before
    jobs.acquire(threadId="thread-2", messageId="message-2")
    taken = jobs.row()
    assert jobs.release(claim) == {"released": True, "repeated": True}
    assert jobs.row() == taken


@pytest.mark.parametrize("is_over", [False, True], ids=["successor", "former successor"])
def test_a_superseded_holder_neither_renews_nor_releases(jobs: Jobs, is_over: bool) -> None:
    """Its release is not taken for a repetition."""
    stale = jobs.acquire(ttlSeconds=1)
    jobs.clock.advance(10)
    successor = jobs.acquire(threadId="thread-2", messageId="message-2")
    if is_over:
        jobs.release(successor)
    before = jobs.row()
    assert jobs.renew(stale) == {"renewed": False, "reason": "superseded"}
    assert jobs.release(stale) == {"released": False, "reason": "superseded"}
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
    claim = {"claimId": "claim-1", "fence": 7}
    assert jobs.renew(claim) == {"renewed": False, "reason": "absent"}
    assert jobs.release(claim) == {"released": False, "reason": "absent"}
    assert jobs.row() == {}


def test_the_first_taker_keeps_the_fence(jobs: Jobs) -> None:
    """The worker that gets a job's message first works under the fence of the claim."""
    claim = jobs.acquire()
    taken = jobs.renew(claim, taker="worker-1", takerSeconds=120)
    assert (taken["renewed"], taken["fence"]) == (True, claim["fence"])
    assert jobs.renew(claim, takerSeconds=120)["renewed"] is True


@pytest.mark.parametrize("is_lost", [False, True])
def test_taking_over_raises_the_fence(jobs: Jobs, is_lost: bool) -> None:
    """The worker before can't renew any more, and an answer that was lost is given again."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1", takerSeconds=120)
    jobs.clock.advance(123)
    for _ in range(2 if is_lost else 1):
        taken = jobs.renew(claim, taker="worker-2", takerSeconds=120)
        assert (taken["renewed"], taken["fence"]) == (True, claim["fence"] + 1)
    assert jobs.renew(claim) == {"renewed": False, "reason": "taken"}
    assert jobs.renew(claim | {"fence": taken["fence"]})["renewed"] is True
    jobs.clock.advance(123)
    assert jobs.renew(claim, taker="worker-3")["fence"] == claim["fence"] + 2


def test_an_expired_claim_is_not_taken(jobs: Jobs) -> None:
    """Nor prolonged by a message that found it valid before."""
    claim = jobs.acquire(ttlSeconds=10)
    row, module = jobs.row(), jobs.function("claim")
    jobs.clock.advance(11)
    assert jobs.renew(claim, taker="worker-1") == {"renewed": False, "reason": "expired"}
    event = {"projectUserId": WORKSPACE, "threadId": "thread-1", "messageId": "message-2"}
    assert not module.prolong(row, module.Acquisition.of(event), jobs.clock.now)
    assert jobs.row() == row


def test_a_working_taker_is_not_relieved(jobs: Jobs) -> None:
    """Its renewals keep every other one away, though the message be delivered again."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1", takerSeconds=120)
    for _ in range(4):
        jobs.clock.advance(100)
        assert jobs.renew(claim, taker="worker-2") == {"renewed": False, "reason": "taken"}
        assert jobs.renew(claim, takerSeconds=120)["renewed"] is True


@pytest.mark.parametrize("is_overtaken", [True, False], ids=["another taker", "SDK retry"])
def test_a_taker_that_finds_the_fence_raised(jobs: Jobs, is_overtaken: bool) -> None:
    """Another taker raised it: refused. Its own write did, which the SDK sent twice: granted."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-0")
    jobs.clock.advance(3)
    module = jobs.function("claim")
    update_item = module.dynamodb.update_item

    def raised_first(**parameters: Any) -> Any:
        if "firstFence" in parameters["UpdateExpression"]:
            module.dynamodb.update_item = update_item
            if is_overtaken:
                assert jobs.renew(claim, taker="worker-2", takerSeconds=60)["renewed"] is True
            else:
                update_item(**parameters)
        return update_item(**parameters)

    with patch.object(module.dynamodb, "update_item", raised_first):
        answer = module.renew(holding(claim) | {"taker": "worker-1"}, jobs.clock.now)
    row = jobs.row()
    assert row["fence"] == claim["fence"] + 1
    assert row["taker"] == ("worker-2" if is_overtaken else "worker-1")
    if is_overtaken:
        assert answer == {"renewed": False, "reason": "taken"}
    else:
        assert answer["fence"] == row["fence"]


@pytest.mark.parametrize("state", ["expired", "released", "superseded", "absent"])
def test_a_lost_claim_is_not_taken_over(jobs: Jobs, state: str) -> None:
    """A late message brings nothing back."""
    claim = jobs.acquire(ttlSeconds=60)
    jobs.renew(claim, taker="worker-1", ttlSeconds=60)
    if state == "released":
        jobs.release(claim)
    else:
        jobs.clock.advance(70)
    if state == "superseded":
        jobs.acquire(threadId="thread-2", messageId="message-2")
    if state == "absent":
        jobs.delete()
    before = jobs.row()
    assert jobs.renew(claim, taker="worker-2") == {"renewed": False, "reason": state}
    assert jobs.row() == before


def test_the_execution_releases_whoever_has_its_job(jobs: Jobs) -> None:
    """It knows the fence of its claim; a worker releases under the fence that it has."""
    claim = jobs.acquire()
    jobs.renew(claim, taker="worker-1")
    jobs.clock.advance(3)
    taken = claim | {"fence": jobs.renew(claim, taker="worker-2")["fence"]}
    assert jobs.release(claim, taker="worker-1") == {"released": False, "reason": "superseded"}
    assert jobs.release(claim)["released"] is True
    again = jobs.acquire()
    assert again["fence"] == taken["fence"] + 1
    assert {"taker", "takenUntil", "firstFence"}.isdisjoint(jobs.row())


def test_a_follow_up_is_for_one_worker(jobs: Jobs) -> None:
    """Workers that share an owner's name do not share a fence."""
    wish = {"owner": "worker", "takerSeconds": 120}
    first = jobs.acquire(taker="worker/1", **wish)
    assert jobs.acquire(taker="worker/1", **wish) == first
    assert jobs.acquire(taker="worker/2", **wish)["reason"] == "same_thread"
    jobs.clock.advance(123)
    second = jobs.acquire(taker="worker/2", **wish)
    assert (second["claimId"], second["fence"]) == (first["claimId"], first["fence"] + 1)
    assert jobs.renew(first) == {"renewed": False, "reason": "taken"}


@pytest.mark.parametrize("change", [{"claimId": "claim-0"}, {"fence": 1}])
def test_renewal_and_release_need_both_claim_id_and_fence(
    jobs: Jobs, change: dict[str, Any]
) -> None:
    claim = jobs.acquire()
    before = jobs.row()
    assert jobs.renew(claim | change)["reason"] == "superseded"
    assert jobs.release(claim | change)["reason"] == "superseded"
    assert jobs.row() == before


@pytest.mark.parametrize(
    ("passed", "seconds"), [(0, 60), (0.5, 60), (59, 1), (59.9, 1), (60, None), (61, None)]
)
def test_a_claim_within_the_minimum_interval_is_rate_limited(
    jobs: Jobs, passed: float, seconds: int | None
) -> None:
    """The answer says when to try again."""
    jobs.release(jobs.acquire())
    before = jobs.row()
    jobs.clock.advance(passed)
    given = jobs.acquire(messageId="message-2", minIntervalSeconds=60)
    if seconds is None:
        assert given["claimed"] is True
    else:
        assert given == {"claimed": False, "reason": "rate_limited", "retryAfterSeconds": seconds}
        assert jobs.row() == before


def test_only_a_claim_starts_the_minimum_interval(jobs: Jobs) -> None:
    """Refusals, renewals and releases do not restart it; the first claim is never limited."""
    claim = jobs.acquire(minIntervalSeconds=60)
    assert claim["claimed"] is True
    jobs.clock.advance(30)
    jobs.renew(claim)
    jobs.release(claim)
    assert jobs.acquire(messageId="message-2", minIntervalSeconds=60)["claimed"] is False
    jobs.clock.advance(30)
    assert jobs.acquire(messageId="message-2", minIntervalSeconds=60)["claimed"] is True


def test_the_minimum_interval_also_counts_from_an_expired_claim(jobs: Jobs) -> None:
    jobs.acquire(ttlSeconds=1)
    other = {"threadId": "thread-2", "messageId": "message-2", "minIntervalSeconds": 60}
    assert jobs.acquire(**other)["reason"] == "held"
    jobs.clock.advance(10)
    assert jobs.acquire(**other)["reason"] == "rate_limited"
    assert jobs.acquire(**other | {"minIntervalSeconds": 0})["claimed"] is True


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
            "threadId": "thread-old", "messageId": "message-old",
            "containerId": "container-old", "claimId": None, "fence": None,
            "expiresInSeconds": seconds,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("end", "reason"), [({"ttl": int(NOW) + 60}, "same_thread"), ({"expiresAt": int(NOW)}, "held")]
)
def test_a_row_of_an_older_writer_is_joined_without_extension(
    jobs: Jobs, end: dict[str, int], reason: str
) -> None:
    """It has no claim to extend, and the answer is not `repeated`; an expired row is not joined."""
    jobs.put(**older_row(**end))
    before = jobs.row()
    answer = jobs.acquire(threadId="thread-old", messageId="message-old")
    assert (answer["claimed"], answer["reason"]) == (False, reason)
    assert jobs.row() == before


def test_a_first_fence_comes_from_the_clock(jobs: Jobs) -> None:
    """Without a stored fence, it is higher than any counter of an older writer."""
    jobs.put(**older_row(ttl=1))
    assert jobs.acquire()["fence"] == int(NOW * 1000) + 1


@pytest.mark.parametrize(
    ("is_claimed", "is_released", "event"),
    [(False, False, {}), (True, False, {"threadId": "thread-2"}), (True, False, {}),
     (True, True, {}), (True, True, {"minIntervalSeconds": 60})],
    ids=["nothing", "held", "own", "free", "rate limited"],
)  # fmt: skip
def test_acquire_is_one_write_and_no_read(
    jobs: Jobs, is_claimed: bool, is_released: bool, event: dict[str, Any]
) -> None:
    claim = jobs.acquire() if is_claimed else {}
    if is_released:
        jobs.release(claim)
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


@pytest.mark.parametrize("operation", ["renew", "release"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"claimId": value}, "claimId") for value in ("a#b", None)),
        *(({"fence": value}, "fence") for value in (None, "7", 7.5, -1, 2**53 + 1)),
        ({"projectUserId": "amelia"}, "projectUserId"),
        ({"projectUserId": None}, "projectId"),
    ],
)
def test_renewal_and_release_refuse_malformed_claim_fields(
    jobs: Jobs, operation: str, change: dict[str, Any], field: str
) -> None:
    claim = jobs.acquire()
    before = jobs.row()
    with pytest.raises(ValidationError) as refused:
        jobs.call("claim", operation=operation, **holding(claim) | change)
    assert refused.value.field == field
    assert jobs.row() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"operation": value}, "operation") for value in ("steal", ["acquire"], None)),
        *(({"ttlSeconds": value}, "ttlSeconds") for value in (0, DAY + 1, "60", True)),
        *(({"minIntervalSeconds": value}, "minIntervalSeconds") for value in (-1, float("nan"))),
        *(({"owner": value}, "owner") for value in ("", 7, "x" * 2049, "é" * 1025, "\ud800")),
        *(({field: value}, field) for field in ("threadId", "messageId") for value in HOSTILE_IDS),
        ({"projectId": "other"}, "projectId"),
        ({"projectUserId": "a#b#c"}, "projectUserId"),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, change: dict[str, Any], field: str
) -> None:
    """Nothing is written."""
    event = {"projectUserId": WORKSPACE, "threadId": "thread-1", "messageId": "message-1"}
    with pytest.raises(ValidationError) as refused:
        jobs.call("claim", **event | change)
    assert refused.value.field == field
    assert type(refused.value).__name__ == "ValidationError"
    assert jobs.row() == {}


@pytest.mark.parametrize("reason", ["", 7, "x" * 2049, "\udfff"])
def test_a_release_with_a_malformed_reason_is_refused(jobs: Jobs, reason: Any) -> None:
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
    one, other = jobs.acquire("a#b-c"), jobs.acquire("a-b#c")
    assert one["claimed"] and other["claimed"]
    assert one["claimId"] != other["claimId"]


def test_every_claim_has_a_new_claim_id_and_container_id(jobs: Jobs) -> None:
    claims = [jobs.acquire(f"amelia#user-{number}") for number in range(20)]
    assert len({claim["claimId"] for claim in claims}) == 20
    assert len({claim["containerId"] for claim in claims}) == 20


def test_each_operation_is_logged_and_counted(jobs: Jobs, output: Output) -> None:
    claim = jobs.acquire()
    jobs.acquire(threadId="thread-2", messageId="message-2")
    granted, refused = output.logged("claim")
    assert (granted["project_user_id"], granted["claim_id"]) == (WORKSPACE, claim["claimId"])
    assert granted["fence"] == claim["fence"]
    assert refused["reason"] == "held"
    assert [line["Action"] for line in output.metric("ClaimOperation")] == ["acquire"] * 2


def test_concurrent_calls_in_one_process_do_not_mix(jobs: Jobs) -> None:
    module = jobs.function("claim")
    event = {"threadId": "t", "messageId": "m"}
    names = [f"a#{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(module.acquire, event | {"projectUserId": n}, NOW) for n in names]
    assert [jobs.row(n)["claimId"] for n in names] == [c.result()["claimId"] for c in claims]
