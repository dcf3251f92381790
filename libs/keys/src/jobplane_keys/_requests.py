"""The statuses and the in-flight index of the table `requests`."""

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

# The sweeper puts a request back into the stream that no worker has taken by then.
PICK_UP_SECONDS = 300


def in_flight_shard(request_key: str) -> str:
    """The partition of the in-flight index for a request that has not ended."""
    return f"lease-{zlib.crc32(request_key.encode()) % IN_FLIGHT_SHARDS}"
