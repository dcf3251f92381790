"""Signatures: Standard Webhooks, and an additional HMAC of the body alone.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
from collections.abc import Sequence

_ENCODED_SECRET_PREFIX = "whsec_"  # noqa: S105  the mark of an encoded secret, not a secret


def signing_key(secret: str) -> bytes:
    """The key of a Standard Webhooks secret: base64 after `whsec_`, any other text in UTF-8.

    Raises ValueError for a secret that is empty, or not base64 after its prefix.
    """
    key = secret.encode()
    if secret.startswith(_ENCODED_SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_ENCODED_SECRET_PREFIX), validate=True)
        except ValueError:
            raise ValueError("a whsec_ secret is not base64 after its prefix") from None
    if not key:
        raise ValueError("a webhook secret is empty")
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
    text of the secret, with a prefix if there is one. Without secrets there are only id and
    timestamp. Raises ValueError for a secret that is empty, or not base64 after `whsec_`.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secrets:
        digests = [
            standard_digest(signing_key(secret), message_id, timestamp, body) for secret in secrets
        ]
        headers["webhook-signature"] = " ".join(
            f"v1,{base64.b64encode(digest).decode()}" for digest in digests
        )
        plain = hmac.digest(secrets[0].encode(), body, "sha256").hex()
        headers["X-Transflow-Signature"] = f"sha256={plain}"
    return headers
