"""What manifests list, and which manifests some files have."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from jobplane_files._rows import Row

type RowKey = tuple[str, str]
"""`date_prefix` and `file_key` of a row."""

# Listings are dropped beyond so many URIs, to limit the memory that they take.
_MAX_KNOWN_URIS = 500_000


def spellings(text: str) -> set[str]:
    """A key as it is, and URL-decoded: events carry keys encoded."""
    return {text, unquote_plus(text)}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The URIs that a manifest in S3 lists, or that it is missing, or why neither is known."""

    listed: frozenset[str] = frozenset()
    missing: bool = False
    unknown: str | None = None
    """Why it could not be read."""

    @classmethod
    def read(cls, text: bytes) -> "Manifest":
        """From an object's content; unknown when it is malformed."""
        try:
            locations = json.loads(text)["fileLocations"]
            uris = [uri for location in locations for uri in _uris(location["URIPrefixes"])]
            return cls(frozenset(spelling for uri in uris for spelling in spellings(uri)))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return cls(unknown="the manifest is not JSON with fileLocations[].URIPrefixes[]")

    def lists(self, file: Row) -> bool:
        """Whether a file is among the URIs, or under one that ends with a slash."""
        path = file.values.get("file_path")
        if not path:
            names = {uri.rpartition("/")[2] for uri in self.listed}
            return not names.isdisjoint(spellings(file.file_key))
        known = spellings(str(path))
        return not self.listed.isdisjoint(known) or any(
            uri.endswith("/") and name.startswith(uri) for uri in self.listed for name in known
        )


def _uris(given: Any) -> list[str]:
    if not isinstance(given, list):
        raise TypeError("URIPrefixes is not a list")
    return given


def claimed_at(file: Row, manifest: Row | None) -> float:
    """About when a file was put into its manifest, in epoch seconds; 0 when that is unknown."""
    published = None if manifest is None else manifest.time("created_at")
    return file.time("manifest_time") or published or file.since or 0.0


class Manifests:
    """The manifests of some files: their rows, and their objects in S3.

    `read_rows` answers with those rows that exist; `read_objects` with a Manifest for every path.
    Each manifest is read once.
    """

    def __init__(
        self,
        read_rows: Callable[[set[RowKey]], Mapping[RowKey, Row]],
        read_objects: Callable[[list[str]], Mapping[str, Manifest]],
    ) -> None:
        self._read_rows, self._read_objects = read_rows, read_objects
        self._rows: dict[RowKey, Row | None] = {}
        self._objects: dict[str, Manifest] = {}

    def row_of(self, file: Row) -> Row | None:
        """The row of a file's manifest; None when it does not exist or was not looked up."""
        return None if file.manifest_key is None else self._rows.get(file.manifest_key)

    def object_of(self, file: Row) -> Manifest | None:
        """A file's manifest in S3; None when it has none or it was not looked up."""
        return self._objects.get(file.manifest_path)

    def look_up_rows(self, files: Iterable[Row]) -> None:
        """Read the rows of these files' manifests."""
        keys = {file.manifest_key for file in files if file.manifest_key is not None}
        if new := keys - self._rows.keys():
            self._rows |= dict.fromkeys(new) | dict(self._read_rows(new))

    def look_up_objects(self, files: Iterable[Row]) -> None:
        """Read these files' manifests in S3."""
        paths = {file.manifest_path for file in files if file.manifest_key is not None}
        if sum(len(manifest.listed) for manifest in self._objects.values()) > _MAX_KNOWN_URIS:
            self._objects.clear()
        if new := sorted(paths - self._objects.keys()):
            self._objects |= self._read_objects(new)

    def unknown(self) -> list[dict[str, Any]]:
        """The manifests in S3 that could not be read, and why."""
        looked_up = sorted(self._objects.items())
        return [{"subject": path, "reason": m.unknown} for path, m in looked_up if m.unknown]
