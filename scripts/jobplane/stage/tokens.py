"""Make tokens that the functions accept."""

import time
from collections.abc import Iterable


def mint(
    secret: str, *, user: str, tenant: str, permissions: Iterable[str] = (), ttl: int = 3600
) -> str:
    """An HS256 token for a user of a tenant; `ttl` in seconds, negative for an expired one."""
    import jwt

    now = int(time.time())
    claims = {
        "user_id": user,
        "tenant_id": tenant,
        "permissions": list(permissions),
        "iat": now,
        "exp": now + ttl,
    }
    return jwt.encode(claims, secret, algorithm="HS256")
