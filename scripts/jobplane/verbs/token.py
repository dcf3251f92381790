"""`jobplane token`: print a JWT that a stage's functions accept."""

import click

from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane token --user dev --tenant acme
  jobplane token --user dev --tenant acme --ttl 60 --stage dev
"""
)
@click.option("--user", required=True, help="Value of the claim user_id.")
@click.option("--tenant", required=True, help="Value of the claim tenant_id.")
@click.option("--permissions", default="", help="Comma-separated.")
@click.option(
    "--ttl",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    help="Seconds until it expires.",
)
@click.option("--stage", default="local", show_default=True)
def command(user: str, tenant: str, permissions: str, ttl: int, stage: str) -> None:
    """Print a token (JWT) that a stage accepts."""
    from jobplane_client import mint_token

    for option, value in (("--user", user), ("--tenant", tenant)):
        if not value:
            raise click.UsageError(f"{option} is empty, so no function would accept the token")
    there = Stage(Repository.here(), stage).require()
    listed = [permission for permission in permissions.split(",") if permission]
    token = mint_token(jwt_secret(there), user=user, tenant=tenant, permissions=listed, ttl=ttl)
    click.echo(token)
