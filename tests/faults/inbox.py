"""Scenarios of messages in the bucket's `inbox/`: from the object to the end of its job.

The job flow's executions and the job worker of the workspace run as the stream and the queues do:
when there is something to do. The worker is `jobplane_client.JobWorker`, in one thread, so that the
order of its calls is fixed: it renews nothing, and what the handler reports is sent when it has
returned.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from email.message import EmailMessage
from typing import Any
from unittest.mock import patch

import boto3
from botocore.exceptions import BotoCoreError, ClientError

import jobplane_client._runs
from jobplane_client import Job, JobWorker
from jobplane_client._reports import FLUSH_SECONDS, Reports
from jobplane_client._runs import Run
from jobplane_keys import Workspace, input_queue_name
from tests.faults.cloud import TRIES, Client, Cloud, Row
from tests.faults.flow import CaughtError, Execution
from tests.faults.injecting import ProcessDiedError
from tests.faults.scenarios import Scenario, check_requests
from tests.faults.workspaces import Workspaces

USER, TENANT = "ann", "acme"
HEARTBEAT_SECONDS = 90
# Shorter than the heartbeat, so that a second worker comes in time.
VISIBILITY_SECONDS = 30
FILE = b"\x89PNG plan"


class Worker:
    """The workspace's job worker; one that is killed, or can't start, is started again."""

    def __init__(self, cloud: Cloud, workspace: Workspace, handler: Callable[[Job], Any]) -> None:
        self.cloud = cloud
        self.process = cloud.program("worker")
        self.workspace = workspace
        self.handler = handler

    def run_once(self) -> None:
        """Run a job if there is a message."""
        self.process.dead = False
        prefix = self.cloud.aws.template.names.prefix
        try:
            with (
                suppress(ProcessDiedError, BotoCoreError, ClientError),
                patch.object(boto3, "client", self.process.client),
            ):
                JobWorker(
                    self.workspace.project_id,
                    self.workspace.user_id,
                    self.handler,
                    claim_function=f"{prefix}claim",
                    prefix=prefix,
                    visibility_seconds=VISIBILITY_SECONDS,
                    poll_seconds=0,
                    clock=WorkerClock(self.cloud),
                ).run_once()
        finally:
            self.cloud.plan.end_invocation(self.process.name)


class WorkerClock:
    """The simulated time; who waits for what only another thread can do waits it out."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def time(self) -> float:
        return self.cloud.clock.now

    monotonic = time

    def wait(self, event: Any, seconds: float | None) -> bool:
        if not event.is_set():
            self.cloud.clock.advance(seconds or 0)
        return bool(event.is_set())


class ReportsAtTheEnd(Reports):
    """Reports that are sent when the handler has returned, for the usual half minute at most."""

    def __init__(
        self, clock: Any, send: Callable[[Mapping[str, Any]], Any], refused: Callable[[], None]
    ) -> None:
        def send_in_time(report: Mapping[str, Any]) -> Any:
            if clock.monotonic() > self.ends:
                self.drop()
            return send(report)

        super().__init__(clock, send_in_time, refused)
        self.clock = clock
        self.ends = 0.0

    def _begin(self) -> None:
        pass

    def close(self) -> None:
        self.ends = self.clock.monotonic() + FLUSH_SECONDS
        self._closing.set()
        self._run()
        self.drop()


def in_one_thread(_: Run, name: str, target: Callable[[], None]) -> None:
    """A job's threads: the handler's runs at once, those of the keeper have nothing to do yet."""
    if name == "handler":
        target()


class PostsAtOnce:
    """An outbox whose sender waits for each post."""

    def put(self, post: Callable[[], object], **_: Any) -> None:
        post()

    def answered(self) -> None:
        pass

    def close(self, _: float) -> bool:
        return True


