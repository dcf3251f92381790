"""JobSocket against a socket service that cuts off, repeats, reorders and loses messages."""

import asyncio
import base64
import json
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import LogCaptureFixture

import jobplane_client
from jobplane_client import (
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JobSocket,
    UnknownMessage,
)
from jobplane_client._protocol import parse_message
from jobplane_models.messages import (
    AcknowledgmentMessage,
    CompleteMessage,
    ErrorMessage,
    EventMessage,
    ProgressMessage,
    ResponseMessage,
)
from tests.unit.client_services import TIME, SocketService, Timers
from tests.unit.clock import Clock

TOKEN = "t1"
PING, PONG, AGE = 1000.0, 500.0, 100_000.0

pytestmark = pytest.mark.timeout(20)


class Line(SocketService):
    """The service, with the time and the sockets of a test."""

    socket: JobSocket

    def __init__(self) -> None:
        super().__init__()
        self.timers, self.clock = Timers(), Clock(1000.0)

    def open(self, token: Any = TOKEN, **settings: Any) -> JobSocket:
        known: dict[str, Any] = {"ping_every": PING, "ping_timeout": PONG, "max_age": AGE}
        known |= {"sleep": self.timers, "clock": self.clock}
        return JobSocket(self.url, token, **(known | settings))

    async def run(self, *payload: Any, **options: Any) -> asyncio.Task[Any]:
        """A task that runs a job, once its request has arrived."""
        task = running(self.socket.run("delay", *payload, **options))
        await self.until(lambda: self.jobs)
        return task

    async def send(self) -> str:
        """The id of a new job, once its request has arrived."""
        request_id = await self.socket.send("delay")
        await self.until(lambda: self.jobs)
        return request_id

    async def heard(self, action: str) -> None:
        """Wait for an action, and until its answer has been read."""
        await self.until(lambda: self.sent(action))
        await self.socket.request("echo")

    async def follow(self) -> tuple[str, asyncio.Task[Any]]:
        """The id of a new job, and a task that collects its messages."""
        request_id = await self.socket.send("delay")
        following = running(collect(self.socket.follow(request_id)))
        await self.until(lambda: self.jobs)
        return request_id, following


@pytest.fixture
async def service() -> AsyncIterator[Line]:
    async with Line() as service:
        yield service


@pytest.fixture
async def line(service: Line) -> AsyncIterator[Line]:
    async with service.open() as service.socket:
        yield service


def running(awaitable: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(awaitable)


async def collect(messages: AsyncIterator[Any]) -> list[Any]:
    return [message async for message in messages]


def seqs(messages: list[Any]) -> list[int]:
    return [message.seq for message in messages if hasattr(message, "seq")]


async def test_run_returns_the_result(line: Line) -> None:
    """Progress is reported as it comes, to a coroutine function or a plain one."""
    heard: list[float] = []

    async def on_progress(message: ProgressMessage) -> None:
        heard.append(message.percentage)

    for id, callback in (("j1", on_progress), ("j2", lambda each: heard.append(-each.percentage))):
        task = running(line.socket.run("delay", {"seconds": 1}, on_progress=callback, id=id))
        await line.until(lambda id=id: id in line.jobs)
        await line.progress(id, 50)
        await line.complete(id, {"done": True})
        assert await task == {"done": True}
    assert heard == [50, -50]
    assert line.sent("delay")[0]["payload"] == {"seconds": 1}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("PROCESSING_FAILED", "JobFailed"), ("INTERNAL_ERROR", "JobFailed"),
        ("CANCELLED", "JobCancelled"), ("TIMEOUT", "JobTimeout"), ("A_NEW_CODE", "JobFailed"),
    ],
)  # fmt: skip
async def test_run_raises_the_error_of_the_job(line: Line, code: str, name: str) -> None:
    task = await line.run(id="j1")
    await line.fail("j1", code)
    with pytest.raises(getattr(jobplane_client, f"{name}Error"), match="it broke"):
        await task


async def test_request_returns_the_data_of_an_immediate_answer(line: Line) -> None:
    assert await line.socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert await line.socket.request("ping") == {}


async def test_a_reply_has_the_id_that_the_socket_chose(line: Line) -> None:
    """With it the caller can follow and cancel the job."""
    reply = await line.socket.request("delay")
    assert [reply.request_id] == list(line.jobs)
    assert reply["request_id"] == reply.request_id
    assert (await line.socket.request("echo", {"n": 1}, id="mine")).request_id == "mine"
    assert json.loads(json.dumps(reply)) == dict(reply)


def gateway_error(message: str = "Internal server error") -> dict[str, Any]:
    """The message that API Gateway sends in place of the function."""
    return {"message": message, "connectionId": "L0SM9cOFvHcCIhw=", "requestId": "JKJaXmPLvHcESHA="}


