"""state-manager: what find_orphans finds, what it does not, and what it leaves open."""

import json
from datetime import date, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from jobplane_files import gaps
from tests.unit.manager import DAY, HOUR, MINUTE, NOW, Manager, ago, file, manifest

ALWAYS = {"stuck_in_processing", "missing_manifests", "missing_outputs"}
OLD = ago(5 * HOUR)


def found(manager: Manager, **request: Any) -> dict[str, list[str]]:
    """Names of the orphans by kind, without the kinds that have none."""
    orphans = manager.body("find_orphans", **request)["orphans"]
    assert set(orphans) >= ALWAYS
    return {kind: [row.get("file_key") for row in rows] for kind, rows in orphans.items() if rows}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("pending#3", "stuck_pending"),
        ("pending", "stuck_pending"),
        ("manifested#0", "stuck_manifested"),
        ("processing#9", "stuck_in_processing"),
    ],
)
@pytest.mark.parametrize(
    "since",
    [OLD, OLD[:-1], OLD.replace("Z", "+00:00"), int(NOW - 5 * HOUR), int(NOW - 5 * HOUR) * 1000],
)
def test_a_stuck_file(manager: Manager, status: str, kind: str, since: Any) -> None:
    """Longer where it is than the hours, in whatever form the time is."""
    manager.put(file(status=status, updated_at=since), file("new", status=status))
    body = manager.body("find_orphans")
    (orphan,) = body["orphans"].pop(kind)
    assert body["total_orphans"] == 1
    assert (orphan["date_prefix"], orphan["file_key"], orphan["status"]) == (
        DAY,
        "a.ndjson",
        status,
    )
    assert orphan["hours_stuck"] == pytest.approx(5, abs=0.01)
    assert found(manager, max_processing_hours=6) == {}


def test_the_age_is_of_the_best_time(manager: Manager) -> None:
    """updated_at, else the time of its status, else when it came in."""
    bare = {"date_prefix": DAY, "status": "manifested#1"}
    manager.put(
        bare | {"file_key": "1", "updated_at": ago(60), "created_at": OLD},
        bare | {"file_key": "2", "manifest_time": ago(60), "created_at": OLD},
        bare | {"file_key": "3", "created_at": OLD},
        bare | {"file_key": "4", "upload_time": OLD, "created_at": None},
        bare | {"file_key": "5", "manifest_time": OLD, "updated_at": None},
    )
    assert found(manager) == {"stuck_manifested": ["3", "4", "5"]}


def test_an_unreadable_time_is_a_finding(manager: Manager) -> None:
    """Of any attribute, with its value; and so is a file of which no time is known."""
    manager.put(
        file("1", updated_at="yesterday"),
        file("2", manifest_time=True),
        file("3", created_at={"a": [1]}, updated_at=OLD),
        {"date_prefix": DAY, "file_key": "4", "status": "processing"},
        file("5", "completed#1", completed_time="nan", date_prefix="2026-11-21"),
    )
    manager.lay("output", "pipeline/output/merged-parquet-2026-11-21/p.parquet")
    orphans = manager.body("find_orphans")["orphans"]
    unreadable = {row["file_key"]: row["attributes"] for row in orphans["unreadable_times"]}
    assert unreadable == {
        "1": {"updated_at": "yesterday"},
        "2": {"manifest_time": True},
        "3": {"created_at": {"a": [1]}},
        "4": {},
    }
    assert [row["file_key"] for row in orphans["stuck_pending"]] == ["3"]


def test_manifests_and_locks_are_no_files(manager: Manager) -> None:
    """A manifest that is stuck is not a stuck file."""
    manager.put(manifest("b", "processing", updated_at=OLD), manifest("c", "pending"))
    assert found(manager) == {}


def in_manifest(manager: Manager, name: str = "a.ndjson", **more: Any) -> dict[str, Any]:
    """A manifested file of batch.json."""
    path = manager.manifest_path("batch.json")
    values = {"manifest_path": path, "file_path": manager.path(name), "updated_at": OLD}
    return file(name, "manifested#1", **values | more)


def test_a_file_that_its_manifest_does_not_list(manager: Manager) -> None:
    """The more telling kind, even of a manifest that is completed."""
    manager.put(in_manifest(manager, "in"), in_manifest(manager, "out"))
    manager.publish("batch.json", "in")
    assert found(manager) == {"stuck_manifested": ["in"], "not_in_manifest": ["out"]}
    manager.put(manifest("batch.json", "completed", completed_time=OLD))
    assert found(manager) == {"lagging_files": ["in"], "not_in_manifest": ["out"]}


