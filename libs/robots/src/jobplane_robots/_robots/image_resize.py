"""`/image/resize`: changes size or format, with Pillow (the extra `image`)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, NamedTuple, Self, cast

from pydantic import Field, StringConstraints, model_validator

from jobplane_robots._errors import FileTooLargeError, MalformedInputError
from jobplane_robots._io import CHUNK_BYTES, Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import derived_name, safe_name, split_extension
from jobplane_robots._robot import RobotOptions, robot
from jobplane_robots._text import MIB

if TYPE_CHECKING:
    from PIL import Image

# Pillow is imported at the first file, so that options can be checked without it.
INSTALL = "install jobplane-robots[image]"
READABLE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}
ANIMATED = {"PNG": "png", "WEBP": "webp", "GIF": "gif"}
SPOOL_BYTES = 8 * MIB  # a larger image is buffered on disk
# What Pillow's formats raise for damaged files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

Side = Annotated[int | None, Field(ge=1, le=16_384)]


class _Format(NamedTuple):
    pillow: str
    mime: str
    extensions: tuple[str, ...]
    modes: tuple[str, ...]


FORMATS = {
    "jpg": _Format("JPEG", "image/jpeg", (".jpg", ".jpeg"), ("L", "RGB", "CMYK")),
    "png": _Format("PNG", "image/png", (".png",), ("L", "LA", "RGB", "RGBA")),
    "webp": _Format("WEBP", "image/webp", (".webp",), ("RGB", "RGBA")),
    "gif": _Format("GIF", "image/gif", (".gif",), ("L", "RGB", "RGBA")),
}


class ImageResizeOptions(RobotOptions):
    """The new size in pixels, the strategy, and the format.

    `fit` scales the image into the box, `min_fit` over it, `fillcrop` over it and crops the rest,
    `pad` scales into it and fills the rest with `background`, `stretch` changes the proportions.
    Without `zoom` nothing is enlarged. Without `format` the format stays (TIFF, BMP become PNG).
    """

    width: Side = None
    height: Side = None
    resize_strategy: Literal["fit", "min_fit", "fillcrop", "pad", "stretch"] = "fit"
    zoom: bool = True
    background: Annotated[str, StringConstraints(pattern=r"^#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?$")] = (
        "#ffffff"
    )
    format: Literal["jpg", "png", "webp", "gif"] | None = None
    quality: Annotated[int, Field(ge=1, le=100)] = 85
    strip: bool = False
    max_pixels: Annotated[int, Field(ge=1, le=170_000_000)] = 50_000_000
    max_bytes: Annotated[int, Field(ge=1, le=1024 * MIB)] = 64 * MIB

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.width is None and self.height is None and self.format is None:
            raise ValueError("set at least one of width, height, format")
        both = self.width is not None and self.height is not None
        if self.resize_strategy in ("fillcrop", "pad", "stretch") and not both:
            raise ValueError(f"{self.resize_strategy} needs both width and height")
        return self


@robot("/image/resize", options=ImageResizeOptions, requires={"PIL": INSTALL}, limits_growth=True)
def image_resize(
    source: RobotInput, options: ImageResizeOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Turns the image upright by its EXIF; EXIF, colour profile and animation are kept."""
    with (
        SpooledTemporaryFile(SPOOL_BYTES) as original,
        SpooledTemporaryFile(SPOOL_BYTES) as resized,
    ):
        with context.open(source) as stream:
            for chunk in stream:
                if stream.bytes_read > options.max_bytes:
                    raise FileTooLargeError(f"is an image of more than {options.max_bytes} bytes")
                original.write(chunk)
        original.seek(0)
        image = _decode(cast(BinaryIO, original), options, context)
        _encode(image, cast(BinaryIO, resized), options)
        resized.seek(0)
        name = _output_name(source.name, image.target)
        width, height = image.frames[0].size
        meta = {"width": width, "height": height, "frames": len(image.frames)}
        with outputs.create(name, mime=image.target.mime, meta=meta) as output:
            while chunk := resized.read(CHUNK_BYTES):
                output.write(chunk)
    counts = {"frames": len(image.frames)}
    return RobotResult(counts=counts, meta=meta, warnings=tuple(image.warnings))


@dataclass
class _Resized:
    """The scaled frames and their metadata, ready to be saved."""

    target: _Format
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exif: bytes | None = None
    profile: bytes | None = None
    loop: int | None = None


def _decode(file: BinaryIO, options: ImageResizeOptions, context: RobotContext) -> _Resized:
    from PIL import Image

    try:
        with _as_malformed_input():
            image = Image.open(file, formats=READABLE)
        with image:
            return _resize(image, options, context)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(options) from error


def _resize(image: Image.Image, options: ImageResizeOptions, context: RobotContext) -> _Resized:
    from PIL import ImageOps

    kind = image.format or ""
    target = options.format or KEPT.get(kind, "png")
    with _as_malformed_input():
        present = getattr(image, "n_frames", 1)
    used = present if kind in ANIMATED and target in ANIMATED.values() else 1
    result = _Resized(FORMATS[target], loop=image.info.get("loop"))
    if used < present and kind != "MPO":
        result.warnings.append(f"only the first of its {present} frames is kept")
    if image.mode.startswith(("I", "F")):
        result.warnings.append("its colour depth is reduced to 8 bits")
    _check_pixels(image.size, used, options)
    for number in range(used):
        with _as_malformed_input():
            image.seek(number)
            upright = ImageOps.exif_transpose(image)
        _check_pixels(_plan(upright.size, options).canvas, used, options)
        frame = _fit_target(_scale(_eight_bits(upright), options), result.target, options)
        result.frames.append(frame)
        result.durations.append(upright.info.get("duration", 0))
        if number == 0 and not options.strip:
            result.exif = upright.getexif().tobytes() if upright.getexif() else None
            # A profile is for one colour space, so it is wrong after a conversion.
            if _family(upright.mode) == _family(frame.mode):
                result.profile = upright.info.get("icc_profile")
        context.advance(0)
    return result


