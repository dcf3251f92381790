"""WebSocket $default, and `jobs`: answers short actions at once, queues long ones.

Trigger: API Gateway WebSocket `$default`; the answer is the route response, so a short action needs
no call of the management API. The user is taken only from the connection's row. Or an invoke by the
function `jobs`, with the user of a token that it has verified and messages that came over HTTP.
Input: `{"id"?, "action", "payload"?, "metadata"?}`; of an invoke `{"caller", "messages"}`. Output:
one `response`, `acknowledgment`, `pong` or `error` message; of an invoke `{"answers"}`, one for
each message. Reads `connections`; reads and writes `requests` (one conditional PutItem for a job,
and a write more for a payload above 1 KB) and `subscriptions`; reads `assemblies`, and ends there
one that waits and is cancelled, whose webhook it queues; signs uploads to the files bucket. The
ids of the templates are part of the artifact.
When the token has expired, the connection is closed. Errors: ValidationError for an event without a
connection id that is not such an invoke.
"""

import importlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    IN_FLIGHT_SHARDS,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    TENANT_SHARDS,
    TERMINAL_STATUSES,
    ErrorCode,
    RequestStatus,
    ValidationError,
    assembly_id,
    connection_id_of,
    connections_table,
    end_message,
    error_body,
    from_item,
    is_request_id,
    is_terminal_assembly,
    iso_time,
    job_tags,
    json_object,
    link_signer,
    message_of_request,
    new_request_id,
    owner_key,
    parse_iso_time,
    read_item,
    request_key,
    requests_table,
    s3_options,
    server_message,
    shown_result,
    split_owner_key,
    strict_json,
    tenant_shard,
    tenant_workspace,
    to_item,
    unknown_template,
    upload_prefix,
    upload_signer,
)
from jobplane_keys.lanes import (
    MAX_LANE_RATE,
    PRIORITIES,
    action_lane,
    job_state,
    tenant_lane,
    waiting_order,
)
from jobplane_leases import (
    RequestLease,
    enqueue_request,
    is_payload_of,
    queue_webhook,
    read_events,
    read_payload,
    store_payload,
    update,
)
from jobplane_leases.actions import PAYLOADS, action_names, load_action
from jobplane_sockets import (
    MANAGEMENT_OPTIONS,
    Listeners,
    Outbox,
    closing_time,
    encode_message,
    post,
    rights_end,
    start_subscription,
    unsubscribe,
)
from jobplane_telemetry import Telemetry

TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)
CONNECTIONS = connections_table(TABLE_PREFIX)
REQUESTS = requests_table(TABLE_PREFIX)
ASSEMBLIES = os.environ["DYNAMODB_TABLE"]
FILES_BUCKET = os.environ["FILES_BUCKET"]
WEBHOOKS_QUEUE_URL = os.environ["WEBHOOKS_QUEUE_URL"]
WEBSOCKET_ENDPOINT = os.environ["WEBSOCKET_ENDPOINT"]
ASSEMBLY_ID_FORM: Any = os.environ.get("ASSEMBLY_ID_FORM", "canonical")
TEMPLATES_INDEX_PATH = os.environ["TEMPLATES_INDEX_PATH"]
SEND_INTERRUPT = os.environ["SEND_INTERRUPT_FUNCTION"]
BRANCH = os.environ.get("BRANCH", "main")
# The limit of S3 for one PUT.
MAX_PUT_BYTES = 5 * 1024**3
MAX_UPLOAD_BYTES = min(int(os.environ.get("MAX_UPLOAD_BYTES", MAX_PUT_BYTES)), MAX_PUT_BYTES)
IN_FLIGHT_PARTITIONS = int(os.environ.get("IN_FLIGHT_SHARDS", IN_FLIGHT_SHARDS))
TENANT_PARTITIONS = int(os.environ.get("TENANT_SHARDS", TENANT_SHARDS))
MAX_RUNNING_PER_TENANT = int(os.environ.get("MAX_RUNNING_PER_TENANT", "0"))
VERSION = os.environ.get("VERSION", "0.1.0")

MAX_ATTEMPTS = 4
LINK_SECONDS = 3600
SEEN_EVERY_SECONDS = 60
# API Gateway closes a socket at a larger message.
MAX_ANSWER_BYTES = 128 * 1024
ENVELOPE_BYTES = 1024  # of an answer without its data
MAX_FAULTS = 20
# Less than the time that API Gateway waits for an answer.
POST_SECONDS = 20.0
MAX_SUBSCRIPTIONS = 1000
MAX_TAGS, TAG = 10, re.compile(r"[A-Za-z0-9._:-]{1,64}")
# The rest of a batch is refused, to be sent again, before API Gateway waits no longer, and before
# the answers have more bytes than Lambda can send twice, the second time as text in JSON.
BATCH_SECONDS, MAX_BATCH_BYTES = 18.0, 2_500_000
# Actions whose payload may be in an object, since it may have 1,000 files.
STORABLE = frozenset({"create_upload", "process_assembly"})

session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
telemetry = Telemetry("router")


type Message = dict[str, Any]
type Run = Callable[[Request], Message]


