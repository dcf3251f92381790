"""How a verb speaks: one line a result, a tool's output only when the tool failed."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from jobplane.environments import plain_environment

if TYPE_CHECKING:
    from rich.console import Console


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


# Where a bar or a spinner is shown now; the innermost is last.
_screens: "list[Console]" = []


@contextmanager
def showing_on(screen: "Console") -> Iterator[None]:
    """Have notes stand above what moves on a screen, each on a line of its own."""
    _screens.append(screen)
    try:
        yield
    finally:
        _screens.remove(screen)


def note(text: str) -> None:
    """Progress, for people: on stderr, so that stdout holds results alone."""
    if _screens:
        _screens[-1].print(text, markup=False, highlight=False, soft_wrap=True)
    else:
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

    Args:
        env: default: `plain_environment()`.

    Raises:
        ToolError: the tool's exit code is not 0.
        MissingToolError: the tool is not there.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(env) if env is not None else plain_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            input=given,
            check=False,
        )
    except FileNotFoundError as missing:
        raise MissingToolError(INSTALL_HINTS.get(str(command[0]), str(missing))) from missing
    if done.returncode != 0:
        raise ToolError(f"{what} failed", done.stdout + done.stderr)
    return done.stdout


INSTALL_HINTS = {
    "git": "git is missing: install it from https://git-scm.com/",
    "uv": "uv is missing: install it from https://docs.astral.sh/uv/",
    "npm": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
    "npx": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
    "node": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
}
