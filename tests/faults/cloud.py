"""AWS around the functions, in this process: their containers, streams, queues and schedule.

moto keeps the tables, queues and objects. What moto lacks or does differently is here: time,
event source mappings, invocations and their retries, sockets, executions and their tasks.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import datetime
from functools import partial
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import botocore.endpoint
import botocore.session
import moto.sqs.models
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.retries.quota import RetryQuota
from moto.core.models import botocore_stubber
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends

import jobplane_leases._writes
import jobplane_leases.jobs
from jobplane.explore.services import Flows
from jobplane.explore.tables import RefusedCallError
from jobplane.stage.mappings import Delivery, FunctionError, StreamSettings
from jobplane.tree.resolved import ACCOUNT, REGION
from jobplane.trying.inprocess import Context, InProcess
from jobplane_client import mint_token
from jobplane_keys import from_item, to_item
from tests.faults.injecting import Exchange, Plan, ProcessDiedError, answer_of
from tests.faults.mappings import QueueMapping, StreamMapping
from tests.unit.clock import Clock

ROOT = Path(__file__).parents[2]
ASYNC_WAITS = (60.0, 120.0)
TRIES = 10
# Every scenario takes some hours of the simulated time.
YEAR_SECONDS = 365 * 24 * 3600

type Row = dict[str, Any]


class Program:
    """A process, and the session of its clients, whose calls may meet a fault."""

    def __init__(self, cloud: "Cloud", name: str) -> None:
        self.cloud = cloud
        self.name = name
        self.dead = False
        session: Any = botocore.session.Session()
        session.unregister("before-send", botocore_stubber)
        session.register("before-send", self._send)
        self.session = session
        self._clients: dict[str, Any] = {}

    def client(self, service: str, *, config: Any, **_: Any) -> Any:
        """A client as boto3 makes one; each is made once."""
        key = f"{service} {config.read_timeout}"
        if key not in self._clients:
            self._clients[key] = self.session.create_client(service, config=config)
        return self._clients[key]

    def _send(self, event_name: str, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        if self.dead:
            raise ProcessDiedError
        service, operation = event_name.split(".")[1:3]
        attempts = re.search(rb"attempt=(\d+)", _bytes(request.headers.get("amz-sdk-request", "")))
        exchange = Exchange(
            function=self.name,
            service=service,
            operation=operation,
            attempt=int(attempts[1]) if attempts else 1,
            request=request,
            send=lambda: self.cloud.carry_out(event_name, request),
            hang_up=lambda: self.cloud.sockets.hang_up(request),
        )
        act = self.cloud.plan.meet(exchange)
        try:
            return act(exchange) if act else exchange.carry_out()
        except ProcessDiedError:
            self.dead = True
            raise


class Container(Program):
    """A container of a function: its module, its clients, and its process."""

    def __init__(self, cloud: "Cloud", function: str, name: str) -> None:
        super().__init__(cloud, name)
        self.function = function
        environment = {
            "TEMPLATES_INDEX_PATH": str(ROOT / "templates" / "index.json"),
            # Given, and not read from SSM: a read after minutes would be a call of some runs only.
            "JWT_SECRET": cloud.aws.jwt_secret,
        }
        with patch.object(botocore.session, "get_session", lambda: self.session):
            self.module: ModuleType = cloud.aws.load(function, environment)
        self.module.time = cloud.clock  # type: ignore[attr-defined]

    def invoke(self, event: Any) -> Any:
        """The function's answer; FunctionError with Lambda's text."""
        self.dead = False
        plan, failure = self.cloud.plan, None
        try:
            answer = json.loads(json.dumps(self.module.handler(event, self._context())))
        except ProcessDiedError:
            self.dead = True
        except Exception as error:
            failure = FunctionError(type(error).__name__, str(error))
        finally:
            plan.end_invocation(self.name)
        if self.dead:
            raise FunctionError("Runtime.ExitError")
        if failure:
            raise failure
        return answer

    def _context(self) -> Context:
        clock, plain = self.cloud.clock, self.cloud.aws.context(self.function)
        ends = clock.now + plain.timeout
        plain.get_remaining_time_in_millis = lambda: int((ends - clock.now) * 1000)  # type: ignore[method-assign]
        return plain


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


class Sockets:
    """API Gateway's side of the sockets: who is there, and what each was sent."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.heard: list[tuple[str, Row]] = []

    def answer(self, request: AWSPreparedRequest) -> AWSResponse:
        connection_id = request.url.rpartition("/@connections/")[2]
        if connection_id not in self.open:
            return answer_of(request, 410, b"{}", **{"x-amzn-ErrorType": "GoneException"})
        if request.method == "DELETE":
            self.open.discard(connection_id)
        else:
            self.heard.append((connection_id, json.loads(_bytes(request.body))))
        return answer_of(request, 200, b"")

    def hang_up(self, request: AWSPreparedRequest) -> None:
        self.open.discard(request.url.rpartition("/@connections/")[2])

    def of(self, connection_id: str, request_id: str) -> list[Row]:
        """What a connection heard about a request, in order."""
        return [
            message
            for target, message in self.heard
            if target == connection_id and message.get("request_id") == request_id
        ]


