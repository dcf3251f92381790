"""Verification of tokens: settings, verifier, identity, errors."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import jwt

from jobplane_parameters import Parameter, ParameterError, split_secrets

# The token is sent in a URL, and API Gateway limits URLs to 4,096 characters.
MAX_TOKEN_LENGTH = 4096
_LEEWAY_SECONDS = 30
_MIN_SECRET_BYTES = 32
SECRET_MAX_AGE_SECONDS = 300.0
_PARAMETER = "ssm:"
_PARAMETER_NAME = re.compile(r"(/[A-Za-z0-9_.-]+)+")
# References to a secret; they are public, and must not be used as the secret.
_REFERENCE = re.compile(r"\$\{|\{\{|[a-z][a-z-]*:")
_MAX_ID_LENGTH = 128
# The end of year 9999: later times are errors, and DynamoDB limits the size of numbers.
_MAX_EXPIRY = 253_402_300_799
_SECONDS = re.compile(r"[0-9]{1,12}")


type _Key = tuple[str, list[str]]
"""A key and its algorithms."""


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
    """The token is valid, but its tenant is not in `allowed_tenants`."""

    reason = "tenant_not_allowed"


class _UnknownSignatureError(InvalidTokenError):
    """The token is well-formed, but not signed by a known key."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and tenant of a verified token. `expires_at` is in epoch seconds."""

    user_id: str
    tenant_id: str
    permissions: tuple[str, ...]
    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Which tokens are accepted.

    Set `secret` (HS256), `public_key` (a PEM: RSA for RS256, P-256 for ES256; needs the extra
    `asymmetric`), or both. `secret` is one secret or several, newest first, separated by spaces or
    commas: all are accepted while secrets rotate. Or it is `ssm:/path/name`, the name of an SSM
    parameter with such a text. `issuer` and `audience` are checked if set; an empty
    `allowed_tenants` allows all tenants.

    Raises ValueError without a key and for a secret shorter than 32 bytes. TokenVerifier raises it
    for a public key of another kind.
    """

    secret: str | None = None
    public_key: str | None = None
    issuer: str | None = None
    audience: str | None = None
    allowed_tenants: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.secret and not self.public_key:
            raise ValueError("JWT_SECRET or JWT_PUBLIC_KEY is required")
        name = self.parameter_name
        if name is not None and not _PARAMETER_NAME.fullmatch(name):
            raise ValueError(
                "JWT_SECRET is not the name of an SSM parameter: write it as ssm:/path/name"
            )
        if self.secret and name is None:
            self.literal_secrets()

    @property
    def parameter_name(self) -> str | None:
        """The SSM parameter with the secrets; None if `secret` contains them itself."""
        if self.secret and self.secret.startswith(_PARAMETER):
            return self.secret.removeprefix(_PARAMETER)
        return None

    def literal_secrets(self) -> tuple[str, ...]:
        """The secrets in `secret`; () if it names an SSM parameter. Raises ValueError."""
        try:
            return _signing_secrets("JWT_SECRET", self.secret) if self.secret else ()
        except ValueError as error:
            raise ValueError(f"JWT_SECRET {error}") from None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "TokenSettings":
        """Settings from JWT_SECRET, JWT_PUBLIC_KEY, JWT_ISSUER, JWT_AUDIENCE and ALLOWED_TENANTS
        (comma-separated; empty allows all). Raises ValueError.
        """
        tenants = environment.get("ALLOWED_TENANTS", "").split(",")
        return cls(
            secret=environment.get("JWT_SECRET") or None,
            public_key=environment.get("JWT_PUBLIC_KEY") or None,
            issuer=environment.get("JWT_ISSUER") or None,
            audience=environment.get("JWT_AUDIENCE") or None,
            allowed_tenants=frozenset(name.strip() for name in tenants if name.strip()),
        )


class TokenVerifier:
    """Verifies tokens with fixed settings; the algorithms follow from the keys, not from the token.

    Secrets in an SSM parameter are read at once, and again every five minutes. A signature by an
    unknown secret makes the verifier read them again, at most once a minute. When a read fails, the
    last secrets stay in use.

    Args:
        settings: which tokens are accepted.
        ssm: a client for SSM, if the settings name a parameter.
        report: called with a sentence for the log when the parameter can't be used.

    Raises:
        ValueError: the public key has the wrong kind, or `ssm` is missing.
    """

    def __init__(
        self,
        settings: TokenSettings,
        ssm: Any = None,
        report: Callable[[str], object] | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = settings.literal_secrets() if settings.parameter_name is None else ()
        self._parameter: Parameter[tuple[str, ...]] | None = None
        self._public: list[_Key] = []
        if settings.public_key:
            self._public = [(settings.public_key, _asymmetric_algorithms(settings.public_key))]
        if (name := settings.parameter_name) is not None:
            if ssm is None:
                raise ValueError(f"JWT_SECRET is {settings.secret}: pass an SSM client as `ssm`")
            parse = partial(_signing_secrets, name)
            self._parameter = Parameter(
                ssm, name, parse, max_age=SECRET_MAX_AGE_SECONDS, report=report
            )
            # The failure was reported; the first token leads to another read.
            with suppress(ParameterError):
                self._parameter.value()

    def verify(self, token: str | None) -> Identity:
        """Verify a token and return its identity.

        Raises MissingTokenError, ExpiredTokenError, InvalidTokenError or TenantNotAllowedError;
        ParameterError for any token while no secret was read.
        """
        if not token:
            raise MissingTokenError("no token")
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidTokenError(f"longer than {MAX_TOKEN_LENGTH} characters")
        claims = self._claims(token)
        # PyJWT also accepts a text of digits, in any script.
        if not isinstance(claims["exp"], int | float):
            raise InvalidTokenError("exp is not a number")
        return self._allowed(_identity(claims))

    def identity_of_claims(self, claims: Mapping[str, Any]) -> Identity:
        """The identity of claims that are already verified, for example by an authorizer.

        User and tenant must meet the rules for tokens. Authorizers turn claims into text, so
        `expires_at` is 0 if `exp` is not a whole number, and permissions that are not a list are
        ignored.
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
        if self._parameter is None:
            return self._decoded(token, [*_hmac_keys(self._secrets), *self._public])
        known = self._parameter.value()
        try:
            return self._decoded(token, [*_hmac_keys(known), *self._public])
        except _UnknownSignatureError:
            newer = [secret for secret in self._parameter.renewed() if secret not in known]
            if not newer:
                raise
            return self._decoded(token, _hmac_keys(newer))

    def _decoded(self, token: str, keys: Sequence[_Key]) -> dict[str, Any]:
        failure: Exception | None = None
        for key, algorithms in keys:
            try:
                decoded = jwt.decode_complete(
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
                # The lowest PyJWT that is allowed ignores both. No extension is supported.
                if "crit" in decoded["header"]:
                    raise InvalidTokenError("crit requires an unknown extension")
                if not isinstance(decoded["header"].get("kid", ""), str):
                    raise InvalidTokenError("kid is not a string")
                claims: dict[str, Any] = decoded["payload"]
                return claims
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
        if isinstance(failure, jwt.InvalidSignatureError):
            raise _UnknownSignatureError(str(failure)) from failure
        raise InvalidTokenError(str(failure)) from failure


def strip_bearer(value: str | None) -> str | None:
    """The token of a `Bearer …` value (scheme in any case), or the value itself."""
    if value is None:
        return None
    scheme, separator, rest = value.strip().partition(" ")
    return rest.strip() if separator and scheme.lower() == "bearer" else value.strip()


def _signing_secrets(name: str, text: str | None) -> tuple[str, ...]:
    """The secrets of a text. A ValueError's text continues after the name of the source."""
    if text is None:
        raise ValueError(
            f"does not exist: aws ssm put-parameter --name {name} --type SecureString "
            '--value "$(openssl rand -hex 32)"'
        )
    secrets = split_secrets(text)
    if not secrets:
        raise ValueError(f"is empty: put a secret of at least {_MIN_SECRET_BYTES} bytes")
    for number, secret in enumerate(secrets, 1):
        if _REFERENCE.match(secret):
            raise ValueError(
                f"holds a reference instead of a secret (number {number} of {len(secrets)})"
            )
        if len(secret.encode()) < _MIN_SECRET_BYTES:
            raise ValueError(
                f"holds a secret that is too short (number {number} of {len(secrets)}): each must "
                f"be at least {_MIN_SECRET_BYTES} bytes; spaces and commas separate secrets"
            )
    return secrets


def _hmac_keys(secrets: Sequence[str]) -> list[_Key]:
    return [(secret, ["HS256"]) for secret in secrets]


def _identity(claims: Mapping[str, Any]) -> Identity:
    permissions = claims.get("permissions", [])
    if not isinstance(permissions, list) or not all(
        isinstance(name, str) and name.isprintable() for name in permissions
    ):
        raise InvalidTokenError("permissions is not a list of printable strings")
    expires_at = int(claims["exp"])
    if expires_at > _MAX_EXPIRY:
        raise InvalidTokenError("exp is after the year 9999")
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
        raise InvalidTokenError(f"{name} is too long or contains unprintable characters")
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
