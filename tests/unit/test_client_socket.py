"""JobSocket against a socket service that cuts off, repeats, reorders and loses messages."""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_client import (
    BadPayloadError,
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JobplaneError,
    JobSocket,
    JobTimeoutError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnknownMessage,
)
from jobplane_client._protocol import parse_message
from jobplane_models.messages import (
    AcknowledgmentMessage,
    CompleteMessage,
    ErrorMessage,
    ProgressMessage,
    ResponseMessage,
)
from tests.unit.client_services import TIME, SocketService, Timers
from tests.unit.clock import Clock

TOKEN = "t1"
PING, PONG, AGE = 1000.0, 500.0, 100_000.0

pytestmark = pytest.mark.timeout(20)


class Opener(Protocol):
    """Makes a socket to the service of the test."""

    def __call__(self, token: Any = TOKEN, **settings: Any) -> JobSocket: ...


@pytest.fixture
async def service() -> AsyncIterator[SocketService]:
    async with SocketService() as service:
        yield service


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def open_socket(service: SocketService, timers: Timers, clock: Clock) -> Opener:
    def make(token: Any = TOKEN, **settings: Any) -> JobSocket:
        known: dict[str, Any] = {"ping_every": PING, "ping_timeout": PONG, "max_age": AGE}
        known |= {"sleep": timers, "clock": clock}
        return JobSocket(service.url, token, **(known | settings))

    return make


@pytest.fixture
async def socket(open_socket: Opener) -> AsyncIterator[JobSocket]:
    async with open_socket() as socket:
        yield socket


def running(awaitable: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(awaitable)


async def collect(messages: AsyncIterator[Any]) -> list[Any]:
    return [message async for message in messages]


def seqs(messages: list[Any]) -> list[int]:
    return [message.seq for message in messages if hasattr(message, "seq")]


async def test_run_returns_the_result(service: SocketService, socket: JobSocket) -> None:
    """Progress is reported as it comes."""
    heard: list[float] = []

    async def on_progress(message: ProgressMessage) -> None:
        heard.append(message.percentage)

    task = running(socket.run("delay", {"seconds": 1}, on_progress=on_progress, id="j1"))
    await service.until(lambda: "j1" in service.jobs)
    await service.progress("j1", 50)
    await service.complete("j1", {"done": True})
    assert await task == {"done": True}
    assert heard == [50]
    assert service.sent("delay")[0]["payload"] == {"seconds": 1}


async def test_the_progress_callback_may_be_a_plain_function(
    service: SocketService, socket: JobSocket
) -> None:
    heard: list[int] = []
    task = running(
        socket.run("delay", on_progress=lambda message: heard.append(message.seq), id="j")
    )
    await service.until(lambda: service.jobs)
    await service.progress("j", 50)
    await service.complete("j")
    await task
    assert heard == [1]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("PROCESSING_FAILED", JobFailedError),
        ("CANCELLED", JobCancelledError),
        ("TIMEOUT", JobTimeoutError),
        ("INTERNAL_ERROR", JobFailedError),
        ("A_CODE_OF_TOMORROW", JobFailedError),
    ],
)
async def test_run_raises_the_error_of_a_job_without_a_result(
    service: SocketService, socket: JobSocket, code: str, error: type[JobplaneError]
) -> None:
    """Each error code has its class, unknown codes included."""
    task = running(socket.run("delay", id="j1"))
    await service.until(lambda: service.jobs)
    await service.fail("j1", code)
    with pytest.raises(error, match="it broke"):
        await task


async def test_request_returns_the_data_of_an_immediate_answer(socket: JobSocket) -> None:
    assert await socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert await socket.request("ping") == {}


async def test_a_reply_has_the_id_that_the_socket_chose(
    service: SocketService, socket: JobSocket
) -> None:
    """With it the caller can follow and cancel the job."""
    reply = await socket.request("delay")
    assert [reply.request_id] == list(service.jobs)
    assert reply["request_id"] == reply.request_id
    assert (await socket.request("echo", {"n": 1}, id="mine")).request_id == "mine"
    assert json.loads(json.dumps(reply)) == dict(reply)


