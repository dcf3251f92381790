"""Claims in moto: the tables and queues of resources/jobs.yml, their functions, and a clock."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import ModuleType
from typing import Any
from unittest.mock import patch

from botocore.exceptions import ClientError

from jobplane_keys import from_item, iso_time
from tests.unit import support
from tests.unit.support import ACCOUNT, PREFIX, REGION, Context, Stack

# A time like any other; only differences from it matter.
NOW = 1_795_342_530.25
WORKSPACE = "amelia#scott"
HOUR = 3600

HOSTILE_IDS: list[Any] = [
    "", " ", "a#b", "a/b", "a b", "x" * 129, "x" * 200, "ünicode", "名前", "имя", "a\n", "\ud800",
    "a\x00", "*", None, 7, 1.5, True, [], ["a"], {}, {"S": "a"},
]  # fmt: skip


@cache
def resources() -> dict[str, Any]:
    """The resources of the claims, by their logical names."""
    found: dict[str, Any] = json.loads(
        support._filled(json.dumps(support._yaml("resources/jobs.yml")["Resources"]))
    )
    return {
        name: resource["Properties"] | {"Type": resource["Type"]}
        for name, resource in found.items()
        if resource["Type"] in ("AWS::DynamoDB::Table", "AWS::SQS::Queue")
    }


@cache
def environment(function: str) -> dict[str, str]:
    """The function's variables, as its function.yml declares them."""
    declared = support._yaml(f"functions/{function}/function.yml")["environment"]
    return {"TABLE_PREFIX": PREFIX, "STAGE": "test"} | {
        name: _value(value) for name, value in declared.items()
    }


def _value(declared: Any) -> str:
    if not isinstance(declared, dict):
        text = str(declared).replace("${param:sqsEndpoint}", "")
        return support._filled(text)
    if declared["Ref"] == "AWS::AccountId":
        return ACCOUNT
    properties = resources()[declared["Ref"]]
    return str(properties.get("TableName") or queue_url(properties["QueueName"]))


def queue_url(name: str) -> str:
    return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}"


@cache
def load(function: str, values: tuple[tuple[str, str], ...]) -> ModuleType:
    """The function's module, imported once per environment."""
    module_name = function.replace("-", "_")
    path = support.ROOT / "functions" / function / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    declared = set(environment(function))
    kept = {name: value for name, value in os.environ.items() if name not in declared}
    with patch.dict(os.environ, {**kept, **dict(values)}, clear=True):
        with patch.dict(sys.modules, {module_name: module}):
            spec.loader.exec_module(module)
    return module


class Clock:
    """What the functions take for the time; it moves when it is told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class Jobs:
    """The functions of the claims on one stack, all with one clock."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.clock = Clock()
        for properties in resources().values():
            self._create(properties)

    def _create(self, properties: dict[str, Any]) -> None:
        if properties["Type"] == "AWS::DynamoDB::Table":
            self.stack._create(properties["Type"], properties)
        else:
            known = ("FifoQueue", "MessageRetentionPeriod")
            attributes = {
                name: str(properties[name]).lower() for name in known if name in properties
            }
            self.stack.sqs.create_queue(QueueName=properties["QueueName"], Attributes=attributes)

    def function(self, name: str, **changes: str | None) -> ModuleType:
        """A function of this stack, on its clock; None leaves a variable out."""
        values = {**environment(name), **changes}
        module = load(name, tuple(sorted((k, v) for k, v in values.items() if v is not None)))
        self.stack.monkeypatch.setattr(module, "time", self.clock)
        return module

    def call(self, function: str, **event: Any) -> dict[str, Any]:
        """What a function answers to an event."""
        answer: dict[str, Any] = self.function(function).handler(event, Context())
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer
        return answer

    def acquire(self, workspace: str = WORKSPACE, **event: Any) -> dict[str, Any]:
        """What `claim` answers to thread-1's message-1, or to what is given."""
        given = {"threadId": "thread-1", "messageId": "message-1"} | event
        return self.call("claim", projectUserId=workspace, **given)

    def renew(self, claim: dict[str, Any], **event: Any) -> dict[str, Any]:
        return self.call("claim", operation="renew", **holding(claim) | event)

    def release(self, claim: dict[str, Any], **event: Any) -> dict[str, Any]:
        return self.call("claim", operation="release", **holding(claim) | event)

    def row(self, workspace: str = WORKSPACE) -> dict[str, Any]:
        """The workspace's row, or {}."""
        return self.stack.get("active-jobs", projectUserId=workspace)

    def put(self, **row: Any) -> None:
        """Store a row as some writer left it."""
        self.stack.put("active-jobs", {"projectUserId": WORKSPACE} | row)

    def delete(self, workspace: str = WORKSPACE) -> None:
        """Delete a row, as DynamoDB does when its time to live is over."""
        self.stack.dynamodb.delete_item(
            TableName=f"{PREFIX}active-jobs", Key={"projectUserId": {"S": workspace}}
        )

    def records(self) -> list[dict[str, Any]]:
        return self.stack.items("interruptions")

    def records_of(self, message_id: str) -> list[dict[str, Any]]:
        """The records of one message."""
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

    def letters(self, queue: str = "jobs-dlq.fifo") -> list[dict[str, Any]]:
        """The dead letters, taken out of their queue."""
        return self.stack.messages(queue)


class CrashError(Exception):
    """A run of handle-timeout ends here, as when its time is up."""


STEPS = {
    "record": ("dynamodb", "put_item"),
    "release": ("dynamodb", "update_item"),
    "letter": ("sqs", "send_message"),
    "mark": ("dynamodb", "update_item"),
}


@contextmanager
def crash(handle_timeout: ModuleType, step: str, *, after: bool) -> Iterator[None]:
    """Runs of handle-timeout end before a step's call, or after it, with its answer lost."""
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
    """The rule's event for an execution that ended; `given` is its input."""
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
            "executionArn": execution,
            "status": status,
            "input": json.dumps(given),
            "inputDetails": {"included": True},
            "error": None,
            "cause": None,
        }
        | detail,
    }


def holding(claim: dict[str, Any], workspace: str = WORKSPACE) -> dict[str, Any]:
    """How a holder names its claim."""
    return {"projectUserId": workspace, "claimId": claim["claimId"], "fence": claim["fence"]}


def older_row(**row: Any) -> dict[str, Any]:
    """What a writer before claim ids stored: who runs, and nothing of an end."""
    return {
        "projectUserId": WORKSPACE,
        "containerId": "container-old",
        "threadId": "thread-old",
        "messageId": "message-old",
    } | row


def iso(offset: float) -> str:
    """The time so many seconds after NOW."""
    return iso_time(NOW + offset)
