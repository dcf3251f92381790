"""The demo's output: live on a terminal, else a line for each milestone; always on stderr."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from jobplane.demo.story import Outcome
from jobplane.terminal.console import showing_on
from jobplane.terminal.tables import console

LINE_WIDTH = 110
MILESTONE = 25.0
MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "dim")}


class Bar:
    def __init__(self, screen: "Screen", name: str) -> None:
        self._screen = screen
        self._name = name
        self._milestone = 0.0
        self._task = screen.bars.add_task(name, total=100.0, detail="")

    def at(self, percentage: float, detail: str = "") -> None:
        self._screen.bars.update(self._task, completed=percentage, detail=detail)
        if self._screen.is_live or percentage < self._milestone + MILESTONE:
            return
        self._milestone = percentage // MILESTONE * MILESTONE
        self._screen.line(f"  {self._name:<14} {percentage:3.0f} %  {detail}")


class Screen:
    def __init__(self) -> None:
        self.console = console(LINE_WIDTH, stderr=True)
        self.is_live = self.console.is_terminal
        self.bars = self._no_bars()

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        self.bars = self._no_bars()
        if not self.is_live:
            yield
            return
        heading = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        heading.add_task(title, total=None)
        live = Live(
            Group(heading, self.bars), console=self.console, transient=True, redirect_stdout=False
        )
        with showing_on(self.console), live:
            yield

    def bar(self, name: str) -> Bar:
        return Bar(self, name)

    def line(self, text: str) -> None:
        self.console.print(Text(text))

    def done(self, title: str, seconds: float, held: bool | None) -> None:
        mark, style = MARKS[held]
        text = Text.assemble((mark, style), f" {title:<44}", (f"{seconds:6.1f} s", "dim"))
        self.console.print(text)

    def _no_bars(self) -> Progress:
        return Progress(
            TextColumn("  {task.description:<14}"),
            BarColumn(bar_width=32),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self.console,
        )


def print_summary(outcomes: Sequence[Outcome]) -> None:
    console(LINE_WIDTH).print(summary(outcomes))


def save_picture(outcomes: Sequence[Outcome], path: Path) -> None:
    drawn = Console(record=True, file=io.StringIO(), force_terminal=True, width=LINE_WIDTH)
    drawn.print(summary(outcomes))
    # Drop fonts that a viewer would load from a server.
    svg = re.sub(r"@font-face {.*?}", "", drawn.export_svg(title="jobplane demo"), flags=re.DOTALL)
    path.write_text(svg, encoding="utf-8")


def summary(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("step", no_wrap=True)
    table.add_column("observed", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for outcome in outcomes:
        mark, style = MARKS[outcome.held]
        seconds = "" if outcome.held is None else f"{outcome.seconds:.1f} s"
        table.add_row(
            Text(mark, style), outcome.step.title, Text(outcome.text), Text(seconds, "dim")
        )
    return table
