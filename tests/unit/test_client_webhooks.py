"""verify_webhook: what is accepted, and what each refusal is called."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_client import (
    FutureTimestampError,
    MalformedSignatureError,
    MissingSignatureError,
    SignatureMismatchError,
    StaleTimestampError,
    WebhookBodyError,
    WebhookError,
    verify_webhook,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(TIMESTAMP),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
LEGACY_BODY = b'{"assembly_id":"abc123","ok":"ASSEMBLY_COMPLETED"}'
LEGACY = {
    "X-Transflow-Signature": (
        "sha256=6b3758173526e6e866836aa444d63399cdef475658b8ddf862243c391d731e34"
    )
}


def signature(key: bytes, body: bytes, timestamp: int = TIMESTAMP, id: str = "msg_1") -> str:
    """A `v1` signature, written out apart from the library."""
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed(key: bytes, body: bytes, timestamp: int = TIMESTAMP) -> dict[str, str]:
    """The headers of a notification."""
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key, body, timestamp),
    }


def verify(headers: Any, body: bytes | str = BODY, secrets: Any = SECRET, **more: Any) -> Any:
    return verify_webhook(headers, body, secrets, now=more.pop("now", TIMESTAMP), **more)


def test_published_vector_is_accepted() -> None:
    """The example of Standard Webhooks gives its document."""
    assert verify(HEADERS) == {"test": 2432232314}


def test_body_may_be_text() -> None:
    """Lambda hands the body over as text."""
    assert verify(HEADERS, BODY.decode()) == {"test": 2432232314}


@pytest.mark.parametrize("spell", [str.upper, str.title, str.lower])
def test_header_names_have_no_case(spell: Any) -> None:
    """Frameworks spell header names as they like."""
    assert verify({spell(name): value for name, value in HEADERS.items()})
    assert verify([(spell(name), value) for name, value in HEADERS.items()])


def test_plain_secret_is_its_own_bytes() -> None:
    """Without the prefix a secret is text, even one that looks like base64."""
    text = SECRET.removeprefix("whsec_")
    assert verify(signed(text.encode(), BODY), secrets=text)
    with pytest.raises(SignatureMismatchError):
        verify(HEADERS, secrets=text)


def test_any_current_secret_will_do() -> None:
    """While secrets rotate, the receiver may know two."""
    assert verify(HEADERS, secrets=["a new secret", SECRET])


def test_any_signature_will_do() -> None:
    """While secrets rotate, the sender signs with two; other versions are skipped."""
    other = signature(b"another", BODY)
    header = f"v1a,AAAA {other} {HEADERS['webhook-signature']}"
    assert verify(HEADERS | {"webhook-signature": header})


@pytest.mark.parametrize("name", list(HEADERS))
def test_missing_header_is_refused(name: str) -> None:
    """All three headers are needed, and an empty one is missing."""
    rest = {key: value for key, value in HEADERS.items() if key != name}
    for headers in (rest, rest | {name: ""}):
        with pytest.raises(MissingSignatureError):
            verify(headers)


@pytest.mark.parametrize(
    "header", ["v1", "v1,", "v1,***", "v1,AAAA", "v2,AAAA", "AAAA", " , ", "v1,ä"]
)
def test_malformed_signature_is_refused(header: str) -> None:
    """A header without a readable v1 signature is not a wrong one."""
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-signature": header})


@pytest.mark.parametrize("text", ["now", "-1", "1.5", "1e9", "१६१४२६५३३०", "9" * 13, " 1"])
def test_malformed_timestamp_is_refused(text: str) -> None:
    """The timestamp is plain digits."""
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-timestamp": text})


@pytest.mark.parametrize("version", ["v2", "v1a", "V1", "v0"])
def test_a_signature_of_another_version_is_none(version: str) -> None:
    """The right digest under another name proves nothing."""
    header = HEADERS["webhook-signature"].replace("v1", version, 1)
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-signature": header})


def test_time_does_not_tell_which_secret_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret is compared with every signature, in constant time, match or not."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note)
    header = f"{HEADERS['webhook-signature']} {signature(b'another', BODY)}"
    verify(HEADERS | {"webhook-signature": header}, secrets=[SECRET, "a new secret"])
    assert len(compared) == 4


def test_dot_in_the_id_is_refused() -> None:
    """A dot would let parts of what was signed change places."""
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-id": "msg.1"})


def test_header_sent_twice_is_refused() -> None:
    """Two values leave open which one was meant."""
    with pytest.raises(MalformedSignatureError):
        verify([*HEADERS.items(), ("Webhook-Id", "msg_2")])
    assert verify([*HEADERS.items(), ("Via", "a"), ("Via", "b")])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (HEADERS, BODY + b" "),
        (HEADERS | {"webhook-id": "msg_2"}, BODY),
        (HEADERS | {"webhook-timestamp": str(TIMESTAMP + 1)}, BODY),
    ],
)
def test_anything_changed_is_refused(headers: dict[str, str], body: bytes) -> None:
    """Id, time and body are all under the signature."""
    with pytest.raises(SignatureMismatchError):
        verify(headers, body)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, flip: int) -> None:
    """No byte of the body can change."""
    body = bytearray(BODY)
    body[at] ^= flip
    with pytest.raises(SignatureMismatchError):
        verify(HEADERS, bytes(body))


def test_tolerance_goes_both_ways() -> None:
    """Five minutes are the limit, included; beyond it the age is told."""
    for age in (300, -300):
        assert verify(HEADERS, now=TIMESTAMP + age)
    with pytest.raises(StaleTimestampError) as stale:
        verify(HEADERS, now=TIMESTAMP + 301)
    assert stale.value.age == 301
    with pytest.raises(FutureTimestampError) as future:
        verify(HEADERS, now=TIMESTAMP - 301)
    assert future.value.age == -301
    assert verify(HEADERS, now=TIMESTAMP + 900, tolerance=900)


def test_time_is_now_by_default() -> None:
    """The vector of 2021 is too old today."""
    with pytest.raises(StaleTimestampError):
        verify_webhook(HEADERS, BODY, SECRET)


def test_forged_old_notification_is_a_mismatch() -> None:
    """Only a genuine notification is called stale."""
    with pytest.raises(SignatureMismatchError):
        verify(signed(b"wrong", BODY), now=TIMESTAMP + 1000)


def test_legacy_needs_permission() -> None:
    """The older header alone is accepted only on request."""
    with pytest.raises(MissingSignatureError):
        verify(LEGACY, LEGACY_BODY, "test-secret")
    found = verify(LEGACY, LEGACY_BODY, ["other", "test-secret"], allow_legacy=True)
    assert found["assembly_id"] == "abc123"


def test_legacy_key_is_the_text() -> None:
    """The older header is keyed with the secret as written, prefix included."""
    digest = hmac.new(SECRET.encode(), LEGACY_BODY, hashlib.sha256).hexdigest()
    headers = {"x-transflow-signature": f"sha256={digest}"}
    assert verify(headers, LEGACY_BODY, allow_legacy=True)


def test_legacy_does_not_replace_a_bad_standard_signature() -> None:
    """With both headers, the stronger one decides."""
    bad = HEADERS | LEGACY | {"webhook-signature": signature(b"wrong", LEGACY_BODY)}
    with pytest.raises(SignatureMismatchError):
        verify(bad, LEGACY_BODY, "test-secret", allow_legacy=True)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("sha256=", MalformedSignatureError),
        ("sha1=" + "0" * 40, MalformedSignatureError),
        ("0" * 64, MalformedSignatureError),
        ("sha256=" + "0" * 64, SignatureMismatchError),
    ],
)
def test_bad_legacy_signature_is_refused(header: str, error: type[WebhookError]) -> None:
    """Unreadable and wrong are told apart."""
    with pytest.raises(error):
        verify({"X-Transflow-Signature": header}, LEGACY_BODY, "test-secret", allow_legacy=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"nonsense", b"\xff", b"[" * 100_000])
def test_body_must_be_an_object(body: bytes) -> None:
    """A signed body that is no JSON object is refused after its signature."""
    with pytest.raises(WebhookBodyError):
        verify(signed(b"key", body), body, "key")


@pytest.mark.parametrize("secrets", ["", [], ["good", ""], "whsec_", "whsec_***", ["whsec_a"]])
def test_unusable_secret_is_the_callers_fault(secrets: Any) -> None:
    """An empty key would let everybody sign: it is an error even beside a good one."""
    with pytest.raises(ValueError, match="secret"):
        verify(HEADERS, secrets=secrets)


def test_numbers_survive() -> None:
    """The document is what was sent."""
    body = json.dumps({"n": 5.2, "text": "ä"}, ensure_ascii=False).encode()
    assert verify(signed(b"key", body), body, "key") == {"n": 5.2, "text": "ä"}
