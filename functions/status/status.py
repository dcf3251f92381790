"""Assembly look-up with ownership, and signed delivery of webhooks.

Trigger: direct invoke `{assemblyId, userId, triggerWebhook?}` or `{assemblyIds, userId}`; HTTP
`GET /status/{assembly_id}`, `GET /status?assemblyId=`, `POST /status/batch`, `GET /assemblies`
(API Gateway v1 and v2, Function URL, ALB); SQS messages of the queue `webhooks`.
Result: a proxy answer whose body is JSON text; for SQS the batch item failures.
Errors: 400 with every problem, 401, 403, 404, 405, 409 and 429 for a webhook, 500, 503.
Reads `assemblies`; writes only their `webhook…` attributes. Signs links to results in S3.
"""

import base64
import hashlib
import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    PUBLIC_ASSEMBLY_FIELDS,
    from_item,
    is_terminal_assembly,
    iso_time,
    public_assembly,
    s3_options,
    sign_links,
    to_item,
)
from jobplane_parameters import Parameter, split_secrets
from jobplane_telemetry import Telemetry
from jobplane_tokens import TokenError, TokenSettings, TokenVerifier, strip_bearer
from jobplane_webhooks import Outcome, TargetRules, compact_json, deliver, signing_key

TABLE = os.environ["DYNAMODB_TABLE"]
FILES_BUCKET = os.environ["FILES_BUCKET"]
WEBHOOKS_QUEUE_URL = os.environ["WEBHOOKS_QUEUE_URL"]
STAGE = os.environ.get("STAGE", "local")
SERVICE = os.environ["SERVICE"]
TEMPLATES_INDEX = os.environ.get("TEMPLATES_INDEX_PATH") or "templates/index.json"
ALLOW_ANONYMOUS_INVOKE = os.environ.get("ALLOW_ANONYMOUS_INVOKE", "").lower() == "true"
MASK_FOREIGN = os.environ.get("MASK_FOREIGN", "").lower() == "true"
EXTENDED_CODES = os.environ.get("ASSEMBLY_STATUS_CODES", "").lower() == "extended"
WEBHOOK_RULES = TargetRules.from_environment(os.environ)
LINK_SECONDS = int(os.environ.get("RESULT_LINK_SECONDS") or 3600)

USER_AGENT = "Jobplane/0.1.0"
ASSEMBLY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
MESSAGE_ID = re.compile(r"[!-~]{1,128}")
# A place in a list: the time and the id of its last assembly. The token tells whose list it is.
PLACE = re.compile(r"([ -~]{1,64})~([A-Za-z0-9_-]{1,128})")
MAX_BATCH = 100
MAX_ANSWER_BYTES = 6_000_000  # Lambda answers at most 6 MB, headers and all
MAX_BALANCED_BYTES = 1_000_000  # to a load balancer at most 1 MB
ENVELOPE_BYTES = 1_000  # of an answer beside the documents in its body
LINK_BYTES = 600  # of a link beside bucket, key and session token
BATCH_READS = 6
LIST_LIMIT, MAX_LIST_LIMIT, LIST_READS = 20, 100, 10
LIST_FIELDS = tuple(
    name for name in PUBLIC_ASSEMBLY_FIELDS if name not in {"uploads", "results", "warnings"}
)
READ_FIELDS = frozenset(PUBLIC_ASSEMBLY_FIELDS) | {
    "ttl", "execution", "lease_until", "tenant_id", "webhook_execution", "webhook_disabled",
}  # fmt: skip
TERMINAL_MAX_AGE = 300
RETRY_EXECUTING, RETRY_WAITING, RETRY_NOT_FOUND, RETRY_THROTTLED = 2, 5, 2, 2
THROTTLES = (
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
)

ATTEMPT_SECONDS = 10.0
MIN_ATTEMPT_SECONDS = 1.0
RESERVED_SECONDS = 3.0  # of the remaining time, to record the outcome and answer
ON_DEMAND_SECONDS = 24.0  # API Gateway gives up after 29
ON_DEMAND_ATTEMPTS = 3
COOLDOWN_SECONDS = 30
CLAIM_SECONDS = 20
PARALLEL_DELIVERIES = 5
RETRY_DELAYS = (5, 30, 120, 600, 3600, 21600)
MAX_RECEIVES = len(RETRY_DELAYS) + 1  # maxReceiveCount of the queue
JITTER = 0.1
PARAMETER_SECONDS = 60.0
SAME_EXECUTION = "attribute_not_exists(#execution) OR #execution = :execution"

telemetry = Telemetry("status")
session = botocore.session.get_session()
client_config = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)
dynamodb: Any = session.create_client("dynamodb", config=client_config)
ssm: Any = session.create_client("ssm", config=client_config)
verifier = TokenVerifier(TokenSettings.from_environment(os.environ), ssm, telemetry.error)

type Document = dict[str, Any]
type Answer = dict[str, Any]
type NoHook = Literal["disabled", "configuration_unavailable", "not_configured", "unsigned_refused"]


@dataclass(frozen=True, slots=True)
class LookUp:
    """One assembly; `if_none_match` holds the entity tags that an HTTP caller has."""

    assembly_id: str
    trigger_webhook: bool = False
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class BatchLookUp:
    """Several assemblies at once."""

    assembly_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the caller's own assemblies, newest first, after `start`."""

    limit: int
    start: tuple[str, str] | None


type Request = LookUp | BatchLookUp | Listing


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. No user: trusted anonymous invoke. No tenant: named by a trusted invoke."""

    user_id: str | None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class QueuedDelivery:
    """A message of the webhook queue."""

    assembly_id: str
    execution: int | None
    template_id: str | None
    receives: int


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a template's notifications go and what signs them, current secret first."""

    template_id: str
    url: str
    secrets: tuple[str, ...]
    allow_unsigned: bool


