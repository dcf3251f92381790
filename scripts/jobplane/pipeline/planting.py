"""Writes a state to a stage, and removes a pipeline's files from it."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import Any

from jobplane.pipeline.layout import Layout
from jobplane.pipeline.state import State
from jobplane.stage.stages import Stage
from jobplane_keys import to_item
from jobplane_keys.tracking import LOCK_PREFIX

THREADS = 8
BATCH_WRITE = 25
DELETE_OBJECTS = 1000
SCAN_SEGMENTS = 4
MAX_PAUSE = 5.0

type Advance = Callable[[int], object]


def _nowhere(_number: int) -> None:
    """Ignore progress."""


def write(stage: Stage, state: State, advance: Advance = _nowhere) -> None:
    """Put the state's objects and rows where its layout says.

    Objects come before rows, so that each row has its object, and locks last, since they expire
    after minutes. `advance` is called with the number of parts written, out of `size`.
    """
    table = state.layout.tracking_table
    locks = {key: row for key, row in state.rows.items() if key[0].startswith(LOCK_PREFIX)}
    rows = [row for key, row in state.rows.items() if key not in locks]
    for bucket, objects in state.objects.items():
        put_objects(stage, bucket, objects, advance)
    put_rows(stage, table, rows, advance)
    put_rows(stage, table, list(locks.values()), advance)


def size(state: State) -> int:
    return len(state.rows) + sum(map(len, state.objects.values()))


def put_objects(
    stage: Stage, bucket: str, objects: Mapping[str, bytes], advance: Advance = _nowhere
) -> None:
    s3 = stage.client("s3")
    with ThreadPoolExecutor(THREADS) as pool:
        uploads = [
            pool.submit(s3.put_object, Bucket=bucket, Key=key, Body=body)
            for key, body in objects.items()
        ]
        for upload in uploads:
            upload.result()
            advance(1)


def put_rows(
    stage: Stage, table: str, rows: Sequence[dict[str, Any]], advance: Advance = _nowhere
) -> None:
    _write_items(stage, table, ({"PutRequest": {"Item": to_item(row)}} for row in rows), advance)


def clear(stage: Stage, layout: Layout) -> tuple[int, int]:
    """Remove all rows of the tracking table and all objects of the pipeline; the number of each."""
    dynamodb, s3 = stage.client("dynamodb"), stage.client("s3")
    places = (
        (layout.input_bucket, layout.input_prefix),
        (layout.manifest_bucket, "manifests/"),
        (layout.output_bucket, f"{layout.output_prefix}merged-parquet-"),
        (layout.quarantine_bucket, layout.quarantine_prefix),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        objects = sum(pool.map(lambda place: _delete_objects(s3, *place), places))
        keys = [
            key
            for found in pool.map(
                lambda segment: list(_keys(dynamodb, layout.tracking_table, segment)),
                range(SCAN_SEGMENTS),
            )
            for key in found
        ]
    _write_items(
        stage, layout.tracking_table, ({"DeleteRequest": {"Key": key}} for key in keys), _nowhere
    )
    return len(keys), objects


def _write_items(
    stage: Stage, table: str, requests: Iterable[dict[str, Any]], advance: Advance
) -> None:
    client = stage.client("dynamodb")
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [
            pool.submit(_write_batch, client, table, part)
            for part in batched(requests, BATCH_WRITE, strict=False)
        ]
        for part in parts:
            advance(part.result())


def _write_batch(client: Any, table: str, requests: Sequence[dict[str, Any]]) -> int:
    left, attempt = list(requests), 0
    while left:
        answer = client.batch_write_item(RequestItems={table: left})
        left = answer.get("UnprocessedItems", {}).get(table, [])
        if left:
            attempt += 1
            time.sleep(random.uniform(0, min(MAX_PAUSE, 0.05 * 2**attempt)))
    return len(requests)


def _keys(client: Any, table: str, segment: int) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(
        TableName=table,
        ProjectionExpression="date_prefix, file_key",
        Segment=segment,
        TotalSegments=SCAN_SEGMENTS,
        ConsistentRead=True,
    )
    for page in pages:
        yield from page["Items"]


def _delete_objects(s3: Any, bucket: str, prefix: str) -> int:
    deleted = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for part in batched(page.get("Contents", []), DELETE_OBJECTS, strict=False):
            named = [{"Key": found["Key"]} for found in part]
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})
            if answer.get("Errors"):
                raise RuntimeError(f"{bucket}: {answer['Errors'][0]}")
            deleted += len(named)
    return deleted
