"""jobplane_leases: conditional writes, and the states of a request."""

import ast
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobplane_keys import ValidationError, Workspace, execution_name, to_item
from jobplane_keys.lanes import why_waiting
from jobplane_leases import (
    DocumentChangedError,
    Lease,
    LeaseLostError,
    RequestLease,
    begin_document,
    create,
    enqueue_request,
    follow_assembly,
    is_transient,
    release_claim,
    update,
    update_item,
    write_assembly,
)
from jobplane_leases.instructions import enqueue_instruction
from tests.unit.stack import (
    OWNER,
    PREFIX,
    ROOT,
    TENANT,
    Row,
    Stack,
    client_error,
    connection,
    ended,
    iso,
    request,
    shard,
)

CONNECTIONS = PREFIX + "connections"
REQUESTS = PREFIX + "requests"
ASSEMBLIES = PREFIX + "assemblies"
CLAIMS = PREFIX + "active-jobs"
KEY = {"connection_id": "conn-1"}
NOW = 1_795_342_530.25
MOMENT = "2026-11-22T10:15:30.250Z"


def rename(stack: Stack, **options: Any) -> Any:
    """Take a connection that belongs to user-1."""
    change, values = "SET #user_id = :new", {"old": "user-1", "new": "user-2"}
    return changed(stack, change, "#user_id = :old", values, **options)


def changed(stack: Stack, change: str, condition: str, values: Row, **options: Any) -> Any:
    whole = {"change": change, "condition": condition, "values": values} | options
    return update(stack.dynamodb, CONNECTIONS, KEY, **whole)


def test_an_update_returns_the_new_item(stack: Stack) -> None:
    """With what it set, what was there before, and the write's id."""
    stack.put("connections", connection())
    done, row = rename(stack)
    assert done
    assert row == stack.get("connections", **KEY)
    assert row == connection(user_id="user-2", write_id=row["write_id"]) | {
        name: row[name] for name in ("connected_at", "last_seen_at", "token_expires_at", "ttl")
    }


def test_each_update_has_an_id_of_its_own(stack: Stack) -> None:
    """An equal update of another caller is not taken for this one."""
    stack.put("connections", connection())
    first = rename(stack).item["write_id"]
    stack.put("connections", connection())
    assert rename(stack).item["write_id"] != first


def test_a_refused_update_returns_what_stands_in_its_way(stack: Stack) -> None:
    """And changes nothing."""
    there = connection(user_id="user-3", write_id="another")
    stack.put("connections", there)
    assert rename(stack) == (False, there)
    assert stack.items("connections") == [there]


def test_a_refused_update_without_an_item(stack: Stack) -> None:
    """It returns an empty one, and makes none."""
    assert rename(stack) == (False, {})
    assert stack.items("connections") == []


def test_an_update_whose_answer_is_lost(stack: Stack) -> None:
    """The repetition fails its condition, and the item's id says whose write it is."""
    stack.put("connections", connection())
    lost = stack.lose_answer(stack.dynamodb, "UpdateItem")
    calls = stack.calls(stack.dynamodb)
    done, row = rename(stack)
    assert (done, row["user_id"], lost["UpdateItem"]) == (True, "user-2", 1)
    assert calls.counts() == {"UpdateItem": 1}


def test_an_update_without_an_id_is_made_again(stack: Stack) -> None:
    """Its condition holds after it, too; so the repetition succeeds, and leaves no attribute."""
    stack.put("connections", connection())
    lost = stack.lose_answer(stack.dynamodb, "UpdateItem")
    condition = "attribute_exists(connection_id)"
    done, row = changed(stack, "SET last_seen_at = :now", condition, {"now": MOMENT}, mark=None)
    assert (done, row["last_seen_at"], lost["UpdateItem"]) == (True, MOMENT, 1)
    assert "write_id" not in row


def test_another_mark_leaves_the_first_one_alone(stack: Stack) -> None:
    """Two kinds of writes to one item each recognise their own."""
    stack.put("connections", connection(write_id="another"))
    _, row = rename(stack, mark="name_id")
    assert (row["write_id"], len(row["name_id"])) == ("another", 16)


