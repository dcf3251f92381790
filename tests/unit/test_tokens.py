"""jobplane_tokens: accepted and refused tokens."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from pytest import MonkeyPatch

import jobplane_tokens
from jobplane_client import mint_token
from jobplane_parameters import ParameterError
from jobplane_tokens import (
    ExpiredTokenError,
    Identity,
    InvalidTokenError,
    TokenError,
    TokenSettings,
    TokenVerifier,
)

SECRET, OTHER = "s" * 32, "o" * 32
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
VERIFIER = TokenVerifier(TokenSettings(secret=SECRET))


def pem(key: Any) -> str:
    """The public half of a key as in JWT_PUBLIC_KEY."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


def claims(**changed: Any) -> dict[str, Any]:
    """Valid claims with changes; None removes a claim."""
    known = {"user_id": "u1", "tenant_id": "t1", "exp": int(time.time()) + 600, **changed}
    return {name: value for name, value in known.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm=algorithm)


def by_hand(header: dict[str, Any], payload: str, key: bytes) -> str:
    """A token that no library creates."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    signed = f"{part(json.dumps(header).encode())}.{part(payload.encode())}"
    return f"{signed}.{part(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def refused(verifier: TokenVerifier, text: str) -> None:
    with pytest.raises(InvalidTokenError):
        verifier.verify(text)


def test_a_valid_token_gives_its_identity() -> None:
    exp = int(time.time()) + 60
    assert VERIFIER.verify(token(exp=exp, permissions=["reports"])) == Identity(
        "u1", "t1", ("reports",), exp
    )


def test_sub_is_the_user_only_without_user_id() -> None:
    assert VERIFIER.verify(token(user_id=None, sub="u2")).user_id == "u2"
    assert VERIFIER.verify(token(sub="u2")).user_id == "u1"
    refused(VERIFIER, token(user_id="", sub="u2"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"exp": 1800000000}, Identity("u1", "t1", (), 1800000000)),
        ({"exp": "1800000000"}, Identity("u1", "t1", (), 1800000000)),
        ({"exp": None}, Identity("u1", "t1", (), 0)),
        ({"exp": "soon"}, Identity("u1", "t1", (), 0)),
        ({"exp": 1, "permissions": ["reports"]}, Identity("u1", "t1", ("reports",), 1)),
        ({"exp": 1, "permissions": "[reports]"}, Identity("u1", "t1", (), 1)),
        ({"exp": 1, "user_id": None, "sub": "u2"}, Identity("u2", "t1", (), 1)),
    ],
)
def test_verified_claims_give_an_identity(changed: dict[str, Any], expected: Identity) -> None:
    """Whether or not numbers and lists were turned into texts."""
    assert VERIFIER.identity_of_claims(claims(**changed)) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": None}, {"user_id": " "}, {"user_id": "u" * 129}, {"user_id": "u\n"},
        {"tenant_id": None}, {"tenant_id": 5}, {"exp": "999999999999"}, {"permissions": [5]},
    ],
)  # fmt: skip
def test_verified_claims_follow_the_rules_of_tokens(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        VERIFIER.identity_of_claims(claims(**changed))


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (None, jobplane_tokens.MissingTokenError, "missing_token"),
        ("", jobplane_tokens.MissingTokenError, "missing_token"),
        (token(OTHER), InvalidTokenError, "invalid_jwt"),
        (token(exp=1), jobplane_tokens.ExpiredTokenError, "expired"),
    ],
    ids=["no token", "an empty token", "another key", "expired"],
)
def test_a_refusal_has_its_reason(text: str | None, error: type[TokenError], reason: str) -> None:
    with pytest.raises(error) as raised:
        VERIFIER.verify(text)
    assert raised.value.reason == reason


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, "HS1", 5])
def test_an_unsigned_token_is_refused(name: Any) -> None:
    payload = json.dumps(claims())
    signed = by_hand({"alg": name, "typ": "JWT"}, payload, SECRET.encode())
    for text in (signed, signed.rpartition(".")[0] + ".", signed.rpartition(".")[0]):
        refused(VERIFIER, text)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_other_algorithms_of_the_family_are_refused(algorithm: str) -> None:
    refused(VERIFIER, token(SECRET * 2, algorithm))
    refused(TokenVerifier(TokenSettings(secret=SECRET * 2)), token(SECRET * 2, algorithm))


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256")])
def test_a_public_key_decides_the_algorithm(key: Any, algorithm: str) -> None:
    verifier = TokenVerifier(TokenSettings(public_key=pem(key)))
    assert verifier.verify(token(key, algorithm)).user_id == "u1"


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY])
def test_an_hs256_signature_with_the_public_key_is_refused(key: Any) -> None:
    public = pem(key)
    forged = by_hand({"alg": "HS256", "typ": "JWT"}, json.dumps(claims()), public.encode())
    for settings in (
        TokenSettings(public_key=public),
        TokenSettings(secret=SECRET, public_key=public),
    ):
        refused(TokenVerifier(settings), forged)


def test_with_secret_and_public_key_each_verifies_only_its_algorithms() -> None:
    verifier = TokenVerifier(TokenSettings(secret=SECRET, public_key=pem(RSA_KEY)))
    assert verifier.verify(token())
    assert verifier.verify(token(RSA_KEY, "RS256"))
    for text in (
        token(RSA_KEY, "RS384"),
        token(RSA_KEY, "PS256"),
        token(EC_KEY, "ES256"),
        token(rsa.generate_private_key(65537, 2048), "RS256"),
    ):
        refused(verifier, text)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())]
)
def test_an_unsupported_public_key_fails_at_the_start(key: Any) -> None:
    with pytest.raises(ValueError, match="RSA or a P-256"):
        TokenVerifier(TokenSettings(public_key=pem(key)))


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("exp", -20, -40), ("nbf", 20, 60), ("iat", 20, 60)]
)
def test_the_leeway_of_times_is_30_seconds(name: str, good: int, bad: int) -> None:
    def of(seconds: int) -> str:
        changed: dict[str, Any] = {name: int(time.time()) + seconds}
        return token(**changed)

    assert VERIFIER.verify(of(good))
    with pytest.raises(jobplane_tokens.ExpiredTokenError if name == "exp" else InvalidTokenError):
        VERIFIER.verify(of(bad))


@pytest.mark.parametrize(
    "exp",
    [
        "null", '"soon"', '"4102444800"', '"٤١٠٢٤٤٤٨٠٠"', "[1]", "{}", "1e400", "-1e400", "NaN",
        "1e300", "253402300800", "9" * 400,
    ],
)  # fmt: skip
def test_a_malformed_or_unstorable_expiry_is_refused(exp: str) -> None:
    payload = f'{{"user_id":"u1","tenant_id":"t1","exp":{exp}}}'
    refused(VERIFIER, by_hand({"alg": "HS256", "typ": "JWT"}, payload, SECRET.encode()))


def test_a_token_needs_an_expiry_up_to_the_year_9999() -> None:
    refused(VERIFIER, token(exp=None))
    assert VERIFIER.verify(token(exp=253402300799)).expires_at == 253402300799


@pytest.mark.parametrize("name", ["user_id", "tenant_id"])
@pytest.mark.parametrize("value", [None, "", " ", 5, True, ["u"], {"a": 1}, "a\nb", "a" * 129])
def test_user_and_tenant_must_be_printable_texts_of_bounded_length(name: str, value: Any) -> None:
    with pytest.raises(InvalidTokenError, match=name if value is not None else None):
        VERIFIER.verify(token(**{name: value}))


@pytest.mark.parametrize(
    "permissions", ["reports", [1], {"reports": True}, [None], ["a\n"], ["\ud800"]]
)
def test_permissions_must_be_a_list_of_storable_texts(permissions: Any) -> None:
    with pytest.raises(InvalidTokenError, match="permissions"):
        VERIFIER.verify(token(permissions=permissions))


@pytest.mark.parametrize(
    ("header", "value"),
    [("crit", value) for value in (["x-policy"], ["exp"], [], "x", None)]
    + [("kid", value) for value in ({}, ["a"], 1, None)],
)
def test_headers_that_old_versions_of_pyjwt_ignore_are_refused(
    header: str, value: Any, monkeypatch: MonkeyPatch
) -> None:
    """Versions from 2.10.1 are allowed; they have no checks of these."""
    for check in ("_validate_crit", "_validate_kid"):
        monkeypatch.setattr(jwt.PyJWS, check, lambda *_: None, raising=False)
    demanding = jwt.encode(claims(), SECRET, headers={header: value, "x-policy": 1})
    with pytest.raises(InvalidTokenError, match=header):
        VERIFIER.verify(demanding)


def test_a_token_too_long_for_a_url_is_refused() -> None:
    with pytest.raises(InvalidTokenError, match="longer"):
        VERIFIER.verify(token(permissions=["p" * jobplane_tokens.MAX_TOKEN_LENGTH]))


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\n"])
def test_every_one_of_several_secrets_verifies(separator: str) -> None:
    rotating = TokenVerifier(TokenSettings(secret=f"{SECRET}{separator}{OTHER}"))
    assert rotating.verify(token(SECRET))
    assert rotating.verify(token(OTHER))
    with pytest.raises(jobplane_tokens.ExpiredTokenError):
        rotating.verify(token(OTHER, exp=1))
    refused(rotating, token("x" * 32))


class Ssm:
    """Replaces an SSM client; an exception is raised, a text is the parameter's value."""

    def __init__(self, *values: str | Exception) -> None:
        self.values = list(values)
        self.reads = 0

    def get_parameter(self, **_: Any) -> dict[str, Any]:
        self.reads += 1
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        if isinstance(value, Exception):
            raise value
        return {"Parameter": {"Value": value}}


