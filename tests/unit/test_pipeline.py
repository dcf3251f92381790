"""The generated state of a pipeline: reproducible, healthy, with the planted faults."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from jobplane.pipeline import faults
from jobplane.pipeline.generating import Plan, generate
from jobplane.pipeline.layout import Layout
from jobplane.pipeline.state import DAY, HOUR, MAX_DAYS, MINUTE, Row, State, date_of, midnight
from jobplane.tree.repository import Repository
from jobplane_keys import tracking
from jobplane_keys.tracking import FileStatus

NOW = midnight("2026-11-22") + 10 * HOUR + 15 * MINUTE
IN_FLIGHT = {FileStatus.PENDING, FileStatus.MANIFESTED, FileStatus.PROCESSING}


def made(files: int = 3000, now: float = NOW, **plan: Any) -> State:
    return generate(Plan(files, now, **plan))


@pytest.fixture(scope="module")
def healthy() -> State:
    return made()


@pytest.fixture(scope="module")
def broken() -> State:
    return made(faults=faults.spread(300))


def status_of(row: Row) -> FileStatus | None:
    return tracking.read_status(row.get("status"), tracking.DEFAULT_STATUS_SHARDS)


def listed_in(state: State, row: Row) -> list[str] | None:
    """The URIs in a row's manifest; None if its object does not exist."""
    key = str(row["manifest_path"]).removeprefix(f"s3://{state.layout.manifest_bucket}/")
    body = state.objects[state.layout.manifest_bucket].get(key)
    return None if body is None else json.loads(body)["fileLocations"][0]["URIPrefixes"]


def test_the_same_plan_gives_the_same_state() -> None:
    plan = {"faults": faults.spread(40), "seed": 3}
    one, again, other = made(400, **plan), made(400, **plan), made(400, **plan | {"seed": 4})
    assert (one.rows, one.objects, one.ledger) == (again.rows, again.objects, again.ledger)
    assert one.rows.keys() != other.rows.keys()


def test_faults_of_one_kind_do_not_change_those_of_others() -> None:
    few = made(400, faults={"stuck_pending": 5})
    more = made(400, faults={"stuck_pending": 5, "stale_locks": 3, "lagging_files": 20})
    planted = {one for one in few.ledger if one.fault == "stuck_pending"}
    assert planted == {one for one in more.ledger if one.fault == "stuck_pending"}


@pytest.mark.parametrize("files", [0, 1, 7, 100, 3000])
@pytest.mark.parametrize("days", [1, 7, MAX_DAYS])
def test_a_state_has_as_many_files_as_the_plan(files: int, days: int) -> None:
    """Without rows of manifests and locks; no date is older than the plan's days."""
    state = made(files, days=days)
    assert len(state.files) == files
    oldest = date_of(NOW - days * DAY)
    assert all(date >= oldest for date in state.dates)


@pytest.mark.parametrize("hours", [0.0, 0.1, 3.9, 4.1, 12.0, 23.99])
def test_a_state_can_be_generated_at_any_hour(hours: float) -> None:
    """Even just after midnight no time is in the future, and every fault fits."""
    now = midnight("2026-11-22") + hours * HOUR
    state = made(1500, now, faults=faults.spread(100))
    assert len(state.files) == 1500
    for row in state.files:
        for name in ("created_at", "upload_time", "manifest_time", "completed_time"):
            written = row.get(name)
            if written is not None and written not in faults.UNREADABLE:
                assert tracking.read_time(written) <= now, (name, row)


def test_most_files_are_completed_and_some_are_in_flight(healthy: State) -> None:
    counts = healthy.by_status
    assert counts[FileStatus.COMPLETED] > 0.85 * counts.total()
    under_way = sum(counts[status] for status in IN_FLIGHT)
    assert 0.02 * counts.total() < under_way < 0.05 * counts.total()
    assert set(counts) >= IN_FLIGHT | {FileStatus.COMPLETED, FileStatus.QUARANTINED}
    assert healthy.ledger == []


def test_a_state_has_all_formats_of_the_builders(healthy: State) -> None:
    """Of times, statuses, manifest_path and names, which one builder stores encoded."""
    names = [row["file_key"] for row in healthy.files]
    assert any(" " in name for name in names)
    assert any("%" in name and " " not in name for name in names)
    times = [row.get("created_at", row.get("upload_time")) for row in healthy.files]
    forms: dict[str, Callable[[Any], bool]] = {
        "Z": lambda time: str(time).endswith("Z"),
        "offset": lambda time: str(time).endswith("+02:00"),
        "naive": lambda time: isinstance(time, str) and time[-1].isdigit() and "+" not in time,
        "seconds": lambda time: isinstance(time, int) and time < 10**11,
        "milliseconds": lambda time: isinstance(time, int) and time > 10**11,
    }
    assert [name for name, holds in forms.items() if not any(map(holds, times))] == []
    statuses = [row["status"] for row in healthy.files]
    assert {"#" in status for status in statuses} == {True, False}
    assert {int(status.partition("#")[2]) for status in statuses if "#" in status} == set(range(10))
    pending = [row for row in healthy.files if status_of(row) is FileStatus.PENDING]
    assert {"manifest_path" in row for row in pending} == {True, False}