def test_an_update_that_only_removes_or_adds(stack: Stack) -> None:
    """The id is set beside it."""
    stack.put("connections", connection())
    condition = "attribute_exists(endpoint)"
    _, row = changed(stack, "REMOVE endpoint ADD visits :one", condition, {"one": 1})
    assert ("endpoint" in row, row["visits"], len(row["write_id"])) == (False, 1, 16)


def test_an_update_by_its_parameters(stack: Stack) -> None:
    """DynamoDB's answers come back as they are, and a lost one has the item."""
    stack.put("connections", connection())
    parameters: Row = {
        "TableName": CONNECTIONS, "Key": to_item(KEY), "ReturnValues": "ALL_NEW",
        "UpdateExpression": "SET user_id = :new", "ConditionExpression": "user_id = :old",
        "ExpressionAttributeValues": {":old": {"S": "user-1"}, ":new": {"S": "user-2"}},
    }  # fmt: skip
    stack.lose_answer(stack.dynamodb, "UpdateItem")
    done, answer = update_item(stack.dynamodb, parameters)
    assert (done, answer["Attributes"]["user_id"]) == (True, {"S": "user-2"})
    done, answer = update_item(stack.dynamodb, parameters)
    assert (done, answer["Item"]["user_id"]) == (False, {"S": "user-2"})


def put(stack: Stack, row: Row) -> Any:
    return create(stack.dynamodb, CONNECTIONS, row, condition="attribute_not_exists(connection_id)")


@pytest.mark.parametrize("lose", [False, True], ids=["answered", "answer lost"])
def test_an_item_is_created_once(stack: Stack, lose: bool) -> None:
    """The item under the key is returned, also after a put of an equal one."""
    if lose:
        stack.lose_answer(stack.dynamodb, "PutItem")
    done, row = put(stack, connection())
    assert (done, stack.items("connections")) == (True, [row])
    for other in (row, connection(user_id="user-2")):
        assert put(stack, other) == (False, row)
    assert stack.items("connections") == [row]


def test_a_write_that_meets_a_transaction_is_made_again(stack: Stack) -> None:
    """A bounded number of times; botocore does not do that."""
    stack.monkeypatch.setattr(time, "sleep", lambda seconds: None)
    stack.put("connections", connection())
    stack.fail(stack.dynamodb, "UpdateItem", "TransactionConflictException", times=5)
    assert rename(stack).done
    failed = stack.fail(stack.dynamodb, "UpdateItem", "TransactionConflictException")
    with pytest.raises(ClientError, match="TransactionConflict"):
        rename(stack)
    assert failed["UpdateItem"] == 6


def test_patience_is_asked_for(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a time until which it may try, a failed write is raised at once."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    stack.put("connections", connection())
    failed = stack.fail(stack.dynamodb, "UpdateItem", times=3)
    with pytest.raises(ClientError, match="Throughput"):
        rename(stack)
    assert (failed["UpdateItem"], slept) == (1, [])
    assert rename(stack, patient_until=time.time() + 60).done
    assert [0.25 <= slept[0] <= 0.5, 0.5 <= slept[1] <= 1.0] == [True, True]


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (client_error("ThrottlingException", 400), True),
        (client_error("Whatever", 503), True),
        (client_error("AccessDeniedException", 400), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ValueError(), False),
    ],
)
def test_what_may_succeed_later(error: Exception, transient: bool) -> None:
    """Throttling, a 5xx and a broken connection; not a missing permission."""
    assert is_transient(error) is transient


# The states of a request

ME = Lease("me", int(NOW) + 120)
PENDING = request(lease_until=int(NOW) + 300)
MINE = PENDING | {
    "status": "PROCESSING", "attempts": 1, "lease_owner": "me", "lease_until": int(NOW) + 60,
}  # fmt: skip
OTHERS = MINE | {"lease_owner": "other"}
PARKED = PENDING | {"status": "RETRYING", "attempts": 1, "lease_until": int(NOW) + 10}
SCHEDULED = PENDING | {"status": "SCHEDULED", "lease_until": int(NOW)}
EARLY = SCHEDULED | {"lease_until": int(NOW) + 1}
ENDED = ended()

type Step = Callable[[RequestLease], Any]
type Case = tuple[Step, Row, Row | None, Row | None]


