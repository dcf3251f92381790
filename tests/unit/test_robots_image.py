"""`/image/resize`."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, ImageCms

import jobplane_robots as robots
from jobplane_robots import MemorySink, RobotInput, RobotResult, get_robot

ORIENTATION = 0x0112
ARTIST = 0x013B
RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(size: tuple[int, int], mode: str = "RGB", kind: str = "PNG", **save: Any) -> bytes:
    """Red above, blue below."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (0, size[1] // 2, *size))
    return saved(image.convert(mode), kind, **save)


def saved(image: Image.Image, kind: str, **save: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def run(data: bytes, name: str = "a.png", **options: Any) -> tuple[RobotResult, Image.Image, str]:
    sink = MemorySink()
    source = RobotInput(name, lambda: io.BytesIO(data), len(data))
    result = get_robot("/image/resize").run(source, options, sink)
    [stored] = sink.files
    image = Image.open(io.BytesIO(stored.data))
    image.load()
    assert stored.mime == Image.MIME[str(image.format)]
    assert (stored.meta["width"], stored.meta["height"]) == image.size
    return result, image, stored.name


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 50}, (50, 25)),
        ({"height": 50}, (100, 50)),
        ({"width": 50, "height": 50}, (50, 25)),
        ({"width": 400}, (400, 200)),
        ({"width": 400, "zoom": False}, (200, 100)),
        ({"width": 50, "height": 50, "resize_strategy": "min_fit"}, (100, 50)),
        ({"width": 50, "height": 50, "resize_strategy": "fillcrop"}, (50, 50)),
        ({"width": 50, "height": 50, "resize_strategy": "pad"}, (50, 50)),
        ({"width": 50, "height": 50, "resize_strategy": "stretch"}, (50, 50)),
        ({"width": 300, "height": 50, "resize_strategy": "fillcrop", "zoom": False}, (200, 50)),
        ({"width": 300, "height": 50, "resize_strategy": "stretch", "zoom": False}, (200, 50)),
        ({"width": 300, "height": 300, "resize_strategy": "pad", "zoom": False}, (300, 300)),
        ({"format": "jpg"}, (200, 100)),
        ({"width": 1}, (1, 1)),
    ],
)
def test_the_strategy_decides_the_size(options: dict[str, Any], size: tuple[int, int]) -> None:
    """For an image of 200 × 100."""
    _, image, _ = run(picture((200, 100)), **options)
    assert image.size == size


def test_pad_fills_with_the_background() -> None:
    _, image, _ = run(
        picture((200, 100)), width=60, height=60, resize_strategy="pad", background="#00ff00"
    )
    assert image.getpixel((30, 2)) == (0, 255, 0)
    assert image.getpixel((30, 20)) == RED
    assert image.getpixel((30, 40)) == BLUE


def test_fillcrop_cuts_both_sides_equally() -> None:
    _, image, _ = run(picture((100, 200)), width=100, height=100, resize_strategy="fillcrop")
    assert image.getpixel((50, 10)) == RED
    assert image.getpixel((50, 90)) == BLUE


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [("jpg", "JPEG", "é.jpg"), ("webp", "WEBP", "é.webp"), ("gif", "GIF", "é.gif")],
)
def test_another_format_changes_name_and_mime(target: str, kind: str, name: str) -> None:
    _, image, stored = run(picture((20, 20)), "é.png", format=target)
    assert (image.format, stored) == (kind, name)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "I", "F"])
@pytest.mark.parametrize("target", ["jpg", "png", "webp", "gif"])
def test_every_mode_is_written_in_every_format(mode: str, target: str) -> None:
    if mode == "I;16":
        source = Image.new(mode, (20, 20), 200 * 256)
    else:
        source = Image.new("L", (20, 20), 200).convert(mode)
    data = saved(source, "TIFF" if mode in ("CMYK", "I", "F") else "PNG")
    _, image, _ = run(data, width=10, format=target)
    pixel = image.convert("L").getpixel((5, 5))
    assert not isinstance(pixel, tuple) and pixel is not None
    assert pixel > 150


