"""Lost connections, killed workers, cancelled jobs: each request ends once."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from tests.e2e.deployed import Deployed, Message, assert_ended_once, unique, until

pytestmark = pytest.mark.e2e

CANCEL = {"action": "cancel", "payload": {"request_id": "job"}}


def delay(seconds: float, steps: int, **envelope: Any) -> Message:
    """A request for a job of steps."""
    payload = {"seconds": seconds, "steps": steps}
    return {"id": "job", "action": "delay", "payload": payload, **envelope}


async def test_a_client_resumes_from_its_last_seq_after_a_lost_connection(
    deployed: Deployed,
) -> None:
    user = unique("user")
    async with deployed.socket(user) as first:
        await first.ask(delay(4, 20))
        last = await first.wait_for(lambda m: m.get("seq", 0) >= 3)
        first.cut()
    async with deployed.socket(user) as second:
        state = await second.ask(
            {"action": "subscribe", "payload": {"request_id": "job", "since_seq": last["seq"]}}
        )
        end = await second.end_of("job")

        assert state["data"]["seq"] >= last["seq"]
        assert state["data"]["progress"]["percentage"] >= last["percentage"]
        assert end["type"] == "complete"
        heard = [m for m in second.of("job") if m["seq"] > state["data"]["seq"]]
        assert_ended_once(heard)
        numbers = [m["seq"] for m in heard]
        assert numbers == list(range(state["data"]["seq"] + 1, numbers[-1] + 1))


async def test_another_connection_of_the_user_gets_the_same_messages(deployed: Deployed) -> None:
    """A colleague's needs the permission."""
    owner = unique("user")
    async with (
        deployed.socket(owner) as origin,
        deployed.socket(owner) as other,
        deployed.socket(unique("user")) as stranger,
        deployed.socket(unique("user"), "acme", "tenant:read") as colleague,
    ):
        await origin.ask(delay(2, 10))
        own = {"action": "subscribe", "payload": {"request_id": "job"}}
        others = {"action": "subscribe", "payload": {"request_id": "job", "user_id": owner}}
        assert (await other.ask(own))["data"]["subscribed"] is True
        assert (await colleague.ask(others))["data"]["subscribed"] is True
        assert (await stranger.ask(own))["error"]["code"] == "NOT_FOUND"
        assert (await stranger.ask(others))["error"]["code"] == "FORBIDDEN"
        for socket in (origin, other, colleague):
            assert (await socket.end_of("job"))["type"] == "complete"
            assert_ended_once(socket.of("job"))
        assert stranger.of("job") == []


async def test_a_job_of_a_killed_worker_is_taken_over_and_completes_once(
    deployed: Deployed,
) -> None:
    """After its lease has expired."""
    user = unique("user")
    async with deployed.socket(user) as socket:
        await socket.ask(delay(6, 12))
        await socket.wait_for(lambda m: m.get("seq", 0) >= 2)
        deployed.kill_workers("processor")
        lease = deployed.row(user, "job")["lease_until"]
        await until(lambda: time.time() > lease, "the lease to run out")
        deployed.sweep()
        end = await socket.end_of("job")

        assert end["type"] == "complete"
        assert_ended_once(socket.of("job"))
        row = deployed.row(user, "job")
        assert (row["status"], row["attempts"]) == ("COMPLETED", 2)


async def test_a_job_completes_after_its_client_has_left(deployed: Deployed) -> None:
    """Its result is stored."""
    user = unique("user")
    async with deployed.socket(user) as socket:
        await socket.ask(delay(1.5, 6))
        await socket.wait_for(lambda m: m.get("seq", 0) >= 1)
    row = await until(
        lambda: (row := deployed.row(user, "job"))["status"] == "COMPLETED" and row, "the end"
    )
    async with deployed.socket(user) as again:
        state = await again.ask({"action": "status", "payload": {"request_id": "job"}})
        late = await again.ask({"action": "subscribe", "payload": {"request_id": "job"}})

        assert row["attempts"] == 1
        assert state["data"]["status"] == "COMPLETED"
        assert state["data"]["result"] == {"seconds": 1.5, "steps": 6}
        assert late["data"]["subscribed"] is False
        assert late["data"]["seq"] == row["seq"]


