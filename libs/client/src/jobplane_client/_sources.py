"""The files of an assembly on this machine, and the journal of their uploads."""

import contextlib
import hashlib
import json
import mimetypes
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from jobplane_client._errors import ChangedFileError, UnreadableFileError

_BLOCK_BYTES = 256 * 1024

type File = str | os.PathLike[str] | tuple[str, str | os.PathLike[str] | bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was at the beginning; `content` is its path, or its bytes."""

    name: str
    mime: str
    content: Path | bytes
    size: int
    modified: int

    @classmethod
    def of(cls, file: File) -> "Source":
        """The file at a path, or `(name, path or bytes)`. Raises UnreadableFileError."""
        name, place = file if isinstance(file, tuple) else (Path(file).name, file)
        content = place if isinstance(place, bytes) else Path(place)
        mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return cls(name, mime, content, *_state(name, content))

    def check_unchanged(self) -> None:
        """Raise ChangedFileError if the file was written since the beginning."""
        if _state(self.name, self.content) != (self.size, self.modified):
            raise ChangedFileError(self.name)

    def blocks(self, start: int, length: int) -> Iterator[bytes]:
        """The bytes of a range. Raises UnreadableFileError, or ChangedFileError if they end."""
        with _reading(self.name):
            file: BinaryIO
            content = self.content
            with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                file.seek(start)
                while length:
                    if not (block := file.read(min(length, _BLOCK_BYTES))):
                        raise ChangedFileError(self.name)
                    length -= len(block)
                    yield block

    def md5(self, start: int, length: int) -> str:
        """The MD5 of a range as hex digits. Raises what `blocks` raises."""
        digest = hashlib.md5(usedforsecurity=False)
        for block in self.blocks(start, length):
            digest.update(block)
        return digest.hexdigest()


def _state(name: str, content: Path | bytes) -> tuple[int, int]:
    """Size and time of change."""
    if isinstance(content, bytes):
        return len(content), 0
    with _reading(name):
        found = content.stat()
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableFileError(name, error.strerror or str(error)) from error


class Journal:
    """The uploads in parts that have begun, in a JSON file; without a path, none is kept.

    An entry belongs to a file as it was: with another size or time of change, it is another file.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else Path(path)
        self._begun: dict[str, Any] = {}
        if self._path is not None and self._path.exists():
            self._begun = json.loads(self._path.read_bytes())

    def keeps(self, source: Source) -> bool:
        """Whether an upload of the file can go on in a later process."""
        return self._path is not None and isinstance(source.content, Path)

    def get(self, source: Source) -> Mapping[str, Any] | None:
        """The upload of a file, if one has begun."""
        return self._begun.get(_key(source))

    def put(self, source: Source, upload: Mapping[str, Any] | None) -> None:
        """Keep an upload that has begun; None removes it."""
        if self._path is None or not self.keeps(source) or self.get(source) == upload:
            return
        if upload is None:
            del self._begun[_key(source)]
        else:
            self._begun[_key(source)] = upload
        if self._begun:
            written = self._path.with_name(f"{self._path.name}.new")
            written.write_text(json.dumps(self._begun))
            written.replace(self._path)
        else:
            self._path.unlink()


def _key(source: Source) -> str:
    place = source.content.absolute() if isinstance(source.content, Path) else ""
    return f"{place}:{source.size}:{source.modified}"
