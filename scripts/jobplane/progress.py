"""Long work on a terminal: a bar or a spinner on stderr; elsewhere one line."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobplane.console import note

POLL_SECONDS = 1.0


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar that each call moves by one; the call names what is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        note(title)
        yield lambda _name: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TextColumn("{task.fields[last]}"), console=console, transient=True
    ) as bar:
        task = bar.add_task(title, total=total, last="")
        yield lambda name: bar.update(task, advance=1, last=name)


@contextmanager
def waiting(title: str, latest: Callable[[], str]) -> Iterator[None]:
    """A spinner with the time and what has happened last, asked for every second."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        note(title)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    ended = threading.Event()
    with Progress(
        *columns, TextColumn("{task.fields[last]}"), console=console, transient=True
    ) as bar:
        task = bar.add_task(title, total=None, last="")

        def follow() -> None:
            while not ended.wait(POLL_SECONDS):
                bar.update(task, last=latest())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
