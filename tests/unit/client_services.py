"""Fakes for the client library: a socket service, an HTTP service, Lambda."""

import asyncio
import io
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

TIME = "2026-11-22T10:00:00.000Z"


class Timers:
    """Replaces asyncio.sleep: short waits end at once, long ones when the test says so."""

    LONG = 100.0

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._pending: list[tuple[float, asyncio.Future[None]]] = []
        self._changed = asyncio.Condition()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        if seconds < self.LONG:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._pending.append((seconds, future))
        async with self._changed:
            self._changed.notify_all()
        try:
            await future
        finally:
            self._pending.remove((seconds, future))

    async def fire(self, seconds: float) -> None:
        """End the wait of so many seconds, once there is one."""

        def found() -> asyncio.Future[None] | None:
            return next((each for asked, each in self._pending if asked == seconds), None)

        async with self._changed:
            await self._changed.wait_for(lambda: found() is not None)
        future = found()
        assert future is not None
        future.set_result(None)


@dataclass
class Job:
    """A stored request of the socket service."""

    id: str
    action: str
    origin: int
    status: str = "PENDING"
    seq: int = 0
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    listeners: set[int] = field(default_factory=set)
    events: list[Any] = field(default_factory=list)
    # The places of events that are no longer kept.
    lost: frozenset[int] = frozenset()

    def page(self, since: int) -> dict[str, Any]:
        """What a subscription answers of the events: two at a time."""
        kept = [number for number in range(since, len(self.events)) if number not in self.lost]
        first = kept[0] if kept else len(self.events)
        end = next((n for n in range(first, first + 2) if n not in kept), first + 2)
        return {
            "events": {
                "first": first + 1,
                "events": self.events[first:end],
                "count": len(self.events),
                "more": end < len(self.events),
                "gap": first > since,
            }
        }

    def state(self) -> dict[str, Any]:
        """The answer to a subscription."""
        state = {"request_id": self.id, "status": self.status, "seq": self.seq}
        ends = {"result": self.result, "error": self.error}
        known = {name: value for name, value in ends.items() if value is not None}
        emitted = {"event_count": len(self.events)} if self.events else {}
        return state | {"progress": self.progress} | known | emitted


class SocketService:
    """A socket service in process, with the faults that a test asks for."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.received: list[tuple[int, dict[str, Any]]] = []
        self.frame_sizes: list[int] = []
        self.queries: list[dict[str, list[str]]] = []
        self.refusals: deque[tuple[int, dict[str, str]]] = deque()
        self.cut_before_answering: set[str] = set()
        self.mute: set[str] = set()
        self.replies: dict[str, deque[dict[str, Any]]] = {}
        self._connections: dict[int, ServerConnection] = {}
        self._changed = asyncio.Condition()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._admit, ping_interval=None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for connection in self._connections.values():
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/local"

    @property
    def attempts(self) -> int:
        """The number of handshakes, refused ones included."""
        return len(self.queries)

    def sent(self, action: str) -> list[dict[str, Any]]:
        return [message for _, message in self.received if message.get("action") == action]

    async def until(self, condition: Callable[[], object]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def connected(self, number: int) -> None:
        await self.until(lambda: number in self._connections)

    def connection(self, number: int) -> ServerConnection:
        return self._connections[number]

    async def cut(self, code: int | None = None) -> None:
        """End the newest connection with a close code, or without one."""
        connection = self._connections[max(self._connections)]
        if code is None:
            connection.transport.abort()
        else:
            await connection.close(code)
        await connection.wait_closed()

    async def say(self, message: Mapping[str, Any] | str) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        await self._connections[max(self._connections)].send(text)

    async def progress(self, request_id: str, percentage: float, *, lost: bool = False) -> None:
        job = self.jobs[request_id]
        job.status, job.seq = "PROCESSING", job.seq + 1
        job.progress = {"seq": job.seq, "percentage": percentage, "message": "on", "at": TIME}
        if not lost:
            await self.tell(job, type="progress", seq=job.seq, percentage=percentage, message="on")

    async def emit(
        self, request_id: str, first: int, events: list[Any], *, lost: bool = False
    ) -> None:
        job = self.jobs[request_id]
        job.status = "PROCESSING"
        job.events[first - 1 :] = events
        if not lost:
            await self.tell(job, type="event", first=first, events=events)

    async def complete(
        self,
        request_id: str,
        result: dict[str, Any] | None = None,
        *,
        lost: bool = False,
        **more: Any,
    ) -> None:
        job = self.jobs[request_id]
        job.status, job.seq, job.result = "COMPLETED", job.seq + 1, result or {}
        if not lost:
            await self.tell(
                job, type="complete", seq=job.seq, success=True, result=job.result, **more
            )

    async def fail(self, request_id: str, code: str, *, lost: bool = False) -> None:
        job = self.jobs[request_id]
        job.status = "CANCELLED" if code == "CANCELLED" else "FAILED"
        job.seq += 1
        job.error = {"code": code, "message": "it broke", "retryable": False}
        if not lost:
            await self.tell(job, type="error", seq=job.seq, error=job.error)

    async def tell(self, job: Job, **message: Any) -> None:
        for number in sorted(job.listeners | {job.origin}):
            connection = self._connections.get(number)
            if connection is not None:
                text = json.dumps({"request_id": job.id, "timestamp": TIME, **message})
                try:
                    await connection.send(text)
                except ConnectionClosed:
                    continue

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.queries.append(parse_qs(urlsplit(request.path).query))
        await self._note()
        if not self.refusals:
            return None
        status, headers = self.refusals.popleft()
        response = connection.respond(status, '{"error":"no"}')
        for name, value in headers.items():
            response.headers[name] = value
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        number = max(self._connections, default=0) + 1
        self._connections[number] = connection
        await self._note()
        try:
            while True:
                parts = [part async for part in connection.recv_streaming(decode=False)]
                self.frame_sizes += [len(part) for part in parts]
                await self._answer(number, connection, json.loads(b"".join(parts)))
                await self._note()
        except ConnectionClosed:
            return

    async def _answer(
        self, number: int, connection: ServerConnection, message: dict[str, Any]
    ) -> None:
        self.received.append((number, message))
        action, request_id = message["action"], message.get("id")
        reply = self._reply(number, action, request_id, message.get("payload", {}))
        if action in self.cut_before_answering:
            self.cut_before_answering.remove(action)
            connection.transport.abort()
        elif "connectionId" in reply:
            # API Gateway's own answer names no request of ours.
            await connection.send(json.dumps(reply))
        elif action not in self.mute:
            if request_id is not None:
                reply = {"request_id": request_id, **reply}
            await connection.send(json.dumps({"timestamp": TIME, **reply}))

    def _reply(
        self, number: int, action: str, request_id: Any, payload: dict[str, Any]
    ) -> dict[str, Any]:
        if self.replies.get(action):
            return self.replies[action].popleft()
        if action == "ping":
            return {"type": "pong"}
        if action == "authenticate":
            return {"type": "response", "success": True, "data": {"expires_at": TIME}}
        if action == "echo":
            return {"type": "response", "success": True, "data": {"echo": payload}}
        if action in ("subscribe", "unsubscribe"):
            job = self.jobs.get(payload["request_id"])
            if job is None:
                error = {"code": "NOT_FOUND", "message": "The request does not exist"}
                return {"type": "error", "error": error}
            if "since_event" in payload and not job.events:  # as a service that knows no events
                error = {"code": "VALIDATION_ERROR", "message": "The payload is not valid"}
                return {"type": "error", "error": error}
            job.listeners.add(number)
            page = job.page(payload["since_event"]) if "since_event" in payload else {}
            return {"type": "response", "success": True, "data": job.state() | page}
        known = self.jobs.get(request_id)
        if known is None:
            self.jobs[request_id] = Job(request_id, action, number)
            return {"type": "acknowledgment", "status": "queued", "message": "Request queued"}
        status = "queued" if known.status == "PENDING" else known.status.lower()
        return {"type": "acknowledgment", "status": status, "message": "Request already stored"}

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass(frozen=True)
class Reply:
    """An answer of the status service."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The body as sent: text as it is, anything else as JSON."""
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


