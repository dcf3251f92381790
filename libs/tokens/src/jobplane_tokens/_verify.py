"""Verification of tokens: settings, verifier, identity, errors."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import jwt
from jwt.algorithms import has_crypto

from jobplane_parameters import Cached, Parameter, ParameterError, split_secrets
from jobplane_tokens._key_sets import (
    KEY_SET_KEPT_SECONDS,
    KEY_SET_MAX_AGE_SECONDS,
    MISSING_EXTRA,
    PublicKey,
    checked_url,
    key_for,
    keys_of,
    read_key_set,
)

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


type _Key = tuple[Any, list[str]]
"""A key and its algorithms."""

_ASYMMETRIC = frozenset({"RS256", "ES256"})


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

    Set at least one of these: `secret` (HS256); `key_set` (the text of a JWK Set) or `key_set_url`
    (https), for RS256 and ES256; `public_key` (a PEM: RSA for RS256, P-256 for ES256). Public keys
    need the extra `asymmetric`. `secret` is one secret or several, newest first, separated by
    spaces or commas: all are accepted while secrets rotate. Or it is `ssm:/path/name`, the name of
    an SSM parameter with such a text. `issuer` and `audience` are checked if set; an empty
    `allowed_tenants` allows all tenants.

    `user_claim`, `tenant_claim` and `permissions_claim` name the claims of other issuers; a claim
    in an object is named by its path: `o.id`. Permissions are a list or a text with spaces.

    Raises ValueError without a key, for a secret shorter than 32 bytes, and for an unusable set.
    TokenVerifier raises it for a public key of another kind.
    """

    secret: str | None = None
    public_key: str | None = None
    issuer: str | None = None
    audience: str | None = None
    allowed_tenants: frozenset[str] = frozenset()
    key_set: str | None = None
    key_set_url: str | None = None
    user_claim: str | None = None
    tenant_claim: str | None = None
    permissions_claim: str | None = None

    def __post_init__(self) -> None:
        if not (self.secret or self.public_key or self.key_set or self.key_set_url):
            raise ValueError("JWT_SECRET or JWT_PUBLIC_KEY is required (or JWKS_URL, JWT_KEY_SET)")
        if self.key_set and self.key_set_url:
            raise ValueError("JWT_KEY_SET and JWKS_URL exclude each other")
        if self.key_set_url:
            checked_url(self.key_set_url)
            if not has_crypto:
                raise ValueError(f"JWKS_URL {MISSING_EXTRA}")
        self.literal_keys()
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

    def literal_keys(self) -> tuple[PublicKey, ...]:
        """The keys in `key_set`. Raises ValueError."""
        try:
            return keys_of(self.key_set) if self.key_set else ()
        except ValueError as error:
            raise ValueError(f"JWT_KEY_SET {error}") from None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "TokenSettings":
        """Settings from JWT_SECRET, JWT_PUBLIC_KEY, JWT_KEY_SET, JWKS_URL, JWT_ISSUER,
        JWT_AUDIENCE, JWT_USER_CLAIM, JWT_TENANT_CLAIM, JWT_PERMISSIONS_CLAIM and ALLOWED_TENANTS
        (comma-separated; empty allows all). Raises ValueError.
        """
        tenants = environment.get("ALLOWED_TENANTS", "").split(",")
        return cls(
            secret=environment.get("JWT_SECRET") or None,
            public_key=environment.get("JWT_PUBLIC_KEY") or None,
            issuer=environment.get("JWT_ISSUER") or None,
            audience=environment.get("JWT_AUDIENCE") or None,
            allowed_tenants=frozenset(name.strip() for name in tenants if name.strip()),
            key_set=environment.get("JWT_KEY_SET") or None,
            key_set_url=environment.get("JWKS_URL") or None,
            user_claim=environment.get("JWT_USER_CLAIM") or None,
            tenant_claim=environment.get("JWT_TENANT_CLAIM") or None,
            permissions_claim=environment.get("JWT_PERMISSIONS_CLAIM") or None,
        )


class TokenVerifier:
    """Verifies tokens with fixed settings; the algorithms follow from the keys, not from the token.

    Secrets in an SSM parameter are read at once, and again every five minutes. A signature by an
    unknown secret makes the verifier read them again, at most once a minute. When a read fails, the
    last secrets stay in use.

    A JWK Set is read for the first token, and again after five minutes. A token that names an
    unknown key makes the verifier read it again, at most once a minute. While the issuer does not
    answer, its last keys stay in use for a day.

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
        self._keys = settings.literal_keys()
        self._key_set: Cached[tuple[PublicKey, ...]] | None = None
        if settings.key_set_url:
            self._key_set = Cached(
                partial(read_key_set, settings.key_set_url),
                max_age=KEY_SET_MAX_AGE_SECONDS,
                max_kept=KEY_SET_KEPT_SECONDS,
                report=report,
                chance=lambda: 0.0,
            )
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
        return self._allowed(_identity(self._named(claims)))

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
        return self._allowed(_identity(self._named({**claims, **known})))

    def _named(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """The claims under their names here."""
        settings, named = self._settings, dict(claims)
        if settings.user_claim:
            named["user_id"] = _claim_at(claims, settings.user_claim)
        if settings.tenant_claim:
            named["tenant_id"] = _claim_at(claims, settings.tenant_claim)
        if settings.permissions_claim:
            found = _claim_at(claims, settings.permissions_claim)
            named["permissions"] = found.split() if isinstance(found, str) else found or []
        return named

    def _allowed(self, identity: Identity) -> Identity:
        allowed = self._settings.allowed_tenants
        if allowed and identity.tenant_id not in allowed:
            raise TenantNotAllowedError(identity.tenant_id)
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        if (key := self._public_key(token)) is not None:
            return self._decoded(token, [(key.key, [key.algorithm])])
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

    def _public_key(self, token: str) -> PublicKey | None:
        """The key of a token that is signed with a key of the set; None for any other token."""
        if not self._keys and self._key_set is None:
            return None
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, RecursionError, TypeError, ValueError) as error:
            raise InvalidTokenError(str(error)) from error
        if header.get("alg") not in _ASYMMETRIC:
            return None
        keys = self._keys if self._key_set is None else self._key_set.value()
        key = key_for(keys, header)
        if key is None and self._key_set is not None:
            key = key_for(self._key_set.renewed(), header)
        if key is None and not self._public:
            raise InvalidTokenError("kid names no known key")
        return key

    def _decoded(self, token: str, keys: Sequence[_Key]) -> dict[str, Any]:
        failure: Exception | None = None
        for key, algorithms in keys:
            try:
                parts = jwt.decode_complete(
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
                if "crit" in parts["header"]:
                    raise InvalidTokenError("crit requires an unknown extension")
                if not isinstance(parts["header"].get("kid", ""), str):
                    raise InvalidTokenError("kid is not a string")
                claims: dict[str, Any] = parts["payload"]
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
        raise InvalidTokenError(str(failure or "no key for this algorithm")) from failure


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


def _claim_at(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of a name, or else at a path of names; None without one."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


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
