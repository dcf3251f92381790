"""The deployed stage as its users see it: sockets, uploads, look-ups, webhooks."""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import boto3
import httpx
import psutil
from botocore.config import Config
from websockets.asyncio.client import ClientConnection, connect

from jobplane.histories.checker import check
from jobplane.histories.operations import (
    CLAIMS,
    LANES,
    REQUESTS,
    Operation,
    calls_in,
    operations_of,
    recording,
    subject_of,
)
from jobplane.stage import recorder
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane_client import mint_token
from jobplane_keys import from_item, owner_key, to_item
from tests.loopback import serving
from tests.published import faults_of_ours

TERMINAL = frozenset({"complete", "error"})
SIGNING_SECRET = "whsec_c2VjcmV0LW9mLXRoZS1lbmQtdG8tZW5kLXRlc3Rz"
PATIENCE = 60.0
# By this name the writes of the tests' own process are in a history.
MINE = "tests-"

type Message = dict[str, Any]


def unique(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


async def until(
    condition: Callable[[], Any],
    what: str | Callable[[], str],
    *,
    patience: float = PATIENCE,
    every: float = 0.1,
) -> Any:
    """Wait for a condition; its value. `what` says for the failure what did not come."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if value := condition():
            return value
        await asyncio.sleep(every)
    missing = what if isinstance(what, str) else what()
    raise AssertionError(f"waited {patience:g} s in vain: {missing}")


class Socket:
    """A raw client that keeps every message, and checks it against its published schema."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Message] = []
        self.faults: list[str] = []
        self._actions: dict[str, str] = {}
        self._arrived = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self.connection:
            async with self._arrived:
                self.messages.append(json.loads(text))
                self.faults += message_faults(self.messages[-1], self._actions)
                self._arrived.notify_all()

    async def send(self, message: Message | str) -> None:
        if isinstance(message, dict) and "id" in message:
            self._actions[str(message["id"])] = str(message.get("action"))
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    async def wait_for(
        self, wanted: Callable[[Message], bool], patience: float = PATIENCE, seen: int = 0
    ) -> Message:
        """The first message that matches, received before or later, but for the first `seen`."""
        async with self._arrived:
            await asyncio.wait_for(
                self._arrived.wait_for(lambda: any(map(wanted, self.messages[seen:]))), patience
            )
        return next(filter(wanted, self.messages[seen:]))

    async def ask(self, message: Message | str) -> Message:
        """Send, and give the message that answers at once.

        Progress may overtake an acknowledgment, so an answer to something else is passed over.
        """
        seen = len(self.messages)
        own = None
        if isinstance(message, dict):
            message = {"id": unique("ask"), **message}
            own = message["id"]
        await self.send(message)
        return await self.wait_for(lambda answer: answers(answer, own), seen=seen)

    async def run(self, action: str, payload: Message, **envelope: Any) -> Message:
        """Send a request and wait for its end."""
        request_id = envelope.pop("id", None) or unique("req")
        await self.send({"id": request_id, "action": action, "payload": payload, **envelope})
        return await self.end_of(request_id)

    async def end_of(self, request_id: str, patience: float = PATIENCE) -> Message:
        return await self.wait_for(lambda m: ends(m, request_id), patience)

    def of(self, request_id: str) -> list[Message]:
        """The messages of a request, without direct answers."""
        return [m for m in self.messages if m.get("request_id") == request_id and "seq" in m]

    async def close(self) -> None:
        await self.connection.close()
        self._reader.cancel()

    def cut(self) -> None:
        """Abort the connection without closing it."""
        self.connection.transport.abort()
        self._reader.cancel()


def message_faults(message: Message, actions: Mapping[str, str]) -> list[str]:
    """The faults of a message by its schema, and of its content by its action's schema."""
    found = faults_of_ours("socket/server-message", message)
    action = actions.get(str(message.get("request_id")), "").replace("_", "-")
    if action and message["type"] == "response":
        found += faults_of_ours(f"socket/answers/{action}", message["data"])
    if action and message["type"] == "complete" and set(message["result"]) != {"url"}:
        found += faults_of_ours(f"socket/results/{action}", message["result"])
    return found


async def check_answer(response: httpx.Response) -> None:
    """Check an answer of the HTTP API against its published schema."""
    await response.aread()
    path = response.url.path.rpartition("$default")[2]
    if response.status_code == 304:
        return
    if response.status_code >= 400:
        name = "http/refusal"
    else:
        names = {"/assemblies": "http/assembly-page", "/status/batch": "http/batch-answer"}
        name = names.get(path, "http/assembly")
    assert faults_of_ours(name, response.json()) == [], response.text


def answers(message: Message, request_id: Any) -> bool:
    """Whether a message is the direct answer to another one; None: to any."""
    kinds = {"response", "acknowledgment", "pong", "error"}
    given = message.get("request_id")
    is_for_it = request_id is None or given is None or given == request_id
    return message["type"] in kinds and "seq" not in message and is_for_it


def ends(message: Message, request_id: str) -> bool:
    """Whether a message is the end of a request."""
    return message.get("request_id") == request_id and (
        message["type"] == "complete" or (message["type"] == "error" and "seq" in message)
    )


def assert_ended_once(messages: Iterable[Message], *, are_copies_allowed: bool = False) -> None:
    """One terminal message, the last one, and strictly increasing `seq`.

    A message whose answer was lost is sent again as it is; where answers get lost, such copies are
    allowed.
    """
    messages = list(messages)
    if are_copies_allowed:
        messages = [each for number, each in enumerate(messages) if each not in messages[:number]]
    kinds = [message["type"] for message in messages]
    numbers = [message["seq"] for message in messages]
    assert sum(kind in TERMINAL for kind in kinds) == 1, kinds
    assert kinds[-1] in TERMINAL, kinds
    assert numbers == sorted(set(numbers)), numbers


@dataclass
class Receiver:
    """A webhook receiver on loopback: its requests, and its answers."""

    url: str
    received: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def of(self, assembly_id: str) -> list[tuple[Mapping[str, str], bytes]]:
        return [
            (headers, body)
            for headers, body in self.received
            if json.loads(body)["assembly_id"] == assembly_id
        ]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200, or the codes in `answers`."""
    there = Receiver(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there.received.append((dict(self.headers), body))
            there.faults += faults_of_ours("webhooks/body", json.loads(body))
            self.send_response(there.answers.pop(0) if there.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with serving(Handler) as port:
        there.url = f"http://127.0.0.1:{port}/hooks"
        yield there
    assert there.faults == []


class Deployed:
    """A running stage."""

    def __init__(self, stage: Stage) -> None:
        state = stage.read_state()
        assert state is not None
        self.stage = stage
        self.pid = state.pid
        self.info = state.description
        self.http_url: str = self.info["http_url"]
        self.dynamodb = stage.client("dynamodb")
        self.s3 = stage.client("s3")
        self.sqs = stage.client("sqs")
        self.ssm = stage.client("ssm")
        self.functions = stage.client("lambda")

    def token(self, user: str, tenant: str, *permissions: str, ttl: int = 3600) -> str:
        return mint_token(
            jwt_secret(self.stage), user=user, tenant=tenant, permissions=permissions, ttl=ttl
        )

    def socket_url(
        self, user: str = "", tenant: str = "acme", *permissions: str, token: str | None = None
    ) -> str:
        """Where to connect to with a user's token, or with another one."""
        token = self.token(user, tenant, *permissions) if token is None else token
        return f"{self.info['websocket_url']}?Authorization={token}"

    @asynccontextmanager
    async def socket(
        self, user: str, tenant: str = "acme", *permissions: str, token: str | None = None
    ) -> AsyncIterator[Socket]:
        url = self.socket_url(user, tenant, *permissions, token=token)
        async with connect(url, max_size=None) as connection:
            socket = Socket(connection)
            try:
                yield socket
            finally:
                await socket.close()
            assert socket.faults == []

    def http(self, user: str, tenant: str = "acme") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.http_url,
            headers={"Authorization": f"Bearer {self.token(user, tenant)}"},
            trust_env=False,
            timeout=30,
            event_hooks={"response": [check_answer]},
        )

    async def upload(
        self, socket: Socket, template: str, files: Mapping[str, bytes], mime: str = "text/plain"
    ) -> Message:
        """Upload files as a client does; the payload of process_assembly."""
        announced = [
            {"name": name, "size": len(body), "mime": mime, "md5hash": md5(body)}
            for name, body in files.items()
        ]
        payload = {"template_id": template, "files": announced}
        answer = await socket.ask({"action": "create_upload", "payload": payload})
        assert answer["type"] == "response", answer
        uploads = answer["data"]["uploads"]
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            for upload, body in zip(uploads, files.values(), strict=True):
                done = await client.put(upload["url"], content=body, headers=upload["headers"])
                assert done.status_code == 200, done.text
        keep = ("key", "name", "size", "mime", "md5hash")
        return {
            "template_id": template,
            "uploads": [{name: upload[name] for name in keep} for upload in uploads],
        }

    async def complete(self, user: str, **envelope: Any) -> str:
        """Run the assembly of a new file; its id."""
        async with self.socket(user) as socket:
            files = {"a": unique("x").encode()}
            payload = await self.upload(socket, "tpl_fingerprint", files)
            end = await socket.run("process_assembly", payload, **envelope)
        assert end["type"] == "complete", end
        return str(end["result"]["assembly_id"])

    def get(self, table: str, **key: Any) -> Message:
        """A stored row; empty if it does not exist."""
        found = self.dynamodb.get_item(
            TableName=self.info["tables"][table], Key=to_item(key), ConsistentRead=True
        )
        return from_item(found.get("Item", {}))

    def put(self, table: str, row: Message) -> None:
        self.dynamodb.put_item(TableName=self.info["tables"][table], Item=to_item(row))

    def delete(self, table: str, **key: Any) -> None:
        self.dynamodb.delete_item(TableName=self.info["tables"][table], Key=to_item(key))

    def update(self, table: str, key: Message, **values: Any) -> None:
        """Set attributes of a row."""
        self.dynamodb.update_item(
            TableName=self.info["tables"][table],
            Key=to_item(key),
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in values),
            ExpressionAttributeValues=to_item({f":{name}": v for name, v in values.items()}),
        )

    def row(self, user: str, request_id: str, tenant: str = "acme") -> Message:
        """The stored row of a request."""
        return self.get("requests", owner=owner_key(tenant, user), request_id=request_id)

    def assembly(self, assembly_id: str) -> Message:
        """The stored document."""
        return self.get("assemblies", assembly_id=assembly_id)

    def put_assembly(self, user: str, tenant: str = "acme") -> str:
        """Store a completed assembly whose webhook was not sent; its id."""
        assembly_id = unique("asm")
        ended = {"ok": "ASSEMBLY_COMPLETED", "message": "Processing completed"}
        whose = {"user": {"userId": user}, "user_id": user, "tenant_id": tenant}
        times = dict.fromkeys(("created_at", "updated_at"), "2026-11-22T10:00:00.000Z")
        counts = {"execution": 1, "rev": 1, "ttl": int(time.time()) + 3600}
        files: Message = {"uploads": [], "results": {}, "branch": "main"}
        files |= dict.fromkeys(("bytes_expected", "bytes_received", "bytes_usage"), 0)
        row = {
            "assembly_id": assembly_id,
            "template_id": "tpl_fingerprint",
            **whose,
            **counts,
            **files,
        }
        self.put("assemblies", {**row, **ended, **times})
        return assembly_id

    def count(self, table: str) -> int:
        """The number of items in a table."""
        paginator = self.dynamodb.get_paginator("scan")
        pages = paginator.paginate(TableName=self.info["tables"][table], Select="COUNT")
        return sum(page["Count"] for page in pages)

    def configuration(self, function: str) -> Message:
        """The deployed configuration of a function."""
        name = self.stage.names.of(function)
        found: Message = self.functions.get_function_configuration(FunctionName=name)
        return found

    def resources(self) -> dict[str, str]:
        """The physical ids of the stack's resources by their logical ones."""
        listed = self.stage.client("cloudformation").get_paginator("list_stack_resources")
        return {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for page in listed.paginate(StackName=self.stage.names.stack)
            for each in page["StackResourceSummaries"]
        }

    def alarms(self) -> list[Message]:
        """The deployed alarms."""
        described = self.stage.client("cloudwatch").get_paginator("describe_alarms")
        pages = described.paginate(AlarmNamePrefix=self.stage.names.prefix)
        return [alarm for page in pages for alarm in page["MetricAlarms"]]

    def assumed(self, role: str) -> dict[str, str]:
        """Temporary credentials of a role."""
        sts = self.stage.client("sts")
        arn = f"arn:aws:iam::{sts.get_caller_identity()['Account']}:role/{role}"
        found = sts.assume_role(RoleArn=arn, RoleSessionName="tests")["Credentials"]
        return {name: found[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}

    def invoke(self, function: str, event: Any) -> Any:
        """Invoke a deployed function; its answer."""
        done = self.functions.invoke(
            FunctionName=self.info["functions"][function], Payload=json.dumps(event).encode()
        )
        answer = json.loads(done["Payload"].read())
        assert "FunctionError" not in done, answer
        return answer

    def sweep(self) -> Message:
        """Run the schedule of the processor now."""
        swept: Message = self.invoke("processor", {"sweep": "leases"})["swept"]
        return swept

    def workers(self, function: str) -> list[psutil.Process]:
        """The processes of the workers that run a function."""
        mark = f"ministack-lambda-{self.info['functions'][function]}-"
        found: list[psutil.Process] = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if mark in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill_workers(self, function: str) -> None:
        """End the processes that run a function, as a crash would."""
        killed = self.workers(function)
        for process in killed:
            process.kill()
        end = time.monotonic() + PATIENCE
        while any(map(is_alive, killed)) and time.monotonic() < end:
            time.sleep(0.01)

    def set_parameter(self, name: str, value: str) -> None:
        self.ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)

    def set_webhook(self, url: str, secret: str = SIGNING_SECRET) -> None:
        """Set the receiver and the secret of the templates' webhooks."""
        for name, value in (("url", url), ("secret", secret)):
            self.set_parameter(self.stage.names.parameter(f"webhooks/{name}"), value)
        # The function remembers what it read for a minute.
        self.kill_workers("deliver-webhook")


