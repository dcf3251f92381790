"""Jobs over HTTP: starts, cancels, replays, reads and lists them for the user of a token.

Trigger: HTTP API `POST /jobs`, `/jobs/batch`, `/jobs/{request_id}/cancel`,
`/jobs/{request_id}/replay` and `/uploads`, which the function router performs as messages of this
user; `GET /jobs` and `GET /jobs/{request_id}`; and `POST /callbacks/{token}`, which needs no other
token. Result: an answer for API Gateway with the text and the code that a socket's message has.
Errors: 400, 401, 403, 404, 409, 410, 413, 500 and 503 as answers.
Reads `requests`, and writes to them the answers of callbacks. Signs links to results in S3.
"""

import heapq
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from operator import itemgetter
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    TENANT_SHARDS,
    TERMINAL_STATUSES,
    ErrorCode,
    RequestStatus,
    ThrottledError,
    error_body,
    from_item,
    is_past,
    is_request_id,
    iso_time,
    job_tags,
    json_object,
    link_signer,
    make_token,
    new_request_id,
    owner_key,
    parse_iso_time,
    read_item,
    read_rows,
    read_token,
    requests_table,
    s3_options,
    server_message,
    shown_result,
    split_owner_key,
    strict_json,
    tenant_shard,
    tenant_shards,
    to_item,
)
from jobplane_keys.http import (
    HttpAnswer,
    RefusedRequestError,
    UnauthorizedError,
    body_text,
    entity_tag,
    http_answer,
    matches_tag,
    message_answer,
)
from jobplane_keys.lanes import job_state
from jobplane_leases import read_events
from jobplane_leases.callbacks import AnswerError, TokenError, return_callback
from jobplane_telemetry import Telemetry
from jobplane_tokens import Identity, TokenSettings, TokenVerifier, strip_bearer
from jobplane_tokens import TokenError as BearerError

REQUESTS = requests_table(os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX))
FILES_BUCKET = os.environ["FILES_BUCKET"]
ROUTER_FUNCTION = os.environ["ROUTER_FUNCTION"]
TENANT_PARTITIONS = int(os.environ.get("TENANT_SHARDS", TENANT_SHARDS))

MAX_BATCH = 100
# With each character escaped, Lambda still takes it.
MAX_BODY_BYTES = 2_500_000
MAX_ANSWER_BYTES = 5_999_000  # the limit of Lambda is 6 MB, with headers
# Less than the time that API Gateway waits for an answer.
ROUTER_SECONDS = 28
LINK_SECONDS = 3600
MAX_EVENTS_BYTES = 256 * 1024  # of events in an answer
LIST_LIMIT, MAX_LIST_LIMIT, LIST_READS = 20, 100, 10
PAGE = re.compile(r"[A-Za-z0-9_=-]{24,512}")
LIST_QUERY = ("limit", "next", "scope", "status", "action", "tag", "from", "to")
LOOK_UP_QUERY = ("wait", "since_seq", "since_event", "user_id")
MAX_WAIT_SECONDS = 20
# Between two reads of a job while its caller waits; at most 25 of them.
FIRST_WAIT, LONGEST_WAIT = 0.2, 1.0
RETRY_JOB = "1"
# What a list has of a job's row; not its payload and result, which may be large.
JOB_FIELDS = (
    "owner", "request_id", "action", "status", "attempts", "assembly_id", "cancel_requested",
    "created_at", "run_at", "started_at", "updated_at", "ended_at", "seq", "progress", "error",
    "waiting_since", "waiting_for", "starts_at", "callback", "replay_of", "metadata", "ttl",
)  # fmt: skip

telemetry = Telemetry("jobs")
session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
ssm: Any = session.create_client("ssm", config=config)
verifier = TokenVerifier(TokenSettings.from_environment(os.environ), ssm, telemetry.error)

