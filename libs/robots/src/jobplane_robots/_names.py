"""File names that are safe to store."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimetypes import MimeTypes

MAX_NAME_BYTES = 255  # limit of ext4, NTFS and APFS for one path component
MAX_EXTENSION_BYTES = 32
FALLBACK = "file"

# Control characters, line and paragraph separators, lone surrogates.
_REMOVED_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})
# Marks that change the direction of text, so that a name looks like another one.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe_name(name: str, *, max_bytes: int = MAX_NAME_BYTES) -> str:
    """The last component of a path, made safe to use as a file name.

    `/` and `\\` separate components. Control characters and marks of text direction are removed.
    A name of more than `max_bytes` in UTF-8 is cut before its extension. Never "", "." or "..".
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(
        c for c in base if unicodedata.category(c) not in _REMOVED_CATEGORIES and c not in _BIDI
    ).strip()
    if len(kept.encode()) > max_bytes:
        stem, extension = split_extension(kept)
        kept = (_shortened(stem, max_bytes - len(extension.encode())) + extension).strip()
    return FALLBACK if kept in ("", ".", "..") else kept


def split_extension(name: str) -> tuple[str, str]:
    """("report", ".csv"); the extension is "" for a dot file, or without an extension."""
    stem, dot, extension = name.rpartition(".")
    if not stem.strip(".") or not extension or len(extension.encode()) >= MAX_EXTENSION_BYTES:
        return name, ""
    return stem, dot + extension


def derived_name(name: str, *, suffix: str = "", extension: str | None = None) -> str:
    """An output's name from its input's: the suffix before the extension, which may be replaced.

    A long name is cut before the suffix, so that the parts of a file have different names.
    """
    stem, own = split_extension(safe_name(name))
    tail = suffix + (own if extension is None else extension)
    return safe_name(_shortened(stem, MAX_NAME_BYTES - len(tail.encode())) + tail)


def unique_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """The name itself, or the first of `name-2`, `name-3` … that isn't taken."""
    candidate, number = name, 1
    while is_taken(candidate):
        number += 1
        candidate = derived_name(name, suffix=f"-{number}")
    return candidate


def mime_of(name: str) -> str:
    """The media type of a name's extension."""
    return _mime_types().guess_type(name)[0] or "application/octet-stream"


@cache
def _mime_types() -> MimeTypes:
    """Python's list, without the mime.types files of the computer."""
    from mimetypes import MimeTypes

    return MimeTypes()


def _shortened(text: str, max_bytes: int) -> str:
    """The longest prefix of whole characters with at most `max_bytes` in UTF-8."""
    return text.encode()[: max(max_bytes, 0)].decode(errors="ignore")