async def test_on_disconnect_cancel_ends_the_job_with_its_connection(deployed: Deployed) -> None:
    user = unique("user")
    async with deployed.socket(user) as socket:
        await socket.ask(delay(30, 150, metadata={"on_disconnect": "cancel"}))
        await socket.wait_for(lambda m: m.get("seq", 0) >= 1)
    await until(lambda: deployed.row(user, "job")["status"] == "CANCELLED", "the cancellation")


async def test_a_cancelled_job_stops_at_its_next_progress(deployed: Deployed) -> None:
    """A second cancel changes nothing."""
    async with deployed.socket(unique("user")) as socket:
        await socket.ask(delay(30, 150))
        await socket.wait_for(lambda m: m.get("seq", 0) >= 1)
        assert (await socket.ask(CANCEL))["data"]["status"] == "cancelling"
        end = await socket.end_of("job")
        again = await socket.ask(CANCEL)

        assert end["error"]["code"] == "CANCELLED"
        assert again["data"]["status"] == "cancelled"
        assert_ended_once(socket.of("job"))


async def test_a_cancelled_assembly_can_be_requested_again(deployed: Deployed) -> None:
    """Its document says CANCELED."""
    user = unique("user")
    body = b'{"n": 1, "text": "abcdefghijklmnopqrstuvwxyz"}\n' * 600_000
    async with deployed.socket(user) as socket:
        payload = await deployed.upload(
            socket, "tpl_records", {"rows.ndjson": body}, "application/x-ndjson"
        )
        ack = await socket.ask({"id": "job", "action": "process_assembly", "payload": payload})
        await socket.wait_for(lambda m: m.get("seq", 0) >= 1)
        await socket.ask(CANCEL)
        end = await socket.end_of("job")
        document = deployed.assembly(ack["assembly_id"])
        again = await socket.run("process_assembly", payload)

        assert end["error"]["code"] == "CANCELLED"
        assert document["ok"] == "ASSEMBLY_CANCELED"
        assert "error" not in document
        assert again["type"] == "complete"
        assert deployed.assembly(ack["assembly_id"])["execution"] == 2


async def test_a_transient_failure_is_tried_four_times(deployed: Deployed) -> None:
    """The client gets only the last one."""
    user = unique("user")
    payload = {"seconds": 0.1, "steps": 2, "fail_at": 2, "transient": True}
    async with deployed.socket(user) as socket:
        end = await socket.run("delay", payload, id="job")

        assert end["error"]["code"] == "PROCESSING_FAILED"
        assert deployed.row(user, "job")["attempts"] == 4
        assert_ended_once(socket.of("job"))


async def test_concurrent_cancellations_end_a_job_once(deployed: Deployed) -> None:
    """From many sockets, while a worker takes it."""
    user = unique("user")
    async with deployed.socket(user) as socket, deployed.socket(user) as other:
        names = [f"job-{number}" for number in range(10)]
        for request_id in names:
            cancel = CANCEL | {"payload": {"request_id": request_id}}
            await socket.ask(delay(0.3, 3, id=request_id))
            await asyncio.gather(*(each.ask(cancel) for each in (socket, other)))
        for request_id in names:
            await socket.end_of(request_id)

        def released() -> bool:
            return all("lease_shard" not in deployed.row(user, name) for name in names)

        await until(released, "the ends")
        for request_id in names:
            assert_ended_once(socket.of(request_id))


async def test_a_message_whose_worker_dies_is_answered_by_the_gateway(deployed: Deployed) -> None:
    """As on AWS, without a word of the error; the socket stays open."""
    async with deployed.socket(unique("user")) as socket:

        def has_heard(count: int) -> bool:
            return len(socket.messages) == count

        for _ in range(20):
            seen = len(socket.messages)
            for _ in range(50):
                await socket.send({"id": unique("ask"), "action": "echo", "payload": {}})
            await asyncio.to_thread(deployed.kill_workers, "router")
            await until(partial(has_heard, seen + 50), "an answer to each")
            if told := [message for message in socket.messages if "type" not in message]:
                break
        assert {message["message"] for message in told} == {"Internal server error"}
        assert {frozenset(message) for message in told} == {
            frozenset({"message", "connectionId", "requestId"})
        }
        own = [message for message in socket.messages if message not in told]
        socket.faults.clear()  # They are the gateway's, not the service's.
        assert {message["type"] for message in own} == {"response"}
        await (await socket.connection.ping())
