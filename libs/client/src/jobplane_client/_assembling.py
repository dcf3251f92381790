"""From local files to the document of their assembly."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import httpx

from jobplane_client._answers import to_document
from jobplane_client._errors import InvalidRequestError, UploadRefusedError
from jobplane_client._sources import File, Journal, Source
from jobplane_client._uploads import OnUpload, Token, Uploads, new_client, together
from jobplane_keys import MAX_PAYLOAD_BYTES, ErrorCode
from jobplane_models.assemblies import AssemblyDocument

if TYPE_CHECKING:
    from jobplane_client._socket import JobSocket, OnProgress

_WHOLE_BYTES = 64 * 1024**2
_FILE_FIELD = re.compile(r"payload\.(?:files|uploads)\.([0-9]+)\b")


class AssembleOptions(TypedDict, total=False):
    """Options of `assemble`.

    `fields` go with the assembly. `on_progress` is called with the job's ProgressMessages,
    `on_upload` with a file's name, the bytes that are stored, and its size. Files of more than
    `whole_bytes` (64 MiB) go in parts; `parallel` (4) files or parts are sent at a time. With
    `resume`, the path of a JSON file that is made, a later call goes on with the uploads in parts
    that this one began; use one file for each process. `client` replaces the httpx.AsyncClient.
    """

    fields: Mapping[str, Any]
    on_progress: "OnProgress"
    on_upload: OnUpload
    whole_bytes: int
    parallel: int
    resume: str | os.PathLike[str]
    client: httpx.AsyncClient


def assemble(
    files: Sequence[File],
    template: str,
    *,
    socket_url: str,
    api_url: str,
    token: Token,
    **options: Unpack[AssembleOptions],
) -> AssemblyDocument:
    """JobSocket.assemble for programs without an event loop, with a socket of its own.

    Raises also what entering a JobSocket raises.
    """
    from jobplane_client._socket import JobSocket

    async def run() -> AssemblyDocument:
        async with JobSocket(socket_url, token) as socket:
            return await socket.assemble(files, template, api_url=api_url, **options)

    return asyncio.run(run())


async def assembled(
    socket: "JobSocket",
    token: Token,
    files: Sequence[File],
    template: str,
    api_url: str,
    options: AssembleOptions,
    sleep: Callable[[float], Awaitable[None]],
) -> AssemblyDocument:
    """See JobSocket.assemble."""
    if not files or isinstance(files, str):
        raise ValueError("files must be a list of at least one path or (name, path or bytes)")
    sources = [Source.of(file) for file in files]
    journal = Journal(options.get("resume"))
    async with contextlib.AsyncExitStack() as stack:
        client = options.get("client")
        if client is None:
            client = await stack.enter_async_context(new_client())
        uploads = Uploads(
            client,
            api_url,
            token,
            parallel=options.get("parallel", 4),
            journal=journal,
            on_upload=options.get("on_upload"),
            sleep=sleep,
        )
        order = {"template_id": template, "fields": dict(options.get("fields", {}))}
        limit = options.get("whole_bytes", _WHOLE_BYTES)
        small = [number for number, source in enumerate(sources) if source.size <= limit]
        large = [number for number, source in enumerate(sources) if source.size > limit]
        stored: dict[int, Mapping[str, Any]] = {}

        async def send_small() -> None:
            chosen = [sources[number] for number in small]
            found = await _send_small(socket, uploads, chosen, order, alone=not large)
            stored.update(zip(small, found, strict=True))

        async def send_large(number: int) -> None:
            stored[number] = await uploads.in_parts(sources[number])

        await together([*([send_small()] if small else []), *map(send_large, large)])
        entries = [
            {name: stored[number][name] for name in ("key", "size", "mime", "md5hash")}
            | {"name": source.name}
            for number, source in enumerate(sources)
        ]
        with _naming(sources):
            result = await socket.run(
                "process_assembly",
                {**order, "uploads": entries},
                on_progress=options.get("on_progress"),
            )
        document = result if "assembly_id" in result else await uploads.linked(result["url"])
    for source in sources:
        journal.put(source, None)
    return to_document(document, str(document.get("assembly_id")))


async def _send_small(
    socket: "JobSocket",
    uploads: Uploads,
    sources: Sequence[Source],
    order: Mapping[str, Any],
    *,
    alone: bool,
) -> Sequence[Mapping[str, Any]]:
    """Send files whole; the answer's entries, in order.

    Nothing is sent for an assembly of these files `alone` that has its result.
    """
    digests = await together(uploads.md5(source) for source in sources)
    announced = [
        {"name": source.name, "size": source.size, "mime": source.mime, "md5hash": md5}
        for source, md5 in zip(sources, digests, strict=True)
    ]
    with _naming(sources):
        answer = await socket.request("create_upload", {**order, "files": announced})
    targets: list[dict[str, Any]] = (
        answer["uploads"]
        if "uploads" in answer
        else (await uploads.linked(answer["url"]))["uploads"]
    )
    if not (alone and answer["completed"]):
        # Equal files have one key.
        pairs = zip(sources, targets, strict=True)
        distinct = {target["key"]: (source, target) for source, target in pairs}
        await together(uploads.whole(*each) for each in distinct.values())
    return targets


async def stored_payload(
    socket: "JobSocket", action: str, payload: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The payload that names the object with a payload that no message can carry."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > MAX_PAYLOAD_BYTES:
        raise InvalidRequestError(
            f"the payload of {action} has {len(text):,} bytes; at most {MAX_PAYLOAD_BYTES:,} are"
            " allowed: use fewer files, or put what `fields` has into a file",
            code=ErrorCode.PAYLOAD_TOO_LARGE,
            fields=[{"field": "payload", "message": f"{len(text):,} bytes"}],
        )
    source = Source("payload.json", "application/json", text, len(text), 0)
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    file = {"name": source.name, "size": source.size, "mime": source.mime, "md5hash": md5}
    order = {"template_id": payload.get("template_id"), "files": [file]}
    target = (await socket.request("create_upload", order))["uploads"][0]
    async with new_client() as client:
        await Uploads(client, "", "").whole(source, target)
    return {"payload_key": target["key"]}


@contextlib.contextmanager
def _naming(sources: Sequence[Source]) -> Iterator[None]:
    """Name the file of a refused entry by its name, not its number."""
    try:
        yield
    except InvalidRequestError as error:
        for fault in error.fields:
            found = _FILE_FIELD.match(str(fault.get("field")))
            if found and int(found[1]) < len(sources):
                name = sources[int(found[1])].name
                raise UploadRefusedError(name, str(fault.get("message"))) from error
        raise
