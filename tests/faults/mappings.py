"""Event source mappings, as Lambda reads streams and queues by its documentation.

The emulator retries a stream's batch as a whole and has no end to it; AWS has a checkpoint, splits,
a cap, an age, and a destination for what it gives up.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

type Record = dict[str, Any]
type Invoke = Callable[[dict[str, Any]], Any]
"""Runs the function; FunctionError when it fails in whatever way."""

BACKOFF_CAP_SECONDS = 60.0


class FunctionError(Exception):
    """An invocation ended without an answer: an exception, a time-out, a dead process."""

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def matches(pattern: Mapping[str, Any], value: Any) -> bool:
    """Whether an event fits a filter pattern: exact values, `anything-but`, nesting."""
    if not isinstance(value, Mapping):
        return False
    for name, wanted in pattern.items():
        if isinstance(wanted, Mapping):
            if not matches(wanted, value.get(name)):
                return False
        elif name not in value or not any(_fits(rule, value[name]) for rule in wanted):
            return False
    return True


def _fits(rule: Any, value: Any) -> bool:
    if isinstance(rule, Mapping):
        if set(rule) != {"anything-but"}:
            raise ValueError(f"a filter rule that is not simulated: {rule}")
        return value not in rule["anything-but"]
    return bool(rule == value)


@dataclass(frozen=True)
class StreamSettings:
    """What function.yml says of a stream."""

    batch_size: int = 100
    lanes: int = 1
    """ParallelizationFactor: batches at a time, with an item's records always in the same."""
    bisects: bool = False
    retries: int = -1
    """MaximumRetryAttempts; -1: no end but the records' age."""
    max_age: float = 24 * 3600.0
    reports: bool = False
    """ReportBatchItemFailures."""
    patterns: Sequence[Mapping[str, Any]] = ()
    destination: bool = False

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "StreamSettings":
        age = event.get("maximumRecordAgeInSeconds", -1)
        return cls(
            batch_size=event.get("batchSize", 100),
            lanes=event.get("parallelizationFactor", 1),
            bisects=event.get("bisectBatchOnFunctionError", False),
            retries=event.get("maximumRetryAttempts", -1),
            max_age=24 * 3600.0 if age == -1 else float(age),
            reports=event.get("functionResponseType") == "ReportBatchItemFailures",
            patterns=event.get("filterPatterns", ()),
            destination="onFailure" in event.get("destinations", {}),
        )


@dataclass
class Clock:
    """Time that passes when it is told to."""

    now: float

    def time(self) -> float:
        return self.now

    monotonic = perf_counter = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class StreamMapping:
    """The poller of one stream's only shard.

    - Records that no filter pattern fits are left out before batches are made.
    - With ReportBatchItemFailures the lowest failed sequence number is the checkpoint: it and all
      after it come again. A name that is no record's, or none, fails the whole batch.
    - An invocation that failed fails the batch; with BisectBatchOnFunctionError it is split, which
      costs no retry. A partial failure splits at its checkpoint. Where the documentation does not
      say whether the rest has its retries anew, it has not.
    - What has used up its retries, or is too old, goes to the destination as a description without
      the records, and the shard goes on.
    """

    settings: StreamSettings
    invoke: Invoke
    clock: Clock
    discard: Callable[[dict[str, Any]], None] = lambda _: None
    arrange: Callable[[list[list[Record]]], list[list[Record]]] = lambda batches: batches
    """A test may deliver the batches of a reading in another order, or twice."""
    invocations: int = 0
    waiting: list[Record] = field(default_factory=list)

    def put(self, records: Iterable[Record]) -> None:
        """Records that came into the stream."""
        self.waiting += [record for record in records if self._wanted(record)]

    def poll(self) -> bool:
        """Deliver what is in the stream; whether there was anything."""
        records, self.waiting = self.waiting, []
        lanes: dict[int, list[Record]] = {}
        for record in records:
            key = json.dumps(record["dynamodb"]["Keys"], sort_keys=True).encode()
            lanes.setdefault(zlib.crc32(key) % self.settings.lanes, []).append(record)
        size = self.settings.batch_size
        batches = [
            lane[start : start + size]
            for lane in lanes.values()
            for start in range(0, len(lane), size)
        ]
        for batch in self.arrange(batches):
            self._deliver(batch)
        return bool(records)

    def _wanted(self, record: Record) -> bool:
        patterns = self.settings.patterns
        return not patterns or any(matches(pattern, record) for pattern in patterns)

    def _deliver(self, batch: list[Record]) -> None:
        pending, retries = [(batch, 0)], self.settings.retries
        while pending:
            batch, used = pending.pop(0)
            if self.clock.now - arrival(batch[0]) > self.settings.max_age:
                self._give_up(batch, "RecordAgeExceeded", used)
                continue
            rest, whole = self._rest(batch)
            if not rest:
                continue
            if whole and self.settings.bisects and len(rest) > 1:
                half = len(rest) // 2
                pending[:0] = [(rest[:half], used), (rest[half:], used)]
            elif used == retries:
                self._give_up(rest, "RetryAttemptsExhausted", used + 1)
            else:
                self.clock.sleep(min(BACKOFF_CAP_SECONDS, 2.0**used))
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

    def _give_up(self, batch: list[Record], condition: str, invocations: int) -> None:
        names = [record["dynamodb"]["SequenceNumber"] for record in batch]
        self.discard(
            {
                "requestContext": {
                    "condition": condition,
                    "approximateInvokeCount": invocations,
                },
                "DDBStreamBatchInfo": {
                    "shardId": "shardId-1",
                    "startSequenceNumber": names[0],
                    "endSequenceNumber": names[-1],
                    "batchSize": len(batch),
                },
            }
        )


def arrival(record: Record) -> float:
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


@dataclass
class QueueMapping:
    """The poller of a queue: what the function does not name as failed is deleted.

    Visibility, counts of receives and the way to the dead-letter queue are the queue's own.
    """

    batch_size: int
    invoke: Invoke
    sqs: Any
    url: str
    arrange: Callable[[list[Record]], list[Record]] = lambda records: records

    def poll(self) -> bool:
        """Deliver one batch of what is visible; whether there was anything."""
        found = self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=self.batch_size,
            AttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        ).get("Messages", [])
        if not found:
            return False
        records = {
            message["MessageId"]: {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": {},
                "eventSource": "aws:sqs",
            }
            for message in found
        }
        try:
            failed = failed_names(self.invoke({"Records": self.arrange(list(records.values()))}))
        except FunctionError:
            return True
        if failed is None or not failed <= set(records):
            return True
        for name in set(records) - failed:
            handle = records[name]["receiptHandle"]
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=handle)
        return True
