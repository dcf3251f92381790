"""`jobplane bench size`: how large every artifact is."""

import click

from jobplane.bench._report import Chart, Report, Table, reported
from jobplane.workspace import Workspace


@click.command()
@reported("size")
def command() -> Report:
    """The size of every artifact, zipped and unpacked."""
    from jobplane.artifacts import Builder, Settings

    workspace = Workspace.here()
    artifacts = Builder(workspace, Settings.local()).build(workspace.functions())
    return Report(
        document={
            "functions": {a.name: {"zip": a.size, "unpacked": a.unpacked_size} for a in artifacts}
        },
        tables=[
            Table(
                "Artifacts, MB",
                ("function", "zip", "unpacked"),
                [
                    (a.name, round(a.size / 1e6, 2), round(a.unpacked_size / 1e6, 2))
                    for a in artifacts
                ],
            )
        ],
        charts=[
            Chart(
                "Zip sizes",
                [a.name for a in artifacts],
                {"jobplane": [round(a.size / 1e6, 2) for a in artifacts]},
                "MB",
            )
        ],
    )
