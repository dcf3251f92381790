"""Format a function's answer for people: a status line, keys and values, tables of lists."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

ROWS = 20
TEXT = 60
# The width without a terminal.
PLAIN_WIDTH = 160
NARROWEST = 8
# A text without a space is an id, a URL or a token: useless if it is cut.
LONGEST_KEY = 4096
GAP = 2


@dataclass(frozen=True)
class Room:
    width: int
    full: bool = False

    @property
    def rows(self) -> int:
        return sys.maxsize if self.full else ROWS

    @property
    def text(self) -> int:
        return sys.maxsize if self.full else TEXT


def readable(answer: Any, *, full: bool = False, terminal: bool = False) -> str:
    """Format an answer as text; on a terminal in colour and in the terminal's width."""
    width = Console().width if terminal else PLAIN_WIDTH
    room = Room(width, full)
    console = Console(
        width=100_000 if full else width,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        highlight=False,
    )
    with console.capture() as captured:
        for part in _parts(answer, room):
            console.print(part, soft_wrap=isinstance(part, Text))
    lines = captured.get().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _parts(answer: Any, room: Room) -> Iterator[RenderableType]:
    document = answer
    if isinstance(answer, Mapping) and isinstance(answer.get("statusCode"), int):
        yield _status_line(answer["statusCode"])
        rest = {key: value for key, value in answer.items() if key not in ("statusCode", "body")}
        if rest:
            yield from _of_document(rest, room)
            yield Text("")
        document = _body_of(answer)
        if document is None:
            return
    if isinstance(document, Mapping) and document:
        yield from _of_document(document, room)
    elif _is_table(document):
        yield from _table("", document, room)
    else:
        yield Text(document if isinstance(document, str) else _compact(document))


def _status_line(status: int) -> RenderableType:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    style = "bold green" if status < 300 else "bold yellow" if status < 500 else "bold red"
    return Text(f"{status} {phrase}".rstrip(), style=style)


def _body_of(answer: Mapping[str, Any]) -> Any:
    body = answer.get("body")
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except ValueError:
        return body or None


def _of_document(document: Mapping[str, Any], room: Room) -> Iterator[RenderableType]:
    """Format single values first, then one table per list."""
    values: list[tuple[str, Any]] = []
    lists: list[tuple[str, Sequence[Any]]] = []
    for path, value in _flat(document):
        if _is_table(value):
            lists.append((path, value))
        else:
            values.append((path, value))
    if values:
        yield from _pairs(values, room)
    for path, items in lists:
        yield from _table(path, items, room)


def _flat(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Values with their paths: `orphans.stale_locks`."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _is_table(value: Any) -> bool:
    """A list of objects, or one that is too long for a line."""
    if not isinstance(value, list) or not value:
        return False
    return any(isinstance(item, Mapping) for item in value) or len(_inline(value)) > TEXT


def _pairs(pairs: Sequence[tuple[str, Any]], room: Room) -> Iterator[RenderableType]:
    names = max(len(_printable(name)) for name, _ in pairs)
    limit = room.text if room.full else max(NARROWEST, room.width - names - GAP)
    for name, value in pairs:
        line = Text(_printable(name).ljust(names + GAP), style="dim")
        yield line.append(Text(_cut(_cell(value), limit), style="not dim"))


def _table(title: str, items: Sequence[Any], room: Room) -> Iterator[RenderableType]:
    if title:
        yield Text(f"\n{_printable(title)} ({len(items)})", style="bold")
    shown = [item if isinstance(item, Mapping) else {"value": item} for item in items[: room.rows]]
    columns = list(dict.fromkeys(key for item in shown for key in item))
    limit = _column_limit(columns, shown, room)
    if limit is not None:
        yield _grid(columns, shown, limit)
    else:
        for number, item in enumerate(shown, 1):
            yield Text(f"{number}.")
            yield from _pairs([*_flat(item)] or [("", item)], room)
    if len(items) > len(shown):
        yield Text(f"… and {len(items) - len(shown)} more (pass --full to show all)", style="dim")


def _grid(columns: Sequence[str], items: Sequence[Mapping[str, Any]], limit: int) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        numbers = all(_is_number(item[column]) for item in items if column in item)
        heading = Text(_cut(_printable(column), limit))
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
    for item in items:
        cells = (_cell(item[column]) if column in item else "" for column in columns)
        table.add_row(*(Text(_cut(cell, limit)) for cell in cells))
    return table


def _column_limit(
    columns: Sequence[str], items: Sequence[Mapping[str, Any]], room: Room
) -> int | None:
    """The largest width of a cell for which all columns fit; None if they can't fit."""
    if room.full:
        return room.text
    columns_of_text = [
        [_printable(column), *(_cell(item[column]) for item in items if column in item)]
        for column in columns
    ]
    gaps = GAP * len(columns)
    for limit in range(room.text, NARROWEST - 1, -1):
        shown = sum(max(len(_cut(text, limit)) for text in texts) for texts in columns_of_text)
        if shown + gaps <= room.width:
            return limit
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value == [] or value == {}:
        return "none"
    if isinstance(value, list) and not any(isinstance(item, Mapping | list) for item in value):
        return _inline(value)
    return _printable(value) if isinstance(value, str) and value else _compact(value)


def _inline(values: Sequence[Any]) -> str:
    return ", ".join(map(_cell, values))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _printable(text: str) -> str:
    """Escape control characters, which a terminal would execute."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str, limit: int) -> str:
    """Shorten a long text in its middle; ids and URLs are kept whole."""
    if len(text) <= limit or (len(text) <= LONGEST_KEY and not any(map(str.isspace, text))):
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