class RefusedRequestError(Exception):
    """The request is answered with an error that says why."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(body["error"])
        self.status = status
        self.body = body
        self.headers = headers or {}


class InvalidRequestError(RefusedRequestError):
    """400: the request is malformed; `problems` names every field at fault."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        listed = [{"field": field, "message": f"{field} {text}"} for field, text in problems]
        summary = "; ".join(problem["message"] for problem in listed[:5])
        super().__init__(400, {"error": summary, "problems": listed})


class UnauthorizedError(RefusedRequestError):
    """401: nobody known asks. One text for every cause; the log says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            401,
            {"error": "Authentication required"},
            {"WWW-Authenticate": 'Bearer realm="jobplane"'},
        )
        self.reason = reason


class ThrottledError(Exception):
    """The table still left keys unprocessed after all tries."""


class AnswerTooLargeError(RefusedRequestError):
    """413: the documents of the first `fits` ids are all that one answer can hold."""

    def __init__(self, fits: int) -> None:
        remedy = f": ask for fewer ids at a time; the first {fits} fit" if fits else " to be sent"
        super().__init__(413, {"error": f"The answer is too large{remedy}", "fits": fits})


class CooldownError(RefusedRequestError):
    """429: the assembly's webhook was triggered a moment ago."""

    def __init__(self, assembly_id: str, seconds: int) -> None:
        super().__init__(
            429,
            {"error": "Webhook was triggered a moment ago", "assembly_id": assembly_id},
            {"Retry-After": str(seconds)},
        )


class UnreadableMessageError(ValueError):
    """A message of the webhook queue that no attempt can make sense of."""


def answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """A proxy answer; nothing is cached unless the headers say so."""
    return {
        "statusCode": status,
        "headers": {
            "Content-Type": "application/json",
            "Cache-Control": "no-store",
            **(headers or {}),
        },
        "body": "" if body is None else json_text(body),
    }


def json_text(content: Any) -> str:
    """JSON text without spaces."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def sent_bytes(body: str) -> int:
    """Bytes that a body takes in the answer as Lambda sends it: JSON text in JSON.

    A runtime that sends what is not ASCII unescaped sends fewer.
    """
    return len(json.dumps(body)) - 2


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_queue_event(event: Any) -> bool:
    """Whether the event is a batch of SQS messages."""
    records = mapping(event).get("Records")
    return (
        isinstance(records, list)
        and bool(records)
        and all(mapping(record).get("eventSource") == "aws:sqs" for record in records)
    )


def is_http_event(event: Any) -> bool:
    """Whether the event comes from API Gateway, a Function URL or a load balancer."""
    return "requestContext" in mapping(event) or "httpMethod" in mapping(event)


def most_bytes(event: Any) -> int:
    """Bytes of body that an answer to the event can hold."""
    is_balanced = "elb" in mapping(mapping(event).get("requestContext"))
    return (MAX_BALANCED_BYTES if is_balanced else MAX_ANSWER_BYTES) - ENVELOPE_BYTES


def wants_multi_value_headers(event: Mapping[str, Any]) -> bool:
    """A load balancer that sends lists of values wants them back."""
    return "elb" in mapping(event.get("requestContext")) and "multiValueHeaders" in event


def header_of(event: Mapping[str, Any], name: str) -> str | None:
    """The first value of a request header, its name in any case."""
    for field in ("headers", "multiValueHeaders"):
        for key, value in mapping(event.get(field)).items():
            if key.lower() == name:
                first = value[0] if isinstance(value, list) and value else value
                return first if isinstance(first, str) else None
    return None


def query_of(event: Mapping[str, Any]) -> dict[str, str]:
    """The query parameters; one that is repeated becomes a comma-separated text, as in v2."""
    single = mapping(event.get("queryStringParameters"))
    several = mapping(event.get("multiValueQueryStringParameters"))
    texts = {name: value for name, value in single.items() if isinstance(value, str)}
    for name, values in several.items():
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            texts[name] = ",".join(values)
    return texts


def json_body(event: Mapping[str, Any]) -> Document:
    """The request's JSON object; InvalidRequestError when the body is anything else."""
    body = event.get("body")
    try:
        if isinstance(body, str) and event.get("isBase64Encoded"):
            body = base64.b64decode(body, validate=True).decode()
        content = json.loads(body) if isinstance(body, str) else None
    except (ValueError, RecursionError):
        raise InvalidRequestError([("body", "must be JSON")]) from None
    if not isinstance(content, dict):
        raise InvalidRequestError([("body", "must be a JSON object")])
    return content


def id_problems(field: str, value: Any) -> list[tuple[str, str]]:
    """What is wrong with an assembly id."""
    if value is None or value == "":
        return [(field, "is required")]
    if not isinstance(value, str) or not ASSEMBLY_ID.fullmatch(value):
        return [(field, "must be 1 to 128 of A-Z, a-z, 0-9, _ and -")]
    return []


def batch_of(ids: Any, problems: list[tuple[str, str]]) -> BatchLookUp:
    """The ids of a batch, each once; problems found earlier are reported with its own."""
    if not isinstance(ids, list):
        problems.append(("assemblyIds", "must be a list"))
    elif len(ids) > MAX_BATCH:
        problems.append(("assemblyIds", f"must hold at most {MAX_BATCH} ids"))
    else:
        for index, value in enumerate(ids):
            problems += id_problems(f"assemblyIds[{index}]", value)
    if problems:
        raise InvalidRequestError(problems)
    return BatchLookUp(tuple(dict.fromkeys(ids)))


