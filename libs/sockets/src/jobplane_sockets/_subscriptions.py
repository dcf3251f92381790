"""Subscriptions of connections to jobs.

The row of a job has the number of its subscribers, so that a progress write returns whether there
are any; the row of a connection has the number of its subscriptions, which are bounded. A
subscription and the numbers change together or not at all.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, compress, islice
from operator import not_
from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import (
    connections_table,
    query_items,
    requests_table,
    split_request_key,
    subscriptions_table,
    to_item,
)
from jobplane_leases import NOT_ENDED, transact

type Row = dict[str, Any]

# DynamoDB takes 100 writes.
_IN_ONE_TRANSACTION = 50
_TRANSACTIONS_AT_A_TIME = 8
_REFUSED = "ConditionalCheckFailed"


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


def start_subscription(dynamodb: Any, prefix: str, row: Row, *, most: int) -> tuple[bool, bool]:
    """Store the row of a subscription: `request_key`, `connection_id`, `ttl` and others.

    Returns whether the job has not ended, and whether the connection, which may have `most`
    subscriptions, has room for one more: else nothing is stored. The numbers of the job and of the
    connection change with it, and a repetition changes nothing.
    """
    owner, request_id = split_request_key(row["request_key"])
    refused = transact(
        dynamodb,
        [
            {
                "Put": {
                    "TableName": subscriptions_table(prefix),
                    "Item": to_item(row),
                    "ConditionExpression": "attribute_not_exists(request_key)",
                }
            },
            {
                "Update": {
                    "TableName": requests_table(prefix),
                    "Key": to_item({"owner": owner, "request_id": request_id}),
                    "UpdateExpression": "ADD subscriber_count :one",
                    "ConditionExpression": NOT_ENDED,
                    "ExpressionAttributeValues": to_item({":one": 1}),
                }
            },
            {
                "Update": {
                    "TableName": connections_table(prefix),
                    "Key": to_item({"connection_id": row["connection_id"]}),
                    "UpdateExpression": "ADD subscriptions :one",
                    "ConditionExpression": "attribute_exists(connection_id) AND"
                    " (attribute_not_exists(subscriptions) OR subscriptions < :most)",
                    "ExpressionAttributeValues": to_item({":one": 1, ":most": most}),
                }
            },
        ],
    )
    is_new, is_open, has_room = (reason != _REFUSED for reason in refused or "+++")
    return is_open, has_room or not is_new


def unsubscribe(dynamodb: Any, prefix: str, request_key: str, connection_id: str) -> bool:
    """End one subscription; return whether it existed.

    The numbers of the job and of the connection fall with it, if their rows exist.
    """
    one = _unsubscribing(prefix, request_key, connection_id)
    return _end(dynamodb, [*one, _counting(prefix, connection_id)])


def drop_subscriptions(
    dynamodb: Any, prefix: str, connection_id: str, *, until: float = math.inf
) -> int:
    """End all subscriptions of a connection that is gone; return their number.

    Fifty end in one transaction, and eight transactions are made at a time. Those that are left at
    `until` (epoch seconds) end when this is called again, when a post to the connection is refused,
    or when they expire.
    """
    rows = query_items(
        dynamodb,
        TableName=subscriptions_table(prefix),
        IndexName="by-connection",
        KeyConditionExpression="connection_id = :id",
        ExpressionAttributeValues={":id": {"S": connection_id}},
    )
    keys = (row["request_key"] for row in rows)
    drop = partial(_drop_some, dynamodb, prefix, connection_id, until)
    dropped = 0
    with ThreadPoolExecutor(_TRANSACTIONS_AT_A_TIME) as pool:
        while (
            time.time() < until
            and (
                some := [
                    [*islice(keys, _IN_ONE_TRANSACTION)] for _ in range(_TRANSACTIONS_AT_A_TIME)
                ]
            )[0]
        ):
            dropped += sum(pool.map(drop, filter(None, some)))
    return dropped


def _drop_some(
    dynamodb: Any, prefix: str, connection_id: str, until: float, keys: Sequence[str]
) -> int:
    """End subscriptions in one transaction. Those that prevent it, since the job or the
    subscription has expired, end one by one, and the others in a second one.
    """
    left, dropped = keys, 0
    with suppress(ClientError):
        reasons = _drop_all(dynamodb, prefix, connection_id, keys)
        if not reasons:
            return len(keys)
        fine = [_REFUSED not in pair for pair in zip(reasons[::2], reasons[1::2], strict=True)]
        others = [*compress(keys, fine)]
        if others and not _drop_all(dynamodb, prefix, connection_id, others):
            left, dropped = [*compress(keys, map(not_, fine))], len(others)
    for key in left:
        if time.time() >= until:
            break
        dropped += _drop_one(dynamodb, prefix, key, connection_id)
    return dropped


def _drop_all(dynamodb: Any, prefix: str, connection_id: str, keys: Sequence[str]) -> list[str]:
    pairs = [_unsubscribing(prefix, key, connection_id) for key in keys]
    return transact(dynamodb, [*chain.from_iterable(pairs)])


def _drop_one(dynamodb: Any, prefix: str, request_key: str, connection_id: str) -> bool:
    """`unsubscribe` for a connection whose row does not exist."""
    return _end(dynamodb, _unsubscribing(prefix, request_key, connection_id))


def _end(dynamodb: Any, writes: Sequence[Row]) -> bool:
    """Delete a subscription, and update the numbers whose rows exist; whether it existed."""
    while refused := transact(dynamodb, writes):
        if refused[0] == _REFUSED:
            return False
        writes = [*compress(writes, (reason != _REFUSED for reason in refused))]
    return True


def _counting(prefix: str, connection_id: str) -> Row:
    """The write of a transaction that subtracts one from a connection's subscriptions."""
    return {
        "Update": {
            "TableName": connections_table(prefix),
            "Key": {"connection_id": {"S": connection_id}},
            "UpdateExpression": "ADD subscriptions :minus",
            "ConditionExpression": "attribute_exists(connection_id)",
            "ExpressionAttributeValues": {":minus": {"N": "-1"}},
        }
    }


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
    _drop_one(dynamodb, prefix, request_key, connection_id)


def drop_connection(dynamodb: Any, prefix: str, connection_id: str) -> None:
    """Delete the row and the subscriptions of a connection that is gone."""
    dynamodb.delete_item(
        TableName=connections_table(prefix), Key={"connection_id": {"S": connection_id}}
    )
    drop_subscriptions(dynamodb, prefix, connection_id)