PARAMETER = "ssm:/jobplane/a-stage-of-a-long-name/jwt-secret"


def referring(ssm: Ssm, **settings: Any) -> tuple[TokenVerifier, list[str]]:
    """A verifier with a parameter as its secret, and its reports."""
    reports: list[str] = []
    verifier = TokenVerifier(TokenSettings(secret=PARAMETER, **settings), ssm, reports.append)
    return verifier, reports


def test_a_parameter_as_secret_is_read_once_at_the_start() -> None:
    ssm = Ssm(f"{SECRET} {OTHER}")
    verifier, _ = referring(ssm)
    assert ssm.reads == 1
    assert verifier.verify(token(SECRET))
    assert verifier.verify(token(OTHER))
    for key in (PARAMETER, PARAMETER.removeprefix("ssm:"), f"{SECRET} {OTHER}"):
        refused(verifier, token(key))
    assert ssm.reads == 1


def test_a_parameter_as_secret_needs_a_client() -> None:
    with pytest.raises(ValueError, match=f"JWT_SECRET is {PARAMETER}: pass an SSM client as `ssm`"):
        TokenVerifier(TokenSettings(secret=PARAMETER))


def test_an_unknown_signature_reads_the_parameter_again(monkeypatch: MonkeyPatch) -> None:
    ssm = Ssm(SECRET, f"{OTHER} {SECRET}", OTHER)
    verifier, _ = referring(ssm)
    assert verifier.verify(token(SECRET))
    refused(verifier, token(OTHER))
    later(monkeypatch, verifier, 60)
    assert verifier.verify(token(OTHER))
    assert verifier.verify(token(SECRET))
    assert ssm.reads == 2
    later(monkeypatch, verifier, 60 + 300)
    refused(verifier, token(SECRET))
    assert ssm.reads == 3


