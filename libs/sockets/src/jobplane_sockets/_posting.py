"""Messages out, through the API Gateway management API."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_CONCURRENT_POSTS = 16


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one message: connection ids by outcome."""

    delivered: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def encode_message(message: Mapping[str, Any]) -> bytes:
    """The message as it travels: compact JSON in UTF-8."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def post(management: Any, connection_ids: Iterable[str], message: Mapping[str, Any]) -> Delivery:
    """Post one message to connections, several at a time; never raises for a single one of them.

    `management` is an `apigatewaymanagementapi` client. A connection that answers 410 is `gone`.
    """
    targets = sorted(set(connection_ids))
    deliver = partial(_post_one, management, encode_message(message))
    outcomes = map(deliver, targets) if len(targets) < 2 else _pool().map(deliver, targets)
    by_outcome: dict[str, list[str]] = {"delivered": [], "gone": [], "failed": []}
    for connection_id, outcome in zip(targets, outcomes, strict=True):
        by_outcome[outcome].append(connection_id)
    return Delivery(**{outcome: tuple(ids) for outcome, ids in by_outcome.items()})


def _post_one(management: Any, data: bytes, connection_id: str) -> str:
    try:
        management.post_to_connection(ConnectionId=connection_id, Data=data)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return "gone" if status == 410 else "failed"
    except BotoCoreError:
        return "failed"
    return "delivered"


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_CONCURRENT_POSTS, thread_name_prefix="post")
