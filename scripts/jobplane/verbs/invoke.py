"""`jobplane invoke`: run a function with its events."""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobplane.stage.stages import Stage
from jobplane.terminal.console import note
from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Function, Repository

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobplane.trying.cases import Case, Outcome, Result

MARKS = {"passed": "ok  ", "failed": "FAIL", "no expectation": "ran ", "left out": "--  "}


@click.command(
    epilog="""\b
Examples:
  jobplane invoke claim acquired                       # on the local stage
  jobplane invoke claim --all --in-process             # without a stage
  jobplane invoke claim acquired --watch --in-process  # again after each save
  jobplane invoke claim acquired --watch --stage dev   # deployed before each round
  jobplane invoke claim acquired --record --in-process # save the result as expectation
  jobplane invoke claim acquired --print > event.json  # print the event only
"""
)
@click.argument("name")
@click.argument("events", nargs=-1, metavar="[EVENT]...")
@click.option("--all", "every", is_flag=True, help="Run every event of the function.")
@click.option("--stage", help="Default: local.")
@click.option("--in-process", is_flag=True, help="Run in this process, with moto; needs no stage.")
@click.option("--yes", is_flag=True, help="Allow cases to write to a stage that is not local.")
@click.option("--watch", is_flag=True, help="Run again after each save; deploys to a stage first.")
@click.option("--record", is_flag=True, help="Write EVENT.expect.json from the result.")
@click.option("--print", "printed", is_flag=True, help="Print the event; invoke nothing.")
@click.option("--full", is_flag=True, help="Show all rows of lists, and texts in full length.")
@click.option("--metrics", is_flag=True, help="Also show metric lines of the log.")
@click.option("--raw", is_flag=True, help="Print the unchanged answer as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per case.")
def command(
    name: str,
    events: tuple[str, ...],
    every: bool,
    stage: str | None,
    in_process: bool,
    yes: bool,
    watch: bool,
    record: bool,
    printed: bool,
    full: bool,
    metrics: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Invoke a function with its events, or with one of yours.

    EVENT is a case of functions/NAME/events, a path, or - for stdin.

    Shows answer, log, duration and cold start; exits with 1 if a case fails.

    On AWS, --all needs --yes, and so do cases that write rows, objects or parameters, or read
    whole tables.
    """
    if in_process and stage is not None:
        raise click.UsageError("pass --in-process or --stage, not both")
    _refuse_combinations(events, watch=watch, record=record, printed=printed)
    repository = Repository.here()
    (function,) = repository.select((name,))
    cases = _cases(function, events, every)
    there = None if in_process else Stage(repository, stage or "local")
    style = Style(full=full, metrics=metrics, raw=raw, as_json=as_json)
    if there is None:
        install_dependencies(repository)
    if printed:
        _print_events(cases, there, style)
        return
    if there is not None:
        _refuse_writes(there.require(), cases, every=every, yes=yes)
    if watch:
        _watch(function, repository, there)
        return
    run_all = _record_all if record else _run_all
    results = run_all(cases, repository, there, style)
    if len(results) > 1:
        click.echo(_totals(results), err=as_json)
    if not record and not all(result.passed for result in results):
        sys.exit(1)


@dataclass(frozen=True)
class Style:
    full: bool
    metrics: bool
    raw: bool
    as_json: bool


def _refuse_combinations(
    events: tuple[str, ...], *, watch: bool, record: bool, printed: bool
) -> None:
    if watch + record + printed > 1:
        raise click.UsageError("pass only one of --watch, --record and --print")
    if watch and "-" in events:
        raise click.UsageError("--watch can't be used with stdin; pass a case or a file")
    if record and "-" in events:
        raise click.UsageError("--record can't be used with stdin; pass a case or a file")


def _cases(function: Function, events: tuple[str, ...], every: bool) -> "list[Case]":
    from jobplane.trying.case_files import nearest
    from jobplane.trying.cases import Case, case_paths

    known = case_paths(function)
    if every:
        events = tuple(known)
    if not events:
        names = ", ".join(known)
        raise click.UsageError(
            f"missing EVENT; choose one of {names}, or --all"
            if known
            else f"functions/{function.name}/events has no event; add CASE.json there, or pass - "
            "and write the event to stdin"
        )
    cases = []
    for event in events:
        if event == "-":
            cases.append(Case.of_text(function, "-", sys.stdin.buffer.read(), "stdin"))
        elif event in known:
            cases.append(Case.read(function, known[event]))
        elif Path(event).is_file():
            cases.append(Case.read(function, Path(event)))
        else:
            raise click.UsageError(
                f"{event!r} is neither a case nor a file; {nearest(event, tuple(known))}"
            )
    return cases


def _refuse_writes(there: Stage, cases: "Iterable[Case]", *, every: bool, yes: bool) -> None:
    """Ask before cases write test data to a stage on AWS, which others use."""
    for case in cases:
        if case.effects:
            why = f"the case {' and '.join(case.effects)}"
            there.refuse_unless_local(f"invoke {case} on {there.name!r}", why, yes=yes)
    if every:
        why = "--all runs the function on every test event"
        there.refuse_unless_local(f"invoke all events on {there.name!r}", why, yes=yes)


def _watch(function: Function, repository: Repository, there: Stage | None) -> None:
    from jobplane.trying.watching import on_save

    if there is not None and not there.is_local:
        click.confirm(f"Each save deploys {function.name} to {there.name}, on AWS?", abort=True)
    invocation = [argument for argument in sys.argv[1:] if argument != "--watch"]
    deployment = ["deploy", function.name, "--stage", there.name, "--yes"] if there else None
    on_save(repository, function, [deployment, invocation] if deployment else [invocation])


def _run_all(
    cases: "list[Case]", repository: Repository, there: Stage | None, style: Style
) -> "list[Result]":
    results = []
    for case in cases:
        results.append(_run(case, repository, there))
        _show(results[-1], style, alone=len(cases) == 1)
    return results


def _run(case: "Case", repository: Repository, there: Stage | None) -> "Result":
    from jobplane.trying import cases

    if there is None:
        return cases.run_in_process(case, repository)
    return cases.run(case, cases.StageTarget(there))


def _record_all(
    cases: "list[Case]", repository: Repository, there: Stage | None, style: Style
) -> "list[Result]":
    from jobplane.trying import recording

    recording.require_recordable(cases, there)
    results = _run_all(cases, repository, there, style)
    for result in results:
        path = recording.record(result, repository, there)
        inside = path.is_relative_to(repository.root)
        note(f"wrote {path.relative_to(repository.root) if inside else path}")
    return results


def _print_events(cases: "Iterable[Case]", there: Stage | None, style: Style) -> None:
    from jobplane.trying.cases import filled

    for case in cases:
        event = filled(case, there)
        click.echo(json.dumps(event, indent=None if style.as_json else 2, ensure_ascii=False))


def _show(result: "Result", style: Style, *, alone: bool) -> None:
    if style.as_json:
        click.echo(json.dumps(_document(result), default=str))
        return
    if alone and result.outcome is not None:
        _print_outcome(result, result.outcome, style)
    _print(result)


def _print_outcome(result: "Result", outcome: "Outcome", style: Style) -> None:
    from jobplane.stage import log_lines
    from jobplane.trying import answers

    shown = [line for line in outcome.log if style.metrics or not log_lines.is_metric(line)]
    for line in shown:
        click.echo(f"  {log_lines.readable(line)}")
    if folded := len(outcome.log) - len(shown):
        lines = "1 line" if folded == 1 else f"{folded} lines"
        click.echo(f"  METRIC  {lines} (pass --metrics to show them)")
    if outcome.error:
        error = f"{outcome.error}: {outcome.error_message}"
        # An unexpected error is shown with the problems.
        if not any(error in problem for problem in result.problems):
            click.echo(error)
    elif style.raw:
        click.echo(json.dumps(outcome.answer, indent=2, ensure_ascii=False))
    else:
        click.echo(answers.readable(outcome.answer, full=style.full, terminal=sys.stdout.isatty()))


def _print(result: "Result") -> None:
    outcome, mark = result.outcome, MARKS[result.state]
    if outcome is None:
        click.echo(f"{mark} {result.case}  {result.left_out}; pass --in-process to run it")
        return
    start = {True: ", cold", False: ", warm", None: ""}[outcome.cold]
    init = f", init {outcome.init_ms:.0f} ms" if outcome.init_ms is not None else ""
    nothing = "  no expectation" if result.state == "no expectation" else ""
    click.echo(f"{mark} {result.case}  {outcome.duration_ms:.1f} ms{start}{init}{nothing}")
    for problem in result.problems:
        click.echo(f"     {problem}")


def _totals(results: "list[Result]") -> str:
    counts = Counter(result.state for result in results)
    found = ", ".join(f"{counts[state]} {state}" for state in MARKS if counts[state])
    return f"{len(results)} cases: {found}"


def _document(result: "Result") -> dict[str, object]:
    return {
        "function": result.case.function.name,
        "case": result.case.name,
        "passed": result.passed,
        "state": result.state,
        "problems": result.problems,
        **({"left_out": result.left_out} if result.left_out else {}),
        **(asdict(result.outcome) if result.outcome else {}),
    }
