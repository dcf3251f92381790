"""Steps on assemblies: upload files, run templates, receive webhooks, download results."""

import asyncio
import hashlib
import statistics
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jobplane.demo import files
from jobplane.demo.memory import peak_megabytes
from jobplane.demo.receiver import Delivery
from jobplane.demo.scene import Job, Scene
from jobplane.demo.screen import Bar
from jobplane.demo.sockets import connect
from jobplane.demo.story import CheckError, Observation, Stopwatch, check, error_of, rising, step
from jobplane_client import (
    ConflictError,
    ForbiddenError,
    JobFailedError,
    JobSocket,
    NotFoundError,
    SignatureMismatchError,
    progress_message,
)
from jobplane_keys import parse_iso_time
from jobplane_models.assemblies import AssemblyDocument
from jobplane_models.messages import (
    AcknowledgmentMessage,
    CompleteMessage,
    ErrorMessage,
    ProgressMessage,
)

CHUNK = 1 << 20
POLL_SECONDS = 0.5
DELIVERY_SECONDS = 20.0
WORKER_MEGABYTES = 256


@step("Generate the input files", needs=(connect,), seconds_per_megabyte=0.2)
async def make_files(scene: Scene) -> Observation:
    """A text, a table, an image and NDJSON records, hashed as they are written."""
    folder, to_thread = scene.folder, asyncio.to_thread
    text = await to_thread(files.make_text, folder)
    image = await to_thread(files.make_image, folder)
    table = await to_thread(files.make_table, folder)
    records = await to_thread(files.make_records, folder, scene.megabytes)
    scene.jobs = [
        Job("tpl_archive", (text, image)),
        Job("tpl_table", (table,)),
        Job("tpl_records", (records,)),
    ]
    made = [file for job in scene.jobs for file in job.files]
    listed = ", ".join(f"{file.path.suffix[1:]} {_size(file.size)}" for file in made)
    return Observation(listed, {"total_bytes": sum(file.size for file in made)})


@step("Upload by presigned PUT", needs=(make_files,), seconds_per_megabyte=0.3)
async def upload(scene: Scene) -> Observation:
    """Size and Content-MD5 are part of each signature; the file is never held in memory."""
    watch = Stopwatch()
    for job in scene.jobs:
        await _upload(scene, job)
    total = sum(job.size for job in scene.jobs)
    speed = total / watch.seconds
    return Observation(
        f"{_size(total)} in {sum(len(job.files) for job in scene.jobs)} files, "
        f"{_size(speed)}/s, every ETag is the file's md5",
        {"total_bytes": total, "bytes_per_second": speed},
    )


async def _upload(scene: Scene, job: Job) -> None:
    announced = {"template_id": job.template, "files": [file.announcement for file in job.files]}
    ticket = await scene.socket.request("create_upload", announced)
    check(not ticket["completed"], f"{job.template} has been completed before")
    job.assembly_id = ticket["assembly_id"]
    for file, target in zip(job.files, ticket["uploads"], strict=True):
        await _put(scene, file, target)
        known = ("key", "name", "size", "mime", "md5hash")
        job.uploads.append({name: target[name] for name in known})


async def _put(scene: Scene, file: files.DemoFile, target: dict[str, Any]) -> None:
    bar = scene.screen.bar(file.name)
    response = await scene.http.request(
        target["method"], target["url"], headers=target["headers"], content=_chunks(file, bar)
    )
    check(response.is_success, f"{file.name}: the upload got status {response.status_code}")
    etag = response.headers.get("ETag", "").strip('"')
    check(etag == file.md5, f"{file.name}: the ETag is {etag}, not the md5")


async def _chunks(file: files.DemoFile, bar: Bar) -> AsyncIterator[bytes]:
    sent = 0
    with file.path.open("rb") as source:
        while data := source.read(CHUNK):
            yield data
            sent += len(data)
            bar.at(100 * sent / file.size, f"{_size(sent)} of {_size(file.size)}")


@dataclass
class _Received:
    """The messages of one job on the socket, and when they came."""

    acknowledged_ms: float = 0.0
    begun_ms: float = 0.0
    ended_ms: float = 0.0
    seqs: list[int] = field(default_factory=list)
    percentages: list[float] = field(default_factory=list)


@dataclass
class _Polling:
    latencies_ms: list[float] = field(default_factory=list)
    documents: list[AssemblyDocument] = field(default_factory=list)


