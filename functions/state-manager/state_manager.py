"""An operator's hand on the state of a file pipeline: nine operations, and counters by status.

Triggers: direct invoke `{operation, …}`; schedules `{source: "jobplane.schedule", operation, …}`;
the tracking table's stream, from which files are counted.
Result: `{statusCode, body}`, the body a JSON text; for the stream nothing.
Errors: 400 with every problem, 404, 409, 422 and 207 for a batch, 500. A scheduled run raises
instead, and so does a batch of the stream.
Reads and mends `files`, counts in `metrics`, reads the pipeline's buckets.
"""

import base64
import hashlib
import hmac
import json
import math
import os
import random
import re
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import unquote_plus

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
    model_validator,
)

from jobplane_keys import from_item, iso_time, to_item, to_value
from jobplane_keys.tracking import (
    CLAIM_PLACEHOLDER,
    COUNTERS,
    DEFAULT_STATUS_SHARDS,
    FILE_SUFFIX,
    LOCK_INDEX,
    STATUS_INDEX,
    FileStatus,
    RowKind,
    in_same_shard,
    manifest_row_key,
    read_status,
    read_time,
    row_kind,
    stored_statuses,
)
from jobplane_telemetry import Telemetry

TRACKING_TABLE = os.environ["TRACKING_TABLE"]
METRICS_TABLE = os.environ["METRICS_TABLE"]
INPUT_BUCKET = os.environ["INPUT_BUCKET"]
MANIFEST_BUCKET = os.environ["MANIFEST_BUCKET"]
OUTPUT_BUCKET = os.environ["OUTPUT_BUCKET"]
QUARANTINE_BUCKET = os.environ["QUARANTINE_BUCKET"]
PAGING_SECRET = os.environ["PAGING_SECRET"].encode()
INPUT_PREFIX = os.environ.get("INPUT_PREFIX", "pipeline/input/")
OUTPUT_PREFIX = os.environ.get("OUTPUT_PREFIX", "pipeline/output/")
QUARANTINE_PREFIX = os.environ.get("QUARANTINE_PREFIX", "quarantine/")
INPUT_LIFECYCLE_DAYS = float(os.environ.get("INPUT_LIFECYCLE_DAYS", "7"))
MANIFEST_LIFECYCLE_DAYS = float(os.environ.get("MANIFEST_LIFECYCLE_DAYS", "3"))
NUM_STATUS_SHARDS = int(os.environ.get("NUM_STATUS_SHARDS", DEFAULT_STATUS_SHARDS))
ABANDONED_CLAIM_MINUTES = float(os.environ.get("ABANDONED_CLAIM_MINUTES", "15"))
MAX_RESETS = int(os.environ.get("MAX_RESETS", "3"))

SCHEDULE_SOURCE = "jobplane.schedule"
DEFAULT_OPERATION = "get_file_state"
MAX_ANSWER_BYTES = 5_500_000  # Lambda answers at most 6 MB
RESERVED_SECONDS = 5.0  # of the remaining time, to end a page and answer
PAGE_ROWS = 1000
MAX_DEPTH = 31  # of DynamoDB, below an attribute
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
PARALLEL_READS = 8
HOUR, DAY = 3600.0, 86400.0
SIZE_TOLERANCE_MB = 0.01
MEGABYTE = 1024 * 1024

COUNTER_SHARDS = 10
COUNTED_TTL_SECONDS = 2 * 24 * 3600  # a stream keeps its records for one day
COUNTED_PER_TRANSACTION = 90  # and one counter: DynamoDB allows 100
CONFLICT_ATTEMPTS = 8
SETTLE_SECONDS = 2.0

IN_FLIGHT = (FileStatus.PENDING, FileStatus.MANIFESTED, FileStatus.PROCESSING)
ALLOWED = {
    FileStatus.PENDING: {FileStatus.MANIFESTED},
    FileStatus.MANIFESTED: {FileStatus.PROCESSING},
    FileStatus.PROCESSING: {FileStatus.COMPLETED, FileStatus.FAILED},
    FileStatus.FAILED: {FileStatus.PENDING},
}
PROTECTED = frozenset(
    {
        "date_prefix", "file_key", "status", "ttl", "created_at", "updated_at", "previous_status",
        "last_changed_by", "last_changed_reason", "last_reset_time", "reset_count",
    }
)  # fmt: skip
# Each time a row may carry, and what happened then.
EVENTS = {
    "created_at": ("uploaded", FileStatus.PENDING),
    "upload_time": ("uploaded", FileStatus.PENDING),
    "manifest_time": ("manifested", FileStatus.MANIFESTED),
    "processing_start_time": ("processing_started", FileStatus.PROCESSING),
    "completed_time": ("completed", FileStatus.COMPLETED),
    "failed_time": ("failed", FileStatus.FAILED),
}
TIMES = (*EVENTS, "updated_at", "last_reset_time")
# The times that tell since when a file has been where it is, the best first.
SINCE = {
    FileStatus.PENDING: ("updated_at", "created_at", "upload_time"),
    FileStatus.MANIFESTED: ("updated_at", "manifest_time", "created_at", "upload_time"),
    FileStatus.PROCESSING: (
        "updated_at", "processing_start_time", "manifest_time", "created_at", "upload_time",
    ),
    FileStatus.FAILED: ("failed_time", "updated_at", "created_at", "upload_time"),
}  # fmt: skip
STUCK_KINDS = {
    FileStatus.PENDING: "stuck_pending",
    FileStatus.MANIFESTED: "stuck_manifested",
    FileStatus.PROCESSING: "stuck_in_processing",
}
ORPHAN_KINDS = (
    "stuck_in_processing", "missing_manifests", "missing_outputs", "stuck_pending",
    "stuck_manifested", "expired_manifests", "abandoned_claims", "not_in_manifest",
    "lagging_files", "stale_locks", "unreadable_times",
)  # fmt: skip
ALWAYS_PRESENT = ORPHAN_KINDS[:3]
UNDER_WAY = {"pending", "processing"}

telemetry = Telemetry("state-manager")
session = botocore.session.get_session()
client_config = Config(
    connect_timeout=2,
    read_timeout=10,
    max_pool_connections=NUM_STATUS_SHARDS + 1,
    retries={"mode": "standard", "total_max_attempts": 4},
)
dynamodb: Any = session.create_client("dynamodb", config=client_config)
s3: Any = session.create_client("s3", config=client_config)

type Item = dict[str, Any]
type Key = dict[str, Any]
type Body = dict[str, Any]
type Position = dict[str, Any]
type Problems = list[dict[str, str]]


def _date(text: str) -> str:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("expected a date as YYYY-MM-DD")
    date.fromisoformat(text)
    return text


def _encodable(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > 1024:
        raise ValueError("is longer than 1024 bytes")
    text.encode()
    return text


def _storable(fields: dict[str, Any]) -> dict[str, Any]:
    if problems := list(field_problems(fields)):
        raise ValueError("; ".join(problems))
    return fields


DatePrefix = Annotated[str, AfterValidator(_date)]
FileKey = Annotated[str, StringConstraints(min_length=1), AfterValidator(_encodable)]
Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_encodable)]
Hours = Annotated[float, Field(gt=0, le=24 * 365 * 10, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=1, le=1000)]
AdditionalFields = Annotated[dict[str, Any], AfterValidator(_storable)]
Status = Annotated[FileStatus, Field(strict=False)]


class Request(BaseModel):
    """Input from outside: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Paged(Request):
    """An operation whose answer may come in parts."""

    next_token: Annotated[str, StringConstraints(max_length=16384)] | None = None


class GetFileState(Paged):
    """One row, or the files of a date."""

    date_prefix: DatePrefix
    file_key: FileKey | None = None
    limit: Limit = 100


class DateRange(Request):
    """Dates, both included; one side may be open."""

    start: DatePrefix | None = None
    end: DatePrefix | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "DateRange":
        if self.start is None and self.end is None:
            raise ValueError("start or end is required")
        if self.start and self.end and self.start > self.end:
            raise ValueError("start is after end")
        return self


class QueryByStatus(Paged):
    """Files of a status, oldest date first."""

    status: Status
    limit: Limit = 100
    date_range: DateRange | None = None


class GetStats(Paged):
    """Files by status: of all dates from the counters, `exact` or of one date by counting."""

    date_prefix: DatePrefix | None = None
    exact: bool = False


class GetProcessingTimeline(Request):
    """What happened to a file, and when."""

    date_prefix: DatePrefix
    file_key: FileKey


class FindOrphans(Paged):
    """Files that no one will end unless an operator does."""

    max_processing_hours: Hours = 2


class ResetStuckFiles(Paged):
    """Back to pending with what is stuck; by default only a list of it."""

    max_processing_hours: Hours = 2
    statuses: Annotated[
        list[Literal["processing", "manifested", "failed"]], Field(min_length=1, max_length=3)
    ] = ["processing", "manifested"]
    dry_run: bool = True
    reason: Text | None = None


class ValidateConsistency(Paged):
    """A date's rows against what lies in the buckets."""

    date_prefix: DatePrefix


