"""The logic of look-ups, shared by all status clients.

A flow is a generator: it yields steps, and the client's driver performs them and sends back their
outcomes. The clients differ only in how they send a question (`Send`) and how they wait (`Pause`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from jobplane_client._answers import (
    Answer,
    NotifiedStatus,
    document_of,
    notified_status_of,
    statuses_of,
    to_document,
)
from jobplane_client._cache import CompletedCache
from jobplane_client._errors import (
    CallTimeoutError,
    InvalidRequestError,
    JobplaneError,
    NotFoundError,
    RateLimitedError,
    ServiceUnavailableError,
    WaitTimeoutError,
)
from jobplane_client._progress import is_executing
from jobplane_keys import is_assembly_id
from jobplane_models.assemblies import AssemblyDocument

BATCH_LIMIT = 100
_EXECUTING_SECONDS = 2.0
_WAITING_SECONDS = 5.0
_MISSING_GROWTH = 1.2
_MISSING_MAX_SECONDS = 10.0
_RETRY_BASE_SECONDS = 0.2
_RETRY_MAX_SECONDS = 5.0
_ANSWER_TOO_LARGE = 413
_RETRIED_STATUSES = (None, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a look-up: `key` identifies it in the cache, `token` is sent over HTTP."""

    key: str | None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LookUp:
    """A question for one assembly."""

    caller: Caller
    assembly_id: str
    trigger_webhook: bool = False


