"""Output of verbs: one line per result; a tool's output only if the tool failed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console


class Unread:
    """A text stream that ignores a closed reader, such as stderr of a closed terminal."""

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


# The consoles that show a bar or a spinner now; the innermost is last.
_screens: "list[Console]" = []


@contextmanager
def showing_on(screen: "Console") -> Iterator[None]:
    """Print notes above a bar or a spinner while the block runs."""
    _screens.append(screen)
    try:
        yield
    finally:
        _screens.remove(screen)


class Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_notes_of(logger: str) -> None:
    found = logging.getLogger(logger)
    found.setLevel(logging.INFO)
    if not any(isinstance(handler, Notes) for handler in found.handlers):
        found.addHandler(Notes())


def note(text: str) -> None:
    """Print progress for people on stderr; stdout is for results only."""
    if _screens:
        _screens[-1].print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        click.echo(text, err=True)
