"""Lists of jobs for an operator: of all tenants, by any of the filters.

| jobs | read by | reads of a page |
|---|---|---|
| that have not ended | index `in-flight`, then by key | all in flight, at most `MAX_SORTED` |
| of a tenant | index `by-tenant`, then by key | jobs that are passed over, and the page |
| of a user | index `by-owner`, then by key | the same |
| of all tenants | the same of each tenant, merged | as many, and one for each tenant |

All reads are eventually consistent, and the rows are read after the index: what is shown is the
row, and a job that has changed so that the filter no longer holds is left out.
"""

import heapq
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from jobplane.console import api
from jobplane.console.backend import Backend, ProblemError
from jobplane_keys import (
    TERMINAL_STATUSES,
    RequestStatus,
    from_item,
    is_past,
    iso_time,
    job_tags,
    make_token,
    owner_key,
    parse_iso_time,
    read_token,
    split_owner_key,
    tenant_shards,
    to_item,
)
from jobplane_keys.lanes import why_waiting

MAX_SORTED = 5_000
"""So many jobs in flight are read for a list, since their index has no order of creation."""

MAX_PASSED = 5_000
"""A page ends early after so many rows that the filter leaves out."""

MAX_PARTITIONS = 500
PARTITIONS_SECONDS = 10.0
BATCH = 100
PARALLEL = 8
LAST_TIME = ":"  # after all digits
ROW = (
    "owner", "request_id", "tenant_id", "action", "status", "attempts", "max_attempts",
    "created_at", "started_at", "updated_at", "ended_at", "run_at", "progress", "waiting_since",
    "waiting_for", "starts_at", "callback", "cancel_requested", "error", "metadata", "assembly_id",
    "replay_of", "lease_owner", "lease_until", "ttl",
)  # fmt: skip

type Row = dict[str, Any]
type Key = tuple[str, str]


def in_flight_only(chosen: api.JobFilter) -> bool:
    """Whether a filter names only statuses of jobs that have not ended."""
    return bool(chosen.status) and not TERMINAL_STATUSES & set(chosen.status)


def matches(row: Mapping[str, Any], chosen: api.JobFilter) -> bool:
    """Whether a row is one of a filter's jobs; attributes that the row lacks are not compared."""
    tenant, user = split_owner_key(row["owner"])
    return (
        (not chosen.status or row.get("status", chosen.status[0]) in chosen.status)
        and (not chosen.action or row.get("action", chosen.action[0]) in chosen.action)
        and chosen.tenant in (None, tenant)
        and chosen.user in (None, user)
        and (chosen.tag is None or "metadata" not in row or chosen.tag in tags_of(row))
        and _in_time(row.get("created_at"), chosen)
    )


def _in_time(created: str | None, chosen: api.JobFilter) -> bool:
    first, last = span_of(chosen)
    return created is None or first <= created <= last


def span_of(chosen: api.JobFilter) -> tuple[str, str]:
    """The first and the last time of creation, as rows have it. Raises ProblemError."""
    try:
        first = iso_time(parse_iso_time(chosen.since)) if chosen.since else "0"
        last = iso_time(parse_iso_time(chosen.until)) if chosen.until else LAST_TIME
    except (ValueError, OverflowError):
        text = "since, until: a time such as 2026-11-22T10:15:30Z is required"
        raise ProblemError(400, "VALIDATION_ERROR", text) from None
    return first, last


def tags_of(row: Mapping[str, Any]) -> list[str]:
    return job_tags(row.get("metadata") or {})