@pytest.mark.parametrize(
    "text", ["Internal server error", "Endpoint request timed out", "Too Many Requests"]
)
@pytest.mark.parametrize("action", ["echo", "delay"])
async def test_an_error_of_the_gateway_repeats_requests(line: Line, action: str, text: str) -> None:
    """The error names no request, so all would wait for the next ping."""
    line.replies.setdefault(action, deque()).extend([gateway_error(text)] * 2)
    reply = await line.socket.request(action, {"n": 1})
    sent = line.sent(action)
    assert [message["id"] for message in sent] == [reply.request_id] * 3
    assert [message["payload"] for message in sent] == [{"n": 1}] * 3
    assert len([seconds for seconds in line.timers.asked if seconds <= 2]) >= 2
    assert not line.socket._inbox


async def test_a_request_fails_after_six_errors_of_the_gateway(line: Line) -> None:
    line.replies.setdefault("echo", deque()).extend([gateway_error()] * 20)
    with pytest.raises(jobplane_client.ServiceUnavailableError, match="failed 6 times"):
        await line.socket.request("echo", id="poison")
    assert len(line.sent("echo")) == 6
    assert max(seconds for seconds in line.timers.asked if seconds < 100) <= 16
    assert (await line.socket.request("delay"))["status"] == "queued"


async def test_a_job_queued_despite_an_error_of_the_gateway_is_not_queued_twice(line: Line) -> None:
    """The second copy of the request finds the stored job."""
    task = running(line.socket.run("delay", id="j1"))
    line.replies.setdefault("delay", deque()).append(gateway_error("Endpoint request timed out"))
    await line.until(lambda: len(line.sent("delay")) == 2)
    await line.until(lambda: "j1" in line.jobs)
    await line.complete("j1", {"done": True})
    assert await task == {"done": True}


async def test_a_subscription_is_sent_again_after_an_error_of_the_gateway(line: Line) -> None:
    """Else its job would be silent until the next ping."""
    request_id = (await line.socket.request("delay")).request_id
    line.replies["subscribe"] = deque([gateway_error()])
    await line.complete(request_id, {"done": True}, lost=True)
    await line.cut()
    await line.until(lambda: len(line.sent("subscribe")) == 2)
    messages = await collect(line.socket.follow(request_id))
    assert isinstance(messages[-1], CompleteMessage)


async def test_an_error_of_the_gateway_to_a_ping_ends_no_acknowledged_job(line: Line) -> None:
    request_id = (await line.socket.request("delay")).request_id
    await line.say(gateway_error())
    await line.complete(request_id, {"done": True})
    messages = [await anext(line.socket) for _ in range(2)]
    assert [type(message) for message in messages] == [UnknownMessage, CompleteMessage]
    assert len(line.sent("delay")) == 1


async def test_request_of_a_queued_action_returns_its_acknowledgement(line: Line) -> None:
    assert (await line.socket.request("delay", id="j1"))["status"] == "queued"
    await line.complete("j1")
    assert isinstance(await anext(line.socket), CompleteMessage)


async def test_a_scheduled_job_is_new_as_well(line: Line) -> None:
    """It is not sent again because of its status."""
    line.mute.add("delay")
    task = running(line.socket.request("delay"))
    await line.until(lambda: line.sent("delay"))
    (sent,) = line.sent("delay")
    acknowledgment = {"type": "acknowledgment", "request_id": sent["id"], "timestamp": TIME}
    await line.say(acknowledgment | {"status": "scheduled", "message": "Request scheduled"})
    assert (await task)["status"] == "scheduled"
    await line.complete(sent["id"])
    assert isinstance(await anext(line.socket), CompleteMessage)
    assert not line.sent("subscribe")
    assert len(line.sent("delay")) == 1


async def test_progress_before_the_acknowledgement_is_delivered(line: Line) -> None:
    """A fast worker may post first; both messages arrive, each once."""
    line.mute.add("delay")
    task = running(line.socket.request("delay", id="j1"))
    await line.until(lambda: line.jobs)
    await line.progress("j1", 10)
    acknowledgment = {"type": "acknowledgment", "request_id": "j1", "timestamp": TIME}
    for _ in range(2):
        await line.say(acknowledgment | {"status": "queued", "message": "", "assembly_id": "a"})
    assert (await task)["assembly_id"] == "a"
    await line.complete("j1")
    rest = await collect(line.socket.follow("j1"))
    assert [type(message) for message in rest] == [CompleteMessage]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("VALIDATION_ERROR", "InvalidRequest"), ("INVALID_ACTION", "InvalidRequest"),
        ("FORBIDDEN", "Forbidden"), ("NOT_FOUND", "NotFound"), ("DUPLICATE_REQUEST", "Conflict"),
        ("RATE_LIMITED", "RateLimited"), ("SERVICE_UNAVAILABLE", "ServiceUnavailable"),
        ("INTERNAL_ERROR", "ServiceUnavailable"),
    ],
)  # fmt: skip
async def test_request_raises_the_refusal(line: Line, code: str, name: str) -> None:
    error = getattr(jobplane_client, f"{name}Error")
    details = [{"field": "payload.x", "message": "no"}]
    body = {"code": code, "message": "no", "details": details, "retry_after_ms": 1500}
    line.replies["echo"] = deque([{"type": "error", "error": body}])
    with pytest.raises(error) as raised:
        await line.socket.request("echo")
    assert type(raised.value) is error
    assert raised.value.code == code
    assert raised.value.fields == tuple(details)
    assert raised.value.retry_after == 1.5


async def test_a_request_made_before_connecting_is_sent_later(service: Line) -> None:
    socket = service.open()
    request_id = await socket.send("delay", {"seconds": 1}, metadata={"on_disconnect": "cancel"})
    async with socket:
        await service.until(lambda: request_id in service.jobs)
    assert service.sent("delay")[0]["metadata"] == {"on_disconnect": "cancel"}


async def test_a_job_is_resumed_after_a_lost_connection(line: Line) -> None:
    """The client subscribes from the last known number, and misses no message that matters."""
    request_id, following = await line.follow()
    await line.progress(request_id, 10)
    await line.progress(request_id, 20)
    # The next request is answered after the progress has arrived.
    await line.socket.request("echo")
    await line.cut()
    await line.progress(request_id, 30, lost=True)
    await line.heard("subscribe")
    await line.progress(request_id, 40)
    await line.complete(request_id, {"n": 1})
    messages = await following
    assert seqs(messages) == [1, 2, 3, 4, 5]
    assert isinstance(messages[0], AcknowledgmentMessage)
    assert isinstance(messages[-1], CompleteMessage)
    assert [message["payload"]["since_seq"] for message in line.sent("subscribe")] == [2]
    assert len(line.sent("delay")) == 1


@pytest.mark.parametrize("end", ["COMPLETED", "PROCESSING_FAILED", "CANCELLED"])
async def test_an_end_while_disconnected_is_delivered_once(line: Line, end: str) -> None:
    task = await line.run(id="j1")
    await line.socket.request("echo")
    await line.cut(1001)
    if end == "COMPLETED":
        await line.complete("j1", {"n": 1}, lost=True)
        assert await task == {"n": 1}
    else:
        await line.fail("j1", end, lost=True)
        with pytest.raises(JobCancelledError if end == "CANCELLED" else JobFailedError):
            await task
    await line.connected(2)
    head = {"request_id": "j1", "seq": 9, "timestamp": TIME}
    await line.say(head | {"type": "complete", "result": {}})
    await line.say({"type": "novelty"})
    assert isinstance(await anext(line.socket), UnknownMessage)


async def test_repeated_and_reordered_messages_are_dropped(line: Line) -> None:
    request_id, following = await line.follow()

    def message(kind: str, seq: int) -> dict[str, Any]:
        head = {"type": kind, "request_id": request_id, "seq": seq, "timestamp": TIME}
        if kind == "progress":
            return head | {"percentage": seq, "message": ""}
        return head | {"result": {"seq": seq}}

    for seq in (1, 1, 3, 2, 3, 5, 4):
        await line.say(message("progress", seq))
    for kind, seq in (("complete", 6), ("progress", 7), ("complete", 6)):
        await line.say(message(kind, seq))
    await line.say({"type": "novelty"})
    assert isinstance(await anext(line.socket), UnknownMessage)
    assert seqs(await following) == [1, 3, 5, 6]


async def test_an_end_with_a_wrong_number_still_ends_the_request(line: Line) -> None:
    request_id = await line.send()
    head = {"request_id": request_id, "seq": 5, "timestamp": TIME}
    await line.say(head | {"type": "progress", "percentage": 1, "message": ""})
    await line.say(head | {"type": "complete", "result": {}})
    messages = await collect(line.socket.follow(request_id))
    assert seqs(messages) == [5, 6]


async def test_an_unacknowledged_request_is_sent_again_under_the_same_id(line: Line) -> None:
    """So a lost acknowledgement makes no second job."""
    line.cut_before_answering.add("delay")
    task = running(line.socket.run("delay", {"seconds": 1}))
    await line.until(lambda: line.sent("subscribe"))
    first, second = line.sent("delay")
    assert first == second
    assert len(line.jobs) == 1
    await line.socket.request("echo")
    await line.complete(first["id"], {"n": 1})
    assert await task == {"n": 1}


async def test_a_short_action_is_sent_again_after_a_lost_connection(line: Line) -> None:
    line.cut_before_answering.add("echo")
    assert await line.socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert len(line.sent("echo")) == 2


