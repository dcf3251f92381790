"""JWK Sets: from a text, or from an issuer's URL."""

import ipaddress
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jwt import PyJWK, PyJWTError
from jwt.exceptions import MissingCryptographyError

from jobplane_parameters import ParameterError

KEY_SET_MAX_AGE_SECONDS = 300.0
# So long the last keys stay in use while the issuer does not answer.
KEY_SET_KEPT_SECONDS = 86_400.0
_MAX_BYTES = 65_536
_MAX_KEYS = 32
_SECONDS = 3.0
_MIN_RSA_BITS = 2048
_ALGORITHMS = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256"}
MISSING_EXTRA = (
    "needs cryptography: add jobplane-tokens[asymmetric] to the dependencies of the function"
)


@dataclass(frozen=True)
class PublicKey:
    """A key of a set, as PyJWT takes it."""

    kid: str | None
    algorithm: str
    key: Any


def keys_of(text: str | bytes) -> tuple[PublicKey, ...]:
    """The keys of a JWK Set that verify RS256 or ES256; keys for other purposes are left out.

    Raises ValueError for a set that is too large, damaged, names a key twice or has no such key,
    and without the extra `asymmetric`.
    """
    if len(text) > _MAX_BYTES:
        raise ValueError(f"has more than {_MAX_BYTES} bytes")
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError('is not a JWK Set: {"keys": […]}') from None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise ValueError(f"must have a list of at most {_MAX_KEYS} keys")
    keys = tuple(key for entry in entries if (key := _key_of(entry)) is not None)
    if not keys:
        raise ValueError("has no key for RS256 or ES256")
    if len({key.kid for key in keys}) < len(keys):
        raise ValueError("has two keys of the same kid")
    return keys


def _key_of(entry: Any) -> PublicKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    algorithm = _ALGORITHMS.get((str(entry.get("kty")), str(entry.get("crv", ""))))
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    kid = entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("has a kid that is not a string")
    # Without the private parts that a set should not have.
    public = {name: entry[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in entry}
    try:
        key = PyJWK.from_dict(public, algorithm).key
    except MissingCryptographyError:
        raise ValueError(MISSING_EXTRA) from None
    except (PyJWTError, TypeError, ValueError) as error:
        raise ValueError(f"has an unusable key {kid!r}: {error}") from None
    if algorithm == "RS256" and key.key_size < _MIN_RSA_BITS:
        raise ValueError(f"has a key {kid!r} of {key.key_size} bits; {_MIN_RSA_BITS} are required")
    return PublicKey(kid, algorithm, key)


def key_for(keys: Sequence[PublicKey], header: Mapping[str, Any]) -> PublicKey | None:
    """The key that a token's header names. Without `kid`, that is the only key of the set."""
    if "kid" not in header:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.kid == header["kid"]), None)


def checked_url(url: str) -> SplitResult:
    """The parts of a JWK Set's URL: https, or http on a loopback address. Raises ValueError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    loopback = host == "localhost"
    try:
        loopback = loopback or ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("JWKS_URL must be an https URL")
    if not host or parts.username is not None or parts.fragment:
        raise ValueError("JWKS_URL must have a host, no user and no fragment")
    return parts


def read_key_set(url: str) -> tuple[PublicKey, ...]:
    """The keys at a URL, in three seconds after the connection at most; redirects are not followed.

    Raises ParameterError.
    """
    try:
        return keys_of(_body(checked_url(url)))
    except Exception as error:  # whatever a network may raise: no read may end a worker
        detail = str(error) or type(error).__name__
        raise ParameterError(f"JWK Set {url} can't be used: {detail}") from error


def _body(parts: SplitResult) -> bytes:
    from http.client import HTTPConnection, HTTPSConnection
    from socket import SHUT_RDWR

    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    late = threading.Event()

    def stop(socket: Any) -> None:
        late.set()
        with suppress(OSError):
            socket.shutdown(SHUT_RDWR)

    connection.connect()
    # The connection forgets its socket when the answer begins; the time is for the whole answer.
    timer = threading.Timer(_SECONDS, stop, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"the issuer answered {response.status}")
        body = response.read(_MAX_BYTES + 1)
    except Exception:
        if late.is_set():
            raise ValueError(f"no answer within {_SECONDS:.0f} seconds") from None
        raise
    finally:
        timer.cancel()
        connection.close()
    # A socket that was shut down looks like the end of a body without a length.
    if late.is_set():
        raise ValueError(f"no answer within {_SECONDS:.0f} seconds")
    return body
