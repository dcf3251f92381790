"""The clock of the unit tests and of the simulated stage."""

from datetime import UTC, datetime


class Clock:
    """Time that only moves when a test says so, or when the code sleeps."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    time = monotonic = perf_counter = __call__

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def utcnow(self) -> datetime:
        """The time that moto gives to records of a stream."""
        return datetime.fromtimestamp(self.now, UTC).replace(tzinfo=None)
