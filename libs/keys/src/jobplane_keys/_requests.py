"""Status vocabulary and in-flight index of the requests table."""

import zlib
from enum import StrEnum


class RequestStatus(StrEnum):
    """PENDING → PROCESSING → COMPLETED | FAILED | CANCELLED; PROCESSING → RETRYING → PROCESSING."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL_STATUSES = frozenset(
    {RequestStatus.COMPLETED, RequestStatus.FAILED, RequestStatus.CANCELLED}
)

IN_FLIGHT_SHARDS = 4

# A request that no worker has taken by then is put to the stream again by the sweeper.
PICK_UP_SECONDS = 300


def in_flight_shard(request_key: str) -> str:
    """Partition of the sparse in-flight index that a request which is not terminal sits in."""
    return f"lease-{zlib.crc32(request_key.encode()) % IN_FLIGHT_SHARDS}"
