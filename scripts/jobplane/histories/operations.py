"""Operations on requests, claims and lanes, read from the calls of DynamoDB that made them.

What a call does is read from its change alone, since its condition is what a history checks.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from jobplane_keys import from_item, request_key
from jobplane_keys.lanes import lane_rows, split_lane_row

type Row = dict[str, Any]

FOLDER = "history"
REQUESTS, CLAIMS, LANES = "requests", "active-jobs", "lanes"
DONE, REFUSED, UNKNOWN = "done", "refused", "unknown"
OUTSIDE = "Outside"
"""The action of a write that no rule describes."""
CHECK_FAILED = "ConditionalCheckFailed"
KEPT = frozenset(
    {
        "status", "lease_owner", "lease_until", "attempts", "max_attempts", "progress", "seq",
        "cancel_requested", "write_id", "waiting_lane", "ttl", "lease_shard", "state", "claimId",
        "fence", "firstFence", "expiresAt", "taker", "takenUntil", "lastReleased", "lastClaimAt",
        "step_count", "callback", "callback_answer", "step_write_id", "answer_write_id",
        "starts_at", "slots", "waiting_at", "next_start", "lane_limit",
    }
)  # fmt: skip
"""The attributes that are a part of the state of a request, a claim or a row of a lane."""
KEYS = {REQUESTS: {"owner", "request_id"}, CLAIMS: {"projectUserId"}, LANES: {"lane"}}
MARKS = ("write_id", "step_write_id", "answer_write_id")
"""By which a write recognises its own result; one that has the first one may have another."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, by its effect. It happened at one moment between its start and its end."""

    subject: str
    """The table, and the key of the row: of a request, a workspace, or a part of a lane."""
    action: str
    """As the specification names it."""
    actor: str
    start: float
    end: float
    """Infinite if no answer came."""
    outcome: str
    """`done`, `refused`, or `unknown`: it may have happened, at any time after its start."""
    given: Row = field(default_factory=dict)
    """What the call wants to write, and what it compares."""
    row: Row | None = None
    """The row that the answer shows: after the call, or as it was in the way; {}: no row."""

    @property
    def is_required(self) -> bool:
        """Whether it surely happened, or was surely refused."""
        return self.outcome != UNKNOWN


@dataclass(frozen=True, slots=True)
class Call:
    """A call of DynamoDB as its caller saw it."""

    actor: str
    operation: str
    parameters: Mapping[str, Any]
    start: float
    end: float | None = None
    answer: Mapping[str, Any] | None = None
    """None if none came; an error has `Error`."""
    is_repeated: bool = False
    """Whether botocore sent it again, so that it may also have happened before."""


@contextmanager
def recording(directory: Path) -> Iterator[Path]:
    """Let the workers of the stage with this directory record; the folder with what they note."""
    folder = directory / FOLDER
    is_mine = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        if is_mine:
            rmtree(folder, ignore_errors=True)


def calls_in(folder: Path) -> list[Call]:
    """The calls that jobplane.stage.recorder has noted below a folder."""
    return [call for path in sorted(folder.glob("*.jsonl")) for call in _calls_of(path)]


def _calls_of(path: Path) -> Iterator[Call]:
    begun: dict[int, Row] = {}
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # its process was killed while it wrote
        number = entry.pop("number")
        if "start" in entry:
            begun[number] = entry
        elif number in begun:
            metadata = entry["answer"].get("ResponseMetadata", {})
            yield Call(
                **begun.pop(number), **entry, is_repeated=metadata.get("RetryAttempts", 0) > 0
            )
    for entry in begun.values():
        yield Call(**entry)


def operations_of(calls: Iterable[Call]) -> dict[str, list[Operation]]:
    """The operations of each row, by its table and key."""
    found: dict[str, list[Operation]] = {}
    for call in calls:
        for operation in _read(call):
            found.setdefault(operation.subject, []).append(operation)
    return {subject: _as_sent(operations) for subject, operations in found.items()}


def _as_sent(operations: list[Operation]) -> list[Operation]:
    """Operations with the times since which they may have happened.

    A write that found its own result may have made it when it was first sent.
    """
    first: dict[str, float] = {}
    for one in sorted(operations, key=lambda operation: operation.start):
        first.setdefault(_mark_of(one.given), one.start)
    return [
        replace(one, start=first[mark])
        if one.outcome == DONE and one.row is None and (mark := _mark_of(one.given))
        else one
        for one in operations
    ]


