"""`jobplane explore`: run the functions in many orders, with faults, in this process."""

import sys

import click

from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane explore                      # every scenario, a minute each
  jobplane explore cancel --minutes 10
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
def command(names: tuple[str, ...], seed: int, minutes: float, replay: str | None) -> None:
    """Look for orders of calls and faults that break a guarantee.

    Runs the shipped handlers over one AWS in memory, and chooses at every AWS call which one goes
    on, and which fault meets it. First come all schedules with few deviations from the usual order,
    then samples with more. A failure is shortened, and printed with the line that replays it.
    Exits with 1 if there is a failure.
    """
    from jobplane.explore.report import line_of, lines_of
    from jobplane.explore.scenarios import SCENARIOS
    from jobplane.explore.search import explore, parse, run
    from jobplane.explore.world import Stage

    if replay is not None:
        try:
            name, number, plan = parse(replay)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        chosen = [name]
    else:
        there = {function.name for function in Repository.here().functions()}
        chosen = list(names) or [
            name for name, scenario in SCENARIOS.items() if there.issuperset(scenario.functions)
        ]
    for name in chosen:
        if name not in SCENARIOS:
            raise click.UsageError(f"no scenario {name!r}; known are {', '.join(SCENARIOS)}")
    out = sys.stdout
    with Stage(Repository.here()) as stage:
        if replay is not None:
            outcome = run(stage, SCENARIOS[name], number, plan)
            click.echo("\n".join(lines_of(outcome)), file=out)
            sys.exit(1 if outcome.failure else 0)
        failed = False
        for name in chosen:
            report = explore(stage, SCENARIOS[name], seed=seed, seconds=60 * minutes)
            click.echo(line_of(report), file=out)
            if report.found is not None:
                failed = True
                click.echo("\n".join(lines_of(report.found)), file=out)
    if failed:
        sys.exit(1)
