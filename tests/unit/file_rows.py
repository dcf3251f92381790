"""Rows of a pipeline's files, for the tests of the rules in jobplane_files."""

from collections.abc import Iterator
from typing import Any

from jobplane_files import Pipeline, Row
from jobplane_keys import iso_time, to_item

NOW = 1_795_342_530.25
DAY = "2026-11-22"
MINUTE, HOUR = 60, 3600
PATH = f"s3://input/pipeline/input/{DAY}/a.ndjson"
MANIFEST = f"s3://manifests/{DAY}/m.json"
PIPELINE = Pipeline(input_bucket="input", output_bucket="output")


def row(
    status: Any = "processing#3", *, date: str = DAY, key: str = "a.ndjson", **more: Any
) -> Row:
    """A file's row without times; `...` leaves an attribute out."""
    values = {"date_prefix": date, "file_key": key, "status": status} | more
    return Row(to_item({name: value for name, value in values.items() if value is not ...}))


def manifest_row(status: str = "pending", **more: Any) -> Row:
    """A manifest's row without times."""
    return row(status, key="MANIFEST#m.json", **more)


def ago(hours: float = 0) -> str:
    """The ISO time so many hours before NOW."""
    return iso_time(NOW - hours * HOUR)


def in_pages(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """Rows as a Query gives them; empty pages are possible."""
    for start in range(0, len(rows) + 1, size):
        yield rows[start : start + size]
