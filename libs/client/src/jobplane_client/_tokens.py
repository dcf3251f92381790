"""Tokens for tests."""

import time
from collections.abc import Iterable

_LEAST_BYTES = 32


def mint_token(
    secret: str, *, user: str, tenant: str, permissions: Iterable[str] = (), ttl: int = 3600
) -> str:
    """A token (JWT, HS256) for a user of a tenant, as tests need it; needs the extra `tokens`.

    `secret` is the stage's, as its SSM parameter has it: of several, the first one signs. `ttl` is
    in seconds; a negative one makes an expired token. Raises ValueError for a secret of fewer than
    32 bytes, which no stage accepts, and for the name of a parameter.
    """
    import jwt

    newest = next(iter(secret.replace(",", " ").split()), "")
    if newest.startswith("ssm:") or len(newest.encode()) < _LEAST_BYTES:
        raise ValueError(f"secret: expected the secret itself, of at least {_LEAST_BYTES} bytes")
    now = int(time.time())
    claims = {
        "user_id": user,
        "tenant_id": tenant,
        "permissions": list(permissions),
        "iat": now,
        "exp": now + ttl,
    }
    return jwt.encode(claims, newest, algorithm="HS256")