def test_a_healthy_file_in_flight_is_too_young_for_an_orphan(healthy: State) -> None:
    """Its manifest lists it."""
    for row in healthy.files:
        if status_of(row) not in IN_FLIGHT:
            continue
        written = row.get("updated_at", row.get("created_at", row.get("upload_time")))
        assert NOW - tracking.read_time(written) < 2 * HOUR
        path = row.get("manifest_path")
        if path is not None and path.startswith("s3://"):
            assert row["file_path"] in (listed_in(healthy, row) or [])
        elif path is not None:
            assert NOW - tracking.read_time(row["manifest_time"]) < 5 * MINUTE


def test_objects_older_than_their_lifecycle_are_missing(healthy: State) -> None:
    """Inputs live for seven days and manifests for three."""
    layout = healthy.layout
    names = {key.rpartition("/")[2] for key in healthy.objects[layout.input_bucket]}
    for row in healthy.files:
        arrived = tracking.read_time(row.get("created_at", row.get("upload_time")))
        name = row["file_path"].rpartition("/")[2]
        if row["file_key"] == name and "%" not in name and "+" not in name:
            assert (name in names) == (NOW - arrived < layout.input_days * DAY)
        if status_of(row) is FileStatus.COMPLETED:
            published = tracking.read_time(row["manifest_time"])
            there = listed_in(healthy, row) is not None
            assert there == (NOW - published < layout.manifest_days * DAY)


def test_a_row_has_the_size_of_its_object(healthy: State) -> None:
    """Within a millionth of a megabyte."""
    inputs = {
        f"s3://{healthy.layout.input_bucket}/{key}": body
        for key, body in healthy.objects[healthy.layout.input_bucket].items()
    }
    sizes = [
        (row["file_size_mb"] * 1_048_576, len(inputs[row["file_path"]]))
        for row in healthy.files
        if row["file_path"] in inputs
    ]
    assert len(sizes) > 500
    assert all(abs(stored - real) < 2 for stored, real in sizes)


def test_rows_expire_after_a_day_at_the_earliest(broken: State) -> None:
    """Except for locks, which live for minutes."""
    for (date, _), row in broken.rows.items():
        if not date.startswith(tracking.LOCK_PREFIX):
            assert row["ttl"] > NOW + DAY
    assert {NOW < lock["ttl"] <= NOW + 300 for lock in broken.live_locks} == {True}


@pytest.mark.parametrize("kind", sorted(faults.REGISTER))
def test_every_planted_fault_has_its_findings(kind: str) -> None:
    state = made(300, faults={kind: 7})
    for operation, found in faults.REGISTER[kind].found:
        entries = [one for one in state.ledger if (one.operation, one.kind) == (operation, found)]
        assert len({(one.date_prefix, one.file_key) for one in entries}) == 7
        if faults.REGISTER[kind].has_row:
            assert all((one.date_prefix, one.file_key) in state.rows for one in entries)
    assert {one.fault for one in state.ledger} == {kind}
    assert len(state.files) == 300


def test_stuck_files_are_at_least_three_hours_old(broken: State) -> None:
    """Operators search for two hours."""
    stuck = {one for one in broken.ledger if one.kind.startswith("stuck_")}
    assert len(stuck) > 30
    for one in stuck:
        row = broken.rows[one.date_prefix, one.file_key]
        times = [row[name] for name in ("updated_at", "created_at", "upload_time") if name in row]
        assert NOW - tracking.read_time(times[0]) > 2.9 * HOUR


def test_only_dates_of_missing_outputs_lack_output(broken: State) -> None:
    without = {one.date_prefix for one in broken.ledger if one.kind == faults.MISSING_OUTPUTS}
    prefix = f"{broken.layout.output_prefix}merged-parquet-"
    outputs = {
        key.removeprefix(prefix).partition("/")[0]
        for key in broken.objects[broken.layout.output_bucket]
    }
    done = [row for row in broken.files if status_of(row) is FileStatus.COMPLETED]
    assert without
    assert {row["date_prefix"] for row in done} - outputs == without


def test_more_faults_than_files_is_an_error() -> None:
    with pytest.raises(faults.TooManyFaultsError, match="10 files are too few: 11"):
        made(10, faults={"stuck_pending": 11})


def test_faults_are_spread_evenly_over_kinds() -> None:
    counts = faults.spread(500)
    assert counts.keys() == faults.REGISTER.keys()
    assert sum(counts.values()) == 500
    assert max(counts.values()) - min(counts.values()) == 1
    orphans = faults.spread(3, "find_orphans")
    assert len(orphans) == 3
    assert all("find_orphans" in dict(faults.REGISTER[kind].found) for kind in orphans)
    assert faults.spread(0) == {}


def test_a_layout_is_read_from_the_functions_environment() -> None:
    layout = Layout.configured(
        {"TRACKING_TABLE": "t", "INPUT_PREFIX": "in/", "NUM_STATUS_SHARDS": "4", "OTHER": "x"}
    )
    assert (layout.tracking_table, layout.input_prefix, layout.shards) == ("t", "in/", 4)
    assert layout.output_prefix == "pipeline/output/"
    state = generate(Plan(500, NOW), layout)
    shards = {row["status"].partition("#")[2] for row in state.files}
    assert shards == {"", "0", "1", "2", "3"}


def test_the_operators_page_names_every_fault() -> None:
    page = (Repository.here().root / "docs" / "files.md").read_text().splitlines()
    for kind, fault in faults.REGISTER.items():
        (line,) = (line for line in page if line.startswith(f"| `{kind}` | {fault.story}"))
        assert all(f"`{found}`" in line for named in fault.found for found in named)