@pytest.mark.parametrize(
    ("listed", "path"),
    [
        ("a b.ndjson", "a%20b.ndjson"),
        ("a+b.ndjson", "a b.ndjson"),
        ("a%20b.ndjson", "a+b.ndjson"),
        ("%C3%BC.ndjson", "ü.ndjson"),
        ("a+b.ndjson", "a+b.ndjson"),
        ("", "sub/a.ndjson"),
    ],
)
def test_an_encoded_key_is_the_same_key(manager: Manager, listed: str, path: str) -> None:
    """As it is, encoded, or under a listed folder."""
    manager.publish("batch.json", listed)
    manager.put(in_manifest(manager, file_path=manager.path(path)))
    assert found(manager) == {"stuck_manifested": ["a.ndjson"]}


def test_without_a_path_the_name_has_to_do(manager: Manager) -> None:
    """A row of which only the key is known."""
    manager.publish("batch.json", "a.ndjson")
    manager.put(in_manifest(manager, file_path=None), in_manifest(manager, "b", file_path=None))
    assert found(manager) == {"stuck_manifested": ["a.ndjson"], "not_in_manifest": ["b"]}


def test_a_missing_manifest(manager: Manager) -> None:
    """Only when S3 has no such key; beyond the lifecycle it has expired."""
    manager.put(
        in_manifest(manager, "1"),
        in_manifest(manager, "2", updated_at=ago(60)),
        in_manifest(manager, "3", updated_at=ago(73 * HOUR)),
        in_manifest(manager, "4", updated_at=ago(60), manifest_time=ago(73 * HOUR)),
    )
    assert found(manager) == {"missing_manifests": ["1", "2"], "expired_manifests": ["3", "4"]}


def test_an_expiry_is_told_by_the_manifests_row(manager: Manager) -> None:
    """A file that was touched since still has an old manifest."""
    manager.put(in_manifest(manager, updated_at=ago(60)))
    manager.put(manifest("batch.json", "failed", created_at=ago(73 * HOUR)))
    assert found(manager) == {"expired_manifests": ["a.ndjson"]}


@pytest.mark.parametrize(
    ("code", "status"),
    [("AccessDenied", 403), ("SlowDown", 503), ("InternalError", 500), ("NoSuchBucket", 404)],
)
def test_what_s3_does_not_say_is_unknown(manager: Manager, code: str, status: int) -> None:
    """Neither missing nor not listed, and not counted; its age counts all the same."""
    manager.put(in_manifest(manager), in_manifest(manager, "new", updated_at=ago(60)))
    manager.publish("batch.json", "a.ndjson")
    manager.refuse("GetObject", code, status)
    body = manager.body("find_orphans")
    unknown = {row["file_key"]: row["reason"] for row in body["unknown"]}
    assert unknown == dict.fromkeys(("a.ndjson", "new"), f"S3 returned {code}")
    assert (body["total_orphans"], len(body["orphans"]["stuck_manifested"])) == (1, 1)


