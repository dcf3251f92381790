"""Runs queued requests, with leases, retries and live progress.

Triggers: the queue `jobs`, whose messages are `{owner, request_id}`; a schedule with
`{"sweep": "leases"}` that finds requests whose lease has run out.
Result: batch item failures for what could not be taken now; a count for a sweep.
Errors: ValidationError for an event that is neither.
Every request ends once, as COMPLETED, FAILED or CANCELLED, and its listeners get one end. A
message that can't be parsed goes to the failure queue. Reads and writes `requests`, `assemblies`,
the files bucket and the webhook queue; posts to sockets.
"""

import csv
import io
import json
import math
import os
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from hashlib import md5, sha256
from pathlib import Path
from typing import Any, BinaryIO, Self

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    ASSEMBLY_TTL_SECONDS,
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    IN_FLIGHT_SHARDS,
    MAX_ITEM_BYTES,
    MAX_MESSAGE_BYTES,
    PUBLIC_ASSEMBLY_FIELDS,
    TENANT_SHARDS,
    TERMINAL_STATUSES,
    ErrorCode,
    RequestStatus,
    ValidationError,
    checked_input,
    end_message,
    error_body,
    is_request_id,
    is_terminal_assembly,
    iso_time,
    item_size,
    link_signer,
    new_result_id,
    packed,
    parse_iso_time,
    query_items,
    read_item,
    request_key,
    requests_table,
    result_prefix,
    s3_options,
    server_message,
    shown_result,
    split_owner_key,
    split_request_key,
    tenant_shards,
    to_item,
    ttl_after,
    unknown_template,
    unreadable_record,
)
from jobplane_leases import (
    ROW_RESERVE_BYTES,
    DocumentChangedError,
    Lease,
    LeaseLostError,
    RequestLease,
    begin_document,
    follow_assembly,
    is_transient,
    queue_webhook,
    read_payload,
    write_assembly,
)
from jobplane_leases.actions import RUNS, load_action
from jobplane_leases.jobs import (
    STEP_ATTRIBUTES,
    EventError,
    JobCancelledError,
    JobFailedError,
    JobTooLongError,
    JobWaitsError,
    LeasedJob,
    OutOfTimeError,
    Pace,
    Progress,
    SmallSteps,
    StepError,
    TransientError,
)
from jobplane_leases.waiting import LEFT_FIELDS, Waiting, has_begun, name_parts
from jobplane_robots import (
    RobotContext,
    RobotError,
    RobotInput,
    S3Sink,
    Step,
    StoredObject,
    Template,
    get_robot,
    load_templates,
    safe_name,
)
from jobplane_sockets import (
    MANAGEMENT_OPTIONS,
    Listeners,
    Outbox,
    is_connected,
)
from jobplane_telemetry import Telemetry

TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)
REQUESTS = requests_table(TABLE_PREFIX)
ASSEMBLIES = os.environ["DYNAMODB_TABLE"]
FILES_BUCKET = os.environ["FILES_BUCKET"]
JOBS_QUEUE_URL = os.environ["JOBS_QUEUE_URL"]
WEBHOOKS_QUEUE_URL = os.environ["WEBHOOKS_QUEUE_URL"]
FAILURES_QUEUE_URL = os.environ["FAILURES_QUEUE_URL"]
WEBSOCKET_ENDPOINT = os.environ["WEBSOCKET_ENDPOINT"]
TEMPLATES_INDEX_PATH = os.environ.get("TEMPLATES_INDEX_PATH", "templates/index.json")
BRANCH = os.environ.get("BRANCH", "main")
LEASE_SECONDS = int(os.environ.get("LEASE_SECONDS", "120"))
IN_FLIGHT_PARTITIONS = int(os.environ.get("IN_FLIGHT_SHARDS", IN_FLIGHT_SHARDS))
TENANT_PARTITIONS = int(os.environ.get("TENANT_SHARDS", TENANT_SHARDS))
MAX_JOB_SECONDS = int(os.environ.get("MAX_JOB_SECONDS", "86400"))
MAX_UPLOAD_BYTES = int(os.environ.get("MAX_UPLOAD_BYTES", str(5 * 1024**3)))
VERSION = os.environ.get("VERSION", "0.1.0")

PROGRESS_INTERVAL_SECONDS = 1 / float(os.environ.get("PROGRESS_PER_SECOND", "2"))
DOCUMENT_INTERVAL_SECONDS = 5.0
BACKOFF_BASE_SECONDS = 1.0
BACKOFF_CAP_SECONDS = 30.0
# Time that an invocation reserves for its answer.
ANSWER_SECONDS = 2.0
# How long a job that is put back waits for its posts.
DRAIN_SECONDS = 5.0
# Time that an invocation reserves to write the states of its requests.
SAFETY_SECONDS = 10.0
# With less time than this, no request is begun.
MIN_WORK_SECONDS = 20.0
LINK_SECONDS = 3600
MAX_TEXT_LENGTH = 1000
MAX_FOLLOWERS = 100
MAX_DOCUMENT_BYTES = 350 * 1024
# What the steps of an assembly make together, and what they say.
MAX_RESULTS = 4000
MAX_WARNINGS = 100
MAX_OUTPUT_GROWTH = 500
SMALL_OUTPUT_BYTES = 256 * 1024 * 1024
MAX_OUTPUT_BYTES = 100 * 1024**3
PART_BYTES = 8 * 1024 * 1024
MESSAGE_ID = re.compile(r"[!-~]{1,128}")

session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
telemetry = Telemetry("processor")

type Row = dict[str, Any]
type Run = Callable[["Job"], Row]

ACTIONS: dict[str, Run] = {}
LINKS: dict[str, tuple[str, ...]] = {}


class AssemblyBusyError(Exception):
    """Another request runs the same assembly."""

    def __init__(self, assembly_id: str) -> None:
        super().__init__(assembly_id)
        self.assembly_id = assembly_id


