"""The stack in moto: tables, bucket and queues from the project's own templates, functions loaded
as a container loads them, and what stands in for API Gateway's management API.
"""

import importlib
import io
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import jwt
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws
from moto.core.models import botocore_stubber

from jobplane.tree.modules import imported
from jobplane.tree.repository import Function, Repository, read_yaml
from jobplane.tree.resolved import ACCOUNT, REGION, STAGE, ResolvedStack
from jobplane_keys import from_item, in_flight_shard, iso_time, owner_key, request_key, to_item

ROOT = Path(__file__).parents[2]
SECRET = "a-test-secret-of-32-bytes-or-more"
MARK = "tests-only-this-is-logged-nowhere"
PREFIX = Repository.here().names("test").prefix
BUCKET = PREFIX + "files"
TENANT = "tenant-1"
USER = "user-1"
OWNER = owner_key(TENANT, USER)

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
AWS = dict.fromkeys(CREDENTIALS, "testing") | {"AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}
UNSET = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "JWT_PUBLIC_KEY", "_X_AMZN_TRACE_ID")


type Row = dict[str, Any]


@cache
def template() -> ResolvedStack:
    """The project's own resources and configuration, as a stage `test` would have them."""
    own = {"websocketEndpoint": "https://sockets.example.com/test", "jwtSecret": SECRET}
    return ResolvedStack(Repository.here(), STAGE, own)


@cache
def resources(file: str) -> list[tuple[str, Row]]:
    """What a file of resources/ declares: types and properties; a part may be without the file."""
    path = ROOT / "resources" / f"{file}.yml"
    declared = read_yaml(path)["Resources"] if path.is_file() else {}
    kinds = {logical: resource["Type"] for logical, resource in declared.items()}
    return [(kind, template().of_type(kind)[logical]) for logical, kind in kinds.items()]


def table_arguments(properties: Mapping[str, Any]) -> Row:
    """The parts of a declared table that its keys and indexes are made of."""
    known = (
        "TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes",
    )  # fmt: skip
    return {name: properties[name] for name in known if name in properties}


@cache
def environment(function: str) -> dict[str, str]:
    """The function's environment, as serverless.yml and its function.yml declare it."""
    return template().environment(Function(function, ROOT / "functions" / function))


def load(function: str, **changes: str | None) -> ModuleType:
    """The function's module, imported once per environment; None leaves a variable out."""
    values = {**environment(function), **changes}
    return _loaded(function, tuple(sorted((k, v) for k, v in values.items() if v is not None)))


@cache
def _loaded(function: str, values: tuple[tuple[str, str], ...]) -> ModuleType:
    declared = set(environment(function))
    kept = {name: value for name, value in os.environ.items() if name not in declared}
    with patch.dict(os.environ, {**kept, **dict(values)}, clear=True):
        return fresh(function)


def fresh(function: str) -> ModuleType:
    """The function's module, as a new container imports it."""
    with imported(Function(function, ROOT / "functions" / function)) as module:
        return module


class Sockets:
    """API Gateway's management API: keeps posts, and fails for connections that a test chooses."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, Row]] = []
        self.attempts: Counter[str] = Counter()
        self.closed: list[str] = []
        self.gone: set[str] = set()
        self.failing: dict[str, tuple[int, str]] = {}
        self.changed = threading.Condition()

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> None:  # noqa: N803  # API
        with self.changed:
            self.attempts[ConnectionId] += 1
            self._refuse(ConnectionId, "PostToConnection")
            self.posts.append((ConnectionId, json.loads(Data)))
            self.changed.notify_all()

    def delete_connection(self, *, ConnectionId: str) -> None:  # noqa: N803  # API
        self._refuse(ConnectionId, "DeleteConnection")
        self.closed.append(ConnectionId)

    def get_connection(self, *, ConnectionId: str) -> None:  # noqa: N803  # API
        self._refuse(ConnectionId, "GetConnection")

    def _refuse(self, connection_id: str, operation: str) -> None:
        if connection_id in self.gone:
            raise client_error("GoneException", 410, operation)
        if connection_id in self.failing:
            status, code = self.failing[connection_id]
            raise client_error(code, status, operation)

    def to(self, connection_id: str) -> list[Row]:
        """What one connection heard, in order."""
        with self.changed:
            return [message for target, message in self.posts if target == connection_id]

    def kinds(self, connection_id: str = "conn-1") -> list[str]:
        return [message["type"] for message in self.to(connection_id)]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until a condition on the posts holds; fails after ten seconds."""
        with self.changed:
            assert self.changed.wait_for(condition, 10)


