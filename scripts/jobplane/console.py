"""How a verb speaks: one line a result, a tool's output only when the tool failed."""

import os
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import click


class ToolError(click.ClickException):
    """A tool that a verb started failed; carries the tool's own output."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(what)
        self.output = output

    def show(self, file: object = None) -> None:
        if self.output.strip():
            click.echo(self.output.rstrip(), err=True)
        click.echo(f"Error: {self.message}", err=True)


class MissingToolError(click.ClickException):
    """A program that the workspace needs is not installed."""


class Unread:
    """A text stream that goes on when nobody reads it any more, as stderr of a closed terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def note(text: str) -> None:
    """Progress, for people: on stderr, so that stdout holds results alone."""
    click.echo(text, err=True)


def run_quietly(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    what: str,
    env: Mapping[str, str] | None = None,
    given: str = "",
) -> str:
    """Run a tool with a text on its stdin, return its stdout.

    Raises:
        ToolError: the tool's exit code is not 0.
        MissingToolError: the tool is not there.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            capture_output=True,
            text=True,
            input=given,
            check=False,
        )
    except FileNotFoundError as missing:
        raise MissingToolError(INSTALL_HINTS.get(str(command[0]), str(missing))) from missing
    if done.returncode != 0:
        raise ToolError(f"{what} failed", done.stdout + done.stderr)
    return done.stdout


INSTALL_HINTS = {
    "uv": "uv is missing: install it from https://docs.astral.sh/uv/",
    "npm": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
    "npx": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
    "node": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
}


def spare_proxies(environment: MutableMapping[str, str]) -> None:
    """Let whatever reads the environment talk to loopback directly: no proxy could reach it."""
    for name in ("NO_PROXY", "no_proxy"):
        known = environment.get(name, "").split(",")
        spared = [host for host in ("127.0.0.1", "localhost") if host not in known]
        environment[name] = ",".join(filter(None, [*known, *spared]))


def uv_command() -> str:
    """The uv that started this command, or the one on PATH."""
    return os.environ.get("UV", "uv")


def plain_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what belongs to its virtual environment."""
    ours = {"VIRTUAL_ENV", "UV_RUN_RECURSION_DEPTH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"}
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    prefix = str(Path(sys.prefix) / "bin")
    path = kept.get("PATH", "").split(os.pathsep)
    kept["PATH"] = os.pathsep.join(entry for entry in path if entry != prefix)
    return kept | extra
