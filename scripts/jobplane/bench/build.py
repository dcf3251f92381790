"""`jobplane bench build`: the time that packaging takes, compared with other tools."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from jobplane.bench._contenders import Contenders
from jobplane.bench._report import Chart, Report, Spread, Table, progress, reported
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Function, Repository
from lambdapack.artifacts import Builder, Settings, clean

ROUNDS = 3
CHANGED = "connect"
OTHERS = ("recipe", "plugin")

type Work = Callable[[], object]


@click.command()
@click.option("--rounds", default=ROUNDS, show_default=True, help="Repetitions of each build.")
@click.option(
    "--against", multiple=True, type=click.Choice(OTHERS), default=OTHERS, show_default=True
)
@reported("build")
def command(rounds: int, against: tuple[str, ...]) -> Report:
    """Build everything, one changed function, and nothing, with each tool.

    Downloads are cached for all. Clean: no artifact, and no package installed for one; with a warm
    cache the packages are there. The workspace that is built is a copy.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = copy_repository(Repository.here(), Path(scratch))
        takes = _measure(copy, rounds, against)
    medians = {name: {who: Spread(t) for who, t in of.items()} for name, of in takes.items()}
    whos = ("jobplane", *against)
    rows = [
        (
            name,
            *(of[who].text(2) if who in of else None for who in whos),
            *(
                round(of["jobplane"].median / of[who].median, 3) if who in of else None
                for who in against
            ),
        )
        for name, of in medians.items()
    ]
    return Report(
        document={
            "rounds": rounds,
            "builds": {
                name: {
                    **{f"{who}_s": spread.as_json() for who, spread in of.items()},
                    **{
                        f"ratio_to_{who}": round(of["jobplane"].median / of[who].median, 3)
                        for who in against
                        if who in of
                    },
                }
                for name, of in medians.items()
            },
        },
        tables=[
            Table(
                "Builds, s: median (min–max)",
                ("what", *whos, *(f"÷ {who}" for who in against)),
                rows,
                [
                    "The recipe builds function by function, each time anew; the "
                    "plugin keeps what it has installed for a list of requirements."
                ],
            )
        ],
        charts=[
            Chart(
                "Building the workspace's artifacts",
                list(medians),
                {
                    who: [of[who].median if who in of else None for of in medians.values()]
                    for who in whos
                },
                "s, median",
            )
        ],
    )


def _measure(
    repository: Repository, rounds: int, against: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    functions = repository.functions()
    changed = next((each for each in functions if each.name == CHANGED), functions[0])
    contenders = Contenders(repository, functions)

    def build() -> None:
        Builder(repository, Settings.local()).build(functions)

    def recipe(chosen: Sequence[Function]) -> None:
        for function in chosen:
            contenders.run_recipe(function, contenders.root / "recipe")

    build()  # downloads what is missing
    jobs: dict[str, dict[str, tuple[Work, Work]]] = {
        "everything, clean": {"jobplane": (lambda: clean(repository), build)},
        "everything, warm cache": {"jobplane": (lambda: shutil.rmtree(repository.dist), build)},
        f"{changed.name} changed": {"jobplane": (lambda: _touch(changed), build)},
        "nothing changed": {"jobplane": (lambda: None, build)},
    }
    everything, warm, one, _ = jobs
    if "recipe" in against:
        recipe(functions)
        jobs[everything]["recipe"] = (lambda: None, lambda: recipe(functions))
        jobs[one]["recipe"] = (lambda: _touch(changed), lambda: recipe([changed]))
    if "plugin" in against:
        contenders.prepare_plugin()
        contenders.run_plugin()
        jobs[everything]["plugin"] = (contenders.forget_plugin, contenders.run_plugin)
        jobs[warm]["plugin"] = (lambda: None, contenders.run_plugin)
        jobs[one]["plugin"] = (
            lambda: contenders.prepare_plugin(changed),
            lambda: contenders.run_plugin(changed),
        )

    takes: dict[str, dict[str, list[float]]] = {
        what: {who: [] for who in of} for what, of in jobs.items()
    }
    total = rounds * sum(len(of) for of in jobs.values())
    with progress("builds", total) as advance:
        for _ in range(rounds):
            for what, of in jobs.items():
                for who, (prepare, work) in of.items():
                    prepare()
                    began = time.perf_counter()
                    work()
                    takes[what][who].append(time.perf_counter() - began)
                    advance(f"{what}: {who}")
    return takes


def _touch(function: Function) -> None:
    source = function.source.read_text(encoding="utf-8")
    function.source.write_text(f"{source}\n# {time.time_ns()}\n", encoding="utf-8")
