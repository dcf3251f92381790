"""`jobplane deploy`: deploy single functions, or the whole stack."""

import json
import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Function, Repository

if TYPE_CHECKING:
    from jobplane.deploy.shipping import Plan, Step

SHOWN_RESOURCES = 12
PLAIN_WIDTH = 110


def _assignments(_context: object, _parameter: object, values: tuple[str, ...]) -> tuple[str, ...]:
    from jobplane.stage.framework import parameters

    known = parameters(Repository.here()) if values else []
    for value in values:
        if not re.fullmatch(r"[^=]+=.+", value, re.DOTALL):
            raise click.BadParameter(f"{value!r} does not have the form NAME=VALUE")
        name = value.partition("=")[0]
        if name not in known:
            raise click.BadParameter(f"unknown parameter {name!r}; known are: {', '.join(known)}")
    return values


@click.command(
    epilog="""\b
Examples:
  jobplane deploy claim                        # one function, on the local stage
  jobplane deploy claim router --stage dev     # two
  jobplane deploy --stage prod                 # the whole stack
  jobplane deploy --affected --since main... --stage staging --yes
                                               # in a pipeline: what a branch touches
  jobplane deploy --stage prod --dry-run       # what would change
  jobplane deploy claim --rollback             # back to its former version
  jobplane deploy --rollback --stage prod      # back to the former deployment

A stage that `jobplane up` started is local. Any other is a stack on AWS, in AWS_REGION, with your
AWS credentials. With NAMES, only code, memory, timeout, description and plain environment
variables are deployed; roles, triggers and tables change with the whole stack."""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--stage", default="local", show_default=True)
@click.option(
    "--affected", is_flag=True, help="Deploy what differs from --since: functions, or the stack."
)
@click.option("--since", metavar="REV", help="With --affected; default: HEAD.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and exit.")
@click.option("--no-build", is_flag=True, help="Deploy dist/ as it is; fails if it is stale.")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_assignments,
    help="Set a stage parameter for this deployment; repeatable.",
)
@click.option("--rollback", is_flag=True, help="Go back to what was deployed before.")
@click.option(
    "--to",
    metavar="VERSION|TIME",
    help="With --rollback: a function's version, or a deployment's time; default: the one before.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as one JSON object.")
def command(
    names: tuple[str, ...],
    stage: str,
    affected: bool,
    since: str | None,
    yes: bool,
    dry_run: bool,
    no_build: bool,
    parameters: tuple[str, ...],
    rollback: bool,
    to: str | None,
    as_json: bool,
) -> None:
    """Deploy changed functions, or the whole stack.

    Builds first, shows what will change, asks, and checks afterwards that it is live.
    """
    from jobplane.deploy import rollback as back
    from jobplane.deploy import shipping
    from jobplane.terminal import interrupts
    from lambdapack.locks import exclusive

    if names and affected:
        raise click.UsageError("pass NAMES or --affected, not both")
    if since is not None and not affected:
        raise click.UsageError("--since needs --affected")
    if rollback and (affected or no_build or parameters):
        raise click.UsageError("--rollback excludes --affected, --no-build and --param")
    if to is not None and not rollback:
        raise click.UsageError("--to needs --rollback")
    repository = Repository.here()
    chosen = repository.select(names)
    whole = not names
    if affected:
        found = _affected(repository, since or "HEAD")
        if found is None:
            _nothing(as_json, stage, f"nothing differs from {since or 'HEAD'}")
            return
        chosen, whole = found
    there = shipping.require(Stage(repository, stage))
    with exclusive(repository, f"stage-{stage}"), interrupts.as_keyboard_interrupt():
        if rollback:
            with back.planned(there, chosen, whole=whole, to=to) as plan:
                _carry_out(plan, (), yes=yes, dry_run=dry_run, as_json=as_json)
            return
        given = dict(each.split("=", 1) for each in parameters)
        settings = shipping.settings_for(there, given)
        make = shipping.built if no_build else shipping.build
        artifacts = make(repository, chosen, settings)
        with shipping.planned(there, chosen, artifacts, whole=whole, parameters=parameters) as plan:
            _carry_out(plan, parameters, yes=yes, dry_run=dry_run, as_json=as_json)


