"""The deployed job flow: start executions, wait for their ends, run a worker."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jobplane.stage.stages import Stage
from jobplane_client import Job, JobWorker
from jobplane_keys import Workspace, execution_name, from_item, to_item

LOOKS_PER_SECOND = 5


class JobFlow:
    def __init__(self, stage: Stage, description: Mapping[str, Any], workspace: Workspace) -> None:
        self.workspace = workspace
        self.executions: dict[str, str] = {}
        self._stage = stage
        self._description = description
        self._states = stage.client("stepfunctions")
        self._dynamodb = stage.client("dynamodb")
        self._sqs = stage.client("sqs")

    async def start(self, message: str, thread: str, **given: Any) -> str:
        """Start an execution for a message; its ARN."""
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
            stateMachineArn=self._description["state_machine_arn"],
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
        found = self._dynamodb.get_item(
            TableName=self._description["tables"]["active-jobs"],
            Key=to_item({"projectUserId": self.workspace.key}),
            ConsistentRead=True,
        )
        return from_item(found.get("Item", {}))

    def records(self) -> list[dict[str, Any]]:
        found = self._dynamodb.query(
            TableName=self._description["tables"]["interruptions"],
            IndexName="by-workspace",
            KeyConditionExpression="projectUserId = :key",
            ExpressionAttributeValues=to_item({":key": self.workspace.key}),
        )
        return [from_item(item) for item in found["Items"]]

    def dead_letters(self) -> list[dict[str, Any]]:
        url = self._description["queues"]["jobs-dlq.fifo"]
        found = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        bodies = [json.loads(message["Body"]) for message in found]
        return [body for body in bodies if body["projectUserId"] == self.workspace.key]

    @asynccontextmanager
    async def worker(self, handler: Callable[[Job], Any]) -> AsyncIterator[JobWorker]:
        worker = JobWorker(
            self.workspace.project_id,
            self.workspace.user_id,
            handler,
            claim_function=self._description["functions"]["claim"],
            prefix=self._stage.names.prefix,
            poll_seconds=1,
            sqs=self._stage.client("sqs"),
            stepfunctions=self._stage.client("stepfunctions"),
            lambda_=self._stage.client("lambda"),
        )
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop(cancel=True)
            await asyncio.to_thread(thread.join)


async def until(look: Callable[[], Any]) -> Any:
    """Call `look` until its result is true; that result."""
    while not (found := await asyncio.to_thread(look)):
        await asyncio.sleep(1 / LOOKS_PER_SECOND)
    return found
