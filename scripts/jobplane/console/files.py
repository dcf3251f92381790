"""The files of a pipeline, as state-manager answers about them; every change is its own."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jobplane.console import api
from jobplane.console.backend import Backend, ProblemError
from jobplane_keys import iso_time
from jobplane_keys.tracking import DEFAULT_STATUS_SHARDS, FileStatus, read_status, read_time

HISTORY_DAYS = 7
EXAMPLES = 50
HOUR = 3600
ORPHANS = "orphans"
"""What was found last is remembered by this name, until a change of files."""

KINDS = {
    "stuck_in_processing": (
        "Stuck in processing", "Its worker has not ended it. Reset stuck files sets it back."
    ),
    "missing_manifests": (
        "Manifest missing",
        "The object of its manifest does not exist. Reset stuck files sets it back."
    ),
    "missing_outputs": (
        "Output missing", "It is completed, and its date has no output. Set it back to pending."
    ),
    "stuck_pending": (
        "Stuck pending", "No manifest has taken it. Look at the builder of manifests."
    ),
    "stuck_manifested": (
        "Stuck in a manifest", "No worker has begun its manifest. Reset stuck files sets it back."
    ),
    "expired_manifests": (
        "Manifest expired",
        "Its manifest was deleted by its lifecycle. Reset stuck files sets it back."
    ),
    "abandoned_claims": (
        "Claim abandoned", "A builder has locked it and stopped. Reset stuck files sets it back."
    ),
    "not_in_manifest": (
        "Not in its manifest",
        "The manifest that it names does not list it. Reset stuck files sets it back."
    ),
    "lagging_files": (
        "Behind its manifest", "Its manifest is completed, it is not. Set it to completed."
    ),
    "stale_locks": ("Stale lock", "Its time is over; the next builder replaces it."),
    "unreadable_times": ("Unreadable time", "A time of its row can't be read. Correct its writer."),
}  # fmt: skip

ISSUES = {
    "basename_collision": "Several objects of the date have this name.",
    "missing_in_dynamodb": "The object has no row; no builder will take it.",
}

type Body = dict[str, Any]


def operation(backend: Backend, name: str, **request: Any) -> Body:
    """The body of an operation of state-manager. Raises ProblemError if it was refused."""
    given = {key: value for key, value in request.items() if value is not None}
    answer = backend.invoke("state-manager", {"operation": name, **given})
    body: Body = json.loads(answer["body"])
    status = answer["statusCode"]
    if status == 200:
        return body
    problems = [each["message"] for each in body.get("problems", ())]
    text = "; ".join(problems) or str(body.get("error", body))
    if "current_status" in body:
        text += f" (it is {body['current_status']} now)"
    code = {400: "VALIDATION_ERROR", 404: "NOT_FOUND", 409: "CONFLICT"}.get(status)
    raise ProblemError(status, code or "FUNCTION_ERROR", f"state-manager: {text}")


def stats(backend: Backend, _asked: None) -> api.FileStats:
    """Files by status now, and by the hourly run of the last days."""
    body = operation(backend, "get_stats")
    return api.FileStats(
        counts=_counts(body["stats"]),
        total=body["total"],
        at=body["timestamp"],
        history=_history(backend),
    )


def _counts(found: Mapping[str, int]) -> dict[api.FileState, int]:
    counts: dict[api.FileState, int] = {}
    for status in FileStatus:
        counts[status.value] = int(found.get(status.value, 0))
    return counts


def _history(backend: Backend) -> list[api.FilesAt]:
    names = backend.repository.names(backend.stage.name)
    queries = [
        {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": names.metrics,
                    "MetricName": "FilesByStatus",
                    "Dimensions": [
                        {"Name": "Environment", "Value": backend.stage.name},
                        {"Name": "Status", "Value": status.value},
                    ],
                },
                "Period": HOUR,
                "Stat": "Maximum",
            },
        }
        for number, status in enumerate(FileStatus)
    ]
    end = datetime.now(UTC)
    answer = backend.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=end - timedelta(days=HISTORY_DAYS), EndTime=end
    )
    statuses: list[api.FileState] = [status.value for status in FileStatus]
    found: dict[float, dict[api.FileState, int]] = {}
    for result in answer["MetricDataResults"]:
        status = statuses[int(result["Id"][1:])]
        for at, value in zip(result["Timestamps"], result["Values"], strict=True):
            found.setdefault(at.timestamp(), {})[status] = int(value)
    return [api.FilesAt(at=iso_time(at), counts=counts) for at, counts in sorted(found.items())]


def shown_file(row: Mapping[str, Any], now: float) -> api.FileRow:
    """A row of the table of files, or a finding about one."""
    known = {"date_prefix", "file_key", "status", "manifest_path", "error_message", "reset_count"}
    names = ("since", "updated_at", "processing_start_time", "created_at", "upload_time")
    since = next((at for name in names if (at := _time(row.get(name))) is not None), None)
    return api.FileRow(
        date=str(row.get("date_prefix", "")),
        key=str(row.get("file_key", "")),
        status=_status(row.get("status")),
        age_seconds=None if since is None else round(max(0.0, now - since), 1),
        updated_at=None if since is None else iso_time(since),
        manifest=row.get("manifest_path") or None,
        error=row.get("error_message") or row.get("reason"),
        resets=int(row.get("reset_count") or 0),
        fields={name: value for name, value in row.items() if name not in known},
    )


def _status(stored: Any) -> str:
    """A status without its shard; one that is unknown as it is stored."""
    status = read_status(stored, DEFAULT_STATUS_SHARDS)
    return status.value if status else str(stored or "")


def _time(value: Any) -> float | None:
    try:
        return read_time(value)
    except ValueError:
        return None


def page(backend: Backend, asked: api.FilesQuery) -> api.FilePage:
    """Files of a status, oldest date first, or of a date."""
    now = time.time()
    if (asked.status is None) == (asked.date is None):
        raise ProblemError(400, "VALIDATION_ERROR", "either status or date is required")
    if asked.status is not None:
        span = {"start": asked.since, "end": asked.until}
        given = {name: value for name, value in span.items() if value is not None}
        body = operation(
            backend, "query_by_status", status=asked.status, date_range=given or None,
            next_token=asked.next,
        )  # fmt: skip
    else:
        body = operation(backend, "get_file_state", date_prefix=asked.date, next_token=asked.next)
    files = [shown_file(row, now) for row in body["files"]]
    return api.FilePage(files=files, next=body.get("next_token"))


def orphans(backend: Backend, asked: api.OrphansQuery) -> api.Orphans:
    """Files that stay as they are unless an operator acts, by kind."""
    now = time.time()
    body = operation(
        backend, "find_orphans", max_processing_hours=asked.hours, next_token=asked.next
    )
    kinds = []
    for kind, findings in body["orphans"].items():
        rows = [shown_file(finding, now) for finding in findings]
        ages = [row.age_seconds for row in rows if row.age_seconds is not None]
        title, explanation = KINDS.get(kind, (kind.replace("_", " "), ""))
        kinds.append(
            api.OrphanKind(
                kind=kind, title=title, explanation=explanation, count=len(rows),
                oldest_seconds=max(ages, default=None), files=rows[:EXAMPLES],
            )
        )  # fmt: skip
    return api.Orphans(
        total=body["total_orphans"],
        kinds=sorted((kind for kind in kinds if kind.count), key=lambda kind: -kind.count),
        next=body.get("next_token"),
        is_complete=not body["unknown"],
        at=iso_time(now),
    )


def timeline(backend: Backend, asked: api.FileQuery) -> api.FileTimeline:
    """The history of one file."""
    row = operation(backend, "get_file_state", date_prefix=asked.date, file_key=asked.key)
    body = operation(backend, "get_processing_timeline", date_prefix=asked.date, file_key=asked.key)
    events = [
        api.FileEvent(
            at=event["timestamp"],
            title=event["event"].replace("_", " ").capitalize(),
            detail=event.get("error") or _resets(event),
            source=event.get("source"),
        )
        for event in body["timeline"]
    ]
    return api.FileTimeline(
        file=shown_file(row["file"], time.time()),
        events=events,
        problems=[_anomaly(each) for each in body.get("anomalies", ())],
    )


def _resets(event: Mapping[str, Any]) -> str | None:
    return f"reset number {event['reset_count']}" if "reset_count" in event else None


def _anomaly(found: Mapping[str, Any]) -> str:
    if found["type"] == "unreadable_time":
        return f"{found['attribute']} of {found['row']} can't be read: {found['value']!r}"
    return f"impossible order: {', '.join(found['events'])}"


def reset(backend: Backend, asked: api.ResetRequest) -> api.ResetAnswer:
    """Set stuck files back; a dry run says which those are."""
    reason = f"{asked.reason} ({backend.operator})" if asked.reason else None
    if not asked.dry_run and reason is None:
        raise ProblemError(400, "VALIDATION_ERROR", "reason: is required for a reset")
    body = operation(
        backend, "reset_stuck_files", max_processing_hours=asked.hours,
        statuses=list(asked.statuses), dry_run=asked.dry_run, reason=reason, next_token=asked.next,
    )  # fmt: skip
    backend.forget(ORPHANS)
    done: list[api.FileOutcome] = []
    failed: list[api.FileOutcome] = []
    for file in body["stuck_files"]:
        shown = api.FileOutcome(
            date=file["date_prefix"],
            key=file["file_key"],
            status=_status(file.get("status")),
            detail=f"stuck for {file.get('hours_stuck')} h",
        )
        (failed if file.get("action") == "fail" else done).append(shown)
    skipped = []
    for file in body["skipped"]:
        day, _, name = file["file"].partition("/")
        skipped.append(api.FileOutcome(date=day, key=name, status="", detail=file["reason"]))
    return api.ResetAnswer(
        dry_run=body["dry_run"], reset=done, skipped=skipped, failed=failed,
        next=body.get("next_token"),
    )  # fmt: skip


def update(backend: Backend, asked: api.FileUpdate) -> api.Done:
    """Set one file's status, if it still has the one that was shown."""
    body = operation(
        backend, "update_state", date_prefix=asked.date, file_key=asked.key,
        new_status=asked.new_status, expected_status=asked.expected_status, force=asked.force,
        reason=asked.reason, changed_by=backend.operator[-128:],
    )  # fmt: skip
    backend.forget(ORPHANS)
    return api.Done(message=body["message"])


def validate(backend: Backend, asked: api.DateQuery) -> api.Validation:
    """A date's rows compared with its objects."""
    body = operation(backend, "validate_consistency", date_prefix=asked.date, next_token=asked.next)
    found = [*body["issues"], *({"type": "unknown", **each} for each in body["unknown"])]
    issues = [
        api.Issue(kind=issue["type"], file=issue.get("file_key"), message=_issue(issue))
        for issue in found
    ]
    return api.Validation(
        date=asked.date, is_consistent=not issues and "next_token" not in body,
        files=body["db_file_count"], issues=issues, next=body.get("next_token"),
    )  # fmt: skip


def _issue(issue: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in issue.items() if key not in {"type", "file_key"}}
    detail = ", ".join(f"{key}: {value}" for key, value in rest.items())
    text = ISSUES.get(issue["type"], issue["type"].replace("_", " ").capitalize() + ".")
    return f"{text} {detail}".strip()
