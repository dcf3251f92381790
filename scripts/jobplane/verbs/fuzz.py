"""`jobplane fuzz`: hostile input for the functions, in this process."""

import json
import sys
from typing import TYPE_CHECKING

import click

from jobplane.terminal.console import note
from jobplane.tree.repository import Repository

if TYPE_CHECKING:
    from jobplane.fuzzing.runs import Report


@click.command(
    epilog="""\b
Examples:
  jobplane fuzz                         # all functions, 10,000 inputs each, both ways
  jobplane fuzz router --inputs 500     # a quick look at one
  jobplane fuzz claim --way hypothesis --seed 7"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--inputs", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--way",
    type=click.Choice(["hypothesis", "coverage", "both"]),
    default="both",
    show_default=True,
    help="How inputs are chosen: drawn, or led by the branches that they reach (Linux on x86-64).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run.")
def command(names: tuple[str, ...], inputs: int, seed: int, way: str, as_json: bool) -> None:
    """Give functions hostile input, and look for faults.

    Their own events are spoilt: members dropped and added, values retyped, texts and numbers at
    their edges, twins of letters, deep nesting. A finding is an error that is not documented, an
    answer that is not or that shows something of the inside, a write for what was refused, a
    token in the log. Exits with 1 if there is one.
    """
    from jobplane.fuzzing.runs import explore, explore_guided, is_here
    from jobplane.fuzzing.subjects import subjects

    repository = Repository.here()
    chosen = [function.name for function in repository.select(names)]
    clean = True
    with subjects(repository) as make:
        for name in chosen:
            if way != "coverage":
                clean &= _print(explore(make(name), inputs, seed), as_json)
            if way != "hypothesis" and is_here():
                clean &= _print(explore_guided(repository, name, inputs, seed), as_json)
    if way != "hypothesis" and not is_here():
        note("coverage-guided runs need Linux on x86-64: left out")
    if not clean:
        sys.exit(1)


def _print(report: "Report", as_json: bool) -> bool:
    """One line a run and one a finding; whether there was none."""
    if as_json:
        click.echo(json.dumps(report.document()))
        return not report.findings
    mark = "FAIL" if report.findings else "ok  "
    reached = f", {report.edges} branches" if report.edges else ""
    click.echo(
        f"{mark} {report.function:20} {report.way:10} {report.inputs:>7,} inputs in "
        f"{report.seconds:.0f} s: {report.raised:,} raised, {report.wrote:,} wrote, "
        f"slowest {report.slowest_ms:.0f} ms{reached}"
    )
    for finding in report.findings:
        click.echo(f"     {finding.times}x {finding.problem}")
        click.echo(f"       {finding.situation}: {finding.event[:300]}")
    return not report.findings
