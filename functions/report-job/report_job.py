"""Writes what becomes of a job of the job flow to its request, and sends it to the listeners.

Triggers: Step Functions, when an execution has its claim (`begin`); job workers (`report`); the
EventBridge rule on ends of executions; `dispatch`, for an execution whose end may not have been
written (`settle`).
Input: `{operation: "begin" | "report" | "settle", …}`, or the rule's event. `request` is
`{owner, requestId}`; an execution that was started without one is left alone.
Result: `{begun}`, `{accepted, …}` or `{ended}`. Errors: ValidationError; LeaseLostError if the
request is changed again and again.
While a worker has the job, the request's `lease_owner` is the claim and its fence: a worker with an
older fence is refused. Every write is conditional, and the end is written once. Reads and writes
`requests`, reads `subscriptions`, reads and clears `connections`, stores large results in `jobs/`.
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    MAX_MESSAGE_BYTES,
    TERMINAL_STATUSES,
    ErrorCode,
    RequestStatus,
    ValidationError,
    checked_choice,
    checked_fence,
    checked_id,
    checked_input,
    checked_number,
    end_message,
    error_body,
    is_request_id,
    iso_time,
    json_object,
    link_signer,
    read_item,
    request_of_message,
    requests_table,
    s3_options,
    server_message,
    shown_result,
    split_owner_key,
)
from jobplane_leases import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    EventError,
    Lease,
    LeaseLostError,
    RequestLease,
    event_text,
    store_events,
)
from jobplane_sockets import MANAGEMENT_OPTIONS, Listeners, Outbox
from jobplane_telemetry import Telemetry

TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)
REQUESTS = requests_table(TABLE_PREFIX)
FILES_BUCKET = os.environ["FILES_BUCKET"]
WEBSOCKET_ENDPOINT = os.environ["WEBSOCKET_ENDPOINT"]

MAX_SECONDS = 24 * 3600
MAX_AFTER = 1_000_000
MAX_TEXT_LENGTH = 1000
# The flow may send a job again a few times before its time begins.
MARGIN_SECONDS = 600
MAX_TRIES = 5
POST_SECONDS = 10.0
LINK_SECONDS = 3600
LINKS = ("result_url_key",)
EXECUTION_ARN = re.compile(r"arn:[!-~]{1,2044}")
UNKNOWN_EXECUTION = frozenset({"ExecutionDoesNotExist", "InvalidArn", "ValidationException"})
ENDED = "Step Functions Execution Status Change"

session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
telemetry = Telemetry("report-job")

type Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker's right to a job: its claim, and the fence, which grows when another takes over."""

    claim_id: str
    fence: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Holder":
        return cls(checked_id(event, "claimId"), checked_fence(event))

    @classmethod
    def in_row(cls, row: Mapping[str, Any]) -> "Holder | None":
        """The one that has the request's lease."""
        claim_id, separator, fence = str(row.get("lease_owner", "")).rpartition("/")
        return cls(claim_id, int(fence)) if separator else None

    @property
    def name(self) -> str:
        """The owner of a lease."""
        return f"{self.claim_id}/{self.fence}"


# Has the lease of a request that ends before any worker had it.
NOBODY = Holder("none", 0)


@cache
def s3() -> Any:
    """The client of the files bucket."""
    return session.create_client("s3", config=Config(**CLIENT_OPTIONS, **s3_options(os.environ)))


@cache
def stepfunctions() -> Any:
    """The client of Step Functions."""
    return session.create_client("stepfunctions", config=config)


@cache
def management() -> Any:
    """The client of the management API of connections."""
    return session.create_client(
        "apigatewaymanagementapi",
        endpoint_url=WEBSOCKET_ENDPOINT,
        config=Config(**MANAGEMENT_OPTIONS),
    )


# A link to an object of the files bucket, from its key.
sign_download = link_signer(s3, FILES_BUCKET, LINK_SECONDS)


