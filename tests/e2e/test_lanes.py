"""Lanes on the deployed stack: as many jobs at a time as slots, in their order, whatever dies."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from jobplane_keys import in_flight_shard, iso_time, owner_key, parse_iso_time, request_key
from jobplane_keys.lanes import tenant_lane, waiting_order
from tests.e2e.deployed import Deployed, Message, assert_ended_once, unique, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio, pytest.mark.timeout(300)]

PATIENCE = 120.0


class Crowd:
    """Jobs of one tenant, whose lane has `limit` slots."""

    def __init__(self, deployed: Deployed, limit: int) -> None:
        self.deployed, self.limit = deployed, limit
        self.tenant = unique("tenant")
        self.owner = owner_key(self.tenant, "user")
        self.names: list[str] = []

    def queue(self, seconds: float, priority: str = "normal", **changes: Any) -> str:
        """Store a job as router does; the stream of the table has it then."""
        now = time.time()
        name = f"req-{len(self.names):03}"
        self.names.append(name)
        moment = iso_time(now)
        row: Message = {
            "owner": self.owner, "request_id": name, "tenant_id": self.tenant, "action": "delay",
            "connection_id": "unknown", "payload": f'{{"seconds": {seconds}, "steps": 1}}',
            "status": "PENDING", "attempts": 0, "max_attempts": 4, "metadata": {},
            "cancel_requested": False, "on_disconnect": "detach", "subscriber_count": 0,
            "created_at": moment, "updated_at": moment, "ttl": int(now) + 3600,
            "lease_shard": in_flight_shard(request_key(self.owner, name)),
            "lease_until": int(now) + 300, "lane": tenant_lane(self.tenant),
            "lane_limit": self.limit, "waiting_order": waiting_order(priority, f"{moment}-{name}"),
        }  # fmt: skip
        self.deployed.put("requests", row | changes)
        return name

    def rows(self) -> list[Message]:
        return [self.deployed.get("requests", owner=self.owner, request_id=n) for n in self.names]

    async def ended(self) -> list[Message]:
        """The rows, when all jobs have ended."""

        def rows() -> list[Message]:
            found = self.rows()
            return found if all("ended_at" in row for row in found) else []

        found: list[Message] = await until(rows, "the jobs of the lane end", patience=PATIENCE)
        return found

    def slots(self) -> list[str]:
        row = self.deployed.get("lanes", lane=f"{tenant_lane(self.tenant)}#0")
        return list(row.get("slots", ()))


def most_at_once(rows: list[Message]) -> int:
    """How many of the jobs ran at the same time."""
    moments = [(parse_iso_time(row["started_at"]), 1) for row in rows]
    moments += [(parse_iso_time(row["ended_at"]), -1) for row in rows]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


async def test_as_many_jobs_run_as_the_lane_has_slots(deployed: Deployed) -> None:
    """All of them end, and no slot is taken afterwards."""
    crowd, alone = Crowd(deployed, 2), Crowd(deployed, 2)
    for _ in range(8):
        crowd.queue(0.5)
    alone.queue(0.1)
    rows = await crowd.ended()
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert most_at_once(rows) == 2
    (other,) = await alone.ended()
    assert other["ended_at"] < max(row["ended_at"] for row in rows)
    await until(lambda: not crowd.slots(), "the slots are free")
    assert all("waiting_lane" not in row for row in crowd.rows())


async def test_the_first_that_waits_is_the_next(deployed: Deployed) -> None:
    """By priority, and then by age."""
    crowd = Crowd(deployed, 1)
    first = crowd.queue(3)
    await until(crowd.slots, "the first has the slot")
    low, normal, later, high = (
        crowd.queue(0, each) for each in ("low", "normal", "normal", "high")
    )
    rows = await crowd.ended()
    started = [row["request_id"] for row in sorted(rows, key=lambda row: row["started_at"])]
    assert started == [first, high, normal, later, low]


async def test_a_scheduled_job_takes_its_slot_when_it_is_due(deployed: Deployed) -> None:
    """A job that comes later runs first; both wait for the one slot of the lane."""
    crowd = Crowd(deployed, 1)
    due = int(time.time()) + 3
    late = crowd.queue(0, status="SCHEDULED", run_at=iso_time(due), lease_until=due)
    soon = crowd.queue(0.5)
    rows = {row["request_id"]: row for row in await crowd.ended()}
    assert {row["status"] for row in rows.values()} == {"COMPLETED"}
    assert parse_iso_time(rows[late]["started_at"]) >= due
    assert rows[late]["started_at"] > rows[soon]["ended_at"]
    await until(lambda: not crowd.slots(), "the slots are free")


async def test_a_rate_spaces_the_starts(deployed: Deployed) -> None:
    """Sixty a minute: each job starts about a second after the one before."""
    crowd = Crowd(deployed, 8)
    for _ in range(4):
        crowd.queue(0, lane_rate=60)
    rows = await crowd.ended()
    assert {row["status"] for row in rows} == {"COMPLETED"}
    starts = sorted(parse_iso_time(row["starts_at"]) for row in rows)
    assert all(later - earlier > 1 for earlier, later in pairwise(starts))
    assert all(row["started_at"] >= row["starts_at"] for row in rows)


async def test_a_job_is_scheduled_over_the_socket(deployed: Deployed) -> None:
    """It ends well when it is due; one that is due in a month is cancelled at once."""
    async with deployed.socket(unique("user")) as socket:
        for name, seconds in (("soon", 2), ("later", 30 * 24 * 3600)):
            metadata = {"delay_seconds": str(seconds)}
            job = {"id": name, "action": "delay", "payload": {"seconds": 0}, "metadata": metadata}
            assert (await socket.ask(job))["status"] == "scheduled"
        asked = {"action": "status", "payload": {"request_id": "later"}}
        state = (await socket.ask(asked))["data"]
        assert state["why_waiting"]["until"] == state["run_at"]
        answer = await socket.ask({"action": "cancel", "payload": {"request_id": "later"}})
        assert answer["data"]["status"] == "cancelled"
        await socket.end_of("soon")
        ended = await socket.ask({"action": "status", "payload": {"request_id": "soon"}})
        assert ended["data"]["started_at"] >= ended["data"]["run_at"]
        assert_ended_once(socket.of("soon"))


async def test_killed_workers_lose_no_slot(deployed: Deployed) -> None:
    """A job whose worker dies keeps its slot, and is run again."""
    crowd = Crowd(deployed, 1)
    for _ in range(3):
        crowd.queue(1.5)
    await until(lambda: [r for r in crowd.rows() if r["status"] == "PROCESSING"], "one runs")
    deployed.kill_workers("processor")
    deployed.kill_workers("dispatch")
    ending = asyncio.ensure_future(crowd.ended())
    while not ending.done():
        deployed.sweep()
        deployed.invoke("dispatch", {"sweep": "lanes"})
        await asyncio.sleep(1)
    assert most_at_once(await ending) == 1
    assert {row["status"] for row in crowd.rows()} == {"COMPLETED"}
    await until(lambda: not crowd.slots(), "the slots are free")
