"""One job: its timeline, why it waits, its logs; and what an operator may do with it."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jobplane.console import api
from jobplane.console.backend import Backend, ProblemError
from jobplane.console.documents import webhook_state
from jobplane.console.listing import Listing, key_of_job, shown_row
from jobplane.stage.log_lines import parse_line
from jobplane_keys import (
    TERMINAL_STATUSES,
    RequestStatus,
    from_item,
    is_executing_assembly,
    is_past,
    is_terminal_assembly,
    iso_time,
    pages,
    parse_iso_time,
    read_item,
    split_owner_key,
)
from jobplane_keys.lanes import split_lane_row, waiting_shards

MAX_TEXT = 20_000
MAX_STEP_TEXT = 2_000
MAX_LINES = 1_000
SWEEP_SECONDS = 60
REPLAY = re.compile(r"\.replay-[0-9a-f]{8}$")
IN_FLIGHT_SECONDS = 5.0
"""All jobs in flight are read at most so often."""

PICKED_UP_SECONDS = 60
"""A job that is queued for longer has no free worker, or its message was lost."""

NOT_ENDED: tuple[api.JobStatus, ...] = ("SCHEDULED", "PENDING", "PROCESSING", "RETRYING")

type Row = dict[str, Any]

# What a function's log lines say about a job: the kind of the event, its title, and whether it is
# a problem.
LOGGED: dict[str, tuple[str, str, bool]] = {
    "request acknowledged": ("received", "Acknowledged to the client", False),
    "requests dispatched": ("dispatched", "A message for a worker was sent to the queue", False),
    "attempt failed": ("attempt", "An attempt failed", True),
    "job handed over": ("put_back", "Handed over to the next invocation", False),
    "lease lost, stopped": ("attempt", "The worker had lost its lease, and stopped", True),
    "request requeued": ("put_back", "The sweeper put it back: its lease had run out", True),
    "request ended after its last lease ran out": (
        "ended", "The sweeper ended it: no attempt was left", True,
    ),
    "webhook_delivery": ("webhook", "An attempt to deliver the webhook", False),
    "webhook not delivered": ("webhook", "The webhook could not be delivered", True),
}  # fmt: skip


def read_job(backend: Backend, key: api.JobKey) -> Row:
    """The row of a job, as it is now. Raises ProblemError."""
    owner, job = key_of_job(key)
    row = read_item(
        backend.dynamodb, backend.table("requests"), {"owner": owner, "request_id": job}
    )
    if row is None or is_past(row.get("ttl"), time.time()):
        text = f"no job {key.id} of {key.user} in {key.tenant}; jobs are kept for seven days"
        raise ProblemError(404, "NOT_FOUND", text)
    found: Row = row
    return found


def job(backend: Backend, key: api.JobKey) -> api.Job:
    """All that the tables say about a job."""
    row, now = read_job(backend, key), time.time()
    document = _document(backend, row)
    has_ended = row["status"] in TERMINAL_STATUSES
    shown = shown_row(row, now)
    may_write = backend.read_only_because is None
    assembly = assembly_of(backend, document) if document else None
    replayed = replay_of(backend, key) if has_ended else None
    return api.Job(
        job=shown,
        waits=None if has_ended else why(row, lane_of(backend, row), now),
        timeline=sorted(timeline(row, document), key=lambda event: event.at),
        steps=[*_steps(row), *_steps_of(document or {})],
        assembly=assembly,
        payload=_cut(row.get("payload")),
        result=_cut(row.get("result")),
        metadata={
            name: _cut(str(value), MAX_STEP_TEXT) or ""
            for name, value in (row.get("metadata") or {}).items()
        },
        lane=row.get("lane"),
        priority=(row.get("metadata") or {}).get("priority", "normal"),
        trace_id=(row.get("trace_header") or "").partition("Root=")[2].partition(";")[0] or None,
        expires_at=iso_time(row["ttl"]) if "ttl" in row else None,
        replayed_as=replayed["request_id"] if replayed else None,
        can=api.JobActions(
            cancel=may_write and not has_ended,
            replay=may_write and has_ended and replayed is None,
            resend_webhook=may_write and bool(assembly and assembly.webhook and has_ended),
            put_back=may_write and not has_ended and float(row["lease_until"]) <= now,
        ),
        now=iso_time(now),
    )


def _document(backend: Backend, row: Mapping[str, Any]) -> Row | None:
    if "assembly_id" not in row or not backend.has("table", "assemblies"):
        return None
    key = {"assembly_id": row["assembly_id"]}
    found: Row | None = read_item(backend.dynamodb, backend.table("assemblies"), key)
    return found


def _cut(text: Any, most: int = MAX_TEXT) -> str | None:
    if not isinstance(text, str):
        return None if text is None else _cut(json.dumps(text, ensure_ascii=False), most)
    if len(text) <= most:
        return text
    return f"{text[:most]}… (the first {most:,} of {len(text):,} characters)"


def _steps(row: Mapping[str, Any]) -> list[api.StepRow]:
    """The stored steps of a job; those that are an object have no names here."""
    return [
        api.StepRow(
            name=entry["name"],
            state="stored",
            result=_cut(entry.get("result"), MAX_STEP_TEXT),
            files=None,
        )
        for entry in row.get("steps", ())
    ]


def _steps_of(document: Mapping[str, Any]) -> Iterator[api.StepRow]:
    """The steps of an assembly that have results, and the current one."""
    results = document.get("results") or {}
    for name, files in results.items():
        yield api.StepRow(name=name, state="done", result=None, files=len(files))
    current = document.get("current_step")
    if current and current not in results and not is_terminal_assembly(document):
        yield api.StepRow(name=current, state="running", result=None, files=None)


def assembly_of(backend: Backend, document: Mapping[str, Any]) -> api.AssemblySummary:
    """What the page shows of an assembly's document."""
    results = document.get("results") or {}
    running = "EXECUTING" if is_executing_assembly(document) else "WAITING"
    return api.AssemblySummary(
        assembly_id=document["assembly_id"],
        template_id=document.get("template_id", ""),
        state=document.get("error") or document.get("ok") or running,
        message=document.get("message", ""),
        files_received=len(document.get("uploads") or ()),
        files_made=sum(map(len, results.values())),
        bytes_usage=int(document.get("bytes_usage") or 0),
        steps_completed=document.get("steps_completed"),
        steps_total=document.get("steps_total"),
        current_step=document.get("current_step"),
        warnings=[str(warning) for warning in document.get("warnings") or ()],
        webhook=webhook_state(backend, document) if document.get("webhook") else None,
    )


