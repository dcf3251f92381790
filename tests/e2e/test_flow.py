"""The job flow on the local stage: the end of each path through it."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobplane_client import Job, JobWorker
from jobplane_keys import (
    Workspace,
    execution_name,
    from_item,
    input_queue_name,
    interrupt_queue_name,
    to_item,
)
from tests.e2e.deployed import Deployed, Message, unique, until
from tests.e2e.platform_records import without_concurrency

pytestmark = pytest.mark.e2e


class Flow:
    """A workspace with its executions and queues."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.workspace = Workspace(unique("project"), "scott")
        self.states = deployed.stage.client("stepfunctions")
        (self.arn,) = deployed.info["state_machines"].values()
        self._prefix = deployed.stage.names.prefix
        self.input_queue_name = input_queue_name(self._prefix, self.workspace)

    def start(self, message_id: str, thread_id: str = "thread", **given: Any) -> str:
        """Start the flow for a message; the execution's ARN."""
        whose = {"projectId": self.workspace.project_id, "userId": self.workspace.user_id}
        message = {
            "threadId": thread_id,
            "messageId": message_id,
            "instruction": f"do {message_id}",
        }
        seconds = {"claimTtlSeconds": 120, "claimWaitSeconds": 1}
        return self.start_named(unique("run"), {**whose, **message, **seconds, **given})

    def start_named(self, name: str, content: Message) -> str:
        started = self.states.start_execution(
            stateMachineArn=self.arn, name=name, input=json.dumps(content)
        )
        return str(started["executionArn"])

    async def end_of(self, execution: str, patience: float = 60) -> Message:
        """How an execution ended: status, output, error and cause, the JSON ones parsed."""

        def ended() -> Message | None:
            found: Message = self.states.describe_execution(executionArn=execution)
            return found if found["status"] != "RUNNING" else None

        found = await until(ended, f"the end of {execution}", patience=patience)
        for name in ("output", "cause"):
            try:
                found[name] = json.loads(found.get(name) or "null")
            except ValueError:
                continue
        return dict(found)

    def history(self, execution: str) -> list[Message]:
        found = self.states.get_execution_history(executionArn=execution, maxResults=1000)
        return list(found["events"])

    async def output(self, execution: str) -> Message:
        """The output of an execution that succeeded."""
        end = await self.end_of(execution)
        assert end["status"] == "SUCCEEDED", end
        output: Message = end["output"]
        return output

    async def outcome(self, execution: str) -> str:
        return str((await self.output(execution))["outcome"])

    async def receive(self, queue_name: str | None = None) -> Message:
        """The next message of the workspace's input queue, or of another."""
        name = queue_name or self.input_queue_name

        def received() -> Message | None:
            try:
                url = self.deployed.sqs.get_queue_url(QueueName=name)["QueueUrl"]
            except self.deployed.sqs.exceptions.QueueDoesNotExist:
                return None
            found = self.deployed.sqs.receive_message(QueueUrl=url).get("Messages")
            if not found:
                return None
            self.deployed.sqs.delete_message(QueueUrl=url, ReceiptHandle=found[0]["ReceiptHandle"])
            return dict(json.loads(found[0]["Body"]))

        message: Message = await until(received, f"a message in {name}")
        return message

    def worker(self, handler: Callable[[Job], Any], **options: Any) -> JobWorker:
        """The library's own worker."""
        return JobWorker(
            self.workspace.project_id,
            self.workspace.user_id,
            handler,
            claim_function=self.deployed.info["functions"]["claim"],
            prefix=self._prefix,
            sqs=self.deployed.sqs,
            stepfunctions=self.states,
            lambda_=self.deployed.functions,
            s3=self.deployed.s3,
            **options,
        )

    async def interrupt(self) -> Message:
        return await self.receive(interrupt_queue_name(self._prefix, self.workspace))

    def claim(self) -> Message:
        """The workspace's row."""
        return self.deployed.get("active-jobs", projectUserId=self.workspace.key)

    def records(self) -> list[Message]:
        """The workspace's interruptions by time."""
        found = self.deployed.dynamodb.query(
            TableName=self.deployed.info["tables"]["interruptions"],
            IndexName="by-workspace",
            KeyConditionExpression="projectUserId = :key",
            ExpressionAttributeValues=to_item({":key": self.workspace.key}),
        )
        return [from_item(item) for item in found["Items"]]

    def dead_letters(self) -> list[Message]:
        """The workspace's messages in the dead-letter queue; they stay there."""
        url = self.deployed.info["queues"]["jobs-dlq.fifo"]
        letters = []
        while found := self.deployed.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=2
        ).get("Messages"):
            letters += [json.loads(message["Body"]) for message in found]
        return [letter for letter in letters if letter["projectUserId"] == self.workspace.key]

    def succeed(self, job: Message, **output: Any) -> None:
        self.states.send_task_success(taskToken=job["taskToken"], output=json.dumps(output))

    def fail(self, job: Message, error: str, **cause: Any) -> None:
        self.states.send_task_failure(
            taskToken=job["taskToken"], error=error, cause=json.dumps(cause)
        )