def request_of(event: Mapping[str, Any]) -> RequestLease:
    """The request that an event names. Raises ValidationError."""
    named = json_object(event.get("request"))
    owner, request_id = named.get("owner"), named.get("requestId")
    try:
        split_owner_key(owner if isinstance(owner, str) else "")
    except ValueError as error:
        raise ValidationError("request.owner", "the owner of a request is required") from error
    if not is_request_id(request_id):
        raise ValidationError("request.requestId", "the id of a request is required")
    return RequestLease(dynamodb, REQUESTS, str(owner), str(request_id))


def read(request: RequestLease) -> Row:
    """The request's row; {} if it does not exist."""
    key = {"owner": request.owner, "request_id": request.request_id}
    return read_item(dynamodb, REQUESTS, key) or {}


def is_over(row: Mapping[str, Any]) -> bool:
    return not row or row["status"] in TERMINAL_STATUSES


def told_events(event: Mapping[str, Any]) -> list[str]:
    """The events of a report as JSON text. Raises ValidationError."""
    events = event.get("events", [])
    if not isinstance(events, list) or len(events) > MAX_BATCH_EVENTS:
        raise ValidationError("events", f"a list of at most {MAX_BATCH_EVENTS} is required")
    try:
        texts = [*map(event_text, events)]
    except EventError as error:
        raise ValidationError("events", str(error)) from error
    if sum(len(text.encode()) for text in texts) > MAX_BATCH_BYTES:
        raise ValidationError("events", f"at most {MAX_BATCH_BYTES} bytes together are possible")
    return texts


def told_progress(event: Mapping[str, Any]) -> tuple[float, str] | None:
    """The percentage and the text of a report, None without. Raises ValidationError."""
    if "percentage" not in event:
        return None
    percentage, message = event["percentage"], event.get("message", "")
    is_number = isinstance(percentage, int | float) and not isinstance(percentage, bool)
    if not is_number or not 0 <= percentage <= 100:
        raise ValidationError("percentage", "a number from 0 to 100 is required")
    if not isinstance(message, str):
        raise ValidationError("message", "a text is required")
    return round(percentage, 2), message[:MAX_TEXT_LENGTH]


def end_of(found: Mapping[str, Any]) -> Row:
    """How the request of an execution that has ended ends: its `status`, with `result` as a JSON
    value or `error`. `found` is what DescribeExecution says.
    """
    match found["status"]:
        case "SUCCEEDED":
            return end_of_success(json.loads(found["output"]))
        case "TIMED_OUT":
            return failed(ErrorCode.TIMED_OUT, "The job was not done within two days")
        case "ABORTED":
            return failed(ErrorCode.PROCESSING_FAILED, "The job was stopped by an operator")
    match found.get("error"):
        case "TimedOut":
            kind = json_object(parsed(found.get("cause"))).get("kind")
            text = "The worker has stopped" if kind == "heartbeat_lost" else "The job's time is up"
            return failed(ErrorCode.TIMED_OUT, text, kind=kind)
        case "WorkspaceBusy":
            return failed(ErrorCode.WORKSPACE_BUSY, "Another job has kept the workspace")
        case "ValidationError":
            cause = json_object(parsed(found.get("cause"))).get("cause")
            # Of a function, with its stack; or of the flow.
            reason = json_object(parsed(cause)).get("errorMessage", cause)
            return failed(ErrorCode.VALIDATION_ERROR, str(reason)[:MAX_TEXT_LENGTH])
        case error:
            return failed(ErrorCode.PROCESSING_FAILED, "The job failed", error=error)


