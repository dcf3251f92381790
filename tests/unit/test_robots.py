"""The robots' interface, the robots on any file, safe names and the registry."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Buffer, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobplane_robots as robots
from jobplane_robots import MemorySink, Outputs, RobotContext, RobotInput, RobotResult, get_robot


class Stream(io.BytesIO):
    """An input that returns at most two bytes a read, like a slow socket."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 2))


def file(data: bytes, name: str = "data.bin", **known: Any) -> RobotInput:
    return RobotInput(name=name, open=lambda: io.BytesIO(data), size=len(data), **known)


def run(name: str, source: RobotInput, **options: Any) -> tuple[RobotResult, MemorySink]:
    sink = MemorySink()
    return get_robot(name).run(source, options, sink), sink


class Cancelled(Exception):
    """Raised by a caller to end a run."""


def cancelling(calls: list[int]) -> RobotContext:
    """Of a caller that records its calls, and ends the run at the third one."""

    def cancel(read: int) -> None:
        calls.append(read)
        if len(calls) == 3:
            raise Cancelled

    return RobotContext(cancel)


@robots.robot("/acme/two-files", options=robots.RobotOptions)
def two_files(_source: Any, _options: Any, outputs: Outputs, _context: Any) -> Any:
    """Writes one file, and fails in the second."""
    with outputs.create("first.txt") as first:
        first.write(b"whole")
    with outputs.create("second.txt") as second:
        second.write(b"half")
        raise robots.MalformedInputError("is not to my taste", where={"line": 7})


@robots.robot("/acme/thing", options=robots.RobotOptions)
def thing(source: RobotInput, _options: Any, outputs: Outputs, context: RobotContext) -> Any:
    """Copies its input under an unsafe name."""
    with context.open(source) as stream, outputs.create("../../etc/passwd") as output:
        for chunk in stream:
            output.write(chunk)
    return RobotResult(warnings=("took a while",))


def test_a_failed_run_leaves_no_output(tmp_path: Path) -> None:
    sink = robots.DirectorySink(tmp_path)
    with pytest.raises(robots.MalformedInputError):
        two_files.run(file(b"x"), {}, sink)
    assert list(tmp_path.iterdir()) == []
    assert sink.files == []


def test_an_error_names_the_file_and_the_place() -> None:
    """The message starts with the input's name and the place of the fault."""
    with pytest.raises(robots.MalformedInputError) as caught:
        two_files.run(file(b"x", "données.csv"), {}, MemorySink())
    assert caught.value.message == "données.csv, line 7: is not to my taste"
    assert str(caught.value) == caught.value.message
    assert caught.value.code == "PROCESSING_ERROR"


def test_an_outputs_name_can_not_leave_the_folder() -> None:
    """The warning names the file."""
    sink = MemorySink()
    result = thing.run(file(b"x", "a.txt"), {}, sink)
    assert [stored.name for stored in sink.files] == ["passwd"]
    assert result.warnings == ("a.txt: took a while",)


def test_advance_gets_every_byte_read() -> None:
    heard: list[int] = []
    data = b"x" * 1_000_000
    get_robot("/file/hash").run(file(data), {}, MemorySink(), RobotContext(heard.append))
    assert sum(heard) == len(data)
    assert len(heard) >= 4


def test_a_run_can_be_cancelled_from_advance(tmp_path: Path) -> None:
    """Its exception is raised unchanged; the input is closed, and the partial output removed."""
    stream, sink = io.BytesIO(b"x" * 1_000_000), robots.DirectorySink(tmp_path)
    source = RobotInput("big.txt", lambda: stream, 1_000_000)
    with pytest.raises(Cancelled):
        get_robot("/file/compress").run(source, {}, sink, cancelling([]))
    assert stream.closed
    assert list(tmp_path.iterdir()) == []


def test_a_decompression_can_be_cancelled_while_it_reads_nothing() -> None:
    """As with a bomb that fits into one chunk."""
    packed = gzip.compress(bytes(15_000_000))
    calls: list[int] = []
    with pytest.raises(Cancelled):
        get_robot("/file/decompress").run(file(packed), {}, MemorySink(), cancelling(calls))
    assert calls[1:] == [0, 0]


