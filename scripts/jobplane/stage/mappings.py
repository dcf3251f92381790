"""A stream's event source mapping, as Lambda delivers its records by the documentation.

The local stage's launcher runs it under MiniStack, which retries a batch as a whole and without
end; the fault tests run it on a clock of their own. The standard library only: the launcher has
nothing else.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

type Record = dict[str, Any]
type Invoke = Callable[[dict[str, Any]], Any]
"""Runs the function; FunctionError when it fails in whatever way."""

BACKOFF_CAP_SECONDS = 60.0
DAY_SECONDS = 24 * 3600.0


class FunctionError(Exception):
    """An invocation ended without an answer: an exception, a time-out, a dead process."""

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Clock(Protocol):
    """What the `time` module has of it."""

    def time(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


@dataclass(frozen=True)
class StreamSettings:
    """What a mapping says of its stream, by the names of Lambda's API."""

    batch_size: int = 100
    lanes: int = 1
    """ParallelizationFactor: batches at a time, with an item's records always in the same."""
    bisects: bool = False
    retries: int = -1
    """MaximumRetryAttempts; -1: no end but the records' age."""
    max_age: float = DAY_SECONDS
    reports: bool = False
    """ReportBatchItemFailures."""

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Self:
        """The settings of an EventSourceMapping as Lambda's API shows it."""

        def number(name: str, default: int) -> int:
            given = mapping.get(name)
            return default if given is None else int(given)

        age = number("MaximumRecordAgeInSeconds", -1)
        return cls(
            batch_size=number("BatchSize", 100),
            lanes=number("ParallelizationFactor", 1),
            bisects=str(mapping.get("BisectBatchOnFunctionError")).lower() == "true",
            retries=number("MaximumRetryAttempts", -1),
            max_age=DAY_SECONDS if age == -1 else float(age),
            reports="ReportBatchItemFailures" in (mapping.get("FunctionResponseTypes") or ()),
        )

    def lane_of(self, record: Record) -> int:
        """The number of the lane that all records of this item take."""
        keys = json.dumps(record["dynamodb"]["Keys"], sort_keys=True).encode()
        return zlib.crc32(keys) % self.lanes


@dataclass
class Delivery:
    """Brings the batches of one shard to their function.

    - With ReportBatchItemFailures the lowest failed sequence number is the checkpoint: it and all
      after it come again. A name that is no record's, or none, fails the whole batch.
    - An invocation that failed fails the batch; with BisectBatchOnFunctionError it is split, which
      costs no retry. A partial failure splits at its checkpoint. Where the documentation does not
      say whether the rest has its retries anew, it has not.
    - What has used up its retries, or is too old, is discarded: the records, why, and how often
      they were tried. The shard goes on.
    """

    settings: StreamSettings
    invoke: Invoke
    clock: Clock
    discard: Callable[[list[Record], str, int], None]
    invocations: int = 0

    def deliver(self, batch: list[Record]) -> None:
        """Have a batch processed, or discarded in the end."""
        pending, retries = [(batch, 0)], self.settings.retries
        while pending:
            batch, used = pending.pop(0)
            if self.clock.time() - arrival(batch[0]) > self.settings.max_age:
                self.discard(batch, "RecordAgeExceeded", used)
                continue
            rest, whole = self._rest(batch)
            if not rest:
                continue
            if whole and self.settings.bisects and len(rest) > 1:
                half = len(rest) // 2
                pending[:0] = [(rest[:half], used), (rest[half:], used)]
            elif used == retries:
                self.discard(rest, "RetryAttemptsExhausted", used + 1)
            else:
                self.clock.sleep(min(BACKOFF_CAP_SECONDS, 2**used))
                pending.insert(0, (rest, used + 1))

    def _rest(self, batch: list[Record]) -> tuple[list[Record], bool]:
        """What has to come again, and whether the batch failed as a whole."""
        self.invocations += 1
        try:
            answer = self.invoke({"Records": batch})
        except FunctionError:
            return batch, True
        if not self.settings.reports:
            return [], False
        named = failed_names(answer)
        known = [record["dynamodb"]["SequenceNumber"] for record in batch]
        if named is None or not named <= set(known):
            return batch, True
        failed = [number for number, name in enumerate(known) if name in named]
        return (batch[failed[0] :] if failed else []), False


def arrival(record: Record) -> float:
    """When a record came into its stream, in epoch seconds."""
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def failed_names(answer: Any) -> set[str] | None:
    """The items that a function wants again; None when its answer fails the whole batch."""
    if answer is None or answer == {}:
        return set()
    try:
        failures = answer["batchItemFailures"] or []
        names = [failure["itemIdentifier"] for failure in failures]
    except (KeyError, TypeError):
        return None
    return set(names) if all(isinstance(name, str) and name for name in names) else None
