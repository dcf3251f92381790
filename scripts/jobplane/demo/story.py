"""What a step of the demo is: a function with a title, which checks what it observes."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class CheckError(Exception):
    """What a step observed is wrong."""


@dataclass(frozen=True)
class Observation:
    """What a step observed: a sentence for people, figures for scripts."""

    text: str
    figures: Mapping[str, float] = field(default_factory=dict)
    """Latencies end in `_ms`, sizes in `_bytes`; anything else is a count."""


type Run[Scene] = Callable[[Scene], Awaitable[Observation | None]]


@dataclass(frozen=True)
class Step[Scene]:
    """A part of the demo; it is left out when a step that it needs has failed.

    `shows` names the functions of the stage that it runs beside those of `needs`. It may take
    `seconds`, and `seconds_per_megabyte` of the large file. A step that observes nothing, because
    the machine can't measure it, is not reported.
    """

    name: str
    title: str
    run: Run[Scene]
    needs: tuple["Step[Scene]", ...] = ()
    shows: frozenset[str] = frozenset()
    seconds: float = 30.0
    seconds_per_megabyte: float = 0.0

    @property
    def functions(self) -> frozenset[str]:
        """The functions without which it can't run: its own, and those of the steps before it."""
        return self.shows.union(*(step.functions for step in self.needs))

    def limit(self, megabytes: int) -> float:
        return self.seconds + megabytes * self.seconds_per_megabyte


class Make(Protocol):
    def __call__[Scene](self, run: Run[Scene]) -> Step[Scene]: ...


def step(
    title: str,
    *,
    needs: tuple[Step[Any], ...] = (),
    shows: Iterable[str] = (),
    seconds: float = 30.0,
    seconds_per_megabyte: float = 0.0,
) -> Make:
    """Turn a function into a step of the same name."""

    def make[Scene](run: Run[Scene]) -> Step[Scene]:
        name = getattr(run, "__name__", title).replace("_", "-")
        return Step(name, title, run, needs, frozenset(shows), seconds, seconds_per_megabyte)

    return make


@dataclass(frozen=True)
class Outcome:
    step: Step[Any]
    held: bool | None
    text: str
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        words = {True: "ok", False: "failed", None: "left out"}
        return {
            "name": self.step.name,
            "title": self.step.title,
            "outcome": words[self.held],
            "observed": self.text,
            "seconds": round(self.seconds, 3),
            "figures": {name: round(value, 1) for name, value in self.figures.items()},
        }


def check(holds: bool, otherwise: str) -> None:
    """Raise CheckError with the sentence `otherwise` unless it holds."""
    if not holds:
        raise CheckError(otherwise)


async def error_of[E: Exception](attempt: Awaitable[object], by: type[E], what: str) -> E:
    """The error that an attempt must end with; CheckError when it does not."""
    try:
        await attempt
    except by as error:
        return error
    raise CheckError(f"{what} did not end with {by.__name__}")


def rising(numbers: list[int]) -> bool:
    """Whether each number is larger than the one before."""
    return numbers == sorted(set(numbers))


class Stopwatch:
    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def ms(self) -> float:
        return self.seconds * 1000
