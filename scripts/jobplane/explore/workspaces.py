"""The job flow of a workspace for scenarios: its executions, and its job workers.

An execution does what resources/job-flow.asl.yml does with the functions, as far as claims need it.
A job worker is `jobplane_client.JobWorker` itself.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobplane.explore.services import Execution, FlowTask
from jobplane.explore.tables import Row
from jobplane.explore.tasks import Task
from jobplane.explore.world import InvocationError, World
from jobplane.tree.resolved import ACCOUNT, REGION
from jobplane_client import Job, JobWorker
from jobplane_keys import Workspace, input_queue_name, interrupt_queue_name

WORKSPACE = Workspace("amelia", "scott")
CLAIM_SECONDS = 3600
ENDED = "Step Functions Execution Status Change"
TRIES = 4


@dataclass(frozen=True, slots=True)
class Started:
    """A handler that has begun a job: who, and under which claim and fence."""

    process: str
    claim_id: str
    fence: int
    message_id: str


class Flow:
    """The flow of one workspace in a world."""

    def __init__(
        self, world: World, *, heartbeat: float = 90.0, workspace: Workspace = WORKSPACE
    ) -> None:
        self.world = world
        self.heartbeat = heartbeat
        self.workspace = workspace
        self.started: list[Started] = []
        self.worked: list[str] = []
        """Ids of messages that a handler has worked on to the end."""
        self.sent: list[str] = []
        """Ids of follow-ups that were sent to the worker."""
        self.open = 0
        """Executions that have not ended."""
        prefix = world.stage.prefix
        machine = world.stage.module("sweep-claims").STATE_MACHINE_ARN
        self.machine = machine.rpartition(":")[2]
        self.input = world.sqs.add(input_queue_name(prefix, workspace), 120, fifo=True)
        self.interrupts = world.sqs.add(interrupt_queue_name(prefix, workspace), 60)
        world.programs["flow"] = self

    # Executions

    def run_requests(self) -> None:
        """Begin an execution for each request of the workspace that is started."""

        def begin(arn: str, given: Row) -> None:
            self.message(given["messageId"], given["threadId"], arn=arn, request=given["request"])

        self.world.flows.on_start = begin

    def message(self, message_id: str, thread_id: str, *, arn: str = "", **more: Any) -> Task:
        """Add the execution of a message; `request`: that of a request."""
        self.open += 1
        arn, flows = arn or self.arn(message_id), self.world.flows
        execution = flows.executions.setdefault(arn, Execution())

        def run() -> None:
            try:
                ended = self._execute(message_id, thread_id, arn, **more)
                flows.stop(arn, "FAILED" if "error" in ended else "SUCCEEDED", **ended)
            except InvocationError as error:
                flows.stop(arn, "FAILED", error=type(error.answer).__name__)
                raise
            finally:
                self.open -= 1
                if execution.said:
                    status = flows.executions[arn].status
                    detail = {"executionArn": arn, "status": status, **execution.said}
                    self.world.invoke_later(
                        "report-job", {"detail-type": ENDED, "detail": detail}, 1
                    )

        return self.world.actor(f"flow-{message_id}", run)

    def arn(self, message_id: str) -> str:
        return f"arn:aws:states:{REGION}:{ACCOUNT}:execution:{self.machine}:{message_id}"

    def abort(self, execution: Task, message_id: str) -> Row:
        """Stop an execution; the event of EventBridge."""
        self.world.flows.stop(self.arn(message_id), "ABORTED")
        self.world.scheduler.kill(execution.process)
        given = json.dumps({"projectUserId": self.workspace.key, "messageId": message_id})
        detail = {"executionArn": self.arn(message_id), "status": "ABORTED", "input": given}
        return {"detail-type": ENDED, "detail": detail}

    def ask(self, function: str, **event: Any) -> Any:
        """A task of an execution, with its Retry."""
        for number in range(TRIES):
            try:
                given = {"projectUserId": self.workspace.key, **event}
                return self.world.answer_of(function, given)
            except InvocationError:
                if number == TRIES - 1:
                    raise
                self.pause(2.0**number)
        return None

    def pause(self, seconds: float) -> None:
        self.world.scheduler.wait(self.world.now + seconds)

    def acquire(
        self, message_id: str, thread_id: str, seconds: int = CLAIM_SECONDS, arn: str = ""
    ) -> Row:
        answer: Row = self.ask(
            "claim",
            operation="acquire",
            threadId=thread_id,
            messageId=message_id,
            owner=arn or self.arn(message_id),
            ttlSeconds=seconds,
        )
        return answer

    def _execute(
        self,
        message_id: str,
        thread_id: str,
        arn: str,
        interrupts: bool = True,
        seconds: int = CLAIM_SECONDS,
        request: Row | None = None,
    ) -> dict[str, str]:
        """Run an execution; its output, or its error and cause."""
        for _ in range(TRIES * 10):
            claim = self.acquire(message_id, thread_id, seconds, arn)
            if claim["claimed"]:
                return self._work(message_id, thread_id, claim, arn, request)
            if claim["reason"] == "same_thread":
                self.follow_up(message_id, thread_id)
                return _output("Joined", holder=claim["holder"])
            if interrupts:
                self.ask(
                    "send-interrupt",
                    target=claim["holder"],
                    newThreadId=thread_id,
                    interruptingMessageId=message_id,
                )
                holder = claim["holder"]
                self.ask(
                    "record-interruption",
                    messageId=holder["messageId"],
                    interruptedClaimId=holder["claimId"],
                    interruptedContainer=holder["containerId"],
                    newThreadId=thread_id,
                    interruptingMessageId=message_id,
                )
                interrupts = False
            self.pause(30)
        return {"error": "WorkspaceBusy"}

    def _work(
        self, message_id: str, thread_id: str, claim: Row, arn: str, request: Row | None
    ) -> dict[str, str]:
        """Send the job to the workspace's worker, wait for its end, and release the claim."""
        holding = {"claimId": claim["claimId"], "fence": claim["fence"]}
        if request:
            told = {"request": request, "seconds": CLAIM_SECONDS - 1}
            if not self.ask("report-job", operation="begin", **told, **holding)["begun"]:
                self.ask("claim", operation="release", reason="cancelled", **holding)
                return _output("Cancelled")
        task = self.order(message_id, thread_id, claim, request)
        while not task.end:
            left = task.beaten_at + self.heartbeat - self.world.now
            if left < 0:
                self.world.flows.end(task, "timed out")
                break
            task.waiting = self.world.scheduler.current
            self.pause(left + 0.5)
        if task.end == "timed out":
            self.ask(
                "handle-timeout",
                **holding,
                messageId=message_id,
                threadId=thread_id,
                kind="heartbeat_lost",
                error="States.Timeout",
                cause=None,
                executionArn=arn,
            )
            return {"error": "TimedOut", "cause": json.dumps({"kind": "heartbeat_lost"})}
        self.ask("claim", operation="release", reason="completed", **holding)
        if task.end == "succeeded":
            return _output("Completed", result=json.loads(task.detail or "null"))
        if task.detail == "PREEMPTED":
            return _output("Interrupted", cause="{}")
        return {"error": task.detail}

    def order(
        self, message_id: str, thread_id: str, claim: Row, request: Row | None = None
    ) -> FlowTask:
        """Send a JOB, as the flow does."""
        task = self.world.flows.open(f"token-{message_id}", self.heartbeat)
        self._send(
            "JOB",
            "job",
            taskToken=task.token,
            messageId=message_id,
            threadId=thread_id,
            claimId=claim["claimId"],
            fence=claim["fence"],
            containerId=claim["containerId"],
            heartbeatSeconds=int(self.heartbeat),
            claimTtlSeconds=CLAIM_SECONDS,
            expiresAt=claim["expiresAt"],
            resultLocation=None,
            request=request,
            reportFunction=f"{self.world.stage.prefix}report-job",
        )
        return task

    def follow_up(self, message_id: str, thread_id: str) -> None:
        """Send a FOLLOW_UP, as the flow does."""
        self.sent.append(message_id)
        ids = {"messageId": message_id, "threadId": thread_id}
        self._send("FOLLOW_UP", "follow-up", **ids, claimId="claim-0", fence=0)

    def _send(self, kind: str, group: str, **fields: Any) -> None:
        body = {
            "type": kind,
            "projectUserId": self.workspace.key,
            "instruction": "work",
            "instructionObject": None,
            "attachments": [],
            **fields,
        }
        self.world.sqs.perform(
            "SendMessage",
            {
                "QueueUrl": self.input.name,
                "MessageBody": json.dumps(body),
                "MessageGroupId": f"{group}-{self.workspace.key}",
            },
        )

    # Workers

    def worker(self, name: str, handle: Callable[[Job], Any], *, at: float | None = None) -> Task:
        """Add a program with a JobWorker; it ends when nothing is left to do."""
        world, stage = self.world, self.world.stage
        clock = _Clock(world)

        def handler(job: Job) -> Any:
            process = world.scheduler._me().process.name
            self.started.append(Started(process, job.claim_id, job.fence, job.message_id))
            world.scheduler.note(f"begins {job.message_id} under fence {job.fence}")
            world.check()
            value = handle(job)
            self.worked.append(job.message_id)
            return value

        def run() -> None:
            worker = JobWorker(
                self.workspace.project_id,
                self.workspace.user_id,
                handler,
                claim_function=f"{stage.prefix}claim",
                prefix=stage.prefix,
                worker_id=name,
                clock=clock,
            )
            while self.open or self.input.messages:
                worker.run_once()

        return world.actor(name, run, at=at)


def _output(outcome: str, **more: Any) -> dict[str, str]:
    return {"output": json.dumps({"outcome": outcome, **more})}


class _Clock:
    """The clock of a worker's process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        return self._world.clock.time()

    def monotonic(self) -> float:
        return self._world.clock.monotonic()

    def wait(self, event: Any, seconds: float | None) -> bool:
        return bool(event.wait(seconds))