@dataclass(frozen=True, slots=True)
class Action:
    """How an action is performed.

    `payload` is the name of a model of jobplane_models.payloads, or a model, or None for any
    object. `run`
    returns the data of the answer or, for an async action, additional fields of the job's row.
    With a `limit`, the action's jobs have a lane of their own, of all tenants, with so many slots,
    and with `per_minute` so many starts a minute.
    """

    name: str
    mode: Literal["sync", "async"]
    payload: str | Any | None
    forcible: bool
    limit: int | None
    run: Run
    per_minute: int | None = None

    def __post_init__(self) -> None:
        rate = self.per_minute
        if rate is not None and (self.limit is None or not 0 < rate <= MAX_LANE_RATE):
            text = f"per_minute of {self.name!r}: from 1 to {MAX_LANE_RATE:,}, with a limit"
            raise ValueError(text)


@dataclass(frozen=True, slots=True)
class Request:
    """A valid message, with the row of its connection, which has the user.

    For one that came over HTTP, `connection` has only what the token says.
    """

    id: str
    found: Action
    payload: Any
    metadata: Mapping[str, str]
    connection: Mapping[str, Any]
    now: float

    @property
    def action(self) -> str:
        return self.found.name

    @property
    def connection_id(self) -> str:
        """Raises RefusedError for a request over HTTP."""
        if "connection_id" not in self.connection:
            text = f"{self.action} needs a WebSocket connection"
            raise RefusedError(ErrorCode.INVALID_ACTION, text)
        return str(self.connection["connection_id"])

    @property
    def owner(self) -> str:
        return owner_key(self.connection["tenant_id"], self.connection["user_id"])

    def may(self, permission: str) -> bool:
        return permission in self.connection.get("permissions", ())


ACTIONS: dict[str, Action] = {}


class RefusedError(Exception):
    """The message is refused: it is answered with an error and changes nothing."""

    def __init__(self, code: ErrorCode, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.code = code
        self.body = error_body(code, message, **extra)


class InterruptError(Exception):
    """send-interrupt has failed."""


class TokenExpiredError(Exception):
    """The connection's token has expired."""


def action(
    name: str,
    *,
    mode: Literal["sync", "async"] = "sync",
    payload: str | None = None,
    forcible: bool = False,
    limit: int | None = None,
    per_minute: int | None = None,
) -> Callable[[Run], Run]:
    """Register an action. `forcible`: a sync one that `metadata.mode = "async"` makes a job.

    `limit`: so many of its jobs run at the same time at most. `per_minute`, which needs a limit:
    so many start at most in any minute; a further attempt of a job is not counted.
    """

    def register(run: Run) -> Run:
        if name in ACTIONS:
            raise ValueError(f"action {name!r} is registered twice")
        ACTIONS[name] = Action(name, mode, payload, forcible, limit, run, per_minute)
        return run

    return register


def action_of(name: str) -> Action | None:
    """An action of this module, or of a package, whose payload is loaded now."""
    if name in ACTIONS or (model := load_action(PAYLOADS, name)) is None:
        return ACTIONS.get(name)
    limits = {"limit": model.limit, "per_minute": model.per_minute}
    return Action(name, "async", model, forcible=False, run=lambda request: {}, **limits)


def parse(body: Any) -> dict[str, Any]:
    """The JSON object of a message. Raises RefusedError."""
    text = body or ""
    if not isinstance(text, str):
        raise RefusedError(ErrorCode.INVALID_MESSAGE, "The message is not JSON text")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode(errors="replace")) > MAX_MESSAGE_BYTES:
        raise RefusedError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"The message has more than {MAX_MESSAGE_BYTES} bytes"
        )
    return json_object_of(text, "The message")


