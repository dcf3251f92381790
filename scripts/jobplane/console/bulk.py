"""Changes of many jobs: a stored plan, a run that can be resumed, and an audit of each job.

The table `operations` has a row `summary` of each operation, and its jobs in rows `jobs#00001`,
fifty in each: the plan, which does not grow, and then the audit. router makes every change, as a
message of the job's owner. A run may end at any point and be resumed, also by two consoles at the
same time: a cancel changes a job once, all replays of a job have one id (`id_of_replay`), and the
outcomes of a row are written only if the row is as it was read.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import batched, groupby
from operator import itemgetter
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobplane.console import api
from jobplane.console.audit import AUDIT_SECONDS, BULK, SUMMARY, new_id
from jobplane.console.backend import Backend, ProblemError
from jobplane.console.jobs import id_of_replay
from jobplane.console.listing import Listing, Row, matches, shown_row
from jobplane.console.runs import Run
from jobplane_keys import (
    TERMINAL_STATUSES,
    RequestStatus,
    from_item,
    iso_time,
    make_token,
    pages,
    read_item,
    read_token,
    split_owner_key,
    to_item,
    ttl_after,
)
from jobplane_leases import update

MAX_JOBS = 20_000
SAMPLE = 50
PAGE_JOBS = 100
JOBS_PER_ROW = 50
PLAN_SECONDS = 3_600
PARALLEL = 8
MAX_FAILURES = 5
"""A run stops after so many failures of router in a row."""

DRIVEN_SECONDS = 90
"""A run whose console has not said so for longer is interrupted."""

SETTLE_SECONDS = 2.0
QUIET_SECONDS = 600
"""A run that waits for workers stops after so long without any end of a job."""

PAUSE_SECONDS = 1.0
TRANSIENT = frozenset({"INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "RATE_LIMITED"})


def preview(backend: Backend, asked: api.BulkPreviewRequest) -> api.BulkPreview:
    """Store a plan of the jobs that would change."""
    now = time.time()
    listing = Listing(backend, now)
    rows = _candidates(listing, asked)
    is_cut = len(rows) > MAX_JOBS
    rows = sorted(rows[:MAX_JOBS], key=lambda row: (row["owner"], row["request_id"]))
    operation = new_id(now)
    jobs = [
        {"owner": row["owner"], "id": row["request_id"], "action": row["action"],
         "status": row["status"], "outcome": "planned"}
        for row in rows
    ]  # fmt: skip
    expires = now + PLAN_SECONDS
    parts: list[Row] = [
        {"part": f"jobs#{number:05}", "jobs": list(part), "version": 0, "left": len(part),
         "ttl": ttl_after(expires, 0)}
        for number, part in enumerate(batched(jobs, JOBS_PER_ROW, strict=False))
    ]  # fmt: skip
    summary: Row = {
        "part": SUMMARY, "kind": BULK, "action": asked.action, "state": "planned",
        "filter": asked.filter.model_dump(mode="json"), "who": backend.operator,
        "created_at": iso_time(now), "total": len(jobs), "ttl": ttl_after(expires, 0),
    }  # fmt: skip

    def put(row: Row) -> None:
        item = to_item({"operation_id": operation, **row})
        backend.dynamodb.put_item(TableName=_table(backend), Item=item)

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(put, parts))
    # The summary last: without it, there is no operation.
    put(summary)

    def counted(name: str) -> list[api.Count]:
        numbers = Counter(_tenant_of(row) if name == "tenant" else row[name] for row in rows)
        return [api.Count(name=each, count=count) for each, count in numbers.most_common()]

    newest = sorted(rows, key=lambda row: str(row["created_at"]), reverse=True)
    return api.BulkPreview(
        id=operation,
        action=asked.action,
        total=len(jobs),
        by_status=counted("status"),
        by_action=counted("action"),
        by_tenant=counted("tenant"),
        sample=[shown_row(row, now) for row in newest[:SAMPLE]],
        is_cut=is_cut,
        expires_at=iso_time(expires),
    )


def _table(backend: Backend) -> str:
    return backend.table("operations")


def _tenant_of(row: Mapping[str, Any]) -> str:
    return split_owner_key(row["owner"])[0]


def _candidates(listing: Listing, asked: api.BulkPreviewRequest) -> list[Row]:
    """The rows that the change is for, one more than an operation may have."""
    has_ended = asked.action == "replay"
    fitting = [s.value for s in RequestStatus if (s in TERMINAL_STATUSES) == has_ended]
    chosen = [status for status in asked.filter.status or fitting if status in fitting]
    if not chosen:
        words = "have ended" if has_ended else "have not ended"
        text = f"filter.status: a {asked.action} is for jobs that {words}"
        raise ProblemError(400, "VALIDATION_ERROR", text)
    narrowed = asked.filter.model_copy(update={"status": chosen})
    found: list[Row] = []
    for batch in batched(listing.keys(narrowed), 1_000, strict=False):
        found += [row for row in listing.rows(batch).values() if matches(row, narrowed)]
        if len(found) > MAX_JOBS:
            return found[: MAX_JOBS + 1]
    return found


def operations(backend: Backend, _asked: None) -> api.BulkOperations:
    """The newest operations that were started."""
    answer = backend.dynamodb.query(
        TableName=_table(backend),
        IndexName="recent",
        KeyConditionExpression="kind = :kind",
        ExpressionAttributeValues=to_item({":kind": BULK}),
        ScanIndexForward=False,
        Limit=50,
    )
    rows = [from_item(item) for item in answer["Items"]]
    return api.BulkOperations(operations=[_shown(backend, row) for row in rows])


def operation(backend: Backend, asked: api.BulkId) -> api.BulkOperation:
    return _shown(backend, _summary(backend, asked.id))


def _summary(backend: Backend, operation_id: str) -> Row:
    key = {"operation_id": operation_id, "part": SUMMARY}
    row: Row | None = read_item(backend.dynamodb, _table(backend), key)
    if row is None or row.get("kind") != BULK:
        raise ProblemError(404, "NOT_FOUND", f"no operation {operation_id}")
    return row


def _shown(backend: Backend, row: Mapping[str, Any]) -> api.BulkOperation:
    now, run = time.time(), backend.runs.of(row["operation_id"])
    state = row["state"]
    is_here = run is not None and run.is_alive
    if state == "planned" and now > row["ttl"]:
        state = "expired"
    elif state == "running" and not is_here and row.get("driven_until", 0) < now:
        state = "interrupted"
    outcomes = row.get("outcomes")
    if outcomes is None and is_here and run is not None and run.outcomes:
        outcomes = sum(run.outcomes.values(), Counter[str]())
    elif outcomes is None and state == "planned":
        outcomes = {"planned": row["total"]}
    elif outcomes is None:
        parts = _parts(backend, row["operation_id"])
        outcomes = Counter(job["outcome"] for part in parts for job in part["jobs"])
    return api.BulkOperation.model_validate({
        "id": row["operation_id"],
        **{name: row[name] for name in ("action", "filter", "who", "created_at", "total")},
        **{name: row.get(name) for name in ("reason", "started_at", "ended_at")},
        "state": state,
        "outcomes": dict(outcomes),
        "runs_here": is_here,
        "problem": run.problem if run is not None else None,
    })  # fmt: skip


def _parts(backend: Backend, operation_id: str, after: str = "jobs#") -> Iterator[Row]:
    """The rows of an operation's jobs that stand after a part."""
    # Parts have numbers: the least text after one of them ends with a character below all digits.
    values = {":id": operation_id, ":first": f"{after} ", ":last": "jobs#:"}
    query = {
        "TableName": _table(backend),
        "KeyConditionExpression": "operation_id = :id AND part BETWEEN :first AND :last",
        "ExpressionAttributeValues": to_item(values),
        "ConsistentRead": True,
    }
    for page in pages(backend.dynamodb.query, query):
        yield from map(from_item, page["Items"])


