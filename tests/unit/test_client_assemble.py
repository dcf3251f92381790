"""`assemble` and large payloads, against a socket service and a bucket in memory."""

import asyncio
import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobplane_client import (
    ChangedFileError,
    InvalidRequestError,
    JobFailedError,
    JobSocket,
    UnauthorizedError,
    UnreadableFileError,
    UploadFailedError,
    UploadRefusedError,
    assemble,
)
from jobplane_keys import MAX_PAYLOAD_BYTES
from tests.unit.client_services import SocketService, Timers, completed

PART = 1000
API = "https://api.test/stage"
type Fault = Callable[[httpx.Request], httpx.Response | Exception | None]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Service(SocketService):
    """The socket, the HTTP API below /s3, and a bucket; `fault` may answer a request instead."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.calls: list[str] = []
        self.fault: Fault = lambda request: None
        self.is_completed = False
        self.links = False
        self.refusal: dict[str, Any] | None = None
        self.under_way, self.most = 0, 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    def open(self) -> JobSocket:
        return JobSocket(self.url, "t1", sleep=Timers())

    async def assemble(self, *files: Any, **options: Any) -> Any:
        async with self.open() as socket:
            known: dict[str, Any] = {"api_url": API, "client": self.client(), "whole_bytes": PART}
            return await socket.assemble(list(files), "tpl", **known | options)

    def count(self, call: str) -> int:
        return sum(each.startswith(call) for each in self.calls)

    @property
    def order(self) -> Any:
        """The payload of process_assembly."""
        return self.sent("process_assembly")[-1]["payload"]

    def stored(self) -> dict[str, bytes]:
        """Content by name, as process_assembly finds it."""
        return {entry["name"]: self.objects[entry["key"]] for entry in self.order["uploads"]}

    def _reply(self, number: int, action: str, request_id: Any, payload: Any) -> dict[str, Any]:
        if action not in ("create_upload", "process_assembly"):
            return super()._reply(number, action, request_id, payload)
        if self.refusal is not None:
            return {"type": "error", "error": self.refusal}
        if "payload_key" in payload:
            payload = json.loads(self.objects[payload["payload_key"]])
        if action == "process_assembly":
            return self._linked("result", completed(), type="complete", seq=1)
        uploads = [
            file | {"key": f"u/{file['md5hash']}", "url": f"https://s3.test/u/{file['md5hash']}",
                    "headers": {"Content-MD5": encoded(file["md5hash"])}}
            for file in payload["files"]
        ]  # fmt: skip
        known = {"assembly_id": "a1", "completed": self.is_completed}
        if self.links:
            self.objects["list"] = json.dumps({"uploads": uploads}).encode()
            return {
                "type": "response", "success": True,
                "data": known | {"url": "https://s3.test/list"},
            }  # fmt: skip
        return {"type": "response", "success": True, "data": known | {"uploads": uploads}}

    def _linked(self, name: str, content: Any, **message: Any) -> dict[str, Any]:
        if self.links:
            self.objects[name] = json.dumps(content).encode()
            content = {"url": f"https://s3.test/{name}"}
        return {"success": True, name: content, **message}

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/stage")
        self.under_way += request.method == "PUT"
        self.most = max(self.most, self.under_way)
        try:
            content = await request.aread()
            await asyncio.sleep(0)
            self.calls.append(f"{request.method} {path}")
            faulty = self.fault(request)
            if isinstance(faulty, Exception):
                raise faulty
            if faulty is not None:
                return faulty
            if request.url.host == "s3.test":
                return self._bucket(request, path[1:], content)
            assert request.headers["Authorization"] == "Bearer t1"
            return self._api(request, path, content)
        finally:
            self.under_way -= request.method == "PUT"

    def _bucket(self, request: httpx.Request, key: str, content: bytes) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, content=self.objects[key])
        assert int(request.headers["Content-Length"]) == len(content)
        if request.headers["Content-MD5"] != encoded(md5(content)):
            return httpx.Response(400, text="<Error><Code>BadDigest</Code></Error>")
        if "part" in request.url.params:
            self.parts[key][int(request.url.params["part"])] = content
        else:
            self.objects[key] = content
        return httpx.Response(200, headers={"ETag": f'"{md5(content)}"'})

    def _api(self, request: httpx.Request, path: str, content: bytes) -> httpx.Response:
        match request.method, path.split("/")[3:]:
            case "POST", []:
                key = f"big{len(self.parts) + 1}"
                self.parts[key] = {}
                return httpx.Response(200, json={"key": key, "uploadId": key, "partSize": PART})
            case "POST", [key, "complete"]:
                named = json.loads(content)["parts"]
                if key not in self.objects:
                    parts = self.parts[key]
                    assert [part["PartNumber"] for part in named] == sorted(parts)
                    self.objects[key] = b"".join(parts[number] for number in sorted(parts))
                size = len(self.objects[key])
                return httpx.Response(
                    200, json={"key": key, "size": size, "mime": "video/mp4", "md5hash": "0" * 32}
                )
            case "GET", [key] if key in self.parts:
                joined = key in self.objects
                return httpx.Response(200, json=[
                    {"PartNumber": number, "Size": 1, "ETag": '"a-3"' if joined else md5(part)}
                    for number, part in self.parts[key].items()
                ])  # fmt: skip
            case "GET", [key, number]:
                headers = {"Content-MD5": encoded(request.url.params["md5"])}
                url = f"https://s3.test/{key}?part={number}"
                return httpx.Response(200, json={"url": url, "headers": headers})
            case "DELETE", [key]:
                del self.parts[key]
                return httpx.Response(200, json={})
        return httpx.Response(404, json={"error": "Upload not found: begin it again"})


def encoded(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service() as service:
        yield service


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A file of three and a half parts."""
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(PART * 7 // 2))
    return path


def failing(part: int, answer: httpx.Response | Exception, times: int = 10**6) -> Fault:
    """A fault of the PUT of a part, so many times."""
    left = iter(range(times))

    def fault(request: httpx.Request) -> httpx.Response | Exception | None:
        is_part = request.method == "PUT" and request.url.params.get("part") == str(part)
        return answer if is_part and next(left, None) is not None else None

    return fault


async def test_files_become_the_document_of_their_assembly(
    service: Service, film: Path, tmp_path: Path
) -> None:
    """Small ones whole, large ones in parts, in their order, and equal ones once."""
    table = tmp_path / "table.csv"
    table.write_text("a,b\n")
    told: dict[str, tuple[int, int]] = {}
    document = await service.assemble(
        str(table), ("again.csv", b"a,b\n"), film, ("empty.txt", b""), fields={"n": 1},
        parallel=2, on_upload=lambda name, stored, size: told.update({name: (stored, size)}),
    )  # fmt: skip
    assert (document.completed, document.assembly_id) == (True, "a1")
    assert list(service.stored().items()) == [
        ("table.csv", b"a,b\n"), ("again.csv", b"a,b\n"), ("film.mp4", film.read_bytes()),
        ("empty.txt", b""),
    ]  # fmt: skip
    assert [file["mime"] for file in service.order["uploads"]] == [
        "text/csv", "text/csv", "video/mp4", "text/plain",
    ]  # fmt: skip
    assert service.order["fields"] == service.sent("create_upload")[0]["payload"]["fields"]
    assert (service.count("PUT /u/"), service.count("PUT /big1")) == (2, 4)
    assert told == {"again.csv": (4, 4), "film.mp4": (3500, 3500), "empty.txt": (0, 0)}
    assert service.most <= 2


async def test_an_assembly_with_a_result_is_not_sent_again(service: Service, film: Path) -> None:
    """Unless the answer is for some of its files only."""
    service.is_completed = True
    await service.assemble(("a.txt", b"a"))
    assert service.count("PUT") == 0
    await service.assemble(("a.txt", b"a"), film)
    assert service.count("PUT /u/") == 1


async def test_lists_and_documents_behind_a_link_are_fetched(service: Service) -> None:
    service.links = True
    assert (await service.assemble(("a.txt", b"a"))).completed
    assert service.stored() == {"a.txt": b"a"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ReadError("broken"), httpx.ConnectTimeout("slow"), httpx.Response(503),
        httpx.Response(400, text="<Error><Code>RequestTimeout</Code></Error>"),
    ],
    ids=["broken", "slow", "busy", "idle"],
)  # fmt: skip
async def test_a_part_is_sent_again_after_a_passing_fault(
    service: Service, film: Path, answer: Any
) -> None:
    """By a new link, and no other part."""
    service.fault = failing(2, answer, times=2)
    await service.assemble(film)
    assert service.stored() == {"film.mp4": film.read_bytes()}
    links = Counter(call for call in service.calls if call.startswith("GET /s3/multipart/big1/"))
    assert sorted(links.values()) == [1, 1, 1, 3]


