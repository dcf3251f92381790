"""`jobplane new-project`: a project of its own that takes parts of this one."""

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
  jobplane new-project ../acme-jobs --update    # then, there: git merge upstream

The folder's name becomes the `service` of serverless.yml, which names all that is
deployed. The new tree is a git repository that deploys and passes its own tests.
docs/taking-a-part.md leads through it.
"""
)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--only", "names", multiple=True, metavar="PART", help="A part; repeatable.")
@click.option("--update", is_flag=True, help="Commit changes of this tree to its branch upstream.")
@click.option("--list", "listed", is_flag=True, help="List the parts and end.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as one JSON object.")
def command(
    path: Path | None, names: tuple[str, ...], update: bool, listed: bool, as_json: bool
) -> None:
    """Make a project with only the functions of some parts."""
    from jobplane import parts

    repository = Repository.here()
    if listed:
        for part in parts.parts(repository).values():
            functions = ", ".join(sorted(parts.chosen(repository, (part.name,))))
            click.echo(f"{part.name:10} {part.summary}: {functions}")
        return
    if path is None:
        raise click.UsageError("missing PATH; jobplane new-project PATH --only PART")
    target = path.resolve()
    if update:
        if names:
            raise click.UsageError("--update takes the parts that the project has; omit --only")
        changed = parts.update(repository, target)
        if as_json:
            click.echo(json.dumps({"path": str(target), "changed": changed}))
        elif changed:
            click.echo(f"updated the branch upstream of {path}; in it, run: git merge upstream")
        else:
            click.echo(f"{path} is up to date: nothing that it has taken has changed")
        return
    if not names:
        raise click.UsageError("missing --only PART; `jobplane new-project --list` lists the parts")
    made = parts.make(repository, target, names)
    if as_json:
        click.echo(json.dumps({"path": str(target), "functions": made.functions}))
        return
    click.echo(f"made {path}: {', '.join(made.functions)}")
    click.echo(f"next: cd {path} && uv run jobplane up && uv run pytest")
