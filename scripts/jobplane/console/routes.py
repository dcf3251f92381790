"""The answer to each path of the API."""

import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

from jobplane.console import api, audit, bulk, files, findings, health, jobs, webhooks, workspaces
from jobplane.console.backend import Backend
from jobplane.console.listing import Listing
from jobplane_keys import RequestStatus, iso_time

POLL_SECONDS = 3.0


def stage(backend: Backend, _asked: None) -> api.StageInfo:
    """What the page needs to know of the stage."""
    return api.StageInfo(
        service=backend.repository.service,
        stage=backend.stage.name,
        region=backend.description["region"],
        is_local=backend.stage.is_local,
        read_only=backend.read_only_because is not None,
        read_only_because=backend.read_only_because,
        operator=backend.operator,
        version=importlib.metadata.version("jobplane"),
        parts=backend.parts,
        statuses=[status.value for status in RequestStatus],
        poll_seconds=POLL_SECONDS,
        now=iso_time(time.time()),
    )


def job_page(backend: Backend, asked: api.JobsQuery) -> api.JobPage:
    return Listing(backend).page(asked)


def lanes(backend: Backend, _asked: None) -> api.Lanes:
    """The lanes, read at most every few seconds, since that reads all jobs in flight."""
    return jobs.known_lanes(backend)


ROUTES: dict[str, Callable[[Backend, Any], api.Shown]] = {
    "stage": stage,
    "findings": findings.findings,
    "audit": audit.entries,
    "jobs": job_page,
    "lanes": lanes,
    "job": jobs.job,
    "job/logs": jobs.logs,
    "jobs/cancel": jobs.cancel,
    "jobs/replay": jobs.replay,
    "jobs/put-back": jobs.put_back,
    "bulk": bulk.operations,
    "bulk/operation": bulk.operation,
    "bulk/jobs": bulk.bulk_jobs,
    "bulk/preview": bulk.preview,
    "bulk/run": bulk.start,
    "bulk/stop": bulk.stop,
    "workspaces": workspaces.workspaces,
    "execution": workspaces.execution,
    "workspaces/interrupt": workspaces.interrupt,
    "workspaces/release": workspaces.release,
    "files/stats": files.stats,
    "files": files.page,
    "files/orphans": files.orphans,
    "files/timeline": files.timeline,
    "files/validate": files.validate,
    "files/reset": files.reset,
    "files/update": files.update,
    "webhooks": webhooks.deliveries,
    "webhooks/resend": webhooks.resend,
    "health": health.health,
}
