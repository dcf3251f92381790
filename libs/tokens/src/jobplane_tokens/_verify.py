"""One token in, one identity out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

# API Gateway takes URLs of 4,096 characters, and the token travels in one.
MAX_TOKEN_LENGTH = 4096
_LEEWAY_SECONDS = 30
_MIN_SECRET_BYTES = 32
_MAX_ID_LENGTH = 128
# The end of year 9999: later times are nobody's intent, and DynamoDB holds no number of any size.
_MAX_EXPIRY = 253_402_300_799
_SECONDS = re.compile(r"[0-9]{1,12}")


class TokenError(Exception):
    """The token is refused; `reason` is for the log and the metric, never for the client."""

    reason = "invalid_jwt"


class MissingTokenError(TokenError):
    """No token was sent."""

    reason = "missing_token"


class ExpiredTokenError(TokenError):
    """The token's `exp` has passed."""

    reason = "expired"


class InvalidTokenError(TokenError):
    """The signature, the algorithm or a claim is wrong."""


class TenantNotAllowedError(TokenError):
    """The token is good, its tenant is not served here."""

    reason = "tenant_not_allowed"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a verified token speaks for. `expires_at` is in epoch seconds."""

    user_id: str
    tenant_id: str
    permissions: tuple[str, ...]
    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """What tokens are accepted.

    Either `secret` (HS256; `previous_secret` is accepted as well while keys rotate) or
    `public_key` (a PEM: RSA for RS256, P-256 for ES256; needs the `asymmetric` extra) or both.
    A secret shorter than 32 bytes is a ValueError, as is another kind of key to TokenVerifier.
    """

    secret: str | None = None
    previous_secret: str | None = None
    public_key: str | None = None
    issuer: str | None = None
    audience: str | None = None
    allowed_tenants: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.secret and not self.public_key:
            raise ValueError("JWT_SECRET or JWT_PUBLIC_KEY is required")
        for name, secret in (("JWT_SECRET", self.secret), ("previous", self.previous_secret)):
            if secret and len(secret.encode()) < _MIN_SECRET_BYTES:
                label = "JWT_SECRET_PREVIOUS" if name == "previous" else name
                raise ValueError(f"{label} must be at least {_MIN_SECRET_BYTES} bytes")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "TokenSettings":
        """Settings from JWT_SECRET, JWT_SECRET_PREVIOUS, JWT_PUBLIC_KEY, JWT_ISSUER, JWT_AUDIENCE
        and ALLOWED_TENANTS (comma-separated; empty allows all).
        """
        tenants = environment.get("ALLOWED_TENANTS", "").split(",")
        return cls(
            secret=environment.get("JWT_SECRET") or None,
            previous_secret=environment.get("JWT_SECRET_PREVIOUS") or None,
            public_key=environment.get("JWT_PUBLIC_KEY") or None,
            issuer=environment.get("JWT_ISSUER") or None,
            audience=environment.get("JWT_AUDIENCE") or None,
            allowed_tenants=frozenset(name.strip() for name in tenants if name.strip()),
        )


class TokenVerifier:
    """Verifies tokens against fixed settings; algorithms are never taken from the token."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._keys: list[tuple[str, list[str]]] = [
            (secret, ["HS256"]) for secret in (settings.secret, settings.previous_secret) if secret
        ]
        if settings.public_key:
            self._keys.append((settings.public_key, _asymmetric_algorithms(settings.public_key)))

    def verify(self, token: str | None) -> Identity:
        """The identity a token proves.

        Raises MissingTokenError, ExpiredTokenError, InvalidTokenError or TenantNotAllowedError.
        """
        if not token:
            raise MissingTokenError("no token")
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidTokenError(f"longer than {MAX_TOKEN_LENGTH} characters")
        claims = self._claims(token)
        # PyJWT takes a text of digits, of any script, for a time.
        if not isinstance(claims["exp"], int | float):
            raise InvalidTokenError("exp is not a number")
        return self._allowed(_identity(claims))

    def identity_of_claims(self, claims: Mapping[str, Any]) -> Identity:
        """The identity in claims that somebody else has verified, as API Gateway's authorizers do.

        User and tenant follow the rules for tokens. Authorizers turn claims into text: `expires_at`
        is 0 where `exp` is not whole seconds, and permissions that are no list are none.
        Raises InvalidTokenError or TenantNotAllowedError.
        """
        expires_at, permissions = claims.get("exp"), claims.get("permissions")
        known = {
            "exp": expires_at if _SECONDS.fullmatch(str(expires_at)) else 0,
            "permissions": permissions if isinstance(permissions, list) else [],
        }
        return self._allowed(_identity({**claims, **known}))

    def _allowed(self, identity: Identity) -> Identity:
        allowed = self._settings.allowed_tenants
        if allowed and identity.tenant_id not in allowed:
            raise TenantNotAllowedError(identity.tenant_id)
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        failure: Exception | None = None
        for key, algorithms in self._keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=algorithms,
                    leeway=_LEEWAY_SECONDS,
                    issuer=self._settings.issuer,
                    audience=self._settings.audience,
                    options={
                        "require": ["exp"],
                        "verify_aud": self._settings.audience is not None,
                    },
                )
            except jwt.ExpiredSignatureError as error:
                raise ExpiredTokenError(str(error)) from error
            except jwt.InvalidSignatureError as error:
                failure = error
            except jwt.InvalidAlgorithmError as error:
                failure = failure or error
            except (
                jwt.InvalidTokenError,
                ArithmeticError,
                RecursionError,
                TypeError,
                ValueError,
            ) as error:
                raise InvalidTokenError(str(error)) from error
        raise InvalidTokenError(str(failure)) from failure


def strip_bearer(value: str | None) -> str | None:
    """The token of a `Bearer …` value (scheme in any case), or the value itself."""
    if value is None:
        return None
    scheme, separator, rest = value.strip().partition(" ")
    return rest.strip() if separator and scheme.lower() == "bearer" else value.strip()


def _identity(claims: Mapping[str, Any]) -> Identity:
    permissions = claims.get("permissions", [])
    if not isinstance(permissions, list) or not all(
        isinstance(name, str) and name.isprintable() for name in permissions
    ):
        raise InvalidTokenError("permissions is not a list of printable strings")
    expires_at = int(claims["exp"])
    if expires_at > _MAX_EXPIRY:
        raise InvalidTokenError("exp lies after the year 9999")
    return Identity(
        user_id=_id_claim(claims, "user_id" if "user_id" in claims else "sub"),
        tenant_id=_id_claim(claims, "tenant_id"),
        permissions=tuple(permissions),
        expires_at=expires_at,
    )


def _id_claim(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidTokenError(f"{name} is not a non-empty string")
    if len(value) > _MAX_ID_LENGTH or not value.isprintable():
        raise InvalidTokenError(f"{name} is too long or holds unprintable characters")
    return value


def _asymmetric_algorithms(public_key: str) -> list[str]:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    match load_pem_public_key(public_key.encode()):
        case RSAPublicKey():
            return ["RS256"]
        case EllipticCurvePublicKey(curve=SECP256R1()):
            return ["ES256"]
    raise ValueError("JWT_PUBLIC_KEY must be an RSA or a P-256 key")