@pytest.fixture
def flow(deployed: Deployed) -> Flow:
    return Flow(deployed)


async def test_a_successful_job_gives_its_result_and_frees_the_workspace(flow: Flow) -> None:
    """The output has its ids."""
    execution = flow.start("m1")
    job = await flow.receive()
    held = flow.claim()
    flow.succeed(job, answer=42)
    end = await flow.end_of(execution)

    assert (held["state"], held["owner"], held["fence"]) == ("held", execution, job["fence"])
    assert job["attachments"] == []
    assert end["status"] == "SUCCEEDED"
    assert end["output"]["outcome"] == "Completed"
    assert end["output"]["result"] == {"answer": 42}
    assert end["output"]["resultObject"] is None
    ids = {"projectUserId": flow.workspace.key, "threadId": "thread", "messageId": "m1"}
    assert end["output"]["job"] == ids
    assert flow.claim()["state"] == "free"


async def test_each_attachment_is_looked_up(flow: Flow, deployed: Deployed) -> None:
    """A missing one is reported, and the job runs."""
    bucket, key = deployed.info["buckets"]["files"], f"uploads/{unique('attachment')}"
    deployed.s3.put_object(Bucket=bucket, Key=key, Body=b"four")
    given = [{"bucket": bucket, "key": key}, {"bucket": bucket, "key": unique("nothing")}]
    execution = flow.start("m1", attachments=given)
    job = await flow.receive()
    flow.succeed(job)

    good, bad = job["attachments"]
    assert (good["ok"], good["size"]) == (True, 4)
    assert (bad["ok"], bad["key"]) == (False, given[1]["key"])
    assert (await flow.end_of(execution))["status"] == "SUCCEEDED"


async def test_a_255_kb_instruction_and_a_256_kb_result_go_through_s3(
    flow: Flow, deployed: Deployed
) -> None:
    instruction = "é" * (255 * 512 - 1)
    execution = flow.start("m1", instruction=instruction)
    end_of = asyncio.create_task(flow.end_of(execution))
    worker = flow.worker(
        lambda job: {"same": job.instruction == instruction, "pad": "x" * 262_122}, poll_seconds=20
    )
    ended = await asyncio.to_thread(worker.run_once)
    end = await end_of

    assert ended == "completed"
    assert (end["status"], end["output"]["result"]) == ("SUCCEEDED", None)
    found = content(deployed, end["output"]["resultObject"])
    assert json.loads(found) == {"same": True, "pad": "x" * 262_122}
    assert len(found) == 256 * 1024


def content(deployed: Deployed, place: Message) -> bytes:
    """The content of an object."""
    found = deployed.s3.get_object(Bucket=place["bucket"], Key=place["key"])
    return bytes(found["Body"].read())


async def test_a_large_instruction_of_a_follow_up_goes_through_s3(flow: Flow) -> None:
    first = flow.start("m1")
    job = await flow.receive()
    assert await flow.outcome(flow.start("m2", instruction=["x" * 200_000])) == "Joined"
    follow_up = await flow.receive()
    flow.succeed(job)

    assert follow_up["instruction"] is None
    stored = content(flow.deployed, follow_up["instructionObject"])
    assert json.loads(stored) == {"instruction": ["x" * 200_000]}
    assert (await flow.end_of(first))["status"] == "SUCCEEDED"


