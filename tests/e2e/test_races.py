"""Concurrent operations on one request have one winner."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobplane_keys import owner_key
from jobplane_leases import Lease, LeaseLostError
from tests.e2e.deployed import Deployed, assert_ended_once, unique
from tests.e2e.in_process import context, load
from tests.e2e.test_wire import connection_of, message_event, put_request

pytestmark = pytest.mark.e2e

CONTENDERS = 16
ROUNDS = 40


async def test_one_of_sixteen_workers_takes_a_request(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = load(deployed, "processor", monkeypatch)
    user = unique("user")
    owner = owner_key("acme", user)
    with ThreadPoolExecutor(CONTENDERS) as pool:
        for _ in range(ROUNDS):
            request_id = put_request(deployed, user, "gone", {"seconds": 0, "steps": 1})
            taken = list(
                pool.map(
                    lambda number, wanted=request_id: processor.request_of(owner, wanted).take(
                        Lease(f"worker-{number}", int(time.time()) + 60), time.time()
                    ),
                    range(CONTENDERS),
                )
            )
            winners = [row for row in taken if row is not None]
            assert len(winners) == 1
            assert winners[0]["attempts"] == 1


async def test_a_worker_whose_request_was_taken_over_writes_nothing(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither renews, ends nor posts."""
    processor = load(deployed, "processor", monkeypatch)
    user = unique("user")
    owner = owner_key("acme", user)
    request_id = put_request(deployed, user, "gone", {"seconds": 0, "steps": 1})
    slow = processor.Invocation("slow", time.time() + 60)
    quick = processor.Invocation("quick", time.time() + 60)
    request = processor.request_of(owner, request_id)
    row = request.take(slow.lease(), time.time())
    key = {"owner": owner, "request_id": request_id}
    deployed.update("requests", key, lease_until=int(time.time()) - 1)
    assert request.take(quick.lease(), time.time()) is not None

    with pytest.raises(LeaseLostError):
        request.renew(slow.lease(), time.time())
    with pytest.raises(LeaseLostError):
        processor.finish(processor.Job(row, slow), processor.RequestStatus.COMPLETED, {})
    assert deployed.row(user, request_id)["lease_owner"] == "quick"


async def test_a_request_sent_sixteen_times_at_once_is_stored_once(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends once."""
    router = load(deployed, "router", monkeypatch)
    user = unique("user")
    request = {"id": "job", "action": "delay", "payload": {"seconds": 0.2, "steps": 2}}
    async with deployed.socket(user) as socket:
        event = message_event(connection_of(deployed, user), request)
        answers = ask_at_once(router, event)
        await socket.end_of("job")

        assert {answer["type"] for answer in answers} == {"acknowledgment"}
        assert deployed.row(user, "job")["attempts"] == 1
        assert_ended_once(socket.of("job"))


async def test_sixteen_concurrent_subscriptions_of_a_connection_count_once(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = load(deployed, "router", monkeypatch)
    user = unique("user")
    async with deployed.socket(user):
        connection_id = connection_of(deployed, user)
        request_id = put_request(deployed, user, "gone", {"seconds": 0, "steps": 1})
        subscribe = {"action": "subscribe", "payload": {"request_id": request_id}}
        answers = ask_at_once(router, message_event(connection_id, subscribe))

        assert any(answer["type"] == "response" for answer in answers)
        assert deployed.row(user, request_id)["subscriber_count"] == 1


def ask_at_once(router: Any, event: Any) -> list[Any]:
    """The answers to a message that is sent sixteen times."""
    with ThreadPoolExecutor(CONTENDERS) as pool:
        answers = pool.map(lambda _: router.handler(event, context()), range(CONTENDERS))
        return [json.loads(answer["body"]) for answer in answers]
