"""Instructions on the local stage: jobs that the job flow runs, as their clients see them."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from jobplane.verbs import interruptions
from jobplane_client import Job, JobWorker
from jobplane_keys import execution_name, tenant_workspace
from tests.e2e.deployed import Deployed, Message, Socket, unique, until

pytestmark = pytest.mark.e2e


class Instructed:
    """A user's workspace, with a socket and a worker."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.user = unique("user")
        self.workspace = tenant_workspace("acme", self.user, "amelia")
        self.states = deployed.stage.client("stepfunctions")

    @asynccontextmanager
    async def worker(self, handler: Callable[[Job], Any]) -> AsyncIterator[JobWorker]:
        """A worker of the workspace, in a thread."""
        worker = JobWorker(
            self.workspace.project_id,
            self.workspace.user_id,
            handler,
            claim_function=self.deployed.info["functions"]["claim"],
            prefix=self.deployed.stage.names.prefix,
            sqs=self.deployed.sqs,
            stepfunctions=self.states,
            lambda_=self.deployed.functions,
            s3=self.deployed.s3,
            poll_seconds=1,
            grace_seconds=5,
        )
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop(cancel=True)
            await asyncio.to_thread(thread.join)

    async def send(self, socket: Socket, thread: str, instruction: Any = "go") -> str:
        """Send an instruction; its id."""
        job = unique("job")
        payload = {"project": "amelia", "thread": thread, "instruction": instruction}
        answer = await socket.ask({"id": job, "action": "instruct", "payload": payload})
        assert answer["type"] == "acknowledgment", answer
        return job

    def arn(self, job: str) -> str:
        """The ARN of a job's execution."""
        (machine,) = self.deployed.info["state_machines"].values()
        name = execution_name(self.workspace, job)
        return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"

    def execution(self, job: str) -> Any:
        """What Step Functions says of a job's execution; None if it has not been started."""
        try:
            return self.states.describe_execution(executionArn=self.arn(job))
        except self.states.exceptions.ExecutionDoesNotExist:
            return None

    def status(self, job: str) -> str:
        return str(self.deployed.row(self.user, job)["status"])

    async def until_status(self, job: str, status: str) -> None:
        await until(lambda: self.status(job) == status, f"{job} to be {status}")


@pytest.fixture
def instructed(deployed: Deployed) -> Instructed:
    return Instructed(deployed)


async def test_a_workers_result_is_the_end_of_its_job(instructed: Instructed) -> None:
    """It is read by `status`, and the same message again starts nothing."""
    async with (
        instructed.deployed.socket(instructed.user) as socket,
        instructed.worker(lambda job: {"did": job.instruction}),
    ):
        job = await instructed.send(socket, "t-1", {"page": 7})
        end = await socket.end_of(job)
        assert end["result"] == {"outcome": "Completed", "result": {"did": {"page": 7}}}
        state = await socket.ask({"action": "status", "payload": {"request_id": job}})
        assert (state["data"]["status"], state["data"]["action"]) == ("COMPLETED", "instruct")
        assert socket.faults == []
    execution = instructed.execution(job)
    assert execution is not None
    assert execution["status"] == "SUCCEEDED"


async def test_the_same_thread_joins_and_another_one_interrupts(instructed: Instructed) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(job: Job) -> Any:
        loop.call_soon_threadsafe(begun.set)
        if job.instruction != "long":
            return job.instruction
        job.partial({"pages": 3})
        job.wait(60)
        job.check()
        return "not interrupted"

    async with instructed.deployed.socket(instructed.user) as socket, instructed.worker(work):
        first = await instructed.send(socket, "t-1", "long")
        await asyncio.wait_for(begun.wait(), 60)
        await instructed.until_status(first, "PROCESSING")
        joined = await instructed.send(socket, "t-1", "more")
        end = await socket.end_of(joined)
        assert end["result"] == {"outcome": "Joined", "request_id": first}

        other = await instructed.send(socket, "t-2", "short")
        end = await socket.end_of(first)
        assert end["error"]["code"] == "INTERRUPTED"
        assert end["error"]["details"] == {"thread": "t-2", "partial": {"pages": 3}}
        end = await socket.end_of(other)
        assert end["result"] == {"outcome": "Completed", "result": "short"}
        assert socket.faults == []
    audit = await asyncio.to_thread(listed, instructed.workspace.key, instructed.deployed)
    assert (first, other, "t-2") in [
        (row["messageId"], row["interruptingMessageId"], row["newThreadId"]) for row in audit
    ]


def listed(workspace: str, deployed: Deployed) -> list[Message]:
    """What `jobplane interruptions` prints."""
    arguments = [workspace, "--stage", deployed.stage.name, "--json"]
    done = CliRunner().invoke(interruptions.command, arguments)
    assert done.exit_code == 0, done.output
    rows: list[Message] = json.loads(done.stdout)["interruptions"]
    return rows


def test_an_audit_needs_a_workspace() -> None:
    done = CliRunner().invoke(interruptions.command, ["amelia"])
    assert done.exit_code == 2
    assert "WORKSPACE must be project#user, such as amelia#scott" in done.stderr


