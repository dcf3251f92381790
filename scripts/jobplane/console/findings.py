"""What an operator should look at: what is wrong, since when, what to do, and where."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from jobplane.console import api, files, health, webhooks, workspaces
from jobplane.console.backend import Backend
from jobplane.console.jobs import in_flight, known_lanes, why
from jobplane.console.listing import Listing, shown_row
from jobplane_keys import RequestStatus, iso_time, parse_iso_time

PATIENCE_SECONDS = 60
"""A lane that is full is a finding when a job has waited for it for longer."""

ORPHANS_SECONDS = 300.0
MAX_COUNTED = 100

type Check = Callable[[Backend, float], Iterable[api.Finding]]


def findings(backend: Backend, _asked: None) -> api.Findings:
    """The findings of every page of the stage, the urgent ones first."""
    now = time.time()
    found: list[api.Finding] = []
    unchecked: dict[str, list[str]] = {}

    def checked(part: api.Part) -> tuple[list[api.Finding], str | None]:
        try:
            return list(CHECKS[part](backend, now)), None
        except Exception as error:
            # A fault of one part does not hide the findings of the others.
            return [], str(backend.problem_of(error) or error)

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        for part, (some, problem) in zip(
            backend.parts, pool.map(checked, backend.parts), strict=True
        ):
            found += some
            if problem:
                unchecked.setdefault(problem, []).append(part)
    found.sort(key=lambda finding: not finding.is_urgent)
    problems = [f"{', '.join(parts)}: {problem}" for problem, parts in unchecked.items()]
    return api.Findings(findings=found, unchecked=problems, now=iso_time(now))


def finding(part: api.Part, title: str, remedy: str, **more: Any) -> api.Finding:
    known = {"part": part, "title": title, "remedy": remedy, "count": 1, "since": None}
    rest = {"is_more": False, "is_urgent": True, "place": [part], "filter": {}}
    return api.Finding.model_validate({**known, **rest, **more})


def counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def of_jobs(backend: Backend, now: float) -> Iterator[api.Finding]:
    rows, is_more = in_flight(backend)
    late = [row for row in rows if why(row, None, now).is_problem]
    lost = [row for row in late if row["status"] == RequestStatus.PROCESSING]
    others = [row for row in late if row["status"] != RequestStatus.PROCESSING]
    for some, one, many, status in (
        (lost, "job has lost its worker", "jobs have lost their workers", "PROCESSING"),
        (
            others, "job waits, and no worker takes it", "jobs wait, and no worker takes them",
            "PENDING,RETRYING,SCHEDULED",
        ),
    ):  # fmt: skip
        if not some:
            continue
        yield finding(
            "jobs",
            counted(len(some), one, many),
            "The sweep puts it back within a minute. If that does not happen, open the job and"
            " press “Put it back now”.",
            since=iso_time(min(float(row["lease_until"]) for row in some))
            if some is lost
            else min(row["updated_at"] for row in some),
            count=len(some),
            is_more=is_more,
            **_place_of([shown_row(row, now) for row in some], {"status": status}),
        )
    yield from _lanes(backend, now)
    yield from _failed(backend, now)


def _place_of(jobs: list[api.JobRow], query: dict[str, str]) -> dict[str, Any]:
    """One job's page, or the list of several."""
    if len(jobs) == 1:
        return {"place": ["job", jobs[0].tenant, jobs[0].user, jobs[0].id]}
    return {"place": ["jobs"], "filter": query}


def _lanes(backend: Backend, now: float) -> Iterator[api.Finding]:
    for lane in known_lanes(backend).lanes:
        since = lane.oldest_since
        if not lane.is_full or since is None or now - parse_iso_time(since) < PATIENCE_SECONDS:
            continue
        waiting = counted(lane.waiting, "job waits", "jobs wait")
        yield finding(
            "jobs",
            f"The lane of {lane.kind} {lane.name} is full: {lane.running} of {lane.slots} slots are"
            f" taken, and {waiting}",
            "Look at the jobs that have its slots. Cancel those that hang; if they all work,"
            " raise the limit of the lane.",
            since=since,
            count=lane.waiting,
            is_urgent=False,
            place=["jobs"],
            filter={lane.kind: lane.name, "status": "PROCESSING,RETRYING"},
        )


