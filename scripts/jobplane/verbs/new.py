"""`jobplane new`: create a new function, action or robot."""

import json

import click

from jobplane.scaffold.triggers import TRIGGERS
from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Repository

NEXT = {
    None: """
next:
  uv run jobplane invoke {name} --all --in-process
  uv run pytest tests/unit/test_{module}.py
  uv run jobplane check {name}
  uv run jobplane schema && uv run jobplane docs   # update contracts/ and docs/
  uv run jobplane up && uv run jobplane invoke {name} --all
and add a line to the table in README.md.""",
    "action": """
next:
  uv run pytest tests/unit/test_{module}.py
  uv run jobplane invoke router {name} --in-process
  uv run jobplane invoke processor {name} --in-process
  uv run jobplane check router processor
  uv run jobplane schema && uv run jobplane docs   # update contracts/ and docs/
  uv run jobplane up                               # then send {{"action": "{module}"}}""",
    "robot": """
next:
  uv run pytest tests/unit/test_{module}.py
  uv run jobplane invoke processor {name} --in-process
  uv run jobplane check processor
  uv run jobplane docs                             # update docs/
  uv run jobplane up                               # then send a file to tpl_{module}""",
}


@click.command(
    epilog="""\b
Examples:
  jobplane new --list
  jobplane new whoami --trigger websocket
  jobplane new count-connections
  jobplane new transcribe --action
  jobplane new redact-names --robot

The new function is a small working example, with events and tests: change it to what
you need. An action or a robot is a package in libs/NAME, which processor loads; which of
them to take: docs/adding-a-job.md. It passes ruff, mypy, its tests and `jobplane
check`, and `jobplane up` deploys it. Names are kebab-case, mostly verbs; the module has
underscores instead. Add a dependency with

\b
  uv add --package jobplane-NAME DISTRIBUTION

or in the pyproject.toml of the member; `invoke`, `check` and pytest install it.
"""
)
@click.argument("name", required=False)
@click.option(
    "--trigger",
    type=click.Choice([known.name for known in TRIGGERS]),
    help="Make a function, called by this; `invoke` without any of these options.",
)
@click.option("--action", "kind", flag_value="action", help="Make an action that clients send.")
@click.option("--robot", "kind", flag_value="robot", help="Make a robot that templates name.")
@click.option("--list", "listed", is_flag=True, help="List the triggers.")
@click.option("--json", "as_json", is_flag=True, help="Print the new files as one JSON object.")
def command(
    name: str | None, trigger: str | None, kind: str | None, listed: bool, as_json: bool
) -> None:
    """Create a working function, action or robot, with its test."""
    if listed:
        for known in TRIGGERS:
            click.echo(f"{known.name:15} {known.caller}: {known.example}")
        return
    if name is None:
        raise click.UsageError("missing NAME: jobplane new NAME --trigger TRIGGER")
    if trigger is not None and kind is not None:
        raise click.UsageError(f"--{kind} has no trigger: leave out --trigger")
    from jobplane.scaffold.creating import create

    repository = Repository.here()
    made, changed = (
        [path.relative_to(repository.root).as_posix() for path in paths]
        for paths in create(repository, name, kind or trigger or "invoke")
    )
    install_dependencies(repository)
    if as_json:
        what = {"name": name, "trigger": None if kind else trigger or "invoke", "kind": kind}
        click.echo(json.dumps(what | {"made": made, "changed": changed}))
        return
    for path in made:
        click.echo(f"made     {path}")
    for path in changed:
        click.echo(f"changed  {path}")
    click.echo(NEXT[kind].format(name=name, module=name.replace("-", "_")))
