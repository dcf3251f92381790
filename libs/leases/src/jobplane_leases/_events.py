"""The events of a job: what it emits, stored in order, numbered from 1 without gaps.

The request's row has the newest ones, up to a kilobyte of JSON (`event_tail`), and counts all
(`event_count`, `event_bytes`). When they are more, one transaction makes them a batch: a row of the
table `requests`, whose `owner` is the request's key, which no owner of a request can have, and
`request_id` the number of the batch's last event, padded. These rows have no entry in an index, and
their records match no filter of the stream.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jobplane_keys import query_items, request_key, to_item

type Row = dict[str, Any]

EVENT_TTL_SECONDS = 24 * 3600
MAX_EVENT_BYTES = 30 * 1024
# An answer has room for a page of so much beside the largest state of a request.
MAX_PAGE_BYTES = 31 * 1024
MAX_BATCH_BYTES = MAX_PAGE_BYTES
MAX_BATCH_EVENTS = 500
# Each write of the request pays for a kilobyte that is begun.
MAX_TAIL_BYTES = 1024
MAX_EVENTS = 1_000_000
MAX_EVENTS_BYTES = 64 * 1024 * 1024
_DIGITS = 10


class EventError(Exception):
    """An event can't be stored: it is not a JSON value, or it exceeds a limit."""


def event_text(event: Any) -> str:
    """An event as JSON text. Raises EventError."""
    try:
        text = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise EventError(f"The event is not a JSON value: {error}") from error
    if size > MAX_EVENT_BYTES:
        raise EventError(
            f"The event has {size} bytes of JSON, at most {MAX_EVENT_BYTES} are possible; store it"
            " as an object, and emit its key"
        )
    return text


def require_room(counts: Mapping[str, int]) -> None:
    """Raises EventError if a job may not emit so much."""
    if counts["event_count"] > MAX_EVENTS or counts["event_bytes"] > MAX_EVENTS_BYTES:
        raise EventError(
            f"The job has emitted more than {MAX_EVENTS} events, or {MAX_EVENTS_BYTES} bytes; store"
            " large output as an object, and return its key"
        )


def event_row(owner: str, request_id: str, last: int, events: str, ttl: int) -> Row:
    """The row of a batch, whose last event has the number `last`."""
    return {
        "owner": request_key(owner, request_id),
        "request_id": _position(last),
        "first": last - len(json.loads(f"[{events}]")) + 1,
        "events": f"[{events}]",
        "ttl": ttl,
    }


def read_events(
    dynamodb: Any,
    table: str,
    row: Mapping[str, Any],
    since: int,
    now: float,
    *,
    max_bytes: int = MAX_PAGE_BYTES,
) -> Row:
    """The events of a request after the number `since`, as a page that a socket message can carry.

    `row` is the request's row, read before. Returns `{first, events, count, more, gap}`: `first` is
    the number of the first event in the list, `count` how many the job has emitted, `more` whether
    further ones follow (ask again since the last one), and `gap` whether events after `since` are
    no longer kept. With a gap and an empty list, go on at `count`.
    """
    count: int = row.get("event_count", 0)
    page: Row = {"first": since + 1, "events": [], "count": count, "more": False, "gap": False}
    if since >= count:
        return page
    size, expected = 0, since + 1
    for batch in _batches(dynamodb, table, row, since):
        if batch["ttl"] <= now:
            continue
        # What was stored after the row was read is left to the next page.
        skipped = max(0, expected - batch["first"])
        events = json.loads(batch["events"])[skipped : count + 1 - batch["first"]]
        if batch["first"] > expected:
            if page["events"]:
                break
            page |= {"first": batch["first"], "gap": True}
            expected = batch["first"]
        for event in events:
            size += len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()) + 1
            if size > max_bytes and page["events"]:
                return page | {"more": True}
            page["events"].append(event)
            expected += 1
        if expected > count:
            break
    if not page["events"]:
        return page | {"first": count + 1, "gap": True}
    return page | {"more": expected <= count}


def _batches(dynamodb: Any, table: str, row: Mapping[str, Any], since: int) -> Iterator[Row]:
    """The batches that have events after `since`; the last one is that on the request's row."""
    key, count = (row["owner"], row["request_id"]), row["event_count"]
    newest = event_row(*key, count, row.get("event_tail", ""), row["ttl"])
    if since + 1 < newest["first"]:
        yield from query_items(
            dynamodb,
            TableName=table,
            KeyConditionExpression="#owner = :key AND request_id > :since",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues=to_item(
                {":key": request_key(*key), ":since": _position(since)}
            ),
            ConsistentRead=True,
            Limit=16,  # of up to 31 KB: a page needs no more of the largest than one
        )
    yield newest


def _position(number: int) -> str:
    return f"{number:0{_DIGITS}d}"