def timeline(
    row: Mapping[str, Any], document: Mapping[str, Any] | None
) -> Iterator[api.TimelineEvent]:
    """What the row and the document say has happened."""

    def event(
        at: str, kind: str, title: str, detail: str | None = None, **more: Any
    ) -> api.TimelineEvent:
        known = {"at": at, "kind": kind, "title": title, "detail": detail}
        rest = {"by": None, "is_problem": False, "source": "row"}
        return api.TimelineEvent.model_validate({**known, **rest, **more})

    yield event(row["created_at"], "received", f"Received: {row['action']}", by="router")
    if "run_at" in row:
        yield event(row["created_at"], "scheduled", f"Scheduled for {row['run_at']}", by="router")
    if "waiting_since" in row:
        why_ = row.get("waiting_for", "lane_full").replace("_", " ")
        title = f"Waits for a slot of {row.get('lane', 'its lane')}"
        yield event(row["waiting_since"], "waiting", title, why_, by="dispatch")
    if "started_at" in row:
        yield event(row["started_at"], "started", "The first attempt began", by="processor")
    if progress := row.get("progress"):
        text = f"{progress.get('percentage', 0):g} %"
        yield event(
            progress.get("at", row["updated_at"]), "progress",
            progress.get("message") or "Progress", text, by="processor",
        )  # fmt: skip
    if row.get("cancel_requested") and row["status"] not in TERMINAL_STATUSES:
        title = "Its worker was asked to stop"
        yield event(row["updated_at"], "cancel_requested", title, by="router")
    if "ended_at" in row:
        error = row.get("error") or {}
        detail = f"{error.get('code')}: {error.get('message')}" if error else None
        attempts = row.get("attempts", 0)
        times = f"after {attempts} attempt{'' if attempts == 1 else 's'}"
        yield event(
            row["ended_at"], "ended", f"Ended as {row['status']}",
            f"{detail or 'no error'}, {times}",
            is_problem=row["status"] == RequestStatus.FAILED,
        )  # fmt: skip
    webhook = (document or {}).get("webhook") or {}
    if "last_attempt_at" in webhook:
        code = webhook.get("last_response_code")
        answer = f"the receiver answered {code}" if code else "the receiver did not answer"
        yield event(
            webhook["last_attempt_at"], "webhook", f"Webhook: {webhook.get('status')}",
            f"attempt {webhook.get('attempts', 0)}: {answer}", by="deliver-webhook",
            source="document", is_problem=webhook.get("status") not in {"delivered", "pending"},
        )  # fmt: skip


