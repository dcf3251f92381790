"""Jobs over HTTP, for programs that keep no socket open."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from jobplane_client._answers import Answer, accepted
from jobplane_client._errors import (
    BadPayloadError,
    CallTimeoutError,
    JobplaneError,
    RateLimitedError,
    ServiceUnavailableError,
    WaitTimeoutError,
)
from jobplane_client._flows import AsyncDriver, Driver, Flow, Identify, JobCall, Pause, with_retries
from jobplane_client._http import AsyncHttpTransport, AsyncToken, HttpTransport, Token, timeouts_of
from jobplane_client._protocol import Reply, error_of, instruct_payload, stored_messages
from jobplane_keys import TERMINAL_STATUSES, RequestStatus, new_request_id
from jobplane_models.answers import RequestState, StoredProgress
from jobplane_models.lookups import JobPage
from jobplane_models.messages import ErrorMessage

type OnProgress = Callable[[StoredProgress], object]
type OnEvent = Callable[[Any], object]

_HOLD_SECONDS = 20
_FAILING_SECONDS = 2.0


class JobFlows:
    """The flows of one client."""

    def __init__(self, retries: int, clock: Callable[[], float]) -> None:
        self._retries = retries
        self._clock = clock

    def start(
        self,
        action: str,
        payload: Mapping[str, Any],
        id: str | None,
        metadata: Mapping[str, str] | None,
    ) -> Flow[Reply]:
        """See HttpJobs.start."""
        content = {"action": action, "payload": dict(payload), "metadata": dict(metadata or {})}
        content["id"] = id or new_request_id(time.time())
        return (yield from self._call("POST", "jobs", _reply, content=content))

    def get(self, id: str, **query: Any) -> Flow[RequestState]:
        """See HttpJobs.get."""
        return (yield from self._call("GET", _path(id), _model_of(RequestState), query=query))

    def wait(
        self,
        id: str,
        timeout: float,
        on_progress: OnProgress | None,
        on_event: OnEvent | None,
    ) -> Flow[Any]:
        """See HttpJobs.wait."""
        deadline = self._clock() + timeout
        seq: int | None = None
        event = None if on_event is None else 0
        while True:
            left = deadline - self._clock()
            cause: JobplaneError | None = None
            hold = max(0, min(_HOLD_SECONDS, int(left)))
            try:
                state = yield from self.get(id, wait=hold, since_seq=seq, since_event=event)
                if state.progress and state.progress.seq > (seq or 0) and on_progress:
                    on_progress(state.progress)
                if on_event is not None and (page := state.events) is not None:
                    for each in page.events:
                        on_event(each)
                    event = page.first + len(page.events) - 1
                    if page.more:
                        continue
                if state.status in TERMINAL_STATUSES:
                    return _result_of(state)
                seq, delay = state.seq, 0.0 if hold else left
            except (CallTimeoutError, RateLimitedError, ServiceUnavailableError) as error:
                cause, delay = error, getattr(error, "retry_after", None) or _FAILING_SECONDS
            left = deadline - self._clock()
            if left <= 0:
                raise WaitTimeoutError(id, timeout, None, what="job") from cause
            yield Pause(min(delay, left))

    def list(self, query: Mapping[str, Any]) -> Flow[JobPage]:
        """See HttpJobs.list."""
        return (yield from self._call("GET", "jobs", _model_of(JobPage), query=query))

    def cancel(self, id: str) -> Flow[str]:
        """See HttpJobs.cancel."""
        return (yield from self._call("POST", f"{_path(id)}/cancel", _status_of))

    def replay(self, id: str, new_id: str | None) -> Flow[Reply]:
        """See HttpJobs.replay."""
        key = new_id or new_request_id(time.time())
        return (yield from self._call("POST", f"{_path(id)}/replay", _reply, key=key))

    def _call[T](self, method: str, path: str, read: Callable[[Answer], T], **more: Any) -> Flow[T]:
        caller = yield Identify(None)
        return (yield from with_retries(JobCall(caller, method, path, **more), read, self._retries))


class HttpJobs:
    """Starts, reads and cancels jobs over the HTTP API, as the user of the token.

    `token` is a JWT or a function that returns one for each call. `client` is an httpx.Client to
    use instead of a new one; `close` does not close it. A call that the service can't take at the
    moment is repeated `retries` times: one id makes one job.
    """

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        client: httpx.Client | None = None,
        timeout: float = 35.0,
        retries: int = 3,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._owns_client = client is None
        self._client = httpx.Client(timeout=timeouts_of(timeout)) if client is None else client
        self._driver = Driver(HttpTransport(base_url, token, self._client), sleep, 1)
        self._flows = JobFlows(retries, clock)

    def start(
        self,
        action: str,
        payload: Mapping[str, Any],
        *,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Reply:
        """Start a job. The reply has its `request_id`, its `status` and, for an assembly, its
        `assembly_id`; for a short action, `status` is `completed`, and `result` is its answer.

        Raises the errors of HttpStatusClient.get_status, and ConflictError when another job has
        the id.
        """
        return self._driver.run(self._flows.start(action, payload, id, metadata))

    def instruct(
        self,
        project: str,
        thread: str,
        instruction: Any,
        *,
        attachments: Sequence[str] = (),
        id: str | None = None,
    ) -> Reply:
        """Have the worker of the user's workspace of a project do something: `start` for this job.

        `attachments` are keys of the user's uploads. `wait` returns `{"outcome": "Completed",
        "result"}` (or `result_url`), or `{"outcome": "Joined", "request_id"}`.
        """
        payload = instruct_payload(project, thread, instruction, attachments)
        return self.start("instruct", payload, id=id)

    def get(
        self,
        id: str,
        *,
        wait: int = 0,
        since_seq: int | None = None,
        since_event: int | None = None,
        user_id: str | None = None,
    ) -> RequestState:
        """The state of a job; with `wait`, when it has changed, or after so many seconds (20).

        With `since_event`, 0 or the number of the last event, it has the later ones in `events`.
        Raises NotFoundError if the user has no such job. `user_id` names another user of the
        tenant, whose job it is; this needs the permission `tenant:read`.
        """
        since = {"since_seq": since_seq, "since_event": since_event}
        query = {"wait": wait, **since, "user_id": user_id}
        return self._driver.run(self._flows.get(id, **query))

    def wait(
        self,
        id: str,
        timeout: float,
        on_progress: OnProgress | None = None,
        on_event: OnEvent | None = None,
    ) -> Any:
        """Wait until a job has ended, and return its result.

        `on_event` is called with each event that the job emits: all of them, in order, once.
        Raises JobFailedError, JobCancelledError or JobTimeoutError when it has none, NotFoundError
        if the user has no such job, and WaitTimeoutError after `timeout` seconds. Calls that fail
        for a passing reason are repeated.
        """
        return self._driver.run(self._flows.wait(id, timeout, on_progress, on_event))

    def list(self, **query: Any) -> JobPage:
        """A page of the user's jobs, newest first; its `next` is that of the call for the next one.

        Filters are `status` (one, or several with commas), `action`, `tag`, `to` and, since `from`
        is a word of Python, `**{"from": …}`; `scope="tenant"` lists the jobs of all users; `limit`
        is at most 100.
        """
        return self._driver.run(self._flows.list(query))

    def cancel(self, id: str) -> str:
        """Cancel a job: `cancelled`, `cancelling` while its worker stops, or how it has ended."""
        return self._driver.run(self._flows.cancel(id))

    def replay(self, id: str, *, new_id: str | None = None) -> Reply:
        """Start a job that has ended once more; the reply is that of `start` for the new job."""
        return self._driver.run(self._flows.replay(id, new_id))

    def close(self) -> None:
        """Close the connections."""
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncHttpJobs:
    """HttpJobs for an event loop; a `token` function may be a coroutine function."""

    def __init__(
        self,
        base_url: str,
        token: AsyncToken,
        *,
        client: httpx.AsyncClient | None = None,
        timeout: float = 35.0,
        retries: int = 3,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._owns_client = client is None
        self._client = httpx.AsyncClient(timeout=timeouts_of(timeout)) if client is None else client
        self._driver = AsyncDriver(AsyncHttpTransport(base_url, token, self._client), sleep, 1)
        self._flows = JobFlows(retries, clock)

    async def start(
        self,
        action: str,
        payload: Mapping[str, Any],
        *,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Reply:
        """See HttpJobs.start."""
        return await self._driver.run(self._flows.start(action, payload, id, metadata))

    async def instruct(
        self,
        project: str,
        thread: str,
        instruction: Any,
        *,
        attachments: Sequence[str] = (),
        id: str | None = None,
    ) -> Reply:
        """See HttpJobs.instruct."""
        payload = instruct_payload(project, thread, instruction, attachments)
        return await self.start("instruct", payload, id=id)

    async def get(
        self,
        id: str,
        *,
        wait: int = 0,
        since_seq: int | None = None,
        since_event: int | None = None,
        user_id: str | None = None,
    ) -> RequestState:
        """See HttpJobs.get."""
        since = {"since_seq": since_seq, "since_event": since_event}
        query = {"wait": wait, **since, "user_id": user_id}
        return await self._driver.run(self._flows.get(id, **query))

    async def wait(
        self,
        id: str,
        timeout: float,
        on_progress: OnProgress | None = None,
        on_event: OnEvent | None = None,
    ) -> Any:
        """See HttpJobs.wait."""
        return await self._driver.run(self._flows.wait(id, timeout, on_progress, on_event))

    async def list(self, **query: Any) -> JobPage:
        """See HttpJobs.list."""
        return await self._driver.run(self._flows.list(query))

    async def cancel(self, id: str) -> str:
        """See HttpJobs.cancel."""
        return await self._driver.run(self._flows.cancel(id))

    async def replay(self, id: str, *, new_id: str | None = None) -> Reply:
        """See HttpJobs.replay."""
        return await self._driver.run(self._flows.replay(id, new_id))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns_client:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _path(id: str) -> str:
    return f"jobs/{quote(id, safe='')}"


def _content(answer: Answer) -> dict[str, Any]:
    return accepted(answer, dict, "code")


def _reply(answer: Answer) -> Reply:
    content = _content(answer)
    return Reply(str(content.pop("request_id", "")), content)


def _status_of(answer: Answer) -> str:
    return str(_content(answer).get("status"))


def _model_of[M: BaseModel](model: type[M]) -> Callable[[Answer], M]:
    def read(answer: Answer) -> M:
        try:
            return model.model_validate(_content(answer))
        except ValidationError as error:
            raise BadPayloadError("the answer does not have the documented fields") from error

    return read


def _result_of(state: RequestState) -> Any:
    """The result of a job that has ended. Raises JobError."""
    if state.status == RequestStatus.COMPLETED:
        return state.result
    (message,) = stored_messages(state.request_id, state.model_dump(mode="json"), 0)
    assert isinstance(message, ErrorMessage)
    raise error_of(message)