@dataclass
class Context:
    """Lambda's context of one invocation."""

    seconds: float = 300.0
    aws_request_id: str = "invocation-1"
    function_name: str = "jobplane-test"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-west-1:123456789012:function:jobplane-test"
    started: float = field(default_factory=time.time)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.started + self.seconds - time.time()) * 1000)


class Calls(list[tuple[str, Row]]):
    """AWS calls as they were made: operation and parameters."""

    def counts(self) -> dict[str, int]:
        return dict(Counter(name for name, _ in self))

    def of(self, operation: str) -> list[Row]:
        return [params for name, params in self if name == operation]


class Stack:
    """The resources in moto, and hooks on a function's clients that end with the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hooks: ExitStack) -> None:
        self.monkeypatch = monkeypatch
        self.sockets = Sockets()
        self._hooks = hooks
        self.dynamodb, self.s3, self.sqs = map(_client, ("dynamodb", "s3", "sqs"))
        monkeypatch.setattr(botocore_stubber, "process_request", _table_calls_in_turn())
        for file in ("tables", "buckets", "queues"):
            self.create(file)

    def create(self, file: str) -> None:
        """The tables, buckets and queues that a file of resources/ declares."""
        for kind, properties in resources(file):
            self._create(kind, properties)

    def _create(self, kind: str, properties: Mapping[str, Any]) -> None:
        if kind == "AWS::DynamoDB::Table":
            self.dynamodb.create_table(**table_arguments(properties))
        elif kind == "AWS::S3::Bucket":
            location = {"LocationConstraint": REGION}
            self.s3.create_bucket(
                Bucket=properties["BucketName"], CreateBucketConfiguration=location
            )
        elif kind == "AWS::SQS::Queue":
            known = ("FifoQueue", "MessageRetentionPeriod")
            attributes = {
                name: str(properties[name]).lower() for name in known if name in properties
            }
            self.sqs.create_queue(QueueName=properties["QueueName"], Attributes=attributes)

    def function(self, name: str, **changes: str | None) -> ModuleType:
        """A function of this stack, its management API replaced by `sockets`."""
        module = load(name, **changes)
        if hasattr(module, "management"):
            self.monkeypatch.setattr(module, "management", lambda: self.sockets)
        return module

    def closing_waits(self, *seconds: float) -> None:
        """How long a write that must be made waits before each further attempt."""
        # Imported here, because a project without jobs does not have the lib.
        writes = importlib.import_module("jobplane_leases._writes")
        self.monkeypatch.setattr(writes, "CLOSING_WAITS", seconds)

    def put(self, table: str, *items: Mapping[str, Any]) -> None:
        for item in items:
            self.dynamodb.put_item(TableName=PREFIX + table, Item=to_item(item))

    def get(self, table: str, **key: str) -> Row:
        """One item, or {}."""
        found = self.dynamodb.get_item(TableName=PREFIX + table, Key=to_item(key))
        return from_item(found.get("Item", {}))

    def request(self, request_id: str = "req-1", owner: str = OWNER) -> Row:
        return self.get("requests", owner=owner, request_id=request_id)

    def items(self, table: str) -> list[Row]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=PREFIX + table)
        return [from_item(item) for page in pages for item in page["Items"]]

    def everything(self) -> dict[str, list[Row]]:
        """Every item of every table, to compare before and after."""
        names = ("connections", "requests", "subscriptions", "assemblies")
        return {name: self.items(name) for name in names}

    def upload(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def object(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found]

    def messages(self, queue: str) -> list[Row]:
        """Everything in a queue, taken out of it."""
        url = self.sqs.get_queue_url(QueueName=PREFIX + queue)["QueueUrl"]
        found = []
        while batch := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in batch:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def calls(self, *clients: Any) -> Calls:
        """The calls that clients make from now on."""
        made = Calls()

        def note(model: Any, params: Mapping[str, Any], **_: Any) -> None:
            made.append((model.name, json.loads(_body(params) or "{}")))

        self._register(clients, "before-call", note)
        return made

    def fail(
        self,
        client: Any,
        operation: str,
        code: str = "ProvisionedThroughputExceededException",
        *,
        status: int = 400,
        times: int = 1_000_000,
        when: Callable[[str], bool] = lambda body: True,
    ) -> Counter[str]:
        """Have an operation fail from now on, `times` times; counts the failures."""
        failed: Counter[str] = Counter()

        def refuse(model: Any, params: Mapping[str, Any], **_: Any) -> Any:
            if failed[operation] >= times or not when(_body(params)):
                return None
            failed[operation] += 1
            metadata = {"HTTPStatusCode": status, "RequestId": "R", "HTTPHeaders": {}}
            text = f"{MARK} arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{PREFIX}x"
            parsed = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": metadata}
            return SimpleNamespace(status_code=status), parsed

        service = client.meta.service_model.service_id.hyphenize()
        self._register([client], f"before-call.{service}.{operation}", refuse)
        return failed

    def lose_answer(
        self, client: Any, operation: str, *, when: Callable[[str], bool] = lambda body: True
    ) -> Counter[str]:
        """`answer_lost` until the test ends."""
        return self._hooks.enter_context(answer_lost(client, operation, when=when))

    def _register(self, clients: Iterable[Any], event: str, hook: Callable[..., Any]) -> None:
        for client in clients:
            client.meta.events.register_first(event, hook)
            self._hooks.callback(client.meta.events.unregister, event, hook)


@contextmanager
def answer_lost(
    client: Any, operation: str, *, when: Callable[[str], bool] = lambda body: True
) -> Iterator[Counter[str]]:
    """Have the next call of an operation carried out without an answer: botocore repeats it."""
    lost: Counter[str] = Counter()

    def lose(request: Any, **_: Any) -> None:
        if not lost[operation] and when(_body({"body": request.body})):
            lost[operation] += 1
            botocore_stubber("before-send", request)
            raise ReadTimeoutError(endpoint_url=request.url)

    service = client.meta.service_model.service_id.hyphenize()
    event = f"before-send.{service}.{operation}"
    client.meta.events.register_first(event, lose)
    yield lost
    client.meta.events.unregister(event, lose)


def _table_calls_in_turn() -> Callable[[Any], Any]:
    """moto's answers: a transaction that it refuses would undo writes of other threads."""
    process, lock = botocore_stubber.process_request, threading.Lock()

    def answer(request: Any) -> Any:
        with lock if "://dynamodb." in request.url else nullcontext():
            return process(request)

    return answer


