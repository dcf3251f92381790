"""state-manager: requests, answers and errors, and scheduled runs."""

import json
import math
import re
from typing import Any

import pytest

from jobplane.tree.repository import Repository
from jobplane_files import FILES_CHANGED
from tests.unit.manager import DAY, HOUR, Manager, ago, file
from tests.unit.stack import Output

OPERATIONS = [
    "batch_update", "find_orphans", "get_file_state", "get_processing_timeline", "get_stats",
    "query_by_status", "reset_stuck_files", "update_state", "validate_consistency",
]  # fmt: skip
NAN = math.nan
NO_DATES = [
    "", "2025-02-30", "2025-1-1", "2025-01-01T00:00", "LOCK#x", 20250101, None, " 2025-01-01",
    "٢٠٢٥-٠١-٠١",
]  # fmt: skip
NO_RANGES = [{}, {"start": None}, {"start": DAY, "end": "2026-11-21"}, {"end": "2026-02-30"}]
SCHEDULE = {"source": "jobplane.schedule", "operation": "get_stats"}
EXACT = SCHEDULE | {"exact": True}
CHANGE = {"date_prefix": DAY, "file_key": "a.ndjson", "new_status": "manifested"}


@pytest.mark.parametrize(
    "event", [{"operation": "stats"}, {"operation": None}, {"operation": ["get_stats"]}, [], "x", 7]
)
def test_an_unknown_operation(manager: Manager, event: Any) -> None:
    """400 with the known operations, whatever the event is."""
    status, body = manager.send(event)
    assert (status, body["supported_operations"]) == (400, OPERATIONS)
    known = isinstance(event, dict) and event["operation"] == "stats"
    assert body["error"] == "unknown operation" + (" 'stats'" if known else "")