def shown_row(row: Mapping[str, Any], now: float) -> api.JobRow:
    """A job's row for the page."""
    tenant, user = split_owner_key(row["owner"])
    progress, error, started = row.get("progress"), row.get("error"), row.get("started_at")
    end = parse_iso_time(row["ended_at"]) if "ended_at" in row else now
    lease_until = float(row.get("lease_until", math.inf))
    is_lost = row["status"] == RequestStatus.PROCESSING and lease_until <= now
    return api.JobRow(
        tenant=tenant,
        user=user,
        id=row["request_id"],
        action=row["action"],
        status=row["status"],
        attempts=int(row.get("attempts", 0)),
        max_attempts=row.get("max_attempts"),
        created_at=row["created_at"],
        started_at=started,
        updated_at=row.get("updated_at"),
        ended_at=row.get("ended_at"),
        run_at=row.get("run_at"),
        duration_seconds=round(max(0.0, end - parse_iso_time(started)), 3) if started else None,
        progress=api.Progress(
            percentage=progress.get("percentage", 0),
            message=progress.get("message", ""),
            at=progress.get("at", row.get("updated_at", row["created_at"])),
        )
        if progress
        else None,
        waiting=api.Waiting.model_validate(waiting) if (waiting := why_waiting(row, now)) else None,
        cancel_requested=bool(row.get("cancel_requested")),
        error=api.JobError(code=error.get("code", "ERROR"), message=error.get("message", ""))
        if error
        else None,
        tags=tags_of(row),
        assembly_id=row.get("assembly_id"),
        replay_of=row.get("replay_of"),
        worker_lost_at=iso_time(lease_until) if is_lost else None,
    )


@dataclass
class Reads:
    """The rows that an answer has read."""

    rows: int = 0


