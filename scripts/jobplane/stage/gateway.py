"""Additions to MiniStack's API Gateway: WebSocket details as on AWS, and a receiver of webhooks.

Each function wraps one of MiniStack's, and is given it: nothing of MiniStack is imported here.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

WEBHOOKS = "/_jobplane/webhooks"
RECEIVED = "webhooks.jsonl"
KEPT_HEADERS = ("content-type", "traceparent", "user-agent", "webhook-", "x-transflow-")
NO_BINARY = 1003

type Handle = Callable[..., Awaitable[Any]]

_subprotocol: ContextVar[str | None] = ContextVar("subprotocol", default=None)


def noting_subprotocol(invoke: Handle) -> Handle:
    """Wrap MiniStack's call of a route's function: store the subprotocol that $connect chose."""

    async def noting(*positional: Any, **named: Any) -> Any:
        answer = await invoke(*positional, **named)
        headers = (answer or {}).get("headers")
        if isinstance(headers, Mapping):
            chosen = [v for k, v in headers.items() if k.lower() == "sec-websocket-protocol"]
            _subprotocol.set(chosen[0] if chosen else None)
        return answer

    return noting


def as_aws(handle: Handle) -> Handle:
    """Wrap MiniStack's session of one socket: the handshake returns the subprotocol that $connect
    chose, and a binary frame closes the connection with code 1003.
    """

    async def session(scope: Any, receive: Handle, send: Handle, *rest: Any, **named: Any) -> None:
        async def text_alone() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive" and message.get("text") is None:
                await send({"type": "websocket.close", "code": NO_BINARY})
                return {"type": "websocket.disconnect", "code": NO_BINARY}
            return message

        async def answering(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.accept" and (chosen := _subprotocol.get()):
                message = {**message, "subprotocol": chosen}
            await send(message)

        _subprotocol.set(None)
        await handle(scope, text_alone, answering, *rest, **named)

    return session


def taking_webhooks(handle: Handle, folder: Path) -> Handle:
    """Wrap MiniStack's handling of a request: append received webhooks to a file."""

    async def taking(
        method: str, path: str, headers: Mapping[str, str], body: bytes, *rest: Any
    ) -> Any:
        if (method, path) != ("POST", WEBHOOKS):
            return await handle(method, path, headers, body, *rest)
        kept = {k: v for k, v in headers.items() if k.lower().startswith(KEPT_HEADERS)}
        line = json.dumps({"headers": kept, "body": body.decode(errors="replace")})
        with (folder / RECEIVED).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return 204, {}, b""

    return taking
