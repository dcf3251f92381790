"""`jobplane new`: create a new function."""

import json

import click

from jobplane.scaffold.triggers import TRIGGERS
from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane new --list
  jobplane new whoami --trigger websocket
  jobplane new count-connections

The new function is a small working example, with events and tests: change it to what
you need. It passes ruff, mypy, its tests and `jobplane check`, and `jobplane up` deploys
it. Names are kebab-case, mostly verbs; the module has underscores instead. Add a
dependency with

\b
  uv add --package jobplane-NAME DISTRIBUTION

or in functions/NAME/pyproject.toml; `invoke`, `check` and pytest install it.
"""
)
@click.argument("name", required=False)
@click.option(
    "--trigger",
    type=click.Choice([known.name for known in TRIGGERS]),
    default="invoke",
    show_default=True,
)
@click.option("--list", "listed", is_flag=True, help="List the triggers.")
@click.option("--json", "as_json", is_flag=True, help="Print the new files as one JSON object.")
def command(name: str | None, trigger: str, listed: bool, as_json: bool) -> None:
    """Create a working function, with its events and its test."""
    if listed:
        for known in TRIGGERS:
            click.echo(f"{known.name:15} {known.caller}: {known.example}")
        return
    if name is None:
        raise click.UsageError("missing NAME: jobplane new NAME --trigger TRIGGER")
    from jobplane.scaffold.creating import create

    repository = Repository.here()
    made = [
        path.relative_to(repository.root).as_posix() for path in create(repository, name, trigger)
    ]
    install_dependencies(repository)
    if as_json:
        click.echo(json.dumps({"name": name, "trigger": trigger, "made": made}))
        return
    for path in made:
        click.echo(f"made     {path}")
    click.echo("changed  uv.lock")
    click.echo(
        f"""
next:
  uv run jobplane invoke {name} --all --in-process
  uv run pytest tests/unit/test_{name.replace("-", "_")}.py
  uv run jobplane check {name}
  uv run jobplane schema && uv run jobplane docs   # update contracts/ and docs/
  uv run jobplane up && uv run jobplane invoke {name} --all
and add a line to the table in README.md."""
    )
