"""The peak memory of the emulator's workers, as Linux reports it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_megabytes(function: str, emulator: int) -> float | None:
    """The largest peak of a function's workers; None where the system does not report it.

    `function` is its deployed name, `emulator` the process group that the workers belong to.
    """
    peaks = [peak for pid in _workers(function, emulator) if (peak := _peak(pid)) is not None]
    return max(peaks, default=None)


def _workers(function: str, emulator: int) -> Iterator[int]:
    name = f"AWS_LAMBDA_FUNCTION_NAME={function}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) != emulator:
                continue
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if name in environment.split(b"\0"):
            yield int(folder.name)


def _peak(pid: int) -> float | None:
    try:
        found = PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 / 1e6 if found else None
