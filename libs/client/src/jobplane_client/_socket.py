"""One user's session with the WebSocket API, over any number of connections."""

import asyncio
import base64
import contextlib
import inspect
import json
import logging
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import ValidationError
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
    InvalidRequestError,
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
    instruct_payload,
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
    EventMessage,
    PingMessage,
    PongMessage,
    ProgressMessage,
    ResponseMessage,
)

if TYPE_CHECKING:
    from jobplane_client._assembling import AssembleOptions
    from jobplane_client._sources import File
    from jobplane_models.assemblies import AssemblyDocument

# API Gateway's limit for one frame; a larger message is sent in several.
_MAX_FRAME_BYTES = 32 * 1024

_HEALTHY_SECONDS = 60.0
_BACKOFF_BASE_SECONDS = 1.0
_BACKOFF_MAX_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_FIRST_FAILURES = 3
_REFUSAL_RETRIES = 5
_REMEMBERED_ENDS = 10_000
_EVENTS_AHEAD = 1000
_MESSAGE_TOO_BIG = 1009
# Of the time that a token is good for, when a newer one is sent.
_TOKEN_SHARE = 0.9

_NEW_REQUEST = ("queued", "scheduled", "PENDING")
# Their payload may be an object in the service's bucket.
_STORED_PAYLOADS = ("create_upload", "process_assembly")

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
type OnEvent = Callable[[Any], object]


