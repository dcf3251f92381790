"""state-manager: what is reset, what stays as it is, and why."""

from typing import Any

import pytest

from jobplane_keys import from_item
from tests.unit.manager import DAY, HOUR, MINUTE, Manager, ago, file, manifest
from tests.unit.stack import Output

OLD = ago(5 * HOUR)


def stuck(name: str = "a.ndjson", status: str = "processing#3", **more: Any) -> dict[str, Any]:
    return file(name, status, **{"updated_at": OLD, **more})


def reset(manager: Manager, **request: Any) -> Any:
    return manager.body("reset_stuck_files", dry_run=False, **request)


def test_a_stuck_file_is_pending_again(manager: Manager, output: Output) -> None:
    """In its shard, without a manifest or a run, with a trail; a metric counts it."""
    path = manager.manifest_path("b.json")
    manager.put(stuck(manifest_path=path, glue_job_run_id="jr_1", file_size_mb=2))
    body = reset(manager, reason="Glue lost it")
    assert (body["stuck_files_found"], body["files_reset"], body["files_failed"]) == (1, 1, 0)
    assert manager.row("a.ndjson") == {
        "date_prefix": DAY,
        "file_key": "a.ndjson",
        "file_size_mb": 2,
        "status": "pending#3",
        "previous_status": "processing#3",
        "last_changed_by": "state-manager invocation-1",
        "last_changed_reason": "Glue lost it",
        "last_reset_time": ago(),
        "updated_at": ago(),
        "reset_count": 1,
    }
    (metric,) = output.metric("FilesReset")
    assert metric["FilesReset"] == 1
    assert output.logged("status changed")[0]["old_status"] == "processing#3"


def test_a_dry_run_says_the_same_and_does_nothing(manager: Manager, output: Output) -> None:
    """The default: the same answer but for what was done, no write, no metric."""
    manager.put(
        stuck("1"), stuck("2", "manifested", reset_count=3), stuck("3", updated_at="?"),
        stuck("4", manifest_path=manager.manifest_path("b.json")), stuck("5", "failed#1"),
        manifest("b.json", "processing", processing_start_time=ago(60)),
    )  # fmt: skip
    before = manager.items("files")
    calls = manager.calls(manager.module.dynamodb)
    dry = manager.body("reset_stuck_files")
    assert "UpdateItem" not in calls.counts()
    assert manager.items("files") == before
    assert output.metric("FilesReset") == []
    done = reset(manager)
    same = ("stuck_files_found", "stuck_files", "skipped")
    assert [dry[key] for key in same] == [done[key] for key in same]
    assert [dry[key] for key in ("dry_run", "files_reset", "files_failed")] == [True, 0, 0]
    assert [done[key] for key in ("dry_run", "files_reset", "files_failed")] == [False, 1, 1]


def test_manifests_and_locks_are_not_reset(manager: Manager) -> None:
    """Only files are, and of these only the statuses asked for."""
    manager.put(manifest("b", "processing", updated_at=OLD), stuck("f", "failed#1"))
    manager.put(stuck("p", "pending#1"), stuck("new", updated_at=ago(60)))
    assert reset(manager)["stuck_files_found"] == 0
    assert reset(manager, statuses=["failed"])["files_reset"] == 1
    assert manager.row("MANIFEST#b")["status"] == "processing"


STILL = "its manifest is still "
UNKNOWN_AGE = "its manifest is processing, and its age is unknown: no readable timestamp"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"status": "processing", "processing_start_time": ago(60)}, STILL + "processing"),
        ({"status": "pending", "created_at": ago(60)}, STILL + "pending"),
        ({"status": "processing"}, UNKNOWN_AGE),
        ({"status": "processing", "processing_start_time": "?"}, UNKNOWN_AGE),
        ({"status": "completed"}, "its manifest is completed: the data is in the output"),
        ({"status": "processing", "processing_start_time": OLD}, None),
        ({"status": "pending", "created_at": OLD}, None),
        ({"status": "failed"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_manifest_that_may_still_run(
    manager: Manager, row: dict[str, Any], reason: str | None
) -> None:
    """Its files are left alone; one that was given up holds nobody."""
    manager.put(stuck(manifest_path=manager.manifest_path("b.json")))
    if row:
        manager.put(manifest("b.json", **row))
    body = reset(manager)
    expected = [] if reason is None else [{"file": f"{DAY}/a.ndjson", "reason": reason}]
    assert (body["skipped"], body["files_reset"]) == (expected, 0 if reason else 1)
    assert manager.row("a.ndjson")["status"] == ("processing#3" if reason else "pending#3")


@pytest.mark.parametrize(
    ("count", "action", "status", "then"),
    [
        (None, "reset", "pending#3", 1),
        (0, "reset", "pending#3", 1),
        (2, "reset", "pending#3", 3),
        (3, "fail", "failed#3", 3),
        (7, "fail", "failed#3", 7),
        ("2", "reset", "pending#3", 1),
    ],
)
def test_a_file_is_not_reset_for_ever(
    manager: Manager, count: Any, action: str, status: str, then: int
) -> None:
    """Three times; then it has failed."""
    manager.put(stuck(reset_count=count))
    (found,) = reset(manager)["stuck_files"]
    row = manager.row("a.ndjson")
    assert (found["action"], found["reset_count"]) == (action, then)
    assert (row["status"], "failed_time" in row) == (status, action == "fail")


def test_a_failed_file_that_was_reset_too_often(manager: Manager) -> None:
    """It stays failed, and is not written again and again."""
    manager.put(stuck(status="failed#1", reset_count=3, failed_time=OLD))
    body = reset(manager, statuses=["failed"])
    assert body["skipped"][0]["reason"] == "it was reset 3 times already"
    assert manager.row("a.ndjson")["updated_at"] == OLD


@pytest.mark.parametrize("path", [None, "pending-manifest-x"])
def test_a_claim_that_was_given_up(manager: Manager, path: Any) -> None:
    """NULL or a placeholder: it goes with the reset."""
    manager.put(stuck(status="manifested", manifest_path=path))
    assert reset(manager)["files_reset"] == 1
    assert "manifest_path" not in manager.row("a.ndjson")


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        ({}, {"status": "completed#3", "updated_at": ago()}),
        ({}, {"updated_at": ago(4 * HOUR)}),
        ({"manifest_path": "pending-manifest-x"}, {"manifest_path": "s3://b/m.json"}),
        ({"manifest_path": None}, {"manifest_path": "s3://b/m.json"}),
        ({}, {"manifest_path": "s3://b/m.json"}),
        ({}, {"glue_job_run_id": "jr_1"}),
    ],
)
def test_a_file_that_moves_meanwhile_is_left(
    manager: Manager, seen: dict[str, Any], then: dict[str, Any]
) -> None:
    """Completed, claimed or published between our reading and our writing: it stays so."""
    manager.put(stuck(**seen), stuck("b.ndjson", "processing#4"))
    moved = stuck(**seen) | then
    left = [moved]

    def act(_: Any) -> None:
        if left:
            manager.put(left.pop())

    manager.on(manager.module.dynamodb, "UpdateItem", act)
    body = reset(manager)
    assert manager.row("a.ndjson") == moved
    assert "changed by another writer" in body["skipped"][0]["reason"]
    assert (body["stuck_files_found"], body["files_reset"]) == (2, 1)


