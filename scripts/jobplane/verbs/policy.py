"""`jobplane policy`: print the IAM policy needed to deploy a stage."""

import json
import re

import click

from jobplane.stage.stages import Stage, default_region
from jobplane.tree.repository import Repository


def _account(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d{12}", value):
        raise click.BadParameter(f"invalid account id {value!r}: use twelve digits")
    return value


@click.command(
    epilog="""\b
Examples:
  jobplane policy --stage prod > policy.json
  jobplane policy --stage prod --account 123456789012   # needs no credentials
"""
)
@click.option("--stage", default="prod", show_default=True)
@click.option(
    "--account", metavar="ID", callback=_account, help="Default: the account of your credentials."
)
def command(stage: str, account: str | None) -> None:
    """Print the IAM policy of a role that deploys a stage.

    Derived from the compiled stack: the actions that CloudFormation needs for its resources, and
    those that the tools need, on names that begin with the stage's prefix.
    """
    import boto3

    from jobplane.deploy import compiled, deployer, shipping

    repository = Repository.here()
    there = Stage(repository, stage)
    region = default_region(repository)
    document = deployer.policy(
        compiled.outline(there),
        there.names,
        account=account or shipping.account_of(there),
        region=region,
        partition=boto3.Session().get_partition_for_region(region),
    )
    click.echo(json.dumps(document, indent=2))
