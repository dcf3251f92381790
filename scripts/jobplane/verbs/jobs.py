"""`jobplane jobs`: list a stage's jobs in the terminal."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobplane.console import api
    from jobplane.console.backend import Backend

STATUSES = (
    "SCHEDULED", "PENDING", "PROCESSING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED",
)  # fmt: skip
COLOURS = {"FAILED": "red", "CANCELLED": "dim", "COMPLETED": "green", "RETRYING": "yellow"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LIVE_SECONDS = 2.0
PLAIN_WIDTH = 160


def _time(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is None:
        return None
    if match := re.fullmatch(r"(\d+)([smhd])", value):
        at = datetime.now(UTC) - timedelta(seconds=int(match[1]) * UNITS[match[2]])
        return at.isoformat()
    try:
        datetime.fromisoformat(value)
    except ValueError:
        text = "a time as 2026-11-22T10:15:30Z, or how long ago: 30s, 5m, 2h, 7d"
        raise click.BadParameter(text) from None
    return value


@click.command(
    epilog="""\b
Examples:
  jobplane jobs                                 # the newest, refreshed until interrupted
  jobplane jobs --status FAILED --since 1h
  jobplane jobs --tenant acme --once --limit 200
  jobplane jobs --status PENDING --json | jq .jobs[].id

\b
Without a terminal it prints the list once. A list of all tenants reads each tenant's newest jobs;
--tenant is cheaper. docs/console.md says what each list costs."""
)
@click.option("--stage", default="local", show_default=True)
@click.option(
    "--status", multiple=True, type=click.Choice(STATUSES, case_sensitive=False), help="Repeatable."
)
@click.option("--action", multiple=True, help="Repeatable.")
@click.option("--tenant")
@click.option("--user", help="Needs --tenant.")
@click.option("--tag", help="One of those in metadata.tags.")
@click.option("--since", callback=_time, help="Created since: a time, or 30s, 5m, 2h, 7d.")
@click.option("--until", callback=_time, help="Created until.")
@click.option("--limit", type=click.IntRange(1, 500), default=25, show_default=True)
@click.option("--once", is_flag=True, help="Print it once, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as one JSON object.")
def command(
    stage: str,
    status: tuple[str, ...],
    action: tuple[str, ...],
    tenant: str | None,
    user: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    once: bool,
    as_json: bool,
) -> None:
    """List jobs of all tenants, newest first, with why they wait."""
    from jobplane.console.api import JobsQuery
    from jobplane.console.backend import Backend, ProblemError
    from jobplane.console.listing import Listing
    from jobplane.stage import emulator
    from jobplane.stage.stages import StageNotUpError
    from jobplane.terminal.tables import console

    if user is not None and tenant is None:
        raise click.UsageError("--user needs --tenant")
    repository = Repository.here()
    repository.require("`jobplane jobs`", "router")
    there = Stage(repository, stage).require()
    state = there.read_state()
    if state is not None and not emulator.is_running(state):
        raise StageNotUpError(stage)
    asked = JobsQuery.model_validate({
        "status": list(status), "action": list(action), "tenant": tenant, "user": user, "tag": tag,
        "since": since, "until": until, "limit": limit,
    })  # fmt: skip
    backend = Backend(there, "`jobplane jobs` only reads")
    try:
        if as_json:
            click.echo(json.dumps(Listing(backend).whole_page(asked).model_dump(mode="json")))
            return
        screen = console(PLAIN_WIDTH)
        if once or not screen.is_terminal:
            screen.print(_drawn(Listing(backend).whole_page(asked)))
            return
        _watch(backend, asked)
    except ProblemError as error:
        raise click.ClickException(str(error)) from error


def _watch(backend: "Backend", asked: "api.JobsQuery") -> None:
    """Show the list and refresh it until interrupted."""
    from rich.live import Live

    from jobplane.console.listing import Listing
    from jobplane.terminal import interrupts

    with interrupts.as_keyboard_interrupt(), Live(auto_refresh=False) as live:
        try:
            while True:
                live.update(_drawn(Listing(backend).whole_page(asked)), refresh=True)
                time.sleep(LIVE_SECONDS)
        except KeyboardInterrupt:
            return


def _drawn(page: "api.JobPage") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from jobplane.terminal.tables import table

    headings = ("created", "tenant", "user", "job", "action", "status", "tries", "says")
    rows = [
        (
            job.created_at[:19].replace("T", " "), job.tenant, job.user, job.id, job.action,
            job.status, f"{job.attempts}", _says(job),
        )
        for job in page.jobs
    ]  # fmt: skip
    unbroken = ("created", "job", "status")
    drawn = table(headings, rows, right=("tries",), unbroken=unbroken, styles=COLOURS)
    number = len(page.jobs)
    text = f"{number} job{'' if number == 1 else 's'}, {page.now[11:19]} UTC"
    if page.next:
        text += "; there are more: pass a larger --limit, or a filter"
    if page.is_cut:
        text += "; more are in flight than were sorted: pass --tenant"
    return Group(drawn, Text(text, style="dim"))


def _says(job: "api.JobRow") -> str:
    """The error, why it waits, or its progress."""
    if job.error:
        return f"{job.error.code}: {job.error.message}"
    if job.cancel_requested and job.ended_at is None:
        return "asked to stop"
    if job.waiting:
        until = f" until {job.waiting.until[11:19]}" if job.waiting.until else ""
        return f"{job.waiting.reason.replace('_', ' ')} since {job.waiting.since[11:19]}{until}"
    if job.progress and job.ended_at is None:
        return f"{job.progress.percentage:.0f} % {job.progress.message}".strip()
    return f"{job.duration_seconds:.1f} s" if job.duration_seconds is not None else ""
