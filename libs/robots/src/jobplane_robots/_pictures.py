"""What Pillow does not do for pictures: metadata that can't be read, profiles, depth, plays."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from jobplane_robots._errors import MalformedInputError

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112
# The tags of a TIFF that describe the picture; the others describe its bytes.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432, 34665, 34853)
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
_ICC = {"RGB": "rgb", "GRAY": "grey", "CMYK": "cmyk"}


def without_metadata(data: bytes) -> bytes | None:
    """A PNG, JPEG or WebP without EXIF, XMP, IPTC, profile and texts; None for other data."""
    if data.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(data))
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + b"".join(_jpeg_segments(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(data))
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in _PNG_CHUNKS or kind[:1].isupper():
            yield data[at:end]
        at = end
    yield data[at:]


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """Without APP1 to APP15 and comments; Adobe's APP14 says how colours are coded."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4]) if marker != 0xFF else at + 1
        if marker == 0xEE or not (0xE1 <= marker <= 0xEF or marker == 0xFE):
            yield data[at:end]
        at = end
    yield data[at:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        if kind == b"VP8X" and length:
            flags = data[at + 8] & ~0x2C  # profile, EXIF, XMP
            yield data[at : at + 8] + bytes([flags]) + data[at + 9 : end]
        elif kind not in (b"ICCP", b"EXIF", b"XMP "):
            yield data[at:end]
        at = end


def exif_of(image: Image.Image) -> tuple[bytes | None, int, bool]:
    """The EXIF without its orientation, the orientation, and whether all of it can be read."""
    orientation, readable = 1, True
    try:
        exif = image.getexif()
        if not exif and image.info.get("exif"):
            return None, 1, False
        if (value := exif.pop(ORIENTATION, 1)) in range(9):
            orientation = value
        else:
            readable = False
        if image.format == "TIFF":
            for tag in [tag for tag in exif if tag not in _DESCRIPTIVE]:
                del exif[tag]
        return exif.tobytes() if exif else None, orientation, readable
    except Exception:  # Pillow raises whatever a faulty value leads to
        return None, orientation, False


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    method = methods.get(orientation)
    return image.copy() if method is None else image.transpose(method)


def profile_family(profile: bytes) -> str | None:
    """The colours that an ICC profile describes: rgb, grey, cmyk; None if it can't be read."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        return _ICC.get(opened.profile.xcolor_space.strip(), "other")
    except Exception:
        return None


def in_srgb(frame: Image.Image, profile: bytes) -> Image.Image | None:
    """The frame's colours converted from its profile to sRGB; None if that fails."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        alpha = frame.getchannel("A") if frame.mode in ("LA", "RGBA") else None
        opaque = frame.convert({"LA": "L", "RGBA": "RGB"}.get(frame.mode, frame.mode))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(opaque, source, target, outputMode="RGB")
        if converted is not None and alpha is not None:
            converted.putalpha(alpha)
    except Exception:
        return None
    return converted


def depth_of(image: Image.Image) -> int:
    """The bits of a channel in the file, as far as they are more than 8."""
    if image.mode in ("I", "F"):
        return 32
    if image.mode.startswith("I;16"):
        return 16
    tags = getattr(image, "tag_v2", None)
    bits = tags.get(258, ()) if tags is not None else ()
    if any(isinstance(count, int) and count > 8 for count in bits):
        return int(max(bits))
    return 16 if ";16" in str([tile[3] for tile in getattr(image, "tile", ())]) else 8


def grey_of(image: Image.Image) -> tuple[Image.Image, str | None]:
    """A picture of more than 8 bits as 8-bit grey, and what was done to its values.

    Values from 0 to 1, to 255 or to 65535 are scaled from these ranges, others from their own.
    Raises MalformedInputError if a value is not finite.
    """
    low, high = image.getextrema()
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise MalformedInputError("has values that are not numbers")
    if not math.isfinite(low) or not math.isfinite(high):
        raise MalformedInputError("has values that are not finite numbers")
    tops: tuple[float, ...] = (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0, 65535.0)
    top = next((top for top in tops if 0 <= low and high <= top), None)
    done = None
    if top is None:
        done = f"its values from {low:g} to {high:g} are spread over black to white"
        top = (high - low) or 1.0
    else:
        low = 0.0
    scale = 255 / top
    return image.point(lambda value: value * scale + (0.5 - low * scale)).convert("L"), done


def plays_of(image: Image.Image) -> int:
    """How often an animation plays; 0 for ever. A GIF counts repeats, and plays once without."""
    loop: int | None = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop and loop + 1
    return loop or 0