def renew(lease: RequestLease) -> Any:
    return lease.renew(ME, NOW, {"seq": 4, "percentage": 50})


def store_steps(lease: RequestLease) -> Any:
    return lease.store_steps("me", {"steps": [{"name": "a"}], "step_count": 1}, NOW)


def finish(lease: RequestLease) -> Any:
    return lease.finish("me", {"status": "COMPLETED", "seq": 5, "result": "{}"}, NOW)


def put_back(lease: RequestLease) -> Any:
    return lease.put_back("me", int(NOW) + 9, NOW, keep=False, attempts=0)


def keep(lease: RequestLease) -> Any:
    return lease.put_back("me", int(NOW) + 9, NOW, keep=True)


def take(lease: RequestLease) -> Any:
    return lease.take(ME, NOW)


TAKEN = {
    "status": "PROCESSING", "lease_owner": "me", "lease_until": int(NOW) + 120,
    "lease_shard": shard("req-1"), "started_at": MOMENT, "updated_at": MOMENT,
}  # fmt: skip
NO_LEASE: Row = {"lease_owner": None, "lease_until": None, "lease_shard": None}
NO_STEPS: Row = {"steps": None, "step_count": None}

# By name: the step, the row that it finds, what it changes of that, and a row that it refuses.
STEPS: dict[str, Case] = {
    "take": (take, PENDING, TAKEN | {"attempts": 1}, MINE),
    "take what waits": (take, PARKED | {"lease_until": 1}, TAKEN | {"attempts": 2}, PARKED),
    "take what is kept": (
        take, PARKED | {"lease_owner": "me"}, TAKEN | {"attempts": 2},
        PARKED | {"lease_owner": "other"},
    ),
    "take what was left": (
        take, OTHERS | {"lease_until": 1}, TAKEN | {"attempts": 2}, OTHERS,
    ),
    "take the last attempt": (
        take, PENDING | {"attempts": 3}, TAKEN | {"attempts": 4}, PENDING | {"attempts": 4},
    ),
    "take what is due": (take, SCHEDULED, TAKEN | {"attempts": 1}, EARLY),
    "start": (
        lambda lease: lease.start(NOW), SCHEDULED,
        {"status": "PENDING", "lease_until": int(NOW) + 300}, EARLY,
    ),
    "take over": (
        lambda lease: lease.take_over(OTHERS, ME, NOW), OTHERS, TAKEN,
        OTHERS | {"lease_until": int(NOW) + 61},
    ),
    "renew": (
        renew, MINE,
        {"lease_until": int(NOW) + 120, "progress": {"seq": 4, "percentage": 50}}, OTHERS,
    ),
    "store steps": (
        store_steps, MINE, {"steps": [{"name": "a"}], "step_count": 1}, OTHERS,
    ),
    "finish": (
        finish, MINE | {"steps": [], "step_count": 1},
        NO_LEASE | NO_STEPS
        | {"status": "COMPLETED", "seq": 5, "result": "{}", "ended_at": MOMENT}, OTHERS,
    ),
    "put back": (
        put_back, MINE,
        {"status": "RETRYING", "lease_until": int(NOW) + 9, "lease_owner": None, "attempts": 0},
        OTHERS,
    ),
    "keep": (keep, MINE, {"status": "RETRYING", "lease_until": int(NOW) + 9}, OTHERS),
    "park": (
        lambda lease: lease.park(OTHERS, NOW), OTHERS, {"status": "RETRYING", "lease_owner": None},
        OTHERS | {"lease_until": int(NOW) + 61},
    ),
    "requeue": (
        lambda lease: lease.requeue(NOW), PARKED,
        {"status": "PENDING", "lease_until": int(NOW) + 300}, PARKED | {"lease_owner": "me"},
    ),
    "cancel": (
        lambda lease: lease.cancel(PENDING | {"progress": {"seq": 2}}, {"code": "CANCELLED"}, NOW),
        PENDING,
        NO_LEASE | {
            "status": "CANCELLED", "seq": 3, "error": {"code": "CANCELLED"},
            "cancel_requested": True, "ended_at": MOMENT,
        },
        PENDING | {"lease_until": int(NOW) + 301},
    ),
    "cancel what is scheduled": (
        lambda lease: lease.cancel(EARLY, {}, NOW), EARLY,
        NO_LEASE | {
            "status": "CANCELLED", "seq": 1, "error": {}, "cancel_requested": True,
            "ended_at": MOMENT,
        },
        PENDING,
    ),
    "ask to cancel": (
        lambda lease: lease.ask_to_cancel(), MINE, {"cancel_requested": True}, ENDED,
    ),
}  # fmt: skip
NAMES = ("step", "row", "changes", "refused")
every_step = pytest.mark.parametrize(NAMES, STEPS.values(), ids=STEPS)


