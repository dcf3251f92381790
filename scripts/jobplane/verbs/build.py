"""`jobplane build`: make the artifacts of functions."""

import json
from dataclasses import asdict, replace

import click

from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane build                 # every function
  jobplane build status router   # two
  jobplane build --arch arm64    # for the other kind of machine
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--arch", type=click.Choice(["x86_64", "arm64"]), help="Default: this machine's.")
@click.option(
    "--sdk",
    type=click.Choice(["cut", "runtime", "whole"]),
    default="cut",
    help="cut: only what the IAM statements need; runtime: none, use Lambda's copy; "
    "whole: all of it.",
)
@click.option(
    "--no-thin",
    is_flag=True,
    help="Ship all files as they are installed. LAMBDAPACK_NO_THIN=1: for every verb that builds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the artifacts as one JSON object.")
def command(
    names: tuple[str, ...], arch: str | None, sdk: str, no_thin: bool, as_json: bool
) -> None:
    """Build dist/NAME.zip for each function, or for all.

    Artifacts whose inputs have not changed are kept.
    """
    from lambdapack.artifacts import Builder, Settings

    repository = Repository.here()
    settings = Settings(arch or Settings.local().arch, sdk)
    if no_thin:
        settings = replace(settings, thin=False)
    artifacts = Builder(repository, settings).build(repository.select(names))
    if as_json:
        click.echo(json.dumps({artifact.name: asdict(artifact) for artifact in artifacts}))
        return
    for artifact in artifacts:
        state = "built" if artifact.built else "unchanged"
        click.echo(
            f"{artifact.name:24} {state:9} {artifact.size / 1e6:6.2f} MB "
            f"({artifact.unpacked_size / 1e6:.2f} unpacked, {artifact.files} files) "
            f"{artifact.digest[:12]}"
        )