def test_the_operation_of_the_page_can_be_added(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/files.md shows one; its code is all that it needs."""
    page = (Repository.here().root / "docs" / "files.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(class CountResets.*?)```", page, re.DOTALL)
    monkeypatch.setattr(manager.module, "OPERATIONS", dict(manager.module.OPERATIONS))
    exec(code, dict(vars(manager.module)))  # noqa: S102 - our own page
    manager.put(file(), file("b.ndjson", reset_count=2), file("z.ndjson", reset_count=1))
    body = manager.body("count_resets", date_prefix=DAY)
    assert (body["files"], body["resets"]) == (2, 3)
    assert manager.problems("count_resets", date_prefix="yesterday") == ["date_prefix"]


def test_the_default_operation_is_get_file_state(manager: Manager) -> None:
    """An event may leave the operation out."""
    manager.put(file())
    assert manager.send({"date_prefix": DAY, "file_key": "a.ndjson"})[0] == 200


@pytest.mark.parametrize(
    ("operation", "field", "values"),
    [
        ("find_orphans", "max_processing_hours", [0, -1, NAN, math.inf, "2", True, None, [2]]),
        ("reset_stuck_files", "max_processing_hours", [0, -0.5, NAN, "2", True, None]),
        ("reset_stuck_files", "dry_run", [None, "false", "true", 0, 1]),
        ("reset_stuck_files", "statuses", [[], "failed", None]),
        ("reset_stuck_files", "statuses[0]", [["completed"], ["pending"], ["failed#3"], [None]]),
        ("get_file_state", "limit", [0, -1, "10", 10**9, 1001, True, 1.5, None]),
        ("get_file_state", "date_prefix", NO_DATES),
        ("get_file_state", "file_key", ["", 7, "ü" * 513, ["a"]]),
        ("get_file_state", "next_token", ["", "x", 7, "AAAA", "é", "A" * 300_000]),
        ("query_by_status", "limit", [0, "10", 10**9, True]),
        ("query_by_status", "status", ["", "PENDING", "pending#3", "done", None, 1, ["pending"]]),
        ("query_by_status", "date_range.end", NO_RANGES),
        ("query_by_status", "date_range.start", [{"start": "yesterday"}, {"start": 1}]),
        ("query_by_status", "date_range", ["2026-11-22", [DAY, DAY], 1]),
        ("get_stats", "exact", [None, "true", 1]),
        ("get_stats", "date_prefix", ["2025-13-01", 5]),
        ("get_processing_timeline", "file_key", ["", None, 1]),
        ("validate_consistency", "date_prefix", ["2025-00-01", None]),
        ("update_state", "new_status", ["", "done", "pending#1", None]),
        ("update_state", "expected_status", ["done", 1]),
        ("update_state", "force", ["true", 1, None]),
        ("update_state", "changed_by", ["", "x" * 129, 7]),
        ("batch_update", "files", [[], None, {}, [CHANGE] * 101, [CHANGE, CHANGE]]),
        ("batch_update", "files[0]", [[7], [None]]),
        ("batch_update", "files[0].new_status", [[{**CHANGE, "new_status": "done"}]]),
    ],
)  # fmt: skip
def test_an_ill_typed_value_is_refused(
    manager: Manager, operation: str, field: str, values: list[Any]
) -> None:
    """Nothing is converted: 400 with the name of the field."""
    complete = {
        "get_file_state": {"date_prefix": DAY},
        "query_by_status": {"status": "pending"},
        "get_processing_timeline": {"date_prefix": DAY, "file_key": "a"},
        "update_state": CHANGE,
    }.get(operation, {})
    for value in values:
        name = field.partition(".")[0].partition("[")[0]
        assert manager.problems(operation, **complete | {name: value}) == [field], value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_key_is_refused(manager: Manager, operation: str) -> None:
    """A misspelt parameter does not run the operation with a default."""
    assert "actoin" in manager.problems(operation, actoin=1)


def test_every_problem_is_listed(manager: Manager) -> None:
    """One answer has all problems, each with its field."""
    status, body = manager.ask("get_file_state", limit=0, date_prefix="x", a=1)
    assert (status, body["error"]) == (400, "3 problems")
    fields = [problem["field"] for problem in body["problems"]]
    assert fields == ["date_prefix", "limit", "a"]
    assert all(p["message"].startswith(f"{p['field']}: ") for p in body["problems"])


def test_another_source_is_refused(manager: Manager) -> None:
    """Only the schedule's own source is known."""
    assert manager.problems("get_stats", source="aws.events") == ["source"]


def test_a_token_belongs_to_its_request(manager: Manager) -> None:
    """Another operation, other parameters or a changed byte: 400; the limit may change."""
    manager.put(*(file(f"{n}.ndjson") for n in range(4)))
    token = manager.body("get_file_state", date_prefix=DAY, limit=1)["next_token"]
    others: list[tuple[str, dict[str, Any]]] = [
        ("get_file_state", {"date_prefix": "2026-11-21"}),
        ("get_stats", {"date_prefix": DAY}),
        ("validate_consistency", {"date_prefix": DAY}),
    ]
    for operation, request in others:
        assert manager.problems(operation, **request, next_token=token) == ["next_token"]
    forged = token[:-9] + ("A" if token[-9] != "A" else "B") + token[-8:]
    status, body = manager.ask("get_file_state", date_prefix=DAY, next_token=forged)
    assert (status, body["problems"]) == (400, [
        {"field": "next_token",
         "message": "next_token: is damaged, or belongs to another request"},
    ])  # fmt: skip
    body = manager.body("get_file_state", date_prefix=DAY, limit=3, next_token=token)
    assert [found["file_key"] for found in body["files"]] == ["1.ndjson", "2.ndjson", "3.ndjson"]


def test_a_token_of_another_stage_is_refused(manager: Manager, monkeypatch: Any) -> None:
    """A token belongs to the table of its stage."""
    manager.put(file("a"), file("b"))
    token = manager.body("get_file_state", date_prefix=DAY, limit=1)["next_token"]
    monkeypatch.setattr(manager.module, "TRACKING_TABLE", "another-table")
    assert manager.problems("get_file_state", date_prefix=DAY, next_token=token) == ["next_token"]


def test_an_unexpected_error(manager: Manager, output: Output) -> None:
    """500 with the id of the invocation only; the log has the stack."""
    manager.fail(manager.module.dynamodb, "GetItem", "InternalServerError", status=500)
    status, body = manager.ask("get_file_state", date_prefix=DAY, file_key="a")
    assert (status, body) == (500, {"error": "internal error", "request_id": "invocation-1"})
    (line,) = output.logged("operation failed")
    assert "InternalServerError" in line["stack"]
    assert output.metric("OperationFailed")


def test_integral_numbers_stay_integral(manager: Manager) -> None:
    """50 is 50 and not 50.0; sets are lists, binary is base64."""
    manager.put(file(number=50, part=1.5, nothing=None))
    manager.dynamodb.update_item(
        TableName=manager.table,
        Key={"date_prefix": {"S": DAY}, "file_key": {"S": "a.ndjson"}},
        UpdateExpression="SET tags = :s, numbers = :n, bytes_ = :b",
        ExpressionAttributeValues={
            ":s": {"SS": ["x"]}, ":n": {"NS": ["1"]}, ":b": {"B": b"\x00\xff"},
        },
    )  # fmt: skip
    answer = manager.module.handler({"date_prefix": DAY, "file_key": "a.ndjson"}, manager.context())
    assert '"number": 50,' in answer["body"]
    row = json.loads(answer["body"])["file"]
    assert (row["part"], row["nothing"], row["tags"], row["numbers"]) == (1.5, None, ["x"], [1])
    assert row["bytes_"] == "AP8="


def test_the_units_are_in_every_answer(manager: Manager) -> None:
    """Read and written units, as DynamoDB reports them."""
    manager.put(file())
    body = manager.body("get_file_state", date_prefix=DAY, file_key="a.ndjson")
    assert body["consumed_capacity"]["read_units"] > 0
    assert body["consumed_capacity"]["write_units"] == 0
    assert manager.body("update_state", **CHANGE)["consumed_capacity"]["write_units"] > 0


def test_a_scheduled_search(manager: Manager, output: Output) -> None:
    """One line with numbers and examples by kind, and a metric for every kind."""
    manager.put(*(file(f"{n}.ndjson", updated_at=ago(5 * HOUR)) for n in range(7)))
    status, body = manager.send({"source": "jobplane.schedule", "operation": "find_orphans"})
    assert (status, body["total_orphans"], len(body["orphans"]["stuck_pending"])) == (200, 7, 5)
    (line,) = output.logged("scheduled run")
    assert (line["total_orphans"], line["orphans"]) == (7, {"stuck_pending": 7})
    assert len(line["examples"]["stuck_pending"]) == 5
    kinds = {metric["Kind"]: metric["OrphansByKind"] for metric in output.metric("OrphansByKind")}
    assert (kinds["stuck_pending"], kinds["missing_manifests"], kinds["unknown"]) == (7, 0, 0)
    assert set(kinds) == {*manager.module.ORPHAN_KINDS, "unknown"}
    assert [metric["Orphans"] for metric in output.metric("Orphans")] == [7]
    (age,) = output.metric("OldestPendingAgeSeconds")
    assert age["OldestPendingAgeSeconds"] == 5 * HOUR


def values(output: Output, metric: str) -> list[Any]:
    """What was recorded of a metric."""
    return [line[metric] for line in output.metric(metric)]


def test_a_scheduled_count_corrects_a_drift(manager: Manager, output: Output) -> None:
    """Metrics of the drift and of the exact numbers, and the counters are checked."""
    manager.put(file("a.ndjson", status="pending#1"))
    assert manager.send(EXACT)[1]["reconciled"] is True
    assert values(output, "CountersDrift") == [1]
    files = {line["Status"]: line["FilesByStatus"] for line in output.metric("FilesByStatus")}
    assert (files["pending"], sum(files.values())) == (1, 1)
    assert values(output, "CountersUnchecked") == [0]


def test_a_scheduled_count_without_time(manager: Manager, output: Output) -> None:
    """A part of the files is not a metric, and no run continues it."""
    manager.send(EXACT, seconds=0)
    assert output.metric("FilesByStatus") + output.metric("CountersDrift") == []
    (line,) = output.logged("scheduled run")
    assert line["truncated"] is True
    assert values(output, "CountersUnchecked") == [1]


def test_counts_that_do_not_check_the_counters(manager: Manager, output: Output) -> None:
    """Reading them, which gives a metric for each of the six, and counting one date."""
    manager.send({"operation": "get_stats"})
    manager.send(EXACT | {"date_prefix": DAY})
    assert output.metric("CountersUnchecked") == []
    before = len(output.metric("FilesByStatus"))
    manager.send(SCHEDULE)
    assert output.logged("scheduled run")[-1]["total"] == 0
    assert len(output.metric("FilesByStatus")) == before + 6
    assert output.metric("CountersUnchecked") == []
    list(manager.parts("get_stats", seconds=15, exact=True))
    assert values(output, "CountersUnchecked") == [0]


def test_a_scheduled_count_during_which_files_move(manager: Manager, output: Output) -> None:
    """CountersUnchecked is 1, and the line has the reason."""

    def move(_: Any) -> None:
        manager.put(file("b.ndjson", status=f"pending#{int(manager.clock.now) % 10}"))

    manager.on(manager.module.dynamodb, "Query", move)
    manager.send(EXACT)
    assert values(output, "CountersUnchecked") == [1]
    (line,) = output.logged("scheduled run")
    assert (line["reconciled"], line["reason"]) == (False, FILES_CHANGED)


def test_an_operator_emits_no_metrics(manager: Manager, output: Output) -> None:
    """Only scheduled runs do, so looking does not change an alarm."""
    manager.body("find_orphans")
    manager.body("get_stats")
    assert output.metric("OrphansByKind") + output.metric("FilesByStatus") == []


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"operation": "get_stats", "hours": 1}, 400),
        ({"operation": "nope"}, 400),
        ({"operation": None}, 400),
        ({"operation": "batch_update", "files": [CHANGE]}, 422),
    ],
)
def test_a_failed_schedule_is_raised(manager: Manager, event: dict[str, Any], code: int) -> None:
    """The Errors alarm needs an exception."""
    with pytest.raises(manager.module.ScheduledRunError, match=f"returned {code}"):
        manager.send({"source": "jobplane.schedule", **event})


def test_a_failing_schedule_is_raised(manager: Manager) -> None:
    """The error itself is raised, for the log and the alarm."""
    manager.fail(manager.module.dynamodb, "Query", "InternalServerError", status=500)
    with pytest.raises(manager.module.dynamodb.exceptions.InternalServerError):
        manager.send(SCHEDULE)