def test_late_progress_does_not_replace_newer_progress(stack: Stack) -> None:
    """Another attempt would go on with its `seq`, and listeners drop what they seem to have."""
    stack.put("requests", MINE)
    lease = lease_of(stack)
    for seq in (1, 2, 2):
        lease.renew(ME, NOW, {"seq": seq})
    before = stack.request()
    with pytest.raises(LeaseLostError):
        lease.renew(ME, NOW + 9, {"seq": 1})
    assert stack.request() == before
    assert lease.renew(ME, NOW + 9)["progress"] == {"seq": 2}


def test_progress_need_not_move_the_end_of_a_lease(stack: Stack) -> None:
    """Such a write costs nothing of the index `in-flight`."""
    stack.put("requests", MINE)
    row = lease_of(stack).renew(Lease("me", int(NOW) + 99), NOW, {"seq": 1}, extend=False)
    assert (row["lease_until"], row["progress"]) == (MINE["lease_until"], {"seq": 1})


def lease_of(stack: Stack) -> RequestLease:
    return RequestLease(stack.dynamodb, REQUESTS, OWNER, "req-1")


def after(row: Row, changes: Row, stored: Row) -> Row:
    """A row with its changes; the time and the id of the write are as they were stored."""
    names = ("updated_at", "write_id", "step_write_id")
    written = {name: stored[name] for name in names if name in stored}
    changed = row | changes | written
    return {name: value for name, value in changed.items() if value is not None}


OPEN = MINE | {
    "steps": [{"name": "a"}], "step_count": 1, "step_write_id": "s1",
    "callback": {"step": "b", "digest": "d1", "expires": int(NOW) + 60, "sent": False},
}  # fmt: skip
WAITS = {name: value for name, value in OPEN.items() if name != "lease_owner"} | {
    "status": "RETRYING"
}
KEPT = {"status": "RETRYING"}
STOLEN = {"lease_owner": "other"}
ANSWERED = {"callback_answer": "1"}
NEXT_STEP = {"steps": [{"name": "a"}, {"name": "b"}], "step_count": 2}
REPLACED = {"callback": OPEN["callback"] | {"digest": "d2"}}
OVER = {"callback": OPEN["callback"] | {"expires": int(NOW)}}


@pytest.mark.parametrize(
    ("step", "row", "refused"),
    [
        (
            lambda lease: lease.store_steps("me", NEXT_STEP, NOW, callback="answered"), OPEN,
            (KEPT, STOLEN, {"step_count": 2}),
        ),
        (
            lambda lease: lease.store_steps("me", NEXT_STEP, NOW, callback="unanswered"), OPEN,
            (KEPT, STOLEN, {"step_count": 2}, ANSWERED),
        ),
        (
            lambda lease: lease.open_callback("me", {"step_write_id": "s1"}, REPLACED, NOW), OPEN,
            (KEPT, STOLEN, ANSWERED, {"step_write_id": "s2"}),
        ),
        (
            lambda lease: lease.await_callback("me", {}, int(NOW) + 60, 0, NOW), OPEN,
            (KEPT, STOLEN, ANSWERED),
        ),
        (
            lambda lease: lease.answer_callback("d1", "2", NOW, waits=True), WAITS,
            ({"status": "PENDING"}, {"lease_owner": "me"}, REPLACED, OVER, ANSWERED),
        ),
        (
            lambda lease: lease.answer_callback("d1", "2", NOW, waits=False), OPEN,
            (WAITS | {"lease_owner": None}, REPLACED, OVER, ANSWERED),
        ),
        (renew, OPEN, ({"lease_until": int(NOW) + 121},)),
    ],
    ids=["store", "time out", "open", "await", "answer what waits", "answer", "renew"],
)  # fmt: skip
def test_each_condition_of_a_write_alone(
    stack: Stack, step: Step, row: Row, refused: tuple[Row, ...]
) -> None:
    """A row that differs in one thing from one that takes the write stays as it is."""
    for change in refused:
        there = {name: value for name, value in (row | change).items() if value is not None}
        stack.put("requests", there)
        with suppress(LeaseLostError):
            step(lease_of(stack))
        assert stack.request() == there
    stack.put("requests", row)
    step(lease_of(stack))
    assert stack.request() != row


