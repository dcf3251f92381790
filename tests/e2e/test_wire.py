"""The calls of the hot paths, counted at the HTTP client."""

import asyncio
import json
import time

import pytest

from jobplane_keys import iso_time, owner_key
from tests.e2e.deployed import Deployed, Message, assert_ended_once, unique
from tests.e2e.in_process import context, load, wire

pytestmark = pytest.mark.e2e


def message_event(connection_id: str, message: Message) -> Message:
    route = {"connectionId": connection_id, "routeKey": "$default"}
    return {"requestContext": route, "body": json.dumps(message), "isBase64Encoded": False}


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
    request_id, now = unique("req"), time.time()
    key = {"owner": owner_key("acme", user), "request_id": request_id}
    asked = {"tenant_id": "acme", "connection_id": connection_id, "action": "delay"}
    state = {"status": "RETRYING", "attempts": 0, "max_attempts": 4, "cancel_requested": False}
    lease = {"lease_shard": "lease-0", "lease_until": int(now) - 1, "subscriber_count": 0}
    times = {"created_at": iso_time(now), "updated_at": iso_time(now), "ttl": int(now) + 3600}
    row: Message = {**key, **asked, "payload": json.dumps(payload), **state, **lease, **times}
    deployed.put("requests", row)
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
    event = {"assemblyId": await deployed.complete(user), "userId": user}
    with wire(monkeypatch) as sent:
        answer = status.handler(event, context())

    assert answer["statusCode"] == 200
    assert sent == ["GetItem"]


async def test_a_progress_update_costs_one_UpdateItem_and_one_post(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking and ending a request cost one UpdateItem each, and its posts one read a minute."""
    user = unique("user")
    processor = load(deployed, "processor", monkeypatch)
    async with deployed.socket(user) as socket:
        payload = {"seconds": 2.4, "steps": 4}
        request_id = put_request(deployed, user, connection_of(deployed, user), payload)
        invocation = processor.Invocation.of(context())
        with wire(monkeypatch) as sent:
            await asyncio.to_thread(processor.work, owner_key("acme", user), request_id, invocation)
        await socket.end_of(request_id)
        assert_ended_once(socket.of(request_id))

        updates = len(socket.messages) - 1
        assert updates == 4
        # The end is written without waiting for the posts before it.
        posts = ["BatchGetItem", *["POST @connections"] * (updates + 1)]
        assert sorted(sent) == sorted(["UpdateItem"] * (updates + 2) + posts)
