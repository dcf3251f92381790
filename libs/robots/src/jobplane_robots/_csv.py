"""Reads CSV as programs write it: finds encoding, separator and line ends; names each bad row."""

from __future__ import annotations

import codecs
import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import islice
from typing import Literal

from jobplane_robots._errors import MalformedInputError
from jobplane_robots._text import MIB, shortened

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
SAMPLE_LENGTH = 64 * 1024
SAMPLE_ROWS = 50
# After an unclosed quote the following lines are read again; all together at most so many
# characters, so that a file of such lines can't take quadratic time.
MAX_REREAD = 32 * MIB
# The first line of a file that Excel wrote or shall read with this separator.
_SEP_LINE = re.compile(r'("?)sep=([^"])\1(?:\r\n|\r|\n|$)', re.IGNORECASE)
_LINE_END = re.compile(r'"|\r\n|\r|\n')
_UNREADABLE = re.compile("[\udc80-\udcff]")

# The encodings that spreadsheets and databases use: the code pages of Windows, of DOS and of the
# Macintosh, and Unicode.
Encoding = Literal[
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-15",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "windows-1257",
    "windows-1258",
    "cp437",
    "cp850",
    "cp874",
    "cp932",
    "cp936",
    "cp949",
    "cp950",
    "macintosh",
    "koi8-r",
    "shift_jis",
    "euc-jp",
    "gb18030",
    "gbk",
    "big5",
    "big5-hkscs",
    "euc-kr",
]
# Windows writes these names for its own supersets, and browsers read them so, too
# (https://encoding.spec.whatwg.org/#names-and-labels).
_CODECS = {
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "big5": "cp950",
    "cp936": "gb18030",
    "gbk": "gb18030",
}


def _mark_unreadable(error: UnicodeError) -> tuple[str, int]:
    """Decode what is not UTF-16 as a lone surrogate, which no text contains."""
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    raise error


codecs.register_error("jobplane_robots.unreadable", _mark_unreadable)


