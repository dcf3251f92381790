"""Steps on the job flow: one job at a time per workspace, interruption, joining, silence."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from jobplane.demo.scene import Scene
from jobplane.demo.story import CheckError, Observation, Stopwatch, check, step
from jobplane_client import Job, JobWorker
from jobplane_keys import Workspace, execution_name, from_item, to_item

FUNCTIONS = (
    "check-active-job", "claim", "handle-timeout", "record-interruption", "send-interrupt",
)  # fmt: skip
SILENCE_SECONDS = 2
LOOKS_PER_SECOND = 5


class JobFlow:
    """The deployed flow, on the demo's own workspace."""

    def __init__(self, scene: Scene) -> None:
        self.workspace = Workspace("demo", scene.user)
        self.executions: dict[str, str] = {}
        self._scene = scene
        self._states = scene.stage.client("stepfunctions")
        self._dynamodb = scene.stage.client("dynamodb")
        self._sqs = scene.stage.client("sqs")

    async def start(self, message: str, thread: str, **given: Any) -> str:
        """Start the flow for a message; its execution."""
        content = {
            "projectId": self.workspace.project_id,
            "userId": self.workspace.user_id,
            "threadId": thread,
            "messageId": message,
            "instruction": f"work on {message}",
            "claimWaitSeconds": 1,
            **given,
        }
        started = await asyncio.to_thread(
            self._states.start_execution,
            stateMachineArn=self._scene.description["state_machine_arn"],
            name=execution_name(self.workspace, message),
            input=json.dumps(content),
        )
        execution: str = started["executionArn"]
        self.executions[message] = execution
        return execution

    async def end_of(self, execution: str) -> dict[str, Any]:
        """How an execution ended: `status`, and `outcome` or the error's name."""

        def look() -> dict[str, Any] | None:
            found = self._states.describe_execution(executionArn=execution)
            if found["status"] == "RUNNING":
                return None
            output = json.loads(found.get("output") or "null") or {}
            return {
                "status": found["status"],
                "outcome": output.get("outcome") or found.get("error"),
                "result": output.get("result"),
            }

        end: dict[str, Any] = await until(look)
        return end

    def claim(self) -> dict[str, Any]:
        """The workspace's row."""
        found = self._dynamodb.get_item(
            TableName=self._scene.description["tables"]["active-jobs"],
            Key=to_item({"projectUserId": self.workspace.key}),
            ConsistentRead=True,
        )
        return from_item(found.get("Item", {}))

    def records(self) -> list[dict[str, Any]]:
        """What is on record of the workspace, oldest first."""
        found = self._dynamodb.query(
            TableName=self._scene.description["tables"]["interruptions"],
            IndexName="by-workspace",
            KeyConditionExpression="projectUserId = :key",
            ExpressionAttributeValues=to_item({":key": self.workspace.key}),
        )
        return [from_item(item) for item in found["Items"]]

    def dead_letters(self) -> list[dict[str, Any]]:
        """The workspace's letters in the stage's dead-letter queue."""
        url = self._scene.description["queues"]["jobs-dlq.fifo"]
        found = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        letters = [json.loads(message["Body"]) for message in found]
        return [letter for letter in letters if letter["projectUserId"] == self.workspace.key]

    @asynccontextmanager
    async def worker(self, handler: Callable[[Job], Any]) -> AsyncIterator[JobWorker]:
        """A worker of the workspace, as a container would run it."""
        stage = self._scene.stage
        worker = JobWorker(
            self.workspace.project_id,
            self.workspace.user_id,
            handler,
            claim_function=self._scene.description["functions"]["claim"],
            prefix=stage.names.prefix,
            poll_seconds=1,
            sqs=stage.client("sqs"),
            stepfunctions=stage.client("stepfunctions"),
            lambda_=stage.client("lambda"),
        )
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop(cancel=True)
            await asyncio.to_thread(thread.join)


@dataclass
class Diary:
    """What a handler has lived through."""

    begun: list[str]
    joined: list[str]
    interrupted_by: str | None = None

    def work(self, job: Job) -> dict[str, Any]:
        """A handler: a message `slow` works until it is interrupted, any other ends at once."""
        self.begun.append(job.message_id)
        while job.message_id.startswith("slow") and not job.wait(0.1):
            self.joined += [message.message_id for message in job.follow_ups()]
        if job.cancelled.interrupt is not None:
            self.interrupted_by = job.cancelled.interrupt.message_id
        return {"message": job.message_id, "fence": job.fence}


