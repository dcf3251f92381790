"""Has each request that may run be run: by a message in the queue `jobs`, or by the job flow.

Triggers: the stream of `requests` (a request became PENDING or SCHEDULED, or one of a lane ended),
batches of at most 100 records; a schedule with `{"sweep": "lanes"}` that frees the slots of
requests that have ended and starts those that wait.
A request with a lane needs one of its slots. Without one it waits in the index `waiting`, by
priority and age, until another request of the lane ends. The message of a request that is due
within 15 minutes is delayed until then; one that is due later is left to the sweep of processor.
A request with an `execution` is one of the job flow, which is started under that name, once. If it
was started before, `report-job` looks whether it has ended.
Result: batch item failures, from the first record that was not dealt with; a count for a sweep.
Errors: ValidationError for an event that is neither; errors of SQS when an unreadable record can't
be kept. The stream then delivers the batch again, and a message that is sent twice is harmless.
A record that can't be parsed goes to the failure queue. Reads and writes `lanes`, and of `requests`
what says whether a request waits.
"""

import json
import math
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Any, Self

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    IN_FLIGHT_SHARDS,
    PICK_UP_SECONDS,
    TERMINAL_STATUSES,
    RequestStatus,
    ValidationError,
    checked_input,
    from_item,
    from_value,
    is_request_id,
    pages,
    query_items,
    read_item,
    request_key,
    requests_table,
    s3_options,
    split_owner_key,
    split_request_key,
    to_item,
    unreadable_record,
)
from jobplane_keys.lanes import (
    MAX_LANE_RATE,
    MAX_LANE_SLOTS,
    WAITING_CHECK_SECONDS,
    lane_rows,
    lanes_table,
    split_lane_row,
    waiting_shard,
    waiting_shards,
)
from jobplane_leases import Lane, RequestLease, read_payload, remove_lane_row
from jobplane_telemetry import Telemetry

TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)
REQUESTS = requests_table(TABLE_PREFIX)
LANES = lanes_table(TABLE_PREFIX)
IN_FLIGHT_PARTITIONS = int(os.environ.get("IN_FLIGHT_SHARDS", IN_FLIGHT_SHARDS))
JOBS_QUEUE_URL = os.environ["JOBS_QUEUE_URL"]
FAILURES_QUEUE_URL = os.environ["FAILURES_QUEUE_URL"]
FILES_BUCKET = os.environ["FILES_BUCKET"]
STATE_MACHINE_ARN = os.environ["STATE_MACHINE_ARN"]
REPORT_JOB = os.environ["REPORT_JOB_FUNCTION"]

MESSAGES_PER_CALL = 10  # SQS takes no more
MAX_DELAY_SECONDS = 900  # SQS delays no longer
# An index may show a request later than its row does. So long, a lane whose queue seems empty is
# taken to have one.
QUEUE_LAG_SECONDS = 3.0
QUEUE_LOOKS_SECONDS = (0.1, 0.3)
# So many lanes of a batch are looked at again; the sweep finds what others missed.
QUEUES_LOOKED_AT = 10
# With less time than this left, a sweep ends.
SWEEP_RESERVE_SECONDS = 10.0
ATTRIBUTES = (
    "owner",
    "request_id",
    "status",
    "lease_until",
    "trace_header",
    "lane",
    "lane_limit",
    "lane_rate",
    "waiting_order",
    "execution",
)
SEQUENCE_NUMBER = re.compile(r"[!-~]{1,128}")
MESSAGE_GROUP = re.compile(r"[!-~]{1,128}")  # what SQS allows

session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
telemetry = Telemetry("dispatch")
sqs: Any = session.create_client("sqs", config=config)


class UnreadableRecordError(ValueError):
    """A record that is not of the stream of `requests`."""


