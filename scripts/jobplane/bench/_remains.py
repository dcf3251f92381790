"""A load's rows in the tables: compared with what its clients received, and removed."""

import time
from typing import Any

from jobplane.bench._engine import most_at_once
from jobplane.bench._phases import Outcome
from jobplane.stage.stages import Stage
from jobplane_keys import TERMINAL_STATUSES, from_item, owner_key, to_item

SETTLE_SECONDS = 120.0
TABLES = frozenset({"requests", "connections", "subscriptions", "assemblies", "active-jobs"})


def check_tables(stage: Stage, tenant: str, outcome: Outcome) -> None:
    """Compare the tables with what clients received; no request is open, no connection is left."""
    rows = {row["request_id"]: row for row in rows_of(stage, "requests", tenant)}
    jobs = {entry.id: entry for of in outcome.entries.values() for entry in of if entry.is_job}
    for request_id in jobs.keys() ^ rows.keys():
        where = "stored and never sent" if request_id in rows else "sent and not stored"
        outcome.faults.append(f"{request_id}: {where}")
    outcome.most_at_once = most_at_once(rows.values())
    if 0 < outcome.plan.slots < outcome.most_at_once:
        text = f"{outcome.most_at_once} jobs ran at a time, with {outcome.plan.slots} slots"
        outcome.faults.append(text)
    for request_id in jobs.keys() & rows.keys():
        stored, heard = rows[request_id]["status"], jobs[request_id].status
        if stored not in TERMINAL_STATUSES or stored != heard:
            outcome.faults.append(f"{request_id}: stored {stored}, heard {heard}")
    end = time.monotonic() + SETTLE_SECONDS
    while left := _left(stage, tenant):
        if time.monotonic() > end:
            outcome.faults.append(f"after all sockets are closed there are {left}")
            return
        time.sleep(0.5)


def _left(stage: Stage, tenant: str) -> dict[str, int]:
    """Rows that should be gone after their sockets closed."""
    counts = {
        table: len(rows_of(stage, table, tenant)) for table in ("connections", "subscriptions")
    }
    return {table: count for table, count in counts.items() if count}


def rows_of(stage: Stage, table: str, tenant: str) -> list[dict[str, Any]]:
    state = stage.read_state()
    if state is None:
        return []
    name = state.description["tables"][table]
    pages = stage.client("dynamodb").get_paginator("scan").paginate(TableName=name)
    start = owner_key(tenant, "")
    return [
        row
        for page in pages
        for row in map(from_item, page["Items"])
        if str(row.get("tenant_id", "")).partition("\n")[0] == tenant  # of a shard: a line more
        or str(row.get("request_key", row.get("projectUserId", ""))).startswith(start)
    ]


def clear(stage: Stage, tenant: str) -> None:
    state = stage.read_state()
    if state is None:
        return
    client = stage.client("dynamodb")
    names = state.description["tables"]
    for table in names.keys() & TABLES:
        name = names[table]
        keys = [
            key["AttributeName"]
            for key in client.describe_table(TableName=name)["Table"]["KeySchema"]
        ]
        for row in rows_of(stage, table, tenant):
            client.delete_item(TableName=name, Key=to_item({key: row[key] for key in keys}))