def gateway_error(message: str = "Internal server error") -> dict[str, Any]:
    """The message that API Gateway sends in place of the function."""
    return {"message": message, "connectionId": "L0SM9cOFvHcCIhw=", "requestId": "JKJaXmPLvHcESHA="}


@pytest.mark.parametrize(
    "text", ["Internal server error", "Endpoint request timed out", "Too Many Requests"]
)
@pytest.mark.parametrize("action", ["echo", "delay"])
async def test_after_an_error_of_the_gateway_open_requests_are_sent_again(
    service: SocketService, socket: JobSocket, timers: Timers, action: str, text: str
) -> None:
    """The error names no request, so all would wait for the next ping."""
    service.replies.setdefault(action, deque()).extend([gateway_error(text)] * 2)
    reply = await socket.request(action, {"n": 1})
    sent = service.sent(action)
    assert [message["id"] for message in sent] == [reply.request_id] * 3
    assert [message["payload"] for message in sent] == [{"n": 1}] * 3
    assert len([seconds for seconds in timers.asked if seconds <= 2]) >= 2
    assert not socket._inbox


async def test_a_request_fails_after_six_errors_of_the_gateway(
    service: SocketService, socket: JobSocket, timers: Timers
) -> None:
    """Other requests are answered meanwhile."""
    service.replies.setdefault("echo", deque()).extend([gateway_error()] * 20)
    with pytest.raises(ServiceUnavailableError, match="failed 6 times"):
        await socket.request("echo", id="poison")
    assert len(service.sent("echo")) == 6
    assert max(seconds for seconds in timers.asked if seconds < 100) <= 16
    assert (await socket.request("delay"))["status"] == "queued"


async def test_a_job_queued_despite_an_error_of_the_gateway_is_not_queued_twice(
    service: SocketService, socket: JobSocket
) -> None:
    """The second copy of the request finds the stored job."""
    task = running(socket.run("delay", id="j1"))
    service.replies.setdefault("delay", deque()).append(gateway_error("Endpoint request timed out"))
    await service.until(lambda: len(service.sent("delay")) == 2)
    await service.until(lambda: "j1" in service.jobs)
    await service.complete("j1", {"done": True})
    assert await task == {"done": True}


async def test_a_subscription_is_sent_again_after_an_error_of_the_gateway(
    service: SocketService, socket: JobSocket
) -> None:
    """Else its job would be silent until the next ping."""
    request_id = (await socket.request("delay")).request_id
    service.replies["subscribe"] = deque([gateway_error()])
    await service.complete(request_id, {"done": True}, lost=True)
    await service.cut()
    await service.until(lambda: len(service.sent("subscribe")) == 2)
    messages = await collect(socket.follow(request_id))
    assert isinstance(messages[-1], CompleteMessage)


async def test_an_error_of_the_gateway_to_a_ping_ends_no_acknowledged_job(
    service: SocketService, socket: JobSocket
) -> None:
    request_id = (await socket.request("delay")).request_id
    await service.say(gateway_error())
    await service.complete(request_id, {"done": True})
    messages = [await anext(socket) for _ in range(2)]
    assert [type(message) for message in messages] == [UnknownMessage, CompleteMessage]
    assert len(service.sent("delay")) == 1


async def test_request_of_a_queued_action_returns_its_acknowledgement(
    service: SocketService, socket: JobSocket
) -> None:
    """The job's messages go to iteration."""
    assert (await socket.request("delay", id="j1"))["status"] == "queued"
    await service.complete("j1")
    assert isinstance(await anext(socket), CompleteMessage)


