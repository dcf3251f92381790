"""One user's session with the WebSocket API, held together over many connections."""

import asyncio
import contextlib
import inspect
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from jobplane_client._answers import retry_after_seconds
from jobplane_client._errors import (
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    JobplaneError,
    RateLimitedError,
    RefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from jobplane_client._protocol import (
    PING,
    Message,
    Reply,
    encode_request,
    is_end,
    is_gateway_error,
    is_unauthorized,
    parse_message,
    result_of,
    stored_messages,
)
from jobplane_keys import (
    RETRYABLE_CODES,
    TERMINAL_STATUSES,
    ErrorCode,
    iso_time,
    new_request_id,
)
from jobplane_models.messages import (
    AcknowledgmentMessage,
    CompleteMessage,
    ErrorBody,
    ErrorMessage,
    PingMessage,
    PongMessage,
    ProgressMessage,
    ResponseMessage,
)

# API Gateway's limit on the frames that a message travels in.
_MAX_FRAME_BYTES = 32 * 1024

_HEALTHY_SECONDS = 60.0
_BACKOFF_BASE_SECONDS = 1.0
_BACKOFF_MAX_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_FIRST_FAILURES = 3
_REFUSAL_RETRIES = 5
_REMEMBERED_ENDS = 10_000
_MESSAGE_TOO_BIG = 1009

_NEW_REQUEST = ("queued", "PENDING")

_HANDSHAKE_REFUSALS: Mapping[int, type[RefusedError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    429: RateLimitedError,
}

# websockets logs the URL at debug level, and the token is in the URL.
_wire_logger = logging.getLogger("jobplane_client.wire")
_wire_logger.setLevel(logging.WARNING)

type Token = str | Callable[[], str | Awaitable[str]]
type OnProgress = Callable[[ProgressMessage], object]


class _Listener:
    """Where the messages of one request go while somebody follows it."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = deque(messages)
        self.arrived = asyncio.Event()

    def put(self, message: Message) -> None:
        self.messages.append(message)
        self.arrived.set()


@dataclass(slots=True, eq=False)
class _Request:
    """One request that has not ended; `frame` is None for one that is only listened to."""

    id: str
    action: str | None
    frame: str | None
    subscription: dict[str, Any]
    acknowledged: bool = False
    # The caller had the acknowledgement; progress may overtake it.
    told: bool = False
    # The connection it was last sent or subscribed on; 0 when that is to be done again.
    sent_on: int = 0
    # The id is the caller's: another process may have sent it before.
    named: bool = False
    # It went out more than once: another connection may hold it on the server.
    doubtful: bool = False
    # Lower than any seq, so that a count from 0 works as well as one from 1.
    last_seq: int = -1
    quiet: bool = False
    retries: int = 0
    # It is about to be sent again.
    waiting: bool = False
    expired: bool = False
    listeners: list[_Listener] = field(default_factory=list)


class JobSocket:
    """Sends work to Jobplane and hears of its progress and its end.

        async with JobSocket(url, token) as socket:
            result = await socket.run("delay", {"seconds": 2})

    `token` is a JWT, or a function (a coroutine function as well) that returns a fresh one for
    each connection. The connection is opened again when it is lost and before it is `max_age`
    seconds old: requests that were not acknowledged are sent again under the same id, which makes
    no second job, and the others are resumed where they stood. Each request ends with one message.
    To the service every new connection ends the one before: a request sent with the metadata
    `{"on_disconnect": "cancel"}` does not outlive its connection.

    Every `ping_every` seconds a ping keeps the connection from being closed as idle; without an
    answer within `ping_timeout` it is taken for lost. After `max_failures` failed attempts in a
    row, or a token that is refused, everything that waits on the socket raises.

    Messages that are not followed are kept for `async for message in socket`, the newest
    `max_pending` of them. `sleep` and `clock` are how time is passed and read.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        ping_every: float = 240.0,
        ping_timeout: float = 30.0,
        max_age: float = 110 * 60.0,
        open_timeout: float = 10.0,
        max_failures: int = 10,
        max_pending: int = 10_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._token = token
        self._ping_every = ping_every
        self._ping_timeout = ping_timeout
        self._max_age = max_age
        self._open_timeout = open_timeout
        self._max_failures = max_failures
        self._sleep = sleep
        self._clock = clock

        self._open: dict[str, _Request] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._subscribing: dict[str, str] = {}
        self._inbox: deque[Message] = deque(maxlen=max_pending)
        self._arrived = asyncio.Event()

        self._connection: ClientConnection | None = None
        self._connections = 0
        self._connected = asyncio.Event()
        self._heard = 0
        self._healthy = False
        self._renewing = False
        self._closing = False
        self._failure: JobplaneError | None = None
        self._session: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises UnauthorizedError, ForbiddenError, RateLimitedError or another RefusedError when
        the handshake is refused, ConnectionLostError when there is no answer.
        """
        if self._session is not None:
            raise RuntimeError("a JobSocket is entered once")
        self._session = asyncio.create_task(self._live())
        try:
            await self._connected.wait()
        except asyncio.CancelledError:
            await self.close()
            raise
        if self._failure is not None:
            await self.close()
            raise self._failure
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Jobs continue; calls that wait raise ConnectionLostError."""
        self._closing = True
        self._fail(ConnectionLostError("the socket was closed"))
        tasks = [*self._background, *([self._session] if self._session else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send(
        self,
        action: str,
        payload: Mapping[str, Any] | None = None,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Send a request and return its id; while there is no connection it waits for one.

        An `id` of the caller's makes the request repeatable: the same id is the same job. Raises
        InvalidRequestError when the message is malformed or above 96 KB, ConflictError when the
        id belongs to another request of this socket.
        """
        request = self._register(action, payload, id, metadata)
        await self._flush()
        return request.id

    async def request(
        self,
        action: str,
        payload: Mapping[str, Any] | None = None,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Reply:
        """The data that an action answers at once; for a queued one, its acknowledgement.

        The reply is a dict, and its attribute `request_id` is the id of the request: what `follow`
        and the action `cancel` take. Raises the RefusedError or JobError that the service's error
        stands for.
        """
        request = self._register(action, payload, id, metadata)
        with self._listening(request) as listener:
            try:
                await self._flush()
                while True:
                    message = await self._next(listener)
                    if isinstance(message, AcknowledgmentMessage):
                        return Reply(request.id, message.model_dump(exclude={"type", "timestamp"}))
                    if is_end(message):
                        return Reply(request.id, result_of(message, action))
            except asyncio.CancelledError:
                self._end(request)
                raise

    async def run(
        self,
        action: str,
        payload: Mapping[str, Any] | None = None,
        *,
        on_progress: OnProgress | None = None,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The result of a job, once it has one; `on_progress` (a coroutine function as well) gets
        each ProgressMessage.

        Raises JobFailedError, JobCancelledError or JobTimeoutError when the job ends without a
        result, a RefusedError when it does not begin. Giving up waiting leaves the job running;
        `request("cancel", {"request_id": id})` ends it.
        """
        request = self._register(action, payload, id, metadata)
        with self._listening(request) as listener:
            await self._flush()
            while True:
                message = await self._next(listener)
                if isinstance(message, ProgressMessage) and on_progress is not None:
                    outcome = on_progress(message)
                    if inspect.isawaitable(outcome):
                        await outcome
                if is_end(message):
                    return result_of(message, action)

    async def follow(
        self, request_id: str, *, since_seq: int = 0, user_id: str | None = None
    ) -> AsyncIterator[Message]:
        """The messages of one request up to and including its last.

        A request that this socket did not send is subscribed to: messages up to `since_seq` are
        known, `user_id` names another member of the tenant. One whose last message was already
        delivered yields nothing.
        """
        request = self._open.get(request_id)
        if request is None and request_id in self._ended:
            for message in self._take(request_id):
                yield message
            return
        if request is None:
            self._check()
            request = self._watch(request_id, since_seq, {"user_id": user_id} if user_id else {})
        with self._listening(request) as listener:
            await self._flush()
            while True:
                message = await self._next(listener)
                yield message
                if is_end(message):
                    return

    def __aiter__(self) -> Self:
        """The messages that are not followed, until the socket is closed."""
        return self

    async def __anext__(self) -> Message:
        while not self._inbox:
            if self._closing:
                raise StopAsyncIteration
            self._check()
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    def _register(
        self,
        action: str,
        payload: Mapping[str, Any] | None,
        id: str | None,
        metadata: Mapping[str, str] | None,
    ) -> _Request:
        self._check()
        request_id = new_request_id(time.time()) if id is None else id
        frame = encode_request(request_id, action, payload or {}, metadata or {})
        known = self._open.get(request_id)
        if known is not None and known.frame is not None:
            if known.frame != frame:
                raise ConflictError(
                    f"the id {request_id} belongs to another request of this socket",
                    code=ErrorCode.DUPLICATE_REQUEST,
                    request_id=request_id,
                )
            return known
        self._ended.pop(request_id, None)
        request = _Request(request_id, action, frame, {}, named=id is not None)
        if known is not None:
            request.last_seq, request.listeners = known.last_seq, known.listeners
        self._open[request_id] = request
        if action == "subscribe" and isinstance(target := (payload or {}).get("request_id"), str):
            self._adopt(target, dict(payload or {}))
        return request

    def _adopt(self, target: str, subscription: dict[str, Any]) -> None:
        """Remember what the caller subscribed to by hand, for the connections to come."""
        if target not in self._open:
            self._ended.pop(target, None)
            since_seq = subscription.pop("since_seq", None)
            request = self._watch(target, since_seq or 0, subscription)
            request.sent_on = self._connections

    def _watch(self, request_id: str, since_seq: int, subscription: dict[str, Any]) -> _Request:
        request = _Request(request_id, None, None, subscription, acknowledged=True)
        request.last_seq = since_seq if since_seq > 0 else -1
        self._open[request_id] = request
        return request

    def _end(self, request: _Request) -> None:
        self._open.pop(request.id, None)
        self._ended[request.id] = None
        while len(self._ended) > _REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    @contextlib.contextmanager
    def _listening(self, request: _Request) -> Iterator[_Listener]:
        listener = _Listener(self._take(request.id))
        request.listeners.append(listener)
        try:
            yield listener
        finally:
            request.listeners.remove(listener)
            if not request.listeners:
                for message in listener.messages:
                    self._keep_for_anybody(message)

    def _take(self, request_id: str) -> list[Message]:
        taken = [message for message in self._inbox if message.request_id == request_id]
        if taken:
            rest = [message for message in self._inbox if message.request_id != request_id]
            self._inbox.clear()
            self._inbox.extend(rest)
        return taken

    async def _next(self, listener: _Listener) -> Message:
        while not listener.messages:
            self._check()
            listener.arrived.clear()
            await listener.arrived.wait()
        return listener.messages.popleft()

    def _keep_for_anybody(self, message: Message) -> None:
        self._inbox.append(message)
        self._arrived.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: JobplaneError) -> None:
        if self._failure is None:
            self._failure = error
        self._connected.set()
        self._arrived.set()
        for request in self._open.values():
            for listener in request.listeners:
                listener.arrived.set()

    async def _live(self) -> None:
        failures = 0
        try:
            while True:
                patience = 0.0
                try:
                    connection = await self._dial()
                except (RateLimitedError, ServiceUnavailableError) as error:
                    failures += 1
                    self._give_up(error, failures)
                    patience = error.retry_after or 0.0
                else:
                    await self._serve(connection)
                    failures = 0 if self._healthy else failures + 1
                    if failures > self._max_failures:
                        raise ConnectionLostError(f"the connection was lost {failures} times")
                    if self._renewing:
                        continue
                ceiling = min(_BACKOFF_BASE_SECONDS * 2 ** min(failures, 10), _BACKOFF_MAX_SECONDS)
                await self._sleep(max(patience, random.uniform(0, ceiling)))
        except JobplaneError as error:
            self._fail(error)
        except Exception as error:
            failure = ConnectionLostError("the session failed")
            failure.__cause__ = error
            self._fail(failure)

    def _give_up(self, error: RefusedError, failures: int) -> None:
        """Raise when there is no point in another attempt."""
        first = self._connections == 0
        if isinstance(error, RateLimitedError):
            if first or failures > self._max_failures:
                raise error
        elif failures > (min(self._max_failures, _FIRST_FAILURES) if first else self._max_failures):
            raise ConnectionLostError(
                f"no connection after {failures} attempts: {error}"
            ) from error

    async def _dial(self) -> ClientConnection:
        try:
            token = self._token if isinstance(self._token, str) else self._token()
            if inspect.isawaitable(token):
                token = await token
        except Exception as error:
            raise ServiceUnavailableError("the token function failed") from error
        try:
            return await connect(
                _with_token(self._url, token),
                open_timeout=self._open_timeout,
                close_timeout=_CLOSE_SECONDS,
                ping_interval=None,
                compression=None,
                logger=_wire_logger,
            )
        except InvalidStatus as error:
            raise _handshake_refusal(error) from error
        except InvalidURI:
            raise ConnectionLostError("the URL is not one of a WebSocket") from None
        except OSError as error:
            raise ServiceUnavailableError(f"the socket can't be opened: {error}") from error
        except (EOFError, WebSocketException) as error:
            raise ServiceUnavailableError("the socket can't be opened") from error

    async def _serve(self, connection: ClientConnection) -> None:
        """Work on one connection until it is gone."""
        self._connections += 1
        self._healthy = self._renewing = False
        self._subscribing.clear()
        self._connection = connection
        self._connected.set()
        born = self._clock()
        keeper = asyncio.create_task(self._keep(connection, born))
        try:
            while True:
                self._receive(await connection.recv())
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == _MESSAGE_TOO_BIG:
                self._refuse_largest()
        finally:
            self._connection = None
            self._healthy |= self._clock() - born >= _HEALTHY_SECONDS
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await connection.close()

    async def _keep(self, connection: ClientConnection, born: float) -> None:
        """Send what is due, keep the connection from idling, and end it when its time has come."""
        with contextlib.suppress(ConnectionClosed):
            await self._flush()
            while (left := born + self._max_age - self._clock()) > self._ping_every:
                await self._sleep(self._ping_every)
                heard = self._heard
                self._doubt_quiet_requests()
                await connection.send(PING)
                await self._flush()
                await self._sleep(self._ping_timeout)
                if self._heard == heard:
                    await connection.close()
                    return
            await self._sleep(max(left, 0))
            self._renewing = True
            await connection.close()

    def _doubt_quiet_requests(self) -> None:
        """Ask again for what was silent since last time: a message may have been lost."""
        for request in self._open.values():
            if request.quiet:
                request.sent_on = 0
                request.doubtful = True
            request.quiet = True

    def _refuse_largest(self) -> None:
        """The peer closed over a message that is too big: it must not be sent again."""
        sent = [
            request
            for request in self._open.values()
            if not request.acknowledged and request.sent_on == self._connections
        ]
        if sent:
            largest = max(sent, key=lambda request: len(request.frame or ""))
            self._finish(
                largest,
                ErrorBody.of(ErrorCode.PAYLOAD_TOO_LARGE, "the message is too large to be sent"),
            )

    async def _flush(self) -> None:
        """Send or subscribe to each open request that this connection has not seen."""
        connection, number = self._connection, self._connections
        if connection is None:
            return
        with contextlib.suppress(ConnectionClosed):
            for request in list(self._open.values()):
                if request.sent_on == number or request.id not in self._open:
                    continue
                if request.acknowledged or request.frame is None:
                    frame = self._subscription(request)
                else:
                    frame = request.frame
                    request.doubtful |= request.sent_on != 0
                request.sent_on = number
                await _transmit(connection, frame)

    def _subscription(self, request: _Request) -> str:
        subscription_id = new_request_id(time.time())
        self._subscribing[subscription_id] = request.id
        payload = {
            **request.subscription,
            "request_id": request.id,
            "since_seq": max(request.last_seq, 0),
        }
        return encode_request(subscription_id, "subscribe", payload, {})

    def _again(self, request: _Request, seconds: float) -> None:
        async def later() -> None:
            if seconds:
                await self._sleep(seconds)
            request.waiting = False
            request.sent_on = 0
            await self._flush()

        request.waiting = True
        task = asyncio.create_task(later())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _receive(self, raw: str | bytes) -> None:
        self._heard += 1
        message = parse_message(raw)
        if message is None:
            return
        if is_unauthorized(message) and self._reconnect_for(message):
            return
        if is_gateway_error(message) and self._ask_again():
            return
        self._healthy = True
        request_id = message.request_id
        if request_id is not None and request_id in self._subscribing:
            request = self._open.get(self._subscribing.pop(request_id))
            if request is not None:
                self._resume(request, message)
        elif isinstance(message, PongMessage) and request_id is None:
            for request in [each for each in self._open.values() if each.action == "ping"]:
                self._deliver(message.model_copy(update={"request_id": request.id}))
        elif isinstance(message, PongMessage) and request_id not in self._open:
            return
        elif not isinstance(message, PingMessage):
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        request_id = message.request_id
        if request_id is None:
            self._keep_for_anybody(message)
            return
        if request_id in self._ended:
            return
        request = self._open.get(request_id)
        if request is None:
            # Heard of it for the first time: resume it on later connections as well.
            request = self._watch(request_id, 0, {})
            request.sent_on = self._connections
        request.quiet = request.expired = False
        if isinstance(message, AcknowledgmentMessage):
            self._acknowledge(request, message)
            return
        if isinstance(message, ErrorMessage) and self._try_again(request, message):
            return
        if isinstance(message, ProgressMessage):
            if message.seq <= request.last_seq:
                return
            request.acknowledged = True
            request.last_seq = message.seq
        elif isinstance(message, CompleteMessage | ErrorMessage) and message.seq is not None:
            # An end is never dropped, whatever its number.
            seq = max(message.seq, request.last_seq + 1)
            message = message.model_copy(update={"seq": seq})
        self._hand_over(request, message)
        if is_end(message):
            self._end(request)
            self._note_subscription(request, message)

    def _acknowledge(self, request: _Request, message: AcknowledgmentMessage) -> None:
        if request.told:
            return
        request.told = request.acknowledged = True
        if request.named or request.doubtful or message.status not in _NEW_REQUEST:
            self._again(request, 0)
        self._hand_over(request, message)

    def _hand_over(self, request: _Request, message: Message) -> None:
        for listener in request.listeners:
            listener.put(message)
        if not request.listeners:
            self._keep_for_anybody(message)

    def _finish(self, request: _Request, error: ErrorBody) -> None:
        self._deliver(
            ErrorMessage(request_id=request.id, timestamp=iso_time(time.time()), error=error)
        )

    def _try_again(self, request: _Request, message: ErrorMessage) -> bool:
        """Whether a refusal of something sent a second time is to be overcome: the first copy may
        well have been taken, so the refusal does not mean that the job failed.
        """
        error = message.error
        if (
            message.seq is not None
            or not request.doubtful
            or error.code not in RETRYABLE_CODES
            or request.retries >= _REFUSAL_RETRIES
        ):
            return False
        request.retries += 1
        self._again(request, (error.retry_after_ms or 1000 * 2**request.retries) / 1000)
        return True

    def _resume(self, request: _Request, message: Message) -> None:
        """Catch up with the state that a subscription answered."""
        request.quiet = False
        match message:
            case ResponseMessage(data=state):
                request.retries = 0
                request.expired = False
                for caught_up in stored_messages(request.id, state, request.last_seq):
                    self._deliver(caught_up)
            case ErrorMessage():
                request.doubtful = True
                self._deliver(message.model_copy(update={"request_id": request.id}))

    def _ask_again(self) -> bool:
        """Send again all that is unanswered, since API Gateway does not say what failed; whether
        there was anything. The same id makes no second job.
        """
        subscribing = set(self._subscribing.values())
        unanswered = [
            request
            for request in self._open.values()
            if request.sent_on == self._connections
            and (not request.acknowledged or request.id in subscribing)
        ]
        for request in unanswered:
            if request.waiting:
                continue
            request.doubtful = True
            if request.retries < _REFUSAL_RETRIES:
                ceiling = _BACKOFF_BASE_SECONDS * 2**request.retries
                request.retries += 1
                self._again(request, random.uniform(0, ceiling))
            elif not request.acknowledged:
                failed = f"the service failed {request.retries + 1} times"
                self._finish(request, ErrorBody.of(ErrorCode.SERVICE_UNAVAILABLE, failed))
        return bool(unanswered)

    def _reconnect_for(self, message: ErrorMessage) -> bool:
        """An expired token: the next connection has a new one, and the request is sent there."""
        request_id = self._subscribing.get(message.request_id or "", message.request_id)
        request = self._open.get(request_id or "")
        if request is not None:
            if request.expired:
                return False
            request.expired = True
            request.sent_on = 0
        connection = self._connection
        if connection is not None:
            task = asyncio.create_task(connection.close())
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return True

    def _note_subscription(self, request: _Request, message: Message) -> None:
        """What the caller subscribed to by hand may have ended already."""
        if request.action == "subscribe" and isinstance(message, ResponseMessage):
            target = self._open.get(str(message.data.get("request_id")))
            if target is not None and message.data.get("status") in tuple(TERMINAL_STATUSES):
                self._end(target)


async def _transmit(connection: ClientConnection, frame: str) -> None:
    data = frame.encode()
    if len(data) <= _MAX_FRAME_BYTES:
        await connection.send(frame)
    else:
        parts = [data[at : at + _MAX_FRAME_BYTES] for at in range(0, len(data), _MAX_FRAME_BYTES)]
        await connection.send(parts, text=True)


def _with_token(url: str, token: str) -> str:
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), ("Authorization", token)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _handshake_refusal(error: InvalidStatus) -> RefusedError:
    status = error.response.status_code
    kind = _HANDSHAKE_REFUSALS.get(status, RefusedError)
    if status >= 500:
        kind = ServiceUnavailableError
    return kind(
        f"the handshake was refused with {status}",
        status_code=status,
        retry_after=retry_after_seconds(error.response.headers.get("Retry-After")),
    )
