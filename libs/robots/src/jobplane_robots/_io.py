"""The input, progress, outputs and result of a run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Buffer, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from jobplane_robots._errors import FileTooLargeError
from jobplane_robots._names import mime_of, safe_name

CHUNK_BYTES = 256 * 1024
# What a run may write unless its robot or its caller sets other limits.
MAX_GROWTH = 500
SMALL_OUTPUT_BYTES = 16 * 1024 * 1024
# Of an output's metadata, as JSON.
MAX_META_BYTES = 16 * 1024


def _no_progress(_bytes_read: int) -> None:
    """Ignore progress."""


def _no_report(_fraction: float, _message: str) -> None:
    """Ignore what a robot reports."""


@dataclass(frozen=True, slots=True)
class RobotInput:
    """One file to process.

    `open` returns an object with `read(n)` and `close()` that reads the file from its beginning; a
    robot calls it at most once. `size` is in bytes, `md5hash` is the md5 that the sender gave (hex
    or base64) or None, `handle` is the caller's reference to the file, which robots don't use.
    """

    name: str
    open: Callable[[], BinaryIO]
    size: int
    mime: str = "application/octet-stream"
    md5hash: str | None = None
    field: str | None = None
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    handle: object = None


class InputStream:
    """An open input that reports its progress; iterate over its chunks, or call `read(n)`."""

    def __init__(self, raw: BinaryIO, advance: Callable[[int], None]) -> None:
        self._raw = raw
        self._advance = advance
        self.bytes_read = 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Read exactly `size` bytes, fewer only at the end of the input."""
        data = self._read_some(size)
        if not data or len(data) == size:
            return data
        parts, missing = [data], size - len(data)
        while missing and (data := self._read_some(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _read_some(self, size: int) -> bytes:
        data = self._raw.read(size)
        if data:
            self.bytes_read += len(data)
            self._advance(len(data))
        return data

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read():
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._raw.close()


@dataclass(frozen=True, slots=True)
class RobotContext:
    """The caller's side of a run.

    `advance(n)` is called about every 256 KiB with the number of bytes read since the last call,
    and with 0 while a robot works without reading. To cancel a run, raise an exception in it: the
    input is closed, all outputs of the run are aborted, and the exception is raised unchanged.
    `max_output_bytes` limits what a run writes, all outputs together; None: 500 times what it has
    read, and at least 16 MiB. `left_bytes` is what it may write in addition to that limit: what is
    left of a limit for several runs. `report(fraction, text)` is called by robots that wait, with
    what is done of the file, from 0 to 1; it raises what `advance` raises.
    """

    advance: Callable[[int], None] = _no_progress
    max_output_bytes: int | None = None
    left_bytes: float = math.inf
    report: Callable[[float, str], None] = _no_report

    def open(self, source: RobotInput) -> InputStream:
        """Open the input and count what is read; use it in a `with` statement."""
        return InputStream(source.open(), self.advance)


class Writer(Protocol):
    """One output while it is written.

    `meta` may be changed until `close`. `close` stores the output. `abort` removes it, also after
    `close`: when a later output of the same run fails, the earlier ones are removed. Further calls
    of either have no effect.
    """

    meta: dict[str, Any]

    def write(self, data: Buffer, /) -> int:
        """Append bytes; return their number."""
        ...

    def close(self) -> None:
        """Store the output."""
        ...

    def abort(self) -> None:
        """Remove the output."""
        ...


class Sink(Protocol):
    """Stores outputs. All names are safe to store; several outputs may have the same name."""

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> Writer:
        """Begin an output."""
        ...

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        """Store the unchanged input as an output; a sink may link it or copy it in its store.

        Called at the end of a run, after the robot has accepted the whole file. A sink that must
        copy the bytes opens the input again.
        """
        ...


def bound_meta(meta: dict[str, Any]) -> None:
    """Shorten an output's metadata to 16 KiB of JSON; `shortened` then has the names.

    Lists lose their last entries, other values are removed, the largest first.
    """
    sizes = {name: len(json.dumps(value, default=str)) for name, value in meta.items()}
    shortened = set()
    while sizes and sum(sizes.values()) + sum(map(len, sizes)) > MAX_META_BYTES:
        name = max(sizes, key=lambda each: sizes[each])
        shortened.add(name[:100])
        if isinstance(meta[name], list) and len(meta[name]) > 1:
            meta[name] = meta[name][: len(meta[name]) // 2]
            sizes[name] = len(json.dumps(meta[name], default=str))
        else:
            del meta[name], sizes[name]
    if shortened:
        meta["shortened"] = sorted(shortened)[:100]


def copy_input(source: RobotInput, writer: Writer) -> None:
    """Write an input to an output; close it, or abort it if that fails."""
    try:
        with closing(source.open()) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                writer.write(chunk)
        writer.close()
    except BaseException:
        writer.abort()
        raise


@dataclass(frozen=True, slots=True)
class RobotResult:
    """The result of a run: counts, metadata, and warnings for end users."""

    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Output:
    """One output of a robot: stored at the end of its `with`, aborted by an exception."""

    def __init__(self, writer: Writer, count: Callable[[int], None] = _no_progress) -> None:
        self._writer = writer
        self._count = count
        self._closed = False

    @property
    def meta(self) -> dict[str, Any]:
        """The output's metadata, which may be changed until the block ends."""
        return self._writer.meta

    def write(self, data: Buffer, /) -> None:
        """Append bytes."""
        if size := memoryview(data).nbytes:
            self._count(size)
            self._writer.write(data)

    def close(self) -> None:
        """Store the output; further calls have no effect."""
        if not self._closed:
            bound_meta(self.meta)
            self._writer.close()
            self._closed = True

    def abort(self) -> None:
        """Remove the output, also after it was stored."""
        self._writer.abort()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class Outputs:
    """The outputs of one run: either all are stored, or none.

    `max_bytes` gives how many bytes they may have by now, all together; a write of more raises
    FileTooLargeError.
    """

    def __init__(self, sink: Sink, max_bytes: Callable[[], float] = lambda: math.inf) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self._bytes = 0
        self._created: list[Output] = []
        self._forwards: list[tuple[RobotInput, dict[str, Any]]] = []

    def create(
        self, name: str, *, mime: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Output:
        """Begin an output; without `mime`, its media type is derived from its name."""
        name = safe_name(name)
        writer = self._sink.create(name, mime=mime or mime_of(name), meta=dict(meta or {}))
        output = Output(writer, self._count)
        self._created.append(output)
        return output

    def forward(self, source: RobotInput, meta: Mapping[str, Any] | None = None) -> None:
        """Store the unchanged input as an output when the run has succeeded; adds `meta` to its."""
        self._forwards.append((source, {**source.meta, **(meta or {})}))

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > (most := self._max_bytes()):
            raise FileTooLargeError(f"gives more output than allowed, {most:.0f} bytes")

    def commit(self) -> None:
        """Close the open outputs, then store the forwarded inputs."""
        for output in self._created:
            output.close()
        for source, meta in self._forwards:
            bound_meta(meta)
            self._sink.forward(source, name=safe_name(source.name), meta=meta)

    def abort(self, cause: BaseException) -> None:
        """Abort all outputs; an abort that fails is added to `cause` as a note."""
        for output in reversed(self._created):
            try:
                output.abort()
            except Exception as error:
                cause.add_note(f"an output could not be removed: {error!r}")
