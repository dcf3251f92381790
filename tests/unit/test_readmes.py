"""The READMEs of the libraries keep their word: their examples run."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client_fakes import HttpService, Reply, Script, SocketService, completed

LIBS = Path(__file__).parents[2] / "libs"
PLAIN = ["keys", "models", "telemetry", "tokens", "webhooks"]


def examples(lib: str) -> list[str]:
    """The Python blocks of a README."""
    text = (LIBS / lib / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def execute(code: str, name: str) -> dict[str, Any]:
    """Run an example as a program of its own; the names it leaves."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"{name}/README.md", "exec", dont_inherit=True), names)  # noqa: S102  # ours
    return names


@pytest.mark.parametrize("lib", [*PLAIN, "client"])
def test_readme_is_short_and_shows_soon(lib: str) -> None:
    """A complete example by line 40, and an end before line 110."""
    text = (LIBS / lib / "README.md").read_text()
    assert text.startswith(f"# jobplane-{lib}\n")
    first = examples(lib)[0]
    assert text[: text.index(first) + len(first)].count("\n") <= 40
    assert text.count("\n") < 110


@pytest.mark.parametrize("lib", PLAIN)
def test_example_runs(lib: str) -> None:
    """What it asserts is true."""
    for code in examples(lib):
        assert "assert" in code
        execute(code, lib)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBPLANE_TOKEN", "t1")


async def test_socket_example_runs(
    token: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the progress of a job and returns its result."""
    async with SocketService() as service:
        monkeypatch.setenv("JOBPLANE_SOCKET_URL", service.url)
        example = asyncio.create_task(asyncio.to_thread(execute, examples("client")[0], "client"))
        await service.until(lambda: service.jobs)
        (request_id,) = service.jobs
        await service.progress(request_id, 50)
        await service.complete(request_id, {"n": 1})
        assert (await example)["result"] == {"n": 1}
    assert capsys.readouterr().out == "50 %\n"


def test_status_example_runs(token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a job and says how it ended."""
    script = Script()
    script.will(Reply(body=completed()))
    with HttpService(script) as service:
        monkeypatch.setenv("JOBPLANE_URL", service.url)
        assert execute(examples("client")[1], "client")["line"] == "Completed in 5.2s"


def test_webhook_example_runs() -> None:
    """It verifies the published example of Standard Webhooks."""
    assert execute(examples("client")[2], "client")["document"] == {"test": 2432232314}
