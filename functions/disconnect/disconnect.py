"""WebSocket $disconnect: deletes the connection and its subscriptions, and cancels its jobs.

Trigger: API Gateway WebSocket `$disconnect`, which may come twice or not at all.
Result: always 200; a step that fails is logged and counted, and the others run.
Errors: ValidationError for an event without a connection id.
Deletes the row of `connections` and those of `subscriptions`. Of the `requests` that the connection
sent and that have not ended, those with `on_disconnect: "cancel"` get `cancel_requested`.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import batched
from typing import Any

import botocore.session
from botocore.config import Config

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    TERMINAL_STATUSES,
    connection_id_of,
    connections_table,
    from_item,
    parse_iso_time,
    query_items,
    requests_table,
    to_item,
)
from jobplane_leases import RequestLease
from jobplane_sockets import drop_subscriptions
from jobplane_telemetry import Telemetry

TABLE_PREFIX = os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX)
REQUESTS = requests_table(TABLE_PREFIX)
# Time that an invocation keeps for what it has begun, and for its answer.
ANSWER_SECONDS = 5.0
CALLS_AT_A_TIME = 8

telemetry = Telemetry("disconnect")
dynamodb: Any = botocore.session.get_session().create_client(
    "dynamodb", config=Config(**CLIENT_OPTIONS)
)


def delete_connection(connection_id: str, now: float) -> None:
    """Delete the row, and count how long the connection lasted."""
    deleted = dynamodb.delete_item(
        TableName=connections_table(TABLE_PREFIX),
        Key=to_item({"connection_id": connection_id}),
        ReturnValues="ALL_OLD",
    )
    if "Attributes" not in deleted:
        telemetry.info("connection was deleted before")
        return
    row = from_item(deleted["Attributes"])
    telemetry.bind(user_id=row["user_id"], tenant_id=row["tenant_id"])
    duration = now - parse_iso_time(row["connected_at"])
    telemetry.metric("ConnectionClosed")
    telemetry.metric("ConnectionDuration", max(0.0, duration), "Seconds")


def cancel_requests(connection_id: str, until: float) -> int:
    """Ask the requests to stop that must end with the connection; return their number.

    Those that are left at `until` (epoch seconds) are cancelled by their workers within minutes.
    """
    open_requests = (
        row
        for row in requests_of(connection_id)
        if row.get("on_disconnect") == "cancel" and row["status"] not in TERMINAL_STATUSES
    )
    cancelled = 0
    with ThreadPoolExecutor(CALLS_AT_A_TIME) as pool:
        for some in batched(open_requests, CALLS_AT_A_TIME, strict=False):
            asked = [
                # The context has the ids of the log lines.
                pool.submit(copy_context().run, attempt, "cancel_request", lease.ask_to_cancel)
                for lease in map(lease_of, some)
            ]
            cancelled += sum(bool(each.result()) for each in asked)
            if time.time() >= until:
                break
    return cancelled


def lease_of(row: Mapping[str, Any]) -> RequestLease:
    """The lease of a request."""
    return RequestLease(dynamodb, REQUESTS, row["owner"], row["request_id"])


def requests_of(connection_id: str) -> Iterator[dict[str, Any]]:
    """The requests that a connection sent, from the index."""
    return query_items(
        dynamodb,
        TableName=REQUESTS,
        IndexName="by-connection",
        KeyConditionExpression="connection_id = :id",
        ExpressionAttributeValues=to_item({":id": connection_id}),
    )


def attempt[T](step: str, action: Callable[[], T]) -> T | None:
    """Run one step of the clean-up; a failure is logged and counted, and the next step runs."""
    try:
        return action()
    except Exception as error:
        telemetry.metric("CleanupFailed", ErrorType=step)
        telemetry.exception("clean-up step failed", error, step=step)
        return None


@telemetry.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    started = time.time()
    connection_id = connection_id_of(event)
    telemetry.bind(connection_id=connection_id)

    until = started + context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS
    # First what must not be missed; of the subscriptions there may be too many for one invocation.
    requests = attempt("cancel_requests", lambda: cancel_requests(connection_id, until))
    attempt("delete_connection", lambda: delete_connection(connection_id, started))
    subscriptions = attempt(
        "drop_subscriptions",
        lambda: drop_subscriptions(dynamodb, TABLE_PREFIX, connection_id, until=until),
    )

    telemetry.metric("SubscriptionsCancelled", subscriptions or 0)
    telemetry.metric("RequestsCancelled", requests or 0)
    telemetry.metric(
        "ProcessingLatency", (time.time() - started) * 1000, "Milliseconds", Action="disconnect"
    )
    telemetry.info("connection closed", subscriptions=subscriptions, requests=requests)
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"message": "Disconnected successfully"}),
    }
