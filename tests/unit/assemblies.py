"""What the tests of `status` and `deliver-webhook` share: a function loaded fresh, the table of
assemblies, and real receivers.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
from hypothesis import strategies as st

from jobplane_keys import from_item, to_item
from jobplane_webhooks import TargetRules
from tests.unit import stack
from tests.unit.stack import SECRET, resources, table_arguments

ROOT = stack.ROOT
ENVIRONMENT = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing") | {
    "AWS_DEFAULT_REGION": "eu-central-1",
    "DYNAMODB_TABLE": "jobplane-test-assemblies",
    "FILES_BUCKET": "jobplane-test-files",
    "DELIVER_WEBHOOK_FUNCTION": "jobplane-test-deliver-webhook",
    "WEBHOOKS_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/webhooks",
    "JWT_SECRET": SECRET,
    "SERVICE": "jobplane",
    "STAGE": "test",
}
OPTIONAL = (
    "ALLOWED_TENANTS", "ALLOW_ANONYMOUS_INVOKE", "ASSEMBLY_STATUS_CODES", "AWS_ENDPOINT_URL",
    "JWT_AUDIENCE", "JWT_ISSUER", "JWT_PUBLIC_KEY", "MASK_FOREIGN", "REQUIRE_TENANT",
    "RESULT_LINK_SECONDS",
    "TEMPLATES_INDEX_PATH", "WEBHOOK_ALLOW_HTTP", "WEBHOOK_HOSTS",
)  # fmt: skip


LOCAL = {"WEBHOOK_HOSTS": "127.0.0.1,localhost", "WEBHOOK_ALLOW_HTTP": "true"}
LOOPBACK = TargetRules.from_environment(LOCAL)

TELLING = (
    "asm-1", "user-1", "GET", "POST", "/status/asm-1", "/status", "/status/batch", "/assemblies",
    "aws:sqs", '{"assembly_id":"asm-1"}', "{}", True,
)  # fmt: skip


def load(monkeypatch: Any, name: str = "status", **environment: str) -> ModuleType:
    """A function's module as a new container would import it."""
    for variable in OPTIONAL:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (ENVIRONMENT | environment).items():
        monkeypatch.setenv(variable, value)
    module = stack.fresh(name)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@cache
def dynamodb() -> Any:
    return boto3.client("dynamodb", region_name=ENVIRONMENT["AWS_DEFAULT_REGION"])


def create_table() -> None:
    """The assemblies table, as the stack's own template declares it."""
    name = ENVIRONMENT["DYNAMODB_TABLE"]
    (declared,) = [found for _, found in resources("tables") if found.get("TableName") == name]
    dynamodb().create_table(**table_arguments(declared))


def put(item: Mapping[str, Any]) -> None:
    dynamodb().put_item(TableName=ENVIRONMENT["DYNAMODB_TABLE"], Item=to_item(item))


def stored(assembly_id: str) -> dict[str, Any]:
    key = to_item({"assembly_id": assembly_id})
    found = dynamodb().get_item(TableName=ENVIRONMENT["DYNAMODB_TABLE"], Key=key)
    return from_item(found["Item"])


def assembly(assembly_id: str = "asm-1", **changes: Any) -> dict[str, Any]:
    """A completed assembly of user-1 in tenant-1; `None` leaves an attribute out."""
    item = {
        "assembly_id": assembly_id,
        "ok": "ASSEMBLY_COMPLETED",
        "message": "Processing completed",
        "uploads": [{"id": "upload_1", "name": "a.txt", "size": 5, "key": "uploads/x/a.txt"}],
        "results": {}, "bytes_expected": 5, "bytes_received": 5, "bytes_usage": 0,
        "execution_duration": 5.2, "execution_start": "2026-11-22T10:00:00.000Z",
        "template_id": "tpl", "branch": "main", "user": {"userId": "user-1"}, "user_id": "user-1",
        "tenant_id": "tenant-1", "owner": "tenant-1#user-1", "rev": 4, "execution": 1,
        "created_at": "2026-11-22T10:00:00.000Z", "updated_at": "2026-11-22T10:00:05.200Z",
        "ttl": int(time.time()) + 3600,
    } | changes  # fmt: skip
    return {name: value for name, value in item.items() if value is not None}


