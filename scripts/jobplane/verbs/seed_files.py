"""`jobplane seed-files`: write test data with known faults to a stage."""

import json
import time
from typing import TYPE_CHECKING

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository

if TYPE_CHECKING:
    from jobplane.pipeline.state import State

EXAMPLES = 3
PLAIN_WIDTH = 140


@click.command(
    epilog="""\b
Examples:
  jobplane seed-files                            # a thousand files, thirty days
  jobplane seed-files --files 100000 --faults 5
  jobplane seed-files --clear --files 0          # remove everything
"""
)
@click.option("--files", type=click.IntRange(0, 1_000_000), default=1000, show_default=True)
@click.option(
    "--days",
    type=click.IntRange(1, 30),
    default=30,
    show_default=True,
    help="Age of the oldest file, in days.",
)
@click.option("--faults", type=click.IntRange(min=0), help="Number of faults of all kinds.")
@click.option(
    "--fault", "chosen", multiple=True, metavar="KIND=COUNT", help="Faults of one kind; repeatable."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--stage", default="local", show_default=True)
@click.option("--clear", is_flag=True, help="First remove all rows and objects of the pipeline.")
@click.option("--yes", is_flag=True, help="Allow a stage that is not local.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print all planted faults as one JSON object."
)
def command(
    files: int,
    days: int,
    faults: int | None,
    chosen: tuple[str, ...],
    seed: int,
    stage: str,
    clear: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write test data of the file pipeline to a stage.

    Writes rows, manifests, inputs and outputs with known faults; the same seed gives the same
    data. Prints what state-manager has to find.
    """
    from jobplane.pipeline import planting
    from jobplane.pipeline.faults import spread
    from jobplane.pipeline.generating import Plan, generate
    from jobplane.pipeline.layout import Layout
    from jobplane.terminal.progress import counting

    if faults is not None and chosen:
        raise click.UsageError("pass --faults or --fault, not both")
    counts = _counts(chosen) if chosen else spread(faults or 0)
    repository = Repository.here()
    repository.require("`jobplane seed-files`", "state-manager")
    there = Stage(repository, stage).require()
    there.refuse_unless_local(f"seed {stage!r}", yes=yes)
    layout = Layout.of(there)
    state = generate(Plan(files, time.time(), days, seed, counts), layout)
    if clear:
        rows, objects = planting.clear(there, layout)
        click.echo(f"removed {rows} rows and {objects} objects", err=True)
    began = time.monotonic()
    size = planting.size(state)
    with counting(f"writing {size} rows and objects to {stage}", size) as done:
        planting.write(there, state, lambda number: done(by=number))
    seconds = time.monotonic() - began
    if as_json:
        click.echo(json.dumps({"stage": stage, "seed": seed, **_document(state, seconds)}))
        return
    _show(state)
    objects = sum(map(len, state.objects.values()))
    click.echo(f"{len(state.rows)} rows and {objects} objects written in {seconds:.1f} s")


def _counts(chosen: tuple[str, ...]) -> dict[str, int]:
    from jobplane.pipeline.faults import REGISTER

    counts: dict[str, int] = {}
    for one in chosen:
        kind, _, number = one.partition("=")
        if kind not in REGISTER:
            raise click.UsageError(
                f"unknown fault {kind!r}; known are: {', '.join(sorted(REGISTER))}"
            )
        if not number.isdecimal():
            raise click.UsageError(f"{one!r} does not have the form KIND=COUNT")
        counts[kind] = counts.get(kind, 0) + int(number)
    return counts


def _document(state: "State", seconds: float) -> dict[str, object]:
    from jobplane_keys import iso_time

    return {
        "now": iso_time(state.now),
        "files": len(state.files),
        "rows": len(state.rows),
        "objects": {bucket: len(objects) for bucket, objects in state.objects.items()},
        "by_status": {str(status): number for status, number in sorted(state.by_status.items())},
        "dates": state.dates,
        "seconds": round(seconds, 1),
        "ledger": [finding.as_json() for finding in state.ledger],
    }


def _show(state: "State") -> None:
    from collections import defaultdict

    from jobplane.terminal.tables import console, show, table

    statuses = ", ".join(f"{number} {status}" for status, number in state.by_status.most_common())
    click.echo(f"{len(state.files)} files{': ' if statuses else ''}{statuses}")
    planted = defaultdict(list)
    for finding in state.ledger:
        planted[finding.fault, finding.operation, finding.kind].append(finding)
    if not planted:
        return
    rows = []
    for (fault, operation, kind), findings in sorted(planted.items()):
        examples = [f"{one.date_prefix}/{one.file_key}" for one in findings[:EXAMPLES]]
        rows.append((fault, operation, kind, str(len(findings)), "\n".join(examples)))
    headings = ("fault", "found by", "as", "files", "for example")
    drawn = table(headings, rows, right=("files",), unbroken=("fault", "as", "for example"))
    show(drawn, console(PLAIN_WIDTH))
