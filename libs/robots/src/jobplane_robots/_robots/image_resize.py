"""`/image/resize`: changes size or format, with Pillow (the extra `image`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, NamedTuple, Self, cast

from pydantic import AfterValidator, Field, model_validator

from jobplane_robots._errors import FileTooLargeError, MalformedInputError, RobotError
from jobplane_robots._io import CHUNK_BYTES, Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import derived_name, safe_name, split_extension
from jobplane_robots._pictures import (
    depth_of,
    exif_of,
    grey_of,
    in_srgb,
    plays_of,
    profile_family,
    turned,
    without_metadata,
)
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
SRGB_GAMMA = 1 / 2.2
NAMES = {"exif": "EXIF data", "profile": "colour profile"}
# The longest side, and the most plays, that a format can hold.
MAX_SIDES = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
MAX_PLAYS = {"GIF": 65_536, "WEBP": 65_535}

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


def _colour(text: str) -> str:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?", text):
        raise ValueError("must look like #ffffff, or #ffffff80 with an opacity")
    return text


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
    background: Annotated[str, AfterValidator(_colour)] = "#ffffff"
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
        _write(image, cast(BinaryIO, resized), options)
        name = _output_name(source.name, image.target)
        width, height = image.frames[0].size
        meta = {"width": width, "height": height, "frames": image.count}
        with outputs.create(name, mime=image.target.mime, meta=meta) as output:
            while chunk := resized.read(CHUNK_BYTES):
                output.write(chunk)
    counts = {"frames": image.count}
    return RobotResult(counts=counts, meta=meta, warnings=tuple(image.warnings))


@dataclass
class _Resized:
    """The scaled frames and their metadata, ready to be saved; `plays` is 0 for ever.

    `hidden`: the first frame is shown only where the animation isn't. `count` is how many frames
    were written.
    """

    target: _Format
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exif: bytes | None = None
    profile: bytes | None = None
    source_profile: bytes | None = None
    plays: int = 0
    hidden: bool = False
    count: int = 0

    def warn(self, text: str) -> None:
        """Add a warning, once for all frames."""
        if text not in self.warnings:
            self.warnings.append(text)


def _decode(file: BinaryIO, options: ImageResizeOptions, context: RobotContext) -> _Resized:
    """If the picture can't be read, perhaps it can without its metadata."""
    try:
        return _open(file, options, context)
    except MalformedInputError:
        file.seek(0)
        bare = without_metadata(file.read())
        if bare is None:
            raise
        try:
            result = _open(BytesIO(bare), options, context)
        except MalformedInputError:
            bare = None
        if bare is None:
            raise
        result.warnings.append("its metadata can't be read and is left out")
        return result


def _open(file: BinaryIO, options: ImageResizeOptions, context: RobotContext) -> _Resized:
    from PIL import Image

    try:
        with _as_malformed_input():
            image = Image.open(file, formats=READABLE)
        with image:
            return _resize(image, options, context)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(options) from error


def _resize(image: Image.Image, options: ImageResizeOptions, context: RobotContext) -> _Resized:
    kind = image.format or ""
    size = image.size  # a later frame of a GIF that is larger makes it larger
    target = options.format or KEPT.get(kind, "png")
    with _as_malformed_input():
        present = getattr(image, "n_frames", 1)
        hidden = bool(image.info.get("default_image")) and present > 1
        plays, depth = plays_of(image), depth_of(image)
    animated = kind in ANIMATED and target in ANIMATED.values()
    first, end = (int(hidden and target != "png"), present) if animated else (0, 1)
    result = _Resized(FORMATS[target], plays=plays, hidden=hidden and first == 0 and end > 1)
    if first:
        result.warnings.append("its first picture, which animated viewers hide, is left out")
    elif end < present:
        what = "pictures" if kind in ("MPO", "TIFF") else "frames"
        result.warnings.append(f"only the first of its {present} {what} is kept")
    if depth > 8:
        result.warnings.append(f"its colour depth is reduced from {depth} to 8 bits")
    _check_pixels(image.size, end - first, options)
    orientation = 1
    for number in range(first, end):
        with _as_malformed_input():
            image.seek(number)
            image.load()
            if number == first:
                orientation = _keep_metadata(image, result, options)
            frame = turned(image, orientation)
            if image.size != size:
                frame = frame.crop((0, 0, *size))
        _check_pixels(_plan(frame.size, options).canvas, end - first, options)
        with _as_malformed_input():
            frame = _in_colours(_eight_bits(frame, result), result, options)
            frame = _fit_target(_scale(frame, options), result.target, options)
            if target == "gif" != KEPT.get(kind) and frame.getcolors() is None:
                result.warn("its colours are reduced to 256")
        result.frames.append(frame)
        result.durations.append(image.info.get("duration", 0))
        context.advance(0)
    return result


def _keep_metadata(image: Image.Image, result: _Resized, options: ImageResizeOptions) -> int:
    """Take EXIF and profile over, as far as they can be read; return the orientation."""
    exif, orientation, readable = exif_of(image)
    if not readable:
        result.warnings.append("its EXIF data can't be read and is left out")
    if profile := image.info.get("icc_profile"):
        family = profile_family(profile)
        if family == _family(image.mode):
            result.source_profile = profile
        else:
            fault = "is for other colours" if family else "can't be read"
            result.warn(f"its colour profile {fault} and is left out")
    elif "srgb" not in image.info and abs(image.info.get("gamma", SRGB_GAMMA) - SRGB_GAMMA) > 0.01:
        result.warn(f"its gamma of {image.info['gamma']:g} is left out; its colours may differ")
    if exif and not options.strip:
        if result.target.pillow == "GIF":
            result.warn("its EXIF data is left out, as a GIF can't hold it")
        else:
            result.exif = exif
    return orientation


