"""state-manager: changes by hand, one and many, each on what was read and nothing else."""

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobplane_files import PROTECTED_FIELDS
from jobplane_keys.tracking import MANIFEST_STATUSES, FileStatus, RowKind, may_become
from tests.unit.manager import DAY, NOW, STATUSES, Manager, ago, file, manifest
from tests.unit.stack import Output


def update(manager: Manager, status: str, name: str = "a.ndjson", **more: Any) -> tuple[int, Any]:
    return manager.ask("update_state", date_prefix=DAY, file_key=name, new_status=status, **more)


def meanwhile(manager: Manager, **changes: Any) -> None:
    """Somebody else changes the row between our reading and our writing."""
    left = [changes]

    def act(_: Any) -> None:
        if left:
            row = manager.row("a.ndjson") | left.pop()
            manager.put({name: value for name, value in row.items() if value is not ...})

    manager.on(manager.module.dynamodb, "UpdateItem", act)


def test_a_step_of_the_pipeline(manager: Manager, output: Output) -> None:
    """The shard stays, the trail says who, why, when and from where; the log has it, too."""
    manager.put(file(status="pending#7", file_size_mb=1.5))
    status, body = update(manager, "manifested", reason="by hand", changed_by="on-call")
    assert (status, body["message"]) == (200, f"{DAY}/a.ndjson: pending#7 -> manifested#7")
    row = manager.row("a.ndjson")
    assert body["updated_item"] == row
    assert row == {
        "date_prefix": DAY,
        "file_key": "a.ndjson",
        "file_size_mb": 1.5,
        "status": "manifested#7",
        "previous_status": "pending#7",
        "last_changed_by": "on-call",
        "last_changed_reason": "by hand",
        "updated_at": ago(),
    }
    (line,) = output.logged("status changed")
    assert (line["file"], line["old_status"], line["new_status"], line["reason"]) == (
        f"{DAY}/a.ndjson", "pending#7", "manifested#7", "by hand",
    )  # fmt: skip


def test_who_it_was_by_default(manager: Manager) -> None:
    """The invocation, which the log knows."""
    manager.put(file())
    update(manager, "manifested")
    assert manager.row("a.ndjson")["last_changed_by"] == "state-manager invocation-1"


@pytest.mark.parametrize("kind", [RowKind.FILE, RowKind.MANIFEST])
def test_every_step_and_every_other_one(manager: Manager, kind: RowKind) -> None:
    """Steps of the pipeline are made; others only by force; some a manifest never makes."""
    name = "a.ndjson" if kind is RowKind.FILE else "MANIFEST#b.json"
    possible = set(FileStatus) if kind is RowKind.FILE else MANIFEST_STATUSES
    for old, new in itertools.product(FileStatus, FileStatus):
        manager.put(file(name, old))
        expected = 200 if may_become(kind, old, new) and new in possible else 409
        status, body = update(manager, new, name)
        assert status == expected, (old, new)
        assert expected == 200 or body["current_status"] == old
        assert manager.row(name)["status"] == (new if expected == 200 else old)
        manager.put(file(name, old))
        forced, _ = update(manager, new, name, force=True, reason="must be")
        assert forced == (200 if new in possible else 409), (old, new)


def test_force_needs_a_reason(manager: Manager) -> None:
    """And so it does without need."""
    manager.put(file())
    change = {"date_prefix": DAY, "file_key": "a.ndjson", "new_status": "completed"}
    assert manager.problems("update_state", **change, force=True) == ["reason"]
    assert manager.problems("batch_update", files=[change | {"force": True}]) == ["files[0].reason"]


@pytest.mark.parametrize("status", STATUSES)
def test_an_absent_file_stays_absent(manager: Manager, status: str) -> None:
    """A mistyped key is 404, and no row comes into being."""
    code, body = update(manager, status, force=True, reason="r")
    assert (code, body["error"]) == (404, f"{DAY}/a.ndjson does not exist")
    assert manager.items("files") == []


def test_an_expected_status(manager: Manager) -> None:
    """The base counts and not the shard; another one is 409, with what it is."""
    manager.put(file(status="processing#3"))
    code, body = update(manager, "failed", expected_status="manifested")
    assert (code, body["current_status"]) == (409, "processing#3")
    assert update(manager, "failed", expected_status="processing")[0] == 200


