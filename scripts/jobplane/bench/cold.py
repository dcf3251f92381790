"""`jobplane bench cold`: the time from a process's start to its first answer."""

import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from jobplane.bench._contenders import Contenders
from jobplane.bench._recording import Player, Recording, playing, record
from jobplane.bench._report import Chart, Report, Spread, Table, progress, reported
from jobplane.bench._starting import Start, cold_start
from jobplane.terminal.console import note
from jobplane.tree.repository import Function, Repository
from jobplane.trying.cases import Case, case_paths
from lambdapack.artifacts import Builder, Settings

# An event of each function that makes at least one AWS call.
FIRST_EVENTS = {
    "check-active-job": "other-thread",
    "claim": "acquired",
    "connect": "accepted",
    "count-files": "insert",
    "deliver-webhook": "queue-delivered-already",
    "disconnect": "closed",
    "dispatch": "queued",
    "handle-timeout": "timed-out",
    "intake": "message",
    "jobs": "get",
    "processor": "echo-completed",
    "record-interruption": "recorded",
    "report-job": "progress",
    "router": "ping",
    "send-interrupt": "sent",
    "state-manager": "get-stats",
    "status": "completed",
    "sweep-claims": "claim-of-a-worker",
    "upload-parts": "list-absent",
}
HOT = ("connect", "disconnect", "router", "status")
AGAINST = ("floor", "plugin", "recipe")
ROUNDS = 15
# Functions compare times in their items with the clock, so a recording gets too old.
VALID_SECONDS = 20.0
LAMBDA = {
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example-key",
    "AWS_SESSION_TOKEN": "example-token",
    "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
}

type Takes = dict[str, list[Start]]
"""Starts by contender."""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Starts of each.")
@click.option(
    "--against", multiple=True, type=click.Choice(AGAINST), default=AGAINST, show_default=True
)
@reported("cold")
def command(names: tuple[str, ...], rounds: int, against: tuple[str, ...]) -> Report:
    """Cold starts of every function, or of the named: fresh interpreter, import, first invocation.

    AWS is played back on loopback. In every round each contender starts once, in turn.
    """
    repository = Repository.here()
    functions = repository.select(names)
    takes, calls = _measure(repository, functions, rounds, against)
    results = {name: _result(of, calls[name], against) for name, of in takes.items()}
    return Report(
        document={"rounds": rounds, "functions": results},
        tables=_tables(results, against),
        charts=[_chart(results, against)],
    )


def _measure(
    repository: Repository, functions: Sequence[Function], rounds: int, against: Iterable[str]
) -> tuple[dict[str, Takes], dict[str, int]]:
    recordings = _recordings(repository, functions)
    folders = _folders(repository, recordings, against)
    takes: dict[str, Takes] = {name: {who: [] for who in folders} for name in recordings}
    total = (rounds + 1) * len(recordings) * len(folders)
    with (
        playing() as player,
        tempfile.TemporaryDirectory() as scratch,
        progress("cold starts", total) as advance,
    ):
        for number in range(rounds + 1):  # the first round only warms the disk's cache
            for name in recordings:
                recording = recordings[name] = _fresh(repository, recordings[name])
                for who, where in folders.items():
                    start = _start(recording, who, where[name], player, Path(scratch))
                    if number:
                        takes[name][who].append(start)
                    advance(f"{name} {who}")
    return takes, {name: len(recording.exchanges) for name, recording in recordings.items()}


def _recordings(repository: Repository, functions: Sequence[Function]) -> dict[str, Recording]:
    found = {}
    for function in functions:
        paths = case_paths(function)
        if not paths:
            note(f"{function.name} has no events and is left out")
            continue
        path = paths[FIRST_EVENTS.get(function.name) or next(iter(paths))]
        found[function.name] = record(repository, Case.read(function, path))
    return found


def _fresh(repository: Repository, recording: Recording) -> Recording:
    """The recording, or a new one if it is too old."""
    if time.monotonic() - recording.made < VALID_SECONDS:
        return recording
    return record(repository, recording.case)


