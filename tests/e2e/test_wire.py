"""The calls of the hot paths, counted at the HTTP client."""

import json
import time
from typing import Any

import pytest

from jobplane_keys import iso_time, owner_key, to_item
from tests.e2e.deployed import Deployed, Message, Socket, assert_ended_once, unique
from tests.e2e.in_process import context, load, wire

pytestmark = pytest.mark.e2e


def message_event(connection_id: str, message: Message) -> Message:
    return {
        "requestContext": {"connectionId": connection_id, "routeKey": "$default"},
        "body": json.dumps(message),
        "isBase64Encoded": False,
    }


def connection_of(deployed: Deployed, user: str) -> str:
    """The id of a user's only connection."""
    table = deployed.info["tables"]["connections"]
    (item,) = deployed.dynamodb.query(
        TableName=table,
        IndexName="by-user",
        KeyConditionExpression="user_id = :user",
        ExpressionAttributeValues={":user": {"S": user}},
    )["Items"]
    connection_id: str = item["connection_id"]["S"]
    return connection_id


def put_request(deployed: Deployed, user: str, connection_id: str, payload: Message) -> str:
    """A request that waits for its next attempt, so that the stream skips it."""
    request_id = unique("req")
    now = time.time()
    row: dict[str, Any] = {
        "owner": owner_key("acme", user),
        "request_id": request_id,
        "tenant_id": "acme",
        "connection_id": connection_id,
        "action": "delay",
        "payload": json.dumps(payload),
        "status": "RETRYING",
        "attempts": 0,
        "max_attempts": 4,
        "cancel_requested": False,
        "subscriber_count": 0,
        "lease_shard": "lease-0",
        "lease_until": int(now) - 1,
        "created_at": iso_time(now),
        "updated_at": iso_time(now),
        "ttl": int(now) + 3600,
    }
    deployed.dynamodb.put_item(TableName=deployed.info["tables"]["requests"], Item=to_item(row))
    return request_id


async def test_an_echo_costs_one_read_and_an_enqueue_one_more_write(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = unique("user")
    router = load(deployed, "router", monkeypatch)
    async with deployed.socket(user) as socket:
        await socket.ask({"action": "ping"})
        connection_id = connection_of(deployed, user)
        with wire(monkeypatch) as echo:
            router.handler(message_event(connection_id, {"action": "echo"}), context())
        with wire(monkeypatch) as enqueue:
            request = {"id": "job", "action": "delay", "payload": {"seconds": 0, "steps": 1}}
            router.handler(message_event(connection_id, request), context())

        assert echo == ["GetItem"]
        assert enqueue == ["GetItem", "PutItem"]
        assert (await socket.end_of("job"))["type"] == "complete"


async def test_a_look_up_of_status_costs_one_GetItem(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = unique("user")
    status = load(deployed, "status", monkeypatch)
    async with deployed.socket(user) as socket:
        payload = await deployed.upload(socket, "tpl_fingerprint", {"a": unique("x").encode()})
        end = await socket.run("process_assembly", payload)
    with wire(monkeypatch) as sent:
        event = {"assemblyId": end["result"]["assembly_id"], "userId": user}
        answer = status.handler(event, context())

    assert answer["statusCode"] == 200
    assert sent == ["GetItem"]


async def test_a_progress_update_costs_one_UpdateItem_and_one_post(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking and ending a request cost one UpdateItem each."""
    user = unique("user")
    processor = load(deployed, "processor", monkeypatch)
    async with deployed.socket(user) as socket:
        connection_id = connection_of(deployed, user)
        sent = await run_inside(deployed, processor, user, connection_id, socket, monkeypatch)

        updates = len(socket.messages) - 1
        assert updates == 4
        assert sent == ["UpdateItem", *["UpdateItem", "POST @connections"] * (updates + 1)]


async def run_inside(
    deployed: Deployed,
    processor: Any,
    user: str,
    connection_id: str,
    socket: Socket,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Run a request of four steps in this process; its calls."""
    import asyncio

    payload = {"seconds": 1.2, "steps": 4}
    request_id = put_request(deployed, user, connection_id, payload)
    invocation = processor.Invocation.of(context())
    with wire(monkeypatch) as sent:
        await asyncio.to_thread(processor.work, owner_key("acme", user), request_id, invocation)
    await socket.end_of(request_id)
    assert_ended_once(socket.of(request_id))
    return sent
