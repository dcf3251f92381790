"""A date's rows compared with the objects in the buckets."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import unquote_plus

from jobplane_files._manifests import Manifest, spellings
from jobplane_files._pipeline import Pipeline
from jobplane_files._rows import DAY, Row
from jobplane_keys.tracking import FILE_SUFFIX, FileStatus

type Issue = dict[str, Any]

_IN_A_MANIFEST = (FileStatus.MANIFESTED, FileStatus.PROCESSING, FileStatus.COMPLETED)
_SIZE_TOLERANCE_MB = 0.01
_MEGABYTE = 1024 * 1024


@dataclass(slots=True)
class Buckets:
    """A date's objects in the buckets; None where a listing is incomplete."""

    inputs: dict[str, list[dict[str, Any]]] | None = None
    """Objects as S3 lists them, by the last part of their keys."""
    outputs: set[str] | None = None
    """Keys."""
    quarantined: set[str] | None = None
    """The last parts of keys."""
    unknown: list[dict[str, Any]] = field(default_factory=list)
    """What could not be listed, and why."""

    def add_listing(self, subject: str, objects: Iterable[dict[str, Any]]) -> None:
        """The complete listing of the date's `input`, `output` or `quarantine`, as S3 gives it."""
        if subject == "output":
            self.outputs = {found["Key"] for found in objects}
        elif subject == "quarantine":
            self.quarantined = {_last_part(found["Key"]) for found in objects}
        else:
            self.inputs = {}
            for found in objects:
                if is_ndjson(name := _last_part(found["Key"])):
                    self.inputs.setdefault(name, []).append(found)

    @property
    def input_count(self) -> int | None:
        """The number of files in the input; None when it is unknown."""
        return None if self.inputs is None else sum(map(len, self.inputs.values()))


def _last_part(key: str) -> str:
    return key.rpartition("/")[2]


def is_ndjson(name: str) -> bool:
    """Whether a name is that of a file of the pipeline."""
    return name.endswith(FILE_SUFFIX)


def object_issues(name: str, names: Collection[str], buckets: Buckets) -> Iterator[Issue]:
    """The objects in the input with a name, compared with the names of all rows of the date."""
    keys = sorted(found["Key"] for found in (buckets.inputs or {})[name])
    if len(keys) > 1:
        yield {"type": "basename_collision", "file_key": name, "keys": keys}
    # A quarantined file has no row. Without the quarantine's listing any object may be one.
    refused = buckets.quarantined is None or name in buckets.quarantined
    if not (refused or name in names):
        yield {"type": "missing_in_dynamodb", "file_key": name, "key": keys[0]}


def row_issues(
    day: str,
    file: Row,
    buckets: Buckets,
    manifest: Manifest | None,
    pipeline: Pipeline,
    now: float,
) -> Iterator[Issue]:
    """A row of a date compared with its object in the input, its output and its manifest.

    `manifest` is None when the file has none, or it was not looked up.
    """
    about = {"file_key": file.file_key, "status": file.values.get("status")}
    if file.status is None:
        yield {"type": "unknown_status", **about}
    own_date = _date_in(file, pipeline)
    if own_date is not None and own_date != day:
        yield {"type": "wrong_date_partition", **about, "expected_date": own_date}
    elif buckets.inputs is not None and is_ndjson(file.file_key):
        yield from input_issues(day, file, buckets.inputs, pipeline, now)
    if file.status is FileStatus.COMPLETED and buckets.outputs is not None:
        yield from output_issues(day, file, buckets.outputs, pipeline)
    if manifest is None or manifest.unknown:
        return
    if manifest.missing:
        if file.status in {FileStatus.MANIFESTED, FileStatus.PROCESSING}:
            yield {"type": "missing_manifest", **about, "manifest_path": file.manifest_path}
    elif file.status in _IN_A_MANIFEST and not manifest.lists(file):
        yield {"type": "not_in_manifest", **about, "manifest_path": file.manifest_path}


def _date_in(file: Row, pipeline: Pipeline) -> str | None:
    """The date in the path of a file that lies in the input."""
    path, root = unquote_plus(str(file.values.get("file_path") or "")), pipeline.input_root
    found = re.search(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", path.removeprefix(root))
    return found[0] if found and path.startswith(root) else None


def input_issues(
    day: str,
    file: Row,
    inputs: Mapping[str, list[dict[str, Any]]],
    pipeline: Pipeline,
    now: float,
) -> Iterator[Issue]:
    """A row compared with its object in the input."""
    about = {"file_key": file.file_key, "status": file.values.get("status")}
    names = (file.file_key, unquote_plus(file.file_key))
    objects = next((inputs[name] for name in names if name in inputs), None)
    if objects is None:
        ended = file.status in {FileStatus.COMPLETED, FileStatus.QUARANTINED}
        uploaded = file.time("created_at") or file.time("upload_time") or _midnight(day)
        if not ended and now - uploaded <= pipeline.input_days * DAY:
            yield {"type": "missing_in_s3", **about}
        return
    paths = spellings(str(file.values.get("file_path") or ""))
    own = [found for found in objects if any(path.endswith(found["Key"]) for path in paths)]
    size = (own or objects)[0]["Size"] / _MEGABYTE
    recorded = file.values.get("file_size_mb")
    is_number = isinstance(recorded, int | float) and not isinstance(recorded, bool)
    if is_number and abs(recorded - size) > _SIZE_TOLERANCE_MB:
        sizes = {"db_size_mb": recorded, "s3_size_mb": round(size, 6)}
        yield {"type": "size_mismatch", **about, **sizes}


def output_issues(
    day: str, file: Row, outputs: Collection[str], pipeline: Pipeline
) -> Iterator[Issue]:
    """A completed row compared with its output."""
    root = f"s3://{pipeline.output_bucket}/"
    path = str(file.values.get("output_path") or "")
    where = root + pipeline.outputs_of(day)
    # A path that was not listed can't be checked; then any output of the date is enough.
    if path.startswith(where):
        key = path.removeprefix(root)
        is_there = key in outputs or any(output.startswith(key) for output in outputs)
    else:
        is_there = bool(outputs)
    if not is_there:
        about = {"file_key": file.file_key, "status": file.values.get("status")}
        yield {"type": "missing_output", **about, "output_path": path or where}


def _midnight(day: str) -> float:
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * DAY
