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


DATA = picture((40, 20))


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


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_an_orientation_beside_a_faulty_value_is_applied() -> None:
    """As browsers do; the EXIF data is left out, as it can't be written."""
    entries = (struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0), b"\x01\x1a\0\x02\0\0\0\4abc\0")
    exif = b"MM\0*\0\0\0\x08\0\x02" + b"".join(entries) + bytes(4)
    result, image, _ = run(broken_exif("JPEG", exif), width=10)
    assert (image.size, len(image.getexif())) == ((10, 20), 0)
    assert result.warnings == ("a.png: its EXIF data can't be read and is left out",)


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
    assert image.info["loop"] == (2 if target == "gif" else 3)  # repeats, or plays


def broken_exif(kind: str, exif: bytes) -> bytes:
    """A red picture of 40 × 20 with these bytes as EXIF."""
    data = saved(Image.new("RGB", (40, 20), RED), kind)
    if kind == "JPEG":
        segment = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if kind == "PNG":
        return data[:33] + chunk(b"eXIf", exif) + data[33:]
    still = saved(Image.new("RGB", (40, 20), RED), kind, exif=b"Exif\0\0" + b"?" * len(exif))
    return still.replace(b"?" * len(exif), exif)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"\xff\xff\xff\xff\0\0\0\x08",
        b"II*\0\x08\0\0\0\x01\0\x1a\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0" + b"6\0\0\0\0\0\0\0",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
        b"\0\x08\0\x02\x01\x12\0\x03",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_exif_that_cannot_be_read_does_not_block_the_picture(kind: str, exif: bytes) -> None:
    result, image, _ = run(broken_exif(kind, exif), width=10)
    assert image.size == (10, 5)
    pixel = image.convert("RGB").getpixel((5, 2))
    assert isinstance(pixel, tuple) and pixel[0] > 240
    assert len(result.warnings) <= 1 and all("EXIF" in text for text in result.warnings)
    assert image.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"iTXt", b"broken", crc=7),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(70_000_000))),
        chunk(b"iCCP", b"icc\0\0nonsense"),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"nonsense")),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"nonsense"), crc=7),
        chunk(b"pHYs", b"x"),
    ],
    ids=["crc", "bomb", "zlib", "profile", "profile and crc", "density"],
)
def test_other_metadata_that_cannot_be_read_does_not_either(metadata: bytes) -> None:
    data = saved(Image.new("RGB", (40, 20), RED), "PNG")
    result, image, _ = run(data[:33] + metadata + data[33:], width=10)
    assert (image.getpixel((5, 2)), image.size) == (RED, (10, 5))
    assert "icc_profile" not in image.info
    assert len(result.warnings) <= 1


def test_metadata_that_the_encoder_refuses_is_left_out_with_a_warning() -> None:
    """EXIF of a JPEG has at most 64 KB."""
    exif = Image.Exif()
    exif[ARTIST] = "x" * 70_000
    result, image, _ = run(picture((40, 20), exif=exif), format="jpg")
    assert not image.getexif()
    assert result.warnings == ("a.png: its EXIF data can't be written and is left out",)


def test_a_frame_beyond_the_screen_of_a_gif_is_cut() -> None:
    """The screen is 40 × 40; the second frame, of the same size, begins at 20, 20."""
    one, two = (saved(Image.new("P", (40, 40), n), "GIF", optimize=False) for n in (0, 0))
    block, head = one.index(b",\0\0\0\0"), one[: one.index(b",\0\0\0\0")]
    red = bytes.fromhex("ff0000") * 128 + bytes.fromhex("00ff00") * 128
    local = b",\x14\0\x14\0\x28\0\x28\0\x87" + red + two[block + 10 : -1]
    result, image, _ = run(head + one[block:-1] + local + b";", "a.gif", format="png", zoom=False)
    assert (image.size, getattr(image, "n_frames", 1)) == ((40, 40), 2)
    image.seek(1)
    shown = image.convert("RGB")
    assert (shown.getpixel((10, 10)), shown.getpixel((30, 30))) == ((0, 0, 0), RED)
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("mode", "factor"),
    [("F", 1 / 255), ("F", 1), ("F", 257), ("F", -3), ("F", 1e6), ("I", 1), ("I", 257), ("I", 9e6)],
)
def test_every_range_of_values_gives_a_ramp(mode: str, factor: float) -> None:
    ramp = Image.linear_gradient("L").convert(mode).point(lambda value: value * factor + 0)
    result, image, _ = run(saved(ramp, "TIFF"), "a.tif", width=64)
    low, high = sorted(image.convert("L").getextrema())  # type: ignore[type-var]
    assert low <= 5 and high >= 250  # type: ignore[operator]
    assert len(image.convert("L").getcolors() or []) > 60
    assert "its colour depth is reduced from 32 to 8 bits" in result.warnings[0]