def test_an_exception_of_the_sink_is_raised_unchanged() -> None:
    """It is not a fault of the file."""

    class BrokenSink(MemorySink):
        def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> Any:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        get_robot("/file/compress").run(file(b"x"), {}, BrokenSink())


def test_a_failed_abort_is_a_note_on_the_first_error() -> None:
    aborted: list[str] = []

    class Writer:
        def __init__(self, name: str, meta: dict[str, Any]) -> None:
            self.name, self.meta = name, meta

        def write(self, data: Any, /) -> int:
            return len(data)

        def close(self) -> None: ...

        def abort(self) -> None:
            aborted.append(self.name)
            if self.name == "second.txt" and aborted.count(self.name) > 1:
                raise TimeoutError("no answer")

    class Sink(MemorySink):
        def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> Any:
            return Writer(name, meta)

    with pytest.raises(robots.MalformedInputError) as caught:
        two_files.run(file(b"x"), {}, Sink())
    assert aborted[-1] == "first.txt"
    assert "no answer" in caught.value.__notes__[0]


@robots.robot("/acme/beside", options=robots.RobotOptions)
def beside(source: RobotInput, _options: Any, outputs: Outputs, _context: Any) -> Any:
    """Forwards its input, and leaves an output to be closed at the run's end."""
    outputs.forward(source)
    outputs.create("notes.txt").write(b"seen")
    return RobotResult()


def test_inputs_are_forwarded_after_all_outputs_are_stored() -> None:
    """A forwarded file can't be removed."""

    class FullSink(MemorySink):
        def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> Any:
            writer = super().create(name, mime=mime, meta=meta)

            def full() -> None:
                raise OSError("no space")

            writer.close = full  # type: ignore[method-assign]
            return writer

    sink = FullSink()
    with pytest.raises(OSError, match="no space"):
        beside.run(file(b"x"), {}, sink)
    assert sink.files == []


def test_an_input_is_opened_once() -> None:
    """Every built-in robot for text or bytes needs one pass."""
    data = b'{"a":"1"}\n'
    for name in robots.robot_names():
        if name in ("/file/decompress", "/file/filter", "/image/resize"):
            continue
        opened: list[io.BytesIO] = []

        def once(opened: list[io.BytesIO] = opened) -> io.BytesIO:
            opened.append(io.BytesIO(data))
            return opened[-1]

        claim = hashlib.md5(data).hexdigest()  # noqa: S324  # the claim's own algorithm
        source = RobotInput("a.csv", once, len(data), md5hash=claim)
        options = {"lines": 1} if name == "/document/split" else {}
        get_robot(name).run(source, options, MemorySink())
        assert [stream.closed for stream in opened] == [True], name


def test_a_stream_may_return_fewer_bytes_than_requested() -> None:
    data = b"\xef\xbb\xbf" + b'{"a":1}\n' * 1000
    source = RobotInput("a.ndjson", lambda: Stream(data), len(data))
    result, _ = run("/text/ndjson", source)
    assert result.counts["valid"] == 1000


def test_an_error_of_open_is_raised_unchanged() -> None:
    """It is not a fault of the file's content."""

    def gone() -> io.BytesIO:
        raise FileNotFoundError("no such key")

    with pytest.raises(FileNotFoundError):
        run("/file/hash", RobotInput("a", gone, 1))


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("/file/compress", {"level": "6"}, "level"),
        ("/file/compress", {"level": 0}, "level"),
        ("/file/compress", {"speed": 1}, "speed"),
        ("/file/hash", {"algorithms": ["crc32"]}, "algorithms[0]"),
        ("/file/hash", {"algorithms": []}, "algorithms"),
        ("/file/filter", {"accepts": {"mime": ["image"]}}, "accepts.mime[0]"),
        ("/file/filter", {"accepts": {}}, "accepts"),
        ("/file/filter", {"declines": {"min_bytes": 2, "max_bytes": 1}}, "declines"),
        ("/file/filter", {"accepts": {"extension": ["."]}}, "accepts.extension[0]"),
        ("/document/split", {}, "options"),
        ("/document/split", {"lines": 1, "bytes": 1}, "options"),
        ("/csv/to-ndjson", {"delimiter": ";;"}, "delimiter"),
        ("/csv/to-ndjson", {"header": False}, "options"),
        ("/csv/to-ndjson", {"columns": ["a", "a"]}, "columns"),
        ("/csv/to-ndjson", {"encoding": "hex"}, "encoding"),
        ("/ndjson/to-csv", {"columns": []}, "columns"),
        ("/image/resize", {}, "options"),
        ("/image/resize", {"width": 10, "resize_strategy": "pad"}, "options"),
        ("/image/resize", {"width": 10, "background": "red"}, "background"),
        ("/image/resize", {"width": True}, "width"),
    ],
)
def test_a_malformed_option_is_refused_with_its_name(name: str, options: Any, field: str) -> None:
    with pytest.raises(robots.InvalidOptionsError) as caught:
        get_robot(name).parse_options(options)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert field in caught.value.message


