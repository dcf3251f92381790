"""A webhook receiver on loopback, which verifies with the client library."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jobplane_client import WebhookError, verify_webhook

PATH = "/webhooks/jobplane"


@dataclass(frozen=True)
class Delivery:
    """One verified webhook, as it was received."""

    headers: list[tuple[str, str]]
    body: bytes
    document: dict[str, Any]
    at: float
    """Epoch seconds."""


class Receiver:
    """Keeps verified webhooks and answers 401 to others; create it within a running event loop."""

    def __init__(self, secret: str) -> None:
        self.refused: list[str] = []
        """The client library's error for each refused webhook, by name."""
        self._secret = secret
        self._loop = asyncio.get_running_loop()
        self._deliveries: dict[str, asyncio.Future[Delivery]] = {}
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the receiver is not listening; enter listening() first")
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Listen on a port, or on a free one if that is taken."""
        handler = _handler(self)
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError:
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self._server = server
        try:
            yield
        finally:
            self._server = None
            server.shutdown()
            server.server_close()
            thread.join()

    def take(self, headers: list[tuple[str, str]], body: bytes) -> int:
        """Verify a webhook; the status to answer with."""
        try:
            document = verify_webhook(headers, body, self._secret)
        except WebhookError as error:
            self.refused.append(type(error).__name__)
            return 401
        delivery = Delivery(headers, body, document, time.time())
        self._loop.call_soon_threadsafe(self._keep, delivery)
        return 204

    async def delivery_of(self, assembly_id: str) -> Delivery:
        return await asyncio.shield(self._expected(assembly_id))

    def _keep(self, delivery: Delivery) -> None:
        expected = self._expected(str(delivery.document.get("assembly_id")))
        if not expected.done():
            expected.set_result(delivery)

    def _expected(self, assembly_id: str) -> asyncio.Future[Delivery]:
        return self._deliveries.setdefault(assembly_id, self._loop.create_future())


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            status = receiver.take(self.headers.items(), body) if self.path == PATH else 404
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler
