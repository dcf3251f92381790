"""Shared by the text robots: reads NDJSON, counts faults, writes text; in bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from pydantic import AfterValidator, Field

from jobplane_robots._errors import MalformedInputError
from jobplane_robots._io import CHUNK_BYTES, Output

BOM = b"\xef\xbb\xbf"
MIB = 1024 * 1024
MAX_QUOTED = 100
MAX_COLUMNS = 100_000
_JSON_SPACE = " \t\r"

# Options of several robots: the length of one record (parsed, it may take 25 times the memory),
# and how many bad records to list.
MaxRecordBytes = Annotated[int, Field(ge=1, le=256 * MIB)]
MaxReported = Annotated[int, Field(ge=0, le=1000)]


def _separator(character: str) -> str:
    if len(character) != 1 or character in '"\r\n\0':
        raise ValueError("must be one character, not a quote or a line end")
    return character


Delimiter = Annotated[str, AfterValidator(_separator)]


class Line(NamedTuple):
    """One line: its number from 1, its text without line end, and its value or its fault.

    A blank line has neither. `text` is empty when the line could not be read.
    """

    number: int
    text: str
    value: Any
    fault: str | None
    blank: bool = False


def read_ndjson(
    chunks: Iterable[bytes],
    *,
    max_line_bytes: int,
    parse_number: Callable[[str], Any] | None = None,
) -> Iterator[Line]:
    """The lines of a stream, parsed strictly (NaN and invalid UTF-8 are faults).

    A line ends in LF or CRLF; the last one may have no end. A leading byte order mark is skipped.
    `parse_number` is called with the text of each number.
    """
    # scan_once saves four Python calls per line of json.loads, which doubles the throughput.
    decoder = json.JSONDecoder(
        parse_constant=_refuse_constant, parse_int=parse_number, parse_float=parse_number
    )
    scan = decoder.scan_once  # type: ignore[attr-defined]  # public, not in typeshed
    number = 0
    for block in line_blocks(chunks, max_line_bytes):
        if block is None:
            number += 1
            yield Line(number, "", None, f"is longer than {max_line_bytes} bytes")
            continue
        for text in _texts(block, max_line_bytes):
            number += 1
            if isinstance(text, _Fault):
                yield Line(number, "", None, text.reason)
                continue
            if not text:
                yield Line(number, "", None, None, blank=True)
                continue
            try:
                value, end = scan(text, 0)
            except (StopIteration, ValueError, RecursionError):
                yield _parse_carefully(decoder, number, text)
                continue
            if end == len(text):
                yield Line(number, text, value, None)
            else:
                yield _parse_carefully(decoder, number, text)


def line_blocks(chunks: Iterable[bytes], max_line_bytes: int) -> Iterator[bytes | None]:
    """Blocks of whole lines, without the last LF; None for a line that is too long.

    A block has the lines that end in one chunk. If chunks are larger than `max_line_bytes`, a line
    in a block may be too long, too. If the first chunk has CR and no LF, lines end in CR.
    """
    first = True
    ends_in_cr = False
    pending: list[bytes] = []
    size = 0
    skipping = False
    for chunk in chunks:
        if first:
            chunk = chunk.removeprefix(BOM)  # never split: an InputStream fills its chunks
            ends_in_cr = b"\r" in chunk[:-1] and b"\n" not in chunk
            first = False
        if ends_in_cr:  # a string of JSON has no CR
            chunk = chunk.replace(b"\r", b"\n")
        cut = chunk.rfind(b"\n")
        if cut >= 0 and skipping:
            chunk = chunk[chunk.find(b"\n") + 1 :]
            skipping = False
            cut = chunk.rfind(b"\n")
        if skipping:
            continue
        if cut >= 0:
            yield b"".join((*pending, chunk[:cut]))
            pending = [chunk[cut + 1 :]]
            size = len(pending[0])
        else:
            pending.append(chunk)
            size += len(chunk)
        if size > max_line_bytes + 1:  # room for a CR
            yield None
            pending, size, skipping = [], 0, True
    if size:
        yield b"".join(pending)


class _Fault(NamedTuple):
    reason: str


def _texts(block: bytes, max_line_bytes: int) -> Iterator[str | _Fault] | list[str]:
    if len(block) <= max_line_bytes:
        try:
            text = block.decode()
        except UnicodeDecodeError:
            return _texts_one_by_one(block, max_line_bytes)
        if "\r" in text:
            text = text.replace("\r\n", "\n").removesuffix("\r")
        return text.split("\n")
    return _texts_one_by_one(block, max_line_bytes)


def _texts_one_by_one(block: bytes, max_line_bytes: int) -> Iterator[str | _Fault]:
    for line in block.split(b"\n"):
        line = line.removesuffix(b"\r")
        if len(line) > max_line_bytes:
            yield _Fault(f"is longer than {max_line_bytes} bytes")
            continue
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02X}"
            yield _Fault(f"is not UTF-8 ({byte})")


def _parse_carefully(decoder: json.JSONDecoder, number: int, text: str) -> Line:
    """Parse a line with surrounding space, a blank line, or a faulty one."""
    text = text.rstrip(_JSON_SPACE)
    if not text:
        return Line(number, "", None, None, blank=True)
    try:
        try:
            return Line(number, text, decoder.decode(text), None)
        except (json.JSONDecodeError, _ConstantError):
            raise
        except ValueError:  # an integer beyond Python's limit of digits
            return Line(number, text, _ANY_INTEGER.decode(text), None)
    except json.JSONDecodeError as error:
        fault = f"is not JSON (column {error.pos + 1}: {_expected(error)})"
    except _ConstantError as error:
        fault = f"is not JSON ({error} is not a JSON number)"
    except RecursionError:
        fault = "is nested too deeply"
    return Line(number, text, None, fault)


def _expected(error: json.JSONDecodeError) -> str:
    """What JSON needs at the error's place, and what stands there."""
    found = repr(error.doc[error.pos]) if error.pos < len(error.doc) else "the end of the line"
    for start, expected in _EXPECTED.items():
        if error.msg.startswith(start):
            return expected.format(found=found)
    return f"unexpected {found}"


