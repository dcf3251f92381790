"""Looks assemblies up for their owner.

Trigger: direct invoke `{assemblyId, userId, triggerWebhook?}` or `{assemblyIds, userId}`; HTTP
`GET /status/{assembly_id}`, `GET /status?assemblyId=`, `POST /status/batch`, `GET /assemblies`
(API Gateway v1 and v2, Function URL, ALB).
Result: an answer for API Gateway, with JSON text as its body.
Errors: 400 with all invalid fields, 401, 403, 404, 405, 409 and 429 for a webhook, 413, 500, 503;
ValidationError for messages of a queue.
Reads `assemblies`. Signs links to results in S3. Invokes deliver-webhook for webhooks on demand.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    PUBLIC_ASSEMBLY_FIELDS,
    ThrottledError,
    ValidationError,
    assembly_document,
    from_item,
    is_assembly_id,
    is_executing_assembly,
    is_past,
    is_terminal_assembly,
    json_object,
    json_objects,
    link_signer,
    make_token,
    parse_iso_time,
    read_item,
    read_rows,
    read_token,
    s3_options,
    sign_links,
    split_request_key,
    to_item,
)
from jobplane_keys.http import (
    HttpAnswer,
    InvalidRequestError,
    RefusedRequestError,
    UnauthorizedError,
    entity_tag,
    http_answer,
    json_body,
    json_text,
    matches_tag,
)
from jobplane_telemetry import Telemetry
from jobplane_tokens import TokenError, TokenSettings, TokenVerifier, strip_bearer

TABLE = os.environ["DYNAMODB_TABLE"]
FILES_BUCKET = os.environ["FILES_BUCKET"]
DELIVER_WEBHOOK_FUNCTION = os.environ["DELIVER_WEBHOOK_FUNCTION"]
REQUIRE_TENANT = os.environ.get("REQUIRE_TENANT", "").lower() == "true"
ALLOW_ANONYMOUS_INVOKE = os.environ.get("ALLOW_ANONYMOUS_INVOKE", "").lower() == "true"
MASK_FOREIGN = os.environ.get("MASK_FOREIGN", "").lower() == "true"
EXTENDED_CODES = os.environ.get("ASSEMBLY_STATUS_CODES", "").lower() == "extended"
LINK_SECONDS = int(os.environ.get("RESULT_LINK_SECONDS") or 3600)

MAX_BATCH = 100
MAX_ANSWER_BYTES = 6_000_000  # the limit of Lambda is 6 MB, with headers
MAX_BALANCED_BYTES = 1_000_000  # the limit for a load balancer is 1 MB
ENVELOPE_BYTES = 1_000  # of an answer without its documents
LIST_LIMIT, MAX_LIST_LIMIT, LIST_READS = 20, 100, 10
LIST_SECONDS = 20
TOKEN = re.compile(r"[A-Za-z0-9_=-]{24,512}")
WRONG_TOKEN = ("next", "must be the value of next from an earlier answer to the same user")
LIST_FIELDS = tuple(
    name for name in PUBLIC_ASSEMBLY_FIELDS if name not in {"uploads", "results", "warnings"}
)
READ_FIELDS = frozenset(PUBLIC_ASSEMBLY_FIELDS) | {"followers", "ttl", "lease_until", "tenant_id"}
COMPLETED_CACHE = "private, max-age=300"
# A failed or cancelled assembly may be run again, so callers must revalidate its document.
ENDED_CACHE = "private, no-cache"
RETRY_EXECUTING, RETRY_WAITING, RETRY_NOT_FOUND, RETRY_THROTTLED = 2, 5, 2, 2
THROTTLES = (
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TooManyRequestsException",
)
# A delivery on demand takes at most 24 s, and the limit of API Gateway is 29 s.
DELIVERY_SECONDS = 27

telemetry = Telemetry("status")
session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
ssm: Any = session.create_client("ssm", config=config)
verifier = TokenVerifier(TokenSettings.from_environment(os.environ), ssm, telemetry.error)

type Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LookUp:
    """A request for one assembly; `if_none_match` has the entity tags of an HTTP caller."""

    assembly_id: str
    trigger_webhook: bool = False
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class BatchLookUp:
    """A request for several assemblies."""

    assembly_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A request for a page of the caller's assemblies, newest first, from the place `token`."""

    limit: int
    token: str | None


