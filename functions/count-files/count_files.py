"""Counts the files of a pipeline by status, each change once.

Trigger: the stream of the tracking table, batches of at most 90 changes.
Result: none.
Errors: UnreadableRecordError for a record that is not of that table, and errors of DynamoDB; the
stream then delivers the batch again.
Writes `metrics`: ten rows of counters, which state-manager reads and corrects, and for each counted
change a mark that is kept for two days.
"""

import math
import os
import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.config import Config

from jobplane_files import COUNTER_SHARDS, counter_update, moved_files
from jobplane_keys import CLIENT_OPTIONS, from_item, json_object, to_item, to_value
from jobplane_keys.tracking import DEFAULT_STATUS_SHARDS
from jobplane_telemetry import Telemetry

METRICS_TABLE = os.environ["METRICS_TABLE"]
NUM_STATUS_SHARDS = int(os.environ.get("NUM_STATUS_SHARDS", DEFAULT_STATUS_SHARDS))

COUNTED_TTL_SECONDS = 2 * 86400  # a stream keeps its records for one day
EVENT_ID = re.compile(r"[!-~]{1,128}")
LAST_MOMENT = 253_402_300_799  # the end of the year 9999
UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
COUNTED_PER_TRANSACTION = 90  # and one counter: DynamoDB allows 100
COUNT_ATTEMPTS = 8

telemetry = Telemetry("count-files")
dynamodb: Any = botocore.session.get_session().create_client(
    "dynamodb", config=Config(**CLIENT_OPTIONS)
)


class UnreadableRecordError(Exception):
    """The batch contains something else than records of the tracking table's stream."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of the numbers of files by status that a record means."""

    event_id: str
    created: int
    """The time of the change in whole epoch seconds."""
    numbers: Counter[Any]

    @classmethod
    def of(cls, record: Any, now: float) -> "Change":
        """The change of a record. Raises UnreadableRecordError if it is not one of the table."""
        try:
            change, event_id = record["dynamodb"], record["eventID"]
            numbers = moved_files(change, NUM_STATUS_SHARDS)
            created = math.floor(float(change.get("ApproximateCreationDateTime", now)))
        except UNREADABLE as error:
            raise UnreadableRecordError("a record of the stream can't be read") from error
        if not isinstance(event_id, str) or not EVENT_ID.fullmatch(event_id):
            raise UnreadableRecordError("a record of the stream has no id")
        if not 0 <= created <= LAST_MOMENT:
            raise UnreadableRecordError("a record of the stream has no readable time")
        return cls(event_id, created, numbers)


def transaction(changes: Sequence[Change], now: float) -> list[dict[str, Any]]:
    """The writes that count the changes; they fail if one of these is already counted."""
    total = Counter({"changes": len(changes)})
    for change in changes:
        total.update(change.numbers)
    # With several rows, the shards of the stream seldom write to the same one.
    shard = zlib.crc32(changes[0].event_id.encode()) % COUNTER_SHARDS
    update = counter_update(METRICS_TABLE, shard, total)
    update["ConditionExpression"] = "attribute_not_exists(counted_from) OR counted_from <= :oldest"
    oldest = min(change.created for change in changes)
    update["ExpressionAttributeValues"][":oldest"] = to_value(oldest)
    update["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    marks = [
        {
            "TableName": METRICS_TABLE,
            "Item": to_item(
                {
                    "metric_type": f"counted#{change.event_id}",
                    "timestamp": 0,
                    "ttl": int(now) + COUNTED_TTL_SECONDS,
                }
            ),
            "ConditionExpression": "attribute_not_exists(metric_type)",
        }
        for change in changes
    ]
    return [{"Update": update}, *({"Put": mark} for mark in marks)]


def count(changes: list[Change], now: float) -> int:
    """Add changes to the counters, each only once; return how many were added.

    The same transaction writes a mark for each change. Changes with a mark, and those that an exact
    count includes, are left out, and the transaction is repeated with the others.
    """
    attempt = 0
    while changes:
        try:
            dynamodb.transact_write_items(TransactItems=transaction(changes, now))
        except dynamodb.exceptions.TransactionCanceledException as error:
            left = uncounted(changes, error.response["CancellationReasons"])
            if len(left) == len(changes):
                attempt += 1
                if attempt >= COUNT_ATTEMPTS:
                    raise
                # Longer each time, and random, so that two callers do not collide again.
                time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
            changes = left
        else:
            return len(changes)
    return 0


def uncounted(changes: list[Change], reasons: list[dict[str, Any]]) -> list[Change]:
    """The changes of a cancelled transaction that must still be counted."""
    whole, *marks = reasons
    left = [
        change
        for change, mark in zip(changes, marks, strict=True)
        if mark.get("Code") != "ConditionalCheckFailed"
    ]
    if whole.get("Code") == "ConditionalCheckFailed":
        counted_from = from_item(whole["Item"])["counted_from"]
        left = [change for change in left if change.created >= counted_from]
    return left


@telemetry.handler
def handler(event: Any, context: Any) -> None:
    now = time.time()
    records = json_object(event).get("Records")
    if not isinstance(records, list):
        raise UnreadableRecordError("Records is not a list")
    changes = {change.event_id: change for change in (Change.of(r, now) for r in records)}
    moved = [change for change in changes.values() if change.numbers]
    counted = 0
    for start in range(0, len(moved), COUNTED_PER_TRANSACTION):
        counted += count(moved[start : start + COUNTED_PER_TRANSACTION], now)
    telemetry.debug("changes counted", records=len(records), counted=counted)
