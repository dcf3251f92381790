"""`/file/filter`: passes files on by media type, extension and size."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from jobplane_robots._errors import FileDeclinedError
from jobplane_robots._io import Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._names import safe_name
from jobplane_robots._robot import MAX_SIZE, RobotOptions, robot

_MIME_GLOB = re.compile(r"[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+")


def _mime_glob(pattern: str) -> str:
    pattern = pattern.strip().lower()
    if not _MIME_GLOB.fullmatch(pattern):
        raise ValueError("must look like image/png, image/* or */*")
    return pattern


def _extension(extension: str) -> str:
    extension = extension.strip().lower().removeprefix(".")
    if not extension or "/" in extension:
        raise ValueError("must look like csv or tar.gz")
    return extension


MimeGlob = Annotated[str, AfterValidator(_mime_glob)]
Extension = Annotated[str, AfterValidator(_extension)]


class FileCriteria(RobotOptions):
    """Criteria for a file; a list is met if one of its entries is."""

    mime: Annotated[list[MimeGlob] | None, Field(min_length=1, max_length=1000)] = None
    extension: Annotated[list[Extension] | None, Field(min_length=1, max_length=1000)] = None
    min_bytes: Annotated[int | None, Field(ge=0, le=MAX_SIZE)] = None
    max_bytes: Annotated[int | None, Field(ge=0, le=MAX_SIZE)] = None

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("set at least one of mime, extension, min_bytes, max_bytes")
        if self.max_bytes is not None and (self.min_bytes or 0) > self.max_bytes:
            raise ValueError("min_bytes is above max_bytes")
        return self


class FileFilterOptions(RobotOptions):
    """A file is accepted if it meets all criteria of `accepts` and none of `declines`."""

    accepts: FileCriteria | None = None
    declines: FileCriteria | None = None
    error_on_decline: bool = False


@robot("/file/filter", options=FileFilterOptions)
def file_filter(
    source: RobotInput, options: FileFilterOptions, outputs: Outputs, _context: RobotContext
) -> RobotResult:
    """Decides without reading the file; a declined file has no output."""
    reason = _why_declined(source, options)
    if reason is None:
        outputs.forward(source)
        return RobotResult(counts={"accepted": 1, "declined": 0})
    if options.error_on_decline:
        raise FileDeclinedError(f"is not accepted: {reason}")
    return RobotResult(counts={"accepted": 0, "declined": 1}, warnings=(f"left out: {reason}",))


def _why_declined(source: RobotInput, options: FileFilterOptions) -> str | None:
    if options.accepts:
        for holds, fact in _compare(source, options.accepts):
            if not holds:
                return f"{fact} does not match accepts"
    if options.declines:
        for holds, fact in _compare(source, options.declines):
            if holds:
                return f"{fact} matches declines"
    return None


def _compare(source: RobotInput, criteria: FileCriteria) -> list[tuple[bool, str]]:
    """For each given criterion, whether it is met, and the file's value in words."""
    facts = []
    if criteria.mime is not None:
        mime = source.mime.partition(";")[0].strip().lower()
        facts.append((any(_matches(mime, glob) for glob in criteria.mime), f"its type {mime!r}"))
    if criteria.extension is not None:
        name = safe_name(source.name).lower()
        known = any(name.endswith(f".{extension}") for extension in criteria.extension)
        facts.append((known, "its extension"))
    if criteria.min_bytes is not None or criteria.max_bytes is not None:
        low = criteria.min_bytes or 0
        high = source.size if criteria.max_bytes is None else criteria.max_bytes
        facts.append((low <= source.size <= high, f"its size of {source.size} bytes"))
    return facts


def _matches(mime: str, glob: str) -> bool:
    """Whether a media type matches; `*` is any text before or after the slash."""
    return re.fullmatch(re.escape(glob).replace(r"\*", "[^/]*"), mime) is not None
