"""state-manager on twenty thousand files: exactly the planted faults, and exact counters.

The files are those of a pipeline that has run for a month, with faults of every kind in them.
"""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobplane.pipeline import faults
from jobplane.pipeline.generating import Plan, generate
from jobplane.pipeline.state import BUILDERS, Row, State
from jobplane_keys import to_item, tracking
from jobplane_keys.tracking import FileStatus
from tests.e2e.pipeline_operator import Operator, expected, key_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FILES = 20_000
FAULTS = 500
EXPIRY_PATIENCE = 150.0  # the stage looks for expired items once a minute


@pytest.fixture(scope="module")
def planted(operator: Operator) -> State:
    """A month of files with known faults, on the stage."""
    plan = Plan(FILES, time.time(), seed=20261122, faults=faults.spread(FAULTS))
    state = generate(plan, operator.layout)
    operator.plant(state)
    return state


def test_exactly_the_planted_faults_are_found(operator: Operator, planted: State) -> None:
    """Five hundred, each with its kind."""
    found, wanted = operator.found(planted.dates), expected(planted)
    assert wanted - found == Counter(), "not found"
    assert found - wanted == Counter(), "found without reason"
    assert len({one.fault for one in planted.ledger}) == len(faults.REGISTER)
    assert len({(one.fault, one.date_prefix, one.file_key) for one in planted.ledger}) >= FAULTS


def test_an_expired_lock_is_stale(operator: Operator, planted: State) -> None:
    """Until DynamoDB deletes it; a live one is not."""
    stale: set[str] = set()
    for _ in range(3):  # the stage may remove it before the search
        now = int(time.time())
        lock = {"file_key": "LOCK", "lock_id": "expired", "ttl": now - 1}
        live = {"file_key": "LOCK", "lock_id": "live", "ttl": now + 300}
        operator.put(lock | {"date_prefix": "LOCK#expired"}, live | {"date_prefix": "LOCK#live"})
        stale |= {
            one["date_prefix"]
            for page in operator.pages("find_orphans")
            for one in page["orphans"].get("stale_locks", [])
        }
        if "LOCK#expired" in stale:
            break
    assert "LOCK#expired" in stale
    assert "LOCK#live" not in stale


def test_the_counters_have_no_drift_after_changes_of_any_kind(
    operator: Operator, planted: State
) -> None:
    """Updates, resets, direct writes, repetitions, deletions."""
    chance, files = random.Random(7), planted.files
    before = operator.settled()
    pending = [row for row in files if row["status"] == "pending"][:60]
    changes = [key_of(row) | {"new_status": "quarantined"} for row in pending]
    assert operator.do("batch_update", files=changes)["successful"] == len(changes)
    reset = [page["files_reset"] for page in operator.pages("reset_stuck_files", dry_run=False)]
    completed = [row for row in files if str(row["status"]).startswith("completed")]
    for row in chance.sample(completed, 150):
        operator.write(row, chance.choice(list(FileStatus)))
        if chance.random() < 0.3:
            operator.write(row, FileStatus.FAILED)
            operator.write(row, FileStatus.FAILED)
    for row in chance.sample(completed, 50):
        operator.delete(row)
        operator.delete(row)
    operator.put(*fresh_rows(40), {"date_prefix": "2026-01-01", "file_key": "no-status.ndjson"})

    after = operator.settled()

    assert sum(reset) > 0
    assert after != before
    assert after["quarantined"] >= before["quarantined"] + len(changes)
    exact = operator.do("get_stats", exact=True)
    assert exact["drift"] == dict.fromkeys(after, 0)
    assert exact["stats"] == exact["counters"] == after
    assert exact["total"] == sum(after.values())


def test_expired_files_are_no_longer_counted(operator: Operator, planted: State) -> None:
    before = operator.settled()
    now = int(time.time())
    date = "2026-01-02"
    operator.put(*(row | {"date_prefix": date, "ttl": now - 1} for row in fresh_rows(30)))
    end = time.monotonic() + EXPIRY_PATIENCE
    while operator.count_of(date) and time.monotonic() < end:
        time.sleep(1)
    assert operator.count_of(date) == 0
    assert operator.settled() == before


def fresh_rows(count: int) -> list[Row]:
    """Rows of files that have just arrived, and of manifests and locks."""
    now = time.time()
    kinds: list[Row] = [
        {"date_prefix": "2026-01-01", "file_key": f"MANIFEST#{number}.json", "status": "pending"}
        for number in range(5)
    ]
    return kinds + [
        {
            "date_prefix": "2026-01-01",
            "file_key": f"fresh-{number}{tracking.FILE_SUFFIX}",
            "status": f"pending#{number % tracking.DEFAULT_STATUS_SHARDS}",
            "created_at": BUILDERS[number % len(BUILDERS)].stamp(now),
        }
        for number in range(count)
    ]


def test_a_reconciliation_corrects_changed_counters(operator: Operator, planted: State) -> None:
    """It reports the exact drift."""
    right = operator.settled()
    tampering = {"pending": 7, "completed": -3, "failed": 100_000}
    for shard, (status, number) in enumerate(tampering.items()):
        operator.dynamodb.update_item(
            TableName=operator.layout.metrics_table,
            Key=to_item({"metric_type": tracking.COUNTERS, "timestamp": shard}),
            UpdateExpression="ADD #status :number",
            ExpressionAttributeNames={"#status": status},
            ExpressionAttributeValues=to_item({":number": number}),
        )
    wrong = operator.do("get_stats")["stats"]
    assert wrong == right | {name: right[name] + off for name, off in tampering.items()}

    exact = operator.do("get_stats", exact=True)

    assert exact["stats"] == right
    assert exact["drift"] == dict.fromkeys(right, 0) | {
        name: -off for name, off in tampering.items()
    }
    assert exact["reconciled"] is True
    assert operator.do("get_stats")["stats"] == right
    assert set(operator.do("get_stats", exact=True)["drift"].values()) == {0}


def test_pages_have_each_unchanged_file_once(operator: Operator, planted: State) -> None:
    """While one in twenty changes its status."""
    status, limit = FileStatus.COMPLETED, 1000
    rows = {
        key: row
        for key, row in operator.rows().items()
        if tracking.read_status(row.get("status"), operator.layout.shards) is status
        and tracking.row_kind(*key) is tracking.RowKind.FILE
    }
    movers = random.Random(limit).sample(sorted(rows), len(rows) // 20)
    seen: Counter[tuple[str, str]] = Counter()
    pages = 0

    def move() -> None:
        """Move files out of their status, and every other one back."""
        for number, key in enumerate(movers):
            operator.write(rows[key], FileStatus.FAILED)
            if number % 2:
                operator.write(rows[key], status)

    with ThreadPoolExecutor(1) as pool:
        moved = pool.submit(move)
        for page in operator.pages("query_by_status", status=status.value, limit=limit):
            assert page["count"] == len(page["files"]) <= limit
            seen.update((row["date_prefix"], row["file_key"]) for row in page["files"])
            pages += 1
        moved.result()
    still = rows.keys() - set(movers)
    assert {key: seen[key] for key in still if seen[key] != 1} == {}
    assert seen.keys() <= rows.keys()
    assert pages >= len(still) // limit
    assert len(still) > FILES * 0.8
