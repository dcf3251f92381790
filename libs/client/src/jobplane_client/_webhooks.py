"""Verification of webhook notifications."""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobplane_client._errors import (
    FutureTimestampError,
    MalformedSignatureError,
    MissingSignatureError,
    SignatureMismatchError,
    StaleTimestampError,
    WebhookBodyError,
)
from jobplane_webhooks import bare_secret, signing_key, standard_digest

_ID, _TIMESTAMP, _SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_LEGACY_SIGNATURE = "x-transflow-signature"
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_HEX_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")

type Headers = Mapping[str, str] | Iterable[tuple[str, str]]


def verify_webhook(
    headers: Headers,
    raw_body: bytes | str,
    secrets: str | Sequence[str],
    tolerance: float = 300,
    now: float | None = None,
    *,
    allow_legacy: bool = False,
) -> dict[str, Any]:
    """Verify a webhook notification and return its document.

    `raw_body` is the body as it arrived, before any parsing. `secrets` is one secret, or several
    while they rotate. The key of a secret `whsec_…` or `v1,whsec_…` is the base64 text after it,
    decoded; the key of any other secret is its text in UTF-8. The timestamp may be at most
    `tolerance` seconds before or after `now` (epoch seconds).

    The Standard Webhooks headers are required. `allow_legacy` also accepts a notification that
    has only `X-Transflow-Signature`. It has no timestamp, so it can be replayed at any time. Its
    key is always the secret's whole text in UTF-8, with a prefix if there is one.

    Retries of one notification have the same `webhook-id`: store the ids that you have processed.

    Raises MissingSignatureError, MalformedSignatureError, SignatureMismatchError,
    StaleTimestampError, FutureTimestampError or WebhookBodyError; ValueError for a secret that
    is empty, too short, or not base64 after its prefix.
    """
    texts = [secrets] if isinstance(secrets, str) else list(secrets)
    keys = [signing_key(text) for text in texts]
    if not keys:
        raise ValueError("at least one webhook secret is required")
    body = raw_body.encode() if isinstance(raw_body, str) else raw_body
    known = _by_lower_name(headers)
    if known.get(_SIGNATURE):
        _verify_standard(known, body, keys, tolerance, time.time() if now is None else now)
    elif allow_legacy and known.get(_LEGACY_SIGNATURE):
        _verify_legacy(
            known[_LEGACY_SIGNATURE], body, [bare_secret(text).encode() for text in texts]
        )
    else:
        raise MissingSignatureError(f"the notification has no {_SIGNATURE} header")
    return _document(body)


def _verify_standard(
    headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], tolerance: float, now: float
) -> None:
    for name in (_ID, _TIMESTAMP):
        if not headers.get(name):
            raise MissingSignatureError(f"the notification has no {name} header")
    if "." in headers[_ID]:
        raise MalformedSignatureError(f"{_ID} contains a dot; dots separate the signed parts")
    if not _SECONDS.fullmatch(headers[_TIMESTAMP]):
        raise MalformedSignatureError(f"{_TIMESTAMP} is not a number of seconds")
    expected = [standard_digest(key, headers[_ID], headers[_TIMESTAMP], body) for key in keys]
    if not _any_equal(expected, _standard_signatures(headers[_SIGNATURE])):
        raise SignatureMismatchError("no signature matches the body and a secret")
    age = now - int(headers[_TIMESTAMP])
    if age > tolerance:
        raise StaleTimestampError(
            f"the notification is {age:.0f} s old; at most {tolerance:.0f} s are allowed", age=age
        )
    if -age > tolerance:
        raise FutureTimestampError(
            f"the notification's time is {-age:.0f} s in the future", age=age
        )


def _verify_legacy(header: str, body: bytes, keys: Sequence[bytes]) -> None:
    match = _HEX_SIGNATURE.fullmatch(header.strip())
    if match is None:
        raise MalformedSignatureError("X-Transflow-Signature is not sha256=<64 hex digits>")
    expected = [hmac.digest(key, body, hashlib.sha256) for key in keys]
    if not _any_equal(expected, [bytes.fromhex(match[1])]):
        raise SignatureMismatchError("no signature matches the body and a secret")


def _standard_signatures(header: str) -> list[bytes]:
    """The `v1` signatures of the header; other versions are ignored."""
    signatures = []
    for entry in header.split():
        version, _, text = entry.partition(",")
        if version != "v1":
            continue
        try:
            signature = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(signature) == hashlib.sha256().digest_size:
            signatures.append(signature)
    if not signatures:
        raise MalformedSignatureError(f"{_SIGNATURE} has no v1 signature")
    return signatures


def _any_equal(expected: Iterable[bytes], given: Sequence[bytes]) -> bool:
    # Every pair is compared, so that the duration does not show which secret matched.
    found = False
    for one in expected:
        for other in given:
            found |= hmac.compare_digest(one, other)
    return found


def _by_lower_name(headers: Headers) -> dict[str, str]:
    known: dict[str, str] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        lower = name.lower()
        if lower in known and lower in (_ID, _TIMESTAMP, _SIGNATURE, _LEGACY_SIGNATURE):
            raise MalformedSignatureError(f"the {lower} header appears twice")
        known[lower] = value
    return known


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WebhookBodyError("the body is not JSON") from error
    if not isinstance(document, dict):
        raise WebhookBodyError("the body is not a JSON object")
    return document
