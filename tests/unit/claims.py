"""Claims in moto: the tables and queues of resources/jobs.yml, and their functions."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from botocore.exceptions import ClientError

from jobplane_keys import (
    CLAIM_PURGE_SECONDS,
    CLAIM_TTL_SECONDS,
    RELEASE_CLAIM,
    from_item,
    iso_time,
    to_item,
)
from tests.unit.clock import Clock
from tests.unit.stack import ACCOUNT, PREFIX, REGION, Context, Stack, load

# An arbitrary time.
NOW = 1_795_342_530.25
WORKSPACE = "amelia#scott"
HOUR = 3600

HOSTILE_IDS: list[Any] = [
    "", " ", "a#b", "a/b", "a b", "x" * 129, "x" * 200, "ünicode", "名前", "имя", "a\n", "\ud800",
    "a\x00", "*", None, 7, 1.5, True, [], ["a"], {}, {"S": "a"},
]  # fmt: skip


def queue_url(name: str) -> str:
    return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}"


class Jobs:
    """The functions of the claims on one stack, all with one clock."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.clock = Clock(NOW)
        stack.create("jobs")

    def function(self, name: str, **changes: str | None) -> ModuleType:
        """A function of this stack on its clock; None omits a variable."""
        module = load(name, **changes)
        self.stack.monkeypatch.setattr(module, "time", self.clock)
        return module

    def call(self, function: str, **event: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.function(function).handler(event, Context())
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer
        return answer

    def acquire(self, workspace: str | None = WORKSPACE, **event: Any) -> dict[str, Any]:
        """The answer of `claim` to message-1 of thread-1, with other values if given."""
        given = {"threadId": "thread-1", "messageId": "message-1"} | event
        return self.call("claim", projectUserId=workspace, **given)

    def renew(self, claim: dict[str, Any], **event: Any) -> dict[str, Any]:
        return self.call("claim", operation="renew", **holding(claim) | event)

    def release(self, claim: dict[str, Any], **event: Any) -> dict[str, Any]:
        return self.call("claim", operation="release", **holding(claim) | event)

    def hold(
        self, workspace: str = WORKSPACE, *, ttl: int = CLAIM_TTL_SECONDS, **row: Any
    ) -> dict[str, Any]:
        """Store a claim as `claim` does; the answer that `claim` would give."""
        now = self.clock.now
        before = self.row(workspace)
        claim = {
            "projectUserId": workspace, "state": "held", "claimId": str(uuid4()),
            "fence": before.get("fence", int(now * 1000)) + 1, "threadId": "thread-1",
            "messageId": "message-1",
            "containerId": f"container-{int(now * 1000)}-{uuid4().hex[:8]}",
            "claimedAt": iso_time(now), "lastClaimAt": round(now, 3),
            "expiresAt": math.ceil(now) + ttl, "purgeAt": int(now) + CLAIM_PURGE_SECONDS,
        } | {name: value for name, value in row.items() if value is not None}  # fmt: skip
        if "lastReleased" in before:
            claim["lastReleased"] = before["lastReleased"]
        self.stack.put("active-jobs", claim)
        names = ("claimId", "fence", "containerId", "expiresAt")
        return {"claimed": True} | {name: claim[name] for name in names}

    def let_go(self, claim: dict[str, Any], workspace: str = WORKSPACE) -> None:
        """Release a claim as its holder does."""
        now = self.clock.now
        released = {"claimId": claim["claimId"], "at": iso_time(now), "reason": "done"}
        purge = int(now) + CLAIM_PURGE_SECONDS
        values = {":free": "free", ":released": released, ":purge": purge}
        self.stack.dynamodb.update_item(
            TableName=f"{PREFIX}active-jobs",
            Key=to_item({"projectUserId": workspace}),
            UpdateExpression=RELEASE_CLAIM,
            ExpressionAttributeNames={"#state": "state", "#owner": "owner"},
            ExpressionAttributeValues=to_item(values),
        )

    def row(self, workspace: str = WORKSPACE) -> dict[str, Any]:
        return self.stack.get("active-jobs", projectUserId=workspace)

    def put(self, **row: Any) -> None:
        self.stack.put("active-jobs", {"projectUserId": WORKSPACE} | row)

    def delete(self, workspace: str = WORKSPACE) -> None:
        """Delete a row, as DynamoDB does after its time to live."""
        self.stack.dynamodb.delete_item(
            TableName=f"{PREFIX}active-jobs", Key={"projectUserId": {"S": workspace}}
        )

    def records(self) -> list[dict[str, Any]]:
        return self.stack.items("interruptions")

    def records_of(self, message_id: str) -> list[dict[str, Any]]:
        return self._query("messageId = :key", message_id)

    def records_of_workspace(self, workspace: str) -> list[dict[str, Any]]:
        """The records of one workspace, in order of time."""
        return self._query("projectUserId = :key", workspace, IndexName="by-workspace")

    def _query(self, condition: str, key: str, **index: str) -> list[dict[str, Any]]:
        found = self.stack.dynamodb.query(
            TableName=f"{PREFIX}interruptions",
            KeyConditionExpression=condition,
            ExpressionAttributeValues={":key": {"S": key}},
            **index,
        )
        return [from_item(item) for item in found["Items"]]

    @contextmanager
    def new_queues_refused(self, module: ModuleType) -> Iterator[None]:
        """Queues refuse messages until they are a second old, as SQS may do."""
        made: list[float] = []
        create, send = module.sqs.create_queue, module.sqs.send_message

        def create_queue(**arguments: Any) -> Any:
            made.append(self.clock.now)
            return create(**arguments)

        def send_message(**arguments: Any) -> Any:
            if made and self.clock.now - made[-1] < 1:
                raise ClientError({"Error": {"Code": "QueueDoesNotExist"}}, "SendMessage")
            return send(**arguments)

        with (
            patch.object(module.sqs, "create_queue", create_queue),
            patch.object(module.sqs, "send_message", send_message),
        ):
            yield
        assert made

    def letters(self, queue: str = "jobs-dlq.fifo") -> list[dict[str, Any]]:
        """The dead letters, removed from their queue."""
        return self.stack.messages(queue)


class CrashError(Exception):
    """A run of handle-timeout ends here, as at its time limit."""


STEPS = {
    "record": ("dynamodb", "put_item"), "release": ("dynamodb", "update_item"),
    "letter": ("sqs", "send_message"), "mark": ("dynamodb", "update_item"),
}  # fmt: skip


@contextmanager
def crash(handle_timeout: ModuleType, step: str, *, after: bool) -> Iterator[None]:
    """Runs of handle-timeout end before a step's call, or after it with its answer lost."""
    client_name, operation = STEPS[step]
    client = getattr(handle_timeout, client_name)
    call = getattr(client, operation)

    def crashing(**arguments: Any) -> Any:
        marks = "dlqMessageId" in arguments.get("UpdateExpression", "")
        if operation == "update_item" and marks != (step == "mark"):
            return call(**arguments)
        if after:
            # A refusal is an answer too, and is lost like any other.
            with suppress(ClientError):
                call(**arguments)
        raise CrashError

    with patch.object(client, operation, crashing):
        yield


def status_change(execution: str, status: str, given: Any, **detail: Any) -> dict[str, Any]:
    """The rule's event for an ended execution; `given` is its input."""
    return {
        "version": "0",
        "id": "315c1398-40ff-a850-213b-158f73e60175",
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": ACCOUNT,
        "time": "2026-11-22T10:15:30Z",
        "region": REGION,
        "resources": [execution],
        "detail": {
            "executionArn": execution, "status": status, "input": json.dumps(given),
            "inputDetails": {"included": True}, "error": None, "cause": None,
        }
        | detail,
    }  # fmt: skip


def holding(claim: dict[str, Any], workspace: str = WORKSPACE) -> dict[str, Any]:
    """The fields with which a holder names its claim."""
    return {"projectUserId": workspace, "claimId": claim["claimId"], "fence": claim["fence"]}


def older_row(**row: Any) -> dict[str, Any]:
    """A row of a writer before claim ids."""
    return {
        "projectUserId": WORKSPACE, "containerId": "container-old", "threadId": "thread-old",
        "messageId": "message-old",
    } | row  # fmt: skip


def iso(offset: float) -> str:
    """The time so many seconds after NOW."""
    return iso_time(NOW + offset)


def nested(levels: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    return deep
