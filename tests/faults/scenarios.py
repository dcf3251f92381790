"""The steps of a run, and what must hold at its end after any fault.

A scenario makes the same calls in the same order each time it is run without a fault, so that a
fault can be put at each of them in turn.
"""

import hashlib
import itertools
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any
from unittest.mock import patch

import moto.s3.models

from jobplane.stage.mappings import FunctionError
from jobplane_keys import from_item
from jobplane_leases import jobs
from tests.faults.cloud import Client, Cloud, Container, Row
from tests.faults.injecting import KINDS, Plan, ProcessDiedError

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}
KINDS_OF_END = {"complete", "error"}


class Scenario(ABC):
    """One run: `play` makes the calls that are counted, `check` asserts what must hold."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Prepare the state before the first counted call."""
        yield

    @abstractmethod
    def play(self) -> None:
        """Make the calls that are counted."""

    def rest(self) -> None:
        """Let streams, queues and schedules run until nothing changes."""
        self.cloud.settle()

    @abstractmethod
    def check(self) -> None:
        """Assert what must hold at the end."""

    def finish(self) -> None:
        """Let everything run to the end, and check it."""
        self.rest()
        self.check()

    def run(self) -> None:
        self.play()
        self.finish()


type Hook = Callable[[int], None]
"""Runs at the n-th report of a job, counted from 1 over all attempts of a run."""


@contextmanager
def one_after_the_other(*processors: Container, hook: Hook = lambda _: None) -> Iterator[None]:
    """Let jobs wait for each progress write, so that the order of calls is fixed."""
    with ExitStack() as stack:
        for container in processors:
            module = container.module
            changes: Any = {"PROGRESS_INTERVAL_SECONDS": 0.0}
            stack.enter_context(patch.multiple(module, Job=stepwise(container, hook), **changes))
        yield


def stepwise(container: Container, hook: Hook) -> type:
    """A container's Job whose two threads take turns."""
    plain: Any = container.module.Job
    reports = itertools.count(1)

    class Job(plain):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.asked = self.noted = 0
            self.ended = False

        def report(self, percentage: float, message: str, **metadata: Any) -> None:
            hook(next(reports))
            with self._wake:
                self.asked += 1
            super().report(percentage, message, **metadata)
            with self._wake:
                self._wake.wait_for(lambda: self.noted >= self.asked or self.ended, 20)
            if container.dead:
                raise ProcessDiedError
            self.check()

        def _write(self, progress: Any) -> None:
            try:
                super()._write(progress)
            except Exception:
                # As long as an endpoint that does not answer keeps a worker waiting.
                container.cloud.clock.advance(20)
                raise
            self.outbox.drain(20)
            with self._wake:
                self.noted += progress is not None
                self._wake.notify_all()

        def _post(self, *arguments: Any) -> None:
            try:
                super()._post(*arguments)
            except ProcessDiedError:
                container.dead = True

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
    """Every request has come to its one end, by its row, its history, and what was heard of it.

    Args:
        expected: the end of each request; where several are right, with `|` between them.
    """
    rows = {row["request_id"]: row for row in cloud.items("requests")}
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        assert row["status"] in expected[name].split("|"), row
        assert not row.keys() & {"lease_owner", "lease_until", "lease_shard"}, row
        assert row["attempts"] <= row["max_attempts"], row
        assert ("error" in row) == (row["status"] != "COMPLETED"), row
    changes: dict[str, list[str]] = {name: [] for name in rows}
    for record in cloud.records("requests"):
        image = from_item(record["dynamodb"]["NewImage"])
        changes[image["request_id"]].append(image["status"])
    for name, statuses in changes.items():
        ended = [status for status in statuses if status in TERMINAL]
        assert set(ended) == {rows[name]["status"]}, statuses
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
    """A request's count of subscribers is the number of its rows."""
    listening = Counter(row["request_key"] for row in cloud.items("subscriptions"))
    for row in cloud.items("requests"):
        key = f"{row['owner']}#{row['request_id']}"
        assert row["subscriber_count"] == listening[key], row


