"""The secret that signs a stage's tokens, from its SSM parameter."""

import click

from jobplane.stage.framework import install_framework, osls
from jobplane.stage.stages import Stage, State
from jobplane.tree.repository import read_yaml
from jobplane_parameters import split_secrets


def jwt_secret(stage: Stage) -> str:
    """The secret that signs this stage's tokens: the last one in its SSM parameter."""
    state = stage.read_state()
    if state is not None:
        return state.jwt_secret
    name = secret_name(stage)
    parameter = stage.client("ssm").get_parameter(Name=name, WithDecryption=True)
    secrets = split_secrets(parameter["Parameter"]["Value"])
    if not secrets:
        raise click.ClickException(
            f"SSM parameter {name} is empty: put a secret of at least 32 bytes"
        )
    return secrets[0]


def publish_secret(stage: Stage, state: State) -> None:
    stage.client("ssm").put_parameter(
        Name=secret_name(stage), Value=state.jwt_secret, Type="SecureString", Overwrite=True
    )


def secret_name(stage: Stage) -> str:
    """The SSM parameter with the secrets that sign a stage's tokens.

    The same rule as in scripts/serverless/stage.js; the framework resolves a variable in it.
    """
    stages = read_yaml(stage.repository.root / "serverless.yml")["custom"]["stages"]
    blocks = ("default", *(["emulated"] if stage.is_local else []), stage.name)
    chosen = ""
    for block in blocks:
        chosen = (stages.get(block) or {}).get("jwtSecret", chosen)
    if "${" in str(chosen):
        install_framework(stage.repository)
        path = ("--path", "params.default.jwtSecret", "--format", "text")
        chosen = osls(stage, "print", *path).strip()
    return str(chosen).removeprefix("ssm:") if chosen else stage.names.parameter("jwt-secret")
