"""The result of a measurement, and the ways to show it.

A measurement's command returns a Report; `reported` gives it the options that all of them share:
tables on standard output, or `--json`; `--plot FILE` for the charts as SVG; `--write FILE` to put
the tables between the measurement's markers in a document.

    @click.command()
    @reported("size")
    def command() -> Report:
        ...
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Drawn
from rich.text import Text

from jobplane.terminal import tables as terminal

type Cell = str | int | float | None
type Advance = Callable[[str], None]

WIDTH = 140
SHOWN_FAULTS = 20


@dataclass(frozen=True)
class Table:
    """Rows under a title; round numbers beforehand."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """Series over the same points: bars for categories, lines for a growing quantity."""

    title: str
    points: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    unit: str
    kind: Literal["bars", "lines"] = "bars"
    logarithmic: bool = False


@dataclass(frozen=True)
class Report:
    document: Mapping[str, Any]
    """The whole result, for `--json`."""
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    faults: Sequence[str] = ()
    """With faults, a report is shown, written to no document, and the exit code is 1."""

    def blame(self) -> None:
        if self.faults:
            shown = "\n".join(self.faults[:SHOWN_FAULTS])
            raise click.ClickException(f"{len(self.faults)} faults, of them:\n{shown}")


@dataclass(frozen=True)
class Spread:
    """Several measurements of one value."""

    takes: Sequence[float] = field(repr=False)

    @property
    def median(self) -> float:
        return median(self.takes)

    def as_json(self, digits: int = 3) -> dict[str, Any]:
        return {
            "median": round(self.median, digits),
            "min": round(min(self.takes), digits),
            "max": round(max(self.takes), digits),
            "takes": len(self.takes),
        }

    def text(self, digits: int = 0) -> str:
        """`median (min–max)`."""
        low, high = min(self.takes), max(self.takes)
        return f"{self.median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def reported(name: str) -> Callable[[Callable[..., Report]], Callable[..., None]]:
    """Add the shared options to a command whose function returns a Report.

    Args:
        name: of the measurement: `<!-- bench NAME -->` and `<!-- /bench NAME -->` are its markers.
    """

    def decorate(measure: Callable[..., Report]) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
        @click.option("--plot", type=click.Path(path_type=Path), help="Draw the chart, as SVG.")
        @click.option(
            "--write",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Put the tables between this measurement's markers in a document.",
        )
        @functools.wraps(measure)
        def run(*, as_json: bool, plot: Path | None, write: Path | None, **options: Any) -> None:
            if write is not None:
                # Fail before the measurement if the document lacks the markers.
                marked(write.read_text(encoding="utf-8"), name, "")
            report = measure(**options)
            if as_json:
                click.echo(json.dumps(report.document, indent=2, ensure_ascii=False))
            else:
                print_tables(report.tables)
            if plot is not None:
                draw(report.charts, plot)
            report.blame()
            if write is not None:
                text = "\n\n".join(markdown(table) for table in report.tables)
                document = write.read_text(encoding="utf-8")
                write.write_text(marked(document, name, text), encoding="utf-8")

        return run

    return decorate


def print_tables(tables: Sequence[Table]) -> None:
    there = terminal.console(WIDTH)
    for table in tables:
        drawn = Drawn(box=box.SIMPLE_HEAD, title=table.title, title_justify="left", pad_edge=False)
        for column, cell in zip(table.columns, _first_row(table), strict=True):
            drawn.add_column(column, justify="left" if isinstance(cell, str) else "right")
        for row in table.rows:
            drawn.add_row(*(Text(shown(cell)) for cell in row))
        there.print(drawn)
        for line in table.notes:
            there.print(Text(line, "dim"))


def markdown(table: Table) -> str:
    sides = ["---" if isinstance(cell, str) else "--:" for cell in _first_row(table)]
    rows = [table.columns, sides, *([shown(cell) for cell in row] for row in table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"**{table.title}**", "", *lines, *(f"\n{line}" for line in table.notes)])


def marked(document: str, name: str, text: str) -> str:
    """The document, with this text between the measurement's markers."""
    first, last = f"<!-- bench {name} -->", f"<!-- /bench {name} -->"
    found = re.compile(f"({re.escape(first)}\n).*?({re.escape(last)})", re.DOTALL)
    if not found.search(document):
        raise click.ClickException(f"the document has no lines {first} and {last}")
    return found.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", document)


def draw(charts: Sequence[Chart], target: Path) -> None:
    import pygal
    from pygal.style import CleanStyle

    if not charts:
        raise click.ClickException("this measurement has nothing to plot")
    for number, chart in enumerate(charts, start=1):
        kind = pygal.Bar if chart.kind == "bars" else pygal.Line
        drawn = kind(
            title=chart.title, y_title=chart.unit, style=CleanStyle, js=(), no_prefix=True,
            logarithmic=chart.logarithmic, x_label_rotation=30, width=1000, height=480,
            legend_at_bottom=True, disable_xml_declaration=False, include_x_axis=True,
        )  # fmt: skip
        drawn.x_labels = list(chart.points)
        for name, values in chart.series.items():
            drawn.add(name, list(values))
        path = target if number == 1 else target.with_stem(f"{target.stem}-{number}")
        path.write_bytes(drawn.render())


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A progress bar, on a terminal only; call the yielded function after each step."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task(what, total=total, detail="")
        yield lambda detail: bars.update(task, advance=1, detail=detail)


def shown(cell: Cell) -> str:
    return "–" if cell is None else str(cell)


def _first_row(table: Table) -> Sequence[Cell]:
    return table.rows[0] if table.rows else [""] * len(table.columns)