async def test_a_request_with_a_known_id_follows_the_existing_job(service: Line) -> None:
    """Another process may have started it."""
    async with service.open() as first:
        await first.request("delay", id="order-7")
        await service.progress("order-7", 40)
    async with service.open() as second:
        following = running(second.run("delay", id="order-7"))
        await service.until(lambda: service.sent("subscribe"))
        await second.request("echo")
        await service.complete("order-7", {"n": 1})
        assert await following == {"n": 1}
    async with service.open() as third:
        assert await third.run("delay", id="order-7") == {"n": 1}


async def test_a_lost_end_is_found_by_subscribing_after_two_pings(line: Line) -> None:
    """The client subscribes again to a request that was silent between them."""
    task = running(line.socket.run("delay", id="j1"))
    await line.heard("subscribe")
    await line.complete("j1", {"n": 1}, lost=True)
    for _ in range(2):
        await line.timers.fire(PING)
        await line.heard("ping")
        await line.timers.fire(PONG)
    assert await task == {"n": 1}
    assert line.attempts == 1


async def test_a_ping_without_an_answer_opens_a_new_connection(line: Line) -> None:
    """Even if TCP reports no error."""
    line.mute.add("ping")
    await line.timers.fire(PING)
    await line.until(lambda: line.sent("ping"))
    await line.timers.fire(PONG)
    await line.connected(2)
    assert line.sent("ping") == [{"action": "ping"}]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_connection_with_full_buffers_is_given_up(
    line: Line, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """Neither the ping nor the closing handshake can be sent."""
    monkeypatch.setattr("jobplane_client._socket._CLOSE_SECONDS", 0.1)
    line.connection(1).transport.pause_reading()
    sent: list[str] = []

    async def flood() -> None:
        for _ in range(500):  # more than any buffers hold
            if line.attempts > 1:
                return
            sent.append(await line.socket.send("delay", {"text": "x" * 80_000}))
            await asyncio.sleep(0)  # without a connection, nothing waits

    sending = running(flood())
    number = -1
    while number < len(sent):
        number = len(sent)
        await asyncio.sleep(0.2)
    if is_closed:
        await line.socket.close()
    else:
        await line.timers.fire(PING)
        await line.timers.fire(PONG)
        await line.connected(2)
        await line.until(lambda: len(line.jobs) == len(line.socket._open))
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_connection_is_replaced_before_its_time_limit(line: Line) -> None:
    request_id = await line.send()
    await line.socket.request("echo")
    line.clock.now += AGE - 10
    await line.timers.fire(PING)
    await line.heard("ping")
    pauses = len(line.timers.asked)
    await line.timers.fire(PONG)
    await line.until(lambda: line.sent("subscribe"))
    assert [seconds for seconds in line.timers.asked[pauses:] if seconds < Timers.LONG] == [10]
    assert line.sent("subscribe")[0]["payload"]["request_id"] == request_id
    assert line.attempts == 2


@pytest.mark.parametrize(
    ("status", "name"), [(401, "Unauthorized"), (403, "Forbidden"), (429, "RateLimited")]
)
async def test_entering_may_be_refused(service: Line, status: int, name: str) -> None:
    service.refusals.append((status, {"Retry-After": "30"}))
    with pytest.raises(getattr(jobplane_client, f"{name}Error")) as raised:
        async with service.open("s3cret"):
            pass
    assert raised.value.status_code == status
    assert raised.value.retry_after == 30
    assert "s3cret" not in str(raised.value) + str(raised.value.__cause__)
    assert service.attempts == 1


async def test_a_401_on_a_later_connection_ends_all_waits(line: Line) -> None:
    waiting = [
        running(line.socket.run("delay", id="j1")),
        running(collect(line.socket.follow("j2"))),
        running(collect(line.socket)),
    ]
    await line.until(lambda: "j1" in line.jobs and line.sent("subscribe"))
    line.jobs["j2"] = line.jobs["j1"]
    line.refusals.append((401, {}))
    await line.cut()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcomes[0]), type(outcomes[2])} == {jobplane_client.UnauthorizedError}
    assert line.attempts == 2
    with pytest.raises(jobplane_client.UnauthorizedError):
        await line.socket.send("echo")


async def test_a_429_or_5xx_on_a_later_connection_is_tried_again(line: Line) -> None:
    line.refusals.extend([(429, {"Retry-After": "20"}), (503, {}), (500, {})])
    await line.cut()
    await line.connected(2)
    assert await line.socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert line.attempts == 5
    assert 20 in line.timers.asked