def json_object_of(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object of a text, which `what` names. Raises RefusedError."""
    try:
        found = strict_json(text)
    except ValueError:
        raise RefusedError(ErrorCode.INVALID_MESSAGE, f"{what} is not JSON text") from None
    if not isinstance(found, dict):
        raise RefusedError(ErrorCode.INVALID_MESSAGE, f"{what} is not a JSON object")
    return found


def envelope_faults(message: Mapping[str, Any]) -> list[Message]:
    """The invalid fields of an envelope; must agree with the model ClientMessage."""
    faults = []
    if not isinstance(message.get("action"), str):
        faults.append(fault("action", "a string is required"))
    if (given := message.get("id")) is not None and not is_request_id(given):
        faults.append(fault("id", "expected 1 to 128 of A-Z a-z 0-9 . _ : -"))
    if not isinstance(message.get("payload", {}), dict):
        faults.append(fault("payload", "expected an object"))
    metadata = message.get("metadata", {})
    if not isinstance(metadata, dict):
        faults.append(fault("metadata", "expected an object of strings"))
    else:
        faults += [
            fault(f"metadata.{name}", "expected a string")
            for name, value in metadata.items()
            if not isinstance(value, str)
        ]
    return faults[:MAX_FAULTS]


def fault(field: str, message: str) -> Message:
    """One entry of an error's details."""
    return {"field": field, "message": message}


def invalid(message: str, field: str, expected: str) -> RefusedError:
    """The refusal of a request with one invalid field."""
    details = [fault(field, expected)]
    return RefusedError(ErrorCode.VALIDATION_ERROR, message, details=details)


def validated(model: str | Any, payload: Mapping[str, Any]) -> Any:
    """The payload as its model. Raises RefusedError. Loads pydantic at its first use."""
    import pydantic

    if isinstance(model, str):
        model = getattr(importlib.import_module("jobplane_models.payloads"), model)
    try:
        return model.model_validate(payload)
    except pydantic.ValidationError as error:
        faults = [
            fault(".".join(("payload", *map(str, part["loc"]))), part["msg"])
            for part in error.errors(include_url=False, include_input=False)[:MAX_FAULTS]
        ]
        raise RefusedError(
            ErrorCode.VALIDATION_ERROR, "The payload is not valid", details=faults
        ) from error


def canonical(payload: Any) -> str:
    """The stored form of a payload: JSON text, which is equal for equal payloads."""
    plain = payload.model_dump(mode="json") if hasattr(payload, "model_dump") else payload
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def state_of(row: Mapping[str, Any]) -> Message:
    """The public state of a request; the links of its result are signed now."""
    state = job_state(row, time.time())
    if "result_key" in row:
        renew_links(row)
        state["result"] = {"url": sign_download(row["result_key"])}
    elif "result" in row:
        state["result"] = shown_result(row, row["result"], sign_download)
    return state


def renew_links(row: Mapping[str, Any]) -> None:
    """Store a result that no message can carry anew, with links that are good from now on."""
    if not row.get("links"):
        return
    text = row.get("result")
    if text is None:
        text = get_object(row["source_key"]).decode()
    store_json(row["result_key"], shown_result(row, text, sign_download))


def store_json(key: str, content: Any) -> None:
    """Store JSON as an object, for what no message can carry."""
    put_json(key, json.dumps(content, ensure_ascii=False).encode())


def put_json(key: str, body: bytes) -> None:
    """Store JSON text as an object."""
    s3().put_object(Bucket=FILES_BUCKET, Key=key, Body=body, ContentType="application/json")


def get_object(key: str) -> bytes:
    """The content of an object."""
    content: bytes = s3().get_object(Bucket=FILES_BUCKET, Key=key)["Body"].read()
    return content


@cache
def s3() -> Any:
    """Made by the first message that needs a link."""
    options = {**CLIENT_OPTIONS, **s3_options(os.environ)}
    return session.create_client("s3", config=Config(**options))


# A link to an object of the files bucket, from its key, and a PUT of one.
sign_download = link_signer(s3, FILES_BUCKET, LINK_SECONDS)
sign_upload = upload_signer(s3, FILES_BUCKET, LINK_SECONDS)


@cache
def management() -> Any:
    """The client of the management API of connections."""
    return session.create_client(
        "apigatewaymanagementapi",
        endpoint_url=WEBSOCKET_ENDPOINT,
        config=Config(**MANAGEMENT_OPTIONS),
    )


@cache
def sqs() -> Any:
    """Made by the first cancellation of an assembly that waits and has a webhook."""
    return session.create_client("sqs", config=config)


@cache
def templates() -> dict[str, bool]:
    """The ids of the templates in this artifact, in order, and whether they have a webhook."""
    from pathlib import Path  # not needed for most messages

    index = json.loads((Path(__file__).parent / TEMPLATES_INDEX_PATH).read_bytes())
    found = {template["id"]: bool(template.get("webhook_url")) for template in index["templates"]}
    return dict(sorted(found.items()))


def require_template(template_id: str) -> None:
    """Refuse an unknown template, before anything is uploaded or stored. Raises RefusedError."""
    if template_id in templates():
        return
    known = f"known templates: {', '.join(templates())}"
    raise invalid(unknown_template(template_id, [*templates()]), "payload.template_id", known)


def require_own(request: Request, field: str, keys: list[str]) -> None:
    """Refuse keys of a payload's field that are not uploads of the caller. Raises RefusedError."""
    prefix = upload_prefix(request.owner)
    foreign = [
        fault(f"payload.{field}.{number}.key", "belongs to another user")
        for number, key in enumerate(keys)
        if not key.startswith(prefix)
    ]
    if foreign:
        raise RefusedError(
            ErrorCode.FORBIDDEN, "Some uploads belong to another user", details=foreign[:MAX_FAULTS]
        )


def connection_of(connection_id: str, now: float) -> dict[str, Any]:
    """The row of a connection. Raises TokenExpiredError if it is missing or has no more rights."""
    row = read_item(dynamodb, CONNECTIONS, {"connection_id": connection_id})
    if not row or rights_end(row) <= now:
        raise TokenExpiredError(connection_id)
    return row


def request_of(owner: str, request_id: str, now: float) -> dict[str, Any]:
    """The row of an owner's request. Raises RefusedError (NOT_FOUND) if it does not exist."""
    row = read_item(dynamodb, REQUESTS, {"owner": owner, "request_id": request_id})
    if not row or row["ttl"] <= now:
        raise RefusedError(ErrorCode.NOT_FOUND, "The request does not exist")
    return row


def stored_payload(payload: Mapping[str, Any], connection: Mapping[str, Any]) -> Message:
    """The payload that a client has uploaded, as it is now. Raises RefusedError."""
    key = validated("StoredPayload", payload).payload_key
    owner = owner_key(connection["tenant_id"], connection["user_id"])
    field = "payload.payload_key"
    if not key.startswith(upload_prefix(owner)):
        raise RefusedError(
            ErrorCode.FORBIDDEN,
            "The payload's object is not an upload of yours",
            details=[fault(field, "expected the key of an upload of yours")],
        )
    try:
        body = s3().get_object(Bucket=FILES_BUCKET, Key=key, Range=f"bytes=0-{MAX_PAYLOAD_BYTES}")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (400, 404, 416):
            raise
        missing = "the object is missing or empty; upload it first"
        raise invalid("The payload has not been uploaded", field, missing) from error
    if len(text := body["Body"].read()) > MAX_PAYLOAD_BYTES:
        raise RefusedError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The payload's object has more than {MAX_PAYLOAD_BYTES} bytes",
        )
    return json_object_of(text, "The payload's object")


