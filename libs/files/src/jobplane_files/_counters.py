"""The counters of files by status: their rows, and what a change of a file adds to them."""

from collections import Counter
from collections.abc import Mapping
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
"""The counters are spread over so many rows of the metrics table, which are to be added up.

Key: `metric_type` (`files_by_status`) and `timestamp` (0 to 9). Besides a number for each status
a row has `changes`, how many changes it counts, and `counted_from`: changes from before that time
(epoch seconds) are in the counters already.
"""


def moved_files(
    change: Mapping[str, Any], shards: int = DEFAULT_STATUS_SHARDS
) -> Counter[FileStatus]:
    """What a change of the table's stream adds to the number of files by status, without zeros.

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


def summed(rows: Mapping[int, Mapping[str, Any]]) -> Counter[str]:
    """The counters of all rows, by shard: files by status, and `changes`, the counted changes."""
    total: Counter[str] = Counter()
    for row in rows.values():
        total.update({name: row[name] for name in (*FileStatus, "changes") if name in row})
    return total


def by_status(counts: Mapping[str, int]) -> dict[str, int]:
    """All six statuses, in the order of the pipeline."""
    return {status.value: counts.get(status, 0) for status in FileStatus}


def counter_update[Name: str](table: str, shard: int, change: Mapping[Name, int]) -> dict[str, Any]:
    """Parameters of the UpdateItem that adds a change to one of the counters' rows."""
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

    It fails when a change was counted since the rows, by shard, were read.
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
