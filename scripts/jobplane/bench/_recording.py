"""AWS's answers to a function's calls: recorded in process, played back on loopback."""

import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import click
from botocore import client, endpoint
from botocore.response import StreamingBody

from jobplane.tree.repository import Function, Repository
from jobplane.trying.cases import Case, InProcessTarget, Outcome, run
from jobplane.trying.inprocess import InProcess

NOT_PLAYED = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})

type Key = tuple[str, str]
"""Identifies an operation: method and target, or method and path."""


@dataclass(frozen=True)
class Exchange:
    service: str
    operation: str
    parameters: Mapping[str, Any]
    key: Key
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Recording:
    """A filled-in case, and the calls that it made."""

    function: Function
    case: Case
    event: Any
    environment: Mapping[str, str]
    exchanges: tuple[Exchange, ...]
    made: float
    """The time of the recording, by the monotonic clock."""

    def environment_at(self, url: str) -> dict[str, str]:
        """The function's variables, with this endpoint for all AWS services."""
        sockets = self.environment.get("WEBSOCKET_ENDPOINT")
        moved = {"WEBSOCKET_ENDPOINT": url + urlsplit(sockets).path} if sockets else {}
        return {**self.environment, **moved, "AWS_ENDPOINT_URL": url}


# The first interrupt of a workspace creates its queue and waits a second; the second one is usual.
USUAL_RUN = {"send-interrupt": 2}


def record(repository: Repository, case: Case) -> Recording:
    """Run a case, as often as it takes until its calls are the usual ones; keep the last run's."""
    with InProcess(repository) as aws:
        for _ in range(USUAL_RUN.get(case.function.name, 1)):
            target = _Recorder(aws)
            result = run(case, target)
        if result.problems:
            raise click.ClickException(f"{case}: {'; '.join(result.problems)}")
        if not target.exchanges:
            raise click.ClickException(f"{case} makes no AWS call, so there is nothing to measure")
        return Recording(
            case.function,
            case,
            target.event,
            aws.environment(case.function.name) | dict(case.given.get("environment", {})),
            tuple(target.exchanges),
            time.monotonic(),
        )


class _Recorder(InProcessTarget):
    """This process with moto; records the calls of the invocation only."""

    def __init__(self, aws: InProcess) -> None:
        super().__init__(aws)
        self.exchanges: list[Exchange] = []
        self.event: Any = None

    def invoke(self, function: Function, event: Any, environment: Mapping[str, str]) -> Outcome:
        self.event = event
        called = threading.local()
        exchanges = self.exchanges
        caller: Any = client.BaseClient
        sender: Any = endpoint.Endpoint
        make, respond = caller._make_api_call, sender._do_get_response

        def make_api_call(self: Any, operation_name: str, api_params: Any) -> Any:
            called.parameters = _plain(api_params)
            return make(self, operation_name, api_params)

        def do_get_response(self: Any, request: Any, model: Any, context: Any) -> Any:
            received, error = respond(self, request, model, context)
            if received is not None:
                _keep_stream(received, model)
                target = _text(request.headers.get("X-Amz-Target", ""))
                response = received[0]
                exchange = Exchange(
                    model.service_model.service_name, model.name, called.parameters,
                    _key(request.method, target, _path(request.url, called.parameters)),
                    response.status_code,
                    {name: _text(value) for name, value in response.headers.items()},
                    response.content,
                )  # fmt: skip
                exchanges.append(exchange)
            return received, error

        with (
            patch.object(caller, "_make_api_call", make_api_call),
            patch.object(sender, "_do_get_response", do_get_response),
        ):
            return super().invoke(function, event, environment)


def _keep_stream(received: tuple[Any, dict[str, Any]], model: Any) -> None:
    """Let the caller still read a body that is recorded."""
    if model.has_streaming_output:
        body, name = received[0].content, model.output_shape.serialization["payload"]
        received[1][name] = StreamingBody(io.BytesIO(body), len(body))


@dataclass
class Player:
    """Answers one process's calls; `url` is its endpoint."""

    url: str
    calls: int = 0
    unknown: list[Key] = field(default_factory=list)
    """Calls that are not in the recording."""
    _exchanges: dict[Key, list[Exchange]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def rewind(self, recording: Recording) -> None:
        self.calls = 0
        self.unknown = []
        self._exchanges = {}
        for exchange in recording.exchanges:
            self._exchanges.setdefault(exchange.key, []).append(exchange)

    def answer(self, key: Key) -> Exchange | None:
        with self._lock:
            self.calls += 1
            known = self._exchanges.get(key)
            if not known:
                self.unknown.append(key)
                return None
            return known.pop(0) if len(known) > 1 else known[0]


@contextmanager
def playing() -> Iterator[Player]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.player = Player(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.player
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    player: Player


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # send an answer as one segment
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        key = _key(self.command, self.headers.get("X-Amz-Target", ""), path)
        exchange = self.server.player.answer(key)
        if exchange is None:
            self.send_error(501, f"not in the recording: {key}")
            self.wfile.flush()
            return
        self.send_response(exchange.status)
        for name, value in exchange.headers.items():
            if name.lower() not in NOT_PLAYED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(exchange.body)))
        self.end_headers()
        self.wfile.write(exchange.body)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _key(method: str, target: str, path: str) -> Key:
    return method, target or path


def _path(url: str, parameters: Mapping[str, Any]) -> str:
    """The path of a call, as it is on loopback, where no bucket is part of the host's name."""
    where, bucket = urlsplit(url), str(parameters.get("Bucket"))
    return f"/{bucket}{where.path}" if where.netloc.startswith(f"{bucket}.") else where.path


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    """Parameters as literals, because the `repr` of an enumeration's member is not Python."""
    match value:
        case dict():
            return {_plain(key): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case str():
            return str(value)
    return value
