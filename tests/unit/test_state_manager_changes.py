"""state-manager: `update_state` and `batch_update`, each conditional on what was read."""

from typing import Any

import pytest

from tests.unit.manager import DAY, NOW, Manager, ago, file
from tests.unit.stack import Output, answer_lost


def update(manager: Manager, status: str, name: str = "a.ndjson", **more: Any) -> tuple[int, Any]:
    return manager.ask("update_state", date_prefix=DAY, file_key=name, new_status=status, **more)


def test_a_step_of_the_pipeline(manager: Manager, output: Output) -> None:
    """The row and the log record who changed what, why and when."""
    manager.put(file(status="pending#7", file_size_mb=1.5))
    status, body = update(manager, "manifested", reason="by hand", changed_by="on-call")
    assert (status, body["message"]) == (200, f"{DAY}/a.ndjson: pending#7 -> manifested#7")
    row = manager.row("a.ndjson")
    assert body["updated_item"] == row
    assert row.pop("write_id")
    assert row == {
        "date_prefix": DAY, "file_key": "a.ndjson", "file_size_mb": 1.5,
        "status": "manifested#7", "previous_status": "pending#7", "last_changed_by": "on-call",
        "last_changed_reason": "by hand", "updated_at": ago(),
    }  # fmt: skip
    (line,) = output.logged("status changed")
    logged = {name: line[name] for name in ("file", "old_status", "new_status", "reason")}
    assert logged == {"file": f"{DAY}/a.ndjson", "old_status": "pending#7",
                      "new_status": "manifested#7", "reason": "by hand"}  # fmt: skip


def test_a_refused_step(manager: Manager) -> None:
    """409 with the present status, and nothing is written; force makes the step."""
    manager.put(file(status="completed#3"))
    before = manager.row("a.ndjson")
    status, body = update(manager, "pending")
    assert (status, body["current_status"]) == (409, "completed#3")
    assert body["error"].startswith(f"{DAY}/a.ndjson can't go from completed#3 to pending")
    forced = {"force": True, "reason": "must be"}
    assert update(manager, "pending", expected_status="processing", **forced)[0] == 409
    assert manager.row("a.ndjson") == before
    assert update(manager, "pending", **forced)[0] == 200
    assert update(manager, "pending", **forced)[0] == 200
    assert update(manager, "manifested")[0] == 200
    assert manager.row("a.ndjson")["last_changed_by"] == "state-manager invocation-1"
    manager.clock.now = NOW + 60
    assert update(manager, "manifested")[0] == 409
    assert manager.row("a.ndjson")["updated_at"] == ago()


def test_force_needs_a_reason(manager: Manager) -> None:
    """In a batch too."""
    one = change("a.ndjson", "completed", force=True)
    assert manager.problems("update_state", **one) == ["reason"]
    assert manager.problems("batch_update", files=[one]) == ["files[0].reason"]


def test_an_absent_file_stays_absent(manager: Manager) -> None:
    """A mistyped key is 404 and creates no row."""
    code, body = update(manager, "failed", force=True, reason="r")
    assert (code, body["error"]) == (404, f"{DAY}/a.ndjson does not exist")
    assert manager.items("files") == []


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        ({}, {"status": "processing#3"}),
        ({}, {"updated_at": ago(-1)}),
        ({}, {"updated_at": ...}),
        ({"updated_at": ...}, {"updated_at": ago()}),
        ({"updated_at": 1_795_342_530}, {"updated_at": "1795342530"}),
    ],
)
def test_another_writer_is_faster(
    manager: Manager, seen: dict[str, Any], then: dict[str, Any]
) -> None:
    """Its change stays, and the answer is 409."""

    def put(row: dict[str, Any]) -> None:
        manager.put({name: value for name, value in row.items() if value is not ...})

    put(file() | seen)
    manager.once(manager.module.dynamodb, "UpdateItem", lambda: put(file() | seen | then))
    code, body = update(manager, "manifested")
    assert code == 409, body
    assert "changed by another writer" in body["error"]
    assert body["current_status"] == then.get("status", "pending#3")
    assert manager.row("a.ndjson").get("previous_status") is None


