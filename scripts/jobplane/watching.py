"""Running a function again whenever something that it is made of is saved."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobplane.console import note
from jobplane.requirements import closures
from jobplane.workspace import Function, Workspace


def on_save(workspace: Workspace, function: Function, commands: Sequence[Sequence[str]]) -> None:
    """Run `jobplane` commands one after the other, now and after each save, until interrupted.

    Each round is a process of its own: what it imports is what is on disk. A command that fails
    ends its round, not the watching.
    """
    try:
        _round(workspace, commands)
        for saved in _saves(workspace, function):
            note(f"\n{', '.join(saved)} saved")
            _round(workspace, commands)
    except KeyboardInterrupt:
        note("")


def _round(workspace: Workspace, commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "jobplane", *command], cwd=workspace.root, check=False
        )
        if done.returncode != 0:
            break
    note("watching; Ctrl-C ends it")


def _saves(workspace: Workspace, function: Function) -> Iterator[list[str]]:
    """The files of each save, relative to the root; several that come together are one."""
    from watchfiles import watch

    while True:
        paths = sources(workspace, function)
        for changes in watch(*paths, raise_interrupt=True):
            files = sorted({Path(path).resolve() for _, path in changes})
            yield [_relative(path, workspace) for path in files]
            if sources(workspace, function) != paths:
                break


def sources(workspace: Workspace, function: Function) -> list[Path]:
    """What a function is made of: its folder, its libs, its data, the lock."""
    closure = closures(workspace, [function])[function.name]
    libs = [workspace.root / lib for lib in closure.libs]
    return [function.directory, *libs, *function.data, workspace.root / "uv.lock"]


def _relative(path: Path, workspace: Workspace) -> str:
    root = workspace.root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