# By the beginning of the message of Python's parser.
_EXPECTED = {
    "Expecting ','": "expected a comma or the closing bracket, found {found}",
    "Expecting ':'": "expected a colon after the key, found {found}",
    "Expecting property name": "expected a key in double quotes, found {found}",
    "Expecting value": "expected a value, found {found}",
    "Extra data": "expected the end of the line after the value, found {found}",
    "Illegal trailing comma": "a comma must not stand before the closing bracket",
    "Invalid \\escape": 'after a backslash only one of "\\/bfnrtu may stand',
    "Invalid \\u": "expected four hex digits after \\u",
    "Invalid control character": "the character {found} must be escaped in a string",
    "Unterminated string": "the string is not closed",
}


class _ConstantError(ValueError):
    """NaN or Infinity, which Python accepts but JSON does not allow."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


_ANY_INTEGER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float)


def column_fault(names: list[str]) -> str | None:
    """Why the names can't be a table's columns; None if they can."""
    if not names:
        return "there are no columns"
    if "" in names:
        return f"column {names.index('') + 1} has no name"
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        return f"column {shortened(twice)!r} appears twice"
    if len(names) > MAX_COLUMNS:
        return f"there are {len(names)} columns, but at most {MAX_COLUMNS} are possible"
    return None


def shortened(text: str) -> str:
    """Text of a file, shortened for a message."""
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def _columns(names: list[str]) -> list[str]:
    if fault := column_fault(names):
        raise ValueError(fault)
    return names


ColumnNames = Annotated[list[str], Field(max_length=MAX_COLUMNS), AfterValidator(_columns)]


class Faults:
    """Counts bad records and keeps the first ones; with `fail` the first one ends the run."""

    def __init__(self, on_error: Literal["fail", "report", "drop"], max_reported: int) -> None:
        self.count = 0
        self.first: list[dict[str, Any]] = []
        self._fail = on_error == "fail"
        self._max_reported = max_reported

    def add(self, reason: str, **where: int) -> None:
        if self._fail:
            raise MalformedInputError(reason, where=where)
        self.count += 1
        if len(self.first) < self._max_reported:
            self.first.append({**where, "reason": reason})

    def warning(self, what: str) -> tuple[str, ...]:
        """A sentence such as "3 lines were left out; the first, line 7, …"; () without faults."""
        if not self.count:
            return ()
        if not self.first:
            return (f"{self.count} {what}",)
        *where, reason = self.first[0].items()
        place = ", ".join(f"{unit} {number}" for unit, number in where)
        return (f"{self.count} {what}; the first, {place}, {reason[1]}",)


class TextOutput:
    """Collects text and writes it as UTF-8 in large pieces; call `flush` at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._parts: list[str] = []
        self._size = 0

    def write(self, text: str, /) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        self._output.write("".join(self._parts).encode())
        self._parts.clear()
        self._size = 0