class Cloud:
    """Everything of AWS that the functions meet; emptied between two runs."""

    def __init__(self, aws: InProcess) -> None:
        self.aws = aws
        self.clock = Clock(time.time())
        self.plan = Plan()
        self.sockets = Sockets()
        self.flows = self._flows()
        self.later: list[tuple[str, Any]] = []
        """Asynchronous invocations that functions have asked for."""
        self.others: list[Callable[[], bool]] = []
        """What else moves by itself; each returns whether there was anything."""
        self.seen: Callable[[], None] = lambda: None
        self.dynamodb, self.s3, self.sqs = map(aws.client, ("dynamodb", "s3", "sqs"))
        self.containers: dict[str, Container] = {}
        self.programs: dict[str, Program] = {}
        self.streams: dict[str, StreamMapping] = {}
        self.queues: dict[str, QueueMapping] = {}
        self._read: dict[str, int] = {}
        self._lock = threading.RLock()

    def container(self, function: str, name: str = "") -> Container:
        """A container of a function; one that has another name than the function's is a second."""
        name = name or function
        if name not in self.containers:
            self.containers[name] = Container(self, function, name)
        return self.containers[name]

    def program(self, name: str) -> Program:
        """A process outside of Lambda."""
        if name not in self.programs:
            self.programs[name] = Program(self, name)
        return self.programs[name]

    def module(self, function: str) -> Any:
        return self.container(function).module

    def invoke(self, function: str, event: Any) -> Any:
        """A synchronous invocation."""
        return self.container(function).invoke(event)

    def invoke_later(self, function: str, event: Any) -> Any:
        """An asynchronous invocation: tried three times; None when all failed."""
        for wait in (*ASYNC_WAITS, None):
            try:
                return self.invoke(function, event)
            except FunctionError:
                if wait is None:
                    break
                self.clock.sleep(wait)
        return None

    def carry_out(self, event_name: str, request: AWSPreparedRequest) -> AWSResponse:
        """Do what a request asks for. One at a time: moto's writes are not atomic in threads."""
        service, operation = event_name.split(".")[1:3]
        if service == "lambda":
            return self._invoked(request)
        with self._lock:
            self.clock.now += 0.001
            if "/@connections/" in request.url:
                return self.sockets.answer(request)
            if service == "sfn":
                return self._of_flows(operation, request)
            answer = botocore_stubber(event_name, request)
            assert answer is not None, request.url
            self.seen()
            return answer

    def _of_flows(self, operation: str, request: AWSPreparedRequest) -> AWSResponse:
        """Step Functions' answer."""
        try:
            said = self.flows.perform(operation, json.loads(_bytes(request.body)))
        except RefusedCallError as error:
            refusal = {"__type": error.code, "message": error.message}
            return answer_of(request, 400, json.dumps(refusal).encode())
        return answer_of(request, 200, json.dumps(said, default=datetime.timestamp).encode())

    def _invoked(self, request: AWSPreparedRequest) -> AWSResponse:
        """Lambda's answer."""
        deployed = request.url.partition("/functions/")[2].partition("/")[0]
        function, event = self.aws.template.short_name(deployed), json.loads(_bytes(request.body))
        if _bytes(request.headers["X-Amz-Invocation-Type"]) == b"Event":
            self.later.append((function, event))
            return answer_of(request, 202, b"")
        try:
            return answer_of(request, 200, json.dumps(self.invoke(function, event)).encode())
        except FunctionError as error:
            said = {"errorType": error.kind, "errorMessage": str(error)}
            failed = {"X-Amz-Function-Error": "Unhandled"}
            return answer_of(request, 200, json.dumps(said).encode(), **failed)

    def _flows(self) -> Flows:
        # Executions wait by looking again.
        return Flows(lambda: self.clock.now, lambda _: None)

    # What moves by itself

    def _declared(self, function: str, kind: str) -> Row:
        events = self.aws.function(function).config["events"]
        found = next(event[kind] for event in events if kind in event)
        declared: Row = self.aws.template.filled(found)
        return declared

    def read_stream(self, function: str, table: str) -> StreamMapping:
        """Let a function read a table's stream, as in its function.yml."""
        stream = self._declared(function, "stream")
        settings = StreamSettings.of(
            {f"{name[:1].upper()}{name[1:]}": value for name, value in stream.items()}
            | {"FunctionResponseTypes": [stream.get("functionResponseType")]}
        )

        def discard(batch: list[Row], condition: str, invocations: int) -> None:
            if "onFailure" in stream.get("destinations", {}):
                names = [record["dynamodb"]["SequenceNumber"] for record in batch]
                body = {"condition": condition, "invocations": invocations, "records": names}
                url = self.aws.queues["requests-failed"]
                self.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))

        delivery = Delivery(settings, partial(self.invoke, function), self.clock, discard)
        self.streams[table] = StreamMapping(delivery, stream.get("filterPatterns", ()))
        return self.streams[table]

    def read_queue(self, function: str, queue: str) -> QueueMapping:
        """Let a function read a queue, as in its function.yml."""
        size, url = self._declared(function, "sqs")["batchSize"], self.aws.queues[queue]
        self.queues[queue] = QueueMapping(size, partial(self.invoke, function), self.sqs, url)
        return self.queues[queue]

    def records(self, table: str) -> list[Row]:
        """Every record that a table's stream has had since the run began."""
        records: list[Row] = [item.to_json() for item in self._table(table).stream_shard.items]
        for record in records:
            if not isinstance(record["dynamodb"]["ApproximateCreationDateTime"], float):
                record["dynamodb"]["ApproximateCreationDateTime"] = self.clock.now
        return records

    def flow(self) -> bool:
        """Let streams and queues deliver what they hold; whether there was anything."""
        moved = False
        for table, mapping in self.streams.items():
            records = self.records(table)
            mapping.put(records[self._read.get(table, 0) :])
            self._read[table] = len(records)
            moved |= mapping.poll()
        for queue in self.queues.values():
            moved |= queue.poll()
        for poll in self.others:
            moved |= poll()
        waiting, self.later = self.later, []
        for function, event in waiting:
            self.invoke_later(function, event)
        return moved or bool(waiting)

    def settle(self) -> None:
        """Run until nothing is left to deliver, and every request has ended."""
        deadline = self.clock.now + 48 * 3600
        while True:
            while self.flow():
                assert self.clock.now < deadline, "it does not come to rest"
            due = [row["lease_until"] for row in self.items("requests") if "lease_until" in row]
            due += [time for queue in self.queues for time in self._hidden_until(queue)]
            if not due:
                return
            assert self.clock.now < deadline, f"it does not end: {self.items('requests')}"
            # Runs of the schedule that would find nothing are left out.
            self.clock.now = max(self.clock.now, min(due)) + 1
            self.invoke_later("processor", {"sweep": "leases"})

    def _hidden_until(self, queue: str) -> Iterator[float]:
        """When the messages of a queue can be received again."""
        for message in self._queue(queue)._messages:
            yield (message.visible_at or 0) / 1000

    # What is stored

    def items(self, table: str) -> list[Row]:
        """Every item of a table; read past the API, for it is asked often."""
        return [
            from_item(item.to_json()["Attributes"])
            for rows in self._table(table).items.values()
            for item in (rows.values() if isinstance(rows, dict) else [rows])
        ]

    def put(self, table: str, *rows: Row) -> None:
        for row in rows:
            self.dynamodb.put_item(TableName=self.aws.tables[table], Item=to_item(row))

    def messages(self, queue: str) -> list[Row]:
        """The messages of a queue without a reader."""
        return [json.loads(message.body) for message in self._queue(queue)._messages]

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Objects of the files bucket, by key.

        From moto itself: it does not say that a checksum is one of parts, and a client would hold
        it against the whole object.
        """
        keys = s3_backends[ACCOUNT]["aws"].buckets[self.aws.buckets["files"]].keys
        return {key: keys[key].value for key in keys if key.startswith(prefix)}

    def unfinished_uploads(self) -> list[str]:
        """Keys of open multipart uploads."""
        found = self.s3.list_multipart_uploads(Bucket=self.aws.buckets["files"])
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def empty(self) -> None:
        """Delete all data, and disconnect all clients."""
        for table in dynamodb_backends[ACCOUNT][REGION].tables.values():
            table.items.clear()
            if table.stream_shard is not None:
                table.stream_shard.items.clear()
        for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
            bucket.keys.clear()
            bucket.multiparts.clear()
        queues = moto.sqs.models.sqs_backends[ACCOUNT][REGION].queues
        declared = {url.rpartition("/")[2] for url in self.aws.queues.values()}
        for name, queue in list(queues.items()):
            queue._messages, queue._pending_messages = [], set()
            if name not in declared:
                del queues[name]
        self.plan, self.sockets, self.seen = Plan(), Sockets(), lambda: None
        self.flows = self._flows()
        self.later.clear()
        self.others.clear()
        self.streams.clear()
        self.queues.clear()
        self._read.clear()

    def queue_named(self, name: str) -> Any:
        """moto's queue of a name."""
        return moto.sqs.models.sqs_backends[ACCOUNT][REGION].queues[name]

    def _queue(self, short: str) -> Any:
        return self.queue_named(self.aws.queues[short].rpartition("/")[2])

    def _table(self, short: str) -> Any:
        return dynamodb_backends[ACCOUNT][REGION].tables[self.aws.tables[short]]