class Script:
    """The answers of the status service in turn; the last one is repeated."""

    def __init__(self) -> None:
        self.replies: list[Reply | Exception] = []
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def will(self, *replies: Reply | Exception) -> None:
        self.replies = list(replies)

    def answer(self, asked: dict[str, Any]) -> Reply:
        with self._lock:
            self.asked.append(asked)
            reply = self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class FakeLambda:
    """A boto3 Lambda client."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.function_error: str | None = None
        self.raw: bytes | None = None

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> dict[str, Any]:
        assert InvocationType == "RequestResponse"
        reply = self.script.answer({"function": FunctionName, **json.loads(Payload)})
        answer = {"statusCode": reply.status, "headers": dict(reply.headers), "body": reply.text}
        payload = json.dumps(answer).encode()
        body = io.BytesIO(payload if self.raw is None else self.raw)
        failed = {"FunctionError": self.function_error} if self.function_error else {}
        return {"StatusCode": 200, "Payload": body, **failed}


class HttpService:
    """The status service on a loopback port."""

    def __init__(self, script: Script) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet, or each answer waits for an ACK

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                asked = {"method": self.command, "path": self.path}
                asked["authorization"] = self.headers["Authorization"]
                if body:
                    asked |= json.loads(body)
                try:
                    reply = script.answer(asked)
                except ConnectionError:
                    self.close_connection = True
                    return
                content = reply.text.encode()
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(content)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Base URL, with a stage as API Gateway has it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/local"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def document(assembly_id: str = "a1", **fields: Any) -> dict[str, Any]:
    return {
        "assembly_id": assembly_id, "message": "Processing", "uploads": [], "results": {},
        "template_id": "tpl", "branch": "main", "user": {"userId": "u1"}, "created_at": TIME,
        "updated_at": TIME, **fields,
    }  # fmt: skip


def completed(assembly_id: str = "a1", **fields: Any) -> dict[str, Any]:
    return document(assembly_id, ok="ASSEMBLY_COMPLETED", execution_duration=5.25, **fields)


def statuses(ids: Iterable[str], *, missing: Iterable[str] = ()) -> dict[str, Any]:
    gone = set(missing)
    return {"statuses": {name: None if name in gone else completed(name) for name in ids}}