async def test_progress_before_the_acknowledgement_is_delivered(
    service: SocketService, socket: JobSocket
) -> None:
    """A fast worker may post first; both messages arrive, each once."""
    service.mute.add("delay")
    task = running(socket.request("delay", id="j1"))
    await service.until(lambda: service.jobs)
    await service.progress("j1", 10)
    acknowledgment = {"type": "acknowledgment", "request_id": "j1", "timestamp": TIME}
    for _ in range(2):
        await service.say(acknowledgment | {"status": "queued", "message": "", "assembly_id": "a"})
    assert (await task)["assembly_id"] == "a"
    await service.complete("j1")
    rest = await collect(socket.follow("j1"))
    assert [type(message) for message in rest] == [CompleteMessage]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("VALIDATION_ERROR", InvalidRequestError),
        ("INVALID_ACTION", InvalidRequestError),
        ("FORBIDDEN", ForbiddenError),
        ("NOT_FOUND", NotFoundError),
        ("DUPLICATE_REQUEST", ConflictError),
        ("RATE_LIMITED", RateLimitedError),
        ("SERVICE_UNAVAILABLE", ServiceUnavailableError),
        ("INTERNAL_ERROR", ServiceUnavailableError),
    ],
)
async def test_request_raises_the_refusal(
    service: SocketService, socket: JobSocket, code: str, error: type[RefusedError]
) -> None:
    """Each code has its error, with fields and the time to wait."""
    details = [{"field": "payload.x", "message": "no"}]
    body = {"code": code, "message": "no", "details": details, "retry_after_ms": 1500}
    service.replies["echo"] = deque([{"type": "error", "error": body}])
    with pytest.raises(error) as raised:
        await socket.request("echo")
    assert type(raised.value) is error
    assert raised.value.code == code
    assert raised.value.fields == tuple(details)
    assert raised.value.retry_after == 1.5


async def test_a_request_made_before_connecting_is_sent_later(
    service: SocketService, open_socket: Opener
) -> None:
    socket = open_socket()
    request_id = await socket.send("delay", {"seconds": 1}, metadata={"on_disconnect": "cancel"})
    async with socket:
        await service.until(lambda: request_id in service.jobs)
    assert service.sent("delay")[0]["metadata"] == {"on_disconnect": "cancel"}


async def test_a_job_is_resumed_after_a_lost_connection(
    service: SocketService, socket: JobSocket
) -> None:
    """The client subscribes from the last known number, and misses no message that matters."""
    request_id = await socket.send("delay")
    following = running(collect(socket.follow(request_id)))
    await service.until(lambda: request_id in service.jobs)
    await service.progress(request_id, 10)
    await service.progress(request_id, 20)
    # The next request is answered after the progress has arrived.
    await socket.request("echo")
    await service.cut()
    await service.progress(request_id, 30, lost=True)
    await service.until(lambda: service.sent("subscribe"))
    await socket.request("echo")
    await service.progress(request_id, 40)
    await service.complete(request_id, {"n": 1})
    messages = await following
    assert seqs(messages) == [1, 2, 3, 4, 5]
    assert isinstance(messages[0], AcknowledgmentMessage)
    assert isinstance(messages[-1], CompleteMessage)
    assert [message["payload"]["since_seq"] for message in service.sent("subscribe")] == [2]
    assert len(service.sent("delay")) == 1


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_an_end_while_disconnected_is_delivered_once(
    service: SocketService, socket: JobSocket, end: str
) -> None:
    """With the stored outcome."""
    task = running(socket.run("delay", id="j1"))
    await service.until(lambda: service.jobs)
    await socket.request("echo")
    await service.cut(1001)
    if end == "COMPLETED":
        await service.complete("j1", {"n": 1}, lost=True)
        assert await task == {"n": 1}
    else:
        code = "CANCELLED" if end == "CANCELLED" else "PROCESSING_FAILED"
        await service.fail("j1", code, lost=True)
        with pytest.raises(JobCancelledError if end == "CANCELLED" else JobFailedError):
            await task
    await service.connected(2)
    await service.say(
        {"type": "complete", "request_id": "j1", "seq": 9, "result": {}, "timestamp": TIME}
    )
    await service.say({"type": "novelty"})
    assert isinstance(await anext(socket), UnknownMessage)


