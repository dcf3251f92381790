"""Jobs that outlast their invocation, wait, or wait for an answer, on the deployed tables.

Invocations in this process have little time; the deployed worker ends what they hand over.
"""

import asyncio
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from jobplane.tree.repository import Repository
from jobplane_client import ConflictError, JobSocket
from jobplane_keys import assembly_id, owner_key
from tests.e2e.deployed import Deployed, Message, assert_ended_once, unique
from tests.e2e.in_process import load
from tests.e2e.test_wire import put_request

pytestmark = pytest.mark.e2e

FILES = {f"{name}.txt": f"file {name}".encode() for name in "abcdefgh"}
STEPS = ("one", "two", "three", "four")


class Worker:
    """Invocations of the processor in this process, for one request of a new user."""

    def __init__(self, processor: ModuleType, deployed: Deployed) -> None:
        self.processor, self.deployed = processor, deployed
        self.user = unique("user")
        self.owner = owner_key("acme", self.user)
        self.url, self.token = deployed.info["websocket_url"], deployed.token(self.user, "acme")

    def queue(self, payload: Message, run: Callable[[Any], Any] | None = None) -> str:
        """Store a request; `run` is what its action does in this process."""
        if run is not None:
            self.processor.ACTIONS["delay"] = run
        self.job = put_request(self.deployed, self.user, "gone", payload)
        return self.job

    async def work(self, seconds: float = 60.0, *, is_cut: bool = False) -> Message:
        """One invocation with so many seconds for its work; the row afterwards.

        `is_cut`: it dies before it has queued a job that it hands over.
        """
        deadline = time.time() + seconds + self.processor.SAFETY_SECONDS
        invocation = self.processor.Invocation(unique("invocation"), deadline)
        with pytest.MonkeyPatch.context() as patch:
            if is_cut:
                patch.setattr(self.processor.RequestLease, "requeue", lambda *_: False)
            await asyncio.to_thread(self.processor.work, self.owner, self.job, invocation)
        return self.deployed.row(self.user, self.job)


@pytest.fixture
def worker(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr("jobplane_leases.jobs.STORE_SECONDS", 0.0)
    index = {"TEMPLATES_INDEX_PATH": str(Repository.here().root / "templates/index.json")}
    return Worker(load(deployed, "processor", monkeypatch, **index), deployed)


async def test_an_assembly_completes_through_three_hand_overs(
    deployed: Deployed, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each repeats at most the file that was under way; the deployed worker ends it."""
    opened: list[str] = []
    whole = worker.processor.open_object

    def slowly(key: str) -> Any:
        opened.append(key)
        time.sleep(0.4)
        return whole(key)

    monkeypatch.setattr(worker.processor, "open_object", slowly)
    async with deployed.socket(worker.user) as socket:
        payload = await deployed.upload(socket, "tpl_fingerprint", FILES)
        job, digests = worker.queue(payload), [file["md5hash"] for file in payload["uploads"]]
        name = assembly_id(digests, payload["template_id"], worker.owner)
        key = {"owner": worker.owner, "request_id": job}
        changes = {"action": "process_assembly", "assembly_id": name}
        deployed.put("requests", deployed.get("requests", **key) | changes)
        await socket.ask({"action": "subscribe", "payload": {"request_id": job}})
        for is_cut in (True, True, False):
            row = await worker.work(1.0, is_cut=is_cut)
            assert row["attempts"] <= 1, "a hand-over spends no attempt"
        end = await socket.end_of(job)
        assert_ended_once(socket.of(job))
    document = deployed.assembly(name)
    results = document["results"]["hashed"]
    assert (end["type"], document["execution"]) == ("complete", 1)
    assert [file["name"] for file in results] == [*FILES]
    attempts = [file["key"].split("/")[2] for file in results]
    assert 1 < len(set(attempts)) <= 4, "one for each invocation that had time for a file"
    made_here = len(attempts) - attempts.count(attempts[-1])
    assert made_here <= len(opened) <= made_here + 3


async def test_a_job_of_steps_goes_on_after_its_invocations(worker: Worker) -> None:
    """Each step runs once; a retry after an error counts as an attempt."""
    ran: list[str] = []

    def step(name: str) -> str:
        ran.append(name)
        return name

    def run(job: Any) -> Any:
        for name in STEPS:
            job.step(name, lambda name=name: step(name))
            if len(ran) == 3 and job.row["attempts"] == 1:
                raise worker.processor.TransientError("once")
            if job.has_stored_step and len(ran) < 3:
                raise worker.processor.OutOfTimeError
        return {"seconds": 0, "steps": len(ran)}

    worker.queue({"seconds": 0}, run)
    states = [await worker.work(is_cut=True) for _ in range(3)]
    assert [(row["status"], row["attempts"]) for row in states] == [
        ("RETRYING", 0), ("RETRYING", 0), ("COMPLETED", 2),
    ]  # fmt: skip
    assert ran == [*STEPS]


async def test_a_job_that_waits_has_no_worker_and_can_be_cancelled(worker: Worker) -> None:
    """The deployed worker ends it at once."""
    job = worker.queue({"seconds": 0}, lambda job: job.wait(600))
    row = await worker.work()
    assert (row["status"], "lease_owner" in row) == ("RETRYING", False)
    assert row["lease_until"] > time.time() + 500
    async with JobSocket(worker.url, worker.token) as socket:
        assert await socket.request("cancel", {"request_id": job})
        async for _ in socket.follow(job):
            pass
    assert worker.deployed.row(worker.user, job)["status"] == "CANCELLED"


async def test_whoever_has_the_token_queues_a_job_that_waits_for_it(worker: Worker) -> None:
    """Once: by another user, over the socket; the deployed worker takes the job then."""
    sent: list[str] = []
    payload = {"seconds": 0, "steps": 1}
    job = worker.queue(payload, lambda job: job.callback("ask", 600, sent.append))
    assert (await worker.work())["status"] == "RETRYING"
    stranger = worker.deployed.token(unique("stranger"), "elsewhere")
    async with (
        JobSocket(worker.url, worker.token) as socket,
        JobSocket(worker.url, stranger) as other,
    ):
        await other.return_callback(sent[0], result="yes")
        with pytest.raises(ConflictError):
            await other.return_callback(sent[0], result="no")
        async for _ in socket.follow(job):
            pass
    assert worker.deployed.row(worker.user, job)["status"] == "COMPLETED"


async def test_a_job_ends_when_all_its_time_is_over(worker: Worker) -> None:
    """Counted from its first start, by `maxJobSeconds`."""
    vars(worker.processor)["MAX_JOB_SECONDS"] = 0
    worker.queue({"seconds": 0}, lambda job: job.step("one", dict))
    row = await worker.work()
    assert (row["status"], row["error"]["code"]) == ("FAILED", "TIMEOUT")