async def test_all_waits_fail_after_repeated_connection_failures(service: Line) -> None:
    async with service.open(max_failures=4) as socket:
        await socket.request("delay", id="j")
        service.refusals.extend([(503, {})] * 5)
        await service.cut()
        with pytest.raises(jobplane_client.ConnectionLostError):
            await collect(socket)
    assert service.attempts == 6


async def test_entering_raises_if_no_service_listens(service: Line) -> None:
    with pytest.raises(jobplane_client.ConnectionLostError):
        async with JobSocket("ws://127.0.0.1:1", "t", sleep=service.timers):
            pass
    assert len(service.timers.asked) == 3


async def test_a_url_with_another_scheme_is_refused(service: Line) -> None:
    with pytest.raises(jobplane_client.ConnectionLostError) as raised:
        async with JobSocket("https://example.test", "s3cret", sleep=service.timers):
            pass
    assert "s3cret" not in repr(raised.value)
    assert raised.value.__suppress_context__


async def test_the_token_function_is_called_for_each_connection(service: Line) -> None:
    tokens = iter(["one", "two"])

    async def token() -> str:
        return next(tokens)

    async with JobSocket(f"{service.url}?v=1", token, sleep=service.timers) as socket:
        await service.cut()
        await service.connected(2)
        await socket.request("echo")
    assert service.queries == [
        {"v": ["1"], "Authorization": ["one"]},
        {"v": ["1"], "Authorization": ["two"]},
    ]


def jwt_of(name: str, seconds: float) -> str:
    """A token that expires in so many seconds."""
    claims = json.dumps({"sub": name, "exp": time.time() + seconds}).encode()
    return f"h.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{name}"


async def test_a_newer_token_is_sent_before_one_expires(service: Line) -> None:
    """And the connection goes on."""
    tokens = iter([jwt_of("one", 20), jwt_of("two", 5000), jwt_of("three", 9000)])
    async with service.open(lambda: next(tokens)) as socket:
        await service.until(lambda: service.sent("authenticate"))
        await socket.request("echo")
        (sent,) = service.sent("authenticate")
        assert sent["payload"]["token"].endswith(".two")
        # Nine tenths of the time that the first, and then the second one, is good for.
        waits = [seconds for seconds in service.timers.asked if seconds not in (PING, PONG)]
        assert waits == [pytest.approx(18, abs=0.5), pytest.approx(4500, abs=5)]
    assert service.attempts == 1


@pytest.mark.parametrize("code", ["FORBIDDEN", "UNAUTHORIZED", "INVALID_ACTION"])
async def test_a_connection_whose_newer_token_is_refused_is_opened_again(
    service: Line, code: str
) -> None:
    """Also by a service that does not know the action."""
    tokens = iter([jwt_of("one", 20), jwt_of("two", 20), jwt_of("three", 5000)])
    error = {"code": code, "message": "Expected another token", "retryable": False}
    service.replies["authenticate"] = deque([{"type": "error", "error": error}])
    async with service.open(lambda: next(tokens)) as socket:
        await service.connected(2)
        await socket.request("echo")
    assert [query["Authorization"][0][-4:] for query in service.queries] == [".one", "hree"]


async def test_a_newer_token_without_an_answer_opens_a_new_connection(service: Line) -> None:
    tokens = iter([jwt_of("one", 20), jwt_of("two", 20), jwt_of("three", 5000)])
    service.mute.add("authenticate")
    async with service.open(lambda: next(tokens), ping_timeout=0.05):
        await service.connected(2)


async def test_a_token_function_that_fails_ends_no_connection(service: Line) -> None:
    outcomes: Iterator[str | OSError] = iter([jwt_of("one", 20), OSError(), jwt_of("two", 5000)])

    def token() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async with service.open(token) as socket:
        await service.until(lambda: service.sent("authenticate"))
        await socket.request("echo")
    assert service.attempts == 1


async def test_a_failing_token_function_is_called_again(service: Line) -> None:
    outcomes: Iterator[str | OSError] = iter([OSError(), "good"])

    def token() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async with service.open(token) as socket:
        await socket.request("echo")


async def test_unauthorized_on_an_open_connection_opens_a_new_one(service: Line) -> None:
    tokens = iter(["old", "new"])
    body = {"code": "UNAUTHORIZED", "message": "The token has expired"}
    async with service.open(lambda: next(tokens)) as socket:
        service.mute.add("echo")
        task = running(socket.request("echo", {"n": 1}))
        await service.until(lambda: service.sent("echo"))
        service.mute.clear()
        await service.say({"type": "error", "error": body, "timestamp": TIME})
        assert await task == {"echo": {"n": 1}}
    assert [query["Authorization"] for query in service.queries] == [["old"], ["new"]]


async def test_a_request_that_is_unauthorized_twice_raises(line: Line) -> None:
    body = {"code": "UNAUTHORIZED", "message": "no"}
    line.replies["echo"] = deque([{"type": "error", "error": body}] * 2)
    with pytest.raises(jobplane_client.UnauthorizedError):
        await line.socket.request("echo")
    assert line.attempts == 2