def enqueue(request: Request, extra: Mapping[str, Any]) -> Message:
    """Store the request as a job for the processor, by one conditional PutItem.

    A payload of more than a kilobyte is stored before it.

    A repetition of the same request is acknowledged again; a different request with the same id
    is refused.
    """
    if "" in request.metadata:
        raise invalid("The metadata can't be stored", "metadata", "a name is empty")
    tags = job_tags(request.metadata)
    if len(tags) > MAX_TAGS or not all(map(TAG.fullmatch, tags)):
        expected = f"expected at most {MAX_TAGS} of 1 to 64 of A-Z a-z 0-9 . _ : -, with commas"
        raise invalid("The tags are not valid", "metadata.tags", expected)
    is_bound = request.metadata.get("on_disconnect") == "cancel"
    if is_bound and "connection_id" not in request.connection:
        expected = "expected 'detach': a job that is sent over HTTP has no connection"
        raise invalid("Unknown policy", "metadata.on_disconnect", expected)
    payload, due = canonical(request.payload), due_of(request)
    key, begins = (request.owner, request.id), due or request.now
    place = store_payload(dynamodb, REQUESTS, key, payload, begins, put_json)
    row = {
        "owner": request.owner,
        "request_id": request.id,
        "tenant_id": tenant_shard(request.connection["tenant_id"], request.id, TENANT_PARTITIONS),
        "action": request.action,
        **place,
        "metadata": request.metadata,
        "max_attempts": MAX_ATTEMPTS,
        "on_disconnect": request.metadata.get("on_disconnect", "detach"),
        # A job of the flow waits for its workspace.
        **({} if "execution" in extra else lane_of(request, begins)),
        **extra,
    }
    if "connection_id" in request.connection:
        row["connection_id"] = request.connection_id
    if telemetry.trace_header:
        row["trace_header"] = telemetry.trace_header
    is_new, stored = enqueue_request(
        dynamodb, REQUESTS, row, request.now, due=due, shards=IN_FLIGHT_PARTITIONS
    )
    is_same = stored["action"] == request.action and is_payload_of(stored, payload, place)
    if not is_same or stored.get("replay_of") != row.get("replay_of"):
        raise RefusedError(ErrorCode.DUPLICATE_REQUEST, "A different request was sent with this id")
    acknowledged = acknowledgment(request, stored)
    if "assembly_id" in stored:
        telemetry.bind(assembly_id=stored["assembly_id"])
        document = waiting().add(stored, json.loads(payload), request.now, is_new=is_new)
        acknowledged |= {name: document[name] for name in ("execution",) if name in document}
    telemetry.info("request acknowledged", status=stored["status"])
    return acknowledged


def waiting() -> Any:
    """The documents of assemblies that wait for a worker."""
    # Not needed for most messages.
    from jobplane_leases.waiting import Waiting
    from jobplane_robots import safe_name

    return Waiting(dynamodb, ASSEMBLIES, BRANCH, safe_name, telemetry.exception)


def end_waiting(row: Mapping[str, Any], now: float) -> None:
    """End the document of an assembly that no worker has had, and queue its webhook.

    If this is cut, a worker takes the job, finds the end, and queues the webhook.
    """
    try:
        payload = json.loads(read_payload(dynamodb, REQUESTS, row, get_object))
    except LookupError:  # it is gone
        return
    has_webhook = templates().get(payload["template_id"], False)
    document = waiting().cancel(row, payload, now, has_webhook=has_webhook)
    if document is not None and has_webhook:
        queue_webhook(sqs(), WEBHOOKS_QUEUE_URL, document, telemetry.trace_header)


def due_of(request: Request) -> float | None:
    """The epoch seconds at which a job is due; None if it is due now. Raises RefusedError."""
    if not request.metadata.keys() & {"run_at", "delay_seconds"}:
        return None
    from jobplane_keys import schedules  # not needed for most messages

    try:
        return schedules.due_at(request.metadata, request.now)
    except ValidationError as error:
        expected = str(error).removeprefix(f"{error.field}: ")
        raise invalid("The job can't be scheduled", error.field, expected) from error


