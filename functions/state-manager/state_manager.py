"""An operator's hand on the state of a file pipeline: nine operations.

Triggers: direct invoke `{operation, …}`; schedules `{source: "jobplane.schedule", operation, …}`.
Result: `{statusCode, body}`, the body a JSON text.
Errors: 400 with every problem, 404, 409, 422 and 207 for a batch, 500. A scheduled run raises
instead.
Reads and mends `files`, reads and corrects the counters in `metrics`, reads the pipeline's buckets.

The rules of `jobplane_files` decide what is stuck, lost or contradictory. After the parts that all
operations share, each stands alone: its request, its helpers, itself.
"""

import base64
import hashlib
import json
import math
import os
import random
import re
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache, cached_property
from itertools import pairwise
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
    IN_FLIGHT,
    ORPHAN_KINDS,
    Buckets,
    Manifest,
    Pipeline,
    Row,
    by_status,
    claimed_at,
    counter_corrections,
    disordered,
    field_problems,
    gaps,
    is_ndjson,
    is_stale,
    moved_files,
    no_reset_because,
    object_issues,
    orphan_kind,
    resets_of,
    row_issues,
    row_update,
    spellings,
    summed,
    timeline,
)
from jobplane_keys import from_item, iso_time, pages, to_item
from jobplane_keys.tracking import (
    COUNTERS,
    DEFAULT_STATUS_SHARDS,
    LOCK_INDEX,
    MANIFEST_PREFIX,
    MANIFEST_STATUSES,
    STATUS_INDEX,
    FileStatus,
    RowKind,
    in_same_shard,
    may_become,
    read_status,
    stored_statuses,
)
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
# Lambda answers at most 6 MB, and one more row of 400 KB may be seven times that as JSON in JSON.
FULL_BYTES = 3_000_000
# Of the time there is; the rest is for the calls that are under way, and the answer.
USABLE_TIME = 0.9
READ_ATTEMPTS = 8
PARALLEL_READS = 8
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
MAX_KNOWN_URIS = 500_000

telemetry = Telemetry("state-manager")
session = botocore.session.get_session()
client_config = Config(
    connect_timeout=2,
    read_timeout=5,
    max_pool_connections=max(PIPELINE.shards + 1, PARALLEL_READS),
    retries={"mode": "standard", "total_max_attempts": 3},
)
dynamodb: Any = session.create_client("dynamodb", config=client_config)

type Item = dict[str, Any]
type Body = dict[str, Any]
type Position = dict[str, Any]
type Dates = tuple[str | None, str | None]


class RefusedError(Exception):
    """An answer other than 200: the caller's mistake, or a state that forbids what was asked."""

    def __init__(self, status: int, error: str, **more: Any) -> None:
        self.status = status
        self.body: Body = {"error": error, **more}
        super().__init__(error)


class ScheduledRunError(Exception):
    """A scheduled run was refused; raised so that the function's Errors alarm sees it."""

    def __init__(self, operation: str, status: int, body: Body) -> None:
        self.operation, self.status = operation, status
        super().__init__(f"{operation} answered {status}: {body.get('error', body)}")


def malformed(name: str, what: str) -> RefusedError:
    problem = {"field": name, "message": f"{name}: {what}"}
    return RefusedError(400, "1 problem", problems=[problem])


@dataclass(slots=True)
class Run:
    """One invocation: its clock, how long and how large it may become, what it has consumed."""

    now: float
    deadline: float
    """By `time.monotonic()`."""
    request_id: str
    scheduled: bool = False
    report: Body = field(default_factory=dict)
    """What a scheduled run's line says beside the numbers of the answer."""
    read_units: float = 0.0
    write_units: float = 0.0
    _answer_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def author(self) -> str:
        return f"state-manager {self.request_id}"

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def time_is_up(self) -> bool:
        return self.seconds_left <= 0

    @property
    def is_over(self) -> bool:
        """Whether to end here, and to say where to go on."""
        return self._answer_bytes >= FULL_BYTES or self.time_is_up

    def sized[T](self, part: T) -> T:
        """A part of the answer, whose bytes are taken from the room that there is."""
        self._answer_bytes += len(json.dumps(json.dumps(part))) + 1
        return part

    def charge(self, answer: Mapping[str, Any], *, write: bool = False) -> None:
        """Add up what DynamoDB says that a call has consumed."""
        consumed = answer.get("ConsumedCapacity") or []
        parts = consumed if isinstance(consumed, list) else [consumed]
        units = sum(part["CapacityUnits"] for part in parts)
        with self._lock:
            if write:
                self.write_units += units
            else:
                self.read_units += units


def _date(text: str) -> str:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("expected a date as YYYY-MM-DD")
    date.fromisoformat(text)
    return text


def _short(text: str) -> str:
    if len(text.encode()) > 1024:
        raise ValueError("is longer than 1024 bytes")
    return text


DatePrefix = Annotated[str, AfterValidator(_date), Field(json_schema_extra={"format": "date"})]
Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_short)]
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
    """The position in a request's token; 400 if it is damaged or belongs to another question."""
    if request.next_token is None:
        return None
    try:
        token = base64.b64decode(request.next_token, altchars=b"-_", validate=True)
    except ValueError:
        token = b""
    digest, payload = token[:16], token[16:]
    if digest != _digest(name, request, payload):
        raise malformed("next_token", "is not one of ours, or belongs to another question")
    position: Position = json.loads(zlib.decompress(payload))
    return position


def continued(name: str, request: Paged, position: Position | None, *, cut: bool = True) -> Body:
    """How an answer goes on: a token of this operation and these parameters, at this position.

    `truncated` says that it is shorter than what was asked for.
    """
    if position is None:
        return {}
    payload = zlib.compress(json.dumps(position, separators=(",", ":")).encode())
    token = base64.urlsafe_b64encode(_digest(name, request, payload) + payload).decode()
    return {"truncated": True, "next_token": token} if cut else {"next_token": token}