@dataclass(frozen=True, slots=True)
class BatchLookUp:
    """A question for up to 100 assemblies."""

    caller: Caller
    assembly_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class JobCall:
    """A request about jobs; `content` is its body."""

    caller: Caller
    method: str
    path: str
    content: Mapping[str, Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    """The header Idempotency-Key."""


type Question = LookUp | BatchLookUp | JobCall


@dataclass(frozen=True, slots=True)
class Identify:
    """Step: find out who the caller is. The outcome is a Caller."""

    user_id: str | None


@dataclass(frozen=True, slots=True)
class Send:
    """Step: send a question. The outcome is an Answer."""

    question: Question


@dataclass(frozen=True, slots=True)
class Pause:
    """Step: wait. The outcome is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Step: run flows at the same time. The outcome is the list of their results."""

    flows: Sequence["Flow[Any]"]


type Step = Identify | Send | Pause | Together
type Flow[T] = Generator[Step, Any, T]


class StatusFlows:
    """The flows of one client."""

    def __init__(
        self,
        *,
        retries: int,
        cache_size: int,
        cache_ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._retries = retries
        self._clock = clock
        self._cache = CompletedCache(cache_size, cache_ttl, clock)

    def get_status(self, assembly_id: str, user_id: str | None) -> Flow[AssemblyDocument]:
        """See StatusClient.get_status."""
        document, _ = yield from self._get(assembly_id, user_id)
        return document

    def get_status_with_webhook(
        self, assembly_id: str, user_id: str | None
    ) -> Flow[NotifiedStatus]:
        """See StatusClient.get_status_with_webhook. Not retried, as it sends a webhook."""
        _check_ids([assembly_id])
        caller = yield Identify(user_id)
        answer = yield Send(LookUp(caller, assembly_id, trigger_webhook=True))
        status = notified_status_of(answer, assembly_id)
        self._cache.put(caller.key, status.document)
        return status

    def get_batch_status(
        self, assembly_ids: Sequence[str], user_id: str | None
    ) -> Flow[dict[str, AssemblyDocument | None]]:
        """See StatusClient.get_batch_status."""
        _check_ids(assembly_ids)
        caller = yield Identify(user_id)
        found: dict[str, AssemblyDocument | None] = {
            assembly_id: self._cache.get(caller.key, assembly_id) for assembly_id in assembly_ids
        }
        wanted = [assembly_id for assembly_id, document in found.items() if document is None]
        starts = range(0, len(wanted), BATCH_LIMIT)
        flows = [self._batch(caller, wanted[at : at + BATCH_LIMIT]) for at in starts]
        for part in (yield Together(flows)) if flows else ():
            found |= part
        return found

    def wait(
        self, assembly_id: str, timeout: float, user_id: str | None, request_id: str | None
    ) -> Flow[AssemblyDocument]:
        """See StatusClient.wait. Look-ups that fail for a passing reason are repeated."""
        deadline = self._clock() + timeout
        document: AssemblyDocument | None = None
        missing = failing = _EXECUTING_SECONDS
        while True:
            cause: JobplaneError | None = None
            try:
                document, asked = yield from self._get(assembly_id, user_id)
                if document.terminal and _is_of(document, request_id):
                    return document
                executing = is_executing(document.ok, document.execution_start)
                delay = asked or (_EXECUTING_SECONDS if executing else _WAITING_SECONDS)
                missing = failing = _EXECUTING_SECONDS
            except NotFoundError as error:
                cause, delay = error, error.retry_after or missing
                missing = min(missing * _MISSING_GROWTH, _MISSING_MAX_SECONDS)
            except (CallTimeoutError, RateLimitedError, ServiceUnavailableError) as error:
                cause, delay = error, getattr(error, "retry_after", None) or failing
                failing = min(failing * _MISSING_GROWTH, _MISSING_MAX_SECONDS)
            left = deadline - self._clock()
            if left <= 0:
                raise WaitTimeoutError(assembly_id, timeout, document) from cause
            yield Pause(min(delay, left))

    def _get(
        self, assembly_id: str, user_id: str | None
    ) -> Flow[tuple[AssemblyDocument, float | None]]:
        _check_ids([assembly_id])
        caller = yield Identify(user_id)
        if (cached := self._cache.get(caller.key, assembly_id)) is not None:
            return cached, None
        return (yield from self._look_up(caller, assembly_id))

    def _look_up(
        self, caller: Caller, assembly_id: str
    ) -> Flow[tuple[AssemblyDocument, float | None]]:
        question = LookUp(caller, assembly_id)
        document, asked = yield from with_retries(
            question,
            lambda answer: (document_of(answer, assembly_id), answer.retry_after),
            self._retries,
        )
        self._cache.put(caller.key, document)
        return document, asked

    def _batch(
        self, caller: Caller, assembly_ids: Sequence[str]
    ) -> Flow[dict[str, AssemblyDocument | None]]:
        try:
            statuses = yield from with_retries(
                BatchLookUp(caller, assembly_ids), statuses_of, self._retries
            )
        except InvalidRequestError as error:
            if error.status_code != _ANSWER_TOO_LARGE or len(assembly_ids) == 1:
                raise
            middle = len(assembly_ids) // 2
            first = yield from self._batch(caller, assembly_ids[:middle])
            return first | (yield from self._batch(caller, assembly_ids[middle:]))
        found: dict[str, AssemblyDocument | None] = {}
        for assembly_id in assembly_ids:
            value = statuses.get(assembly_id)
            found[assembly_id] = None
            if value is not None:
                found[assembly_id] = document = to_document(value, assembly_id)
                self._cache.put(caller.key, document)
        return found


def with_retries[T](question: Question, read: Callable[[Answer], T], retries: int) -> Flow[T]:
    """What `read` makes of the answer; a service that is unavailable is asked again."""
    for attempt in count():
        try:
            return read((yield Send(question)))
        except ServiceUnavailableError as error:
            requested = error.retry_after or 0.0
            if (
                attempt >= retries
                or error.status_code not in _RETRIED_STATUSES
                or requested > _RETRY_MAX_SECONDS
            ):
                raise
            ceiling = min(_RETRY_BASE_SECONDS * 2**attempt, _RETRY_MAX_SECONDS)
            delay = max(requested, random.uniform(0, ceiling))
        yield Pause(delay)
    raise AssertionError("count() does not end")


class Transport(Protocol):
    """Sends questions to the service."""

    def identify(self, user_id: str | None) -> Caller:
        """The caller of a look-up on behalf of `user_id`."""

    def send(self, question: Question) -> Answer:
        """The answer. Raises CallTimeoutError or ServiceUnavailableError without one."""


class AsyncTransport(Protocol):
    """Sends questions to the service without blocking the event loop."""

    async def identify(self, user_id: str | None) -> Caller:
        """The caller of a look-up on behalf of `user_id`."""

    async def send(self, question: Question) -> Answer:
        """The answer. Raises CallTimeoutError or ServiceUnavailableError without one."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Runs flows in the calling thread, and those of a Together step in `concurrency` threads."""

    transport: Transport
    sleep: Callable[[float], None]
    concurrency: int

    def run[T](self, flow: Flow[T]) -> T:
        """Perform the flow's steps and return its result. Raises what the flow raises."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._do(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _do(self, step: Step) -> Any:
        match step:
            case Identify(user_id):
                return self.transport.identify(user_id)
            case Send(question):
                return self.transport.send(question)
            case Pause(seconds):
                return self.sleep(seconds)
            case Together(flows):
                executor = ThreadPoolExecutor(max_workers=min(self.concurrency, len(flows)))
                try:
                    return list(executor.map(self.run, flows))
                finally:
                    executor.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class AsyncDriver:
    """Runs flows on the event loop, at most `concurrency` of a Together step at a time."""

    transport: AsyncTransport
    sleep: Callable[[float], Awaitable[None]]
    concurrency: int

    async def run[T](self, flow: Flow[T]) -> T:
        """Perform the flow's steps and return its result. Raises what the flow raises."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._do(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _do(self, step: Step) -> Any:
        match step:
            case Identify(user_id):
                return await self.transport.identify(user_id)
            case Send(question):
                return await self.transport.send(question)
            case Pause(seconds):
                return await self.sleep(seconds)
            case Together(flows):
                return await self._together(flows)

    async def _together(self, flows: Sequence[Flow[Any]]) -> list[Any]:
        slots = asyncio.Semaphore(self.concurrency)

        async def run(flow: Flow[Any]) -> Any:
            async with slots:
                return await self.run(flow)

        tasks = [asyncio.create_task(run(flow)) for flow in flows]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def _is_of(document: AssemblyDocument, request_id: str | None) -> bool:
    """Whether a request ended with this document. A completed one is the answer to all."""
    return (
        request_id is None
        or document.completed
        or request_id == document.request_id
        or request_id in document.joined
    )


def _check_ids(assembly_ids: Sequence[Any]) -> None:
    if isinstance(assembly_ids, str):
        raise TypeError("assembly_ids is a str; pass a list of ids")
    if all(is_assembly_id(text) for text in assembly_ids):
        return
    message = "an assembly id has 1 to 128 characters of A-Z a-z 0-9 _ -"
    raise InvalidRequestError(message, fields=[{"field": "assemblyId", "message": message}])