class Rows:
    """The file's rows: a list of values, or for a faulty row a text that says why.

    `number` is the row's number as in a spreadsheet: from 1, with header and blank rows. `where` is
    the place of the row, or of the fault in it. `warnings` say what was found by looking at the
    file. `delimiter` None: a comma, or another separator that the file plainly has.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        *,
        delimiter: str | None,
        encoding: Encoding,
        width: int | None,
        max_field_length: int,
        max_row_length: int,
    ) -> None:
        self.number = 0
        self.where: dict[str, int] = {}
        self.warnings: list[str] = []
        self._max_field = max_field_length
        self._encoding = encoding
        # _Lines limits the length of rows. The csv module has one limit for the whole process,
        # so it is only raised, never lowered.
        csv.field_size_limit(max(csv.field_size_limit(), max_row_length))
        texts = self._texts(iter(chunks), encoding)
        first = next(texts, "")
        skipped = 0
        if found := _SEP_LINE.match(first):
            first, skipped = first[found.end() :], 1
            if delimiter not in (None, found[2]):
                self.warnings.append(
                    f"its first line names {named(found[2])} as separator, "
                    f"but {named(delimiter)} was set"
                )
            delimiter = delimiter or found[2]
        if delimiter is None:
            delimiter = look(first, width)
            if delimiter != ",":
                self.warnings.append(f"its fields are separated by {named(delimiter)}")
        self.delimiter = delimiter
        self._lines = _Lines(_chain(first, texts), max_row_length, skipped)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._reread_until = 0
        self._fields = re.compile(
            rf'"(?:[^"]++|"")*+"|(?:[^"{re.escape(delimiter)}\r\n][^{re.escape(delimiter)}\r\n]*+)?'
        )

    def __iter__(self) -> Iterator[list[str] | str]:
        while True:
            self._lines.begin_row()
            line = self._lines.number + 1
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.number += 1
                yield self._unreadable_row(line, str(error))
                continue
            except _RowTooLongError as error:
                self.number += 1
                self.where = {"row": self.number, "line": line}
                yield self._too_long_row(line, str(error))
                continue
            self.number += 1
            self.where = {"row": self.number, "line": line}
            if fault := self._fault(row):
                yield fault
            elif row:
                yield row

    def _fault(self, row: list[str]) -> str | None:
        if self._lines.length > self._max_field and any(len(c) > self._max_field for c in row):
            return f"has a field longer than {self._max_field} characters"
        if self._lines.is_marked and (found := _UNREADABLE.search(text := self._lines.text())):
            before = text[: found.start()]
            self.where["line"] += len(_ends(before))
            self.where["column"] = len(before) - _line_start(before) + 1
            return f"is not {self._encoding} text"
        # Between the end of a bad row and where reading has been before, only whole rows count.
        if self._lines.number <= self._reread_until and not self._is_whole(self._lines.text()):
            return "is a part of a row that a quote has broken"
        return None

    def _unreadable_row(self, line: int, error: str) -> str:
        text = self._lines.text()
        if "new-line character" in error:
            self._place(line, text, text.rstrip("\r\n").find("\r"))
            return "has a carriage return outside quotes"
        first, field, end = self._broken_field(text)
        if field == end:
            reason = "a quote is opened and never closed"
        elif ends := len(_ends(text[field:end])):
            until = line + len(_ends(text[:field])) + ends
            reason = f"the quote that is opened here is closed before other text in line {until}"
        else:
            reason = f"has text after a closing quote; expected {named(self.delimiter)}"
            field = end
        self._place(line, text, field)
        self._read_again(text, first)
        return reason

    def _too_long_row(self, line: int, reason: str) -> str:
        text = self._lines.text()
        first, field, end = self._broken_field(text)
        if field != end or text[field : field + 1] != '"':
            return reason
        self._place(line, text, field)
        self._read_again(text, first)
        return f"{reason}; is a quote not closed?"

    def _read_again(self, text: str, field: int) -> None:
        """Give back the lines after the one in which a field begins: they may be good rows."""
        self._reread_until = max(self._reread_until, self._lines.number)
        if self._lines.unread(len(_ends(text[:field])) + 1) > MAX_REREAD:
            raise MalformedInputError("has too many quotes that are not closed", where=self.where)

    def _broken_field(self, text: str) -> tuple[int, int, int]:
        """The start of the first field of several lines, else of the last one; the start and the
        end of the last one, which has no end if its quote is never closed.
        """
        first = -1
        start = 0
        while True:
            found = self._fields.match(text, start)
            end = found.end() if found else start
            is_last = text[end : end + 1] != self.delimiter
            if first < 0 and (is_last or "\n" in text[start:end] or "\r" in text[start:end]):
                first = start
            if is_last:
                return first, start, end
            start = end + 1

    def _is_whole(self, text: str) -> bool:
        """Whether a row has its quotes where RFC 4180 wants them."""
        start = 0
        while found := self._fields.match(text, start):
            if not found[0].startswith('"') and '"' in found[0]:
                return False
            if text[found.end() : found.end() + 1] != self.delimiter:
                break
            start = found.end() + 1
        return True

    def _place(self, line: int, text: str, offset: int) -> None:
        before = text[: max(offset, 0)]
        self.where = {
            "row": self.number,
            "line": line + len(_ends(before)),
            "column": len(before) - _line_start(before) + 1,
        }

    def _texts(self, chunks: Iterator[bytes], declared: Encoding) -> Iterator[str]:
        first = next(chunks, b"")
        encoding = encoding_of(first, declared)
        if not encoding.startswith(declared):
            self.warnings.append(f"it is {encoding} text, not {declared}")
        self._encoding = encoding
        errors = "surrogateescape"
        if encoding.startswith("utf-16"):
            errors = "jobplane_robots.unreadable"
        decoder = codecs.getincrementaldecoder(_CODECS.get(encoding, encoding))(errors)
        yield decoder.decode(first).removeprefix("\ufeff")
        for chunk in chunks:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)


class _RowTooLongError(Exception):
    """A row, or a line of it, is longer than allowed; the text says so."""


class _Lines:
    """The lines of a file for csv.reader, which may be given back."""

    def __init__(self, texts: Iterable[str], max_row_length: int, skipped: int) -> None:
        self.number = skipped  # of the last line that was read
        self.length = 0  # of the row
        self.is_marked = False
        self._row: list[str] = []
        self._again: deque[str] = deque()
        self._reread = 0
        self._max = max_row_length
        self._source = self._split(texts)

    def begin_row(self) -> None:
        self._row.clear()
        self.length = 0

    def text(self) -> str:
        """The row as it stands in the file."""
        return "".join(self._row)

    def unread(self, kept: int) -> int:
        """Give back all lines of the row but the first `kept`; the characters given back so far."""
        lost = self._row[kept:]
        del self._row[kept:]
        self._again.extendleft(reversed(lost))
        self.number -= len(lost)
        self._reread += sum(map(len, lost))
        return self._reread

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self.number += 1
        self.length += len(line)
        self._row.append(line)
        if self.length > self._max:
            raise _RowTooLongError(f"is longer than {self._max} characters")
        return line

    def _split(self, texts: Iterable[str]) -> Iterator[str]:
        """Lines with their ends. Only a file whose first line ends in CR has other ends than LF,
        so that elsewhere csv.reader receives every CR. Of a line that is too long only the
        beginning is given, as soon as it is known: what follows may be gigabytes.
        """
        pending: list[str] = []
        size = 0
        is_cut = False
        end: str | None = None
        for text in texts:
            if not self.is_marked and not text.isascii():
                self.is_marked = _UNREADABLE.search(text) is not None
            if end is None and (found := _first_end(text)):
                end = "" if found == "\r" else "\n"
            if is_cut:
                rest = StringIO(text, newline=end)
                is_cut = not rest.readline().endswith(("\n", "\r"))
                text = rest.read()
            # A CR at the end may be the first half of a CRLF.
            cut = text.rfind("\n") + 1
            if end == "":
                cut = max(cut, text.rfind("\r", 0, -1) + 1)
            if cut:
                pending.append(text[:cut])
                yield from StringIO("".join(pending), newline=end)
                pending, size = [], 0
            pending.append(text[cut:])
            size += len(text) - cut
            if size > self._max:
                yield "".join(pending)
                pending, size, is_cut = [], 0, True
        yield from StringIO("".join(pending), newline=end or "\n")


def look(text: str, width: int | None) -> str:
    """The separator that a file plainly has: more than half of its first rows have as many fields
    as the first one, or `width`, and more than one. Else a comma.
    """
    sample = text[:SAMPLE_LENGTH]
    best, most = ",", 0
    for separator in SEPARATORS:
        reader = csv.reader(StringIO(sample, newline=""), delimiter=separator)
        try:
            rows = [row for row in islice(reader, SAMPLE_ROWS) if row]
        except csv.Error:
            continue
        if len(sample) < len(text) and len(rows) > 1:
            rows.pop()  # it may be cut
        fields = width or (len(rows[0]) if rows else 0)
        fitting = sum(len(row) == fields for row in rows)
        plain = fitting * 2 > len(rows) or (width and fitting * 2 == len(rows))
        if fields > 1 and plain and fitting > most:
            best, most = separator, fitting
    return best


def suspected(columns: list[str], delimiter: str) -> str | None:
    """A warning when a table's only column looks like several."""
    if len(columns) == 1:
        for separator, name in SEPARATORS.items():
            if separator != delimiter and separator in columns[0]:
                return (
                    f"it has one column, {shortened(columns[0])!r}; "
                    f"if {name} separates its fields, set the delimiter"
                )
    return None