def test_all_problems_of_the_options_are_listed() -> None:
    with pytest.raises(robots.InvalidOptionsError) as caught:
        get_robot("/file/compress").parse_options({"level": 99, "format": "zip", "speed": 1})
    assert {p.field for p in caught.value.problems} == {"level", "format", "speed"}
    assert "unknown option; known: format, level" in caught.value.message


def test_an_option_can_not_be_named_robot_or_use() -> None:
    """These keys belong to the template."""

    class Options(robots.RobotOptions):
        use: str = ""

    with pytest.raises(ValueError, match="use can't be an option"):
        robots.robot("/acme/bad", options=Options)(lambda *_: RobotResult())


@pytest.mark.parametrize("data", [b"", b"hello", b"x" * 700_000])
def test_hash_computes_all_digests_in_one_pass(data: bytes) -> None:
    source = file(data, "a.txt", meta={"kept": 1}, mime="text/plain")
    result, sink = run("/file/hash", source, algorithms=["md5", "sha1", "sha256"])
    expected = {name: hashlib.new(name, data).hexdigest() for name in ("md5", "sha1", "sha256")}
    assert result.meta == expected
    [stored] = sink.files
    assert stored.forwarded is source
    assert (stored.name, stored.mime) == ("a.txt", "text/plain")
    assert stored.meta == {"kept": 1, **expected}


HELLO_MD5 = "5d41402abc4b2a76b9719d911017c592"
MALFORMED_MD5 = ["abc", "z" * 32, HELLO_MD5 + "00", "aGVsbG8=", "é"]


@pytest.mark.parametrize(
    "claim", [HELLO_MD5, HELLO_MD5.upper(), f" {HELLO_MD5}\n", "XUFAKrxLKna5cZ2REBfFkg=="]
)
def test_verify_accepts_hex_and_base64(claim: str) -> None:
    assert base64.b64decode("XUFAKrxLKna5cZ2REBfFkg==").hex() == HELLO_MD5
    result, sink = run("/file/verify", file(b"hello", md5hash=claim))
    assert result.meta == {"md5": HELLO_MD5}
    assert len(sink.files) == 1


def test_verify_refuses_other_bytes() -> None:
    sink = MemorySink()
    with pytest.raises(robots.Md5MismatchError) as caught:
        get_robot("/file/verify").run(file(b"hellO", "a.txt", md5hash=HELLO_MD5), {}, sink)
    assert caught.value.code == "MD5_MISMATCH"
    assert caught.value.expected == HELLO_MD5
    assert caught.value.message.startswith("a.txt: ")
    assert sink.files == []


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        *(({"md5hash": claim}, "neither 32 hex digits nor base64") for claim in MALFORMED_MD5),
        ({}, "no md5 was announced"),
        ({"md5hash": HELLO_MD5, "size": 6}, "has 5 bytes, but 6 were announced"),
    ],
)
def test_verify_refuses_a_malformed_md5_none_or_another_size(known: Any, reason: str) -> None:
    with pytest.raises(robots.MalformedInputError, match=reason):
        run("/file/verify", RobotInput("a", lambda: io.BytesIO(b"hello"), **{"size": 5} | known))


def test_verify_without_an_announced_md5_warns_if_it_may() -> None:
    result, sink = run("/file/verify", file(b"hello"), require_md5=False)
    assert len(sink.files) == 1
    assert "only the size" in result.warnings[0]


