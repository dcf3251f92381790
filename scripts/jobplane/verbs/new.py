"""`jobplane new`: a new function."""

import json

import click

from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Repository

TRIGGERS = ("invoke", "websocket", "http", "sqs", "stream", "schedule", "step-functions")


@click.command(
    epilog="""\b
Examples:
  jobplane new --list
  jobplane new whoami --trigger websocket
  jobplane new count-connections

What is made passes ruff, mypy, its tests and `jobplane check`, and `jobplane up`
deploys it. It is a small working example: change it to what you need, together
with its events and tests. Names are kebab-case, mostly verbs; the module is the
same words with underscores. Add a dependency with

\b
  uv add --package jobplane-NAME DISTRIBUTION

or in functions/NAME/pyproject.toml: cases, `check` and the tests install it.
"""
)
@click.argument("name", required=False)
@click.option("--trigger", type=click.Choice(TRIGGERS), default="invoke", show_default=True)
@click.option("--list", "listed", is_flag=True, help="Say what each trigger's function does.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as one JSON object.")
def command(name: str | None, trigger: str, listed: bool, as_json: bool) -> None:
    """Make a function that works, with its events and its test."""
    from jobplane import scaffold

    if listed:
        for known in scaffold.TRIGGERS:
            click.echo(f"{known.name:15} {known.summary}")
        return
    if name is None:
        raise click.UsageError("missing NAME: jobplane new NAME --trigger TRIGGER")
    repository = Repository.here()
    made = [
        path.relative_to(repository.root).as_posix()
        for path in scaffold.create(repository, name, trigger)
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
  uv run jobplane schema && uv run jobplane docs   # contracts/ and tables of docs/ have it, too
  uv run jobplane up && uv run jobplane invoke {name} --all
and a line in the table of README.md."""
    )