@pytest.mark.parametrize("code", [None, 1000, 1001, 1008, 1011, 1012])
async def test_a_connection_is_reopened_after_any_close_code(line: Line, code: int | None) -> None:
    await line.cut(code)
    assert await line.socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert line.attempts == 2


async def test_close_code_1009_ends_the_largest_open_request(line: Line) -> None:
    line.mute |= {"large", "small"}
    large = running(line.socket.request("large", {"text": "x" * 5000}))
    small = running(line.socket.request("small", {"text": "x"}))
    await line.until(lambda: line.sent("large") and line.sent("small"))
    await line.cut(1009)
    with pytest.raises(InvalidRequestError) as raised:
        await large
    assert raised.value.code == "PAYLOAD_TOO_LARGE"
    await line.until(lambda: len(line.sent("small")) == 2)
    assert len(line.sent("large")) == 1
    small.cancel()


async def test_a_large_message_is_sent_in_frames_of_32_kb(line: Line) -> None:
    """A character may lie across two frames."""
    text = "ä" * 45_000
    assert await line.socket.request("echo", {"text": text}) == {"echo": {"text": text}}
    assert max(line.frame_sizes) <= 32 * 1024
    assert len([size for size in line.frame_sizes if size]) == 3


async def test_a_message_above_96_kb_of_utf_8_is_not_sent(line: Line) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await line.socket.send("echo", {"text": "ä" * 49_200})
    assert raised.value.code == "PAYLOAD_TOO_LARGE"
    await line.socket.request("echo", {})
    assert len(line.received) == 1


