"""`jobplane down`: stop a local stage, or remove a stage from AWS."""

import sys
from typing import TYPE_CHECKING

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository

if TYPE_CHECKING:
    from jobplane.deploy.teardown import Removal


@click.command(
    epilog="""\b
Examples:
  jobplane down
  jobplane down --stage dev
  jobplane down --stage prod --dry-run     # what would be removed from AWS
  jobplane down --stage prod               # the stack; tables and buckets are kept
  jobplane down --stage prod --data        # the data as well
"""
)
@click.option("--stage", default="local", show_default=True)
@click.option(
    "--data",
    is_flag=True,
    help="On AWS: also delete the tables, buckets and secrets that the stage retains.",
)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and exit.")
def command(stage: str, data: bool, yes: bool, dry_run: bool) -> None:
    """Stop a local stage, or remove a stage from AWS.

    A stage that `jobplane up` started is local; its files are deleted. On AWS its buckets are
    emptied, the stack is removed, and so are queues made on demand, log groups and parameters.
    """
    from jobplane.deploy.local_stage import down

    there = Stage(Repository.here(), stage)
    if stage == "local" or there.is_local:
        if dry_run:
            click.echo(f"would stop the local stage {stage}")
            return
        stopped = down(there)
        click.echo(f"stopped {stage}" if stopped else f"{stage} was not running")
        return
    _remove(there, data=data, yes=yes, dry_run=dry_run)


def _remove(stage: Stage, *, data: bool, yes: bool, dry_run: bool) -> None:
    from jobplane.deploy import shipping, teardown
    from jobplane.terminal import interrupts
    from jobplane.terminal.progress import waiting
    from lambdapack.locks import exclusive

    place = shipping.where(shipping.require(stage))
    with exclusive(stage.repository, f"stage-{stage.name}"), interrupts.as_keyboard_interrupt():
        removal = teardown.survey(stage, data=data)
        if removal.nothing:
            click.echo(f"nothing to remove: stack {stage.names.stack} does not exist on {place}")
            _say_kept(removal)
            return
        click.echo(f"to be removed from {place}:")
        for kind, names in removal.goes():
            if names:
                click.echo(f"  {kind}: {', '.join(names)}")
        if removal.protected:
            click.echo(f"  deletion protection ends for: {', '.join(removal.protected)}")
        _say_kept(removal)
        if dry_run:
            return
        _agree(stage, yes)
        with waiting(f"removing {stage.name}", shipping.last_event(stage)):
            teardown.remove(removal)
    click.echo(f"removed {stage.name}")


def _say_kept(removal: "Removal") -> None:
    if removal.kept:
        click.echo(f"kept (--data removes them): {', '.join(removal.kept)}")


def _agree(stage: Stage, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal; pass --yes to remove the stage")
    if click.prompt("Type the name of the stage to remove it", err=True) != stage.name:
        raise click.ClickException("nothing was removed")