async def test_repeated_and_reordered_messages_are_dropped(
    service: SocketService, socket: JobSocket
) -> None:
    """The caller gets rising numbers and one end."""
    request_id = await socket.send("delay")
    following = running(collect(socket.follow(request_id)))
    await service.until(lambda: service.jobs)

    def message(kind: str, seq: int) -> dict[str, Any]:
        head = {"type": kind, "request_id": request_id, "seq": seq, "timestamp": TIME}
        if kind == "progress":
            return head | {"percentage": seq, "message": ""}
        return head | {"result": {"seq": seq}}

    for seq in (1, 1, 3, 2, 3, 5, 4):
        await service.say(message("progress", seq))
    await service.say(message("complete", 6))
    await service.say(message("progress", 7))
    await service.say(message("complete", 6))
    await service.say({"type": "novelty"})
    assert isinstance(await anext(socket), UnknownMessage)
    assert seqs(await following) == [1, 3, 5, 6]


async def test_an_end_with_a_wrong_number_still_ends_the_request(
    service: SocketService, socket: JobSocket
) -> None:
    """Under a number that rises."""
    request_id = await socket.send("delay")
    await service.until(lambda: service.jobs)
    head = {"request_id": request_id, "seq": 5, "timestamp": TIME}
    await service.say(head | {"type": "progress", "percentage": 1, "message": ""})
    await service.say(head | {"type": "complete", "result": {}})
    messages = await collect(socket.follow(request_id))
    assert seqs(messages) == [5, 6]


async def test_an_unacknowledged_request_is_sent_again_under_the_same_id(
    service: SocketService, socket: JobSocket
) -> None:
    """So a lost acknowledgement makes no second job."""
    service.cut_before_answering.add("delay")
    task = running(socket.run("delay", {"seconds": 1}))
    await service.until(lambda: service.sent("subscribe"))
    first, second = service.sent("delay")
    assert first == second
    assert len(service.jobs) == 1
    await socket.request("echo")
    await service.complete(first["id"], {"n": 1})
    assert await task == {"n": 1}


async def test_a_short_action_is_sent_again_after_a_lost_connection(
    service: SocketService, socket: JobSocket
) -> None:
    service.cut_before_answering.add("echo")
    assert await socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert len(service.sent("echo")) == 2


async def test_a_request_with_a_known_id_follows_the_existing_job(
    service: SocketService, open_socket: Opener
) -> None:
    """Another process may have started it."""
    async with open_socket() as first:
        await first.request("delay", id="order-7")
        await service.progress("order-7", 40)
    async with open_socket() as second:
        following = running(second.run("delay", id="order-7"))
        await service.until(lambda: service.sent("subscribe"))
        await second.request("echo")
        await service.complete("order-7", {"n": 1})
        assert await following == {"n": 1}
    async with open_socket() as third:
        assert await third.run("delay", id="order-7") == {"n": 1}


async def test_a_lost_end_is_found_by_subscribing_after_two_pings(
    service: SocketService, socket: JobSocket, timers: Timers
) -> None:
    """The client subscribes again to a request that was silent between them."""
    task = running(socket.run("delay", id="j1"))
    await service.until(lambda: service.sent("subscribe"))
    await socket.request("echo")
    await service.complete("j1", {"n": 1}, lost=True)
    for _ in range(2):
        await timers.fire(PING)
        await service.until(lambda: service.sent("ping"))
        await socket.request("echo")
        await timers.fire(PONG)
    assert await task == {"n": 1}
    assert service.attempts == 1


async def test_a_ping_without_an_answer_opens_a_new_connection(
    service: SocketService, socket: JobSocket, timers: Timers
) -> None:
    """Even if TCP reports no error."""
    service.mute.add("ping")
    await timers.fire(PING)
    await service.until(lambda: service.sent("ping"))
    await timers.fire(PONG)
    await service.connected(2)
    assert service.sent("ping") == [{"action": "ping"}]


