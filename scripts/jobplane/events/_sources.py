"""The event of each source, with every field that the service sends, in its order."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobplane.events._fresh import Fresh
from jobplane.tree.repository import Function, Repository
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
CURL = "curl/8.16.0"


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


def websocket_connect(fresh: Fresh) -> Event:
    """A handshake with a token in the query."""
    context = _socket_context(fresh, "$connect", "CONNECT")
    headers = {
        "Host": context["domainName"],
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Key": fresh.token(16),
        "Sec-WebSocket-Version": "13",
        "User-Agent": BROWSER,
        "X-Amzn-Trace-Id": fresh.trace(),
        "X-Forwarded-For": SOURCE_IP,
        "X-Forwarded-Port": "443",
        "X-Forwarded-Proto": "https",
    }
    query = {"Authorization": TOKEN}
    return {
        "headers": headers,
        "multiValueHeaders": _each_listed(headers),
        "queryStringParameters": query,
        "multiValueQueryStringParameters": _each_listed(query),
        "requestContext": context,
        "isBase64Encoded": False,
    }


def websocket_default(fresh: Fresh) -> Event:
    context = _socket_context(fresh, "$default", "MESSAGE")
    body = {"id": f"req-{fresh.hex(16)}", "action": "ping"}
    return {
        "requestContext": context | {"messageId": fresh.token(12)},
        "body": json.dumps(body, separators=(",", ":")),
        "isBase64Encoded": False,
    }


def websocket_disconnect(fresh: Fresh) -> Event:
    """A connection that its client closed without a status."""
    context = _socket_context(fresh, "$disconnect", "DISCONNECT") | {
        "disconnectStatusCode": 1005,
        "disconnectReason": "Client-side close frame status not set",
    }
    headers = {
        "Host": context["domainName"],
        "x-api-key": "",
        "X-Forwarded-For": "",
        "x-restapi": "",
    }
    return {
        "headers": headers,
        "multiValueHeaders": _each_listed(headers),
        "requestContext": context,
        "isBase64Encoded": False,
    }


def _socket_context(fresh: Fresh, route: str, kind: str) -> Event:
    api, request = fresh.api_id(), fresh.token(11)
    connected = fresh.milliseconds - (40 if kind == "CONNECT" else 60_000)
    return {
        "routeKey": route,
        "eventType": kind,
        "extendedRequestId": request,
        "requestTime": fresh.request_time(),
        "messageDirection": "IN",
        "stage": STAGE,
        "connectedAt": connected,
        "requestTimeEpoch": fresh.milliseconds,
        "identity": {"userAgent": BROWSER, "sourceIp": SOURCE_IP},
        "requestId": request,
        "domainName": f"{api}.execute-api.{REGION}.amazonaws.com",
        "connectionId": fresh.token(11),
        "apiId": api,
    }


def _each_listed(values: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in values.items()}


def http_v2(fresh: Fresh) -> Event:
    """GET /status/{assembly_id} of an HTTP API, payload format 2.0."""
    api, assembly = fresh.api_id(), fresh.hex(32)
    host = f"{api}.execute-api.{REGION}.amazonaws.com"
    route, path = "GET /status/{assembly_id}", f"/status/{assembly}"
    return {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": "",
        "headers": {
            "accept": "application/json",
            "authorization": f"Bearer {TOKEN}",
            "content-length": "0",
            "host": host,
            "user-agent": CURL,
            "x-amzn-trace-id": fresh.trace(),
            "x-forwarded-for": SOURCE_IP,
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": api,
            "domainName": host,
            "domainPrefix": api,
            "http": {
                "method": "GET",
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": SOURCE_IP,
                "userAgent": CURL,
            },
            "requestId": fresh.token(11),
            "routeKey": route,
            "stage": "$default",
            "time": fresh.request_time(),
            "timeEpoch": fresh.milliseconds,
        },
        "pathParameters": {"assembly_id": assembly},
        "isBase64Encoded": False,
    }


def request_item(fresh: Fresh) -> Event:
    """A request as the router stores it: an `echo`."""
    owner, request = owner_key(TENANT, USER), f"req-{fresh.hex(16)}"
    moment = iso_time(fresh.now)
    return {
        "owner": owner,
        "request_id": request,
        "tenant_id": TENANT,
        "connection_id": fresh.token(11),
        "action": "echo",
        "payload": '{"message":"hello"}',
        "metadata": {},
        "status": "PENDING",
        "attempts": 0,
        "max_attempts": 4,
        "cancel_requested": False,
        "on_disconnect": "detach",
        "subscriber_count": 0,
        "lease_shard": in_flight_shard(request_key(owner, request)),
        "lease_until": int(fresh.now) + PICK_UP_SECONDS,
        "created_at": moment,
        "updated_at": moment,
        "ttl": ttl_after(fresh.now, REQUEST_TTL_SECONDS),
    }


def dynamodb_stream(fresh: Fresh) -> Event:
    """A request that the router has just stored."""
    return stream_event(fresh, Repository.here(), "requests", "insert", request_item(fresh))


def stream_event(
    fresh: Fresh, repository: Repository, table: str, change: str, item: Mapping[str, Any]
) -> Event:
    """One record of a table's stream, with the images that the change has.

    Args:
        table: its name without the stage's prefix.
        change: insert, modify (of a request that waited for another try) or remove (by its TTL).
        item: the new item, or the removed one, as plain values.
    """
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
    record: Event = {
        "eventID": fresh.hex(32),
        "eventName": change.upper(),
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": REGION,
        "dynamodb": {
            "ApproximateCreationDateTime": float(int(fresh.now)),
            "Keys": {key: image[key] for key in keys},
            **images[change],
            "SequenceNumber": fresh.digits(21),
            "SizeBytes": len(json.dumps(images[change])),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": (
            f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}/stream/{fresh.iso()[:10]}"
            "T00:00:00.000"
        ),
    }
    if change == "remove":
        record["userIdentity"] = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    return {"Records": [record]}


def sqs(fresh: Fresh) -> Event:
    body = {"assembly_id": fresh.hex(64), "execution": 1, "template_id": "tpl_fingerprint"}
    text = json.dumps(body)
    return {
        "Records": [
            {
                "messageId": fresh.uuid(),
                "receiptHandle": f"AQEB{fresh.token(150)}",
                "body": text,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "AWSTraceHeader": fresh.trace(),
                    "SentTimestamp": str(fresh.milliseconds - 120),
                    "SenderId": f"AROA{fresh.hex(17).upper()}:{_full_name('processor')}",
                    "ApproximateFirstReceiveTimestamp": str(fresh.milliseconds),
                },
                "messageAttributes": {},
                "md5OfBody": _md5(text),
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{_full_name('webhooks')}",
                "awsRegion": REGION,
            }
        ]
    }


def _with_digests(event: Event, original: Event) -> None:
    for record, before in zip(event["Records"], original["Records"], strict=False):
        if record["md5OfBody"] == before["md5OfBody"] and isinstance(record["body"], str):
            record["md5OfBody"] = _md5(record["body"])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def schedule(fresh: Fresh) -> Event:
    """A rule's own event; a schedule with an input sends that instead (`--for NAME`)."""
    return {
        "version": "0",
        "id": fresh.uuid(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": fresh.iso(),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{_full_name('every-minute')}"],
        "detail": {},
    }


