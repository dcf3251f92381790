"""`jobplane grants`: list what each role allows."""

import click

from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane grants                      # the roles of all functions and state machines
  jobplane grants status processor     # of two functions
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def command(names: tuple[str, ...]) -> None:
    """List what the roles of functions allow.

    Reads the stack as compiled for the stage prod; needs no credentials.
    """
    from jobplane.reference.grants import STAGE, grants, template_to_tell

    repository = Repository.here()
    chosen = {function.name for function in repository.select(names)}
    template = template_to_tell(repository)
    for grant in grants(template, repository.names(STAGE)):
        if not names or grant.role in chosen:
            click.echo(f"{grant.role:20} {grant.resource:60} {', '.join(grant.actions)}")
