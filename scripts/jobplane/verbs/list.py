"""`jobplane list`: list the functions and the state of their artifacts."""

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import click

from jobplane.stage.stages import Stage
from jobplane.terminal.console import note
from jobplane.tree.repository import Function, Repository

if TYPE_CHECKING:
    from lambdapack.artifacts import Artifact

REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+")
SHOWN_TRIGGERS = 2
PLAIN_WIDTH = 160
# On narrower terminals these columns are omitted.
ROOMY_WIDTH = 120
ROOMY = ("dependencies", "digest")


@click.command(
    epilog="""\b
Examples:
  jobplane list                # all functions, and changes since the last build
  jobplane list --stage local  # also differences from the stage
  jobplane list --json         # all triggers, and every locked dependency

\b
The last column says `current` (dist/ matches the sources), `changed`, or `not built`."""
)
@click.option("--stage", help="Also compare with what is deployed on this stage.")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def command(stage: str | None, as_json: bool) -> None:
    """List the functions: trigger, dependencies, artifact, changes."""
    from jobplane.tree.configuration import Configuration
    from jobplane.tree.triggers import triggers
    from lambdapack.artifacts import read_manifest, stale_functions

    repository = Repository.here()
    functions = repository.functions()
    manifest = read_manifest(repository)
    stale = set(stale_functions(repository, functions))
    configuration = Configuration(repository)
    deployed = _deployed(Stage(repository, stage), functions, manifest) if stage else {}
    rows = {
        function.name: {
            "triggers": triggers(function, configuration),
            "dependencies": direct_dependencies(function),
            **_built(manifest.get(function.name), function.name in stale),
            **({"deployed": deployed[function.name]} if stage else {}),
        }
        for function in functions
    }
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _show(rows, stage)


def direct_dependencies(function: Function) -> list[str]:
    text = (function.directory / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"].get("dependencies", [])
    return [match[0] for each in declared if (match := REQUIREMENT.match(each))]


def _built(artifact: "Artifact | None", stale: bool) -> dict[str, Any]:
    if artifact is None:
        return {"state": "not built", "size": None, "digest": None, "locked": {}}
    return {
        "state": "changed" if stale else "current",
        "size": artifact.size,
        "digest": artifact.digest,
        "locked": artifact.dependencies,
    }


def _deployed(
    stage: Stage, functions: list[Function], manifest: "dict[str, Artifact]"
) -> dict[str, list[str]]:
    """The differences of each function on the stage, by name: `code`, names of settings."""
    from jobplane.deploy import shipping

    shipping.require(stage)
    if shipping.unbuilt(stage.repository):
        raise click.ClickException(
            "some functions are not built; run `jobplane build`, "
            f"then `jobplane list --stage {stage.name}`"
        )
    artifacts = [manifest[function.name] for function in functions]
    found: dict[str, list[str]] = {}
    with shipping.planned(stage, functions, artifacts, whole=False) as plan:
        for step in plan.steps:
            if step.live is None:
                found[step.name] = ["not in the stack"]
            else:
                code = ["code"] if step.code else []
                found[step.name] = [*code, *step.configuration, *step.beyond]
    return found


def _show(rows: dict[str, dict[str, Any]], stage: str | None) -> None:
    from jobplane.terminal.tables import console, show, table

    headings = ["function", "trigger", "dependencies", "size", "digest", "sources"]
    if stage:
        headings.append(f"on {stage}")
    screen = console(PLAIN_WIDTH)
    shown = [each for each in headings if screen.width >= ROOMY_WIDTH or each not in ROOMY]
    cells = [
        [
            cell
            for heading, cell in zip(headings, _cells(name, row), strict=True)
            if heading in shown
        ]
        for name, row in rows.items()
    ]
    unbroken = ("function", "size", "digest", "sources")
    show(table(shown, cells, right=("size",), unbroken=unbroken), screen)
    if shown != headings:
        note(f"omitted {' and '.join(ROOMY)}: use a terminal of {ROOMY_WIDTH} columns, or --json")


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    more = len(row["triggers"]) - SHOWN_TRIGGERS
    shown = row["triggers"][:SHOWN_TRIGGERS] + ([f"{more} more"] if more > 0 else [])
    return [
        name,
        ", ".join(shown),
        ", ".join(each.removeprefix("jobplane-") for each in row["dependencies"]),
        f"{row['size'] / 1e6:.2f} MB" if row["size"] is not None else "",
        (row["digest"] or "")[:12],
        row["state"],
        *([", ".join(row["deployed"]) or "the same"] if "deployed" in row else []),
    ]
