"""Steps on the job flow: follow-ups, interruption, lost heartbeats."""

from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from jobplane.demo.scene import Scene
from jobplane.demo.story import Observation, Stopwatch, check, step
from jobplane.trying.job_flow import JobFlow, until
from jobplane_client import Job

FUNCTIONS = (
    "check-active-job", "claim", "handle-timeout", "record-interruption", "send-interrupt",
)  # fmt: skip
SILENCE_SECONDS = 2


@dataclass
class HandlerLog:
    """What a job worker's handler has received."""

    begun: list[str]
    joined: list[str]
    interrupted_by: str | None = None

    def work(self, job: Job) -> dict[str, Any]:
        """A handler: a job whose message begins with `slow` runs until it is interrupted."""
        self.begun.append(job.message_id)
        while job.message_id.startswith("slow") and not job.wait(0.1):
            self.joined += [message.message_id for message in job.follow_ups()]
        if job.cancelled.interrupt is not None:
            self.interrupted_by = job.cancelled.interrupt.message_id
        return {"message": job.message_id, "fence": job.fence}


@step("Run one job at a time per workspace", shows=FUNCTIONS, seconds=120)
async def interruption(scene: Scene) -> Observation:
    """A follow-up joins the job of thread A; a job of thread B interrupts it and runs."""
    flow, log = JobFlow(scene.stage, scene.description, scene.user), HandlerLog([], [])
    scene.flow = flow
    async with flow.worker(log.work):
        watch = Stopwatch()
        first = await flow.start("slow-a1", "thread-a")
        await until(lambda: log.begun)
        begun = watch.ms
        follow_up = await flow.end_of(await flow.start("a2", "thread-a"))
        await until(lambda: log.joined)
        watch = Stopwatch()
        second = await flow.start("b1", "thread-b")
        interrupted = await flow.end_of(first)
        stopped = watch.ms
        completed = await flow.end_of(second)
    check(follow_up["outcome"] == "Joined", f"the follow-up ended as {follow_up['outcome']}")
    check(log.joined == ["a2"], f"the job received the follow-ups {log.joined}")
    check(interrupted["outcome"] == "Interrupted", f"thread A ended as {interrupted['outcome']}")
    check(log.interrupted_by == "b1", f"thread A was interrupted by {log.interrupted_by}")
    check(completed["outcome"] == "Completed", f"thread B ended as {completed['outcome']}")
    check(log.begun == ["slow-a1", "b1"], f"the worker ran {log.begun}")
    check(flow.claim().get("state") == "free", "the workspace is still claimed")
    return Observation(
        f"running {begun:.0f} ms after the start; a follow-up joined; another thread's job "
        f"interrupted it within {stopped:.0f} ms",
        {"begin_ms": begun, "interrupt_ms": stopped},
    )


@step("Time out a job without heartbeats", needs=(interruption,), seconds=60)
async def silence(scene: Scene) -> Observation:
    """The job is recorded and sent to the dead-letter queue, and its claim is released."""
    flow = scene.flow
    watch = Stopwatch()
    execution = await flow.start("silent-c1", "thread-c", heartbeatSeconds=SILENCE_SECONDS)
    end = await flow.end_of(execution)
    ended = watch.ms
    dead = await until(flow.dead_letters)
    check(end["outcome"] == "TimedOut", f"the job ended as {end['outcome']}")
    check([one["messageId"] for one in dead] == ["silent-c1"], f"dead-letter queue: {dead}")
    check(dead[0]["kind"] == "heartbeat_lost", f"the kind of failure is {dead[0]['kind']}")
    check(flow.claim().get("state") == "free", "the workspace is still claimed")
    return Observation(
        f"{SILENCE_SECONDS} s without a heartbeat: timed out after {ended:.0f} ms, recorded, "
        "in the dead-letter queue, the claim released",
        {"timed_out_ms": ended},
    )


@step("List executions and records", needs=(interruption, silence))
async def overview(scene: Scene) -> Observation:
    """Executions, records and the claim of the workspace, in one table."""
    flow = scene.flow
    records = {record["messageId"]: record for record in flow.records()}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=flow.workspace.key)
    for heading in ("message", "execution", "recorded", "interrupted by"):
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
    check(kinds == ["heartbeat_lost", "interruption"], f"recorded: {kinds}")
    fence = flow.claim()["fence"]
    return Observation(
        f"{len(flow.executions)} executions, {len(records)} records, fence {fence}",
        {"executions": len(flow.executions), "records": len(records)},
    )
