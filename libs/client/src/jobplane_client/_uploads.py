"""Sends files to the service's bucket: whole, or in parts that survive a break."""

import asyncio
import contextlib
import inspect
import random
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from itertools import count
from typing import Any

import httpx

from jobplane_client._answers import Answer, accepted
from jobplane_client._errors import (
    ChangedFileError,
    InvalidRequestError,
    NotFoundError,
    ServiceUnavailableError,
    UploadFailedError,
    UploadRefusedError,
)
from jobplane_client._sources import Journal, Source

_ATTEMPTS = 6
# S3 may join many parts for minutes; the service then asks every 10 s for the same call again.
_JOIN_ATTEMPTS = 60
_BACKOFF_SECONDS, _BACKOFF_MAX_SECONDS = 0.5, 10.0
_ABORT_SECONDS = 10.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_S3_CODE = re.compile(r"<Code>(\w+)</Code>")

type Token = str | Callable[[], str | Awaitable[str]]
type OnUpload = Callable[[str, int, int], object]
type Call = Callable[[], Awaitable[httpx.Response]]


def new_client() -> httpx.AsyncClient:
    """A client for uploads."""
    return httpx.AsyncClient(timeout=httpx.Timeout(60.0, connect=5.0))


async def together[T](works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run at the same time.

    An error or a cancellation ends the others, and is raised after they have ended.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Uploads:
    """Sends the files of one call, `parallel` files or parts at a time.

    `on_upload` is called with a file's name, the bytes that S3 has of it, and its size.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        api_url: str,
        token: Token,
        *,
        parallel: int = 4,
        journal: Journal | None = None,
        on_upload: OnUpload | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._slots = asyncio.Semaphore(parallel)
        self._journal = journal or Journal(None)
        self._on_upload = on_upload
        self._sleep = sleep
        self._stored_bytes: dict[int, int] = {}

    async def md5(self, source: Source) -> str:
        """The MD5 of a file."""
        async with self._slots:
            return await asyncio.to_thread(source.md5, 0, source.size)

    async def whole(self, source: Source, target: Mapping[str, Any]) -> None:
        """Send a file by a link that `create_upload` has given. Raises an UploadError."""

        async def send() -> httpx.Response:
            return await self._put(source, 0, source.size, target)

        async with self._slots:
            await self._store(source, source.size, send)

    async def in_parts(self, source: Source) -> Mapping[str, Any]:
        """Send a file in parts; its `key`, `size`, `mime` and `md5hash` in the bucket.

        An upload that the journal has goes on. One that fails or is cancelled stays in the
        journal; without a journal, or if the file has changed, it is aborted.
        Raises an UploadError, or a RefusedError that does not depend on the file.
        """
        begun, tags = await self._begin(source)
        try:
            return await self._joined(source, begun, tags)
        except BaseException as error:
            if not self._journal.keeps(source) or isinstance(error, ChangedFileError):
                self._journal.put(source, None)
                await self._abort(source, begun)
            if isinstance(error, NotFoundError):
                text = "the upload has expired or was aborted; call again to send the file anew"
                raise UploadFailedError(source.name, text) from error
            raise

    async def _begin(self, source: Source) -> tuple[Mapping[str, Any], dict[int, str]]:
        """The upload of a file, and the ETags of the parts that S3 has."""
        if (known := self._journal.get(source)) is not None:
            with contextlib.suppress(NotFoundError):
                parts = await self._ask(source, list, "GET", _path(known), known)
                return known, {part["PartNumber"]: part["ETag"] for part in parts}
        content = {"type": source.mime, "size": source.size}
        begun = await self._ask(source, dict, "POST", "/s3/multipart", {}, json=content)
        self._journal.put(source, begun)
        return begun, {}

    async def _joined(
        self, source: Source, begun: Mapping[str, Any], known: Mapping[int, str]
    ) -> Mapping[str, Any]:
        size = begun["partSize"]
        starts = range(0, max(source.size, 1), size)
        parts = await together(
            self._part(source, begun, number, start, known.get(number))
            for number, start in enumerate(starts, 1)
        )
        source.check_unchanged()
        path, content = f"{_path(begun)}/complete", {"parts": parts}
        return await self._ask(
            source, dict, "POST", path, begun, json=content, attempts=_JOIN_ATTEMPTS
        )

    async def _part(
        self, source: Source, begun: Mapping[str, Any], number: int, start: int, tag: str | None
    ) -> dict[str, Any]:
        """Send a part, unless S3 has it; its entry in the completion."""
        length = min(begun["partSize"], source.size - start)
        async with self._slots:
            md5 = await asyncio.to_thread(source.md5, start, length)
            # The parts of a completed upload have the object's ETag, with a hyphen.
            if tag is not None and (tag.strip('"') == md5 or "-" in tag):
                self._note(source, length)
                return {"PartNumber": number, "ETag": tag}

            async def send() -> httpx.Response:
                path = f"{_path(begun)}/{number}"
                link = await self._ask(source, dict, "GET", path, {**begun, "md5": md5})
                return await self._put(source, start, length, link)

            response = await self._store(source, length, send)
        return {"PartNumber": number, "ETag": response.headers["ETag"]}

    async def _abort(self, source: Source, begun: Mapping[str, Any]) -> None:
        """Delete the parts, if the service answers in seconds; else they expire."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._ask(source, dict, "DELETE", _path(begun), begun, attempts=1)

    async def _store(self, source: Source, length: int, send: Call) -> httpx.Response:
        """Send bytes to S3. Raises ChangedFileError, UploadRefusedError or UploadFailedError."""
        with _failing(source):
            response = await self._repeated(send, _ATTEMPTS)
        if response.is_success:
            self._note(source, length)
            return response
        code = _s3_code(response)
        if code in ("BadDigest", "IncompleteBody"):
            raise ChangedFileError(source.name)
        raise UploadRefusedError(source.name, f"S3 answered with {response.status_code} {code}")

    async def _put(
        self, source: Source, start: int, length: int, link: Mapping[str, Any]
    ) -> httpx.Response:
        headers = {**link["headers"], "Content-Length": str(length)}
        content = _streamed(source, start, length)
        return await self._client.put(link["url"], content=content, headers=headers)

    async def _ask[T](
        self,
        source: Source,
        kind: type[T],
        method: str,
        path: str,
        begun: Mapping[str, Any],
        *,
        json: Any = None,
        attempts: int = _ATTEMPTS,
    ) -> T:
        """The answer of the HTTP API. Raises a RefusedError or an UploadError."""
        url = self._api_url + path
        query = {name: begun[name] for name in ("key", "md5") if name in begun}

        async def send() -> httpx.Response:
            token = self._token if isinstance(self._token, str) else self._token()
            bearer = await token if inspect.isawaitable(token) else token
            headers = {"Authorization": f"Bearer {bearer}"}
            return await self._client.request(method, url, params=query, json=json, headers=headers)

        with _failing(source):
            return accepted(_answer(await self._repeated(send, attempts)), kind, "error")

    async def linked(self, url: str) -> dict[str, Any]:
        """The JSON object behind a link. Raises a RefusedError or BadPayloadError."""

        async def send() -> httpx.Response:
            return await self._client.get(url)

        return accepted(_answer(await self._repeated(send, _ATTEMPTS)), dict, "error")

    async def _repeated(self, send: Call, attempts: int) -> httpx.Response:
        """The answer to a call, which is repeated while it fails for a passing reason."""
        for attempt in count(1):
            cause: httpx.TransportError | None = None
            asked: float | None = None
            try:
                response = await send()
            except httpx.TransportError as error:
                cause, reason = error, str(error) or type(error).__name__
                if isinstance(error, httpx.UnsupportedProtocol):
                    attempts = attempt
            else:
                if response.status_code not in _PASSING and _s3_code(response) != "RequestTimeout":
                    return response
                reason = f"the service answered with status {response.status_code}"
                asked = _answer(response).retry_after
            if attempt >= attempts:
                raise ServiceUnavailableError(f"{reason} (attempt {attempt})") from cause
            ceiling = min(_BACKOFF_SECONDS * 2**attempt, _BACKOFF_MAX_SECONDS)
            await self._sleep(asked or random.uniform(0, ceiling))
        raise AssertionError("count() does not end")

    def _note(self, source: Source, length: int) -> None:
        stored = self._stored_bytes.get(id(source), 0) + length
        self._stored_bytes[id(source)] = stored
        if self._on_upload is not None:
            self._on_upload(source.name, stored, source.size)


@contextlib.contextmanager
def _failing(source: Source) -> Iterator[None]:
    """Name the file of an upload that is refused or fails."""
    try:
        yield
    except InvalidRequestError as error:
        raise UploadRefusedError(source.name, str(error)) from error
    except ServiceUnavailableError as error:
        raise UploadFailedError(source.name, str(error)) from error


def _answer(response: httpx.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


def _path(begun: Mapping[str, Any]) -> str:
    return f"/s3/multipart/{begun['uploadId']}"


def _s3_code(response: httpx.Response) -> str:
    found = _S3_CODE.search(response.text) if response.is_error else None
    return found[1] if found else ""


async def _streamed(source: Source, start: int, length: int) -> AsyncIterator[bytes]:
    for block in source.blocks(start, length):
        yield block
