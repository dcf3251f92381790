"""`python -m jobplane.fuzzing.guided NAME INPUTS SEED`: one function under atheris.

atheris, like the libFuzzer in it, has the process to itself and never returns: the report is the
last line on standard output.
"""

import inspect
import json
import os
import re
import sys
import tempfile
import time
from types import FunctionType, ModuleType
from typing import Any

import atheris

MAX_BYTES = 4096
LIBRARIES = ("keys", "sockets", "telemetry", "tokens", "webhooks", "models", "robots")

with atheris.instrument_imports(include=[f"jobplane_{name}" for name in LIBRARIES]):
    from jobplane.fuzzing.runs import Report, property_of
    from jobplane.fuzzing.subjects import subjects


def instrument(module: ModuleType) -> None:
    """Let atheris trace the branches of a module that was loaded from its file."""
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        # Copied: looking at a model may build it, which adds attributes to its class.
        for part in tuple(vars(value).values()) if inspect.isclass(value) else (value,):
            function = inspect.unwrap(getattr(part, "fget", None) or part)
            if isinstance(function, FunctionType):
                atheris.instrument_func(function)


def edges_of(log: str) -> int | None:
    counted = re.findall(r"cov: (\d+)", log)
    return int(counted[-1]) if counted else None


def main(name: str, wanted: int, number: int) -> None:
    report = Report(name, "coverage", number)
    began = time.monotonic()
    log = tempfile.TemporaryFile()  # libFuzzer writes until the process ends
    out = os.dup(1)

    def use(*done: Any) -> None:
        report.note(*done)
        if report.inputs >= wanted:
            report.seconds = round(time.monotonic() - began, 1)
            said = os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0)
            report.edges = edges_of(said.decode(errors="replace"))
            os.write(out, f"{json.dumps(report.document())}\n".encode())
            os._exit(0)

    with subjects() as make:
        subject = make(name)
        instrument(subject.module)
        test = property_of(subject, wanted, use)
        # libFuzzer writes to the process's standard error.
        os.dup2(log.fileno(), 2)
        atheris.Setup(
            [
                sys.argv[0],
                f"-seed={number or 1}",
                f"-max_len={MAX_BYTES}",
                "-len_control=0",
                "-rss_limit_mb=0",
                "-timeout=120",
                "-print_final_stats=1",
                # libFuzzer writes slow inputs into the current folder.
                "-exact_artifact_path=/dev/null",
            ],
            test.hypothesis.fuzz_one_input,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