@pytest.mark.parametrize(
    "message",
    [
        {"action": "a", "id": "no spaces"},
        {"action": 5},
        {"action": "a", "metadata": {"n": 1}},
        {"action": "a", "payload": {"x": {1, 2}}},
        {"action": "a", "payload": {"x": float("nan")}},
        {"action": "a", "payload": {"x": "\ud800"}},
    ],
)
async def test_a_malformed_message_is_not_sent(line: Line, message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await line.socket.send(**message)
    assert raised.value.fields


async def test_the_same_message_under_a_known_id_is_not_sent_again(line: Line) -> None:
    line.mute.add("delay")
    assert await line.socket.send("delay", {"n": 1}, id="j1") == "j1"
    assert await line.socket.send("delay", {"n": 1}, id="j1") == "j1"
    with pytest.raises(jobplane_client.ConflictError):
        await line.socket.send("delay", {"n": 2}, id="j1")
    await line.socket.request("echo")
    assert len(line.sent("delay")) == 1


async def test_an_ended_request_can_be_requested_again(line: Line) -> None:
    task = await line.run(id="j1")
    await line.complete("j1", {"n": 1})
    assert await task == {"n": 1}
    assert await line.socket.run("delay", id="j1") == {"n": 1}
    assert len(line.jobs) == 1


async def test_a_repetition_refused_by_a_busy_service_is_sent_once_more(line: Line) -> None:
    """The first copy may have been accepted."""
    line.cut_before_answering.add("delay")
    busy = {"code": "RATE_LIMITED", "message": "busy", "retry_after_ms": 50}
    task = running(line.socket.run("delay"))
    await line.until(lambda: line.sent("delay"))
    line.replies["delay"] = deque([{"type": "error", "error": busy}])
    await line.heard("subscribe")
    (request_id,) = line.jobs
    await line.complete(request_id, {"n": 1})
    assert await task == {"n": 1}
    assert len(line.sent("delay")) == 3


async def test_unknown_kinds_of_messages_are_passed_on(line: Line) -> None:
    for junk in ("", "nonsense", "[]", "5", '{"type":'):
        await line.say(junk)
    await line.say({"message": "Internal server error", "requestId": "x"})
    await line.say({"type": "hint", "request_id": "r9", "text": "hello"})
    await line.say({"type": "ping", "timestamp": TIME})
    first, second = await anext(line.socket), await anext(line.socket)
    assert isinstance(first, UnknownMessage)
    assert first.data["message"] == "Internal server error"
    assert isinstance(second, UnknownMessage)
    assert (second.type, second.request_id) == ("hint", "r9")


async def test_an_unreadable_result_ends_the_job_with_an_error(line: Line) -> None:
    task = await line.run(id="j1")
    await line.say({"type": "complete", "request_id": "j1", "seq": 1, "result": [1]})
    with pytest.raises(jobplane_client.BadPayloadError):
        await task


async def test_messages_without_a_follower_are_iterated_in_order(line: Line) -> None:
    request_id = await line.send()
    await line.progress(request_id, 10)
    await line.complete(request_id)
    kinds = [type(await anext(line.socket)) for _ in range(3)]
    assert kinds == [AcknowledgmentMessage, ProgressMessage, CompleteMessage]
    rest = running(collect(line.socket))
    await line.socket.request("echo")
    await line.socket.close()
    assert await rest == []


async def test_a_late_follower_gets_earlier_messages_once(line: Line) -> None:
    request_id = await line.send()
    await line.progress(request_id, 10)
    await line.complete(request_id)
    await line.socket.request("echo")
    assert len(await collect(line.socket.follow(request_id))) == 3
    assert await collect(line.socket.follow(request_id)) == []


async def test_every_follower_of_a_request_gets_every_message(line: Line) -> None:
    request_id, following = await line.follow()
    followers = [following, running(collect(line.socket.follow(request_id)))]
    await line.socket.request("echo")
    await line.complete(request_id)
    first, second = await asyncio.gather(*followers)
    assert isinstance(first[-1], CompleteMessage)
    assert first[-1] == second[-1]


async def test_a_request_of_another_connection_can_be_followed(line: Line) -> None:
    async with line.open() as other:
        await other.request("delay", id="j1")
        await line.progress("j1", 10)
        await line.progress("j1", 20)
        following = running(collect(line.socket.follow("j1", since_seq=1, user_id="u2")))
        await line.heard("subscribe")
        await line.complete("j1")
        assert seqs(await following) == [2, 3]
    asked = [message["payload"] for message in line.sent("subscribe")]
    assert {"request_id": "j1", "since_seq": 1, "user_id": "u2"} in asked


async def test_following_an_unknown_request_ends_with_not_found(line: Line) -> None:
    (message,) = await collect(line.socket.follow("nothing"))
    assert isinstance(message, ErrorMessage)
    assert message.error.code == "NOT_FOUND"


async def test_a_subscription_by_message_is_resumed_after_a_lost_connection(line: Line) -> None:
    async with line.open() as other:
        await other.request("delay", id="j1")
        state = await line.socket.request("subscribe", {"request_id": "j1"})
        assert state["status"] == "PENDING"
        before = len(line.sent("subscribe"))
        await line._connections[1].close(1001)
        await line.until(lambda: len(line.sent("subscribe")) > before)


async def test_an_omitted_result_is_reported_as_missing(line: Line) -> None:
    """A result may be too large for a state."""
    task = running(line.socket.run("delay", id="j1"))
    await line.heard("subscribe")
    await line.complete("j1", lost=True)
    line.jobs["j1"].result = None
    await line.cut()
    assert await task == {"result_omitted": True}


async def test_closing_the_socket_ends_every_wait_with_an_error(service: Line) -> None:
    async with service.open() as socket:
        task = running(socket.run("delay", id="j1"))
        await service.until(lambda: service.jobs)
    with pytest.raises(jobplane_client.ConnectionLostError):
        await task


async def test_a_cancelled_wait_for_a_short_action_is_forgotten(line: Line) -> None:
    line.mute.add("echo")
    task = running(line.socket.request("echo", id="e1"))
    await line.until(lambda: line.sent("echo"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await line.cut()
    await line.connected(2)
    line.mute.clear()
    await line.say({"type": "response", "request_id": "e1", "data": {}, "timestamp": TIME})
    await line.socket.request("echo", id="e2")
    assert [message["id"] for message in line.sent("echo")] == ["e1", "e2"]
    await line.socket.close()
    assert await collect(line.socket) == []


async def test_the_inbox_keeps_only_the_newest_unread_messages(service: Line) -> None:
    async with service.open(max_pending=5) as socket:
        for number in range(20):
            await service.say({"type": "hint", "n": number})
        await socket.request("echo")
        kept = [await anext(socket) for _ in range(5)]
    numbers = [message.data["n"] for message in kept if isinstance(message, UnknownMessage)]
    assert numbers == [15, 16, 17, 18, 19]


async def test_a_socket_can_be_entered_only_once(line: Line) -> None:
    with pytest.raises(RuntimeError):
        await line.socket.__aenter__()


async def test_the_token_is_not_logged_for_debug(service: Line, caplog: LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="websockets.client")
    caplog.set_level(logging.DEBUG)
    async with service.open("s3cret") as socket:
        await socket.request("echo")
    client_lines = [each.getMessage() for each in caplog.records if "server" not in each.name]
    assert not any("s3cret" in line for line in client_lines)


@pytest.mark.parametrize("seed", range(12))
async def test_numbers_rise_and_a_request_ends_once_under_faults(service: Line, seed: int) -> None:
    dice = random.Random(seed)
    async with service.open() as socket:
        ids = [await socket.send("delay", {"n": number}) for number in range(4)]
        following = [running(collect(socket.follow(request_id))) for request_id in ids]
        await service.until(lambda: set(ids) <= set(service.jobs))
        left = {request_id: dice.randint(0, 6) for request_id in ids}
        while left:
            request_id = dice.choice(list(left))
            lost = dice.random() < 0.3
            if left[request_id]:
                left[request_id] -= 1
                await service.progress(request_id, dice.randint(0, 100), lost=lost)
            else:
                del left[request_id]
                await service.complete(request_id, {"id": request_id}, lost=lost)
            job = service.jobs[request_id]
            if job.progress and dice.random() < 0.4:
                await service.tell(job, type="progress", **(job.progress | {"seq": job.seq - 1}))
            if dice.random() < 0.25:
                number = service.attempts
                await service.cut(dice.choice([None, 1001, 1011]))
                await service.connected(number + 1)
        await service.cut()
        for request_id, task in zip(ids, following, strict=True):
            messages = [each for each in await task if not isinstance(each, AcknowledgmentMessage)]
            assert seqs(messages) == sorted(set(seqs(messages)))
            assert [type(each) for each in messages].count(CompleteMessage) == 1
            assert messages[-1].result == {"id": request_id}
        assert await socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert set(service.jobs) == set(ids)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["response", "acknowledgment", "progress", "complete", "error", "pong", "ping", "novelty"]
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("data", "result", "status", "percentage", "message"), JSON)
        | {
            "type": KINDS | JSON,
            "request_id": st.just("r1") | JSON,
            "seq": st.integers(-2, 5) | JSON,
            "timestamp": st.just(TIME) | JSON,
            "error": st.fixed_dictionaries({"code": st.text(max_size=5)}) | JSON,
        },
    )
)
def test_any_json_message_can_be_read(message: dict[str, Any]) -> None:
    parse_message(json.dumps(message))

    async def receive() -> None:
        socket = JobSocket("ws://test", "t")
        await socket.send("delay", id="r1")
        socket._subscribing["s1"] = "r1"
        socket._receive(json.dumps(message))
        socket._receive(json.dumps({**message, "request_id": "s1"}))
        await socket.close()

    asyncio.run(receive())


