"""Subscriptions of connections to jobs.

The row of a job has the number of its subscribers, so that a progress write returns whether there
are any. A subscription and the number change together or not at all.
"""

import math
import time
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import (
    connections_table,
    query_items,
    requests_table,
    split_request_key,
    subscriptions_table,
)
from jobplane_leases import transact

type Row = dict[str, Any]

# DynamoDB takes 100 writes.
_IN_ONE_TRANSACTION = 50


def listeners(dynamodb: Any, prefix: str, request_key: str, now: float) -> list[str]:
    """The ids of the connections that are subscribed to a request; `now` is in epoch seconds."""
    pages = query_items(
        dynamodb,
        TableName=subscriptions_table(prefix),
        KeyConditionExpression="request_key = :key",
        FilterExpression="#ttl > :now",
        ExpressionAttributeNames={"#ttl": "ttl"},
        ExpressionAttributeValues={":key": {"S": request_key}, ":now": {"N": str(int(now))}},
        ConsistentRead=True,
    )
    return [row["connection_id"] for row in pages]


def unsubscribe(dynamodb: Any, prefix: str, request_key: str, connection_id: str) -> bool:
    """End one subscription; return whether it existed."""
    delete, count = _unsubscribing(prefix, request_key, connection_id)
    refused = transact(dynamodb, [delete, count])
    if refused and refused[0] == "ConditionalCheckFailed":
        return False
    if refused:
        # The request has expired, so there is no number to update.
        row = delete["Delete"]
        dynamodb.delete_item(TableName=row["TableName"], Key=row["Key"])
    return True


def drop_subscriptions(
    dynamodb: Any, prefix: str, connection_id: str, *, until: float = math.inf
) -> int:
    """End all subscriptions of a connection, up to fifty in one transaction; return their number.

    Those that are left at `until` (epoch seconds) stay until they expire, or until a post to the
    connection is refused.
    """
    rows = query_items(
        dynamodb,
        TableName=subscriptions_table(prefix),
        IndexName="by-connection",
        KeyConditionExpression="connection_id = :id",
        ExpressionAttributeValues={":id": {"S": connection_id}},
    )
    keys = (row["request_key"] for row in rows)
    dropped = 0
    while time.time() < until and (some := [*islice(keys, _IN_ONE_TRANSACTION)]):
        dropped += _drop_some(dynamodb, prefix, some, connection_id)
    return dropped


def _drop_some(dynamodb: Any, prefix: str, keys: Sequence[str], connection_id: str) -> int:
    items = chain.from_iterable(_unsubscribing(prefix, key, connection_id) for key in keys)
    try:
        if not transact(dynamodb, [*items]):
            return len(keys)
    except ClientError:
        if len(keys) == 1:
            raise
    # One of them has ended or is busy; a transaction is made completely or not at all.
    return sum(unsubscribe(dynamodb, prefix, key, connection_id) for key in keys)


def _unsubscribing(prefix: str, request_key: str, connection_id: str) -> tuple[Row, Row]:
    """The two writes of a transaction that end a subscription."""
    owner, request_id = split_request_key(request_key)
    delete = {
        "TableName": subscriptions_table(prefix),
        "Key": {"request_key": {"S": request_key}, "connection_id": {"S": connection_id}},
        "ConditionExpression": "attribute_exists(request_key)",
    }
    count = {
        "TableName": requests_table(prefix),
        "Key": {"owner": {"S": owner}, "request_id": {"S": request_id}},
        "UpdateExpression": "ADD subscriber_count :minus",
        "ConditionExpression": "attribute_exists(request_id)",
        "ExpressionAttributeValues": {":minus": {"N": "-1"}},
    }
    return {"Delete": delete}, {"Update": count}


def forget_listener(dynamodb: Any, prefix: str, request_key: str, connection_id: str) -> None:
    """Delete the row of a connection that is gone, and its subscription to one request.

    Two calls, however many subscriptions it has: the others end by `$disconnect`, or expire.
    """
    dynamodb.delete_item(
        TableName=connections_table(prefix), Key={"connection_id": {"S": connection_id}}
    )
    unsubscribe(dynamodb, prefix, request_key, connection_id)


def drop_connection(dynamodb: Any, prefix: str, connection_id: str) -> None:
    """Delete the row and the subscriptions of a connection that is gone."""
    dynamodb.delete_item(
        TableName=connections_table(prefix), Key={"connection_id": {"S": connection_id}}
    )
    drop_subscriptions(dynamodb, prefix, connection_id)
