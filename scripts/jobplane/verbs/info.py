"""`jobplane info`: what runs where."""

import json
from typing import Any

import click

from jobplane.stages import Stage, StageNotUpError
from jobplane.workspace import Workspace


@click.command(
    epilog="""\b
Examples:
  jobplane info
  jobplane info --json
  eval "$(jobplane info --export)"     # then: aws dynamodb list-tables
"""
)
@click.option("--stage", default="local", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
@click.option("--export", is_flag=True, help="Print shell exports that point AWS tools at it.")
def command(stage: str, as_json: bool, export: bool) -> None:
    """Print URLs and names of a stage; of a local one, a token."""
    if as_json and export:
        raise click.UsageError("either --json or --export")
    there = Stage(Workspace.here(), stage).require()
    if export:
        for name, value in there.environment().items():
            click.echo(f"export {name}={value}")
        return
    description = _describe(there)
    if as_json:
        click.echo(json.dumps(description))
        return
    print_description(description)
    if there.is_local:
        from jobplane.tokens import mint

        click.echo(f"token            {mint(there.jwt_secret(), user='dev', tenant='acme')}")


def _describe(there: Stage) -> dict[str, Any]:
    from jobplane import deployment, emulator

    state = there.read_state()
    if state is None:
        return deployment.describe(there)
    if not emulator.is_running(state):
        raise StageNotUpError(there.name)
    return state.description


def print_description(description: dict[str, Any]) -> None:
    """One line each: the URLs, then what the stack is made of."""
    for key in ("websocket_url", "http_url", "endpoint_url"):
        if description[key]:
            click.echo(f"{key.replace('_', ' '):16} {description[key]}")
    for key in ("functions", "tables", "buckets", "queues", "state_machines"):
        if description[key]:
            click.echo(f"{key.replace('_', ' '):16} {', '.join(description[key])}")