class Jobs(Scenario):
    """Requests, their stream and queue, and the processors."""

    CONTAINERS: tuple[str, ...] = ("processor",)
    END = "COMPLETED"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.client = Client(cloud)
        self.running = 0
        self.disturbed = False

    @contextmanager
    def prepared(self) -> Iterator[None]:
        containers = [self.cloud.container("processor", name) for name in self.CONTAINERS]
        self.cloud.read_stream("dispatch", "requests")
        self.cloud.read_queue("processor", "jobs").invoke = self.process
        with one_after_the_other(*containers, hook=self.at):
            yield

    def process(self, event: Row) -> Any:
        """Run the processor in a free container."""
        container = self.cloud.container("processor", self.CONTAINERS[self.running])
        self.running += 1
        try:
            return container.invoke(event)
        finally:
            self.running -= 1

    def at(self, report: int) -> None:
        if report >= 2 and not self.disturbed:
            self.disturbed = True
            self.disturb()

    def disturb(self) -> None:
        """What happens at a job's second report."""

    def cancel(self, expected: str) -> None:
        """The client cancels its job."""
        said = self.client.ask("cancel", {"request_id": "job"})
        assert said["data"]["status"] == expected, said

    def check(self) -> None:
        check_requests(self.cloud, job=self.END)

    def later(self, request_id: str) -> Row:
        """The answer to a client that subscribes later."""
        state: Row = Client(self.cloud).connect().ask("status", {"request_id": request_id})["data"]
        return state


class JobWithProgress(Jobs):
    """A client connects, starts a job, another connection listens, the job ends."""

    def play(self) -> None:
        self.client.connect()
        said = self.client.ask("delay", {"seconds": 0, "steps": 3}, id="job")
        assert said["type"] == "acknowledgment", said
        listening = Client(self.cloud).connect().ask("subscribe", {"request_id": "job"})
        assert listening["data"]["subscribed"] is True
        self.cloud.flow()

    def check(self) -> None:
        super().check()
        assert self.later("job")["result"] == {"seconds": 0, "steps": 3}


class CancelledJob(Jobs):
    """The client cancels its running job."""

    END = "CANCELLED"

    def play(self) -> None:
        self.client.connect().ask("delay", {"seconds": 0, "steps": 4}, id="job")
        self.cloud.flow()

    def disturb(self) -> None:
        self.cancel("cancelling")

    def check(self) -> None:
        assert self.disturbed
        super().check()
        assert self.later("job")["error"]["code"] == "CANCELLED"


class CancelledBeforeItRuns(Jobs):
    """The client cancels a job before a worker takes it; its message still comes."""

    END = "CANCELLED"

    def play(self) -> None:
        self.client.connect().ask("delay", {"seconds": 0, "steps": 2}, id="job")
        self.cancel("cancelled")
        self.cloud.flow()


class LostListener(Jobs):
    """The client disconnects with `on_disconnect: cancel`; another one listens."""

    def play(self) -> None:
        self.client.connect()
        metadata = {"on_disconnect": "cancel"}
        self.client.ask("delay", {"seconds": 0, "steps": 4}, id="job", metadata=metadata)
        Client(self.cloud).connect().ask("subscribe", {"request_id": "job"})
        self.cloud.flow()

    def disturb(self) -> None:
        self.client.leave()

    def check(self) -> None:
        # $disconnect is invoked once: if it fails, the job goes on. A worker whose post finds the
        # connection gone may stop the job earlier.
        assert self.disturbed or "PostToConnection" in self.cloud.plan.hit
        is_disturbed = "disconnect" in self.cloud.plan.hit
        check_requests(self.cloud, job="CANCELLED|COMPLETED" if is_disturbed else "CANCELLED")
        gone = [row["connection_id"] for row in self.cloud.items("connections")]
        assert is_disturbed or self.client.connection_id not in gone


class LostWorker(Jobs):
    """A worker was killed during its job; the sweeper finds the request."""

    def play(self) -> None:
        self.client.connect()
        counted, self.cloud.plan = self.cloud.plan, Plan(KINDS["killed-before"], 5)
        self.client.ask("delay", {"seconds": 0, "steps": 2}, id="job")
        with suppress(FunctionError):
            self.cloud.flow()
        assert self.cloud.plan.hit
        self.cloud.plan = counted
        self.cloud.settle()


class Batch(Jobs):
    """Several requests in one batch of the stream, and in one of the queue."""

    NAMES = ("one", "two", "three", "four")

    def play(self) -> None:
        self.client.connect()
        for name in self.NAMES:
            self.client.ask("delay", {"seconds": 0, "steps": 1}, id=name)
        self.cloud.flow()

    def check(self) -> None:
        check_requests(self.cloud, **dict.fromkeys(self.NAMES, "COMPLETED"))