def lane_of(request: Request, due: float) -> Message:
    """The attributes of a row whose job needs a slot of a lane; none without lanes."""
    found, lane = request.found, action_lane(request.action)
    limit = found.limit
    if limit is None:
        limit, lane = MAX_RUNNING_PER_TENANT, tenant_lane(request.connection["tenant_id"])
    if not limit:
        return {}
    order = waiting_order(request.metadata.get("priority", "normal"), iso_time(due))
    rate = {"lane_rate": found.per_minute} if found.per_minute else {}
    return {"lane": lane, "lane_limit": limit, "waiting_order": order, **rate}


def acknowledgment(request: Request, row: Mapping[str, Any]) -> Message:
    """The acknowledgement of a stored request, with its status."""
    status = "queued" if row["status"] == RequestStatus.PENDING else row["status"].lower()
    is_waiting = status in {"queued", "scheduled"}
    content = {
        "status": status,
        "message": f"Request {status}" if is_waiting else "Request already stored",
    }
    if "assembly_id" in row:
        content["assembly_id"] = row["assembly_id"]
    return server_message("acknowledgment", request.id, request.now, **content)


def listen(owner: str, request: Request, target: str) -> bool:
    """Subscribe the connection to a request; return False if it has ended.

    Raises RefusedError when the connection has as many subscriptions as it may.
    """
    row = {
        "request_key": request_key(owner, target),
        "connection_id": request.connection_id,
        "user_id": request.connection["user_id"],
        "created_at": iso_time(request.now),
        # A newer token prolongs the connection; before each post, its row is read.
        "ttl": int(closing_time(request.connection)),
    }
    is_open, has_room = start_subscription(dynamodb, TABLE_PREFIX, row, most=MAX_SUBSCRIPTIONS)
    if is_open and not has_room:
        raise invalid(
            f"The connection has {MAX_SUBSCRIPTIONS:,} subscriptions, the most it may have;"
            " unsubscribe from jobs that have ended, or use another connection",
            "payload.request_id",
            f"at most {MAX_SUBSCRIPTIONS:,} subscriptions",
        )
    return is_open


def announce(row: Mapping[str, Any], message: Message) -> None:
    """Post to the connection that sent a request and to all subscribers, if they have rights; an
    endpoint that does not answer delays the caller by five seconds.
    """
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


def interrupt(row: Mapping[str, Any]) -> None:
    """Ask the worker of a job of the flow to stop; repeating it is harmless."""
    claim_id, _, fence = row["lease_owner"].partition("/")
    payload = json.loads(read_payload(dynamodb, REQUESTS, row, get_object))
    workspace = tenant_workspace(*split_owner_key(row["owner"]), payload["project"])
    message_id = message_of_request(row["request_id"])
    event = {
        "projectUserId": workspace.key,
        "target": {"claimId": claim_id, "fence": int(fence)},
        "newThreadId": payload["thread"],
        "interruptingMessageId": message_id,
        "reason": "cancelled by its owner",
    }
    functions: Any = session.create_client("lambda", config=config)
    answer = functions.invoke(FunctionName=SEND_INTERRUPT, Payload=json.dumps(event).encode())
    if "FunctionError" in answer:
        raise InterruptError(answer["FunctionError"])


def end_connection(connection_id: str, now: float) -> None:
    """Send the reason, then close a connection whose token has expired."""
    body = RefusedError(ErrorCode.UNAUTHORIZED, "The token has expired").body
    post(management(), [connection_id], server_message("error", None, now, error=body))
    try:
        management().delete_connection(ConnectionId=connection_id)
    except (BotoCoreError, ClientError) as error:
        gone = isinstance(error, ClientError) and (
            error.response["ResponseMetadata"]["HTTPStatusCode"] == 410
        )
        if not gone:
            telemetry.exception("connection not closed", error)


@action("ping")
def ping(request: Request) -> Message:
    """Keeps the connection open; updates its row at most once a minute."""
    key = {"connection_id": request.connection_id}
    if request.now - parse_iso_time(request.connection["last_seen_at"]) >= SEEN_EVERY_SECONDS:
        touched = update(
            dynamodb,
            CONNECTIONS,
            key,
            change="SET last_seen_at = :now",
            condition="attribute_exists(connection_id)",
            values={"now": iso_time(request.now)},
            mark=None,
        )
        if not touched.done:
            raise TokenExpiredError(request.connection_id)
    return {}


@action("echo", forcible=True)
def echo(request: Request) -> Message:
    """Returns the payload."""
    return {
        "echo": request.payload,
        "action": request.action,
        "received_at": iso_time(request.now),
    }


@action("health", forcible=True)
def health(request: Request) -> Message:
    """Reads the table `requests` and returns how long it took."""
    started = time.perf_counter()
    dynamodb.get_item(
        TableName=REQUESTS, Key=to_item({"owner": request.owner, "request_id": request.id})
    )
    latency = round((time.perf_counter() - started) * 1000, 2)
    return {
        "status": "healthy",
        "version": VERSION,
        "checks": {"requests_table": {"status": "healthy", "latency_ms": latency}},
    }