def bulk_jobs(backend: Backend, asked: api.BulkJobsQuery) -> api.BulkJobs:
    """What an operation did to its jobs: some rows at a time."""
    bound = ["bulk", asked.id, asked.outcome]
    begin = "jobs#"
    if asked.next is not None:
        try:
            begin = read_token(asked.next, bound)
        except ValueError as error:
            raise ProblemError(400, "VALIDATION_ERROR", f"next: {error}") from error
    _summary(backend, asked.id)
    found: list[api.BulkJob] = []
    for part in _parts(backend, asked.id, begin):
        for job in part["jobs"]:
            if asked.outcome in (None, job["outcome"]):
                found.append(_audited(job))
        if len(found) >= PAGE_JOBS:
            return api.BulkJobs(jobs=found, next=make_token(part["part"], bound))
    return api.BulkJobs(jobs=found, next=None)


def _audited(job: Mapping[str, Any]) -> api.BulkJob:
    tenant, user = split_owner_key(job["owner"])
    return api.BulkJob(
        job=api.JobKey(tenant=tenant, user=user, id=job["id"]),
        action=job["action"],
        status_before=job["status"],
        outcome=job["outcome"],
        message=job.get("message"),
        new_id=job.get("new_id"),
        at=job.get("at"),
    )


def start(backend: Backend, asked: api.BulkRunRequest) -> api.BulkOperation:
    """Start a planned operation, or drive one on that was interrupted."""
    row, now = _summary(backend, asked.id), time.time()
    if row["state"] == "planned":
        if now > row["ttl"]:
            raise ProblemError(409, "CONFLICT", "the plan is older than an hour; preview again")
        if asked.reason is None:
            raise ProblemError(400, "VALIDATION_ERROR", "reason: is required to start")
        with ThreadPoolExecutor(PARALLEL) as pool:
            names = [part["part"] for part in [*_parts(backend, asked.id), row]]
            list(pool.map(lambda name: _keep(backend, asked.id, name, now), names))
        _change_summary(
            backend, asked.id, "#state = :planned", {"planned": "planned"},
            state="running", who=backend.operator, reason=asked.reason, started_at=iso_time(now),
            driven_until=int(now + DRIVEN_SECONDS),
        )  # fmt: skip
    if row["state"] != "done":
        backend.runs.begin(asked.id, lambda run: _driven(backend, asked.id, run))
    return _shown(backend, _summary(backend, asked.id))


