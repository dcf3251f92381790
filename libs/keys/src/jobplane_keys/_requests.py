"""The statuses, the in-flight index and the results of the table `requests`."""

import json
import zlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from jobplane_keys._assemblies import LINK_PATHS, sign_links


class RequestStatus(StrEnum):
    """PENDING → PROCESSING → COMPLETED | FAILED | CANCELLED; PROCESSING → RETRYING → PROCESSING.

    SCHEDULED → PROCESSING | PENDING, when it is due.
    """

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL_STATUSES = frozenset(
    {RequestStatus.COMPLETED, RequestStatus.FAILED, RequestStatus.CANCELLED}
)

# Of a stage without the parameter `inFlightShards`.
IN_FLIGHT_SHARDS = 4

# Of a stage without the parameter `tenantShards`.
TENANT_SHARDS = 1

# The sweeper puts a request back into the stream that no worker has taken by then.
PICK_UP_SECONDS = 300


def in_flight_shard(request_key: str, shards: int = IN_FLIGHT_SHARDS) -> str:
    """The partition of the in-flight index for a request that has not ended."""
    return f"lease-{zlib.crc32(request_key.encode()) % shards}"


def tenant_shards(tenant_id: str, shards: int = TENANT_SHARDS) -> list[str]:
    """The partitions of the index by-tenant that have a tenant's requests.

    The first is the tenant's id, as in versions with one partition; no tenant's id has a line
    break.
    """
    return [tenant_id, *(f"{tenant_id}\n{number}" for number in range(1, shards))]


def tenant_shard(tenant_id: str, request_id: str, shards: int = TENANT_SHARDS) -> str:
    """The partition of the index by-tenant for a request."""
    return tenant_shards(tenant_id, shards)[zlib.crc32(request_id.encode()) % shards]


def shown_result(row: Mapping[str, Any], text: str, sign: Callable[[str], str]) -> Any:
    """The result of a request as its owner sees it, with links at the paths in the row's `links`.

    `text` is the stored result, and `sign` returns the URL of an object key. Rows of versions
    before 0.2 have `has_links` instead.
    """
    paths = row.get("links", LINK_PATHS if row.get("has_links") else ())
    return sign_links(json.loads(text), sign, paths)


def job_tags(metadata: Mapping[str, str]) -> list[str]:
    """The tags of a request, which `metadata.tags` has as text with commas between them."""
    return [tag for part in metadata.get("tags", "").split(",") if (tag := part.strip())]
