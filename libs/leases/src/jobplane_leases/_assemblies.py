"""The writes to an assembly's document.

`rev` grows by one with each write of a worker, which names the `rev` that it has read: of two
workers on the same document, the slower one loses it. `lease_until` is there until it ends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import packed
from jobplane_leases._errors import LeaseLostError
from jobplane_leases._writes import Row, Written, assignment, update


def write_assembly(
    dynamodb: Any,
    table: str,
    assembly_id: str,
    rev: int | None,
    changes: Mapping[str, Any],
    now: float,
    *,
    remove: Sequence[str] = (),
    patient_until: float = 0.0,
) -> Row:
    """Change a document that still has the `rev` that was read; None means absent or expired.

    Returns the new document. Raises LeaseLostError if another worker has written it. `now` is in
    epoch seconds; `patient_until` is explained at `update`.
    """
    change, values = assignment({**packed(changes), "rev": (rev or 0) + 1}, remove)
    if rev is None:
        condition = "attribute_not_exists(assembly_id) OR #ttl <= :read_at"
        values["read_at"] = int(now)
    else:
        condition = "#rev = :read_rev"
        values["read_rev"] = rev

    def write() -> Written:
        return update(
            dynamodb,
            table,
            {"assembly_id": assembly_id},
            change=change,
            condition=condition,
            values=values,
            patient_until=patient_until,
        )

    try:
        done, document = write()
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException" or rev is None:
            raise
        # An item of 400 KB takes no more. It does without its followers, which the sweeper finds.
        update(
            dynamodb,
            table,
            {"assembly_id": assembly_id},
            change="REMOVE followers",
            condition="#rev = :rev",
            values={"rev": rev},
            mark=None,
        )
        done, document = write()
    if not done:
        raise LeaseLostError(assembly_id)
    return document


def follow_assembly(
    dynamodb: Any, table: str, assembly_id: str, request_key: str, *, most: int
) -> bool:
    """Requeue a request when a running assembly ends; False if it has ended.

    An assembly accepts `most` followers. Beyond that it returns True, but the assembly's end does
    not requeue the request; the sweeper does later.
    """
    done, document = update(
        dynamodb,
        table,
        {"assembly_id": assembly_id},
        change="ADD followers :me",
        condition="attribute_exists(lease_until)"
        " AND (attribute_not_exists(followers) OR size(followers) < :most)",
        values={"me": frozenset({request_key}), "most": most},
        mark=None,
    )
    return done or "lease_until" in document
