"""A proxy between the functions of a stage and its emulator, with faults."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.e2e.deployed import Deployed

REFUSALS = {
    "server-error": b'HTTP/1.1 500 Internal Server Error\r\n%b\r\n{"__type":"InternalServerError"}',
    "throttled": b'HTTP/1.1 400 Bad Request\r\n%b\r\n{"__type":"ThrottlingException"}',
}

# Longer than the functions wait for an answer of DynamoDB.
SLOW_SECONDS = 6


class Stretch:
    """A proxy on loopback. `trouble` says what becomes of every n-th connection:

    `reset` before anything is read, `lost`: carried out, but its answer does not arrive, `slow`: it
    is carried on after SLOW_SECONDS, or an error answer of REFUSALS. Every request has a connection
    of its own.
    """

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.trouble = ""
        self.every = 2
        self.done: Counter[str] = Counter()
        self._count = 0
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._count += 1
                trouble = self.trouble if self._count % self.every == 0 else ""
                self.done[trouble] += 1
                threading.Thread(target=self._carry, args=(client, trouble), daemon=True).start()

    def _carry(self, client: socket.socket, trouble: str) -> None:
        with client, suppress(OSError):
            if trouble == "reset":
                abort(client)
                return
            request = read_message(client)
            if trouble == "slow":
                time.sleep(SLOW_SECONDS)
            if trouble in REFUSALS:
                fields = b"Content-Type: application/x-amz-json-1.0\r\nConnection: close\r\n"
                client.sendall(REFUSALS[trouble] % fields)
                return
            with socket.create_connection(self.target) as server:
                server.sendall(with_close(request))
                answer = b"".join(iter(lambda: server.recv(65536), b""))
            if trouble == "lost":
                abort(client)
            else:
                client.sendall(answer)


def abort(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_message(client: socket.socket) -> bytes:
    """One HTTP request: its head, and as much as it says that follows."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += read_part(client)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    given = {name.strip().lower(): value.strip() for name, _, value in fields}
    if given.get(b"expect", b"").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(given.get(b"content-length", b"0"))
    while len(body) < length:
        body += read_part(client)
    return head + b"\r\n\r\n" + body


def read_part(client: socket.socket) -> bytes:
    if part := client.recv(65536):
        return part
    raise ConnectionError


def with_close(request: bytes) -> bytes:
    """The request as the last one of its connection."""
    head, _, body = request.partition(b"\r\n\r\n")
    dropped = (b"connection:", b"expect:")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(dropped)]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + body


@contextmanager
def stretch(port: int) -> Iterator[Stretch]:
    opened = Stretch(port)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def between(deployed: Deployed, function: str) -> Iterator[Stretch]:
    """The proxy between a function and the emulator.

    It stays open, without a fault, until the run ends: a worker that the emulator starts late may
    still have its address.
    """
    name, functions = deployed.info["functions"][function], deployed.functions
    before = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    state = deployed.stage.read_state()
    assert state is not None
    opened = Stretch(state.port)
    through = {"Variables": before | {"AWS_ENDPOINT_URL": opened.url}}
    functions.update_function_configuration(FunctionName=name, Environment=through)
    try:
        yield opened
    finally:
        opened.trouble = ""
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": before}
        )
        deployed.kill_workers(function)