def end_of_success(output: Row) -> Row:
    match output["outcome"]:
        case "Completed":
            result: Row = {"outcome": "Completed", "result": output["result"]}
            if stored := output.get("resultObject"):
                result = {"outcome": "Completed", "result_url_key": stored["key"]}
            return {"status": RequestStatus.COMPLETED, "result": result}
        case "Joined":
            holder = request_of_message(output["holder"]["messageId"])
            result = {"outcome": "Joined", "request_id": holder}
            return {"status": RequestStatus.COMPLETED, "result": result}
        case "Interrupted":
            cause = json_object(parsed(output["cause"]))
            details = {"thread": cause.get("newThreadId"), "partial": cause.get("partial")}
            return failed(ErrorCode.INTERRUPTED, "Another thread took the workspace", **details)
    return failed(ErrorCode.CANCELLED, "Cancelled")


def failed(code: ErrorCode, message: str, **details: Any) -> Row:
    known = {name: value for name, value in details.items() if value is not None}
    error = error_body(code, message, **({"details": known} if known else {}))
    return {"status": RequestStatus.FAILED, "error": error}


def parsed(text: Any) -> Any:
    """A JSON text's value; None if it is not JSON."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def post(row: Mapping[str, Any], message: Row) -> None:
    """Post a message to the request's listeners; an endpoint that does not answer is left."""
    outbox = Outbox()
    audience = Listeners(
        dynamodb, TABLE_PREFIX, row, on_error=telemetry.exception, on_answer=outbox.answered
    )

    def send() -> None:
        delivery = audience.send(management(), message, row.get("subscriber_count", 0))
        if delivery.failed:
            telemetry.warning("message not delivered", connections=delivery.failed)

    outbox.put(send)
    if not outbox.close(POST_SECONDS):
        telemetry.warning("message not delivered in time")


def stored_result(row: Mapping[str, Any], result: Row) -> Row:
    """The attributes that hold a result. One that no message can carry is an object."""
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MAX_MESSAGE_BYTES:
        key = f"jobs/{row['execution']}/result.json"
        body = json.dumps(result["result"], ensure_ascii=False).encode()
        s3().put_object(Bucket=FILES_BUCKET, Key=key, Body=body, ContentType="application/json")
        text = json.dumps({"outcome": result["outcome"], "result_url_key": key})
    return {"result": text, "links": list(LINKS)}


def begin(event: Mapping[str, Any], now: float) -> Row:
    """The execution has the claim: the request is PROCESSING, unless it was cancelled."""
    request, holder = request_of(event), Holder.of(event)
    seconds = checked_number(event, "seconds", None, 1, MAX_SECONDS)
    lease = Lease(holder.name, int(now) + seconds + MARGIN_SECONDS)
    row = request.take(lease, now)
    if row is None:
        # An earlier call, whose answer was lost, may have begun it.
        row = read(request)
        return {"begun": not is_over(row) and row.get("lease_owner") == holder.name}
    telemetry.info("request begun")
    return {"begun": True}


def held(request: RequestLease, holder: Holder, now: float) -> Row | None:
    """The row of a request that this worker has, or takes over; None if it has it no more."""
    for _ in range(MAX_TRIES):
        row = read(request)
        if is_over(row):
            return None
        known = Holder.in_row(row)
        if known == holder:
            return row
        if known is not None and (known.claim_id != holder.claim_id or known.fence > holder.fence):
            return None
        until = max(row["lease_until"], int(now) + MARGIN_SECONDS)
        lease = Lease(holder.name, until)
        # The sweeper has taken the request from its worker, or a worker has taken the job over.
        taken = request.take(lease, now) if known is None else request.take_over(row, lease, now)
        if taken is not None:
            return taken
    raise LeaseLostError(request.request_id)


