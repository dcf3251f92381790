"""The client library against the deployed stage."""

import asyncio
import hashlib
import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobplane_client import (
    AsyncHttpStatusClient,
    ForbiddenError,
    HttpStatusClient,
    JobCancelledError,
    JobSocket,
    NotFoundError,
    StatusClient,
    progress_message,
)
from jobplane_keys import iso_time, owner_key
from jobplane_leases import RequestLease, store_events
from jobplane_models.assemblies import AssemblyDocument
from jobplane_models.messages import CompleteMessage, EventMessage, ProgressMessage
from tests.e2e.deployed import Deployed, unique, until

pytestmark = pytest.mark.e2e


async def test_run_returns_the_result_and_reports_progress(deployed: Deployed) -> None:
    url, token = deployed.info["websocket_url"], deployed.token(unique("user"), "acme")
    told: list[float] = []
    async with JobSocket(url, token) as socket:
        result = await socket.run(
            "delay",
            {"seconds": 1, "steps": 4},
            on_progress=lambda message: told.append(message.percentage),
        )

    assert result == {"seconds": 1.0, "steps": 4}
    assert told == sorted(told)
    assert told[-1] == 100


async def test_a_job_is_resumed_after_a_lost_connection(deployed: Deployed) -> None:
    """Its end comes once."""
    url, token = deployed.info["websocket_url"], deployed.token(unique("user"), "acme")
    numbers: list[int] = []
    async with JobSocket(url, token) as socket:
        request_id = await socket.send("delay", {"seconds": 4, "steps": 20})
        async for message in socket.follow(request_id):
            if isinstance(message, ProgressMessage | CompleteMessage):
                numbers.append(message.seq)
                if len(numbers) == 3:
                    cut(socket)
        last = message

    assert isinstance(last, CompleteMessage)
    assert numbers == sorted(set(numbers))


def cut(socket: JobSocket) -> None:
    """Abort the socket's connection."""
    assert socket._connection is not None
    socket._connection.transport.abort()


async def test_a_connection_goes_on_with_newer_tokens(deployed: Deployed) -> None:
    """Its job takes longer than the first token is good for; its messages go on."""
    user, url = unique("user"), deployed.info["websocket_url"]
    tokens: list[str] = []
    told: list[float] = []

    def token() -> str:
        tokens.append(deployed.token(user, "acme", ttl=4 if not tokens else 3600))
        return tokens[-1]

    async with JobSocket(url, token) as socket:
        await socket.run(
            "delay",
            {"seconds": 6, "steps": 12},
            on_progress=lambda message: told.append(message.percentage),
        )
        assert socket._connections == 1
    assert len(tokens) == 2
    assert told[-1] == 100


async def test_a_foreign_token_does_not_prolong_a_connection(deployed: Deployed) -> None:
    url, token = deployed.info["websocket_url"], deployed.token(unique("user"), "acme")
    async with JobSocket(url, token) as socket:
        with pytest.raises(ForbiddenError):
            foreign = deployed.token(unique("user"), "acme")
            await socket.request("authenticate", {"token": foreign})
        await socket.request("ping")


