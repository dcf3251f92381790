"""Reading rows in parts: each part says where the next one begins."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jobplane_files._rows import Row

type Position = dict[str, Any]
"""Where a reading goes on, as JSON values."""
type Pages = Iterator[list[Row]]


class Walk[S]:
    """The rows of several steps, from a position on, until `is_over`.

    `read` gives the pages of a step, after a row's place. Afterwards `position` says where to go
    on; None after the last row. Each walk advances by at least a row or a step. With a limit it
    ends before the next row, so a position then means that there is another row.
    """

    def __init__(
        self,
        steps: Sequence[S],
        read: Callable[[S, Position | None], Pages],
        is_over: Callable[[], bool],
        begin: Position | None = None,
        limit: float = math.inf,
    ) -> None:
        self._steps, self._read, self._is_over, self._limit = steps, read, is_over, limit
        self._begin = begin or {"step": 0, "place": None}
        self.position: Position | None = None

    def __iter__(self) -> Iterator[Row]:
        taken, place = 0, self._begin["place"]
        for step in range(self._begin["step"], len(self._steps)):
            for rows in self._read(self._steps[step], place):
                for row in rows:
                    if self._must_end or taken >= self._limit:
                        return
                    taken += 1
                    self.position = {"step": step, "place": row.place}
                    yield row
                if self._must_end:
                    return
            place = None
            self.position = {"step": step + 1, "place": None}
        self.position = None

    @property
    def _must_end(self) -> bool:
        return self.position is not None and self._is_over()


class Lane:
    """The files among pages of rows, read only as far as needed."""

    def __init__(self, pages: Pages, is_late: Callable[[], bool], place: Position | None) -> None:
        self._pages, self._is_late = pages, is_late
        self._files: deque[Row] = deque()
        self._has_ended = False
        self.place = place
        """Of the last row that was taken or skipped; None at the begin."""

    @property
    def next(self) -> Row | None:
        """The next file, if it is known."""
        return self._files[0] if self._files else None

    @property
    def is_known(self) -> bool:
        """Whether the next file is known, or the end of the lane."""
        return bool(self._files) or self._has_ended

    @property
    def has_more(self) -> bool:
        """Whether there may be more files."""
        return bool(self._files) or not self._has_ended

    def fill(self) -> None:
        """Read until the next file is known, or until `is_late`."""
        while not self.is_known:
            page = next(self._pages, None)
            self._has_ended = page is None
            self._files.extend(row for row in page or () if row.is_file)
            if page and not self._files:
                self.place = page[-1].place
            if page and self._is_late():
                return

    def take(self) -> Row:
        """The next file; the lane is filled again."""
        file = self._files.popleft()
        self.place = file.place
        self.fill()
        return file


def oldest_first(lanes: Sequence[Lane]) -> Iterator[Row]:
    """The files of filled lanes by date, as long as the next file of every lane is known.

    A lane whose next file is not known may hold the oldest file, so this ends there.
    """
    while all(lane.is_known for lane in lanes):
        filled = [(lane.next.date_prefix, lane) for lane in lanes if lane.next is not None]
        if not filled:
            return
        yield min(filled, key=lambda entry: entry[0])[1].take()