class NotSentError(Exception):
    """SQS did not take a message."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a stream record, or an entry of the index `waiting`, says of a request."""

    owner: str
    request_id: str
    trace_header: str | None = None
    lane: str | None = None
    lane_limit: int = 0
    lane_rate: int = 0
    order: str = ""
    execution: str | None = None
    """The name of the job flow's execution that runs it."""
    due: int = 0
    """Of a SCHEDULED request: the epoch seconds from which it is due."""
    starts_at: float = 0.0
    """Of a lane with a rate: its start time."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        trace_header, lane = row.get("trace_header"), row.get("lane")
        execution = row.get("execution")
        limit = number_in(row, "lane_limit", MAX_LANE_SLOTS)
        return cls(
            owner=row["owner"],
            request_id=row["request_id"],
            trace_header=trace_header if isinstance(trace_header, str) else None,
            lane=lane if isinstance(lane, str) and limit else None,
            lane_limit=limit,
            lane_rate=number_in(row, "lane_rate", MAX_LANE_RATE),
            order=str(row.get("waiting_order", "")),
            execution=execution if isinstance(execution, str) else None,
            due=int(row["lease_until"]) if row.get("status") == RequestStatus.SCHEDULED else 0,
        )

    @property
    def key(self) -> str:
        return request_key(self.owner, self.request_id)

    @property
    def row(self) -> RequestLease:
        return RequestLease(client("dynamodb"), REQUESTS, self.owner, self.request_id)

    def entry(self, number: int, now: float) -> dict[str, Any]:
        """The message, as an entry of SendMessageBatch."""
        body: dict[str, Any] = {"owner": self.owner, "request_id": self.request_id}
        if self.due and self.lane:
            body["due"] = True
        entry: dict[str, Any] = {
            "Id": str(number),
            "MessageBody": json.dumps(body),
            "MessageGroupId": message_group(self.owner),
        }
        if (wait := math.ceil(max(self.due, self.starts_at) - now)) > 0:
            entry["DelaySeconds"] = min(MAX_DELAY_SECONDS, wait)
        if self.trace_header:
            trace = {"DataType": "String", "StringValue": self.trace_header}
            entry["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
        return entry


@dataclass(frozen=True, slots=True)
class Change:
    """A record of the stream: a request that became PENDING or SCHEDULED, or that ended."""

    sequence: str
    request: Request
    has_ended: bool

    @classmethod
    def of(cls, record: Any) -> Self:
        """Raises UnreadableRecordError if the record does not name a request."""
        try:
            change = record["dynamodb"]
            sequence, image = change["SequenceNumber"], change["NewImage"]
            row = {name: from_value(image[name]) for name in ATTRIBUTES if is_plain(image, name)}
            request = Request.of(row)
            message_group(request.owner).encode()
        except Exception as error:
            raise UnreadableRecordError("it does not name a request") from error
        if not isinstance(sequence, str) or not SEQUENCE_NUMBER.fullmatch(sequence):
            raise UnreadableRecordError("its sequence number is malformed")
        if not is_request_id(request.request_id):
            raise UnreadableRecordError("its request_id is malformed")
        return cls(sequence, request, row.get("status") in TERMINAL_STATUSES)


def is_plain(image: Mapping[str, Any], name: str) -> bool:
    """Whether an attribute is a text or a number."""
    value = image.get(name)
    return isinstance(value, dict) and bool(value.keys() & {"S", "N"})


def number_in(row: Mapping[str, Any], name: str, most: int) -> int:
    """A number from 1 to `most` of a row; 0 for anything else."""
    value = row.get(name)
    return value if isinstance(value, int) and 0 < value <= most else 0


@cache
def client(service: str) -> Any:
    """The client of a service that most requests do not need, made for the first that does."""
    options = s3_options(os.environ) if service == "s3" else {}
    return session.create_client(service, config=Config(**CLIENT_OPTIONS, **options))


def get_object(key: str) -> bytes:
    """The content of an object of the files bucket."""
    content: bytes = client("s3").get_object(Bucket=FILES_BUCKET, Key=key)["Body"].read()
    return content


def run_in_flow(request: Request) -> bool:
    """Start the execution of a request that waits; False if the stage has no job flow.

    Raises errors of AWS's services.
    """
    from jobplane_leases.instructions import flow_input  # not needed for most requests

    key = {"owner": request.owner, "request_id": request.request_id}
    row = read_item(client("dynamodb"), REQUESTS, key)
    if row is None or row["status"] != RequestStatus.PENDING:
        return True
    payload = json.loads(read_payload(client("dynamodb"), REQUESTS, row, get_object))
    stepfunctions = client("stepfunctions")
    try:
        stepfunctions.start_execution(
            stateMachineArn=STATE_MACHINE_ARN,
            name=row["execution"],
            input=flow_input(request.owner, request.request_id, payload, FILES_BUCKET),
            **({"traceHeader": request.trace_header} if request.trace_header else {}),
        )
    except stepfunctions.exceptions.StateMachineDoesNotExist:
        return False
    except stepfunctions.exceptions.ExecutionAlreadyExists:
        # It may have ended, and the event of its end be lost.
        arn = STATE_MACHINE_ARN.replace(":stateMachine:", ":execution:", 1)
        event = {"operation": "settle", "executionArn": f"{arn}:{row['execution']}"}
        client("lambda").invoke(
            FunctionName=REPORT_JOB, InvocationType="Event", Payload=json.dumps(event).encode()
        )
    else:
        telemetry.info("execution started", request_id=request.request_id)
    return True


def message_group(owner: str) -> str:
    """The tenant's id, or a digest of it if SQS does not allow the id as a message group."""
    tenant_id, _ = split_owner_key(owner)
    if MESSAGE_GROUP.fullmatch(tenant_id):
        return tenant_id
    return sha256(tenant_id.encode()).hexdigest()


