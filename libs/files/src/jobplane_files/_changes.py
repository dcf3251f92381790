"""Changes of a row by an operator: which are refused, and what one writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobplane_files._rows import Row
from jobplane_keys import iso_time, to_value
from jobplane_keys.tracking import (
    MANIFEST_STATUSES,
    FileStatus,
    RowKind,
    in_same_shard,
    may_become,
)


def no_change_because(
    row: Row, wanted: FileStatus, *, expected: FileStatus | None = None, force: bool = False
) -> str | None:
    """Why a row may not get a status, as the end of a sentence about it; None if it may."""
    current = row.values.get("status")
    if expected is not None and row.status is not expected:
        return f"is {current}, not {expected.value}"
    if row.kind is RowKind.MANIFEST and wanted not in MANIFEST_STATUSES:
        return f"is a manifest and can't be {wanted.value}"
    if not (force or may_become(row.kind, row.status, wanted)):
        return f"can't go from {current} to {wanted.value} without force and a reason"
    return None


@dataclass(frozen=True, slots=True)
class Change:
    """A new status, who sets it and why, and what is written or removed with it."""

    status: FileStatus
    changed_by: str
    reason: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    removed: Sequence[str] = ()

    def update(self, row: Row, now: float) -> dict[str, Any]:
        """Parameters of the UpdateItem, with the record of the change: see `row_update`."""
        old = str(row.values.get("status") or "")
        new = {
            **self.fields,
            "status": in_same_shard(old, self.status),
            "previous_status": old or None,
            "last_changed_by": self.changed_by,
            "last_changed_reason": self.reason,
            "updated_at": iso_time(now),
        }
        return row_update(row, new, self.removed)


def row_update(row: Row, new: Mapping[str, Any], removed: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters of the UpdateItem that writes attributes if the row is still what was read.

    Of what was read, the status, `updated_at` and the removed attributes are compared.
    """
    compared = ("status", "updated_at", *removed)
    names = {f"#{index}": name for index, name in enumerate(dict.fromkeys([*new, *compared]))}
    places = {name: place for place, name in names.items()}
    values = {f":{places[name][1:]}": to_value(value) for name, value in new.items()}
    conditions = ["attribute_exists(date_prefix)"]
    for name in compared:
        if name in row.item:
            values[f":seen_{name}"] = row.item[name]
            conditions.append(f"{places[name]} = :seen_{name}")
        else:
            conditions.append(f"attribute_not_exists({places[name]})")
    expression = "SET " + ", ".join(f"{places[name]} = :{places[name][1:]}" for name in new)
    if removed:
        expression += " REMOVE " + ", ".join(places[name] for name in removed)
    return {
        "Key": {name: row.item[name] for name in ("date_prefix", "file_key")},
        "UpdateExpression": expression,
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }
