"""`/csv/to-ndjson`: one JSON object for each row."""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Literal, Self

from pydantic import model_validator

from jobplane_robots._csv import Encoding, Rows, suspected
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


class CsvToNdjsonOptions(RobotOptions):
    """The file's format, its column names, and what happens to a bad row.

    With `header` the first row has the names. `columns` replaces them, whatever that row holds;
    without a header it is required. Without `delimiter` the separator is the one that a first line
    `sep=;` names, or that the file plainly has: a comma, semicolon, tab or vertical bar. A byte
    order mark, or the zero bytes of UTF-16, decide the encoding before `encoding` does.
    Lengths are in characters.
    """

    delimiter: Delimiter | None = None
    encoding: Encoding = "utf-8"
    header: bool = True
    columns: ColumnNames | None = None
    on_error: Literal["fail", "drop"] = "fail"
    max_field_length: MaxRecordBytes = MIB
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
        rows = Rows(
            stream,
            delimiter=options.delimiter,
            encoding=options.encoding,
            width=len(options.columns) if options.columns else None,
            max_field_length=options.max_field_length,
            max_row_length=options.max_row_length,
        )
        found = next(iter(rows), None) if options.header else None
        columns = options.columns or _header(found, rows)
        line_format = _line_format(columns)
        for row in rows:
            if isinstance(row, str):
                faults.add(row, **rows.where)
            elif len(row) != len(columns):
                reason = f"has {len(row)} fields, but there are {len(columns)} columns"
                faults.add(reason, **rows.where)
            else:
                text.write(line_format % tuple(map(encode_basestring, row)))
                written += 1
        text.flush()
        counts = {"rows": written, "dropped": faults.count}
        output.meta.update({**counts, "columns": columns, "bad_rows": faults.first})
    warnings = (*rows.warnings, *faults.warning("rows were left out"))
    if not rows.number:
        warnings = (*rows.warnings, "the file has no rows")
    elif isinstance(found, list) and (doubt := suspected(found, rows.delimiter)):
        warnings = (*warnings, doubt)
    return RobotResult(counts=counts, meta={"bad_rows": faults.first}, warnings=warnings)


def _header(found: list[str] | str | None, rows: Rows) -> list[str]:
    """The names in the first row that is not blank. A fault in it always ends the run."""
    fault = column_fault(found) if isinstance(found, list) else found
    if fault:
        reason = f"header: {fault}; the option columns can replace it"
        raise MalformedInputError(reason, where=rows.where)
    return found if isinstance(found, list) else []


def _line_format(columns: list[str]) -> str:
    """A format such as `{"a":%s,"b":%s}`, so that names are encoded only once."""
    pairs = (encode_basestring(column).replace("%", "%%") + ":%s" for column in columns)
    return "{" + ",".join(pairs) + "}\n"
