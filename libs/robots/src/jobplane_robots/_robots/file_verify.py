"""`/file/verify`: compares the file with the md5 that its sender gave."""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode

from jobplane_robots._errors import MalformedInputError, Md5MismatchError
from jobplane_robots._io import Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._robot import RobotOptions, robot

_HEX = re.compile(r"[0-9a-f]{32}")


class FileVerifyOptions(RobotOptions):
    """Whether a file without a given md5 is an error."""

    require_md5: bool = True


@robot("/file/verify", options=FileVerifyOptions)
def file_verify(
    source: RobotInput, options: FileVerifyOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Passes the file on if size and md5 are right; the md5 is hex or base64 (Content-MD5)."""
    claim = (source.md5hash or "").strip()
    if not claim and options.require_md5:
        raise MalformedInputError("no md5 was announced for it")
    expected = _hex_md5(claim) if claim else None
    digest = hashlib.md5(usedforsecurity=False)
    with context.open(source) as stream:
        for chunk in stream:
            digest.update(chunk)
        size = stream.bytes_read
    if size != source.size:
        raise MalformedInputError(f"has {size} bytes, but {source.size} were announced")
    actual = digest.hexdigest()
    if expected not in (None, actual):
        raise Md5MismatchError(expected=str(expected), actual=actual)
    outputs.forward(source, {"md5": actual})
    warnings = () if expected else ("no md5 was announced, so only the size was verified",)
    return RobotResult(counts={"bytes": size}, meta={"md5": actual}, warnings=warnings)


def _hex_md5(claim: str) -> str:
    if _HEX.fullmatch(claim.lower()):
        return claim.lower()
    try:
        decoded = b64decode(claim, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != hashlib.md5(usedforsecurity=False).digest_size:
        raise MalformedInputError("its announced md5 is neither 32 hex digits nor base64")
    return decoded.hex()