def _in_colours(frame: Image.Image, result: _Resized, options: ImageResizeOptions) -> Image.Image:
    """The frame as it is if its profile can be kept, else in sRGB."""
    profile, target, family = result.source_profile, result.target, _family(frame.mode)
    stays = family == "rgb" or (
        options.resize_strategy != "pad" and any(_family(mode) == family for mode in target.modes)
    )
    if profile is None:
        if family == "cmyk" and not stays:
            result.warn("it has no colour profile for CMYK; its colours may differ")
        return frame
    if stays and target.pillow != "GIF" and not options.strip:
        result.profile = profile
        return frame
    converted = in_srgb(frame, profile)
    if converted is None:
        result.warn("its colour profile can't be applied; its colours may differ")
    return converted or frame


def _write(image: _Resized, file: BinaryIO, options: ImageResizeOptions) -> None:
    """Save the picture, without metadata that the encoder refuses, and read it back."""
    kind = image.target.pillow
    longest = max(image.frames[0].size)
    if longest > MAX_SIDES.get(kind, longest):
        most = MAX_SIDES[kind]
        raise FileTooLargeError(f"is or becomes {longest} pixels long; {kind} allows {most}")
    failure: Exception | None = None
    for left_out in ("", "exif", "profile"):
        if left_out:
            if not getattr(image, left_out):
                continue
            setattr(image, left_out, None)
            image.warn(f"its {NAMES[left_out]} can't be written and is left out")
        file.seek(0)
        file.truncate()
        try:
            _encode(image, file, options)
            file.seek(0)
            _read_back(image, file)
        except Exception as error:  # Pillow and its libraries raise various classes
            failure = error
            continue
        file.seek(0)
        return
    raise RobotError(f"can't be written as {kind} with this content") from failure


def _encode(image: _Resized, file: BinaryIO, options: ImageResizeOptions) -> None:
    kind = image.target.pillow
    kept: dict[str, Any] = {"exif": image.exif, "icc_profile": image.profile}
    save: dict[str, Any] = {key: value for key, value in kept.items() if value}
    if kind in ("JPEG", "WEBP"):
        save["quality"] = options.quality
    for frame in image.frames:
        frame.info.clear()  # Pillow would save its entries
    first, *more = image.frames
    if more:
        durations = [_duration(kind, each) for each in image.durations[int(image.hidden) :]]
        save |= {"save_all": True, "append_images": more, "duration": durations}
        plays = min(image.plays, MAX_PLAYS.get(kind, image.plays))
        if kind == "GIF":
            save["disposal"] = 2
            plays -= 1  # the repeats
        if image.hidden:
            save["default_image"] = True
        if kind != "GIF" or image.plays != 1:
            save["loop"] = max(plays, 0)
    first.save(file, kind, **save)


def _duration(kind: str, milliseconds: float) -> int:
    """Of a frame, as the format can hold it: a GIF has hundredths of a second, a PNG 16 bits."""
    if kind == "GIF":
        return max(10, round(milliseconds / 10) * 10) if milliseconds else 0
    return min(round(milliseconds), 65_535) if kind == "PNG" else round(milliseconds)


def _read_back(image: _Resized, file: BinaryIO) -> None:
    """Read what was written; warn of frames, durations and plays that it does not have."""
    from PIL import Image

    with Image.open(file, formats=[image.target.pillow]) as written:
        if written.size != image.frames[0].size:
            raise ValueError(f"{written.size} pixels were written")
        image.count = getattr(written, "n_frames", 1)
        durations = []
        for number in range(image.count):
            written.seek(number)
            written.load()
            durations.append(written.info.get("duration", 0))
        if image.count > 1 and plays_of(written) != image.plays:
            image.warn(f"it plays {plays_of(written)} times instead of {image.plays or 'for ever'}")
    if missing := len(image.frames) - image.count:
        image.warn(f"{missing} of its frames are like the one before and are joined with it")
    shown = int(image.hidden)
    lasts, lasted = sum(durations[shown:]), sum(image.durations[shown:])
    if image.count > 1 and abs(lasts - lasted) > image.count / 2:
        image.warn(
            f"it takes {lasts:g} ms instead of {lasted:g} ms, as its format rounds durations"
        )


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


def _eight_bits(frame: Image.Image, result: _Resized) -> Image.Image:
    """The frame in one of L, LA, RGB, RGBA, CMYK: the modes that Pillow can scale smoothly."""
    if frame.mode.startswith("I;16"):
        return frame.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if frame.mode == "1":
        return frame.convert("L")
    if frame.mode in ("I", "F"):
        grey, done = grey_of(frame)
        if done:
            result.warn(done)
        return grey
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
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (RobotError, Image.DecompressionBombError):
        raise
    except UnidentifiedImageError as error:
        raise MalformedInputError("is not an image of a supported format") from error
    except MemoryError as error:
        raise FileTooLargeError("needs more memory than there is") from error
    except Exception as error:  # Pillow and its libraries raise various classes
        reason = "its image data is damaged, incomplete or of a variant that can't be read"
        raise MalformedInputError(reason) from error


def _family(mode: str) -> str:
    """The colour space of a mode."""
    if mode in ("L", "LA", "1") or mode.startswith(("I", "F")):
        return "grey"
    return "cmyk" if mode == "CMYK" else "rgb"


def _output_name(name: str, target: _Format) -> str:
    own = split_extension(safe_name(name))[1].lower()
    return derived_name(name, extension=None if own in target.extensions else target.extensions[0])
