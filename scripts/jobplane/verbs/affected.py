"""`jobplane affected`: the functions that a change affects."""

import json
from dataclasses import asdict

import click

from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane affected                      # what is not committed yet
  jobplane affected --since HEAD~1       # and the last commit
  jobplane affected --since main...      # and all of this branch, from where it left main
  jobplane affected --since v1.2 --json  # for a pipeline"""
)
@click.option(
    "--since",
    default="HEAD",
    show_default=True,
    metavar="REV",
    help="Compare with this revision; REV... is where this branch left REV.",
)
@click.option("--names", is_flag=True, help="Print only the names, one per line.")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def command(since: str, names: bool, as_json: bool) -> None:
    """List the functions that a change affects, with the reasons.

    Affected are functions whose artifact or configuration would differ.

    The working tree, uncommitted and untracked files included, is compared with a revision:
    what `build` depends on (sources, libs, locked dependencies, IAM statements, data folders),
    and what the stack is compiled from.
    """
    from jobplane.deploy.affected import affected

    change = affected(Repository.here(), since)
    if as_json:
        click.echo(json.dumps(asdict(change)))
    elif names:
        for each in change.functions:
            click.echo(each.name)
    elif not change.functions and not change.stack:
        click.echo(f"nothing differs from {since} ({change.commit[:10]})")
    else:
        for each in change.functions:
            what = "artifact" if each.artifact else ""
            what += " and configuration" if what and each.configuration else ""
            click.echo(f"{each.name:24} {what or 'configuration'}")
            for reason in each.reasons:
                click.echo(f"    {reason}")
        if change.stack:
            click.echo(f"{'the stack':24} configuration of no single function")
            for reason in change.stack:
                click.echo(f"    {reason}")
