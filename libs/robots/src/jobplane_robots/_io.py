"""What goes into a robot and what comes out: inputs, progress, outputs, results."""

from __future__ import annotations

import dataclasses
from collections.abc import Buffer, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from jobplane_robots._names import mime_of, safe_name

CHUNK_BYTES = 256 * 1024


def _no_progress(_bytes_read: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class RobotInput:
    """One file to process.

    `open` gives its bytes from the start, as anything with `read(n)` and `close()`; a robot calls
    it at most once. `size` is in bytes, `md5hash` is the sender's claim (hex or base64) or None,
    `handle` is the caller's own reference to the file, which no robot looks at.
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
    """An open input that reports what is read; iterate for chunks, or `read(n)`."""

    def __init__(self, raw: BinaryIO, advance: Callable[[int], None]) -> None:
        self._raw = raw
        self._advance = advance
        self.bytes_read = 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the input."""
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

    `advance(n)` is called with the bytes just read, about every 256 KiB, and with 0 while a robot
    works without reading. Whatever it raises ends the run: the input is closed, every output of
    the run is aborted, and the exception goes through unchanged. This is how to cancel.
    """

    advance: Callable[[int], None] = _no_progress

    def open(self, source: RobotInput) -> InputStream:
        """The input's bytes, counted; use it in a `with`."""
        return InputStream(source.open(), self.advance)


class Writer(Protocol):
    """One output while it is produced.

    `meta` may be completed until `close`. `close` stores the output. `abort` leaves nothing
    behind, also after `close`: when a later output of the same run fails, the earlier ones must
    go. Both may be called again without effect.
    """

    meta: dict[str, Any]

    def write(self, data: Buffer, /) -> int:
        """Take more bytes; how many there were."""
        ...

    def close(self) -> None:
        """Store what was written."""
        ...

    def abort(self) -> None:
        """Leave nothing behind."""
        ...


class Sink(Protocol):
    """Where outputs go. The runner hands it safe names only; two inputs may lead to one name."""

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> Writer:
        """A new output."""
        ...

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        """The input itself is the output, unchanged, so a sink may link or copy where it lies.

        Called only after the robot has accepted the whole file, as the run's last act. A sink that
        has to copy bytes opens the input again.
        """
        ...


@dataclass(frozen=True, slots=True)
class RobotResult:
    """What a run has to tell: counts, facts for the result's meta, and warnings for people."""

    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Output:
    """One output as a robot sees it: stored at the end of its `with`, aborted by an exception."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._closed = False

    @property
    def meta(self) -> dict[str, Any]:
        """The output's meta, which may be completed until the block ends."""
        return self._writer.meta

    def write(self, data: Buffer, /) -> None:
        """Pass bytes on to the sink."""
        if memoryview(data).nbytes:
            self._writer.write(data)

    def close(self) -> None:
        """Have the output stored; again is without effect."""
        if not self._closed:
            self._writer.close()
            self._closed = True

    def abort(self) -> None:
        """Have the output discarded, also when it was stored."""
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
    """All outputs of one run: every one of them is stored, or none."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._created: list[Output] = []
        self._forwards: list[tuple[RobotInput, dict[str, Any]]] = []

    def create(
        self, name: str, *, mime: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Output:
        """A new output; its mime follows from its name unless given."""
        name = safe_name(name)
        writer = self._sink.create(name, mime=mime or mime_of(name), meta=dict(meta or {}))
        output = Output(writer)
        self._created.append(output)
        return output

    def forward(self, source: RobotInput, meta: Mapping[str, Any] | None = None) -> None:
        """Pass the input on unchanged once the run has succeeded, its meta extended."""
        self._forwards.append((source, {**source.meta, **(meta or {})}))

    def commit(self) -> None:
        """Close what is still open, then pass on what was forwarded."""
        for output in self._created:
            output.close()
        for source, meta in self._forwards:
            self._sink.forward(source, name=safe_name(source.name), meta=meta)

    def abort(self, cause: BaseException) -> None:
        """Abort everything; an abort that fails becomes a note on the cause, and the rest go on."""
        for output in reversed(self._created):
            try:
                output.abort()
            except Exception as error:
                cause.add_note(f"an output could not be discarded: {error!r}")
