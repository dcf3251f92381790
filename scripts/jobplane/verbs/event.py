"""`jobplane event`: print an event as a service sends it."""

import copy
import json
from typing import TYPE_CHECKING, Any

import click

from jobplane.tree.repository import Repository

if TYPE_CHECKING:
    from jobplane.events import Fresh, Source


@click.command(
    epilog="""\b
Examples:
  jobplane event --list
  jobplane event websocket-connect | jobplane invoke connect - --in-process
  jobplane event websocket-default --set body.action=ping \\
      --set requestContext.connectionId=conn-1 | jobplane invoke router -   # not connected: 401
  jobplane event http-v2 --set pathParameters.assembly_id=a1 | jobplane invoke status -
  jobplane event sqs --set Records[0].body.execution=2 --seed 7
  jobplane event schedule --for processor | jobplane invoke processor -
  jobplane event s3 --set detail.object.key=inbox/mail-1 | jobplane invoke intake -
  jobplane event status completed --stage prod > event.json   # a case
  jobplane event dynamodb-stream --change remove --item '{"owner": "acme#dev", "request_id": "r"}'

Paths are a.b, list[0].c or map["a.b"]; they may continue inside a string of JSON, such
as a body. Values that are not valid JSON are taken as text. `invoke` replaces
`<token:…>` by a token that the stage accepts.
"""
)
@click.argument("source", required=False)
@click.argument("case", required=False)
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override; repeatable.")
@click.option("--add", is_flag=True, help="Set a field; repeatable.")
@click.option("--seed", type=int, help="Make ids and timestamps from it.")
@click.option(
    "--for", "name", metavar="NAME", help="schedule: with the input of function NAME's schedule."
)
@click.option(
    "--change",
    type=click.Choice(["insert", "modify", "remove"]),
    help="dynamodb-stream: what happened to the item; default: insert.",
)
@click.option("--table", default="requests", show_default=True, help="dynamodb-stream: the table.")
@click.option("--item", metavar="JSON", help="dynamodb-stream: the item, as plain JSON.")
@click.option("--stage", help="With CASE: use the names of this stage; default: local.")
@click.option("--in-process", is_flag=True, help="With CASE: use test names; needs no stage.")
@click.option("--list", "listed", is_flag=True, help="List the sources and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print it on one line.")
def command(
    source: str | None,
    case: str | None,
    sets: tuple[str, ...],
    add: bool,
    seed: int | None,
    name: str | None,
    change: str | None,
    table: str,
    item: str | None,
    stage: str | None,
    in_process: bool,
    listed: bool,
    as_json: bool,
) -> None:
    """Print a realistic event of a service, with fresh ids and times.

    SOURCE is a service of `--list`, or a function followed by one of its cases: this prints the
    case's event with all placeholders replaced.
    """
    from jobplane import events

    if listed:
        _list(as_json)
        return
    if source and case:
        if sets or seed is not None or name or change or item:
            raise click.UsageError("--set, --seed, --for, --change and --item exclude a CASE")
        _print(_of_case(source, case, stage, in_process=in_process), as_json)
        return
    if stage or in_process:
        raise click.UsageError("--stage and --in-process need a CASE")
    if source not in events.SOURCES:
        said = f"unknown source {source!r}" if source else "missing SOURCE"
        raise click.UsageError(
            f"{said}; known are {', '.join(events.SOURCES)}. The event of a function's case: "
            "jobplane event NAME CASE"
        )
    if source != "dynamodb-stream" and (change or item or table != "requests"):
        raise click.UsageError("--change, --item and --table need the source dynamodb-stream")
    if source != "schedule" and name:
        raise click.UsageError("--for needs the source schedule")
    fresh = events.Fresh(seed)
    if name:
        event = _scheduled(name)
    elif source == "dynamodb-stream":
        event = _stream(fresh, table, change or "insert", item)
    else:
        event = events.SOURCES[source].make(fresh)
    event = _overridden(event, events.SOURCES[source], sets, add)
    _print(event, as_json)


def _print(event: Any, as_json: bool) -> None:
    click.echo(json.dumps(event, indent=None if as_json else 2, ensure_ascii=False))


def _of_case(name: str, case: str, stage: str | None, *, in_process: bool) -> Any:
    from jobplane.stage.stages import Stage
    from jobplane.trying import cases

    if in_process and stage is not None:
        raise click.UsageError("pass --in-process or --stage, not both")
    repository = Repository.here()
    (function,) = repository.select((name,))
    found = cases.named(function, case)
    return cases.filled(found, None if in_process else Stage(repository, stage or "local"))


def _list(as_json: bool) -> None:
    from jobplane.events import SOURCES

    if as_json:
        click.echo(json.dumps({name: source.summary for name, source in SOURCES.items()}))
        return
    for name, source in SOURCES.items():
        click.echo(f"{name:24} {source.summary}")


def _overridden(event: Any, source: "Source", sets: tuple[str, ...], add: bool) -> Any:
    from jobplane.events import OverrideError, override

    original = copy.deepcopy(event)
    try:
        for text in sets:
            event = override(event, text, add=add)
    except OverrideError as error:
        raise click.UsageError(str(error)) from error
    source.finish(event, original)
    return event


def _scheduled(name: str) -> Any:
    from jobplane.events import scheduled_input

    (function,) = Repository.here().select((name,))
    given = scheduled_input(function)
    if given is None:
        raise click.UsageError(f"function.yml of {name} has no schedule with an input")
    return copy.deepcopy(given)


def _stream(fresh: "Fresh", table: str, change: str, item: str | None) -> Any:
    from jobplane.events import KeyMissingError, NoTableError, request_item, stream_event

    if item is None and table != "requests":
        raise click.UsageError(f"--table {table} needs an --item")
    try:
        values = json.loads(item) if item is not None else request_item(fresh)
    except ValueError as error:
        raise click.UsageError(f"--item is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise click.UsageError("--item must be a JSON object")
    try:
        return stream_event(fresh, Repository.here(), table, change, values)
    except (NoTableError, KeyMissingError) as error:
        raise click.UsageError(str(error)) from error
