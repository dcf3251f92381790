"""What two Jobplane functions must agree on: names, keys, ids, lifetimes and vocabularies.

Standard library only. Nothing here makes a call, holds a client or reads the environment.
"""

from jobplane_keys._assemblies import (
    ASSEMBLY_ID_FORMS,
    PUBLIC_ASSEMBLY_FIELDS,
    InvalidMd5Error,
    assembly_id,
    is_terminal_assembly,
    normalise_md5,
    public_assembly,
    result_prefix,
    sign_links,
    upload_prefix,
)
from jobplane_keys._clock import iso_time, parse_iso_time
from jobplane_keys._errors import MAX_MESSAGE_BYTES, RETRYABLE_CODES, ErrorCode
from jobplane_keys._ids import (
    REQUEST_ID_PATTERN,
    is_request_id,
    new_request_id,
    new_result_id,
    new_upload_id,
)
from jobplane_keys._items import from_item, from_value, to_item, to_value
from jobplane_keys._requests import (
    IN_FLIGHT_SHARDS,
    PICK_UP_SECONDS,
    TERMINAL_STATUSES,
    RequestStatus,
    in_flight_shard,
)
from jobplane_keys._tables import (
    ASSEMBLY_TTL_SECONDS,
    CONNECTION_TTL_SECONDS,
    DEFAULT_TABLE_PREFIX,
    REQUEST_TTL_SECONDS,
    SUBSCRIPTION_TTL_SECONDS,
    connections_table,
    owner_key,
    request_key,
    requests_table,
    split_owner_key,
    split_request_key,
    subscriptions_table,
    ttl_after,
)

__all__ = [
    "ASSEMBLY_ID_FORMS",
    "ASSEMBLY_TTL_SECONDS",
    "CONNECTION_TTL_SECONDS",
    "DEFAULT_TABLE_PREFIX",
    "IN_FLIGHT_SHARDS",
    "PUBLIC_ASSEMBLY_FIELDS",
    "MAX_MESSAGE_BYTES",
    "PICK_UP_SECONDS",
    "REQUEST_ID_PATTERN",
    "REQUEST_TTL_SECONDS",
    "RETRYABLE_CODES",
    "SUBSCRIPTION_TTL_SECONDS",
    "TERMINAL_STATUSES",
    "ErrorCode",
    "InvalidMd5Error",
    "RequestStatus",
    "assembly_id",
    "connections_table",
    "from_item",
    "from_value",
    "in_flight_shard",
    "is_request_id",
    "is_terminal_assembly",
    "iso_time",
    "new_request_id",
    "new_result_id",
    "new_upload_id",
    "normalise_md5",
    "owner_key",
    "parse_iso_time",
    "public_assembly",
    "request_key",
    "requests_table",
    "result_prefix",
    "sign_links",
    "split_owner_key",
    "split_request_key",
    "subscriptions_table",
    "to_item",
    "to_value",
    "ttl_after",
    "upload_prefix",
]