@pytest.mark.parametrize("end", ["failure", "cancellation"])
@pytest.mark.parametrize("resume", [True, False])
async def test_a_broken_upload_goes_on_or_is_aborted(
    service: Service, film: Path, tmp_path: Path, resume: bool, end: str
) -> None:
    """With a journal, a later call sends the missing parts; without one, nothing is left, and no
    part is sent after the abort.
    """
    journal = tmp_path / "uploads.json"
    options = {"parallel": 1, **({"resume": journal} if resume else {})}
    service.fault = failing(3, httpx.ReadError("broken"))
    if end == "failure":
        with pytest.raises(UploadFailedError, match=r"film.mp4: broken"):
            await service.assemble(film, **options)
    else:

        def cancelling(request: httpx.Request) -> None:
            if request.url.params.get("part") == "3":
                task.cancel()

        service.fault = cancelling
        task = asyncio.create_task(service.assemble(film, **options))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert journal.exists() == resume
    if not resume:
        assert (service.parts, service.calls[-1][:6]) == ({}, "DELETE")
        return
    had = set(service.parts["big1"])
    assert {1, 2} <= had
    service.fault = lambda request: None
    service.calls.clear()
    await service.assemble(film, **options)
    assert service.stored() == {"film.mp4": film.read_bytes()}
    assert (service.count("PUT"), service.count("POST /s3/multipart/big1")) == (4 - len(had), 1)
    assert not journal.exists()