def report(event: Mapping[str, Any], now: float) -> Row:
    """Store and send a worker's progress and events.

    `after`: how many events the request has without these; so a repetition stores none twice.
    """
    request, holder = request_of(event), Holder.of(event)
    progress, texts = told_progress(event), told_events(event)
    after = checked_number(event, "after", -1, 0, MAX_AFTER)
    row = held(request, holder, now)
    if row is None:
        return {"accepted": False, "cancelRequested": False, "eventCount": 0}
    count = row.get("event_count", 0)
    try:
        if texts and after in {-1, count}:
            counts = store_events(request, holder.name, row, texts, now)
            row, first, count = row | counts, count + 1, counts["event_count"]
            events = [json.loads(text) for text in texts]
            post(
                row,
                server_message(
                    "event", request.request_id, now, first=first, events=events, gap=False
                ),
            )
        if progress is not None:
            row = store_progress(request, holder, row, progress, now)
    except EventError as error:
        raise ValidationError("events", str(error)) from error
    except LeaseLostError:
        return {"accepted": False, "cancelRequested": False, "eventCount": count}
    is_cancelled = row.get("cancel_requested", False)
    return {"accepted": True, "cancelRequested": is_cancelled, "eventCount": count}


def store_progress(
    request: RequestLease, holder: Holder, row: Row, progress: tuple[float, str], now: float
) -> Row:
    """Store and send progress; its percentage never falls. Raises LeaseLostError."""
    before = row.get("progress") or {}
    percentage = max(progress[0], before.get("percentage", 0))
    shown = {"seq": before.get("seq", 0) + 1, "percentage": percentage, "message": progress[1]}
    lease = Lease(holder.name, row["lease_until"])
    row = request.renew(lease, now, shown | {"at": iso_time(now)}, extend=False)
    post(row, server_message("progress", request.request_id, now, **shown))
    return row


def settle(event: Mapping[str, Any], now: float) -> Row:
    """End the request of an execution that has ended, if it has not."""
    arn, text = event.get("executionArn"), event.get("input")
    if not isinstance(arn, str) or not EXECUTION_ARN.fullmatch(arn):
        raise ValidationError("executionArn", "the ARN of an execution is required")
    # EventBridge leaves out a large input.
    if text is not None and "request" not in json_object(parsed(text)):
        return {"ended": False}
    try:
        found = stepfunctions().describe_execution(executionArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] not in UNKNOWN_EXECUTION:
            raise
        return {"ended": False}
    given = json_object(parsed(found["input"]))
    if found["status"] == "RUNNING" or "request" not in given:
        return {"ended": False}
    request = request_of(given)
    with telemetry.ids(request_id=request.request_id):
        return {"ended": end(request, end_of(found), now)}


def end(request: RequestLease, outcome: Row, now: float) -> bool:
    """Write the end of a request, and send it; False if it had ended."""
    for _ in range(MAX_TRIES):
        row = read(request)
        if is_over(row):
            return False
        if row["status"] != RequestStatus.PROCESSING:
            taken = request.take(Lease(NOBODY.name, int(now) + MARGIN_SECONDS), now)
            if taken is None:
                continue
            row = taken
        changes: Row = {"seq": (row.get("progress") or {}).get("seq", 0) + 1, **outcome}
        if "result" in outcome:
            changes |= stored_result(row, outcome["result"])
        elif row.get("cancel_requested"):
            body = error_body(ErrorCode.CANCELLED, "Cancelled")
            changes |= {"status": RequestStatus.CANCELLED, "error": body}
        try:
            row = request.finish(row["lease_owner"], changes, now)
        except LeaseLostError:  # another worker has reported meanwhile
            continue
        status = changes["status"]
        if status == RequestStatus.FAILED:
            telemetry.metric("RequestFailed", Cause="request")
        else:
            telemetry.metric(f"Request{status.capitalize()}", Action=row["action"])
        telemetry.info("request ended", status=status)
        shown = shown_result(row, row["result"], sign_download) if "result" in row else None
        post(row, end_message(row, now, shown))
        return True
    raise LeaseLostError(request.request_id)


OPERATIONS: Mapping[str, Callable[[Mapping[str, Any], float], Row]] = {
    "begin": begin,
    "report": report,
    "settle": settle,
}


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    given = checked_input(event)
    if given.get("detail-type") == ENDED:
        given = {"operation": "settle", **json_object(given.get("detail"))}
    return OPERATIONS[checked_choice(given, "operation", OPERATIONS)](given, time.time())