@cache
def _client(name: str) -> Any:
    return boto3.client(name, region_name=REGION)


def _body(params: Mapping[str, Any]) -> str:
    body = params.get("body")
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    return body if isinstance(body, str) and body.startswith("{") else ""


def client_error(code: str, status: int, operation: str = "Any") -> ClientError:
    metadata: Any = {"HTTPStatusCode": status, "RequestId": "R"}
    return ClientError(
        {"Error": {"Code": code, "Message": MARK}, "ResponseMetadata": metadata}, operation
    )


def aws() -> Any:
    """moto, with nothing passed on to the network."""
    return mock_aws(config={"core": {"mock_credentials": True}})


def token(user: str = USER, tenant: str = TENANT, **claims: Any) -> str:
    """A good HS256 token; claims set to None are left out."""
    key = claims.pop("key", SECRET)
    algorithm = claims.pop("algorithm", "HS256")
    content = {"user_id": user, "tenant_id": tenant, "exp": int(time.time()) + 600} | claims
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm=algorithm)


def event(function: str, case: str) -> Row:
    """An event of functions/<function>/events, its placeholders filled."""
    text = (ROOT / "functions" / function / "events" / f"{case}.json").read_text()
    filled: Row = _fill(json.loads(text))
    return filled


def _fill(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _fill(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_fill(part) for part in value]
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"<now([+-]\d+)?>", value):
        return int(time.time()) + int(match[1] or 0)
    return re.sub(r"<token:([^>]*)>", lambda match: _token_of(match[1]), value)


def _token_of(spec: str) -> str:
    parts = dict(part.split("=", 1) for part in spec.split(","))
    return token(parts.get("user", USER), parts.get("tenant", TENANT))


def connection(connection_id: str = "conn-1", **changes: Any) -> Row:
    """A row of `connections`: user-1 of tenant-1, with a token for an hour."""
    now = int(time.time())
    return {
        "connection_id": connection_id, "user_id": USER, "tenant_id": TENANT, "permissions": [],
        "endpoint": "sockets.example.com/test", "connected_at": iso(now), "last_seen_at": iso(now),
        "source_ip": "203.0.113.7", "user_agent": "tests", "token_expires_at": now + 3600,
        "ttl": now + 24 * 3600,
    } | changes  # fmt: skip


def request(
    request_id: str = "req-1", action: str = "delay", payload: Any = None, **changes: Any
) -> Row:
    """A row of `requests` as the router queues it; None leaves an attribute out."""
    now = int(time.time())
    owner = changes.get("owner", OWNER)
    given = {"seconds": 0, "steps": 1} if payload is None else payload
    row = {
        "owner": owner, "request_id": request_id, "tenant_id": TENANT, "connection_id": "conn-1",
        "action": action, "metadata": {}, "status": "PENDING", "attempts": 0, "max_attempts": 4,
        "payload": json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        "cancel_requested": False, "on_disconnect": "detach", "subscriber_count": 0,
        "lease_shard": shard(request_id, owner), "lease_until": now + 300,
        "created_at": iso(now), "updated_at": iso(now), "ttl": now + 7 * 24 * 3600,
    } | changes  # fmt: skip
    return {name: value for name, value in row.items() if value is not None}


