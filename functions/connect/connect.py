"""WebSocket $connect and the action authenticate: verifies a token, stores what it allows.

Trigger: API Gateway WebSocket `$connect`. The token is in the query (`Authorization` or `token`)
or in the header `Authorization`. Or the route `authenticate`: a message with a newer token of the
same user and tenant, which prolongs the connection.
Result: 200, with the subprotocol `jobplane.v1` if the client offers it; 401 UNAUTHORIZED with the
same text for every fault of a token; 429 RATE_LIMITED above MAX_CONNECTIONS_PER_USER; 500
INTERNAL_ERROR when DynamoDB fails. To a message: 200, with a `response` or an `error`.
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
    ErrorCode,
    connection_id_of,
    connections_table,
    error_body,
    is_request_id,
    iso_time,
    json_object,
    new_request_id,
    pages,
    parse_iso_time,
    server_message,
    strict_json,
    to_item,
    ttl_after,
)
from jobplane_telemetry import Telemetry
from jobplane_tokens import Identity, TokenError, TokenSettings, TokenVerifier, strip_bearer

TABLE = connections_table(os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX))
SUBPROTOCOL = "jobplane.v1"
AUTHENTICATE = "authenticate"
TENANT_READ = "tenant:read"
MAX_CONNECTIONS_PER_USER = int(os.environ.get("MAX_CONNECTIONS_PER_USER", "10"))

telemetry = Telemetry("connect")
session = botocore.session.get_session()
dynamodb: Any = session.create_client("dynamodb", config=Config(**CLIENT_OPTIONS))
# Three attempts take at most nine seconds, less than Lambda waits for the import of a module.
ssm: Any = session.create_client("ssm", config=Config(connect_timeout=1, read_timeout=2))
verifier = TokenVerifier(TokenSettings.from_environment(os.environ), ssm, telemetry.error)


class RefusedError(Exception):
    """The message is refused: it is answered with an error and changes nothing."""

    def __init__(self, code: ErrorCode, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.body = error_body(code, message, **extra)


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


def message_of(body: Any) -> dict[str, Any]:
    """The JSON object of a message, or {}: API Gateway has found its `action`."""
    try:
        return json_object(strict_json(body if isinstance(body, str) else ""))
    except ValueError:
        return {}


def newer_token_of(message: Mapping[str, Any]) -> str:
    """The token of a message. Raises RefusedError."""
    payload = message.get("payload")
    given = {"id": message.get("id"), "payload.token": json_object(payload).get("token")}
    faults = []
    if given["id"] is not None and not is_request_id(given["id"]):
        faults.append(("id", "expected 1 to 128 of A-Z a-z 0-9 . _ : -"))
    if not isinstance(given["payload.token"], str) or not given["payload.token"]:
        faults.append(("payload.token", "a string is required: a JWT of the same user and tenant"))
    if faults:
        details = [{"field": field, "message": text} for field, text in faults]
        text = "The message is not a valid request"
        raise RefusedError(ErrorCode.VALIDATION_ERROR, text, details=details)
    return str(given["payload.token"])


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


def verified(token: str | None) -> Identity | None:
    """The identity of a token; a refusal is logged and counted."""
    try:
        identity = verifier.verify(token)
    except TokenError as error:
        telemetry.metric("AuthenticationFailed", ErrorType=error.reason)
        telemetry.warning("token refused", reason=error.reason, cause=str(error))
        return None
    telemetry.bind(user_id=identity.user_id, tenant_id=identity.tenant_id)
    return identity


def prolong(connection_id: str, identity: Identity, now: float) -> float:
    """Let a connection last as long as a newer token; return until when, in epoch seconds.

    A token that ends before the present one changes nothing: it may come late. Raises RefusedError
    if the present token has expired, for a token of another user or tenant, and for one without the
    permission to read the tenant's jobs if the connection has it: its subscriptions may need it.
    """
    from jobplane_leases import update  # not needed for handshakes

    condition = (
        "user_id = :user AND tenant_id = :tenant AND token_expires_at > :now AND #ttl > :now"
        " AND token_expires_at <= :expires"
    )
    values: dict[str, Any] = {
        "user": identity.user_id,
        "tenant": identity.tenant_id,
        "now": int(now),
        "expires": identity.expires_at,
        "permissions": list(identity.permissions),
        "ttl": min(identity.expires_at, ttl_after(now, CONNECTION_TTL_SECONDS)),
    }
    if TENANT_READ not in identity.permissions:
        condition += " AND NOT contains(#permissions, :read)"
        values["read"] = TENANT_READ
    done, row = update(
        dynamodb,
        TABLE,
        {"connection_id": connection_id},
        change="SET token_expires_at = :expires, #permissions = :permissions, #ttl = :ttl",
        condition=condition,
        values=values,
        mark=None,
    )
    if not done:
        if not row or min(row["token_expires_at"], row["ttl"]) <= int(now):
            text = "The connection's token has expired; connect again"
            raise RefusedError(ErrorCode.UNAUTHORIZED, text)
        is_own = (row["user_id"], row["tenant_id"]) == (identity.user_id, identity.tenant_id)
        if not is_own or TENANT_READ in {*row["permissions"]} - {*identity.permissions}:
            text = f"Expected a token of the same user and tenant, which keeps {TENANT_READ!r}"
            raise RefusedError(ErrorCode.FORBIDDEN, text)
    closed = parse_iso_time(row["connected_at"]) + CONNECTION_TTL_SECONDS
    return float(min(row["token_expires_at"], closed))


def authenticate(event: Mapping[str, Any], connection_id: str, now: float) -> dict[str, Any]:
    """Answer a message with a newer token for an open connection."""
    message = message_of(event.get("body"))
    given = message.get("id")
    request_id = given if is_request_id(given) else None
    try:
        token = newer_token_of(message)
        request_id = request_id or new_request_id(now)
        telemetry.bind(request_id=request_id)
        identity = verified(strip_bearer(token))
        if identity is None or identity.expires_at <= now:
            raise RefusedError(ErrorCode.UNAUTHORIZED, "Authentication failed")
        data = {"expires_at": iso_time(prolong(connection_id, identity, now))}
    except RefusedError as error:
        telemetry.info("connection not prolonged", code=error.body["code"], cause=str(error))
        content = server_message("error", request_id, now, error=error.body)
    except (BotoCoreError, ClientError) as error:
        telemetry.metric("ConnectionRefused", ErrorType="internal_error")
        telemetry.exception("connection not prolonged", error)
        text = "The service is temporarily unavailable; try again"
        failed = RefusedError(ErrorCode.SERVICE_UNAVAILABLE, text, retry_after_ms=1000)
        content = server_message("error", request_id, now, error=failed.body)
    else:
        telemetry.metric("ConnectionProlonged")
        telemetry.info("connection prolonged")
        content = server_message("response", request_id, now, success=True, data=data)
    return {"statusCode": 200, "body": json.dumps(content, ensure_ascii=False)}


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    started = time.time()
    connection_id = connection_id_of(event)
    telemetry.bind(connection_id=connection_id)
    if event["requestContext"].get("routeKey") == AUTHENTICATE:
        return authenticate(event, connection_id, started)
    if (identity := verified(token_of(event))) is None:
        return refused(401, "UNAUTHORIZED", "Authentication failed")

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