@every_step
def test_a_refused_step(stack: Stack, step: Step, row: Row, changes: Row, refused: Row) -> None:
    """It changes nothing, of another state, of an ended request, or of none."""
    for there in (None, refused, ENDED):
        if there is not None:
            stack.put("requests", there)
        try:
            answer = step(lease_of(stack))
        except LeaseLostError:
            answer = None
            assert step in (renew, store_steps, finish, put_back, keep)
        assert not answer
        assert stack.items("requests") == ([there] if there else [])


@every_step
@pytest.mark.parametrize("lose", [False, True], ids=["answered", "answer lost"])
def test_a_step(stack: Stack, step: Step, row: Row, changes: Row, refused: Row, lose: bool) -> None:
    """It changes what it is for, and returns the new row or that it was made.
    A repetition finds what it made: the answer and the row are those of one write.
    """
    stack.put("requests", row)
    lost = stack.lose_answer(stack.dynamodb, "UpdateItem") if lose else {"UpdateItem": 0}
    answer = step(lease_of(stack))
    stored = stack.request()
    assert lost["UpdateItem"] == lose
    assert stored == after(row, changes, stored)
    assert answer in (True, None) or answer == stored


def test_a_request_to_stop_hides_no_write(stack: Stack) -> None:
    """A worker whose answer was lost finds its write, though a cancellation came in between."""
    stack.put("requests", PENDING)
    whole, asked = stack.dynamodb.update_item, list[bool]()

    class Interrupted:
        def update_item(self, **parameters: Any) -> Any:
            whole(**parameters)
            asked.append(lease_of(stack).ask_to_cancel())
            return whole(**parameters)

    row = RequestLease(Interrupted(), REQUESTS, OWNER, "req-1").take(ME, NOW)
    assert row is not None
    assert (row["attempts"], row["cancel_requested"], asked) == (1, True, [True])


def cancel(lease: RequestLease, row: Row) -> Any:
    return lease.cancel(row, {"code": "CANCELLED"}, NOW)


def park(lease: RequestLease, row: Row) -> Any:
    return lease.park(row, NOW)


def take_over(lease: RequestLease, row: Row) -> Any:
    return lease.take_over(row, ME, NOW)


@pytest.mark.parametrize("step", [cancel, park, take_over])
def test_a_row_that_changed_and_looks_the_same_is_left_alone(
    stack: Stack, step: Callable[[RequestLease, Row], Any]
) -> None:
    """A worker took the request, posted progress and put it back, all within one second."""
    read = PENDING | {"write_id": "a"}
    changed = read | {"write_id": "b", "progress": {"seq": 1}}
    stack.put("requests", changed)
    assert not step(lease_of(stack), read)
    assert stack.items("requests") == [changed]
    assert step(lease_of(stack), changed)


NEW = {"owner": OWNER, "request_id": "req-1", "tenant_id": TENANT, "action": "echo"}


@pytest.mark.parametrize("lose", [False, True], ids=["answered", "answer lost"])
def test_a_request_is_enqueued(stack: Stack, lose: bool) -> None:
    """As PENDING, in the index of what is in flight, for a week; once."""
    if lose:
        stack.lose_answer(stack.dynamodb, "PutItem")
    done, row = enqueue_request(stack.dynamodb, REQUESTS, NEW, NOW)
    assert done
    assert row == stack.request()
    assert len(row.pop("write_id")) == 16
    assert row == NEW | {
        "status": "PENDING", "attempts": 0, "cancel_requested": False, "subscriber_count": 0,
        "lease_shard": shard("req-1"), "lease_until": int(NOW) + 300,
        "created_at": MOMENT, "updated_at": MOMENT, "ttl": int(NOW) + 7 * 86400,
    }  # fmt: skip