async def test_a_connection_is_replaced_before_its_time_limit(
    service: SocketService, socket: JobSocket, timers: Timers, clock: Clock
) -> None:
    """Its jobs are resumed on the new one."""
    request_id = await socket.send("delay")
    await service.until(lambda: service.jobs)
    await socket.request("echo")
    clock.now += AGE - 10
    await timers.fire(PING)
    await service.until(lambda: service.sent("ping"))
    await socket.request("echo")
    pauses = len(timers.asked)
    await timers.fire(PONG)
    await service.until(lambda: service.sent("subscribe"))
    assert [seconds for seconds in timers.asked[pauses:] if seconds < Timers.LONG] == [10]
    assert service.sent("subscribe")[0]["payload"]["request_id"] == request_id
    assert service.attempts == 2


@pytest.mark.parametrize(
    ("status", "error"), [(401, UnauthorizedError), (403, ForbiddenError), (429, RateLimitedError)]
)
async def test_entering_raises_the_refusal_of_the_first_handshake(
    service: SocketService, open_socket: Opener, status: int, error: type[RefusedError]
) -> None:
    """After one attempt."""
    service.refusals.append((status, {"Retry-After": "30"}))
    with pytest.raises(error) as raised:
        async with open_socket("s3cret"):
            pass
    assert raised.value.status_code == status
    assert raised.value.retry_after == 30
    assert "s3cret" not in str(raised.value) + str(raised.value.__cause__)
    assert service.attempts == 1


async def test_a_401_on_a_later_connection_ends_all_waits(
    service: SocketService, socket: JobSocket
) -> None:
    waiting = [
        running(socket.run("delay", id="j1")),
        running(collect(socket.follow("j2"))),
        running(collect(socket)),
    ]
    await service.until(lambda: "j1" in service.jobs and service.sent("subscribe"))
    service.jobs["j2"] = service.jobs["j1"]
    service.refusals.append((401, {}))
    await service.cut()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:1]] == [UnauthorizedError]
    assert isinstance(outcomes[2], UnauthorizedError)
    assert service.attempts == 2
    with pytest.raises(UnauthorizedError):
        await socket.send("echo")


async def test_a_429_or_5xx_on_a_later_connection_is_tried_again(
    service: SocketService, socket: JobSocket, timers: Timers
) -> None:
    """After the time that the service asks for."""
    service.refusals.extend([(429, {"Retry-After": "20"}), (503, {}), (500, {})])
    await service.cut()
    await service.connected(2)
    assert await socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert service.attempts == 5
    assert 20 in timers.asked


async def test_all_waits_fail_after_repeated_connection_failures(
    service: SocketService, open_socket: Opener
) -> None:
    async with open_socket(max_failures=4) as socket:
        task = running(socket.request("delay", id="j"))
        await task
        service.refusals.extend([(503, {})] * 5)
        await service.cut()
        with pytest.raises(ConnectionLostError):
            await collect(socket)
    assert service.attempts == 6


async def test_entering_raises_if_no_service_listens(timers: Timers) -> None:
    with pytest.raises(ConnectionLostError):
        async with JobSocket("ws://127.0.0.1:1", "t", sleep=timers):
            pass
    assert len(timers.asked) == 3


async def test_a_url_with_another_scheme_is_refused(timers: Timers) -> None:
    """The error does not hold the token."""
    with pytest.raises(ConnectionLostError) as raised:
        async with JobSocket("https://example.test", "s3cret", sleep=timers):
            pass
    assert "s3cret" not in repr(raised.value)
    assert raised.value.__suppress_context__


async def test_the_token_function_is_called_for_each_connection(
    service: SocketService, timers: Timers, open_socket: Opener
) -> None:
    """The URL keeps its own query."""
    tokens = iter(["one", "two"])

    async def token() -> str:
        return next(tokens)

    async with JobSocket(f"{service.url}?v=1", token, sleep=timers) as socket:
        await service.cut()
        await service.connected(2)
        await socket.request("echo")
    assert service.queries == [
        {"v": ["1"], "Authorization": ["one"]},
        {"v": ["1"], "Authorization": ["two"]},
    ]


async def test_a_failing_token_function_is_called_again(
    service: SocketService, open_socket: Opener
) -> None:
    outcomes: Iterator[str | OSError] = iter([OSError(), "good"])

    def token() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async with open_socket(token) as socket:
        await socket.request("echo")


