"""Templates as the Serverless Framework compiles them, for AWS and for the emulator."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobplane.stage.framework import install_framework
from jobplane.tree.repository import Repository
from lambdapack.artifacts import Builder, Settings
from lambdapack.locks import exclusive

REPOSITORY = Repository.here()
EMULATOR = "http://127.0.0.1:4566"
CERTIFICATE = "arn:aws:acm:eu-west-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
DOMAINS = (
    "httpDomain=api.example.org",
    f"httpCertificate={CERTIFICATE}",
    "socketDomain=sockets.example.org",
    f"socketCertificate={CERTIFICATE}",
)

# Accepted findings of cfn-lint.
ACCEPTED = {
    "W3005": r"dependency already enforced",  # the framework's DependsOn of referenced resources
    # A JSONata expression that gives a number; an ARN whose partition DefinitionSubstitutions has.
    "E3601": r"'{% \$\w+ %}' is not of type 'number'|'arn:\$\{Partition\}:states:::[\w:.-]+' does",
}

type Compiled = Callable[..., dict[str, Any]]
"""`(stage, endpoint_url=None, *parameters, **variables)` → the compiled template."""


def package(
    stage: str,
    endpoint_url: str | None,
    parameters: tuple[str, ...],
    variables: dict[str, str],
    to: Path,
) -> None:
    """Compile a stage's template into a folder; `parameters` as in `--param name=value`."""
    install_framework(REPOSITORY)
    Builder(REPOSITORY, Settings.local()).build(REPOSITORY.functions())
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    if endpoint_url is not None:
        kept["AWS_ENDPOINT_URL"] = endpoint_url
    given = [part for text in parameters for part in ("--param", text)]
    with exclusive(REPOSITORY, "osls"):
        done = subprocess.run(
            ["node_modules/.bin/osls", "package", "--stage", stage, "--package", to, *given],
            cwd=REPOSITORY.root,
            env=kept | variables,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


def alarms_of(stack: dict[str, Any]) -> dict[str, Any]:
    """The resources for a stack's alarms, with `${sls:stage}` for the stage."""
    given: dict[str, Any] = {"functions": {}, "schedules": False}
    given |= {"queues": {}, "tables": {}, "stateMachines": {}} | stack
    script = (
        "const alarms = require('./scripts/serverless/alarms.js');"
        f"console.log(JSON.stringify(alarms({json.dumps(given)})))"
    )
    done = subprocess.run(
        ["node", "-e", script], cwd=REPOSITORY.root, capture_output=True, text=True, check=True
    )
    names = REPOSITORY.names("")
    text = done.stdout.replace("${self:service}", names.service)
    resources: dict[str, Any] = json.loads(text.replace("${param:metricsNamespace}", names.metrics))
    return resources


def of_type(template: dict[str, Any], kind: str) -> dict[str, Any]:
    """The resources of a type, by logical id."""
    return {
        logical: resource
        for logical, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def complaints(template: dict[str, Any], region: str) -> list[str]:
    """The findings of cfn-lint on a compiled template, without the accepted ones."""
    return complaints_about(json.dumps(template), region)


def complaints_about(text: str, region: str) -> list[str]:
    """The findings of cfn-lint on a template's text, without the accepted ones."""
    from cfnlint import ManualArgs
    from cfnlint.api import lint

    return [
        f"{match.rule.id} {'/'.join(map(str, match.path or ()))}: {match.message}"
        for match in lint(text, config=ManualArgs(regions=[region]))
        if not re.search(ACCEPTED.get(match.rule.id, r"(?!)"), match.message)
    ]
