"""Watching the tracking table's stream for files that change their status."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jobplane_files._counters import moved_before
from jobplane_keys.tracking import DEFAULT_STATUS_SHARDS

# An open shard has no end, and GetRecords may return empty pages before it returns records. A shard
# is read up to a time when it returns a later record, or after so many empty pages in a row. Lambda
# reads each shard four times a second, and DynamoDB allows five.
_EMPTY_PAGES = 10
_LOOK_SECONDS = 1.0

FILES_CHANGED = "files changed during the count; repeat it later"
STREAM_TIMED_OUT = "timed out before the end of the stream; repeat it when fewer files change"
ITERATORS_EXPIRED = (
    "the stream's iterators have expired; request the parts of a count without a pause"
)


@dataclass
class StreamWatch:
    """Whether a file changes its status, however late the stream's other readers are."""

    client: Any
    """Of DynamoDB Streams."""
    stream_arn: str
    is_late: Callable[[], bool]
    sleep: Callable[[float], None]
    shards: int = DEFAULT_STATUS_SHARDS
    """The number of shards of a status."""
    iterators: dict[str, str | None] = field(default_factory=dict)
    """The next iterator of each shard of the stream; None when the shard is read completely."""
    doubt: str | None = None
    """Why it is not certain that no file changed."""

    @property
    def state(self) -> dict[str, Any]:
        """What another watch needs to go on, as JSON values: its `iterators` and `doubt`."""
        return {"iterators": self.iterators, "doubt": self.doubt}

    def begin(self) -> None:
        """Start at the present end of the stream."""
        for shard, is_open in self._stream_shards():
            self.iterators[shard] = None
            if is_open:
                self.iterators[shard] = self._read(self._iterator_of(shard, "LATEST"))[1]

    def keep(self) -> None:
        """Read on, because an iterator expires after a quarter of an hour."""
        for shard in self.iterators:
            if self.doubt is None:
                self._look(shard, math.inf)

    def end(self, moment: float) -> None:
        """Read each shard up to a moment, which may be a little ahead."""
        self._add_shards()
        empty = Counter[str]()
        while self.doubt is None and (
            waiting := [
                shard
                for shard, iterator in self.iterators.items()
                if iterator is not None and empty[shard] < _EMPTY_PAGES
            ]
        ):
            if self.is_late():
                self.doubt = STREAM_TIMED_OUT
                break
            self.sleep(_LOOK_SECONDS)
            for shard in waiting:
                empty[shard] = 0 if self._look(shard, moment) else empty[shard] + 1
            if any(self.iterators[shard] is None for shard in waiting):
                self._add_shards()

    def _add_shards(self) -> None:
        """Add the shards that are new: when a shard ends, others go on with its changes."""
        for shard, _ in self._stream_shards():
            if shard not in self.iterators:
                self.iterators[shard] = self._iterator_of(shard, "TRIM_HORIZON")

    def _look(self, shard: str, moment: float) -> bool:
        """Read a shard up to an empty page, or to a moment; whether there were changes."""
        has_changes = False
        while (iterator := self.iterators[shard]) is not None:
            try:
                changes, self.iterators[shard] = self._read(iterator)
            except (
                self.client.exceptions.ExpiredIteratorException,
                self.client.exceptions.TrimmedDataAccessException,
            ):
                self.doubt = ITERATORS_EXPIRED
                break
            moved, is_past = moved_before(changes, moment, self.shards)
            if moved:
                self.doubt = FILES_CHANGED
            if is_past:
                self.iterators[shard] = None
            elif not changes or self.is_late():
                break
            has_changes = True
        return has_changes

    def _stream_shards(self) -> Iterator[tuple[str, bool]]:
        """The shards of the stream, and whether each is still open."""
        page: dict[str, str] = {}
        while True:
            described = self.client.describe_stream(StreamArn=self.stream_arn, **page)
            description = described["StreamDescription"]
            for shard in description["Shards"]:
                yield shard["ShardId"], "EndingSequenceNumber" not in shard["SequenceNumberRange"]
            if "LastEvaluatedShardId" not in description:
                return
            page = {"ExclusiveStartShardId": description["LastEvaluatedShardId"]}

    def _iterator_of(self, shard: str, place: str) -> str:
        answer = self.client.get_shard_iterator(
            StreamArn=self.stream_arn, ShardId=shard, ShardIteratorType=place
        )
        return str(answer["ShardIterator"])

    def _read(self, iterator: str) -> tuple[list[dict[str, Any]], str | None]:
        """A page of a shard's changes, and the next iterator; None at the end of a closed shard."""
        answer = self.client.get_records(ShardIterator=iterator)
        return [record["dynamodb"] for record in answer["Records"]], answer.get("NextShardIterator")