class LaneNow(NamedTuple):
    """A lane's slots, and the jobs that wait for them before another one."""

    slots: int | None
    running: int
    ahead: int | None


def lane_of(backend: Backend, row: Mapping[str, Any]) -> LaneNow | None:
    """The lane for which a job waits, or in which it runs."""
    name = row.get("lane")
    if not name or not backend.has("table", "lanes"):
        return None
    running = sum(
        len(each.get("slots", ())) for each in _lane_rows(backend) if each["name"] == name
    )
    ahead = None
    if "waiting_lane" in row:
        ahead = sum(
            backend.dynamodb.query(
                TableName=backend.table("requests"),
                IndexName="waiting",
                Select="COUNT",
                KeyConditionExpression="waiting_lane = :lane AND waiting_order < :order",
                ExpressionAttributeValues={
                    ":lane": {"S": shard},
                    ":order": {"S": row["waiting_order"]},
                },
            )["Count"]
            for shard in waiting_shards(name)
        )
    return LaneNow(row.get("lane_limit"), running, ahead)


def _lane_rows(backend: Backend) -> list[Row]:
    scan = {"TableName": backend.table("lanes")}
    rows = []
    for page in pages(backend.dynamodb.scan, scan):
        for item in map(from_item, page["Items"]):
            name, number = split_lane_row(item["lane"])
            rows.append(item | {"name": name, "number": number})
    return rows


def why(row: Mapping[str, Any], lane: LaneNow | None, now: float) -> api.WhyItWaits:
    """Why a job that has not ended is where it is, and who acts next, when."""
    summary, next_step, next_at, is_problem = _why(row, lane, now)
    until = float(row["lease_until"])
    most = row.get("max_attempts")
    return api.WhyItWaits(
        summary=summary,
        next_step=next_step,
        next_at=iso_time(next_at) if next_at is not None else None,
        is_problem=is_problem,
        last_writer=row.get("lease_owner"),
        last_write_at=row.get("updated_at"),
        lease_until=iso_time(until),
        lease_is_over=until <= now,
        attempts_left=max(0, int(most) - int(row.get("attempts", 0))) if most else None,
        lane=row.get("lane"),
        lane_running=lane.running if lane else None,
        lane_slots=lane.slots if lane else None,
        ahead=lane.ahead if lane else None,
    )


def _why(
    row: Mapping[str, Any], lane: LaneNow | None, now: float
) -> tuple[str, str, float | None, bool]:
    """Summary, next step, when that is, and whether it is late."""
    until = float(row["lease_until"])
    late = until + 2 * SWEEP_SECONDS < now
    swept = max(until, now) + SWEEP_SECONDS
    attempts, most = int(row.get("attempts", 0)), int(row.get("max_attempts", 1))
    match row["status"]:
        case RequestStatus.PROCESSING if until > now:
            summary = f"A worker runs it: attempt {attempts} of {most}."
            step = "The worker renews its lease with each progress, and ends the job."
            if row.get("cancel_requested"):
                summary = "A worker runs it, and was asked to stop."
                step = "The worker ends the job at its next report of progress."
            return summary, f"{step} If it stops, its lease ends at {_clock(until)}.", None, False
        case RequestStatus.PROCESSING:
            summary = (
                f"Its worker has stopped: the lease ran out {_span(now - until)} ago,"
                f" in attempt {attempts} of {most}."
            )
            step = "puts it back into the queue" if attempts < most else "ends it as FAILED"
            return summary, f"The sweeper of processor {step} within a minute.", swept, True
        case RequestStatus.SCHEDULED:
            summary = f"It is not due before {row['run_at']}."
            step = "Its message is delivered when it is due, or the sweeper of processor starts it."
            return summary, step, parse_iso_time(row["run_at"]), late
        case RequestStatus.RETRYING if (callback := row.get("callback")) and callback.get("sent"):
            summary = "It waits for an answer from outside (a callback)."
            step = (
                "The holder of the token returns it; without an answer the callback times out at"
                f" {_clock(callback['expires'])}."
            )
            return summary, step, float(callback["expires"]), late
        case RequestStatus.RETRYING if "lease_owner" in row:
            summary = f"Attempt {attempts} of {most} failed; its worker keeps it for the next one."
            step = "The worker begins the next attempt within seconds."
            return summary, f"{step} If it stops, the sweeper takes it.", swept, until <= now
        case RequestStatus.RETRYING:
            summary = f"It was put back after attempt {attempts} of {most}, and no worker has it."
            step = f"The sweeper of processor puts it into the queue after {_clock(until)}."
            return summary, step, swept, late
        case _ if "waiting_since" in row:
            return _why_lane(row, lane, now)
        case _ if row.get("starts_at", "") > iso_time(now):
            summary = f"As many jobs of {row['action']} have started as may in a minute."
            step = f"It has a start time, {row['starts_at']}; its message is delivered then."
            return summary, step, parse_iso_time(row["starts_at"]), False
    waits = now - parse_iso_time(row["updated_at"])
    summary = f"It is in the queue `jobs` since {_span(waits)}, and no worker has taken it."
    step = (
        "The next free worker of processor takes it. If its message was lost, the sweeper sends"
        f" another after {_clock(until)}."
    )
    return summary, step, swept if waits > PICKED_UP_SECONDS else None, waits > PICKED_UP_SECONDS