# Events are made when tests are collected, and the last test may come an hour later.
TOKEN_SECONDS = 24 * 3600


def token(user: str = "user-1", tenant: str = "tenant-1", **claims: Any) -> str:
    return stack.token(user, tenant, **{"exp": int(time.time()) + TOKEN_SECONDS} | claims)


def http(
    method: str,
    path: str,
    query: dict[str, str] | None = None,
    body: Any = None,
    headers: dict[str, str] | None = None,
    bearer: str | None = "",
) -> dict[str, Any]:
    """An API Gateway payload v2; `bearer` empty is user-1's token, None omits it."""
    sent = {"host": "api.example.com", **(headers or {})}
    if bearer is not None:
        sent["authorization"] = f"Bearer {bearer or token()}"
    asked = {"method": method, "path": path, "protocol": "HTTP/1.1"}
    event: dict[str, Any] = {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": sent, "queryStringParameters": query, "isBase64Encoded": False,
        "requestContext": {"http": asked, "stage": "$default", "requestId": "JKJaXmPLvHcESHA="},
    }  # fmt: skip
    if body is not None:
        event["body"] = body if isinstance(body, str) else json.dumps(body)
    return event


def message(
    assembly_id: str = "asm-1", execution: int | None = 1, receives: int = 1, **extra: Any
) -> dict[str, Any]:
    """An SQS event with one message of the webhook queue."""
    content = {"assembly_id": assembly_id, "execution": execution, "template_id": "tpl"} | extra
    return sqs(json.dumps(content), receives=receives)


def sqs(*bodies: str, receives: int = 1) -> dict[str, Any]:
    same = {
        "attributes": {"ApproximateReceiveCount": str(receives)}, "messageAttributes": {},
        "eventSource": "aws:sqs", "awsRegion": "eu-central-1",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:webhooks",
    }  # fmt: skip
    records = [
        same | {"messageId": f"message-{n}", "receiptHandle": f"receipt-{n}", "body": body}
        for n, body in enumerate(bodies, 1)
    ]
    return {"Records": records}


@dataclass
class Context(stack.Context):
    """Lambda's context object."""

    seconds: float = 30.0
    aws_request_id: str = "11111111-2222-4333-8444-555555555555"
    function_name: str = "jobplane-test-status"


def public_resolver(*addresses: str) -> Any:
    """A resolver that returns the addresses in turn, and repeats the last one."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> Any:
        address = addresses[min(len(asked), len(addresses) - 1)]
        asked.append(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    return resolve, asked


class Received:
    """A request that a receiver got."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.method = handler.command
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = handler.rfile.read(int(handler.headers.get("content-length", 0)))


type Behaviour = Callable[[BaseHTTPRequestHandler], None]


def reply(code: int, **headers: str) -> Behaviour:
    """Answer with a status code and headers (`retry_after` → `retry-after`)."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    return behave


class Receiver:
    """A webhook receiver on loopback; uses behaviours in turn, and repeats the last one."""

    def __init__(self, port: int, behaviours: list[Behaviour]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/hooks?tenant=1"
        self.requests: list[Received] = []
        self.behaviours = behaviours

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(Received(handler))
        turn = min(len(self.requests), len(self.behaviours))
        self.behaviours[turn - 1](handler)


@contextmanager
def receiving(*behaviours: Behaviour, tls: Any = None) -> Iterator[Receiver]:
    """Run a receiver within the block; `tls` is a server's SSL context."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                receiver.take(self)
            except OSError:
                self.close_connection = True

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        released: threading.Event

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.released = threading.Event()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server.server_address[1], list(behaviours) or [reply(200)])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def write_templates(folder: Path, **template: Any) -> str:
    """A template index whose template `tpl` is as given; its path."""
    path = folder / "index.json"
    path.write_text(json.dumps({"templates": [{"id": "tpl", "steps": {}} | template]}))
    return str(path)


def events(*keys: str) -> st.SearchStrategy[Any]:
    """Any JSON, often with some of these keys and values."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
        | st.text(max_size=20) | st.sampled_from(TELLING),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=12,
    )  # fmt: skip
    return st.recursive(
        values,
        lambda inner: (
            st.dictionaries(st.sampled_from(keys), inner, max_size=8) | st.lists(inner, max_size=3)
        ),
        max_leaves=20,
    )
