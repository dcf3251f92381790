"""`jobplane bench size`: the size of every artifact, compared with other tools."""

import zipfile
from pathlib import Path

import click

from jobplane.bench._contenders import Contenders
from jobplane.bench._report import Cell, Chart, Report, Table, reported
from jobplane.tree.repository import Repository
from lambdapack.artifacts import Builder, Settings


@click.command()
@reported("size")
def command() -> Report:
    """Sizes of every function's zip and of its content, compared with the plugin and the recipe."""
    repository = Repository.here()
    functions = repository.functions()
    artifacts = Builder(repository, Settings.local()).build(functions)
    contenders = Contenders(repository, functions)
    zips = {
        "artifact": {artifact.name: repository.root / artifact.zip for artifact in artifacts},
        "plugin": contenders.plugin().zips,
        "recipe": contenders.recipe().zips,
    }
    results = {
        function.name: {who: _sizes(paths[function.name]) for who, paths in zips.items()}
        for function in functions
    }
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            *(_megabytes(of[who]["zip"]) for who in zips),
            round(of["artifact"]["zip"] / of["plugin"]["zip"], 3),
            round(of["artifact"]["zip"] / of["recipe"]["zip"], 3),
            *(_megabytes(of[who]["unpacked"]) for who in zips),
        )
        for name, of in results.items()
    ]
    columns = (
        "function", "artifact", "plugin", "recipe", "÷ plugin", "÷ recipe",
        "artifact unpacked", "plugin unpacked", "recipe unpacked",
    )  # fmt: skip
    series = {who: [_megabytes(of[who]["zip"]) for of in results.values()] for who in zips}
    return Report(
        document={"functions": results},
        tables=[Table("Zips, and what they hold, MB", columns, rows)],
        charts=[Chart("Zip sizes", list(results), series, "MB")],
    )


def _sizes(path: Path) -> dict[str, int]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    return {"zip": path.stat().st_size, "unpacked": unpacked}


def _megabytes(size: int) -> float:
    return round(size / 1e6, 2)