async def test_unauthorized_on_an_open_connection_opens_a_new_one(
    service: SocketService, open_socket: Opener
) -> None:
    """The request is sent again there."""
    tokens = iter(["old", "new"])
    body = {"code": "UNAUTHORIZED", "message": "The token has expired"}
    async with open_socket(lambda: next(tokens)) as socket:
        service.mute.add("echo")
        task = running(socket.request("echo", {"n": 1}))
        await service.until(lambda: service.sent("echo"))
        service.mute.clear()
        await service.say({"type": "error", "error": body, "timestamp": TIME})
        assert await task == {"echo": {"n": 1}}
    assert [query["Authorization"] for query in service.queries] == [["old"], ["new"]]


async def test_a_request_that_is_unauthorized_twice_raises(
    service: SocketService, socket: JobSocket
) -> None:
    """One new connection is tried."""
    body = {"code": "UNAUTHORIZED", "message": "no"}
    service.replies["echo"] = deque([{"type": "error", "error": body}] * 2)
    with pytest.raises(UnauthorizedError):
        await socket.request("echo")
    assert service.attempts == 2


@pytest.mark.parametrize("code", [None, 1000, 1001, 1008, 1011, 1012])
async def test_a_closed_connection_is_opened_again_for_any_close_code(
    service: SocketService, socket: JobSocket, code: int | None
) -> None:
    await service.cut(code)
    assert await socket.request("echo", {"n": 1}) == {"echo": {"n": 1}}
    assert service.attempts == 2


async def test_close_code_1009_ends_the_largest_open_request(
    service: SocketService, socket: JobSocket
) -> None:
    """The others go on."""
    service.mute |= {"large", "small"}
    large = running(socket.request("large", {"text": "x" * 5000}))
    small = running(socket.request("small", {"text": "x"}))
    await service.until(lambda: service.sent("large") and service.sent("small"))
    await service.cut(1009)
    with pytest.raises(InvalidRequestError) as raised:
        await large
    assert raised.value.code == "PAYLOAD_TOO_LARGE"
    await service.until(lambda: len(service.sent("small")) == 2)
    assert len(service.sent("large")) == 1
    small.cancel()


async def test_a_large_message_is_sent_in_frames_of_32_kb(
    service: SocketService, socket: JobSocket
) -> None:
    """A character may lie across two frames."""
    text = "ä" * 45_000
    assert await socket.request("echo", {"text": text}) == {"echo": {"text": text}}
    assert max(service.frame_sizes) <= 32 * 1024
    assert len([size for size in service.frame_sizes if size]) == 3


