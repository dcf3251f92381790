"""`jobplane templates`: list the templates of assemblies."""

import json

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository

PLAIN_WIDTH = 160


@click.command(
    epilog="""\b
Examples:
  jobplane templates
  jobplane templates --stage prod --json   # with the parameters of that stage
"""
)
@click.option(
    "--stage", default="local", show_default=True, help="Show the parameters of this stage."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def command(stage: str, as_json: bool) -> None:
    """List the templates: ids, steps, webhook settings.

    docs/templates.md describes the format.
    """
    from jobplane.deploy.templates import templates

    repository = Repository.here()
    named = Stage(repository, stage)
    found = {
        each.id: {"steps": each.steps, **each.references(repository.service, named.name)}
        for each in templates(repository)
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    from jobplane.terminal.tables import console, table

    rows = [
        (
            each.id,
            each.flow.replace(", ", "\n"),
            "\n".join(each.references(repository.service, named.name).values()) or "none",
        )
        for each in templates(repository)
    ]
    headings = ("template", "steps (robots)", "webhook: URL, secret")
    console(PLAIN_WIDTH).print(table(headings, rows, unbroken=headings))
