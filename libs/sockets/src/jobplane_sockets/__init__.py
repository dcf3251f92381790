"""WebSocket connections of API Gateway: posts messages, and keeps subscriptions to jobs.

The caller creates the botocore clients and sets their retries: with `AWS_RETRY_MODE=standard` and
`AWS_MAX_ATTEMPTS=3`, throttled and 5xx posts are attempted three times, with exponential backoff
and jitter.
"""

from jobplane_leases import transact
from jobplane_sockets._connections import is_connected
from jobplane_sockets._listeners import Listeners
from jobplane_sockets._outbox import Outbox
from jobplane_sockets._posting import MANAGEMENT_OPTIONS, Delivery, encode_message, post
from jobplane_sockets._rights import LiveConnections, closing_time, rights_end
from jobplane_sockets._subscriptions import (
    drop_connection,
    drop_subscriptions,
    forget_listener,
    listeners,
    start_subscription,
    unsubscribe,
)

__all__ = [
    "MANAGEMENT_OPTIONS",
    "Delivery",
    "Listeners",
    "LiveConnections",
    "Outbox",
    "closing_time",
    "drop_connection",
    "drop_subscriptions",
    "encode_message",
    "forget_listener",
    "is_connected",
    "listeners",
    "post",
    "rights_end",
    "start_subscription",
    "transact",
    "unsubscribe",
]
