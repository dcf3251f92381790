"""Run a function again after each change of its sources."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from watchfiles import watch

from jobplane import SOURCES
from jobplane.terminal.console import note
from jobplane.tree.repository import Function, Repository
from lambdapack.artifacts import Settings
from lambdapack.environments import plain_environment
from lambdapack.requirements import closures

POLL_MILLISECONDS = 200


def on_save(repository: Repository, function: Function, commands: Sequence[Sequence[str]]) -> None:
    """Run `jobplane` commands one after the other, now and after each save, until interrupted.

    Each round is a new process, so that it imports the saved files. A failing command ends its
    round only. A save during a round starts the next one.
    """
    try:
        while True:
            _until_other_sources(repository, function, commands)
    except KeyboardInterrupt:
        note("")


def _until_other_sources(
    repository: Repository, function: Function, commands: Sequence[Sequence[str]]
) -> None:
    paths = sources(repository, function)
    is_first = True
    # The watcher is ready after its first yield, which has no changes.
    for changes in watch(*paths, yield_on_timeout=True, rust_timeout=POLL_MILLISECONDS):
        if not changes and not is_first:
            continue
        if changes:
            files = sorted({Path(path).resolve() for _, path in changes})
            note(f"\n{', '.join(_relative(path, repository) for path in files)} saved")
            if _sources_now(repository, function, paths) != paths:
                return
        is_first = False
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "jobplane", *command],
                cwd=repository.root,
                env=plain_environment(aws=True, PYTHONPATH=os.pathsep.join(map(str, SOURCES))),
                check=False,
            )
            if done.returncode != 0:
                break
        note("watching for changes; stop with Ctrl-C")


def sources(repository: Repository, function: Function) -> list[Path]:
    closure = closures(repository, [function], Settings.local().arch)[function.name]
    libs = [repository.root / lib for lib in closure.libs.values()]
    return [function.directory, *libs, *function.data, repository.root / "uv.lock"]


def _sources_now(repository: Repository, function: Function, known: list[Path]) -> list[Path]:
    """The current sources; the known ones while a pyproject.toml can't be parsed."""
    try:
        return sources(repository, function)
    except (click.ClickException, ValueError):
        return known


def _relative(path: Path, repository: Repository) -> str:
    root = repository.root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