def test_a_request_that_is_due_later_is_scheduled(stack: Stack) -> None:
    """It is overdue from then on, and kept for a week after that."""
    due = NOW + 20 * 86400
    enqueue_request(stack.dynamodb, REQUESTS, NEW, NOW, due=due)
    row = stack.request()
    assert (row["status"], row["run_at"]) == ("SCHEDULED", iso(due))
    assert due <= row["lease_until"] < due + 1
    assert row["ttl"] == int(due) + 7 * 86400
    assert why_waiting(row) == {"reason": "scheduled", "since": MOMENT, "until": iso(due)}


def test_an_id_is_enqueued_once(stack: Stack) -> None:
    """The row under it is returned; one that has expired is replaced."""
    stack.put("requests", PENDING)
    assert enqueue_request(stack.dynamodb, REQUESTS, NEW, NOW) == (False, PENDING)
    stack.put("requests", PENDING | {"ttl": int(NOW)})
    assert enqueue_request(stack.dynamodb, REQUESTS, NEW, NOW).done


def released(stack: Stack, **whose: Any) -> Any:
    return release_claim(stack.dynamodb, CLAIMS, "p#u", reason="done", now=NOW, **whose)


HELD = {
    "projectUserId": "p#u", "state": "held", "claimId": "c1", "fence": 7, "owner": "execution",
    "threadId": "t1", "messageId": "m1", "expiresAt": int(NOW) + 60,
}  # fmt: skip


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(
    ("there", "whose", "claim"),
    [
        (HELD, {"claim_id": "c1", "fence": 7}, {"claimId": "c1"}),
        (HELD, {"claim_id": "c1", "owner": "execution"}, {"claimId": "c1"}),
        (
            {"projectUserId": "p#u", "owner": "execution", "ttl": 5},
            {"claim_id": None, "owner": "execution"}, {},
        ),
    ],
    ids=["by claim and fence", "by owner", "of an older writer"],
)  # fmt: skip
def test_a_claim_is_released(stack: Stack, there: Row, whose: Row, claim: Row, lost: bool) -> None:
    """Once; the row stays with its fence, and says which claim was released, when and why."""
    stack.create("jobs")
    stack.put("active-jobs", there)
    if lost:
        stack.lose_answer(stack.dynamodb, "UpdateItem")
    done, row = released(stack, **whose)
    assert done
    assert row == stack.get("active-jobs", projectUserId="p#u")
    assert (row["state"], row.get("fence")) == ("free", there.get("fence"))
    assert row["lastReleased"] == claim | {"at": MOMENT, "reason": "done"}
    assert not {"claimId", "owner", "threadId", "messageId", "expiresAt"} & row.keys()
    assert released(stack, **whose) == (False, row)


@pytest.mark.parametrize(
    "whose",
    [
        {"claim_id": "c1", "fence": 6}, {"claim_id": "c0", "fence": 7},
        {"claim_id": "c1", "owner": "another"}, {"claim_id": "c0", "owner": "execution"},
    ],
)  # fmt: skip
def test_a_claim_of_another_is_not_released(stack: Stack, whose: Row) -> None:
    """Its row is returned as it is."""
    stack.create("jobs")
    stack.put("active-jobs", HELD)
    assert released(stack, **whose) == (False, HELD)
    assert stack.items("active-jobs") == [HELD]


def writes(path: Path) -> list[str]:
    """The references to a client's methods for writing an item, by what they pass."""
    tree = ast.parse(path.read_text())
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {
            "put_item", "update_item", "delete_item",
        }:  # fmt: skip
            call = calls.get(node)
            names = {keyword.arg for keyword in call.keywords} if call else {None}
            kind = "open" if None in names else "conditional" * ("ConditionExpression" in names)
            found.append(kind or "plain")
    return found


