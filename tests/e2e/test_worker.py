"""JobWorker on the deployed flow."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobplane_client import Job, JobWorker
from jobplane_keys import Workspace, from_item, to_item
from tests.e2e.deployed import Deployed, unique, until

pytestmark = pytest.mark.e2e


class Flow:
    """The flow on its own workspace."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.workspace = Workspace("e2e", unique("user"))
        self._states = deployed.stage.client("stepfunctions")

    def start(self, message_id: str, thread_id: str) -> str:
        """Start the flow for a message; its execution."""
        content = {
            "projectId": self.workspace.project_id,
            "userId": self.workspace.user_id,
            "threadId": thread_id,
            "messageId": message_id,
            "instruction": f"do {message_id}",
            "claimWaitSeconds": 1,
        }
        started = self._states.start_execution(
            stateMachineArn=self.deployed.info["state_machine_arn"],
            name=f"{self.workspace.user_id}-{message_id}",
            input=json.dumps(content),
        )
        return str(started["executionArn"])

    async def output(self, execution: str) -> dict[str, Any]:
        """The output of an execution that succeeded."""

        def ended() -> dict[str, Any] | None:
            found = self._states.describe_execution(executionArn=execution)
            return None if found["status"] == "RUNNING" else found

        found = await until(ended, "the execution to end")
        assert found["status"] == "SUCCEEDED", found
        output: dict[str, Any] = json.loads(found["output"])
        return output

    def claim(self) -> dict[str, Any]:
        """The workspace's row."""
        found = self.deployed.dynamodb.get_item(
            TableName=self.deployed.info["tables"]["active-jobs"],
            Key=to_item({"projectUserId": self.workspace.key}),
            ConsistentRead=True,
        )
        return from_item(found.get("Item", {}))

    def interruptions(self, message_id: str) -> list[dict[str, Any]]:
        """The interruptions of a message."""
        found = self.deployed.dynamodb.query(
            TableName=self.deployed.info["tables"]["interruptions"],
            KeyConditionExpression="messageId = :message",
            ExpressionAttributeValues=to_item({":message": message_id}),
        )
        return [from_item(item) for item in found["Items"]]

    @contextmanager
    def worker(self, handler: Callable[[Job], Any]) -> Iterator[None]:
        """A worker of the workspace; at the end both of its queues are empty."""
        stage = self.deployed.stage
        worker = JobWorker(
            self.workspace.project_id,
            self.workspace.user_id,
            handler,
            claim_function=self.deployed.info["functions"]["claim"],
            prefix=stage.names.prefix,
            sqs=self.deployed.sqs,
            stepfunctions=self._states,
            lambda_=self.deployed.functions,
            poll_seconds=1,
            follow_up_ttl=10,
        )
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
            left = self.deployed.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)
            assert set(left["Attributes"].values()) == {"0"}, queue.url


@pytest.fixture
def flow(deployed: Deployed) -> Flow:
    return Flow(deployed)


async def test_a_handlers_result_is_the_flows_output(flow: Flow) -> None:
    """The claim is released."""

    def handler(job: Job) -> dict[str, Any]:
        return {"did": job.instruction, "fence": job.fence}

    with flow.worker(handler):
        output = await flow.output(flow.start("m1", "t1"))
    row = flow.claim()
    assert output["outcome"] == "Completed"
    assert output["result"] == {"did": "do m1", "fence": row["fence"]}
    assert row["state"] == "free"


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

    with flow.worker(handler):
        first = flow.start(one, "t1")
        await until(began.is_set, "the first job to run")
        second = flow.start(other, "t2")
        outputs = [await flow.output(first), await flow.output(second)]
    assert [output["outcome"] for output in outputs] == ["Interrupted", "Completed"]
    assert fences == sorted(set(fences))
    cause = json.loads(outputs[0]["cause"])
    assert cause["partial"] == {"pages": 3}
    assert (cause["interruptingMessageId"], cause["newThreadId"]) == (other, "t2")
    (record,) = flow.interruptions(one)
    assert record["interruptingMessageId"] == other
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

    with flow.worker(handler):
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

    with flow.worker(handler):
        first = flow.start("m1", "t1")
        await until(began.is_set, "the job to run")
        assert (await flow.output(flow.start("m2", "t1")))["outcome"] == "Joined"
        leave.set()
        assert (await flow.output(first))["outcome"] == "Completed"
        await until(lambda: len(ran) == 2, "the follow-up to run")
        await until(lambda: flow.claim()["state"] == "free", "its claim to be free")
    assert [message for message, _ in ran] == ["m1", "m2"]
    assert ran[1][1] > ran[0][1]