@given(st.text(max_size=50) | st.binary(max_size=50))
def test_any_frame_can_be_read(raw: str | bytes) -> None:
    message = parse_message(raw)
    assert message is None or isinstance(message, UnknownMessage | ResponseMessage | ErrorMessage)


@pytest.mark.parametrize("lost", [(), (1,), (2,), (3,), (1, 2, 3), (2, 3)])
@pytest.mark.parametrize("cut", [False, True])
async def test_all_events_arrive_once_and_in_order(
    line: Line, lost: tuple[int, ...], cut: bool
) -> None:
    """Whatever posts are lost, also with the connection, and when pages are small."""
    texts, heard = [f"line {number}" for number in range(1, 8)], []
    task = await line.run(id="j1", on_event=heard.append)
    await line.socket.request("echo")
    batches = [(1, texts[:2]), (3, texts[2:3]), (4, texts[3:])]
    for number, (first, events) in enumerate(batches, 1):
        if cut and number == 2:
            await line.cut()
        await line.emit("j1", first, events, lost=number in lost)
        if number == 1:  # as a repeated delivery
            await line.emit("j1", first, events, lost=number in lost)
    await line.complete("j1", {"n": 1}, event_count=len(texts))
    assert await task == {"n": 1}
    assert heard == texts


async def test_events_that_are_gone_are_left_out(line: Line) -> None:
    """Also from the middle and at the end; the others arrive in order."""
    heard: list[Any] = []
    task = await line.run(id="j1", on_event=heard.append)
    await line.socket.request("echo")
    await line.emit("j1", 1, ["a", "b", "c", "d", "e"], lost=True)
    line.jobs["j1"].lost = frozenset({1, 4})
    await line.complete("j1", {"n": 1}, event_count=5)
    assert await task == {"n": 1}
    assert heard == ["a", "c", "d"]


async def test_events_without_a_listener_are_not_asked_for(line: Line) -> None:
    """The job's end arrives without them."""
    task = await line.run(id="j1")
    await line.socket.request("echo")
    await line.emit("j1", 1, ["a"], lost=True)
    await line.complete("j1", {"n": 1}, event_count=1)
    assert await task == {"n": 1}
    assert not any("since_event" in sent.get("payload", {}) for _, sent in line.received)


async def test_a_job_is_followed_from_an_event_on(line: Line) -> None:
    """As a process does that has stored how far it has come."""
    await line.send()
    (job,) = line.jobs
    await line.emit(job, 1, ["a", "b", "c"])
    async with line.open() as socket:
        async for message in socket.follow(job, since_event=2):
            assert isinstance(message, EventMessage)
            assert (message.first, message.events) == (3, ["c"])
            break
