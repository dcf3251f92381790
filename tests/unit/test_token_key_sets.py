"""jobplane_tokens: JWK Sets, from a text or from an issuer, and signatures by public keys."""

import hmac
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pytest import MonkeyPatch

from jobplane_parameters import ParameterError
from jobplane_tokens import (
    ExpiredTokenError,
    Identity,
    InvalidTokenError,
    TokenSettings,
    TokenVerifier,
    _key_sets,
)

SECRET = "s" * 32
RSA_KEY, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
SMALL_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str | None = None, **changed: Any) -> dict[str, Any]:
    """The public half of a key, as in a JWK Set."""
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    shown = {**kind.to_jwk(key.public_key(), as_dict=True), "use": "sig", **changed}
    shown.pop("key_ops", None)
    return shown if kid is None else {**shown, "kid": kid}


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def token(key: Any, algorithm: str, kid: str | None = None, **claims: Any) -> str:
    known = {"sub": "u1", "tenant_id": "t1", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(known, key, algorithm, headers={"kid": kid} if kid else None)


def by_hmac(key: bytes, kid: str | None) -> str:
    """A token that PyJWT refuses to make: its secret is a public key."""
    head, payload, _ = token(SECRET, "HS256", kid).split(".")
    digest = hmac.digest(key, f"{head}.{payload}".encode(), "sha256")
    return f"{head}.{payload}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


BOTH = key_set(jwk(RSA_KEY, "rsa"), jwk(EC_KEY, "ec"))
VERIFIER = TokenVerifier(TokenSettings(key_set=BOTH, secret=SECRET))


class Issuer:
    """An issuer on a loopback address; `answers` says what it does next."""

    def __init__(self) -> None:
        self.asked = 0
        self.status, self.body, self.pause = 200, BOTH.encode(), 0.0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(issuer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                try:
                    for byte in issuer.body:
                        self.wfile.write(bytes([byte]))
                        if issuer.pause:
                            time.sleep(issuer.pause)
                except OSError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    started = Issuer()
    yield started
    started.server.shutdown()
    started.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def verifier_of(issuer: Issuer, clock: Clock, reports: list[str]) -> TokenVerifier:
    verifier = TokenVerifier(TokenSettings(key_set_url=issuer.url), report=reports.append)
    assert verifier._key_set is not None
    verifier._key_set._clock = clock
    return verifier


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "rsa"), (EC_KEY, "ES256", "ec")]
)
def test_a_token_by_a_key_of_the_set_is_accepted(key: Any, algorithm: str, kid: str) -> None:
    """And its claims are checked."""
    good = token(key, algorithm, kid)
    assert VERIFIER.verify(good).tenant_id == "t1"
    for damaged in (
        token(key, algorithm, kid, exp=int(time.time()) - 60),
        token(key, algorithm, kid, nbf=int(time.time()) + 600),
        token(key, algorithm, kid, exp=None),
        token(key, algorithm),
        token(key, algorithm, "unknown"),
        token(OTHER_RSA, "RS256", "rsa"),
        token(key, algorithm, "ec" if kid == "rsa" else "rsa"),
        good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        good + "=",
        good.replace(".", "..", 1),
    ):
        with pytest.raises((InvalidTokenError, ExpiredTokenError)):
            VERIFIER.verify(damaged)


@pytest.mark.parametrize("settings", [{"issuer": "https://us"}, {"audience": "jobs"}])
def test_issuer_and_audience_are_checked(settings: dict[str, str]) -> None:
    """As for tokens by a secret."""
    verifier = TokenVerifier(TokenSettings(key_set=BOTH, **settings))
    right = {"iss": "https://us", "aud": ["jobs", "other"]}
    assert verifier.verify(token(RSA_KEY, "RS256", "rsa", **right)).user_id == "u1"
    for wrong in ({}, {"iss": "https://them", "aud": "them"}):
        with pytest.raises(InvalidTokenError):
            verifier.verify(token(RSA_KEY, "RS256", "rsa", **wrong))


def test_a_public_key_is_never_used_as_a_secret() -> None:
    """Whatever text of the key an attacker takes, with and without a secret of the stage."""
    shown = jwk(RSA_KEY, "rsa")
    for verifier in (VERIFIER, TokenVerifier(TokenSettings(key_set=BOTH))):
        for secret in (shown["n"], json.dumps(shown), BOTH):
            for kid in ("rsa", None):
                with pytest.raises(InvalidTokenError):
                    verifier.verify(by_hmac(secret.encode(), kid))
        with pytest.raises(InvalidTokenError):
            verifier.verify(token(None, "none", "rsa"))
    assert VERIFIER.verify(token(SECRET, "HS256", "rsa")).user_id == "u1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "is not a JWK Set"),
        ("{", "is not a JWK Set"),
        ('{"keys": 1}', "list"),
        (key_set(), "no key for RS256"),
        (key_set(jwk(RSA_KEY, use="enc")), "no key for RS256"),
        (key_set(jwk(RSA_KEY, alg="RS512")), "no key for RS256"),
        (key_set({"kty": "oct", "k": "AAAA"}), "no key for RS256"),
        (key_set(jwk(RSA_KEY, "a"), jwk(EC_KEY, "a")), "two keys"),
        (key_set(jwk(RSA_KEY, n="AQAB")), "unusable key"),
        (key_set(jwk(RSA_KEY, e="AQ")), "unusable key"),
        (key_set(jwk(EC_KEY, x="AQAB")), "unusable key"),
        (key_set(jwk(SMALL_RSA)), "key None of 1024 bits"),
        (key_set({**jwk(EC_KEY), "kid": 1}), "kid"),
        (key_set(*[{}] * 33), "at most 32"),
        (" " * 65_537, "more than 65536"),
    ],
)
def test_unusable_sets_are_refused(text: str, problem: str) -> None:
    """At the start, with the fault."""
    with pytest.raises(ValueError, match=problem):
        TokenSettings(key_set=text)