def test_every_conditional_write_is_made_here() -> None:
    """No other code passes a condition to a client, or arguments that may hold one."""
    kinds = {
        path: writes(path)
        for folder in ("functions/*", "libs/*/src/*")
        for path in ROOT.glob(f"{folder}/*.py")
    }
    here = {path: kind for path, kind in kinds.items() if path.parent.name == "jobplane_leases"}
    kinds_here = Counter(kind for each in here.values() for kind in each)
    assert kinds_here == {"open": 3, "plain": 1}  # plain: a payload that lives apart
    others = {path.name: set(each) - {"plain"} for path, each in kinds.items() if path not in here}
    assert {name: found for name, found in others.items() if found} == {}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("dynamodb.put_item(TableName=t, Item=i)", "plain"),
        ("dynamodb.put_item(TableName=t, Item=i, ConditionExpression=c)", "conditional"),
        ("dynamodb.update_item(**parameters)", "open"),
        ("partial(client().delete_item, TableName=t)", "open"),
    ],
)
def test_what_the_code_passes_is_found(tmp_path: Path, code: str, kind: str) -> None:
    """Also when it is passed on, or comes from a mapping."""
    (tmp_path / "module.py").write_text(code)
    assert writes(tmp_path / "module.py") == [kind]


def write(stack: Stack, rev: int | None, **changes: Any) -> Row:
    return write_assembly(
        stack.dynamodb, ASSEMBLIES, "a1", rev, changes, NOW, remove=("lease_until",)
    )


@pytest.mark.parametrize("lost", [False, True])
def test_a_document_grows_by_revisions(stack: Stack, lost: bool) -> None:
    """Each write names the one that it has read."""
    for rev in (None, 1, 2):
        if lost:
            stack.lose_answer(stack.dynamodb, "UpdateItem")
        document = write(stack, rev, message="ü")
        assert document["rev"] == (rev or 0) + 1
        assert document == stack.get("assemblies", assembly_id="a1")


def test_an_expired_document_is_begun_anew(stack: Stack) -> None:
    """It counts as absent before DynamoDB has deleted it."""
    stack.put("assemblies", {"assembly_id": "a1", "rev": 7, "ttl": int(NOW)})
    assert write(stack, None)["rev"] == 1


@pytest.mark.parametrize("rev", [None, 6])
def test_a_document_of_another_is_left_alone(stack: Stack, rev: int | None) -> None:
    """A worker that has read an older revision loses it."""
    there = {"assembly_id": "a1", "rev": 7, "ttl": int(NOW) + 1}
    stack.put("assemblies", there)
    with pytest.raises(LeaseLostError, match="a1"):
        write(stack, rev)
    assert stack.items("assemblies") == [there]


@pytest.mark.parametrize(
    ("rev", "owner", "status", "error"),
    [
        (7, "me", "PROCESSING", None),
        (6, "me", "PROCESSING", DocumentChangedError),
        (7, "another", "PROCESSING", LeaseLostError),
        (7, "me", "RETRYING", LeaseLostError),
    ],
)
def test_a_document_begins_as_it_was_read_and_under_the_lease(
    stack: Stack, rev: int, owner: str, status: str, error: type[Exception] | None
) -> None:
    """Else nothing is written: a document that nothing would end must not begin."""
    there = {"assembly_id": "a1", "rev": 7, "ttl": int(NOW) + 1}
    stack.put("assemblies", there)
    stack.put("requests", request(status=status, lease_owner=owner))
    lease = RequestLease(stack.dynamodb, REQUESTS, OWNER, "req-1")

    def begin() -> Row:
        return begin_document(
            stack.dynamodb, ASSEMBLIES, "a1", rev, {"execution": 2}, NOW,
            remove=["ok"], request=lease, lease_owner="me",
        )  # fmt: skip

    if error is None:
        assert begin() == there | {"rev": 8, "execution": 2}
    else:
        with pytest.raises(error):
            begin()
        assert stack.items("assemblies") == [there]


@pytest.mark.parametrize("lost", [False, True])
def test_a_running_assembly_is_followed(stack: Stack, lost: bool) -> None:
    """Once, however often it is asked for."""
    stack.put("assemblies", {"assembly_id": "a1", "lease_until": 1})
    for follower in ("r1", "r1"):
        if lost:
            stack.lose_answer(stack.dynamodb, "UpdateItem")
        assert follow_assembly(stack.dynamodb, ASSEMBLIES, "a1", follower, most=2)
    assert stack.get("assemblies", assembly_id="a1")["followers"] == ["r1"]