@action("create_upload", payload="CreateUpload")
def create_upload(request: Request) -> Message:
    """Returns a presigned PUT for each file, and whether the assembly is already completed."""
    require_template(request.payload.template_id)
    for number, file in enumerate(request.payload.files):
        if file.size > MAX_UPLOAD_BYTES:
            field = f"payload.files.{number}.size"
            most = f"at most {MAX_UPLOAD_BYTES} bytes"
            text = f"{most}; send a larger file in parts, by POST /s3/multipart"
            raise invalid("The file is too large", field, text)
    job = assembly_of(request, [file.md5hash for file in request.payload.files])
    found = dynamodb.get_item(
        TableName=ASSEMBLIES,
        Key=to_item({"assembly_id": job}),
        ProjectionExpression="#owner, ok, #error, #ttl",
        ExpressionAttributeNames={"#owner": "owner", "#error": "error", "#ttl": "ttl"},
    )
    known = from_item(found.get("Item", {}))
    completed = (
        known.get("owner") == request.owner
        and is_terminal_assembly(known)
        and not known.get("error")
        and known.get("ttl", request.now) > request.now
    )
    prefix = f"{upload_prefix(request.owner)}{job}/"
    answer = {
        "assembly_id": job,
        "completed": completed,
        "expires_at": iso_time(request.now + LINK_SECONDS),
    }
    uploads = [
        {
            "key": prefix + file.md5hash,
            "name": file.name,
            "size": file.size,
            "mime": file.mime,
            "md5hash": file.md5hash,
            **sign_upload(prefix + file.md5hash, file.size, file.mime, file.md5hash),
        }
        for file in request.payload.files
    ]
    inline = {**answer, "uploads": uploads}
    if len(encode_message(inline)) <= MAX_ANSWER_BYTES - ENVELOPE_BYTES:
        return inline
    folder = f"results/requests/{prefix.split('/')[1]}/{request.id}"
    key = f"{folder}/uploads-{os.urandom(8).hex()}.json"
    store_json(key, {"uploads": uploads})
    return {**answer, "url": sign_download(key)}


@action("process_assembly", mode="async", payload="ProcessAssembly")
def process_assembly(request: Request) -> Message:
    """Runs a template over the caller's uploads."""
    require_template(request.payload.template_id)
    require_own(request, "uploads", [file.key for file in request.payload.uploads])
    return {"assembly_id": assembly_of(request, [file.md5hash for file in request.payload.uploads])}


@action("generate_report", mode="async", payload="GenerateReport")
def generate_report(request: Request) -> Message:
    """Makes a report over the caller's tenant; needs the permission `reports`."""
    if not request.may("reports"):
        raise RefusedError(ErrorCode.FORBIDDEN, "The permission 'reports' is needed")
    return {}


@action("delay", mode="async", payload="Delay")
def delay(request: Request) -> Message:
    """Runs a job that waits and reports progress, for tests."""
    return {}


@action("count", mode="async", payload="Count")
def count(request: Request) -> Message:
    """Runs a job that emits numbers, to show how events arrive."""
    return {}


@action("instruct", mode="async", payload="Instruct")
def instruct(request: Request) -> Message:
    """Has the worker of the caller's workspace do something; the job flow runs the job."""
    from jobplane_leases.instructions import flow_attributes  # not needed for most messages

    if request.metadata.get("on_disconnect") == "cancel":
        expected = "expected 'detach': the job flow does not know the connection"
        raise invalid("Unknown policy", "metadata.on_disconnect", expected)
    require_own(request, "attachments", [each.key for each in request.payload.attachments])
    try:
        return flow_attributes(request.owner, request.id, request.payload.model_dump())
    except ValidationError as error:
        expected = str(error).removeprefix(f"{error.field}: ")
        raise invalid("The job can't be run", f"payload.{error.field}", expected) from error


@action("status", payload="RequestReference")
def status(request: Request) -> Message:
    """Returns the stored state of a request of the caller."""
    return fitting(state_of(request_of(request.owner, request.payload.request_id, request.now)))


@action("subscribe", payload="Subscribe")
def subscribe(request: Request) -> Message:
    """Returns the state of a request, and sends its later messages."""
    owner, target = listened_owner(request), request.payload.request_id
    listening = listen(owner, request, target)
    row = request_of(owner, target, request.now)
    state = fitting(state_of(row))
    if (since := request.payload.since_event) is not None:
        state["events"] = read_events(dynamodb, REQUESTS, row, since, request.now)
    return state | {"subscribed": listening and state["status"] not in TERMINAL_STATUSES}


@action("unsubscribe", payload="Unsubscribe")
def stop_listening(request: Request) -> Message:
    """Ends a subscription; succeeds also if it does not exist."""
    key = request_key(listened_owner(request), request.payload.request_id)
    was_subscribed = unsubscribe(dynamodb, TABLE_PREFIX, key, request.connection_id)
    return {"request_id": request.payload.request_id, "was_subscribed": was_subscribed}


