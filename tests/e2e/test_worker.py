"""JobWorker on the deployed flow."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobplane_client import Job
from tests.e2e.deployed import Deployed, unique, until
from tests.e2e.test_flow import Flow

pytestmark = pytest.mark.e2e


@contextmanager
def running(flow: Flow, handler: Callable[[Job], Any]) -> Iterator[None]:
    """A worker of the workspace; at the end both of its queues are empty."""
    worker = flow.worker(handler, poll_seconds=1, follow_up_ttl=10)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop(cancel=True)
        thread.join(60)
    assert not thread.is_alive()
    for queue in (worker._inbox, worker._interrupts):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        left = flow.deployed.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)
        assert set(left["Attributes"].values()) == {"0"}, queue.url


@pytest.fixture
def flow(deployed: Deployed) -> Flow:
    return Flow(deployed)


async def test_a_job_of_another_thread_interrupts_the_running_one(flow: Flow) -> None:
    """It reports its partial work."""
    began = threading.Event()
    fences: list[int] = []
    one, other = unique("m"), unique("m")

    def handler(job: Job) -> str:
        fences.append(job.fence)
        if job.thread_id == "t1":
            job.partial({"pages": 3})
            began.set()
            job.cancelled.wait(60)
            job.check()
        return "done"

    with running(flow, handler):
        first = flow.start(one, "t1")
        await until(began.is_set, "the first job to run")
        second = flow.start(other, "t2")
        outputs = [await flow.output(first), await flow.output(second)]
    assert [output["outcome"] for output in outputs] == ["Interrupted", "Completed"]
    assert fences == sorted(set(fences))
    cause = json.loads(outputs[0]["cause"])
    assert cause["partial"] == {"pages": 3}
    assert (cause["interruptingMessageId"], cause["newThreadId"]) == (other, "t2")
    (record,) = flow.records()
    assert (record["messageId"], record["interruptingMessageId"]) == (one, other)
    assert flow.claim()["state"] == "free"


async def test_a_message_of_the_same_thread_reaches_the_running_handler(flow: Flow) -> None:
    """It becomes no job."""
    began = threading.Event()
    ran: list[str] = []

    def handler(job: Job) -> list[str]:
        ran.append(job.message_id)
        began.set()
        joined: list[str] = []
        while not joined and not job.wait(0.1):
            joined = [each.instruction for each in job.follow_ups()]
        return joined

    with running(flow, handler):
        first = flow.start("m1", "t1")
        await until(began.is_set, "the job to run")
        second = flow.start("m2", "t1")
        outputs = [await flow.output(first), await flow.output(second)]
    assert [output["outcome"] for output in outputs] == ["Completed", "Joined"]
    assert outputs[0]["result"] == ["do m2"]
    assert ran == ["m1"]
    assert flow.claim()["state"] == "free"


async def test_an_untaken_follow_up_becomes_the_next_job(flow: Flow) -> None:
    """On a newer claim."""
    began, leave = threading.Event(), threading.Event()
    ran: list[tuple[str, int]] = []

    def handler(job: Job) -> None:
        ran.append((job.message_id, job.fence))
        if job.message_id == "m1":
            began.set()
            leave.wait(60)

    with running(flow, handler):
        first = flow.start("m1", "t1")
        await until(began.is_set, "the job to run")
        assert (await flow.output(flow.start("m2", "t1")))["outcome"] == "Joined"
        leave.set()
        assert (await flow.output(first))["outcome"] == "Completed"
        await until(lambda: len(ran) == 2, "the follow-up to run")
        await until(lambda: flow.claim()["state"] == "free", "its claim to be free")
    assert [message for message, _ in ran] == ["m1", "m2"]
    assert ran[1][1] > ran[0][1]