async def test_a_worker_without_the_library_may_report_255_kb(flow: Flow) -> None:
    """A larger result fails with its own error name."""
    first = flow.start("m1")
    flow.succeed(await flow.receive(), pad="x" * 261_110)
    told = await flow.end_of(first)
    second = flow.start("m2")
    flow.succeed(await flow.receive(), pad="x" * 262_100)
    refused = await flow.end_of(second)

    assert len(told["output"]["result"]["pad"]) == 261_110
    assert (refused["status"], refused["error"]) == ("FAILED", "ResultTooLargeError")
    assert "261120 bytes" in refused["cause"]["cause"]
    assert flow.claim()["state"] == "free"


async def test_an_input_out_of_bounds_is_refused_with_field_and_bound(flow: Flow) -> None:
    """Also a malformed id. Nothing is claimed for it."""
    for given, words in (
        ({"userId": "scott#admin"}, "projectUserId"),
        ({"projectId": "a/b"}, "projectUserId"),
        ({"threadId": "x" * 200}, "threadId"),
        ({"messageId": "文書"}, "messageId"),
        ({"instruction": "x" * 261_119}, "instruction: at most 261120 bytes"),
        ({"attachments": [{"bucket": "b", "key": "k"}] * 501}, "attachments: at most 500"),
        ({"attachments": "b/k"}, "attachments: a list"),
        ({"claimTtlSeconds": 2}, "claimTtlSeconds: a whole number from 3 to 86400"),
        ({"timeoutSeconds": 1.5, "heartbeatSeconds": 0}, "heartbeatSeconds: a whole number from 1"),
        ({"maxClaimTries": "many"}, "maxClaimTries: a whole number from 1 to 1000"),
    ):
        end = await flow.end_of(flow.start("m1", **given))
        assert (end["status"], end["error"]) == ("FAILED", "ValidationError"), end
        assert words in end["cause"]["cause"]
        assert len(json.dumps(end["cause"])) < 2000
    assert flow.claim() == {}


@pytest.mark.parametrize("action", ["sqs:SendMessage", "sqs:GetQueueUrl"])
async def test_a_job_is_sent_again_after_sqs_refused_it(flow: Flow, action: str) -> None:
    """Or the look-up of its queue. It runs once, and no queue is created."""
    queue_url = make_input_queue(flow)
    refuse(flow, queue_url, action)
    execution = flow.start("m1")
    await until(lambda: retried(flow, execution), "a retry")
    refuse(flow, queue_url, action, refused=False)
    flow.succeed(await flow.receive())

    assert await flow.outcome(execution) == "Completed"
    assert "MakeInputQueue" not in entered(flow, execution)


async def test_a_second_message_of_the_thread_ends_as_joined(flow: Flow) -> None:
    """The running job gets it."""
    first = flow.start("m1")
    job = await flow.receive()
    output = await flow.output(flow.start("m2"))
    follow_up = await flow.receive()
    flow.succeed(job)

    assert (output["outcome"], output["job"]["messageId"]) == ("Joined", "m2")
    assert (follow_up["type"], follow_up["claimId"]) == ("FOLLOW_UP", job["claimId"])
    assert await flow.outcome(first) == "Completed"
    assert flow.records() == []


async def test_a_message_of_another_thread_interrupts_the_job_and_runs(flow: Flow) -> None:
    first = flow.start("m1", "thread-a")
    running = await flow.receive()
    second = flow.start("m2", "thread-b")
    interrupt = await flow.interrupt()
    flow.fail(running, "PREEMPTED", interruptingMessageId="m2", newThreadId="thread-b")
    interrupted = await flow.outcome(first)
    job = await flow.receive()
    flow.succeed(job)
    completed = await flow.outcome(second)

    assert interrupt["target"]["claimId"] == running["claimId"]
    assert interrupt["target"]["fence"] == running["fence"]
    assert (interrupted, completed) == ("Interrupted", "Completed")
    assert job["fence"] > running["fence"]
    (record,) = flow.records()
    assert (record["messageId"], record["interruptingMessageId"]) == ("m1", "m2")
    assert flow.claim()["state"] == "free"


async def test_a_job_without_heartbeats_is_recorded_and_dead_lettered(flow: Flow) -> None:
    """Its claim is released."""
    execution = flow.start("m1", heartbeatSeconds=2)
    job = await flow.receive()
    end = await flow.end_of(execution)

    assert (end["status"], end["error"]) == ("FAILED", "TimedOut")
    assert end["cause"]["kind"] == "heartbeat_lost"
    assert end["cause"]["messageId"] == "m1"
    await settled(flow, job, "heartbeat_lost")


