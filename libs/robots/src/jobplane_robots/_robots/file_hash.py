"""`/file/hash`: passes the file on, with its digests as metadata."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from jobplane_robots._io import Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._robot import RobotOptions, robot


class FileHashOptions(RobotOptions):
    """The digests to compute."""

    algorithms: Annotated[
        list[Literal["md5", "sha1", "sha256"]], Field(min_length=1, max_length=3)
    ] = ["sha256"]


@robot("/file/hash", options=FileHashOptions)
def file_hash(
    source: RobotInput, options: FileHashOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Reads the file once; each digest is in the output's meta under its algorithm's name."""
    digests = {
        name: hashlib.new(name, usedforsecurity=False) for name in dict.fromkeys(options.algorithms)
    }
    with context.open(source) as stream:
        for chunk in stream:
            for digest in digests.values():
                digest.update(chunk)
        size = stream.bytes_read
    hashes: dict[str, str] = {name: digest.hexdigest() for name, digest in digests.items()}
    outputs.forward(source, hashes)
    return RobotResult(counts={"bytes": size}, meta=hashes)
