"""The states of a request, and every write that leads from one to another.

A row is SCHEDULED, PENDING, PROCESSING or RETRYING until it ends as COMPLETED, FAILED or CANCELLED.
Until then it has `lease_shard` and `lease_until`, by which the sweeper finds it; `lease_owner` is
there while a worker has it. That of a SCHEDULED row is overdue when the request is due.

| write | from | to |
|---|---|---|
| `enqueue_request` | no row, or one past its `ttl` | PENDING or SCHEDULED |
| `start` | SCHEDULED, overdue | PENDING |
| `take` | PENDING; RETRYING of its owner; RETRYING, PROCESSING or SCHEDULED, overdue | PROCESSING |
| `take_over` | unchanged since it was read | PROCESSING |
| `renew` | PROCESSING of its owner, with no newer renewal | the same, with progress or more time |
| `store_steps` | PROCESSING of its owner, with fewer steps | the same, with one more step |
| `open_callback` | PROCESSING of its owner, as read, no answer | the same, with an open callback |
| `answer_callback` | RETRYING without an owner, its callback open | PENDING, with the answer |
| | its callback open, and not RETRYING without an owner | the same, with the answer |
| `store_events` | PROCESSING of its owner, with as many events | the same, with more of them |
| `finish` | PROCESSING of its owner | COMPLETED, FAILED or CANCELLED |
| `put_back` | PROCESSING of its owner | RETRYING, with or without the owner |
| `await_callback` | PROCESSING of its owner, without an answer | RETRYING without an owner |
| `park` | unchanged since it was read | RETRYING without an owner |
| `requeue` | RETRYING without an owner | PENDING |
| `cancel` | PENDING or SCHEDULED, unchanged since it was read | CANCELLED |
| `wait_for_lane` | PENDING | the same, in the lane's queue |
| `start_of` | PENDING without a start time | the same, with it |
| `leave_queue` | in the lane's queue | the same, without it |
| `ask_to_cancel` | not ended | the same, with `cancel_requested` |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jobplane_keys import (
    IN_FLIGHT_SHARDS,
    PICK_UP_SECONDS,
    REQUEST_TTL_SECONDS,
    RequestStatus,
    in_flight_shard,
    iso_time,
    read_item,
    request_key,
    to_item,
    ttl_after,
)
from jobplane_keys.lanes import WAITING_CHECK_SECONDS
from jobplane_leases._errors import LeaseLostError
from jobplane_leases._events import EVENT_TTL_SECONDS, MAX_TAIL_BYTES, event_row, require_room
from jobplane_leases._writes import (
    Row,
    Written,
    assignment,
    create,
    expressions,
    new_write_id,
    transact,
    update,
)

ROW_RESERVE_BYTES = 24 * 1024
"""What a request's row keeps free of its 400 KB for its state, its progress and its end."""

STEP_ATTRIBUTES = ("steps", "steps_object", "step_count", "step_write_id", "callback_answer")
"""What a request's row has of its steps until it ends."""

EVENT_ATTRIBUTES = ("event_count", "event_bytes", "event_tail")
"""What a request's row has of its events, also after its end."""

NOT_ENDED = "attribute_exists(lease_shard)"
"""Holds for a request's row until it ends."""

_OWNED = "#status = :processing AND lease_owner = :me"
_NOT_NEWER = " AND (attribute_not_exists(#progress) OR #progress.seq <= :seq)"
_NOT_LATER = " AND lease_until <= :set_lease_until"
_LEASE = ("lease_owner", "lease_until", "lease_shard")
_QUEUE = ("waiting_lane", "waiting_since")
_UNANSWERED = "attribute_not_exists(callback_answer)"
_OPEN = f"#callback.digest = :digest AND #callback.expires > :now AND {_UNANSWERED}"
_AT_END = (*_LEASE, *_QUEUE, *STEP_ATTRIBUTES)


class Lease(NamedTuple):
    """A lease that a worker asks for: the worker's id, and its end in epoch seconds."""

    owner: str
    until: int


