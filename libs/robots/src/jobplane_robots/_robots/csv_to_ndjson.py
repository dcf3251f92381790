"""`/csv/to-ndjson`: one JSON object for each row."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator
from io import StringIO
from json.encoder import encode_basestring
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobplane_robots._errors import MalformedInputError
from jobplane_robots._io import Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import derived_name
from jobplane_robots._robot import RobotOptions, robot
from jobplane_robots._text import (
    MIB,
    ColumnNames,
    Delimiter,
    Faults,
    MaxRecordBytes,
    MaxReported,
    TextOutput,
    column_fault,
)

# The encodings that spreadsheets and databases use.
Encoding = Literal[
    "utf-8",
    "utf-16",
    "iso-8859-1",
    "iso-8859-15",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "shift_jis",
    "gb18030",
    "big5",
    "euc-kr",
]


class CsvToNdjsonOptions(RobotOptions):
    """The file's format, its column names, and what happens to a bad row.

    With `header` the first row has the names. `columns` replaces them; without a header it is
    required.
    Lengths are in characters.
    """

    delimiter: Delimiter = ","
    encoding: Encoding = "utf-8"
    header: bool = True
    columns: ColumnNames | None = None
    on_error: Literal["fail", "drop"] = "fail"
    max_field_length: Annotated[int, Field(ge=1)] = MIB
    max_row_length: MaxRecordBytes = 4 * MIB
    max_reported: MaxReported = 20

    @model_validator(mode="after")
    def _has_names(self) -> Self:
        if not self.header and self.columns is None:
            raise ValueError("columns is required when header is false")
        return self


@robot("/csv/to-ndjson", options=CsvToNdjsonOptions)
def csv_to_ndjson(
    source: RobotInput, options: CsvToNdjsonOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Values stay strings; quoted fields may contain line ends; blank rows are skipped."""
    faults = Faults(options.on_error, options.max_reported)
    name = derived_name(source.name, extension=".ndjson")
    written = 0
    with (
        context.open(source) as stream,
        outputs.create(name, mime="application/x-ndjson") as output,
    ):
        text = TextOutput(output)
        rows = _Rows(stream, options)
        found = _header(rows) if options.header else None
        columns = options.columns or found or []
        line_format = _line_format(columns)
        for row in rows:
            if isinstance(row, str):
                faults.add(row, row=rows.number, line=rows.line)
            elif len(row) != len(columns):
                reason = f"has {len(row)} fields, but there are {len(columns)} columns"
                faults.add(reason, row=rows.number, line=rows.line)
            else:
                text.write(line_format % tuple(map(encode_basestring, row)))
                written += 1
        text.flush()
        counts = {"rows": written, "dropped": faults.count}
        output.meta.update({**counts, "columns": columns, "bad_rows": faults.first})
    warnings = faults.warning("rows were left out")
    if not rows.number:
        warnings = ("the file has no rows",)
    return RobotResult(counts=counts, meta={"bad_rows": faults.first}, warnings=warnings)


def _header(rows: _Rows) -> list[str] | None:
    """The first row that is not blank. A fault in it always ends the run."""
    names = next(iter(rows), None)
    fault = names if isinstance(names, str) else names and column_fault(names)
    if isinstance(fault, str):
        raise MalformedInputError(f"header: {fault}", where={"row": rows.number})
    return names if isinstance(names, list) else None


def _line_format(columns: list[str]) -> str:
    """A format such as `{"a":%s,"b":%s}`, so that names are encoded only once."""
    pairs = (encode_basestring(column).replace("%", "%%") + ":%s" for column in columns)
    return "{" + ",".join(pairs) + "}\n"


class _Rows:
    """The file's rows: a list of values, or for a faulty row a text that says why.

    `number` is the row's number as in a spreadsheet: from 1, with header and blank rows. `line` is
    the line in which the row begins.
    """

    def __init__(self, chunks: Iterable[bytes], options: CsvToNdjsonOptions) -> None:
        self.number = 0
        self.line = 0
        self._lines_read = 0
        self._length = 0  # of the row being read
        self._max_length = options.max_row_length
        self._max_field = options.max_field_length
        # _lines limits the length of rows. The csv module has one limit for the whole process,
        # so it is only raised, never lowered.
        csv.field_size_limit(max(csv.field_size_limit(), options.max_row_length))
        texts = self._texts(chunks, options.encoding)
        self._reader = csv.reader(self._lines(texts), delimiter=options.delimiter, strict=True)

    def __iter__(self) -> Iterator[list[str] | str]:
        while True:
            self.line = self._lines_read + 1
            self._length = 0
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.number += 1
                yield self._fault(str(error))
                continue
            self.number += 1
            if self._length > self._max_field and any(len(cell) > self._max_field for cell in row):
                yield f"has a field longer than {self._max_field} characters"
            elif row:
                yield row

    def _fault(self, reason: str) -> str:
        if "unexpected end of data" in reason:
            # The rest of the file is inside the quotes, so dropping this row would drop the rest.
            where = {"row": self.number, "line": self.line}
            raise MalformedInputError("a quote is opened and never closed", where=where)
        if "new-line character" in reason:
            return "has a carriage return outside quotes"
        if "expected after" in reason:
            return "has text after a closing quote"
        return f"can't be read ({reason})"

    def _lines(self, texts: Iterable[str]) -> Iterator[str]:
        """Lines with their ends, split at LF only, so that the csv reader receives every CR."""
        pending: list[str] = []
        size = 0
        for text in texts:
            cut = text.rfind("\n") + 1
            if cut:
                pending.append(text[:cut])
                yield from self._counted(StringIO("".join(pending), newline="\n"))
                pending, size = [], 0
            pending.append(text[cut:])
            size += len(text) - cut
            self._check_length(size)
        if size:
            yield from self._counted(["".join(pending)])

    def _counted(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._lines_read += 1
            self._length += len(line)
            if self._length > self._max_length:
                self._check_length()
            yield line

    def _check_length(self, more: int = 0) -> None:
        if self._length + more > self._max_length:
            where = {"row": self.number + 1, "line": self.line}
            reason = f"is longer than {self._max_length} characters; is a quote not closed?"
            raise MalformedInputError(reason, where=where)

    def _texts(self, chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(encoding)()
        offset = 0
        for chunk in _and_end(chunks):
            state = decoder.getstate()
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # First the rows before the fault, so that the fault gets the right row number.
                good = error.start - len(state[0])
                if good > 0:
                    decoder.setstate(state)
                    yield decoder.decode(chunk[:good])
                where = {"row": self.number + 1, "byte": offset + good + 1}
                raise MalformedInputError(f"is not {encoding} text", where=where) from error
            yield text.removeprefix("\ufeff") if not offset else text
            offset += len(chunk)


def _and_end(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, then b"", at which the decoder notices a truncated character."""
    yield from chunks
    yield b""
