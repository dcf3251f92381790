"""`jobplane logs`: print the logs of a stage's functions."""

import json
import re
import time

import click

from jobplane.stage.stages import Stage
from jobplane.terminal.console import note
from jobplane.tree.repository import Repository

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _milliseconds_ago(_context: object, _parameter: object, value: str) -> int:
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if match is None:
        raise click.BadParameter("a number and one of s, m, h, d: 30s, 5m, 2h")
    return max(0, int((time.time() - int(match[1]) * UNITS[match[2]]) * 1000))


@click.command(
    epilog="""\b
Examples:
  jobplane logs processor --follow
  jobplane logs --since 1h | grep req-1
  jobplane logs status --since 1h --json --stage staging
"""
)
@click.argument("name", required=False)
@click.option("--follow", "-f", is_flag=True, help="Wait for new lines until interrupted.")
@click.option("--since", default="5m", show_default=True, callback=_milliseconds_ago)
@click.option("--stage", default="local", show_default=True)
@click.option("--metrics", is_flag=True, help="Also show metric lines.")
@click.option("--json", "as_json", is_flag=True, help="Print all lines unchanged, as JSON.")
def command(
    name: str | None, follow: bool, since: int, stage: str, metrics: bool, as_json: bool
) -> None:
    """Print the logs of one function, or of all, in order of time."""
    from jobplane.stage import log_lines

    there = Stage(Repository.here(), stage).require()
    functions = there.repository.select((name,) if name else ())
    source = log_lines.follow if follow else log_lines.events
    silent, folded = True, False
    for event in source(there, functions, since):
        silent = False
        if not (metrics or as_json) and log_lines.is_metric(event.text):
            if not folded:
                note("metric lines are hidden; pass --metrics to show them")
            folded = True
        elif as_json:
            line = {"function": event.function, "timestamp": event.at, "message": event.text}
            click.echo(json.dumps(line))
        elif not event.is_platform:
            at = log_lines.clock(event.at)
            click.echo(f"{at} {event.function:14} {log_lines.readable(event.text)}")
    if silent:
        note("no log lines in that time; pass a longer --since")
