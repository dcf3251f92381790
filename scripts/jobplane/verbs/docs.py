"""`jobplane docs`: the tables of the documentation, made from what they tell of."""

from collections.abc import Callable
from pathlib import Path

import click

from jobplane.workspace import Workspace

type Made = tuple[Path, dict[str, str] | str]
"""A document, with its tables by section, or with its whole text."""


def _commands(workspace: Workspace) -> Made:
    from jobplane import reference
    from jobplane.__main__ import jobplane

    return reference.DOCUMENT, reference.tables(jobplane)


def _cases(workspace: Workspace) -> Made:
    from jobplane import case_reference

    return case_reference.DOCUMENT, case_reference.tables()


def _grants(workspace: Workspace) -> Made:
    from jobplane import grants

    return grants.DOCUMENT, grants.tables(
        grants.template_to_tell(workspace), workspace.names(grants.STAGE)
    )


def _metrics(workspace: Workspace) -> Made:
    from jobplane import metrics

    return metrics.DOCUMENT, metrics.tables(workspace)


def _policy(workspace: Workspace) -> Made:
    from jobplane import compiled, deployer
    from jobplane.stages import Stage

    there = Stage(workspace, deployer.EXAMPLE_STAGE)
    return deployer.DOCUMENT, deployer.example(compiled.outline(there), there.names)


def _templates(workspace: Workspace) -> Made:
    from jobplane import templates

    return templates.DOCUMENT, templates.tables(workspace)


TOPICS: dict[str, Callable[[Workspace], Made]] = {
    "cases": _cases,
    "commands": _commands,
    "grants": _grants,
    "metrics": _metrics,
    "policy": _policy,
    "templates": _templates,
}


@click.command(
    epilog="""\b
Examples:
  jobplane docs             # all of them
  jobplane docs metrics     # after a function emits another metric
  jobplane docs --check     # in a pipeline
"""
)
@click.argument("topics", nargs=-1, metavar="[TOPIC]...", type=click.Choice(list(TOPICS)))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a table is not current.")
def command(topics: tuple[str, ...], check: bool) -> None:
    """Bring what is made in docs/ up to date: tables, and the deployer's policy.

    \b
    cases      docs/adding-a-function.md: keys and placeholders of a case's files
    commands   docs/commands.md: the verbs
    grants     docs/security.md: what the roles allow, as the stack is compiled
    metrics    docs/observing.md: what the functions emit; what is said of each is kept
    policy     docs/deployer-policy.json: what `jobplane policy` prints for prod
    templates  docs/templates.md: the templates that ship
    """
    from jobplane.documents import refresh

    workspace = Workspace.here()
    stale = []
    for topic in topics or TOPICS:
        document, tables = TOPICS[topic](workspace)
        if not topics and not (workspace.root / document).is_file():
            continue  # A project without such a page.
        if changed := refresh(workspace.root / document, tables, write=not check):
            stale.append(document.as_posix())
        state = ("stale" if check else "written") if changed else "current"
        click.echo(f"{state:8} {document.as_posix()}")
    if check and stale:
        raise click.ClickException(f"{', '.join(stale)}: run `jobplane docs`")