def scheduled_input(function: Function) -> Any:
    for event in function.config.get("events") or ():
        declared = event.get("schedule")
        if isinstance(declared, dict) and "input" in declared:
            return declared["input"]
    return None


def step_functions(fresh: Fresh) -> Event:
    number = fresh.digits(6)
    return {
        "projectId": "amelia",
        "userId": "scott",
        "threadId": f"thread-{number}",
        "messageId": f"message-{number}",
        "instruction": "Summarise the attached report.",
        "attachments": [],
        "claimTtlSeconds": 3600,
    }


def s3(fresh: Fresh) -> Event:
    name = _full_name("files")
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventTime": fresh.iso(fraction=True),
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": f"AWS:AROA{fresh.hex(17).upper()}:dev"},
                "requestParameters": {"sourceIPAddress": SOURCE_IP},
                "responseElements": {
                    "x-amz-request-id": fresh.hex(16).upper(),
                    "x-amz-id-2": fresh.token(56),
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": fresh.uuid(),
                    "bucket": {
                        "name": name,
                        "ownerIdentity": {"principalId": f"A{fresh.hex(13).upper()}"},
                        "arn": f"arn:aws:s3:::{name}",
                    },
                    "object": {
                        "key": f"uploads/{fresh.hex(32)}/report+2026.txt",
                        "size": 6,
                        "eTag": fresh.hex(32),
                        "sequencer": fresh.hex(18).upper(),
                    },
                },
            }
        ]
    }


def execution_status_change(fresh: Fresh) -> Event:
    """An execution of the job flow that failed."""
    machine = _full_name("job-flow")
    name = f"message-{fresh.hex(12)}"
    states = f"arn:aws:states:{REGION}:{ACCOUNT}"
    execution = f"{states}:execution:{machine}:{name}"
    return {
        "version": "0",
        "id": fresh.uuid(),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": ACCOUNT,
        "time": fresh.iso(),
        "region": REGION,
        "resources": [execution],
        "detail": {
            "executionArn": execution,
            "stateMachineArn": f"{states}:stateMachine:{machine}",
            "name": name,
            "status": "FAILED",
            "startDate": fresh.milliseconds - 30_000,
            "stopDate": fresh.milliseconds,
            "input": json.dumps(step_functions(fresh)),
            "output": None,
            "stateMachineVersionArn": None,
            "stateMachineAliasArn": None,
            "redriveCount": 0,
            "redriveDate": None,
            "redriveStatus": "REDRIVABLE",
            "redriveStatusReason": None,
            "inputDetails": {"included": True},
            "outputDetails": None,
            "error": "JobFailed",
            "cause": "The worker reported a failure",
        },
    }


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
    "s3": Source("a notification of an uploaded object", s3),
    "execution-status-change": Source(
        "EventBridge's event of an execution that ended", execution_status_change
    ),
}
