"""The events of the sources: payloads.yml, filled with fresh ids and times."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobplane.events._fresh import Fresh
from jobplane.tree.repository import Function, Repository, read_yaml
from jobplane.tree.resolved import ACCOUNT, REGION, ResolvedStack
from jobplane_keys import (
    PICK_UP_SECONDS,
    REQUEST_TTL_SECONDS,
    in_flight_shard,
    iso_time,
    owner_key,
    request_key,
    to_item,
    ttl_after,
)

type Event = dict[str, Any]

STAGE = "local"
TENANT, USER = "acme", "dev"
# `jobplane invoke` replaces it by a token that the stage accepts.
TOKEN = f"<token:user={USER},tenant={TENANT}>"
SOURCE_IP = "203.0.113.7"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
PAYLOADS = Path(__file__).with_name("payloads.yml")
NAME = re.compile(r"<([a-z_0-9]+)>")


class NoTableError(LookupError):
    """The stack has no table of that name."""


class KeyMissingError(LookupError):
    """An item lacks an attribute of its table's key."""


@dataclass(frozen=True)
class Source:
    summary: str
    make: Callable[[Fresh], Event]
    finish: Callable[[Event, Event], None] = lambda event, original: None
    """Updates derived fields after overrides."""


def _full_name(name: str) -> str:
    return Repository.here().names(STAGE).of(name)


def _payload(source: str, fresh: Fresh, **values: Any) -> Event:
    """The payload of a source, with these values and those that many sources have."""
    common = {
        "account": ACCOUNT, "browser": BROWSER, "ip": SOURCE_IP, "iso": fresh.iso(), "jwt": TOKEN,
        "milliseconds": fresh.milliseconds, "region": REGION, "request_time": fresh.request_time(),
    }  # fmt: skip
    filled: Event = _filled(read_yaml(PAYLOADS)[source], common | values)
    return filled


def _filled(part: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, values) for value in part]
    if not isinstance(part, str):
        return part
    whole = NAME.fullmatch(part)
    return values[whole[1]] if whole else NAME.sub(lambda name: str(values[name[1]]), part)


def websocket_connect(fresh: Fresh) -> Event:
    """A handshake with a token in the query."""
    context = _socket_context(fresh, "$connect", "CONNECT")
    values = {"key": fresh.token(16), "trace": fresh.trace(), "context": context}
    return _with_lists(_payload("websocket-connect", fresh, host=context["domainName"], **values))


def websocket_default(fresh: Fresh) -> Event:
    context = _socket_context(fresh, "$default", "MESSAGE")
    body = json.dumps({"id": f"req-{fresh.hex(16)}", "action": "ping"}, separators=(",", ":"))
    context |= {"messageId": fresh.token(12)}
    return _payload("websocket-default", fresh, body=body, context=context)


def websocket_disconnect(fresh: Fresh) -> Event:
    """A connection that its client closed without a status."""
    context = _socket_context(fresh, "$disconnect", "DISCONNECT") | {
        "disconnectStatusCode": 1005,
        "disconnectReason": "Client-side close frame status not set",
    }
    values = {"host": context["domainName"], "context": context}
    return _with_lists(_payload("websocket-disconnect", fresh, **values))


def _socket_context(fresh: Fresh, route: str, kind: str) -> Event:
    connected = fresh.milliseconds - (40 if kind == "CONNECT" else 60_000)
    values = {"api": fresh.api_id(), "request": fresh.token(11), "connection": fresh.token(11)}
    given = {"route": route, "kind": kind, "connected": connected, "stage": STAGE}
    return _payload("socket-context", fresh, **given, **values)


def _with_lists(event: Event) -> Event:
    for name in event.keys() & {"multiValueHeaders", "multiValueQueryStringParameters"}:
        event[name] = {key: [value] for key, value in event[name].items()}
    return event


def http_v2(fresh: Fresh) -> Event:
    """GET /status/{assembly_id} of an HTTP API, payload format 2.0."""
    values = {"api": fresh.api_id(), "assembly": fresh.hex(32), "trace": fresh.trace()}
    return _payload("http-v2", fresh, **values, request=fresh.token(11))


def request_item(fresh: Fresh) -> Event:
    """A request as the router stores it: an `echo`."""
    owner, request = owner_key(TENANT, USER), f"req-{fresh.hex(16)}"
    return _payload(
        "request-item", fresh, owner=owner, request=request, tenant=TENANT,
        connection=fresh.token(11), shard=in_flight_shard(request_key(owner, request)),
        lease=int(fresh.now) + PICK_UP_SECONDS, moment=iso_time(fresh.now),
        ttl=ttl_after(fresh.now, REQUEST_TTL_SECONDS),
    )  # fmt: skip


def dynamodb_stream(fresh: Fresh) -> Event:
    """A request that the router has just stored."""
    return stream_event(fresh, Repository.here(), "requests", "insert", request_item(fresh))


