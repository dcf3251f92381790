"""The clients of a load: many sockets in one process, each with its ledger."""

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from jobplane.bench._ledger import Entry, Hearing, Ledger
from jobplane_keys import new_request_id

OPEN_SECONDS = 60.0
ANSWER_SECONDS = 60.0
HANDSHAKE_TRIES = 3
TEMPLATE = "tpl_fingerprint"

# More than once only if router's workers are killed.
ASK_TRIES = 5
FAILED: dict[str, Any] = {}

type Advance = Callable[[str], None]
type Frame = dict[str, Any]


class RefusedError(Exception):
    """The stage answered a request with an error."""


@dataclass(eq=False)
class Member:
    """A user with a socket, which may be lost and opened again."""

    user: str
    url: str
    """The URL with the user's token."""
    gate: asyncio.Semaphore
    """Bounds how many handshakes and messages of the crowd wait for an answer at once."""
    ledger: Ledger
    handshakes: list[float] = field(default_factory=list)
    """Seconds that each handshake took."""
    refused: Counter[str] = field(default_factory=Counter)
    """Refused handshakes by answer."""
    reconnects: int = 0
    _connection: ClientConnection | None = None
    _reader: asyncio.Task[None] | None = None
    _questions: dict[str, asyncio.Future[Frame]] = field(default_factory=dict)
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self._reader is not None and not self._reader.done()

    async def open(self) -> None:
        """Connect; a refused handshake is counted and repeated."""
        async with self.gate:
            for tries_left in reversed(range(HANDSHAKE_TRIES)):
                began = time.monotonic()
                try:
                    connection = await connect(
                        self.url, compression=None, max_size=None, ping_interval=None,
                        open_timeout=OPEN_SECONDS, proxy=None,
                    )  # fmt: skip
                    break
                except (OSError, TimeoutError, InvalidHandshake) as error:
                    response = getattr(error, "response", None)
                    self.refused[str(getattr(response, "status_code", type(error).__name__))] += 1
                    if not tries_left:
                        raise
                    await asyncio.sleep(random.uniform(0.5, 1.5))
            self.handshakes.append(time.monotonic() - began)
            self._connection = connection
            self._reader = asyncio.create_task(self._read(connection))

    async def send(self, action: str, payload: Frame, *, is_job: bool, due: float) -> Entry:
        """Send a request, and wait for its acknowledgment or answer."""
        async with self.gate:
            now = time.monotonic()
            request_id = new_request_id(time.time())
            entry = Entry(request_id, action, payload, is_job, now, self.user, now - due)
            self.ledger.entries[entry.id] = entry
            await self._transmit(entry)
        return entry

    async def ask(self, action: str, payload: Frame) -> Frame:
        async with self.gate:
            question = new_request_id(time.time())
            answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
            self._questions[question] = answer
            try:
                for _ in range(ASK_TRIES):
                    await self._send({"id": question, "action": action, "payload": payload})
                    message = await asyncio.wait_for(asyncio.shield(answer), ANSWER_SECONDS)
                    if message is not FAILED:
                        break
                    answer = asyncio.get_running_loop().create_future()
                    self._questions[question] = answer
            finally:
                self._questions.pop(question, None)
        if message.get("type") not in ("response", "pong"):
            raise RefusedError(f"{self.user}: {action} was answered {message}")
        data: Frame = message.get("data", {})
        return data

    async def listen(self, owner: str, request_id: str) -> bool:
        """Subscribe to another user's request; whether it was still running."""
        # A message may come before the answer.
        self.ledger.hearings[request_id] = Hearing(0)
        state = await self.ask("subscribe", {"request_id": request_id, "user_id": owner})
        self.ledger.hearings[request_id].since = state["seq"]
        return bool(state["subscribed"])

    async def reconnect(self, *, abruptly: bool) -> None:
        """Lose the socket, open another, and resume the open requests."""
        await self.close(abruptly=abruptly)
        await self.open()
        self.reconnects += 1
        await self.resume()

    async def resume(self) -> None:
        """Send again what has no answer, and ask for the state of jobs that have no end."""
        for entry in self.ledger.open_entries():
            if entry.acknowledged is None:
                async with self.gate:
                    entry.sends += 1
                    await self._transmit(entry)
            if entry.is_job and entry.ended is None:
                known = entry.seq
                state = await self.ask("subscribe", {"request_id": entry.id})
                self.ledger.resume(entry.id, state, known, time.monotonic())
                self._settle(entry.id)

    async def ended(self, entry: Entry) -> None:
        if entry.ended is None:
            await asyncio.shield(self._future("end", entry))

    async def upload(self, http: httpx.AsyncClient, *contents: bytes) -> Frame:
        """Upload files; the payload of their `process_assembly`."""
        files = [
            {
                "name": f"load-{number}.txt",
                "size": len(content),
                "mime": "text/plain",
                "md5hash": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            }
            for number, content in enumerate(contents)
        ]
        ticket = await self.ask("create_upload", {"template_id": TEMPLATE, "files": files})
        uploads = []
        for file, content, target in zip(files, contents, ticket["uploads"], strict=True):
            done = await http.put(target["url"], content=content, headers=target["headers"])
            done.raise_for_status()
            uploads.append({**file, "key": target["key"]})
        return {"template_id": TEMPLATE, "uploads": uploads}

    async def close(self, *, abruptly: bool = False) -> None:
        """Close the socket, or drop the connection without closing it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if abruptly:
            connection.transport.abort()
        else:
            await connection.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _transmit(self, entry: Entry) -> None:
        """Send a request; if the socket is lost meanwhile, the next one sends it again."""
        answer = self._future("answer", entry)
        with suppress(ConnectionClosed, OSError):
            await self._send({"id": entry.id, "action": entry.action, "payload": entry.payload})
            await asyncio.wait_for(asyncio.shield(answer), ANSWER_SECONDS)
            while entry.acknowledged is None and entry.ended is None:
                await asyncio.sleep(0.1)
                answer = self._future("answer", entry)
                entry.sends += 1
                await self._send({"id": entry.id, "action": entry.action, "payload": entry.payload})
                await asyncio.wait_for(asyncio.shield(answer), ANSWER_SECONDS)

    def _future(self, what: str, entry: Entry) -> asyncio.Future[None]:
        new: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return self._waiting.setdefault(f"{what} {entry.id}", new)

    async def _send(self, frame: Frame) -> None:
        if self._connection is None:
            raise ConnectionError(f"{self.user} has no socket")
        await self._connection.send(json.dumps(frame, separators=(",", ":")))

    async def _read(self, connection: ClientConnection) -> None:
        try:
            async for text in connection:
                at = time.monotonic()
                message = json.loads(text)
                if "connectionId" in message:
                    # API Gateway's own answer: router has failed.
                    self._tell_of_failure()
                    continue
                request_id = str(message.get("request_id"))
                question = self._questions.get(request_id)
                if question is not None and not question.done() and "seq" not in message:
                    question.set_result(message)
                else:
                    self.ledger.hear(message, at)
                    self._settle(request_id)
        except ConnectionClosed:
            pass
        finally:
            if self._connection is connection:
                self.ledger.faults.append(f"{self.user}: the stage has closed the socket")
            self._give_up()

    def _tell_of_failure(self) -> None:
        """A message got no answer of router; which one, API Gateway does not say."""
        for question in self._questions.values():
            if not question.done():
                question.set_result(FAILED)
        for entry in self.ledger.open_entries():
            waiting = self._waiting.pop(f"answer {entry.id}", None)
            if entry.acknowledged is None and waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _give_up(self) -> None:
        """Fail all pending requests, because the socket is closed."""
        lost = ConnectionError(f"{self.user} has lost its socket")
        answers = [name for name in self._waiting if name.startswith("answer ")]
        futures: list[asyncio.Future[Any]] = [self._waiting.pop(name) for name in answers]
        for future in [*futures, *self._questions.values()]:
            if not future.done():
                future.set_exception(lost)
                future.exception()  # marks the error as retrieved, even if no task waits for it

    def _settle(self, request_id: str) -> None:
        entry = self.ledger.entries.get(request_id)
        if entry is None:
            return
        known = {"answer": entry.acknowledged, "end": entry.ended}
        for what, moment in known.items():
            future = self._waiting.pop(f"{what} {request_id}", None) if moment else None
            if future is not None and not future.done():
                future.set_result(None)


@dataclass
class Crowd:
    members: Sequence[Member]
    http: httpx.AsyncClient

    async def each(
        self,
        work: Callable[[Member], Coroutine[Any, Any, Any]],
        advance: Advance,
        members: Iterable[Member] | None = None,
    ) -> list[Any]:
        """Do something with every member at once; the gate bounds concurrent requests."""

        async def one(member: Member) -> Any:
            try:
                return await work(member)
            finally:
                advance(member.user)

        async with asyncio.TaskGroup() as group:
            chosen = self.members if members is None else members
            tasks = [group.create_task(one(member)) for member in chosen]
        return [task.result() for task in tasks]

    @property
    def entries(self) -> list[Entry]:
        return [entry for member in self.members for entry in member.ledger.entries.values()]


@asynccontextmanager
async def gathered(
    users: Sequence[str], url_of: Callable[[str], str], at_once: int
) -> AsyncIterator[Crowd]:
    """A member for each user, without sockets yet; all sockets are closed in the end."""
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
        crowd = Crowd([Member(user, url_of(user), gate, Ledger(user)) for user in users], http)
        try:
            yield crowd
        finally:
            for chunk in range(0, len(users), at_once):
                closing: list[Awaitable[None]] = [
                    member.close() for member in crowd.members[chunk : chunk + at_once]
                ]
                await asyncio.gather(*closing, return_exceptions=True)
