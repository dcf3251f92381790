"""Long work on a terminal: a bar or a spinner on stderr; elsewhere one line."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from jobplane.terminal.console import note, showing_on

POLL_SECONDS = 1.0


class Advance(Protocol):
    def __call__(self, name: str = "", *, by: int = 1) -> None: ...


@contextmanager
def counting(title: str, total: int) -> Iterator[Advance]:
    """Show a bar that advances with each call."""
    with _bars(title, TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bars:
        task = bars.add_task(title, total=total, last="") if bars else None

        def advance(name: str = "", *, by: int = 1) -> None:
            if bars and task is not None:
                bars.update(task, advance=by, last=name)

        yield advance


@contextmanager
def waiting(title: str, latest: Callable[[], str]) -> Iterator[None]:
    """Show a spinner with the elapsed time and the latest state, refreshed every second."""
    with _bars(
        title, SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    ) as bars:
        if bars is None:
            yield
            return
        task = bars.add_task(title, total=None, last="")
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(POLL_SECONDS):
                bars.update(task, last=latest())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def _bars(title: str, *columns: ProgressColumn) -> Iterator[Progress | None]:
    """Show progress on a terminal; yield None elsewhere, after printing the title."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        note(title)
        yield None
        return
    last = TextColumn("{task.fields[last]}")
    # If stdout is a file, results go to it unchanged.
    bars = Progress(*columns, last, console=console, transient=True, redirect_stdout=False)
    with showing_on(console), bars:
        yield bars
