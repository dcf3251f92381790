"""The listeners of a request."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import request_key
from jobplane_sockets._posting import Delivery
from jobplane_sockets._rights import LiveConnections
from jobplane_sockets._subscriptions import forget_listener, listeners

FORGET_SECONDS = 2.0


class Listeners:
    """The listeners of one request: the connection that sent it, if one did, and its subscribers.

    `row` is the request's. `on_error` gets botocore's errors of DynamoDB, which are not raised,
    with what was not done; `on_answer` is called when DynamoDB or the endpoint answers.
    """

    def __init__(
        self,
        dynamodb: Any,
        prefix: str,
        row: Mapping[str, Any],
        *,
        on_error: Callable[[str, Exception], None],
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self._dynamodb = dynamodb
        self._prefix = prefix
        self._key = request_key(row["owner"], row["request_id"])
        self._origin = row.get("connection_id")
        self._on_error = on_error
        self._on_answer = on_answer
        self._gone: set[str] = set()
        self._connections = LiveConnections(dynamodb, prefix)

    @property
    def is_origin_gone(self) -> bool:
        """Whether a post found that the connection that sent the request has ended."""
        return self._origin in self._gone

    def send(self, management: Any, message: Mapping[str, Any], subscribers: int) -> Delivery:
        """Post a message to all listeners that have rights; delete those that are gone.

        The next message waits for this, so that it ends after seconds: what is left expires.
        """
        targets = {self._origin} if self._origin else set()
        if subscribers > 0:
            with self._reporting("subscribers not read"):
                targets |= set(listeners(self._dynamodb, self._prefix, self._key, time.time()))
        targets -= self._gone
        delivery = self._connections.send(
            management, targets, message, time.time(), on_answer=self._on_answer
        )
        self._gone |= {*delivery.gone}
        end = time.monotonic() + FORGET_SECONDS
        # One after the other: each changes the row of the request.
        for connection_id in delivery.gone:
            if time.monotonic() >= end:
                break
            with self._reporting("connection not dropped"):
                forget_listener(self._dynamodb, self._prefix, self._key, connection_id)
                self._on_answer()
        return delivery

    @contextmanager
    def _reporting(self, problem: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            self._on_error(problem, error)