@dataclass(frozen=True, slots=True)
class RequestLease:
    """The row of one request, and the writes that change its state.

    Each is one conditional UpdateItem. `now` is in epoch seconds; `patient_until` is explained at
    `update`.
    """

    dynamodb: Any
    table: str
    owner: str
    request_id: str

    def take(self, lease: Lease, now: float) -> Row | None:
        """Lease the request for one more attempt; None if it is not available.

        It is not while a worker has it, before it is due, when it has ended, and when its attempts
        are used up.
        """
        return self._lease(
            lease,
            now,
            "attempts < max_attempts AND (#status = :pending"
            " OR (#status = :retrying AND (lease_owner = :me OR lease_until <= :now))"
            " OR (#status = :processing AND lease_until <= :now)"
            " OR (#status = :scheduled AND lease_until <= :now))",
            {
                "scheduled": RequestStatus.SCHEDULED,
                "pending": RequestStatus.PENDING,
                "retrying": RequestStatus.RETRYING,
                "now": int(now),
                "one": 1,
            },
            more=" ADD attempts :one",
        )

    def take_over(self, row: Mapping[str, Any], lease: Lease, now: float) -> Row | None:
        """Lease the request in order to end it, without an attempt; None if `row` has changed."""
        return self._lease(lease, now, *_as_read(row))

    def renew(
        self, lease: Lease, now: float, progress: Row | None = None, *, extend: bool = True
    ) -> Row:
        """Renew the lease, and store the progress with its `seq`. Raises LeaseLostError.

        Without `extend`, the lease keeps its end, so that the write changes no entry of an index.

        What is carried out late, after a newer renewal, is refused: it would take time from the
        lease, or another attempt would use a `seq` again that its listeners already have.
        """
        changes: Row = {"lease_until": lease.until} if extend else {}
        also, values = _NOT_LATER if extend else "", dict[str, Any]()
        if progress:
            changes["progress"] = progress
            also, values = also + _NOT_NEWER, {"seq": progress["seq"]}
        return self._owned(lease.owner, changes, now, also=also, values=values)

    def store_steps(
        self,
        lease_owner: str,
        changes: Row,
        now: float,
        *,
        callback: Literal["answered", "unanswered"] | None = None,
        patient_until: float = 0.0,
    ) -> Row:
        """Store the attributes of a job's steps if there are more of them than the row has.

        `callback`: the step ends one, with its answer, or without one, if none has come until now.
        Returns the row; it has other steps if an earlier write of this worker came late, or the
        answer has come. Raises LeaseLostError.
        """
        also = f" AND {_UNANSWERED}" if callback == "unanswered" else ""
        return self._stepped(
            lease_owner,
            changes,
            f"(attribute_not_exists(step_count) OR step_count < :count){also}",
            {"count": changes["step_count"]},
            now,
            ("callback", "callback_answer") if callback else (),
            patient_until,
        )

    def open_callback(self, lease_owner: str, read: Row, changes: Row, now: float) -> Row:
        """Store the attributes of a callback, in place of one that was not sent, if `read` has the
        newest steps. Returns the row; if its callback is another one, read that, or its answer has
        come. Raises LeaseLostError.
        """
        seen = "(attribute_not_exists(step_write_id) OR step_write_id = :seen)"
        values = {"seen": read.get("step_write_id", "")}
        return self._stepped(lease_owner, changes, f"{_UNANSWERED} AND {seen}", values, now)

    def await_callback(
        self, lease_owner: str, callback: Row, until: int, attempts: int, now: float
    ) -> bool:
        """Put back the request until its callback is answered, or else `until`; False if it is
        answered already. Raises LeaseLostError.
        """
        changes = {
            "status": RequestStatus.RETRYING,
            "lease_until": until,
            "attempts": attempts,
            "callback": callback,
        }
        known = {"processing": RequestStatus.PROCESSING, "me": lease_owner}
        condition = f"{_OWNED} AND {_UNANSWERED}"
        done, row = self._change(changes, condition, known, now, ("lease_owner",))
        if not done and (not _has(row, lease_owner) or "callback_answer" not in row):
            raise LeaseLostError(self.request_id)
        return done

    def answer_callback(self, digest: str, answer: str, now: float, *, waits: bool) -> Written:
        """Store the answer of an open callback. `waits`: the request has no worker, and is queued
        with the same write.
        """
        changes: Row = {"callback_answer": answer}
        values: Row = {"digest": digest, "now": int(now)}
        if waits:
            changes |= {
                "status": RequestStatus.PENDING,
                "lease_until": int(now) + PICK_UP_SECONDS,
                "write_id": new_write_id(),
            }
            condition = "#status = :retrying AND attribute_not_exists(lease_owner)"
            values["retrying"] = RequestStatus.RETRYING
        else:
            condition = "(#status = :pending OR attribute_exists(lease_owner))"
            values["pending"] = RequestStatus.PENDING
        change, assigned = assignment({**changes, "updated_at": iso_time(now)})
        return update(
            self.dynamodb,
            self.table,
            self._key,
            change=change,
            condition=f"{condition} AND {_OPEN}",
            values=assigned | values,
            # Its worker writes at the same time.
            mark="answer_write_id",
        )

    def finish(
        self, lease_owner: str, outcome: Row, now: float, *, patient_until: float = 0.0
    ) -> Row:
        """End the request with the attributes of `outcome`. Raises LeaseLostError."""
        changes = outcome | {"ended_at": iso_time(now)}
        return self._owned(lease_owner, changes, now, _AT_END, patient_until)

    def put_back(
        self,
        lease_owner: str,
        until: int,
        now: float,
        *,
        keep: bool,
        attempts: int | None = None,
        patient_until: float = 0.0,
    ) -> None:
        """Leave the request for a later attempt. Raises LeaseLostError.

        `keep`: only its owner may take it before `until`. Otherwise any worker may take it then.
        `attempts` replaces the number of attempts made.
        """
        changes: Row = {"status": RequestStatus.RETRYING, "lease_until": until}
        if attempts is not None:
            changes["attempts"] = attempts
        self._owned(lease_owner, changes, now, () if keep else ("lease_owner",), patient_until)

    def park(self, row: Mapping[str, Any], now: float) -> bool:
        """Take the request from a worker whose lease has run out; False if `row` has changed.

        Call `requeue` afterwards: only a change back to PENDING starts another attempt.
        """
        changes = {"status": RequestStatus.RETRYING}
        return self._change(changes, *_as_read(row), now, ("lease_owner",)).done

    def requeue(self, now: float) -> bool:
        """Put a waiting request into the stream again; False if it was not waiting."""
        return self._change(
            {"status": RequestStatus.PENDING, "lease_until": int(now) + PICK_UP_SECONDS},
            "#status = :retrying AND attribute_not_exists(lease_owner)",
            {"retrying": RequestStatus.RETRYING},
            now,
        ).done

    def start(self, now: float) -> bool:
        """Put a request that was SCHEDULED into the stream; False if it is not due, or was not."""
        return self._change(
            {"status": RequestStatus.PENDING, "lease_until": int(now) + PICK_UP_SECONDS},
            "#status = :scheduled AND lease_until <= :now",
            {"scheduled": RequestStatus.SCHEDULED, "now": int(now)},
            now,
        ).done

    def cancel(self, row: Mapping[str, Any], error: Row, now: float) -> Row | None:
        """End a request that no worker has had, and use the next `seq`; None if `row`, which is
        PENDING or SCHEDULED, has changed.
        """
        progress = row.get("progress") or {}
        changes = {
            "status": RequestStatus.CANCELLED,
            "error": error,
            "seq": progress.get("seq", 0) + 1,
            "cancel_requested": True,
            "ended_at": iso_time(now),
        }
        done, ended = self._change(changes, *_as_read(row), now, _AT_END)
        return ended if done else None

    def wait_for_lane(self, shard: str, now: float, reason: str = "lane_full") -> bool:
        """Let the request wait in a partition of the index `waiting`; False if it is not PENDING.

        `reason` is that of `why_waiting`. The sweeper leaves it alone for an hour, and its row does
        not expire while it waits.
        """
        return update(
            self.dynamodb,
            self.table,
            self._key,
            change="SET waiting_lane = :shard, lease_until = :until, #ttl = :ttl,"
            " waiting_since = if_not_exists(waiting_since, :moment), "
            " waiting_for = if_not_exists(waiting_for, :reason)",
            condition="#status = :pending",
            values={
                "reason": reason,
                "shard": shard,
                "until": int(now) + WAITING_CHECK_SECONDS,
                "moment": iso_time(now),
                "ttl": ttl_after(now, REQUEST_TTL_SECONDS),
                "pending": RequestStatus.PENDING,
            },
            mark=None,
        ).done

    def leave_queue(self, now: float) -> bool:
        """End the request's wait, because it has a slot and a message; False if it has ended."""
        written = update(
            self.dynamodb,
            self.table,
            self._key,
            change="SET lease_until = :until REMOVE " + ", ".join(_QUEUE),
            condition="#status = :pending AND attribute_exists(waiting_lane)",
            values={"until": int(now) + PICK_UP_SECONDS, "pending": RequestStatus.PENDING},
            mark=None,
        )
        return "lease_shard" in written.item

    def ask_to_cancel(self) -> bool:
        """Ask the request's worker to stop, now or when one takes it; False if it has ended."""
        return update(
            self.dynamodb,
            self.table,
            self._key,
            change="SET cancel_requested = :true",
            condition=NOT_ENDED,
            values={"true": True},
            mark=None,
        ).done

    def start_of(self, starts_at: float) -> Row:
        """The write of a transaction that gives a PENDING request its start time, once."""
        return {
            "TableName": self.table,
            "Key": to_item(self._key),
            **expressions(
                "#status = :pending AND attribute_not_exists(starts_at)",
                {"pending": RequestStatus.PENDING, "at": iso_time(starts_at)},
                "SET starts_at = :at",
            ),
        }

    def check_of(self, lease_owner: str) -> Row:
        """The check of a transaction that this worker has the request's lease."""
        values = {"processing": RequestStatus.PROCESSING, "me": lease_owner}
        return {"TableName": self.table, "Key": to_item(self._key), **expressions(_OWNED, values)}

    @property
    def _key(self) -> Row:
        return {"owner": self.owner, "request_id": self.request_id}

    def _lease(
        self, lease: Lease, now: float, condition: str, values: Row, *, more: str = ""
    ) -> Row | None:
        done, row = update(
            self.dynamodb,
            self.table,
            self._key,
            change="SET #status = :processing, lease_owner = :me, lease_until = :until,"
            " lease_shard = if_not_exists(lease_shard, :shard),"
            " started_at = if_not_exists(started_at, :moment),"
            f" updated_at = :moment REMOVE {', '.join(_QUEUE)}{more}",
            condition=condition,
            values={
                "processing": RequestStatus.PROCESSING,
                "me": lease.owner,
                "until": lease.until,
                "shard": in_flight_shard(request_key(self.owner, self.request_id)),
                "moment": iso_time(now),
                **values,
            },
        )
        return row if done else None

    def _stepped(
        self,
        lease_owner: str,
        changes: Row,
        condition: str,
        values: Row,
        now: float,
        remove: Sequence[str] = (),
        patient_until: float = 0.0,
    ) -> Row:
        """Change what a request has of its steps, while its lease is renewed with another mark.

        Returns the row, also if the condition is not met. Raises LeaseLostError.
        """
        change, assigned = assignment({**changes, "updated_at": iso_time(now)}, remove)
        known = {"processing": RequestStatus.PROCESSING, "me": lease_owner}
        done, row = update(
            self.dynamodb,
            self.table,
            self._key,
            change=change,
            condition=f"{_OWNED} AND {condition}",
            values=assigned | known | values,
            mark="step_write_id",
            patient_until=patient_until,
        )
        if not done and not _has(row, lease_owner):
            raise LeaseLostError(self.request_id)
        return row

    def _owned(
        self,
        lease_owner: str,
        changes: Row,
        now: float,
        remove: Sequence[str] = (),
        patient_until: float = 0.0,
        *,
        also: str = "",
        values: Mapping[str, Any] | None = None,
    ) -> Row:
        """Change a request whose lease the worker has. Raises LeaseLostError."""
        known = {"processing": RequestStatus.PROCESSING, "me": lease_owner, **(values or {})}
        done, row = self._change(changes, _OWNED + also, known, now, remove, patient_until)
        if not done:
            raise LeaseLostError(self.request_id)
        return row

    def _change(
        self,
        changes: Row,
        condition: str,
        values: Row,
        now: float,
        remove: Sequence[str] = (),
        patient_until: float = 0.0,
    ) -> Written:
        change, assigned = assignment({**changes, "updated_at": iso_time(now)}, remove)
        return update(
            self.dynamodb,
            self.table,
            self._key,
            change=change,
            condition=condition,
            values=assigned | values,
            patient_until=patient_until,
        )


