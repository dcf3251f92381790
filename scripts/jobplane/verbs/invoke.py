"""`jobplane invoke`: run a function on its events."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobplane.stages import Stage
from jobplane.workspace import Function, Workspace

if TYPE_CHECKING:
    from jobplane.cases import Case, Outcome, Result


@click.command(
    epilog="""\b
Examples:
  jobplane invoke claim acquired                       # on the local stage
  jobplane invoke claim --all --in-process             # without a stage
  jobplane invoke claim acquired --watch --in-process  # again after each save
  jobplane invoke claim acquired --watch --stage dev   # deployed before each round"""
)
@click.argument("name")
@click.argument("events", nargs=-1, metavar="[EVENT]...")
@click.option("--all", "every", is_flag=True, help="Every event of the function.")
@click.option("--stage", help="Default: local.")
@click.option("--in-process", is_flag=True, help="In this process, with moto; needs no stage.")
@click.option("--watch", is_flag=True, help="Again after each save; a stage gets the code first.")
@click.option("--full", is_flag=True, help="All rows of an answer's lists, all texts whole.")
@click.option("--raw", is_flag=True, help="The answer as it is, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a case.")
def command(
    name: str,
    events: tuple[str, ...],
    every: bool,
    stage: str | None,
    in_process: bool,
    watch: bool,
    full: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Invoke a function with its events, or with one of yours.

    EVENT is a case of functions/NAME/events, a path, or - for stdin.

    Shows answer, log, duration and cold start; exits with 1 if a case is not as expected.
    """
    if in_process and stage is not None:
        raise click.UsageError("--in-process has no stage")
    workspace = Workspace.here()
    (function,) = workspace.select((name,))
    there = None if in_process else Stage(workspace, stage or "local").require()
    if watch and "-" in events:
        raise click.UsageError("stdin can be read once: --watch takes cases and files")
    cases = _cases(function, events, every)
    if watch:
        _watch(function, workspace, there)
        return
    results = [_run(case, workspace, there) for case in cases]
    for result in results:
        if as_json:
            click.echo(json.dumps(_document(result), default=str))
            continue
        if len(results) == 1 and result.outcome is not None:
            _print_outcome(result, result.outcome, full=full, raw=raw)
        _print(result)
    if not all(result.passed for result in results):
        sys.exit(1)


def _cases(function: Function, events: tuple[str, ...], every: bool) -> "list[Case]":
    from jobplane.cases import Case, case_paths, parsed

    known = case_paths(function)
    if every:
        events = tuple(known)
    if not events:
        raise click.UsageError(f"which event? {', '.join(known) or 'there is none'}; or --all")
    cases = []
    for event in events:
        if event == "-":
            cases.append(Case(function, "-", parsed(sys.stdin.buffer.read(), "stdin")))
        elif event in known:
            cases.append(Case.read(function, known[event]))
        elif Path(event).is_file():
            cases.append(Case.read(function, Path(event)))
        else:
            raise click.UsageError(f"no event and no file {event!r}; there are: {', '.join(known)}")
    return cases


def _watch(function: Function, workspace: Workspace, there: Stage | None) -> None:
    from jobplane.watching import on_save

    if there is not None and not there.is_local:
        click.confirm(f"Each save deploys {function.name} to {there.name}, on AWS?", abort=True)
    invocation = [argument for argument in sys.argv[1:] if argument != "--watch"]
    deployment = ["deploy", function.name, "--stage", there.name, "--yes"] if there else None
    on_save(workspace, function, [deployment, invocation] if deployment else [invocation])


def _run(case: "Case", workspace: Workspace, there: Stage | None) -> "Result":
    from jobplane import cases

    if there is None:
        return cases.run_in_process(case, workspace)
    return cases.run(case, cases.StageTarget(there))


def _print_outcome(result: "Result", outcome: "Outcome", *, full: bool, raw: bool) -> None:
    from jobplane import answers, log_lines

    for line in outcome.log:
        click.echo(f"  {log_lines.readable(line)}")
    if outcome.error:
        error = f"{outcome.error}: {outcome.error_message}"
        # One that was not expected is a problem, and told as such.
        if not any(error in problem for problem in result.problems):
            click.echo(error)
    elif raw:
        click.echo(json.dumps(outcome.answer, indent=2, ensure_ascii=False))
    else:
        click.echo(answers.readable(outcome.answer, full=full, terminal=sys.stdout.isatty()))


def _print(result: "Result") -> None:
    outcome = result.outcome
    if outcome is None:
        click.echo(f"--   {result.case}  {result.left_out}: runs with --in-process")
        return
    mark = "ok  " if result.passed else "FAIL"
    start = {True: ", cold", False: ", warm", None: ""}[outcome.cold]
    init = f", init {outcome.init_ms:.0f} ms" if outcome.init_ms is not None else ""
    click.echo(f"{mark} {result.case}  {outcome.duration_ms:.1f} ms{start}{init}")
    for problem in result.problems:
        click.echo(f"     {problem}")


def _document(result: "Result") -> dict[str, object]:
    return {
        "function": result.case.function.name,
        "case": result.case.name,
        "passed": result.passed,
        "problems": result.problems,
        **({"left_out": result.left_out} if result.left_out else {}),
        **(asdict(result.outcome) if result.outcome else {}),
    }