@pytest.mark.parametrize("lost", [True, False])
async def test_an_upload_that_is_complete_is_found_by_a_later_call(
    service: Service, film: Path, tmp_path: Path, lost: bool
) -> None:
    """After the answer to its completion was lost, or its job has failed."""

    def losing(request: httpx.Request) -> Exception | None:
        if not request.url.path.endswith("/complete"):
            return None
        service._api(request, request.url.path.removeprefix("/stage"), request.content)
        return httpx.ReadError("broken")

    options = {"resume": tmp_path / "uploads.json"}
    if lost:
        service.fault = losing
    else:
        service.refusal = {"code": "PROCESSING_FAILED", "message": "broken", "retryable": False}
    with pytest.raises(UploadFailedError if lost else JobFailedError, match="broken"):
        await service.assemble(film, **options)
    service.fault, service.refusal = (lambda request: None), None
    service.calls.clear()
    await service.assemble(film, **options)
    assert service.stored() == {"film.mp4": film.read_bytes()}
    assert service.count("PUT") == 0


@pytest.mark.parametrize("change", ["content", "expiry"])
async def test_a_journal_entry_of_another_file_or_an_expired_upload_begins_anew(
    service: Service, film: Path, tmp_path: Path, change: str
) -> None:
    options = {"resume": tmp_path / "uploads.json", "parallel": 1}
    service.fault = failing(3, httpx.Response(503))
    with pytest.raises(UploadFailedError):
        await service.assemble(film, **options)
    service.fault = lambda request: None
    if change == "content":
        film.write_bytes(os.urandom(PART * 2 + 1))
    else:
        service.parts.clear()
        service.parts["other"] = {}
    await service.assemble(film, **options)
    assert service.stored() == {"film.mp4": film.read_bytes()}


def rewritten(film: Path, content: bytes) -> Fault:
    def fault(request: httpx.Request) -> None:
        if request.method == "PUT":
            film.write_bytes(content)

    return fault