type Message = dict[str, Any]
type Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request over HTTP."""

    event: Mapping[str, Any]
    now: float

    @property
    def path(self) -> Mapping[str, str]:
        return self._texts("pathParameters")

    @property
    def query(self) -> Mapping[str, str]:
        return self._texts("queryStringParameters")

    @property
    def headers(self) -> Mapping[str, str]:
        return self._texts("headers")

    def _texts(self, part: str) -> Mapping[str, str]:
        given = json_object(self.event.get(part)).items()
        return {name: value for name, value in given if isinstance(value, str)}

    def content(self) -> Message:
        """The JSON object of the body. Raises RefusedRequestError."""
        try:
            text = body_text(self.event) or ""
            if len(text.encode()) > MAX_BODY_BYTES:
                most = f"The body has more than {MAX_BODY_BYTES} bytes"
                raise refusal(ErrorCode.PAYLOAD_TOO_LARGE, most)
            content = strict_json(text)
        except ValueError:
            raise refusal(ErrorCode.INVALID_MESSAGE, "The body is not JSON text") from None
        if not isinstance(content, dict):
            raise refusal(ErrorCode.INVALID_MESSAGE, "The body is not a JSON object")
        return content

    def key(self, room: int = 0) -> str | None:
        """The header Idempotency-Key, which may begin ids. Raises RefusedRequestError."""
        key = self.headers.get("idempotency-key")
        if key is not None and (not is_request_id(key) or len(key) > 128 - room):
            raise invalid(("Idempotency-Key", f"expected 1 to {128 - room} of A-Z a-z 0-9 . _ : -"))
        return key


def refusal(code: ErrorCode, text: str, **more: Any) -> RefusedRequestError:
    """The refusal of a request, as a socket's error says it."""
    message = server_message("error", None, 0, error=error_body(code, text, **more))
    return RefusedRequestError(*message_answer(message))


def invalid(*problems: tuple[str, str]) -> RefusedRequestError:
    """The refusal of a request with invalid fields."""
    details = [{"field": field, "message": text} for field, text in problems]
    text = "; ".join(f"{field}: {expected}" for field, expected in problems)
    return refusal(ErrorCode.VALIDATION_ERROR, text, details=details)


@cache
def s3() -> Any:
    """The client that signs links; created at first use, as many look-ups have no links."""
    return session.create_client("s3", config=Config(**CLIENT_OPTIONS, **s3_options(os.environ)))


# A link to an object of the files bucket, from its key.
sign_download = link_signer(s3, FILES_BUCKET, LINK_SECONDS)


@cache
def functions() -> Any:
    """The client that invokes router, without retries: the caller repeats a request."""
    once = {"read_timeout": ROUTER_SECONDS, "retries": {"total_max_attempts": 1}}
    return session.create_client("lambda", config=Config(**{**CLIENT_OPTIONS, **once}))


def caller_of(call: Call) -> Identity:
    """The user of a request's token. Raises UnauthorizedError."""
    bearer = call.headers.get("authorization")
    try:
        identity = verifier.verify(strip_bearer(bearer) if isinstance(bearer, str) else None)
    except BearerError as error:
        raise UnauthorizedError(error.reason) from error
    telemetry.bind(user_id=identity.user_id, tenant_id=identity.tenant_id)
    return identity


def performed(caller: Identity, messages: list[Message]) -> list[Message]:
    """The answers of router to messages of a user. Raises RefusedRequestError."""
    asked = {
        "caller": {
            "user_id": caller.user_id,
            "tenant_id": caller.tenant_id,
            "permissions": caller.permissions,
        },
        "messages": [json.dumps(message, ensure_ascii=False) for message in messages],
    }
    done = functions().invoke(
        FunctionName=ROUTER_FUNCTION, Payload=json.dumps(asked, ensure_ascii=False).encode()
    )
    answered = json.loads(done["Payload"].read())
    if "FunctionError" in done:
        raise RuntimeError(f"router raised {json_object(answered).get('errorType')}")
    answers: list[Message] = answered["answers"]
    return answers


def performed_one(caller: Identity, message: Message) -> tuple[int, Message, dict[str, str]]:
    """Status, body and headers of the answer to one message."""
    return message_answer(performed(caller, [message])[0])


def start(call: Call, caller: Identity) -> HttpAnswer:
    """Perform an action, or store it as a job; its id may be in the header Idempotency-Key."""
    content, key = call.content(), call.key()
    if key is not None and content.get("id", key) != key:
        raise invalid(("id", "expected the same as Idempotency-Key"))
    return http_answer(*performed_one(caller, content | ({"id": key} if key else {})))