def later(monkeypatch: MonkeyPatch, verifier: TokenVerifier, seconds: float) -> None:
    """Move the clock of a verifier's parameter."""
    moment = time.time() + seconds
    monkeypatch.setattr(verifier._parameter, "_clock", lambda: moment)


def test_forged_tokens_cost_one_read_a_minute() -> None:
    """Tokens that are refused for another fault cost none."""
    ssm = Ssm(SECRET)
    verifier, _ = referring(ssm)
    for number in range(1000):
        refused(verifier, token(f"{number:032}"))
    assert ssm.reads == 1


@pytest.mark.parametrize(
    "refused",
    [
        "", "x.y.z", jwt.encode(claims(), None, algorithm="none"), token(exp=1),
        token(tenant_id=None), token(RSA_KEY, "RS256"),
    ],
)  # fmt: skip
def test_an_otherwise_bad_token_causes_no_read(refused: str, monkeypatch: MonkeyPatch) -> None:
    ssm = Ssm(SECRET)
    verifier, _ = referring(ssm)
    later(monkeypatch, verifier, 120)
    with pytest.raises(TokenError):
        verifier.verify(refused)
    assert ssm.reads == 1


def test_verified_claims_need_no_secret() -> None:
    """So they work while the parameter can't be read."""
    verifier, reports = referring(Ssm(RuntimeError("no answer")))
    assert verifier.identity_of_claims(claims()).user_id == "u1"
    assert len(reports) == 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (" , ", "is empty: put a secret of at least 32 bytes"),
        ("tiny-key", "holds a secret that is too short (number 1 of 1)"),
        (f"{SECRET} tiny-key", "holds a secret that is too short (number 2 of 2)"),
        (PARAMETER, "holds a reference instead of a secret"),
        (RuntimeError("no answer"), "can't be read: RuntimeError: no answer"),
    ],
)
def test_a_bad_parameter_is_read_again(value: Any, told: str, monkeypatch: MonkeyPatch) -> None:
    """Until it is usable, all tokens fail with an error instead of a refusal."""
    ssm = Ssm(value, value, SECRET)
    verifier, reports = referring(ssm)
    (report,) = reports
    assert report.startswith(f"SSM parameter {PARAMETER.removeprefix('ssm:')} {told}")
    assert "tiny-key" not in report
    with pytest.raises(ParameterError):
        verifier.verify(token())
    later(monkeypatch, verifier, 60)
    assert verifier.verify(token()).user_id == "u1"


