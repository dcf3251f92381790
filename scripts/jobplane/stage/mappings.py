"""A stream's event source mapping, as the documentation of Lambda describes it.

The local stage's launcher runs it inside MiniStack, whose own mapping retries whole batches without
end; the fault tests run it on a simulated clock. It needs the standard library only, because the
launcher has nothing else.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

type Record = dict[str, Any]
type Invoke = Callable[[dict[str, Any]], Any]
"""Invoke the function; raise FunctionError if it fails."""

BACKOFF_CAP_SECONDS = 60.0
DAY_SECONDS = 24 * 3600.0


class FunctionError(Exception):
    """An invocation failed: an exception, a time-out or a dead process."""

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Clock(Protocol):
    """The functions of the `time` module that are used."""

    def time(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


@dataclass(frozen=True)
class StreamSettings:
    batch_size: int = 100
    lanes: int = 1
    """ParallelizationFactor: batches at a time; all records of an item are in the same one."""
    bisects: bool = False
    retries: int = -1
    """MaximumRetryAttempts; -1: unlimited, until the records are too old."""
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
        """The number of the lane for all records of this item."""
        keys = json.dumps(record["dynamodb"]["Keys"], sort_keys=True).encode()
        return zlib.crc32(keys) % self.lanes


@dataclass
class Delivery:
    """Deliver the batches of one shard to their function.

    - With ReportBatchItemFailures the lowest failed sequence number is the checkpoint: it and all
      later ones are retried. An unknown or empty sequence number fails the whole batch.
    - An invocation that failed fails the batch; with BisectBatchOnFunctionError it is split, which
      is not counted as a retry. A partial failure splits at its checkpoint. The documentation does
      not say whether the rest gets new retries; here it does not.
    - Records that used up their retries or are too old are discarded, with the reason and the
      number of attempts. The shard continues.
    """

    settings: StreamSettings
    invoke: Invoke
    clock: Clock
    discard: Callable[[list[Record], str, int], None]
    invocations: int = 0

    def deliver(self, batch: list[Record]) -> None:
        """Process a batch, with retries; discard it if they fail."""
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
        """The records to retry, and whether the whole batch failed."""
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
    """The time at which a record entered its stream, in epoch seconds."""
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def failed_names(answer: Any) -> set[str] | None:
    """The items that a function reports as failed; None if its answer fails the whole batch."""
    if answer is None or answer == {}:
        return set()
    try:
        failures = answer["batchItemFailures"] or []
        names = [failure["itemIdentifier"] for failure in failures]
    except (KeyError, TypeError):
        return None
    return set(names) if all(isinstance(name, str) and name for name in names) else None