class FileChange(Request):
    """A new status for one file; what is not a step of the pipeline needs `force` and `reason`."""

    date_prefix: DatePrefix
    file_key: FileKey
    new_status: Status
    additional_fields: AdditionalFields = {}
    expected_status: Status | None = None
    force: bool = False
    reason: Text | None = None
    changed_by: Annotated[Text, StringConstraints(max_length=128)] | None = None

    @model_validator(mode="after")
    def _reasoned(self) -> "FileChange":
        if self.force and self.reason is None:
            raise ValueError("reason is required with force")
        return self


class UpdateState(FileChange):
    """The request of `update_state`."""


class BatchUpdate(Request):
    """Up to a hundred changes, each of another file."""

    files: Annotated[list[FileChange], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _each_once(self) -> "BatchUpdate":
        seen = Counter(label(change.date_prefix, change.file_key) for change in self.files)
        if twice := [name for name, times in seen.items() if times > 1]:
            raise ValueError(f"files holds more than one change of {', '.join(twice)}")
        return self


class RefusedError(Exception):
    """An answer other than 200: the caller's mistake, or a state that forbids what was asked."""

    def __init__(self, status: int, error: str, **more: Any) -> None:
        self.status = status
        self.body: Body = {"error": error, **more}
        super().__init__(error)


class ScheduledRunError(Exception):
    """A scheduled run was refused; raised so that the function's Errors alarm sees it."""

    def __init__(self, operation: str, status: int, error: str) -> None:
        self.operation, self.status = operation, status
        super().__init__(f"{operation} answered {status}: {error}")


@dataclass(slots=True)
class Run:
    """One invocation: its clock, how long it may take, what it has consumed."""

    now: float
    deadline: float
    request_id: str
    scheduled: bool = False
    read_units: float = 0.0
    write_units: float = 0.0

    def is_over(self) -> bool:
        return time.monotonic() >= self.deadline

    def charge(self, answer: Mapping[str, Any], *, write: bool = False) -> None:
        consumed = answer.get("ConsumedCapacity") or []
        parts = consumed if isinstance(consumed, list) else [consumed]
        units = sum(part["CapacityUnits"] for part in parts)
        if write:
            self.write_units += units
        else:
            self.read_units += units


@dataclass(frozen=True, slots=True)
class Row:
    """An item of the tracking table, as it is stored and as plain values."""

    item: Item
    values: dict[str, Any]

    @classmethod
    def of(cls, item: Item) -> "Row":
        return cls(item, from_item(item))

    @property
    def date_prefix(self) -> str:
        return str(self.values["date_prefix"])

    @property
    def file_key(self) -> str:
        return str(self.values["file_key"])

    @property
    def key(self) -> Key:
        return {name: self.item[name] for name in ("date_prefix", "file_key")}

    @property
    def label(self) -> str:
        return label(self.date_prefix, self.file_key)

    @property
    def is_file(self) -> bool:
        return row_kind(self.date_prefix, self.file_key) is RowKind.FILE

    @property
    def status(self) -> FileStatus | None:
        return read_status(self.values.get("status"), NUM_STATUS_SHARDS)

    @property
    def manifest_path(self) -> str:
        return str(self.values.get("manifest_path") or "")

    @property
    def manifest_key(self) -> tuple[str, str] | None:
        """Key of its manifest's row, when it points to a manifest."""
        if not self.manifest_path.startswith("s3://"):
            return None
        return self.date_prefix, manifest_row_key(self.manifest_path)

    def since(self) -> float | None:
        """Since when it has been where it is; None when no time says so, or an unreadable one."""
        names = SINCE.get(self.status or FileStatus.PENDING, SINCE[FileStatus.PENDING])
        for name in names:
            if self.values.get(name) is not None:
                return self.time(name)
        return None

    def time(self, name: str) -> float | None:
        value = self.values.get(name)
        try:
            return None if value is None else read_time(value)
        except (ValueError, OverflowError):
            return None

    def unreadable_times(self) -> dict[str, Any]:
        """The times that are there and can't be read."""
        present = (name for name in TIMES if self.values.get(name) is not None)
        return {name: self.values[name] for name in present if self.time(name) is None}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What S3 says of a manifest: the URIs it lists, that it is missing, or neither."""

    listed: frozenset[str] = frozenset()
    missing: bool = False
    unknown: str | None = None

    def lists(self, file: Row) -> bool:
        path = file.values.get("file_path")
        if not path:
            names = {uri.rpartition("/")[2] for uri in self.listed}
            return not names.isdisjoint(spellings(file.file_key))
        known = spellings(str(path))
        return not self.listed.isdisjoint(known) or any(
            uri.endswith("/") and name.startswith(uri) for uri in self.listed for name in known
        )


@dataclass(slots=True)
class Manifests:
    """The manifests of the files looked at so far: objects by path, rows by key."""

    objects: dict[str, Manifest] = field(default_factory=dict)
    rows: dict[tuple[str, str], Row | None] = field(default_factory=dict)

    def row_of(self, file: Row) -> Row | None:
        return None if file.manifest_key is None else self.rows.get(file.manifest_key)


@dataclass(slots=True)
class Collected:
    """The parts of an answer's lists, and how large they have become."""

    lists: dict[str, list[Any]]
    size: int = 0

    def add(self, name: str, part: Any) -> None:
        self.lists.setdefault(name, []).append(part)
        self.size += answer_bytes(part)

    @property
    def is_full(self) -> bool:
        return self.size >= MAX_ANSWER_BYTES - PAGE_ROWS * 1024


def label(date_prefix: str, file_key: str) -> str:
    return f"{date_prefix}/{file_key}"


def spellings(text: str) -> set[str]:
    """A key as it is, and URL-decoded: events carry keys encoded."""
    return {text, unquote_plus(text)}


def answer_bytes(part: Any) -> int:
    """What a part adds to the answer: JSON text inside of JSON text."""
    return len(json.dumps(json.dumps(part))) + 1


def hours_since(then: float, now: float) -> float:
    return round((now - then) / HOUR, 2)


def next_day(day: str, days: int = 1) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def field_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    """Why these can't be stored beside the attributes of a row."""
    for name in fields:
        if name in PROTECTED:
            yield f"{name!r} can't be set"
    try:
        if len(json.dumps(fields, allow_nan=False).encode()) > 300 * 1024:
            yield "is larger than 300 KB"
        yield from value_problems("", fields, 0)
    except (ValueError, RecursionError) as error:
        yield f"is no JSON that can be stored ({error})"


def value_problems(path: str, value: Any, depth: int) -> Iterator[str]:
    """What DynamoDB would refuse about a JSON value."""
    if depth > MAX_DEPTH:
        yield f"{path} is nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, dict):
        for name, part in value.items():
            if not 0 < len(name.encode()) <= 255:
                yield f"a name under {path or 'it'!r} is empty or longer than 255 bytes"
            yield from value_problems(f"{path}.{name}".lstrip("."), part, depth + 1)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from value_problems(f"{path}[{index}]", part, depth + 1)
    elif isinstance(value, str):
        value.encode()
    elif not is_dynamodb_number(value):
        yield f"{path} is beyond DynamoDB's numbers"


def is_dynamodb_number(value: Any) -> bool:
    """Whether it is none of them, or one of at most 38 digits in range."""
    if isinstance(value, float):
        return value == 0 or 1e-130 <= abs(value) < 1e126
    return value is None or len(str(abs(value)).rstrip("0")) <= 38 and abs(value) < 10**126


def problems_of(error: ValidationError) -> Problems:
    """Each problem with its field: `files[2].new_status`."""
    problems = []
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        path = ""
        for part in found["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        message = found["msg"].removeprefix("Value error, ")
        if named := re.match(r"(reason|files|start) ", message):
            path += f".{named[1]}"
            message = message.removeprefix(named[0])
        name = path.lstrip(".") or "request"
        problems.append({"field": name, "message": f"{name}: {message}"})
    return problems


def seal(operation: str, request: Paged, position: Position) -> str:
    """A position as an opaque token of this operation and these parameters."""
    payload = zlib.compress(json.dumps(position, separators=(",", ":")).encode())
    return base64.urlsafe_b64encode(_mac(operation, request, payload) + payload).decode()


def unseal(operation: str, request: Paged) -> Position | None:
    """The position in a request's token; 400 unless we made it for the same question."""
    if request.next_token is None:
        return None
    try:
        token = base64.b64decode(request.next_token, altchars=b"-_", validate=True)
    except ValueError:
        token = b""
    mac, payload = token[:16], token[16:]
    if not hmac.compare_digest(mac, _mac(operation, request, payload)):
        problem = "next_token: is not one of ours, or belongs to another question"
        raise RefusedError(400, "1 problem", problems=[{"field": "next_token", "message": problem}])
    position: Position = json.loads(zlib.decompress(payload))
    return position


def _mac(operation: str, request: Paged, payload: bytes) -> bytes:
    question = request.model_dump(mode="json", exclude={"next_token", "limit"})
    text = json.dumps([operation, question], sort_keys=True).encode()
    key = hmac.digest(PAGING_SECRET, b"state-manager next_token", "sha256")
    return hmac.digest(key, hashlib.sha256(text).digest() + payload, "sha256")[:16]


def may_become(old: FileStatus | None, new: FileStatus) -> bool:
    """Whether the pipeline itself would make this step."""
    if new is FileStatus.QUARANTINED:
        return old is not FileStatus.QUARANTINED
    return old is not None and new in ALLOWED.get(old, ())


def finding(file: Row, now: float, **more: Any) -> Body:
    """A file of a list of orphans."""
    since = file.since()
    found: Body = {
        "date_prefix": file.date_prefix,
        "file_key": file.file_key,
        "status": file.values.get("status"),
        "hours_stuck": None if since is None else hours_since(since, now),
        "since": None if since is None else iso_time(since),
    }
    if file.manifest_path:
        found["manifest_path"] = file.manifest_path
    return found | more


def orphan_kind(file: Row, manifests: Manifests, now: float, hours: float) -> str | None:
    """The most telling kind of a file in flight; None when it may still come to its end."""
    since = file.since()
    if since is None:
        return None
    age = now - since
    if file.manifest_path.startswith(CLAIM_PLACEHOLDER):
        return "abandoned_claims" if age > ABANDONED_CLAIM_MINUTES * 60 else None
    if file.status is not FileStatus.PENDING and file.manifest_key is not None:
        manifest = manifests.objects.get(file.manifest_path, Manifest())
        if not (manifest.missing or manifest.unknown or manifest.lists(file)):
            return "not_in_manifest"
        if has_lagged(manifests.row_of(file), now):
            return "lagging_files"
        if manifest.missing:
            expired = now - claimed_at(file) > MANIFEST_LIFECYCLE_DAYS * DAY
            return "expired_manifests" if expired else "missing_manifests"
    return STUCK_KINDS[file.status or FileStatus.PENDING] if age > hours * HOUR else None


def has_lagged(manifest: Row | None, now: float) -> bool:
    """Whether a manifest was completed so long ago that its files should be, too."""
    if manifest is None or manifest.values.get("status") != FileStatus.COMPLETED:
        return False
    ended = manifest.time("completed_time") or manifest.time("updated_at")
    return ended is None or now - ended > ABANDONED_CLAIM_MINUTES * 60


def no_reset_because(file: Row, manifest: Row | None, now: float, hours: float) -> str | None:
    """Why a stuck file must stay as it is."""
    if manifest is None:
        return None
    status = manifest.values.get("status")
    if status == FileStatus.COMPLETED:
        return "its manifest is completed: the data is in the output"
    if status not in UNDER_WAY:
        return None
    times = ("processing_start_time", "updated_at", "created_at")
    begun = next((manifest.time(name) for name in times if manifest.values.get(name)), None)
    if begun is None:
        return f"its manifest is {status}, nobody knows since when"
    return f"its manifest is still {status}" if now - begun <= hours * HOUR else None


def is_stale_lock(lock: Row, now: float) -> bool:
    expires = lock.time("ttl")
    return expires is None or expires < now


def gaps(days: Collection[str]) -> list[tuple[str | None, str | None]]:
    """The ranges of dates, both ends included, in which none of the days lies."""
    known = sorted(days)
    if not known:
        return [(None, None)]
    between = [
        (next_day(one), next_day(other, -1))
        for one, other in zip(known, known[1:], strict=False)
        if next_day(one) < other
    ]
    return [(None, next_day(known[0], -1)), *between, (next_day(known[-1]), None)]


def counted_change(record: Mapping[str, Any]) -> Counter[str]:
    """What a record of the stream changes in the number of files by status."""
    change: Counter[str] = Counter()
    images = record["dynamodb"]
    keys = from_item(images["Keys"])
    if row_kind(keys["date_prefix"], keys["file_key"]) is not RowKind.FILE:
        return change
    for image, number in (("OldImage", -1), ("NewImage", 1)):
        stored = images.get(image, {}).get("status", {}).get("S")
        status = read_status(stored, NUM_STATUS_SHARDS)
        if status is not None:
            change[status] += number
    return Counter({status: number for status, number in change.items() if number})


def by_status(counts: Mapping[str, int]) -> dict[str, int]:
    """All six statuses, in the order of the pipeline."""
    return {status.value: counts.get(status, 0) for status in FileStatus}


def query(
    run: Run, condition: str, values: Mapping[str, Any], **parameters: Any
) -> tuple[list[Item], Key | None, int]:
    """A page of the tracking table: its items, where the next begins, how many there were."""
    parameters = {name: value for name, value in parameters.items() if value is not None}
    answer = dynamodb.query(
        TableName=TRACKING_TABLE,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=to_item(values),
        ReturnConsumedCapacity="TOTAL",
        **parameters,
    )
    run.charge(answer)
    return answer.get("Items", []), answer.get("LastEvaluatedKey"), answer["Count"]


def date_page(
    run: Run, day: str, start: Key | None, limit: int, attributes: Sequence[str] | None = None
) -> tuple[list[Row], Key | None]:
    """A page of the rows of a date."""
    names = {f"#{index}": name for index, name in enumerate(attributes or ())}
    items, last, _ = query(
        run,
        "date_prefix = :date",
        {":date": day},
        ConsistentRead=True,
        ExclusiveStartKey=start,
        Limit=limit,
        ProjectionExpression=", ".join(names) or None,
        ExpressionAttributeNames=names or None,
    )
    return [Row.of(item) for item in items], last


def status_page(
    run: Run,
    stored: str,
    start: Key | None,
    dates: tuple[str | None, str | None] = (None, None),
    **parameters: Any,
) -> tuple[list[Item], Key | None, int]:
    """A page of one stored status, oldest date first; the dates are part of the key condition."""
    first, last = dates
    condition, values = "#status = :status", {":status": stored}
    if first is not None and last is not None:
        condition += " AND date_prefix BETWEEN :first AND :last"
    elif first is not None:
        condition += " AND date_prefix >= :first"
    elif last is not None:
        condition += " AND date_prefix <= :last"
    values |= {name: day for name, day in ((":first", first), (":last", last)) if day is not None}
    return query(
        run,
        condition,
        values,
        IndexName=STATUS_INDEX,
        ExclusiveStartKey=start,
        ExpressionAttributeNames={"#status": "status", **parameters.pop("names", {})},
        **parameters,
    )


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
        raise RefusedError(404, f"there is no file {label(date_prefix, file_key)}")
    return Row.of(answer["Item"])


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
        for item in answer["Responses"].get(TRACKING_TABLE, []):
            row = Row.of(item)
            found[row.date_prefix, row.file_key] = row
        left = answer.get("UnprocessedKeys", {}).get(TRACKING_TABLE, {}).get("Keys", [])
        if left:
            waiting += left
            attempt += 1
            pause(attempt)
    return found


def pause(attempt: int) -> None:
    """Wait before another attempt: longer each time, and never two callers alike."""
    time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311 - not a secret


def read_manifest(path: str) -> Manifest:
    """What a manifest lists; missing only when S3 says that there is no such key."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > MAX_MANIFEST_BYTES:
            return Manifest(unknown="the manifest is larger than 8 MB")
        content = json.loads(answer["Body"].read())
        locations = content["fileLocations"]
        uris = [uri for location in locations for uri in location["URIPrefixes"]]
        return Manifest(frozenset(name for uri in uris for name in spellings(uri)))
    except s3.exceptions.NoSuchKey:
        return Manifest(missing=True)
    except (ClientError, BotoCoreError) as error:
        return Manifest(unknown=refusal(error))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return Manifest(unknown="the manifest is not JSON with fileLocations[].URIPrefixes[]")


def refusal(error: ClientError | BotoCoreError) -> str:
    """What an operator needs to know of a failed call."""
    if isinstance(error, ClientError):
        return f"S3 answered {error.response.get('Error', {}).get('Code', 'an error')}"
    return f"S3 did not answer ({type(error).__name__})"


def list_objects(run: Run, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """The objects under a prefix, decoded; TimeoutError when the run's time does not suffice."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", [])
        if page.get("IsTruncated") and run.is_over():
            raise TimeoutError


def dates_with_output(run: Run) -> set[str]:
    """The dates under whose output prefix something lies."""
    prefix = f"{OUTPUT_PREFIX}merged-parquet-"
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=OUTPUT_BUCKET, Prefix=prefix, Delimiter="/"
    )
    found = set()
    for page in pages:
        for common in page.get("CommonPrefixes", []):
            day = common["Prefix"].removeprefix(prefix).rstrip("/")
            try:
                found.add(_date(day))
            except ValueError:
                continue
        if page.get("IsTruncated") and run.is_over():
            raise TimeoutError
    return found


def look_up_manifests(run: Run, files: Iterable[Row], known: Manifests, *, objects: bool) -> None:
    """Read what is not yet known of the manifests that files point to."""
    pointing = [file for file in files if file.manifest_key is not None]
    keys = {file.manifest_key for file in pointing if file.manifest_key} - known.rows.keys()
    known.rows |= dict.fromkeys(keys, None) | get_rows(run, keys)
    paths = {file.manifest_path for file in pointing} - known.objects.keys() if objects else set()
    if paths:
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            known.objects |= dict(zip(paths, pool.map(read_manifest, paths), strict=True))


def change_row(
    run: Run,
    row: Row,
    status: FileStatus,
    *,
    reason: str | None,
    changed_by: str,
    fields: Mapping[str, Any],
    removed: Sequence[str] = (),
) -> Row | None:
    """Write a status and its audit trail, if the row is still what was read; None if it is not.

    404 when it is gone.
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
    names = {f"#{index}": name for index, name in enumerate([*new, *removed])}
    places = {name: place for place, name in names.items()}
    values = {f":{places[name][1:]}": to_value(value) for name, value in new.items()}
    conditions = []
    for name in ("status", "updated_at"):
        if name in row.item:
            values[f":seen_{name}"] = row.item[name]
            conditions.append(f"{places[name]} = :seen_{name}")
        else:
            conditions.append(f"attribute_not_exists({places[name]})")
    expression = "SET " + ", ".join(f"{places[name]} = :{places[name][1:]}" for name in new)
    if removed:
        expression += " REMOVE " + ", ".join(places[name] for name in removed)
    try:
        answer = dynamodb.update_item(
            TableName=TRACKING_TABLE,
            Key=row.key,
            UpdateExpression=expression,
            ConditionExpression="attribute_exists(date_prefix) AND " + " AND ".join(conditions),
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ReturnConsumedCapacity="TOTAL",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        if "Item" not in error.response:
            raise RefusedError(404, f"there is no file {row.label} any more") from error
        return None
    except ClientError as error:
        # The request was checked; what is left is the item's size together with what it holds.
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        problem = "additional_fields: the file's row would be larger than 400 KB"
        raise RefusedError(
            400, "1 problem", problems=[{"field": "additional_fields", "message": problem}]
        ) from error
    run.charge(answer, write=True)
    return Row.of(answer["Attributes"])


def apply_change(run: Run, change: FileChange) -> tuple[str | None, Row]:
    """One file's change: the stored status before, and the row after."""
    row = get_row(run, change.date_prefix, change.file_key)
    current = row.values.get("status")
    if change.expected_status is not None and row.status is not change.expected_status:
        raise RefusedError(
            409,
            f"{row.label} is {current}, not {change.expected_status.value}",
            current_status=current,
        )
    if not (change.force or may_become(row.status, change.new_status)):
        raise RefusedError(
            409,
            f"{row.label} can't go from {current} to {change.new_status.value}"
            " without force and a reason",
            current_status=current,
        )
    changed = change_row(
        run,
        row,
        change.new_status,
        reason=change.reason,
        changed_by=change.changed_by or f"state-manager {run.request_id}",
        fields=change.additional_fields,
    )
    if changed is None:
        raise RefusedError(409, f"{row.label} was changed by someone else; nothing was written")
    telemetry.info(
        "status changed",
        file=row.label,
        old_status=current,
        new_status=changed.values["status"],
        forced=change.force,
        reason=change.reason,
        changed_by=changed.values["last_changed_by"],
    )
    return current, changed


def counters(run: Run) -> Counter[str]:
    """The counted files by status, and under `changes` how many changes were counted."""
    answer = dynamodb.query(
        TableName=METRICS_TABLE,
        KeyConditionExpression="metric_type = :counters",
        ExpressionAttributeValues=to_item({":counters": COUNTERS}),
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    run.charge(answer)
    total: Counter[str] = Counter()
    for item in answer["Items"]:
        row = from_item(item)
        total.update({name: row[name] for name in (*FileStatus, "changes") if name in row})
    return total


def counter_update(shard: int, change: Mapping[str, int]) -> dict[str, Any]:
    """The UpdateItem that adds a change to one of the counters' rows."""
    names = {f"#{index}": name for index, name in enumerate(change)}
    return {
        "TableName": METRICS_TABLE,
        "Key": to_item({"metric_type": COUNTERS, "timestamp": shard}),
        "UpdateExpression": "ADD " + ", ".join(f"{place} :{place[1:]}" for place in names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {
            f":{place[1:]}": to_value(change[name]) for place, name in names.items()
        },
    }


def count(changes: dict[str, Counter[str]], now: float) -> int:
    """Add changes, by event id, to the counters: each once, however often its record comes."""
    attempt = 0
    while changes:
        total: Counter[str] = Counter({"changes": len(changes)})
        for change in changes.values():
            total.update(change)
        # Rows enough that the shards of the stream seldom meet at one.
        shard = zlib.crc32(next(iter(changes)).encode()) % COUNTER_SHARDS
        marks = [
            {
                "TableName": METRICS_TABLE,
                "Item": to_item(
                    {
                        "metric_type": f"counted#{event_id}",
                        "timestamp": 0,
                        "ttl": int(now) + COUNTED_TTL_SECONDS,
                    }
                ),
                "ConditionExpression": "attribute_not_exists(metric_type)",
            }
            for event_id in changes
        ]
        try:
            dynamodb.transact_write_items(
                TransactItems=[
                    {"Update": counter_update(shard, total)},
                    *({"Put": mark} for mark in marks),
                ]
            )
        except dynamodb.exceptions.TransactionCanceledException as error:
            reasons = [reason.get("Code") for reason in error.response["CancellationReasons"]]
            counted = [
                event_id
                for event_id, reason in zip(changes, reasons[1:], strict=True)
                if reason == "ConditionalCheckFailed"
            ]
            attempt += 1
            if not counted and attempt >= CONFLICT_ATTEMPTS:
                raise
            for event_id in counted:
                del changes[event_id]
            if not counted:
                pause(attempt)
        else:
            return len(changes)
    return 0


def count_changes(records: Sequence[Mapping[str, Any]], now: float) -> None:
    """Keep the counters: what a batch of the stream changed."""
    changes = {record["eventID"]: counted_change(record) for record in records}
    changes = {event_id: change for event_id, change in changes.items() if change}
    ids = list(changes)
    counted = 0
    for start in range(0, len(ids), COUNTED_PER_TRANSACTION):
        part = ids[start : start + COUNTED_PER_TRANSACTION]
        counted += count({event_id: changes[event_id] for event_id in part}, now)
    telemetry.debug("changes counted", records=len(records), counted=counted)


type Operation = Callable[[Any, Run], tuple[int, Body]]

OPERATIONS: dict[str, tuple[type[Request], Operation]] = {}


def operation(request: type[Request]) -> Callable[[Operation], Operation]:
    """Register an operation under its function's name."""

    def register(function: Operation) -> Operation:
        OPERATIONS[function.__name__] = request, function
        return function

    return register


@operation(GetFileState)
def get_file_state(request: GetFileState, run: Run) -> tuple[int, Body]:
    """A row of any kind by its key, or a page of the files of a date, by name."""
    if request.file_key is not None:
        return 200, {"file": get_row(run, request.date_prefix, request.file_key).values}
    start = unseal("get_file_state", request)
    files = Collected({"files": []})
    while True:
        wanted = request.limit - len(files.lists["files"])
        rows, start = date_page(run, request.date_prefix, start, wanted)
        for row in rows:
            if row.is_file:
                files.add("files", row.values)
            if files.is_full:
                start = row.key
                break
        done = len(files.lists["files"]) == request.limit or files.is_full or run.is_over()
        if start is None or done:
            break
    listed = files.lists["files"]
    return 200, {
        "count": len(listed),
        "files": listed,
        **continued("get_file_state", request, start, cut=len(listed) < request.limit),
    }


def continued(name: str, request: Paged, position: Position | None, *, cut: bool = True) -> Body:
    """How an answer goes on: `next_token`, and `truncated` if it is shorter than asked for."""
    if position is None:
        return {}
    more: Body = {"next_token": seal(name, request, position)}
    return {"truncated": True, **more} if cut else more


def walk[S](
    steps: Sequence[S],
    pages: Callable[[S, Key | None], Iterator[Key | None]],
    position: Position,
    must_stop: Callable[[], bool],
) -> Position | None:
    """Go through steps, page by page, from a position on; where to go on if it had to stop.

    `pages` yields, after each page of a step, where its next one begins; None after the last.
    """
    start = position.get("start")
    for index in range(position.get("index", 0), len(steps)):
        for start in pages(steps[index], start):  # noqa: B020 - a page's end is the next one's start
            if must_stop() and (start is not None or index + 1 < len(steps)):
                return {"index": index + (start is None), "start": start}
    return None


class Lane:
    """The files of one stored status, oldest date first, read a little at a time."""

    def __init__(self, stored: str, after: list[str] | None) -> None:
        self.stored = stored
        self.after = after
        self.rows: deque[Row] = deque()
        self.start: Key | None = None
        if after is not None:
            last = {"status": stored, "date_prefix": after[0], "file_key": after[1]}
            self.start = to_item(last)
        self.more = True

    def fill(self, run: Run, dates: tuple[str | None, str | None], number: int) -> None:
        """Read until there is a file, or the end."""
        while self.more and not self.rows:
            items, self.start, _ = status_page(run, self.stored, self.start, dates, Limit=number)
            self.more = self.start is not None
            self.rows.extend(row for row in map(Row.of, items) if row.is_file)

    def take(self) -> Row:
        row = self.rows.popleft()
        self.after = [row.date_prefix, row.file_key]
        return row

    @property
    def position(self) -> list[str] | int | None:
        """Where to go on: after a key, at the beginning (None), or nowhere (0)."""
        return self.after if self.rows or self.more else 0


@operation(QueryByStatus)
def query_by_status(request: QueryByStatus, run: Run) -> tuple[int, Body]:
    """A page of the files of a status over all its shards, oldest date first.

    A shard is read no further than its share of the page needs; the token holds the place in each.
    """
    places = unseal("query_by_status", request) or {}
    stored = stored_statuses(request.status, NUM_STATUS_SHARDS)
    lanes = [Lane(value, places.get(value)) for value in stored if places.get(value) != 0]
    span = (
        (None, None)
        if request.date_range is None
        else (request.date_range.start, request.date_range.end)
    )
    share = math.ceil(request.limit / max(len(lanes), 1)) + 1
    with ThreadPoolExecutor(max(len(lanes), 1)) as pool:
        list(pool.map(lambda lane: lane.fill(run, span, share), lanes))
    files = Collected({"files": []})
    listed = files.lists["files"]
    while len(listed) < request.limit and not (files.is_full or run.is_over()):
        waiting = [lane for lane in lanes if lane.rows]
        if not waiting:
            break
        lane = min(waiting, key=lambda lane: lane.rows[0].date_prefix)
        files.add("files", lane.take().values)
        lane.fill(run, span, share)
    position = {value: 0 for value in stored} | {lane.stored: lane.position for lane in lanes}
    ended = all(place == 0 for place in position.values())
    return 200, {
        "status": request.status.value,
        "count": len(listed),
        "files": listed,
        **continued(
            "query_by_status",
            request,
            None if ended else position,
            cut=len(listed) < request.limit,
        ),
    }


@operation(GetStats)
def get_stats(request: GetStats, run: Run) -> tuple[int, Body]:
    """Files by status.

    Of a date: counted. Of all: from the counters, whose cost does not depend on the table; with
    `exact` also counted, and the counters are corrected if nothing moved meanwhile.
    """
    position = unseal("get_stats", request)
    if request.date_prefix is None and not request.exact:
        return 200, stats(counters(run), run.now, "counters")
    if request.date_prefix is not None:
        counts, place = count_date(run, request.date_prefix, position)
    else:
        position = position or {"before": counters(run)}
        counts, place = count_all(run, position)
    body = stats(counts, run.now, "count")
    if place is not None:
        return 200, body | continued("get_stats", request, place)
    if request.date_prefix is None and position is not None:
        body |= reconcile(run, Counter(counts), Counter(position["before"]))
    return 200, body


def stats(counts: Mapping[str, int], now: float, source: str) -> Body:
    by_name = by_status(counts)
    return {
        "stats": by_name,
        "total": sum(by_name.values()),
        "timestamp": iso_time(now),
        "source": source,
    }


def count_date(
    run: Run, day: str, position: Position | None
) -> tuple[Mapping[str, int], Position | None]:
    """The files of a date by status, and where to go on if time ran out."""
    counts = Counter[str]((position or {}).get("counts"))
    start = (position or {}).get("start")
    while True:
        rows, start = date_page(run, day, start, PAGE_ROWS, ("date_prefix", "file_key", "status"))
        counts.update(row.status for row in rows if row.is_file and row.status is not None)
        if start is None:
            return counts, None
        if run.is_over():
            return counts, {"counts": counts, "start": start}


def count_all(run: Run, position: Position) -> tuple[Mapping[str, int], Position | None]:
    """All files by status, through the index, and where to go on if time ran out."""
    counts = Counter[str](position.get("counts"))

    def pages(step: tuple[FileStatus, str], start: Key | None) -> Iterator[Key | None]:
        status, stored = step
        while True:
            if stored == status:  # the plain value is the manifests', too
                items, start, _ = status_page(
                    run, stored, start, ProjectionExpression="date_prefix, file_key"
                )
                number = sum(Row.of(item).is_file for item in items)
            else:
                _, start, number = status_page(run, stored, start, Select="COUNT")
            counts[status] += number
            yield start
            if start is None:
                return

    steps = [
        (status, stored)
        for status in FileStatus
        for stored in stored_statuses(status, NUM_STATUS_SHARDS)
    ]
    place = walk(steps, pages, position, run.is_over)
    return counts, place and position | place | {"counts": counts}


def reconcile(run: Run, exact: Counter[str], before: Counter[str]) -> Body:
    """How far the counters are off, and their correction.

    Only when no change was counted from before the count to some seconds after it: a change whose
    record is still on its way would be counted twice.
    """
    time.sleep(min(SETTLE_SECONDS, max(0.0, run.deadline - time.monotonic())))
    counted = counters(run)
    drift = {str(status): exact[status] - counted[status] for status in FileStatus}
    body: Body = {
        "counters": by_status(counted),
        "drift": by_status(drift),
        "reconciled": False,
    }
    if counted["changes"] != before["changes"]:
        return body | {"reason": "files changed while they were counted; repeat it later"}
    if any(drift.values()):
        # One row takes it all; `changes` tells a reconciliation at the same time.
        correction = {name: number for name, number in drift.items() if number} | {"changes": 1}
        answer = dynamodb.update_item(
            **counter_update(0, correction), ReturnConsumedCapacity="TOTAL"
        )
        run.charge(answer, write=True)
        telemetry.warning("counters corrected", drift=body["drift"])
    telemetry.metric("CountersDrift", sum(map(abs, drift.values())))
    return body | {"reconciled": True}


@operation(GetProcessingTimeline)
def get_processing_timeline(request: GetProcessingTimeline, run: Run) -> tuple[int, Body]:
    """What happened to a file; times that it lacks are taken from its manifest's row."""
    file = get_row(run, request.date_prefix, request.file_key)
    key = file.manifest_key
    manifest = None if key is None else get_rows(run, [key]).get(key)
    events, anomalies = timeline(file, manifest)
    durations = {
        f"{one['event']}_to_{other['event']}": seconds(one, other)
        for one, other in zip(events, events[1:], strict=False)
    }
    return 200, {
        "file": file.label,
        "current_status": None if file.status is None else file.status.value,
        "timeline": [{**event, "timestamp": iso_time(event["timestamp"])} for event in events],
        "durations_seconds": durations,
        "total_processing_time": seconds(events[0], events[-1]) if events else None,
        **({"anomalies": anomalies} if anomalies else {}),
    }


def seconds(one: Body, other: Body) -> float:
    return round(float(other["timestamp"] - one["timestamp"]), 3)


def timeline(file: Row, manifest: Row | None) -> tuple[list[Body], list[Body]]:
    """Events in order of time (epoch seconds), and what about them can't be right."""
    anomalies: list[Body] = []
    events: dict[str, Body] = {}
    rows = [file] if manifest is None else [file, manifest]
    for row in rows:
        unreadable = row.unreadable_times()
        anomalies += [
            {"type": "unreadable_time", "attribute": name, "value": value, "row": row.file_key}
            for name, value in unreadable.items()
        ]
    for name, (event, status) in EVENTS.items():
        when, source = file.time(name), "file"
        if when is None and manifest is not None and event not in events and event != "uploaded":
            own = "created_at" if event == "manifested" else name
            reached = event in {"manifested", "processing_started"} or file.status is status
            when, source = (manifest.time(own) if reached else None), "manifest"
        if when is not None and event not in events:
            events[event] = {"event": event, "timestamp": when, "status": status.value}
            if source == "manifest":
                events[event]["source"] = "manifest"
    changed = file.time("updated_at")
    if changed is not None and file.status in {FileStatus.FAILED, FileStatus.QUARANTINED}:
        events.setdefault(
            file.status.value,
            {"event": file.status.value, "timestamp": changed, "status": file.status.value},
        )
    if "failed" in events and file.values.get("error_message"):
        events["failed"]["error"] = file.values["error_message"]
    ordered = sorted(events.values(), key=lambda event: event["timestamp"])
    expected = [name for name in dict.fromkeys(event for event, _ in EVENTS.values())]
    steps = [event["event"] for event in ordered if event["event"] in expected]
    if steps != sorted(steps, key=expected.index):
        anomalies.append({"type": "out_of_order", "events": steps})
    reset = file.time("last_reset_time")
    if reset is not None:
        resets = file.values.get("reset_count")
        ordered.append(
            {"event": "reset", "timestamp": reset, "status": "pending", "reset_count": resets}
        )
        ordered.sort(key=lambda event: event["timestamp"])
    return ordered, anomalies


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the search that reads one stored status, or the locks."""

    phase: Literal["in_flight", "outputs", "locks"]
    stored: str = ""


def orphan_steps() -> list[Step]:
    """The whole search, in its order."""
    return [
        *(
            Step("in_flight", stored)
            for status in IN_FLIGHT
            for stored in stored_statuses(status, NUM_STATUS_SHARDS)
        ),
        *(Step("outputs", v) for v in stored_statuses(FileStatus.COMPLETED, NUM_STATUS_SHARDS)),
        Step("locks"),
    ]


class Search:
    """One search for orphans: what it has found, what it knows, since when it goes on."""

    def __init__(self, run: Run, hours: float, began: float) -> None:
        self.run, self.hours, self.began = run, hours, began
        self.found = Collected({kind: [] for kind in ALWAYS_PRESENT})
        self.unknown: list[Body] = []
        self.oldest_pending: float | None = None
        self._manifests = Manifests()
        self._gaps: list[tuple[str | None, str | None]] | None = None

    def pages(self, step: Step, start: Key | None) -> Iterator[Key | None]:
        """Look at a step page by page; where the next page begins, after each."""
        match step.phase:
            case "in_flight":
                while True:
                    items, start, _ = status_page(self.run, step.stored, start, Limit=PAGE_ROWS)
                    self._look_at_files([row for row in map(Row.of, items) if row.is_file])
                    yield start
                    if start is None:
                        return
            case "outputs":
                yield from self._look_for_outputs(step.stored, start)
            case "locks":
                yield from self._look_at_locks(start)

    def _look_at_files(self, files: list[Row]) -> None:
        claimed = [file for file in files if file.status is not FileStatus.PENDING]
        look_up_manifests(self.run, claimed, self._manifests, objects=True)
        for file in files:
            if unreadable := file.unreadable_times():
                self.found.add("unreadable_times", finding(file, self.began, attributes=unreadable))
            if file.status is FileStatus.PENDING and (since := file.since()) is not None:
                self.oldest_pending = min(since, self.oldest_pending or since)
            manifest = self._manifests.objects.get(file.manifest_path)
            if file.status is not FileStatus.PENDING and manifest and manifest.unknown:
                self._add_unknown(finding(file, self.began, reason=manifest.unknown))
            kind = orphan_kind(file, self._manifests, self.began, self.hours)
            if kind is not None:
                self.found.add(kind, finding(file, self.began))

    def _look_for_outputs(self, stored: str, start: Key | None) -> Iterator[Key | None]:
        if self._gaps is None:
            try:
                self._gaps = gaps(dates_with_output(self.run))
            except TimeoutError:
                self._gaps = []
                self._add_unknown({"subject": "outputs", "reason": "the listing took too long"})
            except (ClientError, BotoCoreError) as error:
                self._gaps = []
                self._add_unknown({"subject": "outputs", "reason": refusal(error)})
        reached = start and start["date_prefix"]["S"]
        for first, last in self._gaps:
            if reached and last and last < reached:
                continue
            inside = reached and (first is None or first <= reached)
            place = start if inside else None
            while True:
                items, place, _ = status_page(
                    self.run, stored, place, (first, last), Limit=PAGE_ROWS
                )
                for file in (row for row in map(Row.of, items) if row.is_file):
                    prefix = f"s3://{OUTPUT_BUCKET}/{OUTPUT_PREFIX}merged-parquet-"
                    output = f"{prefix}{file.date_prefix}/"
                    self.found.add(
                        "missing_outputs", finding(file, self.began, output_prefix=output)
                    )
                if place is None:
                    break
                yield place
        yield None

    def _look_at_locks(self, start: Key | None) -> Iterator[Key | None]:
        while True:
            answer = dynamodb.scan(
                TableName=TRACKING_TABLE,
                IndexName=LOCK_INDEX,
                ReturnConsumedCapacity="TOTAL",
                **({} if start is None else {"ExclusiveStartKey": start}),
            )
            self.run.charge(answer)
            for lock in map(Row.of, answer["Items"]):
                if is_stale_lock(lock, self.began):
                    self.found.add("stale_locks", lock.values)
            start = answer.get("LastEvaluatedKey")
            yield start
            if start is None:
                return

    def _add_unknown(self, what: Body) -> None:
        self.unknown.append(what)
        self.found.size += answer_bytes(what)


@operation(FindOrphans)
def find_orphans(request: FindOrphans, run: Run) -> tuple[int, Body]:
    """Files that no one will end: read from the statuses in flight, the dates without output and
    the locks, never from the whole table.
    """
    position = unseal("find_orphans", request) or {"began": run.now}
    search = Search(run, request.max_processing_hours, position["began"])
    place = walk(
        orphan_steps(), search.pages, position, lambda: search.found.is_full or run.is_over()
    )
    orphans = search.found.lists
    total = sum(map(len, orphans.values()))
    oldest = search.oldest_pending
    return 200, {
        "total_orphans": total,
        "orphans": orphans,
        "unknown": search.unknown,
        "oldest_pending_age_seconds": None if oldest is None else round(search.began - oldest),
        **continued("find_orphans", request, place and position | place),
    }


@operation(ResetStuckFiles)
def reset_stuck_files(request: ResetStuckFiles, run: Run) -> tuple[int, Body]:
    """Back to pending with files that have been where they are for too long.

    Each write is conditional on what was read: a file that came to its end meanwhile is skipped.
    """
    position = unseal("reset_stuck_files", request) or {"began": run.now}
    began, hours = position["began"], request.max_processing_hours
    done = Collected({"stuck_files": [], "skipped": []})
    outcomes: Counter[str] = Counter()
    manifests = Manifests()

    def pages(stored: str, start: Key | None) -> Iterator[Key | None]:
        while True:
            items, start, _ = status_page(run, stored, start, Limit=PAGE_ROWS)
            files = [row for row in map(Row.of, items) if row.is_file]
            stuck = [file for file in files if is_stuck(file, began, hours)]
            look_up_manifests(run, stuck, manifests, objects=False)
            for file in files:
                if file.since() is None:
                    skip(done, file, "no time says since when, or it can't be read")
                elif is_stuck(file, began, hours):
                    outcomes[reset(run, file, manifests, request, began, done)] += 1
                if run.is_over():
                    yield {**file.key, "status": to_value(stored)}
            yield start
            if start is None:
                return

    steps = [
        stored
        for status in FileStatus
        if status in request.statuses
        for stored in stored_statuses(status, NUM_STATUS_SHARDS)
    ]
    place = walk(steps, pages, position, lambda: done.is_full or run.is_over())
    if not request.dry_run:
        telemetry.metric("FilesReset", outcomes["reset"])
    return 200, {
        "dry_run": request.dry_run,
        "stuck_files_found": outcomes.total(),
        "files_reset": outcomes["reset"],
        "files_failed": outcomes["fail"],
        **done.lists,
        **continued("reset_stuck_files", request, place and position | place),
    }


def is_stuck(file: Row, now: float, hours: float) -> bool:
    since = file.since()
    return since is not None and now - since > hours * HOUR


def skip(done: Collected, file: Row, reason: str) -> str:
    done.add("skipped", {"file": file.label, "reason": reason})
    return "skipped"


def reset(
    run: Run,
    file: Row,
    manifests: Manifests,
    request: ResetStuckFiles,
    now: float,
    done: Collected,
) -> str:
    """Reset one stuck file, or say why not: `reset`, `fail`, `planned` or `skipped`."""
    hours = request.max_processing_hours
    refused = no_reset_because(file, manifests.row_of(file), now, hours)
    resets = file.values.get("reset_count")
    resets = resets if isinstance(resets, int) else 0
    action = "fail" if resets >= MAX_RESETS else "reset"
    planned = finding(file, now, reset_count=resets, action=action)
    if refused is not None:
        return skip(done, file, refused)
    if request.dry_run:
        done.add("stuck_files", planned)
        return "planned"
    reason = request.reason or f"stuck for {planned['hours_stuck']} hours"
    fields = {"reset_count": resets + 1, "last_reset_time": iso_time(run.now)}
    if action == "fail":
        fields = {
            "failed_time": iso_time(run.now),
            "error_message": f"stuck again after {resets} resets",
        }
    try:
        changed = change_row(
            run,
            file,
            FileStatus.FAILED if action == "fail" else FileStatus.PENDING,
            reason=reason,
            changed_by=f"state-manager {run.request_id}",
            fields=fields,
            # With them a run that is late could complete a file that was reset.
            removed=("manifest_path", "glue_job_run_id"),
        )
    except RefusedError as gone:
        return skip(done, file, str(gone))
    except (ClientError, BotoCoreError) as error:
        telemetry.exception("file was not reset", error, file=file.label)
        return skip(done, file, "the write failed; see the log")
    if changed is None:
        return skip(done, file, "it was changed meanwhile")
    done.add("stuck_files", planned | {"reset_count": changed.values.get("reset_count", resets)})
    return action


def claimed_at(file: Row) -> float:
    """About when a file was put into its manifest."""
    return file.time("manifest_time") or file.since() or 0.0


@dataclass(slots=True)
class Listings:
    """What the buckets hold of a date; None where S3 did not say it all."""

    inputs: dict[str, list[dict[str, Any]]] | None
    outputs: set[str] | None
    quarantined: set[str] | None
    unknown: list[Body]


def list_date(run: Run, day: str) -> Listings:
    """List a date's input, output and quarantine."""
    listings = Listings(None, None, None, [])

    def listed(subject: str, bucket: str, prefix: str) -> list[dict[str, Any]] | None:
        try:
            return list(list_objects(run, bucket, prefix))
        except TimeoutError:
            listings.unknown.append({"subject": subject, "reason": "the listing took too long"})
        except (ClientError, BotoCoreError) as error:
            listings.unknown.append({"subject": subject, "reason": refusal(error)})
        return None

    inputs = listed("input", INPUT_BUCKET, f"{INPUT_PREFIX}{day}/")
    if inputs is not None:
        listings.inputs = {}
        for found in inputs:
            name = found["Key"].rpartition("/")[2]
            if name.endswith(FILE_SUFFIX):
                listings.inputs.setdefault(name, []).append(found)
    outputs = listed("output", OUTPUT_BUCKET, f"{OUTPUT_PREFIX}merged-parquet-{day}/")
    listings.outputs = None if outputs is None else {found["Key"] for found in outputs}
    quarantined = listed("quarantine", QUARANTINE_BUCKET, f"{QUARANTINE_PREFIX}{day}/")
    if quarantined is not None:
        listings.quarantined = {found["Key"].rpartition("/")[2] for found in quarantined}
    return listings


@operation(ValidateConsistency)
def validate_consistency(request: ValidateConsistency, run: Run) -> tuple[int, Body]:
    """A date's rows against the objects in the buckets, and what contradicts what."""
    day = request.date_prefix
    skipped = (unseal("validate_consistency", request) or {}).get("after", 0)
    listings = list_date(run, day)
    files: list[Row] = []
    start: Key | None = None
    while True:
        rows, start = date_page(run, day, start, PAGE_ROWS)
        files += [row for row in rows if row.is_file]
        if start is None:
            break
        if run.is_over():
            # Without all rows nothing can be said to be missing.
            raise RefusedError(503, f"the rows of {day} could not be read in the time there is")
    manifests = Manifests()
    recent = run.now - MANIFEST_LIFECYCLE_DAYS * DAY
    pointing = [
        file for file in files if (file.time("manifest_time") or file.since() or 0) > recent
    ]
    look_up_manifests(run, pointing, manifests, objects=True)
    unknown = listings.unknown + [
        {"subject": path, "reason": manifest.unknown}
        for path, manifest in sorted(manifests.objects.items())
        if manifest.unknown
    ]
    issues = sorted(
        consistency_issues(day, files, listings, manifests, run.now),
        key=lambda issue: (issue["type"], issue.get("file_key", ""), issue.get("key", "")),
    )
    shown = Collected({"issues": []})
    for issue in issues[skipped:]:
        shown.add("issues", issue)
        if shown.is_full:
            break
    reached = skipped + len(shown.lists["issues"])
    inputs = listings.inputs
    return 200, {
        "date_prefix": day,
        "db_file_count": len(files),
        "s3_file_count": None if inputs is None else sum(map(len, inputs.values())),
        "issues_found": len(issues),
        **shown.lists,
        "unknown": unknown,
        **continued(
            "validate_consistency", request, {"after": reached} if reached < len(issues) else None
        ),
    }


def consistency_issues(
    day: str, files: Sequence[Row], listings: Listings, manifests: Manifests, now: float
) -> Iterator[Body]:
    """Everything about a date that does not fit together; nothing that is not known."""
    claimed: set[str] = set()
    for file in files:
        name, objects = input_of(file, listings.inputs)
        claimed.add(name)
        about = {"file_key": file.file_key, "status": file.values.get("status")}
        yield from file_issues(day, file, about, objects, listings.inputs is not None, now)
        yield from result_issues(day, file, about, listings.outputs, manifests)
    for name, objects in (listings.inputs or {}).items():
        keys = sorted(found["Key"] for found in objects)
        if len(objects) > 1:
            yield {"type": "basename_collision", "file_key": name, "keys": keys}
        refused = listings.quarantined is None or name in listings.quarantined
        if name not in claimed and not refused:
            yield {"type": "missing_in_dynamodb", "file_key": name, "key": keys[0]}


def input_of(
    file: Row, inputs: Mapping[str, list[dict[str, Any]]] | None
) -> tuple[str, list[dict[str, Any]]]:
    """The name under which a file lies in the input, and the objects of that name."""
    for name in (file.file_key, unquote_plus(file.file_key)):
        if inputs and name in inputs:
            return name, inputs[name]
    return file.file_key, []


def file_issues(
    day: str,
    file: Row,
    about: Body,
    objects: Sequence[Mapping[str, Any]],
    listed: bool,
    now: float,
) -> Iterator[Body]:
    """A row against its object in the input."""
    if file.status is None:
        yield {"type": "unknown_status", **about}
    path = str(file.values.get("file_path") or "")
    folder = re.search(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", path.partition(INPUT_PREFIX)[2])
    if folder is not None and folder[0] != day:
        yield {"type": "wrong_date_partition", **about, "expected_date": folder[0]}
        return
    if not objects:
        ended = file.status in {FileStatus.COMPLETED, FileStatus.QUARANTINED}
        uploaded = file.time("created_at") or file.time("upload_time")
        uploaded = uploaded or read_time(day)
        expired = now - uploaded > INPUT_LIFECYCLE_DAYS * DAY
        if listed and not (ended or expired):
            yield {"type": "missing_in_s3", **about}
        return
    recorded = file.values.get("file_size_mb")
    own = [found for found in objects if path.endswith(found["Key"])] or objects
    size = own[0]["Size"] / MEGABYTE
    is_number = isinstance(recorded, int | float) and not isinstance(recorded, bool)
    if is_number and abs(float(recorded or 0) - size) > SIZE_TOLERANCE_MB:
        yield {
            "type": "size_mismatch",
            **about,
            "db_size_mb": recorded,
            "s3_size_mb": round(size, 6),
        }


def result_issues(
    day: str, file: Row, about: Body, outputs: Collection[str] | None, manifests: Manifests
) -> Iterator[Body]:
    """A row against its output and its manifest."""
    if file.status is FileStatus.COMPLETED and outputs is not None:
        path = str(file.values.get("output_path") or "")
        own = path.removeprefix(f"s3://{OUTPUT_BUCKET}/")
        lies_there = any(key.startswith(own) for key in outputs) if own != path else bool(outputs)
        if not lies_there:
            where = path or f"s3://{OUTPUT_BUCKET}/{OUTPUT_PREFIX}merged-parquet-{day}/"
            yield {"type": "missing_output", **about, "output_path": where}
    manifest = manifests.objects.get(file.manifest_path)
    if manifest is None or manifest.unknown:
        return
    if manifest.missing:
        if file.status in {FileStatus.MANIFESTED, FileStatus.PROCESSING}:
            yield {"type": "missing_manifest", **about, "manifest_path": file.manifest_path}
    elif not manifest.lists(file):
        yield {"type": "not_in_manifest", **about, "manifest_path": file.manifest_path}


@operation(UpdateState)
def update_state(request: UpdateState, run: Run) -> tuple[int, Body]:
    """A new status for one file, if it is still what was read."""
    old, row = apply_change(run, request)
    return 200, {
        "message": f"{row.label}: {old} -> {row.values['status']}",
        "updated_item": row.values,
    }


@operation(BatchUpdate)
def batch_update(request: BatchUpdate, run: Run) -> tuple[int, Body]:
    """Many changes, each for itself: 200 if all were made, 207 if some, 422 if none."""
    results: list[Body] = []
    for change in request.files:
        file = label(change.date_prefix, change.file_key)
        if run.is_over():
            results.append({"file": file, "error": "not attempted: the time was up"})
            continue
        try:
            old, row = apply_change(run, change)
        except RefusedError as refused:
            results.append({"file": file, **refused.body})
        except (ClientError, BotoCoreError) as error:
            telemetry.exception("file was not changed", error, file=file)
            results.append({"file": file, "error": "the write failed; see the log"})
        else:
            results.append({"file": file, "old_status": old, "new_status": row.values["status"]})
    failed = sum("error" in result for result in results)
    status = 200 if not failed else 422 if failed == len(results) else 207
    return status, {
        "total": len(results),
        "successful": len(results) - failed,
        "failed": failed,
        "results": results,
    }


def perform(event: Mapping[str, Any], run: Run) -> tuple[int, Body]:
    """Find the operation, check its request, run it."""
    name = event.get("operation", DEFAULT_OPERATION)
    known = OPERATIONS.get(name) if isinstance(name, str) else None
    if known is None:
        raise RefusedError(
            400, "operation: is not one of ours", supported_operations=sorted(OPERATIONS)
        )
    model, function = known
    given = {key: value for key, value in event.items() if key not in {"operation", "source"}}
    try:
        request = model.model_validate(given)
    except ValidationError as error:
        problems = problems_of(error)
        summary = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RefusedError(400, summary, problems=problems) from error
    status, body = function(request, run)
    consumed = {"read_units": run.read_units, "write_units": run.write_units}
    return status, body | {"consumed_capacity": consumed}


def report_schedule(name: str, status: int, body: Body) -> None:
    """One line and the metrics of a scheduled run; raises when it was refused."""
    if status != 200:
        raise ScheduledRunError(name, status, body["error"])
    if name == "get_stats":
        for file_status, number in body["stats"].items():
            telemetry.metric("FilesByStatus", number, Status=file_status)
    if name == "find_orphans":
        found = {kind: len(body["orphans"].get(kind, ())) for kind in ORPHAN_KINDS}
        for kind, number in (found | {"unknown": len(body["unknown"])}).items():
            telemetry.metric("OrphansByKind", number, Kind=kind)
        telemetry.metric("Orphans", body["total_orphans"])
        age = body["oldest_pending_age_seconds"]
        telemetry.metric("OldestPendingAgeSeconds", age or 0, unit="Seconds")
    numbers = {key: value for key, value in body.items() if not isinstance(value, list | dict)}
    kinds = {kind: len(found) for kind, found in body.get("orphans", {}).items() if found}
    telemetry.info(
        "scheduled run",
        **{key: value for key, value in numbers.items() if key != "next_token"},
        **({"orphans": kinds} if kinds else {}),
        **({"stats": body["stats"]} if "stats" in body else {}),
        consumed_capacity=body["consumed_capacity"],
    )


@telemetry.handler
def handler(event: Any, context: Any) -> Body | None:
    now = time.time()
    if isinstance(event, dict) and "Records" in event:
        count_changes(event["Records"], now)
        return None
    remaining = context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    run = Run(now, time.monotonic() + remaining, context.aws_request_id)
    given = event if isinstance(event, dict) else {"operation": None}
    name = str(given.get("operation", DEFAULT_OPERATION))[:64]
    run.scheduled = given.get("source") == SCHEDULE_SOURCE
    telemetry.bind(operation=name)
    try:
        status, body = perform(given, run)
    except RefusedError as refused:
        status, body = refused.status, refused.body
    except Exception as error:
        if run.scheduled:
            raise
        telemetry.exception("operation failed", error)
        status, body = 500, {"error": "internal error", "request_id": run.request_id}
    if run.scheduled:
        report_schedule(name, status, body)
    return {"statusCode": status, "body": json.dumps(body, ensure_ascii=False)}
