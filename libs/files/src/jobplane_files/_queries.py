"""Parameters of the queries that read the tracking table."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobplane_files._orphans import Dates
from jobplane_files._rows import Row
from jobplane_keys import to_item
from jobplane_keys.tracking import LOCK_INDEX, MANIFEST_PREFIX, STATUS_INDEX

_INDEX_KEYS = {None: (), STATUS_INDEX: ("status",), LOCK_INDEX: ("lock_id",)}
_RANGES = {
    "before": ("file_key < :manifests", MANIFEST_PREFIX),
    "after": ("file_key > :manifests", MANIFEST_PREFIX + "\U0010ffff"),
}
BESIDE_MANIFESTS = tuple(_RANGES)
"""The two parts of a date that hold its files; its manifests lie between them."""


def status_query(stored: str, dates: Dates = (None, None)) -> dict[str, Any]:
    """A Query for one stored status, oldest date first, optionally within a range of dates.

    A status without a shard also finds manifests.
    """
    first, last = dates
    condition, values = "#status = :status", {":status": stored}
    if first is not None and last is not None:
        condition += " AND date_prefix BETWEEN :first AND :last"
    elif first is not None:
        condition += " AND date_prefix >= :first"
    elif last is not None:
        condition += " AND date_prefix <= :last"
    values |= {name: day for name, day in ((":first", first), (":last", last)) if day is not None}
    return {
        "IndexName": STATUS_INDEX,
        "KeyConditionExpression": condition,
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": to_item(values),
    }


def count_query(stored: str) -> dict[str, Any]:
    """A Query that counts the files of a stored status, by `files_counted` of its pages."""
    is_plain = "#" not in stored
    # A status without a shard also finds manifests, so its keys are needed.
    shown = {"ProjectionExpression": "date_prefix, file_key"} if is_plain else {"Select": "COUNT"}
    return status_query(stored) | shown


def files_counted(page: Mapping[str, Any]) -> int:
    """The number of files on a page of `count_query`."""
    if "Items" not in page or not page["Items"]:
        return int(page["Count"])
    return sum(Row(item).is_file for item in page["Items"])


def date_query(day: str, part: str, attributes: Sequence[str] = ()) -> dict[str, Any]:
    """A consistent Query for the files in a part of a date, by name."""
    condition, manifests = _RANGES[part]
    query: dict[str, Any] = {
        "ConsistentRead": True,
        "KeyConditionExpression": f"date_prefix = :date AND {condition}",
        "ExpressionAttributeValues": to_item({":date": day, ":manifests": manifests}),
    }
    if attributes:
        names = {f"#{index}": name for index, name in enumerate(attributes)}
        query["ProjectionExpression"] = ", ".join(names)
        query["ExpressionAttributeNames"] = names
    return query


def after(place: Mapping[str, Any] | None, index: str | None = None) -> dict[str, Any]:
    """What makes a Query or Scan begin after the row with this `place`."""
    if place is None:
        return {}
    names = ("date_prefix", "file_key", *_INDEX_KEYS[index])
    return {"ExclusiveStartKey": to_item({name: place[name] for name in names})}