class _Listener:
    """The queue of one caller that waits for the messages of a request."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = deque(messages)
        self.arrived = asyncio.Event()

    def put(self, message: Message) -> None:
        self.messages.append(message)
        self.arrived.set()


@dataclass(slots=True, eq=False)
class _Request:
    """One request that has not ended; `frame` is None for one that is only subscribed to."""

    id: str
    action: str | None
    frame: str | None
    subscription: dict[str, Any]
    acknowledged: bool = False
    # The caller has received the acknowledgement; progress may come before it.
    acknowledgement_passed_on: bool = False
    # The number of the connection on which it was last sent or subscribed to; 0: send it again.
    sent_on: int = 0
    # The caller chose the id: another process may have sent it before.
    named: bool = False
    # Sent more than once: on the server it may belong to another connection.
    sent_again: bool = False
    # Lower than every seq, whether a service counts from 0 or from 1.
    last_seq: int = -1
    # The number of the last event that was passed on, and later ones that wait for those before.
    last_event: int = 0
    # So many events the service is known to have; one that knows none refuses `since_event`.
    known_events: int = 0
    wants_events: bool = True
    ahead: dict[int, EventMessage] = field(default_factory=dict)
    # No message of it has arrived since the last ping.
    quiet: bool = False
    retries: int = 0
    # A task will send it again after a delay.
    waiting: bool = False
    expired: bool = False
    listeners: list[_Listener] = field(default_factory=list)

    @property
    def misses_events(self) -> bool:
        return self.wants_events and self.known_events > self.last_event


class JobSocket:
    """Sends jobs to Jobplane and receives their progress and results.

        async with JobSocket(url, token) as socket:
            result = await socket.run("delay", {"seconds": 2})

    `token` is a JWT, or a function (also a coroutine function) that returns a new one. It is called
    for each connection, and before a token expires: the connection goes on with the newer token.
    The connection is opened again when it is lost and before it is `max_age` seconds old. Requests
    without an acknowledgement are then sent again with the same id, so no second job begins; for
    the others the socket asks for the messages that it has missed. Each request ends with exactly
    one message. For the service a new connection is a disconnect of the previous one: a request
    with the metadata `{"on_disconnect": "cancel"}` is cancelled by it.

    A ping every `ping_every` seconds keeps the connection from being closed as idle. Without an
    answer within `ping_timeout` seconds the connection is treated as lost. After `max_failures`
    failed attempts in a row, or when the token is refused, all calls that wait raise an error.

    The newest `max_pending` messages of requests that no call waits for are kept for
    `async for message in socket`. `open_timeout` is the limit of a handshake in seconds. `sleep`
    and `clock` replace asyncio.sleep and time.monotonic in tests.
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
        self._token_end = math.inf
        self._renewal: tuple[str, asyncio.Future[Message]] | None = None
        self._connected = asyncio.Event()
        self._received = 0
        self._healthy = False
        self._renewing = False
        self._closing = False
        self._failure: JobplaneError | None = None
        self._session: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises UnauthorizedError, ForbiddenError, RateLimitedError or another RefusedError when
        the handshake is refused, ConnectionLostError when the service can't be reached, and
        RuntimeError when the socket was entered before.
        """
        if self._session is not None:
            raise RuntimeError("a JobSocket can be entered only once; create a new one")
        self._session = asyncio.create_task(self._run_session())
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
        """Close the connection. Jobs continue; waiting calls raise ConnectionLostError."""
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
        """Send a request and return its id. Without a connection it is sent on the next one.

        With an `id` of your own a request can be repeated: one id makes one job. Raises
        InvalidRequestError when the message is malformed or larger than 96 KB, ConflictError when
        this socket has another open request with the id.

        A larger payload of `create_upload` or `process_assembly` (at most 2 MB) is uploaded first;
        this raises what `request` raises, and an UploadError.
        """
        request = await self._prepare(action, payload, id, metadata)
        await self._flush()
        return request.id

    async def request(
        self,
        action: str,
        payload: Mapping[str, Any] | None = None,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request and return the answer of a short action, or a job's acknowledgement.

        The reply is a dict. Its attribute `request_id` is the id to use with `follow` and with the
        action `cancel`. Raises a RefusedError or JobError for an error of the service, and what
        `send` raises.
        """
        request = await self._prepare(action, payload, id, metadata)
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
        on_event: OnEvent | None = None,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a job and return its result when it has ended.

        `on_progress` (also a coroutine function) is called with each ProgressMessage, `on_event`
        with each event that the job emits: all of them, in order, once. Raises
        JobFailedError, JobCancelledError or JobTimeoutError when the job ends without a result,
        and a RefusedError when it does not begin. When this call is cancelled, the job continues;
        `request("cancel", {"request_id": id})` cancels it.
        """
        known = self._open.get(id or "")
        request = await self._prepare(action, payload, id, metadata)
        # Without a listener for them, events are not asked for.
        request.wants_events = on_event is not None or (known is not None and known.wants_events)
        with self._listening(request) as listener:
            await self._flush()
            while True:
                message = await self._next(listener)
                if isinstance(message, ProgressMessage) and on_progress is not None:
                    outcome = on_progress(message)
                    if inspect.isawaitable(outcome):
                        await outcome
                if isinstance(message, EventMessage) and on_event is not None:
                    for event in message.events:
                        outcome = on_event(event)
                        if inspect.isawaitable(outcome):
                            await outcome
                if is_end(message):
                    return result_of(message, action)

    async def instruct(
        self,
        project: str,
        thread: str,
        instruction: Any,
        *,
        attachments: Sequence[str] = (),
        on_progress: OnProgress | None = None,
        on_event: OnEvent | None = None,
        id: str | None = None,
    ) -> dict[str, Any]:
        """Have the worker of the user's workspace of a project do something, and return how it
        ended: `{"outcome": "Completed", "result"}`, `{"outcome": "Completed", "result_url"}`, or
        `{"outcome": "Joined", "request_id"}` if another job of the thread has the instruction.

        `attachments` are keys of the user's uploads. Raises what `run` raises: JobFailedError with
        the code INTERRUPTED when a job of another thread took the workspace.
        """
        payload = instruct_payload(project, thread, instruction, attachments)
        return await self.run(
            "instruct", payload, on_progress=on_progress, on_event=on_event, id=id
        )

    async def return_callback(
        self, token: str, *, result: Any = None, error: str | None = None
    ) -> None:
        """Give a job the answer that it waits for: the token's `result`, a JSON value, or an
        `error`.

        Raises ConflictError if the token was returned before, or the job does not wait for it any
        more, NotFoundError if it is unknown, and what `request` raises.
        """
        answer = {"result": result} if error is None else {"error": error}
        await self.request("callback", {"token": token, **answer})

    async def follow(
        self,
        request_id: str,
        *,
        since_seq: int = 0,
        since_event: int = 0,
        user_id: str | None = None,
    ) -> AsyncIterator[Message]:
        """Yield the messages of one request, up to and including the last one.

        If this socket did not send the request, it subscribes to it: `since_seq` leaves out the
        messages up to that number, `since_event` the events; `user_id` is the request's owner, if
        that is another user of the tenant. Yields nothing when the last message was already
        delivered. Raises the errors of `send`.
        """
        request = self._open.get(request_id)
        if request is None and request_id in self._ended:
            for message in self._take(request_id):
                yield message
            return
        if request is None:
            self._check()
            request = self._watch(request_id, since_seq, {"user_id": user_id} if user_id else {})
            request.last_event = since_event
        with self._listening(request) as listener:
            await self._flush()
            while True:
                message = await self._next(listener)
                yield message
                if is_end(message):
                    return

    async def assemble(
        self,
        files: "Sequence[File]",
        template: str,
        *,
        api_url: str,
        **options: "Unpack[AssembleOptions]",
    ) -> "AssemblyDocument":
        """Upload files, run a template over them, and return the assembly's document.

        A file is a path, or `(name, path or bytes)`. Large ones go in parts by the HTTP API at
        `api_url`, several at a time, each with its MD5. When this fails or is cancelled, these
        uploads are aborted, unless the option `resume` keeps them for a later call.
        Files that have their result already, as they are, are not sent again.

        Raises UnreadableFileError, ChangedFileError, UploadRefusedError or UploadFailedError,
        which name the file, and what `request` and `run` raise.
        """
        from jobplane_client._assembling import assembled

        return await assembled(self, self._token, files, template, api_url, options, self._sleep)

    def __aiter__(self) -> Self:
        """Iterate over the messages that no call waits for, until the socket is closed."""
        return self

    async def __anext__(self) -> Message:
        while not self._inbox:
            if self._closing:
                raise StopAsyncIteration
            self._check()
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    async def _prepare(
        self,
        action: str,
        payload: Mapping[str, Any] | None,
        id: str | None,
        metadata: Mapping[str, str] | None,
    ) -> _Request:
        """Register a request, after its payload was uploaded if no message can carry it."""
        try:
            return self._register(action, payload, id, metadata)
        except InvalidRequestError as error:
            if error.code != ErrorCode.PAYLOAD_TOO_LARGE or action not in _STORED_PAYLOADS:
                raise
        from jobplane_client._assembling import stored_payload

        stored = await stored_payload(self, action, payload or {})
        return self._register(action, stored, id, metadata)

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
            for name in ("last_seq", "listeners", "last_event", "known_events", "ahead"):
                setattr(request, name, getattr(known, name))
        self._open[request_id] = request
        if action == "subscribe" and isinstance(target := (payload or {}).get("request_id"), str):
            self._adopt(target, dict(payload or {}))
        return request

    def _adopt(self, target: str, subscription: dict[str, Any]) -> None:
        """Subscribe on later connections, too, to what the caller subscribed to by a request."""
        if target not in self._open:
            self._ended.pop(target, None)
            since_seq = subscription.pop("since_seq", None)
            since_event = subscription.pop("since_event", None)
            request = self._watch(target, since_seq or 0, subscription)
            request.last_event, request.wants_events = since_event or 0, since_event is not None
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
                    self._keep_for_iteration(message)

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

    def _keep_for_iteration(self, message: Message) -> None:
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

    async def _run_session(self) -> None:
        failures = 0
        try:
            while True:
                patience = 0.0
                try:
                    connection = await self._open_connection()
                except (RateLimitedError, ServiceUnavailableError) as error:
                    failures += 1
                    self._give_up(error, failures)
                    patience = error.retry_after or 0.0
                else:
                    await self._receive_all(connection)
                    failures = 0 if self._healthy else failures + 1
                    if failures > self._max_failures:
                        raise ConnectionLostError(
                            f"gave up after the connection was lost {failures} times in a row"
                        )
                    if self._renewing:
                        continue
                ceiling = min(_BACKOFF_BASE_SECONDS * 2 ** min(failures, 10), _BACKOFF_MAX_SECONDS)
                await self._sleep(max(patience, random.uniform(0, ceiling)))
        except JobplaneError as error:
            self._fail(error)
        except Exception as error:
            failure = ConnectionLostError("the socket's background task failed")
            failure.__cause__ = error
            self._fail(failure)

    def _give_up(self, error: RefusedError, failures: int) -> None:
        """Raise the error when there are no attempts left."""
        first = self._connections == 0
        if isinstance(error, RateLimitedError):
            if first or failures > self._max_failures:
                raise error
        elif failures > (min(self._max_failures, _FIRST_FAILURES) if first else self._max_failures):
            raise ConnectionLostError(
                f"no connection after {failures} attempts: {error}"
            ) from error

    async def _new_token(self) -> str:
        try:
            token = self._token if isinstance(self._token, str) else self._token()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            raise ServiceUnavailableError("the token function failed") from error

    async def _open_connection(self) -> ClientConnection:
        token = await self._new_token()
        self._token_end = math.inf if isinstance(self._token, str) else _expiry_of(token)
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
            raise ConnectionLostError(
                "the URL is not a WebSocket URL; it must begin with wss:// or ws://"
            ) from None
        except OSError as error:
            raise ServiceUnavailableError(f"the connection can't be opened: {error}") from error
        except (EOFError, WebSocketException) as error:
            raise ServiceUnavailableError("the connection can't be opened") from error

    async def _receive_all(self, connection: ClientConnection) -> None:
        """Receive on one connection until it is closed."""
        self._connections += 1
        self._healthy = self._renewing = False
        self._subscribing.clear()
        self._connection = connection
        self._connected.set()
        opened = self._clock()
        keepers = [
            asyncio.create_task(self._keep_alive(connection, opened)),
            asyncio.create_task(self._keep_authenticated(connection)),
        ]
        try:
            while True:
                self._receive(await connection.recv())
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == _MESSAGE_TOO_BIG:
                self._refuse_largest()
        finally:
            self._connection = None
            self._healthy |= self._clock() - opened >= _HEALTHY_SECONDS
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await _close(connection)

    async def _keep_alive(self, connection: ClientConnection, opened: float) -> None:
        """Send the waiting requests, ping, and close the connection at its maximum age.

        Sends are tasks of their own: on a lost connection with full buffers they don't return.
        """
        self._start(self._flush())
        with contextlib.suppress(ConnectionClosed):
            while (left := opened + self._max_age - self._clock()) > self._ping_every:
                await self._sleep(self._ping_every)
                heard = self._received
                self._resend_quiet_requests()
                self._start(self._ping(connection))
                await self._sleep(self._ping_timeout)
                if self._received == heard:
                    await _close(connection)
                    return
            await self._sleep(max(left, 0))
            self._renewing = True
            await _close(connection)

    async def _keep_authenticated(self, connection: ClientConnection) -> None:
        """Send a newer token before the present one expires; if it is refused, connect again."""
        while 0 < (left := self._token_end - time.time()) < math.inf:
            await self._sleep(max(left * _TOKEN_SHARE, 1.0))
            try:
                token = await self._new_token()
            except ServiceUnavailableError:
                continue
            renewal = new_request_id(time.time()), asyncio.get_running_loop().create_future()
            self._renewal = renewal
            frame = encode_request(renewal[0], "authenticate", {"token": token}, {})
            try:
                await _transmit(connection, frame)
                answer = await asyncio.wait_for(renewal[1], self._ping_timeout)
            except (ConnectionClosed, TimeoutError):
                answer = None
            if not isinstance(answer, ResponseMessage):
                self._renewing = True
                await _close(connection)
                return
            self._token_end = _expiry_of(token)

    async def _ping(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await connection.send(PING)
            await self._flush()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that ends with the socket."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _resend_quiet_requests(self) -> None:
        """Send again what got no message since the last ping: one may have been lost."""
        for request in self._open.values():
            if request.quiet:
                request.sent_on = 0
                request.sent_again = True
            request.quiet = True

    def _refuse_largest(self) -> None:
        """Fail the largest request: API Gateway closed the connection because of its size."""
        sent = [
            request
            for request in self._open.values()
            if not request.acknowledged and request.sent_on == self._connections
        ]
        if sent:
            largest = max(sent, key=lambda request: len(request.frame or ""))
            self._finish(
                largest,
                ErrorBody.of(ErrorCode.PAYLOAD_TOO_LARGE, "the message is too large"),
            )

    async def _flush(self) -> None:
        """Send, or subscribe to, each open request that was not yet sent on this connection."""
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
                    request.sent_again |= request.sent_on != 0
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
        if request.wants_events and request.known_events:
            payload["since_event"] = request.last_event
        return encode_request(subscription_id, "subscribe", payload, {})

    def _resend(self, request: _Request, seconds: float) -> None:
        async def later() -> None:
            if seconds:
                await self._sleep(seconds)
            request.waiting = False
            request.sent_on = 0
            await self._flush()

        request.waiting = True
        self._start(later())

    def _answers_renewal(self, message: Message) -> bool:
        """Whether a message answers the newest `authenticate`, which waits for it."""
        if self._renewal is None or message.request_id != self._renewal[0]:
            return False
        if not self._renewal[1].done():
            self._renewal[1].set_result(message)
        return True

    def _receive(self, raw: str | bytes) -> None:
        self._received += 1
        message = parse_message(raw)
        if message is None or self._answers_renewal(message):
            return
        if is_unauthorized(message) and self._reconnect_for(message):
            return
        if is_gateway_error(message) and self._retry_unanswered():
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
            self._keep_for_iteration(message)
            return
        if request_id in self._ended:
            return
        request = self._open.get(request_id)
        if request is None:
            # Its first message on this socket: subscribe to it on later connections, too.
            request = self._watch(request_id, 0, {})
            request.sent_on = self._connections
        request.quiet = request.expired = False
        if isinstance(message, AcknowledgmentMessage):
            self._acknowledge(request, message)
            return
        if isinstance(message, ErrorMessage) and self._retry_refused(request, message):
            return
        if isinstance(message, EventMessage):
            self._receive_events(request, message)
        else:
            self._deliver_in_order(request, message)

    def _deliver_in_order(self, request: _Request, message: Message) -> None:
        if isinstance(message, ProgressMessage):
            if message.seq <= request.last_seq:
                return
            request.acknowledged = True
            request.last_seq = message.seq
        elif isinstance(message, CompleteMessage | ErrorMessage) and message.seq is not None:
            request.known_events = max(request.known_events, message.event_count or 0)
            if request.misses_events:
                # The answer to a subscription has the events first, and then the end.
                self._ask_for_events(request)
                return
            # The last message is always passed on, even if its number is too small.
            seq = max(message.seq, request.last_seq + 1)
            message = message.model_copy(update={"seq": seq})
        self._pass_on(request, message)
        if is_end(message):
            self._end(request)
            self._note_subscription(request, message)

    def _receive_events(self, request: _Request, message: EventMessage) -> None:
        """Pass on events that follow those before; keep later ones, and ask for what is missing."""
        request.acknowledged = True
        end = message.first + len(message.events) - 1
        request.known_events = max(request.known_events, end)
        if not request.wants_events:
            self._pass_on(request, message)
            return
        if message.first > request.last_event + 1 and not message.gap:
            if len(request.ahead) < _EVENTS_AHEAD:
                request.ahead[message.first] = message
            self._ask_for_events(request)
            return
        known = max(0, request.last_event + 1 - message.first)
        if len(message.events) > known:
            first, events = message.first + known, message.events[known:]
            request.last_event = first + len(events) - 1
            self._pass_on(request, message.model_copy(update={"first": first, "events": events}))
        for number in sorted(request.ahead):
            if number <= request.last_event + 1:
                self._receive_events(request, request.ahead.pop(number))
                return

    def _ask_for_events(self, request: _Request) -> None:
        """Subscribe again, if no subscription is under way."""
        request.acknowledged = True
        if not request.waiting and request.id not in self._subscribing.values():
            self._resend(request, 0)

    def _acknowledge(self, request: _Request, message: AcknowledgmentMessage) -> None:
        if request.acknowledgement_passed_on:
            return
        request.acknowledgement_passed_on = request.acknowledged = True
        if request.named or request.sent_again or message.status not in _NEW_REQUEST:
            self._resend(request, 0)
        self._pass_on(request, message)

    def _pass_on(self, request: _Request, message: Message) -> None:
        for listener in request.listeners:
            listener.put(message)
        if not request.listeners:
            self._keep_for_iteration(message)

    def _finish(self, request: _Request, error: ErrorBody) -> None:
        self._deliver(
            ErrorMessage(request_id=request.id, timestamp=iso_time(time.time()), error=error)
        )

    def _retry_refused(self, request: _Request, message: ErrorMessage) -> bool:
        """Send a refused request again if it was sent before; return whether it is.

        The service may have accepted the first copy, so the refusal does not mean that the job
        failed.
        """
        error = message.error
        if (
            message.seq is not None
            or not request.sent_again
            or error.code not in RETRYABLE_CODES
            or request.retries >= _REFUSAL_RETRIES
        ):
            return False
        request.retries += 1
        self._resend(request, (error.retry_after_ms or 1000 * 2**request.retries) / 1000)
        return True

    def _resume(self, request: _Request, message: Message) -> None:
        """Deliver the messages that were missed, from the state that a subscription returns."""
        request.quiet = False
        match message:
            case ResponseMessage(data=state):
                request.retries = 0
                request.expired = False
                if self._catch_up(request, state):
                    return
                for caught_up in stored_messages(request.id, state, request.last_seq):
                    self._deliver(caught_up)
            case ErrorMessage():
                request.sent_again = True
                self._deliver(message.model_copy(update={"request_id": request.id}))

    def _catch_up(self, request: _Request, state: Mapping[str, Any]) -> bool:
        """Deliver the events of an answer; return whether others are missing, and asked for."""
        before, asked = request.last_event, request.known_events > 0
        if isinstance(count := state.get("event_count"), int):
            request.known_events = max(request.known_events, count)
        if request.wants_events and isinstance(page := state.get("events"), Mapping):
            head = {"request_id": request.id, "timestamp": iso_time(time.time())}
            with contextlib.suppress(ValidationError):
                message = EventMessage.model_validate({**page, **head, "type": "event"})
                if message.gap and not message.events and message.first > request.last_event + 1:
                    request.last_event = message.first - 1
                    self._pass_on(request, message)
                self._receive_events(request, message)
        if request.misses_events and not request.waiting:
            # Without any in the answer, the next one may have some later.
            self._resend(request, 1.0 if asked and request.last_event == before else 0)
        return request.misses_events

    def _retry_unanswered(self) -> bool:
        """Send again what has no answer, as API Gateway does not name the failed message.

        Returns whether there was such a request. One id makes one job.
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
            request.sent_again = True
            if request.retries < _REFUSAL_RETRIES:
                ceiling = _BACKOFF_BASE_SECONDS * 2**request.retries
                request.retries += 1
                self._resend(request, random.uniform(0, ceiling))
            elif not request.acknowledged:
                failed = f"the service failed {request.retries + 1} times"
                self._finish(request, ErrorBody.of(ErrorCode.SERVICE_UNAVAILABLE, failed))
        return bool(unanswered)

    def _reconnect_for(self, message: ErrorMessage) -> bool:
        """After a refused token, reconnect with a new one; False if that was tried before."""
        request_id = self._subscribing.get(message.request_id or "", message.request_id)
        request = self._open.get(request_id or "")
        if request is not None:
            if request.expired:
                return False
            request.expired = True
            request.sent_on = 0
        connection = self._connection
        if connection is not None:
            self._start(_close(connection))
        return True

    def _note_subscription(self, request: _Request, message: Message) -> None:
        """End the target of a caller's subscription if the answer says that it has ended."""
        if request.action == "subscribe" and isinstance(message, ResponseMessage):
            target = self._open.get(str(message.data.get("request_id")))
            if target is not None and message.data.get("status") in tuple(TERMINAL_STATUSES):
                self._end(target)


async def _close(connection: ClientConnection) -> None:
    """Close a connection in seconds, even if the service reads nothing any more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close()
    connection.transport.abort()


async def _transmit(connection: ClientConnection, frame: str) -> None:
    data = frame.encode()
    if len(data) <= _MAX_FRAME_BYTES:
        await connection.send(frame)
    else:
        parts = [data[at : at + _MAX_FRAME_BYTES] for at in range(0, len(data), _MAX_FRAME_BYTES)]
        await connection.send(parts, text=True)


def _expiry_of(token: str) -> float:
    """When a JWT expires, in epoch seconds; infinity for another token."""
    try:
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return math.inf


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