@pytest.mark.parametrize(
    ("stored", "new"),
    [("pending", "manifested"), ("archived", "quarantined"), (None, "quarantined")],
)
def test_a_status_without_a_shard(manager: Manager, stored: Any, new: str) -> None:
    """Plain stays plain, also after a status of no vocabulary or none at all."""
    row = file(status=stored)
    manager.put({name: value for name, value in row.items() if value is not None})
    assert update(manager, new)[0] == 200
    assert manager.row("a.ndjson")["status"] == new


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        ({}, {"status": "processing#3"}),
        ({}, {"updated_at": ago(-1)}),
        ({}, {"updated_at": None}),
        ({}, {"updated_at": ...}),
        ({"updated_at": None}, {"updated_at": "None"}),
        ({"updated_at": ...}, {"updated_at": ago()}),
        ({"updated_at": 1_795_342_530}, {"updated_at": "1795342530"}),
        ({"updated_at": 1_795_342_530.25}, {"updated_at": 1_795_342_530.5}),
    ],
)
def test_a_lost_race(manager: Manager, seen: dict[str, Any], then: dict[str, Any]) -> None:
    """Whatever the form of the time: what changed meanwhile stays, and the answer is 409."""
    row = file() | seen
    manager.put({name: value for name, value in row.items() if value is not ...})
    meanwhile(manager, **then)
    code, body = update(manager, "manifested")
    assert code == 409, body
    assert "changed by another writer" in body["error"]
    assert manager.row("a.ndjson").get("previous_status") is None


@pytest.mark.parametrize(
    "updated_at", [ago(), 1_795_342_530, 1_795_342_530.25, None, ..., "nonsense", ["x"], True]
)
def test_a_time_of_any_form_is_no_obstacle(manager: Manager, updated_at: Any) -> None:
    """The condition compares what is stored, exactly as it is stored."""
    row = file() | {"updated_at": updated_at}
    manager.put({name: value for name, value in row.items() if value is not ...})
    assert update(manager, "manifested")[0] == 200


def test_the_condition_has_all_that_was_read(manager: Manager) -> None:
    """The row exists, status and updated_at are what they were, in their stored types."""
    manager.put(file(updated_at=1_795_342_530))
    calls = manager.calls(manager.module.dynamodb)
    update(manager, "manifested")
    (call,) = calls.of("UpdateItem")
    names, values = call["ExpressionAttributeNames"], call["ExpressionAttributeValues"]
    places = {name: place for place, name in names.items()}
    assert call["ConditionExpression"] == (
        f"attribute_exists(date_prefix) AND {places['status']} = :seen_status"
        f" AND {places['updated_at']} = :seen_updated_at"
    )
    assert values[":seen_updated_at"] == {"N": "1795342530"}
    assert values[":seen_status"] == {"S": "pending#3"}


def test_a_file_that_goes_meanwhile(manager: Manager) -> None:
    """It is 404 and does not come back."""
    manager.put(file())

    def act(_: Any) -> None:
        manager.clear_table("files")

    manager.on(manager.module.dynamodb, "UpdateItem", act)
    code, body = update(manager, "manifested")
    assert (code, body["error"]) == (404, f"{DAY}/a.ndjson no longer exists")
    assert manager.items("files") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**37), 10**37) | st.text(max_size=8)
    | st.floats(-1e30, 1e30, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-30),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text(min_size=1, max_size=12), JSON, max_size=6))
def test_any_json_under_any_name_comes_back(manager: Manager, fields: dict[str, Any]) -> None:
    """Names with dashes, dots, reserved words; numbers, nulls, what is nested: equal afterwards."""
    manager.put(file())
    fields = {name: value for name, value in fields.items() if name not in PROTECTED_FIELDS}
    code, body = update(manager, "manifested", additional_fields=fields)
    assert code == 200, body
    assert {name: body["updated_item"][name] for name in fields} == json.loads(json.dumps(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"a-b": 1.5},
        {"size": 1, "date": "x", "#0": 1, ":0": 2, "a.b": {"c-d": [1.25, None, True, "", {}, []]}},
        {"big": 12345678901234567890123456789012345678, "small": 1e-100, "zeros": 10**120},
        {"created_at": "2026-11-22T00:00:00Z", "manifest_path": None},
    ],
)
def test_fields_that_are_easily_broken(manager: Manager, fields: dict[str, Any]) -> None:
    """Reserved words, the placeholders' own spelling, numbers at the limits."""
    manager.put(file())
    assert update(manager, "manifested", additional_fields=fields)[0] == 200
    row = manager.row("a.ndjson")
    assert {name: row[name] for name in fields} == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"date_prefix": "x"}, {"file_key": "x"}, {"status": "failed"}, {"ttl": 1},
        {"updated_at": "x"}, {"previous_status": "x"}, {"last_changed_by": "x"},
        {"last_changed_reason": "x"}, {"reset_count": 0}, {"last_reset_time": "x"},
        {"lock_id": "x"}, {"": 1}, {"x" * 256: 1}, {"a": {"": 1}}, {"a": math.inf},
        {"a": [math.nan]}, {"a": 1e126}, {"a": 1e-131}, {"a": int("1" * 39)}, {"a": 10**126},
        {"a": "x" * 310_000}, {f"f{n}": n for n in range(101)},
        {"a": json.loads("[" * 32 + "]" * 32)}, {"a": json.loads("[" * 5000 + "]" * 5000)},
        7, "x", None, [["a", 1]],
    ],
    ids=lambda fields: str(fields)[:24],
)  # fmt: skip
def test_fields_that_can_not_be_stored(manager: Manager, fields: Any) -> None:
    """Keys, status, ttl, the trail, and what DynamoDB would refuse: 400, nothing written."""
    manager.put(file())
    before = manager.row("a.ndjson")
    change = {"date_prefix": DAY, "file_key": "a.ndjson", "new_status": "manifested"}
    assert manager.problems("update_state", **change, additional_fields=fields) == [
        "additional_fields"
    ]
    assert manager.row("a.ndjson") == before