def _keep(backend: Backend, operation_id: str, part: str, now: float) -> None:
    """Keep a row of a plan that is started as an audit."""
    update(
        backend.dynamodb,
        _table(backend),
        {"operation_id": operation_id, "part": part},
        change="SET #ttl = :ttl",
        condition="attribute_exists(operation_id)",
        values={"ttl": ttl_after(now, AUDIT_SECONDS)},
        mark=None,
    )


def _change_summary(
    backend: Backend, operation_id: str, condition: str, values: Row, **changes: Any
) -> None:
    names = ", ".join(f"#{name} = :{name}" for name in changes)
    update(
        backend.dynamodb,
        _table(backend),
        {"operation_id": operation_id, "part": SUMMARY},
        change=f"SET {names}",
        condition=condition,
        values=values | changes,
        mark="write_id",
    )


def stop(backend: Backend, asked: api.BulkId) -> api.BulkOperation:
    """Stop driving an operation; jobs that are left stay planned, and it can be resumed."""
    backend.runs.stop(asked.id)
    row = _summary(backend, asked.id)
    if row["state"] == "running":
        running = {"running": "running"}
        _change_summary(backend, asked.id, "#state = :running", running, driven_until=0)
    return _shown(backend, _summary(backend, asked.id))


def _driven(backend: Backend, operation_id: str, run: Run) -> None:
    try:
        _run(backend, operation_id, run)
    except (ProblemError, ClientError, BotoCoreError) as error:
        run.problem = f"stopped: {error}; resume it afterwards"


def _run(backend: Backend, operation_id: str, run: Run) -> None:
    """Make the changes that are left, and wait for the ends of jobs whose workers were asked."""
    action = _summary(backend, operation_id)["action"]
    parts = {row["part"]: row for row in _parts(backend, operation_id)}
    run.outcomes = {
        part: Counter(job["outcome"] for job in row["jobs"]) for part, row in parts.items()
    }
    changed_at, failures = time.monotonic(), 0
    while not run.stopped.is_set():
        _tell_driven(backend, operation_id)
        left = [row for row in parts.values() if row["left"]]
        if not left:
            _finish(backend, operation_id, parts.values())
            return
        planned = [row for row in left if any(job["outcome"] == "planned" for job in row["jobs"])]
        # The next rows, so that the summary says between them that the run goes on.
        work = planned[: PARALLEL * 2] or left
        step = _change if planned else _settle
        before = {row["part"]: row["version"] for row in work}
        with ThreadPoolExecutor(PARALLEL) as pool:
            done = list(pool.map(partial(_attempt, step, backend, action), work))
        problem = None
        for row, error in done:
            parts[row["part"]] = row
            run.outcomes[row["part"]] = Counter(job["outcome"] for job in row["jobs"])
            problem = error or problem
        progressed = any(row["version"] != before[row["part"]] for row, _ in done)
        failures = failures + 1 if problem and not progressed else 0
        if failures >= MAX_FAILURES:
            run.problem = f"stopped after {failures} failures: {problem}; resume it later"
            return
        if planned or progressed:
            changed_at = time.monotonic()
        elif time.monotonic() - changed_at > QUIET_SECONDS:
            waiting = sum(row["left"] for row in left)
            run.problem = f"{waiting} jobs whose workers were asked have not ended; resume it later"
            return
        if problem or not planned:
            run.stopped.wait(PAUSE_SECONDS * 2**failures if problem else SETTLE_SECONDS)