class Client:
    """Somebody at the other end of a socket, who asks again under the same id when in doubt."""

    def __init__(self, cloud: Cloud, user: str = "scott", tenant: str = "acme") -> None:
        self.cloud = cloud
        self.token = mint_token(cloud.aws.jwt_secret, user=user, tenant=tenant, ttl=YEAR_SECONDS)
        self.owner = f"{tenant}#{user}"
        self.connection_id = ""
        self.connections: list[str] = []

    def connect(self) -> "Client":
        """Open a socket; another one if the handshake failed."""
        for _ in range(TRIES):
            connection_id = f"connection-{len(self.cloud.sockets.open)}-{len(self.connections)}"
            self.connections.append(connection_id)
            event = {"queryStringParameters": {"token": self.token}}
            answer = self._call("connect", connection_id, event)
            if answer["statusCode"] == 200:
                self.cloud.sockets.open.add(connection_id)
                self.connection_id = connection_id
                return self
        raise AssertionError("there is no connection to be had")

    def leave(self) -> None:
        """Close the socket; API Gateway invokes the function once."""
        self.cloud.sockets.open.discard(self.connection_id)
        self._call("disconnect", self.connection_id, {})

    def ask(self, action: str, payload: Row | None = None, **envelope: Any) -> Row:
        """The answer to a message."""
        message = {"id": f"ask-{action}", "action": action, "payload": payload or {}, **envelope}
        for _ in range(TRIES):
            answer = self._call("router", self.connection_id, {"body": json.dumps(message)})
            if answer["statusCode"] == 200:
                said: Row = json.loads(answer["body"])
                if not (said["type"] == "error" and said["error"]["retryable"]):
                    return said
            if answer["statusCode"] == 401:
                self.connect()
            self.cloud.clock.sleep(1.0)
        raise AssertionError(f"there is no answer to {message}")

    def _call(self, function: str, connection_id: str, event: Row) -> Row:
        context = {"connectionId": connection_id, "domainName": "sockets", "stage": "test"}
        try:
            answer: Row = self.cloud.invoke(function, {"requestContext": context, **event})
            return answer
        except FunctionError:
            return {"statusCode": 502}


@contextmanager
def open_cloud() -> Iterator[Cloud]:
    """The functions in moto, on one clock, silent."""
    with redirect_stdout(StringIO()), ExitStack() as stack:
        aws = stack.enter_context(InProcess())
        cloud = Cloud(aws)
        for module in (botocore.endpoint, jobplane_leases._writes, jobplane_leases.jobs):
            stack.enter_context(patch.object(module, "time", cloud.clock))
        # Every invocation would be a new process, with its whole quota of retries.
        stack.enter_context(patch.object(RetryQuota, "acquire", lambda *_: True))
        for name, factor in (("unix_time", 1), ("unix_time_millis", 1000)):
            now = partial(lambda factor, *_: cloud.clock.now * factor, factor)
            stack.enter_context(patch.object(moto.sqs.models, name, now))
        yield cloud
