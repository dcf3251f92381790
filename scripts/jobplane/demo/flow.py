"""Steps on the job flow: follow-ups, interruption, lost heartbeats, an e-mail."""

import asyncio
from dataclasses import dataclass
from email.message import EmailMessage
from hashlib import sha256
from typing import Any

from rich import box
from rich.table import Table

from jobplane.demo.scene import TENANT, Scene
from jobplane.demo.sockets import connect
from jobplane.demo.story import Observation, Stopwatch, check, step
from jobplane.trying.job_flow import JobFlow, until
from jobplane_client import Job
from jobplane_keys import Workspace, from_item, owner_key, tenant_workspace, to_item
from jobplane_models.messages import CompleteMessage, ProgressMessage

FUNCTIONS = (
    "check-active-job", "claim", "handle-timeout", "record-interruption", "send-interrupt",
)  # fmt: skip
EMAIL_FUNCTIONS = ("intake", "report-job")
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
    workspace = Workspace("demo", scene.user)
    flow, log = JobFlow(scene.stage, scene.description, workspace), HandlerLog([], [])
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


@step("Make a job of an e-mail", needs=(connect, interruption), shows=EMAIL_FUNCTIONS, seconds=60)
async def email(scene: Scene) -> Observation:
    """An e-mail in the bucket becomes a job; its user hears on the socket how far its worker is."""
    sent = EmailMessage()
    sent["Message-ID"] = message_id = f"<{scene.user}@example.org>"
    sent["From"], sent["To"] = "ann@example.org", f"site+{scene.user}@mail.example.com"
    sent.set_content("Please build the page.")
    job = f"mail-{sha256(message_id.encode()).hexdigest()[:32]}"
    key = to_item({"owner": owner_key(TENANT, scene.user), "request_id": job})
    table, bucket = scene.description["tables"]["requests"], scene.description["buckets"]["files"]
    dynamodb, s3 = scene.stage.client("dynamodb"), scene.stage.client("s3")
    received: list[str] = []

    def work(job: Job) -> str:
        received.append(job.instruction["text"])
        for part in range(1, 5):
            job.report(25 * part, f"part {part} of 4")
            job.wait(0.2)
        return "built"

    workspace = tenant_workspace(TENANT, scene.user, "site")
    percentages: list[float] = []
    end: CompleteMessage | None = None
    async with JobFlow(scene.stage, scene.description, workspace).worker(work):
        watch = Stopwatch()
        drop = {"Bucket": bucket, "Key": f"inbox/{scene.user}", "Body": sent.as_bytes()}
        await asyncio.to_thread(s3.put_object, **drop)
        await until(lambda: from_item(dynamodb.get_item(TableName=table, Key=key).get("Item", {})))
        stored = watch.ms
        async for message in scene.socket.follow(job):
            if isinstance(message, ProgressMessage):
                percentages.append(message.percentage)
            end = message if isinstance(message, CompleteMessage) else None
    check(received == ["Please build the page."], f"the worker received {received}")
    check(end is not None and percentages[-1:] == [100], f"progress: {percentages}")
    return Observation(
        f"a job {stored:.0f} ms after the e-mail arrived; {len(percentages)} messages of progress, "
        f"completed after {watch.ms:.0f} ms",
        {"stored_ms": stored, "completed_ms": watch.ms},
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
