"""Names, keys and lifetimes of the tables for jobs over the socket."""

from urllib.parse import quote, unquote

DEFAULT_TABLE_PREFIX = "streamer_"

# API Gateway closes a socket after two hours.
CONNECTION_TTL_SECONDS = 2 * 3600
# A subscription ends with its connection.
SUBSCRIPTION_TTL_SECONDS = CONNECTION_TTL_SECONDS
REQUEST_TTL_SECONDS = 7 * 24 * 3600
ASSEMBLY_TTL_SECONDS = 30 * 24 * 3600


def connections_table(prefix: str = DEFAULT_TABLE_PREFIX) -> str:
    """Name of the table of open sockets, key `connection_id`."""
    return f"{prefix}connections"


def requests_table(prefix: str = DEFAULT_TABLE_PREFIX) -> str:
    """Name of the table of jobs, key `owner` + `request_id`."""
    return f"{prefix}requests"


def subscriptions_table(prefix: str = DEFAULT_TABLE_PREFIX) -> str:
    """Name of the table of listeners, key `request_key` + `connection_id`."""
    return f"{prefix}subscriptions"


def owner_key(tenant_id: str, user_id: str) -> str:
    """Partition key of a user's requests: `tenant#user`.

    `#` and `%` within a part are percent-encoded, so different pairs have different keys. Usual
    ids, such as mail addresses, do not change.
    """
    return f"{_encode(tenant_id)}#{_encode(user_id)}"


def split_owner_key(owner: str) -> tuple[str, str]:
    """`(tenant_id, user_id)` of an owner key. Raises ValueError for other texts."""
    tenant, separator, user = owner.partition("#")
    if not separator or not tenant or not user or "#" in user:
        raise ValueError(f"not an owner key: {owner!r}")
    return unquote(tenant), unquote(user)


def request_key(owner: str, request_id: str) -> str:
    """Partition key of a request's subscriptions: `tenant#user#request_id`."""
    return f"{owner}#{request_id}"


def split_request_key(key: str) -> tuple[str, str]:
    """`(owner, request_id)` of a request key. Raises ValueError for other texts."""
    owner, separator, request_id = key.rpartition("#")
    if not separator or not request_id:
        raise ValueError(f"not a request key: {key!r}")
    split_owner_key(owner)
    return owner, request_id


def ttl_after(now: float, seconds: int) -> int:
    """The `ttl` of a row: the epoch seconds `seconds` after `now`."""
    return int(now) + seconds


def _encode(part: str) -> str:
    # Encodes only `#`, `%` and what is not printable.
    return part.replace("%", quote("%")).replace("#", quote("#"))
