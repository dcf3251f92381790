"""`jobplane demo`: its steps, its report, and its clean-up."""

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from click.testing import CliRunner
from PIL import Image

from jobplane.demo import files, program
from jobplane.demo.orphans import Operator
from jobplane.demo.proxy import Proxy
from jobplane.demo.receiver import Receiver
from jobplane.demo.screen import save_picture
from jobplane.demo.story import Observation, Outcome, check, step
from jobplane.tree.repository import Repository
from jobplane.verbs.demo import command
from tests.workspace.leftovers import leftovers

ROOT = Repository.here().root


def demo(*arguments: str) -> "subprocess.Popen[str]":
    """Start the command in a process group, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobplane", "demo", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_every_step_passes_and_the_stage_is_removed() -> None:
    stage = f"demo-{os.getpid()}"
    process = demo("--json", "--size", "5", "--stage", stage)
    output, errors = process.communicate()
    assert process.returncode == 0, f"{output}\n{errors}"
    report = json.loads(output)
    assert report["ok"] is True
    assert report["failed"] == []
    assert {one["name"]: one["outcome"] for one in report["steps"]} == {
        one["name"]: "ok" for one in report["steps"]
    }
    names = [step.name for step in program.PROGRAM]
    assert [one["name"] for one in report["steps"]] == [
        name for name in names if name != "memory" or Path("/proc/self/environ").exists()
    ]
    assert leftovers(stage) == []


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_ctrl_c_removes_the_stage_and_exits_with_130() -> None:
    stage = f"demo-int-{os.getpid()}"
    process = demo("--size", "5", "--stage", stage)
    assert process.stderr is not None
    for line in process.stderr:
        if "Open a socket" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert leftovers(stage) == []


@step("A step that holds")
async def holding(_scene: Any) -> Observation:
    """Observes something."""
    return Observation("seen", {"seen_ms": 1.0})


@step("A step that fails", needs=(holding,))
async def failing(_scene: Any) -> Observation:
    """Observes the wrong thing."""
    check(False, "one is not two")
    return Observation("never")


@step("A step that needs the failing one", needs=(failing,))
async def dependent(_scene: Any) -> Observation:
    """Never runs."""
    raise AssertionError


@step("A step that hangs", seconds=0.01)
async def hanging(_scene: Any) -> Observation:
    """Does not end."""
    await asyncio.Event().wait()
    return Observation("never")


class NoScreen:
    """Shows nothing."""

    @staticmethod
    def working(_title: str) -> Any:
        return nullcontext()


class NoScene:
    """The attributes of a scene that `take` reads."""

    megabytes = 1
    screen = NoScreen()


async def test_a_failed_step_skips_only_the_steps_that_need_it() -> None:
    outcomes: list[Outcome] = []
    scene: Any = NoScene()
    for one in (holding, failing, dependent, hanging):
        outcome = await program.take(one, scene, outcomes)
        assert outcome is not None
        outcomes.append(outcome)
    report = program.Report("any", 1, outcomes)
    assert [(one.held, one.text) for one in outcomes] == [
        (True, "seen"),
        (False, "one is not two"),
        (None, "needs failing"),
        (False, "not done within 0 s"),
    ]
    assert report.failed == ["failing", "hanging"]
    assert not report.held


def test_a_report_without_steps_is_a_failure() -> None:
    assert not program.Report("any", 1).held


def test_the_picture_shows_titles_and_observations(tmp_path: Path) -> None:
    path = tmp_path / "demo.svg"
    save_picture([Outcome(holding, True, "seen"), Outcome(failing, False, "one is not two")], path)
    drawn = "".join(ElementTree.fromstring(path.read_text(encoding="utf-8")).itertext())  # noqa: S314
    for text in ("A step that fails", "seen", "one is not two"):
        assert text in drawn.replace("\N{NO-BREAK SPACE}", " ")


def test_a_picture_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--picture", str(tmp_path / "none" / "demo.svg")])
    assert done.exit_code == 2
    assert f"no folder {tmp_path / 'none'}" in done.output


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for make in (files.make_text, files.make_table, files.make_image):
        first = make(tmp_path)
        content = first.path.read_bytes()
        assert first.sha256 == hashlib.sha256(content).hexdigest()
        assert first.size == len(content)
        assert make(tmp_path) == first


def test_records_are_whole_lines_of_the_size_asked_for(tmp_path: Path) -> None:
    records = files.make_records(tmp_path, 3)
    lines = records.path.read_bytes().splitlines(keepends=True)
    assert 3_000_000 <= records.size < 3_000_000 + max(map(len, lines))
    assert [json.loads(line)["event"] for line in lines] == list(range(len(lines)))


def test_pillow_reads_the_generated_image(tmp_path: Path) -> None:
    with Image.open(files.make_image(tmp_path).path) as opened:
        opened.load()
        assert opened.size == files.IMAGE_SIZE


async def test_a_search_that_could_not_read_all_manifests_is_repeated() -> None:
    """A file whose manifest was not read for a moment is not taken for stuck."""
    file = {"date_prefix": "2026-11-28", "file_key": "a.ndjson"}
    unknown = {"unknown": [file], "orphans": {"stuck_manifested": [file]}}
    known = {"unknown": [], "orphans": {"not_in_manifest": [file]}}
    bodies = iter([unknown, unknown, known])

    def invoke(**_: object) -> dict[str, Any]:
        answer = {"statusCode": 200, "body": json.dumps(next(bodies))}
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}

    scene: Any = SimpleNamespace(
        stage=SimpleNamespace(client=lambda _: SimpleNamespace(invoke=invoke)),
        description={"functions": {"state-manager": "state-manager"}},
    )
    assert await Operator(scene).orphans() == known["orphans"]


async def test_the_receiver_refuses_a_webhook_without_a_signature() -> None:
    receiver = Receiver("a-secret-of-the-receiver")
    with receiver.listening(0):
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(receiver.url, content=b"{}")
    assert answer.status_code == 401
    assert receiver.refused == ["MissingSignatureError"]


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """A server that returns what it receives."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/path?query"


async def test_the_proxy_cuts_connections_and_accepts_new_ones() -> None:
    async with echoing() as url:
        proxy = Proxy(url)
        async with proxy.listening():
            host, port = httpx.URL(proxy.url).host, httpx.URL(proxy.url).port
            for _ in range(2):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                proxy.cut()
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    async with asyncio.timeout(60):
                        await reader.readexactly(1)
                writer.close()
    assert proxy.connections == 2
    assert proxy.url.endswith("/path?query")
