"""`jobplane docs`: generate tables and pictures of the documentation from the code."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from jobplane.tree.repository import Repository

type Made = Mapping[Path, str]
"""The wanted content of files, by path."""


# Modules with a DOCUMENT and its tables, by topic.
PAGES = {
    "cases": "reference.cases",
    "commands": "reference.verbs",
    "grants": "reference.grants",
    "metrics": "reference.metrics",
    "packages": "scaffold.packages",
    "templates": "reference.templates",
    "triggers": "scaffold.triggers",
}
TOPICS = sorted([*PAGES, "pictures", "policy"])


def _made(topic: str, repository: Repository) -> Made:
    from jobplane.deploy import compiled, deployer
    from jobplane.reference.documents import with_tables
    from jobplane.reference.pictures import pictures
    from jobplane.stage.stages import Stage

    if topic == "pictures":
        return pictures(repository)
    if topic == "policy":
        there = Stage(repository, deployer.EXAMPLE_STAGE)
        return {deployer.DOCUMENT: deployer.example(compiled.outline(there), there.names)}
    page = import_module(f"jobplane.{PAGES[topic]}")
    given: list[Any] = [] if topic in ("cases", "triggers") else [repository]
    if topic == "commands":
        given = [click.get_current_context().find_root().command]
    elif topic == "grants":
        given = [page.template_to_tell(repository), repository.names(page.STAGE)]
    path = repository.root / page.DOCUMENT
    if not path.is_file():  # a project may have no such page
        return {}
    return {page.DOCUMENT: with_tables(path.read_text(encoding="utf-8"), page.tables(*given))}


@click.command(
    epilog="""\b
Examples:
  jobplane docs             # all of them
  jobplane docs metrics     # after a function emits another metric
  jobplane docs --check     # in a pipeline
"""
)
@click.argument("topics", nargs=-1, metavar="[TOPIC]...", type=click.Choice(TOPICS))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file is out of date.")
def command(topics: tuple[str, ...], check: bool) -> None:
    """Update generated parts of docs/: tables, pictures, a policy.

    \b
    cases      docs/adding-a-function.md: keys and placeholders of case files
    commands   docs/commands.md: the verbs
    grants     docs/security.md: what the roles in the compiled stack allow
    metrics    docs/observing.md: emitted metrics; their descriptions are kept
    packages   docs/adding-a-job.md: the actions and robots of this repository's packages
    pictures   docs/pictures: the system, the job flow and the states of a job, as SVG
    policy     docs/deployer-policy.json: what `jobplane policy` prints for prod
    templates  docs/templates.md: the assemblies' templates
    triggers   docs/adding-a-function.md: the functions that `new` makes
    """
    repository = Repository.here()
    stale = []
    for topic in topics or TOPICS:
        for path, text in _made(topic, repository).items():
            file = repository.root / path
            if is_stale := not file.is_file() or file.read_text(encoding="utf-8") != text:
                stale.append(path.as_posix())
                if not check:
                    file.write_text(text, encoding="utf-8")
            state = ("stale" if check else "written") if is_stale else "current"
            click.echo(f"{state:8} {path.as_posix()}")
    if check and stale:
        raise click.ClickException(f"out of date: {', '.join(stale)}; run `jobplane docs`")
