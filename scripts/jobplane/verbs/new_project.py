"""`jobplane new-project`: create a project from parts of this one."""

import json
from pathlib import Path

import click

from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane new-project --list
  jobplane new-project ../acme-jobs --only job-flow
  jobplane new-project ../acme --only realtime --only files
  jobplane new-project ../acme-jobs --update    # then in it: git merge upstream

The folder's name becomes the `service` in serverless.yml, which all deployed names begin
with. The new project is a git repository that can be deployed and passes its tests.
docs/taking-a-part.md is the guide.
"""
)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--only", "names", multiple=True, metavar="PART", help="A part; repeatable.")
@click.option("--update", is_flag=True, help="Commit changes of this one to its branch upstream.")
@click.option("--list", "listed", is_flag=True, help="List the parts and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    path: Path | None, names: tuple[str, ...], update: bool, listed: bool, as_json: bool
) -> None:
    """Create a project with only the functions of some parts."""
    from jobplane import parts

    repository = Repository.here()
    if listed:
        for part in parts.parts(repository).values():
            functions = ", ".join(sorted(parts.chosen(repository, (part.name,))))
            click.echo(f"{part.name:10} {part.summary}: {functions}")
        return
    if path is None:
        raise click.UsageError("missing PATH: jobplane new-project PATH --only PART")
    target = path.resolve()
    if update:
        if names:
            raise click.UsageError("--update uses the parts that the project has; omit --only")
        changed = parts.update(repository, target)
        if as_json:
            click.echo(json.dumps({"path": str(target), "changed": changed}))
        elif changed:
            click.echo(f"updated the branch upstream of {path}; run there: git merge upstream")
        else:
            click.echo(f"{path} is up to date: its parts have not changed")
        return
    if not names:
        raise click.UsageError("missing --only PART; `jobplane new-project --list` lists the parts")
    made = parts.make(repository, target, names)
    if as_json:
        click.echo(json.dumps({"path": str(target), "functions": made.functions}))
        return
    click.echo(f"made {path}: {', '.join(made.functions)}")
    click.echo(f"next: cd {path} && uv run jobplane up && uv run pytest")