type Request = LookUp | BatchLookUp | Listing


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a request. `user_id` is None for an allowed anonymous invoke, `tenant_id` for
    an invoke that names none.
    """

    user_id: str | None
    tenant_id: str | None = None


class DeliveryFailedError(Exception):
    """deliver-webhook raised; `error_type` is the name of its error."""

    def __init__(self, error_type: str) -> None:
        super().__init__(f"deliver-webhook raised {error_type}")
        self.error_type = error_type


class AnswerTooLargeError(RefusedRequestError):
    """413: only the documents of the first `fits` ids fit into one answer."""

    def __init__(self, fits: int) -> None:
        remedy = ": ask the socket's action `status`, whose result is a link"
        if fits:
            remedy = f": ask for fewer ids at a time; the first {fits} fit"
        super().__init__(413, {"error": f"The answer is too large{remedy}", "fits": fits})


def sent_bytes(body: str) -> int:
    """The bytes of a body in Lambda's answer, which contains it as a JSON string.

    This is an upper limit: a runtime may send other characters than ASCII unescaped.
    """
    return len(json.dumps(body)) - 2


def is_http_event(event: Any) -> bool:
    """Whether the event comes from API Gateway, a Function URL or a load balancer."""
    return "requestContext" in json_object(event) or "httpMethod" in json_object(event)


def most_bytes(event: Any) -> int:
    """The limit of the body of an answer to the event, in bytes."""
    is_balanced = "elb" in json_object(json_object(event).get("requestContext"))
    return (MAX_BALANCED_BYTES if is_balanced else MAX_ANSWER_BYTES) - ENVELOPE_BYTES


def wants_multi_value_headers(event: Mapping[str, Any]) -> bool:
    """Whether the answer needs lists of header values: a load balancer sent such lists."""
    return "elb" in json_object(event.get("requestContext")) and "multiValueHeaders" in event


def header_of(event: Mapping[str, Any], name: str) -> str | None:
    """The first value of a request header; the name is case-insensitive."""
    for field in ("headers", "multiValueHeaders"):
        for key, value in json_object(event.get(field)).items():
            if key.lower() == name:
                first = value[0] if isinstance(value, list) and value else value
                return first if isinstance(first, str) else None
    return None


def query_of(event: Mapping[str, Any]) -> dict[str, str]:
    """The query parameters; values of a repeated one are joined by commas, as in version 2."""
    single = json_object(event.get("queryStringParameters"))
    several = json_object(event.get("multiValueQueryStringParameters"))
    texts = {name: value for name, value in single.items() if isinstance(value, str)}
    for name, values in several.items():
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            texts[name] = ",".join(values)
    return texts


def id_problems(field: str, value: Any) -> list[tuple[str, str]]:
    """The problems of an assembly id; [] for a valid one."""
    if value is None or value == "":
        return [(field, "is required")]
    if not is_assembly_id(value):
        return [(field, "must be 1 to 128 of A-Z, a-z, 0-9, _ and -")]
    return []


def batch_of(ids: Any, problems: list[tuple[str, str]]) -> BatchLookUp:
    """The ids of a batch, each once. Raises InvalidRequestError, also for the given problems."""
    if not isinstance(ids, list):
        problems.append(("assemblyIds", "must be a list"))
    elif len(ids) > MAX_BATCH:
        problems.append(("assemblyIds", f"must hold at most {MAX_BATCH} ids"))
    else:
        for index, value in enumerate(ids):
            problems += id_problems(f"assemblyIds[{index}]", value)
    if problems:
        raise InvalidRequestError(*problems)
    return BatchLookUp(tuple(dict.fromkeys(ids)))


def invoked_request(event: Any) -> Request:
    """The request of a direct invoke. Raises InvalidRequestError with all problems."""
    if not isinstance(event, dict):
        raise InvalidRequestError(("event", "must be a JSON object"))
    problems: list[tuple[str, str]] = []
    for field in ("userId", "tenantId"):
        value = event.get(field)
        if value is not None and not (isinstance(value, str) and 1 <= len(value) <= 256):
            problems.append((field, "must be a string of 1 to 256 characters"))
    if "assemblyIds" in event and "assemblyId" not in event:
        return batch_of(event["assemblyIds"], problems)
    trigger = event.get("triggerWebhook")
    if not isinstance(trigger, bool | None):
        problems.append(("triggerWebhook", "must be true or false"))
    assembly_id = event.get("assemblyId")
    problems = id_problems("assemblyId", assembly_id) + problems
    if problems:
        raise InvalidRequestError(*problems)
    return LookUp(str(assembly_id), bool(trigger))


def http_request(event: Mapping[str, Any]) -> Request:
    """The request of an HTTP event. Raises RefusedRequestError."""
    http = json_object(json_object(event.get("requestContext")).get("http"))
    method = http.get("method") or event.get("httpMethod")
    path = event.get("rawPath") or event.get("path")
    segments = [part for part in path.split("/") if part] if isinstance(path, str) else []
    match method, segments:
        case "POST", [*_, "status", "batch"]:
            return batch_of(json_body(event).get("assemblyIds"), [])
        case "GET", [*_, "status", last]:
            named = json_object(event.get("pathParameters")).get("assembly_id")
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
    """A look-up over HTTP; there a boolean is the text `true` or `false`."""
    problems = id_problems("assemblyId", assembly_id)
    trigger = query_of(event).get("triggerWebhook", "false")
    if trigger not in ("true", "false"):
        problems.append(("triggerWebhook", "must be true or false"))
    if problems:
        raise InvalidRequestError(*problems)
    return LookUp(assembly_id, trigger == "true", header_of(event, "if-none-match"))


def listing_of(query: Mapping[str, str]) -> Listing:
    """The request of a page, from `limit` and `next`. Raises InvalidRequestError."""
    problems: list[tuple[str, str]] = []
    limit = LIST_LIMIT
    text = query.get("limit", str(LIST_LIMIT))
    if re.fullmatch(r"[0-9]{1,3}", text) and 1 <= int(text) <= MAX_LIST_LIMIT:
        limit = int(text)
    else:
        problems.append(("limit", f"must be a number from 1 to {MAX_LIST_LIMIT}"))
    token = query.get("next")
    if token is not None and not TOKEN.fullmatch(token):
        problems.append(WRONG_TOKEN)
    if problems:
        raise InvalidRequestError(*problems)
    return Listing(limit, token)


def invoking_caller(event: Mapping[str, Any]) -> Caller:
    """The caller of a direct invoke; its IAM role is trusted to set `userId` and `tenantId`."""
    user_id = event.get("userId")
    if user_id is None and not ALLOW_ANONYMOUS_INVOKE:
        raise UnauthorizedError("missing_user_id")
    if REQUIRE_TENANT and event.get("tenantId") is None:
        raise InvalidRequestError(("tenantId", "is required on this stage"))
    return Caller(user_id, event.get("tenantId"))


def http_caller(event: Mapping[str, Any]) -> Caller:
    """The caller of a verified token: of the API's authorizer, or else of the header."""
    authorizer = json_object(json_object(event.get("requestContext")).get("authorizer"))
    claims = json_object(authorizer.get("jwt")).get("claims") or authorizer.get("claims")
    try:
        if claims:
            identity = verifier.identity_of_claims(json_object(claims))
        else:
            identity = verifier.verify(strip_bearer(header_of(event, "authorization")))
    except TokenError as error:
        raise UnauthorizedError(error.reason) from error
    return Caller(identity.user_id, identity.tenant_id)


