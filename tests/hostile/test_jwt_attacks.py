"""Forged tokens by the name of their attack, against the library and both functions."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from jobplane.fuzzing.subjects import Subject, subjects
from jobplane.tree.resolved import JWT_SECRET
from jobplane_tokens import MAX_TOKEN_LENGTH, TokenError, TokenSettings, TokenVerifier

SECRET = JWT_SECRET
RSA_KEY = rsa.generate_private_key(65537, 2048)
PUBLIC_PEM = (
    RSA_KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
HEADER = {"alg": "HS256", "typ": "JWT"}
NOW = int(time.time())


def claims(**changed: Any) -> str:
    """Valid claims with changes, as JSON."""
    known = {"user_id": "user-1", "tenant_id": "tenant-1", "exp": NOW + 3600} | changed
    return json.dumps({name: value for name, value in known.items() if value is not None})


def part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def token(
    header: dict[str, Any] | str = HEADER, payload: str | None = None, key: str = SECRET
) -> str:
    """Header and payload as given, signed with HS256."""
    head = header if isinstance(header, str) else json.dumps(header)
    signed = f"{part(head.encode())}.{part((payload or claims()).encode())}"
    return f"{signed}.{part(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))}"


def unsigned(algorithm: str) -> str:
    return token({"alg": algorithm, "typ": "JWT"}).rpartition(".")[0] + "."


def other_signature(change: Callable[[str], str]) -> str:
    head, _, signature = token().rpartition(".")
    return f"{head}.{change(signature)}"


def other_payload() -> str:
    head, payload, signature = token().split(".")
    return f"{head}.{part(claims(user_id='user-2').encode())}.{signature}"


OWN_JWK = {"kty": "oct", "k": part(b"k" * 32)}
ATTACKS: dict[str, str] = {
    "none": unsigned("none"),
    "none in capitals": unsigned("NONE"),
    "none in mixed case": unsigned("nOnE"),
    "none with a twin letter": unsigned("nοne"),
    "none, signed": token({"alg": "none", "typ": "JWT"}),
    "no algorithm": token({"typ": "JWT"}),
    "a list of algorithms": token({"alg": ["HS256", "none"], "typ": "JWT"}),
    "algorithm with a space": token({"alg": "HS256 ", "typ": "JWT"}),
    "algorithm in small letters": token({"alg": "hs256", "typ": "JWT"}),
    "key confusion with the public key": token(key=PUBLIC_PEM),
    "key confusion, the PEM without its last line end": token(key=PUBLIC_PEM.strip()),
    "an asymmetric signature": jwt.encode(json.loads(claims()), RSA_KEY, algorithm="RS256"),
    "another HMAC": jwt.encode(json.loads(claims()), SECRET * 2, algorithm="HS512"),
    "another key": token(key="o" * 32),
    "an empty key": token(key=""),
    "kid: a path": token(HEADER | {"kid": "../../../../dev/null"}, key=""),
    "kid: a line of zeros": token(HEADER | {"kid": "/dev/zero"}, key="\0"),
    "kid: SQL": token(HEADER | {"kid": "x' UNION SELECT 'key' --"}, key="key"),
    "kid: a command": token(HEADER | {"kid": "|sleep 5"}, key="k" * 32),
    "kid: an object": token(HEADER | {"kid": {"a": 1}}),
    "jku: a key of their own": token(HEADER | {"jku": "https://evil.example/jwks"}, key="k" * 32),
    "x5u: a certificate of their own": token(
        HEADER | {"x5u": "https://evil.example/c"}, key="k" * 32
    ),
    "jwk: the key in the header": token(HEADER | {"jwk": OWN_JWK}, key="k" * 32),
    "crit: an unknown extension": token(HEADER | {"crit": ["exp"]}),
    "b64: a payload that is not encoded": token(HEADER | {"b64": False, "crit": ["b64"]}),
    "expired": token(payload=claims(exp=NOW - 60)),
    "expired at the beginning of time": token(payload=claims(exp=0)),
    "expired before time": token(payload=claims(exp=-1)),
    "without an end": token(payload=claims(exp=None)),
    "an end beyond the calendar": token(payload=claims(exp=10**400)),
    "an end that is NaN": token(payload=claims(exp=float("nan"))),
    "an end that is infinite": token(payload=claims(exp=float("inf"))),
    "an end that is a text": token(payload=claims(exp="never")),
    "an end that is a list": token(payload=claims(exp=[NOW + 3600])),
    "not yet": token(payload=claims(nbf=NOW + 3600)),
    "issued in the future": token(payload=claims(iat=NOW + 3600)),
    "huge": token(payload=claims(filler="x" * MAX_TOKEN_LENGTH)),
    "huge before the first dot": "e" * 1_000_000,
    "nothing but dots": "." * 4000,
    "nested deeply": token(payload='{"exp":' + "[" * 1200 + "]" * 1200 + "}"),
    "duplicate claim, the last one empty": token(
        payload=claims()[:-1] + ', "user_id": ""}'
    ),
    "duplicate claim, the last one expired": token(payload=claims()[:-1] + ', "exp": 1}'),
    "duplicate algorithm, the last one none": token('{"alg":"HS256","alg":"none"}'),
    "unicode twin of user_id": token(payload=claims(user_id=None, **{"user_іd": "admin"})),
    "unicode twin of exp": token(payload=claims(exp=None, **{"ехр": NOW + 3600})),
    "full-width digits in the end": token(payload=claims(exp="１７９５３４２５３０")),
    "user with an invisible letter": token(payload=claims(user_id="user-1\u200b")),
    "user that reads backwards": token(payload=claims(user_id="user-1\u202e")),
    "user with a line end": token(payload=claims(user_id="user-1\n")),
    "user that is half a character": token(payload=claims(user_id="\ud800")),
    "user that is nothing but space": token(payload=claims(user_id=" \u00a0")),
    "user that is a list": token(payload=claims(user_id=["user-1"])),
    "user that is too long": token(payload=claims(user_id="u" * 129)),
    "tenant that is null": token(payload=claims().replace('"tenant-1"', "null")),
    "payload that is a list": token(payload="[1]"),
    "payload that is a text": token(payload='"user-1"'),
    "payload that is not JSON": token(payload="user_id=user-1"),
    "payload of another token": other_payload(),
    "signature cut short": other_signature(lambda text: text[:-4]),
    "signature left out": other_signature(lambda text: ""),
    "signature made longer": other_signature(lambda text: f"{text}AAAA"),
    "signature of zeros": other_signature(lambda text: "A" * len(text)),
    "a fourth part": f"{token()}.{part(b'x')}",
    "five parts, as encrypted ones have": "a.b.c.d.e",
    "a header that is not JSON": f"{part(b'HS256')}.{part(claims().encode())}.x",
    "not base64": "€.€.€",
}  # fmt: skip


@pytest.fixture(params=["connect", "status"], scope="module")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with subjects() as make:
        yield make(request.param)


def presented(subject: Subject, text: str) -> Any:
    """The function's answer to a token."""
    case = {"connect": "accepted-header", "status": "http"}[subject.name]
    situation = next(found for found in subject.situations if found.name == case)
    event = json.loads(json.dumps(situation.event))
    event["headers"] = {"Authorization": f"Bearer {text}"}
    return subject.call(situation, event)


def test_the_unchanged_token_is_accepted(subject: Subject) -> None:
    assert presented(subject, token()).answer["statusCode"] == 200


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_library_refuses_every_forged_token(attack: str) -> None:
    """With a secret alone, and with a public key as well."""
    for public_key in (None, PUBLIC_PEM):
        settings = TokenSettings(secret=SECRET, public_key=public_key)
        forged = ATTACKS[attack]
        if attack == "an asymmetric signature" and public_key:
            continue  # that is the key's own algorithm
        with pytest.raises(TokenError):
            TokenVerifier(settings).verify(forged)


def test_a_forged_token_gets_401_without_reason(subject: Subject) -> None:
    """Nothing is written, and the log does not have the token."""
    refusals = set()
    for attack, forged in ATTACKS.items():
        done = presented(subject, forged)
        assert done.error is None, attack
        assert done.answer["statusCode"] == 401, attack
        assert done.writes == [], attack
        assert done.problems == [], attack
        assert len(forged) < 40 or forged not in done.log, attack
        assert SECRET not in done.log, attack
        refusals.add(re.sub(r'"request_id":"[^"]*"', "", done.answer["body"]))
    assert len(refusals) == 1
