"""What scenarios on a local stage use of AWS, read from what its emulator and workers noted."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from statistics import mean
from typing import Any

from jobplane.bench import _billing as billing

FOLDER, TABLES = "usage", "dynamodb"
SQS = "sqs"
POSTS = "PostToConnection"
PUTS = frozenset({"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
                  "CopyObject", "ListObjectsV2"})  # fmt: skip
GETS = frozenset({"GetObject", "HeadObject"})
FROM_QUEUE = "aws:sqs"

type Row = dict[str, Any]


@contextmanager
def noting(directory: Path) -> Iterator[Path]:
    """Let a stage note what it uses; the folder with the notes, which is removed in the end."""
    folder = directory / FOLDER
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def used(folder: Path, short: Mapping[str, str], repeats: int) -> dict[str, Row]:
    """Read and remove the notes: what each function used, means over the repetitions.

    Args:
        short: names of functions by their names on the stage.

    Returns:
        By function: `invocations`, `processor_ms` and `calls` of AWS of an invocation, `peak_mb`,
        and `units`, by the names of prices.toml, without durations.
    """
    notes: dict[str, list[Row]] = defaultdict(list)
    calls: dict[str, list[Row]] = defaultdict(list)
    of_tables: list[Row] = []
    for path in sorted(folder.glob("*.jsonl")):
        lines = list(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
        path.unlink()
        if path.stem == TABLES:
            of_tables = lines
            continue
        name = short[path.stem.rpartition("-")[0]]
        notes[name] += [line for line in lines if "function" in line]
        calls[name] += [line for line in lines if "service" in line]
    found = {}
    for name, own in sorted(notes.items()):
        keys = {note["key"] for note in own}
        units: Counter[str] = Counter(invocations=len(own))
        for note in own:
            units += _of_invocation(note)
        for call in calls[name]:
            units += _of_call(call)
        for line in of_tables:
            if line["caller"] in keys:
                units += _of_table(line)
        traces = {note["trace"] or str(number) for number, note in enumerate(own)}
        units["traces"] = len(traces) * float(billing.TRACED)  # type: ignore[assignment]
        found[name] = {
            "invocations": round(len(own) / repeats, 3),
            "processor_ms": round(mean(_warm([note["cpu_ms"] for note in own])), 2),
            "calls": round(len(calls[name]) / len(own), 2),
            "peak_mb": round(max(note["peak_kb"] for note in own) / 1024, 1),
            "units": {unit: round(units[unit] / repeats, 4) for unit in sorted(units)},
        }
    return found


def noted(folder: Path) -> int:
    """The bytes of all notes: if they stay the same, nothing runs any more."""
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))


def _warm(times: list[float]) -> list[float]:
    """Without the slowest tenth."""
    return sorted(times)[: max(1, len(times) - len(times) // 10)]


def _of_invocation(note: Row) -> Counter[str]:
    found: Counter[str] = Counter()
    if note["source"] == FROM_QUEUE:
        found["queue_requests"] += 2  # Lambda receives the batch, and deletes it
    if note["route"] == "$default":
        messages = billing.socket_messages(note["in"]) + billing.socket_messages(note["out"])
        found["socket_messages"] += messages
    elif note["route"] and not note["route"].startswith("$"):
        found["http_requests"] += billing.http_requests(note["in"])
    return found


def _of_call(note: Row) -> Counter[str]:
    operation, size = note["operation"], note["bytes"]
    if operation == POSTS:
        return Counter({"socket_messages": billing.socket_messages(size)})
    if note["service"] == SQS:
        return Counter({"queue_requests": billing.queue_requests(size)})
    if operation in PUTS or operation in GETS:
        return Counter({"puts" if operation in PUTS else "gets": 1})
    return Counter()


def _of_table(line: Row) -> Counter[str]:
    is_transaction = line.get("in_transaction", False)
    written = sum(
        billing.units_of_write(write, in_transaction=is_transaction)
        for write in line.get("writes", ())
    )
    return Counter(read_units=line.get("read_units", 0), write_units=written)