class JobHandedOver(Jobs):
    """A job of three steps, for which each invocation has time for one."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.ran: list[str] = []

    @contextmanager
    def prepared(self) -> Iterator[None]:
        module = self.cloud.module("processor")
        with super().prepared(), patch.dict(module.ACTIONS, delay=self.run_steps):
            yield

    def run_step(self, name: str) -> str:
        self.ran.append(name)
        return name

    def run_steps(self, job: Any) -> Any:
        done = []
        for name in ("one", "two", "three"):
            known = job.has_stored_step
            done.append(job.step(name, partial(self.run_step, name)))
            if job.has_stored_step and not known and name != "three":
                raise self.cloud.module("processor").OutOfTimeError
        return done

    def play(self) -> None:
        self.client.connect().ask("delay", {}, id="job")
        self.cloud.flow()

    def check(self) -> None:
        super().check()
        assert self.later("job")["result"] == ["one", "two", "three"]
        [row] = self.cloud.items("requests")
        is_disturbed = "processor" in self.cloud.plan.hit
        assert row["attempts"] == 1 or is_disturbed
        assert self.ran == ["one", "two", "three"] or is_disturbed
        # One fault repeats at most the step that was under way.
        assert len(self.ran) <= 4 or ";" in self.cloud.plan.hit


FILES = {
    "a.txt": b"".join(b"line %d\n" % number for number in range(40)),
    "b.bin": random.Random(1).randbytes(2500),
}
WEBHOOK = {"url": "https://receiver.example.com/hook", "secret": f"whsec_{'dGhl' * 8}"}
# Small enough that a file of some kilobytes is sent in parts.
PART_BYTES = 1024


class AssemblyOfTwoFiles(Jobs):
    """Two files are uploaded and processed; the webhook is accepted at its second attempt."""

    TEMPLATE = "tpl_fingerprint"
    STEPS: tuple[str, ...] = ("hashed",)
    REQUESTS: tuple[str, ...] = ("job",)

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.received: list[tuple[str, Row]] = []
        self.ran: list[str] = []

    @contextmanager
    def prepared(self) -> Iterator[None]:
        ssm = self.cloud.aws.client("ssm")
        for name, value in WEBHOOK.items():
            path = self.cloud.aws.template.names.parameter(f"webhooks/{name}")
            ssm.put_parameter(Name=path, Value=value, Type="SecureString", Overwrite=True)
        delivery = self.cloud.module("deliver-webhook")
        delivery.parameter.cache_clear()
        self.cloud.read_queue("deliver-webhook", "webhooks")
        with ExitStack() as stack:
            stack.enter_context(super().prepared())
            stack.enter_context(patch.object(delivery, "deliver", self.deliver))
            stack.enter_context(patch.object(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 0))
            for name in self.CONTAINERS:
                module = self.cloud.container("processor", name).module
                stack.enter_context(patch.object(module, "PART_BYTES", PART_BYTES))
                run = partial(self.run_robot, module.run_robot)
                stack.enter_context(patch.object(module, "run_robot", run))
            stack.enter_context(patch.object(jobs, "STORE_SECONDS", 0.0))
            yield

    def run_robot(self, whole: Any, step: Any, source: Any, *more: Any) -> Any:
        self.ran.append(f"{step.name} {source.name}")
        return whole(step, source, *more)

    def deliver(self, _url: str, body: bytes, *_: Any, message_id: str, **__: Any) -> Any:
        """The receiver: it fails the first attempt, and accepts all others."""
        self.received.append((message_id, json.loads(body)))
        outcome = self.cloud.module("deliver-webhook").Outcome
        return outcome("retry", 503) if len(self.received) == 1 else outcome("delivered", 200)

    def play(self) -> None:
        self.client.connect()
        self.upload()
        self.begin(self.REQUESTS[0])
        self.cloud.flow()

    def upload(self) -> None:
        """Upload the files to the router's links."""
        files = [
            {"name": name, "size": len(body), "mime": "text/plain", "md5hash": md5(body)}
            for name, body in FILES.items()
        ]
        said = self.client.ask("create_upload", {"template_id": self.TEMPLATE, "files": files})
        self.uploads = [
            {name: upload[name] for name in ("key", "name", "size", "mime", "md5hash")}
            for upload in said["data"]["uploads"]
        ]
        for upload in self.uploads:
            bucket = self.cloud.aws.buckets["files"]
            self.cloud.s3.put_object(Bucket=bucket, Key=upload["key"], Body=FILES[upload["name"]])

    def begin(self, request_id: str) -> None:
        payload = {"template_id": self.TEMPLATE, "uploads": self.uploads}
        said = self.client.ask("process_assembly", payload, id=request_id)
        assert said["type"] == "acknowledgment", said

    def check(self) -> None:
        check_requests(self.cloud, **dict.fromkeys(self.REQUESTS, "COMPLETED"))
        [document] = self.cloud.items("assemblies")
        assert document["ok"] == "ASSEMBLY_COMPLETED"
        assert not document.keys() & {"lease_until", "current_step", "error"}
        self.check_files(document)
        self.check_webhook(document)

    def check_files(self, document: Row) -> None:
        """Each step has each file once, as in the document; other attempts' objects are apart."""
        assert tuple(document["results"]) == self.STEPS
        uploads = {upload["id"]: upload["name"] for upload in document["uploads"]}
        assert sorted(uploads.values()) == sorted(FILES)
        named = [file for files in document["results"].values() for file in files]
        for files in document["results"].values():
            assert sorted(uploads[file["original_id"]] for file in files) == sorted(FILES)
        attempts = {file["key"].split("/")[2] for file in named}
        stored = self.cloud.objects("results/")
        assert {*stored} >= {file["key"] for file in named}
        assert len({(file["key"].split("/")[3], file["name"]) for file in named}) == len(named)
        is_disturbed = "processor" in self.cloud.plan.hit
        assert is_disturbed or (len(attempts), len(stored)) == (1, len(named))
        # One fault repeats at most the file that was under way.
        assert len(self.ran) <= len({*self.ran}) + (0 if not is_disturbed else 1), self.ran
        for file in named:
            assert md5(stored[file["key"]]) == file["md5hash"], file
        # What a killed worker began is aborted by the bucket's lifecycle.
        assert not self.cloud.unfinished_uploads() or "processor" in self.cloud.plan.hit

    def check_webhook(self, document: Row) -> None:
        """The receiver got this end under one id; no message was given up."""
        assert document["webhook"]["status"] == "delivered", document["webhook"]
        assert len({message_id for message_id, _ in self.received}) == 1
        assert {body.get("ok", body.get("error")) for _, body in self.received} == {document["ok"]}
        assert len(self.received) >= 2
        assert self.cloud.messages("webhooks-dlq") == self.cloud.messages("requests-failed") == []


