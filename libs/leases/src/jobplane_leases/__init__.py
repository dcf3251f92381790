"""Conditional writes to DynamoDB that recognise their own result, and Jobplane's writes with them.

The caller passes the client and the time.
"""

from jobplane_leases._assemblies import (
    begin_document,
    follow_assembly,
    queue_webhook,
    write_assembly,
)
from jobplane_leases._claims import release_claim
from jobplane_leases._errors import DocumentChangedError, LeaseLostError
from jobplane_leases._events import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    EventError,
    event_text,
    read_events,
)
from jobplane_leases._lanes import Lane, LaneState, remove_lane_row
from jobplane_leases._payloads import (
    PAYLOAD_IN_ITEM_BYTES,
    PAYLOAD_IN_ROW_BYTES,
    PAYLOAD_TTL_SECONDS,
    is_payload_of,
    read_payload,
    store_payload,
)
from jobplane_leases._requests import (
    NOT_ENDED,
    ROW_RESERVE_BYTES,
    Lease,
    RequestLease,
    enqueue_request,
    store_events,
)
from jobplane_leases._writes import Written, create, is_transient, transact, update, update_item

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_EVENTS",
    "NOT_ENDED",
    "PAYLOAD_IN_ITEM_BYTES",
    "PAYLOAD_IN_ROW_BYTES",
    "PAYLOAD_TTL_SECONDS",
    "ROW_RESERVE_BYTES",
    "DocumentChangedError",
    "EventError",
    "Lane",
    "LaneState",
    "Lease",
    "LeaseLostError",
    "RequestLease",
    "Written",
    "begin_document",
    "create",
    "enqueue_request",
    "event_text",
    "follow_assembly",
    "is_payload_of",
    "is_transient",
    "queue_webhook",
    "read_events",
    "read_payload",
    "release_claim",
    "remove_lane_row",
    "store_events",
    "store_payload",
    "transact",
    "update",
    "update_item",
    "write_assembly",
]
