"""Log events of a stage's functions, and JSON log lines formatted for people."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Function

PLATFORM = re.compile(r"^(START|END|REPORT|INIT_START|INIT_REPORT|XRAY) ")
SHOWN_FIRST = frozenset({"timestamp", "level", "message", "function"})
# Fields that every line repeats; only `--json` prints them.
LEFT_OUT = frozenset({
    "_aws", "service", "Environment", "function_name", "function_arn", "function_memory_size",
    "function_version", "xray_trace_id",
})  # fmt: skip


@dataclass(frozen=True)
class LogEvent:
    function: str
    at: int
    """Epoch milliseconds."""
    text: str

    @property
    def is_platform(self) -> bool:
        return PLATFORM.match(self.text) is not None

    def document(self) -> dict[str, Any] | None:
        return parse_line(self.text)


def parse_line(text: str) -> dict[str, Any] | None:
    """A log line as a JSON object; None for other text."""
    if not text.startswith("{"):
        return None
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def is_metric(text: str) -> bool:
    return "_aws" in (parse_line(text) or ())


def readable(text: str) -> str:
    """A log line for people: level, message, then the rest as key=value."""
    document = parse_line(text)
    if document is None:
        return text
    level = "METRIC" if "_aws" in document else document.get("level", "")
    rest = " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in document.items()
        if key not in SHOWN_FIRST and key not in LEFT_OUT
    )
    return f"{level:7} {document.get('message', '')}  {rest}".rstrip()


def clock(at: int) -> str:
    """Milliseconds of the epoch as a time of day, UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]


def events(stage: Stage, functions: list[Function], since: int) -> list[LogEvent]:
    """The functions' log events since `since` (epoch milliseconds), in order of time."""
    found = [event for function in functions for event in _of_function(stage, function, since)]
    return sorted(found, key=lambda event: event.at)


def follow(stage: Stage, functions: list[Function], since: int) -> Iterator[LogEvent]:
    """The same, followed by new events, without end."""
    seen: set[tuple[str, int, str]] = set()
    while True:
        for event in events(stage, functions, since):
            key = (event.function, event.at, event.text)
            if key not in seen:
                seen.add(key)
                yield event
        # A line may arrive late, after a newer one.
        since = max(since, int(time.time() * 1000) - 60_000)
        seen = {key for key in seen if key[1] >= since}
        time.sleep(0.5)


def _of_function(stage: Stage, function: Function, since: int) -> Iterator[LogEvent]:
    client = stage.client("logs")
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName=f"/aws/lambda/{function.deployed_name(stage.name)}", startTime=since
    )
    try:
        for page in pages:
            for event in page["events"]:
                yield LogEvent(function.name, event["timestamp"], event["message"].rstrip("\n"))
    except client.exceptions.ResourceNotFoundException:
        return
