"""The peak memory of the emulator's workers, as Linux reports it."""

import re
from contextlib import suppress
from pathlib import Path

import psutil

PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_megabytes(function: str, emulator: int) -> float | None:
    """The largest peak of a function's workers; None where the system does not report it.

    `function` is its deployed name, `emulator` the process that started the workers.
    """
    peaks: list[float] = []
    for worker in psutil.Process(emulator).children(recursive=True):
        with suppress(psutil.Error, OSError):
            if worker.environ().get("AWS_LAMBDA_FUNCTION_NAME") == function:
                status = Path(f"/proc/{worker.pid}/status").read_text()
                peaks += [int(size) * 1024 / 1e6 for size in PEAK.findall(status)]
    return max(peaks, default=None)
