"""Whether a connection is still there."""

from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import connections_table, read_item
from jobplane_sockets._rights import rights_end


def is_connected(
    dynamodb: Any, management: Any, prefix: str, connection_id: str, now: float
) -> bool:
    """Whether a connection has rights, and API Gateway knows its socket.

    Two calls; raises botocore's errors. `$disconnect` may come late, or never.
    """
    row = read_item(dynamodb, connections_table(prefix), {"connection_id": connection_id})
    if not row or rights_end(row) <= now:
        return False
    try:
        management.get_connection(ConnectionId=connection_id)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 410:
            return False
        raise
    return True
