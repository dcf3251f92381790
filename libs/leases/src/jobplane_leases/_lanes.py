"""The slots of a lane, and every write to them.

A lane is a tenant, or an action with a limit of its own. So many of its requests run at the same
time as it has slots. The slots are spread over rows of the table `lanes`, so that neither the size
of a row nor the writes that one partition takes limits a lane. `slots` is the set of the requests
that have a slot of the row; `waiting_at` (epoch milliseconds) is there while requests may wait for
the lane. `next_start` (epoch milliseconds) is on the first row of a lane with a rate.

| write | when | effect |
|---|---|---|
| `enter` | a slot is free; and no request waits, unless this one is the next | it has the slot |
| `leave` | always | its slot is free |
| `set_waiting` | always | only the next request in the queue may enter |
| `clear_waiting` | `waiting_at` is as it was read | any request may enter |
| `reserve` | the request has no start time, and one is near | it has the lane's next one |
| `remove_lane_row` | no slot is taken, no request waits, and it has no rate | the row is gone |

Each is idempotent by the request's key: repeated, it finds its own result.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from jobplane_keys import RequestStatus, from_item, parse_iso_time, read_item, to_item
from jobplane_keys.lanes import RATE_AHEAD_SECONDS, RATE_WINDOW_SECONDS, lane_row, lane_rows
from jobplane_leases._requests import RequestLease
from jobplane_leases._writes import Row, expressions, remove, transact, update

READ_ATTEMPTS = 5


class LaneState(NamedTuple):
    """The requests that have a slot, how many may enter, and since when requests wait."""

    slots: frozenset[str]
    free: int
    waiting_at: int | None


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane with so many slots, and `rate` starts a minute if that is not 0.

    `now` is in epoch seconds, and a request is named by its key.
    """

    dynamodb: Any
    table: str
    name: str
    limit: int
    rate: int = 0

    def read(self, now: float = 0.0) -> LaneState:
        """The lane's state at `now`, which only a lane with a rate needs."""
        rows = self._rows()
        taken = [len(row.get("slots", ())) for row in rows.values()]
        free = sum(max(0, limit - used) for limit, used in zip(self._limits(), taken, strict=True))
        if self.rate:
            left = now + RATE_AHEAD_SECONDS - max(now, rows[0].get("next_start", 0) / 1000)
            free = min(free, max(0, math.ceil(left / self._pace)))
        waiting = [row["waiting_at"] for row in rows.values() if "waiting_at" in row]
        slots = frozenset(key for row in rows.values() for key in row.get("slots", ()))
        return LaneState(slots, free, max(waiting, default=None))

    def enter(self, keys: Sequence[str], *, is_next: bool = False) -> list[str]:
        """Give each request a slot as long as there are free ones; those that have one now.

        `is_next`: the requests come from the lane's queue; others must not overtake it.
        """
        limits = self._limits()
        rows: Iterable[int] = range(len(limits))
        entered: set[str] = set()
        if len(limits) > 1:
            known = list(self._rows().values())
            entered = {key for row in known for key in keys if key in row.get("slots", ())}
            free = [
                limit - len(row.get("slots", ())) for limit, row in zip(limits, known, strict=True)
            ]
            first = zlib.crc32(keys[0].encode()) % len(limits)
            # Callers that begin at different rows don't meet at one of them. After a smaller limit,
            # only the first row says that requests wait.
            may = is_next or not any("waiting_at" in row for row in known)
            rows = [*range(first, len(limits)), *range(first)] if may else []
            rows = [row for row in rows if free[row] > 0]
        for row in rows:
            left = [key for key in keys if key not in entered]
            if not left:
                break
            entered |= self._enter_row(row, limits[row], left, is_next)
        return [key for key in keys if key in entered]

    def reserve(self, request: RequestLease, now: float) -> float | None:
        """The start time of a request that has a slot, by its key the same one each time.

        None if the lane's next one is too far away. Start times are so far apart that no window of
        a minute has more than `rate`. One transaction writes it on both rows.
        """
        for _ in range(READ_ATTEMPTS):
            known = _start_of(request)
            if known is not None:
                return known
            read: int = self._rows()[0].get("next_start", 0)
            start = max(now, read / 1000)
            if start >= now + RATE_AHEAD_SECONDS:
                return None
            values = {"read": read, "next": math.ceil((start + self._pace) * 1000)}
            values |= {"limit": self.limit, "rate": self.rate}
            reserved = expressions(
                "attribute_not_exists(next_start) OR next_start = :read",
                values,
                "SET next_start = :next, lane_limit = :limit, lane_rate = :rate",
            )
            key = to_item({"lane": lane_row(self.name, 0)})
            updates = [{"TableName": self.table, "Key": key, **reserved}, request.start_of(start)]
            if not transact(self.dynamodb, [{"Update": each} for each in updates]):
                return start
        raise ClientError(
            {"Error": {"Code": "ThrottlingException", "Message": "too many starts at a time"}},
            "TransactWriteItems",
        )

    @property
    def _pace(self) -> float:
        """The seconds between two starts."""
        return RATE_WINDOW_SECONDS / self.rate

    def leave(self, keys: Sequence[str]) -> int | None:
        """Free the slots of some requests; since when other requests wait, or None."""
        limits = self._limits()
        rows: dict[int, Row] = self._rows() if len(limits) > 1 else {0: {"slots": keys}}
        waiting = [row["waiting_at"] for row in rows.values() if "waiting_at" in row]
        for number, row in rows.items():
            if mine := frozenset(keys) & frozenset(row.get("slots", ())):
                found = self._update(
                    number, "DELETE slots :mine", "attribute_exists(lane)", {"mine": mine}
                )
                if "waiting_at" in found.item:
                    waiting.append(found.item["waiting_at"])
        return max(waiting, default=None)

    def set_waiting(self, now: float) -> int:
        """Let only the queue's next requests enter; `waiting_at`, for `clear_waiting`."""
        moment = int(now * 1000)
        for number in range(len(self._limits())):
            self._update(
                number,
                "SET waiting_at = :at, lane_limit = :limit",
                "attribute_not_exists(waiting_at) OR waiting_at < :at",
                {"at": moment, "limit": self.limit},
            )
        return moment

    def clear_waiting(self, waiting_at: int) -> None:
        """Let any request enter again, unless one has begun to wait after `waiting_at`."""
        for number in range(len(self._limits())):
            self._update(number, "REMOVE waiting_at", "waiting_at <= :read", {"read": waiting_at})

    def _enter_row(self, number: int, limit: int, keys: Sequence[str], is_next: bool) -> set[str]:
        """Give the row's free slots to requests, in order; those that have a slot of it."""
        condition = "(attribute_not_exists(slots) OR size(slots) <= :most)"
        if not is_next:
            condition += " AND attribute_not_exists(waiting_at)"
        wanted = keys[:limit]
        slots: set[str] = set()
        while wanted:
            done, row = self._update(
                number,
                "SET lane_limit = :limit ADD slots :wanted",
                condition,
                {
                    "wanted": frozenset(wanted),
                    "most": limit - len(wanted),
                    "limit": self.limit,
                },
            )
            slots = set(row.get("slots", ()))
            if done or ("waiting_at" in row and not is_next):
                break
            # Some of them may have a slot, by a repetition, and fewer may be free than wanted.
            wanted = [key for key in keys if key not in slots][: max(0, limit - len(slots))]
        return slots & set(keys)

    def _limits(self) -> list[int]:
        """The number of slots of each row."""
        return lane_rows(self.limit)

    def _rows(self) -> dict[int, Row]:
        names = [lane_row(self.name, number) for number in range(len(self._limits()))]
        found = {row["lane"]: row for row in self._read(names)}
        return {number: found.get(name, {}) for number, name in enumerate(names)}

    def _read(self, names: Sequence[str]) -> Iterator[Row]:
        keys = [to_item({"lane": name}) for name in names]
        asked: dict[str, Any] = {self.table: {"Keys": keys, "ConsistentRead": True}}
        for _ in range(READ_ATTEMPTS):
            answer = self.dynamodb.batch_get_item(RequestItems=asked)
            yield from map(from_item, answer.get("Responses", {}).get(self.table, ()))
            asked = answer.get("UnprocessedKeys", {})
            if not asked:
                return
        code, text = "ThrottlingException", "rows of a lane were not read"
        raise ClientError({"Error": {"Code": code, "Message": text}}, "BatchGetItem")

    def _update(self, number: int, change: str, condition: str, values: Mapping[str, Any]) -> Any:
        return update(
            self.dynamodb,
            self.table,
            {"lane": lane_row(self.name, number)},
            change=change,
            condition=condition,
            values=values,
            mark=None,
        )


def _start_of(request: RequestLease) -> float | None:
    """The start time of a request; 0.0 if it needs none any more, None if it has none yet."""
    key, names = {"owner": request.owner, "request_id": request.request_id}, {"status", "starts_at"}
    row = read_item(request.dynamodb, request.table, key, names) or {}
    if "starts_at" in row:
        return parse_iso_time(row["starts_at"])
    return None if row.get("status") == RequestStatus.PENDING else 0.0


def remove_lane_row(dynamodb: Any, table: str, row: str, *, is_beyond: bool = False) -> bool:
    """Delete a row of a lane, unless one of its slots is taken or requests wait for the lane.

    `is_beyond`: the lane's limit has become smaller, so that nothing waits for this row.
    """
    condition = "attribute_not_exists(slots) AND attribute_not_exists(next_start)"
    if not is_beyond:
        condition += " AND attribute_not_exists(waiting_at)"
    return remove(dynamodb, table, {"lane": row}, condition=condition)
