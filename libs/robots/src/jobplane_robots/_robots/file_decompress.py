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
from jobplane_robots._robot import MAX_SIZE, RobotOptions, robot

GIB = 1024**3
GZIP = 16 + zlib.MAX_WBITS
# At each member's end zlib copies its unread input. Small pieces keep that cheap with many members.
PIECE_BYTES = 16 * 1024
GZIP_FIRST_BYTE = 0x1F
# The ratio is not checked below this output: small files of repeated bytes may have any ratio.
RATIO_FREE_BYTES = 16 * 1024 * 1024
# Of deflate, a little more than it can reach.
MAX_RATIO = 1100


class FileDecompressOptions(RobotOptions):
    """The format, and the limits of the output: in bytes, and as a multiple of the file's size."""

    format: Literal["gzip"] = "gzip"
    max_bytes: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 10 * GIB
    max_ratio: Annotated[int, Field(ge=1, le=MAX_RATIO)] = 500


@robot("/file/decompress", options=FileDecompressOptions, limits_growth=True)
def file_decompress(
    source: RobotInput, options: FileDecompressOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Unpacks all members; a truncated member, or other bytes than zeros after the last one, are an
    error.
    """
    size = 0
    with context.open(source) as stream, outputs.create(_output_name(source.name)) as output:
        for data in _decompress(stream):
            size += len(data)
            if size > options.max_bytes:
                raise FileTooLargeError(f"unpacks to more than {options.max_bytes} bytes")
            if size > max(RATIO_FREE_BYTES, options.max_ratio * stream.bytes_read):
                raise FileTooLargeError(f"unpacks to more than {options.max_ratio} times its size")
            output.write(data)
            context.advance(0)  # a little input may give much output; lets the caller cancel
    return RobotResult(counts={"bytes_in": stream.bytes_read, "bytes_out": size})


def _decompress(stream: InputStream) -> Iterator[bytes]:
    """Pieces of at most CHUNK_BYTES."""
    member = zlib.decompressobj(GZIP)
    members = 0
    started = False  # a byte of this member was read
    padded = False  # zero bytes after the last member, up to a block of a tape; tar writes them
    for piece, position in _pieces(stream):
        end = position + len(piece)
        held = False  # the last call stopped at its limit: more output may follow without input
        while piece or held:
            if members and not started:
                rest = piece.lstrip(b"\0")
                padded = padded or len(rest) < len(piece)
                if rest and (padded or rest[0] != GZIP_FIRST_BYTE):
                    where = {"byte": end - len(rest) + 1}
                    raise MalformedInputError("has other data after its gzip data", where=where)
                piece = rest
                if not piece:
                    break
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