@contextmanager
def recorded(deployed: Deployed) -> Iterator[Deployed]:
    """A stage whose histories of requests, claims and lanes must have an explanation in the end.

    Except those of rows that something else has made, and of those that this process writes: tests
    make leases end and clocks differ.
    """
    with recording(deployed.stage.directory) as folder:
        tables = [deployed.info["tables"][name] for name in (REQUESTS, CLAIMS, LANES)]
        scan = deployed.dynamodb.get_paginator("scan").paginate
        pages = [page for table in tables for page in scan(TableName=table)]
        there = {subject_of(item) for page in pages for item in page["Items"]}
        recorder.install(str(folder), MINE, deployed.stage.names.prefix)
        yield deployed
        histories = {
            subject: history
            for subject, history in operations_of(calls_in(folder)).items()
            if subject not in there
            and begins(min(history, key=lambda operation: operation.start))
            and not any(operation.actor.startswith(MINE) for operation in history)
        }
        unexplained = check(histories).unexplained
    assert not unexplained, "\n".join(map(str, unexplained))


def begins(operation: Operation) -> bool:
    """Whether an operation finds no row."""
    is_first = (
        operation.row is None or operation.row.get("fence") == operation.given.get("start", 0) + 1
    )
    is_of_lane = operation.subject.startswith(f"{LANES} ")
    is_begin = operation.action == "Enqueue" or (operation.action == "Acquire" and is_first)
    return is_of_lane or is_begin


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is running, and not a zombie."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def client_once(service: str, url: str, region: str, credentials: Mapping[str, str]) -> Any:
    """A client that makes each call once."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials.get("SessionToken"),
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
