"""verify_webhook: accepted webhooks, and the error of each refused one."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobplane_client
from jobplane_client import MalformedSignatureError, SignatureMismatchError, verify_webhook

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


def refused(error: type[Exception], *arguments: Any, **more: Any) -> Any:
    with pytest.raises(error) as raised:
        verify(*arguments, **more)
    return raised.value


def test_the_example_of_standard_webhooks_is_accepted() -> None:
    """As bytes, and as text, as which Lambda passes it."""
    assert verify(HEADERS) == verify(HEADERS, BODY.decode()) == {"test": 2432232314}


@pytest.mark.parametrize("spell", [str.upper, str.title, str.lower])
def test_header_names_are_case_insensitive(spell: Any) -> None:
    assert verify({spell(name): value for name, value in HEADERS.items()})
    assert verify([(spell(name), value) for name, value in HEADERS.items()])


def test_a_secret_without_the_prefix_is_text() -> None:
    """Even one that looks like base64."""
    text = SECRET.removeprefix("whsec_")
    assert verify(signed(text.encode(), BODY), secrets=text)
    refused(SignatureMismatchError, HEADERS, secrets=text)


def test_one_of_several_secrets_and_signatures_is_enough() -> None:
    """While secrets rotate, there may be two of them; other versions of signatures are skipped."""
    assert verify(HEADERS, secrets=["a new secret", SECRET])
    other = signature(b"another", BODY)
    header = f"v1a,AAAA {other} {HEADERS['webhook-signature']}"
    assert verify(HEADERS | {"webhook-signature": header})


@pytest.mark.parametrize("name", list(HEADERS))
def test_a_missing_or_empty_header_is_refused(name: str) -> None:
    rest = {key: value for key, value in HEADERS.items() if key != name}
    for headers in (rest, rest | {name: ""}):
        refused(jobplane_client.MissingSignatureError, headers)


SIGNATURES = ["v1", "v1,", "v1,***", "v1,AAAA", "v2,AAAA", "AAAA", " , ", "v1,ä"]
OTHERS = [HEADERS["webhook-signature"].replace("v1", each, 1) for each in ("v2", "v1a", "V1", "v0")]
TIMES = ["now", "-1", "1.5", "1e9", "१६१४२६५३३०", "9" * 13, " 1"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("signature", text) for text in SIGNATURES + OTHERS]
    + [("timestamp", text) for text in TIMES]
    + [("id", "msg.1")],
)
def test_a_malformed_header_is_refused(name: str, text: str) -> None:
    """Not as a mismatch. With a dot in the id, parts of the signed content could be moved."""
    refused(MalformedSignatureError, HEADERS | {f"webhook-{name}": text})


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


def test_a_repeated_header_is_refused() -> None:
    refused(MalformedSignatureError, [*HEADERS.items(), ("Webhook-Id", "msg_2")])
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
    refused(SignatureMismatchError, headers, body)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_any_changed_byte_of_the_body_is_refused(at: int, flip: int) -> None:
    body = bytearray(BODY)
    body[at] ^= flip
    refused(SignatureMismatchError, HEADERS, bytes(body))


def test_a_webhook_more_than_five_minutes_old_or_early_is_refused() -> None:
    for age in (300, -300):
        assert verify(HEADERS, now=TIMESTAMP + age)
    stale = refused(jobplane_client.StaleTimestampError, HEADERS, now=TIMESTAMP + 301)
    assert stale.age == 301
    future = refused(jobplane_client.FutureTimestampError, HEADERS, now=TIMESTAMP - 301)
    assert future.age == -301
    assert verify(HEADERS, now=TIMESTAMP + 900, tolerance=900)


def test_the_signature_is_compared_before_the_time() -> None:
    """The time is the current time by default, for which the example of 2021 is too old."""
    with pytest.raises(jobplane_client.StaleTimestampError):
        verify_webhook(HEADERS, BODY, SECRET)
    refused(SignatureMismatchError, signed(b"wrong", BODY), now=TIMESTAMP + 1000)


def test_the_legacy_header_alone_needs_an_option() -> None:
    refused(jobplane_client.MissingSignatureError, LEGACY, LEGACY_BODY, "test-secret")
    found = verify(LEGACY, LEGACY_BODY, ["another secret", "test-secret"], allow_legacy=True)
    assert found["assembly_id"] == "abc123"


def test_the_legacy_key_is_the_secret_as_written() -> None:
    digest = hmac.new(SECRET.encode(), LEGACY_BODY, hashlib.sha256).hexdigest()
    headers = {"x-transflow-signature": f"sha256={digest}"}
    assert verify(headers, LEGACY_BODY, allow_legacy=True)


def test_the_standard_signature_decides_over_the_legacy_one() -> None:
    bad = HEADERS | LEGACY | {"webhook-signature": signature(b"wrong", LEGACY_BODY)}
    refused(SignatureMismatchError, bad, LEGACY_BODY, "test-secret", allow_legacy=True)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("sha256=", MalformedSignatureError),
        ("sha1=" + "0" * 40, MalformedSignatureError),
        ("0" * 64, MalformedSignatureError),
        ("sha256=" + "0" * 64, SignatureMismatchError),
    ],
)
def test_a_legacy_signature_is_unreadable_or_wrong(header: str, error: type[Exception]) -> None:
    refused(error, {"X-Transflow-Signature": header}, LEGACY_BODY, "test-secret", allow_legacy=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"nonsense", b"\xff", b"[" * 100_000])
def test_a_signed_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    refused(jobplane_client.WebhookBodyError, signed(b"text-key", body), body, "text-key")


@pytest.mark.parametrize(
    "secrets", ["", [], ["a good one", ""], "v1", "whsec_", "whsec_***", ["whsec_a"]]
)
def test_an_unusable_secret_is_an_error_even_beside_a_good_one(secrets: Any) -> None:
    """Any sender could sign with an empty key."""
    with pytest.raises(ValueError, match="secret"):
        verify(HEADERS, secrets=secrets)


def test_the_document_is_parsed_without_loss() -> None:
    body = json.dumps({"n": 5.2, "text": "ä"}, ensure_ascii=False).encode()
    assert verify(signed(b"text-key", body), body, "text-key") == {"n": 5.2, "text": "ä"}