def test_values_that_are_not_numbers_are_refused() -> None:
    image = Image.new("F", (4, 4), float("inf"))
    with pytest.raises(robots.MalformedInputError, match="values that are not finite numbers"):
        run(saved(image, "TIFF"), width=2)


def test_a_colour_image_of_16_bits_warns_of_its_depth() -> None:
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\xff\0\0\0\0" * 2) * 2)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    result, image, _ = run(data, width=1)
    assert image.getpixel((0, 0)) == RED
    assert result.warnings == ("a.png: its colour depth is reduced from 16 to 8 bits",)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("target", ["gif", "webp", "png"])
@pytest.mark.parametrize("plays", [0, 1, 2, 7])
def test_an_animation_plays_as_often_in_every_format(kind: str, target: str, plays: int) -> None:
    """A GIF counts repeats, the others plays; 0 is for ever."""
    frames = [Image.new("RGB", (20, 20), (80 * n, 0, 0)) for n in range(3)]
    loop = {} if kind == "GIF" and plays == 1 else {"loop": plays - (kind == "GIF" and plays > 0)}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=70, **loop)
    result, image, _ = run(data, f"a.{kind.lower()}", format=target)
    repeats = image.info.get("loop")
    if target != "gif":
        assert repeats == plays
    else:
        assert repeats == (None if plays == 1 else plays - (plays > 0))
    assert result.warnings == ()


@pytest.mark.parametrize(("target", "frames"), [("png", 4), ("gif", 3), ("webp", 3)])
def test_the_hidden_first_picture_of_a_png_stays_hidden(target: str, frames: int) -> None:
    hidden, *shown = (Image.new("RGB", (20, 20), (80 * n, 0, 0)) for n in range(4))
    data = saved(hidden, "PNG", save_all=True, default_image=True, append_images=shown, duration=70)
    result, image, _ = run(data, width=10, format=target)
    assert getattr(image, "n_frames", 1) == frames
    assert bool(image.info.get("default_image")) == (target == "png")
    assert bool(result.warnings) == (target != "png")


@pytest.mark.parametrize(
    ("durations", "target", "warned"),
    [([33, 33, 33], "gif", True), ([100, 4, 90], "gif", True), ([33, 33, 33], "webp", False)],
)
def test_durations_that_a_format_rounds_give_a_warning(
    durations: list[int], target: str, warned: bool
) -> None:
    frames = [Image.new("RGB", (20, 20), (80 * n, 0, 0)) for n in range(3)]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=durations)
    result, _, _ = run(data, "a.webp", format=target)
    assert any("instead of" in text for text in result.warnings) == warned


def test_equal_frames_that_are_joined_give_a_warning_and_the_right_count() -> None:
    frames = [Image.new("RGB", (20, 20), (80 * (n // 2), 0, 0)) for n in range(4)]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=70)
    source = getattr(Image.open(io.BytesIO(data)), "n_frames", 1)
    result, image, _ = run(data, "a.webp", format="gif")
    assert result.counts["frames"] == getattr(image, "n_frames", 1)
    assert bool(result.warnings) == (source != result.counts["frames"])


def test_colours_are_converted_with_their_profile_when_it_cannot_be_kept() -> None:
    """A GIF holds no profile; a profile for other colours is left out."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    result, _, _ = run(picture((20, 20), icc_profile=profile), width=10)
    assert "its colour profile is for other colours" in result.warnings[0]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    result, image, _ = run(picture((20, 20), icc_profile=profile), format="gif")
    assert (image.convert("RGB").getpixel((5, 5)), result.warnings) == (RED, ())


def test_an_image_that_its_format_cannot_hold_is_named() -> None:
    with pytest.raises(robots.FileTooLargeError, match="17000 pixels long; WEBP allows 16383"):
        run(picture((17_000, 2)), format="webp")


@pytest.mark.parametrize("output", [b"", b"\x89PNG\r\n\x1a\n", picture((9, 9))])
def test_an_output_that_cannot_be_read_is_no_success(
    output: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the encoder says."""
    monkeypatch.setattr(Image.Image, "save", lambda self, file, *_args, **_save: file.write(output))
    with pytest.raises(robots.RobotError, match="can't be written as PNG") as caught:
        run(DATA, width=10)
    assert caught.value.file == "a.png"


def test_an_error_of_the_options_shows_an_example_instead_of_a_pattern() -> None:
    with pytest.raises(robots.InvalidOptionsError, match="background: must look like #ffffff"):
        run(picture((20, 20)), width=10, background="white")


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