@dataclass
class Listing:
    """The table of jobs of a stage."""

    backend: Backend
    now: float = field(default_factory=time.time)
    reads: Reads = field(default_factory=Reads)

    @property
    def table(self) -> str:
        return self.backend.table("requests")

    def page(self, asked: api.JobsQuery) -> api.JobPage:
        """A page of jobs, newest first."""
        if asked.user is not None and asked.tenant is None:
            raise ProblemError(400, "VALIDATION_ERROR", "user: needs tenant")
        bound = ["jobs", self.table, asked.model_dump(mode="json", exclude={"next", "limit"})]
        place: list[Any] | None = None
        if asked.next is not None:
            try:
                place = read_token(asked.next, bound)
            except ValueError as error:
                raise ProblemError(400, "VALIDATION_ERROR", f"next: {error}") from error
        access: Literal["in-flight", "by-tenant", "by-owner", "all-tenants"]
        is_cut, by_key = False, in_flight_only(asked)
        rows: Iterable[Row]
        if by_key:
            access, (rows, is_cut) = "in-flight", self.sorted_in_flight(asked)
        else:
            access = "by-owner" if asked.user else "by-tenant" if asked.tenant else "all-tenants"
            rows = self.newest_first(asked, place)
        jobs, left = self._taken(rows, asked, place, are_whole=by_key)
        return api.JobPage(
            jobs=jobs,
            next=make_token(left, bound) if left else None,
            access=access,
            rows_read=self.reads.rows,
            is_cut=is_cut,
            now=iso_time(self.now),
        )

    def whole_page(self, asked: api.JobsQuery) -> api.JobPage:
        """A page with `limit` jobs if there are so many, however many rows must be passed."""
        page = self.page(asked)
        while page.next is not None and len(page.jobs) < asked.limit:
            rest = {"next": page.next, "limit": asked.limit - len(page.jobs)}
            more = self.page(asked.model_copy(update=rest))
            page = more.model_copy(update={"jobs": [*page.jobs, *more.jobs]})
        return page

    def _taken(
        self,
        rows: Iterable[Row],
        asked: api.JobsQuery,
        place: list[Any] | None,
        *,
        are_whole: bool,
    ) -> tuple[list[api.JobRow], list[Any] | None]:
        """The rows of a page after a place, and the place after them; None at the end.

        A place is a time of creation, and the keys of this time that were passed. Rows of an index
        are not whole.
        """
        jobs: list[api.JobRow] = []
        last, passed = (place[0], {tuple(key) for key in place[1]}) if place else ("", set())
        for batch in _batches(self._after(rows, place), max(1, asked.limit)):
            keys = [key_of(row) for row in batch]
            found = dict(zip(keys, batch, strict=True)) if are_whole else self.rows(keys)
            for row in batch:
                if row["created_at"] != last:
                    last, passed = row["created_at"], set()
                passed.add(key_of(row))
                current = found.get(key_of(row))
                if current is not None and matches(current, asked):
                    jobs.append(shown_row(current, self.now))
                if len(jobs) == asked.limit:
                    return jobs, [last, sorted(map(list, passed))]
            if not are_whole and self.reads.rows > MAX_PASSED:
                return jobs, [last, sorted(map(list, passed))]
        return jobs, None

    @staticmethod
    def _after(rows: Iterable[Row], place: list[Any] | None) -> Iterator[Row]:
        seen = {tuple(key) for key in place[1]} if place else set()
        for row in rows:
            created = row["created_at"]
            if place is None or created < place[0]:
                yield row
            elif created == place[0] and key_of(row) not in seen:
                yield row

    def sorted_in_flight(self, asked: api.JobFilter) -> tuple[list[Row], bool]:
        """The rows of jobs in flight, newest first, and whether there are more of them."""
        keys: list[Key] = []
        is_cut = False
        for key in self.in_flight_keys(asked):
            if len(keys) == MAX_SORTED:
                is_cut = True
                break
            keys.append(key)
        rows = [row for row in self.rows(keys).values() if matches(row, asked)]
        return sorted(rows, key=lambda row: str(row["created_at"]), reverse=True), is_cut

    def keys(self, chosen: api.JobFilter) -> Iterator[Key]:
        """The keys of all jobs of a filter, as far as an index shows it."""
        if in_flight_only(chosen):
            return self.in_flight_keys(chosen)
        return map(key_of, self.newest_first(chosen))

    def in_flight_keys(self, chosen: api.JobFilter) -> Iterator[Key]:
        """The keys of jobs that have not ended, as far as keys show it, those due first."""
        for shard in range(self.backend.in_flight_shards):
            for item in self._queried(
                {
                    "IndexName": "in-flight",
                    "KeyConditionExpression": "lease_shard = :shard",
                    "ExpressionAttributeValues": to_item({":shard": f"lease-{shard}"}),
                },
                1000,
            ):
                if matches(item, chosen):
                    yield key_of(item)

    def newest_first(
        self, chosen: api.JobFilter, place: Sequence[Any] | None = None
    ) -> Iterator[Row]:
        """What an index has of a filter's jobs, as far as the index shows it."""
        if chosen.tenant is not None and chosen.user is not None:
            whose = {"owner": owner_key(chosen.tenant, chosen.user)}
            return self._partition("by-owner", whose, chosen, place)
        shards = self.backend.tenant_shards
        found = self.partitions() if chosen.tenant is None else tenant_shards(chosen.tenant, shards)
        streams = [
            _Ahead(self._partition("by-tenant", {"tenant_id": name}, chosen, place))
            for name in found
        ]
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(_Ahead.fill, streams))
        return heapq.merge(*streams, key=lambda row: str(row["created_at"]), reverse=True)

    def _partition(
        self,
        index: str,
        whose: Mapping[str, str],
        chosen: api.JobFilter,
        place: Sequence[Any] | None,
    ) -> Iterator[Row]:
        first, last = span_of(chosen)
        if place is not None:
            last = min(last, place[0])
        if first > last:
            return
        ((name, value),) = whose.items()
        query = {
            "IndexName": index,
            "KeyConditionExpression": "#whose = :whose AND created_at BETWEEN :first AND :last",
            "ExpressionAttributeNames": {"#whose": name},
            "ExpressionAttributeValues": to_item({":whose": value, ":first": first, ":last": last}),
            "ScanIndexForward": False,
        }
        for item in self._queried(query, 25):
            if matches(item, chosen):
                yield item

    def _queried(self, query: Mapping[str, Any], limit: int) -> Iterator[Row]:
        """The items of a query; each page may have twice as many as the last."""
        request = {**query, "TableName": self.table, "Limit": limit}
        while True:
            page = self.backend.dynamodb.query(**request)
            self.reads.rows += page["ScannedCount"]
            yield from map(from_item, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
            request["Limit"] = min(2 * request["Limit"], 1000)

    def partitions(self) -> Sequence[str]:
        """The partitions of the index `by-tenant`, read at most every `PARTITIONS_SECONDS`.

        Raises ProblemError if there are more than `MAX_PARTITIONS`.
        """
        known, until = self.backend.partitions
        if time.monotonic() >= until:
            known = self._read_partitions()
            self.backend.partitions = known, time.monotonic() + PARTITIONS_SECONDS
        return known

    def _read_partitions(self) -> list[str]:
        """One read of the index for each partition: its jobs stand together, and are skipped.

        The emulator of a local stage has no such order, so there the whole index is read.
        """
        skips = not self.backend.stage.is_local
        found: dict[str, None] = {}
        request: Row = {"TableName": self.table, "IndexName": "by-tenant"}
        if skips:
            request["Limit"] = 1
        while True:
            page = self.backend.dynamodb.scan(**request)
            self.reads.rows += page["ScannedCount"]
            items = [from_item(item) for item in page["Items"]]
            if len(found) > MAX_PARTITIONS:
                text = (
                    f"the jobs of all tenants are in more than {MAX_PARTITIONS} partitions: choose"
                )
                text += " a tenant, or statuses of jobs that have not ended"
                raise ProblemError(400, "VALIDATION_ERROR", text)
            found |= dict.fromkeys(item["tenant_id"] for item in items)
            if "LastEvaluatedKey" not in page:
                return sorted(found)
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
            if skips:
                request["ExclusiveStartKey"] |= to_item({"created_at": LAST_TIME})

    def rows(self, keys: Sequence[Key]) -> dict[Key, Row]:
        """The rows that exist of many keys, read in parallel."""
        parts = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
        if len(parts) < 2:
            return self._batch(parts[0]) if parts else {}
        with ThreadPoolExecutor(PARALLEL) as pool:
            found: dict[Key, Row] = {}
            for part in pool.map(self._batch, parts):
                found |= part
        return found

    def _batch(self, keys: Sequence[Key]) -> dict[Key, Row]:
        names = {f"#{number}": name for number, name in enumerate(ROW)}
        wanted: Row = {
            self.table: {
                "Keys": [to_item({"owner": owner, "request_id": job}) for owner, job in keys],
                "ProjectionExpression": ", ".join(names),
                "ExpressionAttributeNames": names,
            }
        }
        found: dict[Key, Row] = {}
        while wanted:
            page = self.backend.dynamodb.batch_get_item(RequestItems=wanted)
            rows = [from_item(item) for item in page["Responses"].get(self.table, [])]
            self.reads.rows += len(rows)
            found |= {key_of(row): row for row in rows if not is_past(row.get("ttl"), self.now)}
            wanted = page.get("UnprocessedKeys") or {}
            if wanted:
                time.sleep(0.1)
        return found


def key_of(row: Mapping[str, Any]) -> Key:
    return row["owner"], row["request_id"]


def key_of_job(job: api.JobKey) -> Key:
    return owner_key(job.tenant, job.user), job.id


class _Ahead:
    """An iterator whose first element can be read before it is asked for."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._first: list[Row] = []

    def fill(self) -> None:
        self._first = [row] if (row := next(self._rows, None)) is not None else []

    def __iter__(self) -> Iterator[Row]:
        yield from self._first
        yield from self._rows


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= min(size, BATCH):
            yield batch
            batch = []
    if batch:
        yield batch