def ended(request_id: str = "req-1", status: str = "COMPLETED", **changes: Any) -> Row:
    """A row of `requests` that has come to its end."""
    outcome: Row = {"result": '{"done":true}'}
    if status != "COMPLETED":
        code = "CANCELLED" if status == "CANCELLED" else "PROCESSING_FAILED"
        outcome = {"error": {"code": code, "message": "It ended", "retryable": False}}
    moment = iso(time.time())
    none = {"lease_shard": None, "lease_until": None}
    return request(
        request_id, status=status, ended_at=moment, seq=3, attempts=1, **none | outcome | changes
    )


def subscription(request_id: str, connection_id: str, **changes: Any) -> Row:
    """A row of `subscriptions`."""
    now = int(time.time())
    return {
        "request_key": f"{changes.pop('owner', OWNER)}#{request_id}",
        "connection_id": connection_id,
        "user_id": USER,
        "created_at": iso(now),
        "ttl": now + 24 * 3600,
    } | changes


def shard(request_id: str, owner: str = OWNER) -> str:
    return in_flight_shard(request_key(owner, request_id))


iso = iso_time


class Output:
    """What the functions wrote to standard output, line by line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = io.StringIO()

    @property
    def text(self) -> str:
        captured = self._capsys.readouterr()
        self._text.write(captured.out + captured.err)
        return self._text.getvalue()

    @property
    def lines(self) -> list[Row]:
        return [json.loads(line) for line in self.text.splitlines()]

    def logged(self, message: str) -> list[Row]:
        return [line for line in self.lines if line.get("message") == message]

    def metric(self, name: str) -> list[Row]:
        """The metric lines that carry a name."""
        return [line for line in self.lines if "_aws" in line and name in line]


type Run = Callable[[Any], Any]


class Processor:
    """The function, its queue, and its schedule."""

    def __init__(self, module: ModuleType, stack: Stack) -> None:
        self.module = module
        self.stack = stack
        self.sockets: Sockets = stack.sockets

    def action(self, name: str, run: Run) -> None:
        """What runs for an action during this test."""
        self.stack.monkeypatch.setitem(self.module.ACTIONS, name, run)

    def set(self, **values: Any) -> None:
        """Constants of the module during this test."""
        for name, value in values.items():
            self.stack.monkeypatch.setattr(self.module, name, value)

    def deliver(self, *messages: Row, context: Context | None = None) -> list[str]:
        """Hand messages to the function; the ids of those that it wants again."""
        answer = self.module.handler({"Records": list(messages)}, context or Context())
        assert answer.keys() == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def run(
        self, row: Row | None = None, *, job: Run | None = None, context: Context | None = None
    ) -> Row:
        """Store one request, deliver its message, and give its row afterwards.

        Args:
            job: what runs for the action `delay` from now on.
        """
        if job is not None:
            self.action("delay", job)
        row = row or request()
        self.stack.put("requests", row)
        assert self.deliver(message(row), context=context) == []
        return self.stack.request(row["request_id"], row["owner"])

    def sweep(self, context: Context | None = None) -> dict[str, int]:
        answer = self.module.handler({"sweep": "leases"}, context or Context())
        swept: dict[str, int] = answer["swept"]
        return swept

    def terminal(self) -> list[Row]:
        """The `complete` and `error` messages of conn-1."""
        return [m for m in self.sockets.to("conn-1") if m["type"] in ("complete", "error")]

    def percentages(self) -> list[float]:
        """The progress that conn-1 heard of."""
        return [m["percentage"] for m in self.sockets.to("conn-1") if m["type"] == "progress"]

    def posted(self, count: int) -> None:
        """Wait until so many messages are posted."""
        self.sockets.wait_for(lambda: len(self.sockets.posts) == count)


def message(row: Row, name: str = "m-1", receives: int = 1, **more: Any) -> Row:
    """The message of the queue `jobs` about a row, as Lambda hands it over."""
    found: Row = event("processor", "delay-completed")["Records"][0]
    found |= {"messageId": name, "receiptHandle": f"receipt-{name}"}
    found["body"] = json.dumps({key: row[key] for key in ("owner", "request_id")} | more)
    found["attributes"] |= {"ApproximateReceiveCount": str(receives)}
    return found


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Polls a condition; fails when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        threading.Event().wait(0.01)


def keeping(kept: list[Any], what: Callable[[Any], Any]) -> Run:
    """A job that keeps something and succeeds."""

    def run(job: Any) -> Any:
        kept.append(what(job))
        return {}

    return run