def test_an_ended_assembly_is_not_followed(stack: Stack) -> None:
    """Nothing would wake the request."""
    there = {"assembly_id": "a1", "ok": "ASSEMBLY_COMPLETED"}
    stack.put("assemblies", there)
    assert not follow_assembly(stack.dynamodb, ASSEMBLIES, "a1", "r1", most=2)
    assert stack.items("assemblies") == [there]


def test_an_assembly_has_a_limited_number_of_followers(stack: Stack) -> None:
    """One more is not stored, and is not taken for the follower of an ended assembly."""
    stack.put("assemblies", {"assembly_id": "a1", "lease_until": 1, "followers": frozenset("ab")})
    assert follow_assembly(stack.dynamodb, ASSEMBLIES, "a1", "c", most=2)
    assert sorted(stack.get("assemblies", assembly_id="a1")["followers"]) == ["a", "b"]
    assert follow_assembly(stack.dynamodb, ASSEMBLIES, "a1", "c", most=3)


def test_a_full_document_is_written_without_its_followers(stack: Stack) -> None:
    """Its end must be stored. A refusal for another reason is raised."""
    full = {"assembly_id": "a1", "rev": 1, "lease_until": 1, "followers": frozenset({"f"})}
    stack.put("assemblies", full)
    stack.fail(stack.dynamodb, "UpdateItem", "ValidationException", times=1)
    end = {"ok": "ASSEMBLY_COMPLETED"}
    written = write_assembly(stack.dynamodb, ASSEMBLIES, "a1", 1, end, 1.0, remove=("lease_until",))
    assert written["ok"] == "ASSEMBLY_COMPLETED"
    assert not {"followers", "lease_until"} & stack.get("assemblies", assembly_id="a1").keys()
    stack.fail(stack.dynamodb, "UpdateItem", "ValidationException")
    with pytest.raises(ClientError, match="ValidationException"):
        write_assembly(stack.dynamodb, ASSEMBLIES, "a1", 2, end, 1.0)


INSTRUCTION = {"project": "amelia", "thread": "t-1", "instruction": "go", "attachments": []}


def instructed(stack: Stack, now: float, **changes: Any) -> Any:
    """An instruction of a caller that is not a client, such as a function that reads mail."""
    given = {"tenant_id": TENANT, "user_id": "user-1", "request_id": "mail-1", **changes}
    payload = given.pop("payload", INSTRUCTION)
    objects: Row = given.pop("objects", {})
    put = objects.__setitem__
    return enqueue_instruction(
        stack.dynamodb, REQUESTS, payload=payload, put_object=put, now=now, **given
    )


def test_an_instruction_is_stored_once(stack: Stack) -> None:
    """As router stores it: with the name of its execution, waiting."""
    now = time.time()
    done, row = instructed(stack, now)
    assert done
    assert (row["status"], row["action"], row["owner"]) == ("PENDING", "instruct", OWNER)
    assert row["execution"] == execution_name(Workspace("tenant-1+amelia", "user-1"), "mail-1")
    again, there = instructed(stack, now, payload=INSTRUCTION | {"instruction": "other"})
    assert not again
    assert json.loads(there["payload"]) == INSTRUCTION


def test_a_large_instruction_is_an_object(stack: Stack) -> None:
    objects: Row = {}
    payload = INSTRUCTION | {"instruction": "x" * 8000}
    _, row = instructed(stack, time.time(), payload=payload, objects=objects)
    assert json.loads(objects[row["payload_object"]]) == payload


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"payload": INSTRUCTION | {"project": "a+b"}}, "project"),
        ({"user_id": "user 1"}, "user"),
        ({"payload": INSTRUCTION | {"attachments": [{"key": "k"}] * 101}}, "attachments"),
    ],
)
def test_an_instruction_without_a_workspace_is_refused(
    stack: Stack, changes: Row, field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        instructed(stack, time.time(), **changes)
    assert refused.value.field == field
    assert stack.items("requests") == []
