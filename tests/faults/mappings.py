"""Event source mappings of the simulated stage, on its own clock.

How a stream's batches are delivered is jobplane.stage.mappings; here is what stands before it on
AWS.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Any

from jobplane.stage.mappings import Delivery, FunctionError, Invoke, Record, failed_names


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


@dataclass(slots=True)
class StreamMapping:
    """The poller of one stream's only shard.

    Records that no filter pattern fits are left out before batches are made.
    """

    delivery: Delivery
    patterns: Sequence[Mapping[str, Any]] = ()
    arrange: Callable[[list[list[Record]]], list[list[Record]]] = lambda batches: batches
    """A test may deliver the batches of a reading in another order, or twice."""
    waiting: list[Record] = field(default_factory=list)

    def put(self, records: Iterable[Record]) -> None:
        """Add records to the stream."""
        self.waiting += [record for record in records if self._wanted(record)]

    def poll(self) -> bool:
        """Deliver what is in the stream; whether there was anything."""
        records, self.waiting = self.waiting, []
        lanes: dict[int, list[Record]] = {}
        for record in records:
            lanes.setdefault(self.delivery.settings.lane_of(record), []).append(record)
        size = self.delivery.settings.batch_size
        batches = [
            [*batch] for lane in lanes.values() for batch in batched(lane, size, strict=False)
        ]
        for batch in self.arrange(batches):
            self.delivery.deliver(batch)
        return bool(records)

    def _wanted(self, record: Record) -> bool:
        return not self.patterns or any(matches(pattern, record) for pattern in self.patterns)


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
        names = ("MessageId", "ReceiptHandle", "Body", "Attributes")
        same = {"messageAttributes": {}, "eventSource": "aws:sqs"}
        records = {
            message["MessageId"]: {name[0].lower() + name[1:]: message[name] for name in names}
            | same
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