class AssemblyError(Exception):
    """The assembly can't be processed; `error` is the document's code, the text is for clients."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class RequestError(Exception):
    """The request fails with this code; the text is for clients."""

    def __init__(self, code: ErrorCode, message: str, **details: Any) -> None:
        super().__init__(message)
        self.body = error_body(code, message, **({"details": details} if details else {}))


def action(name: str, *, links: tuple[str, ...] = ()) -> Callable[[Run], Run]:
    """Register what runs for an action; it returns the result to be stored.

    `links`: the paths of the object keys in the result, as `sign_links` reads them. They become
    links for its readers. Never name a place that holds what the client sent: it could
    be the key of any object.
    """

    def register(run: Run) -> Run:
        if name in ACTIONS:
            raise ValueError(f"action {name!r} is registered twice")
        ACTIONS[name] = run
        LINKS[name] = links
        return run

    return register


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation: its id is the owner of leases, which end at its deadline (epoch seconds)."""

    id: str
    deadline: float
    outbox: Outbox = field(default_factory=Outbox, compare=False)
    """Posts about requests that it ends without an attempt."""

    @classmethod
    def of(cls, context: Any) -> Self:
        remaining = context.get_remaining_time_in_millis() / 1000
        return cls(context.aws_request_id, time.time() + remaining)

    def remaining(self) -> float:
        return self.deadline - time.time()

    def lease(self) -> Lease:
        """A lease that ends at the invocation's deadline at the latest."""
        return Lease(self.id, int(time.time() + max(1.0, min(self.remaining(), LEASE_SECONDS))))


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A message of the queue `jobs`."""

    message_id: str
    receipt: str
    receives: int
    owner: str
    request_id: str
    is_due: bool
    """The request was SCHEDULED, and needs a slot of its lane now."""

    @classmethod
    def of(cls, record: Any) -> Self:
        """Raises ValueError if the message does not name a request, or can't be named itself."""
        try:
            body = json.loads(record["body"])
            found = cls(
                message_id=record["messageId"],
                receipt=record["receiptHandle"],
                receives=int(record["attributes"]["ApproximateReceiveCount"]),
                owner=body["owner"],
                request_id=body["request_id"],
                is_due=body.get("due") is True,
            )
            split_owner_key(found.owner)
            found.owner.encode()
            has_name = MESSAGE_ID.fullmatch(found.message_id)
        except Exception as error:
            raise ValueError("its body does not name a request") from error
        if not has_name or not is_request_id(found.request_id):
            raise ValueError("an id in it is malformed")
        return found


class Job(LeasedJob):
    """A request in processing.

    One thread writes progress and renews the lease; another one posts what was written. One
    progress update is one UpdateItem and one post for each listener.
    """

    invocation: Invocation

    def __init__(self, row: Row, invocation: Invocation, outbox: Outbox | None = None) -> None:
        super().__init__(request_of(row["owner"], row["request_id"]), row, invocation)
        self.ends_at = parse_iso_time(row["started_at"]) + MAX_JOB_SECONDS
        self.outbox = outbox or Outbox()
        self.listeners = Listeners(
            dynamodb,
            TABLE_PREFIX,
            row,
            on_error=post_failed,
            on_answer=self.outbox.answered,
        )
        self.has_announced = False
        """Whether this attempt has announced the end of its assembly."""

    @property
    def pace(self) -> Pace:
        return Pace(LEASE_SECONDS, PROGRESS_INTERVAL_SECONDS, SAFETY_SECONDS)

    @property
    def patient_until(self) -> float:
        """Until when to retry the write of the end, in epoch seconds: while the lease is valid and
        the invocation can still answer.
        """
        return min(self._lease_until, self.invocation.deadline - ANSWER_SECONDS)

    def payload(self) -> Row:
        """The client's payload, which the router has validated."""
        payload: Row = json.loads(read_payload(dynamodb, REQUESTS, self.row, read_object))
        return payload

    def post(self, message: Row, subscribers: int, *, is_progress: bool = False) -> None:
        """Post a message to all listeners, without waiting for it. Progress that still waits is
        replaced by newer progress.
        """
        self.outbox.put(lambda: self._post(message, subscribers), replaceable=is_progress)

    def _post(self, message: Row, subscribers: int) -> None:
        try:
            delivery = self.listeners.send(management(), message, subscribers)
            if delivery.failed:
                telemetry.metric("PostFailed", len(delivery.failed))
                telemetry.warning("message not delivered", connections=delivery.failed)
            for connection_id in delivery.gone:
                telemetry.info("connection gone", gone_connection_id=connection_id)
        except Exception as error:
            telemetry.exception("message not posted", error)
        # `$disconnect`, which asks for this otherwise, may never come.
        if self.row.get("on_disconnect") == "cancel" and self.listeners.is_origin_gone:
            self.halt(JobCancelledError())

    def while_connected(self) -> AbstractContextManager[None]:
        """Cancel a job within the block that must end with its connection, when that is gone."""
        if self.row.get("on_disconnect") != "cancel":
            return nullcontext()
        waited = time.time() - parse_iso_time(self.row["created_at"])
        often = LEASE_SECONDS / 2
        return self.every(often, self._check_origin, at_once=waited > often)

    def _check_origin(self) -> None:
        origin = self.row["connection_id"]
        if not is_connected(dynamodb, management(), TABLE_PREFIX, origin, time.time()):
            telemetry.info("connection gone", gone_connection_id=origin)
            raise JobCancelledError

    def close(self) -> None:
        """Wait until all messages are posted, or for seconds if the endpoint does not answer."""
        if not self.outbox.close(self.invocation.remaining() - ANSWER_SECONDS):
            telemetry.metric("PostFailed")
            telemetry.warning("messages not posted in time")

    def drain(self) -> None:
        """Wait for the posts, so that those of the next worker come after them."""
        left = self.invocation.remaining() - ANSWER_SECONDS
        self.outbox.drain(min(left, DRAIN_SECONDS))

    def written(self, row: Row, progress: Progress | None) -> None:
        if progress:
            metadata = {"metadata": dict(progress.metadata)} if progress.metadata else {}
            text = {"percentage": progress.percentage, "message": progress.message, **metadata}
            message = server_message("progress", self.request_id, time.time(), seq=self.seq, **text)
            self.post(message, self.subscribers, is_progress=True)

    def emitted(self, first: int, events: list[Any]) -> None:
        message = server_message(
            "event", self.request_id, time.time(), first=first, events=events, gap=False
        )
        self.post(message, self.subscribers)

    def late(self, error: Exception) -> None:
        telemetry.warning("progress not written yet", error=type(error).__name__)

    def lost(self) -> None:
        self.outbox.drop()

    def failed(self, problem: str, error: Exception) -> None:
        telemetry.exception(problem, error)

    def put_object(self, name: str, body: bytes) -> None:
        put_result(f"{self.folder}/{name}", body)

    def get_object(self, name: str) -> bytes:
        return read_object(f"{self.folder}/{name}")

    @property
    def folder(self) -> str:
        """The prefix of the keys of the request's objects."""
        return f"results/requests/{owner_digest(self.owner)}/{self.request_id}"

    def _keep_safely(self) -> None:
        with telemetry.trace(self.row.get("trace_header")):
            super()._keep_safely()


