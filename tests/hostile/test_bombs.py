"""Files made to exhaust a worker: each robot stays within its memory and names its limit."""

import gzip
import io
import itertools
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from jobplane_robots import (
    FileTooLargeError,
    MalformedInputError,
    RobotContext,
    RobotError,
    RobotInput,
    RobotResult,
    get_robot,
)

MIB = 1024 * 1024
NAME = "sent-in.dat"


class Endless(io.RawIOBase):
    """A stream of pieces that are generated when read; counts them."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        while len(self._left) < size and (piece := next(self._pieces, None)) is not None:
            self._left += piece
        data, self._left = self._left[:size], self._left[size:]
        self.given += len(data)
        return data


class EnoughError(Exception):
    """Ends a run, as a deadline or a cancellation does."""


class Discarding:
    """A sink that only counts."""

    def __init__(self) -> None:
        self.written = 0
        self.aborted = 0

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> "Discarding":
        self.meta = meta
        return self

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        """Forwarded without being read."""

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.written += size
        return size

    def close(self) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        self.aborted += 1


def ending_after(most: int) -> Callable[[int], None]:
    """An `advance` that ends the run after so many bytes."""
    read = 0

    def advance(count: int) -> None:
        nonlocal read
        read += count
        if read > most:
            raise EnoughError

    return advance


def run(
    name: str, pieces: Iterable[bytes], most: int = 64 * MIB, **options: Any
) -> tuple[RobotResult | BaseException, int, Discarding, int]:
    """Result or error, the peak of memory in bytes, the bytes written and read."""
    stream = Endless(pieces)
    source = RobotInput(name=NAME, open=lambda: stream, size=most)
    sink = Discarding()
    robot = get_robot(name)
    parsed = robot.parse_options(options)
    tracemalloc.start()
    try:
        outcome: RobotResult | BaseException = robot.run(
            source, parsed, sink, RobotContext(advance=ending_after(most))
        )
    except (RobotError, EnoughError) as error:
        outcome = error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return outcome, peak, sink, stream.given


def billion_lines(line: bytes) -> Iterator[bytes]:
    """A file of a thousand million lines, generated piece by piece."""
    return itertools.repeat(line * 1000, 1_000_000)


LINES = {
    "/text/ndjson": (b"[1,2,3,4,5,6,7,8]\n", {"on_error": "report"}),
    "/csv/to-ndjson": (b"x" * 63 + b"\n", {}),
    "/ndjson/to-csv": (b'{"a":"0123456789012345678901234567890123456789"}\n', {}),
    "/file/hash": (b"1\n", {}),
    "/file/compress": (b"1\n", {}),
}


@pytest.mark.parametrize("robot", LINES)
def test_a_billion_lines_take_no_memory(robot: str) -> None:
    """The number of lines makes no difference, and the caller can end the run."""
    line, options = LINES[robot]
    peaks = []
    for most in (MIB, 2 * MIB):
        outcome, peak, _, given = run(robot, billion_lines(line), most, **options)
        assert isinstance(outcome, EnoughError)
        assert given <= most + MIB
        peaks.append(peak)
    assert peaks[1] < peaks[0] * 1.3 + MIB // 4


@pytest.mark.parametrize(
    ("robot", "options"),
    [("/text/ndjson", {"on_error": "report"}), ("/ndjson/to-csv", {"columns": ["a"]})],
)
def test_a_billion_bad_lines_take_no_memory(robot: str, options: dict[str, Any]) -> None:
    """A limited number is reported, and all are counted."""
    on_error = {"on_error": "drop"} | options
    lines = itertools.repeat(b"nonsense\n" * 1000, 30)
    outcome, peak, _, _ = run(robot, lines, **on_error, max_reported=3)
    assert isinstance(outcome, RobotResult)
    (warning,) = outcome.warnings
    assert "30000" in warning.replace(",", "")
    assert len(warning) < 1000
    assert peak < 4 * MIB


X_WITHOUT_END = "x" * 4096


@pytest.mark.parametrize(
    ("robot", "options", "start", "pieces"),
    [
        ("/text/ndjson", {"max_line_bytes": MIB}, b"", X_WITHOUT_END),
        ("/text/ndjson", {"max_line_bytes": MIB}, b'{"a":"', X_WITHOUT_END),
        ("/ndjson/to-csv", {"max_line_bytes": MIB}, b'{"a":"', X_WITHOUT_END),
        ("/csv/to-ndjson", {"max_row_length": MIB}, b"a,b\n", X_WITHOUT_END),
        ("/csv/to-ndjson", {"max_row_length": MIB}, b'a,b\n1,"', X_WITHOUT_END),
        ("/csv/to-ndjson", {}, b"", "column-{},"),
        ("/ndjson/to-csv", {}, b"{", '"k{}":0,'),
    ],
)
def test_a_line_without_end_is_refused(
    robot: str, options: dict[str, Any], start: bytes, pieces: str
) -> None:
    """Soon after its limit, with file and line; also a header or object of a million names."""
    endless = (pieces.format(number).encode() for number in itertools.count())
    outcome, peak, sink, given = run(robot, itertools.chain([start], endless), **options)
    assert isinstance(outcome, MalformedInputError | FileTooLargeError)
    assert outcome.message.startswith(f"{NAME}, ")
    assert "longer than" in outcome.message
    assert given < (4 if options else 8) * MIB
    assert peak < (16 if options else 64) * MIB
    assert sink.aborted or not sink.written


def test_a_line_without_end_can_be_dropped() -> None:
    endless = itertools.chain(itertools.repeat(b"x" * 4096, 4096), [b"\n1\n"])
    outcome, peak, sink, _ = run("/text/ndjson", endless, on_error="drop", max_line_bytes=MIB)
    assert isinstance(outcome, RobotResult)
    assert (outcome.counts["valid"], sink.written) == (1, 2)
    assert peak < 8 * MIB


def test_a_duplicate_among_250000_columns_is_found_in_one_pass() -> None:
    names = [f"c{number}" for number in range(250_000)]
    outcome, _, _, _ = run("/csv/to-ndjson", [",".join([*names, names[-1]]).encode() + b"\n1\n"])
    assert isinstance(outcome, MalformedInputError)
    place = f"{NAME}, row 1, line 1: header"
    assert outcome.message.startswith(f"{place}: column 'c249999' appears twice; ")


def test_a_row_of_a_million_fields_is_one_bad_row() -> None:
    row = b"," * 1_000_000
    outcome, peak, _, _ = run("/csv/to-ndjson", [b"a,b\n", row, b"\n1,2\n"], on_error="drop")
    assert isinstance(outcome, RobotResult)
    assert outcome.counts == {"rows": 1, "dropped": 1}
    assert peak < 64 * MIB


@pytest.mark.parametrize(
    ("robot", "data"),
    [
        ("/csv/to-ndjson", b"n" * MIB + b"," + b"n" * MIB + b"\n"),
        ("/csv/to-ndjson", b"a\n" + b'"' + b"v" * MIB + b'"x\n'),
        ("/ndjson/to-csv", b'{"a":1}\n' * 100 + b'{"' + b"k" * MIB + b'":1}\n'),
        ("/ndjson/to-csv", b'{"' + b"k" * MIB + b'":1,"' + b"k" * MIB + b'":2}\n[]\n'),
        ("/text/ndjson", b'{"a":' + b"9" * MIB + b"}\nx" + b"y" * MIB + b"\n"),
        ("/text/ndjson", b"[" * MIB + b"\n"),
    ],
)
def test_an_error_quotes_only_a_short_part_of_a_file(robot: str, data: bytes) -> None:
    outcome, _, _, _ = run(robot, [data])
    assert isinstance(outcome, MalformedInputError)
    assert outcome.message.startswith(f"{NAME}, ")
    assert len(outcome.message) < 1000


def deflated_zeros() -> Iterator[bytes]:
    """An endless gzip file of zeros, generated when read."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    while True:
        if piece := packer.compress(bytes(MIB)):
            yield piece