def may_read(item: Document, caller: Caller) -> bool:
    """Whether the caller may read the assembly. One without an owner belongs to no user."""
    tenant_id, user_id = item.get("tenant_id"), json_object(item.get("user")).get("userId")
    return (caller.user_id is None or user_id == caller.user_id) and (
        caller.tenant_id is None or tenant_id is None or tenant_id == caller.tenant_id
    )


def is_live(item: Document, now: float) -> bool:
    """Whether the row has not expired; DynamoDB deletes expired rows late."""
    return not is_past(item.get("ttl"), now)


def document_of(item: Document, now: float) -> Document:
    """The public document of a row, with the codes that the stage is configured for.

    That of a failed assembly names the requests that joined it: any other one runs it again.
    """
    document = assembly_document(item, now, extended_codes=EXTENDED_CODES)
    followers = item.get("followers")
    if item.get("error") and isinstance(followers, list):
        document["joined"] = sorted(split_request_key(key)[1] for key in followers)
    return document


def has_links(item: Document) -> bool:
    """Whether the assembly has a result in the bucket."""
    results = json_object(item.get("results"))
    return any(file.get("key") for made in results.values() for file in json_objects(made))


def version_of(document: Document, now: float, *, links: bool) -> str:
    """The entity tag of a document. With `links` it also changes before these expire."""
    return entity_tag([document, int(now // (LINK_SECONDS / 2)) if links else 0])


def is_throttle(error: Exception) -> bool:
    """Whether the call may succeed when it is repeated shortly after."""
    code = None
    if isinstance(error, ClientError):
        code = error.response["Error"].get("Code")
    elif isinstance(error, DeliveryFailedError):
        code = error.error_type
    return isinstance(error, ThrottledError) or code in THROTTLES


@cache
def s3() -> Any:
    """The client that signs links; created at first use, as many look-ups have no links."""
    return session.create_client("s3", config=Config(**CLIENT_OPTIONS, **s3_options(os.environ)))


# A link to an object of the files bucket, from its key.
sign_download = link_signer(s3, FILES_BUCKET, LINK_SECONDS)


@cache
def functions() -> Any:
    """The client that invokes deliver-webhook, without retries: these would be refused."""
    once = {"read_timeout": DELIVERY_SECONDS, "retries": {"total_max_attempts": 1}}
    return session.create_client("lambda", config=Config(**{**CLIENT_OPTIONS, **once}))


def read_fields(item: Mapping[str, Any]) -> Document:
    """The attributes of a row that this function knows, as JSON values."""
    return from_item({name: value for name, value in item.items() if name in READ_FIELDS})


def read_assembly(assembly_id: str) -> Document | None:
    """The current row of an assembly; None if it does not exist."""
    return read_item(dynamodb, TABLE, {"assembly_id": assembly_id}, READ_FIELDS)


def read_assemblies(assembly_ids: Iterable[str]) -> dict[str, Document]:
    """The rows of several assemblies by id. Raises ThrottledError."""
    keys = [to_item({"assembly_id": assembly_id}) for assembly_id in assembly_ids]
    found = read_rows(dynamodb, TABLE, {"Keys": keys, "ConsistentRead": True})
    return {item["assembly_id"]: item for item in map(read_fields, found)}


def read_page(
    user_id: str, start: tuple[str, str] | None, limit: int
) -> tuple[list[Document], tuple[str, str] | None]:
    """A user's assemblies, newest first, without their files; and the place of the next page."""
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
    """The public document, with a new link for each result in the bucket."""
    return document_of(sign_links(item, sign_download), now)


def ask_delivery(assembly_id: str) -> Document:
    """The answer of deliver-webhook: `webhook`, or the reason as `refused`.

    Raises DeliveryFailedError.
    """
    done = functions().invoke(
        FunctionName=DELIVER_WEBHOOK_FUNCTION,
        Payload=json_text({"assembly_id": assembly_id}).encode(),
    )
    answered: Document = json_object(json.loads(done["Payload"].read()))
    if "FunctionError" in done:
        raise DeliveryFailedError(str(answered.get("errorType")))
    return answered


def count_check(result: str, **ids: Any) -> None:
    """Log and count one look-up."""
    telemetry.info("status_check", result=result, **ids)
    telemetry.metric("StatusChecks", Result=result)


def check(assembly_id: str, item: Document | None, caller: Caller, now: float) -> str:
    """The result of a look-up, which is logged and counted: `found`, `not_found` or `denied`."""
    result = "not_found"
    if item is not None and is_live(item, now):
        result = "found" if may_read(item, caller) else "denied"
    count_check(result, assembly_id=assembly_id, user_id=caller.user_id)
    return result


def look_up(request: LookUp, caller: Caller, now: float) -> HttpAnswer:
    """Answer a look-up, and send the webhook if requested."""
    item = read_assembly(request.assembly_id)
    result = check(request.assembly_id, item, caller, now)
    if result == "denied" and not MASK_FOREIGN:
        text = "Access denied: the assembly belongs to another user"
        return http_answer(403, {"error": text, "assembly_id": request.assembly_id})
    if item is None or result != "found":
        return not_found(request.assembly_id)
    if request.trigger_webhook:
        return triggered(item, now)
    return found(item, request, now)


def not_found(assembly_id: str) -> HttpAnswer:
    """404 with Retry-After: the job may not have begun yet."""
    body = {"error": "Assembly not found", "assembly_id": assembly_id}
    return http_answer(404, body, {"Retry-After": str(RETRY_NOT_FOUND)})


def found(item: Document, request: LookUp, now: float) -> HttpAnswer:
    """200 with the document, or 304 if the caller has this version."""
    document = document_of(item, now)
    if not is_terminal_assembly(item):
        return http_answer(
            200, linked_document(item, now), {"Retry-After": poll_interval(item, now)}
        )
    tag = version_of(document, now, links=has_links(item))
    is_completed = document.get("ok") == "ASSEMBLY_COMPLETED"
    headers = {
        "Cache-Control": COMPLETED_CACHE if is_completed else ENDED_CACHE,
        "ETag": tag,
        "Vary": "Authorization",
    }
    if matches_tag(request.if_none_match, tag):
        return http_answer(304, None, headers)
    return http_answer(200, linked_document(item, now), headers)


def poll_interval(item: Document, now: float) -> str:
    """The value of Retry-After for a job that has not ended; less for one that has just begun."""
    most = RETRY_EXECUTING if is_executing_assembly(item) else RETRY_WAITING
    since = item.get("execution_start") or item.get("updated_at")
    try:
        return str(max(1, min(most, int(now - parse_iso_time(str(since))))))
    except ValueError:
        return str(most)


def triggered(item: Document, now: float) -> HttpAnswer:
    """200 with the document and the webhook's delivery, or 409 or 429 if it was refused."""
    assembly_id = item["assembly_id"]
    delivery: Document = {"refused": "not_ended"}
    if is_terminal_assembly(item):
        delivery = ask_delivery(assembly_id)
    match delivery:
        case {"refused": "not_ended"}:
            body = {"error": "Assembly has not ended", "assembly_id": assembly_id}
            return http_answer(409, body, {"Retry-After": poll_interval(item, now)})
        case {"refused": "too_soon", "retry_after": seconds}:
            body = {"error": "Webhook was triggered a moment ago", "assembly_id": assembly_id}
            return http_answer(429, body, {"Retry-After": str(seconds)})
        case {"refused": _}:
            return not_found(assembly_id)
    return http_answer(200, linked_document(item, now) | {"webhook": delivery["webhook"]})


def look_up_batch(request: BatchLookUp, caller: Caller, now: float, room: int) -> HttpAnswer:
    """Answer a batch: documents by id, null for missing and foreign assemblies."""
    items = read_assemblies(request.assembly_ids)
    statuses: dict[str, Document | None] = {}
    for number, assembly_id in enumerate(request.assembly_ids):
        item = items.get(assembly_id)
        is_found = check(assembly_id, item, caller, now) == "found"
        document = linked_document(item, now) if item and is_found else None
        room -= sent_bytes(f"{json_text(assembly_id)}:{json_text(document)},")
        if room < 0:
            raise AnswerTooLargeError(number)
        statuses[assembly_id] = document
    return http_answer(200, {"statuses": statuses})


def list_assemblies(request: Listing, caller: Caller, now: float, room: int) -> HttpAnswer:
    """Answer a listing, with fewer assemblies than its limit if they are large."""
    documents: list[Document] = []
    start, last = place_of(request.token, caller), None
    for reads in count(1):
        wanted = request.limit - len(documents) if reads <= LIST_READS else MAX_LIST_LIMIT
        items, start = read_page(str(caller.user_id), start, wanted)
        for item in items:
            # The index has the assemblies of all tenants' users with this id.
            if not may_read(item, caller):
                continue
            if is_live(item, now):
                document = document_of(item, now)
                room -= sent_bytes(json_text(document) + ",")
                if documents and (room < 0 or len(documents) == request.limit):
                    return page_of(documents, last, caller)
                documents.append(document)
            last = item["created_at"], item["assembly_id"]
        if start is None:
            return page_of(documents, None, caller)
        if last and (len(documents) >= request.limit or reads >= LIST_READS):
            return page_of(documents, last, caller)
        if time.time() > now + LIST_SECONDS:
            raise ThrottledError("no assembly of the caller was found in time")
    raise AssertionError


def place_of(token: str | None, caller: Caller) -> tuple[str, str] | None:
    """The time and id of the assembly after which a page begins. Raises InvalidRequestError."""
    if token is None:
        return None
    try:
        created_at, assembly_id = read_token(token, list_of(caller))
    except (TypeError, ValueError):
        created_at = assembly_id = None
    # DynamoDB refuses larger keys, and empty ones.
    if isinstance(created_at, str) and 0 < len(created_at) <= 64 and is_assembly_id(assembly_id):
        return created_at, assembly_id
    raise InvalidRequestError(WRONG_TOKEN)


def list_of(caller: Caller) -> list[str | None]:
    """What the token of a page is bound to."""
    return ["assemblies", caller.tenant_id, caller.user_id]


def page_of(documents: list[Document], last: tuple[str, str] | None, caller: Caller) -> HttpAnswer:
    """The answer with a page; `next` leads to the assemblies after `last`, the caller's own."""
    token = make_token(last, list_of(caller)) if last else None
    return http_answer(200, {"assemblies": documents, "next": token})


def answer_request(event: Any, now: float) -> HttpAnswer:
    """Answer an event. Checks first the request, then the caller. Raises RefusedRequestError."""
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
            return look_up(request, caller, now)
        case BatchLookUp():
            return look_up_batch(request, caller, now, most_bytes(event))
        case Listing():
            return list_assemblies(request, caller, now, most_bytes(event))


def safe_answer(event: Any, context: Any) -> HttpAnswer:
    """Answer an event, also after an internal error, whose cause is only logged."""
    started = time.time()
    try:
        result = answer_request(event, started)
        if sent_bytes(result["body"]) > most_bytes(event):
            raise AnswerTooLargeError(0)
        return result
    except UnauthorizedError as error:
        count_check("denied", reason=error.reason)
        return error.answer()
    except RefusedRequestError as error:
        telemetry.info("request refused", status_code=error.status, cause=str(error))
        return error.answer()
    except Exception as error:
        telemetry.exception("status check failed", error)
        count_check("error")
        request_id = getattr(context, "aws_request_id", None)
        if is_throttle(error):
            body = {"error": "Try again in a moment", "request_id": request_id}
            return http_answer(503, body, {"Retry-After": str(RETRY_THROTTLED)})
        return http_answer(500, {"error": "Internal error", "request_id": request_id})
    finally:
        telemetry.metric("StatusLatency", (time.time() - started) * 1000, "Milliseconds")


@telemetry.handler
def handler(event: Any, context: Any) -> HttpAnswer:
    if "Records" in json_object(event):
        # Not answered with 400: Lambda would delete the messages.
        raise ValidationError(
            "Records", "status handles no queue messages: send them to deliver-webhook"
        )
    result = safe_answer(event, context)
    if is_http_event(event) and wants_multi_value_headers(event):
        result["multiValueHeaders"] = {
            name: [value] for name, value in result.pop("headers").items()
        }
    if is_http_event(event):
        result["isBase64Encoded"] = False
    return result
