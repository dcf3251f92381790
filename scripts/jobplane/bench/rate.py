"""`jobplane bench rate`: jobs a second from socket to end, against another state of the project."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from jobplane.bench._report import Report, Spread, Table, progress, reported
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment

MEASURED = "jobs: requests a second"
# As fast as the stage takes them: all are due at once, nothing else is measured.
LOAD = "--hold 0 --subscribers 0 --seconds 1 --json".split()
GOAL = 2.0


@click.command()
@click.option(
    "--before", required=True, metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A checkout of the other state, with its packages installed.",
)  # fmt: skip
@click.option("--turns", type=click.IntRange(1, 10), default=2, show_default=True)
@click.option("--sockets", type=click.IntRange(2, 1000), default=100, show_default=True)
@click.option("--jobs", type=click.IntRange(1, 100), default=8, show_default=True)
@click.option("--at-once", type=click.IntRange(1, 64), default=48, show_default=True)
@reported("rate")
def command(before: Path, turns: int, sockets: int, jobs: int, at_once: int) -> Report:
    """Jobs and answers a second of both states, which take turns on this machine (A B A B).

    Each turn is a `jobplane bench load` in a fresh stage of that checkout.
    """
    folders = {"before": before.resolve(), "now": Repository.here().root}
    load = [*LOAD, f"--sockets={sockets}", f"--jobs={jobs}", f"--at-once={at_once}"]
    takes: dict[str, list[float]] = {name: [] for name in folders}
    with progress("rate", turns * len(folders)) as advance:
        for _ in range(turns):
            for name, folder in folders.items():
                takes[name].append(_measure(folder, load)["throughput"][MEASURED])
                advance(f"{name} {takes[name][-1]}")
    return report(takes, sockets * jobs)


def _measure(folder: Path, load: list[str]) -> Mapping[str, Any]:
    command = ["uv", "run", "--locked", "jobplane", "bench", "load", *load]
    done = subprocess.run(
        command,
        cwd=folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(
            f"{' '.join(command)} in {folder} failed:\n{done.stderr[-2000:]}"
        )
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def report(takes: Mapping[str, list[float]], requests: int) -> Report:
    spreads = {name: Spread(rates) for name, rates in takes.items()}
    pairs = zip(takes["now"], takes["before"], strict=True)
    ratio = Spread([now / before for now, before in pairs])
    table = Table(
        f"{requests:,} requests, delay and echo in turn, from socket to end",
        ("state", "requests a second", "÷ before"),
        [("before", spreads["before"].text(1), None),
         ("now", spreads["now"].text(1), ratio.text(2))],
        [f"Medians, minimum and maximum of {len(takes['now'])} turns of each, which alternated. "
         f"The goal was {GOAL:g} times as many: {'met' if ratio.median >= GOAL else 'not met'}."],
    )  # fmt: skip
    document = {"ratio": ratio.as_json()} | {name: of.as_json(1) for name, of in spreads.items()}
    return Report(document, [table])
