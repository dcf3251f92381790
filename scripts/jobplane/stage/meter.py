"""What DynamoDB would bill for the calls of a stage, noted in its folder `usage`, if that exists.

Runs in the emulator: it needs only the standard library. A write has the sizes of the item and of
its entries in indexes, before and after it; a read has its units, which the emulator counts.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

WRITES = {"PutItem": "Put", "UpdateItem": "Update", "DeleteItem": "Delete"}
READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
TRANSACTION = "TransactWriteItems"

type Row = dict[str, Any]
type Handle = Callable[..., Awaitable[Any]]


def metered(handle: Handle, dynamodb: Any, folder: Path) -> Handle:
    """Wrap the emulator's handling of DynamoDB's calls."""

    async def call(method: str, path: str, headers: Mapping[str, str], body: bytes, *r: Any) -> Any:
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        known = operation in WRITES or operation in READS or operation == TRANSACTION
        if not known or not folder.is_dir():
            return await handle(method, path, headers, body, *r)
        given, caller = json.loads(body), _access_key(headers)
        if operation in READS:
            body = json.dumps(given | {"ReturnConsumedCapacity": "TOTAL"}).encode()
            answer = await handle(method, path, headers, body, *r)
            units = _units(json.loads(answer[2]))
            note(folder, "dynamodb", {"caller": caller, "read_units": units})
            return answer
        parts = [_part(dynamodb, *part) for part in _parts(operation, given)]
        before = [_seen(dynamodb, *part) for part in parts]
        answer = await handle(method, path, headers, body, *r)
        writes = [
            {"table": part[0], "before": old, "after": _seen(dynamodb, *part)}
            for part, old in zip(parts, before, strict=True)
        ]
        is_transaction = operation == TRANSACTION
        entry = {"caller": caller, "writes": writes, "in_transaction": is_transaction}
        note(folder, "dynamodb", entry)
        return answer

    return call


def note(folder: Path, name: str, entry: Row) -> None:
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _access_key(headers: Mapping[str, str]) -> str:
    """Of the caller: each function has its own, since each has its own role."""
    return headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]


def _units(answer: Row) -> float:
    consumed = answer.get("ConsumedCapacity", [])
    parts = consumed if isinstance(consumed, list) else [consumed]
    return sum(float(part.get("CapacityUnits", 0)) for part in parts)


def _parts(operation: str, given: Row) -> list[tuple[str, Row]]:
    if operation in WRITES:
        return [(WRITES[operation], given)]
    return [part for entry in given["TransactItems"] for part in entry.items()]


def _part(dynamodb: Any, kind: str, given: Row) -> tuple[str, Any]:
    """The table and the key of a write."""
    name = dynamodb._normalize_table_name(given["TableName"])
    return name, given["Item"] if kind == "Put" else given["Key"]


def _seen(dynamodb: Any, name: str, key: Row) -> Row:
    """The size of an item, and of each entry that it has in an index: size, key, and content."""
    table = dynamodb._tables.get(name)
    item = dynamodb._get_item_by_key(table, key) if table else None
    if not item:
        return {"bytes": 0, "entries": {}}
    entries = {}
    for index in table.get("GlobalSecondaryIndexes") or ():
        names = [part["AttributeName"] for part in index["KeySchema"]]
        if all(name in item for name in names):
            shown = dynamodb._apply_index_projection(item, table, index["IndexName"])
            entries[index["IndexName"]] = {
                "bytes": dynamodb._item_size_bytes(shown),
                "key": json.dumps([item[name] for name in names], sort_keys=True),
                "content": json.dumps(shown, sort_keys=True),
            }
    return {"bytes": dynamodb._item_size_bytes(item), "entries": entries}