def test_the_exif_orientation_is_applied_once() -> None:
    """Viewers don't turn the image again."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn by 90 degrees clockwise
    exif[ARTIST] = "somebody"
    data = picture((200, 100), kind="JPEG", exif=exif, quality=95)
    _, image, name = run(data, "a.jpeg", width=50)
    assert image.size == (50, 100)
    assert image.getexif().get(ORIENTATION, 1) == 1
    assert image.getexif()[ARTIST] == "somebody"
    assert name == "a.jpeg"
    left, right = image.getpixel((5, 50)), image.getpixel((45, 50))
    assert isinstance(left, tuple) and isinstance(right, tuple)
    assert left[2] > 200 and right[0] > 200


def test_metadata_stays_unless_stripped() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ARTIST] = "somebody"
    data = picture((20, 20), kind="JPEG", exif=exif, icc_profile=profile)
    for target in ("jpg", "png", "webp"):
        _, image, _ = run(data, width=10, format=target)
        assert image.info["icc_profile"] == profile
        assert image.getexif()[ARTIST] == "somebody"
        _, image, _ = run(data, width=10, format=target, strip=True)
        assert "icc_profile" not in image.info
        assert not image.getexif()


def test_a_colour_profile_is_dropped_after_a_conversion() -> None:
    """It would be wrong for the new colour space."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = picture((20, 20), mode="CMYK", kind="JPEG", icc_profile=profile)
    _, image, _ = run(data, format="png")
    assert "icc_profile" not in image.info


def test_transparency_is_kept_or_filled_with_the_background() -> None:
    data = saved(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG")
    _, image, _ = run(data, format="webp")
    assert image.mode == "RGBA"
    _, image, _ = run(data, format="jpg", background="#0000ff")
    pixel = image.getpixel((10, 10))
    assert isinstance(pixel, tuple)
    assert pixel[2] > 240 and pixel[0] < 20


def animation(frames: int = 3) -> bytes:
    images = [Image.new("RGB", (40, 20), (80 * n, 0, 0)) for n in range(frames)]
    return saved(
        images[0], "GIF", save_all=True, append_images=images[1:], duration=[100, 200, 300], loop=2
    )


@pytest.mark.parametrize("target", ["gif", "webp", "png"])
def test_an_animation_keeps_frames_durations_and_loop(target: str) -> None:
    result, image, _ = run(animation(), "a.gif", width=20, format=target)
    assert result.counts == {"frames": 3}
    assert getattr(image, "n_frames", 1) == 3
    assert image.size == (20, 10)
    durations = []
    for number in range(3):
        image.seek(number)
        image.load()
        durations.append(round(image.info["duration"]))
    assert durations == [100, 200, 300]
    assert image.info["loop"] == 2


def test_a_still_format_gets_the_first_frame_with_a_warning() -> None:
    result, _, _ = run(animation(), "a.gif", format="jpg")
    assert result.warnings == ("a.gif: only the first of its 3 frames is kept",)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", picture((200, 200))[:-400]]
)
def test_a_file_that_is_not_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(robots.MalformedInputError) as caught:
        run(data, "a.png", width=10)
    assert caught.value.message.startswith("a.png: ")


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "PCX", "TGA"])
def test_a_format_that_is_not_listed_is_not_opened(kind: str) -> None:
    """EPS would start a program."""
    with pytest.raises(robots.MalformedInputError, match="is not an image of a supported format"):
        run(picture((60, 60), kind=kind), width=10)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("cut", range(10, 700, 45))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_malformed(kind: str, cut: int) -> None:
    """Cut anywhere, it is either readable or a MalformedInputError."""
    data = picture((60, 60), kind=kind)
    try:
        run(data[: min(cut, len(data) - 1)], width=10)
    except robots.MalformedInputError as error:
        assert error.file == "a.png"


def bomb(width: int, height: int) -> bytes:
    """A PNG's header with more pixels than the file holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8_000, 8_000), (50_000, 50_000)])
def test_an_image_with_too_many_pixels_is_not_decoded(size: tuple[int, int]) -> None:
    """The header has their number."""
    with pytest.raises(robots.FileTooLargeError, match="more than 50000000 pixels"):
        run(bomb(*size), width=10)


def test_a_result_with_too_many_pixels_is_refused() -> None:
    """As of a thin strip with a large width."""
    with pytest.raises(robots.FileTooLargeError):
        run(picture((2, 2000)), width=16_000)


def test_pixels_of_all_frames_count() -> None:
    with pytest.raises(robots.FileTooLargeError):
        run(animation(), "a.gif", width=20, max_pixels=40 * 20 * 3 - 1)
    run(animation(), "a.gif", width=20, max_pixels=40 * 20 * 3)


def test_max_bytes_bounds_an_image() -> None:
    with pytest.raises(robots.FileTooLargeError, match="more than 100 bytes"):
        run(picture((200, 200)), width=10, max_bytes=100)


def test_without_pillow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobplane_robots._robot.find_spec", lambda module: None)
    with pytest.raises(
        robots.RobotUnavailableError, match=r"install jobplane-robots\[image\]"
    ) as caught:
        run(picture((20, 20)), width=10)
    assert caught.value.code == "ROBOT_UNAVAILABLE"