async def test_all_events_arrive_once_over_lost_connections(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No post of them arrives, since this worker sends none: the socket asks for them."""
    monkeypatch.setattr("jobplane_client._socket._BACKOFF_BASE_SECONDS", 0.1)
    user = unique("user")
    owner, now = owner_key("acme", user), time.time()
    deployed.put(
        "requests",
        {
            "owner": owner, "request_id": "job", "tenant_id": "acme", "action": "delay",
            "status": "PROCESSING", "attempts": 1, "max_attempts": 4, "cancel_requested": False,
            "subscriber_count": 0, "lease_owner": "worker", "lease_until": int(now) + 600,
            "created_at": iso_time(now), "updated_at": iso_time(now), "ttl": int(now) + 3600,
            "connection_id": "none", "payload": "{}", "metadata": {}, "on_disconnect": "detach",
        },
    )  # fmt: skip
    table = deployed.info["tables"]["requests"]
    lease = RequestLease(deployed.dynamodb, table, owner, "job")
    numbers, heard, row = range(60), list[int](), dict[str, Any]()
    url, token = deployed.info["websocket_url"], deployed.token(user, "acme")

    async with JobSocket(url, token, ping_every=0.5) as socket:

        async def listen() -> None:
            async for message in socket.follow("job"):
                if isinstance(message, EventMessage):
                    heard.extend(event["number"] for event in message.events)

        listening = asyncio.create_task(listen())

        def has(count: int) -> bool:
            return len(heard) >= count

        for number in numbers:
            event = json.dumps({"number": number, "text": "x" * 100})
            stored = partial(store_events, lease, "worker", row, [event], time.time())
            row = await asyncio.to_thread(stored)
            if number % 20 == 10:
                cut(socket)
                await until(partial(has, number + 1), "the events before")
        lease.finish("worker", {"status": "COMPLETED", "seq": 1, "result": "{}"}, time.time())
        cut(socket)
        await listening
    assert heard == list(numbers)


async def test_run_raises_for_a_job_cancelled_by_another_socket(deployed: Deployed) -> None:
    user = unique("user")
    url, token = deployed.info["websocket_url"], deployed.token(user, "acme")
    async with JobSocket(url, token) as socket:
        job = asyncio.create_task(socket.run("delay", {"seconds": 30, "steps": 100}, id="job"))
        async with deployed.socket(user) as other:
            while "error" in (
                await other.ask({"action": "cancel", "payload": {"request_id": "job"}})
            ):
                await asyncio.sleep(0.05)
        with pytest.raises(JobCancelledError):
            await job


async def test_all_status_clients_return_the_same_document(deployed: Deployed) -> None:
    """By invoke, by HTTP, and by asynchronous HTTP."""
    user = unique("user")
    assembly_id = await deployed.complete(user)
    token = deployed.token(user, "acme")
    invoke = StatusClient(deployed.info["functions"]["status"], client=deployed.functions)

    def by_http() -> AssemblyDocument:
        with HttpStatusClient(deployed.http_url, token) as client:
            with pytest.raises(NotFoundError):
                client.get_status("0" * 64)
            return client.wait(assembly_id, timeout=10)

    async with AsyncHttpStatusClient(deployed.http_url, token) as client:
        document = await client.get_status(assembly_id)
        batch = await client.get_batch_status([assembly_id, "0" * 64])

    stable = {"results", "webhook"}  # links are new, and the webhook's state may change
    expected = document.model_dump(exclude=stable)
    assert (await asyncio.to_thread(by_http)).model_dump(exclude=stable) == expected
    direct = await asyncio.to_thread(invoke.get_status, assembly_id, user)
    assert direct.model_dump(exclude=stable) == expected
    assert batch["0" * 64] is None
    assert progress_message(document).startswith("Completed")


async def test_the_readmes_example_assembles_files(
    deployed: Deployed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    readme = Path(__file__).parents[2] / "libs/client/README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "assemble" in block]
    monkeypatch.chdir(tmp_path)
    for name in ("film.mp4", "table.csv"):
        Path(name).write_bytes(os.urandom(1000))
    monkeypatch.setenv("JOBPLANE_SOCKET_URL", deployed.info["websocket_url"])
    monkeypatch.setenv("JOBPLANE_URL", deployed.http_url)
    monkeypatch.setenv("JOBPLANE_TOKEN", deployed.token(unique("user"), "acme"))
    await asyncio.to_thread(exec, compile(code, str(readme), "exec"), {})
    printed = dict(line.split(" ") for line in capfd.readouterr().out.splitlines())
    assert [*printed] == ["film.mp4", "table.csv"]
    assert [httpx.get(link).status_code for link in printed.values()] == [200, 200]


async def test_a_file_in_parts_goes_on_after_a_break(deployed: Deployed, tmp_path: Path) -> None:
    """It is not sent again for the same assembly."""
    film = tmp_path / "film.mp4"
    film.write_bytes(os.urandom(20_000_000))
    sent: list[str] = []

    async def note(request: httpx.Request) -> None:
        if request.method == "PUT":
            sent.append(request.url.params.get("partNumber", ""))

    def break_off(name: str, stored: int, size: int) -> None:
        raise KeyError(name)

    token = deployed.token(unique("user"), "acme")
    async with (
        JobSocket(deployed.info["websocket_url"], token) as socket,
        httpx.AsyncClient(event_hooks={"request": [note]}, trust_env=False) as client,
    ):

        async def run(**options: Any) -> AssemblyDocument:
            return await socket.assemble(
                [film, ("a.txt", b"a")], "tpl_fingerprint", api_url=deployed.http_url,
                client=client, whole_bytes=1000, parallel=1, resume=tmp_path / "uploads.json",
                **options,
            )  # fmt: skip

        with pytest.raises(KeyError):
            await run(on_upload=break_off)
        document = await run()
    assert sorted(number for number in sent if number) == ["1", "2", "3"]
    (result, small) = document.results["hashed"]
    assert (result.meta or {})["sha256"] == hashlib.sha256(film.read_bytes()).hexdigest()
    assert small.size == 1


async def test_a_payload_above_96_kb_is_accepted(deployed: Deployed) -> None:
    """Of files that have their links behind a link."""
    files = [
        {"name": f"{number:0200}", "size": 1, "md5hash": f"{number:032x}"} for number in range(600)
    ]
    token = deployed.token(unique("user"), "acme")
    async with JobSocket(deployed.info["websocket_url"], token) as socket:
        reply = await socket.request(
            "create_upload", {"template_id": "tpl_fingerprint", "files": files}
        )
    listed = httpx.get(reply["url"], trust_env=False).json()["uploads"]
    assert [upload["name"] for upload in listed] == [file["name"] for file in files]
