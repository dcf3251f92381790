"""An operator's tool for the tracked files of a pipeline: nine operations.

Triggers: direct invoke `{operation, …}`; schedules `{source: "jobplane.schedule", operation, …}`.
Result: `{statusCode, body}`, the body a JSON text.
Errors: 400 with every problem, 404, 409, 422 and 207 for a batch, 500. A scheduled run raises
instead.
Reads and corrects `files` and the counters in `metrics`; reads the pipeline's buckets.

`jobplane_files` has the rules. After what all operations share, each stands alone: its request, its
helpers, itself.
"""

import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache, partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from jobplane_files import (
    BESIDE_MANIFESTS,
    FILES_CHANGED,
    IN_FLIGHT,
    ORPHAN_KINDS,
    Buckets,
    Budget,
    Change,
    Lane,
    Manifest,
    Manifests,
    Orphans,
    Pipeline,
    Row,
    StreamWatch,
    Walk,
    after,
    by_status,
    check_once,
    checked_date,
    checked_key,
    claimed_at,
    count_query,
    counter_corrections,
    date_query,
    field_problems,
    files_counted,
    gaps,
    history,
    is_date,
    is_ndjson,
    make_token,
    no_change_because,
    no_reset_because,
    object_issues,
    oldest_first,
    read_token,
    request_problems,
    reset_of,
    row_issues,
    spellings,
    status_query,
    summed,
)
from jobplane_keys import CLIENT_OPTIONS, from_item, iso_time, pages, to_item
from jobplane_keys.tracking import (
    COUNTERS,
    DEFAULT_STATUS_SHARDS,
    LOCK_INDEX,
    FileStatus,
    read_status,
    stored_statuses,
)
from jobplane_leases import update_item
from jobplane_telemetry import Telemetry

TRACKING_TABLE = os.environ["TRACKING_TABLE"]
TRACKING_STREAM_ARN = os.environ["TRACKING_STREAM_ARN"]
METRICS_TABLE = os.environ["METRICS_TABLE"]
MANIFEST_BUCKET = os.environ["MANIFEST_BUCKET"]
QUARANTINE_BUCKET = os.environ["QUARANTINE_BUCKET"]
QUARANTINE_PREFIX = os.environ.get("QUARANTINE_PREFIX", "quarantine/")
PIPELINE = Pipeline(
    input_bucket=os.environ["INPUT_BUCKET"],
    output_bucket=os.environ["OUTPUT_BUCKET"],
    input_prefix=os.environ.get("INPUT_PREFIX", "pipeline/input/"),
    output_prefix=os.environ.get("OUTPUT_PREFIX", "pipeline/output/"),
    input_days=float(os.environ.get("INPUT_LIFECYCLE_DAYS", "7")),
    manifest_days=float(os.environ.get("MANIFEST_LIFECYCLE_DAYS", "3")),
    abandoned_minutes=float(os.environ.get("ABANDONED_CLAIM_MINUTES", "15")),
    max_resets=int(os.environ.get("MAX_RESETS", "3")),
    shards=int(os.environ.get("NUM_STATUS_SHARDS", DEFAULT_STATUS_SHARDS)),
)

DEFAULT_OPERATION = "get_file_state"
SCHEDULE_SOURCE = "jobplane.schedule"
DAY = 86400
PAGE_ROWS = 1000
# Lambda's answer has at most 6 MB, and one more row of 400 KB may take seven times that as JSON in
# JSON.
FULL_BYTES = 3_000_000
# Of an invocation's time; the rest is for calls in progress and for the answer.
USABLE_TIME = 0.9
READ_ATTEMPTS = 8
PARALLEL_READS = 8
MAX_MANIFEST_BYTES = 8 * 1024 * 1024

telemetry = Telemetry("state-manager")
session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS, max_pool_connections=max(PIPELINE.shards + 1, PARALLEL_READS))
dynamodb: Any = session.create_client("dynamodb", config=config)

type Item = dict[str, Any]
type Body = dict[str, Any]
type Key = tuple[str, str]
type Position = dict[str, Any]
type Dates = tuple[str | None, str | None]


class RefusedError(Exception):
    """An answer other than 200: the request is wrong, or the state does not allow it."""

    def __init__(self, status: int, error: str, **more: Any) -> None:
        self.status = status
        self.body: Body = {"error": error, **more}
        super().__init__(error)


class ScheduledRunError(Exception):
    """A scheduled run was refused; raised so that the function's Errors alarm sees it."""

    def __init__(self, operation: str, status: int, body: Body) -> None:
        self.operation, self.status = operation, status
        super().__init__(f"{operation} returned {status}: {body.get('error', body)}")


def malformed(name: str, what: str) -> RefusedError:
    problem = {"field": name, "message": f"{name}: {what}"}
    return RefusedError(400, "1 problem", problems=[problem])


