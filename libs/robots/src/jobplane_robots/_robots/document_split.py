"""`/document/split`: parts of a number of lines or bytes."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from typing import Annotated, Self

from pydantic import Field, model_validator

from jobplane_robots._errors import FileTooLargeError, MalformedInputError
from jobplane_robots._io import Output, Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import derived_name
from jobplane_robots._robot import MAX_SIZE, RobotOptions, robot


class DocumentSplitOptions(RobotOptions):
    """The size of a part, in lines or in bytes, and the maximal number of parts.

    With `lines` no line is divided; lines end in LF, or in CR if the file has no LF. With `bytes` a
    part may end within a line or a character.
    """

    lines: Annotated[int | None, Field(ge=1, le=MAX_SIZE)] = None
    bytes: Annotated[int | None, Field(ge=1, le=MAX_SIZE)] = None
    max_parts: Annotated[int, Field(ge=1, le=9999)] = 1000

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.lines is None) == (self.bytes is None):
            raise ValueError("set either lines or bytes")
        return self


@robot("/document/split", options=DocumentSplitOptions)
def document_split(
    source: RobotInput, options: DocumentSplitOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """`data.csv` becomes `data-part-0001.csv` …; joined, the parts are the file."""
    part: Output | None = None
    count = left = 0
    line_end = b""
    with context.open(source) as stream:
        for chunk in stream:
            if options.lines and not line_end:
                line_end = _line_end(chunk)
            start = 0
            while start < len(chunk):
                if part is None:
                    count += 1
                    if count > options.max_parts:
                        raise FileTooLargeError(f"needs more than {options.max_parts} parts")
                    name = derived_name(source.name, suffix=f"-part-{count:04}")
                    part = outputs.create(name, mime=source.mime, meta={"part": count})
                    left = options.lines or options.bytes or 0
                if line_end:
                    end, used = _after_lines(chunk, start, left, line_end)
                else:
                    end, used = _after_bytes(chunk, start, left)
                part.write(chunk[start:end])
                start = end
                left -= used
                if not left:
                    part.close()
                    part = None
    warnings = () if count else ("the file is empty, so there are no parts",)
    return RobotResult(counts={"parts": count}, warnings=warnings)


def _after_bytes(chunk: bytes, start: int, left: int) -> tuple[int, int]:
    """The end of the part within the chunk, and how much of `left` it uses."""
    end = min(start + left, len(chunk))
    return end, end - start


def _line_end(first: bytes) -> bytes:
    """LF, or CR if the first chunk has no LF."""
    if first.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise MalformedInputError("is UTF-16 text, which can be split by bytes only")
    return b"\r" if b"\r" in first[:-1] and b"\n" not in first else b"\n"


def _after_lines(chunk: bytes, start: int, left: int, line_end: bytes) -> tuple[int, int]:
    found = chunk.count(line_end, start)
    if found < left:
        return len(chunk), found
    rest = chunk[start:].split(line_end, left)[-1]
    return len(chunk) - len(rest), left