def _mark_of(given: Row) -> str:
    """The id of a write; empty without one."""
    return next((str(given[mark]) for mark in MARKS if given.get(mark)), "")


def _read(call: Call) -> Iterator[Operation]:
    parts: list[tuple[str, Mapping[str, Any]]] = [(call.operation, call.parameters)]
    if call.operation == "TransactWriteItems":
        parts = [part for entry in call.parameters["TransactItems"] for part in entry.items()]
    for number, (kind, part) in enumerate(parts):
        name = str(part.get("TableName", ""))
        table = next((table for table in KEYS if name.endswith(f"-{table}")), None)
        key = part.get("Key") or part.get("Item") or {}
        if table is None or not key.keys() >= KEYS[table]:
            continue  # without its key DynamoDB refuses it
        if named := _effect(kind, part, table, key):
            shows_row = part.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            yield from _outcomes(call, number, subject_of(key), shows_row, *named)


def subject_of(item: Mapping[str, Any]) -> str:
    """The subject of a row, or of its key, in DynamoDB's typed form."""
    if "projectUserId" in item:
        return f"{CLAIMS} {item['projectUserId']['S']}"
    if "request_id" not in item:
        return f"{LANES} {item['lane']['S']}"
    return f"{REQUESTS} {request_key(item['owner']['S'], item['request_id']['S'])}"


def _outcomes(
    call: Call, number: int, subject: str, shows_row: bool, action: str, given: Row
) -> Iterator[Operation]:
    def made(outcome: str, end: float, row: Row | None = None) -> Operation:
        return Operation(subject, action, call.actor, call.start, end, outcome, given, row)

    answer, end = call.answer, math.inf if call.end is None else call.end
    code = (answer or {}).get("Error", {}).get("Code", "")
    if answer is None or (code and not _is_refusal(answer)):
        # A fault of the service may have come before the write or after it.
        yield made(UNKNOWN, math.inf)
        return
    if call.is_repeated:
        yield made(UNKNOWN, end)
    if not code:
        shown = answer.get("Attributes")
        yield made(DONE, end, None if shown is None else state_part(shown))
        return
    reasons = [reason.get("Code") for reason in answer.get("CancellationReasons", ())]
    if reasons and reasons[number] != CHECK_FAILED:
        return
    row = state_part(answer.get("Item", {})) if shows_row and not reasons else None
    if row and any(given.get(mark) and row.get(mark) == given[mark] for mark in MARKS):
        # Its own write, which was sent again. Unmarked ones may have come in between.
        yield made(DONE, end)
        return
    yield made(REFUSED, end, row)


def _is_refusal(answer: Mapping[str, Any]) -> bool:
    reasons = [reason.get("Code") for reason in answer.get("CancellationReasons", ())]
    return answer["Error"]["Code"].startswith(CHECK_FAILED) or CHECK_FAILED in reasons


def state_part(item: Mapping[str, Any]) -> Row:
    """The attributes of an item that are a part of its state."""
    return from_item({name: value for name, value in item.items() if name in KEPT})


def _effect(
    kind: str, part: Mapping[str, Any], table: str, key: Mapping[str, Any]
) -> tuple[str, Row] | None:
    """The action of a write and what it was given; None for one that changes no state."""
    change, given = part.get("UpdateExpression", ""), _values(part)
    if table == LANES:
        return _of_lane(kind, part, given, key["lane"]["S"])
    if kind == "PutItem" and table == REQUESTS and "now" in given:
        row = state_part(part["Item"])
        return "Enqueue", {**given, "set": row, "write_id": row.get("write_id")}
    if kind in {"PutItem", "Put"} and part["Item"].keys() & {"payload", "events"}:
        return None  # a payload or events that live apart from their row
    if kind == "ConditionCheck":
        return ("BeginDocument", given) if "me" in given else None
    if kind not in {"UpdateItem", "Update"}:
        return OUTSIDE, {}
    for alias, name in part.get("ExpressionAttributeNames", {}).items():
        change = change.replace(alias, name)
    if table == CLAIMS:
        return _of_claim(change, part, given)
    # That of a callback's answer has another mark as well.
    given |= {"write_id": given["set"].get("write_id", given.get("write_id"))}
    action = next((name for name, text in _FOR_LANES.items() if text in change), None)
    if action is not None:
        return action, given
    return _of_steps(change, part, given) or _of_request(change, given)