def test_no_network_is_unknown(manager: Manager) -> None:
    """An answer that does not come is no answer."""
    manager.put(in_manifest(manager))

    def act(_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    manager.on(manager.module.s3(), "GetObject", act)
    (unknown,) = manager.body("find_orphans")["unknown"]
    assert unknown["reason"] == "S3 did not answer (EndpointConnectionError)"


@pytest.mark.parametrize(
    "text",
    [
        "", "no json", "[]", "7", "null", "{}", '{"fileLocations": 7}', '{"fileLocations": [7]}',
        '{"fileLocations": [{"URIPrefixes": "s3://b/a.ndjson"}]}',
        '{"fileLocations": [{"URIPrefixes": [7]}]}', "[" * 100_000, "\udcff",
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_unknown(manager: Manager, text: str) -> None:
    """What can't be read lists nothing, and it does not fail to list either."""
    manager.put(in_manifest(manager))
    body = text.encode("utf-8", "surrogateescape")
    manager.lay("manifests", f"manifests/{DAY}/batch.json", body)
    answer = manager.body("find_orphans")
    assert [row["file_key"] for row in answer["unknown"]] == ["a.ndjson"]
    assert found(manager) == {"stuck_manifested": ["a.ndjson"]}


def test_a_huge_manifest_is_unknown(manager: Manager, monkeypatch: Any) -> None:
    """It is not taken into memory."""
    monkeypatch.setattr(manager.module, "MAX_MANIFEST_BYTES", 100)
    manager.put(in_manifest(manager))
    manager.publish("batch.json", *(f"{n}.ndjson" for n in range(20)))
    (unknown,) = manager.body("find_orphans")["unknown"]
    assert "larger than" in unknown["reason"]


@pytest.mark.parametrize("path", ["s3://", "s3://bucket", "s3:///key"])
def test_a_path_that_names_no_object_is_unknown(manager: Manager, path: str) -> None:
    """S3 is not asked."""
    manager.put(in_manifest(manager, manifest_path=path))
    (unknown,) = manager.body("find_orphans")["unknown"]
    assert unknown["reason"] == "its path is not the URI of an object"


@pytest.mark.parametrize("path", [None, "", "manifests/batch.json", 7, ["s3://b/k"]])
def test_a_path_to_no_manifest(manager: Manager, path: Any) -> None:
    """NULL after a failed publish, or nonsense: the age alone counts."""
    manager.put(in_manifest(manager, manifest_path=path))
    assert found(manager) == {"stuck_manifested": ["a.ndjson"]}


def test_an_abandoned_claim(manager: Manager) -> None:
    """A placeholder older than fifteen minutes; a younger one may become a manifest."""
    placeholder = f"pending-manifest-{DAY}-7-1795342530"
    manager.put(
        in_manifest(manager, "old", updated_at=ago(16 * MINUTE), manifest_path=placeholder),
        in_manifest(manager, "new", updated_at=ago(14 * MINUTE), manifest_path=placeholder),
    )
    assert found(manager) == {"abandoned_claims": ["old"]}


@pytest.mark.parametrize(
    ("row", "lags"),
    [
        ({"status": "completed", "completed_time": ago(16 * MINUTE)}, True),
        ({"status": "completed", "completed_time": ago(14 * MINUTE)}, False),
        ({"status": "completed", "updated_at": int(NOW - HOUR)}, True),
        ({"status": "completed"}, True),
        ({"status": "processing", "completed_time": OLD}, False),
        ({"status": "failed", "completed_time": OLD}, False),
    ],
)
def test_a_lagging_file(manager: Manager, row: dict[str, Any], lags: bool) -> None:
    """Its manifest was completed some time ago, and nobody told the file."""
    manager.publish("batch.json", "a.ndjson")
    manager.put(in_manifest(manager, updated_at=ago(60)), manifest("batch.json", **row))
    assert found(manager) == ({"lagging_files": ["a.ndjson"]} if lags else {})


def test_dates_without_output(manager: Manager) -> None:
    """Completed files of a date under whose prefix nothing lies, before, between and after."""
    for day in ("01", "03", "04", "06"):
        manager.put(file(f"{day}.ndjson", "completed#1", date_prefix=f"2026-11-{day}"))
    manager.put(manifest("b", "completed") | {"date_prefix": "2026-11-01"})
    for day in ("2026-11-03", "2026-11-04", "9999-12-31", "0001-01-01", "tmp", "2026-13-01"):
        manager.lay("output", f"pipeline/output/merged-parquet-{day}/part-0.parquet")
    assert found(manager) == {"missing_outputs": ["01.ndjson", "06.ndjson"]}


def test_dates_with_output_are_not_read(manager: Manager) -> None:
    """The gaps between them are ranges of the key condition."""
    manager.lay("output", "pipeline/output/merged-parquet-2026-11-03/part-0.parquet")
    calls = manager.calls(manager.module.dynamodb)
    manager.body("find_orphans")
    completed = [c for c in calls.of("Query") if "completed" in json.dumps(c)]
    conditions = {call["KeyConditionExpression"] for call in completed}
    assert conditions == {
        "#status = :status AND date_prefix <= :last",
        "#status = :status AND date_prefix >= :first",
    }
    assert "Scan" not in calls.counts() or all("IndexName" in call for call in calls.of("Scan"))


@settings(deadline=None)
@given(st.sets(st.dates(date(2026, 1, 1), date(2026, 1, 31))))
def test_gaps_are_the_other_dates(days: set[date]) -> None:
    """Every date is one of the days or lies in exactly one gap."""
    known = {day.isoformat() for day in days}
    ranges = gaps(known)
    for number in range(-2, 34):
        day = (date(2026, 1, 1) + timedelta(days=number)).isoformat()
        inside = [1 for first, last in ranges if (first or "") <= day <= (last or "9")]
        assert len(inside) == (day not in known)


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("SlowDown", 503)])
def test_an_unlisted_output_is_unknown(manager: Manager, code: str, status: int) -> None:
    """No file is missing its output because S3 does not say what there is."""
    manager.put(file(status="completed#1"))
    manager.refuse("ListObjectsV2", code, status)
    body = manager.body("find_orphans")
    assert body["unknown"] == [{"subject": "outputs", "reason": f"S3 returned {code}"}]
    assert (body["total_orphans"], body["orphans"]["missing_outputs"]) == (0, [])


def test_half_a_listing_is_unknown(manager: Manager) -> None:
    """The second page fails: what was on the first says nothing of the rest."""
    manager.put(file(status="completed#1"))
    for day in ("01", "02", "03"):
        manager.lay("output", f"pipeline/output/merged-parquet-2026-11-{day}/p")
    manager.list_by(2)
    manager.refuse("ListObjectsV2", "SlowDown", 503, when="continuation-token")
    body = manager.body("find_orphans")
    assert [unknown["subject"] for unknown in body["unknown"]] == ["outputs"]
    assert body["orphans"]["missing_outputs"] == []


def lock(name: str, ttl: Any) -> dict[str, Any]:
    row = {"date_prefix": f"LOCK#{name}", "file_key": "LOCK", "lock_id": f"stream_{name}"}
    return row if ttl is None else row | {"ttl": ttl}


def test_stale_locks(manager: Manager) -> None:
    """Whose ttl has passed, or has none that can be read."""
    manager.put(
        lock("held", int(NOW) + 10), lock("past", int(NOW) - 10), lock("none", None),
        lock("odd", "in five minutes"), lock("milliseconds", (int(NOW) - 10) * 1000),
    )  # fmt: skip
    manager.put(file("not-a-lock", lock_id="x"))
    locks = manager.body("find_orphans")["orphans"]["stale_locks"]
    names = {row["date_prefix"] for row in locks}
    assert names == {f"LOCK#{name}" for name in ("past", "none", "odd", "milliseconds")}


def test_the_oldest_pending(manager: Manager) -> None:
    """Since when the longest waiting file waits, stuck or not."""
    assert manager.body("find_orphans")["oldest_pending_age_seconds"] is None
    manager.put(file("1", updated_at=ago(100)), file("2", "pending#7", updated_at=ago(300)))
    manager.put(file("3", "manifested#1", updated_at=ago(900)), file("4", updated_at="?"))
    assert manager.body("find_orphans")["oldest_pending_age_seconds"] == 300


@pytest.fixture
def crowd(manager: Manager) -> Manager:
    """Ten of each of four kinds."""
    for number in range(10):
        manager.put(
            file(f"p{number}", f"pending#{number}", updated_at=OLD),
            file(f"m{number}", "manifested", updated_at=OLD),
            file(f"c{number}", f"completed#{number % 2}"),
            lock(f"{number}", 1),
        )
    return manager


def test_no_time_at_all_still_finds_everything(crowd: Manager) -> None:
    """In parts, each of which gets on; every orphan is in one of them."""
    pages = list(crowd.parts("find_orphans", seconds=0))
    assert len(pages) > 40
    assert all(page["truncated"] for page in pages[:-1])
    assert sum(page["total_orphans"] for page in pages) == 40
    keys = [
        (row["date_prefix"], row["file_key"])
        for page in pages
        for rows in page["orphans"].values()
        for row in rows
    ]
    assert len(set(keys)) == 40


def test_a_large_answer_comes_in_parts(crowd: Manager, monkeypatch: Any) -> None:
    """It ends when it is full, after any row, and goes on there."""
    monkeypatch.setattr(crowd.module, "FULL_BYTES", 1000)
    pages = list(crowd.parts("find_orphans"))
    assert len(pages) > 5
    assert sum(page["total_orphans"] for page in pages) == 40


def test_the_parts_share_a_clock(crowd: Manager) -> None:
    """A file does not become an orphan because the search takes long."""
    crowd.put(file("almost", "processing#9", updated_at=ago(2 * HOUR - 30)))
    token = crowd.body("find_orphans", seconds=0)["next_token"]
    crowd.clock.now += 60
    assert crowd.body("find_orphans", next_token=token)["orphans"]["stuck_in_processing"] == []


def test_files_out_of_flight_are_not_read(manager: Manager) -> None:
    """Only the statuses in flight, the dates without output and the locks: never the table."""
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/p")
    manager.put(*(file(f"{n}", f"completed#{n}") for n in range(10)))
    before = manager.body("find_orphans")["consumed_capacity"]
    manager.put(*(file(f"{n}", f"completed#{n % 10}") for n in range(200)))
    manager.put(*(file(f"f{n}", f"failed#{n % 10}") for n in range(50)))
    assert manager.body("find_orphans")["consumed_capacity"] == before