@step(
    "Run three templates", needs=(upload,), shows=("status",), seconds=60, seconds_per_megabyte=0.5
)
async def run_templates(scene: Scene) -> Observation:
    """Three jobs at once: their messages on the socket, and look-ups over HTTP meanwhile."""
    largest = scene.largest
    polling = _Polling()
    poller = asyncio.create_task(_poll(scene, largest, polling))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_receive(scene, job)) for job in scene.jobs]
        received = [task.result() for task in tasks]
        await poller
    finally:
        poller.cancel()
    for job, one in zip(scene.jobs, received, strict=True):
        check(rising(one.seqs), f"{job.template}: seq did not rise strictly")
        check(_not_falling(one.percentages), f"{job.template}: the percentage fell")
    looked_up = [document.progress_pct or 0.0 for document in polling.documents]
    check(_not_falling(looked_up), "the percentage that `status` returns fell")
    acknowledged = statistics.median(one.acknowledged_ms for one in received)
    begun = statistics.median(one.begun_ms for one in received)
    polled = statistics.median(polling.latencies_ms)
    messages = sum(len(one.seqs) for one in received)
    last = scene.documents[largest.assembly_id]
    return Observation(
        f"queued in {acknowledged:.0f} ms, running after {begun:.0f}; messages: {messages}; "
        f"look-ups: {len(polling.latencies_ms)}, median {polled:.0f} ms; "
        f"{_size(largest.size)}: {progress_message(last).lower()}",
        {
            "acknowledged_ms": acknowledged,
            "begun_ms": begun,
            "look_up_median_ms": polled,
            "look_ups": len(polling.latencies_ms),
            "messages": messages,
            "largest_ms": max(one.ended_ms for one in received),
        },
    )


async def _receive(scene: Scene, job: Job) -> _Received:
    bar, watch, received = scene.screen.bar(job.label), Stopwatch(), _Received()
    job.request_id = await scene.socket.send("process_assembly", job.payload)
    async for message in scene.socket.follow(job.request_id):
        match message:
            case AcknowledgmentMessage(assembly_id=assembly_id):
                received.acknowledged_ms = watch.ms
                check(assembly_id == job.assembly_id, f"{job.template}: another assembly id")
            case ProgressMessage():
                received.begun_ms = received.begun_ms or watch.ms
                received.seqs.append(message.seq)
                received.percentages.append(message.percentage)
                bar.at(message.percentage, message.message)
            case CompleteMessage():
                received.ended_ms = watch.ms
                received.seqs.append(message.seq)
                job.result = message.result
            case ErrorMessage(error=error):
                raise CheckError(f"{job.template} failed: {error.code}: {error.message}")
    ok = job.result.get("ok")
    check(ok == "ASSEMBLY_COMPLETED", f"{job.template} ended as {ok}")
    return received


async def _poll(scene: Scene, job: Job, polling: _Polling) -> None:
    client = scene.status_client(scene.token)
    while True:
        watch = Stopwatch()
        # The document exists as soon as the job runs.
        with suppress(NotFoundError):
            document = await client.get_status(job.assembly_id)
            polling.documents.append(document)
            scene.documents[job.assembly_id] = document
            if document.terminal:
                return
        polling.latencies_ms.append(watch.ms)
        await asyncio.sleep(POLL_SECONDS)


@step("Receive signed webhooks", needs=(run_templates,))
async def webhooks(scene: Scene) -> Observation:
    """Delivered by `deliver-webhook` from its queue, and verified by the client library."""
    deliveries = [await _delivery(scene, job) for job in scene.jobs]
    waited = statistics.median(
        1000 * (delivery.at - parse_iso_time(delivery.document["last_job_completed"]))
        for delivery in deliveries
    )
    for job, delivery in zip(scene.jobs, deliveries, strict=True):
        ok = delivery.document.get("ok")
        check(ok == "ASSEMBLY_COMPLETED", f"the webhook of {job.template} says {ok}")
    check(not scene.receiver.refused, f"genuine webhooks were refused: {scene.receiver.refused}")
    genuine = deliveries[0]
    tampered = genuine.body.replace(b"ASSEMBLY_COMPLETED", b"ASSEMBLY_CANCELED", 1)
    kept = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")
    headers = [(name, value) for name, value in genuine.headers if name.lower() in kept]
    answer = await scene.http.post(scene.receiver.url, content=tampered, headers=headers)
    check(answer.status_code == 401, f"a changed body got status {answer.status_code}, not 401")
    check(
        scene.receiver.refused == [SignatureMismatchError.__name__],
        f"a changed body was refused because of {scene.receiver.refused}",
    )
    return Observation(
        f"{len(deliveries)} verified, {waited:.0f} ms after the job's end; "
        "one with a changed body gets 401",
        {"after_end_ms": waited, "deliveries": len(deliveries)},
    )