def test_a_row_that_would_be_too_large(manager: Manager) -> None:
    """Each alone fits, together they do not: the caller's mistake, not ours."""
    manager.put(file())
    manager.fail(manager.module.dynamodb, "UpdateItem", "ValidationException")
    code, body = update(manager, "manifested", additional_fields={"a": "x"})
    assert (code, body["problems"][0]["field"]) == (400, "additional_fields")
    assert "400 KB" in body["problems"][0]["message"]


def change(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"date_prefix": DAY, "file_key": name, "new_status": status, **more}


def test_a_batch_of_which_all_succeed(manager: Manager) -> None:
    """200, and for each what it was and is."""
    manager.put(file("a"), file("b", "processing#1"))
    status, body = manager.ask(
        "batch_update", files=[change("a", "manifested"), change("b", "completed")]
    )
    assert (status, body["total"], body["successful"], body["failed"]) == (200, 2, 2, 0)
    assert body["results"] == [
        {"file": f"{DAY}/a", "old_status": "pending#3", "new_status": "manifested#3"},
        {"file": f"{DAY}/b", "old_status": "processing#1", "new_status": "completed#1"},
    ]


def test_a_batch_of_which_some_succeed(manager: Manager, output: Output) -> None:
    """207: one that is absent, forbidden, lost or failing spoils no other."""
    manager.put(file("a"), file("b", "completed#1"), file("d"))
    failing = manager.fail(
        manager.module.dynamodb, "UpdateItem", "InternalServerError", status=500, times=1
    )
    status, body = manager.ask(
        "batch_update",
        files=[change("a", "manifested"), change("b", "pending"), change("c", "failed"),
               change("d", "manifested")],
    )  # fmt: skip
    assert (status, body["successful"], body["failed"], failing["UpdateItem"]) == (207, 1, 3, 1)
    errors = [result.get("error") for result in body["results"]]
    assert errors[0] == "the write failed; see the log"
    assert "without force" in errors[1]
    assert "does not exist" in errors[2]
    assert errors[3] is None
    assert len(output.logged("file was not changed")) == 1
    assert len(output.metric("OperationFailed")) == 1


def test_a_batch_of_which_none_succeeds(manager: Manager) -> None:
    """422 with every result."""
    status, body = manager.ask("batch_update", files=[change(str(n), "failed") for n in range(100)])
    assert (status, body["total"], body["failed"]) == (422, 100, 100)


def test_a_batch_without_time(manager: Manager) -> None:
    """What was not attempted says so, and is as it was."""
    manager.put(file("a"))
    status, body = manager.ask("batch_update", seconds=0, files=[change("a", "manifested")])
    assert (status, body["results"][0]["error"]) == (
        422,
        "not attempted: the time limit was reached",
    )
    assert manager.row("a")["status"] == "pending#3"


def test_each_file_once_in_a_batch(manager: Manager) -> None:
    """Two changes of one file have no order: the whole batch is refused."""
    manager.put(file("a"))
    files = [change("a", "manifested"), change("b", "failed"), change("a", "processing")]
    status, body = manager.ask("batch_update", files=files)
    assert status == 400
    assert body["problems"][0]["message"] == f"files: has more than one change of {DAY}/a"
    assert manager.row("a")["status"] == "pending#3"


def test_a_change_again(manager: Manager) -> None:
    """The second time it is no step any more, and nothing is written."""
    manager.put(file())
    assert update(manager, "manifested")[0] == 200
    manager.clock.now = NOW + 60
    assert update(manager, "manifested")[0] == 409
    assert manager.row("a.ndjson")["updated_at"] == ago()


def test_a_manifests_row(manager: Manager) -> None:
    """It has its own steps, stays plain, and is quarantined by nobody."""
    manager.put(manifest("b.json", "pending"))
    assert update(manager, "processing", "MANIFEST#b.json")[0] == 200
    assert manager.row("MANIFEST#b.json")["status"] == "processing"
    code, body = update(manager, "quarantined", "MANIFEST#b.json", force=True, reason="r")
    assert (code, body["error"]) == (
        409,
        f"{DAY}/MANIFEST#b.json is a manifest and can't be quarantined",
    )