def invoked_request(event: Any) -> Request:
    """The request of a direct invoke; InvalidRequestError names all that is wrong with it."""
    if not isinstance(event, dict):
        raise InvalidRequestError([("event", "must be a JSON object")])
    problems: list[tuple[str, str]] = []
    user = event.get("userId")
    if user is not None and not (isinstance(user, str) and 1 <= len(user) <= 256):
        problems.append(("userId", "must be a string of 1 to 256 characters"))
    if "assemblyIds" in event and "assemblyId" not in event:
        return batch_of(event["assemblyIds"], problems)
    trigger = event.get("triggerWebhook")
    if not isinstance(trigger, bool | None):
        problems.append(("triggerWebhook", "must be true or false"))
    assembly_id = event.get("assemblyId")
    problems = id_problems("assemblyId", assembly_id) + problems
    if problems:
        raise InvalidRequestError(problems)
    return LookUp(str(assembly_id), bool(trigger))


def http_request(event: Mapping[str, Any]) -> Request:
    """The request of an HTTP event; RefusedRequestError for one that is not served."""
    http = mapping(mapping(event.get("requestContext")).get("http"))
    method = http.get("method") or event.get("httpMethod")
    path = event.get("rawPath") or event.get("path")
    segments = [part for part in path.split("/") if part] if isinstance(path, str) else []
    match method, segments:
        case "POST", [*_, "status", "batch"]:
            return batch_of(json_body(event).get("assemblyIds"), [])
        case "GET", [*_, "status", last]:
            named = mapping(event.get("pathParameters")).get("assembly_id")
            return http_look_up(event, named or last)
        case "GET", [*_, "status"]:
            return http_look_up(event, query_of(event).get("assemblyId"))
        case "GET", [*_, "assemblies"]:
            return listing_of(query_of(event))
        case _, [*_, "status", "batch"]:
            raise RefusedRequestError(405, {"error": "Method not allowed"}, {"Allow": "POST"})
        case _, [*_, "status", _] | [*_, "status"] | [*_, "assemblies"]:
            raise RefusedRequestError(405, {"error": "Method not allowed"}, {"Allow": "GET"})
    raise RefusedRequestError(404, {"error": "Unknown path"})


def http_look_up(event: Mapping[str, Any], assembly_id: Any) -> LookUp:
    """A look-up over HTTP, where a boolean is the text `true` or `false`."""
    problems = id_problems("assemblyId", assembly_id)
    trigger = query_of(event).get("triggerWebhook", "false")
    if trigger not in ("true", "false"):
        problems.append(("triggerWebhook", "must be true or false"))
    if problems:
        raise InvalidRequestError(problems)
    return LookUp(assembly_id, trigger == "true", header_of(event, "if-none-match"))


def listing_of(query: Mapping[str, str]) -> Listing:
    """The page that `limit` and `next` ask for."""
    problems: list[tuple[str, str]] = []
    limit, start = LIST_LIMIT, None
    text = query.get("limit", str(LIST_LIMIT))
    if re.fullmatch(r"[0-9]{1,3}", text) and 1 <= int(text) <= MAX_LIST_LIMIT:
        limit = int(text)
    else:
        problems.append(("limit", f"must be a number from 1 to {MAX_LIST_LIMIT}"))
    if (token := query.get("next")) is not None:
        if place := PLACE.fullmatch(token):
            start = place[1], place[2]
        else:
            problems.append(("next", "must be the value of next from an earlier answer"))
    if problems:
        raise InvalidRequestError(problems)
    return Listing(limit, start)


def invoking_caller(event: Mapping[str, Any]) -> Caller:
    """Who a direct invoke speaks for; IAM vouches for whoever sent it."""
    user_id = event.get("userId")
    if user_id is None and not ALLOW_ANONYMOUS_INVOKE:
        raise UnauthorizedError("missing_user_id")
    return Caller(user_id)


def http_caller(event: Mapping[str, Any]) -> Caller:
    """Who a verified token speaks for: the API's own authorizer first, then the header."""
    authorizer = mapping(mapping(event.get("requestContext")).get("authorizer"))
    claims = mapping(authorizer.get("jwt")).get("claims") or authorizer.get("claims")
    try:
        if claims:
            identity = verifier.identity_of_claims(mapping(claims))
        else:
            identity = verifier.verify(strip_bearer(header_of(event, "authorization")))
    except TokenError as error:
        raise UnauthorizedError(error.reason) from error
    return Caller(identity.user_id, identity.tenant_id)


def may_read(item: Document, caller: Caller) -> bool:
    """Whether the assembly is the caller's. One without owner is nobody's."""
    if caller.user_id is None:
        return True
    tenant_id = item.get("tenant_id")
    return mapping(item.get("user")).get("userId") == caller.user_id and (
        caller.tenant_id is None or tenant_id is None or tenant_id == caller.tenant_id
    )


def is_live(item: Document, now: float) -> bool:
    """Whether the item has not expired; DynamoDB deletes late."""
    return not is_past(item.get("ttl"), now)


def is_past(value: Any, now: float) -> bool:
    """Whether the value is a time in epoch seconds that has come."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= now


def is_executing(item: Document) -> bool:
    """Whether a job that has not ended is past waiting for its files."""
    return bool(item.get("execution_start") or item.get("current_step"))


def document_of(item: Document, now: float) -> Document:
    """What of an item is shown, consistent even where its writer was not."""
    document = public_assembly(item)
    if item.get("error"):
        document.pop("ok", None)
        return document
    document.pop("error", None)
    if not is_terminal_assembly(item):
        document.pop("ok", None)
        if EXTENDED_CODES:
            executing = is_executing(item)
            document["ok"] = "ASSEMBLY_EXECUTING" if executing else "ASSEMBLY_UPLOADING"
        if is_past(item.get("lease_until"), now):
            document["stalled"] = True
    return document


def dicts_in(values: Any) -> list[Document]:
    """The objects of a list."""
    return (
        [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    )


def has_links(item: Document) -> bool:
    """Whether any result lies in the bucket."""
    results = mapping(item.get("results"))
    return any(file.get("key") for made in results.values() for file in dicts_in(made))


def entity_tag(document: Document, now: float, *, links: bool) -> str:
    """Changes with the document and, if it has links, well before these expire."""
    period = int(now // (LINK_SECONDS / 2)) if links else 0
    content = json.dumps([document, period], sort_keys=True)
    return f'W/"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'


def matches_tag(if_none_match: str | None, tag: str) -> bool:
    """Whether the caller has the version with this tag."""
    candidates = [part.strip() for part in (if_none_match or "").split(",")]
    return "*" in candidates or tag.removeprefix("W/") in [
        candidate.removeprefix("W/") for candidate in candidates
    ]


def execution_of(item: Document) -> int:
    """Which run of the assembly the item shows; writers that do not replay have but one."""
    execution = item.get("execution")
    return execution if isinstance(execution, int) else 1


def earlier_attempts(item: Document) -> int:
    """How often this execution's webhook has been tried."""
    attempts = mapping(item.get("webhook")).get("attempts")
    is_same = item.get("webhook_execution") == execution_of(item)
    return attempts if is_same and isinstance(attempts, int) else 0