def keep_unreadable(record: Any, error: UnreadableRecordError) -> None:
    """Put a record that can't be parsed into the failure queue."""
    telemetry.exception("record can't be parsed", error)
    telemetry.metric("RecordRefused")
    sqs.send_message(QueueUrl=FAILURES_QUEUE_URL, MessageBody=unreadable_record(record, error))


def send(requests: Sequence[Request]) -> list[Request]:
    """Send a message for each request; those that were not taken, after which none was sent."""
    for start in range(0, len(requests), MESSAGES_PER_CALL):
        batch = requests[start : start + MESSAGES_PER_CALL]
        now = time.time()
        entries = [request.entry(number, now) for number, request in enumerate(batch)]
        try:
            answer = sqs.send_message_batch(QueueUrl=JOBS_QUEUE_URL, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            telemetry.exception("messages not sent", error)
            answer = {}
        sent = {entry["Id"] for entry in answer.get("Successful", ())}
        done = [request for number, request in enumerate(batch) if str(number) in sent]
        if done:
            telemetry.debug("requests dispatched", request_ids=[each.request_id for each in done])
        if len(done) < len(batch):
            telemetry.error("some messages not sent", refused=answer.get("Failed"))
            return [each for each in requests[start:] if each not in done]
    return []


def serve(
    lane: Lane, started: Sequence[Request], ended: Sequence[Request], pauses: Iterable[float]
) -> None:
    """Free the slots of a lane's requests that ended, and start those that may run.

    Raises NotSentError, and errors of DynamoDB.
    """
    waiting_at = lane.leave([request.key for request in ended]) if ended else None
    waiting = list(started)
    early: list[Request] = []
    if started:
        entered = set(lane.enter([request.key for request in started]))
        early = start(lane, [request for request in started if request.key in entered])
        waiting = [each for each in started if each.key not in entered or each in early]
    waiting = [
        each
        for each in waiting
        if each.row.wait_for_lane(
            shard_of(each), time.time(), "rate" if each in early else "lane_full"
        )
    ]
    if waiting:
        # Afterwards, so that the mark is not older than what it stands for.
        lane.set_waiting(time.time())
        telemetry.metric("RequestWaits", len(waiting))
    if waiting or waiting_at is not None:
        start_waiting(lane, waiting, pauses)


def start(lane: Lane, requests: Sequence[Request]) -> list[Request]:
    """Send a message for each request that has a slot; those that the rate does not let start now,
    which have no slot any more. Raises NotSentError.
    """
    times = [lane.reserve(each.row, time.time()) if lane.rate else 0.0 for each in requests]
    found = list(zip(requests, times, strict=True))
    early = [request for request, at in found if at is None]
    if early:
        lane.leave([request.key for request in early])
    if send([replace(request, starts_at=at) for request, at in found if at is not None]):
        raise NotSentError
    return early


def shard_of(request: Request) -> str:
    """The partition of the index `waiting` for a request with a lane."""
    return waiting_shard(str(request.lane), request.key)


def start_waiting(lane: Lane, known: Sequence[Request] = (), pauses: Iterable[float] = ()) -> None:
    """Start the next requests of a lane's queue, as many as it has free slots.

    `known`: requests that wait, which the index may not show yet. `pauses`: the seconds to wait
    before each further look at a queue that seems empty.
    """
    for pause in (*pauses, None):
        # Before the look: what begins to wait during it must find `waiting_at` young.
        looked_at = time.time()
        state = lane.read(looked_at)
        if state.waiting_at is None and known:
            state = state._replace(waiting_at=lane.set_waiting(time.time()))
        queue = first_in_queue(lane.name, known, state.free + len(state.slots))
        held = [each for each in queue if each.key in state.slots]
        first = [each for each in queue if each.key not in state.slots][: state.free]
        entered = set(lane.enter([each.key for each in first], is_next=True)) if first else set()
        running = [*held, *(each for each in first if each.key in entered)]
        early = start(lane, running)
        sent = [each for each in running if each not in early]
        gone = [each.key for each in sent if not each.row.leave_queue(time.time())]
        if gone:  # cancelled while the index still showed them
            lane.leave(gone)
        if early:
            return
        if gone:
            continue
        if len(first) >= state.free or state.waiting_at is None:
            return
        if looked_at - state.waiting_at / 1000 > QUEUE_LAG_SECONDS:
            lane.clear_waiting(state.waiting_at)
            return
        if pause is None:
            return
        time.sleep(pause)


def first_in_queue(lane: str, known: Iterable[Request], most: int) -> list[Request]:
    """The first requests that wait for a lane, by priority and age."""
    found = {request.key: request for request in known}
    for shard in waiting_shards(lane):
        answer = client("dynamodb").query(
            TableName=REQUESTS,
            IndexName="waiting",
            KeyConditionExpression="waiting_lane = :shard",
            ExpressionAttributeValues=to_item({":shard": shard}),
            Limit=max(1, most),
        )
        for item in answer["Items"]:
            request = Request.of(from_item(item))
            found.setdefault(request.key, request)
    return sorted(found.values(), key=lambda request: request.order)


def run_all_in_flow(changes: Iterable[Change]) -> tuple[list[str], list[Change]]:
    """Start executions. Returns the sequence numbers of records that must come again, and the
    requests for which there is no job flow: processor ends them with an error.
    """
    failed: list[str] = []
    without_flow: list[Change] = []
    for change in changes:
        try:
            if not run_in_flow(change.request):
                without_flow.append(change)
        except (BotoCoreError, ClientError, LookupError) as error:
            telemetry.exception("execution not started", error)
            failed.append(change.sequence)
    return failed, without_flow


def dispatch(records: Sequence[Any]) -> list[str]:
    """Deal with a batch of records; the sequence numbers of those that must come again."""
    plain: list[Change] = []
    flows: list[Change] = []
    lanes: defaultdict[str, list[Change]] = defaultdict(list)
    latest = time.time() + MAX_DELAY_SECONDS
    for record in records:
        try:
            change = Change.of(record)
        except UnreadableRecordError as error:
            keep_unreadable(record, error)
            continue
        if change.request.execution:
            # One that is due later is left to the sweep of processor.
            if not (change.has_ended or change.request.due):
                flows.append(change)
        elif change.request.due:
            plain += [change] if change.request.due <= latest else []
        elif change.request.lane is not None:
            lanes[change.request.lane].append(change)
        elif not change.has_ended:
            plain.append(change)
    failed, without_flow = run_all_in_flow(flows)
    plain += without_flow
    unsent = send([change.request for change in plain])
    failed += [change.sequence for change in plain if change.request in unsent]
    for number, (name, changes) in enumerate(lanes.items()):
        pauses = QUEUE_LOOKS_SECONDS if number < QUEUES_LOOKED_AT else ()
        newest = changes[-1].request
        lane = Lane(client("dynamodb"), LANES, name, newest.lane_limit, newest.lane_rate)
        ended = {change.request.key: change.request for change in changes if change.has_ended}
        started = [change.request for change in changes if change.request.key not in ended]
        try:
            serve(lane, started, [*ended.values()], pauses)
        except (BotoCoreError, ClientError, NotSentError) as error:
            telemetry.exception("lane not served", error, lane=name)
            failed += [change.sequence for change in changes]
    return failed


def sweep(context: Any) -> dict[str, int]:
    """Free the slots of requests that have ended, start those that wait, and drop empty rows.

    Counts the rows and the freed slots. The error of a lane that could not be swept is raised
    after the others.
    """
    counts: Counter[str] = Counter()
    failure: Exception | None = None
    lanes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for page in pages(client("dynamodb").scan, {"TableName": LANES, "ConsistentRead": True}):
        for item in page["Items"]:
            row = from_item(item)
            lanes[split_lane_row(row["lane"])[0]].append(row)
            counts["rows"] += 1
    until = in_flight() if lanes else {}
    # While a request waits for a lane, its `lease_until` is an hour away at first.
    far = time.time() + 2 * PICK_UP_SECONDS
    waiting = frozenset(key for key, end in until.items() if end > far)
    for name in random.sample([*lanes], len(lanes)):  # time may end before the last one
        if context.get_remaining_time_in_millis() / 1000 < SWEEP_RESERVE_SECONDS:
            break
        try:
            counts["freed"] += sweep_lane(name, lanes[name], until, waiting)
        except (BotoCoreError, ClientError, NotSentError) as error:
            telemetry.exception("lane not swept", error, lane=name)
            failure = error
    if failure is not None:
        raise failure
    return dict(counts)


def in_flight() -> dict[str, int]:
    """`lease_until` of all requests that have not ended by their keys, as the index shows them.

    Without those that are due in more than an hour.
    """
    hour = int(time.time()) + WAITING_CHECK_SECONDS
    return {
        request_key(row["owner"], row["request_id"]): row["lease_until"]
        for shard in range(IN_FLIGHT_PARTITIONS)
        for row in query_items(
            client("dynamodb"),
            TableName=REQUESTS,
            IndexName="in-flight",
            KeyConditionExpression="lease_shard = :shard AND lease_until <= :hour",
            ExpressionAttributeValues=to_item({":shard": f"lease-{shard}", ":hour": hour}),
        )
    }


def sweep_lane(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    running: Container[str],
    waiting: frozenset[str],
) -> int:
    """Bring one lane into order; the number of slots that were freed.

    `running` are the requests that have not ended, `waiting` those of them that wait for a lane.
    One that has a slot all the same got no message. And one may wait although no row says so, when
    the index showed it too late.
    """
    numbers = {row["lane"]: split_lane_row(row["lane"])[1] for row in rows}
    # The first row has the limit of the newest request that began to wait.
    first = min(rows, key=lambda row: numbers[row["lane"]])
    limit = first["lane_limit"]
    lane = Lane(client("dynamodb"), LANES, name, limit, first.get("lane_rate", 0))
    beyond = [row for row in rows if numbers[row["lane"]] >= len(lane_rows(limit))]
    slots = [key for row in rows for key in row.get("slots", ())]
    ended = [key for key in slots if key not in running and has_ended(key)]
    if ended:
        telemetry.warning("slots of ended requests freed", lane=name, count=len(ended))
        replace(lane, limit=max(row["lane_limit"] for row in rows)).leave(ended)
    waits = any("waiting_at" in row for row in rows if row not in beyond)
    known = [Request(*split_request_key(key)) for key in slots if key in waiting]
    if waiting and not waits:
        known += first_in_queue(name, (), 1)
    if waits or known:
        start_waiting(lane, known)
    for row in rows:
        if row in beyond or not row.keys() & {"slots", "waiting_at", "next_start"}:
            remove_lane_row(client("dynamodb"), LANES, row["lane"], is_beyond=row in beyond)
    return len(ended)


def has_ended(key: str) -> bool:
    """Whether a request has ended, or does not exist."""
    owner, request_id = split_request_key(key)
    row = read_item(
        client("dynamodb"), REQUESTS, {"owner": owner, "request_id": request_id}, {"status"}
    )
    return row is None or row["status"] in TERMINAL_STATUSES


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if checked_input(event).get("sweep") == "lanes":
        counts = sweep(context)
        telemetry.info("lanes swept", **counts)
        return {"swept": counts}
    records = event.get("Records")
    if not isinstance(records, list):
        raise ValidationError("Records", "a list is required")
    failed = dispatch(records)
    return {"batchItemFailures": [{"itemIdentifier": sequence} for sequence in failed]}