def store_events(
    request: RequestLease,
    lease_owner: str,
    row: Mapping[str, Any],
    texts: Sequence[str],
    now: float,
) -> Row:
    """Store events after those of `row`, on the request's row; or in one transaction with those
    that it has, as a batch of its own, when they are too many for it.

    Returns the new attributes. If a late write of this worker has stored others, these follow
    them. Raises LeaseLostError, and EventError if the job has emitted too much.
    """
    size = sum(len(text.encode()) for text in texts)
    while True:
        count = row.get("event_count", 0)
        added: Row = {
            "event_count": count + len(texts),
            "event_bytes": row.get("event_bytes", 0) + size,
            "event_tail": ",".join(filter(None, (row.get("event_tail"), *texts))),
        }
        require_room(added)
        condition = f"{_OWNED} AND attribute_not_exists(event_count)"
        known: Row = {"processing": RequestStatus.PROCESSING, "me": lease_owner}
        if count:
            condition = f"{_OWNED} AND event_count = :before"
            known["before"] = count
        # More than half of the room would be paid for here, and again when it moves.
        if size <= MAX_TAIL_BYTES / 2 and len(added["event_tail"].encode()) <= MAX_TAIL_BYTES:
            change, assigned = assignment(added)
            done, found = update(
                request.dynamodb,
                request.table,
                request._key,
                change=change,
                condition=condition,
                values=known | assigned,
                mark="event_write_id",
            )
        else:
            done, found = _move_events(request, added, condition, known, now)
            added["event_tail"] = ""
        if done:
            return added
        if not _has(found, lease_owner) or found.get("event_count", 0) == count:
            raise LeaseLostError(request.request_id)
        row = found


