"""The local stage's API Gateway, and its receiver of webhooks."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobplane.stage.gateway import RECEIVED, WEBHOOKS, as_aws, noting_subprotocol, taking_webhooks


class Socket:
    """A connection: incoming frames, and what was sent."""

    def __init__(self, *frames: dict[str, Any]) -> None:
        self.frames = [{"type": "websocket.receive", **frame} for frame in frames]
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return self.frames.pop(0) if self.frames else {"type": "websocket.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def session(answer: Any, heard: list[Any]) -> Any:
    """A session like MiniStack's: invoke $connect, accept, read messages until the end."""

    async def connect(*_: Any) -> Any:
        return answer

    async def handle(_scope: Any, receive: Any, send: Any) -> None:
        await noting_subprotocol(connect)("api")
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(message)
        heard.append(message)

    return as_aws(handle)


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ({"headers": {"Sec-WebSocket-Protocol": "jobplane.v1"}}, "jobplane.v1"),
        ({"headers": {"sec-websocket-protocol": "jobplane.v1"}}, "jobplane.v1"),
        ({"headers": {"Content-Type": "application/json"}}, None),
        ({"statusCode": 200}, None),
        (None, None),
    ],
)
async def test_a_handshake_has_the_subprotocol_of_connect(answer: Any, chosen: str | None) -> None:
    """A browser waits for it."""
    socket = Socket()
    await session(answer, [])({}, socket.receive, socket.send)
    assert socket.sent[0].get("subprotocol") == chosen


async def test_a_binary_frame_ends_the_connection() -> None:
    socket, heard = Socket({"text": "a"}, {"bytes": b"b"}, {"text": "c"}), list[Any]()
    await session(None, heard)({}, socket.receive, socket.send)
    assert [message.get("text", message.get("code")) for message in heard] == ["a", 1003]
    assert socket.sent[-1] == {"type": "websocket.close", "code": 1003}


async def test_webhooks_are_appended_to_a_file(tmp_path: Path) -> None:
    async def plain(method: str, path: str, *_: Any) -> Any:
        return method, path

    handle = taking_webhooks(plain, tmp_path)
    headers = {"webhook-id": "msg_1", "webhook-signature": "v1,x", "host": "127.0.0.1"}
    for body in (b'{"a":1}', b"\xff"):
        assert (await handle("POST", WEBHOOKS, headers, body, {}, "id"))[0] == 204
    assert await handle("GET", WEBHOOKS, {}, b"", {}, "id") == ("GET", WEBHOOKS)
    assert await handle("POST", "/other", {}, b"", {}, "id") == ("POST", "/other")
    lines = [json.loads(line) for line in (tmp_path / RECEIVED).read_text().splitlines()]
    assert [line["body"] for line in lines] == ['{"a":1}', "\ufffd"]
    assert lines[0]["headers"] == {"webhook-id": "msg_1", "webhook-signature": "v1,x"}
