"""state-manager: `reset_stuck_files` lists, resets, fails and skips files."""

from typing import Any

import pytest

from tests.unit.manager import DAY, HOUR, MINUTE, Manager, ago, file, manifest
from tests.unit.stack import Output

OLD = ago(5 * HOUR)


def stuck(name: str = "a.ndjson", status: str = "processing#3", **more: Any) -> dict[str, Any]:
    return file(name, status, **{"updated_at": OLD, **more})


def reset(manager: Manager, **request: Any) -> Any:
    return manager.body("reset_stuck_files", dry_run=False, **request)


def test_a_stuck_file_is_pending_again(manager: Manager, output: Output) -> None:
    """In its shard, without manifest or run, with a record of the change; a metric counts it."""
    path = manager.manifest_path("b.json")
    manager.put(stuck(manifest_path=path, glue_job_run_id="jr_1", file_size_mb=2))
    body = reset(manager, reason="Glue lost it")
    assert (body["stuck_files_found"], body["files_reset"], body["files_failed"]) == (1, 1, 0)
    row = manager.row("a.ndjson")
    assert row.pop("write_id")
    assert row == {
        "date_prefix": DAY, "file_key": "a.ndjson", "file_size_mb": 2, "status": "pending#3",
        "previous_status": "processing#3", "last_changed_by": "state-manager invocation-1",
        "last_changed_reason": "Glue lost it", "last_reset_time": ago(), "updated_at": ago(),
        "reset_count": 1,
    }  # fmt: skip
    (metric,) = output.metric("FilesReset")
    assert metric["FilesReset"] == 1
    assert output.logged("status changed")[0]["old_status"] == "processing#3"
    assert reset(manager)["stuck_files_found"] == 0


def test_a_dry_run_gives_the_same_list(manager: Manager, output: Output) -> None:
    """The default: the same files and reasons, but no write and no metric."""
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
    assert {skipped["file"]: skipped["reason"] for skipped in done["skipped"]} == {
        f"{DAY}/3": "its age is unknown: no readable timestamp",
        f"{DAY}/4": "its manifest is still processing",
    }
    assert done["stuck_files_found"] == 3
    assert manager.row("2")["status"] == "failed"


def test_only_stuck_files_of_the_chosen_statuses(manager: Manager) -> None:
    """Manifests and younger files stay; failed files are reset on request, up to three times."""
    manager.put(manifest("b", "processing", updated_at=OLD), stuck("f", "failed#1"))
    manager.put(stuck("p", "pending#1"), stuck("new", updated_at=ago(60)))
    manager.put(stuck("g", "failed#1", reset_count=3))
    assert reset(manager)["stuck_files_found"] == 0
    body = reset(manager, statuses=["failed"])
    assert (body["files_reset"], body["skipped"]) == (
        1, [{"file": f"{DAY}/g", "reason": "it was reset 3 times already"}],
    )  # fmt: skip
    assert manager.row("MANIFEST#b")["status"] == "processing"


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        ({}, {"status": "completed#3", "updated_at": ago()}),
        ({"manifest_path": "pending-manifest-x"}, {"manifest_path": "s3://b/m.json"}),
        ({"manifest_path": None}, {"manifest_path": "s3://b/m.json"}),
        ({}, {"glue_job_run_id": "jr_1"}),
    ],
)
def test_a_file_that_changes_in_the_meantime(
    manager: Manager, seen: dict[str, Any], then: dict[str, Any]
) -> None:
    """Completed, claimed or published between reading and writing: it stays so."""
    manager.put(stuck(**seen), stuck("b.ndjson", "processing#4"))
    moved = stuck(**seen) | then
    manager.once(manager.module.dynamodb, "UpdateItem", lambda: manager.put(moved))
    body = reset(manager)
    assert manager.row("a.ndjson") == moved
    assert "changed by another writer" in body["skipped"][0]["reason"]
    assert (body["stuck_files_found"], body["files_reset"]) == (2, 1)


def test_it_goes_on_after_a_failure(manager: Manager, output: Output) -> None:
    """One write fails, and the other files are reset."""
    manager.put(*(stuck(f"{n}", f"processing#{n}") for n in range(4)))
    manager.fail(manager.module.dynamodb, "UpdateItem", "InternalServerError", status=500, times=1)
    body = reset(manager)
    assert (body["stuck_files_found"], body["files_reset"]) == (4, 3)
    assert body["skipped"] == [{"file": f"{DAY}/0", "reason": "the write failed; see the log"}]
    assert len(output.logged("file was not reset")) == 1


@pytest.mark.parametrize("dry_run", [True, False])
def test_without_time_it_goes_on_in_parts(manager: Manager, dry_run: bool) -> None:
    """Each file is in one part, and was reset once."""
    manager.put(*(stuck(f"{n}", f"manifested#{n % 3}") for n in range(9)))
    pages = list(manager.parts("reset_stuck_files", seconds=0, dry_run=dry_run))
    keys = [row["file_key"] for page in pages for row in page["stuck_files"]]
    assert sorted(keys) == [f"{n}" for n in range(9)]
    assert all(page["truncated"] for page in pages[:-1])
    counts = {row.get("reset_count") for row in manager.items("files")}
    assert counts == ({None} if dry_run else {1})


def test_manifests_are_read_again_for_each_page(manager: Manager) -> None:
    """A run that begins during a long reset keeps its files from then on."""
    path = manager.manifest_path("b.json")
    manager.put(*(stuck(f"{n + 1}", f"manifested#{n}", manifest_path=path) for n in range(2)))
    run = manifest("b.json", "processing", processing_start_time=ago(MINUTE))
    manager.on(manager.module.dynamodb, "UpdateItem", lambda _: manager.put(run))
    body = reset(manager)
    assert [row["file_key"] for row in body["stuck_files"]] == ["1"]
    assert body["skipped"][0]["reason"] == "its manifest is still processing"
