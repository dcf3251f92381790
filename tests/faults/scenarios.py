"""What happens in a run, step by step, and what must hold at its end whatever went wrong.

A scenario makes the same calls in the same order each time it is run without a fault, so that a
fault can be put at each of them in turn.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from faults.cloud import Client, Cloud, Container, Row
from faults.injecting import ProcessDiedError
from jobplane_keys import from_item

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}
KINDS_OF_END = {"complete", "error"}


class Scenario:
    """One run: `play` makes the calls that are counted, `check` tells what does not hold."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """What must be there before the first call that counts."""
        yield

    def play(self) -> None:
        raise NotImplementedError

    def rest(self) -> None:
        """Let AWS go on until nothing moves any more."""
        self.cloud.settle()

    def check(self) -> None:
        raise NotImplementedError


@contextmanager
def one_after_the_other(*processors: Container) -> Iterator[None]:
    """Jobs wait for each progress to be written, so that calls come in one order only."""
    with ExitStack() as stack:
        for container in processors:
            module = container.module
            changes = {
                "Job": stepwise(container),
                "CONCURRENT_REQUESTS": 1,
                "PROGRESS_INTERVAL_SECONDS": 0.0,
            }
            for name, value in changes.items():
                stack.enter_context(patch.object(module, name, value))
        yield


def stepwise(container: Container) -> type:
    """A container's Job whose two threads take turns."""
    plain: Any = container.module.Job

    class Job(plain):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.asked = self.written = 0
            self.ended = False

        def report(self, percentage: float, message: str, **metadata: Any) -> None:
            with self._wake:
                self.asked += 1
            super().report(percentage, message, **metadata)
            with self._wake:
                self._wake.wait_for(lambda: self.written >= self.asked or self.ended, 20)
            if container.dead:
                raise ProcessDiedError
            self.check()

        def _write(self, progress: Any) -> None:
            try:
                super()._write(progress)
            finally:
                with self._wake:
                    self.written += progress is not None
                    self._wake.notify_all()

        def _keep_safely(self) -> None:
            try:
                super()._keep_safely()
            except ProcessDiedError:
                container.dead = True
            finally:
                with self._wake:
                    self.ended = True
                    self._wake.notify_all()

    return Job


def check_requests(cloud: Cloud, **expected: str) -> None:
    """Every request has come to its one end, by its row, its history, and what was heard of it."""
    rows = {row["request_id"]: row for row in cloud.items("requests")}
    assert {name: row["status"] for name, row in rows.items()} == expected
    for row in rows.values():
        assert not row.keys() & {"lease_owner", "lease_until", "lease_shard"}, row
        assert row["attempts"] <= row["max_attempts"], row
        assert ("error" in row) == (row["status"] != "COMPLETED"), row
    changes: dict[str, list[str]] = {name: [] for name in rows}
    for record in cloud.records("requests"):
        image = from_item(record["dynamodb"]["NewImage"])
        changes[image["request_id"]].append(image["status"])
    for name, statuses in changes.items():
        ended = [status for status in statuses if status in TERMINAL]
        assert set(ended) == {expected[name]}, statuses
        assert statuses[-len(ended) :] == ended, f"{name} went on after its end: {statuses}"
    for connection_id in {target for target, _ in cloud.sockets.heard}:
        for name, row in rows.items():
            check_heard(cloud.sockets.of(connection_id, name), row)
    check_subscribers(cloud)


def check_heard(messages: list[Row], row: Row) -> None:
    """What one connection heard of a request: in order, ended once, and true.

    A message whose answer was lost is sent again as it is; clients drop what has no higher `seq`.
    """
    numbered = [message for message in messages if "seq" in message]
    numbers = [message["seq"] for message in numbered]
    assert numbers == sorted(numbers), numbers
    distinct = {message["seq"]: message for message in numbered}
    assert all(message == distinct[message["seq"]] for message in numbered), numbered
    ends = [message for message in distinct.values() if message["type"] in KINDS_OF_END]
    assert len(ends) <= 1, ends
    if ends:
        assert ends[0]["seq"] == row["seq"] == numbers[-1]
        assert (ends[0]["type"] == "complete") == (row["status"] == "COMPLETED")


def check_subscribers(cloud: Cloud) -> None:
    """A request counts as many subscribers as there are."""
    listening = Counter(row["request_key"] for row in cloud.items("subscriptions"))
    for row in cloud.items("requests"):
        key = f"{row['owner']}#{row['request_id']}"
        assert row["subscriber_count"] == listening[key], row


class JobWithProgress(Scenario):
    """A client connects, starts a job, another connection listens, the job ends."""

    def play(self) -> None:
        self.client = Client(self.cloud).connect()
        self.other = Client(self.cloud).connect()
        self.cloud.read_stream("processor", "requests")
        said = self.client.ask("delay", {"seconds": 0, "steps": 3}, id="job")
        assert said["type"] == "acknowledgment", said
        listening = self.other.ask("subscribe", {"request_id": "job"})
        assert listening["data"]["subscribed"] is True
        with one_after_the_other(self.cloud.container("processor")):
            self.cloud.flow()

    def rest(self) -> None:
        with one_after_the_other(self.cloud.container("processor")):
            self.cloud.settle()

    def check(self) -> None:
        check_requests(self.cloud, job="COMPLETED")
        later = Client(self.cloud).connect()
        state = later.ask("status", {"request_id": "job"})["data"]
        assert (state["status"], state["result"]) == ("COMPLETED", {"seconds": 0, "steps": 3})


SCENARIOS = {"job": JobWithProgress}