def test_the_write_is_conditional_on_all_that_it_removes(manager: Manager) -> None:
    """A path that was published meanwhile must not be taken away."""
    manager.put(stuck(manifest_path="pending-manifest-x"))
    calls = manager.calls(manager.module.dynamodb)
    reset(manager)
    (call,) = calls.of("UpdateItem")
    names = call["ExpressionAttributeNames"]
    condition = call["ConditionExpression"]
    for place, name in names.items():
        condition = condition.replace(f"{place} ", f"{name} ").replace(f"{place})", f"{name})")
    assert condition == (
        "attribute_exists(date_prefix) AND status = :seen_status AND updated_at = :seen_updated_at"
        " AND manifest_path = :seen_manifest_path AND attribute_not_exists(glue_job_run_id)"
    )
    values = from_item(call["ExpressionAttributeValues"])
    assert values[":seen_manifest_path"] == "pending-manifest-x"


def test_it_goes_on_after_a_failure(manager: Manager, output: Output) -> None:
    """One write that fails, one file that has gone: the others are reset."""
    manager.put(*(stuck(f"{n}", f"processing#{n}") for n in range(4)))
    manager.fail(manager.module.dynamodb, "UpdateItem", "InternalServerError", status=500, times=1)
    body = reset(manager)
    assert (body["stuck_files_found"], body["files_reset"]) == (4, 3)
    assert body["skipped"] == [{"file": f"{DAY}/0", "reason": "the write failed; see the log"}]
    assert len(output.logged("file was not reset")) == 1


def test_again_there_is_nothing_left(manager: Manager) -> None:
    """What was reset is not stuck any more."""
    manager.put(*(stuck(f"{n}") for n in range(3)))
    assert reset(manager)["files_reset"] == 3
    assert reset(manager)["stuck_files_found"] == 0


@pytest.mark.parametrize("updated_at", ["yesterday", True, ["x"]])
def test_an_unreadable_time_is_no_age(manager: Manager, updated_at: Any) -> None:
    """Nobody knows that it is stuck."""
    manager.put(stuck(updated_at=updated_at))
    body = reset(manager)
    assert body["skipped"] == [
        {"file": f"{DAY}/a.ndjson", "reason": "its age is unknown: no readable timestamp"}
    ]
    assert body["stuck_files_found"] == 0


@pytest.mark.parametrize("dry_run", [True, False])
def test_without_time_it_goes_on_later(manager: Manager, dry_run: bool) -> None:
    """In parts; each file is in one of them, and was reset once."""
    manager.put(*(stuck(f"{n}", f"manifested#{n % 3}") for n in range(9)))
    pages = list(manager.parts("reset_stuck_files", seconds=0, dry_run=dry_run))
    keys = [row["file_key"] for page in pages for row in page["stuck_files"]]
    assert sorted(keys) == [f"{n}" for n in range(9)]
    assert all(page["truncated"] for page in pages[:-1])
    counts = {row.get("reset_count") for row in manager.items("files")}
    assert counts == ({None} if dry_run else {1})


def test_the_manifests_are_read_afresh(manager: Manager) -> None:
    """A run that begins while a long reset goes on holds its files from then on."""
    path = manager.manifest_path("b.json")
    manager.put(stuck("1", "manifested#0", manifest_path=path))
    manager.put(stuck("2", "manifested#1", manifest_path=path))

    def act(_: Any) -> None:
        manager.put(manifest("b.json", "processing", processing_start_time=ago(MINUTE)))

    manager.on(manager.module.dynamodb, "UpdateItem", act)
    body = reset(manager)
    assert [row["file_key"] for row in body["stuck_files"]] == ["1"]
    assert body["skipped"][0]["reason"] == "its manifest is still processing"
