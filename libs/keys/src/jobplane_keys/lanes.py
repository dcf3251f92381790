"""Lanes: names, rows, and the order in which requests wait; why one waits, and its state."""

import zlib
from collections.abc import Mapping
from typing import Any

from jobplane_keys._clock import iso_time
from jobplane_keys._requests import RequestStatus
from jobplane_keys._tables import DEFAULT_TABLE_PREFIX

SLOTS_PER_ROW = 16
"""A row with so many slots has about one kilobyte, so that a write to it is one write unit."""

MAX_LANE_ROWS = 64
MAX_LANE_SLOTS = 10_000

RATE_WINDOW_SECONDS = 62.0
"""So long is a minute of a lane's rate: deliveries of messages differ by up to two seconds."""

RATE_AHEAD_SECONDS = 180.0
"""A request gets no start time that is further away. The sweep of lanes comes every minute."""

MAX_LANE_RATE = 6_000

WAITING_SHARDS = 4
WAITING_CHECK_SECONDS = 3600
"""A request that has waited so long for its lane is put into the stream again."""

PRIORITIES = ("high", "normal", "low")

# What the public state of a request has of its row as it is.
_STATE = (
    "request_id", "action", "status", "attempts", "assembly_id", "cancel_requested", "created_at",
    "run_at", "started_at", "updated_at", "ended_at", "event_count", "replay_of",
)  # fmt: skip


def lanes_table(prefix: str = DEFAULT_TABLE_PREFIX) -> str:
    """Name of the table of lanes and their slots, key `lane`."""
    return f"{prefix}lanes"


def tenant_lane(tenant_id: str) -> str:
    """The lane of a tenant."""
    return f"tenant#{tenant_id}"


def action_lane(action: str) -> str:
    """The lane of an action that has a limit of its own."""
    return f"action#{action}"


def lane_rows(limit: int) -> list[int]:
    """The number of slots of each row of a lane with `limit` slots."""
    rows = min(MAX_LANE_ROWS, -(-limit // SLOTS_PER_ROW))
    return [limit // rows + (number < limit % rows) for number in range(rows)]


def lane_row(lane: str, number: int) -> str:
    """The key of a lane's row."""
    return f"{lane}#{number}"


def split_lane_row(row: str) -> tuple[str, int]:
    """`(lane, number)` of a row's key. Raises ValueError for other texts."""
    lane, separator, number = row.rpartition("#")
    if not separator:
        raise ValueError(f"not a row of a lane: {row!r}")
    return lane, int(number)


def waiting_shards(lane: str) -> list[str]:
    """The partitions of the index `waiting` that have the requests of a lane."""
    return [f"{lane}/{shard}" for shard in range(WAITING_SHARDS)]


def waiting_shard(lane: str, request_key: str) -> str:
    """The partition of the index `waiting` for a request."""
    return f"{lane}/{zlib.crc32(request_key.encode()) % WAITING_SHARDS}"


def waiting_order(priority: str, created_at: str) -> str:
    """The place of a request among those that wait: by priority, then first in, first out."""
    return f"{PRIORITIES.index(priority)}#{created_at}"


def why_waiting(row: Mapping[str, Any], now: float = 0.0) -> dict[str, str] | None:
    """Why a request does not run at `now`, and since when; None if it runs or has ended.

    `queued`: a worker will take it. `lane_full`: as many of its lane run as may. `retrying`: an
    attempt failed, and the next one follows. `callback`: an answer is awaited until `until`.
    `scheduled`: it is not due before `until`. `rate`: as
    many of its lane have started as may; `until` is its start time if it has one.
    """
    match row["status"]:
        case RequestStatus.SCHEDULED:
            return {"reason": "scheduled", "since": row["created_at"], "until": row["run_at"]}
        case RequestStatus.PENDING if "waiting_since" in row:
            return {"reason": row.get("waiting_for", "lane_full"), "since": row["waiting_since"]}
        case RequestStatus.PENDING if row.get("starts_at", "") > iso_time(now):
            return {"reason": "rate", "since": row["updated_at"], "until": row["starts_at"]}
        case RequestStatus.PENDING:
            return {"reason": "queued", "since": row["updated_at"]}
        case RequestStatus.RETRYING if (callback := row.get("callback")) and callback["sent"]:
            until = iso_time(callback["expires"])
            return {"reason": "callback", "since": row["updated_at"], "until": until}
        case RequestStatus.RETRYING:
            return {"reason": "retrying", "since": row["updated_at"]}
    return None


def job_state(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The public state of a request at `now`, in epoch seconds, without its result."""
    progress = row.get("progress") or {}
    state = {name: row[name] for name in _STATE if name in row}
    state |= {"seq": row.get("seq", progress.get("seq", 0)), "progress": row.get("progress")}
    if waiting := why_waiting(row, now):
        state["why_waiting"] = waiting
    if "error" in row:
        state["error"] = row["error"]
    return state