class Assembly:
    """The document of one job in processing; every write is conditional on its `rev`."""

    def __init__(self, job: Job, template: Template | None, document: Row) -> None:
        self.job = job
        self.template = template
        self.document = document
        # As it is stored; a worker does not change those who wait for its end.
        self._stored = packed({**document, "followers": None})
        self._lock = threading.Lock()
        self._ended = False

    @property
    def id(self) -> str:
        return str(self.document["assembly_id"])

    @property
    def attempt(self) -> str:
        """A name for what this attempt at this execution stores; no other attempt has it."""
        return f"{self.document['execution']}-{self.job.attempt}"

    def save(self, **changes: Any) -> None:
        """Write changed fields and renew the document's lease."""
        now = time.time()
        changes |= {
            "updated_at": iso_time(now),
            "lease_until": self.job.invocation.lease().until,
            "progress_pct": round(self.job.percentage, 2),
        }
        self._write(changes)

    def touch(self) -> None:
        """Renew the document's lease and percentage during a long step."""
        if not self._ended:
            self.save()

    def end(self, message: str, *, ok: str | None = None, error: str | None = None) -> None:
        """Write the final state, then queue the webhook."""
        now = time.time()
        started = parse_iso_time(self.document["execution_start"])
        changes: Row = {
            "message": message[:MAX_TEXT_LENGTH],
            "updated_at": iso_time(now),
            "execution_duration": round(now - started, 3),
        }
        changes |= {"ok": ok} if ok else {"error": error}
        if ok == "ASSEMBLY_COMPLETED":
            changes |= {"progress_pct": 100, "last_job_completed": iso_time(now)}
        if self.template is not None and self.template.webhook_url:
            changes["webhook"] = {"status": "pending", "attempts": 0}
        self._write(changes, remove=("lease_until", "current_step"))
        announce_end(self.job, self.document)

    def _write(self, changes: Row, remove: Iterable[str] = ()) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = "lease_until" in remove
            text = f"The files' descriptions take more than {MAX_DOCUMENT_BYTES} bytes"
            too_long = AssemblyError("PROCESSING_ERROR", f"{text}; send fewer files at a time")
            try:
                changes = packed(changes)
            except ValueError as error:
                raise too_long from error
            self._stored |= changes
            # An end adds little, and must be written.
            if not self._ended and item_size(to_item(self._stored)) > MAX_DOCUMENT_BYTES:
                raise too_long
            self.document = write_assembly(
                dynamodb,
                ASSEMBLIES,
                self.id,
                self.document["rev"],
                changes,
                time.time(),
                remove=tuple(remove),
                patient_until=self.job.patient_until if self._ended else 0.0,
            )


def result_entry(stored: StoredObject, original_id: str) -> Row:
    """The document's entry for an output; `original_id` is the upload that it was made from."""
    entry = {
        "id": new_result_id(),
        **name_parts(stored.key.rpartition("/")[2]),
        "size": stored.size,
        "mime": stored.mime,
        "field": "file",
        "original_id": original_id,
        "key": stored.key,
        "md5hash": stored.md5hash,
    }
    return entry | ({"meta": dict(stored.meta)} if stored.meta else {})


def post_failed(problem: str, error: Exception) -> None:
    """Log an error of a delivery, which must not fail the job."""
    telemetry.metric("PostFailed")
    telemetry.exception(problem, error)


def cancelled_body() -> Row:
    """The `error` of a request that was cancelled."""
    return error_body(ErrorCode.CANCELLED, "Cancelled")


def is_change(record: Any) -> bool:
    """Whether it is a record of a stream: that of `requests` came here before dispatch existed."""
    return isinstance(record, dict) and record.get("eventSource") == "aws:dynamodb"


def backoff_seconds(attempt: int) -> float:
    """Seconds before the next attempt: a random part of the exponential delay; counted from 1."""
    return random.uniform(0, min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** (attempt - 1)))


def request_of(owner: str, request_id: str) -> RequestLease:
    """A request, and the writes that change its state."""
    return RequestLease(dynamodb, REQUESTS, owner, request_id)


@cache
def s3() -> Any:
    """The client of the files bucket, with a long timeout, for copies of up to 5 GiB."""
    options = {**CLIENT_OPTIONS, "read_timeout": 60, **s3_options(os.environ)}
    return session.create_client("s3", config=Config(**options))


# A link to an object of the files bucket, from its key.
sign_download = link_signer(s3, FILES_BUCKET, LINK_SECONDS)


@cache
def sqs() -> Any:
    """The client of the queues."""
    return session.create_client("sqs", config=config)


@cache
def management() -> Any:
    """The client of the management API of connections."""
    return session.create_client(
        "apigatewaymanagementapi",
        endpoint_url=WEBSOCKET_ENDPOINT,
        config=Config(**MANAGEMENT_OPTIONS),
    )


@cache
def templates() -> dict[str, Template]:
    """The templates of this artifact by id."""
    return load_templates(Path(__file__).parent / TEMPLATES_INDEX_PATH)


def finish(job: Job, status: RequestStatus, outcome: Row, *, cause: str = "request") -> None:
    """Write a request's end, then have the last message posted to its listeners.

    `cause` is why a request failed: a fault of the request (`request`) or of the service
    (`service`).
    """
    job.seq += 1
    row = job.request.finish(
        job.invocation.id,
        {"status": status, "seq": job.seq, **outcome},
        time.time(),
        patient_until=job.patient_until,
    )
    if status == RequestStatus.FAILED:
        telemetry.metric("RequestFailed", Cause=cause)
    else:
        telemetry.metric(f"Request{status.capitalize()}", Action=job.row["action"])
    telemetry.info("request ended", status=status, attempts=row["attempts"])
    job.post(terminal_message(row), row.get("subscriber_count", 0))


def terminal_message(row: Row) -> Row:
    """The last message of a request: `complete` or `error`."""
    if "error" in row:
        return end_message(row, time.time())
    if "result_key" in row:
        result: Any = {"url": sign_download(row["result_key"])}
    else:
        result = shown_result(row, row["result"], sign_download)
    return end_message(row, time.time(), result)


def stored_result(job: Job, result: Row) -> Row:
    """The attributes that hold a result.

    One that no socket message can carry is an object as well, `result_key`, with links; one for
    which its row has no room is an object without links, `source_key`.
    """
    text = json.dumps(result, separators=(",", ":"), ensure_ascii=False)
    stored: Row = {"links": list(LINKS.get(job.row["action"], ()))}
    shown = json.dumps(shown_result(stored, text, sign_download), ensure_ascii=False).encode()
    row = {name: value for name, value in job.row.items() if name not in STEP_ATTRIBUTES}
    room = MAX_ITEM_BYTES - ROW_RESERVE_BYTES - item_size(to_item(row))
    fits = len(text.encode()) <= room
    if len(shown) <= MAX_MESSAGE_BYTES and fits:
        return stored | {"result": text}
    prefix = f"{job.folder}/{job.attempt}"
    stored["result_key"] = put_result(f"{prefix}.json", shown)
    if fits:
        return stored | {"result": text}
    return stored | {"source_key": put_result(f"{prefix}.source.json", text.encode())}


def put_result(key: str, body: bytes) -> str:
    """Store a result as an object; its key."""
    s3().put_object(Bucket=FILES_BUCKET, Key=key, Body=body, ContentType="application/json")
    return key


