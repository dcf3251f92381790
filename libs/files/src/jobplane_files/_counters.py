"""The counters of files by status: their rows, and what a change of a file adds to them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jobplane_keys import from_item, to_item, to_value
from jobplane_keys.tracking import (
    COUNTERS,
    DEFAULT_STATUS_SHARDS,
    FileStatus,
    RowKind,
    read_status,
    row_kind,
)

COUNTER_SHARDS = 10
"""The number of rows of the metrics table over which the counters are spread; they add up.

Key: `metric_type` (`files_by_status`) and `timestamp` (0 to 9). Besides a number for each status
a row has `changes`, the number of changes it counts, and `counted_from` (epoch seconds): changes
before that time are already counted.
"""


def moved_files(
    change: Mapping[str, Any], shards: int = DEFAULT_STATUS_SHARDS
) -> Counter[FileStatus]:
    """What a change in the table's stream adds to the number of files by status, without zeros.

    `change` is the `dynamodb` of a record: Keys, OldImage and NewImage in DynamoDB's typed form.
    """
    keys = from_item(change["Keys"])
    numbers: Counter[FileStatus] = Counter()
    if row_kind(keys["date_prefix"], keys["file_key"]) is RowKind.FILE:
        for image, number in (("OldImage", -1), ("NewImage", 1)):
            stored = change.get(image, {}).get("status", {}).get("S")
            if (status := read_status(stored, shards)) is not None:
                numbers[status] += number
    return Counter({status: number for status, number in numbers.items() if number})


def moved_before(
    changes: Iterable[Mapping[str, Any]], moment: float, shards: int = DEFAULT_STATUS_SHARDS
) -> tuple[bool, bool]:
    """Whether a file changes its status up to a moment, and whether a change is after it.

    `changes` are in the order of a shard, and the rest is ignored after the first later one.
    """
    moved = False
    for change in changes:
        created = change.get("ApproximateCreationDateTime")
        if created is not None and created.timestamp() > moment:
            return moved, True
        moved = moved or bool(moved_files(change, shards))
    return moved, False


def summed(rows: Mapping[int, Mapping[str, Any]]) -> Counter[str]:
    """The sum of all rows, which are given by shard: files by status, and `changes`."""
    total: Counter[str] = Counter()
    for row in rows.values():
        total.update({name: row[name] for name in (*FileStatus, "changes") if name in row})
    return total


def by_status(counts: Mapping[str, int]) -> dict[str, int]:
    """All six statuses, in the order of the pipeline."""
    return {status.value: counts.get(status, 0) for status in FileStatus}


def counter_update[Name: str](table: str, shard: int, change: Mapping[Name, int]) -> dict[str, Any]:
    """Parameters of the UpdateItem that adds a change to one row of the counters."""
    names = {f"#{index}": name for index, name in enumerate(change)}
    return {
        "TableName": table,
        "Key": to_item({"metric_type": COUNTERS, "timestamp": shard}),
        "UpdateExpression": "ADD " + ", ".join(f"{place} :{place[1:]}" for place in names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {
            f":{place[1:]}": to_value(change[name]) for place, name in names.items()
        },
    }


def counter_corrections(
    table: str, rows: Mapping[int, Mapping[str, Any]], drift: Mapping[str, int], counted_from: int
) -> list[dict[str, Any]]:
    """The updates of one transaction that adds a drift to the counters.

    It fails if a change was counted after the rows, which are given by shard, were read.
    """
    updates = []
    for shard in range(COUNTER_SHARDS):
        added = {"changes": 1, **(drift if shard == 0 else {})}
        update = counter_update(table, shard, added)
        update["UpdateExpression"] += " SET counted_from = :from"
        update["ExpressionAttributeValues"][":from"] = to_value(counted_from)
        if "changes" in rows.get(shard, {}):
            update["ConditionExpression"] = "changes = :seen"
            update["ExpressionAttributeValues"][":seen"] = to_value(rows[shard]["changes"])
        else:
            update["ConditionExpression"] = "attribute_not_exists(changes)"
        updates.append(update)
    return updates