async def test_a_message_above_96_kb_of_utf_8_is_not_sent(
    service: SocketService, socket: JobSocket
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await socket.send("echo", {"text": "ä" * 49_200})
    assert raised.value.code == "PAYLOAD_TOO_LARGE"
    await socket.request("echo", {})
    assert len(service.received) == 1


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
async def test_a_malformed_message_is_not_sent(socket: JobSocket, message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await socket.send(**message)
    assert raised.value.fields


async def test_the_same_message_under_a_known_id_is_not_sent_again(
    service: SocketService, socket: JobSocket
) -> None:
    """Another message under the id is refused."""
    service.mute.add("delay")
    assert await socket.send("delay", {"n": 1}, id="j1") == "j1"
    assert await socket.send("delay", {"n": 1}, id="j1") == "j1"
    with pytest.raises(ConflictError):
        await socket.send("delay", {"n": 2}, id="j1")
    await socket.request("echo")
    assert len(service.sent("delay")) == 1


async def test_an_ended_request_can_be_requested_again(
    service: SocketService, socket: JobSocket
) -> None:
    """It gives the same result, and makes no second job."""
    task = running(socket.run("delay", id="j1"))
    await service.until(lambda: service.jobs)
    await service.complete("j1", {"n": 1})
    assert await task == {"n": 1}
    assert await socket.run("delay", id="j1") == {"n": 1}
    assert len(service.jobs) == 1


async def test_a_repetition_refused_by_a_busy_service_is_sent_once_more(
    service: SocketService, socket: JobSocket
) -> None:
    """The first copy may have been accepted."""
    service.cut_before_answering.add("delay")
    busy = {"code": "RATE_LIMITED", "message": "busy", "retry_after_ms": 50}
    task = running(socket.run("delay"))
    await service.until(lambda: service.sent("delay"))
    service.replies["delay"] = deque([{"type": "error", "error": busy}])
    await service.until(lambda: service.sent("subscribe"))
    await socket.request("echo")
    (request_id,) = service.jobs
    await service.complete(request_id, {"n": 1})
    assert await task == {"n": 1}
    assert len(service.sent("delay")) == 3


async def test_unknown_kinds_of_messages_are_passed_on(
    service: SocketService, socket: JobSocket
) -> None:
    """Frames that are not messages are ignored."""
    for junk in ("", "nonsense", "[]", "5", '{"type":'):
        await service.say(junk)
    await service.say({"message": "Internal server error", "requestId": "x"})
    await service.say({"type": "hint", "request_id": "r9", "text": "hello"})
    await service.say({"type": "ping", "timestamp": TIME})
    first, second = await anext(socket), await anext(socket)
    assert isinstance(first, UnknownMessage)
    assert first.data["message"] == "Internal server error"
    assert isinstance(second, UnknownMessage)
    assert (second.type, second.request_id) == ("hint", "r9")


async def test_an_unreadable_result_ends_the_job_with_an_error(
    service: SocketService, socket: JobSocket
) -> None:
    task = running(socket.run("delay", id="j1"))
    await service.until(lambda: service.jobs)
    await service.say({"type": "complete", "request_id": "j1", "seq": 1, "result": [1]})
    with pytest.raises(BadPayloadError):
        await task


async def test_messages_without_a_follower_are_iterated_in_order(
    service: SocketService, socket: JobSocket
) -> None:
    """Until the socket is closed."""
    request_id = await socket.send("delay")
    await service.until(lambda: service.jobs)
    await service.progress(request_id, 10)
    await service.complete(request_id)
    kinds = [type(await anext(socket)) for _ in range(3)]
    assert kinds == [AcknowledgmentMessage, ProgressMessage, CompleteMessage]
    rest = running(collect(socket))
    await socket.request("echo")
    await socket.close()
    assert await rest == []


async def test_a_late_follower_gets_earlier_messages_once(
    service: SocketService, socket: JobSocket
) -> None:
    request_id = await socket.send("delay")
    await service.until(lambda: service.jobs)
    await service.progress(request_id, 10)
    await service.complete(request_id)
    await socket.request("echo")
    assert len(await collect(socket.follow(request_id))) == 3
    assert await collect(socket.follow(request_id)) == []


async def test_every_follower_of_a_request_gets_every_message(
    service: SocketService, socket: JobSocket
) -> None:
    request_id = await socket.send("delay")
    followers = [running(collect(socket.follow(request_id))) for _ in range(2)]
    await service.until(lambda: service.jobs)
    await socket.request("echo")
    await service.complete(request_id)
    first, second = await asyncio.gather(*followers)
    assert isinstance(first[-1], CompleteMessage)
    assert first[-1] == second[-1]


async def test_a_request_of_another_connection_can_be_followed(
    service: SocketService, open_socket: Opener, socket: JobSocket
) -> None:
    """By a subscription from a known number on."""
    async with open_socket() as other:
        await other.request("delay", id="j1")
        await service.progress("j1", 10)
        await service.progress("j1", 20)
        following = running(collect(socket.follow("j1", since_seq=1, user_id="u2")))
        await service.until(lambda: service.sent("subscribe"))
        await socket.request("echo")
        await service.complete("j1")
        assert seqs(await following) == [2, 3]
    asked = [message["payload"] for message in service.sent("subscribe")]
    assert {"request_id": "j1", "since_seq": 1, "user_id": "u2"} in asked


async def test_following_an_unknown_request_ends_with_not_found(socket: JobSocket) -> None:
    (message,) = await collect(socket.follow("nothing"))
    assert isinstance(message, ErrorMessage)
    assert message.error.code == "NOT_FOUND"


async def test_a_subscription_by_message_is_resumed_after_a_lost_connection(
    service: SocketService, open_socket: Opener, socket: JobSocket
) -> None:
    async with open_socket() as other:
        await other.request("delay", id="j1")
        state = await socket.request("subscribe", {"request_id": "j1"})
        assert state["status"] == "PENDING"
        before = len(service.sent("subscribe"))
        await service._connections[1].close(1001)
        await service.until(lambda: len(service.sent("subscribe")) > before)


async def test_an_omitted_result_is_reported_as_missing(
    service: SocketService, socket: JobSocket
) -> None:
    """A result may be too large for a state."""
    task = running(socket.run("delay", id="j1"))
    await service.until(lambda: service.sent("subscribe"))
    await socket.request("echo")
    await service.complete("j1", lost=True)
    service.jobs["j1"].result = None
    await service.cut()
    assert await task == {"result_omitted": True}


async def test_closing_the_socket_ends_every_wait_with_an_error(
    service: SocketService, open_socket: Opener
) -> None:
    async with open_socket() as socket:
        task = running(socket.run("delay", id="j1"))
        await service.until(lambda: service.jobs)
    with pytest.raises(ConnectionLostError):
        await task


async def test_a_cancelled_wait_for_a_short_action_is_forgotten(
    service: SocketService, socket: JobSocket
) -> None:
    """The action is not sent again, nor its answer kept."""
    service.mute.add("echo")
    task = running(socket.request("echo", id="e1"))
    await service.until(lambda: service.sent("echo"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await service.cut()
    await service.connected(2)
    service.mute.clear()
    await service.say({"type": "response", "request_id": "e1", "data": {}, "timestamp": TIME})
    await socket.request("echo", id="e2")
    assert [message["id"] for message in service.sent("echo")] == ["e1", "e2"]
    await socket.close()
    assert await collect(socket) == []


async def test_the_inbox_keeps_only_the_newest_unread_messages(
    service: SocketService, open_socket: Opener
) -> None:
    async with open_socket(max_pending=5) as socket:
        for number in range(20):
            await service.say({"type": "hint", "n": number})
        await socket.request("echo")
        kept = [await anext(socket) for _ in range(5)]
    numbers = [message.data["n"] for message in kept if isinstance(message, UnknownMessage)]
    assert numbers == [15, 16, 17, 18, 19]


async def test_a_socket_can_be_entered_only_once(socket: JobSocket) -> None:
    with pytest.raises(RuntimeError):
        await socket.__aenter__()


async def test_the_token_is_not_logged_at_debug_level(
    service: SocketService, open_socket: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by the client nor by the library below."""
    caplog.set_level(logging.DEBUG, logger="websockets.client")
    caplog.set_level(logging.DEBUG)
    async with open_socket("s3cret") as socket:
        await socket.request("echo")
    client_lines = [each.getMessage() for each in caplog.records if "server" not in each.name]
    assert not any("s3cret" in line for line in client_lines)


@pytest.mark.parametrize("seed", range(12))
async def test_each_request_gets_rising_numbers_and_one_end_under_faults(
    service: SocketService, open_socket: Opener, seed: int
) -> None:
    """Cuts, losses, repetitions and late copies, at random."""
    dice = random.Random(seed)
    async with open_socket() as socket:
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
        optional={
            "type": KINDS | JSON,
            "request_id": st.just("r1") | JSON,
            "seq": st.integers(-2, 5) | JSON,
            "timestamp": st.just(TIME) | JSON,
            "data": JSON,
            "result": JSON,
            "error": st.fixed_dictionaries({"code": st.text(max_size=5)}) | JSON,
            "status": JSON,
            "percentage": JSON,
            "message": JSON,
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
    """A frame that is not a message is ignored or passed on."""
    message = parse_message(raw)
    assert message is None or isinstance(message, UnknownMessage | ResponseMessage | ErrorMessage)