def start_batch(call: Call, caller: Identity) -> HttpAnswer:
    """Perform several actions, each with an outcome of its own."""
    key, jobs = call.key(len(":99")), call.content().get("jobs")
    if not isinstance(jobs, list) or not 1 <= len(jobs) <= MAX_BATCH:
        raise invalid(("jobs", f"expected a list of 1 to {MAX_BATCH} jobs"))
    messages = [
        {"id": f"{key}:{number}"} | job if key and isinstance(job, dict) else job
        for number, job in enumerate(jobs)
    ]
    outcomes = map(message_answer, performed(caller, messages))
    return http_answer(207, {"jobs": [{"status_code": code, **body} for code, body, _ in outcomes]})


def change(action: str, call: Call, caller: Identity) -> HttpAnswer:
    """Cancel or replay a job."""
    own = {"id": call.key() or new_request_id(call.now)}
    payload = {"request_id": call.path.get("request_id")}
    status, body, headers = performed_one(caller, own | {"action": action, "payload": payload})
    return http_answer(status, body.get("result", body), headers)


def create_upload(call: Call, caller: Identity) -> HttpAnswer:
    """Sign a PUT for each file of an assembly."""
    message = {"action": "create_upload", "payload": call.content()}
    status, body, headers = performed_one(caller, message)
    return http_answer(status, body.get("result", body), headers)


def answer_callback(call: Call) -> HttpAnswer:
    """Give a waiting job its answer; a caller that has its token may do so."""
    try:
        return_callback(dynamodb, REQUESTS, call.path.get("token"), call.content(), call.now)
    except AnswerError as error:
        raise invalid((error.field, str(error))) from error
    except TokenError as error:
        raise refusal(error.code, str(error)) from error
    return http_answer(204, None)


def unknown_in(query: Mapping[str, Any], known: tuple[str, ...]) -> list[tuple[str, str]]:
    """A problem for each name of a query that is not known: its filter would be left out."""
    expected = f"is unknown; known are {', '.join(known)}"
    return [(name[:100], expected) for name in query if name not in known]


def paging_of(query: Mapping[str, Any], problems: list[tuple[str, str]]) -> tuple[int, str | None]:
    """`limit` and `next` of a query; their problems are added to the list."""
    limit = number_of(query, "limit", LIST_LIMIT, (1, MAX_LIST_LIMIT), problems)
    token = query.get("next")
    if token is not None and not PAGE.fullmatch(token):
        problems.append(WRONG_PAGE)
    return limit or LIST_LIMIT, token


WRONG_PAGE = ("next", "must be the value of next from an earlier answer to the same user")


def number_of(
    query: Mapping[str, Any],
    name: str,
    default: int | None,
    bounds: tuple[int, int],
    problems: list[tuple[str, str]],
) -> int | None:
    """A whole number of a query; its problem is added to the list."""
    if (text := query.get(name)) is None:
        return default
    least, most = bounds
    if re.fullmatch(r"[0-9]{1,12}", text) and least <= int(text) <= most:
        return int(text)
    problems.append((name, f"must be a number from {least} to {most}"))
    return default


def time_of(query: Mapping[str, Any], name: str, problems: list[tuple[str, str]]) -> str | None:
    """A time of a query, as rows have it; its problem is added to the list."""
    if (text := query.get(name)) is None:
        return None
    try:
        return iso_time(parse_iso_time(text))
    except (ValueError, OverflowError):
        problems.append((name, "must be a time such as 2026-11-22T10:15:30Z"))
        return None