@given(st.binary(max_size=5000), st.integers(1, 9))
def test_compress_then_decompress_gives_the_original(data: bytes, level: int) -> None:
    _, packed = run("/file/compress", file(data, "a.txt"), level=level)
    assert gzip.decompress(packed.files[0].data) == data
    _, plain = run("/file/decompress", file(packed.files[0].data, packed.files[0].name))
    assert [(f.name, f.data) for f in plain.files] == [("a.txt", data)]


def test_compression_is_deterministic() -> None:
    """The header has no time and no name."""
    _, first = run("/file/compress", file(b"hello", "a"))
    _, second = run("/file/compress", file(b"hello", "b"))
    assert first.files[0].data == second.files[0].data
    assert first.files[0].data[3:8] == bytes(5)
    assert first.files[0].mime == "application/gzip"


def test_every_member_of_a_gzip_file_is_decompressed() -> None:
    data = bytes(range(256)) * 1024
    packed = (gzip.compress(data) + gzip.compress(bytes(len(data) * 3))) * 40
    _, sink = run("/file/decompress", file(packed, "a.gz"))
    assert sink.files[0].data == (data + bytes(len(data) * 3)) * 40


HELLO_GZIP = gzip.compress(b"hello", mtime=0)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"", "is empty, so not a gzip file"),
        (b"hello world", "is not a gzip file"),
        (HELLO_GZIP[:-1], "ends before its gzip data does"),
        (HELLO_GZIP[:5], "ends before its gzip data does"),
        (HELLO_GZIP + HELLO_GZIP[:6], "ends before its gzip data does"),
        (HELLO_GZIP + b"garbage", "byte 26: has other data after its gzip data"),
        (HELLO_GZIP + bytes(512) + b"x", "byte 538: has other data after its gzip data"),
        (HELLO_GZIP + bytes(20_000) + HELLO_GZIP, "byte 20026: has other data after its gzip"),
        (bytes(512), "is not a gzip file"),
        (HELLO_GZIP[:-8] + bytes(8), "its gzip data is damaged"),
    ],
)
def test_a_damaged_gzip_file_is_refused_without_output(damaged: bytes, reason: str) -> None:
    sink = MemorySink()
    with pytest.raises(robots.MalformedInputError) as caught:
        get_robot("/file/decompress").run(file(damaged, "a.gz"), {}, sink)
    assert reason in caught.value.message
    assert caught.value.message.startswith("a.gz")
    assert sink.files == []


@pytest.mark.parametrize("announced", [60_000, 10**12])
def test_a_zip_bomb_is_stopped_by_its_ratio(announced: int) -> None:
    """To the bytes that were read, not to the announced size; long before it is complete."""
    bomb = gzip.compress(bytes(60_000_000))
    sink, source = Discarding(), RobotInput("a.gz", lambda: io.BytesIO(bomb), announced)
    with pytest.raises(robots.FileTooLargeError, match="more than 100 times its size"):
        get_robot("/file/decompress").run(source, {"max_ratio": 100}, sink)
    assert sink.size <= 17_000_000


@pytest.mark.parametrize("padding", [1, 10_000, 300_000])
def test_zeros_after_the_gzip_data_are_padding(padding: int) -> None:
    """Tapes and tar fill their last block with them."""
    _, sink = run("/file/decompress", file(HELLO_GZIP * 2 + bytes(padding), "a.gz"))
    assert sink.files[0].data == b"hellohello"


def test_max_bytes_bounds_decompression_exactly() -> None:
    packed = gzip.compress(b"x" * 1000)
    _, sink = run("/file/decompress", file(packed), max_bytes=1000)
    assert len(sink.files[0].data) == 1000
    with pytest.raises(robots.FileTooLargeError) as caught:
        run("/file/decompress", file(packed), max_bytes=999)
    assert caught.value.code == "FILE_TOO_LARGE"


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a.csv.gz", "a.csv"), ("A.TGZ", "A.tar"), (".gz", ".gz"), ("données", "données")],
)
def test_decompression_removes_the_suffix(name: str, plain: str) -> None:
    _, sink = run("/file/decompress", file(gzip.compress(b""), name))
    assert sink.files[0].name == plain


