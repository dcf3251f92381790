"""Status look-ups and jobs over HTTP."""

import asyncio
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from jobplane_client._answers import Answer, NotifiedStatus
from jobplane_client._errors import (
    BadPayloadError,
    CallTimeoutError,
    JobplaneError,
    ServiceUnavailableError,
)
from jobplane_client._flows import (
    AsyncDriver,
    BatchLookUp,
    Caller,
    Driver,
    JobCall,
    Question,
    StatusFlows,
)
from jobplane_models.assemblies import AssemblyDocument

type Token = str | Callable[[], str]
type AsyncToken = str | Callable[[], str | Awaitable[str]]


class HttpStatusClient:
    """Looks assemblies up over the HTTP API, as the user of the token.

    `token` is a JWT or a function that returns one for each call. `client` is an httpx.Client to
    use instead of a new one; `close` does not close it. The other settings are those of
    StatusClient; documents are cached by token.
    """

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        client: httpx.Client | None = None,
        timeout: float = 35.0,
        retries: int = 3,
        concurrency: int = 10,
        cache_size: int = 1024,
        cache_ttl: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._owns_client = client is None
        self._client = httpx.Client(timeout=timeouts_of(timeout)) if client is None else client
        self._driver = Driver(HttpTransport(base_url, token, self._client), sleep, concurrency)
        self._flows = StatusFlows(
            retries=retries,
            cache_size=cache_size,
            cache_ttl=cache_ttl,
            clock=clock,
        )

    def get_status(self, assembly_id: str) -> AssemblyDocument:
        """The current document of an assembly.

        Raises NotFoundError if it does not exist, ForbiddenError if it belongs to another user,
        UnauthorizedError when the token is refused, InvalidRequestError for a malformed id, and
        ServiceUnavailableError, RateLimitedError, CallTimeoutError or BadPayloadError when the
        call fails.
        """
        return self._driver.run(self._flows.get_status(assembly_id, None))

    def get_status_with_webhook(self, assembly_id: str) -> NotifiedStatus:
        """Send an ended assembly's webhook again, and return its document and the delivery.

        Raises ConflictError while the job runs, RateLimitedError when the webhook was sent
        shortly before, and the errors of `get_status`.
        """
        return self._driver.run(self._flows.get_status_with_webhook(assembly_id, None))

    def get_batch_status(self, assembly_ids: Sequence[str]) -> dict[str, AssemblyDocument | None]:
        """Documents by id, in the given order; None for one that is missing or another user's.

        Raises the errors of `get_status`, but NotFoundError and ForbiddenError.
        """
        return self._driver.run(self._flows.get_batch_status(assembly_ids, None))

    def wait(
        self, assembly_id: str, timeout: float, request_id: str | None = None
    ) -> AssemblyDocument:
        """Wait until the job has ended and return its document; see its `completed` and `error`.

        An assembly that failed or was cancelled can be requested again. With `request_id`, that of
        the acknowledgment, the end of an earlier request is not returned.

        Raises WaitTimeoutError, with the last document, after `timeout` seconds, and the errors of
        `get_status` that repeating the call does not solve.
        """
        return self._driver.run(self._flows.wait(assembly_id, timeout, None, request_id))

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


class AsyncHttpStatusClient:
    """HttpStatusClient for an event loop; a `token` function may be a coroutine function."""

    def __init__(
        self,
        base_url: str,
        token: AsyncToken,
        *,
        client: httpx.AsyncClient | None = None,
        timeout: float = 35.0,
        retries: int = 3,
        concurrency: int = 10,
        cache_size: int = 1024,
        cache_ttl: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._owns_client = client is None
        self._client = httpx.AsyncClient(timeout=timeouts_of(timeout)) if client is None else client
        transport = AsyncHttpTransport(base_url, token, self._client)
        self._driver = AsyncDriver(transport, sleep, concurrency)
        self._flows = StatusFlows(
            retries=retries,
            cache_size=cache_size,
            cache_ttl=cache_ttl,
            clock=clock,
        )

    async def get_status(self, assembly_id: str) -> AssemblyDocument:
        """See HttpStatusClient.get_status."""
        return await self._driver.run(self._flows.get_status(assembly_id, None))

    async def get_status_with_webhook(self, assembly_id: str) -> NotifiedStatus:
        """See HttpStatusClient.get_status_with_webhook."""
        return await self._driver.run(self._flows.get_status_with_webhook(assembly_id, None))

    async def get_batch_status(
        self, assembly_ids: Sequence[str]
    ) -> dict[str, AssemblyDocument | None]:
        """See HttpStatusClient.get_batch_status."""
        return await self._driver.run(self._flows.get_batch_status(assembly_ids, None))

    async def wait(
        self, assembly_id: str, timeout: float, request_id: str | None = None
    ) -> AssemblyDocument:
        """See HttpStatusClient.wait."""
        return await self._driver.run(self._flows.wait(assembly_id, timeout, None, request_id))

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


class HttpTransport:
    """Sends questions over HTTP."""

    def __init__(self, base_url: str, token: Token, client: httpx.Client) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._client = client

    def identify(self, user_id: str | None) -> Caller:
        return _caller(self._token if isinstance(self._token, str) else self._token())

    def send(self, question: Question) -> Answer:
        try:
            return _answer(self._client.request(**_request(self._base_url, question)))
        except httpx.RequestError as error:
            raise _translated(error) from error


class AsyncHttpTransport:
    """HttpTransport for an event loop."""

    def __init__(self, base_url: str, token: AsyncToken, client: httpx.AsyncClient) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._client = client

    async def identify(self, user_id: str | None) -> Caller:
        token = self._token if isinstance(self._token, str) else self._token()
        return _caller(await token if inspect.isawaitable(token) else token)

    async def send(self, question: Question) -> Answer:
        try:
            return _answer(await self._client.request(**_request(self._base_url, question)))
        except httpx.RequestError as error:
            raise _translated(error) from error


def _caller(token: str) -> Caller:
    # Not by the token's claims: they are not verified here, and would give access to the
    # documents of another user.
    return Caller(hashlib.sha256(token.encode()).hexdigest(), token)


def _request(base_url: str, question: Question) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {question.caller.token}", "Accept": "application/json"}
    if isinstance(question, BatchLookUp):
        return {
            "method": "POST",
            "url": f"{base_url}/status/batch",
            "json": {"assemblyIds": list(question.assembly_ids)},
            "headers": headers,
        }
    if isinstance(question, JobCall):
        keyed = {"Idempotency-Key": question.key} if question.key else {}
        return {
            "method": question.method,
            "url": f"{base_url}/{question.path}",
            "json": question.content,
            "params": {name: value for name, value in question.query.items() if value is not None},
            "headers": headers | keyed,
        }
    return {
        "method": "GET",
        "url": f"{base_url}/status/{question.assembly_id}",
        "params": {"triggerWebhook": "true"} if question.trigger_webhook else None,
        "headers": headers,
    }


def _answer(response: httpx.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


def _translated(error: httpx.RequestError) -> JobplaneError:
    if isinstance(error, httpx.DecodingError):
        return BadPayloadError("the answer can't be decoded")
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return CallTimeoutError("the status service did not answer in time")
    return ServiceUnavailableError("the status service can't be reached")


def timeouts_of(seconds: float) -> httpx.Timeout:
    """A connection takes at most five of these seconds."""
    return httpx.Timeout(seconds, connect=min(seconds, 5.0))