def owner_digest(owner: str) -> str:
    """The name of the folder for the objects of an owner's requests."""
    return sha256(owner.encode()).hexdigest()[:32]


def put_back(job: Job, wait: float, *, keep: bool, counts: bool = True) -> None:
    """Leave a request for a later attempt. Raises LeaseLostError.

    `keep`: this invocation continues with it after `wait` seconds; otherwise the sweeper finds it
    then. `counts`: whether this attempt counts.
    """
    if not keep:
        job.drain()
    lease_until = int(time.time() + wait) + (LEASE_SECONDS if keep else 0)
    job.request.put_back(
        job.invocation.id,
        lease_until,
        time.time(),
        keep=keep,
        attempts=None if counts else job.row["attempts"] - 1,
        patient_until=job.patient_until,
    )


def hand_over(job: Job) -> None:
    """Leave a request whose steps are stored so far to the next invocation, at once.

    It does not count as an attempt. If this ends between the two writes, the sweeper continues.
    """
    put_back(job, 0, keep=False, counts=False)
    job.request.requeue(time.time())
    telemetry.info("job handed over", attempts=job.row["attempts"])


def waiting() -> Waiting:
    """The documents of assemblies that wait for a worker."""
    return Waiting(dynamodb, ASSEMBLIES, BRANCH, safe_name, telemetry.exception)


def read_assembly(assembly_id: str) -> Row | None:
    """The document of an assembly; None if it is missing or has expired."""
    return waiting().read(assembly_id, time.time())


def announce_end(job: Job, document: Row) -> None:
    """Queue the webhook of a job's ended assembly, and requeue the requests that wait for it.

    Only once in an attempt. A later attempt repeats it, since it can't know whether it was done.
    """
    if job.has_announced:
        return
    queue_webhook(sqs(), WEBHOOKS_QUEUE_URL, document, telemetry.trace_header)
    for follower in document.get("followers", ()):
        request_of(*split_request_key(follower)).requeue(time.time())
    job.has_announced = True


def follow(job: Job, assembly_id: str) -> None:
    """Park a request until the one that runs its assembly has ended it.

    The request that runs it wakes its followers. If it has too many, the sweeper finds this one.
    """
    put_back(job, LEASE_SECONDS, keep=False, counts=False)
    key = request_key(job.owner, job.request_id)
    if not follow_assembly(dynamodb, ASSEMBLIES, assembly_id, key, most=MAX_FOLLOWERS):
        job.request.requeue(time.time())


def begin_assembly(job: Job, payload: Row, template: Template | None) -> Assembly:
    """The document of the job, taken for this request; one that this request has begun goes on.

    One that ended well, or that this request ended, comes back terminal, and so does one that
    failed while this request waited for it. Raises AssemblyBusyError when another request works on
    it, RequestError when it is another user's.
    """
    assembly_id = job.row["assembly_id"]
    known = read_assembly(assembly_id)
    mine = known is not None and known.get("request_id") == job.request_id
    me = request_key(job.owner, job.request_id)
    if known is not None:
        if known.get("owner") != job.owner:
            raise RequestError(ErrorCode.FORBIDDEN, "The assembly belongs to another user")
        terminal = is_terminal_assembly(known)
        joined = bool(known.get("error")) and me in known.get("followers", ())
        if known.get("ok") == "ASSEMBLY_COMPLETED" or (terminal and mine) or joined:
            return Assembly(job, template, known)
        if not terminal and not mine and known.get("lease_until", 0) > time.time():
            job.report(job.percentage, "The same assembly is already running; waiting for its end")
            raise AssemblyBusyError(assembly_id)
        is_next = mine or not (terminal or has_begun(known))
        execution = known["execution"] if is_next else known.get("execution", 0) + 1
    else:
        execution = 1
    moment = iso_time(time.time())
    document: Row = {
        "updated_at": moment,
        "steps_total": len(template.steps) if template else 0,
        "lease_until": job.invocation.lease().until,
        "ttl": ttl_after(time.time(), ASSEMBLY_TTL_SECONDS),
    }
    stale: frozenset[str] = frozenset()
    if known is None or not mine or not has_begun(known) or "uploads" not in known:
        document = waiting().attributes(job.row, payload, time.time()) | document
        document |= {
            "execution": execution,
            "execution_start": moment,
            "created_at": (known or {}).get("created_at", moment),
            "message": "Receiving files",
        }
        if known is not None and mine and not has_begun(known):
            document["uploads"] = known["uploads"]  # clients have their ids
        stale = LEFT_FIELDS - document.keys()
        if known is not None and not is_terminal_assembly(known):
            stale -= {"followers"}
    try:
        written = begin_document(
            dynamodb,
            ASSEMBLIES,
            assembly_id,
            known["rev"] if known else None,
            document,
            time.time(),
            remove=sorted(stale),
            request=job.request,
            lease_owner=job.invocation.id,
        )
    except DocumentChangedError as error:
        raise TransientError("the assembly changed while it was begun") from error
    return Assembly(job, template, written)


def receive(upload: Row, progress: Callable[[int], None]) -> Row:
    """Check that an upload exists and has the given md5; its id, its size, and whether that md5 is
    the one of its content.

    Raises AssemblyError.
    """
    head = head_object(upload)
    size = head["ContentLength"]
    if size > MAX_UPLOAD_BYTES:
        limit = f"{upload['name']}: larger than {MAX_UPLOAD_BYTES} bytes"
        raise AssemblyError("FILE_TOO_LARGE", limit)
    # The ETag is the md5 of an object that was sent whole. Of parts it is a digest and their
    # number, which identifies the content and is not its md5. Other objects are read.
    tag, _, parts = head["ETag"].strip('"').partition("-")
    if tag == upload["md5hash"]:
        progress(size)
    else:
        verify(upload, progress)
        parts = ""
    return {"id": upload["id"], "size": size, "has_md5": not parts}


def head_object(upload: Row) -> Row:
    """S3's metadata of an upload. Raises AssemblyError (INPUT_MISSING)."""
    try:
        head: Row = s3().head_object(Bucket=FILES_BUCKET, Key=upload["key"])
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            missing = f"{upload['name']}: has not been uploaded"
            raise AssemblyError("INPUT_MISSING", missing) from error
        raise
    return head


def verify(upload: Row, progress: Callable[[int], None]) -> None:
    """Read an upload and compare its md5. Raises AssemblyError."""
    digest = md5(usedforsecurity=False)
    with open_object(upload["key"]) as stream:
        while data := stream.read(1024 * 1024):
            digest.update(data)
            progress(len(data))
    if digest.hexdigest() != upload["md5hash"]:
        text = f"{upload['name']}: md5 is {digest.hexdigest()}, {upload['md5hash']} was announced"
        raise AssemblyError("MD5_MISMATCH", text)


