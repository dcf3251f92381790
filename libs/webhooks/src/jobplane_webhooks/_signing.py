"""Signatures: Standard Webhooks, and the plain HMAC of the body beside it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
from collections.abc import Sequence

_ENCODED_SECRET_PREFIX = "whsec_"  # noqa: S105  the mark of an encoded secret, not a secret


def signing_key(secret: str) -> bytes:
    """The key of Standard Webhooks: what `whsec_` introduces is base64, other text is the key.

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
    """What a `v1` signature encodes: the HMAC-SHA256 of `id.timestamp.body`."""
    return hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")


def signed_headers(
    secrets: Sequence[str], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Headers of an attempt: Standard Webhooks with every secret, the plain HMAC with the first.

    `message_id` is the same for every attempt and holds no dot; `timestamp` is in epoch seconds.
    The plain `X-Transflow-Signature` takes the secret's own bytes, prefix included. Without
    secrets there are id and timestamp alone. Raises ValueError for a secret that makes no key.
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
