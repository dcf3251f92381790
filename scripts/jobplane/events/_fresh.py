"""Timestamps and ids of an event: new for each event, or derived from a seed."""

import base64
import random
import string
import time
import uuid
from datetime import UTC, datetime

# The time of a seeded event; functions/*/events use the same one.
SEEDED_AT = 1_795_342_530.25


class Fresh:
    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self.now = time.time() if seed is None else SEEDED_AT

    @property
    def milliseconds(self) -> int:
        return int(self.now * 1000)

    def iso(self, *, fraction: bool = False) -> str:
        moment = datetime.fromtimestamp(self.now, UTC)
        text = moment.isoformat(timespec="milliseconds" if fraction else "seconds")
        return text.replace("+00:00", "Z")

    def request_time(self) -> str:
        """The time in API Gateway's format: 22/Nov/2026:10:15:30 +0000."""
        return datetime.fromtimestamp(self.now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def hex(self, digits: int) -> str:
        return "".join(self._random.choices(string.hexdigits[:16], k=digits))

    def digits(self, count: int) -> str:
        return "".join(self._random.choices(string.digits[1:], k=count))

    def token(self, octets: int) -> str:
        """An id in base64, like those of API Gateway."""
        return base64.b64encode(self._random.randbytes(octets)).decode()

    def api_id(self) -> str:
        return "".join(self._random.choices(string.ascii_lowercase + string.digits, k=10))

    def trace(self) -> str:
        return f"Root=1-{int(self.now):08x}-{self.hex(24)}"
