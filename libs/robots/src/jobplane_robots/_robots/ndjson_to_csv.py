"""`/ndjson/to-csv`: one row for each object."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from json.encoder import encode_basestring
from typing import Annotated, Any, Literal

from pydantic import Field

from jobplane_robots._errors import MalformedInputError
from jobplane_robots._io import InputStream, Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import derived_name
from jobplane_robots._robot import RobotOptions, robot
from jobplane_robots._text import (
    MIB,
    ColumnNames,
    Delimiter,
    Faults,
    Line,
    MaxRecordBytes,
    MaxReported,
    TextOutput,
    column_fault,
    read_ndjson,
    shortened,
)

# The rows that are kept to find the columns end here at the latest, to limit the memory.
SAMPLE_LENGTH = MIB
# Characters at which spreadsheets begin a formula (OWASP, "CSV injection"), also full-width.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Brackets in a line; fewer can't exceed Python's recursion limit.
SURELY_SHALLOW = 100


class NdjsonToCsvOptions(RobotOptions):
    """The columns, and what happens to keys without a column.

    Without `columns` these are the keys of the first `sample_rows` objects (fewer, if these have
    more than 1 MiB), in order of appearance. A key without a column makes its line a bad one, or
    is left out with `unknown_keys: ignore`. `escape_formulas` puts a `'` before a text that a
    spreadsheet would treat as a formula.
    """

    columns: ColumnNames | None = None
    sample_rows: Annotated[int, Field(ge=1, le=10_000)] = 100
    unknown_keys: Literal["error", "ignore"] = "error"
    delimiter: Delimiter = ","
    header: bool = True
    bom: bool = False
    escape_formulas: bool = False
    on_error: Literal["fail", "drop"] = "fail"
    max_line_bytes: MaxRecordBytes = 4 * MIB
    max_reported: MaxReported = 20


class _Number(str):
    """The text of a number in the file: 1.10 stays 1.10, and no digit is lost."""

    __slots__ = ()


@robot("/ndjson/to-csv", options=NdjsonToCsvOptions)
def ndjson_to_csv(
    source: RobotInput, options: NdjsonToCsvOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """RFC 4180 with CRLF; null and missing are empty, objects and lists are JSON in a cell."""
    faults = Faults(options.on_error, options.max_reported)
    name = derived_name(source.name, extension=".csv")
    written = ignored = 0
    with context.open(source) as stream, outputs.create(name, mime="text/csv") as output:
        text = TextOutput(output)
        table = csv.writer(text, delimiter=options.delimiter)
        objects = _objects(stream, options, faults)
        sample: list[Line] = []
        columns = options.columns
        if columns is None:
            sample = _sample(objects, options.sample_rows)
            columns = _columns_of(sample)
        known = frozenset(columns)
        cell = _escaped_cell if options.escape_formulas else _cell
        if options.bom:
            text.write("\ufeff")
        if options.header and columns:
            table.writerow(map(cell, columns))
        for line in chain(sample, objects):
            if not known.issuperset(line.value):
                unknown = [key for key in line.value if key not in known]
                if options.unknown_keys == "error":
                    faults.add(f"has keys without a column: {_listed(unknown)}", line=line.number)
                    continue
                ignored += len(unknown)
            table.writerow([cell(line.value.get(column)) for column in columns])
            written += 1
        text.flush()
        counts = {"rows": written, "dropped": faults.count, "ignored_values": ignored}
        output.meta.update({**counts, "columns": columns, "bad_lines": faults.first})
    warnings = faults.warning("lines were left out")
    if ignored:
        warnings += (f"{ignored} values without a column were left out",)
    if not columns:
        warnings += ("the file has no rows",)
    return RobotResult(counts=counts, meta={"bad_lines": faults.first}, warnings=warnings)


def _objects(stream: InputStream, options: NdjsonToCsvOptions, faults: Faults) -> Iterator[Line]:
    """The lines that hold an object; blank lines are skipped."""
    lines = read_ndjson(stream, max_line_bytes=options.max_line_bytes, parse_number=_Number)
    for line in lines:
        if line.blank:
            continue
        fault = line.fault
        if fault is None and not isinstance(line.value, dict):
            fault = "is not a JSON object"
        if fault is None and options.columns is None and "" in line.value:
            fault = "has a key without a name"
        # Only such lines may be impossible to write, so only they are tried.
        if fault is None and ("\\u" in line.text or _may_be_deep(line.text)):
            fault = _why_not_writable(line.value)
        if fault is None:
            yield line
        else:
            faults.add(fault, line=line.number)


def _sample(objects: Iterator[Line], rows: int) -> list[Line]:
    sample: list[Line] = []
    length = 0
    while len(sample) < rows and length < SAMPLE_LENGTH and (line := next(objects, None)):
        sample.append(line)
        length += len(line.text)
    return sample


def _columns_of(sample: list[Line]) -> list[str]:
    columns = list(dict.fromkeys(key for line in sample for key in line.value))
    if sample and (fault := column_fault(columns)):
        raise MalformedInputError(f"{fault} in its first {len(sample)} lines")
    return columns


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return _json(value)


def _escaped_cell(value: Any) -> str:
    text = _cell(value)
    if text.startswith(FORMULA_STARTS) and not isinstance(value, _Number):
        return f"'{text}"
    return text


def _json(value: Any) -> str:
    """Compact JSON; numbers have the same text as in the file."""
    match value:
        case _Number():
            return str(value)
        case str():
            return encode_basestring(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            pairs = (f"{encode_basestring(key)}:{_json(item)}" for key, item in value.items())
            return "{" + ",".join(pairs) + "}"
        case _:
            return "[" + ",".join(map(_json, value)) + "]"


def _may_be_deep(text: str) -> bool:
    return text.count("[") + text.count("{") > SURELY_SHALLOW


def _why_not_writable(value: Any) -> str | None:
    try:
        _json(value).encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair"
    except RecursionError:
        return "is nested too deeply"
    return None


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(shortened(name)) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