def look_up(call: Call, caller: Identity) -> HttpAnswer:
    """Answer with the state of one job, which may wait until it changes."""
    query, problems = call.query, unknown_in(call.query, LOOK_UP_QUERY)
    job = call.path.get("request_id")
    if not is_request_id(job):
        problems.append(("request_id", "must be 1 to 128 of A-Z a-z 0-9 . _ : -"))
    user_id = query.get("user_id", caller.user_id)
    if not 1 <= len(user_id) <= 256:
        problems.append(("user_id", "must be a string of 1 to 256 characters"))
    since = number_of(query, "since_seq", None, (0, 10**12 - 1), problems)
    since_event = number_of(query, "since_event", None, (0, 10**9), problems)
    wait = number_of(query, "wait", 0, (0, MAX_WAIT_SECONDS), problems)
    if problems:
        raise invalid(*problems)
    if user_id != caller.user_id:
        require_tenant_read(caller)
    key = {"owner": owner_key(caller.tenant_id, user_id), "request_id": job}
    known = KnownVersion(since, since_event, call.headers.get("if-none-match"))
    row = changed_job(key, known, call.now, call.now + (wait or 0))
    if row is None:
        raise refusal(ErrorCode.NOT_FOUND, "The request does not exist")
    state = job_state(row, time.time())
    tag = known.tag_of(row, state, call.now)
    headers = {"Cache-Control": "private, no-cache", "ETag": tag, "Vary": "Authorization"}
    if state["status"] not in TERMINAL_STATUSES:
        headers["Retry-After"] = RETRY_JOB
    if matches_tag(known.tags, tag):
        return http_answer(304, None, headers)
    if row["status"] == RequestStatus.COMPLETED:
        state["result"] = job_result(row)
    if since_event is not None:
        most = MAX_EVENTS_BYTES
        page = read_events(dynamodb, REQUESTS, row, since_event, time.time(), max_bytes=most)
        state["events"] = page
    return http_answer(200, state, headers)


@dataclass(frozen=True)
class KnownVersion:
    """What a caller has of a job: its `seq`, the number of an event, ETags; None if unsaid."""

    seq: int | None
    event: int | None
    tags: str | None

    def tag_of(self, row: Row, state: Message, now: float) -> str:
        # A link expires, so that its answer is another one before.
        has_links = "result_key" in row or row.get("links")
        period = int(now // (LINK_SECONDS / 2)) if has_links else 0
        return entity_tag([state, period, self.event])

    def is_older_than(self, row: Row, now: float) -> bool:
        state = job_state(row, time.time())
        return (
            (self.seq is not None and state["seq"] > self.seq)
            or (self.event is not None and row.get("event_count", 0) > self.event)
            or (self.tags is not None and not matches_tag(self.tags, self.tag_of(row, state, now)))
        )


def changed_job(
    key: Mapping[str, Any], known: KnownVersion, now: float, until: float
) -> Row | None:
    """The row of a job when it is new or changes, or as it is when the time to wait is over."""
    pause, first = FIRST_WAIT, None
    while True:
        row = read_item(dynamodb, REQUESTS, key)
        if row is None or is_past(row["ttl"], now):
            return None
        version = row["status"], job_state(row, now)["seq"]
        first = first or version
        has_ended = row["status"] in TERMINAL_STATUSES
        is_over = time.time() + pause > until
        if has_ended or known.is_older_than(row, now) or version != first or is_over:
            return row
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_WAIT)


def job_result(row: Row) -> Any:
    """The result of a job, with links that are good from now on."""
    if "result_key" in row and not row.get("links"):
        return {"url": sign_download(row["result_key"])}
    text = row.get("result")
    if text is None and "source_key" in row:
        source = s3().get_object(Bucket=FILES_BUCKET, Key=row["source_key"])
        text = source["Body"].read().decode()
    return None if text is None else shown_result(row, text, sign_download)


def require_tenant_read(caller: Identity) -> None:
    """Raises RefusedRequestError without the permission to read the tenant's jobs."""
    if "tenant:read" not in caller.permissions:
        raise refusal(ErrorCode.FORBIDDEN, "The permission 'tenant:read' is needed")


