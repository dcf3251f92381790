"""verify_webhook: accepted webhooks, and the error of each refused one."""

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
    """A `v1` signature, computed without the library."""
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed(key: bytes, body: bytes, timestamp: int = TIMESTAMP) -> dict[str, str]:
    """The headers of a webhook."""
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key, body, timestamp),
    }


def verify(headers: Any, body: bytes | str = BODY, secrets: Any = SECRET, **more: Any) -> Any:
    return verify_webhook(headers, body, secrets, now=more.pop("now", TIMESTAMP), **more)


def test_the_example_of_standard_webhooks_is_accepted() -> None:
    assert verify(HEADERS) == {"test": 2432232314}


def test_the_body_may_be_text() -> None:
    """Lambda passes the body as text."""
    assert verify(HEADERS, BODY.decode()) == {"test": 2432232314}


@pytest.mark.parametrize("spell", [str.upper, str.title, str.lower])
def test_header_names_are_case_insensitive(spell: Any) -> None:
    assert verify({spell(name): value for name, value in HEADERS.items()})
    assert verify([(spell(name), value) for name, value in HEADERS.items()])


def test_a_secret_without_the_prefix_is_text() -> None:
    """Even one that looks like base64."""
    text = SECRET.removeprefix("whsec_")
    assert verify(signed(text.encode(), BODY), secrets=text)
    with pytest.raises(SignatureMismatchError):
        verify(HEADERS, secrets=text)


def test_one_of_several_secrets_is_enough() -> None:
    """While secrets rotate, the receiver may have two."""
    assert verify(HEADERS, secrets=["a new secret", SECRET])


def test_one_of_several_signatures_is_enough() -> None:
    """While secrets rotate, the sender signs with two; other versions are skipped."""
    other = signature(b"another", BODY)
    header = f"v1a,AAAA {other} {HEADERS['webhook-signature']}"
    assert verify(HEADERS | {"webhook-signature": header})


@pytest.mark.parametrize("name", list(HEADERS))
def test_a_missing_or_empty_header_is_refused(name: str) -> None:
    rest = {key: value for key, value in HEADERS.items() if key != name}
    for headers in (rest, rest | {name: ""}):
        with pytest.raises(MissingSignatureError):
            verify(headers)


@pytest.mark.parametrize(
    "header", ["v1", "v1,", "v1,***", "v1,AAAA", "v2,AAAA", "AAAA", " , ", "v1,ä"]
)
def test_a_header_without_a_readable_v1_signature_is_malformed(header: str) -> None:
    """Not a mismatch."""
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-signature": header})


@pytest.mark.parametrize("text", ["now", "-1", "1.5", "1e9", "१६१४२६५३३०", "9" * 13, " 1"])
def test_a_timestamp_that_is_not_plain_digits_is_refused(text: str) -> None:
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-timestamp": text})


@pytest.mark.parametrize("version", ["v2", "v1a", "V1", "v0"])
def test_a_signature_of_another_version_does_not_count(version: str) -> None:
    header = HEADERS["webhook-signature"].replace("v1", version, 1)
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-signature": header})


def test_every_secret_is_compared_with_every_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, whether one matches or not."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note)
    header = f"{HEADERS['webhook-signature']} {signature(b'another', BODY)}"
    verify(HEADERS | {"webhook-signature": header}, secrets=[SECRET, "a new secret"])
    assert len(compared) == 4


def test_an_id_with_a_dot_is_refused() -> None:
    """With it, parts of the signed content could be moved."""
    with pytest.raises(MalformedSignatureError):
        verify(HEADERS | {"webhook-id": "msg.1"})


def test_a_repeated_header_is_refused() -> None:
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
def test_a_changed_id_time_or_body_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(SignatureMismatchError):
        verify(headers, body)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_any_changed_byte_of_the_body_is_refused(at: int, flip: int) -> None:
    body = bytearray(BODY)
    body[at] ^= flip
    with pytest.raises(SignatureMismatchError):
        verify(HEADERS, bytes(body))


def test_a_webhook_more_than_five_minutes_old_or_early_is_refused() -> None:
    """The error has the age."""
    for age in (300, -300):
        assert verify(HEADERS, now=TIMESTAMP + age)
    with pytest.raises(StaleTimestampError) as stale:
        verify(HEADERS, now=TIMESTAMP + 301)
    assert stale.value.age == 301
    with pytest.raises(FutureTimestampError) as future:
        verify(HEADERS, now=TIMESTAMP - 301)
    assert future.value.age == -301
    assert verify(HEADERS, now=TIMESTAMP + 900, tolerance=900)


def test_the_time_is_the_current_time_by_default() -> None:
    """The example of 2021 is too old."""
    with pytest.raises(StaleTimestampError):
        verify_webhook(HEADERS, BODY, SECRET)


def test_an_old_forged_webhook_is_a_mismatch_not_stale() -> None:
    with pytest.raises(SignatureMismatchError):
        verify(signed(b"wrong", BODY), now=TIMESTAMP + 1000)


def test_the_legacy_header_alone_needs_an_option() -> None:
    with pytest.raises(MissingSignatureError):
        verify(LEGACY, LEGACY_BODY, "test-secret")
    found = verify(LEGACY, LEGACY_BODY, ["other", "test-secret"], allow_legacy=True)
    assert found["assembly_id"] == "abc123"


def test_the_legacy_key_is_the_secret_as_written() -> None:
    """With its prefix."""
    digest = hmac.new(SECRET.encode(), LEGACY_BODY, hashlib.sha256).hexdigest()
    headers = {"x-transflow-signature": f"sha256={digest}"}
    assert verify(headers, LEGACY_BODY, allow_legacy=True)


def test_the_standard_signature_decides_over_the_legacy_one() -> None:
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
def test_an_unreadable_and_a_wrong_legacy_signature_have_different_errors(
    header: str, error: type[WebhookError]
) -> None:
    with pytest.raises(error):
        verify({"X-Transflow-Signature": header}, LEGACY_BODY, "test-secret", allow_legacy=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"nonsense", b"\xff", b"[" * 100_000])
def test_a_signed_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    """After its signature was verified."""
    with pytest.raises(WebhookBodyError):
        verify(signed(b"key", body), body, "key")


@pytest.mark.parametrize("secrets", ["", [], ["good", ""], "whsec_", "whsec_***", ["whsec_a"]])
def test_an_unusable_secret_is_an_error_even_beside_a_good_one(secrets: Any) -> None:
    """Any sender could sign with an empty key."""
    with pytest.raises(ValueError, match="secret"):
        verify(HEADERS, secrets=secrets)


def test_the_document_is_parsed_without_loss() -> None:
    body = json.dumps({"n": 5.2, "text": "ä"}, ensure_ascii=False).encode()
    assert verify(signed(b"key", body), body, "key") == {"n": 5.2, "text": "ä"}