def test_a_change_whose_answer_is_lost(manager: Manager) -> None:
    """The repetition finds the row as this write left it, which is not a conflict."""
    manager.put(file())
    with answer_lost(manager.module.dynamodb, "UpdateItem") as lost:
        code, body = update(manager, "manifested")
    assert (code, lost["UpdateItem"]) == (200, 1)
    assert body["updated_item"] == manager.row("a.ndjson")


def test_a_file_that_is_deleted_in_the_meantime(manager: Manager) -> None:
    """It is 404 and does not come back."""
    manager.put(file())
    manager.on(manager.module.dynamodb, "UpdateItem", lambda _: manager.clear_table("files"))
    code, body = update(manager, "manifested")
    assert (code, body["error"]) == (404, f"{DAY}/a.ndjson no longer exists")
    assert manager.items("files") == []


def test_additional_fields_come_back_as_they_were(manager: Manager) -> None:
    """Reserved words, the spelling of placeholders, and numbers at the limits."""
    manager.put(file())
    fields = {
        "a-b": 1.5, "size": 1, "date": "x", "#0": 1, ":0": 2, "manifest_path": None,
        "a.b": {"c-d": [1.25, None, True, "", {}, []]}, "small": 1e-100, "zeros": 10**120,
        "big": 12345678901234567890123456789012345678,
    }  # fmt: skip
    assert update(manager, "manifested", additional_fields=fields)[0] == 200
    row = manager.row("a.ndjson")
    assert {name: row[name] for name in fields} == fields


@pytest.mark.parametrize("fields", [{"status": "failed"}, {"a": 1e126}, 7, None, [["a", 1]]])
def test_additional_fields_that_can_not_be_stored(manager: Manager, fields: Any) -> None:
    """400, and nothing is written."""
    manager.put(file())
    before = manager.row("a.ndjson")
    request = change("a.ndjson", "manifested", additional_fields=fields)
    assert manager.problems("update_state", **request) == ["additional_fields"]
    assert manager.row("a.ndjson") == before


def test_a_row_that_would_be_too_large(manager: Manager) -> None:
    """The fields alone are small enough, but not together with the row."""
    manager.put(file())
    manager.fail(manager.module.dynamodb, "UpdateItem", "ValidationException")
    code, body = update(manager, "manifested", additional_fields={"a": "x"})
    assert (code, body["problems"][0]["field"]) == (400, "additional_fields")
    assert "400 KB" in body["problems"][0]["message"]


def change(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"date_prefix": DAY, "file_key": name, "new_status": status, **more}


def test_a_batch_of_which_all_succeed(manager: Manager) -> None:
    """200, and the status before and after of each."""
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
    """207: a write that fails, a refused step and an absent file do not stop the others."""
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


@pytest.mark.parametrize("seconds", [0, 300])
def test_a_batch_of_which_none_succeeds(manager: Manager, seconds: int) -> None:
    """422 with every result; a change that was not attempted says so."""
    manager.put(file("0"))
    files = [change("0", "completed"), *(change(f"{n}", "failed") for n in range(1, 100))]
    status, body = manager.ask("batch_update", seconds=seconds, files=files)
    assert (status, body["total"], body["failed"]) == (422, 100, 100)
    errors = {result["error"] for result in body["results"]}
    assert (errors == {"not attempted: the time limit was reached"}) is (seconds == 0)
    assert manager.row("0")["status"] == "pending#3"


def test_each_file_once_in_a_batch(manager: Manager) -> None:
    """Two changes of one file have no order, so the whole batch is refused."""
    manager.put(file("a"))
    files = [change("a", "manifested"), change("b", "failed"), change("a", "processing")]
    status, body = manager.ask("batch_update", files=files)
    assert status == 400
    assert body["problems"][0]["message"] == f"files: has more than one change of {DAY}/a"
    assert manager.row("a")["status"] == "pending#3"