def _carry_out(
    plan: "Plan", parameters: tuple[str, ...], *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    from jobplane.deploy import shipping

    if plan.nothing:
        _refuse_what_is_left(plan)
        _nothing(as_json, plan.stage.name, f"nothing to deploy: {plan.stage.name} is up to date")
        return
    _show(plan, err=as_json)
    if dry_run:
        if as_json:
            click.echo(json.dumps(_document(plan, deployed=False)))
        return
    _agree(plan, yes)
    try:
        _deploy(plan, parameters)
    except shipping.DeployFailedError as error:
        _report(plan, as_json, error.deployed)
        raise
    _report(plan, as_json)


def _affected(repository: Repository, since: str) -> tuple[list[Function], bool] | None:
    """The functions to deploy, and whether to deploy the whole stack; None if nothing differs."""
    from jobplane.deploy.affected import affected

    change = affected(repository, since)
    if change.needs_the_stack:
        return repository.functions(), True
    names = tuple(each.name for each in change.functions)
    return (repository.select(names), False) if names else None


def _nothing(as_json: bool, stage: str, text: str) -> None:
    click.echo(
        json.dumps({"stage": stage, "deployed": False, "functions": {}}) if as_json else text
    )


def _refuse_what_is_left(plan: "Plan") -> None:
    if plan.left:
        raise click.ClickException(
            f"{'; '.join(plan.left)}: this needs a deployment of the stack: "
            f"jobplane deploy --stage {plan.stage.name}"
        )


def _show(plan: "Plan", *, err: bool) -> None:
    from rich.text import Text

    from jobplane.deploy.shipping import where
    from jobplane.terminal.tables import console, table

    there = console(PLAIN_WIDTH, stderr=err)
    what = "new stack" if plan.is_new else "the stack" if plan.whole else "functions"
    if plan.back_to is not None:
        there.print(Text(f"back to the deployment of {plan.back_to}"))
    there.print(
        Text(f"{what} {'' if plan.whole else 'of '}{plan.stage.names.stack} on {where(plan.stage)}")
    )
    rows = [_row(step) for step in plan.steps if step.differs or step.beyond]
    if rows:
        there.print(table(("function", "code", "size", "configuration"), rows))
    if plan.stack and not plan.is_new:
        more = len(plan.stack) - SHOWN_RESOURCES
        shown = plan.stack[:SHOWN_RESOURCES] + ([f"and {more} more"] if more > 0 else [])
        there.print(Text(f"resources: {', '.join(shown)}"))
    for left in plan.left:
        there.print(Text(f"not included: {left}: jobplane deploy --stage {plan.stage.name}"))


def _row(step: "Step") -> tuple[str, str, str, str]:
    if step.live is None:
        code, size = f"new {step.digest[:12]}", _megabytes(step.size)
    elif step.code:
        code = f"{step.live.digest[:12]} → {step.digest[:12]}"
        size = f"{_megabytes(step.live.size)} → {_megabytes(step.size)}"
    else:
        code, size = "same", _megabytes(step.size)
    return step.name, code, size, ", ".join(step.configuration) or "same"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _agree(plan: "Plan", yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal; pass --yes to deploy")
    if not click.confirm(f"Deploy to {plan.stage.name}?", err=True):
        raise click.ClickException("nothing was deployed")


def _deploy(plan: "Plan", parameters: tuple[str, ...]) -> None:
    from jobplane.deploy import shipping
    from jobplane.terminal.progress import counting, waiting

    name = plan.stage.name
    if plan.whole:
        with waiting(
            f"deploying the stack to {name} (osls deploy)", shipping.last_event(plan.stage)
        ):
            shipping.update_stack(plan, parameters)
        shipping.settle(plan)
        return
    steps = [step for step in plan.steps if step.is_alone]
    with counting(
        f"updating {', '.join(step.name for step in steps)} on {name}", len(steps)
    ) as done:
        shipping.update_functions(plan, done)


def _report(plan: "Plan", as_json: bool, only: Collection[str] | None = None) -> None:
    if as_json:
        click.echo(json.dumps(_document(plan, deployed=True, only=only)))
        return
    for step in plan.steps:
        if (plan.whole or step.is_alone) and (only is None or step.name in only):
            state = "unchanged" if not step.differs else "deployed"
            what = ", ".join(filter(None, ["code" if step.code else "", *step.configuration]))
            click.echo(f"{step.name:24} {state:9} {step.digest[:12]} {what}".rstrip())
    for left in plan.left:
        click.echo(f"not included: {left}: jobplane deploy --stage {plan.stage.name}", err=True)


def _document(
    plan: "Plan", *, deployed: bool, only: Collection[str] | None = None
) -> dict[str, Any]:
    return {
        "stage": plan.stage.name,
        "deployed": deployed,
        "whole_stack": plan.whole,
        "resources": plan.stack,
        "not_included": plan.left,
        "functions": {
            step.name: {
                "changed": step.differs,
                "deployed": deployed
                and (plan.whole or step.is_alone)
                and (only is None or step.name in only),
                "code": {"before": step.live.digest if step.live else None, "after": step.digest},
                "size": {"before": step.live.size if step.live else None, "after": step.size},
                "configuration": step.configuration,
            }
            for step in plan.steps
        },
    }
