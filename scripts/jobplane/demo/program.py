"""The demo: set up a stage, run the steps, clean up, report."""

import asyncio
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from jobplane.demo import assemblies, flow, orphans, sockets
from jobplane.demo.scene import Scene, set_scene
from jobplane.demo.screen import Screen
from jobplane.demo.story import CheckError, Outcome, Step, Stopwatch
from jobplane.deploy.local_stage import up
from jobplane.stage import emulator, log_lines
from jobplane.stage.stages import Stage
from jobplane.terminal import interrupts
from jobplane_client import JobplaneError
from lambdapack.locks import exclusive

PROGRAM: tuple[Step[Scene], ...] = (
    sockets.connect, sockets.short_actions, assemblies.make_files, assemblies.upload,
    assemblies.run_templates, assemblies.webhooks, assemblies.results, assemblies.malformed,
    assemblies.repeat, sockets.cancel, sockets.resume, assemblies.other_tenant,
    sockets.wrong_tokens, assemblies.memory, flow.interruption, flow.email, flow.silence,
    flow.overview, orphans.orphans,
)  # fmt: skip
ALARMING = frozenset({"WARNING", "ERROR", "CRITICAL"})
SHOWN_LINES = 15


@dataclass
class Report:
    stage: str
    megabytes: int
    outcomes: list[Outcome] = field(default_factory=list)
    set_up: float = 0.0
    steps: float = 0.0
    clean_up: float = 0.0
    kept: bool = False

    @property
    def held(self) -> bool:
        return bool(self.outcomes) and all(outcome.held for outcome in self.outcomes)

    @property
    def failed(self) -> list[str]:
        return [outcome.step.name for outcome in self.outcomes if outcome.held is False]

    @property
    def total(self) -> float:
        return self.set_up + self.steps + self.clean_up

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.held,
            "failed": self.failed,
            "stage": self.stage,
            "kept": self.kept,
            "size_mb": self.megabytes,
            "seconds": {
                "total": round(self.total, 1),
                "set_up": round(self.set_up, 1),
                "steps": round(self.steps, 1),
                "clean_up": round(self.clean_up, 1),
            },
            "steps": [outcome.as_json() for outcome in self.outcomes],
        }


def steps_with(functions: Iterable[str]) -> list[Step[Scene]]:
    there = frozenset(functions)
    steps = [step for step in PROGRAM if step.functions <= there]
    if not steps:
        first = (sorted(step.functions) for step in PROGRAM if not step.needs)
        raise click.UsageError(
            f"`jobplane demo` needs {'; or '.join(map(', '.join, first))}; this project has "
            f"only {', '.join(sorted(there))}"
        )
    return steps


def play(stage: Stage, megabytes: int, *, keep: bool, began: Stopwatch) -> Report:
    """Run the demo on a stage of its own; one that was up before stays up.

    `began` is when the command was given. Steps without their functions in the tree are left out.
    """
    program = steps_with(function.name for function in stage.repository.functions())
    report, screen = Report(stage.name, megabytes, kept=True), Screen()
    screen.line(f"{len(program)} steps, {megabytes} MB in the large file; Ctrl-C cleans up")
    title = f"Set up the stage {stage.name}"
    with exclusive(stage.repository, f"demo-{stage.name}"), interrupts.as_keyboard_interrupt():
        try:
            with screen.working(title):
                there = up(stage)
                report.kept = keep or not there.started
            report.set_up = began.seconds
            screen.done(title, report.set_up, held=True)
            watch = Stopwatch()
            with tempfile.TemporaryDirectory(prefix="jobplane-demo-") as folder:
                setting = set_scene(stage, there.description, Path(folder), megabytes, screen)
                asyncio.run(_perform(program, report, setting))
            report.steps = watch.seconds
        finally:
            if not report.kept:
                report.clean_up = _take_down(stage, screen)
    return report


def _take_down(stage: Stage, screen: Screen) -> float:
    """Stop the stage; the seconds that it took."""
    title, watch = f"Take the stage {stage.name} down", Stopwatch()
    with screen.working(title):
        emulator.stop(stage)
    screen.done(title, watch.seconds, held=True)
    return watch.seconds


async def _perform(
    program: list[Step[Scene]], report: Report, setting: AbstractAsyncContextManager[Scene]
) -> None:
    began = int(time.time() * 1000)
    async with setting as scene:
        for step in program:
            outcome = await take(step, scene, report.outcomes)
            if outcome is not None:
                report.outcomes.append(outcome)
                scene.screen.done(step.title, outcome.seconds, outcome.held)
    if report.failed:
        _show_log(scene.stage, began, scene.screen)


async def take(step: Step[Scene], scene: Scene, before: list[Outcome]) -> Outcome | None:
    """Run a step; None if it observed nothing."""
    lost = [one.step.name for one in before if one.step in step.needs and not one.held]
    if lost:
        return Outcome(step, None, f"needs {', '.join(lost)}")
    limit, watch = step.limit(scene.megabytes), Stopwatch()
    try:
        with scene.screen.working(step.title):
            async with asyncio.timeout(limit):
                observed = await step.run(scene)
    except Exception as error:
        return Outcome(step, False, _reason(error, limit), watch.seconds)
    if observed is None:
        return None
    return Outcome(step, True, observed.text, watch.seconds, observed.figures)


def _reason(error: BaseException, limit: float) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0], limit)
    if isinstance(error, TimeoutError):
        return f"not done within {limit:.0f} s"
    if isinstance(error, CheckError):
        return str(error)
    if isinstance(error, JobplaneError):
        return f"{type(error).__name__}: {error}"
    return repr(error)


def _show_log(stage: Stage, since: int, screen: Screen) -> None:
    """Print the functions' warnings and errors, because the stage's logs are deleted."""
    state = stage.read_state()
    if state is None or not emulator.is_running(state):
        screen.line("no log: the emulator has ended")
        return
    complaints = [
        event
        for event in log_lines.events(stage, stage.repository.functions(), since)
        if (event.document() or {}).get("level") in ALARMING
    ]
    for event in complaints[-SHOWN_LINES:]:
        at = log_lines.clock(event.at)
        screen.line(f"{at} {event.function:14} {log_lines.readable(event.text)}")
