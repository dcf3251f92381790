"""Subscriptions of connections to jobs.

The row of a job has the number of its subscribers, so that a progress write returns whether there
are any. A subscription and the number change together or not at all.
"""

from typing import Any

from jobplane_keys import (
    connections_table,
    query_items,
    requests_table,
    split_request_key,
    subscriptions_table,
)
from jobplane_leases import transact


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
    owner, request_id = split_request_key(request_key)
    table = subscriptions_table(prefix)
    key = {"request_key": {"S": request_key}, "connection_id": {"S": connection_id}}
    listens = {"ConditionExpression": "attribute_exists(request_key)"}
    count = {
        "TableName": requests_table(prefix),
        "Key": {"owner": {"S": owner}, "request_id": {"S": request_id}},
        "UpdateExpression": "ADD subscriber_count :minus",
        "ConditionExpression": "attribute_exists(request_id)",
        "ExpressionAttributeValues": {":minus": {"N": "-1"}},
    }
    refused = transact(
        dynamodb,
        [
            {"Delete": {"TableName": table, "Key": key} | listens},
            {"Update": count},
        ],
    )
    if refused and refused[0] == "ConditionalCheckFailed":
        return False
    if refused:
        # The request has expired, so there is no number to update.
        dynamodb.delete_item(TableName=table, Key=key)
    return True


def drop_subscriptions(dynamodb: Any, prefix: str, connection_id: str) -> int:
    """End all subscriptions of a connection; return their number."""
    rows = query_items(
        dynamodb,
        TableName=subscriptions_table(prefix),
        IndexName="by-connection",
        KeyConditionExpression="connection_id = :id",
        ExpressionAttributeValues={":id": {"S": connection_id}},
    )
    return sum(unsubscribe(dynamodb, prefix, row["request_key"], connection_id) for row in rows)


def drop_connection(dynamodb: Any, prefix: str, connection_id: str) -> None:
    """Delete the row and the subscriptions of a connection that is gone."""
    dynamodb.delete_item(
        TableName=connections_table(prefix), Key={"connection_id": {"S": connection_id}}
    )
    drop_subscriptions(dynamodb, prefix, connection_id)