async def test_progress_and_events_reach_a_subscriber(instructed: Instructed) -> None:
    """All events in order, and the end after them."""

    def work(job: Job) -> int:
        for number in range(1, 41):
            job.emit({"page": number})
            job.report(number * 2.5, f"page {number} of 40")
            job.wait(0.05)
        return 40

    user = instructed.user
    async with (
        instructed.deployed.socket(user) as sender,
        instructed.deployed.socket(user) as subscriber,
    ):
        job = await instructed.send(sender, "t-1")
        await subscriber.ask({"action": "subscribe", "payload": {"request_id": job}})
        async with instructed.worker(work):
            await subscriber.end_of(job)
        heard = subscriber.of(job)
        assert heard[-1]["result"] == {"outcome": "Completed", "result": 40}
        assert heard[-1]["event_count"] == 40
        percentages = [m["percentage"] for m in heard if m["type"] == "progress"]
        assert percentages == sorted(percentages)
        assert percentages[-1] == 100
        events = [m for m in subscriber.messages if m["type"] == "event"]
        assert [each["page"] for m in events for each in m["events"]] == [*range(1, 41)]
        assert subscriber.faults == []


async def test_a_worker_that_is_stopped_hands_its_job_to_the_next(instructed: Instructed) -> None:
    """No attempt is spent, and of the two only the newer one is heard."""
    fences: list[int] = []

    def first(job: Job) -> None:
        fences.append(job.fence)
        job.report(30, "first")
        job.cancelled.wait(60)

    def second(job: Job) -> str:
        fences.append(job.fence)
        job.report(60, "second")
        return "done by the second"

    async with instructed.deployed.socket(instructed.user) as socket:
        job = await instructed.send(socket, "t-1")
        async with instructed.worker(first):
            await until(lambda: fences, "the first worker")
            await socket.wait_for(lambda m: m.get("message") == "first")
        before = instructed.deployed.row(instructed.user, job)
        assert before["status"] == "PROCESSING"
        async with instructed.worker(second):
            end = await socket.end_of(job)
        assert end["result"] == {"outcome": "Completed", "result": "done by the second"}
        assert fences[1] > fences[0]
        assert instructed.deployed.row(instructed.user, job)["attempts"] == before["attempts"]
        heard = [m["message"] for m in socket.of(job) if m["type"] == "progress"]
        assert heard == ["first", "second"]


async def test_cancel_interrupts_the_worker(instructed: Instructed) -> None:
    stopped: list[str] = []

    def work(job: Job) -> None:
        job.wait(60)
        stopped.append(str(job.cancelled.reason))

    async with instructed.deployed.socket(instructed.user) as socket, instructed.worker(work):
        job = await instructed.send(socket, "t-1")
        await instructed.until_status(job, "PROCESSING")
        answer = await socket.ask({"action": "cancel", "payload": {"request_id": job}})
        assert answer["data"]["status"] == "cancelling"
        end = await socket.end_of(job)
        assert end["error"]["code"] == "CANCELLED"
    assert stopped == ["interrupt"]
    assert instructed.status(job) == "CANCELLED"


async def test_a_job_that_waits_for_its_workspace_is_cancelled_at_once(
    instructed: Instructed,
) -> None:
    """Its execution gives the claim back that it gets later."""
    busy = threading.Event()
    async with (
        instructed.deployed.socket(instructed.user) as socket,
        instructed.worker(lambda job: busy.wait(300)),
    ):
        try:
            await instructed.until_status(await instructed.send(socket, "t-1"), "PROCESSING")
            waiting = await instructed.send(socket, "t-2")
            await until(lambda: instructed.execution(waiting), "the execution that waits")
            answer = await socket.ask({"action": "cancel", "payload": {"request_id": waiting}})
            assert answer["data"]["status"] == "cancelled"
        finally:
            busy.set()

        def is_free() -> bool:
            row: Message = instructed.deployed.get(
                "active-jobs", projectUserId=instructed.workspace.key
            )
            return (row.get("lastReleased") or {}).get("reason") == "cancelled"

        await until(is_free, "the claim's release")
        assert socket.of(waiting)[-1]["error"]["code"] == "CANCELLED"


async def test_a_failure_is_shown_by_its_name(instructed: Instructed) -> None:
    def work(job: Job) -> None:
        raise KeyError("a secret")

    async with instructed.deployed.socket(instructed.user) as socket, instructed.worker(work):
        end = await socket.end_of(await instructed.send(socket, "t-1"))
    assert end["error"]["code"] == "PROCESSING_FAILED"
    assert end["error"]["details"] == {"error": "KeyError"}
    assert "secret" not in str(end)


async def test_an_execution_that_is_stopped_ends_its_job(instructed: Instructed) -> None:
    async with instructed.deployed.socket(instructed.user) as socket:
        job = await instructed.send(socket, "t-1")
        await instructed.until_status(job, "PROCESSING")
        instructed.states.stop_execution(executionArn=instructed.arn(job))
        assert (await socket.end_of(job))["error"]["code"] == "PROCESSING_FAILED"
