"""WebSocket $connect: verifies the caller's token and stores the connection.

Trigger: API Gateway WebSocket `$connect`. The token is in the query (`Authorization` or `token`)
or in the header `Authorization`.
Result: 200, with the subprotocol `jobplane.v1` if the client offers it; 401 UNAUTHORIZED with the
same text for every fault of a token; 429 RATE_LIMITED above MAX_CONNECTIONS_PER_USER; 500
INTERNAL_ERROR when DynamoDB fails.
Errors: ValidationError for an event without a connection id; ParameterError while the secret that
signs tokens can't be read.
Writes one row of `connections`; counts the user's rows if MAX_CONNECTIONS_PER_USER is set.
"""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    CONNECTION_TTL_SECONDS,
    DEFAULT_TABLE_PREFIX,
    connection_id_of,
    connections_table,
    iso_time,
    json_object,
    pages,
    to_item,
    ttl_after,
)
from jobplane_telemetry import Telemetry
from jobplane_tokens import Identity, TokenError, TokenSettings, TokenVerifier, strip_bearer

TABLE = connections_table(os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX))
SUBPROTOCOL = "jobplane.v1"
MAX_CONNECTIONS_PER_USER = int(os.environ.get("MAX_CONNECTIONS_PER_USER", "10"))

telemetry = Telemetry("connect")
session = botocore.session.get_session()
dynamodb: Any = session.create_client("dynamodb", config=Config(**CLIENT_OPTIONS))
# Three attempts take at most nine seconds, less than Lambda waits for the import of a module.
ssm: Any = session.create_client("ssm", config=Config(connect_timeout=1, read_timeout=2))
verifier = TokenVerifier(TokenSettings.from_environment(os.environ), ssm, telemetry.error)


def _lower_keys(values: Any) -> dict[str, str]:
    pairs = json_object(values).items()
    return {name.lower(): value for name, value in pairs if isinstance(value, str)}


def _text(value: Any, most: int) -> str:
    """A text in a form that can be stored, with at most `most` characters; "" for other values."""
    return value.encode(errors="replace").decode()[:most] if isinstance(value, str) else ""


def token_of(event: Mapping[str, Any]) -> str | None:
    """The token of a $connect event; names of parameters and headers are case-insensitive."""
    query = _lower_keys(event.get("queryStringParameters"))
    headers = _lower_keys(event.get("headers"))
    candidates = (query.get("authorization"), query.get("token"), headers.get("authorization"))
    return next((strip_bearer(value) for value in candidates if value), None)


def subprotocol_of(event: Mapping[str, Any]) -> dict[str, str]:
    """The header that accepts the subprotocol of this service, if the client offers it.

    A browser closes a socket if the handshake accepts none of the subprotocols that it offered.
    """
    offered = _lower_keys(event.get("headers")).get("sec-websocket-protocol", "")
    chosen = SUBPROTOCOL in [name.strip() for name in offered.split(",")]
    return {"Sec-WebSocket-Protocol": SUBPROTOCOL} if chosen else {}


def connection_of(context: Mapping[str, Any], identity: Identity, now: float) -> dict[str, Any]:
    """The row of the connection. It expires when its token does, or its socket must have ended."""
    source = json_object(context.get("identity"))
    return {
        "connection_id": context["connectionId"],
        "user_id": identity.user_id,
        "tenant_id": identity.tenant_id,
        "permissions": list(identity.permissions),
        "endpoint": f"{_text(context.get('domainName'), 253)}/{_text(context.get('stage'), 128)}",
        "connected_at": iso_time(now),
        "last_seen_at": iso_time(now),
        "source_ip": _text(source.get("sourceIp"), 45),
        "user_agent": _text(source.get("userAgent"), 512),
        "token_expires_at": identity.expires_at,
        "ttl": min(identity.expires_at, ttl_after(now, CONNECTION_TTL_SECONDS)),
    }


def answer(
    status: int, body: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """An answer for API Gateway."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", **(headers or {})},
        "body": json.dumps(body),
    }


def refused(status: int, code: str, text: str) -> dict[str, Any]:
    """An answer that refuses the handshake."""
    return answer(status, {"error": text, "code": code})


def has_room(connection_id: str, identity: Identity, now: float) -> bool:
    """Whether the user may have one more connection.

    A connection that has expired does not count, nor does one that API Gateway must have closed by
    now: `$disconnect` may never come. The count is of an index, so the newest connections may be
    missing in it.
    """
    count = 0
    query: dict[str, Any] = {
        "TableName": TABLE,
        "IndexName": "by-user",
        "Select": "COUNT",
        "KeyConditionExpression": "user_id = :user AND connected_at > :oldest",
        "FilterExpression": "tenant_id = :tenant AND #ttl > :now AND connection_id <> :this",
        "ExpressionAttributeNames": {"#ttl": "ttl"},
        "ExpressionAttributeValues": to_item(
            {
                ":user": identity.user_id,
                ":tenant": identity.tenant_id,
                ":now": int(now),
                ":oldest": iso_time(now - CONNECTION_TTL_SECONDS),
                ":this": connection_id,
            }
        ),
    }
    for page in pages(dynamodb.query, query):
        count += int(page["Count"])
        if count >= MAX_CONNECTIONS_PER_USER:
            return False
    return True


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    started = time.time()
    connection_id = connection_id_of(event)
    telemetry.bind(connection_id=connection_id)
    try:
        identity = verifier.verify(token_of(event))
    except TokenError as error:
        telemetry.metric("AuthenticationFailed", ErrorType=error.reason)
        telemetry.warning("token refused", reason=error.reason, cause=str(error))
        return refused(401, "UNAUTHORIZED", "Authentication failed")

    telemetry.bind(user_id=identity.user_id, tenant_id=identity.tenant_id)
    row = connection_of(event["requestContext"], identity, started)
    try:
        if MAX_CONNECTIONS_PER_USER and not has_room(connection_id, identity, started):
            telemetry.metric("ConnectionRefused", ErrorType="too_many_connections")
            telemetry.warning("too many connections", limit=MAX_CONNECTIONS_PER_USER)
            return refused(429, "RATE_LIMITED", "Too many connections")
        dynamodb.put_item(TableName=TABLE, Item=to_item(row))
    except (BotoCoreError, ClientError) as error:
        telemetry.metric("ConnectionRefused", ErrorType="internal_error")
        telemetry.exception("connection not stored", error)
        return refused(500, "INTERNAL_ERROR", "Could not connect")

    telemetry.metric("ConnectionEstablished")
    telemetry.metric(
        "ProcessingLatency", (time.time() - started) * 1000, "Milliseconds", Action="connect"
    )
    telemetry.info("connection established")
    return answer(200, {"message": "Connected successfully"}, subprotocol_of(event))
