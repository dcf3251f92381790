"""`jobplane grants`: who may do what."""

import click

from jobplane.tree.workspace import Workspace


@click.command(
    epilog="""\b
Examples:
  jobplane grants                      # the roles of all functions and state machines
  jobplane grants status processor     # of two
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def command(names: tuple[str, ...]) -> None:
    """List what the roles of functions, or of all, allow.

    Read from the stack as it is compiled for the stage prod; needs no credentials.
    """
    from jobplane.reference.grants import STAGE, grants, template_to_tell

    workspace = Workspace.here()
    chosen = {function.name for function in workspace.select(names)}
    template = template_to_tell(workspace)
    for grant in grants(template, workspace.names(STAGE)):
        if not names or grant.role in chosen:
            click.echo(f"{grant.role:20} {grant.resource:60} {', '.join(grant.actions)}")
