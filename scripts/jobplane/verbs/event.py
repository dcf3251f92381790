"""`jobplane event`: an event as a service sends it."""

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
      --set requestContext.connectionId=conn-1 | jobplane invoke router -   # of no connection: 401
  jobplane event http-v2 --set pathParameters.assembly_id=a1 | jobplane invoke status -
  jobplane event sqs --set Records[0].body.execution=2 --seed 7
  jobplane event schedule --for processor | jobplane invoke processor -
  jobplane event status completed --stage prod > event.json   # a case, filled in
  jobplane event dynamodb-stream --change remove --item '{"owner": "acme#dev", "request_id": "r"}'

Paths are a.b, list[0].c or map["a.b"], and lead into texts that are JSON, such as
a body. Values are read as JSON if they are JSON, as text otherwise. `invoke` fills in
`<token:…>` with a token that the stage accepts.
"""
)
@click.argument("source", required=False)
@click.argument("case", required=False)
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override; repeatable.")
@click.option("--add", is_flag=True, help="Overrides may make what the event doesn't have.")
@click.option("--seed", type=int, help="The same ids and times for the same number.")
@click.option("--for", "name", metavar="NAME", help="schedule: as function NAME's own sends it.")
@click.option(
    "--change",
    type=click.Choice(["insert", "modify", "remove"]),
    help="dynamodb-stream: what happened to the item; default: insert.",
)
@click.option("--table", default="requests", show_default=True, help="dynamodb-stream: of which.")
@click.option("--item", metavar="JSON", help="dynamodb-stream: the item, as plain JSON.")
@click.option("--stage", help="With CASE: fill in the names of this stage; default: local.")
@click.option("--in-process", is_flag=True, help="With CASE: fill in names without a stage.")
@click.option("--list", "listed", is_flag=True, help="List the sources and end.")
@click.option("--json", "as_json", is_flag=True, help="On one line.")
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

    SOURCE is a service of `--list`; or a function, followed by one of its cases, whose event is
    printed with the placeholders filled in.
    """
    from jobplane import events

    if listed:
        _list(as_json)
        return
    if source and case:
        if sets or seed is not None or name or change or item:
            raise click.UsageError("--set, --seed, --for, --change and --item are for SOURCE alone")
        _print(_of_case(source, case, stage, in_process=in_process), as_json)
        return
    if stage or in_process:
        raise click.UsageError("--stage and --in-process fill in the event of a CASE; name one")
    if source not in events.SOURCES:
        said = f"unknown source {source!r}" if source else "missing SOURCE"
        raise click.UsageError(
            f"{said}; known are {', '.join(events.SOURCES)}. The event of a function's case: "
            "jobplane event NAME CASE"
        )
    if source != "dynamodb-stream" and (change or item or table != "requests"):
        raise click.UsageError("--change, --item and --table are for dynamodb-stream")
    if source != "schedule" and name:
        raise click.UsageError("--for is for schedule")
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
        raise click.UsageError("--in-process and --stage exclude each other")
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
        raise click.UsageError(f"--item is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise click.UsageError("--item is no JSON object")
    try:
        return stream_event(fresh, Repository.here(), table, change, values)
    except (NoTableError, KeyMissingError) as error:
        raise click.UsageError(str(error)) from error
