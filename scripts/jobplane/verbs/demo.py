"""`jobplane demo`: run the whole system once with real jobs."""

import json
from pathlib import Path

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane demo
  jobplane demo --size 2000            # with a file of two gigabytes
  jobplane demo --keep && jobplane info --stage demo
"""
)
@click.option("--stage", default="demo", show_default=True, help="Name of the demo's local stage.")
@click.option("--keep", is_flag=True, help="Keep the stage running afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print steps and figures as one JSON object.")
@click.option(
    "--size",
    type=click.IntRange(1, 5000),
    default=200,
    show_default=True,
    help="Megabytes of the large file.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also save the summary as an SVG file.",
)
def command(stage: str, keep: bool, as_json: bool, size: int, picture: Path | None) -> None:
    """Run real jobs through the whole stack, check, clean up.

    Starts a local stage of its own. Shows uploads, jobs with live progress, status, webhooks,
    downloads, repeated requests, cancellation, a lost connection, refused requests. Exits with 1
    and names the check if a check fails.
    """
    from jobplane.demo.story import Stopwatch

    if picture is not None and not picture.parent.is_dir():
        raise click.UsageError(f"--picture: no folder {picture.parent}; create it first")
    began = Stopwatch()

    from jobplane.demo.program import play
    from jobplane.demo.screen import print_summary, save_picture

    there = Stage(Repository.here(), stage)
    report = play(there, size, keep=keep, began=began)
    if picture is not None:
        save_picture(report.outcomes, picture)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    else:
        print_summary(report.outcomes)
        click.echo(
            f"{report.total:.1f} s in all: {report.set_up:.1f} to set up, "
            f"{report.steps:.1f} for the steps, {report.clean_up:.1f} to clean up"
        )
        if report.kept:
            _tell_of(there)
        else:
            click.echo("nothing is left running; to look at it in a browser:")
            click.echo("jobplane demo --keep && jobplane console --stage demo")
    if not report.held:
        raise click.ClickException(f"failed: {', '.join(report.failed)}")


def _tell_of(stage: Stage) -> None:
    from jobplane.verbs.info import print_description, print_next_step

    click.echo(f"\nstage {stage.name} keeps running; stop it: jobplane down --stage {stage.name}")
    state = stage.read_state()
    if state is not None:
        print_description(state.description)
        print_next_step(stage)
