"""`jobplane docs`: generate tables and pictures of the documentation from the code."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from jobplane.terminal.groups import ModuleGroup
from jobplane.tree.repository import Repository

type Made = Mapping[Path, str]
"""The wanted content of files, by path."""


def _commands(repository: Repository) -> Made:
    from jobplane.reference import verbs

    command = click.get_current_context().find_root().command
    assert isinstance(command, ModuleGroup)
    return _with(repository, verbs.DOCUMENT, verbs.tables(command))


def _cases(repository: Repository) -> Made:
    from jobplane.reference import cases

    return _with(repository, cases.DOCUMENT, cases.tables())


def _grants(repository: Repository) -> Made:
    from jobplane.reference import grants

    tables = grants.tables(grants.template_to_tell(repository), repository.names(grants.STAGE))
    return _with(repository, grants.DOCUMENT, tables)


def _metrics(repository: Repository) -> Made:
    from jobplane.reference import metrics

    return _with(repository, metrics.DOCUMENT, metrics.tables(repository))


def _pictures(repository: Repository) -> Made:
    from jobplane.reference.pictures import pictures

    return pictures(repository)


def _policy(repository: Repository) -> Made:
    from jobplane.deploy import compiled, deployer
    from jobplane.stage.stages import Stage

    there = Stage(repository, deployer.EXAMPLE_STAGE)
    return {deployer.DOCUMENT: deployer.example(compiled.outline(there), there.names)}


def _templates(repository: Repository) -> Made:
    from jobplane.reference import templates

    return _with(repository, templates.DOCUMENT, templates.tables(repository))


def _triggers(repository: Repository) -> Made:
    from jobplane.scaffold import triggers

    return _with(repository, triggers.DOCUMENT, triggers.tables())


def _with(repository: Repository, document: Path, tables: Mapping[str, str]) -> Made:
    from jobplane.reference.documents import with_tables

    path = repository.root / document
    if not path.is_file():  # a project may have no such page
        return {}
    return {document: with_tables(path.read_text(encoding="utf-8"), tables)}


TOPICS: dict[str, Callable[[Repository], Made]] = {
    "cases": _cases,
    "commands": _commands,
    "grants": _grants,
    "metrics": _metrics,
    "pictures": _pictures,
    "policy": _policy,
    "templates": _templates,
    "triggers": _triggers,
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
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file is out of date.")
def command(topics: tuple[str, ...], check: bool) -> None:
    """Update generated parts of docs/: tables, pictures, a policy.

    \b
    cases      docs/adding-a-function.md: keys and placeholders of case files
    commands   docs/commands.md: the verbs
    grants     docs/security.md: what the roles in the compiled stack allow
    metrics    docs/observing.md: emitted metrics; their descriptions are kept
    pictures   docs/pictures: the system, the job flow and the states of a job, as SVG
    policy     docs/deployer-policy.json: what `jobplane policy` prints for prod
    templates  docs/templates.md: the assemblies' templates
    triggers   docs/adding-a-function.md: the functions that `new` makes
    """
    repository = Repository.here()
    stale = []
    for topic in topics or TOPICS:
        for path, text in TOPICS[topic](repository).items():
            file = repository.root / path
            if is_stale := not file.is_file() or file.read_text(encoding="utf-8") != text:
                stale.append(path.as_posix())
                if not check:
                    file.write_text(text, encoding="utf-8")
            state = ("stale" if check else "written") if is_stale else "current"
            click.echo(f"{state:8} {path.as_posix()}")
    if check and stale:
        raise click.ClickException(f"out of date: {', '.join(stale)}; run `jobplane docs`")
