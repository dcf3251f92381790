"""One cold start: its time on the clock and on the processor."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

RUNNER = Path(__file__).with_name("_runner.py")
# No site-packages, no variables of this environment, no bytecode: /var/task is read-only.
INTERPRETER = (sys.executable, "-I", "-S", "-B")


@dataclass(frozen=True)
class Start:
    """Milliseconds; `total` is from the process's start to the answer, `cpu` is user and system."""

    total: float
    importing: float
    invoking: float
    cpu: float
    answer: Any


def cold_start(folder: Path, module: str, event: Path, environment: Mapping[str, str]) -> Start:
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(reader) as report:
        os.set_inheritable(writer, True)
        command = [*INTERPRETER, RUNNER, folder, module, event, writer]
        began = time.monotonic_ns()
        pid = os.posix_spawn(
            INTERPRETER[0],
            [str(part) for part in command],
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ],
        )
        os.close(writer)
        text = report.read()
        _, status, usage = os.wait4(pid, 0)
        if status != 0 or not text:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-2000:]
            raise click.ClickException(f"{module} in {folder} did not answer:\n{tail}")
    told = json.loads(text)
    return Start(
        total=(told["answered"] - began) / 1e6,
        importing=(told["imported"] - told["began"]) / 1e6,
        invoking=(told["answered"] - told["imported"]) / 1e6,
        cpu=(usage.ru_utime + usage.ru_stime) * 1000,
        answer=told["answer"],
    )
