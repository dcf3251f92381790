"""Health of a stage: its alarms with the runbook's text, queues, and functions."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jobplane.console import api
from jobplane.console.backend import Backend
from jobplane_keys import iso_time

WINDOW_MINUTES = 60
METRICS = {
    "invocations": ("Invocations", "Sum"),
    "errors": ("Errors", "Sum"),
    "throttles": ("Throttles", "Sum"),
    "p50_ms": ("Duration", "p50"),
    "p95_ms": ("Duration", "p95"),
}
RUNBOOK = Path("docs/observing.md")
ORDER = {"ALARM": 0, "INSUFFICIENT_DATA": 1, "OK": 2}
MAX_QUERIES = 500


def health(backend: Backend, _asked: None) -> api.Health:
    """Alarms that ring first; queues and functions by name."""
    with ThreadPoolExecutor(3) as pool:
        ringing = pool.submit(lambda: list(alarms(backend)))
        queues = pool.submit(lambda: list(_queues(backend)))
        functions = pool.submit(lambda: list(_functions(backend)))
        found = sorted(ringing.result(), key=lambda alarm: (ORDER[alarm.state], alarm.name))
        return api.Health(
            alarms=found,
            alarms_off=not found,
            queues=sorted(
                queues.result(),
                key=lambda queue: (not (queue.is_dead_letter and queue.visible), queue.name),
            ),
            functions=functions.result(),
            window_minutes=WINDOW_MINUTES,
            now=iso_time(time.time()),
        )


def alarms(backend: Backend) -> Iterator[api.Alarm]:
    prefix = backend.stage.names.prefix
    pages = backend.client("cloudwatch").get_paginator("describe_alarms")
    for page in pages.paginate(AlarmNamePrefix=prefix):
        for alarm in page["MetricAlarms"]:
            says, _, place = alarm.get("AlarmDescription", "").partition(" See ")
            anchor = place.rstrip(".").partition("#")[2]
            title, text = runbook(backend.repository.root / RUNBOOK).get(anchor, (None, None))
            since = alarm.get("StateUpdatedTimestamp")
            dimensions = {d["Name"]: d["Value"] for d in alarm.get("Dimensions", ())}
            subject = next(iter(dimensions.values()), None)
            yield api.Alarm(
                name=backend.stage.names.short(alarm["AlarmName"]),
                state=alarm.get("StateValue", "INSUFFICIENT_DATA"),
                says=says,
                state_reason=alarm.get("StateReason"),
                since=iso_time(since.timestamp()) if since else None,
                subject=backend.stage.names.short(subject) if subject else None,
                section_title=title,
                section=text if alarm.get("StateValue") == "ALARM" else None,
                link=f"{RUNBOOK.as_posix()}#{anchor}" if anchor else None,
            )


@cache
def runbook(path: Path) -> dict[str, tuple[str, str]]:
    """The sections of the runbook, by their anchors: title and text."""
    if not path.is_file():
        return {}
    parts = re.split(r"^### (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        anchor = re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        found[anchor] = (title, re.split(r"^## ", text, flags=re.MULTILINE)[0].strip())
    return found


def _queues(backend: Backend) -> Iterator[api.Queue]:
    queues: dict[str, str] = backend.description["queues"]
    ages = _values(
        backend,
        {
            name: ("AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum",
                   {"QueueName": url.rpartition("/")[2]})
            for name, url in queues.items()
        },
        minutes=10,
    )  # fmt: skip
    client = backend.client("sqs")
    for name, url in sorted(queues.items()):
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        yield api.Queue(
            name=name,
            is_dead_letter="dlq" in name or name.endswith("-failed"),
            visible=int(found.get("ApproximateNumberOfMessages", 0)),
            in_flight=int(found.get("ApproximateNumberOfMessagesNotVisible", 0)),
            delayed=int(found.get("ApproximateNumberOfMessagesDelayed", 0)),
            oldest_seconds=ages.get(name),
        )


def _functions(backend: Backend) -> Iterator[api.FunctionHealth]:
    functions: dict[str, str] = backend.description["functions"]
    wanted = {
        f"{name}/{field}": ("AWS/Lambda", metric, stat, {"FunctionName": deployed})
        for name, deployed in functions.items()
        for field, (metric, stat) in METRICS.items()
    }
    values = _values(backend, wanted, minutes=WINDOW_MINUTES)
    for name in sorted(functions):
        found = {field: values.get(f"{name}/{field}") for field in METRICS}
        yield api.FunctionHealth(name=name, **found)


def _values(
    backend: Backend, wanted: dict[str, tuple[str, str, str, dict[str, str]]], *, minutes: int
) -> dict[str, float]:
    """One value of each metric for the last minutes, of those that have one."""
    end = datetime.now(UTC)
    names = list(wanted)
    found: dict[str, float] = {}
    for start in range(0, len(names), MAX_QUERIES):
        part = names[start : start + MAX_QUERIES]
        queries: list[dict[str, Any]] = []
        for number, name in enumerate(part):
            namespace, metric, stat, dimensions = wanted[name]
            listed = [{"Name": key, "Value": value} for key, value in dimensions.items()]
            what = {"Namespace": namespace, "MetricName": metric, "Dimensions": listed}
            queries.append({
                "Id": f"q{number}",
                "MetricStat": {"Metric": what, "Period": minutes * 60, "Stat": stat},
            })  # fmt: skip
        answer = backend.client("cloudwatch").get_metric_data(
            MetricDataQueries=queries,
            StartTime=end - timedelta(minutes=minutes),
            EndTime=end,
        )
        for result in answer["MetricDataResults"]:
            if result["Values"]:
                values = result["Values"]
                name = part[int(result["Id"][1:])]
                is_sum = wanted[name][2] == "Sum"
                found[name] = float(sum(values) if is_sum else max(values))
    return found