@action("cancel", payload="RequestReference")
def cancel(request: Request) -> Message:
    """Cancels a waiting job, asks a running one to stop; else returns how it ended."""
    target = request.payload.request_id
    lease = RequestLease(dynamodb, REQUESTS, request.owner, target)
    error = error_body(ErrorCode.CANCELLED, "Cancelled")
    while True:
        row = request_of(request.owner, target, request.now)
        if row["status"] in TERMINAL_STATUSES:
            return {"request_id": target, "status": row["status"].lower()}
        # After an earlier attempt, also one that does not count, a worker must clean up.
        begun = "started_at" in row and "assembly_id" in row
        if row["status"] not in {RequestStatus.PENDING, RequestStatus.SCHEDULED} or begun:
            if lease.ask_to_cancel():
                if "execution" in row and "lease_owner" in row:
                    interrupt(row)
                elif row["status"] == RequestStatus.RETRYING:
                    lease.requeue(request.now)  # a worker ends it now if none keeps it
                return {"request_id": target, "status": "cancelling"}
            continue
        if "assembly_id" in row:
            end_waiting(row, request.now)
        if ended := lease.cancel(row, error, request.now):
            announce(ended, end_message(ended, request.now))
            return {"request_id": target, "status": "cancelled"}


@action("callback", payload="Callback")
def callback(request: Request) -> Message:
    """Gives a waiting job its answer, from any caller that has the token."""
    # Not needed for most messages.
    from jobplane_leases.callbacks import AnswerError, TokenError, return_callback

    answer = request.payload.model_dump(exclude_unset=True, exclude={"token"})
    try:
        return_callback(dynamodb, REQUESTS, request.payload.token, answer, request.now)
    except AnswerError as error:
        raise invalid("The answer is not valid", f"payload.{error.field}", str(error)) from error
    except TokenError as error:
        raise RefusedError(error.code, str(error)) from error
    return {"returned": True}


@action("replay", payload="RequestReference")
def replay(request: Request) -> Message:
    """Runs a job that has ended once more, as a new job; returns its acknowledgment."""
    job = request.payload.request_id
    row = request_of(request.owner, job, request.now)
    if row["status"] not in TERMINAL_STATUSES:
        text = "The job has not ended; cancel it, or wait for its end"
        raise invalid(text, "payload.request_id", "expected a job that has ended")
    try:
        text = read_payload(dynamodb, REQUESTS, row, get_object)
    except LookupError as error:
        raise RefusedError(ErrorCode.NOT_FOUND, "The job's payload has expired") from error
    left_out = {"run_at", "delay_seconds"}
    if "connection_id" not in request.connection:
        left_out.add("on_disconnect")
    kept = {name: value for name, value in row["metadata"].items() if name not in left_out}
    message = {"action": row["action"], "payload": json.loads(text), "metadata": kept}
    return perform(message, request.id, request.connection, request.now, {"replay_of": job})


def listened_owner(request: Request) -> str:
    """The owner of the request of a subscription. Raises RefusedError without permission."""
    user = request.payload.user_id
    if not user or user == request.connection["user_id"]:
        return request.owner
    if not request.may("tenant:read"):
        raise RefusedError(ErrorCode.FORBIDDEN, "The permission 'tenant:read' is needed")
    return owner_key(request.connection["tenant_id"], user)


def assembly_of(request: Request, md5s: list[str]) -> str:
    """The id of the assembly of a payload; it differs between tenants."""
    user = request.owner if ASSEMBLY_ID_FORM == "canonical" else request.connection["user_id"]
    return assembly_id(
        md5s,
        request.payload.template_id,
        user,
        form=ASSEMBLY_ID_FORM,
        branch=BRANCH,
        fields=request.payload.fields,
    )


def fitting(state: Message) -> Message:
    """The state, without a result that is too large for a socket message."""
    if len(json.dumps(state, ensure_ascii=False).encode()) <= MAX_MESSAGE_BYTES:
        return state
    return state | {"result": None, "result_omitted": True}


def respond(body: Any, connection_id: str, now: float) -> Message:
    """The answer to one message of a connection."""
    return respond_to(lambda: parse(body), lambda: connection_of(connection_id, now), now)


def respond_to(
    read: Callable[[], Message], sender: Callable[[], Mapping[str, Any]], now: float
) -> Message:
    """The answer to one message of a sender; both may raise RefusedError."""
    request_id: str | None = None
    try:
        message = read()
        request_id = message["id"] if is_request_id(message.get("id")) else None
        if faults := envelope_faults(message):
            raise RefusedError(
                ErrorCode.VALIDATION_ERROR, "The message is not a valid request", details=faults
            )
        request_id = request_id or new_request_id(now)
        telemetry.bind(request_id=request_id)
        connection = sender()
        telemetry.bind(user_id=connection["user_id"], tenant_id=connection["tenant_id"])
        return perform(message, request_id, connection, now)
    except RefusedError as error:
        telemetry.metric("RequestRefused", ErrorType=error.code)
        telemetry.info("request refused", code=error.code, reason=str(error))
        return server_message("error", request_id, now, error=error.body)
    except (BotoCoreError, ClientError) as error:
        telemetry.metric("RequestRefused", ErrorType=ErrorCode.SERVICE_UNAVAILABLE)
        telemetry.exception("an AWS call failed", error)
        refused = RefusedError(
            ErrorCode.SERVICE_UNAVAILABLE,
            "The service is temporarily unavailable; try again",
            retry_after_ms=1000,
        )
        return server_message("error", request_id, now, error=refused.body)
    except TokenExpiredError:
        raise
    except Exception as error:
        telemetry.metric("RequestRefused", ErrorType=ErrorCode.INTERNAL_ERROR)
        telemetry.exception("action failed", error)
        refused = RefusedError(ErrorCode.INTERNAL_ERROR, "An internal error occurred")
        return server_message("error", request_id, now, error=refused.body)