def robot_input(file: Row) -> RobotInput:
    """A stored file as the input of a robot."""
    return RobotInput(
        name=file["name"],
        mime=file["mime"],
        size=file["size"],
        md5hash=file.get("md5hash"),
        field=file["field"],
        meta=file.get("meta", {}),
        open=lambda: open_object(file["key"]),
        handle=file["key"],
    )


def open_object(key: str) -> BinaryIO:
    """The content of an object as a stream."""
    body: BinaryIO = s3().get_object(Bucket=FILES_BUCKET, Key=key)["Body"]
    return body


def read_object(key: str) -> bytes:
    """The content of an object."""
    with open_object(key) as stream:
        return stream.read()


@action("process_assembly", links=("results/*/*/key",))
def process_assembly(job: Job) -> Row:
    """Runs a template's steps over the uploads; the result is the assembly document."""
    payload = job.payload()
    template = templates().get(payload["template_id"])
    telemetry.bind(assembly_id=job.row["assembly_id"], template_id=payload["template_id"])
    assembly = begin_assembly(job, payload, template)
    if is_terminal_assembly(assembly.document):
        if assembly.document["request_id"] == job.request_id:
            announce_end(job, assembly.document)
        return result_of(assembly.document)
    try:
        if template is None:
            unknown = unknown_template(payload["template_id"], templates())
            raise AssemblyError("TEMPLATE_UNKNOWN", unknown)
        with job.every(DOCUMENT_INTERVAL_SECONDS, assembly.touch):
            run_steps(assembly, template)
        job.check()
        assembly.end("Processing completed", ok="ASSEMBLY_COMPLETED")
    except JobCancelledError:
        assembly.end("Cancelled", ok="ASSEMBLY_CANCELED")
        raise
    except RobotError as error:
        assembly.end(error.message, error=error.code)
    except AssemblyError as error:
        assembly.end(str(error), error=error.error)
    return result_of(assembly.document)


def result_of(ended: Row) -> Row:
    """The result of a request from its assembly's ended document.

    Raises RequestError when it failed, JobCancelledError when it was cancelled.
    """
    if ended.get("ok") == "ASSEMBLY_CANCELED":
        raise JobCancelledError
    if error := ended.get("error"):
        raise RequestError(
            ErrorCode.TIMEOUT if error == "TIMEOUT" else ErrorCode.PROCESSING_FAILED,
            ended["message"],
            assembly_id=ended["assembly_id"],
            error=error,
        )
    document = {name: value for name, value in ended.items() if name in PUBLIC_ASSEMBLY_FIELDS}
    document["uploads"] = [
        {name: value for name, value in upload.items() if name != "key"}
        for upload in document["uploads"]
    ]
    return document


def run_steps(assembly: Assembly, template: Template) -> None:
    """Run each step for the files that it uses, in the order of their dependencies.

    Each file is a small step of the job: another attempt goes on at the first one without a result.
    """
    steps = template.ordered_steps()
    results: dict[str, list[Row]] = {}
    warnings: list[str] = []
    usage = 0
    with assembly.job.small_steps("files", of=digest_of(steps)) as small:
        meter = Meter(assembly.job, small, units=len(steps) + 1)
        made = {":original": receive_all(assembly, meter)}
        for number, step in enumerate(steps):
            inputs = [source for name in step.use for source in made[name]]
            total = sum(source.size for source, _ in inputs)
            meter.begin(f"Step {step.name}", total, waits=get_robot(step.robot).waits)
            if not small.is_behind:
                assembly.save(message=f"Processing: {step.name}", current_step=step.name)
            files, texts = run_step(assembly, step, inputs, meter, results)
            made[step.name] = [(robot_input(file), file["original_id"]) for file in files]
            results[step.name] = files
            warnings = first_warnings(warnings + texts)
            usage += meter.read_bytes + sum(file["size"] for file in files)
            if not small.is_behind:
                assembly.save(
                    results=dict(results),
                    steps_completed=number + 1,
                    bytes_usage=usage,
                    warnings=warnings,
                )
        meter.end()


def receive_all(assembly: Assembly, meter: "Meter") -> list[tuple[RobotInput, str]]:
    """Check the uploads; return each as an input, with its id. Raises AssemblyError."""
    meter.begin("Receiving files", assembly.document["bytes_expected"])
    uploads, inputs = [], []
    for upload in assembly.document["uploads"]:
        found = meter.run(partial(receive, upload, meter.advance))
        uploads.append(upload | {name: found[name] for name in ("id", "size")})
        known = uploads[-1] if found["has_md5"] else uploads[-1] | {"md5hash": None}
        # With the id of the upload, as two uploads of equal bytes may have one key.
        inputs.append((robot_input(known), found["id"]))
    assembly.save(uploads=uploads, bytes_received=sum(upload["size"] for upload in uploads))
    return inputs


def digest_of(steps: Iterable[Step]) -> str:
    """Identifies the steps of a template: results of others can't be used."""
    parts = [(s.name, s.robot, s.use, s.options.model_dump_json()) for s in steps]
    return sha256(repr(parts).encode()).hexdigest()[:16]


def first_warnings(warnings: list[str]) -> list[str]:
    """The first warnings; the last one then says that there were more."""
    if len(warnings) <= MAX_WARNINGS:
        return warnings
    return [*warnings[: MAX_WARNINGS - 1], "there are more warnings"]


def output_limit(received: int) -> int:
    """The bytes that the steps of an assembly may write together, for the bytes it received."""
    return min(MAX_OUTPUT_BYTES, max(SMALL_OUTPUT_BYTES, MAX_OUTPUT_GROWTH * received))


def run_step(
    assembly: Assembly,
    step: Step,
    inputs: Iterable[tuple[RobotInput, str]],
    meter: "Meter",
    results: Mapping[str, list[Row]],
) -> tuple[list[Row], list[str]]:
    """Run one step for its files, each with the id of its upload; return result entries and
    warnings.

    `results` are those of the steps before. Raises AssemblyError if all steps together have made
    more files or bytes than they may.
    """
    made = sum(map(len, results.values()))
    left = output_limit(assembly.document["bytes_received"]) - sum(
        file["size"] for files in results.values() for file in files
    )
    files: list[Row] = []
    warnings: list[str] = []
    taken: set[str] = set()
    prefix = result_prefix(assembly.id, step.name, assembly.attempt)
    for source, original_id in inputs:
        sink = S3Sink(s3(), FILES_BUCKET, prefix, taken=taken, part_bytes=PART_BYTES)
        report = meter.report_on(source.size)
        context = RobotContext(meter.advance, left_bytes=left, report=report)
        done = meter.run(partial(run_robot, step, source, original_id, sink, context))
        taken |= {file["name"] for file in done["files"]}
        warnings += done["warnings"]
        left -= sum(file["size"] for file in done["files"])
        if left < 0:
            raise AssemblyError("FILE_TOO_LARGE", "The steps write more than the job may")
        files += done["files"]
        if made + len(files) > MAX_RESULTS:
            text = f"The steps make more than {MAX_RESULTS} files; send fewer files at a time"
            raise AssemblyError("FILE_TOO_LARGE", text)
    return files, warnings