def _move_events(
    request: RequestLease, added: Row, condition: str, known: Row, now: float
) -> Written:
    """Make the events of a tail a batch of their own. Returns the row if it is refused."""
    events, mark = added["event_tail"], new_write_id()
    key, expires = (request.owner, request.request_id), ttl_after(now, EVENT_TTL_SECONDS)
    batch = event_row(*key, added["event_count"], events, expires)
    change, assigned = assignment(added | {"event_tail": "", "event_write_id": mark})
    sent = expressions(condition, known | assigned, change)
    count = {"TableName": request.table, "Key": to_item(request._key), **sent}
    put = {"TableName": request.table, "Item": to_item(batch)}
    if not transact(request.dynamodb, [{"Update": count}, {"Put": put}]):
        return Written(True, {})
    stored = read_item(request.dynamodb, request.table, request._key) or {}
    return Written(stored.get("event_write_id") == mark, stored)


def enqueue_request(
    dynamodb: Any,
    table: str,
    row: Mapping[str, Any],
    now: float,
    *,
    due: float | None = None,
    shards: int = IN_FLIGHT_SHARDS,
) -> Written:
    """Store a request that waits for a worker, or until it is due, if its id is free.

    `row` has `owner`, `request_id` and the other attributes of the request; those of its state are
    added. `due` is in epoch seconds. `shards` is the number of partitions of the in-flight index.
    """
    moment = iso_time(now)
    waiting = {
        **row,
        "status": RequestStatus.PENDING,
        "attempts": 0,
        "cancel_requested": False,
        "subscriber_count": 0,
        "lease_shard": in_flight_shard(request_key(row["owner"], row["request_id"]), shards),
        "lease_until": int(now) + PICK_UP_SECONDS,
        "created_at": moment,
        "updated_at": moment,
        "ttl": ttl_after(due or now, REQUEST_TTL_SECONDS),
    }
    if due is not None:
        waiting |= {
            "status": RequestStatus.SCHEDULED,
            "run_at": iso_time(due),
            "lease_until": math.ceil(due),
        }
    return create(
        dynamodb,
        table,
        waiting,
        condition="attribute_not_exists(request_id) OR #ttl <= :now",
        values={"now": int(now)},
    )


def _has(row: Mapping[str, Any], lease_owner: str) -> bool:
    """Whether this worker has the lease of a row."""
    held = row.get("status") == RequestStatus.PROCESSING
    return held and row.get("lease_owner") == lease_owner


def _as_read(row: Mapping[str, Any]) -> tuple[str, Row]:
    """The condition that a row is still as it was read, and its values.

    `lease_until` is in whole seconds: within one of them, a request can be taken, put back and
    requeued, and have the same one again. `write_id` tells these apart; older rows have none.
    """
    condition = "#status = :status AND lease_until = :lease_until"
    values = {"status": row["status"], "lease_until": row["lease_until"]}
    if "write_id" in row:
        return f"{condition} AND write_id = :read_id", values | {"read_id": row["write_id"]}
    return condition, values
