"""Run programs; show their output only if they fail."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from lambdapack.environments import plain_environment
from lambdapack.errors import BuildError


class ToolError(BuildError):
    """A program failed; the message contains its output."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(what)
        self.output = output

    def show(self, file: object = None) -> None:
        """Print the output and the message to stderr, as click does for its errors."""
        if self.output.strip():
            click.echo(self.output.rstrip(), err=True)
        click.echo(f"Error: {self.message}", err=True)


class MissingToolError(BuildError):
    """A program that the workspace needs is not installed."""


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
        MissingToolError: the tool is not installed.
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
        raise ToolError(f"{what} failed: see its messages above", done.stdout + done.stderr)
    return done.stdout


INSTALL_HINTS = {
    "git": "git is missing: install it from https://git-scm.com/",
    "uv": "uv is missing: install it from https://docs.astral.sh/uv/",
    "npm": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
    "npx": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
    "node": "Node.js is missing: install version 20.19 or later from https://nodejs.org/",
}
