"""The writes to an assembly's document.

`rev` grows by one with each write of a worker, which names the `rev` that it has read: of two
workers on the same document, the slower one loses it. `lease_until` is there until it ends.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import packed, read_item, to_item
from jobplane_leases._errors import DocumentChangedError, LeaseLostError
from jobplane_leases._requests import RequestLease
from jobplane_leases._writes import Row, Written, assignment, expressions, transact, update


def queue_webhook(sqs: Any, queue_url: str, document: Mapping[str, Any], trace: str | None) -> None:
    """Queue the webhook of an ended document if it is pending; `trace` is the trace's header.

    A repetition is harmless: the document knows whether its webhook was delivered.
    """
    if (document.get("webhook") or {}).get("status") != "pending":
        return
    body = {name: document[name] for name in ("assembly_id", "execution", "template_id")}
    header = {"DataType": "String", "StringValue": trace}
    sqs.send_message(
        QueueUrl=queue_url,
        MessageBody=json.dumps(body),
        MessageSystemAttributes={"AWSTraceHeader": header} if trace else {},
    )


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
    change, condition, values = _versioned(rev, changes, now, remove)

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


def begin_document(
    dynamodb: Any,
    table: str,
    assembly_id: str,
    rev: int | None,
    changes: Mapping[str, Any],
    now: float,
    *,
    remove: Sequence[str],
    request: RequestLease,
    lease_owner: str,
) -> Row:
    """Like `write_assembly`, but only while this worker has the lease of its request.

    So no worker that has lost it leaves a document behind that nothing would end. Raises
    DocumentChangedError if another worker has written the document, and LeaseLostError if the
    request's lease is lost.
    """
    change, condition, values = _versioned(rev, changes, now, remove)
    key = {"assembly_id": assembly_id}
    refused = transact(
        dynamodb,
        [
            {
                "Update": {
                    "TableName": table,
                    "Key": to_item(key),
                    **expressions(condition, values, change),
                }
            },
            {"ConditionCheck": request.check_of(lease_owner)},
        ],
    )
    if refused:
        lost = refused[1] == "ConditionalCheckFailed"
        raise LeaseLostError(request.request_id) if lost else DocumentChangedError(assembly_id)
    document = read_item(dynamodb, table, key)
    if document is None or document["rev"] != values["set_rev"]:
        raise DocumentChangedError(assembly_id)
    return document


def _versioned(
    rev: int | None, changes: Mapping[str, Any], now: float, remove: Sequence[str]
) -> tuple[str, str, Row]:
    """The change, the condition and the values of a write to a document with this `rev`."""
    change, values = assignment({**packed(changes), "rev": (rev or 0) + 1}, remove)
    if rev is None:
        values["read_at"] = int(now)
        return change, "attribute_not_exists(assembly_id) OR #ttl <= :read_at", values
    values["read_rev"] = rev
    return change, "#rev = :read_rev", values


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