def _failed(backend: Backend, now: float) -> Iterator[api.Finding]:
    hour = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    since = iso_time((hour - timedelta(hours=1)).timestamp())
    page = Listing(backend).page(api.JobsQuery(status=["FAILED"], since=since, limit=MAX_COUNTED))
    if not page.jobs:
        return
    codes = Counter(job.error.code for job in page.jobs if job.error)
    most = f", most of them with {codes.most_common(1)[0][0]}" if codes else ""
    number = counted(len(page.jobs), "job has failed", "jobs have failed")
    yield finding(
        "jobs",
        f"{number} of those since {since[11:16]} UTC{most}",
        "Open one: it says why. Correct the cause, then replay them.",
        since=min(job.ended_at or job.created_at for job in page.jobs),
        count=len(page.jobs),
        is_more=page.next is not None,
        **_place_of(page.jobs, {"status": "FAILED", "period": "24h"}),
    )


def of_workspaces(backend: Backend, _now: float) -> Iterator[api.Finding]:
    stuck = [each for each in workspaces.workspaces(backend, None).claims if each.is_stuck]
    if stuck:
        title = f"{len(stuck)} workspaces can't run jobs: their claims are stuck"
        if len(stuck) == 1:
            title = f"The workspace {stuck[0].project}#{stuck[0].user} can't run jobs: its claim"
            title += " is stuck"
        yield finding(
            "workspaces",
            title,
            "Press “Release” beside it.",
            since=min((each.claimed_at for each in stuck if each.claimed_at), default=None),
            count=len(stuck),
        )


def of_files(backend: Backend, now: float) -> Iterator[api.Finding]:
    found = backend.remembered(
        files.ORPHANS, ORPHANS_SECONDS, lambda: files.orphans(backend, api.OrphansQuery())
    )
    if not found.total:
        return
    oldest = max((kind.oldest_seconds or 0 for kind in found.kinds), default=0)
    largest = max(found.kinds, key=lambda kind: kind.count)
    yield finding(
        "files",
        f"{counted(found.total, 'file or lock is', 'files and locks are')} stuck, lost or"
        f" contradictory, most of them: {largest.title.lower()}",
        "Each kind has its remedy there. “Reset stuck files” corrects most of them.",
        since=iso_time(now - oldest) if oldest else None,
        count=found.total,
        is_more=found.next is not None,
    )


def of_webhooks(backend: Backend, _now: float) -> Iterator[api.Finding]:
    page = webhooks.deliveries(backend, api.WebhooksQuery(failing=True))
    hosts: dict[str, list[api.Delivery]] = {}
    for each in page.deliveries:
        hosts.setdefault(each.webhook.host or f"template {each.template_id}", []).append(each)
    for host, failing in hosts.items():
        state = failing[0].webhook
        code = state.last_response_code
        says = state.error or (f"it answered {code}" if code else "it did not answer")
        yield finding(
            "webhooks",
            f"{counted(len(failing), 'webhook', 'webhooks')} to {host} failed: {says}",
            "Correct the receiver, then press “Send again”.",
            since=min((each.ended_at for each in failing if each.ended_at), default=None),
            count=len(failing),
            is_more=page.next is not None,
            filter={"failing": "yes"},
        )


def of_health(backend: Backend, _now: float) -> Iterator[api.Finding]:
    ringing = [each for each in health.alarms(backend) if each.state == "ALARM"]
    if ringing:
        more = f", and {len(ringing) - 1} more" if ringing[1:] else ""
        yield finding(
            "health",
            f"An alarm rings: {ringing[0].says}{more}",
            "Health has what the runbook says to do.",
            since=min((each.since for each in ringing if each.since), default=None),
            count=len(ringing),
        )


CHECKS: dict[api.Part, Check] = {
    "jobs": of_jobs,
    "workspaces": of_workspaces,
    "files": of_files,
    "webhooks": of_webhooks,
    "health": of_health,
}
