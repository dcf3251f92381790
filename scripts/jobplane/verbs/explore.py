"""`jobplane explore`: run the functions in many orders, with faults, in this process."""

import json
import sys
from typing import TYPE_CHECKING, TextIO

import click

from jobplane.tree.repository import Repository

if TYPE_CHECKING:
    from jobplane.explore.search import Note, Outcome, Scenario
    from jobplane.explore.world import Stage


@click.command(
    epilog="""\b
Examples:
  jobplane explore                      # every scenario, a minute each
  jobplane explore cancel --minutes 10
  jobplane explore --all --minutes 60
  jobplane explore --mutants --minutes 0.5
  jobplane explore --replay 'cancel seed=0 cancel@4!fail'"""
)
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of samples.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="The longest time for a scenario.",
)
@click.option("--replay", metavar="LINE", help="Run one schedule, and print it.")
@click.option(
    "--all",
    "in_turns",
    is_flag=True,
    help="Explore the scenarios in turns, --minutes altogether, and print a table.",
)
@click.option("--mutants", is_flag=True, help="Plant faults, and print which ones are found.")
@click.option("--mutant", metavar="NAME", default="", help="Plant only this one.")
@click.option(
    "--histories",
    type=click.File("w"),
    help="Write the operations on requests and claims of each schedule to a file, as JSON lines.",
)
@click.option(
    "--table", "as_table", is_flag=True, help="Write the mutants into the table of docs/faults.md."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per scenario.")
def command(
    names: tuple[str, ...],
    seed: int,
    minutes: float,
    replay: str | None,
    in_turns: bool,
    mutants: bool,
    mutant: str,
    histories: TextIO | None,
    as_table: bool,
    as_json: bool,
) -> None:
    """Look for orders of calls and faults that break a guarantee.

    Runs the shipped handlers over one AWS in memory, and chooses at every AWS call which one goes
    on, and which fault meets it. First come all schedules with few deviations from the usual order,
    then samples with more. A failure is shortened, and printed with the line that replays it.
    Exits with 1 if there is a failure.

    With --mutants it drops the condition of each conditional write in turn, hides from each write
    its own result, and puts back faults that the code once had. --minutes is for each of them.
    Exits with 1 if one is not found. With --table, docs/faults.md gets the results.
    """
    from jobplane.explore.world import Stage

    out = sys.stdout
    # Before the stage: it replaces the clocks and threads of the libs that are imported by then.
    scenarios = _chosen(names)
    with Stage(Repository.here()) as stage:
        if replay is not None:
            is_good = _replay(stage, replay, out)
        elif mutants or mutant:
            if as_table and (names or mutant):
                raise click.UsageError("the table has all mutants; don't name some")
            form = (as_json, as_table)
            is_good = _plant(stage, scenarios, 60 * minutes, seed, mutant, form, out)
        elif in_turns:
            is_good = _explore_all(stage, scenarios, 60 * minutes, seed, histories, out)
        else:
            results = [
                _explore(stage, scenario, 60 * minutes, seed, as_json, histories, out)
                for scenario in scenarios
            ]
            is_good = all(results)
    if not is_good:
        sys.exit(1)


def _chosen(names: tuple[str, ...]) -> "list[Scenario]":
    """The named scenarios, or all whose functions are there. Raises click's UsageError."""
    from jobplane.explore.scenarios import SCENARIOS

    for name in names:
        if name not in SCENARIOS:
            raise click.UsageError(f"no scenario {name!r}; known are {', '.join(SCENARIOS)}")
    there = {function.name for function in Repository.here().functions()}
    return [SCENARIOS[name] for name in names] or [
        scenario for scenario in SCENARIOS.values() if there.issuperset(scenario.functions)
    ]


def _replay(stage: "Stage", line: str, out: TextIO) -> bool:
    """Run the schedule of a line; whether every guarantee holds in it."""
    from jobplane.explore.mutants import mutated
    from jobplane.explore.planted import known_faults, replayed
    from jobplane.explore.report import lines_of
    from jobplane.explore.search import parse, run

    try:
        name, seed, plan, mutant = parse(line)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    [scenario] = _chosen((name,))
    for fault in known_faults():
        if mutant == fault.mutant:
            plain = line.replace(f" mutant={mutant}", "")
            is_good, text = replayed(stage.template.repository, fault, plain)
            click.echo(text, file=out, nl=False)
            return is_good
    if mutant:
        scenario = mutated(scenario, stage, mutant)
    outcome = run(stage, scenario, seed, plan)
    click.echo("\n".join(lines_of(outcome)), file=out)
    return outcome.failure is None


def _explore(
    stage: "Stage",
    scenario: "Scenario",
    seconds: float,
    seed: int,
    as_json: bool,
    histories: TextIO | None,
    out: TextIO,
) -> bool:
    """Explore a scenario; whether nothing was found."""
    from jobplane.explore.report import document_of, line_of, lines_of
    from jobplane.explore.search import explore

    report = explore(stage, scenario, seed=seed, seconds=seconds, note=_writer(histories))
    if as_json:
        click.echo(json.dumps(document_of(report)), file=out)
        return report.found is None
    click.echo(line_of(report), file=out)
    if report.found is not None:
        click.echo("\n".join(lines_of(report.found)), file=out)
    return report.found is None


def _writer(histories: TextIO | None) -> "Note":
    """Writes the histories of each schedule to a file, if there is one."""
    from jobplane.explore.report import histories_of

    def note(outcome: "Outcome") -> None:
        if histories is not None:
            found = {"line": outcome.line, "histories": histories_of(outcome)}
            click.echo(json.dumps(found, default=sorted), file=histories)

    return note


def _explore_all(
    stage: "Stage",
    scenarios: "list[Scenario]",
    seconds: float,
    seed: int,
    histories: TextIO | None,
    out: TextIO,
) -> bool:
    """Explore scenarios in turns; whether nothing was found."""
    from jobplane.explore.report import TABLE_HEAD, lines_of, row_of
    from jobplane.explore.search import explore_in_turns

    def show(found: "Outcome") -> None:
        click.echo("\n".join(lines_of(found)), file=out)

    reports = explore_in_turns(
        stage, scenarios, seed=seed, seconds=seconds, note=_writer(histories), found=show
    )
    click.echo("\n".join([TABLE_HEAD, *map(row_of, reports)]), file=out)
    return all(report.found is None for report in reports)


def _plant(
    stage: "Stage",
    scenarios: "list[Scenario]",
    seconds: float,
    seed: int,
    only: str,
    form: tuple[bool, bool],
    out: TextIO,
) -> bool:
    """Explore every mutant; whether each was found, or is implied."""
    from jobplane.explore.mutants import known_lines, tried, write_table

    as_json, as_table = form
    document = stage.template.repository.root / "docs" / "faults.md"
    known = known_lines(document) if document.exists() else []
    verdicts = []
    for verdict in tried(stage, scenarios, seconds, seed, only, known):
        verdicts.append(verdict)
        click.echo(json.dumps(verdict.document) if as_json else verdict.line, file=out)
    if only and not verdicts:
        raise click.UsageError(f"no mutant {only!r} in these scenarios")
    if as_table:
        write_table(document, verdicts)
    return all(verdict.is_good for verdict in verdicts)
