"""WebSocket connections as two functions share them: posting to them, and who listens to what.

Clients are botocore's and belong to the caller, who also sets their retries: with
`AWS_RETRY_MODE=standard` and `AWS_MAX_ATTEMPTS=3`, throttled and 5xx posts are tried three times
with exponential backoff and jitter.
"""

from jobplane_sockets._posting import Delivery, encode_message, post
from jobplane_sockets._subscriptions import (
    drop_connection,
    drop_subscriptions,
    listeners,
    transact,
    unsubscribe,
)

__all__ = [
    "Delivery",
    "drop_connection",
    "drop_subscriptions",
    "encode_message",
    "listeners",
    "post",
    "transact",
    "unsubscribe",
]