def run_robot(
    step: Step, source: RobotInput, original_id: str, sink: S3Sink, context: RobotContext
) -> Row:
    """Run a step for one file: the entries of its outputs, and its warnings."""
    result = step.run(source, sink, context)
    return {
        "files": [result_entry(stored, original_id) for stored in sink.objects],
        "warnings": [text[:MAX_TEXT_LENGTH] for text in result.warnings],
    }


class Meter:
    """Computes the job's percentage; each unit (a step) has the same part.

    It counts the bytes read, or what a robot that waits reports of its file.
    """

    def __init__(self, job: Job, small: SmallSteps, units: int) -> None:
        self.read_bytes = 0
        self._job = job
        self._small = small
        self._units = units
        self._unit = -1
        self._total = 0
        self._label = ""
        self._waits = False
        self._done_bytes = 0

    def begin(self, label: str, total: int, *, waits: bool = False) -> None:
        """Begin the next unit, of `total` bytes; `waits`: reading them is not its progress."""
        self._unit += 1
        self._label, self._total, self.read_bytes, self._waits = label, total, 0, waits
        self._done_bytes = 0
        self._report(0.0)

    def advance(self, count: int) -> None:
        """Add the bytes that were read. Raises what `Job.check` raises."""
        self.read_bytes += count
        if count and self._total and not self._waits:
            self._report(min(1.0, self.read_bytes / self._total))
        else:
            self._job.check()

    def report_on(self, size: int) -> Callable[[float, str], None]:
        """What a robot calls with the fraction of its file, of `size` bytes, and a text."""
        before = self._done_bytes
        self._done_bytes += size

        def report(fraction: float, message: str) -> None:
            whole = (before + fraction * size) / self._total if self._total else fraction
            self._report(min(1.0, max(0.0, whole)), message)

        if self._waits:
            report(0.0, "")
        return report

    def run(self, function: Callable[[], Row]) -> Row:
        """Run a small step of the job; the bytes that it has read count also if it is stored."""
        before = self.read_bytes
        done: Row = self._small.run(lambda: function() | {"read": self.read_bytes - before})
        if missing := before + done["read"] - self.read_bytes:
            self.advance(missing)
        return done

    def end(self) -> None:
        """Report that all units are done."""
        self._job.report(100.0, "Processing completed")

    def _report(self, fraction: float, message: str = "") -> None:
        percentage = 100 * (self._unit + fraction) / self._units
        text = f"{self._label}: {message}" if message else self._label
        self._job.report(percentage, text, step=self._label)


@action("delay")
def delay(job: Job) -> Row:
    """Waits in steps and reports each; fails at the step `fail_at`, if it is given."""
    payload = job.payload()
    steps = payload["steps"]
    for step in range(1, steps + 1):
        job.sleep(payload["seconds"] / steps)
        if step == payload.get("fail_at"):
            text = f"Failed at step {step} of {steps}, as asked"
            if payload.get("transient"):
                raise TransientError(text)
            raise RequestError(ErrorCode.PROCESSING_FAILED, text)
        job.report(100 * step / steps, f"Step {step} of {steps}")
    return {"seconds": payload["seconds"], "steps": steps}


@action("count")
def count(job: Job) -> Row:
    """Emits the numbers from 1 on; a later attempt goes on after those that are stored."""
    payload = job.payload()
    for number in range(job.event_count + 1, payload["to"] + 1):
        job.emit(number)
        job.sleep(payload["seconds"] / payload["to"])
    return {"to": payload["to"]}


@action("echo")
def echo(job: Job) -> Row:
    """Returns the payload."""
    received_at = job.row["created_at"]
    return {"echo": job.payload(), "action": "echo", "received_at": received_at}


@action("health")
def health(job: Job) -> Row:
    """Returns a time; the answer shows that jobs are stored, run and answered."""
    age = time.time() - parse_iso_time(job.row["created_at"])
    return {
        "status": "healthy",
        "version": VERSION,
        "checks": {"queue": {"status": "healthy", "latency_ms": round(age * 1000, 2)}},
    }


@action("generate_report", links=("url_key",))
def generate_report(job: Job) -> Row:
    """Stores a report: the tenant's requests and assemblies by day, action or status."""
    payload = job.payload()
    tenant_id, _ = split_owner_key(job.owner)
    first = date.fromisoformat(payload["start_date"])
    last = date.fromisoformat(payload["end_date"])
    groups: dict[str, Counter[str]] = {}
    for entry in report_entries(job, tenant_id, first, last):
        group = groups.setdefault(str(entry[payload["group_by"]]), Counter())
        group.update(entry["counts"])
    rows = [report_row(payload["group_by"], name, groups[name]) for name in sorted(groups)]
    body, mime = render_report(rows, payload)
    folder = f"reports/{owner_digest(job.owner)}/{job.request_id}"
    key = f"{folder}/{job.attempt}.{payload['format']}"
    s3().put_object(Bucket=FILES_BUCKET, Key=key, Body=body, ContentType=mime)
    return {
        "format": payload["format"],
        "rows": len(rows),
        "size": len(body),
        "sha256": sha256(body).hexdigest(),
        "url_key": key,
    }


REPORT_COLUMNS = (
    "requests",
    "requests_completed",
    "requests_failed",
    "requests_cancelled",
    "requests_open",
    "assemblies",
    "assemblies_completed",
    "assemblies_failed",
    "bytes_usage",
)


def report_entries(job: Job, tenant_id: str, first: date, last: date) -> Iterator[Row]:
    """The entries to count: one for each request and assembly that began in the range."""
    sources: list[tuple[str, str, Callable[[Row], Row]]] = [
        *((REQUESTS, each, request_counts) for each in tenant_shards(tenant_id, TENANT_PARTITIONS)),
        (ASSEMBLIES, tenant_id, assembly_counts),
    ]
    for number, (table, partition, counts) in enumerate(sources):
        for item in partition_items(table, partition, first, last):
            done = (date.fromisoformat(item["created_at"][:10]) - first).days
            share = (number + done / ((last - first).days + 1)) / len(sources)
            job.report(100 * share, "Reading")
            yield {"day": item["created_at"][:10], **counts(item)}


def request_counts(item: Row) -> Row:
    """The report's entry for a request."""
    status = item["status"]
    state = status.lower() if status in TERMINAL_STATUSES else "open"
    return {
        "action": item["action"],
        "status": status,
        "counts": {"requests": 1, f"requests_{state}": 1},
    }


