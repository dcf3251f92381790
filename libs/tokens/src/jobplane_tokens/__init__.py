"""Verification of the JWTs that Jobplane accepts.

TokenError
├── MissingTokenError          missing_token
├── ExpiredTokenError          expired
├── InvalidTokenError          invalid_jwt
└── TenantNotAllowedError      tenant_not_allowed
"""

from jobplane_tokens._verify import (
    MAX_TOKEN_LENGTH,
    ExpiredTokenError,
    Identity,
    InvalidTokenError,
    MissingTokenError,
    TenantNotAllowedError,
    TokenError,
    TokenSettings,
    TokenVerifier,
    strip_bearer,
)

__all__ = [
    "MAX_TOKEN_LENGTH",
    "ExpiredTokenError",
    "Identity",
    "InvalidTokenError",
    "MissingTokenError",
    "TenantNotAllowedError",
    "TokenError",
    "TokenSettings",
    "TokenVerifier",
    "strip_bearer",
]
