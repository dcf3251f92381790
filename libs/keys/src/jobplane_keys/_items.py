"""Converts DynamoDB's typed values to JSON values and back, and reads items and pages.

boto3's serializer returns Decimal and needs boto3. These functions use the types of JSON, which all
rows of Jobplane consist of.
"""

import base64
import json
import math
import random
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

type Value = dict[str, Any]

# DynamoDB's limit.
MAX_ITEM_BYTES = 400 * 1024
# A value of fewer bytes is stored as it is, readable in the console.
PACK_ABOVE_BYTES = 128 * 1024
MAX_UNPACKED_BYTES = 16 * 1024 * 1024
_BATCH_READS = 6
_PACKED = b"json+xz:"
# Of the decompressor, which needs 9 MiB for what `packed` writes.
_UNPACKING_MEMORY = 64 * 1024 * 1024


class ThrottledError(Exception):
    """DynamoDB left keys of a batch unprocessed after all attempts."""


class Packed(bytes):
    """A JSON value as compressed bytes, which `from_value` returns as the value."""

    __slots__ = ()


def to_item(values: Mapping[str, Any]) -> dict[str, Value]:
    """A mapping of JSON values as a DynamoDB item: `{"n": 1}` → `{"n": {"N": "1"}}`.

    Raises TypeError for a value that is not JSON.
    """
    return {name: to_value(value) for name, value in values.items()}


def from_item(item: Mapping[str, Value]) -> dict[str, Any]:
    """A DynamoDB item as JSON values; whole numbers become int, others float, sets lists."""
    return {name: from_value(value) for name, value in item.items()}


def read_item(
    dynamodb: Any, table: str, key: Mapping[str, Any], only: Container[str] | None = None
) -> dict[str, Any] | None:
    """The current item with this key as JSON values; None if it does not exist.

    `only`: the attributes to convert; others are left out.
    """
    found = dynamodb.get_item(TableName=table, Key=to_item(key), ConsistentRead=True)
    if "Item" not in found:
        return None
    item = found["Item"]
    return from_item(item if only is None else {name: item[name] for name in item if name in only})


def query_items(dynamodb: Any, **query: Any) -> Iterator[dict[str, Any]]:
    """All items of a Query, as JSON values, page by page."""
    for page in pages(dynamodb.query, query):
        yield from map(from_item, page["Items"])


def item_size(item: Mapping[str, Value]) -> int:
    """The bytes of an item by DynamoDB's rules: names and values, and what lists and maps add."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def packed(values: Mapping[str, Any]) -> dict[str, Any]:
    """An item's values as they are stored: those of more than 128 KB as compressed JSON.

    A list of files becomes a sixth of its size. Raises ValueError for a value above 16 MiB.
    """
    return {name: _packed(value) for name, value in values.items()}


def _packed(value: Any) -> Any:
    if isinstance(value, Packed) or _value_size(to_value(value)) <= PACK_ABOVE_BYTES:
        return value
    import lzma  # few items need it

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > MAX_UNPACKED_BYTES:
        raise ValueError(f"the value has more than {MAX_UNPACKED_BYTES} bytes")
    return Packed(_PACKED + lzma.compress(text))


def to_value(value: Any) -> Value:
    """One JSON value in DynamoDB's typed form. Raises TypeError for a value that is not JSON."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": str(value)}
        case int():
            return {"N": str(int(value))}
        case float() if math.isfinite(value):
            return {"N": repr(value)}
        case bytes():
            return {"B": bytes(value)}
        case Mapping():
            return {"M": to_item(value)}
        case list() | tuple():
            return {"L": [to_value(part) for part in value]}
        case frozenset() if value:
            return {"SS": sorted(value)}
    raise TypeError(f"not a JSON value: {value!r}")


def from_value(value: Value) -> Any:
    """One typed value as a JSON value; raises TypeError for another type.

    A value that `packed` has compressed becomes itself, other binary base64 text.
    """
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "N":
            return _number(content)
        case "M":
            return from_item(content)
        case "L":
            return [from_value(part) for part in content]
        case "NULL":
            return None
        case "SS":
            return list(content)
        case "NS":
            return [_number(part) for part in content]
        case "B":
            return _unpacked(content)
        case "BS":
            return [_text(part) for part in content]
    raise TypeError(f"unknown DynamoDB type {kind!r}")


def read_rows(dynamodb: Any, table: str, request: Mapping[str, Any]) -> list[Any]:
    """The items that BatchGetItem finds, in DynamoDB's form; `request` is that of one table.

    Raises ThrottledError.
    """
    wanted: dict[str, Any] = {table: request} if request["Keys"] else {}
    items: list[Any] = []
    for read in range(_BATCH_READS):
        if not wanted:
            break
        if read:
            time.sleep(random.uniform(0, 0.05 * 2**read))
        page = dynamodb.batch_get_item(RequestItems=wanted)
        items += page["Responses"].get(table, [])
        wanted = page.get("UnprocessedKeys") or {}
    if wanted:
        raise ThrottledError("keys were left unprocessed")
    return items


def pages(read: Callable[..., Any], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All answers to a Query or Scan; `read` is that method of a DynamoDB client.

    The caller may change `request`, such as its `Limit`, between two answers.
    """
    while True:
        page = read(**request)
        yield page
        if "LastEvaluatedKey" not in page:
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _value_size(value: Value) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            # Two digits a byte, and at most 21 bytes; as if no zero could be left out.
            return min(21, sum(map(str.isdigit, content)) // 2 + 3)
        case "B":
            return len(content)
        case "M":
            return 3 + sum(len(name.encode()) + 1 + _value_size(content[name]) for name in content)
        case "L":
            return 3 + sum(1 + _value_size(part) for part in content)
        case "SS" | "NS" | "BS":
            return sum(_value_size({kind[0]: part}) for part in content)
    return 1


def _unpacked(binary: bytes | str) -> Any:
    if isinstance(binary, str) or not binary.startswith(_PACKED):
        return _text(binary)
    import lzma  # few items need it

    decompressor = lzma.LZMADecompressor(memlimit=_UNPACKING_MEMORY)
    return json.loads(decompressor.decompress(binary.removeprefix(_PACKED), MAX_UNPACKED_BYTES))


def _text(binary: bytes | str) -> str:
    return binary if isinstance(binary, str) else base64.b64encode(binary).decode()


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