def list_jobs(call: Call, caller: Identity) -> HttpAnswer:
    """Answer with a page of jobs, newest first. One with fewer than `limit` may have a `next`."""
    problems = unknown_in(call.query, LIST_QUERY)
    limit, token = paging_of(call.query, problems)
    filters = status, _, _ = tuple(call.query.get(name) for name in ("status", "action", "tag"))
    if status is not None and not set(status.split(",")) <= set(RequestStatus):
        problems.append(
            ("status", f"must be one or more, with commas, of {', '.join(RequestStatus)}")
        )
    scope = call.query.get("scope", "own")
    if scope not in ("own", "tenant"):
        problems.append(("scope", "must be own or tenant"))
    times = [time_of(call.query, name, problems) for name in ("from", "to")]
    first, last = times[0] or "0", times[1] or ":"  # ":" comes after all digits
    if first > last:
        problems.append(("from", "must not be after to"))
    if problems:
        raise invalid(*problems)
    if scope == "tenant":
        require_tenant_read(caller)
    # What the token of a page is bound to.
    asked = ["jobs", caller.tenant_id, caller.user_id, scope, *filters, first, last]
    after = place_of(token, asked) if token is not None else None
    size = MAX_LIST_LIMIT if any(filters) else limit
    queries = queries_of(scope, caller, (first, last), after)
    jobs, place = page_of_jobs(queries, filters, (limit, size), call.now)
    if scope == "own":
        for job in jobs:
            del job["user_id"]
    return http_answer(200, {"jobs": jobs, "next": make_token(place, asked) if place else None})


