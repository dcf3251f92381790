"""Who did what with a console: a row of the table `operations` for each action, before it is done.

Operations on many jobs have rows of their own (`bulk`), and are part of the list.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from jobplane.console import api
from jobplane.console.backend import Backend, ProblemError
from jobplane_keys import from_item, iso_time, parse_iso_time, to_item, ttl_after

KIND = "action"
BULK = "bulk"
SUMMARY = "summary"
AUDIT_SECONDS = 90 * 24 * 3_600
PAGE = 100
MAX_MESSAGE = 2_000

type Row = dict[str, Any]


def new_id(now: float) -> str:
    """The id of an action or an operation."""
    return f"{iso_time(now)[:19].replace(':', '').replace('-', '')}-{secrets.token_hex(4)}"


def subject_of(asked: api.Asked) -> str | None:
    """What an action is about; None if it changes nothing, or has an audit of its own."""
    match asked:
        case api.JobKey():
            return f"job {asked.id} of {asked.tenant} / {asked.user}"
        case api.ClaimAction():
            return f"claim of {asked.project}#{asked.user}, fence {asked.fence}"
        case api.FileUpdate():
            step = f"{asked.expected_status} to {asked.new_status}"
            return f"file {asked.date}/{asked.key}: {step}{', forced' if asked.force else ''}"
        case api.ResetRequest(dry_run=False):
            return f"files {' or '.join(asked.statuses)} for at least {asked.hours:g} h"
        case api.AssemblyKey():
            return f"webhook of assembly {asked.assembly_id}"
    return None


def audited(
    backend: Backend, action: str, asked: api.Asked, act: Callable[[], api.Shown]
) -> api.Shown:
    """The answer of an action, which is noted before and after; without a row nothing is done."""
    subject = subject_of(asked)
    if subject is None or not backend.has("table", "operations"):
        return act()
    now = time.time()
    row: Row = {
        "operation_id": new_id(now), "part": SUMMARY, "kind": KIND, "created_at": iso_time(now),
        "action": action, "subject": subject, "who": backend.operator, "outcome": "begun",
        "reason": getattr(asked, "reason", None), "ttl": ttl_after(now, AUDIT_SECONDS),
    }  # fmt: skip
    _put(backend, row)
    try:
        answer = act()
    except Exception as error:
        is_refusal = isinstance(error, ProblemError) and error.status < 500
        outcome = "refused" if is_refusal else "failed"
        _note(backend, row, outcome, str(error))
        raise
    _note(backend, row, "done", _says(answer))
    return answer


def _says(answer: api.Shown) -> str:
    if isinstance(answer, api.ResetAnswer):
        counts = {"reset": answer.reset, "skipped": answer.skipped, "failed": answer.failed}
        return ", ".join(f"{len(files)} {name}" for name, files in counts.items())
    return str(getattr(answer, "message", ""))


def _put(backend: Backend, row: Row) -> None:
    item = to_item({name: value for name, value in row.items() if value is not None})
    backend.dynamodb.put_item(TableName=backend.table("operations"), Item=item)


def _note(backend: Backend, row: Row, outcome: str, message: str) -> None:
    """Add the outcome. If that fails, the row says that the action was begun."""
    try:
        _put(backend, row | {"outcome": outcome, "message": message[:MAX_MESSAGE]})
    except (ClientError, BotoCoreError):
        return


def entries(backend: Backend, asked: api.AuditQuery) -> api.Audit:
    """Actions and operations, the newest first."""
    try:
        before = iso_time(parse_iso_time(asked.before)) if asked.before else ":"
    except (ValueError, OverflowError):
        text = "before: a time such as 2026-11-22T10:15:30Z is required"
        raise ProblemError(400, "VALIDATION_ERROR", text) from None
    rows = [row for kind in (KIND, BULK) for row in _of_kind(backend, kind, before)]
    rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
    shown, rest = rows[:PAGE], rows[PAGE:]
    # A page ends between two times, so that the next one misses nothing.
    while rest and rest[0]["created_at"] == shown[-1]["created_at"]:
        shown.append(rest.pop(0))
    return api.Audit(
        # A plan that was not started has changed nothing.
        entries=[_shown(row) for row in shown if row["kind"] == KIND or "started_at" in row],
        next=shown[-1]["created_at"] if rest else None,
    )


def _of_kind(backend: Backend, kind: str, before: str) -> list[Row]:
    answer = backend.dynamodb.query(
        TableName=backend.table("operations"),
        IndexName="recent",
        KeyConditionExpression="kind = :kind AND created_at < :before",
        ExpressionAttributeValues=to_item({":kind": kind, ":before": before}),
        ScanIndexForward=False,
        Limit=PAGE + 1,
    )
    return [from_item(item) for item in answer["Items"]]


def _shown(row: Mapping[str, Any]) -> api.AuditEntry:
    is_bulk = row["kind"] == BULK
    outcome: Literal["begun", "done", "refused", "failed"] = row.get("outcome", "begun")
    if is_bulk:
        outcome = "done" if row["state"] == "done" else "begun"
    return api.AuditEntry(
        id=row["operation_id"],
        at=row["created_at"],
        who=row["who"],
        action=f"bulk/{row['action']}" if is_bulk else row["action"],
        subject=f"{row['total']:,} jobs" if is_bulk else row["subject"],
        reason=row.get("reason"),
        outcome=outcome,
        message=f"It is {row['state']}." if is_bulk else row.get("message"),
        bulk=row["operation_id"] if is_bulk else None,
    )
