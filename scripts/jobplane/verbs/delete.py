"""`jobplane delete`: remove functions from the repository."""

import json
import sys

import click

from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane delete disconnect
  jobplane delete claim handle-timeout --yes

Deletes also the resources that refer to the function, and those that only it used.
Keeps libs, docs and tests; pytest skips test modules that need the function. Repeat
it to finish an interrupted deletion, or after you deleted the folder yourself.
"""
)
@click.argument("names", nargs=-1, required=True, metavar="FUNCTION...")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was deleted as one JSON object.")
def command(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete functions, with the resources that only they need."""
    from jobplane import parts

    repository = Repository.here()
    resources = parts.resources_of(repository, names)
    if not yes:
        _agree(names, resources)
    parts.delete(repository, names)
    if as_json:
        click.echo(json.dumps({"functions": names, "resources": resources}))
        return
    for name in names:
        click.echo(f"deleted  functions/{name}")
    for id_ in resources:
        click.echo(f"deleted  {id_}")
    click.echo("next: uv run jobplane check && uv run pytest")


def _agree(names: tuple[str, ...], resources: list[str]) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal; pass --yes to delete")
    also = f" and the resources {', '.join(resources)}" if resources else ""
    click.confirm(f"Delete {', '.join(names)}{also}?", err=True, abort=True)