@pytest.mark.parametrize("content", [b"short", b"x" * (PART * 7 // 2), b"x" * PART * 9])
async def test_a_file_that_is_written_meanwhile_is_refused_and_its_upload_aborted(
    service: Service, film: Path, tmp_path: Path, content: bytes
) -> None:
    """Also with a journal: the parts that S3 has are of no use."""
    service.fault = rewritten(film, content)
    with pytest.raises(ChangedFileError) as raised:
        await service.assemble(film, resume=tmp_path / "uploads.json", parallel=1)
    assert (raised.value.file, service.parts) == ("film.mp4", {})
    assert not service.sent("process_assembly")


async def test_errors_name_the_file(service: Service, film: Path, tmp_path: Path) -> None:
    async def error_of(*files: Any, **options: Any) -> Any:
        with pytest.raises(Exception) as raised:  # noqa: PT011
            await service.assemble(*files, **options)
        service.fault, service.refusal = (lambda request: None), None
        return raised.value

    error = await error_of(tmp_path / "absent.csv")
    assert isinstance(error, UnreadableFileError)
    assert str(error) == "absent.csv: No such file or directory"

    service.fault = failing(1, httpx.Response(403, text="<Code>AccessDenied</Code>"))
    error = await error_of(film)
    assert isinstance(error, UploadRefusedError)
    assert str(error) == "film.mp4: S3 answered with 403 AccessDenied"

    problem = {"field": "size", "message": "size must be a number from 0 to 5"}
    body = {"error": problem["message"], "problems": [problem]}
    service.fault = lambda request: httpx.Response(400, json=body)
    error = await error_of(film)
    assert (type(error), str(error)) == (UploadRefusedError, f"film.mp4: {body['error']}")

    service.refusal = {
        "code": "VALIDATION_ERROR", "message": "The file is too large", "retryable": False,
        "details": [{"field": "payload.files.1.size", "message": "at most 5 bytes"}],
    }  # fmt: skip
    error = await error_of(("a.txt", b"a"), ("b.txt", b"b"))
    assert (type(error), str(error)) == (UploadRefusedError, "b.txt: at most 5 bytes")

    service.refusal = {
        "code": "VALIDATION_ERROR", "message": "Unknown template", "retryable": False,
        "details": [{"field": "payload.template_id", "message": "did you mean tpl_a?"}],
    }  # fmt: skip
    assert isinstance(await error_of(("a.txt", b"a")), InvalidRequestError)

    service.fault = lambda request: httpx.Response(401, json={"error": "Authentication required"})
    assert isinstance(await error_of(film), UnauthorizedError)
    with pytest.raises(ValueError, match="at least one"):
        await service.assemble()


async def test_a_program_without_an_event_loop_can_assemble(service: Service) -> None:
    document = await asyncio.to_thread(
        assemble, [("a.txt", b"")], "tpl", socket_url=service.url, api_url=API, token="t1",
        client=service.client(),
    )  # fmt: skip
    assert document.completed


def many(count: int) -> dict[str, Any]:
    files = [{"name": f"{n:0200}", "size": 1, "md5hash": md5(b"a")} for n in range(count)]
    return {"template_id": "tpl", "files": files}


async def test_a_payload_that_no_message_can_carry_is_uploaded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobplane_client._assembling.new_client", service.client)
    async with service.open() as socket:
        reply = await socket.request("create_upload", many(500), id="r1")
        assert len(reply["uploads"]) == 500
        own, named = service.sent("create_upload")
        assert named["payload"] == {"payload_key": f"u/{own['payload']['files'][0]['md5hash']}"}
        request_id = await socket.send("process_assembly", many(500))
        assert [message.type async for message in socket.follow(request_id)] == ["complete"]
    assert set(service.order) == {"payload_key"}


@pytest.mark.parametrize(
    ("action", "payload", "text"),
    [
        ("echo", {"n": 1, "rows": ["x" * 100_000]}, r"payload.rows: 100,004 characters.*assemble"),
        ("create_upload", many(MAX_PAYLOAD_BYTES // 250), r"2,\d+,\d+ bytes; at most 2,097,152"),
    ],
)  # fmt: skip
async def test_a_payload_without_a_way_names_field_and_remedy(
    service: Service, action: str, payload: Any, text: str
) -> None:
    async with service.open() as socket:
        with pytest.raises(InvalidRequestError, match=text) as raised:
            await socket.send(action, payload)
    assert (raised.value.code, service.received) == ("PAYLOAD_TOO_LARGE", [])