def stream_event(
    fresh: Fresh, repository: Repository, table: str, change: str, item: Mapping[str, Any]
) -> Event:
    """One record of a table's stream: insert, modify (of a retried request) or remove (by TTL)."""
    tables = ResolvedStack(repository, STAGE).of_type("AWS::DynamoDB::Table").values()
    named = {properties["TableName"]: properties for properties in tables}
    names = repository.names(STAGE)
    name = names.of(table)
    if name not in named:
        known = ", ".join(sorted(names.short(each) for each in named))
        raise NoTableError(f"unknown table {table!r}; known are: {known}")
    keys = [part["AttributeName"] for part in named[name]["KeySchema"]]
    if missing := [key for key in keys if key not in item]:
        raise KeyMissingError(
            f"the item lacks {', '.join(missing)}, which the key of {table} needs"
        )
    image = to_item(item)
    before = image | (to_item({"status": "RETRYING"}) if "status" in item else {})
    images: dict[str, Event] = {
        "insert": {"NewImage": image},
        "modify": {"NewImage": image, "OldImage": before},
        "remove": {"OldImage": image},
    }
    record = _payload(
        "stream-record", fresh, id=fresh.hex(32), change=change.upper(), table=name,
        created=float(int(fresh.now)), keys={key: image[key] for key in keys},
        new=images[change].get("NewImage"), old=images[change].get("OldImage"),
        sequence=fresh.digits(21), size=len(json.dumps(images[change])), day=fresh.iso()[:10],
    )  # fmt: skip
    record["dynamodb"] = {key: of for key, of in record["dynamodb"].items() if of is not None}
    if change == "remove":
        record["userIdentity"] = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    return {"Records": [record]}


def sqs(fresh: Fresh) -> Event:
    content = {"assembly_id": fresh.hex(64), "execution": 1, "template_id": "tpl_fingerprint"}
    body = json.dumps(content)
    return _payload(
        "sqs", fresh, message=fresh.uuid(), handle=fresh.token(150), body=body,
        trace=fresh.trace(), sent=str(fresh.milliseconds - 120), role=fresh.hex(17).upper(),
        sender=_full_name("processor"), received=str(fresh.milliseconds), md5=_md5(body),
        queue=_full_name("webhooks"),
    )  # fmt: skip


def _with_digests(event: Event, original: Event) -> None:
    for record, before in zip(event["Records"], original["Records"], strict=False):
        if record["md5OfBody"] == before["md5OfBody"] and isinstance(record["body"], str):
            record["md5OfBody"] = _md5(record["body"])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def schedule(fresh: Fresh) -> Event:
    """A rule's own event; a schedule with an input sends that instead (`--for NAME`)."""
    return _payload("schedule", fresh, id=fresh.uuid(), rule=_full_name("every-minute"))


def scheduled_input(function: Function) -> Any:
    for event in function.config.get("events") or ():
        declared = event.get("schedule")
        if isinstance(declared, dict) and "input" in declared:
            return declared["input"]
    return None


def step_functions(fresh: Fresh) -> Event:
    return _payload("step-functions", fresh, number=fresh.digits(6))


def s3(fresh: Fresh) -> Event:
    """EventBridge's event of an object that was created under `inbox/`."""
    return _payload(
        "s3", fresh, id=fresh.uuid(), bucket=_full_name("files"), name=fresh.hex(12),
        request=fresh.hex(16).upper(), etag=fresh.hex(32), sequencer=fresh.hex(18).upper(),
    )  # fmt: skip


def execution_status_change(fresh: Fresh) -> Event:
    """An execution of the job flow that failed."""
    return _payload(
        "execution-status-change", fresh, machine=_full_name("job-flow"),
        name=f"message-{fresh.hex(12)}", id=fresh.uuid(), started=fresh.milliseconds - 30_000,
        input=json.dumps(step_functions(fresh)),
    )  # fmt: skip


SOURCES = {
    "websocket-connect": Source("a handshake on the WebSocket API", websocket_connect),
    "websocket-default": Source("a message on the WebSocket API", websocket_default),
    "websocket-disconnect": Source("a closed connection", websocket_disconnect),
    "http-v2": Source("a request of the HTTP API, payload format 2.0", http_v2),
    "dynamodb-stream": Source("a record of a table's stream (--change, --item)", dynamodb_stream),
    "sqs": Source("a message of the webhook queue", sqs, _with_digests),
    "schedule": Source(
        "a scheduled rule (--for NAME: with the input of NAME's schedule)", schedule
    ),
    "step-functions": Source("the job flow's input", step_functions),
    "s3": Source("EventBridge's event of a new object in the files bucket", s3),
    "execution-status-change": Source(
        "EventBridge's event of an execution that ended", execution_status_change
    ),
}
