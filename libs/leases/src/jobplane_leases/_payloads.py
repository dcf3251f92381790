"""Where the payload of a request is.

Each write of a row costs what the whole row weighs, so a large payload on it would be paid for with
each report of progress. By AWS's prices an item is cheaper than an object up to seven kilobytes.

| bytes of JSON | place | attribute of the row |
|---|---|---|
| up to 1,024 | the request's row | `payload`, the JSON text |
| up to 7,000 | an item of the same table, in no index | `payload_item`, its `request_id` |
| more | an object | `payload_object`, its key |

Both names have a digest of the content. The payload is stored before the row: one whose row was not
written, or was refused, expires.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from jobplane_keys import REQUEST_TTL_SECONDS, read_item, to_item, ttl_after

type Row = dict[str, Any]

PAYLOAD_IN_ROW_BYTES = 1024
PAYLOAD_IN_ITEM_BYTES = 7000
PAYLOAD_TTL_SECONDS = 2 * REQUEST_TTL_SECONDS
"""An item with a payload is kept so long after its request is due: it may wait for its lane."""

_DIGITS = 32


def store_payload(
    dynamodb: Any,
    table: str,
    key: tuple[str, str],
    text: str,
    due: float,
    put_object: Callable[[str, bytes], object],
) -> Row:
    """The attributes of a request's row for its payload, which this stores if it lives apart.

    `key` is the request's owner and id, `text` the payload's JSON, `due` in epoch seconds.
    `put_object` stores an object, from its key and its content.
    """
    body, (owner, request_id) = text.encode(), key
    if len(body) <= PAYLOAD_IN_ROW_BYTES:
        return {"payload": text}
    # No request has such an id.
    name = f"{request_id}/{sha256(body).hexdigest()[:_DIGITS]}"
    if len(body) <= PAYLOAD_IN_ITEM_BYTES:
        expires = ttl_after(due, PAYLOAD_TTL_SECONDS)
        item = {"owner": owner, "request_id": name, "payload": text, "ttl": expires}
        dynamodb.put_item(TableName=table, Item=to_item(item))
        return {"payload_item": name}
    name = f"payloads/{sha256(owner.encode()).hexdigest()[:_DIGITS]}/{name}.json"
    put_object(name, body)
    return {"payload_object": name}


def read_payload(
    dynamodb: Any, table: str, row: Mapping[str, Any], get_object: Callable[[str], bytes]
) -> str:
    """The JSON text of a request's payload. Raises LookupError if its item has expired.

    `get_object` returns the content of an object, from its key.
    """
    if "payload_object" in row:
        return get_object(row["payload_object"]).decode()
    if "payload_item" not in row:
        return str(row["payload"])
    item = read_item(dynamodb, table, {"owner": row["owner"], "request_id": row["payload_item"]})
    if item is None:
        raise LookupError(f"the payload {row['payload_item']} has expired")
    return str(item["payload"])


def is_payload_of(row: Mapping[str, Any], text: str, stored: Mapping[str, Any]) -> bool:
    """Whether a row has this payload, of which `store_payload` has returned `stored`."""
    return row["payload"] == text if "payload" in row else stored.items() <= row.items()