@pytest.mark.parametrize(
    ("setting", "claim"), [("issuer", "iss"), ("audience", "aud")], ids=["issuer", "audience"]
)
def test_issuer_and_audience_are_checked_when_set(setting: str, claim: str) -> None:
    settings: dict[str, Any] = {"secret": SECRET, setting: "jobplane"}
    verifier = TokenVerifier(TokenSettings(**settings))
    assert verifier.verify(token(**{claim: "jobplane"}))
    if claim == "aud":
        assert verifier.verify(token(aud=["other", "jobplane"]))
    for changed in ({}, {claim: "other"}, {claim: ""}):
        refused(verifier, token(**changed))
    assert VERIFIER.verify(token(**{claim: "anything"}))


@pytest.mark.parametrize("tenant", ["t3", "t1-other", "t", "T1"])
def test_a_tenant_that_is_not_allowed_has_its_own_reason(tenant: str) -> None:
    """Of a token and of verified claims."""
    verifier = TokenVerifier(TokenSettings(secret=SECRET, allowed_tenants=frozenset({"t1", "t2"})))
    assert verifier.verify(token()).tenant_id == "t1"
    assert verifier.identity_of_claims(claims(tenant_id="t2")).tenant_id == "t2"
    with pytest.raises(jobplane_tokens.TenantNotAllowedError) as raised:
        verifier.verify(token(tenant_id=tenant))
    assert raised.value.reason == "tenant_not_allowed"
    with pytest.raises(jobplane_tokens.TenantNotAllowedError):
        verifier.identity_of_claims(claims(tenant_id=tenant))


@given(st.text(max_size=60) | st.from_regex(r"[\w-]{0,9}\.[\w-]{0,9}\.[\w-]{0,9}"))
def test_any_text_is_refused_with_an_error_of_this_library(text: str) -> None:
    with pytest.raises(TokenError):
        VERIFIER.verify(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["user_id", "sub", "tenant_id", "exp", "nbf", "iat", "permissions", "aud"]),
        JSON,
    )
    | JSON
)
def test_any_signed_payload_gives_an_identity_or_an_error_of_this_library(payload: Any) -> None:
    text = by_hand({"alg": "HS256", "typ": "JWT"}, json.dumps(payload), SECRET.encode())
    try:
        identity = VERIFIER.verify(text)
    except TokenError:
        return
    assert identity.user_id
    assert identity.tenant_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc", "abc"), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("BEARER abc", "abc"),
        (" abc ", "abc"), ("Basic abc", "Basic abc"), ("Bearer", "Bearer"), ("", ""), (None, None),
    ],
)  # fmt: skip
def test_the_bearer_scheme_is_optional_in_any_case(value: str | None, expected: str | None) -> None:
    assert jobplane_tokens.strip_bearer(value) == expected