def _encode(image: _Resized, file: BinaryIO, options: ImageResizeOptions) -> None:
    kept: dict[str, Any] = {"exif": image.exif, "icc_profile": image.profile}
    save: dict[str, Any] = {key: value for key, value in kept.items() if value}
    if image.target.pillow in ("JPEG", "WEBP"):
        save["quality"] = options.quality
    for frame in image.frames:
        frame.info.clear()  # Pillow would save its entries
    first, *more = image.frames
    if more:
        save |= {"save_all": True, "append_images": more, "duration": image.durations}
        if image.loop is not None:
            save["loop"] = image.loop
        if image.target.pillow == "GIF":
            save["disposal"] = 2
    first.save(file, image.target.pillow, **save)


class _Plan(NamedTuple):
    """Scale to `scaled`, then crop or fill to `canvas`; both in pixels."""

    scaled: tuple[int, int]
    canvas: tuple[int, int]


def _plan(size: tuple[int, int], options: ImageResizeOptions) -> _Plan:
    width, height = size
    box = (options.width or 0, options.height or 0)
    if options.resize_strategy == "stretch":
        fitted = box if options.zoom else (min(width, box[0]), min(height, box[1]))
        return _Plan(fitted, fitted)
    ratios = [wanted / actual for wanted, actual in zip(box, size, strict=True) if wanted] or [1]
    covers = options.resize_strategy in ("min_fit", "fillcrop")
    ratio = max(ratios) if covers else min(ratios)
    if not options.zoom:
        ratio = min(ratio, 1)
    scaled = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    if options.resize_strategy == "fillcrop":
        return _Plan(scaled, (min(box[0], scaled[0]), min(box[1], scaled[1])))
    return _Plan(scaled, box if options.resize_strategy == "pad" else scaled)


def _scale(frame: Image.Image, options: ImageResizeOptions) -> Image.Image:
    from PIL import Image, ImageColor

    plan = _plan(frame.size, options)
    if plan.scaled != frame.size:
        frame = frame.resize(plan.scaled, Image.Resampling.LANCZOS)
    left = (plan.canvas[0] - plan.scaled[0]) // 2
    top = (plan.canvas[1] - plan.scaled[1]) // 2
    if options.resize_strategy == "fillcrop":
        return frame.crop((-left, -top, plan.canvas[0] - left, plan.canvas[1] - top))
    if options.resize_strategy == "pad":
        canvas = Image.new("RGBA", plan.canvas, ImageColor.getrgb(options.background))
        canvas.alpha_composite(frame.convert("RGBA"), (left, top))
        return canvas
    return frame


def _eight_bits(frame: Image.Image) -> Image.Image:
    """The frame in one of L, LA, RGB, RGBA, CMYK: the modes that Pillow can scale smoothly."""
    if frame.mode.startswith("I;16"):
        return frame.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if frame.mode in ("1", "I", "F"):
        return frame.convert("L")
    if frame.has_transparency_data:
        return frame.convert("LA" if frame.mode == "LA" else "RGBA")
    return frame if frame.mode in ("L", "CMYK") else frame.convert("RGB")


def _fit_target(frame: Image.Image, target: _Format, options: ImageResizeOptions) -> Image.Image:
    """The frame in a mode of the format, on the background if that has no transparency."""
    from PIL import Image, ImageColor

    if frame.mode == "RGBA" and frame.getchannel("A").getextrema() == (255, 255):
        frame = frame.convert("RGB")
    if frame.mode in target.modes:
        return frame
    if not frame.has_transparency_data:
        return frame.convert("RGB")
    if "RGBA" in target.modes:
        return frame.convert("RGBA")
    canvas = Image.new("RGBA", frame.size, ImageColor.getrgb(options.background[:7]))
    canvas.alpha_composite(frame.convert("RGBA"))
    return canvas.convert("RGB")


def _check_pixels(size: tuple[int, int], frames: int, options: ImageResizeOptions) -> None:
    if size[0] * size[1] * frames > options.max_pixels:
        raise _too_many_pixels(options)


def _too_many_pixels(options: ImageResizeOptions) -> FileTooLargeError:
    return FileTooLargeError(f"is or becomes an image of more than {options.max_pixels} pixels")


@contextmanager
def _as_malformed_input() -> Iterator[None]:
    """Turn Pillow's errors into MalformedInputError. Wraps only Pillow's calls: errors of a sink
    or a caller don't mean a damaged image.
    """
    from PIL import UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as error:
        raise MalformedInputError("is not an image of a supported format") from error
    except DECODE_ERRORS as error:
        raise MalformedInputError("its image data is damaged or incomplete") from error


def _family(mode: str) -> str:
    """The colour space of a mode."""
    if mode in ("L", "LA", "1") or mode.startswith(("I", "F")):
        return "grey"
    return "cmyk" if mode == "CMYK" else "rgb"


def _output_name(name: str, target: _Format) -> str:
    own = split_extension(safe_name(name))[1].lower()
    return derived_name(name, extension=None if own in target.extensions else target.extensions[0])
