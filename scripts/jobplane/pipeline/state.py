"""A pipeline's state under construction: rows of the tracking table, objects, expected findings.

The same seed and `now` give the same state. Nothing here reads a clock or calls AWS.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from urllib.parse import quote_plus

from jobplane.pipeline.layout import Layout
from jobplane_keys import iso_time, tracking
from jobplane_keys.tracking import FileStatus

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MAX_DAYS = 30
# None of a state's rows may expire while it is looked at.
ROW_DAYS = 40
LOCK_SECONDS = 300
MEGABYTE = 1_048_576

type Row = dict[str, Any]
type Stamp = Callable[[float], str | int]
type Operation = Literal["find_orphans", "validate_consistency"]


@dataclass(frozen=True, order=True)
class Finding:
    """What an operation must find for a planted fault."""

    operation: Operation
    kind: str
    date_prefix: str
    file_key: str
    """Key of the row, or of the object if no row exists; empty for a finding about a whole date."""
    fault: str
    """The kind of fault that was planted."""

    def as_json(self) -> dict[str, str]:
        return {
            "fault": self.fault,
            "found_by": self.operation,
            "kind": self.kind,
            "date_prefix": self.date_prefix,
            "file_key": self.file_key,
        }


@dataclass(frozen=True)
class Builder:
    """One version of the manifest builder, with its formats, and the source of its files."""

    name: str
    source: str
    stamp: Stamp
    """The format of its times."""
    sharded: bool
    """Whether it writes `pending#7`, or `pending`."""
    keeps_updated_at: bool
    arrival: Literal["created_at", "upload_time"]
    null_path: bool
    """Whether an unclaimed file has the manifest_path NULL, or no manifest_path."""
    encodes: bool = False
    """Whether it stores keys URL-encoded, as S3's events carry them."""


def _with_offset(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone(timedelta(hours=2))).isoformat()


def _naive(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).replace(tzinfo=None).isoformat()


# Most files are written by the newest version.
BUILDERS = (
    Builder(
        "builder-0.9", "clicks", _naive, False, False, "upload_time",
        null_path=False, encodes=True,
    ),
    Builder("builder-1.2", "returns", _with_offset, True, True, "created_at", null_path=True),
    Builder("builder-1.3", "orders", iso_time, True, True, "created_at", null_path=True),
    Builder(
        "builder-1.0", "billing", lambda epoch: int(epoch * 1000), False, True, "created_at",
        null_path=True,
    ),
    Builder("builder-1.2-eu", "devices", int, True, True, "upload_time", null_path=False),
)  # fmt: skip
# Names as people give them; all other files are named by programs.
UNTIDY = ("Export (1) ", "größte+kleinste ", "50% off & more ", "#7 ")


@dataclass(frozen=True)
class File:
    date: str
    name: str
    key: str
    body: bytes
    created: float
    builder: Builder

    @property
    def row_key(self) -> str:
        return quote_plus(self.name) if self.builder.encodes else self.name

    def uri(self, layout: Layout) -> str:
        key = quote_plus(self.key, safe="/") if self.builder.encodes else self.key
        return f"s3://{layout.input_bucket}/{key}"


@dataclass(frozen=True)
class Batch:
    date: str
    path: str
    published: float
    builder: Builder
    started: float
    ended: float


