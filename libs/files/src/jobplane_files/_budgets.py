"""The limits of one answer, in time and size, and the capacity that it consumes."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class Budget:
    """How long and how large an answer may become, and what reading it has consumed."""

    deadline: float
    clock: Callable[[], float]
    """The time, on the same scale as `deadline`."""
    full_bytes: int
    """At this size an answer ends, with a token to continue."""
    read_units: float = 0.0
    write_units: float = 0.0
    _answer_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seconds_left(self) -> float:
        """Seconds up to the deadline; below zero after it."""
        return self.deadline - self.clock()

    def is_late(self) -> bool:
        """Whether the deadline is reached."""
        return self.seconds_left() <= 0

    def is_over(self) -> bool:
        """Whether the answer must end: it is full, or the deadline is reached."""
        return self._answer_bytes >= self.full_bytes or self.is_late()

    def sized[T](self, part: T) -> T:
        """The same part of the answer, after counting its bytes as JSON text in JSON."""
        self._answer_bytes += len(json.dumps(json.dumps(part))) + 1
        return part

    def charge(self, answer: Mapping[str, Any], *, write: bool = False) -> None:
        """Add the `ConsumedCapacity` of an answer of DynamoDB; threads may share a budget."""
        consumed = answer.get("ConsumedCapacity") or []
        parts = consumed if isinstance(consumed, list) else [consumed]
        units = sum(part["CapacityUnits"] for part in parts)
        with self._lock:
            if write:
                self.write_units += units
            else:
                self.read_units += units