@pytest.mark.parametrize(
    "url",
    ["http://example.com/jwks", "ftp://example.com", "https://", "https://me@example.com/", "x"],
)
def test_urls_are_https(url: str) -> None:
    """Or http on a loopback address."""
    with pytest.raises(ValueError, match="JWKS_URL"):
        TokenSettings(key_set_url=url)


def test_keys_of_an_issuer_are_read_once_and_again_when_they_rotate(issuer: Issuer) -> None:
    """An unknown kid leads to one read a minute, whatever is sent."""
    clock, reports = Clock(), list[str]()
    verifier = verifier_of(issuer, clock, reports)
    assert issuer.asked == 0
    for _ in range(3):
        verifier.verify(token(EC_KEY, "ES256", "ec"))
    assert issuer.asked == 1

    issuer.body = key_set(jwk(OTHER_RSA, "new")).encode()
    for _ in range(5):
        with pytest.raises(InvalidTokenError):
            verifier.verify(token(OTHER_RSA, "RS256", "new"))
    assert issuer.asked == 1
    clock.now += 61
    verifier.verify(token(OTHER_RSA, "RS256", "new"))
    for number in range(5):
        with pytest.raises(InvalidTokenError):
            verifier.verify(token(EC_KEY, "ES256", f"unknown-{number}"))
    assert issuer.asked == 2
    clock.now += 301
    verifier.verify(token(OTHER_RSA, "RS256", "new"))
    assert (issuer.asked, reports) == (3, [])


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"status": 503}, "answered 503"),
        ({"status": 302}, "answered 302"),
        ({"body": b" " * 65_537}, "more than 65536"),
        ({"body": b"no set"}, "is not a JWK Set"),
        ({"pause": 0.05}, "no answer within"),
    ],
)
def test_the_last_keys_stay_in_use_for_a_day(
    issuer: Issuer, monkeypatch: MonkeyPatch, fault: dict[str, Any], problem: str
) -> None:
    """While the issuer fails, is slow or answers too much; without any key nothing is decided."""
    monkeypatch.setattr(_key_sets, "_SECONDS", 0.2 if "pause" in fault else 3.0)
    clock, reports = Clock(), list[str]()
    verifier = verifier_of(issuer, clock, reports)
    good = token(RSA_KEY, "RS256", "rsa", exp=int(clock.now) + 200_000)
    verifier.verify(good)
    vars(issuer).update(fault)
    clock.now += 301
    verifier.verify(good)
    assert issuer.asked == 2
    for number in range(3):
        with pytest.raises(InvalidTokenError):
            verifier.verify(token(RSA_KEY, "RS256", f"unknown-{number}"))
    assert issuer.asked == 2
    assert problem in reports[0]
    assert reports[0].endswith("the last value is kept")
    clock.now += 86_401
    with pytest.raises(ParameterError, match=problem):
        verifier.verify(good)
    fresh = verifier_of(issuer, clock, reports)
    with pytest.raises(ParameterError, match=problem):
        fresh.verify(good)
    issuer.status, issuer.body, issuer.pause = 200, BOTH.encode(), 0.0
    clock.now += 61
    assert fresh.verify(good).user_id == "u1"


def test_an_issuer_that_is_down_is_named(issuer: Issuer) -> None:
    """With the reason."""
    issuer.server.server_close()
    verifier = TokenVerifier(TokenSettings(key_set_url="http://127.0.0.1:1/jwks"))
    with pytest.raises(ParameterError, match=r"JWK Set http://127\.0\.0\.1:1/jwks can't be used"):
        verifier.verify(token(RSA_KEY, "RS256", "rsa"))


COGNITO = {"sub": "ann", "custom:tenant": "t1", "cognito:groups": ["read"], "token_use": "id"}
AUTH0 = {"sub": "ann", "https://us/tenant": "t1", "scope": "read", "aud": ["jobs", "https://x"]}
CLERK = {"sub": "ann", "o": {"id": "t1", "per": "read"}, "azp": "https://us", "sid": "s"}


@pytest.mark.parametrize(
    ("shape", "tenant", "permissions"),
    [
        (COGNITO, "custom:tenant", "cognito:groups"),
        (AUTH0, "https://us/tenant", "scope"),
        (CLERK, "o.id", "o.per"),
    ],
)
def test_claims_have_the_names_that_the_settings_give(
    shape: dict[str, Any], tenant: str, permissions: str
) -> None:
    """A claim of the plain name never stands in for the one that is named."""
    settings = TokenSettings.from_environment(
        {
            "JWT_KEY_SET": BOTH,
            "JWT_USER_CLAIM": "sub",
            "JWT_TENANT_CLAIM": tenant,
            "JWT_PERMISSIONS_CLAIM": permissions,
        }
    )
    exp = int(time.time()) + 600
    signed = jwt.encode({**shape, "exp": exp}, RSA_KEY, "RS256", headers={"kid": "rsa"})
    verifier = TokenVerifier(settings)
    assert verifier.verify(signed) == Identity("ann", "t1", ("read",), exp)
    plain = {"user_id": "eve", "tenant_id": "t2", "permissions": ["all"], "exp": exp, "sub": "ann"}
    with pytest.raises(InvalidTokenError, match="tenant_id"):
        verifier.verify(jwt.encode(plain, RSA_KEY, "RS256", headers={"kid": "rsa"}))