def assembly_counts(item: Row) -> Row:
    """The report's entry for an assembly."""
    failed = bool(item.get("error"))
    completed = item.get("ok") == "ASSEMBLY_COMPLETED" and not failed
    counts = {"assemblies": 1, "bytes_usage": item.get("bytes_usage", 0)}
    counts |= {"assemblies_completed": 1} if completed else {}
    counts |= {"assemblies_failed": 1} if failed else {}
    status = item.get("error") or item.get("ok") or "OPEN"
    return {"action": "process_assembly", "status": status, "counts": counts}


def report_row(group_by: str, name: str, counts: Counter[str]) -> Row:
    """One line of the report."""
    return {group_by: name, **{column: counts[column] for column in REPORT_COLUMNS}}


def render_report(rows: list[Row], payload: Row) -> tuple[bytes, str]:
    """The content and the media type of the report."""
    if payload["format"] == "json":
        content = {name: payload[name] for name in ("start_date", "end_date", "group_by")}
        return json.dumps(content | {"rows": rows}, ensure_ascii=False).encode(), "application/json"
    text = io.StringIO()
    writer = csv.DictWriter(text, [payload["group_by"], *REPORT_COLUMNS])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(), "text/csv"


def partition_items(table: str, partition: str, first: date, last: date) -> Iterator[Row]:
    """What a partition of by-tenant has of these days, both included, oldest first."""
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    return query_items(
        dynamodb,
        TableName=table,
        IndexName="by-tenant",
        KeyConditionExpression="tenant_id = :tenant AND created_at BETWEEN :first AND :end",
        ExpressionAttributeValues=to_item(
            {":tenant": partition, ":first": first.isoformat(), ":end": f"{end:%Y-%m-%d}"}
        ),
    )


def work(owner: str, request_id: str, invocation: Invocation) -> None:
    """Take a request and run it, with as many attempts as this invocation has time for."""
    while True:
        row = request_of(owner, request_id).take(invocation.lease(), time.time())
        if row is None:
            telemetry.debug("lease not granted")
            return
        telemetry.bind(action=row["action"])
        with telemetry.trace(row.get("trace_header")):
            wait = attempt(Job(row, invocation))
        if wait is None:
            return
        time.sleep(wait)


def attempt(job: Job) -> float | None:
    """Make one attempt. Returns the seconds until the next one, None if this was the last here."""
    row = job.row
    started = time.time()
    if row["attempts"] == 1:
        waited = started - parse_iso_time(row.get("run_at") or row["created_at"])
        telemetry.metric("QueueLatency", waited * 1000, "Milliseconds")
    try:
        with job, job.while_connected():
            if row.get("cancel_requested"):
                raise JobCancelledError
            if time.time() >= job.ends_at:
                raise JobTooLongError
            outcome = stored_result(job, run_of(row)(job))
        finish(job, RequestStatus.COMPLETED, outcome)
    except LeaseLostError:
        telemetry.warning("lease lost, stopped")
    except Exception as error:
        try:
            return settle(job, error)
        except LeaseLostError:
            telemetry.warning("lease lost, stopped")
    finally:
        elapsed = (time.time() - started) * 1000
        telemetry.metric("ProcessingLatency", elapsed, "Milliseconds", Action=row["action"])
        job.close()
    return None


def run_of(row: Row) -> Run:
    """The function that runs a request: one of this module, or of a package."""
    run: Run | None = ACTIONS.get(row["action"]) or load_action(RUNS, row["action"])
    if run is None:
        raise RequestError(ErrorCode.PROCESSING_FAILED, "The action is unknown to the worker")
    return run


def settle(job: Job, error: Exception) -> float | None:
    """End a request after a failed attempt, or return the seconds until the next one here."""
    if isinstance(error, AssemblyBusyError):
        follow(job, error.assembly_id)
        return None
    if isinstance(error, JobCancelledError):
        end_without_result(job, RequestStatus.CANCELLED, cancelled_body(), ok="ASSEMBLY_CANCELED")
        return None
    if isinstance(error, JobFailedError):
        error = RequestError(ErrorCode.PROCESSING_FAILED, str(error))
    if isinstance(error, RequestError):
        finish(job, RequestStatus.FAILED, {"error": error.body})
        return None
    if isinstance(error, JobWaitsError):
        # The sweeper finds it within a minute after that; it never begins early.
        until = max(math.ceil(error.until), int(time.time()))
        if error.callback is None:
            put_back(job, until - time.time(), keep=False, counts=False)
            return None
        job.drain()
        if not job.request.await_callback(
            job.invocation.id, error.callback, until, job.row["attempts"] - 1, time.time()
        ):
            hand_over(job)
        return None
    if isinstance(error, OutOfTimeError) and job.has_stored_step:
        hand_over(job)
        return None
    retryable = isinstance(error, OutOfTimeError | TransientError) or is_transient(error)
    telemetry.exception("attempt failed", error, attempt=job.row["attempts"], transient=retryable)
    if retryable and job.row["attempts"] < job.row["max_attempts"]:
        telemetry.metric("RequestRetried", Action=job.row["action"])
        wait = backoff_seconds(job.row["attempts"])
        here = job.invocation.remaining() > wait + MIN_WORK_SECONDS
        put_back(job, wait, keep=here)
        return wait if here else None
    fail(job, error, retryable)
    return None


def fail(job: Job, error: Exception, retryable: bool) -> None:
    """Fail a request that has no attempts left, or whose error is not transient."""
    if isinstance(error, OutOfTimeError):
        code, text = ErrorCode.TIMEOUT, "The job takes longer than a worker may run"
    elif isinstance(error, JobTooLongError):
        code, text = ErrorCode.TIMEOUT, f"The job takes longer than {MAX_JOB_SECONDS} seconds"
    elif isinstance(error, EventError | StepError | TransientError):
        code, text = ErrorCode.PROCESSING_FAILED, str(error)
    elif retryable:
        code, text = ErrorCode.SERVICE_UNAVAILABLE, "The job failed several times"
    else:
        code, text = ErrorCode.PROCESSING_FAILED, "The job failed"
    document_error = "TIMEOUT" if code == ErrorCode.TIMEOUT else "PROCESSING_ERROR"
    end_without_result(job, RequestStatus.FAILED, error_body(code, text), error=document_error)


def end_without_result(job: Job, status: RequestStatus, body: Row, **document_state: str) -> None:
    """End a request with `status` and the error `body`, and its assembly in the same way.

    If the assembly had already ended, the request ends as the assembly did, so that it agrees with
    the webhook.
    """
    document = end_assembly(job, message=body["message"], **document_state)
    if document is None:
        finish(job, status, {"error": body}, cause="service")
    else:
        finish(job, *outcome_of(job, document))


def outcome_of(job: Job, document: Row) -> tuple[RequestStatus, Row]:
    """The end of a request whose assembly has this ended document."""
    try:
        return RequestStatus.COMPLETED, stored_result(job, result_of(document))
    except JobCancelledError:
        return RequestStatus.CANCELLED, {"error": cancelled_body()}
    except RequestError as error:
        return RequestStatus.FAILED, {"error": error.body}


