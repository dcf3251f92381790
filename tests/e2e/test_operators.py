"""An operator's commands against a stage: lists, cancel, replay, many jobs at once, the console."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobplane.console import api, bulk
from jobplane.console.backend import Backend
from jobplane.console.listing import Listing
from tests.e2e.deployed import Deployed, unique, until

pytestmark = pytest.mark.e2e


@contextmanager
def console(deployed: Deployed, page: Path, *options: str) -> Iterator[httpx.Client]:
    """A browser in the console that the command serves; it must end by an interrupt."""
    (page / "index.html").write_text("<title>console</title>")
    arguments = ["console", "--stage", deployed.stage.name, "--page", str(page), *options]
    with subprocess.Popen(
        [sys.executable, "-m", "jobplane", *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        try:
            with httpx.Client(base_url=url.partition("/?")[0], timeout=60) as browser:
                assert browser.get(url, follow_redirects=True).text == "<title>console</title>"
                yield browser
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0


def sent(browser: httpx.Client, path: str, body: Any) -> tuple[int, Any]:
    headers = {"Origin": str(browser.base_url).rstrip("/")}
    answer = browser.post(f"/api/{path}", json=body, headers=headers)
    return answer.status_code, answer.json()


async def test_an_operator_finds_cancels_and_repeats_jobs(
    deployed: Deployed, tmp_path: Path
) -> None:
    """In the list of all tenants, on the job's page and in its log; router makes the changes."""
    user, tenant = unique("user"), unique("tenant")
    async with deployed.socket(user, tenant) as socket:
        for name in ("one", "two"):
            payload, metadata = {"seconds": 0, "steps": 1}, {"delay_seconds": "900", "tags": "op"}
            await socket.ask(
                {"id": name, "action": "delay", "payload": payload, "metadata": metadata}
            )
    with console(deployed, tmp_path) as browser:
        chosen = {"tag": "op", "status": "SCHEDULED"}
        key = {"tenant": tenant, "user": user, "id": "one"}

        def listed(**query: str) -> set[str]:
            jobs = browser.get("/api/jobs", params={"limit": "500", **query}).json()["jobs"]
            return {job["id"] for job in jobs if job["tenant"] == tenant}

        assert listed(**chosen) == {"one", "two"}
        assert listed(tenant=tenant, user=user) == {"one", "two"}
        await until(lambda: listed() == {"one", "two"}, "a list of all tenants with both jobs")
        found = browser.get("/api/job", params=key).json()
        assert (found["job"]["status"], found["can"]["cancel"]) == ("SCHEDULED", True)
        assert "not due before" in found["waits"]["summary"]
        await until(
            lambda: browser.get("/api/job/logs", params=key).json()["events"], "the job's log"
        )

        assert sent(browser, "jobs/cancel", key) == (200, {"message": "one is cancelled."})
        status, replayed = sent(browser, "jobs/replay", key)
        assert (status, replayed["job"]["id"] != "one") == (200, True)
        status, answer = sent(browser, "jobs/replay", key)
        assert (status, answer["error"]["code"]) == (409, "CONFLICT")
        assert browser.get("/api/job", params=key).json()["replayed_as"] == replayed["job"]["id"]
        status, answer = sent(browser, "jobs/replay", {**key, "id": "two"})
        assert (status, answer["error"]["code"]) == (400, "VALIDATION_ERROR")
        for path in ("stage", "lanes", "bulk", "workspaces", "files/stats", "webhooks", "health"):
            assert browser.get(f"/api/{path}").status_code == 200
    with console(deployed, tmp_path, "--read-only") as browser:
        status, answer = sent(browser, "jobs/cancel", {**key, "id": "two"})
        assert (status, answer["error"]["code"]) == (403, "READ_ONLY")
    assert deployed.row(user, "two", tenant)["status"] == "SCHEDULED"


async def test_many_jobs_are_cancelled_once_while_workers_die(deployed: Deployed) -> None:
    """The audit of the operation says what the rows say."""
    user, tenant, number = unique("user"), unique("tenant"), 60
    async with deployed.socket(user, tenant) as socket:
        for n in range(number):
            metadata = {} if n % 20 == 0 else {"delay_seconds": "900"}
            payload = {"seconds": 30, "steps": 60}
            await socket.ask(
                {"id": f"j-{n}", "action": "delay", "payload": payload, "metadata": metadata}
            )
    backend = Backend(deployed.stage)
    asked = {"action": "cancel", "filter": {"tenant": tenant}}
    plan = bulk.preview(backend, api.BulkPreviewRequest.model_validate(asked))
    assert plan.total == number
    deployed.kill_workers("router")
    bulk.start(backend, api.BulkRunRequest(id=plan.id, reason="a test"))
    deployed.kill_workers("router")

    def state() -> api.BulkOperation:
        return bulk.operation(backend, api.BulkId(id=plan.id))

    await until(lambda: not state().runs_here, "the end of the run", patience=240)
    if state().state != "done":
        bulk.start(backend, api.BulkRunRequest(id=plan.id))
        await until(lambda: state().state == "done", "the end of the operation", patience=240)
    assert state().outcomes == {"cancelled": number}
    rows = Listing(backend).page(api.JobsQuery(tenant=tenant, user=user, limit=500)).jobs
    assert {row.status for row in rows} == {"CANCELLED"}
    assert len(rows) == number


def test_the_list_in_a_terminal(deployed: Deployed) -> None:
    """As a table, and as JSON for other programs."""
    listed = ["jobs", "--stage", deployed.stage.name, "--since", "7d", "--limit", "3"]
    for options in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "jobplane", *listed, *options],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        if options:
            assert len(json.loads(done.stdout)["jobs"]) <= 3
        else:
            assert "jobs, " in done.stdout
