"""`jobplane info`: print URLs and names of a stage."""

import json
import os
import shlex
from collections.abc import Iterator
from typing import Any

import click

from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage, StageNotUpError
from jobplane.tree.repository import Repository
from lambdapack.environments import NO_AWS_FILES, OF_AN_ACCOUNT

# The AWS CLI of PyPI (v1) ignores AWS_ENDPOINT_URL for SQS: its customization
# `overridesslcommonname` uses the address `{region}.queue.amazonaws.com` unless there is an
# --endpoint-url. v2 does not.
AWS = """aws() { command aws ${AWS_ENDPOINT_URL:+"--endpoint-url=$AWS_ENDPOINT_URL"} "$@"; }"""

# As the examples of jobplane-client read them.
CLIENT_VARIABLES = {
    "JOBPLANE_URL": "http_url",
    "JOBPLANE_SOCKET_URL": "websocket_url",
    "JOBPLANE_TOKEN": "token",
}


@click.command(
    epilog="""\b
Examples:
  jobplane info
  jobplane info --json
  eval "$(jobplane info --export)"     # then: aws dynamodb list-tables

\b
The lines of --export are for bash, zsh and dash. fish can't run them: start bash first.
They affect this shell only."""
)
@click.option("--stage", default="local", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
@click.option("--export", is_flag=True, help="Print shell commands for AWS tools and clients.")
def command(stage: str, as_json: bool, export: bool) -> None:
    """Print URLs and names of a stage, and a token of a local one."""
    if as_json and export:
        raise click.UsageError("pass --json or --export, not both")
    there = Stage(Repository.here(), stage).require()
    description = _describe(there)
    if there.is_local:
        description = description | {"token": _token(there)}
    if export:
        for line in _shell_lines(there, description):
            click.echo(line)
        return
    if as_json:
        click.echo(json.dumps(description))
        return
    print_description(description)


def _describe(there: Stage) -> dict[str, Any]:
    from jobplane.deploy import description
    from jobplane.stage import emulator

    state = there.read_state()
    if state is None:
        return description.describe(there)
    if not emulator.is_running(state):
        raise StageNotUpError(there.name)
    return state.description


def _token(stage: Stage) -> str:
    from jobplane_client import mint_token

    return mint_token(jwt_secret(stage), user="dev", tenant="acme")


def _shell_lines(there: Stage, description: dict[str, Any]) -> Iterator[str]:
    """Shell commands: exports, an `unset` of AWS account settings, and an `aws` function."""
    of_clients = {name: description.get(key) for name, key in CLIENT_VARIABLES.items()}
    exported = there.environment() | NO_AWS_FILES
    exported |= {name: value for name, value in of_clients.items() if value}
    for name, value in exported.items():
        yield f"export {name}={shlex.quote(value)}"
    endpoints = [name for name in os.environ if name.startswith("AWS_ENDPOINT_URL_")]
    yield f"unset {' '.join((*OF_AN_ACCOUNT, *endpoints))}"
    yield AWS


def print_next_step(stage: Stage) -> None:
    """Print a token, and the command that shows the stage in a browser."""
    option = "" if stage.name == "local" else f" --stage {stage.name}"
    click.echo(f"token            {_token(stage)}")
    click.echo(f"next             jobplane console{option}   # its jobs, files, alarms: a browser")


def print_description(description: dict[str, Any]) -> None:
    for key in ("websocket_url", "http_url", "endpoint_url"):
        if description[key]:
            click.echo(f"{key.replace('_', ' '):16} {description[key]}")
    for key in ("functions", "tables", "buckets", "queues", "state_machines"):
        if description[key]:
            click.echo(f"{key.replace('_', ' '):16} {', '.join(description[key])}")
    if token := description.get("token"):
        click.echo(f"{'token':16} {token}")
