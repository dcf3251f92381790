"""How a verb speaks: one line a result, a tool's output only when the tool failed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console


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


class Notes(logging.Handler):
    """Shows what a library logs as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_notes_of(logger: str) -> None:
    """Show what a library logs as notes, from now on."""
    found = logging.getLogger(logger)
    found.setLevel(logging.INFO)
    if not any(isinstance(handler, Notes) for handler in found.handlers):
        found.addHandler(Notes())


def note(text: str) -> None:
    """Progress, for people: on stderr, so that stdout holds results alone."""
    if _screens:
        _screens[-1].print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        click.echo(text, err=True)