def named(separator: str | None) -> str:
    """A separator for a message."""
    return SEPARATORS.get(separator or "", repr(separator))


def encoding_of(data: bytes, declared: Encoding) -> Encoding:
    """The encoding that the first bytes of a file prove, by a byte order mark or by the zero bytes
    of UTF-16; else the declared one.
    """
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8"
    if data.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if data.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    sample = data[: SAMPLE_LENGTH & ~1]
    big, little = sample[0::2].count(0), sample[1::2].count(0)
    likely: Encoding = "utf-16-be" if big > little else "utf-16-le"
    # Most characters have a zero byte in English, only line ends and separators in Chinese.
    surely = 2 if _is_utf8(sample) else 20
    if declared == "utf-16" or abs(big - little) * surely > len(sample) // 2:
        return likely
    return declared


def _is_utf8(sample: bytes) -> bool:
    """Whether it is UTF-8; its last character may be incomplete."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _first_end(text: str) -> str | None:
    """The first line end outside quotes, else the first one; None if the text has no line end."""
    quoted = False
    for found in _LINE_END.finditer(text, 0, SAMPLE_LENGTH):
        if found[0] == '"':
            quoted = not quoted
        elif not quoted and found.end() < len(text):  # a last CR may be half of a CRLF
            return found[0]
    if "\n" in text:
        return "\n"
    return "\r" if "\r" in text[:-1] else None


def _ends(text: str) -> list[str]:
    return re.findall(r"\r\n|\r|\n", text)


def _line_start(text: str) -> int:
    return max(text.rfind("\n"), text.rfind("\r")) + 1


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
