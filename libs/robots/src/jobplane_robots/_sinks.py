"""Sinks without a network: a folder, and memory for tests."""

from __future__ import annotations

from collections.abc import Buffer
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from jobplane_robots._io import RobotInput, copy_input
from jobplane_robots._names import unique_name


class StoredFile(NamedTuple):
    """One file in a DirectorySink."""

    path: Path
    mime: str
    meta: dict[str, Any]


class DirectorySink:
    """Stores outputs in a folder, atomically, without overwriting a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[StoredFile] = []

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> _FileWriter:
        """Begin a file that appears when complete, as `name-2`, `name-3` … if the name is taken."""
        return _FileWriter(self, name, mime, meta)

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        """Store a copy of the input, which is read again."""
        copy_input(source, self.create(name, mime=source.mime, meta=meta))


class _FileWriter:
    def __init__(self, sink: DirectorySink, name: str, mime: str, meta: dict[str, Any]) -> None:
        self.meta = meta
        self._sink = sink
        self._name = name
        self._mime = mime
        self._stored: StoredFile | None = None
        # In the destination's folder, so that the last step is a rename.
        self.file = NamedTemporaryFile(dir=sink.folder, prefix=".part-", delete=False)  # noqa: SIM115

    def write(self, data: Buffer, /) -> int:
        return self.file.write(data)

    def close(self) -> None:
        if self.file.closed:
            return
        self.file.close()
        folder = self._sink.folder
        path = folder / unique_name(self._name, lambda name: (folder / name).exists())
        Path(self.file.name).rename(path)
        self._stored = StoredFile(path, self._mime, self.meta)
        self._sink.files.append(self._stored)

    def abort(self) -> None:
        self.file.close()
        Path(self.file.name).unlink(missing_ok=True)
        if self._stored:
            self._stored.path.unlink(missing_ok=True)
            self._sink.files.remove(self._stored)
            self._stored = None


@dataclass(eq=False)
class MemoryFile:
    """One file in a MemorySink; `forwarded` is the input, if it was forwarded, else None."""

    name: str
    mime: str
    meta: dict[str, Any]
    data: bytes = b""
    forwarded: RobotInput | None = None


@dataclass
class MemorySink:
    """Keeps outputs in memory; for tests and small files."""

    files: list[MemoryFile] = field(default_factory=list)

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> _MemoryWriter:
        """Begin a file; it is added to `files` when complete."""
        return _MemoryWriter(self, MemoryFile(name, mime, meta))

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        """Add an entry to `files` that refers to the input, without reading it."""
        self.files.append(MemoryFile(name, source.mime, meta, forwarded=source))


class _MemoryWriter:
    def __init__(self, sink: MemorySink, file: MemoryFile) -> None:
        self.meta = file.meta
        self._sink = sink
        self._file = file
        self._buffer = BytesIO()

    def write(self, data: Buffer, /) -> int:
        return self._buffer.write(data)

    def close(self) -> None:
        if self._file not in self._sink.files:
            self._file.data = self._buffer.getvalue()
            self._sink.files.append(self._file)

    def abort(self) -> None:
        if self._file in self._sink.files:
            self._sink.files.remove(self._file)
