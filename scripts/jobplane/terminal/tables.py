"""Tables for people: as wide as the terminal, or as the verb's width without one.

A column of keys is never cut: lines may become wider than the terminal.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(width: int, *, stderr: bool = False) -> Console:
    """The console for tables; `width` applies if stdout is not a terminal."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=width)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    unbroken: Collection[str] = (),
    styles: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Rows of plain text; `right` columns are right-aligned, `unbroken` ones are never wrapped.

    `styles` has the styles of words that fill a cell.
    """
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows = list(rows)
    for number, heading in enumerate(headings):
        widest = max(map(len, (heading, *(row[number] for row in rows))))
        drawn.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading in unbroken,
            overflow="fold",
            min_width=widest if heading in unbroken else None,
        )
    for row in rows:
        drawn.add_row(*(Text(cell, styles.get(cell, "")) for cell in row))
    return drawn


def show(drawn: Table, screen: Console) -> None:
    """Print a table; lines that are longer than the terminal are wrapped by the terminal."""
    screen.print(drawn, crop=False)
