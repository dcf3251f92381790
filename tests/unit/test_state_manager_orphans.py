"""state-manager: `find_orphans` reads candidates, manifests and outputs, and reports doubts."""

import json
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tests.unit.manager import DAY, HOUR, NOW, Manager, ago, file, manifest

ALWAYS = {"stuck_in_processing", "missing_manifests", "missing_outputs"}
OLD = ago(5 * HOUR)


def found(manager: Manager, **request: Any) -> dict[str, list[str]]:
    """Names of the orphans by kind, without empty kinds."""
    orphans = manager.body("find_orphans", **request)["orphans"]
    assert set(orphans) >= ALWAYS
    return {kind: [row.get("file_key") for row in rows] for kind, rows in orphans.items() if rows}


def test_stuck_files(manager: Manager) -> None:
    """Of every status in flight, sharded or not; the hours are a parameter."""
    manager.put(file("1", "pending", updated_at=OLD), file("2", "manifested#0", updated_at=OLD))
    manager.put(file("3", "processing#9", updated_at=OLD), file("new", "processing#9"))
    manager.put(manifest("b", "processing", updated_at=OLD), manifest("c", "pending"))
    body = manager.body("find_orphans")
    assert body["total_orphans"] == 3
    assert body["orphans"]["stuck_pending"] == [
        {"date_prefix": DAY, "file_key": "1", "status": "pending", "hours_stuck": 5.0,
         "since": OLD}
    ]  # fmt: skip
    assert found(manager) == {
        "stuck_pending": ["1"], "stuck_manifested": ["2"], "stuck_in_processing": ["3"],
    }  # fmt: skip
    assert found(manager, max_processing_hours=6) == {}


def in_manifest(manager: Manager, name: str = "a.ndjson", **more: Any) -> dict[str, Any]:
    """A manifested file of batch.json."""
    path = manager.manifest_path("batch.json")
    values = {"manifest_path": path, "file_path": manager.path(name), "updated_at": OLD}
    return file(name, "manifested#1", **values | more)


def test_files_and_their_manifest(manager: Manager) -> None:
    """Its object says which files it lists, and its row whether it is completed."""
    manager.put(in_manifest(manager, "in"), in_manifest(manager, "out"))
    manager.publish("batch.json", "in")
    assert found(manager) == {"stuck_manifested": ["in"], "not_in_manifest": ["out"]}
    manager.put(manifest("batch.json", "completed", completed_time=OLD))
    assert found(manager) == {"lagging_files": ["in"], "not_in_manifest": ["out"]}


def test_a_missing_manifest(manager: Manager) -> None:
    """Only when S3 has no such key; beyond the lifecycle it has expired."""
    manager.put(
        in_manifest(manager, "1", updated_at=ago(60)),
        in_manifest(manager, "2", updated_at=ago(60), manifest_time=ago(73 * HOUR)),
    )
    assert found(manager) == {"missing_manifests": ["1"], "expired_manifests": ["2"]}
    manager.put(manifest("batch.json", "failed", created_at=ago(73 * HOUR)))
    assert found(manager) == {"expired_manifests": ["1", "2"]}


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("NoSuchBucket", 404)])
def test_an_unread_manifest_is_unknown(manager: Manager, code: str, status: int) -> None:
    """It is not an orphan for that; a file that is stuck is reported as well."""
    manager.put(in_manifest(manager), in_manifest(manager, "new", updated_at=ago(60)))
    manager.publish("batch.json", "a.ndjson")
    manager.refuse("GetObject", code, status)
    body = manager.body("find_orphans")
    unknown = {row["file_key"]: row["reason"] for row in body["unknown"]}
    assert unknown == dict.fromkeys(("a.ndjson", "new"), f"S3 returned {code}")
    assert (body["total_orphans"], len(body["orphans"]["stuck_manifested"])) == (1, 1)