class Run(Budget):
    """One invocation, with the budget of its answer."""

    def __init__(self, now: float, request_id: str, *, scheduled: bool, **budget: Any) -> None:
        super().__init__(**budget)
        self.now = now
        self.request_id = request_id
        self.scheduled = scheduled
        self.report: Body = {}
        """Fields of a scheduled run's log line, besides the numbers of the answer."""

    @property
    def author(self) -> str:
        return f"state-manager {self.request_id}"


DatePrefix = Annotated[
    str, AfterValidator(checked_date), Field(json_schema_extra={"format": "date"})
]
Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(checked_key)]
Hours = Annotated[float, Field(gt=0, le=24 * 365 * 10, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Status = Annotated[FileStatus, Field(strict=False)]


class Request(BaseModel):
    """Input from outside: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Paged(Request):
    """An operation whose answer may come in parts."""

    next_token: Annotated[str, StringConstraints(max_length=262_144)] | None = None


type Operation = Callable[[Any, Run], tuple[int, Body]]

OPERATIONS: dict[str, tuple[type[Request], Operation]] = {}


def operation[F: Callable[..., Any]](request: type[Request]) -> Callable[[F], F]:
    """Register an operation under its function's name."""

    def register(function: F) -> F:
        OPERATIONS[function.__name__] = request, function
        return function

    return register


def resumed(name: str, request: Paged) -> Position | None:
    """The position in a request's token; 400 if the token is damaged or of another request."""
    if request.next_token is None:
        return None
    try:
        position: Position = read_token(request.next_token, question_of(name, request))
    except ValueError as error:
        raise malformed("next_token", str(error)) from error
    return position


def continued(name: str, request: Paged, position: Position | None, *, cut: bool = True) -> Body:
    """The token of an answer that has a next part; `cut` if it is shorter than was asked for."""
    if position is None:
        return {}
    token = make_token(position, question_of(name, request))
    return {"truncated": True, "next_token": token} if cut else {"next_token": token}


def question_of(name: str, request: Paged) -> list[Any]:
    """What a token is bound to: the table, the operation and its parameters."""
    parameters = request.model_dump(mode="json", exclude={"next_token", "limit"})
    return [TRACKING_TABLE, name, parameters]


def read_row(item: Item) -> Row:
    return Row(item, PIPELINE.shards)


def row_pages(
    run: Run,
    query: Mapping[str, Any],
    place: Position | None = None,
    limit: int = PAGE_ROWS,
    read: Callable[..., Any] = dynamodb.query,
) -> Iterator[list[Row]]:
    """The pages of a Query or Scan, after a row's place; each may be twice as long as the last."""
    request = {
        **query,
        **after(place, query.get("IndexName")),
        "TableName": TRACKING_TABLE,
        "ReturnConsumedCapacity": "TOTAL",
        "Limit": limit,
    }
    for page in pages(read, request):
        run.charge(page)
        yield [read_row(item) for item in page["Items"]]
        request["Limit"] = min(2 * request["Limit"], PAGE_ROWS)


def get_row(run: Run, date_prefix: str, file_key: str) -> Row:
    """A row as it is now; 404 if it does not exist."""
    answer = dynamodb.get_item(
        TableName=TRACKING_TABLE,
        Key=to_item({"date_prefix": date_prefix, "file_key": file_key}),
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    run.charge(answer)
    if "Item" not in answer:
        raise RefusedError(404, f"{date_prefix}/{file_key} does not exist")
    return read_row(answer["Item"])


def get_rows(run: Run, keys: Iterable[Key]) -> dict[Key, Row]:
    """The rows that exist of many keys."""
    found: dict[Key, Row] = {}
    waiting = [to_item({"date_prefix": day, "file_key": name}) for day, name in keys]
    attempt = 0
    while waiting:
        asked, waiting = waiting[:100], waiting[100:]
        answer = dynamodb.batch_get_item(
            RequestItems={TRACKING_TABLE: {"Keys": asked, "ConsistentRead": True}},
            ReturnConsumedCapacity="TOTAL",
        )
        run.charge(answer)
        rows = [read_row(item) for item in answer["Responses"].get(TRACKING_TABLE, [])]
        found |= {(row.date_prefix, row.file_key): row for row in rows}
        left = answer.get("UnprocessedKeys", {}).get(TRACKING_TABLE, {}).get("Keys", [])
        attempt = attempt + 1 if left and not rows else 0
        if attempt == READ_ATTEMPTS:
            raise TimeoutError(f"DynamoDB left {len(left)} keys unread {attempt} times")
        waiting += left
        if left:
            # Longer each time, and random, so that two callers do not collide again.
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
    return found


def change_row(run: Run, row: Row, change: Change) -> Row:
    """Write a new status and the record of the change, if the row is still as it was read.

    404 if the row no longer exists, 409 if another writer was faster.
    """
    old = row.values.get("status")
    try:
        done, answer = update_item(
            dynamodb,
            change.update(row, run.now)
            | {
                "TableName": TRACKING_TABLE,
                "ReturnValues": "ALL_NEW",
                "ReturnConsumedCapacity": "TOTAL",
            },
        )
    except ClientError as error:
        # The request was checked, so only the size of the whole row can be wrong.
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        raise malformed("additional_fields", "the row would be larger than 400 KB") from error
    if not done:
        if "Item" not in answer:
            raise RefusedError(404, f"{row.label} no longer exists")
        lost = f"{row.label} was changed by another writer in the meantime; nothing was written"
        current = read_row(answer["Item"]).values.get("status")
        raise RefusedError(409, lost, current_status=current)
    run.charge(answer, write=True)
    changed = read_row(answer["Attributes"])
    telemetry.info(
        "status changed",
        file=row.label,
        old_status=old,
        new_status=changed.values["status"],
        changed_by=change.changed_by,
        reason=change.reason,
    )
    return changed


@cache
def s3() -> Any:
    """S3's client, for the operations that read buckets."""
    return session.create_client("s3", config=config)


def manifests_for(run: Run) -> Manifests:
    """An empty cache of manifests, for one operation."""
    return Manifests(partial(get_rows, run), partial(read_manifests, run))


def read_manifests(run: Run, paths: list[str]) -> dict[str, Manifest]:
    s3()  # a session can't create clients in parallel
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return dict(zip(paths, pool.map(partial(read_manifest, run), paths), strict=True))


def read_manifest(run: Run, path: str) -> Manifest:
    """A manifest in S3; missing only if S3 says that the key does not exist."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if run.is_late():
        return Manifest(unknown="not read: the time limit was reached")
    if not (bucket and key):
        return Manifest(unknown="its path is not the URI of an object")
    try:
        with closing(s3().get_object(Bucket=bucket, Key=key)["Body"]) as body:
            text = body.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            return Manifest(unknown="the manifest is larger than 8 MB")
        return Manifest.read(text)
    except s3().exceptions.NoSuchKey:
        return Manifest(missing=True)
    except (ClientError, BotoCoreError) as error:
        return Manifest(unknown=s3_failure(error))


def list_objects(run: Run, bucket: str, prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
    """The pages of a listing; TimeoutError if the time limit is reached before its end."""
    for page in (
        s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **more)
    ):
        yield page
        if page.get("IsTruncated") and run.is_late():
            raise TimeoutError("the listing timed out")


def s3_failure(error: Exception) -> str:
    """Why a call to S3 failed, for an operator."""
    if isinstance(error, ClientError):
        return f"S3 returned {error.response.get('Error', {}).get('Code', 'an error')}"
    if isinstance(error, TimeoutError):
        return str(error)
    return f"S3 did not answer ({type(error).__name__})"


class GetFileState(Paged):
    """One row, or the files of a date."""

    date_prefix: DatePrefix
    file_key: Text | None = None
    limit: Limit = 100


@operation(GetFileState)
def get_file_state(request: GetFileState, run: Run) -> tuple[int, Body]:
    """A row of any kind by its key, or a page of the files of a date, by name."""
    if request.file_key is not None:
        return 200, {"file": get_row(run, request.date_prefix, request.file_key).values}

    def read(part: str, place: Position | None) -> Iterator[list[Row]]:
        return row_pages(run, date_query(request.date_prefix, part), place, request.limit + 1)

    begin = resumed("get_file_state", request)
    walk = Walk(BESIDE_MANIFESTS, read, run.is_over, begin, request.limit)
    files = [run.sized(file.values) for file in walk]
    return 200, {
        "count": len(files),
        "files": files,
        **continued("get_file_state", request, walk.position, cut=len(files) < request.limit),
    }


class DateRange(Request):
    """Dates, both included; one side may be open."""

    start: DatePrefix | None = None
    end: Annotated[DatePrefix | None, Field(validate_default=True)] = None

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: str | None, others: ValidationInfo) -> str | None:
        start = others.data.get("start")
        if start is None and end is None and "start" in others.data:
            raise ValueError("start or end is required")
        if start is not None and end is not None and start > end:
            raise ValueError("is before start")
        return end


class QueryByStatus(Paged):
    """Files of a status, oldest date first."""

    status: Status
    limit: Limit = 100
    date_range: DateRange | None = None


@operation(QueryByStatus)
def query_by_status(request: QueryByStatus, run: Run) -> tuple[int, Body]:
    """A page of the files of a status in all its shards, oldest date first.

    Of each shard no more is read than its share of the page; the token holds the place in each.
    """
    stored = stored_statuses(request.status, PIPELINE.shards)
    places = resumed("query_by_status", request) or dict.fromkeys(stored)
    span = request.date_range or DateRange.model_construct(start=None, end=None)
    share = math.ceil(request.limit / len(places)) + 1
    lanes = {}
    for value, place in places.items():
        query = status_query(value, (span.start, span.end))
        lanes[value] = Lane(row_pages(run, query, place, share), run.is_late, place)
    with ThreadPoolExecutor(len(lanes)) as pool:
        list(pool.map(Lane.fill, lanes.values()))
    files: list[Body] = []
    for file in oldest_first(list(lanes.values())):
        files.append(run.sized(file.values))
        if len(files) == request.limit or run.is_over():
            break
    left = {value: lane.place for value, lane in lanes.items() if lane.has_more}
    return 200, {
        "status": request.status.value,
        "count": len(files),
        "files": files,
        **continued("query_by_status", request, left or None, cut=len(files) < request.limit),
    }


class GetStats(Paged):
    """Files by status: from the counters, or counted with `exact` or a date."""

    date_prefix: DatePrefix | None = None
    exact: bool = False


@operation(GetStats)
def get_stats(request: GetStats, run: Run) -> tuple[int, Body]:
    """Files by status: counted for a date, from the counters for all files.

    With `exact`, all files are counted, and the counters are corrected if no file changed its
    status in the meantime.
    """
    position = resumed("get_stats", request)
    is_check = request.exact and request.date_prefix is None
    if request.date_prefix is not None:
        counts, place = count_date(run, request.date_prefix, position)
    elif request.exact:
        position = position or begin_count(run)
        counts, place = count_all(run, position)
    else:
        counts, place = summed(counter_rows(run)), None
    body = {
        "stats": by_status(counts),
        "total": sum(by_status(counts).values()),
        "timestamp": iso_time(run.now),
        "source": "count" if request.date_prefix or request.exact else "counters",
        **continued("get_stats", request, place),
    }
    if is_check and position is not None and place is None:
        body |= reconcile(run, counts, position)
    if is_check and body.get("reconciled"):
        telemetry.metric("CountersUnchecked", 0)
    elif is_check and run.scheduled:
        telemetry.metric("CountersUnchecked", 1)
    if run.scheduled and place is None:
        run.report["stats"] = body["stats"]
        for status, number in body["stats"].items():
            telemetry.metric("FilesByStatus", number, Status=status)
    return 200, body


def count_date(
    run: Run, day: str, position: Position | None
) -> tuple[Counter[str], Position | None]:
    """The files of a date by status, and where to go on if the time limit was reached."""
    names = ("date_prefix", "file_key", "status")

    def read(part: str, place: Position | None) -> Iterator[list[Row]]:
        return row_pages(run, date_query(day, part, names), place)

    position = position or {"walk": None, "counts": {}}
    counts = Counter[str](position["counts"])
    walk = Walk(BESIDE_MANIFESTS, read, run.is_over, position["walk"])
    counts.update(file.status for file in walk if file.status is not None)
    return counts, walk.position and {"walk": walk.position, "counts": counts}


def count_all(run: Run, position: Position) -> tuple[Counter[str], Position | None]:
    """All files by status from the index, and where to go on if the time limit was reached.

    Time to read the end of the stream is left, or the next part does that.
    """
    counts, start = Counter[str](position["counts"]), position["start"]
    steps = [
        (status, stored)
        for status in FileStatus
        for stored in stored_statuses(status, PIPELINE.shards)
    ]
    for step in range(position["step"], len(steps)):
        status, stored = steps[step]
        request = {
            **count_query(stored),
            **({} if start is None else {"ExclusiveStartKey": start}),
            "TableName": TRACKING_TABLE,
            "ReturnConsumedCapacity": "TOTAL",
        }
        for page in pages(dynamodb.query, request):
            run.charge(page)
            counts[status] += files_counted(page)
            start = page.get("LastEvaluatedKey")
            if run.seconds_left() < WATCH_SECONDS:
                watch = watch_of(run, position["watch"])
                watch.keep()
                place = {"step": step + (start is None), "start": start, "counts": counts}
                return counts, {**position, **place, "watch": watch.state}
    return counts, None


# The index and the stream may be this far behind the table.
SETTLE_SECONDS = 2.0
# For reading the end of the stream.
WATCH_SECONDS = 20.0


@cache
def streams() -> Any:
    """The client of DynamoDB Streams."""
    return session.create_client("dynamodbstreams", config=config)


def watch_of(run: Run, state: Mapping[str, Any] = MappingProxyType({})) -> StreamWatch:
    return StreamWatch(
        streams(),
        TRACKING_STREAM_ARN,
        is_late=run.is_late,
        sleep=time.sleep,
        shards=PIPELINE.shards,
        **state,
    )


def begin_count(run: Run) -> Position:
    """The position before a count of all files, and where the stream is now.

    When this returns, the index has everything that was written before.
    """
    watch = watch_of(run)
    watch.begin()
    # Records of earlier changes are older than this, although the stream's clock may be two seconds
    # ahead; those of changes after the count are not.
    counted_from = int(time.time() + SETTLE_SECONDS) + 1
    time.sleep(SETTLE_SECONDS)
    count: Position = {"step": 0, "start": None, "counts": {}}
    return count | {"watch": watch.state, "counted_from": counted_from}


def counter_rows(run: Run) -> dict[int, Body]:
    """The rows of the counters, by their shard."""
    answer = dynamodb.query(
        TableName=METRICS_TABLE,
        KeyConditionExpression="metric_type = :counters",
        ExpressionAttributeValues=to_item({":counters": COUNTERS}),
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    run.charge(answer)
    return {row["timestamp"]: row for row in map(from_item, answer["Items"])}


def reconcile(run: Run, exact: Counter[str], begun: Position) -> Body:
    """The drift of the counters, and its correction.

    They are corrected only if the stream has no change of a file between the begin of the count and
    the reading of the counters: then they include earlier changes only. An earlier change whose
    record comes later is in the count already, and `counted_from` leaves it out.
    """
    rows = counter_rows(run)
    counted = summed(rows)
    drift = {status.value: exact[status] - counted[status] for status in FileStatus}
    watch = watch_of(run, begun["watch"])
    watch.end(time.time() + SETTLE_SECONDS)
    doubt, is_off = watch.doubt, any(drift.values())
    if doubt is None and is_off and not correct_counters(run, rows, drift, begun["counted_from"]):
        doubt = FILES_CHANGED
    body: Body = {"counters": by_status(counted), "drift": drift, "reconciled": doubt is None}
    if doubt is not None:
        return body | {"reason": doubt}
    if is_off:
        telemetry.warning("counters corrected", drift=drift)
    telemetry.metric("CountersDrift", sum(map(abs, drift.values())))
    return body


def correct_counters(
    run: Run, rows: Mapping[int, Body], drift: Mapping[str, int], counted_from: int
) -> bool:
    """Add the drift to the counters; False if a change was counted after they were read."""
    updates = counter_corrections(METRICS_TABLE, rows, drift, counted_from)
    try:
        answer = dynamodb.transact_write_items(
            TransactItems=[{"Update": update} for update in updates],
            ReturnConsumedCapacity="TOTAL",
        )
    except dynamodb.exceptions.TransactionCanceledException:
        return False
    run.charge(answer, write=True)
    return True


class GetProcessingTimeline(Request):
    """The history of a file."""

    date_prefix: DatePrefix
    file_key: Text


@operation(GetProcessingTimeline)
def get_processing_timeline(request: GetProcessingTimeline, run: Run) -> tuple[int, Body]:
    """The events of a file; missing times are taken from its manifest's row."""
    file = get_row(run, request.date_prefix, request.file_key)
    manifests = manifests_for(run)
    manifests.look_up_rows([file])
    return 200, history(file, manifests.row_of(file))


class FindOrphans(Paged):
    """Files that stay as they are unless an operator acts."""

    max_processing_hours: Hours = 2


LOCKS = "locks"
# A scheduled run keeps so many findings of each kind as examples; its numbers count all.
EXAMPLES = 5


@operation(FindOrphans)
def find_orphans(request: FindOrphans, run: Run) -> tuple[int, Body]:
    """Stuck and lost files, and stale locks.

    Reads the statuses in flight, the completed files of dates without output, and the locks: never
    the whole table.
    """
    position = resumed("find_orphans", request) or {"began": run.now, "walk": None}
    manifests = manifests_for(run)
    orphans = Orphans(
        PIPELINE,
        manifests,
        now=position["began"],
        hours=request.max_processing_hours,
        on_kept=run.sized,
        most=EXAMPLES if run.scheduled else math.inf,
    )
    steps = [
        *(v for status in IN_FLIGHT for v in stored_statuses(status, PIPELINE.shards)),
        *stored_statuses(FileStatus.COMPLETED, PIPELINE.shards),
        LOCKS,
    ]

    # Listed once, and only if the search comes to completed files.
    output_gaps = cache(partial(gaps_of_output, run, orphans))
    read = partial(orphan_pages, run, manifests, output_gaps)
    walk = Walk(steps, read, run.is_over, position["walk"])
    for row in walk:
        orphans.add(row)
    if run.scheduled:
        report_orphans(run, orphans)
    place = walk.position and position | {"walk": walk.position}
    return 200, {
        "total_orphans": orphans.numbers.total(),
        "orphans": orphans.findings,
        "unknown": orphans.unknown,
        "oldest_pending_age_seconds": orphans.oldest_pending_age,
        **continued("find_orphans", request, place),
    }


def orphan_pages(
    run: Run,
    manifests: Manifests,
    output_gaps: Callable[[], list[Dates]],
    step: str,
    place: Position | None,
) -> Iterator[list[Row]]:
    """The pages of a step of a search: rows that may be orphans."""
    if step == LOCKS:
        yield from row_pages(run, {"IndexName": LOCK_INDEX}, place, read=dynamodb.scan)
    elif read_status(step, PIPELINE.shards) is FileStatus.COMPLETED:
        reached = "" if place is None else place["date_prefix"]
        for first, last in output_gaps():
            if last is None or last >= reached:
                begin = place if first is None or first <= reached else None
                yield from row_pages(run, status_query(step, (first, last)), begin)
    else:
        for rows in row_pages(run, status_query(step), place):
            claimed = [r for r in rows if r.is_file and r.status is not FileStatus.PENDING]
            manifests.look_up_rows(claimed)
            manifests.look_up_objects(claimed)
            yield rows


def gaps_of_output(run: Run, orphans: Orphans) -> list[Dates]:
    """The ranges of dates without an object under their output prefix."""
    found = set()
    try:
        for page in list_objects(run, PIPELINE.output_bucket, PIPELINE.outputs_of(), Delimiter="/"):
            for common in page.get("CommonPrefixes", []):
                found.add(common["Prefix"].removeprefix(PIPELINE.outputs_of()).rstrip("/"))
    except (ClientError, BotoCoreError, TimeoutError) as error:
        orphans.add_unknown({"subject": "outputs", "reason": s3_failure(error)})
        return []
    return gaps({day for day in found if is_date(day)})


def report_orphans(run: Run, orphans: Orphans) -> None:
    """Metrics of every kind, also of those with no orphans, and the fields of the log line."""
    for kind in ORPHAN_KINDS:
        telemetry.metric("OrphansByKind", orphans.numbers[kind], Kind=kind)
    telemetry.metric("OrphansByKind", orphans.unknowns, Kind="unknown")
    telemetry.metric("Orphans", orphans.numbers.total())
    telemetry.metric("OldestPendingAgeSeconds", orphans.oldest_pending_age or 0, unit="Seconds")
    run.report |= orphans.summary()


class ResetStuckFiles(Paged):
    """Stuck files to set back to pending; by default they are only listed."""

    max_processing_hours: Hours = 2
    statuses: Annotated[
        list[Literal["processing", "manifested", "failed"]], Field(min_length=1, max_length=3)
    ] = ["processing", "manifested"]
    dry_run: bool = True
    reason: Text | None = None


@operation(ResetStuckFiles)
def reset_stuck_files(request: ResetStuckFiles, run: Run) -> tuple[int, Body]:
    """Set files back to pending that have had their status for too long.

    Each write is conditional: a file that has changed in the meantime is skipped.
    """
    position = resumed("reset_stuck_files", request) or {"began": run.now, "walk": None}
    began, hours = position["began"], request.max_processing_hours
    manifests = manifests_for(run)

    def read(stored: str, place: Position | None) -> Iterator[list[Row]]:
        nonlocal manifests
        for rows in row_pages(run, status_query(stored), place):
            # Read again for each page, because a run may begin at any time.
            manifests = manifests_for(run)
            manifests.look_up_rows([r for r in rows if r.is_file and r.is_older(hours, began)])
            yield rows

    found = 0
    stuck_files: list[Body] = []
    skipped: list[Body] = []
    steps = [
        stored
        for status in FileStatus
        if status in request.statuses
        for stored in stored_statuses(status, PIPELINE.shards)
    ]
    walk = Walk(steps, read, run.is_over, position["walk"])
    for file in walk:
        if not file.is_file or (file.since is not None and not file.is_older(hours, began)):
            continue
        found += file.since is not None
        reason = no_reset_because(
            file, manifests.row_of(file), now=began, hours=hours, max_resets=PIPELINE.max_resets
        )
        if reason is None:
            stuck, change = reset_of(
                file,
                PIPELINE.max_resets,
                began=began,
                now=run.now,
                changed_by=run.author,
                reason=request.reason,
            )
            reason = None if request.dry_run else failure_of(run, file, change)
        if reason is None:
            stuck_files.append(run.sized(stuck))
        else:
            skipped.append(run.sized({"file": file.label, "reason": reason}))
    done = Counter() if request.dry_run else Counter(file["action"] for file in stuck_files)
    if not request.dry_run:
        telemetry.metric("FilesReset", done["reset"])
    place = walk.position and position | {"walk": walk.position}
    return 200, {
        "dry_run": request.dry_run,
        "stuck_files_found": found,
        "files_reset": done["reset"],
        "files_failed": done["fail"],
        "stuck_files": stuck_files,
        "skipped": skipped,
        **continued("reset_stuck_files", request, place),
    }


def failure_of(run: Run, file: Row, change: Change) -> str | None:
    """Why a change was not made; None if it was."""
    try:
        change_row(run, file, change)
    except RefusedError as refused:
        return str(refused)
    except (ClientError, BotoCoreError) as error:
        telemetry.exception("file was not reset", error, file=file.label)
        return "the write failed; see the log"
    return None


class ValidateConsistency(Paged):
    """A date's rows to compare with the buckets."""

    date_prefix: DatePrefix


@operation(ValidateConsistency)
def validate_consistency(request: ValidateConsistency, run: Run) -> tuple[int, Body]:
    """A date's rows compared with its objects in the buckets.

    First every row, then the objects in the input that have no row.
    """
    day = request.date_prefix
    position = resumed("validate_consistency", request) or {"files": 0, "walk": None, "name": None}
    buckets = list_date(run, day)
    manifests = manifests_for(run)
    issues: list[Body] = []
    names: set[str] = set()
    place: Position | None = None

    def read(part: str, place: Position | None) -> Iterator[list[Row]]:
        for rows in row_pages(run, date_query(day, part), place):
            manifests.look_up_rows(rows)
            recent = run.now - PIPELINE.manifest_days * DAY
            manifests.look_up_objects(
                file for file in rows if claimed_at(file, manifests.row_of(file)) > recent
            )
            yield rows

    if position["name"] is None:
        walk = Walk(BESIDE_MANIFESTS, read, run.is_over, position["walk"])
        for file in walk:
            position["files"] += is_ndjson(file.file_key)
            names |= spellings(file.file_key)
            found = row_issues(day, file, buckets, manifests.object_of(file), PIPELINE, run.now)
            issues += [run.sized(issue) for issue in found]
        place = walk.position and position | {"walk": walk.position}
    if place is None:
        if position["walk"] is not None or position["name"] is not None:
            names = names_of(run, day)
        begin = position["name"] or ""
        for name in sorted(name for name in buckets.inputs or {} if name > begin):
            if run.is_over() and begin != (position["name"] or ""):
                place = position | {"name": begin}
                break
            issues += [run.sized(issue) for issue in object_issues(name, names, buckets)]
            begin = name
    return 200, {
        "date_prefix": day,
        "db_file_count": position["files"],
        "s3_file_count": buckets.input_count,
        "issues_found": len(issues),
        "issues": sorted(issues, key=lambda issue: (issue["type"], issue["file_key"])),
        "unknown": buckets.unknown + manifests.unknown(),
        **continued("validate_consistency", request, place),
    }


def list_date(run: Run, day: str) -> Buckets:
    """List a date's input, output and quarantine."""
    places = {
        "input": (PIPELINE.input_bucket, f"{PIPELINE.input_prefix}{day}/"),
        "output": (PIPELINE.output_bucket, PIPELINE.outputs_of(day)),
        "quarantine": (QUARANTINE_BUCKET, f"{QUARANTINE_PREFIX}{day}/"),
    }
    buckets = Buckets()
    for subject, (bucket, prefix) in places.items():
        try:
            listing = list_objects(run, bucket, prefix)
            buckets.add_listing(subject, [o for page in listing for o in page.get("Contents", [])])
        except (ClientError, BotoCoreError, TimeoutError) as error:
            buckets.unknown.append({"subject": subject, "reason": s3_failure(error)})
    return buckets


def names_of(run: Run, day: str) -> set[str]:
    """The names that the objects of a date's rows may have in the input."""
    keys = ("date_prefix", "file_key")
    readings = [row_pages(run, date_query(day, part, keys)) for part in BESIDE_MANIFESTS]
    rows = (row for reading in readings for page in reading for row in page)
    return {name for row in rows for name in spellings(row.file_key)}


def _storable(fields: dict[str, Any]) -> dict[str, Any]:
    if problems := list(field_problems(fields)):
        raise ValueError("; ".join(problems))
    return fields


class FileChange(Request):
    """A new status for one file; a step that the pipeline does not have needs `force`."""

    date_prefix: DatePrefix
    file_key: Text
    new_status: Status
    additional_fields: Annotated[dict[str, Any], AfterValidator(_storable)] = {}
    expected_status: Status | None = None
    force: bool = False
    reason: Annotated[Text | None, Field(validate_default=True)] = None
    changed_by: Annotated[Text, StringConstraints(max_length=128)] | None = None

    @field_validator("reason")
    @classmethod
    def _given_with_force(cls, reason: str | None, others: ValidationInfo) -> str | None:
        if reason is None and others.data.get("force"):
            raise ValueError("is required with force")
        return reason

    @property
    def label(self) -> str:
        return f"{self.date_prefix}/{self.file_key}"


class UpdateState(FileChange):
    """The request of `update_state`."""


@operation(UpdateState)
def update_state(request: UpdateState, run: Run) -> tuple[int, Body]:
    """Set a new status, if the row is still as it was read."""
    old, row = apply_change(run, request)
    return 200, {
        "message": f"{row.label}: {old} -> {row.values['status']}",
        "updated_item": row.values,
    }


def apply_change(run: Run, change: FileChange) -> tuple[str | None, Row]:
    """Change one file or manifest: its stored status before, and its row after."""
    row = get_row(run, change.date_prefix, change.file_key)
    current = row.values.get("status")
    reason = no_change_because(
        row, change.new_status, expected=change.expected_status, force=change.force
    )
    if reason is not None:
        raise RefusedError(409, f"{row.label} {reason}", current_status=current)
    new = Change(
        change.new_status,
        changed_by=change.changed_by or run.author,
        reason=change.reason,
        fields=change.additional_fields,
    )
    return current, change_row(run, row, new)


def _each_once(files: list[FileChange]) -> list[FileChange]:
    check_once(change.label for change in files)
    return files


class BatchUpdate(Request):
    """Up to a hundred changes, each of a different file."""

    files: Annotated[
        list[FileChange], Field(min_length=1, max_length=100), AfterValidator(_each_once)
    ]


@operation(BatchUpdate)
def batch_update(request: BatchUpdate, run: Run) -> tuple[int, Body]:
    """Many independent changes: 200 if all were made, 207 if some, 422 if none."""
    results = [{"file": change.label, **result_of(run, change)} for change in request.files]
    failed = sum("error" in result for result in results)
    outcome = 422 if failed == len(results) else 207 if failed else 200
    return outcome, {
        "total": len(results),
        "successful": len(results) - failed,
        "failed": failed,
        "results": results,
    }


def result_of(run: Run, change: FileChange) -> Body:
    """The result of one change of a batch."""
    if run.is_late():
        return {"error": "not attempted: the time limit was reached"}
    try:
        old, row = apply_change(run, change)
    except RefusedError as refused:
        return refused.body
    except (ClientError, BotoCoreError) as error:
        telemetry.metric("OperationFailed")
        telemetry.exception("file was not changed", error, file=change.label)
        return {"error": "the write failed; see the log"}
    return {"old_status": old, "new_status": row.values["status"]}


def perform(event: Any, run: Run) -> tuple[int, Body]:
    """Find the operation, check its request, run it."""
    name = event.get("operation", DEFAULT_OPERATION) if isinstance(event, dict) else None
    if not isinstance(name, str) or name not in OPERATIONS:
        given = f" {name!r:.80}" if isinstance(name, str) else ""
        raise RefusedError(
            400, f"unknown operation{given}", supported_operations=sorted(OPERATIONS)
        )
    telemetry.bind(operation=name)
    model, function = OPERATIONS[name]
    known = {"operation", "source"} if run.scheduled else {"operation"}
    try:
        request = model.model_validate({k: v for k, v in event.items() if k not in known})
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = request_problems(found)
        summary = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RefusedError(400, summary, problems=problems) from error
    status, body = function(request, run)
    consumed = {"read_units": run.read_units, "write_units": run.write_units}
    return status, body | {"consumed_capacity": consumed}


def answer(event: Any, run: Run) -> tuple[int, Body]:
    """Status and body for a caller; the cause of an unexpected error is only in the log."""
    try:
        return perform(event, run)
    except RefusedError as refused:
        return refused.status, refused.body
    except Exception as error:
        telemetry.metric("OperationFailed")
        telemetry.exception("operation failed", error)
        return 500, {"error": "internal error", "request_id": run.request_id}


def scheduled_answer(event: Mapping[str, Any], run: Run) -> tuple[int, Body]:
    """Status and body of a scheduled run; it logs a line, and raises what is not 200."""
    name = str(event.get("operation", DEFAULT_OPERATION))
    try:
        status, body = perform(event, run)
    except RefusedError as refused:
        raise ScheduledRunError(name, refused.status, refused.body) from refused
    if status != 200:
        raise ScheduledRunError(name, status, body)
    shown = {key: value for key, value in body.items() if not isinstance(value, list | dict)}
    shown.pop("next_token", None)
    telemetry.info("scheduled run", **shown, **run.report, **body["consumed_capacity"])
    return status, body


@telemetry.handler
def handler(event: Any, context: Any) -> Body:
    remaining = context.get_remaining_time_in_millis() / 1000 * USABLE_TIME
    run = Run(
        deadline=time.monotonic() + remaining,
        clock=time.monotonic,
        full_bytes=FULL_BYTES,
        now=time.time(),
        request_id=context.aws_request_id,
        scheduled=isinstance(event, dict) and event.get("source") == SCHEDULE_SOURCE,
    )
    status, body = (scheduled_answer if run.scheduled else answer)(event, run)
    return {"statusCode": status, "body": json.dumps(body, ensure_ascii=False)}