class Mail(Workspaces):
    """An e-mail with a file arrives; its user listens to the job that it becomes."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.client = Client(cloud, USER, TENANT)
        self.worker: Worker | None = None
        self.begun: list[Execution] = []
        self.ran: list[tuple[int, Any, list[str]]] = []

    def message(self) -> bytes:
        sent = EmailMessage()
        sent["Message-ID"], sent["From"] = "<m-1@example.org>", "Ann <ann@example.org>"
        sent["To"], sent["Subject"] = f"site+{USER}@mail.example.com", "A page"
        sent.set_content("Please.")
        sent.add_attachment(FILE, maintype="image", subtype="png", filename="plan.png")
        return sent.as_bytes()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        self.cloud.read_stream("dispatch", "requests")
        self.cloud.flows.on_start = self.begin
        self.cloud.others.append(self.run_executions)
        with ExitStack() as stack:
            stack.enter_context(super().prepared())
            intake, report_job = map(self.cloud.module, ("intake", "report-job"))
            stack.enter_context(patch.object(intake, "TENANTS", {"mail.example.com": TENANT}))
            stack.enter_context(patch.object(report_job, "Outbox", PostsAtOnce))
            stack.enter_context(patch.object(Run, "_start_thread", in_one_thread))
            stack.enter_context(patch.object(JobWorker, "_listen", lambda _: None))
            stack.enter_context(patch.object(jobplane_client._runs, "Reports", ReportsAtTheEnd))
            yield

    def play(self) -> None:
        bucket, key = self.cloud.aws.buckets["files"], "inbox/message"
        self.client.connect()
        self.cloud.s3.put_object(Bucket=bucket, Key=key, Body=self.message())
        event = {"detail": {"bucket": {"name": bucket}, "object": {"key": key}}}
        # An event on which it fails three times is in a queue; an operator invokes it again.
        assert any(self.cloud.invoke_later("intake", event) for _ in range(TRIES))
        [row] = self.cloud.items("requests")
        self.job = str(row["request_id"])
        said = self.client.ask("subscribe", {"request_id": self.job})
        assert said["data"]["subscribed"] is True
        self.cloud.flow()

    def rest(self) -> None:
        self.cloud.settle()

    # The flow

    def begin(self, arn: str, given: Row) -> None:
        workspace = Workspace(given["projectId"], given["userId"])
        ids = (given["messageId"], given["threadId"])
        self.worker = Worker(self.cloud, workspace, self.work)
        self.begun.append(Execution(self.cloud, *ids, workspace.key, arn, given))

    def run_executions(self) -> bool:
        """Run the executions that were started; whether there were any."""
        started = [
            each for each in self.begun if self.cloud.flows.executions[each.arn].status == "RUNNING"
        ]
        for execution in started:
            try:
                ended = self.run_execution(execution)
            except CaughtError as error:
                ended = self.fail(execution, error)
            status = "FAILED" if "error" in ended else "SUCCEEDED"
            self.cloud.flows.stop(execution.arn, status, **ended)
            self.cloud.invoke_later("report-job", execution.ended(status))
        return bool(started)

    def run_execution(self, execution: Execution) -> dict[str, str]:
        """An execution's output, or its error and cause."""
        assert execution.check()["hasActiveJob"] is False
        assert execution.acquire()["claimed"] is True
        assert execution.begin()
        task = self.cloud.flows.open(f"token-{execution.message_id}", HEARTBEAT_SECONDS)
        self.send(execution, task.token)
        while not task.end and self.cloud.clock.now <= task.beaten_at + HEARTBEAT_SECONDS:
            self.worker_turn(task.beaten_at + HEARTBEAT_SECONDS)
        if task.end in {"", "timed out"}:
            execution.time_out()
            return {"error": "TimedOut", "cause": json.dumps({"kind": "heartbeat_lost"})}
        assert task.end == "succeeded", task
        execution.release()
        said = {"outcome": "Completed", "result": json.loads(task.detail)}
        return {"output": json.dumps(said)}

    def fail(self, execution: Execution, error: CaughtError) -> dict[str, str]:
        """End an execution after a task that failed for good."""
        if error.next_state == "ReleaseAfterFailure":
            with suppress(CaughtError):
                execution.release("ReleaseAfterFailure", "failed")
        execution.end("FAILED")
        return {"error": "JobFailed"}

    def worker_turn(self, until: float) -> None:
        """Let the worker look for a message; then the time moves to the next one, or to `until`."""
        assert self.worker is not None
        self.worker.run_once()
        due = [(one.visible_at or 0) / 1000 for one in self.messages()]
        self.cloud.clock.now = max(self.cloud.clock.now, min([until, *due])) + 0.5

    @property
    def queue(self) -> str:
        assert self.worker is not None
        return input_queue_name(self.cloud.aws.template.names.prefix, self.worker.workspace)

    def messages(self) -> list[Any]:
        """The messages for the worker."""
        return list(self.cloud.queue_named(self.queue)._messages)

    def send(self, execution: Execution, token: str) -> None:
        """Send a JOB, as the flow does."""
        made = self.cloud.sqs.create_queue(
            QueueName=self.queue, Attributes={"FifoQueue": "true", "VisibilityTimeout": "120"}
        )
        given, claim = execution.given, execution.claim
        prefix = self.cloud.aws.template.names.prefix
        body = {
            "type": "JOB", "taskToken": token, "messageId": execution.message_id,
            "threadId": execution.thread_id, "projectUserId": execution.workspace,
            **execution.holding, "containerId": claim["containerId"],
            "expiresAt": claim["expiresAt"], "instruction": given["instruction"],
            "instructionObject": None, "attachments": given["attachments"],
            "heartbeatSeconds": HEARTBEAT_SECONDS, "claimTtlSeconds": 3600, "resultLocation": None,
            "request": given["request"], "reportFunction": f"{prefix}report-job",
        }  # fmt: skip
        self.cloud.sqs.send_message(
            QueueUrl=made["QueueUrl"],
            MessageBody=json.dumps(body),
            MessageGroupId="job",
            MessageDeduplicationId=claim["claimId"],
        )

    def work(self, job: Job) -> str:
        """The worker's handler."""
        self.ran.append((job.fence, job.instruction, [each["key"] for each in job.attachments]))
        job.report(50, "half")
        job.emit("line")
        return "done"

    # What must hold

    def check(self) -> None:
        plan = self.cloud.plan
        # A worker that can reach no service for minutes loses its job.
        is_cut_off = "worker" in plan.hit and plan.fault is not None and plan.fault.lasts
        check_requests(self.cloud, **{self.job: "COMPLETED|FAILED" if is_cut_off else "COMPLETED"})
        [row] = self.cloud.items("requests")
        [execution] = self.cloud.flows.executions.values()
        self.check_history(self.begun[0].message_id)
        self.check_input()
        fences = [fence for fence, *_ in self.ran]
        is_disturbed = "worker" in plan.hit or "claim" in plan.hit
        assert fences == sorted({*fences}), "two workers had the job under one fence"
        assert len(self.ran) <= (2 if is_disturbed else 1) or is_cut_off, self.ran
        if row["status"] == "COMPLETED":
            assert execution.status == "SUCCEEDED"
            # Each run of the handler emits one.
            assert row["event_count"] <= len(self.ran)
            state = (
                Client(self.cloud, USER, TENANT).connect().ask("status", {"request_id": self.job})
            )
            assert state["data"]["result"] == {"outcome": "Completed", "result": "done"}
            assert self.cloud.items("interruptions") == []
        if self.messages():
            # Of a worker that was killed after its report: the next one finds the task over.
            self.cloud.clock.advance(2 * VISIBILITY_SECONDS)
            self.worker_turn(self.cloud.clock.now)
        assert (self.messages(), len(self.ran)) == ([], len(fences))

    def check_input(self) -> None:
        """The worker got what was sent, and the file is stored once."""
        for _, instruction, keys in self.ran:
            assert instruction == {
                "from": "ann@example.org", "subject": "A page", "text": "Please.",
            }  # fmt: skip
            assert self.cloud.objects("attachments/") == {keys[0]: FILE}
        assert self.cloud.objects("inbox-refused/") == {}


class JsonMessage(Mail):
    """A JSON message whose instruction is stored apart from its job's row."""

    INSTRUCTION = {"page": "x" * 8000}

    def message(self) -> bytes:
        named = {"tenant": TENANT, "user": USER, "project": "site", "thread": "t-1", "id": "day-1"}
        return json.dumps(named | {"instruction": self.INSTRUCTION}).encode()

    def check_input(self) -> None:
        assert all(given == self.INSTRUCTION for _, given, _ in self.ran)
        assert len(self.cloud.objects("payloads/")) == 1


MESSAGES: dict[str, type[Scenario]] = {"intake": Mail, "intake-json": JsonMessage}