def is_delivered(item: Document) -> bool:
    """Whether this execution's webhook has reached its receiver."""
    return mapping(item.get("webhook")).get("status") == "delivered" and item.get(
        "webhook_execution"
    ) == execution_of(item)


def is_usable_secret(secret: str) -> bool:
    """Whether a key can be made of the secret."""
    try:
        signing_key(secret)
    except ValueError:
        return False
    return True


def webhook_id(assembly_id: str, execution: int) -> str:
    """The same for every attempt of an execution, so that a receiver can drop repetitions."""
    return f"msg_{assembly_id}_{execution}"


def retry_delay(receives: int, chance: float) -> float:
    """Seconds until the next attempt, after the n-th receive; `chance` in 0..1 spreads them."""
    planned = RETRY_DELAYS[min(max(receives, 1), len(RETRY_DELAYS)) - 1]
    return planned * (1 + JITTER * (2 * chance - 1))


def queued_delivery(record: Mapping[str, Any]) -> QueuedDelivery:
    """What an SQS record asks for; UnreadableMessageError if it can't be told."""
    try:
        message = json.loads(record["body"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableMessageError("the body is not JSON") from error
    assembly_id = mapping(message).get("assembly_id")
    if id_problems("assembly_id", assembly_id):
        raise UnreadableMessageError("assembly_id is missing or malformed")
    execution = message.get("execution")
    if not isinstance(execution, int | None) or isinstance(execution, bool):
        raise UnreadableMessageError("execution is not a number")
    template_id = message.get("template_id")
    return QueuedDelivery(
        assembly_id=str(assembly_id),
        execution=execution,
        template_id=template_id if isinstance(template_id, str) else None,
        receives=receives_of(record),
    )


def receives_of(record: Mapping[str, Any]) -> int:
    """How often the message has been handed out, this time included."""
    count = mapping(record.get("attributes")).get("ApproximateReceiveCount")
    return int(count) if isinstance(count, str) and count.isdecimal() else 1


def message_id_of(record: Mapping[str, Any]) -> str:
    """The record's id; an empty one, which gives the whole batch back, when it is none."""
    message_id = record.get("messageId")
    named = isinstance(message_id, str) and MESSAGE_ID.fullmatch(message_id)
    return str(message_id) if named else ""


def trace_of(record: Mapping[str, Any]) -> str | None:
    """The trace of whoever sent the message."""
    header = mapping(record.get("attributes")).get("AWSTraceHeader")
    return header if isinstance(header, str) else None


def is_code(error: Exception, *codes: str) -> bool:
    """Whether AWS refused with one of the codes."""
    return isinstance(error, ClientError) and error.response["Error"].get("Code") in codes


def is_throttle(error: Exception) -> bool:
    """Whether the same call may do better in a moment."""
    return isinstance(error, ThrottledError) or is_code(error, *THROTTLES)


@cache
def lazy_client(service: str) -> Any:
    """A client that a look-up has no need of."""
    options = s3_options(os.environ) if service == "s3" else {}
    return session.create_client(service, config=client_config.merge(Config(**options)))


@cache
def templates() -> dict[str, Document]:
    """The templates that this artifact was built with, by id."""
    from pathlib import Path  # look-ups have no need of it

    text = Path(__file__).parent.joinpath(TEMPLATES_INDEX).read_text("utf-8")
    index = mapping(json.loads(text))
    return {str(template.get("id")): template for template in dicts_in(index.get("templates"))}


def read_fields(item: Mapping[str, Any]) -> Document:
    """A stored item's attributes that this function knows, as JSON values."""
    return from_item({name: value for name, value in item.items() if name in READ_FIELDS})


def read_assembly(assembly_id: str) -> Document | None:
    """The assembly's item as it is now."""
    found = dynamodb.get_item(
        TableName=TABLE, Key=to_item({"assembly_id": assembly_id}), ConsistentRead=True
    )
    return read_fields(found["Item"]) if "Item" in found else None


def read_assemblies(assembly_ids: Iterable[str]) -> dict[str, Document]:
    """The items of several assemblies, by id; ThrottledError if the table keeps some back."""
    keys = [to_item({"assembly_id": assembly_id}) for assembly_id in assembly_ids]
    wanted: dict[str, Any] = {TABLE: {"Keys": keys, "ConsistentRead": True}} if keys else {}
    items: dict[str, Document] = {}
    for read in range(BATCH_READS):
        if not wanted:
            break
        if read:
            time.sleep(random.uniform(0, 0.05 * 2**read))
        page = dynamodb.batch_get_item(RequestItems=wanted)
        for item in map(read_fields, page["Responses"].get(TABLE, [])):
            items[item["assembly_id"]] = item
        wanted = page.get("UnprocessedKeys") or {}
    if wanted:
        raise ThrottledError("keys were left unprocessed")
    return items


def read_page(
    user_id: str, start: tuple[str, str] | None, limit: int
) -> tuple[list[Document], tuple[str, str] | None]:
    """A user's assemblies by time, newest first, without their files; and where to go on."""
    fields = [*LIST_FIELDS, "ttl", "lease_until", "tenant_id"]
    query: dict[str, Any] = {
        "TableName": TABLE,
        "IndexName": "by-user",
        "KeyConditionExpression": "user_id = :user",
        "ExpressionAttributeValues": to_item({":user": user_id}),
        "ProjectionExpression": ",".join(f"#{name}" for name in fields),
        "ExpressionAttributeNames": {f"#{name}": name for name in fields},
        "ScanIndexForward": False,
        "Limit": limit,
    }
    if start:
        created_at, assembly_id = start
        query["ExclusiveStartKey"] = to_item(
            {"user_id": user_id, "created_at": created_at, "assembly_id": assembly_id}
        )
    page = dynamodb.query(**query)
    last = from_item(page.get("LastEvaluatedKey", {}))
    following = (last["created_at"], last["assembly_id"]) if last else None
    return [read_fields(item) for item in page["Items"]], following


def linked_document(item: Document, now: float) -> Document:
    """What is shown, with a fresh link on every result that lies in the bucket."""
    results = item.get("results")
    return document_of(item | {"results": sign_links(results, signed_link)}, now)


def signed_link(key: str) -> str:
    """A link that lets its holder read one object; made locally, without a call."""
    link: str = lazy_client("s3").generate_presigned_url(
        "get_object", Params={"Bucket": FILES_BUCKET, "Key": key}, ExpiresIn=LINK_SECONDS
    )
    return link


def entry_bytes(assembly_id: str, document: Document | None) -> int:
    """Bytes that a batch's answer needs for one document."""
    return sent_bytes(f"{json_text(assembly_id)}:{json_text(document)},")


def link_bytes() -> int:
    """The most bytes that a link takes beside its key."""
    credentials: Any = session.get_credentials()
    token = credentials.get_frozen_credentials().token or ""
    return LINK_BYTES + len(FILES_BUCKET) + len(quote(token, safe=""))


def measured(item: Document, now: float, beside_key: int) -> int:
    """The most bytes that a document takes in an answer, told before any of its links is signed."""
    results = sign_links(
        item.get("results"), lambda key: "x" * (beside_key + len(quote(key, safe="")))
    )
    return entry_bytes(item["assembly_id"], document_of(item | {"results": results}, now))


@cache
def parameter(name: str) -> Parameter[str | None]:
    """An SSM parameter, at most PARAMETER_SECONDS old; its value is None if it does not exist."""
    return Parameter(
        ssm, name, lambda text: text, max_age=PARAMETER_SECONDS, report=telemetry.error
    )


def in_stage(reference: Any) -> str:
    """A reference of a template with the names of this stage filled in."""
    return str(reference).replace("{service}", SERVICE).replace("{stage}", STAGE)


def referenced(reference: Any) -> str | None:
    """What `env:NAME` or `ssm:/path` stands for; None if that is absent, or no reference."""
    kind, separator, name = in_stage(reference).partition(":")
    if kind == "env" and separator:
        return os.environ.get(name) or None
    if kind == "ssm" and separator:
        return parameter(name).value()
    return None


def hook_of(template_id: Any) -> Hook | None:
    """The template's webhook, or None if it has none."""
    template = templates().get(template_id) if isinstance(template_id, str) else None
    url = template.get("webhook_url") if template else None
    if not template or not isinstance(url, str) or not url:
        return None
    if url.startswith(("env:", "ssm:")):
        url = referenced(url)
    if not url:
        return None
    secrets = split_secrets(referenced(template.get("webhook_secret")) or "")
    usable = tuple(filter(is_usable_secret, secrets))
    if len(usable) < len(secrets):
        telemetry.error("webhook secret is not base64", template_id=template_id)
    return Hook(str(template_id), url.strip(), usable, template.get("allow_unsigned") is True)


def missing_settings(template_id: Any) -> list[str]:
    """The references of the template's webhook that stand for nothing: what to set."""
    template = templates().get(template_id) if isinstance(template_id, str) else None
    needed = [] if template is None else [template.get("webhook_url")]
    if template is not None and template.get("allow_unsigned") is not True:
        needed.append(template.get("webhook_secret"))
    return [
        in_stage(reference)
        for reference in needed
        if isinstance(reference, str)
        and reference.startswith(("env:", "ssm:"))
        and not referenced(reference)
    ]


def update_assembly(
    assembly_id: str, change: str, condition: str, **values: Any
) -> Document | None:
    """Change an item if the condition holds; None if it did, else what is there instead."""
    names = re.findall(r"#(\w+)", f"{change} {condition}")
    try:
        dynamodb.update_item(
            TableName=TABLE,
            Key=to_item({"assembly_id": assembly_id}),
            UpdateExpression=change,
            ConditionExpression=f"attribute_exists(assembly_id) AND ({condition})",
            ExpressionAttributeNames={f"#{name}": name for name in names},
            ExpressionAttributeValues={f":{name}": part for name, part in to_item(values).items()},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        if not is_code(error, "ConditionalCheckFailedException"):
            raise
        return from_item(mapping(error.response.get("Item")))
    return None


def start_cooldown(assembly_id: str, now: float) -> None:
    """Reserve the assembly's next delivery on demand; CooldownError if one was just made."""
    standing = update_assembly(
        assembly_id,
        "SET #webhook_cooldown_until = :until",
        "attribute_not_exists(#webhook_cooldown_until) OR #webhook_cooldown_until <= :now",
        until=now + COOLDOWN_SECONDS,
        now=now,
    )
    if standing is not None:
        left = standing.get("webhook_cooldown_until", now + COOLDOWN_SECONDS) - now
        raise CooldownError(assembly_id, min(max(1, math.ceil(left)), COOLDOWN_SECONDS))


def claim_delivery(item: Document, now: float) -> bool:
    """Keep other receives of the same message away while this one delivers."""
    standing = update_assembly(
        item["assembly_id"],
        "SET #webhook_claim_until = :until",
        "(attribute_not_exists(#webhook_claim_until) OR #webhook_claim_until <= :now) AND "
        "NOT (#webhook.#status = :delivered AND #webhook_execution = :execution)",
        until=now + CLAIM_SECONDS,
        now=now,
        delivered="delivered",
        execution=execution_of(item),
    )
    return standing is None


def record_webhook(item: Document, status: str, attempts: int, code: int | None) -> Document:
    """Write what became of the notification, and answer it; a newer execution is left alone."""
    state: Document = {"status": status, "attempts": attempts}
    if code is not None:
        state["last_response_code"] = code
    if attempts:
        state["last_attempt_at"] = iso_time(time.time())
    standing = update_assembly(
        item["assembly_id"],
        "SET #webhook = :state, #webhook_execution = :execution, #webhook_disabled = :disabled "
        "REMOVE #webhook_claim_until",
        SAME_EXECUTION,
        state=state,
        execution=execution_of(item),
        disabled=status == "disabled",
    )
    if standing is not None:
        telemetry.info("webhook state belongs to an earlier execution", status=status)
    if status in {"failed", "disabled", "refused", "unsigned_refused"}:
        telemetry.metric("WebhookFailed")
    elif status == "delivered":
        telemetry.metric("WebhookDelivered")
    return state


def forget_webhook(item: Document) -> None:
    """Remove the plan to send what has no receiver."""
    update_assembly(
        item["assembly_id"], "REMOVE #webhook", SAME_EXECUTION, execution=execution_of(item)
    )


def postpone(receipt: str, seconds: float) -> None:
    """Hide a message until its next attempt; if that fails, the queue's own timeout does it."""
    try:
        lazy_client("sqs").change_message_visibility(
            QueueUrl=WEBHOOKS_QUEUE_URL, ReceiptHandle=receipt, VisibilityTimeout=math.ceil(seconds)
        )
    except Exception as error:
        telemetry.exception("message not postponed", error)


def attempt(hook: Hook, item: Document, number: int, seconds: float) -> Outcome:
    """Post the assembly's document once, and log and count it."""
    started = time.monotonic()
    outcome = deliver(
        hook.url,
        compact_json(linked_document(item, time.time())).encode(),
        hook.secrets,
        message_id=webhook_id(item["assembly_id"], execution_of(item)),
        user_agent=USER_AGENT,
        seconds=seconds,
        rules=WEBHOOK_RULES,
        allow_unsigned=hook.allow_unsigned,
        trace_header=telemetry.trace_header,
    )
    telemetry.metric("WebhookAttempts")
    telemetry.info(
        "webhook_delivery",
        assembly_id=item["assembly_id"],
        template_id=hook.template_id,
        host=host_to_log(hook.url),
        attempt=number,
        status_code=outcome.status_code,
        duration_ms=round((time.monotonic() - started) * 1000),
        result=outcome.result,
        cause=outcome.cause,
    )
    return outcome


def host_to_log(url: str) -> str | None:
    """The host alone: paths and queries of webhook URLs may hold secrets."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def hook_for(item: Document, template_id: Any) -> Hook | NoHook:
    """Where to deliver, or the word for why nothing is sent."""
    if item.get("webhook_disabled") is True:
        return "disabled"
    try:
        hook = hook_of(template_id)
        if hook is not None and (hook.secrets or hook.allow_unsigned):
            return hook
        missing = missing_settings(template_id)
    except Exception as error:
        telemetry.exception("webhook configuration not read", error)
        return "configuration_unavailable"
    if missing:
        telemetry.warning("webhook settings are missing", template_id=template_id, missing=missing)
    if hook is None:
        telemetry.info("template has no webhook", template_id=template_id)
        return "not_configured"
    telemetry.error("webhook without a secret is not sent", template_id=template_id)
    return "unsigned_refused"


def deliver_on_demand(item: Document, remaining: Callable[[], float]) -> Document:
    """Deliver now, with as many attempts as fit the time; what the answer's `webhook` says.

    Raises CooldownError when the last delivery on demand was a moment ago.
    """
    recorded, earlier, made = mapping(item.get("webhook")), earlier_attempts(item), 0
    hook = hook_for(item, item.get("template_id"))
    named: Document = {}
    if hook in ("not_configured", "unsigned_refused"):
        missing = missing_settings(item.get("template_id"))
        named = {"missing": missing} if missing else {}
    if isinstance(hook, str) and hook != "unsigned_refused":
        return recorded | {"delivered": False, "attempts": 0, "error": hook} | named
    start_cooldown(item["assembly_id"], time.time())
    if isinstance(hook, Hook):
        outcome, made = attempt_repeatedly(hook, item, earlier, remaining)
    else:
        outcome = Outcome("unsigned_refused", error="unsigned_refused")
    status = status_on_demand(recorded, outcome, is_delivered(item))
    try:
        recorded = record_webhook(item, status, earlier + made, outcome.status_code)
    except Exception as error:
        telemetry.exception("webhook outcome not recorded", error)
    told = {"status_code": outcome.status_code, "error": outcome.error}
    return (
        recorded
        | {"delivered": outcome.result == "delivered", "attempts": made}
        | {name: value for name, value in told.items() if value is not None}
        | named
    )


def attempt_repeatedly(
    hook: Hook, item: Document, earlier: int, remaining: Callable[[], float]
) -> tuple[Outcome, int]:
    """What up to ON_DEMAND_ATTEMPTS attempts come to, and how many there was time for."""
    outcome, made = Outcome("retry", error="no_time"), 0
    while outcome.result == "retry" and made < ON_DEMAND_ATTEMPTS:
        pause = max(2.0 ** (made - 1), outcome.retry_after) if made else 0.0
        if remaining() < pause + MIN_ATTEMPT_SECONDS:
            break
        time.sleep(pause)
        made += 1
        outcome = attempt(hook, item, earlier + made, min(ATTEMPT_SECONDS, remaining()))
    return outcome, made


def status_on_demand(recorded: Document, outcome: Outcome, delivered: bool) -> str:
    """What to record; a failure on demand undoes neither a delivery nor the queue's plans."""
    if outcome.result in {"delivered", "disabled"}:
        return outcome.result
    if delivered:
        return "delivered"
    if recorded.get("status") in {"pending", "retrying"}:
        return str(recorded["status"])
    return "failed" if outcome.result == "retry" else outcome.result


def standing_of(item: Document | None, message: QueuedDelivery, now: float) -> str:
    """Whether a queued delivery is `due`, too `early`, or `done` with."""
    if item is None or not is_live(item, now):
        telemetry.warning("assembly of the webhook is gone")
        return "done"
    execution = execution_of(item)
    ahead = (message.execution or execution) - execution
    if ahead < 0 or is_delivered(item):
        telemetry.info("webhook needs no delivery", webhook=item.get("webhook"), behind=-ahead)
        return "done"
    if ahead > 0 or not is_terminal_assembly(item):
        telemetry.warning("assembly of the webhook has not ended")
        return "early"
    return "due"


def deliver_queued(message: QueuedDelivery, seconds: float) -> float | None:
    """One attempt for one message: None when it is done with, else seconds to the next attempt."""
    item = read_assembly(message.assembly_id)
    standing = standing_of(item, message, time.time())
    if item is None or standing == "done":
        return None
    telemetry.bind(request_id=item.get("request_id"))
    if standing == "early":
        return retry_delay(message.receives, random.random())
    number = earlier_attempts(item)
    match hook := hook_for(item, item.get("template_id") or message.template_id):
        case "not_configured":
            forget_webhook(item)
            return None
        case "disabled" | "unsigned_refused":
            record_webhook(item, hook, number, None)
            return None
        case "configuration_unavailable":
            return settle(item, message, number, Outcome("retry"))
    if not claim_delivery(item, time.time()):
        telemetry.info("webhook is being delivered by another receive")
        return float(CLAIM_SECONDS)
    return settle(item, message, number + 1, attempt(hook, item, number + 1, seconds))


def settle(item: Document, message: QueuedDelivery, number: int, outcome: Outcome) -> float | None:
    """Record an attempt; None when the message is done with, else seconds to the next attempt."""
    if outcome.result != "retry":
        record_webhook(item, outcome.result, number, outcome.status_code)
        return None
    if message.receives >= MAX_RECEIVES:
        record_webhook(item, "failed", number, outcome.status_code)
        return 0.0  # the next receive moves the message to the dead-letter queue
    record_webhook(item, "retrying", number, outcome.status_code)
    return max(retry_delay(message.receives, random.random()), outcome.retry_after)


def take_record(record: Mapping[str, Any], remaining: Callable[[], float]) -> str | None:
    """Deal with one SQS record; its message id if the queue is to keep it."""
    with telemetry.ids(message_id=message_id_of(record)), telemetry.trace(trace_of(record)):
        try:
            message = queued_delivery(record)
            telemetry.bind(assembly_id=message.assembly_id, execution=message.execution)
            delay = deliver_queued(message, max(0.1, min(ATTEMPT_SECONDS, remaining())))
        except UnreadableMessageError as error:
            telemetry.exception("webhook message is unreadable", error)
            delay = 0.0
        except Exception as error:
            telemetry.exception("webhook not delivered", error)
            delay = retry_delay(receives_of(record), random.random())
        if delay is None:
            return None
        postpone(str(record.get("receiptHandle")), delay)
        return message_id_of(record)


def take_records(records: Sequence[Mapping[str, Any]], remaining: Callable[[], float]) -> Answer:
    """Deliver a batch side by side: one slow receiver must not use up the others' time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL_DELIVERIES) as pool:
        kept = pool.map(lambda record: take_record(record, remaining), records)
        return {
            "batchItemFailures": [{"itemIdentifier": name} for name in kept if name is not None]
        }


def note_check(result: str, **ids: Any) -> None:
    """Log and count one look-up."""
    telemetry.info("status_check", result=result, **ids)
    telemetry.metric("StatusChecks", Result=result)


def check(assembly_id: str, item: Document | None, caller: Caller, now: float) -> str:
    """What a look-up comes to, logged and counted: `found`, `not_found` or `denied`."""
    result = "not_found"
    if item is not None and is_live(item, now):
        result = "found" if may_read(item, caller) else "denied"
    note_check(result, assembly_id=assembly_id, user_id=caller.user_id)
    return result


def look_up(request: LookUp, caller: Caller, now: float, remaining: Callable[[], float]) -> Answer:
    """One assembly, and its webhook if that was asked for."""
    item = read_assembly(request.assembly_id)
    result = check(request.assembly_id, item, caller, now)
    if result == "denied" and not MASK_FOREIGN:
        text = "Access denied: the assembly belongs to another user"
        return answer(403, {"error": text, "assembly_id": request.assembly_id})
    if item is None or result != "found":
        return answer(
            404,
            {"error": "Assembly not found", "assembly_id": request.assembly_id},
            {"Retry-After": str(RETRY_NOT_FOUND)},
        )
    if request.trigger_webhook:
        return triggered(item, now, remaining)
    return found(item, request, now)


def found(item: Document, request: LookUp, now: float) -> Answer:
    """200 with the document, or 304 if the caller has it."""
    document = document_of(item, now)
    if not is_terminal_assembly(item):
        return answer(200, linked_document(item, now), {"Retry-After": poll_interval(item)})
    tag = entity_tag(document, now, links=has_links(item))
    headers = {
        "Cache-Control": f"private, max-age={TERMINAL_MAX_AGE}",
        "ETag": tag,
        "Vary": "Authorization",
    }
    if matches_tag(request.if_none_match, tag):
        return answer(304, None, headers)
    return answer(200, linked_document(item, now), headers)


def poll_interval(item: Document) -> str:
    """Seconds until it is worth asking again."""
    return str(RETRY_EXECUTING if is_executing(item) else RETRY_WAITING)


def triggered(item: Document, now: float, remaining: Callable[[], float]) -> Answer:
    """200 with the document and what became of its webhook; 409 and 429 when it is not the time."""
    if not is_terminal_assembly(item):
        body = {"error": "Assembly has not ended", "assembly_id": item["assembly_id"]}
        raise RefusedRequestError(409, body, {"Retry-After": poll_interval(item)})
    webhook = deliver_on_demand(item, remaining)
    return answer(200, linked_document(item, now) | {"webhook": webhook})


def look_up_batch(request: BatchLookUp, caller: Caller, now: float, room: int) -> Answer:
    """The caller's documents by id; null for what is not there or not the caller's."""
    items = read_assemblies(request.assembly_ids)
    shown: dict[str, Document | None] = {}
    for assembly_id in request.assembly_ids:
        item = items.get(assembly_id)
        is_found = check(assembly_id, item, caller, now) == "found"
        shown[assembly_id] = item if is_found else None
    beside_key = link_bytes()
    for number, (assembly_id, item) in enumerate(shown.items()):
        room -= measured(item, now, beside_key) if item else entry_bytes(assembly_id, None)
        if room < 0:
            raise AnswerTooLargeError(number)
    statuses = {name: linked_document(item, now) if item else None for name, item in shown.items()}
    return answer(200, {"statuses": statuses})


def list_assemblies(request: Listing, caller: Caller, now: float, room: int) -> Answer:
    """The caller's own assemblies, newest first, without their files; fewer if they are large."""
    documents: list[Document] = []
    start = request.start
    for _ in range(LIST_READS):
        items, start = read_page(str(caller.user_id), start, request.limit - len(documents))
        for item in items:
            if not is_live(item, now) or not may_read(item, caller):
                continue
            document = document_of(item, now)
            room -= sent_bytes(json_text(document) + ",")
            if room < 0 and documents:
                last = documents[-1]
                return page_of(documents, (last["created_at"], last["assembly_id"]))
            documents.append(document)
        if start is None or len(documents) >= request.limit:
            break
    return page_of(documents, start)


def page_of(documents: list[Document], following: tuple[str, str] | None) -> Answer:
    """A page of a list; `next` is where the one after it goes on."""
    token = "~".join(following) if following else None
    return answer(200, {"assemblies": documents, "next": token})


def answer_request(event: Any, now: float, remaining: Callable[[], float]) -> Answer:
    """Malformed, then unknown, then everything else."""
    is_http = is_http_event(event)
    request = http_request(event) if is_http else invoked_request(event)
    if isinstance(request, LookUp):
        telemetry.bind(assembly_id=request.assembly_id)
    caller = http_caller(event) if is_http else invoking_caller(event)
    if caller.user_id is not None:
        telemetry.bind(user_id=caller.user_id)
    if caller.tenant_id is not None:
        telemetry.bind(tenant_id=caller.tenant_id)
    match request:
        case LookUp():
            return look_up(request, caller, now, remaining)
        case BatchLookUp():
            return look_up_batch(request, caller, now, most_bytes(event))
        case Listing():
            return list_assemblies(request, caller, now, most_bytes(event))


def safe_answer(event: Any, context: Any, remaining: Callable[[], float]) -> Answer:
    """An answer in every case; what went wrong inside goes to the log alone."""
    started = time.time()
    try:
        result = answer_request(event, started, remaining)
        if sent_bytes(result["body"]) > most_bytes(event):
            raise AnswerTooLargeError(0)
        return result
    except UnauthorizedError as error:
        note_check("denied", reason=error.reason)
        return answer(error.status, error.body, error.headers)
    except RefusedRequestError as error:
        telemetry.info("request refused", status_code=error.status, cause=str(error))
        return answer(error.status, error.body, error.headers)
    except Exception as error:
        telemetry.exception("status check failed", error)
        note_check("error")
        request_id = getattr(context, "aws_request_id", None)
        if is_throttle(error):
            body = {"error": "Try again in a moment", "request_id": request_id}
            return answer(503, body, {"Retry-After": str(RETRY_THROTTLED)})
        return answer(500, {"error": "Internal error", "request_id": request_id})
    finally:
        telemetry.metric("StatusLatency", (time.time() - started) * 1000, "Milliseconds")


def time_left(context: Any, most: float) -> Callable[[], float]:
    """Seconds that deliveries may still take in this invocation, of at most so many."""
    clock = getattr(context, "get_remaining_time_in_millis", None)
    granted = clock() / 1000 - RESERVED_SECONDS if clock else most
    deadline = time.monotonic() + min(most, granted)
    return lambda: deadline - time.monotonic()


@telemetry.handler
def handler(event: Any, context: Any) -> Answer:
    remaining = time_left(context, ON_DEMAND_SECONDS)
    if is_queue_event(event):
        return take_records(event["Records"], remaining)
    result = safe_answer(event, context, remaining)
    if is_http_event(event) and wants_multi_value_headers(event):
        result["multiValueHeaders"] = {
            name: [value] for name, value in result.pop("headers").items()
        }
    if is_http_event(event):
        result["isBase64Encoded"] = False
    return result