def perform(
    message: Mapping[str, Any],
    request_id: str,
    connection: Mapping[str, Any],
    now: float,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Message:
    """Run the action of a message, or store it as a job, whose row has `more`."""
    found = action_of(message["action"])
    if found is None:
        known = sorted({*ACTIONS, *action_names()})
        raise RefusedError(
            ErrorCode.INVALID_ACTION,
            f"Unknown action; known are {', '.join(known)}",
            details={"known_actions": known},
        )
    telemetry.bind(action=found.name)
    metadata = message.get("metadata", {})
    payload = message.get("payload", {})
    if found.name in STORABLE and "payload_key" in payload:
        payload = stored_payload(payload, connection)
    request = Request(
        id=request_id,
        found=found,
        payload=validated(found.payload, payload) if found.payload else payload,
        metadata=metadata,
        connection=connection,
        now=now,
    )
    if is_async(found, metadata):
        extra = found.run(request) if found.mode == "async" else {}
        return enqueue(request, {**extra, **more})
    data = found.run(request)
    if found.name == "ping":
        return server_message("pong", request_id, now)
    if found.name == "replay":
        return data
    response = server_message("response", request_id, now, success=True, data=data)
    if len(encode_message(response)) > MAX_ANSWER_BYTES:
        raise RefusedError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The answer would have more than {MAX_ANSWER_BYTES} bytes; ask for less at a time",
        )
    return response


def is_async(found: Action, metadata: Mapping[str, str]) -> bool:
    """Whether the request becomes a job. Raises RefusedError for unknown modes and policies."""
    mode = metadata.get("mode", found.mode)
    if mode not in {"sync", "async"} or (mode != found.mode and not found.forcible):
        text = f"{found.name} does not run in that mode"
        raise invalid(text, "metadata.mode", f"only {found.mode!r} is possible")
    if metadata.get("on_disconnect", "detach") not in {"detach", "cancel"}:
        raise invalid("Unknown policy", "metadata.on_disconnect", "expected 'detach' or 'cancel'")
    if metadata.get("priority", "normal") not in PRIORITIES:
        expected = f"expected one of {', '.join(PRIORITIES)}"
        raise invalid("Unknown priority", "metadata.priority", expected)
    for field in ("run_at", "delay_seconds"):
        if field in metadata and mode == "sync":
            text = f"{found.name} is answered at once, and can't be scheduled"
            raise invalid(text, f"metadata.{field}", "possible for a job only")
    return mode == "async"


def known_caller(event: Mapping[str, Any]) -> tuple[Message, list[Any]]:
    """The user that `jobs` names, and the user's messages. Raises ValidationError."""
    caller, messages = json_object(event["caller"]), event.get("messages")
    names = [caller.get("user_id"), caller.get("tenant_id")]
    if not all(isinstance(name, str) and name for name in names):
        raise ValidationError("caller", "expected `user_id` and `tenant_id`")
    if not isinstance(caller.get("permissions"), list):
        raise ValidationError("caller", "expected a list of `permissions`")
    if not isinstance(messages, list):
        raise ValidationError("messages", "expected a list of texts")
    return caller, messages


def respond_to_all(caller: Message, messages: list[Any], now: float) -> list[Message]:
    """The answers to the messages that a known caller has sent over HTTP."""
    answers: list[Message] = []
    room = MAX_BATCH_BYTES

    def read(content: Any) -> Message:
        if room < 0 or time.time() > now + BATCH_SECONDS:
            text = "The batch took too long, or its answers are too large; send this job again"
            raise RefusedError(ErrorCode.SERVICE_UNAVAILABLE, text, retry_after_ms=1000)
        return parse(content)

    for content in messages:
        answers.append(respond_to(partial(read, content), lambda: caller, now))
        room -= len(encode_message(answers[-1]))
        telemetry.metric("MessageAnswered", Action=answers[-1]["type"])
    return answers


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    now = time.time()
    if "caller" in json_object(event):
        return {"answers": respond_to_all(*known_caller(event), now)}
    connection_id = connection_id_of(event)
    telemetry.bind(connection_id=connection_id)
    try:
        message = respond(event.get("body"), connection_id, now)
    except TokenExpiredError:
        telemetry.metric("RequestRefused", ErrorType=ErrorCode.UNAUTHORIZED)
        telemetry.info("token expired, connection ended")
        end_connection(connection_id, now)
        return {"statusCode": 401}
    telemetry.metric("MessageAnswered", Action=message["type"])
    telemetry.metric(
        "ProcessingLatency", (time.time() - now) * 1000, "Milliseconds", Action="router"
    )
    return {"statusCode": 200, "body": encode_message(message).decode()}