def test_a_manifest_without_network_is_unknown(manager: Manager) -> None:
    """S3 can't be reached, or the time limit comes before the first is read."""
    manager.put(in_manifest(manager))
    pages = manager.parts("find_orphans", seconds=0)
    reasons = [unknown["reason"] for page in pages for unknown in page["unknown"]]
    assert reasons == ["not read: the time limit was reached"]

    def act(_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    manager.on(manager.module.s3(), "GetObject", act)
    (unknown,) = manager.body("find_orphans")["unknown"]
    assert unknown["reason"] == "S3 did not answer (EndpointConnectionError)"


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        ('{"fileLocations": 7}', {}, "not"),
        (" " * 101, {}, "larger than"),
        *(("", {"manifest_path": path}, "its path is not the URI of an object")
          for path in ("s3://", "s3://bucket", "s3:///key")),
    ],
)  # fmt: skip
def test_a_manifest_that_can_not_be_read_is_unknown(
    manager: Manager, text: str, more: dict[str, Any], reason: str
) -> None:
    """A malformed one, one that is too large for the memory, and one that S3 can't have."""
    manager.replace(MAX_MANIFEST_BYTES=100)
    manager.put(in_manifest(manager, **more))
    manager.publish_text("batch.json", text)
    (unknown,) = manager.body("find_orphans")["unknown"]
    assert unknown["file_key"] == "a.ndjson"
    assert reason in unknown["reason"]
    assert found(manager) == {"stuck_manifested": ["a.ndjson"]}


def test_dates_without_output(manager: Manager) -> None:
    """Completed files of dates without an object under their prefix; other prefixes are ignored."""
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


@pytest.mark.parametrize(
    ("code", "status", "when"),
    [("AccessDenied", 403, ""), ("SlowDown", 503, "continuation-token")],
    ids=["no page", "first page"],
)
def test_an_incomplete_listing_is_unknown(
    manager: Manager, code: str, status: int, when: str
) -> None:
    """No file is reported as missing its output."""
    manager.put(file(status="completed#1"))
    for day in ("01", "02", "03"):
        manager.lay("output", f"pipeline/output/merged-parquet-2026-11-{day}/p")
    manager.list_by(2)
    manager.refuse("ListObjectsV2", code, status, when=when)
    body = manager.body("find_orphans")
    assert body["unknown"] == [{"subject": "outputs", "reason": f"S3 returned {code}"}]
    assert (body["total_orphans"], body["orphans"]["missing_outputs"]) == (0, [])


def lock(name: str, ttl: Any) -> dict[str, Any]:
    row = {"date_prefix": f"LOCK#{name}", "file_key": "LOCK", "lock_id": f"stream_{name}"}
    return row if ttl is None else row | {"ttl": ttl}


def test_stale_locks(manager: Manager) -> None:
    """Only rows of locks are looked at."""
    manager.put(lock("held", int(NOW) + 10), lock("past", int(NOW) - 10), lock("none", None))
    manager.put(file("not-a-lock", lock_id="x"))
    locks = manager.body("find_orphans")["orphans"]["stale_locks"]
    assert {row["date_prefix"] for row in locks} == {"LOCK#past", "LOCK#none"}


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


@pytest.mark.parametrize("full", [0, 1000], ids=["no time", "little room"])
def test_a_large_answer_comes_in_parts(crowd: Manager, full: int) -> None:
    """Each part advances, and every orphan is in one of them."""
    if full:
        crowd.replace(FULL_BYTES=full)
    pages = list(crowd.parts("find_orphans", seconds=300 if full else 0))
    assert len(pages) > (5 if full else 40)
    assert all(page["truncated"] for page in pages[:-1])
    assert sum(page["total_orphans"] for page in pages) == 40
    keys = [
        (row["date_prefix"], row["file_key"])
        for page in pages
        for rows in page["orphans"].values()
        for row in rows
    ]
    assert len(set(keys)) == 40


def test_the_parts_share_a_clock(crowd: Manager) -> None:
    """A file does not become an orphan because a search takes long."""
    crowd.put(file("almost", "processing#9", updated_at=ago(2 * HOUR - 30)))
    token = crowd.body("find_orphans", seconds=0)["next_token"]
    crowd.clock.now += 60
    assert crowd.body("find_orphans", next_token=token)["orphans"]["stuck_in_processing"] == []


def test_healthy_files_are_not_read(manager: Manager) -> None:
    """Only the statuses in flight, the dates without output and the locks: never the table."""
    manager.lay("output", f"pipeline/output/merged-parquet-{DAY}/p")
    manager.put(*(file(f"{n}", f"completed#{n}") for n in range(10)))
    before = manager.body("find_orphans")["consumed_capacity"]
    manager.put(*(file(f"{n}", f"completed#{n % 10}") for n in range(200)))
    manager.put(*(file(f"f{n}", f"failed#{n % 10}") for n in range(50)))
    assert manager.body("find_orphans")["consumed_capacity"] == before