async def until(look: Callable[[], Any]) -> Any:
    """The first answer of a look that is one."""
    while not (found := await asyncio.to_thread(look)):
        await asyncio.sleep(1 / LOOKS_PER_SECOND)
    return found


@step("One job at a time per workspace", shows=FUNCTIONS, seconds=120)
async def interruption(scene: Scene) -> Observation:
    """Thread A works, a follow-up joins it, thread B interrupts it and works."""
    flow, diary = JobFlow(scene), Diary([], [])
    scene.flow = flow
    async with flow.worker(diary.work):
        watch = Stopwatch()
        first = await flow.start("slow-a1", "thread-a")
        await until(lambda: diary.begun)
        begun = watch.ms
        follow_up = await flow.end_of(await flow.start("a2", "thread-a"))
        await until(lambda: diary.joined)
        watch = Stopwatch()
        second = await flow.start("b1", "thread-b")
        interrupted = await flow.end_of(first)
        stopped = watch.ms
        completed = await flow.end_of(second)
    check(follow_up["outcome"] == "Joined", f"the follow-up ended as {follow_up['outcome']}")
    check(diary.joined == ["a2"], f"the job heard of {diary.joined}")
    check(interrupted["outcome"] == "Interrupted", f"thread A ended as {interrupted['outcome']}")
    check(diary.interrupted_by == "b1", f"thread A was interrupted by {diary.interrupted_by}")
    check(completed["outcome"] == "Completed", f"thread B ended as {completed['outcome']}")
    check(diary.begun == ["slow-a1", "b1"], f"the worker ran {diary.begun}")
    check(flow.claim().get("state") == "free", "the workspace is still claimed")
    return Observation(
        f"at work {begun:.0f} ms after the start; a follow-up joined; another thread "
        f"interrupted it within {stopped:.0f} ms and ran",
        {"begin_ms": begun, "interrupt_ms": stopped},
    )


@step("Time out a worker that goes silent", needs=(interruption,), seconds=60)
async def silence(scene: Scene) -> Observation:
    """Nobody heartbeats: the job is on record, in the dead-letter queue, and the claim is free."""
    flow = scene.flow
    if flow is None:
        raise CheckError("there is no flow")
    watch = Stopwatch()
    execution = await flow.start("silent-c1", "thread-c", heartbeatSeconds=SILENCE_SECONDS)
    end = await flow.end_of(execution)
    ended = watch.ms
    letters = await until(flow.dead_letters)
    check(end["outcome"] == "TimedOut", f"the job ended as {end['outcome']}")
    check([letter["messageId"] for letter in letters] == ["silent-c1"], f"letters: {letters}")
    check(letters[0]["kind"] == "heartbeat_lost", f"the letter says {letters[0]['kind']}")
    check(flow.claim().get("state") == "free", "the workspace is still claimed")
    return Observation(
        f"{SILENCE_SECONDS} s without a heartbeat: timed out after {ended:.0f} ms, on record, "
        "one dead letter, the workspace free",
        {"timed_out_ms": ended},
    )


@step("Show the operator all of it", needs=(interruption, silence))
async def overview(scene: Scene) -> Observation:
    """Executions, records and the claim of the workspace, in one table."""
    flow = scene.flow
    if flow is None:
        raise CheckError("there is no flow")
    records = {record["messageId"]: record for record in flow.records()}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=flow.workspace.key)
    for heading in ("message", "execution", "on record", "interrupted by"):
        table.add_column(heading, no_wrap=True)
    for message, execution in flow.executions.items():
        end, record = await flow.end_of(execution), records.get(message, {})
        table.add_row(
            message,
            f"{end['status'].lower()}: {end['outcome']}",
            record.get("kind", ""),
            record.get("interruptingMessageId", ""),
        )
    scene.screen.console.print(table)
    kinds = sorted(record["kind"] for record in records.values())
    check(kinds == ["heartbeat_lost", "interruption"], f"on record: {kinds}")
    fence = flow.claim()["fence"]
    return Observation(
        f"{len(flow.executions)} executions, {len(records)} records, fence at {fence}",
        {"executions": len(flow.executions), "records": len(records)},
    )