def end_assembly(job: Job, *, message: str, **state: str) -> Row | None:
    """End the document of a request that ends without a result.

    Returns the document if it had already ended; then its end may not have been announced.
    """
    row = job.row
    if "assembly_id" not in row:
        return None
    document = read_assembly(row["assembly_id"])
    if document is None:
        with suppress(LookupError):  # its payload is gone
            document = waiting().first(row, job.payload(), time.time())
    if document is None or document.get("request_id") != row["request_id"]:
        return None
    ended_before = is_terminal_assembly(document)
    if not ended_before:
        template = templates().get(document["template_id"])
        changes: Row = {"message": message, "updated_at": iso_time(time.time()), **state}
        if template is not None and template.webhook_url:
            changes["webhook"] = {"status": "pending", "attempts": 0}
        ending = ("lease_until", "current_step")
        try:
            document = write_assembly(
                dynamodb,
                ASSEMBLIES,
                row["assembly_id"],
                document["rev"],
                changes,
                time.time(),
                remove=ending,
                patient_until=job.patient_until,
            )
        except LeaseLostError:
            # A worker whose lease had run out has written: read again, it may have ended it.
            return end_assembly(job, message=message, **state)
    try:
        announce_end(job, document)
    except ClientError as error:
        if is_transient(error):
            raise
        telemetry.exception("end of the assembly not announced", error)
    return document if ended_before else None


def sweep(invocation: Invocation) -> Row:
    """Find requests whose lease has run out, or that are due, and requeue, start or end them.

    A shard of the index that can't be read is counted as `unread`. Raises the error if no shard can
    be read.
    """
    counts: Counter[str] = Counter()
    failure: Exception | None = None
    for shard in range(IN_FLIGHT_PARTITIONS):
        try:
            for key in overdue(f"lease-{shard}"):
                if invocation.remaining() < MIN_WORK_SECONDS:
                    break
                with telemetry.ids(request_id=key["request_id"]):
                    counts[sweep_safely(key["owner"], key["request_id"], invocation)] += 1
        except Exception as error:
            telemetry.metric("SweepFailed")
            telemetry.exception("shard not swept", error, shard=f"lease-{shard}")
            counts["unread"] += 1
            failure = error
    invocation.outbox.close(invocation.remaining() - ANSWER_SECONDS)
    if failure is not None and counts == {"unread": IN_FLIGHT_PARTITIONS}:
        raise failure
    return dict(counts)


def overdue(shard: str) -> Iterator[Row]:
    """Keys of the requests in a shard of the in-flight index whose lease has run out."""
    return query_items(
        dynamodb,
        TableName=REQUESTS,
        IndexName="in-flight",
        KeyConditionExpression="lease_shard = :shard AND lease_until <= :now",
        ExpressionAttributeValues=to_item({":shard": shard, ":now": int(time.time())}),
    )


def sweep_safely(owner: str, request_id: str, invocation: Invocation) -> str:
    """Like `sweep_one`, but returns `stuck` when that fails."""
    try:
        return sweep_one(owner, request_id, invocation)
    except LeaseLostError:
        return "moved"
    except Exception as error:
        telemetry.metric("SweepFailed")
        telemetry.exception("overdue request not dealt with", error)
        return "stuck"


def sweep_one(owner: str, request_id: str, invocation: Invocation) -> str:
    """Requeue or end one overdue request.

    Returns `requeued`, also if it was SCHEDULED, `moved` if another worker has changed it, or
    `failed` if it was ended: it has no attempts left, was cancelled, or its assembly had ended.
    """
    request = request_of(owner, request_id)
    row = read_item(dynamodb, REQUESTS, {"owner": owner, "request_id": request_id})
    if not row or row["status"] in TERMINAL_STATUSES or row["lease_until"] > time.time():
        return "moved"
    if row["status"] == RequestStatus.SCHEDULED:
        return "requeued" if request.start(time.time()) else "moved"
    if row["attempts"] >= row["max_attempts"]:
        taken = request.take_over(row, invocation.lease(), time.time())
        if taken is None:
            return "moved"
        with telemetry.trace(row.get("trace_header")):
            job = Job(taken, invocation, invocation.outbox)
            if taken.get("cancel_requested"):
                settle(job, JobCancelledError())
            else:
                fail(job, OutOfTimeError(), retryable=True)
            telemetry.warning("request ended after its last lease ran out")
        return "failed"
    if not request.park(row, time.time()) or not request.requeue(time.time()):
        return "moved"
    telemetry.metric("RequestRequeued")
    telemetry.info("request requeued", status=row["status"])
    return "requeued"


def give_back(message: QueuedRequest) -> None:
    """Show a message again after a wait; if that fails, the sweeper finds its request."""
    try:
        sqs().change_message_visibility(
            QueueUrl=JOBS_QUEUE_URL,
            ReceiptHandle=message.receipt,
            VisibilityTimeout=math.ceil(backoff_seconds(min(message.receives, 10))),
        )
    except Exception as error:
        telemetry.exception("message not given back", error)


def consume(record: Row, invocation: Invocation) -> str | None:
    """Work on the request of a message; the message's id if it must come again."""
    try:
        message = QueuedRequest.of(record)
    except ValueError as error:
        telemetry.exception("record can't be parsed", error)
        telemetry.metric("RecordRefused")
        body = unreadable_record(record, error)
        sqs().send_message(QueueUrl=FAILURES_QUEUE_URL, MessageBody=body)
        return None
    tenant_id, user_id = split_owner_key(message.owner)
    with telemetry.ids(request_id=message.request_id, tenant_id=tenant_id, user_id=user_id):
        if invocation.remaining() >= MIN_WORK_SECONDS:
            try:
                if message.is_due:
                    request_of(message.owner, message.request_id).start(time.time())
                else:
                    work(message.owner, message.request_id, invocation)
                return None
            except Exception as error:
                telemetry.exception("record not processed", error)
        give_back(message)
        return message.message_id


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    invocation = Invocation.of(context)
    if checked_input(event).get("sweep") == "leases":
        counts = sweep(invocation)
        telemetry.info("leases swept", **counts)
        return {"swept": counts}
    records = event.get("Records")
    if not isinstance(records, list) or any(map(is_change, records)):
        raise ValidationError("Records", "messages of the queue are required")
    # Messages for one request in turn: for a lease, two threads of an invocation are one worker.
    alike: defaultdict[str, list[Any]] = defaultdict(list)
    for record in records:
        alike[str(record.get("body") if isinstance(record, dict) else record)].append(record)
    with ThreadPoolExecutor(len(alike) or 1) as pool:
        kept = pool.map(lambda group: [consume(each, invocation) for each in group], alike.values())
        names = [name for group in kept for name in group if name is not None]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}
