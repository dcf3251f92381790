"""What a manifest lists, and whether it lists a file."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from jobplane_files._rows import Row


def spellings(text: str) -> set[str]:
    """A key as it is, and URL-decoded: events carry keys encoded."""
    return {text, unquote_plus(text)}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What S3 says of a manifest: the URIs that it lists, that it is missing, or neither."""

    listed: frozenset[str] = frozenset()
    missing: bool = False
    unknown: str | None = None
    """Why S3 said neither."""

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
