"""Steps on the job flow: one job at a time per workspace, interruption, joining, silence."""

from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from jobplane.demo.job_flow import JobFlow, until
from jobplane.demo.scene import Scene
from jobplane.demo.story import CheckError, Observation, Stopwatch, check, step
from jobplane_client import Job

FUNCTIONS = (
    "check-active-job", "claim", "handle-timeout", "record-interruption", "send-interrupt",
)  # fmt: skip
SILENCE_SECONDS = 2


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


@step("One job at a time per workspace", shows=FUNCTIONS, seconds=120)
async def interruption(scene: Scene) -> Observation:
    """Thread A works, a follow-up joins it, thread B interrupts it and works."""
    flow, diary = JobFlow(scene.stage, scene.description, scene.user), Diary([], [])
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
    """Without heartbeats the job is recorded, put in the dead-letter queue, and its claim freed."""
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