class State:
    def __init__(self, layout: Layout, now: float) -> None:
        self.layout = layout
        self.now = now
        self.rows: dict[tuple[str, str], Row] = {}
        self.objects: dict[str, dict[str, bytes]] = {bucket: {} for bucket in layout.buckets}
        self.ledger: list[Finding] = []
        self.live_locks: list[Row] = []
        self._manifests = 0

    @property
    def dates(self) -> list[str]:
        named = {date for date, _ in self.rows if not date.startswith(tracking.LOCK_PREFIX)}
        prefix = self.layout.input_prefix
        listed = {
            key.removeprefix(prefix).partition("/")[0]
            for key in self.objects[self.layout.input_bucket]
        }
        return sorted(named | listed)

    @property
    def files(self) -> list[Row]:
        return [
            row
            for key, row in self.rows.items()
            if tracking.row_kind(*key) is tracking.RowKind.FILE
        ]

    @property
    def by_status(self) -> Counter[FileStatus]:
        found = (tracking.read_status(row.get("status"), self.layout.shards) for row in self.files)
        return Counter(status for status in found if status is not None)

    def expect(self, fault: str, *kinds: tuple[Operation, str], date: str, key: str = "") -> None:
        self.ledger += (Finding(operation, kind, date, key, fault) for operation, kind in kinds)

    def new_file(
        self,
        chance: random.Random,
        builder: Builder,
        created: float,
        *,
        date: str | None = None,
        uploaded: bool = True,
    ) -> File:
        """A file that arrived at a time, with its object unless the lifecycle has removed it."""
        date = date or date_of(created)
        moment = datetime.fromtimestamp(created, UTC)
        untidy = chance.choice(UNTIDY) if chance.random() < 0.02 else ""
        serial = chance.getrandbits(40)
        name = (
            f"{untidy}{builder.source}-{moment:%Y%m%dT%H%M%S}-{serial:010x}{tracking.FILE_SUFFIX}"
        )
        folder = chance.choice(("", f"{builder.source}/", f"{builder.source}/{moment:%H}/"))
        key = f"{self.layout.input_prefix}{date}/{folder}{name}"
        record = {"id": f"{serial:010x}", "at": iso_time(created), "source": builder.source}
        lines = [json.dumps(record | {"line": line}) for line in range(chance.randint(1, 4))]
        file = File(date, name, key, "\n".join(lines).encode() + b"\n", created, builder)
        if uploaded:
            self.upload(file)
        return file

    def upload(self, file: File) -> None:
        """Put the file's object into the input bucket, unless its lifecycle has removed it."""
        if self.now - file.created < self.layout.input_days * DAY:
            self.objects[self.layout.input_bucket][file.key] = file.body

    def add(self, file: File, status: FileStatus, batch: Batch | None = None) -> Row:
        """Add the row of a file in a status, as its builder writes it."""
        builder = file.builder
        shard = tracking.file_shard(file.name, self.layout.shards)
        row: Row = {
            "date_prefix": file.date,
            "file_key": file.row_key,
            "status": f"{status}#{shard}" if builder.sharded else str(status),
            "file_path": file.uri(self.layout),
            "file_size_mb": round(len(file.body) / MEGABYTE, 6),
            "shard_id": shard,
            builder.arrival: builder.stamp(file.created),
            "ttl": int(file.created + ROW_DAYS * DAY),
        }
        changed = file.created
        if batch is None and builder.null_path:
            row["manifest_path"] = None
        if batch is not None:
            changed = self._take_part(row, status, batch, builder.stamp)
        if builder.keeps_updated_at:
            row["updated_at"] = builder.stamp(changed)
        key = (file.date, file.row_key)
        if key in self.rows:
            raise ValueError(f"two rows {key}")
        self.rows[key] = row
        return row

    def add_claimed(self, file: File, index: int, claimed: float) -> None:
        """The row of a file that its builder has claimed, without a manifest yet."""
        stamp = file.builder.stamp
        placeholder = f"{tracking.CLAIM_PLACEHOLDER}{file.date}-{index}-{int(claimed)}"
        row = self.add(file, FileStatus.MANIFESTED)
        row |= {"manifest_path": placeholder, "manifest_time": stamp(claimed)}
        if file.builder.keeps_updated_at:
            row["updated_at"] = stamp(claimed)

    def _take_part(self, row: Row, status: FileStatus, batch: Batch, stamp: Stamp) -> float:
        """Write a batch's progress into a file's row; the time of the last write."""
        row["manifest_path"] = batch.path
        row["manifest_time"] = stamp(batch.published)
        if status is FileStatus.MANIFESTED:
            return batch.published
        row["processing_start_time"] = stamp(batch.started)
        row["glue_job_run_id"] = f"jr_{hash_of(batch.path):016x}"
        if status is FileStatus.PROCESSING:
            return batch.started
        if status is FileStatus.COMPLETED:
            row["completed_time"] = stamp(batch.ended)
            row["output_path"] = f"s3://{self.layout.output_bucket}/{self.output_key(batch.date)}"
        if status is FileStatus.FAILED:
            row["failed_time"] = stamp(batch.ended)
            row["error_message"] = "Glue: executor lost, the job ran out of memory"
        return batch.ended

    def new_batch(
        self, chance: random.Random, builder: Builder, date: str, published: float
    ) -> Batch:
        """A manifest's name and times; `publish` makes its object and row."""
        self._manifests += 1
        moment = datetime.fromtimestamp(published, UTC)
        name = f"batch-{self._manifests:04d}-{moment:%Y%m%d-%H%M%S}.json"
        started = published + chance.uniform(20, 180)
        return Batch(
            date=date,
            path=f"s3://{self.layout.manifest_bucket}/manifests/{date}/{name}",
            published=published,
            builder=builder,
            started=started,
            ended=started + chance.uniform(60, 900),
        )

    def publish(
        self,
        batch: Batch,
        files: Sequence[File],
        status: Literal["pending", "processing", "completed", "failed"],
        *,
        listed: Iterable[str] | None = None,
    ) -> None:
        """Add the manifest's row, and its object unless the lifecycle has removed it.

        `listed` are the URIs in it, if they are not those of the files.
        """
        uris = [file.uri(self.layout) for file in files] if listed is None else list(listed)
        if self.now - batch.published < self.layout.manifest_days * DAY:
            key = batch.path.removeprefix(f"s3://{self.layout.manifest_bucket}/")
            content = {
                "fileLocations": [{"URIPrefixes": uris}],
                "globalUploadSettings": {"format": "JSON"},
            }
            body = json.dumps(content, ensure_ascii=False).encode()
            self.objects[self.layout.manifest_bucket][key] = body
        self.add_manifest_row(batch, len(files), status)

    def add_manifest_row(self, batch: Batch, files: int, status: str) -> None:
        stamp, key = batch.builder.stamp, tracking.manifest_row_key(batch.path)
        row: Row = {
            "date_prefix": batch.date,
            "file_key": key,
            "status": status,
            "manifest_path": batch.path,
            "file_count": files,
            "created_at": stamp(batch.published),
            "updated_at": stamp(batch.published),
            "ttl": int(batch.published + ROW_DAYS * DAY),
        }
        if status != "pending":
            row["execution_arn"] = (
                f"arn:aws:states:eu-west-1:123456789012:execution:ndjson-to-parquet:"
                f"{hash_of(batch.path):016x}"
            )
            row["processing_start_time"] = stamp(batch.started)
            row["updated_at"] = stamp(batch.started)
        if status in ("completed", "failed"):
            row["completed_time"] = row["updated_at"] = stamp(batch.ended)
        self.rows[batch.date, key] = row

    def add_lock(self, name: str, taken: float, chance: random.Random, ttl: Any = ...) -> None:
        """Add a builder's lock, taken at a time; `ttl` if it differs from the correct one."""
        stream = (
            f"{datetime.fromtimestamp(taken, UTC):%Y/%m/%d}/[$LATEST]{chance.getrandbits(64):016x}"
        )
        row: Row = {
            "date_prefix": f"{tracking.LOCK_PREFIX}{name}",
            "file_key": "LOCK",
            "lock_id": f"{stream}_{int(taken * 1000)}",
            "created_at": iso_time(taken),
        }
        if ttl is ...:
            row["ttl"] = int(taken) + LOCK_SECONDS
            self.live_locks.append(row)
        elif ttl is not None:
            row["ttl"] = ttl
        self.rows[row["date_prefix"], "LOCK"] = row

    def output_key(self, date: str, part: int = 0) -> str:
        return f"{self.layout.output_prefix}merged-parquet-{date}/part-{part:05d}.snappy.parquet"


def date_of(epoch: float) -> str:
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d}"


def midnight(date: str) -> float:
    """When a date begins, in UTC."""
    return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()


def hash_of(text: str) -> int:
    """A number of 64 bits from a text, the same in every process."""
    return random.Random(text).getrandbits(64)