async def test_a_job_with_heartbeats_outlives_the_heartbeat_timeout(flow: Flow) -> None:
    execution = flow.start("m1", heartbeatSeconds=4)
    job = await flow.receive()
    end = time.monotonic() + 6
    while time.monotonic() < end:
        flow.states.send_task_heartbeat(taskToken=job["taskToken"])
        await asyncio.sleep(0.5)
    flow.succeed(job)

    assert await flow.outcome(execution) == "Completed"


async def test_a_job_is_timed_out_after_its_total_time_despite_heartbeats(flow: Flow) -> None:
    execution = flow.start("m1", timeoutSeconds=2)
    job = await flow.receive()
    end = await flow.end_of(execution)

    assert (end["status"], end["error"]) == ("FAILED", "TimedOut")
    await settled(flow, job, "timeout")


async def settled(flow: Flow, job: Message, kind: str) -> None:
    """One record, one dead letter, no claim; a late answer of the worker changes nothing."""
    (record,) = flow.records()
    (letter,) = flow.dead_letters()
    assert (record["kind"], record["interruptedClaimId"]) == (kind, job["claimId"])
    assert (letter["kind"], letter["claimId"]) == (kind, job["claimId"])
    assert letter["messageId"] == job["messageId"]
    assert flow.claim()["state"] == "free"
    errors = (flow.states.exceptions.TaskDoesNotExist, flow.states.exceptions.TaskTimedOut)
    with pytest.raises(errors):
        flow.succeed(job)


async def test_a_failed_job_ends_with_the_workers_error_and_the_inputs_ids(flow: Flow) -> None:
    """It is not retried, whatever its error is called."""
    execution = flow.start("m1")
    flow.fail(await flow.receive(), "ThrottlingError", left=0)
    end = await flow.end_of(execution)

    assert (end["status"], end["error"]) == ("FAILED", "ThrottlingError")
    assert end["cause"]["messageId"] == "m1"
    assert json.loads(end["cause"]["cause"]) == {"left": 0}
    assert flow.claim()["lastReleased"]["reason"] == "failed"
    assert flow.records() == []
    sent = [event for event in flow.history(execution) if event["type"] == "TaskScheduled"]
    assert sum("waitForTaskToken" in str(event) for event in sent) <= 1


async def test_a_message_can_not_be_started_twice(flow: Flow) -> None:
    name = execution_name(flow.workspace, "m1")
    ids = {"projectId": flow.workspace.project_id, "userId": "scott", "threadId": "t"}
    started = flow.start_named(name, ids | {"messageId": "m1", "instruction": "once"})
    flow.succeed(await flow.receive())
    await flow.end_of(started)
    with pytest.raises(flow.states.exceptions.ExecutionAlreadyExists):
        flow.start_named(name, ids | {"messageId": "m1", "instruction": "x"})


async def test_a_message_gives_up_if_the_holder_ignores_interrupts(flow: Flow) -> None:
    """After a limited number of attempts; the holder keeps its job."""
    first = flow.start("m1", "thread-a")
    job = await flow.receive()
    end = await flow.end_of(flow.start("m2", "thread-b", maxClaimTries=3))
    flow.succeed(job)

    assert (end["status"], end["error"]) == ("FAILED", "WorkspaceBusy")
    assert end["cause"]["holder"]["claimId"] == job["claimId"]
    assert await flow.outcome(first) == "Completed"


async def test_a_throttled_function_is_retried_and_the_job_runs(
    flow: Flow, deployed: Deployed
) -> None:
    with without_concurrency(deployed, "claim"):
        execution = flow.start("m1")
        await until(lambda: retried(flow, execution), "a retry")
    flow.succeed(await flow.receive())

    assert await flow.outcome(execution) == "Completed"


def retried(flow: Flow, execution: str) -> bool:
    """Whether a task of an execution has failed and was retried."""
    failures = {"TaskFailed", "LambdaFunctionFailed"}
    return any(event["type"] in failures for event in flow.history(execution))


def make_input_queue(flow: Flow) -> str:
    """The workspace's input queue with the attributes of an earlier version."""
    made = flow.deployed.sqs.create_queue(
        QueueName=flow.input_queue_name, Attributes={"FifoQueue": "true", "VisibilityTimeout": "17"}
    )
    return str(made["QueueUrl"])


