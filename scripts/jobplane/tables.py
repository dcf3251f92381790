"""Tables for people: as wide as the terminal; elsewhere as wide as the verb says."""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console(width: int, *, stderr: bool = False) -> "Console":
    """Where a verb draws; `width` where that is no terminal, so that nobody's lines are cut."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=width)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    unbroken: Collection[str] = (),
) -> "Table":
    """Rows of plain text under their headings.

    Args:
        right: headings of columns that hold numbers.
        unbroken: headings of columns whose lines are not folded.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        drawn.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading in unbroken,
        )
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn
