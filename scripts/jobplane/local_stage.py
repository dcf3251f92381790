"""`up` as a function: emulator, artifacts and stack of a local stage, brought up to date."""

from dataclasses import dataclass
from typing import Any

import click

from jobplane import deployment, emulator, interrupts
from jobplane.artifacts import Builder, Settings
from jobplane.console import note
from jobplane.locks import exclusive
from jobplane.stages import Stage


@dataclass(frozen=True)
class Up:
    """A local stage that is up."""

    stage: Stage
    description: dict[str, Any]
    outcome: str
    started: bool
    """Whether this call started the emulator."""


def up(stage: Stage, port: int | None = None) -> Up:
    """Start what is not running, build and deploy what has changed.

    A call that fails or is interrupted stops the emulator again if it started it.

    Raises:
        click.UsageError: the stage runs on another port.
        click.ClickException: a tool is missing or failed.
    """
    with exclusive(stage.workspace, f"stage-{stage.name}"), interrupts.as_keyboard_interrupt():
        return _up(stage, port)


def _up(stage: Stage, port: int | None) -> Up:
    deployment.install_framework(stage.workspace)
    functions = stage.workspace.functions()
    if not functions:
        raise click.ClickException("there is no function to deploy: functions/*/function.yml")
    artifacts = Builder(stage.workspace, Settings.local()).build(functions)
    state = stage.read_state()
    running = state is not None and emulator.is_running(state)
    if running and state is not None and port not in (None, state.port):
        raise click.UsageError(f"stage {stage.name!r} runs on port {state.port} already")
    try:
        if not running:
            emulator.start(stage, port)
        outcome = deployment.deploy(stage, functions, artifacts)
    except BaseException:
        if not running:
            if stage.read_state() is not None:
                note(f"stopping the emulator of {stage.name} again")
            emulator.stop(stage)
        raise
    deployed = stage.read_state()
    if deployed is None:
        raise click.ClickException(f"stage {stage.name!r} was taken down meanwhile")
    return Up(stage, deployed.description, outcome, started=not running)


def down(stage: Stage) -> bool:
    """Stop the stage; False if there was nothing to stop."""
    with exclusive(stage.workspace, f"stage-{stage.name}"):
        return emulator.stop(stage)