def _digest(name: str, request: Paged, payload: bytes) -> bytes:
    """Ties a position to its table, operation and parameters.

    It shows mistakes and damage. It needs no key: whoever may invoke this function may also make
    every change that a forged position could lead to.
    """
    question = request.model_dump(mode="json", exclude={"next_token", "limit"})
    text = json.dumps([TRACKING_TABLE, name, question], sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(text).digest() + payload).digest()[:16]


def read_row(item: Item) -> Row:
    return Row(item, PIPELINE.shards)


INDEX_KEYS = {None: (), STATUS_INDEX: ("status",), LOCK_INDEX: ("lock_id",)}


def row_pages(
    run: Run,
    call: Callable[..., Any],
    index: str | None,
    place: Position | None,
    limit: int = PAGE_ROWS,
    **parameters: Any,
) -> Iterator[list[Row]]:
    """Pages of a Query or Scan, after a row's place; each asks for twice as much as the last."""
    parameters |= {"TableName": TRACKING_TABLE, "ReturnConsumedCapacity": "TOTAL", "Limit": limit}
    parameters |= {"ConsistentRead": True} if index is None else {"IndexName": index}
    if place is not None:
        names = ("date_prefix", "file_key", *INDEX_KEYS[index])
        parameters["ExclusiveStartKey"] = to_item({name: place[name] for name in names})
    for answer in pages(call, parameters):
        run.charge(answer)
        yield [read_row(item) for item in answer["Items"]]
        parameters["Limit"] = min(2 * parameters["Limit"], PAGE_ROWS)


def status_condition(stored: str, dates: Dates = (None, None)) -> dict[str, Any]:
    """Parameters of a Query for one stored status; the dates are part of its key condition."""
    first, last = dates
    condition, values = "#status = :status", {":status": stored}
    if first is not None and last is not None:
        condition += " AND date_prefix BETWEEN :first AND :last"
    elif first is not None:
        condition += " AND date_prefix >= :first"
    elif last is not None:
        condition += " AND date_prefix <= :last"
    values |= {name: day for name, day in ((":first", first), (":last", last)) if day is not None}
    return {
        "KeyConditionExpression": condition,
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": to_item(values),
    }


def status_pages(
    run: Run,
    stored: str,
    place: Position | None,
    dates: Dates = (None, None),
    limit: int = PAGE_ROWS,
) -> Iterator[list[Row]]:
    """The rows of one stored status, oldest date first; under a plain one manifests, too."""
    condition = status_condition(stored, dates)
    return row_pages(run, dynamodb.query, STATUS_INDEX, place, limit, **condition)


# The files of a date lie on both sides of its manifests, which need not be read.
BESIDE_MANIFESTS = (
    ("file_key < :manifests", MANIFEST_PREFIX),
    ("file_key > :manifests", MANIFEST_PREFIX + "\U0010ffff"),
)


def date_pages(
    run: Run,
    day: str,
    part: tuple[str, str],
    place: Position | None,
    limit: int = PAGE_ROWS,
    attributes: Sequence[str] = (),
) -> Iterator[list[Row]]:
    """The files in a part of a date, by name."""
    condition, manifests = part
    parameters: dict[str, Any] = {
        "KeyConditionExpression": f"date_prefix = :date AND {condition}",
        "ExpressionAttributeValues": to_item({":date": day, ":manifests": manifests}),
    }
    if attributes:
        names = {f"#{index}": name for index, name in enumerate(attributes)}
        parameters["ProjectionExpression"] = ", ".join(names)
        parameters["ExpressionAttributeNames"] = names
    return row_pages(run, dynamodb.query, None, place, limit, **parameters)


class Walk[S]:
    """The rows of several readings, from a position on, until the run is over.

    Afterwards `position` says where to go on; None when it came to the end. It always gets on, by
    a row or a step, and with a limit it ends before the next row: only then there is more.
    """

    def __init__(
        self,
        run: Run,
        steps: Sequence[S],
        read: Callable[[S, Position | None], Iterator[list[Row]]],
        begin: Position | None = None,
        limit: float = math.inf,
    ) -> None:
        self._run, self._steps, self._read, self._limit = run, steps, read, limit
        self._begin = begin or {"step": 0, "place": None}
        self.position: Position | None = None

    def __iter__(self) -> Iterator[Row]:
        taken, place = 0, self._begin["place"]
        for step in range(self._begin["step"], len(self._steps)):
            for rows in self._read(self._steps[step], place):
                for row in rows:
                    if self._must_end or taken >= self._limit:
                        return
                    taken += 1
                    self.position = {"step": step, "place": row.place}
                    yield row
                if self._must_end:
                    return
            place = None
            self.position = {"step": step + 1, "place": None}
        self.position = None

    @property
    def _must_end(self) -> bool:
        return self.position is not None and self._run.is_over