# What a request's row has for its lane.
_FOR_LANES = {
    "WaitForLane": "waiting_lane = :shard",
    "LeaveQueue": "lease_until = :until REMOVE waiting_lane",
    "Reserve": "starts_at = :at",
}


def _values(part: Mapping[str, Any]) -> Row:
    """The values of a write's expressions; `set` has those that become attributes."""
    values = from_item(part.get("ExpressionAttributeValues", {}))
    assigned = {n.removeprefix(":set_"): v for n, v in values.items() if n.startswith(":set_")}
    return {name[1:]: value for name, value in values.items()} | {"set": assigned}


def _of_steps(change: str, part: Mapping[str, Any], given: Row) -> tuple[str, Row] | None:
    """Actions of steps.tla; None for any other."""
    if "step_count = :set_step_count" in change:
        ends = "callback_answer" in change.partition("REMOVE")[2]
        is_open = "attribute_not_exists(callback_answer)" in part["ConditionExpression"]
        return ("TimeOut" if is_open else "StoreStep"), given | {"ends": ends}
    if "callback" in given["set"]:
        return ("AwaitCallback" if "status" in given["set"] else "OpenCallback"), given
    if "digest" in given:
        return ("AnswerWaiting" if "retrying" in given else "AnswerBusy"), given
    return None


def _of_request(change: str, given: Row) -> tuple[str, Row] | None:
    """Actions of requests.tla."""
    keeps = "REMOVE" not in change or "lease_owner" not in change.partition("REMOVE")[2]
    match given["set"].get("status"):
        case _ if "lease_owner = :me" in change:
            return ("Take" if " ADD attempts" in change else "TakeOver"), given
        case _ if "cancel_requested = :true" in change:
            return "AskToCancel", given
        case _ if "ended_at = :set_ended_at" in change:
            return ("Finish" if "me" in given else "Cancel"), given
        case "RETRYING" if "me" in given:
            return "PutBack", given | {"keep": keeps}
        case "RETRYING" if "status = :set_status" in change:
            return "Park", given
        case "PENDING" if "status = :set_status" in change:
            return ("Start" if "scheduled" in given else "Requeue"), given
        case _ if "lease_until = :set_lease_until" in change or "progress = :set_" in change:
            return "Renew", given
    changed = {word.strip(",") for word in change.split()}
    return (OUTSIDE, given) if changed & KEPT else None


def _of_claim(change: str, part: Mapping[str, Any], given: Row) -> tuple[str, Row] | None:
    """Actions of claims.tla."""
    condition = part.get("ConditionExpression", "")
    if "state = :free" in change:
        if "owner" in given:
            return "ReleaseOwned", given
        return ("ReleaseIssued" if "firstFence" in condition else "ReleaseHeld"), given
    if "claimId = :claim" in change:
        return "Acquire", given
    if "fence = fence + :one" in change:
        return "TakeOver", given
    if "taker = :taker" in change:
        return "Take", given
    if "expiresAt = :expires" in change:
        return ("Prolong" if "expiresAt < :expires" in condition else "Renew"), given
    return OUTSIDE, given


def _of_lane(kind: str, part: Mapping[str, Any], given: Row, row: str) -> tuple[str, Row] | None:
    """Actions of lanes.tla, rows.tla and rates.tla on one row of a lane."""
    change, condition = part.get("UpdateExpression", ""), part.get("ConditionExpression", "")
    if kind == "PutItem":
        return "SetUp", {"row": state_part(part["Item"])}
    if kind == "DeleteItem":
        return "RemoveRow", {"is_beyond": "waiting_at" not in condition}
    if "ADD slots :wanted" in change:
        number, limits = split_lane_row(row)[1], lane_rows(given["limit"])
        room = limits[number] if number < len(limits) else 0
        return ("Enter" if "waiting_at" in condition else "EnterNext"), given | {"room": room}
    if "DELETE slots :mine" in change:
        return "LeaveRow", given
    if "SET waiting_at = :at" in change:
        return "SetWaiting", given
    if "REMOVE waiting_at" in change:
        return "ClearWaiting", given
    return ("Reserve" if "next_start = :next" in change else OUTSIDE), given
