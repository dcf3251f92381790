"""Posts messages through the management API of API Gateway."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from jobplane_keys import CLIENT_OPTIONS

MANAGEMENT_OPTIONS: Mapping[str, Any] = {**CLIENT_OPTIONS, "read_timeout": 3}
"""Time-outs for a client of the management API, as parameters of botocore's Config."""

_CONCURRENT_POSTS = 16
_GONE = "GoneException"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The outcome of one message: connection ids that were delivered to, are gone, or failed.

    `failed` maps an id to the reason: AWS's error code, or the class of the error.
    """

    delivered: tuple[str, ...]
    gone: tuple[str, ...]
    failed: Mapping[str, str]


def encode_message(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message: compact JSON in UTF-8."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def post(
    management: Any,
    connection_ids: Iterable[str],
    message: Mapping[str, Any],
    *,
    on_answer: Callable[[], None] = lambda: None,
) -> Delivery:
    """Post one message to connections, up to sixteen at a time.

    `management` is an `apigatewaymanagementapi` client. A connection with the answer 410 is
    `gone`; any other failure of a connection is `failed` and not raised. `on_answer` is called
    when the endpoint answers. When sixteen posts in turn get no answer, the remaining ones fail
    without a call.
    """
    targets = sorted(set(connection_ids))
    deliver = partial(_post_one, management, encode_message(message), _Silence(on_answer))
    outcomes = map(deliver, targets) if len(targets) < 2 else _pool().map(deliver, targets)
    by_id = dict(zip(targets, outcomes, strict=True))
    return Delivery(
        delivered=tuple(target for target, outcome in by_id.items() if outcome is None),
        gone=tuple(target for target, outcome in by_id.items() if outcome == _GONE),
        failed={target: reason for target, reason in by_id.items() if reason not in (None, _GONE)},
    )


class _Silence:
    """How many posts in turn got no answer."""

    def __init__(self, on_answer: Callable[[], None]) -> None:
        self.posts = 0
        self._on_answer = on_answer

    def end(self) -> None:
        self.posts = 0
        self._on_answer()


def _post_one(management: Any, data: bytes, silence: _Silence, connection_id: str) -> str | None:
    if silence.posts >= _CONCURRENT_POSTS:
        return "NoAnswer"
    try:
        management.post_to_connection(ConnectionId=connection_id, Data=data)
    except ClientError as error:
        silence.end()
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 410:
            return _GONE
        return str(error.response["Error"]["Code"])
    except BotoCoreError as error:
        silence.posts += isinstance(error, HTTPClientError)
        return type(error).__name__
    silence.end()
    return None


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_CONCURRENT_POSTS, thread_name_prefix="post")