async def _delivery(scene: Scene, job: Job) -> Delivery:
    try:
        async with asyncio.timeout(DELIVERY_SECONDS):
            return await scene.receiver.delivery_of(job.assembly_id)
    except TimeoutError:
        document = await scene.status_client(scene.token).get_status(job.assembly_id)
        webhook = document.webhook.model_dump(exclude_none=True) if document.webhook else None
        raise CheckError(f"{job.template}: no webhook came; `status` returns {webhook}") from None


@dataclass
class _Digest:
    size: int = 0
    raw: str = ""
    content: str = ""
    """SHA-256 of the unpacked gzip stream, or of the bytes as they are."""


@step("Download the results", needs=(run_templates,), seconds_per_megabyte=0.3)
async def results(scene: Scene) -> Observation:
    """Each result is streamed from its `ssl_url`, and its hash compared with the original's."""
    watch, size, compared = Stopwatch(), 0, 0
    client = scene.status_client(scene.token)
    for job in scene.jobs:
        document = await client.get_status(job.assembly_id)
        scene.documents[job.assembly_id] = document
        compare = _table_results if job.template == "tpl_table" else _compressed_results
        digests = await compare(scene, job, document)
        size += sum(digest.size for digest in digests)
        compared += len(digests)
    speed = size / watch.seconds
    return Observation(
        f"{compared} files, {_size(size)}, {_size(speed)}/s; unzipped they equal the originals; "
        "CSV to NDJSON and back gives the same bytes",
        {"files": compared, "total_bytes": size, "bytes_per_second": speed},
    )


async def _compressed_results(scene: Scene, job: Job, document: AssemblyDocument) -> list[_Digest]:
    """Unzipped they equal the uploads; a step `hashed` has the same hash as the download."""
    uploaded = {file.name: file for file in job.files}
    originals = {entry.id: uploaded[entry.name] for entry in document.uploads}
    hashed = {
        entry.original_id: (entry.meta or {}).get("sha256")
        for entry in document.results.get("hashed", [])
    }
    digests = []
    made = document.results["compressed"]
    check(len(made) == len(job.files), f"{job.template}: {len(made)} results")
    for entry in made:
        file = originals[entry.original_id]
        digest = await _download(scene, [entry.ssl_url], gzipped=True)
        check(digest.content == file.sha256, f"{entry.name}, unzipped, differs from {file.name}")
        if hashed:
            check(
                digest.raw == hashed[entry.original_id], f"{entry.name}: not the hash of `hashed`"
            )
        digests.append(digest)
    return digests


async def _table_results(scene: Scene, job: Job, document: AssemblyDocument) -> list[_Digest]:
    """`rows` and `parts` equal the rows as converted here, and `table` equals the upload."""
    (table,) = job.files
    expected = await asyncio.to_thread(files.expected_rows, table)
    wanted = {"rows": expected, "parts": expected, "table": table.sha256}
    digests = []
    for step_name, sha256 in wanted.items():
        entries = sorted(document.results[step_name], key=lambda entry: entry.name)
        digest = await _download(scene, [entry.ssl_url for entry in entries])
        check(digest.content == sha256, f"{step_name}: the bytes differ from the expected ones")
        digests.append(digest)
    return digests


async def _download(scene: Scene, urls: Iterable[str], *, gzipped: bool = False) -> _Digest:
    raw, content, size = hashlib.sha256(), hashlib.sha256(), 0
    for url in urls:
        unpacker = zlib.decompressobj(wbits=31) if gzipped else None
        async with scene.http.stream("GET", url) as response:
            check(response.is_success, f"a download got status {response.status_code}")
            async for chunk in response.aiter_raw(CHUNK):
                size += len(chunk)
                raw.update(chunk)
                content.update(unpacker.decompress(chunk) if unpacker else chunk)
        check(unpacker is None or unpacker.eof, "a gzip stream ended early")
    return _Digest(size, raw.hexdigest(), content.hexdigest())


