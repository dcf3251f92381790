"""Posts to connections for as long as they have rights."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CONNECTION_TTL_SECONDS,
    connections_table,
    from_item,
    parse_iso_time,
    to_item,
)
from jobplane_sockets._posting import Delivery, post

CHECK_SECONDS = 60
# DynamoDB reads 100 items.
_IN_ONE_READ = 100
_READS = 3


def closing_time(connection: Mapping[str, Any]) -> float:
    """When API Gateway closes a connection's socket at the latest, in epoch seconds."""
    return parse_iso_time(connection["connected_at"]) + CONNECTION_TTL_SECONDS


def rights_end(connection: Mapping[str, Any]) -> float:
    """When the rights of a connection end, from its row: epoch seconds; 0.0 if the row is damaged.

    They end with its token and its row, and at the latest when API Gateway closes its socket.
    """
    try:
        ends = connection["token_expires_at"], connection["ttl"], closing_time(connection)
        return float(min(ends))
    except (KeyError, TypeError, ValueError):
        return 0.0


class LiveConnections:
    """Posts messages to connections, to each only until its rights end.

    A connection's row is read before the first post to it, again after `CHECK_SECONDS`, and once
    when its end comes, which a newer token may have put off: one without a row has no rights. In
    between, its end is compared with the clock.
    """

    def __init__(self, dynamodb: Any, prefix: str) -> None:
        self._dynamodb = dynamodb
        self._table = connections_table(prefix)
        self._ends: dict[str, float] = {}
        self._read_at: dict[str, float] = {}

    def send(
        self,
        management: Any,
        connection_ids: Iterable[str],
        message: Mapping[str, Any],
        now: float,
        *,
        on_answer: Callable[[], None] = lambda: None,
    ) -> Delivery:
        """Post one message; `now` is in epoch seconds.

        A connection without rights is `gone`. One whose row could not be read gets no message; it
        is `failed`, and is not raised. `on_answer` is called when DynamoDB or the endpoint answers.
        """
        targets = set(connection_ids)
        unread = self._read(targets, now, on_answer)
        ended = {name for name in targets - unread.keys() if self._ends[name] <= now}
        delivery = post(management, targets - ended - unread.keys(), message, on_answer=on_answer)
        gone = tuple(sorted({*delivery.gone, *ended}))
        return Delivery(delivery.delivered, gone, {**delivery.failed, **unread})

    def _read(
        self, connection_ids: Iterable[str], now: float, on_answer: Callable[[], None]
    ) -> dict[str, str]:
        """Read the rows that are due; return those that could not be read, with the reason."""
        unread = {
            name: "UnprocessedKeys"
            for name in sorted(connection_ids)
            if name not in self._ends
            or (self._ends[name] > now and now - self._read_at[name] >= CHECK_SECONDS)
            or self._read_at[name] < self._ends[name] <= now
        }
        try:
            due = [*unread]
            for start in range(0, len(due), _IN_ONE_READ):
                ends = self._ends_of(due[start : start + _IN_ONE_READ])
                on_answer()
                for name, end in ends.items():
                    self._ends[name], self._read_at[name] = end, now
                    del unread[name]
        except (BotoCoreError, ClientError) as error:
            known = error.response["Error"] if isinstance(error, ClientError) else {}
            return dict.fromkeys(unread, known.get("Code", type(error).__name__))
        return unread

    def _ends_of(self, names: Iterable[str]) -> dict[str, float]:
        """The ends by connection id, 0.0 without a row; DynamoDB may leave some out."""
        keys = [to_item({"connection_id": name}) for name in names]
        ends: dict[str, float] = {}
        for _ in range(_READS):
            wanted = {"Keys": keys, "ConsistentRead": True}
            answer = self._dynamodb.batch_get_item(RequestItems={self._table: wanted})
            left = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            ends |= {key["connection_id"]["S"]: 0.0 for key in keys if key not in left}
            for row in map(from_item, answer["Responses"].get(self._table, ())):
                ends[row["connection_id"]] = rights_end(row)
            if not (keys := left):
                break
        return ends