@pytest.mark.parametrize("limit", [{"max_bytes": 32 * MIB}, {"max_ratio": 10}])
def test_an_endless_bomb_is_stopped(limit: dict[str, int]) -> None:
    outcome, peak, sink, _ = run("/file/decompress", deflated_zeros(), **limit)
    assert isinstance(outcome, FileTooLargeError)
    assert outcome.message.startswith(f"{NAME}: unpacks to more than ")
    assert sink.written <= 32 * MIB
    assert peak < 16 * MIB
    assert sink.aborted


@pytest.mark.parametrize("is_nested", [True, False], ids=["nested", "100000 empty members"])
def test_a_bomb_is_unpacked_once(is_nested: bool) -> None:
    """Each layer needs its own step, with its own limits."""
    inner = gzip.compress(bytes(64 * MIB)) if is_nested else b""
    pieces = [gzip.compress(inner)] if is_nested else [gzip.compress(b"") * 1000] * 100
    outcome, peak, sink, _ = run("/file/decompress", pieces)
    assert isinstance(outcome, RobotResult)
    assert sink.written == len(inner)
    assert peak < 8 * MIB


def test_other_archive_formats_are_refused_by_their_first_bytes() -> None:
    outcome, _, _, given = run("/file/decompress", itertools.repeat(b"PK\x03\x04" * 1024))
    assert isinstance(outcome, MalformedInputError)
    assert outcome.message == f"{NAME}: is not a gzip file"
    assert given <= MIB


def test_a_split_of_empty_lines_stops_at_the_limit_of_parts() -> None:
    outcome, peak, _, _ = run("/document/split", billion_lines(b"\n"), lines=1, max_parts=50)
    assert isinstance(outcome, FileTooLargeError)
    assert outcome.message == f"{NAME}: needs more than 50 parts"
    assert peak < 8 * MIB


def test_an_object_with_100000_keys_is_within_the_limit_of_a_line() -> None:
    keys = {f"k{number}": 0 for number in range(100_000)}
    line = json.dumps(keys, separators=(",", ":")).encode() + b"\n"
    outcome, _, _, _ = run("/ndjson/to-csv", [line, line])
    assert isinstance(outcome, RobotResult)