@step("Fail for a malformed file", needs=(upload,), shows=("status",))
async def malformed(scene: Scene) -> Observation:
    """The error names the row: on the socket, over HTTP and in the webhook."""
    job = Job("tpl_table", (await asyncio.to_thread(files.make_malformed_table, scene.folder),))
    await _upload(scene, job)
    watch = Stopwatch()
    run = scene.socket.run("process_assembly", job.payload)
    error = await error_of(run, JobFailedError, "the job on a malformed file")
    ended = watch.ms
    document = await scene.status_client(scene.token).get_status(job.assembly_id)
    delivered = (await _delivery(scene, job)).document
    place = f"row {files.MALFORMED_ROW}"
    for where, said in (
        ("the socket", (error.code, str(error))),
        ("HTTP", (document.error, document.message)),
        ("the webhook", (delivered.get("error"), delivered.get("message"))),
    ):
        check(place in str(said[1]), f"{where} does not name {place}: {said}")
    return Observation(
        f"{error.code} after {ended:.0f} ms; the socket, HTTP and the webhook name {place}",
        {"failed_ms": ended},
    )


@step("Repeat a finished request", needs=(run_templates,))
async def repeat(scene: Scene) -> Observation:
    """With a new id it gets the finished document, with the same id the same job; no second run."""
    job = scene.largest
    watch = Stopwatch()
    document = await scene.socket.run("process_assembly", job.payload)
    again_ms = watch.ms
    first, second = (
        [one.get(name) for name in ("assembly_id", "execution_start", "last_job_completed")]
        for one in (job.result, document)
    )
    check(first == second, f"the job ran again: {first}, then {second}")
    watch = Stopwatch()
    document = await scene.socket.run("process_assembly", job.payload, id=job.request_id)
    same_ms = watch.ms
    check(document.get("execution_start") == first[1], "the same id made another job")
    state = await scene.socket.request("status", {"request_id": job.request_id})
    check(state.get("attempts") == 1, f"the request has {state.get('attempts')} attempts")
    other = scene.socket.request("delay", {"seconds": 1}, id=job.request_id)
    await error_of(other, ConflictError, "another request with a known id")
    return Observation(
        f"with a new id: the finished document after {again_ms:.0f} ms; with the same id: the same "
        f"job, {same_ms:.0f} ms; with the same id and another payload: refused",
        {"another_id_ms": again_ms, "same_id_ms": same_ms},
    )


@step("Refuse a user of another tenant", needs=(run_templates,))
async def other_tenant(scene: Scene) -> Observation:
    """With a valid token, a user of another tenant gets and changes no job of this one."""
    job, token = scene.largest, scene.other_token
    look_up = scene.status_client(token).get_status(job.assembly_id)
    error = await error_of(look_up, ForbiddenError, "the other user's look-up")
    check(error.status_code == 403, f"the other user's look-up got status {error.status_code}")
    async with JobSocket(scene.description["websocket_url"], token) as socket:
        reference = {"request_id": job.request_id}
        for action in ("status", "cancel", "subscribe"):
            asked = socket.request(action, reference)
            await error_of(asked, NotFoundError, f"the other user's {action}")
        foreign = socket.request("process_assembly", job.payload)
        await error_of(foreign, ForbiddenError, "a job on another tenant's upload")
    return Observation(
        "403 over HTTP; NOT_FOUND on the socket for status, cancel, subscribe; "
        "FORBIDDEN for a job on the upload"
    )


@step("Measure the worker's memory", needs=(run_templates,))
async def memory(scene: Scene) -> Observation | None:
    """The processor's peak of resident memory, after it has processed the large file."""
    state = scene.stage.read_state()
    if state is None:
        return None
    peak = peak_megabytes(scene.description["functions"]["processor"], state.pid)
    if peak is None:
        return None
    check(peak < WORKER_MEGABYTES, f"the processor used {peak:.0f} MB")
    return Observation(
        f"{peak:.0f} MB at the peak, for {_size(scene.largest.size)} of input",
        {"peak_bytes": peak * 1e6},
    )


def _not_falling(numbers: list[float]) -> bool:
    return numbers == sorted(numbers)


def _size(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 10e6 else f"{count / 1e6:.1f} MB"