def refuse(flow: Flow, queue_url: str, action: str, *, refused: bool = True) -> None:
    """Make SQS refuse an action on a queue, or stop that."""
    statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    flow.deployed.sqs.set_queue_attributes(
        QueueUrl=queue_url, Attributes={"Policy": json.dumps(policy) if refused else ""}
    )


async def test_a_job_fails_if_the_look_up_of_its_queue_stays_refused(flow: Flow) -> None:
    """With the error of SQS, and without a claim left."""
    queue_url = make_input_queue(flow)
    first = flow.start("m1")
    job = await flow.receive()
    refuse(flow, queue_url, "sqs:GetQueueUrl")
    joining = flow.start("m2")
    await until(lambda: retried(flow, joining), "a retry")
    flow.fail(job, "DiskFullError")
    await flow.end_of(first)
    second = flow.start("m3")
    joined, end = await asyncio.gather(flow.end_of(joining), flow.end_of(second))

    for ended, message_id, execution in ((joined, "m2", joining), (end, "m3", second)):
        assert (ended["status"], ended["cause"]["messageId"]) == ("FAILED", message_id)
        assert ended["error"].endswith("AccessDenied")
        assert not {"MakeInputQueue", "MakeHolderQueue"} & entered(flow, execution)
    assert flow.claim()["state"] == "free"
    assert flow.claim()["lastReleased"]["reason"] == "failed"


def entered(flow: Flow, execution: str) -> set[str]:
    """The states that an execution has been in."""
    return {
        event["stateEnteredEventDetails"]["name"]
        for event in flow.history(execution)
        if "stateEnteredEventDetails" in event
    }


async def test_a_stopped_execution_leaves_no_claim(flow: Flow) -> None:
    execution = flow.start("m1")
    await flow.receive()
    flow.states.stop_execution(executionArn=execution)

    await until(lambda: flow.claim().get("state") == "free", "the release")
    (record,) = flow.records()
    assert (record["kind"], record["executionArn"]) == ("forced", execution)


async def test_the_sweep_releases_the_claim_of_an_end_without_an_event(flow: Flow) -> None:
    """And has the end recorded."""
    rules = flow.deployed.stage.client("events")
    declared = rules.list_rules()["Rules"]
    (rule,) = [r["Name"] for r in declared if "ended badly" in r.get("Description", "")]
    rules.disable_rule(Name=rule)
    try:
        execution = flow.start("m1")
        await flow.receive()
        flow.states.stop_execution(executionArn=execution)
        await swept(flow)
    finally:
        rules.enable_rule(Name=rule)

    records = await until(flow.records, "the record")
    assert [(each["kind"], each["executionArn"]) for each in records] == [("forced", execution)]


async def test_the_sweep_releases_claims_although_handle_timeout_can_not_run(flow: Flow) -> None:
    """Live claims stay."""
    other = Flow(flow.deployed)
    living = other.start("m1")
    job = await other.receive()
    with without_concurrency(flow.deployed, "handle-timeout"):
        execution = flow.start("m1")
        await flow.receive()
        flow.states.stop_execution(executionArn=execution)
        await swept(flow)

    assert flow.claim()["lastReleased"]["reason"] == "swept"
    assert other.claim()["claimId"] == job["claimId"]
    other.succeed(job)
    assert await other.outcome(living) == "Completed"


async def swept(flow: Flow) -> None:
    """Run the sweep until a condition holds."""

    def is_free() -> bool:
        flow.deployed.invoke("sweep-claims", {"sweep": "claims"})
        return bool(flow.claim().get("state") == "free")

    await until(is_free, "the release", every=1)


async def test_a_claim_is_released_after_an_event_without_input(flow: Flow) -> None:
    """EventBridge omits a large input; the claim is found by its execution."""
    execution = flow.start("m1")
    job = await flow.receive()
    omitted = {"input": None, "inputDetails": {"included": False}}
    detail = {"executionArn": execution, "status": "ABORTED", **omitted}
    event = {"detail-type": "Step Functions Execution Status Change", "detail": detail}
    answer = flow.deployed.invoke("handle-timeout", event)

    assert (answer["released"], answer["recorded"]) == (True, True)
    assert flow.claim()["state"] == "free"
    assert [letter["claimId"] for letter in flow.dead_letters()] == [job["claimId"]]
    flow.states.stop_execution(executionArn=execution)