def passes(source: RobotInput, **options: Any) -> bool:
    result, sink = run("/file/filter", source, **options)
    assert result.counts == {"accepted": len(sink.files), "declined": 1 - len(sink.files)}
    return bool(sink.files)


@pytest.mark.parametrize(
    ("mime", "glob", "expected"),
    [
        ("image/png", "image/*", True),
        ("IMAGE/PNG; q=1", "image/*", True),
        ("image/png", "image/png", True),
        ("x-image/png", "image/*", False),
        ("application/image/png", "image/*", False),
        ("image/pngx", "image/png", False),
        ("image", "image/*", False),
        ("image/svg+xml", "image/svg+xml", True),
        ("image/svgxml", "image/svg+xml", False),
        ("text/csv", "*/*", True),
        ("image/png\n", "image/png", True),
    ],
)
def test_filter_matches_the_whole_mime(mime: str, glob: str, expected: bool) -> None:
    """A glob is anchored at both ends; case and parameters are ignored."""
    assert passes(file(b"", mime=mime), accepts={"mime": [glob]}) is expected


@pytest.mark.parametrize(
    ("name", "extension", "expected"),
    [
        ("a.CSV", "csv", True),
        ("a.csv", ".csv", True),
        ("a.tar.gz", "tar.gz", True),
        ("acsv", "csv", False),
        ("a.csv.exe", "csv", False),
    ],
)
def test_filter_ignores_case_and_dot_of_suffixes(name: str, extension: str, expected: bool) -> None:
    assert passes(file(b"", name), accepts={"extension": [extension]}) is expected


@pytest.mark.parametrize(("size", "expected"), [(1, False), (2, True), (4, True), (5, False)])
def test_filter_includes_both_bounds_of_the_size(size: int, expected: bool) -> None:
    accepts = {"min_bytes": 2, "max_bytes": 4}
    assert passes(file(b"x" * size), accepts=accepts) is expected


def test_filter_accepts_all_criteria_and_declines_any() -> None:
    """`accepts` must match in every criterion, `declines` in one."""
    source = file(b"12345", "a.png", mime="image/png")
    both = {"mime": ["image/*"], "max_bytes": 4}
    assert not passes(source, accepts=both)
    assert not passes(source, declines=both)
    assert passes(source, accepts={"mime": ["image/*"]}, declines={"extension": ["gif"]})
    assert passes(source)


def test_error_on_decline_raises_with_code_and_reason() -> None:
    accepts = {"mime": ["image/*"]}
    with pytest.raises(robots.FileDeclinedError) as caught:
        run("/file/filter", file(b"", mime="text/csv"), accepts=accepts, error_on_decline=True)
    assert caught.value.code == "FILE_DECLINED"
    assert "'text/csv'" in caught.value.message


def test_filter_does_not_open_the_file() -> None:
    def never() -> io.BytesIO:
        raise AssertionError("opened")

    run("/file/filter", RobotInput("a.png", never, 3), accepts={"extension": ["png"]})


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r\n", "é".encode(), b"long" * 20])).map(b"".join),
    st.integers(1, 7),
)
def test_parts_by_lines_join_to_the_file(data: bytes, lines: int) -> None:
    _, sink = run("/document/split", file(data), lines=lines)
    assert b"".join(part.data for part in sink.files) == data
    for part in sink.files[:-1]:
        assert part.data.count(b"\n") == lines
        assert part.data.endswith(b"\n")
    assert all(part.data for part in sink.files)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_parts_by_bytes_join_to_the_file(data: bytes, size: int) -> None:
    _, sink = run("/document/split", file(data), bytes=size)
    assert b"".join(part.data for part in sink.files) == data
    assert {len(part.data) for part in sink.files[:-1]} <= {size}


def test_a_line_longer_than_a_chunk_stays_in_one_part() -> None:
    data = (b"x" * 600_000 + b"\n") * 3 + b"tail"
    _, sink = run("/document/split", file(data, "a.txt"), lines=2)
    assert [len(part.data) for part in sink.files] == [1_200_002, 600_005]


def test_parts_are_numbered_before_the_extension() -> None:
    """Names sort in the order of the parts; the meta has the number."""
    _, sink = run("/document/split", file(b"a\nb\n", "naïve.csv", mime="text/csv"), lines=1)
    expected = [(f"naïve-part-000{number}.csv", "text/csv", {"part": number}) for number in (1, 2)]
    assert [(part.name, part.mime, part.meta) for part in sink.files] == expected