def get_row(run: Run, date_prefix: str, file_key: str) -> Row:
    """A row as it is now; 404 when there is none."""
    answer = dynamodb.get_item(
        TableName=TRACKING_TABLE,
        Key=to_item({"date_prefix": date_prefix, "file_key": file_key}),
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    run.charge(answer)
    if "Item" not in answer:
        raise RefusedError(404, f"there is no file {date_prefix}/{file_key}")
    return read_row(answer["Item"])


def get_rows(run: Run, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Row]:
    """Those rows of many keys that are there."""
    found: dict[tuple[str, str], Row] = {}
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
            # Longer each time, and random, so that two callers do not meet again.
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
    return found


def change_row(
    run: Run,
    row: Row,
    status: FileStatus,
    *,
    reason: str | None,
    changed_by: str,
    fields: Mapping[str, Any],
    removed: Sequence[str] = (),
    **logged: Any,
) -> Row:
    """Write a status and its audit trail, if the row is still what was read.

    404 when it is gone, 409 when somebody else was faster.
    """
    old = str(row.values.get("status") or "")
    new: dict[str, Any] = {
        **fields,
        "status": in_same_shard(old, status),
        "previous_status": old or None,
        "last_changed_by": changed_by,
        "last_changed_reason": reason,
        "updated_at": iso_time(run.now),
    }
    try:
        answer = dynamodb.update_item(
            TableName=TRACKING_TABLE,
            **row_update(row, new, removed),
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ReturnConsumedCapacity="TOTAL",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        if "Item" not in error.response:
            raise RefusedError(404, f"there is no file {row.label} any more") from error
        lost = f"{row.label} was changed by someone else meanwhile; nothing was written"
        current = read_row(error.response["Item"]).values.get("status")
        raise RefusedError(409, lost, current_status=current) from error
    except ClientError as error:
        # The request was checked; what is left is the item's size together with what it holds.
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        raise malformed("additional_fields", "the row would be larger than 400 KB") from error
    run.charge(answer, write=True)
    telemetry.info(
        "status changed",
        file=row.label,
        old_status=old or None,
        new_status=new["status"],
        changed_by=changed_by,
        reason=reason,
        **logged,
    )
    return read_row(answer["Attributes"])


class Manifests:
    """The manifests of the files looked at so far: their rows, and what S3 says of them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rows: dict[tuple[str, str], Row | None] = {}
        self._objects: dict[str, Manifest] = {}

    def row_of(self, file: Row) -> Row | None:
        return None if file.manifest_key is None else self._rows.get(file.manifest_key)

    def object_of(self, file: Row) -> Manifest | None:
        """None when the file points to no manifest, or to one that was not looked up."""
        return self._objects.get(file.manifest_path)

    def look_up_rows(self, files: Iterable[Row]) -> None:
        keys = {file.manifest_key for file in files} - self._rows.keys() - {None}
        if keys:
            known = {key for key in keys if key is not None}
            self._rows |= dict.fromkeys(known) | get_rows(self._run, known)

    def look_up_objects(self, files: Iterable[Row]) -> None:
        paths = {file.manifest_path for file in files if file.manifest_key is not None}
        if sum(len(manifest.listed) for manifest in self._objects.values()) > MAX_KNOWN_URIS:
            self._objects.clear()
        new = sorted(paths - self._objects.keys())
        if new:
            s3()  # sessions make one client at a time
            with ThreadPoolExecutor(PARALLEL_READS) as pool:
                self._objects |= dict(zip(new, pool.map(self._read, new), strict=True))

    def _read(self, path: str) -> Manifest:
        if self._run.time_is_up:
            return Manifest(unknown="the time was up before S3 was asked")
        return read_manifest(path)

    def unknown(self) -> list[Body]:
        """The manifests of which S3 said neither that they are there nor that they are not."""
        looked_up = sorted(self._objects.items())
        return [{"subject": path, "reason": m.unknown} for path, m in looked_up if m.unknown]


@cache
def s3() -> Any:
    """Made by the operations that look into buckets."""
    return session.create_client("s3", config=client_config)


def read_manifest(path: str) -> Manifest:
    """What a manifest lists; missing only when S3 says that there is no such key."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if not (bucket and key):
        return Manifest(unknown="its path names no object")
    try:
        with closing(s3().get_object(Bucket=bucket, Key=key)["Body"]) as body:
            text = body.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            return Manifest(unknown="the manifest is larger than 8 MB")
        return Manifest.read(text)
    except s3().exceptions.NoSuchKey:
        return Manifest(missing=True)
    except (ClientError, BotoCoreError) as error:
        return Manifest(unknown=refusal(error))


def list_objects(run: Run, bucket: str, prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Pages of what lies under a prefix; TimeoutError when the time does not suffice for all."""
    for page in (
        s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **more)
    ):
        yield page
        if page.get("IsTruncated") and run.time_is_up:
            raise TimeoutError("the listing took too long")


def refusal(error: Exception) -> str:
    """What an operator needs to know of a call to S3 that failed."""
    if isinstance(error, ClientError):
        return f"S3 answered {error.response.get('Error', {}).get('Code', 'an error')}"
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

    def read(part: tuple[str, str], place: Position | None) -> Iterator[list[Row]]:
        return date_pages(run, request.date_prefix, part, place, request.limit + 1)

    begin = resumed("get_file_state", request)
    walk = Walk(run, BESIDE_MANIFESTS, read, begin, request.limit)
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


class Lane:
    """The files of one stored status, oldest date first, read no further than they are taken."""

    def __init__(
        self, run: Run, stored: str, place: Position | None, dates: Dates, share: int
    ) -> None:
        self.stored, self.place = stored, place
        self.files: deque[Row] = deque()
        self.ended = False
        self._run = run
        self._pages = status_pages(run, stored, place, dates, share)

    def fill(self) -> None:
        """Read until there is a file, or the end, or the time is up."""
        while not (self.files or self.ended):
            page = next(self._pages, None)
            self.ended = page is None
            self.files.extend(row for row in page or () if row.is_file)
            if page and not self.files:
                self.place = page[-1].place
            if page and self._run.time_is_up:
                return

    def take(self) -> Row:
        file = self.files.popleft()
        self.place = file.place
        self.fill()
        return file


@operation(QueryByStatus)
def query_by_status(request: QueryByStatus, run: Run) -> tuple[int, Body]:
    """A page of the files of a status over all its shards, oldest date first.

    A shard is read no further than its share of the page needs; the token holds the place in each.
    """
    stored = stored_statuses(request.status, PIPELINE.shards)
    places = resumed("query_by_status", request) or dict.fromkeys(stored)
    dates: Dates = (None, None)
    if request.date_range is not None:
        dates = (request.date_range.start, request.date_range.end)
    share = math.ceil(request.limit / len(places)) + 1
    lanes = [Lane(run, value, place, dates, share) for value, place in places.items()]
    with ThreadPoolExecutor(len(lanes)) as pool:
        list(pool.map(Lane.fill, lanes))
    files: list[Body] = []
    # A lane of which nothing is known may hold the oldest: then nothing can be said of the others.
    while len(files) < request.limit and all(lane.files or lane.ended for lane in lanes):
        filled = [lane for lane in lanes if lane.files]
        if not filled or (files and run.is_over):
            break
        oldest = min(filled, key=lambda lane: lane.files[0].date_prefix)
        files.append(run.sized(oldest.take().values))
    left = {lane.stored: lane.place for lane in lanes if lane.files or not lane.ended}
    return 200, {
        "status": request.status.value,
        "count": len(files),
        "files": files,
        **continued("query_by_status", request, left or None, cut=len(files) < request.limit),
    }


class GetStats(Paged):
    """Files by status: of all dates from the counters, `exact` or of one date by counting."""

    date_prefix: DatePrefix | None = None
    exact: bool = False


@operation(GetStats)
def get_stats(request: GetStats, run: Run) -> tuple[int, Body]:
    """Files by status.

    Of a date: counted. Of all: from the counters, whose cost does not depend on the table; with
    `exact` also counted, and the counters are corrected if no file moved meanwhile.
    """
    position = resumed("get_stats", request)
    is_check = request.exact and request.date_prefix is None
    if request.date_prefix is not None:
        counts, place = count_date(run, request.date_prefix, position)
    elif request.exact:
        position = position or begin_count()
        counts, place = count_all(run, position)
    else:
        counts, place = counters(run), None
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
    """The files of a date by status, and where to go on if time ran out."""
    names = ("date_prefix", "file_key", "status")

    def read(part: tuple[str, str], place: Position | None) -> Iterator[list[Row]]:
        return date_pages(run, day, part, place, attributes=names)

    position = position or {"walk": None, "counts": {}}
    counts = Counter[str](position["counts"])
    walk = Walk(run, BESIDE_MANIFESTS, read, position["walk"])
    counts.update(file.status for file in walk if file.status is not None)
    return counts, walk.position and {"walk": walk.position, "counts": counts}


def count_all(run: Run, position: Position) -> tuple[Counter[str], Position | None]:
    """All files by status, through the index, and where to go on if time ran out.

    Time enough is left to watch the stream for its last records; or else the next part does that.
    """
    counts = Counter[str](position.get("counts"))
    steps = [
        (status, stored)
        for status in FileStatus
        for stored in stored_statuses(status, PIPELINE.shards)
    ]
    step, start = position.get("step", 0), position.get("start")
    while step < len(steps):
        status, stored = steps[step]
        number, start = count_page(run, stored, start)
        counts[status] += number
        step += start is None
        if run.seconds_left < WATCH_SECONDS:
            watch = Watch(**position["watch"])
            watch.keep(run)
            place = {"step": step, "start": start, "counts": counts, "watch": asdict(watch)}
            return counts, position | place
    return counts, None


def count_page(run: Run, stored: str, start: Item | None) -> tuple[int, Item | None]:
    """How many files are on a page of a stored status, and where the next one begins."""
    # Under a plain status are manifests, too: their keys have to be looked at.
    is_plain = "#" not in stored
    answer = dynamodb.query(
        TableName=TRACKING_TABLE,
        IndexName=STATUS_INDEX,
        ReturnConsumedCapacity="TOTAL",
        **status_condition(stored),
        **({"ProjectionExpression": "date_prefix, file_key"} if is_plain else {"Select": "COUNT"}),
        **({} if start is None else {"ExclusiveStartKey": start}),
    )
    run.charge(answer)
    found = sum(read_row(item).is_file for item in answer["Items"]) if is_plain else answer["Count"]
    return found, answer.get("LastEvaluatedKey")


# How far the index and the stream may be behind the table.
SETTLE_SECONDS = 2.0
# An open shard has no end, and GetRecords may answer with nothing any number of times before it
# comes to records. A shard has told all about a time when it tells of a later one. One on which
# nothing happens any more is believed after so many empty answers in a row; Lambda asks it four
# times a second, and one call more does not disturb that.
EMPTY_ANSWERS = 10
LOOK_SECONDS = 1.0
# Time for these, and for the records that may come before them.
WATCH_SECONDS = 20.0

MOVED = "files changed while they were counted; repeat it later"
UNTOLD = "the time was up before the stream had told all; repeat it when less is going on"
FORGOTTEN = "the stream has forgotten where the count began; ask for the parts without a pause"


@cache
def streams() -> Any:
    """The streams' client."""
    return session.create_client("dynamodbstreams", config=client_config)


def begin_count() -> Position:
    """From where the stream will tell, after a count of all files, whether one moved meanwhile.

    What was written before is in the index when this returns.
    """
    watch = Watch(
        {
            shard: read_on(iterator_of(shard, "LATEST"))[1] if is_open else None
            for shard, is_open in stream_shards().items()
        }
    )
    # Records from before are older than this, and those from after the count are not.
    position = {"watch": asdict(watch), "counted_from": int(time.time() + SETTLE_SECONDS)}
    time.sleep(SETTLE_SECONDS)
    return position


def stream_shards() -> dict[str, bool]:
    """The shards of the tracking table's stream, and whether each may still grow."""
    shards: dict[str, bool] = {}
    page: dict[str, str] = {}
    while True:
        described = streams().describe_stream(StreamArn=TRACKING_STREAM_ARN, **page)
        description = described["StreamDescription"]
        for shard in description["Shards"]:
            is_open = "EndingSequenceNumber" not in shard["SequenceNumberRange"]
            shards[shard["ShardId"]] = is_open
        if "LastEvaluatedShardId" not in description:
            return shards
        page = {"ExclusiveStartShardId": description["LastEvaluatedShardId"]}


def iterator_of(shard: str, place: str) -> str:
    answer = streams().get_shard_iterator(
        StreamArn=TRACKING_STREAM_ARN, ShardId=shard, ShardIteratorType=place
    )
    return str(answer["ShardIterator"])


def read_on(iterator: str) -> tuple[list[Body], str | None]:
    """Changes of a shard, and where they go on; None when it is closed and read to its end."""
    answer = streams().get_records(ShardIterator=iterator)
    return [record["dynamodb"] for record in answer["Records"]], answer.get("NextShardIterator")


def is_later(change: Body, moment: float) -> bool:
    """Whether a change was made after a time, as far as the stream tells."""
    created = change.get("ApproximateCreationDateTime")
    return created is not None and created.timestamp() > moment


@dataclass
class Watch:
    """Whether a file changes its status: by the stream itself, however far behind it we are."""

    iterators: dict[str, str | None]
    """Where each shard goes on; None when it has told all."""
    doubt: str | None = None
    """Why it can't be said that none did."""

    def keep(self, run: Run) -> None:
        """Read on, since an iterator is good for a quarter of an hour only."""
        for shard in self.iterators:
            if self.doubt is None:
                self._look(run, shard, math.inf)

    def end(self, run: Run, moment: float) -> None:
        """Read until each shard has told all from before a time that is hardly over."""
        for shard in stream_shards().keys() - self.iterators.keys():
            self.iterators[shard] = iterator_of(shard, "TRIM_HORIZON")
        empty = dict.fromkeys(self.iterators, 0)
        while self.doubt is None and (
            waiting := [
                shard
                for shard, iterator in self.iterators.items()
                if iterator is not None and empty[shard] < EMPTY_ANSWERS
            ]
        ):
            if run.time_is_up:
                self.doubt = UNTOLD
                break
            time.sleep(LOOK_SECONDS)
            for shard in waiting:
                empty[shard] = 0 if self._look(run, shard, moment) else empty[shard] + 1

    def _look(self, run: Run, shard: str, moment: float) -> bool:
        """Read a shard to an empty answer, or beyond a time; whether it had any changes."""
        has_changes = False
        while (iterator := self.iterators[shard]) is not None:
            try:
                changes, self.iterators[shard] = read_on(iterator)
            except (
                streams().exceptions.ExpiredIteratorException,
                streams().exceptions.TrimmedDataAccessException,
            ):
                self.doubt = FORGOTTEN
                break
            for change in changes:
                if is_later(change, moment):
                    self.iterators[shard] = None
                    return True
                if moved_files(change, PIPELINE.shards):
                    self.doubt = MOVED
            if not changes or run.time_is_up:
                break
            has_changes = True
        return has_changes


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


def counters(run: Run) -> Counter[str]:
    """The counted files by status, and under `changes` how many changes were counted."""
    return summed(counter_rows(run))


def reconcile(run: Run, exact: Counter[str], begun: Position) -> Body:
    """How far the counters are off, and their correction.

    Only when the stream has no change of a file from the begin of the count to when the counters
    were read: then they have changes from before it alone. One of those whose record comes later
    still is in the count already, and `counted_from` keeps it out.
    """
    rows = counter_rows(run)
    counted = summed(rows)
    drift = {status.value: exact[status] - counted[status] for status in FileStatus}
    watch = Watch(**begun["watch"])
    watch.end(run, time.time() + SETTLE_SECONDS)
    doubt, is_off = watch.doubt, any(drift.values())
    if doubt is None and is_off and not correct_counters(run, rows, drift, begun["counted_from"]):
        doubt = MOVED
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
    """Add the drift to the counters; False when a change was counted since they were read."""
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
    """What happened to a file, and when."""

    date_prefix: DatePrefix
    file_key: Text


@operation(GetProcessingTimeline)
def get_processing_timeline(request: GetProcessingTimeline, run: Run) -> tuple[int, Body]:
    """What happened to a file; times that it lacks are taken from its manifest's row."""
    file = get_row(run, request.date_prefix, request.file_key)
    manifests = Manifests(run)
    manifests.look_up_rows([file])
    manifest = manifests.row_of(file)
    events = timeline(file, manifest)
    anomalies = [
        {"type": "unreadable_time", "attribute": name, "value": value, "row": row.file_key}
        for row in (file, manifest)
        if row is not None
        for name, value in row.unreadable_times().items()
    ]
    anomalies += [{"type": "out_of_order", "events": steps} for steps in disordered(events)]
    return 200, {
        "file": file.label,
        "current_status": None if file.status is None else file.status.value,
        "timeline": [{**event, "timestamp": iso_time(event["timestamp"])} for event in events],
        "durations_seconds": {
            f"{one['event']}_to_{other['event']}": seconds(one, other)
            for one, other in pairwise(events)
        },
        "total_processing_time": seconds(events[0], events[-1]) if events else None,
        **({"anomalies": anomalies} if anomalies else {}),
    }


def seconds(one: Body, other: Body) -> float:
    return round(float(other["timestamp"] - one["timestamp"]), 3)


class FindOrphans(Paged):
    """Files that no one will end unless an operator does."""

    max_processing_hours: Hours = 2


LOCKS = "locks"
EXAMPLES = 5
# In every answer, even when empty.
ALWAYS_PRESENT = ORPHAN_KINDS[:3]


@operation(FindOrphans)
def find_orphans(request: FindOrphans, run: Run) -> tuple[int, Body]:
    """Files that no one will end: read from the statuses in flight, the dates without output and
    the locks, never from the whole table.
    """
    position = resumed("find_orphans", request) or {"began": run.now, "walk": None}
    search = Search(run, request.max_processing_hours, position["began"])
    steps = [
        *(v for status in IN_FLIGHT for v in stored_statuses(status, PIPELINE.shards)),
        *stored_statuses(FileStatus.COMPLETED, PIPELINE.shards),
        LOCKS,
    ]
    walk = Walk(run, steps, search.read, position["walk"])
    for row in walk:
        search.look_at(row)
    body = {
        "total_orphans": search.numbers.total(),
        "orphans": search.orphans,
        "unknown": search.unknown,
        "oldest_pending_age_seconds": search.oldest_pending_age,
    }
    if run.scheduled:
        search.report(run)
    place = walk.position and position | {"walk": walk.position}
    return 200, body | continued("find_orphans", request, place)


class Search:
    """One search for orphans: what it has found, and what it knows of manifests and outputs."""

    def __init__(self, run: Run, hours: float, began: float) -> None:
        self._run, self._hours, self._began = run, hours, began
        self.orphans: dict[str, list[Body]] = {kind: [] for kind in ALWAYS_PRESENT}
        self.unknown: list[Body] = []
        self.numbers: Counter[str] = Counter()
        self.unknowns = 0
        self._oldest_pending: float | None = None
        self._manifests = Manifests(run)

    @property
    def oldest_pending_age(self) -> int | None:
        oldest = self._oldest_pending
        return None if oldest is None else round(self._began - oldest)

    def read(self, step: str, place: Position | None) -> Iterator[list[Row]]:
        """The pages of a step: what may be an orphan, and no more."""
        if step == LOCKS:
            yield from row_pages(self._run, dynamodb.scan, LOCK_INDEX, place)
        elif read_status(step, PIPELINE.shards) is FileStatus.COMPLETED:
            yield from self._without_output(step, place)
        else:
            for rows in status_pages(self._run, step, place):
                claimed = [r for r in rows if r.is_file and r.status is not FileStatus.PENDING]
                self._manifests.look_up_rows(claimed)
                self._manifests.look_up_objects(claimed)
                yield rows

    def _without_output(self, stored: str, place: Position | None) -> Iterator[list[Row]]:
        reached = place and place["date_prefix"]
        for first, last in self._dates_without_output:
            if reached and last is not None and last < reached:
                continue
            inside = reached and (first is None or first <= reached)
            dates = (first, last)
            yield from status_pages(self._run, stored, place if inside else None, dates)

    @cached_property
    def _dates_without_output(self) -> list[Dates]:
        try:
            return gaps(dates_with_output(self._run))
        except (ClientError, BotoCoreError, TimeoutError) as error:
            self._add_unknown({"subject": "outputs", "reason": refusal(error)})
            return []

    def look_at(self, row: Row) -> None:
        if row.kind is RowKind.LOCK:
            if is_stale(row, self._began):
                self._add("stale_locks", row.values)
        elif row.is_file and row.status is FileStatus.COMPLETED:
            output = f"s3://{PIPELINE.output_bucket}/{PIPELINE.outputs_of(row.date_prefix)}"
            self._add("missing_outputs", row.finding(self._began, output_prefix=output))
        elif row.is_file:
            self._look_at_file(row)

    def _look_at_file(self, file: Row) -> None:
        manifest, manifest_row = self._manifests.object_of(file), self._manifests.row_of(file)
        kind = orphan_kind(
            file, manifest, manifest_row, PIPELINE, now=self._began, hours=self._hours
        )
        if kind is not None:
            self._add(kind, file.finding(self._began))
        unreadable = file.unreadable_times()
        if unreadable or file.since is None:
            self._add("unreadable_times", file.finding(self._began, attributes=unreadable))
        if file.status is not FileStatus.PENDING:
            if manifest is not None and manifest.unknown:
                self._add_unknown(file.finding(self._began, reason=manifest.unknown))
        elif file.since is not None:
            self._oldest_pending = min(file.since, self._oldest_pending or file.since)

    def _add(self, kind: str, found: Body) -> None:
        self.numbers[kind] += 1
        self._keep(self.orphans.setdefault(kind, []), found)

    def _add_unknown(self, found: Body) -> None:
        self.unknowns += 1
        self._keep(self.unknown, found)

    def _keep(self, findings: list[Body], found: Body) -> None:
        # The answer of a scheduled run goes to nobody: it counts all, and keeps some.
        if not self._run.scheduled or len(findings) < EXAMPLES:
            findings.append(self._run.sized(found))

    def report(self, run: Run) -> None:
        """Metrics of every kind, also of those that there are none of, and what the log says."""
        for kind in ORPHAN_KINDS:
            telemetry.metric("OrphansByKind", self.numbers[kind], Kind=kind)
        telemetry.metric("OrphansByKind", self.unknowns, Kind="unknown")
        telemetry.metric("Orphans", self.numbers.total())
        telemetry.metric("OldestPendingAgeSeconds", self.oldest_pending_age or 0, unit="Seconds")
        run.report |= {
            "orphans": dict(self.numbers),
            "unknown": self.unknowns,
            "examples": {
                kind: [f"{found['date_prefix']}/{found['file_key']}" for found in findings]
                for kind, findings in self.orphans.items()
                if findings
            },
        }


def dates_with_output(run: Run) -> set[str]:
    """The dates under whose output prefix something lies."""
    found = set()
    for page in list_objects(run, PIPELINE.output_bucket, PIPELINE.outputs_of(), Delimiter="/"):
        for common in page.get("CommonPrefixes", []):
            day = common["Prefix"].removeprefix(PIPELINE.outputs_of()).rstrip("/")
            try:
                found.add(_date(day))
            except ValueError:
                continue
    return found


class ResetStuckFiles(Paged):
    """Back to pending with what is stuck; by default only a list of it."""

    max_processing_hours: Hours = 2
    statuses: Annotated[
        list[Literal["processing", "manifested", "failed"]], Field(min_length=1, max_length=3)
    ] = ["processing", "manifested"]
    dry_run: bool = True
    reason: Text | None = None


@operation(ResetStuckFiles)
def reset_stuck_files(request: ResetStuckFiles, run: Run) -> tuple[int, Body]:
    """Back to pending with files that have been where they are for too long.

    Each write is conditional on what was read: a file that came to its end meanwhile is skipped.
    """
    position = resumed("reset_stuck_files", request) or {"began": run.now, "walk": None}
    began, hours = position["began"], request.max_processing_hours
    manifests = Manifests(run)

    def read(stored: str, place: Position | None) -> Iterator[list[Row]]:
        nonlocal manifests
        for rows in status_pages(run, stored, place):
            # Of the manifests, what is true now: a run may begin at any time.
            manifests = Manifests(run)
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
    walk = Walk(run, steps, read, position["walk"])
    for file in walk:
        if not file.is_file or (file.since is not None and not file.is_older(hours, began)):
            continue
        found += file.since is not None
        reason = no_reset_because(
            file, manifests.row_of(file), now=began, hours=hours, max_resets=PIPELINE.max_resets
        )
        try:
            if reason is None:
                stuck_files.append(run.sized(reset(run, file, request, began)))
        except RefusedError as refused:
            reason = refused.body["error"]
        except (ClientError, BotoCoreError) as error:
            telemetry.exception("file was not reset", error, file=file.label)
            reason = "the write failed; see the log"
        if reason is not None:
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


def reset(run: Run, file: Row, request: ResetStuckFiles, now: float) -> Body:
    """Reset one stuck file, or fail it when that was done too often; in a dry run only say so."""
    gives_up = resets_of(file) >= PIPELINE.max_resets
    resets = resets_of(file) + (not gives_up)
    action = "fail" if gives_up else "reset"
    found = file.finding(now, reset_count=resets, action=action)
    if request.dry_run:
        return found
    at = iso_time(run.now)
    change_row(
        run,
        file,
        FileStatus.FAILED if gives_up else FileStatus.PENDING,
        reason=request.reason or f"stuck for {found['hours_stuck']} hours",
        changed_by=run.author,
        fields=(
            {"failed_time": at, "error_message": f"stuck again after {resets} resets"}
            if gives_up
            else {"last_reset_time": at, "reset_count": resets}
        ),
        # With them a run that is late could complete a file that was reset.
        removed=("manifest_path", "glue_job_run_id"),
    )
    return found


class ValidateConsistency(Paged):
    """A date's rows against what lies in the buckets."""

    date_prefix: DatePrefix


@operation(ValidateConsistency)
def validate_consistency(request: ValidateConsistency, run: Run) -> tuple[int, Body]:
    """A date's rows against the objects in the buckets, and what contradicts what.

    First the rows, one by one; then what lies in the input under a name that no row has.
    """
    day = request.date_prefix
    position = resumed("validate_consistency", request) or {"files": 0, "walk": None, "name": None}
    buckets = list_date(run, day)
    manifests = Manifests(run)
    issues: list[Body] = []
    names: set[str] = set()
    place: Position | None = None

    def read(part: tuple[str, str], place: Position | None) -> Iterator[list[Row]]:
        for rows in date_pages(run, day, part, place):
            manifests.look_up_rows(rows)
            recent = run.now - PIPELINE.manifest_days * DAY
            manifests.look_up_objects(
                file for file in rows if claimed_at(file, manifests.row_of(file)) > recent
            )
            yield rows

    if position["name"] is None:
        walk = Walk(run, BESIDE_MANIFESTS, read, position["walk"])
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
            if run.is_over and begin != (position["name"] or ""):
                place = position | {"name": begin}
                break
            issues += [run.sized(issue) for issue in object_issues(name, names, buckets)]
            begin = name
    inputs = buckets.inputs
    return 200, {
        "date_prefix": day,
        "db_file_count": position["files"],
        "s3_file_count": None if inputs is None else sum(map(len, inputs.values())),
        "issues_found": len(issues),
        "issues": sorted(issues, key=lambda issue: (issue["type"], issue["file_key"])),
        "unknown": buckets.unknown + manifests.unknown(),
        **continued("validate_consistency", request, place),
    }


def list_date(run: Run, day: str) -> Buckets:
    """List a date's input, output and quarantine."""
    buckets = Buckets()

    def listed(subject: str, bucket: str, prefix: str) -> list[dict[str, Any]] | None:
        try:
            listing = list_objects(run, bucket, prefix)
            return [found for page in listing for found in page.get("Contents", [])]
        except (ClientError, BotoCoreError, TimeoutError) as error:
            buckets.unknown.append({"subject": subject, "reason": refusal(error)})
            return None

    inputs = listed("input", PIPELINE.input_bucket, f"{PIPELINE.input_prefix}{day}/")
    if inputs is not None:
        buckets.inputs = {}
        for found in inputs:
            name = found["Key"].rpartition("/")[2]
            if is_ndjson(name):
                buckets.inputs.setdefault(name, []).append(found)
    outputs = listed("output", PIPELINE.output_bucket, PIPELINE.outputs_of(day))
    buckets.outputs = None if outputs is None else {found["Key"] for found in outputs}
    quarantined = listed("quarantine", QUARANTINE_BUCKET, f"{QUARANTINE_PREFIX}{day}/")
    if quarantined is not None:
        buckets.quarantined = {found["Key"].rpartition("/")[2] for found in quarantined}
    return buckets


def names_of(run: Run, day: str) -> set[str]:
    """The names under which the rows of a date may lie in the input."""
    keys = ("date_prefix", "file_key")
    readings = [date_pages(run, day, part, None, attributes=keys) for part in BESIDE_MANIFESTS]
    rows = (row for reading in readings for page in reading for row in page)
    return {name for row in rows for name in spellings(row.file_key)}


def _storable(fields: dict[str, Any]) -> dict[str, Any]:
    if problems := list(field_problems(fields)):
        raise ValueError("; ".join(problems))
    return fields


class FileChange(Request):
    """A new status for one file; what is not a step of the pipeline needs `force` and `reason`."""

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
    """A new status for one file, if it is still what was read."""
    old, row = apply_change(run, request)
    return 200, {
        "message": f"{row.label}: {old} -> {row.values['status']}",
        "updated_item": row.values,
    }


def apply_change(run: Run, change: FileChange) -> tuple[str | None, Row]:
    """One file's or manifest's change: the stored status before, and the row after."""
    row = get_row(run, change.date_prefix, change.file_key)
    current = row.values.get("status")

    def refuse(why: str) -> RefusedError:
        return RefusedError(409, f"{row.label} {why}", current_status=current)

    wanted = change.new_status
    if change.expected_status is not None and row.status is not change.expected_status:
        raise refuse(f"is {current}, not {change.expected_status.value}")
    if row.kind is RowKind.MANIFEST and wanted not in MANIFEST_STATUSES:
        raise refuse(f"is a manifest, which is never {wanted.value}")
    if not (change.force or may_become(row.kind, row.status, wanted)):
        raise refuse(f"can't go from {current} to {wanted.value} without force and a reason")
    changed = change_row(
        run,
        row,
        wanted,
        reason=change.reason,
        changed_by=change.changed_by or run.author,
        fields=change.additional_fields,
    )
    return current, changed


def _each_once(files: list[FileChange]) -> list[FileChange]:
    times = Counter(change.label for change in files)
    if twice := [label for label, number in times.items() if number > 1]:
        raise ValueError(f"holds more than one change of {', '.join(twice)}")
    return files


class BatchUpdate(Request):
    """Up to a hundred changes, each of another file."""

    files: Annotated[
        list[FileChange], Field(min_length=1, max_length=100), AfterValidator(_each_once)
    ]


@operation(BatchUpdate)
def batch_update(request: BatchUpdate, run: Run) -> tuple[int, Body]:
    """Many changes, each for itself: 200 if all were made, 207 if some, 422 if none."""
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
    """What became of one change of a batch."""
    if run.time_is_up:
        return {"error": "not attempted: the time was up"}
    try:
        old, row = apply_change(run, change)
    except RefusedError as refused:
        return refused.body
    except (ClientError, BotoCoreError) as error:
        telemetry.metric("OperationFailed")
        telemetry.exception("file was not changed", error, file=change.label)
        return {"error": "the write failed; see the log"}
    return {"old_status": old, "new_status": row.values["status"]}


def problems_of(error: ValidationError) -> list[dict[str, str]]:
    """Each problem with its field: `files[2].new_status`."""
    problems = []
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"])
        name = "".join(parts).lstrip(".") or "request"
        message = found["msg"].removeprefix("Value error, ")
        problems.append({"field": name, "message": f"{name}: {message}"})
    return problems


def perform(event: Any, run: Run) -> tuple[int, Body]:
    """Find the operation, check its request, run it."""
    name = event.get("operation", DEFAULT_OPERATION) if isinstance(event, dict) else None
    if not isinstance(name, str) or name not in OPERATIONS:
        raise RefusedError(
            400, "operation: is not one of ours", supported_operations=sorted(OPERATIONS)
        )
    telemetry.bind(operation=name)
    model, function = OPERATIONS[name]
    known = {"operation", "source"} if run.scheduled else {"operation"}
    try:
        request = model.model_validate({k: v for k, v in event.items() if k not in known})
    except ValidationError as error:
        problems = problems_of(error)
        summary = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RefusedError(400, summary, problems=problems) from error
    status, body = function(request, run)
    consumed = {"read_units": run.read_units, "write_units": run.write_units}
    return status, body | {"consumed_capacity": consumed}


def answer(event: Any, run: Run) -> tuple[int, Body]:
    """Status and body for whoever asked directly; what failed is for the log alone."""
    try:
        return perform(event, run)
    except RefusedError as refused:
        return refused.status, refused.body
    except Exception as error:
        telemetry.metric("OperationFailed")
        telemetry.exception("operation failed", error)
        return 500, {"error": "internal error", "request_id": run.request_id}


def scheduled_answer(event: Mapping[str, Any], run: Run) -> tuple[int, Body]:
    """Status and body that nobody reads: the line says it, and what fails is raised."""
    name = str(event.get("operation", DEFAULT_OPERATION))
    try:
        status, body = perform(event, run)
    except RefusedError as refused:
        raise ScheduledRunError(name, refused.status, refused.body) from refused
    if status != 200:
        raise ScheduledRunError(name, status, body)
    said = {key: value for key, value in body.items() if not isinstance(value, list | dict)}
    said.pop("next_token", None)
    telemetry.info("scheduled run", **said, **run.report, **body["consumed_capacity"])
    return status, body


@telemetry.handler
def handler(event: Any, context: Any) -> Body:
    remaining = context.get_remaining_time_in_millis() / 1000 * USABLE_TIME
    run = Run(time.time(), time.monotonic() + remaining, context.aws_request_id)
    run.scheduled = isinstance(event, dict) and event.get("source") == SCHEDULE_SOURCE
    status, body = (scheduled_answer if run.scheduled else answer)(event, run)
    return {"statusCode": status, "body": json.dumps(body, ensure_ascii=False)}
