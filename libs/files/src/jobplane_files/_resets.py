"""Which stuck files may go back to pending, and what that writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobplane_files._rows import HOUR, Row
from jobplane_keys import to_value
from jobplane_keys.tracking import FileStatus


def no_reset_because(
    file: Row, manifest: Row | None, *, now: float, hours: float, max_resets: int
) -> str | None:
    """Why a file that seems stuck must stay as it is; None when it may be reset.

    `manifest` is its manifest's row; `hours` is how long it may run.
    """
    if file.since is None:
        return "its age is unknown: no readable timestamp"
    if file.status is FileStatus.FAILED and resets_of(file) >= max_resets:
        return f"it was reset {resets_of(file)} times already"
    status = None if manifest is None else manifest.values.get("status")
    if manifest is None or status in {None, FileStatus.FAILED}:
        return None
    if status == FileStatus.COMPLETED:
        return "its manifest is completed: the data is in the output"
    times = ("processing_start_time", "updated_at", "created_at")
    begun = next((manifest.time(name) for name in times if manifest.values.get(name)), None)
    if begun is None:
        return f"its manifest is {status}, and its age is unknown: no readable timestamp"
    return f"its manifest is still {status}" if now - begun <= hours * HOUR else None


def resets_of(file: Row) -> int:
    """How often a file was reset."""
    count = file.values.get("reset_count")
    return count if isinstance(count, int) else 0


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