def queries_of(
    scope: str, caller: Identity, times: tuple[str, str], after: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """The queries for jobs of these times, newest first, one for each partition of the index.

    Of jobs with the same time, those of an earlier partition come first.
    """
    if scope == "own":
        index, name = "by-owner", "owner"
        partitions = [owner_key(caller.tenant_id, caller.user_id)]
        own = 0
    else:
        index, name = "by-tenant", "tenant_id"
        partitions = tenant_shards(caller.tenant_id, TENANT_PARTITIONS)
        job = after["request_id"] if after else ""
        own = partitions.index(tenant_shard(caller.tenant_id, job, TENANT_PARTITIONS))
    queries = []
    for number, partition in enumerate(partitions):
        first, last = times
        query: dict[str, Any] = {
            "TableName": REQUESTS,
            "IndexName": index,
            "KeyConditionExpression": "#whose = :whose AND created_at BETWEEN :first AND :last",
            "ExpressionAttributeNames": {"#whose": name},
            "ScanIndexForward": False,
        }
        if after and number == own:
            query["ExclusiveStartKey"] = to_item({**after, name: partition})
        elif after:
            before = parse_iso_time(after["created_at"]) - (0.001 if number < own else 0)
            last = min(last, iso_time(before))
        if first <= last:
            values = {":whose": partition, ":first": first, ":last": last}
            queries.append(query | {"ExpressionAttributeValues": to_item(values)})
    return queries


def page_of_jobs(
    queries: list[dict[str, Any]],
    filters: tuple[str | None, ...],
    sizes: tuple[int, int],
    now: float,
) -> tuple[list[Message], list[str] | None]:
    """The jobs of a page, and the place after which the next one begins.

    `sizes` are those of a page and of a read.
    """
    limit, size = sizes
    reads = count(1)
    # Each partition is read at least once.
    most = LIST_READS + len(queries) - 1
    is_over = False

    def found(query: dict[str, Any]) -> Iterator[Message]:
        """The entries of a partition, as long as no more pages were read than may be."""
        nonlocal is_over
        start: dict[str, Any] = {}
        while not is_over:
            if next(reads) > most:
                is_over = True
                return
            page = dynamodb.query(**query, **start, Limit=size)
            yield from map(from_item, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            query = {key: value for key, value in query.items() if key != "ExclusiveStartKey"}
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    newest = heapq.merge(*map(found, queries), key=itemgetter("created_at"), reverse=True)
    jobs: list[Message] = []
    last: list[str] | None = None
    while entries := list(islice(newest, size)):
        if is_over:  # others of the time of its last ones may be missing
            break
        keys = [to_item({name: item[name] for name in ("owner", "request_id")}) for item in entries]
        rows = {(row["owner"], row["request_id"]): row for row in read_jobs(keys)}
        for item in entries:
            last = [item["created_at"], item["request_id"], item["owner"]]
            row = rows.get((item["owner"], item["request_id"]))
            if row and not is_past(row["ttl"], now) and is_wanted(row, filters):
                tags = job_tags(row.get("metadata") or {})
                user_id = split_owner_key(row["owner"])[1]
                jobs.append(job_state(row, now) | {"tags": tags, "user_id": user_id})
            if len(jobs) == limit:
                return jobs, last
    return jobs, last if is_over else None


def place_of(token: str, asked: list[Any]) -> dict[str, str]:
    """The key of the job after which a page begins. Raises RefusedRequestError."""
    try:
        created_at, request_id, owner = read_token(token, asked)
        parse_iso_time(created_at)
    except (AttributeError, TypeError, ValueError):
        created_at = request_id = owner = None
    # DynamoDB refuses larger keys, and empty ones.
    key = {"created_at": created_at, "request_id": request_id, "owner": owner}
    if is_request_id(request_id) and all(
        isinstance(text, str) and 0 < len(text) <= 1024 for text in key.values()
    ):
        return key
    raise invalid(WRONG_PAGE)


def read_jobs(keys: list[Any]) -> list[Message]:
    """The rows of jobs, without their payloads and results. Raises ThrottledError."""
    wanted = {
        "Keys": keys,
        "ProjectionExpression": ",".join(f"#{name}" for name in JOB_FIELDS),
        "ExpressionAttributeNames": {f"#{name}": name for name in JOB_FIELDS},
    }
    return [from_item(item) for item in read_rows(dynamodb, REQUESTS, wanted)]


def is_wanted(row: Row, filters: tuple[str | None, ...]) -> bool:
    """Whether a job has one of the statuses, the action and the tag that are asked for."""
    status, action, tag = filters
    return (
        (status is None or row["status"] in status.split(","))
        and (action is None or row["action"] == action)
        and (tag is None or tag in job_tags(row.get("metadata") or {}))
    )


def answer_call(route: Any, call: Call) -> HttpAnswer:
    """Answer a request. Raises RefusedRequestError."""
    if route == "POST /callbacks/{token}":
        return answer_callback(call)
    caller = caller_of(call)
    match route:
        case "POST /jobs":
            return start(call, caller)
        case "POST /jobs/batch":
            return start_batch(call, caller)
        case "POST /jobs/{request_id}/cancel":
            return change("cancel", call, caller)
        case "POST /jobs/{request_id}/replay":
            return change("replay", call, caller)
        case "POST /uploads":
            return create_upload(call, caller)
        case "GET /jobs":
            return list_jobs(call, caller)
        case "GET /jobs/{request_id}":
            return look_up(call, caller)
    raise RefusedRequestError(404, {"error": "Unknown path"})


@telemetry.handler
def handler(event: Any, context: Any) -> HttpAnswer:
    event = json_object(event)
    call = Call(event, time.time())
    try:
        answer = answer_call(event.get("routeKey"), call)
        # Lambda's answer contains the body as a JSON string.
        if len(json.dumps(answer["body"])) > MAX_ANSWER_BYTES:
            remedy = "ask the socket's action `status`, whose result is a link"
            raise refusal(ErrorCode.PAYLOAD_TOO_LARGE, f"The answer is too large: {remedy}")
        return answer
    except UnauthorizedError as error:
        telemetry.metric("CallRefused", ErrorType=ErrorCode.UNAUTHORIZED)
        telemetry.warning("token refused", reason=error.reason)
        refused = refusal(ErrorCode.UNAUTHORIZED, str(error))
        return http_answer(refused.status, refused.body, error.headers)
    except RefusedRequestError as error:
        telemetry.info("request refused", status_code=error.status, cause=str(error))
        return error.answer()
    except (BotoCoreError, ClientError, ThrottledError) as error:
        telemetry.metric("CallRefused", ErrorType=ErrorCode.SERVICE_UNAVAILABLE)
        telemetry.exception("an AWS call failed", error)
        text = "The service is temporarily unavailable; try again"
        return refusal(ErrorCode.SERVICE_UNAVAILABLE, text, retry_after_ms=1000).answer()
    except Exception as error:
        telemetry.metric("CallRefused", ErrorType=ErrorCode.INTERNAL_ERROR)
        telemetry.exception("request failed", error)
        return refusal(ErrorCode.INTERNAL_ERROR, "An internal error occurred").answer()
