"""Signatures: Standard Webhooks, and an additional HMAC of the body alone.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
from collections.abc import Sequence

_ENCODED_SECRET_PREFIX = "whsec_"  # noqa: S105  the mark of an encoded secret, not a secret
_SHOWN_PREFIX = f"v1,{_ENCODED_SECRET_PREFIX}"
_ASYMMETRIC_PREFIXES = ("whsk_", "whpk_", "v1a,")
_MIN_KEY_BYTES = 24  # of an encoded secret, by Standard Webhooks
_MIN_TEXT_BYTES = 8


def bare_secret(secret: str) -> str:
    """The secret without the `v1,` that some providers show before `whsec_`."""
    return secret.removeprefix("v1,") if secret.startswith(_SHOWN_PREFIX) else secret


def signing_key(secret: str) -> bytes:
    """The key of a Standard Webhooks secret: base64 after `whsec_` (or `v1,whsec_`), any other
    text in UTF-8.

    Raises ValueError for a secret that is empty, not base64 after its prefix, shorter than 24 bytes
    (8, if it is text), or for asymmetric signatures.
    """
    secret = bare_secret(secret)
    if not secret:
        raise ValueError("a webhook secret is empty")
    if secret.startswith(_ASYMMETRIC_PREFIXES):
        raise ValueError("a webhook secret is a key for asymmetric signatures; use a whsec_ secret")
    key, least = secret.encode(), _MIN_TEXT_BYTES
    if secret.startswith(_ENCODED_SECRET_PREFIX):
        least = _MIN_KEY_BYTES
        try:
            key = base64.b64decode(secret.removeprefix(_ENCODED_SECRET_PREFIX), validate=True)
        except ValueError:
            raise ValueError("a whsec_ secret is not base64 after its prefix") from None
    if len(key) < least:
        raise ValueError(f"a webhook secret has {len(key)} bytes, but needs {least}")
    return key


def standard_digest(key: bytes, message_id: str, timestamp: int | str, body: bytes) -> bytes:
    """The HMAC-SHA256 of `id.timestamp.body`; in base64 it is a `v1` signature."""
    return hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")


def signed_headers(
    secrets: Sequence[str], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers of an attempt, signed with each of `secrets`.

    `message_id` is the same for all attempts and has no dot; `timestamp` is in epoch seconds.
    `X-Transflow-Signature` is the HMAC of the body with the first secret; its key is the whole
    text of the secret, with the prefix `whsec_` if there is one. Without secrets there are only id
    and timestamp. Raises ValueError for a secret that `signing_key` refuses.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secrets:
        digests = [
            standard_digest(signing_key(secret), message_id, timestamp, body) for secret in secrets
        ]
        headers["webhook-signature"] = " ".join(
            f"v1,{base64.b64encode(digest).decode()}" for digest in digests
        )
        plain = hmac.digest(bare_secret(secrets[0]).encode(), body, "sha256").hex()
        headers["X-Transflow-Signature"] = f"sha256={plain}"
    return headers
