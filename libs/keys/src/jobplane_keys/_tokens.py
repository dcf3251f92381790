"""Tokens that continue a long answer."""

import base64
import hashlib
import json
import zlib
from contextlib import suppress
from typing import Any

_DIGEST_BYTES = 16
_MAX_POSITION_BYTES = 8 * 1024 * 1024


def make_token(position: Any, question: Any) -> str:
    """A token for a position, both JSON values; only the same question can read it."""
    payload = zlib.compress(json.dumps(position, separators=(",", ":")).encode())
    return base64.urlsafe_b64encode(_digest(question, payload) + payload).decode()


def read_token(token: str, question: Any) -> Any:
    """The position of a token; ValueError if it is damaged or was made for another question."""
    try:
        content = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        content = b""
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if digest == _digest(question, payload):
        # A caller can compute the digest as well.
        with suppress(ValueError, RecursionError, zlib.error):
            text = zlib.decompressobj().decompress(payload, _MAX_POSITION_BYTES + 1)
            if len(text) <= _MAX_POSITION_BYTES:
                return json.loads(text)
    raise ValueError("is damaged, or belongs to another request")


def _digest(question: Any, payload: bytes) -> bytes:
    """Detects mistakes and damage.

    It needs no key: a caller who may ask the question may also make every change that a forged
    position could lead to.
    """
    text = json.dumps(question, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(text).digest() + payload).digest()[:_DIGEST_BYTES]