def _why_lane(
    row: Mapping[str, Any], lane: LaneNow | None, now: float
) -> tuple[str, str, float | None, bool]:
    name = row.get("lane", "its lane")
    waits = now - parse_iso_time(row["waiting_since"])
    if row.get("waiting_for") == "rate":
        summary = f"It waits for a start time of {name}: as many start in a minute as may."
    elif lane is None:
        summary = f"It waits for a slot of {name}."
    else:
        summary = f"It waits for a slot of {name}: {lane.running} of {lane.slots} are taken"
        summary += f", and {lane.ahead} jobs wait before it." if lane.ahead else "."
    is_free = lane is not None and lane.slots is not None and lane.running < lane.slots
    step = "When a job of the lane ends, dispatch starts the next one; its sweep does every minute."
    return summary, step, None, is_free and waits > 2 * SWEEP_SECONDS


def _clock(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%H:%M:%S UTC")


def _span(seconds: float) -> str:
    """Seconds for people: `12 s`, `3 min`, `2 h`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def in_flight(backend: Backend) -> tuple[list[Row], bool]:
    """The rows of jobs in flight, and whether there are more of them."""
    chosen = api.JobFilter(status=list(NOT_ENDED))
    return backend.remembered(
        "in-flight", IN_FLIGHT_SECONDS, lambda: Listing(backend).sorted_in_flight(chosen)
    )


def known_lanes(backend: Backend) -> api.Lanes:
    """The lanes, as they were seconds ago."""
    return backend.remembered("lanes", IN_FLIGHT_SECONDS, lambda: lanes(backend))


def lanes(backend: Backend) -> api.Lanes:
    """The lanes with their slots and queues, and the jobs in flight by status."""
    now = time.time()
    grouped: dict[str, list[Row]] = {}
    if backend.has("table", "lanes"):
        for row in _lane_rows(backend):
            grouped.setdefault(row["name"], []).append(row)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: _lane(backend, *each), sorted(grouped.items())))
    rows, is_cut = in_flight(backend)
    totals = []
    for status in NOT_ENDED:
        created = [row["created_at"] for row in rows if row["status"] == status]
        totals.append(
            api.StatusTotal(
                status=status, count=len(created), oldest_since=min(created, default=None)
            )
        )
    return api.Lanes(lanes=found, totals=totals, at_least=is_cut, now=iso_time(now))


def _lane(backend: Backend, name: str, rows: list[Row]) -> api.LaneRow:
    first = next((row for row in rows if row["number"] == 0), rows[0])
    limits = [int(row["lane_limit"]) for row in rows if "lane_limit" in row]
    running = sum(len(row.get("slots", ())) for row in rows)
    waiting, oldest = 0, None
    for shard in waiting_shards(name):
        query = {
            "TableName": backend.table("requests"),
            "IndexName": "waiting",
            "KeyConditionExpression": "waiting_lane = :lane",
            "ExpressionAttributeValues": {":lane": {"S": shard}},
        }
        for page in pages(backend.dynamodb.query, query):
            waiting += page["Count"]
            for item in map(from_item, page["Items"]):
                since = item["waiting_order"].partition("#")[2]
                if oldest is None or since < oldest[0]:
                    oldest = (since, item)
    kind, _, short = name.partition("#")
    slots = max(limits, default=None)
    return api.LaneRow(
        lane=name,
        kind="tenant" if kind == "tenant" else "action",
        name=short,
        slots=slots,
        per_minute=first.get("lane_rate"),
        running=running,
        waiting=waiting,
        oldest_since=oldest[0] if oldest else None,
        oldest=_job_key(oldest[1]) if oldest else None,
        is_full=slots is not None and running >= slots,
    )


def _job_key(row: Mapping[str, Any]) -> api.JobKey:
    tenant, user = split_owner_key(row["owner"])
    return api.JobKey(tenant=tenant, user=user, id=row["request_id"])


def logs(backend: Backend, key: api.JobKey) -> api.JobLogs:
    """The lines of all functions that have the job's id, or its assembly's."""
    row = read_job(backend, key)
    ids = [key.id, *([row["assembly_id"]] if "assembly_id" in row else [])]
    begin = int((parse_iso_time(row["created_at"]) - 60) * 1000)
    functions = backend.description["functions"]
    with ThreadPoolExecutor(8) as pool:
        parts = list(
            pool.map(
                lambda name: _lines(backend, name, functions[name], ids, begin), sorted(functions)
            )
        )
    lines = sorted((line for found, _ in parts for line in found), key=lambda line: line.at)
    is_complete = all(is_whole for _, is_whole in parts)
    own = [line for line in lines if _is_about(line, key, row)]
    return api.JobLogs(
        lines=own,
        events=[event for line in own if (event := _event(line)) is not None],
        is_complete=is_complete,
        note=None if is_complete else f"only the first {MAX_LINES} lines of a function are shown",
    )


def _is_about(line: api.LogLine, key: api.JobKey, row: Mapping[str, Any]) -> bool:
    """Whether a line is about this job, and not another user's with the same id."""
    fields = line.fields
    same = fields.get("tenant_id", key.tenant) == key.tenant
    same = same and fields.get("user_id", key.user) == key.user
    listed = fields.get("request_ids")
    return same and (
        fields.get("request_id") == key.id
        # dispatch names no owners: what is older than the job is another one's.
        or (isinstance(listed, list) and key.id in listed and line.at >= row["created_at"])
        or ("assembly_id" in row and fields.get("assembly_id") == row["assembly_id"])
    )


def _lines(
    backend: Backend, function: str, deployed: str, ids: list[str], begin: int
) -> tuple[list[api.LogLine], bool]:
    client = backend.client("logs")
    pattern = " ".join(f'?"{each}"' for each in ids)
    listed = client.get_paginator("filter_log_events").paginate(
        logGroupName=f"/aws/lambda/{deployed}", startTime=begin, filterPattern=pattern
    )
    found: list[api.LogLine] = []
    try:
        for page in listed:
            for event in page["events"]:
                document = parse_line(event["message"])
                if document is not None and "_aws" not in document:
                    found.append(_line(function, event["timestamp"], document))
            if len(found) > MAX_LINES:
                return found[:MAX_LINES], False
    except client.exceptions.ResourceNotFoundException:
        pass
    return found, True


# Fields of each line that the page shows elsewhere, or that say nothing about a job.
PLAIN = frozenset({
    "level", "message", "timestamp", "service", "function_name", "function_arn", "cold_start",
    "function_memory_size", "function_version", "function_request_id",
})  # fmt: skip


def _line(function: str, at: int, document: Mapping[str, Any]) -> api.LogLine:
    level = str(document.get("level", "INFO"))
    fields = {name: value for name, value in document.items() if name not in PLAIN}
    if len(text := json.dumps(fields, ensure_ascii=False)) > MAX_TEXT:
        fields = {"fields": _cut(text)}
    return api.LogLine(
        at=str(document.get("timestamp") or iso_time(at / 1000)),
        function=function,
        level=level,
        message=_cut(str(document.get("message", "")), MAX_STEP_TEXT) or "",
        invocation=document.get("function_request_id"),
        fields=fields,
        is_problem=level in {"WARNING", "ERROR"},
    )


def _event(line: api.LogLine) -> api.TimelineEvent | None:
    if line.message not in LOGGED:
        return None
    kind, title, is_problem = LOGGED[line.message]
    shown = ("attempt", "attempts", "error", "status", "transient", "delivered", "status_code")
    parts = [f"{name} {line.fields[name]}" for name in shown if name in line.fields]
    return api.TimelineEvent.model_validate({
        "at": line.at,
        "kind": kind,
        "title": title,
        "detail": ", ".join(parts) or None,
        "by": line.function,
        "is_problem": is_problem,
        "source": "log",
    })  # fmt: skip


def performed(backend: Backend, key: api.JobKey, message: Mapping[str, Any]) -> Row:
    """The answer of router to a message of a job's owner. Raises ProblemError."""
    caller = {"user_id": key.user, "tenant_id": key.tenant, "permissions": []}
    event = {"caller": caller, "messages": [json.dumps(message)]}
    (answer,) = backend.invoke("router", event)["answers"]
    if answer["type"] == "error":
        error = answer["error"]
        known = {"NOT_FOUND": (404, "NOT_FOUND"), "VALIDATION_ERROR": (400, "VALIDATION_ERROR")}
        status, code = known.get(error["code"], (409, "CONFLICT"))
        raise ProblemError(status, code, f"router: {error['code']}: {error['message']}")
    found: Row = answer
    return found


def cancel(backend: Backend, key: api.JobKey) -> api.Done:
    """Cancel a job as its owner would."""
    message = {"action": "cancel", "payload": {"request_id": key.id}}
    status = performed(backend, key, message)["data"]["status"]
    texts = {
        "cancelled": f"{key.id} is cancelled.",
        "cancelling": f"The worker of {key.id} was asked to stop; it ends within seconds.",
    }
    return api.Done(message=texts.get(status, f"Nothing changed: {key.id} had ended as {status}."))


def id_of_replay(job_id: str) -> str:
    """The id of a job's replay: the same each time, so that two operators make one new job."""
    digest = hashlib.sha256(job_id.encode()).hexdigest()[:8]
    return f"{REPLAY.sub('', job_id)[:100]}.replay-{digest}"


def replay_of(backend: Backend, key: api.JobKey) -> Row | None:
    """The row of a job's replay, if it was replayed with a console."""
    owner, _ = key_of_job(key)
    place = {"owner": owner, "request_id": id_of_replay(key.id)}
    row: Row | None = read_item(backend.dynamodb, backend.table("requests"), place)
    return row if row is not None and row.get("replay_of") == key.id else None


def replay(backend: Backend, key: api.JobKey) -> api.Replayed:
    """Run an ended job once more, as a new job of its owner. Raises ProblemError the second time:
    then the new job is what can be replayed.
    """
    if (known := replay_of(backend, key)) is not None:
        text = f"it was replayed already, as {known['request_id']}, which is {known['status']}"
        raise ProblemError(409, "CONFLICT", f"{text}; to run it once more, replay that job")
    made = key.model_copy(update={"id": id_of_replay(key.id)})
    message = {"id": made.id, "action": "replay", "payload": {"request_id": key.id}}
    performed(backend, key, message)
    return api.Replayed(message=f"{made.id} runs {key.id} once more.", job=made)


def put_back(backend: Backend, key: api.JobKey) -> api.Done:
    """Have processor sweep now, which puts back, or ends, every job whose lease is over."""
    row = read_job(backend, key)
    if row["status"] in TERMINAL_STATUSES or float(row["lease_until"]) > time.time():
        text = "its lease is not over: a worker may still run it; cancel it to end it"
        raise ProblemError(409, "CONFLICT", text)
    backend.invoke("processor", {"sweep": "leases"})
    after = read_job(backend, key)
    if after["status"] in TERMINAL_STATUSES:
        text = f"{key.id} has ended as {after['status']}."
        if after["status"] == RequestStatus.FAILED:
            text = f"{key.id} had no attempt left, and has ended as FAILED. Replay it to run again."
    elif float(after["lease_until"]) > time.time():
        text = f"{key.id} was put back into the queue; the next free worker takes it."
    else:
        text = f"The sweep left {key.id} as it was; the log of processor says why."
    return api.Done(message=text)
