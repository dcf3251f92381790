"""Start, update and stop a local stage: emulator, artifacts, stack."""

from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any

import click

from jobplane.deploy import emulated
from jobplane.deploy.templates import webhook_parameters
from jobplane.stage import emulator, framework
from jobplane.stage.gateway import WEBHOOKS
from jobplane.stage.stages import Stage
from jobplane.terminal import interrupts
from jobplane.terminal.console import note
from lambdapack.artifacts import Builder, Settings
from lambdapack.locks import exclusive


@dataclass(frozen=True)
class Up:
    stage: Stage
    description: dict[str, Any]
    outcome: str
    started: bool
    """Whether this call started the emulator."""


def up(stage: Stage, port: int | None = None) -> Up:
    """Start the emulator if necessary, build and deploy changes; stop it again if that fails."""
    with exclusive(stage.repository, f"stage-{stage.name}"), interrupts.as_keyboard_interrupt():
        return _up(stage, port)


def _up(stage: Stage, port: int | None) -> Up:
    framework.install_framework(stage.repository)
    functions = stage.repository.functions()
    if not functions:
        raise click.ClickException(
            "no function to deploy: functions/*/function.yml matches no file; "
            "create one: jobplane new NAME"
        )
    artifacts = Builder(stage.repository, Settings.local()).build(functions)
    state = stage.read_state()
    running = state is not None and emulator.is_running(state)
    if running and state is not None and port not in (None, state.port):
        raise click.UsageError(
            f"stage {stage.name!r} already runs on port {state.port}; omit --port"
        )
    try:
        if not running:
            emulator.start(stage, port)
        outcome = emulated.deploy(stage, functions, artifacts)
        make_webhook_settings(stage)
    except BaseException:
        if not running:
            if stage.read_state() is not None:
                note(f"stopping the emulator of {stage.name}")
            emulator.stop(stage)
        raise
    deployed = stage.read_state()
    if deployed is None:
        raise click.ClickException(
            f"stage {stage.name!r} was stopped by another process; run `jobplane up` again"
        )
    return Up(stage, deployed.description, outcome, started=not running)


def make_webhook_settings(stage: Stage) -> None:
    """Create missing parameters for the templates' webhooks: the URL of the stage's own
    receiver, and a random secret.
    """
    client = stage.client("ssm")
    values = {
        "webhook_url": f"{stage.endpoint_url}{WEBHOOKS}",
        "webhook_secret": f"whsec_{b64encode(token_bytes(32)).decode()}",
    }
    for setting, names in webhook_parameters(stage.repository, stage.name).items():
        for name in names:
            with suppress(client.exceptions.ParameterAlreadyExists):
                client.put_parameter(Name=name, Value=values[setting], Type="SecureString")


def down(stage: Stage) -> bool:
    """Stop the stage; False if it was not running."""
    with exclusive(stage.repository, f"stage-{stage.name}"):
        return emulator.stop(stage)
