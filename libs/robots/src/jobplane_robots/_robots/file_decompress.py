"""`/file/decompress`: gzip, within limits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from jobplane_robots._errors import FileTooLargeError, MalformedInputError
from jobplane_robots._io import (
    CHUNK_BYTES,
    InputStream,
    Outputs,
    RobotContext,
    RobotInput,
    RobotResult,
)
from jobplane_robots._names import safe_name
from jobplane_robots._robot import RobotOptions, robot

GIB = 1024**3
GZIP = 16 + zlib.MAX_WBITS
# zlib copies the unread rest at each member's end: small pieces keep many tiny members linear.
PIECE_BYTES = 16 * 1024
GZIP_FIRST_BYTE = 0x1F
# Small files of repeated bytes are honest at any ratio; below this much output none is judged.
RATIO_FREE_BYTES = 16 * 1024 * 1024


class FileDecompressOptions(RobotOptions):
    """The format, and what a file may unpack to: in bytes, and times its own size."""

    format: Literal["gzip"] = "gzip"
    max_bytes: Annotated[int, Field(ge=1)] = 10 * GIB
    max_ratio: Annotated[int, Field(ge=1)] = 500


@robot("/file/decompress", options=FileDecompressOptions)
def file_decompress(
    source: RobotInput, options: FileDecompressOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Every member of the file; a truncated one and bytes after the last are errors."""
    size = 0
    with context.open(source) as stream, outputs.create(_output_name(source.name)) as output:
        for data in _decompress(stream):
            size += len(data)
            if size > options.max_bytes:
                raise FileTooLargeError(f"unpacks to more than {options.max_bytes} bytes")
            if size > max(RATIO_FREE_BYTES, options.max_ratio * stream.bytes_read):
                raise FileTooLargeError(f"unpacks to more than {options.max_ratio} times its size")
            output.write(data)
            context.advance(0)  # much may come out of little read; let the caller cancel
    return RobotResult(counts={"bytes_in": stream.bytes_read, "bytes_out": size})


def _decompress(stream: InputStream) -> Iterator[bytes]:
    """Pieces of at most CHUNK_BYTES."""
    member = zlib.decompressobj(GZIP)
    members = 0
    started = False  # a byte of this member was seen
    for piece, position in _pieces(stream):
        end = position + len(piece)
        held = False  # the last call stopped at its limit, so there may be more without input
        while piece or held:
            if members and not started and piece[0] != GZIP_FIRST_BYTE:
                where = {"byte": end - len(piece) + 1}
                raise MalformedInputError("has other data after its gzip data", where=where)
            started = True
            try:
                data = member.decompress(piece, CHUNK_BYTES)
            except zlib.error as error:
                raise _damaged(position, members, error) from error
            if data:
                yield data
            held = len(data) == CHUNK_BYTES and not member.eof
            piece = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                members += 1
                member, started = zlib.decompressobj(GZIP), False
    if started or not members:
        reason = "ends before its gzip data does" if started else "is empty, so not a gzip file"
        raise MalformedInputError(reason)


def _pieces(stream: InputStream) -> Iterator[tuple[bytes, int]]:
    """Small pieces, each with its offset."""
    offset = 0
    for chunk in stream:
        for start in range(0, len(chunk), PIECE_BYTES):
            yield chunk[start : start + PIECE_BYTES], offset + start
        offset += len(chunk)


def _damaged(position: int, members: int, error: zlib.error) -> MalformedInputError:
    if not members and "incorrect header check" in str(error):
        return MalformedInputError("is not a gzip file")
    return MalformedInputError("its gzip data is damaged", where={"byte": position + 1})


def _output_name(name: str) -> str:
    name = safe_name(name)
    for packed, plain in ((".tgz", ".tar"), (".gz", "")):
        if name.lower().endswith(packed) and len(name) > len(packed):
            return name[: -len(packed)] + plain
    return name
