"""`jobplane up`: start or update the local stage."""

import json

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane up
  jobplane up --stage dev --port 4566
"""
)
@click.option("--stage", default="local", show_default=True, help="Several can run at a time.")
@click.option("--port", type=click.IntRange(1024, 65535), help="Default: a free port.")
@click.option("--json", "as_json", is_flag=True, help="Print URLs and names as one JSON object.")
def command(stage: str, port: int | None, as_json: bool) -> None:
    """Start a local stage, or update it.

    Starts the emulator, builds, deploys what has changed, and prints URLs and names.
    """
    from jobplane.deploy.local_stage import up
    from jobplane.verbs.info import print_description, print_next_step

    there = Stage(Repository.here(), stage)
    result = up(there, port)
    if as_json:
        click.echo(json.dumps(result.description))
        return
    click.echo(f"{stage} is up: {result.outcome}")
    print_description(result.description)
    print_next_step(there)
