"""`jobplane schema`: generate the contracts from the models."""

import json

import click

from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane schema            # after changing a model
  jobplane schema --check    # in a pipeline
"""
)
@click.option("--check", is_flag=True, help="Write nothing; show what differs, and exit with 1.")
@click.option("--json", "as_json", is_flag=True, help="Print the changed files as a JSON object.")
def command(check: bool, as_json: bool) -> None:
    """Generate contracts/: schemas, API documents, types.

    \b
    json-schema/   one schema for each event, message, input and result
    openapi.json   the HTTP API
    asyncapi.json  the socket
    typescript/    the same as types

    Everything is generated from the models in libs/models: change a model, run this, commit both.
    The types of the console's page are generated as well, from its API in the command.
    """
    from jobplane.console.typescript import PLACE, api_types
    from jobplane.contracts.files import drift, rendered, settle
    from jobplane.stage.framework import install_framework

    repository = Repository.here()
    install_framework(repository)
    install_dependencies(repository)
    files = rendered(repository)
    if (repository.root / PLACE.parent).is_dir():
        files[PLACE] = api_types(repository)
    drifted = drift(repository, files)
    if not check:
        for each in drifted:
            settle(repository, each)
    if as_json:
        changed = {each.path.as_posix(): _state(each.wanted, check) for each in drifted}
        click.echo(json.dumps({"files": len(files), "changed": changed}))
    elif check:
        click.echo("".join(each.diff() for each in drifted), nl=False)
    else:
        for each in drifted:
            click.echo(f"{_state(each.wanted, check):8} {each.path.as_posix()}")
        click.echo(f"{len(files)} files, {len(drifted)} changed")
    if check and drifted:
        raise click.ClickException(
            f"{len(drifted)} of {len(files)} contracts are out of date; run `jobplane schema`"
        )


def _state(wanted: str | None, check: bool) -> str:
    if check:
        return "missing or different" if wanted is not None else "left over"
    return "written" if wanted is not None else "removed"
