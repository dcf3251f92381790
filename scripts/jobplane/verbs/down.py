"""`jobplane down`: stop a local stage."""

import click

from jobplane.stages import Stage
from jobplane.workspace import Workspace


@click.command(
    epilog="""\b
Examples:
  jobplane down
  jobplane down --stage dev
"""
)
@click.option("--stage", default="local", show_default=True)
def command(stage: str) -> None:
    """Stop a local stage and remove what it kept on disk."""
    from jobplane.local_stage import down

    stopped = down(Stage(Workspace.here(), stage))
    click.echo(f"{stage} is down" if stopped else f"{stage} was not up")