def test_settings_come_from_the_environment() -> None:
    environment = {"JWT_SECRET": SECRET, "JWT_ISSUER": "me", "JWT_AUDIENCE": ""}
    settings = TokenSettings.from_environment(environment | {"ALLOWED_TENANTS": " t1, ,t2,"})
    tenants = frozenset({"t1", "t2"})
    assert settings == TokenSettings(secret=SECRET, issuer="me", allowed_tenants=tenants)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "JWT_SECRET or JWT_PUBLIC_KEY"),
        ({"JWT_SECRET": ""}, "JWT_SECRET or JWT_PUBLIC_KEY"),
        (
            {"JWT_SECRET": "tiny-key"},
            r"JWT_SECRET .* \(number 1 of 1\): .* at least 32 bytes",
        ),
        ({"JWT_SECRET": f"{SECRET},tiny-key"}, r"JWT_SECRET holds .* \(number 2 of 2\)"),
        ({"JWT_SECRET": f"{SECRET} tiny-key of-spaces"}, "2 of 3.* spaces and commas separate"),
        ({"JWT_SECRET": " , "}, "JWT_SECRET is empty"),
        ({"JWT_SECRET": "ssm:jobplane/prod/jwt-secret-of-the-stage"}, "ssm:/path/name"),
        ({"JWT_SECRET": "ssm:/jobplane/prod/jwt-secret, ssm:/another"}, "ssm:/path/name"),
        ({"JWT_SECRET": "arn:aws:ssm:eu-west-1:123456789012:parameter/x"}, "a reference"),
        ({"JWT_SECRET": "{{resolve:ssm-secure:/jobplane/prod/jwt-secret}}"}, "a reference"),
        ({"JWT_SECRET": "${ssm:/jobplane/prod/the-secret-of-the-stage}"}, "a reference"),
        ({"JWT_SECRET": "env:THE_NAME_OF_A_VARIABLE_THAT_IS_LONG"}, "a reference"),
    ],
)
def test_a_missing_or_short_secret_fails_at_the_start(environment: Any, named: str) -> None:
    assert TokenSettings(secret="ä" * 16)
    with pytest.raises(ValueError, match=named) as raised:
        TokenSettings.from_environment(environment)
    assert "tiny-key" not in str(raised.value)


def test_a_verifier_with_a_secret_does_not_load_cryptography() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import jwt, time, jobplane_tokens as t\n"
        f"v = t.TokenVerifier(t.TokenSettings(secret='{SECRET}'))\n"
        "c = {'sub': 'u', 'tenant_id': 't', 'exp': time.time() + 60}\n"
        f"print(v.verify(jwt.encode(c, '{SECRET}')).user_id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "u\n"


def test_a_minted_token_is_accepted_with_its_claims() -> None:
    """Of several secrets, as they are while they rotate, the newest signs."""
    token = mint_token(
        f"{SECRET}, an-older-secret-of-32-bytes-or-more",
        user="ann", tenant="acme", permissions=["reports"], ttl=60,
    )  # fmt: skip
    identity = TokenVerifier(TokenSettings(secret=SECRET)).verify(token)
    assert (identity.user_id, identity.tenant_id) == ("ann", "acme")
    assert identity.permissions == ("reports",)
    assert time.time() < identity.expires_at <= time.time() + 60
    old = mint_token(SECRET, user="ann", tenant="acme", ttl=-60)
    with pytest.raises(ExpiredTokenError):
        TokenVerifier(TokenSettings(secret=SECRET)).verify(old)


@pytest.mark.parametrize("secret", ["", " , ", "short", "ssm:/jobplane/development/jwt-secret"])
def test_a_token_is_not_minted_with_a_secret_that_no_stage_accepts(secret: str) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        mint_token(secret, user="ann", tenant="acme")
