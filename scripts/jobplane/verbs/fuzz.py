"""`jobplane fuzz`: test functions with hostile input, in this process."""

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
  jobplane fuzz                         # 10,000 inputs per function and strategy
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
    help="How inputs are chosen: at random, or guided by branch coverage (Linux on x86-64 only).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per run.")
def command(names: tuple[str, ...], inputs: int, seed: int, way: str, as_json: bool) -> None:
    """Test functions with hostile input.

    Mutates the functions' own events: members removed and added, types changed, extreme texts and
    numbers, look-alike letters, deep nesting. A finding is an undocumented error, an answer that
    is undocumented or reveals internals, a write despite a refused request, or a token in the
    log. Exits with 1 if there is a finding.
    """
    from jobplane.fuzzing.runs import can_guide, explore, explore_guided
    from jobplane.fuzzing.subjects import subjects

    repository = Repository.here()
    chosen = [function.name for function in repository.select(names)]
    clean = True
    with subjects(repository) as make:
        for name in chosen:
            if way != "coverage":
                clean &= _print(explore(make(name), inputs, seed), as_json)
            if way != "hypothesis" and can_guide():
                clean &= _print(explore_guided(repository, name, inputs, seed), as_json)
    if way != "hypothesis" and not can_guide():
        note("skipped coverage-guided runs: they need Linux on x86-64")
    if not clean:
        sys.exit(1)


def _print(report: "Report", as_json: bool) -> bool:
    """Print a line per run and per finding; whether there was no finding."""
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