def _folders(
    repository: Repository, recordings: Mapping[str, Recording], against: Iterable[str]
) -> dict[str, dict[str, Path]]:
    """The folders of each contender's functions."""
    functions = [recording.function for recording in recordings.values()]
    artifacts = Builder(repository, Settings.local()).build(functions)
    contenders = Contenders(repository, functions)
    folders = {"artifact": contenders.artifact(artifacts).folders}
    if "floor" in against:
        folders["floor"] = dict.fromkeys(recordings, contenders.floor(recordings.values()))
    if "plugin" in against:
        folders["plugin"] = contenders.plugin().folders
    if "recipe" in against:
        folders["recipe"] = contenders.recipe().folders
    return folders


def _start(recording: Recording, who: str, folder: Path, player: Player, scratch: Path) -> Start:
    name, module = recording.function.name, recording.function.module
    event = scratch / f"{name}.json"
    event.write_text(json.dumps(recording.event), encoding="utf-8")
    player.rewind(recording)
    start = cold_start(
        folder,
        f"floor_{module}" if who == "floor" else module,
        event,
        {**LAMBDA, **recording.environment_at(player.url), "LAMBDA_TASK_ROOT": str(folder)},
    )
    if player.unknown or not player.calls:
        called = f"called {player.unknown}" if player.unknown else "called nothing"
        raise click.ClickException(f"{name} ({who}) {called}, which differs from the recording")
    return start


def _result(takes: Takes, calls: int, against: Iterable[str]) -> dict[str, Any]:
    mine = takes["artifact"]
    result: dict[str, Any] = {"aws_calls": calls}
    for who in against:
        pairs = zip(mine, takes[who], strict=True)
        ratios = Spread([ours.total / theirs.total for ours, theirs in pairs])
        cpu = Spread([a.cpu / b.cpu for a, b in zip(mine, takes[who], strict=True)])
        result[f"ratio_to_{who}"] = round(ratios.median, 3)
        result[f"cpu_ratio_to_{who}"] = round(cpu.median, 3)
    for who, starts in takes.items():
        result[who] = {
            f"{what}_ms": Spread([getattr(start, what) for start in starts]).as_json(1)
            for what in ("total", "importing", "invoking", "cpu")
        }
    return result


def _tables(results: Mapping[str, Any], against: Sequence[str]) -> list[Table]:
    everyone = ("artifact", *against)
    ratios = [
        (
            f"{name} (hot)" if name in HOT else name,
            of["aws_calls"],
            *(_text(of[who]["total_ms"]) for who in everyone),
            *(of[f"ratio_to_{who}"] for who in against),
        )
        for name, of in results.items()
    ]
    parts = [
        (
            name,
            *(
                round(of[who][f"{what}_ms"]["median"])
                for what in ("importing", "invoking")
                for who in everyone
            ),
        )
        for name, of in results.items()
    ]
    processor = [
        (
            name,
            *(_text(of[who]["cpu_ms"]) for who in everyone),
            *(of[f"cpu_ratio_to_{who}"] for who in against),
        )
        for name, of in results.items()
    ]
    return [
        Table(
            "From the process's start to the first answer, ms: median (min–max)",
            ("function", "AWS calls", *everyone, *(f"÷ {who}" for who in against)),
            ratios,
            ["A ratio is the median of the ratios of each round, in which all start in turn."],
        ),
        Table(
            "Processor time of the same, user and system, ms: median (min–max)",
            ("function", *everyone, *(f"÷ {who}" for who in against)),
            processor,
        ),
        Table(
            "Of the time to the first answer: import and first invocation, ms",
            ("function", *(f"{what} {who}" for what in ("import", "invoke") for who in everyone)),
            parts,
        ),
    ]


def _text(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.0f} ({spread['min']:.0f}–{spread['max']:.0f})"


def _chart(results: Mapping[str, Any], against: Sequence[str]) -> Chart:
    return Chart(
        "Cold start: from the process's start to the first answer",
        list(results),
        {
            who: [of[who]["total_ms"]["median"] for of in results.values()]
            for who in ("artifact", *against)
        },
        "ms, median",
    )
