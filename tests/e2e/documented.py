"""Commands of docs/, run as written.

`uv run jobplane` is the command of the stage's workspace, and `aws` is that of PyPI.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from tests.aws_cli import programs as installed
from tests.workspace.copies import command_environment

ROOT = Repository.here().root
# The emulator has no such calls: `aws` reads such a command, and says what would be answered.
NOT_EMULATED = ("request-service-quota-increase", "start-message-move-task")
AWS = """\
case "$*" in {unknown}) set -- "$@" --generate-cli-skeleton output;; esac
exec {aws} "$@"
"""
# After `run`, what is to be run; a deployment asks, and is agreed to.
UV = f'shift; [ "$2" = deploy ] && set -- "$@" --yes; exec {sys.executable} -m "$@"'


def blocks(text: str) -> list[str]:
    """The blocks of commands in a part of a document."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Terminal:
    """A bash in the workspace of a stage, with the variables of `jobplane info --export`."""

    stage: Stage
    programs: Path

    @classmethod
    def on(cls, stage: Stage, programs: Path) -> Self:
        """Put a folder with its programs first in PATH."""
        unknown = "|".join(f"*{operation}*" for operation in NOT_EMULATED)
        aws = AWS.format(unknown=unknown, aws=installed() / "aws")
        for name, script in {"aws": aws, "uv": UV}.items():
            program = programs / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        return cls(stage, programs)

    @property
    def _names(self) -> dict[str, str]:
        return {"service": self.stage.names.service, "stage": self.stage.name}

    def run(self, *scripts: str, **variables: str) -> str:
        """Run blocks in one shell, all of which must succeed; their output."""
        environment = command_environment(self.stage.repository)
        environment |= {"PATH": f"{self.programs}:{environment['PATH']}", "NO_PROXY": "127.0.0.1"}
        script = "\n".join(
            (f'eval "$(uv run jobplane info --export --stage {self.stage.name})"', *scripts)
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.stage.repository.root,
            env=environment | self._names | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout
