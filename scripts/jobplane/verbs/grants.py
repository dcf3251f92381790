"""`jobplane grants`: who may do what."""

import click

from jobplane.workspace import Workspace

STAGE = "prod"


@click.command(
    epilog="""\b
Examples:
  jobplane grants                      # the roles of all functions and state machines
  jobplane grants status processor     # of two
  jobplane grants --write              # bring the tables of docs/security.md up to date
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--write", is_flag=True, help="Write the tables of docs/security.md instead.")
def command(names: tuple[str, ...], write: bool) -> None:
    """List what the roles of the functions NAME, or of all, allow.

    Read from the stack as it is compiled for the stage prod; needs no credentials.
    """
    from jobplane import compiled
    from jobplane.artifacts import Builder, Settings
    from jobplane.deployment import install_framework
    from jobplane.grants import DOCUMENT, grants, tables, written
    from jobplane.stages import Stage

    if write and names:
        raise click.UsageError("--write is of all: it takes no NAME")
    workspace = Workspace.here()
    chosen = {function.name for function in workspace.select(names)}
    install_framework(workspace)
    Builder(workspace, Settings.local()).build(workspace.functions())
    with compiled.package(Stage(workspace, STAGE), ("jwtSecret=not-deployed",)) as package:
        template = package.raw
    if write:
        path = workspace.root / DOCUMENT
        before = path.read_text(encoding="utf-8")
        after = written(before, tables(template, STAGE))
        path.write_text(after, encoding="utf-8")
        click.echo(f"{DOCUMENT}: {'written' if after != before else 'unchanged'}")
        return
    for grant in grants(template, STAGE):
        if not names or grant.role in chosen:
            click.echo(f"{grant.role:20} {grant.resource:60} {', '.join(grant.actions)}")
