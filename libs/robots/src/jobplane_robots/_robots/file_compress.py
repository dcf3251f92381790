"""`/file/compress`: gzip."""

from __future__ import annotations

import zlib
from typing import Annotated, Literal

from pydantic import Field

from jobplane_robots._io import Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import safe_name
from jobplane_robots._robot import RobotOptions, robot

GZIP = 16 + zlib.MAX_WBITS  # zlib writes the gzip header itself: mtime 0, no file name


class FileCompressOptions(RobotOptions):
    """The format and the compression level, from 1 (fast) to 9 (small)."""

    format: Literal["gzip"] = "gzip"
    level: Annotated[int, Field(ge=1, le=9)] = 6


@robot("/file/compress", options=FileCompressOptions)
def file_compress(
    source: RobotInput, options: FileCompressOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Equal bytes and level always give equal output."""
    compressor = zlib.compressobj(options.level, zlib.DEFLATED, GZIP)
    size = 0
    name = safe_name(f"{safe_name(source.name)}.gz")
    with (
        context.open(source) as stream,
        outputs.create(name, mime="application/gzip") as output,
    ):
        for chunk in stream:
            packed = compressor.compress(chunk)
            size += len(packed)
            output.write(packed)
        packed = compressor.flush()
        size += len(packed)
        output.write(packed)
        output.meta["original_size"] = stream.bytes_read
    return RobotResult(counts={"bytes_in": stream.bytes_read, "bytes_out": size})