def test_an_empty_file_has_no_parts() -> None:
    result, sink = run("/document/split", file(b"", "a"), lines=1)
    assert sink.files == []
    assert result.warnings == ("a: the file is empty, so there are no parts",)


def test_too_many_parts_fail_and_leave_no_part(tmp_path: Path) -> None:
    _, sink = run("/document/split", file(b"a\n" * 5), lines=1, max_parts=5)
    assert len(sink.files) == 5
    options = {"lines": 1, "max_parts": 4}
    with pytest.raises(robots.FileTooLargeError, match="needs more than 4 parts"):
        get_robot("/document/split").run(file(b"a\n" * 5), options, robots.DirectorySink(tmp_path))
    assert list(tmp_path.iterdir()) == []


REPEATED_NAME = b"c" * 50_000 + b"\n" + b"1\n" * 20_000
MANY_KEYS = b"{" + b",".join(b'"%x":0' % n for n in range(4000)) + b"}\n" + b"{}\n" * 20_000


@pytest.mark.parametrize(
    ("name", "body"), [("/csv/to-ndjson", REPEATED_NAME), ("/ndjson/to-csv", MANY_KEYS)]
)
def test_a_small_file_can_not_become_a_huge_one(name: str, body: bytes) -> None:
    """One long name or many keys, repeated in each row, end the run at 500 times what was read."""
    sink, source = Discarding(), RobotInput("a", lambda: io.BytesIO(body), size=10**12)
    with pytest.raises(robots.FileTooLargeError, match="gives more output than allowed"):
        get_robot(name).run(source, {}, sink)
    assert sink.size <= max(16 * 1024 * 1024, 500 * len(body))
    assert sink.aborted


def test_a_caller_sets_the_limit_of_the_output() -> None:
    """The limit is exact, and holds for all outputs together."""
    source, options = file(b"a\n" * 5), {"lines": 1}
    sink = MemorySink()
    get_robot("/document/split").run(source, options, sink, RobotContext(max_output_bytes=10))
    assert len(sink.files) == 5
    sink = MemorySink()
    with pytest.raises(robots.FileTooLargeError, match="allowed, 9 bytes"):
        get_robot("/document/split").run(source, options, sink, RobotContext(max_output_bytes=9))
    assert sink.files == []


@pytest.mark.parametrize("own", [None, 10])
@pytest.mark.parametrize("name", ["/file/decompress", "/document/split"])
def test_what_is_left_of_a_limit_holds_for_every_robot(name: str, own: int | None) -> None:
    """In addition to the run's own limit, also where the robot has its own."""
    data = gzip.compress(b"a" * 10)
    context = RobotContext(left_bytes=9, max_output_bytes=own)
    options = {"bytes": 5} if name == "/document/split" else {}
    with pytest.raises(robots.FileTooLargeError, match="allowed, 9 bytes"):
        get_robot(name).run(file(data), options, MemorySink(), context)


@pytest.mark.parametrize(
    "header", [b"c" * 300_000, b",".join(b"%d" % n for n in range(10_000)), b"a,b"]
)
def test_the_metadata_of_an_output_is_short(header: bytes) -> None:
    """However long or many the names of the columns are."""
    _, sink = run("/csv/to-ndjson", file(header + b"\n", "a.csv"))
    (output,) = sink.files
    assert len(json.dumps(output.meta)) <= 17 * 1024
    assert (output.meta.get("shortened") == ["columns"]) is (header != b"a,b")
    assert output.meta["rows"] == 0


def test_a_table_has_at_most_100000_columns() -> None:
    names = ",".join(f'"{n}":0' for n in range(100_001))
    with pytest.raises(robots.MalformedInputError, match="at most 100000"):
        run("/ndjson/to-csv", file(b"{" + names.encode() + b"}\n", "a.ndjson"))


