"""AWS's command line, installed for the tests that run the commands of docs/."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment, uv_command
from lambdapack.locks import exclusive
from lambdapack.tools import run_quietly

PROJECT = Path(__file__).parent
REPOSITORY = Repository.here()


@cache
def programs() -> Path:
    """The folder with `aws` and the Python that it runs on, made or brought up to date."""
    environment = REPOSITORY.scratch / "_aws_cli"
    with exclusive(REPOSITORY, "aws-cli"):
        run_quietly(
            [
                uv_command(),
                "sync",
                "--project",
                PROJECT,
                "--locked",
                "--compile-bytecode",
                "--quiet",
            ],
            cwd=PROJECT,
            what="installing the AWS CLI",
            env=plain_environment(UV_PROJECT_ENVIRONMENT=str(environment)),
        )
    return environment / "bin"


def faults(commands: Sequence[Sequence[str]]) -> list[str | None]:
    """What `aws` finds wrong with each command, which is not carried out; None for nothing."""
    said = run_quietly(
        [programs() / "python", PROJECT / "parse.py"],
        cwd=PROJECT,
        what="aws",
        env=plain_environment(),
        given=json.dumps(commands),
    )
    found: list[str | None] = json.loads(said)
    return found