def _tell_driven(backend: Backend, operation_id: str) -> None:
    until = int(time.time() + DRIVEN_SECONDS)
    running = {"running": "running"}
    _change_summary(backend, operation_id, "#state = :running", running, driven_until=until)


def _finish(backend: Backend, operation_id: str, parts: Any) -> None:
    outcomes = Counter(job["outcome"] for row in parts for job in row["jobs"])
    _change_summary(
        backend, operation_id, "#state = :running", {"running": "running"}, state="done",
        ended_at=iso_time(time.time()), outcomes=dict(outcomes),
    )  # fmt: skip


def _attempt(step: Any, backend: Backend, action: str, row: Row) -> tuple[Row, str | None]:
    """A row after a step, and the error that left some of its jobs as they were."""
    try:
        return step(backend, action, row)  # type: ignore[no-any-return]
    except (ProblemError, ClientError, BotoCoreError) as error:
        return row, str(error)


def _change(backend: Backend, action: str, row: Row) -> tuple[Row, str | None]:
    """Have router change the planned jobs of a row, those of an owner with one invoke."""
    found: dict[tuple[str, str], Row] = {}
    problem = None
    planned = [job for job in row["jobs"] if job["outcome"] == "planned"]
    for owner, jobs in groupby(planned, key=itemgetter("owner")):
        tenant, user = split_owner_key(owner)
        listed = list(jobs)
        messages = [
            json.dumps({
                "action": action,
                "payload": {"request_id": job["id"]},
                **({"id": id_of_replay(job["id"])} if action == "replay" else {}),
            })
            for job in listed
        ]  # fmt: skip
        caller = {"user_id": user, "tenant_id": tenant, "permissions": []}
        try:
            answers = backend.invoke("router", {"caller": caller, "messages": messages})["answers"]
        except (ProblemError, ClientError, BotoCoreError) as error:
            problem = str(error)
            continue
        for job, answer in zip(listed, answers, strict=True):
            outcome = _outcome(action, answer)
            if outcome is None:
                problem = f"router: {answer['error']['code']}: {answer['error']['message']}"
            else:
                found[job["owner"], job["id"]] = outcome
    return _write(backend, row, found), problem


def _outcome(action: str, answer: Mapping[str, Any]) -> Row | None:
    """What a message of router says of a job; None if it is to be sent again."""
    if answer["type"] == "error":
        error = answer["error"]
        if error["code"] in TRANSIENT:
            return None
        return {"outcome": "failed", "message": f"{error['code']}: {error['message']}"}
    if action == "replay":
        return {"outcome": "replayed", "new_id": answer["request_id"]}
    status = answer["data"]["status"]
    if status in ("cancelled", "cancelling"):
        return {"outcome": "cancelled" if status == "cancelled" else "asked"}
    return {"outcome": "unchanged", "message": f"had ended as {status.upper()}"}


def _settle(backend: Backend, _action: str, row: Row) -> tuple[Row, str | None]:
    """Record how the jobs have ended whose workers were asked to end them."""
    asked = [(job["owner"], job["id"]) for job in row["jobs"] if job["outcome"] == "asked"]
    rows = Listing(backend).rows(asked)
    found: dict[tuple[str, str], Row] = {}
    for key in asked:
        job = rows.get(key)
        if job is None:
            found[key] = {"outcome": "unchanged", "message": "the job has expired"}
        elif job["status"] == RequestStatus.CANCELLED:
            found[key] = {"outcome": "cancelled", "ended_at": job.get("ended_at")}
        elif job["status"] in TERMINAL_STATUSES:
            text = f"ended as {job['status']} before its worker stopped"
            found[key] = {"outcome": "unchanged", "message": text}
    return _write(backend, row, found), None


def _write(backend: Backend, row: Row, found: Mapping[tuple[str, str], Row]) -> Row:
    """The row with these outcomes, merged with those of other writers and written."""
    while found:
        at = iso_time(time.time())
        jobs = [
            job | found[key] | {"at": at}
            if (key := (job["owner"], job["id"])) in found
            and job["outcome"] in ("planned", "asked")
            else job
            for job in row["jobs"]
        ]
        done, item = update(
            backend.dynamodb,
            _table(backend),
            {"operation_id": row["operation_id"], "part": row["part"]},
            change="SET #jobs = :jobs, #version = :next, #left = :left",
            condition="#version = :read",
            values={
                "jobs": jobs,
                "left": sum(job["outcome"] in ("planned", "asked") for job in jobs),
                "read": row["version"],
                "next": row["version"] + 1,
            },
        )
        if not item:
            raise ProblemError(404, "NOT_FOUND", f"{row['part']} of the operation has expired")
        row = item
        if done:
            break
    return row