class Discarding:
    """A sink with one output, of which it keeps the size alone."""

    def __init__(self) -> None:
        self.size = 0
        self.aborted = False
        self.meta: dict[str, Any] = {}

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> Discarding:
        return self

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        raise AssertionError("not used here")

    def write(self, data: Buffer, /) -> int:
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def close(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("a/b/", "file"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("  ", "file"),
        (".\x00.", "file"),
        ("a\x00b\nc.txt", "abc.txt"),
        ("invoice\u202egnp.exe", "invoicegnp.exe"),
        ("日本語 – naïve 🎉.csv", "日本語 – naïve 🎉.csv"),
        (".env", ".env"),
        ("bad\ud800.txt", "bad.txt"),
        ("名" * 200 + ".csv", "名" * 83 + ".csv"),
        ("é" * 300 + ".csv", "é" * 125 + ".csv"),
    ],
)
def test_safe_name_removes_path_and_invisible_characters(name: str, safe: str) -> None:
    """A long name keeps its extension; it is measured in bytes, and cut between characters."""
    assert robots.safe_name(name) == safe


@given(st.text(st.characters() | st.sampled_from("./\\ é\u202e\x00"), max_size=400))
def test_any_name_becomes_one_visible_component(name: str) -> None:
    """One that any file system accepts, and that stays as it is."""
    safe = robots.safe_name(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set("/\\\x00\n\r\u202e")
    assert len(safe.encode()) <= 255
    assert robots.safe_name(safe) == safe


@given(st.text(min_size=1, max_size=400))
def test_derived_names_of_one_file_differ(name: str) -> None:
    """The part's number is not cut off."""
    first, second = (robots.derived_name(name, suffix=f"-part-{n:04}") for n in (1, 2))
    assert first != second
    assert len(first.encode()) <= 255


def test_unique_name_adds_a_number_before_the_extension() -> None:
    assert robots.unique_name("a.csv", {"a.csv", "a-2.csv"}.__contains__) == "a-3.csv"


def test_two_inputs_of_one_name_give_two_outputs(tmp_path: Path) -> None:
    sink = robots.DirectorySink(tmp_path)
    for data in (b"one", b"two"):
        get_robot("/file/hash").run(file(data, "a.txt"), {}, sink)
    found = [(stored.path.name, stored.path.read_bytes()) for stored in sink.files]
    assert found == [("a.txt", b"one"), ("a-2.txt", b"two")]


def test_the_error_for_an_unknown_robot_lists_the_known_ones() -> None:
    with pytest.raises(robots.UnknownRobotError) as caught:
        get_robot("/file/hahs")
    assert caught.value.code == "ROBOT_UNKNOWN"
    assert "/file/hash" in caught.value.message


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Replaces the entry points of installed packages."""
    points: list[EntryPoint] = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    monkeypatch.setitem(sys.modules, "acme_robots", sys.modules[__name__])
    yield points


def announce(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "jobplane.robots")


def test_an_entry_point_adds_a_robot(installed: list[EntryPoint]) -> None:
    installed.append(announce("/acme/thing", "acme_robots:thing"))
    assert get_robot("/acme/thing") is thing
    assert robots.robot_names()[-1] == "/acme/thing"


def test_an_entry_point_can_not_replace_a_built_in_robot(installed: list[EntryPoint]) -> None:
    installed.append(announce("/file/hash", "acme_robots:thing"))
    assert get_robot("/file/hash").name == "/file/hash"
    with pytest.raises(robots.RobotConflictError, match="/file/hash"):
        get_robot("/acme/thing")


def test_two_entry_points_with_one_name_are_an_error(installed: list[EntryPoint]) -> None:
    """Else the order of installation would decide."""
    installed += [announce("/acme/thing", "acme_robots:thing"), announce("/acme/thing", "b:c")]
    with pytest.raises(robots.RobotConflictError, match="/acme/thing"):
        get_robot("/acme/thing")


@pytest.mark.parametrize(
    "value", ["acme_missing:thing", "acme_robots:two_files", "acme_robots:announce"]
)
def test_an_unusable_entry_point_is_unavailable_with_the_reason(installed: Any, value: str) -> None:
    installed.append(announce("/acme/thing", value))
    with pytest.raises(robots.RobotUnavailableError, match="/acme/thing"):
        get_robot("/acme/thing")


def test_every_built_in_robot_has_its_name_in_the_registry() -> None:
    for name in robots.robot_names():
        assert get_robot(name).name == name


def test_importing_the_package_loads_neither_pydantic_nor_pillow() -> None:
    code = (
        "import sys, json, jobplane_robots as r; first = sorted(sys.modules); "
        "r.get_robot('/file/hash'); json.dump([first, sorted(sys.modules)], sys.stdout)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    first, later = map(set, json.loads(out.stdout))
    assert not first & {"pydantic", "PIL", "csv", "importlib.metadata"}
    loaded = {m for m in later if m.startswith("jobplane_robots._robots.")}
    assert loaded == {"jobplane_robots._robots.file_hash"}
    assert "PIL" not in later


def test_every_public_name_exists() -> None:
    for name in robots.__all__:
        assert getattr(robots, name) is not None
    with pytest.raises(AttributeError):
        _ = robots.nothing


def test_every_error_has_a_constant_code() -> None:
    classes = [robots.RobotError, *robots.RobotError.__subclasses__()]
    assert all(cls.code.isupper() for cls in classes)
    assert len(classes) == 10


MEMORY_CHECK = """
import gzip, io, json, resource, sys
from pathlib import Path
from jobplane_robots import RobotInput, RobotOptions, RobotResult, get_robot, robot

class Nowhere:
    def create(self, name, *, mime, meta):
        self.meta = meta
        return self
    def forward(self, source, *, name, meta): pass
    def write(self, data): return len(data)
    def close(self): pass
    def abort(self): pass

class Repeated(io.RawIOBase):
    def __init__(self, block, times, head=b""):
        self.block, self.left, self.rest = block, times, head
    def read(self, size=-1):
        while len(self.rest) < size and self.left:
            self.rest += self.block
            self.left -= 1
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

def peak():
    # Linux carries the parent's peak over into ru_maxrss; VmHWM is the process's own.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return next(int(l.split()[1]) for l in status.read_text().splitlines() if "VmHWM" in l)

@robot("/acme/hoard", options=RobotOptions)
def hoard(source, options, outputs, context):
    with context.open(source) as stream:
        return RobotResult(counts={"chunks": len(list(stream))})

name, options, megabytes = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
line = {"/csv/to-ndjson": b'1,"two, and more",' + b"x" * 2000 + b"\\n"}.get(
    name, b'{"a":1,"b":"two, and more","c":"' + b"x" * 2000 + b'"}\\n')
block = line * (1_000_000 // len(line))
block = gzip.compress(block, 1) if name == "/file/decompress" else block
def source(megabytes):
    head = b"a,b,c\\n" if name.startswith("/csv") else b""
    return RobotInput("a.txt", lambda: Repeated(block, megabytes, head), 0)
chosen = hoard if name == hoard.name else get_robot(name)
chosen.run(source(2), options, Nowhere())
before = peak()
chosen.run(source(megabytes), options, Nowhere())
sys.stdout.write(str(peak() - before))
"""


def growth(name: str, options: dict[str, Any], megabytes: int) -> int:
    """The KiB that a long run adds to the peak of a short one, in its own process."""
    command = [sys.executable, "-c", MEMORY_CHECK, name, json.dumps(options), str(megabytes)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return int(out.stdout)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("/file/hash", {}),
        ("/file/compress", {"level": 1}),
        ("/file/decompress", {}),
        ("/text/ndjson", {}),
        ("/text/ndjson", {"on_error": "drop"}),
        ("/csv/to-ndjson", {}),
        ("/ndjson/to-csv", {}),
        ("/document/split", {"lines": 50_000}),
    ],
)
def test_memory_does_not_grow_with_the_file(name: str, options: dict[str, Any]) -> None:
    """After 2 MB, another 110 MB add less than 6 MB to the process."""
    assert growth(name, options, 110) < 6 * 1024


def test_the_memory_check_fails_for_a_robot_that_keeps_its_input() -> None:
    assert growth("/acme/hoard", {}, 30) > 20 * 1024


def test_100000_empty_members_are_decompressed_in_linear_time() -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    member = packer.compress(b"") + packer.flush()
    calls: list[int] = []
    source = file(member * 100_000)
    get_robot("/file/decompress").run(source, {}, MemorySink(), RobotContext(calls.append))
    assert sum(calls) == source.size