class AssemblyInParts(AssemblyOfTwoFiles):
    """Three steps, one of which writes in parts."""

    TEMPLATE = "tpl_archive"
    STEPS = ("verified", "compressed", "hashed")


class CancelledAssembly(AssemblyOfTwoFiles):
    """The client cancels while files are processed; the receiver gets that end."""

    def disturb(self) -> None:
        self.cancel("cancelling")

    def check(self) -> None:
        check_requests(self.cloud, job="CANCELLED")
        [document] = self.cloud.items("assemblies")
        assert document["ok"] == "ASSEMBLY_CANCELED"
        self.check_webhook(document)


class AssemblyAskedForTwice(AssemblyOfTwoFiles):
    """A second request for the running assembly waits, and gets the same document."""

    CONTAINERS = ("processor", "processor-2")
    REQUESTS = ("job", "twin")

    def disturb(self) -> None:
        self.begin("twin")
        self.cloud.flow()

    def check(self) -> None:
        super().check()
        results = [self.later(name)["result"]["results"] for name in self.REQUESTS]
        ids = [[file["id"] for files in result.values() for file in files] for result in results]
        assert ids[0] == ids[1]


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


JOBS: dict[str, type[Scenario]] = {
    "job": JobWithProgress,
    "cancelled": CancelledJob,
    "cancelled-early": CancelledBeforeItRuns,
    "lost-listener": LostListener,
    "lost-worker": LostWorker,
    "batch": Batch,
    "hand-over": JobHandedOver,
    "assembly": AssemblyOfTwoFiles,
    "cancelled-assembly": CancelledAssembly,
    "parts": AssemblyInParts,
    "twins": AssemblyAskedForTwice,
}
