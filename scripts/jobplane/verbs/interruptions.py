"""`jobplane interruptions`: list what has interrupted the jobs of a workspace."""

import json
from collections.abc import Mapping
from typing import Any

import click

from jobplane.stage.stages import Stage, StageNotUpError
from jobplane.tree.repository import Repository

WHY_LENGTH = 60
PLAIN_WIDTH = 160


@click.command(
    epilog="""\b
Examples:
  jobplane interruptions acme+amelia#scott
  jobplane interruptions amelia#scott --stage prod --limit 200
  jobplane interruptions amelia#scott --json | jq .interruptions[].messageId

\b
Records are kept for 30 days. A workspace is project#user; that of an `instruct` is
tenant+project#user."""
)
@click.argument("workspace")
@click.option("--stage", default="local", show_default=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def command(workspace: str, stage: str, limit: int, as_json: bool) -> None:
    """List who interrupted the jobs of a workspace, when and why."""
    from jobplane.console.backend import Backend
    from jobplane.stage import emulator
    from jobplane.terminal.tables import console, table
    from jobplane_keys import ValidationError, from_item, to_item, workspace_of

    try:
        key = workspace_of({"projectUserId": workspace}).key
    except ValidationError as error:
        text = f"WORKSPACE must be project#user, such as amelia#scott ({error})"
        raise click.UsageError(text) from error
    repository = Repository.here()
    repository.require("`jobplane interruptions`", "record-interruption")
    there = Stage(repository, stage).require()
    state = there.read_state()
    if state is not None and not emulator.is_running(state):
        raise StageNotUpError(stage)
    backend = Backend(there, "`jobplane interruptions` only reads")
    found = backend.dynamodb.query(
        TableName=backend.table("interruptions"),
        IndexName="by-workspace",
        KeyConditionExpression="projectUserId = :workspace",
        ExpressionAttributeValues=to_item({":workspace": key}),
        ScanIndexForward=False,
        Limit=limit,
    )
    rows = [from_item(item) for item in found["Items"]]
    has_more = "LastEvaluatedKey" in found
    if as_json:
        click.echo(json.dumps({"interruptions": rows, "more": has_more}))
        return
    headings = ("when", "kind", "job", "by", "for thread", "why")
    shown = [
        (
            str(row.get("timestamp", ""))[:19].replace("T", " "),
            str(row.get("kind", "")),
            str(row.get("messageId", "")),
            str(row.get("interruptingMessageId") or "–"),
            str(row.get("newThreadId") or "–"),
            _why(row),
        )
        for row in rows
    ]
    console(PLAIN_WIDTH).print(table(headings, shown, unbroken=("when", "kind")))
    number = len(rows)
    text = f"{number} record{'' if number == 1 else 's'} of {key}"
    click.echo(text + ("; there are more: pass a larger --limit" if has_more else ""))


def _why(row: Mapping[str, Any]) -> str:
    """The error or the worker's cause, shortened."""
    cause = row.get("cause")
    text = cause if isinstance(cause, str) else json.dumps(cause) if cause is not None else ""
    whole = ": ".join(filter(None, (str(row.get("error") or ""), text)))
    return whole if len(whole) <= WHY_LENGTH else f"{whole[: WHY_LENGTH - 1]}…"
