"""Memory and processor time of a stage's processes, sampled while it is under load."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import psutil

EVERY_SECONDS = 1.0
MEGABYTE = 1e6
FUNCTION_VARIABLE = "AWS_LAMBDA_FUNCTION_NAME"
# A Python process runs one thread at a time, so at this share of a core it is saturated.
SATURATED = 0.85
IDLE = 0.15
# A worker's growth is a sign of leaks only after it has been warm for a while.
WARM_SAMPLES = 20
FLAT = 0.05


@dataclass(frozen=True)
class Sample:
    """One sample of all processes; processor seconds count from the start of the sampling."""

    at: float
    cpu: Mapping[str, float]
    """Seconds by group: `client`, `emulator`, `functions`, and `machine` for all processes."""
    emulator_bytes: int
    workers: Mapping[str, Mapping[int, int]]
    """Resident bytes by function and process."""


@dataclass(frozen=True)
class Shares:
    """Cores that each group kept busy over a period."""

    seconds: float
    cores: int
    client: float
    emulator: float
    functions: float
    others: float
    """All other processes."""

    @property
    def idle(self) -> float:
        return max(0.0, self.cores - self.client - self.emulator - self.functions - self.others)

    def bottleneck(self, pace: str) -> str:
        """What limits the load by processor time; `pace` if cores are idle."""
        ours = {
            "our functions": self.functions,
            "the emulator": self.emulator,
            "the client": self.client,
        }
        own = sum(ours.values())
        for name in ("the emulator", "the client"):
            if ours[name] >= SATURATED:
                return f"{name}: its single process uses a whole core"
        if self.idle >= self.cores * (1 - SATURATED):
            return f"none: cores are idle, {pace} sets the pace"
        foreign = self.others / self.cores
        if not own:
            return f"not the load: other processes use {foreign:.0%} of the machine"
        largest = max(ours, key=lambda name: ours[name])
        share = f"{largest}: all cores are busy, {ours[largest] / own:.0%} of the load's part"
        return (
            f"{share}; other processes use {foreign:.0%} of the machine"
            if foreign >= IDLE
            else share
        )


@dataclass(frozen=True)
class Growth:
    """Resident memory of one function's workers that lived long enough, in MB."""

    workers: int
    typical: float
    """Median of the workers' last samples."""
    median_growth: float
    """From the second fifth of a worker's samples to the last, by medians."""
    largest_growth: float

    @property
    def is_flat(self) -> bool:
        """Whether no worker grew by more than a twentieth of the typical size.

        Only meaningful for a load of minutes: at the end of a short one, a worker may load modules
        that it needs for the first time.
        """
        return self.largest_growth <= self.typical * FLAT


@dataclass
class Usage:
    samples: list[Sample] = field(default_factory=list)

    def between(self, start: float, end: float) -> Shares:
        inside = [sample for sample in self.samples if start <= sample.at <= end]
        if len(inside) < 2:
            inside = self.samples[-2:]
        first, last = inside[0], inside[-1]
        seconds = max(last.at - first.at, 1e-9)
        used = {name: (last.cpu[name] - first.cpu[name]) / seconds for name in last.cpu}
        own = used["client"] + used["emulator"] + used["functions"]
        return Shares(
            seconds, psutil.cpu_count() or 1, used["client"], used["emulator"],
            used["functions"], max(0.0, used["machine"] - own),
        )  # fmt: skip

    def growth(self) -> dict[str, Growth]:
        series: dict[str, dict[int, list[int]]] = {}
        for sample in self.samples:
            for function, workers in sample.workers.items():
                for pid, resident in workers.items():
                    series.setdefault(function, {}).setdefault(pid, []).append(resident)
        found = {}
        for function, of in sorted(series.items()):
            warm = [taken for taken in of.values() if len(taken) >= WARM_SAMPLES]
            if warm:
                growths = [_growth(taken) for taken in warm]
                found[function] = Growth(
                    len(warm),
                    median(taken[-1] for taken in warm) / MEGABYTE,
                    median(growths) / MEGABYTE,
                    max(growths) / MEGABYTE,
                )
        return found

    def most_workers(self) -> int:
        return max((sum(map(len, sample.workers.values())) for sample in self.samples), default=0)


def _growth(taken: Sequence[int]) -> float:
    fifth = len(taken) // 5
    return median(taken[-fifth:]) - median(taken[fifth : 2 * fifth])


@contextmanager
def sampled(emulator_pid: int) -> Iterator[Usage]:
    usage, over = Usage(), threading.Event()
    sampler = _Sampler(emulator_pid)

    def keep() -> None:
        while not over.is_set():
            usage.samples.append(sampler.look())
            over.wait(EVERY_SECONDS)
        usage.samples.append(sampler.look())

    thread = threading.Thread(target=keep, daemon=True, name="usage")
    thread.start()
    try:
        yield usage
    finally:
        over.set()
        thread.join()


class _Sampler:
    def __init__(self, emulator_pid: int) -> None:
        self._client = psutil.Process()
        self._emulator = psutil.Process(emulator_pid)
        self._functions: dict[psutil.Process, str | None] = {}
        self._worker_seconds: dict[psutil.Process, float] = {}

    def look(self) -> Sample:
        workers: dict[str, dict[int, int]] = {}
        for process in self._emulator.children(recursive=True):
            try:
                if process not in self._functions:
                    self._functions[process] = process.environ().get(FUNCTION_VARIABLE)
                self._worker_seconds[process] = _seconds(process)
                function = self._functions[process]
                if function is not None:
                    resident = process.memory_info().rss
                    workers.setdefault(function, {})[process.pid] = resident
            except psutil.Error:
                continue  # it has ended; what it used until the last look counts
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Linux counts a guest's time twice.
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return Sample(
            time.monotonic(),
            {
                "client": _seconds(self._client),
                "emulator": _seconds(self._emulator),
                "functions": sum(self._worker_seconds.values()),
                "machine": sum(times) - idle - guest,
            },
            self._emulator.memory_info().rss,
            workers,
        )


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
