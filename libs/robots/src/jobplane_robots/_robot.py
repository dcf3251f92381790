"""A robot: a name, an options model and a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jobplane_robots._errors import (
    InvalidOptionsError,
    OptionProblem,
    RobotError,
    RobotUnavailableError,
)
from jobplane_robots._io import (
    MAX_GROWTH,
    SMALL_OUTPUT_BYTES,
    Outputs,
    RobotContext,
    RobotInput,
    RobotResult,
    Sink,
)
from jobplane_robots._names import safe_name

ROBOT_NAME = re.compile(r"/[a-z0-9_-]+/[a-z0-9_-]+")
MAX_SIZE = 2**53  # of an option that counts bytes or lines
STEP_KEYS = frozenset({"robot", "use"})  # keys of a template's step; options can't have these names


class RobotOptions(BaseModel):
    """Base class of all robots' options: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


type RobotFunction[OptionsT: RobotOptions] = Callable[
    [RobotInput, OptionsT, Outputs, RobotContext], RobotResult
]


@dataclass(frozen=True, slots=True)
class Robot:
    """A processing step, created by the decorator `robot`.

    `requires` maps each module that the robot imports to the remedy when it is not installed.
    `limits_growth`: the robot's options limit how much larger than its input its outputs
    may be. `waits`: it waits for a service after it has read its input, so that the bytes read are
    not its progress; it calls `context.report`.
    """

    name: str
    options: type[RobotOptions]
    function: RobotFunction[Any]
    requires: Mapping[str, str]
    limits_growth: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        if not ROBOT_NAME.fullmatch(self.name):
            raise ValueError(f"a robot's name must look like /file/hash, not {self.name!r}")
        if reserved := STEP_KEYS & self.options.model_fields.keys():
            raise ValueError(f"{self.name}: {', '.join(sorted(reserved))} can't be an option")

    def parse_options(self, options: Mapping[str, Any] | None = None) -> RobotOptions:
        """The options as an object. Raises InvalidOptionsError with all invalid fields."""
        try:
            return self.options.model_validate(dict(options or {}))
        except ValidationError as error:
            raise InvalidOptionsError(self.name, self._problems(error)) from error

    def check_available(self) -> None:
        """Raise RobotUnavailableError if a package that the robot needs is not installed."""
        for module, remedy in self.requires.items():
            if find_spec(module) is None:
                raise RobotUnavailableError(self.name, remedy)

    def run(
        self,
        source: RobotInput,
        options: RobotOptions | Mapping[str, Any] | None,
        sink: Sink,
        context: RobotContext | None = None,
    ) -> RobotResult:
        """Process one file and store its outputs in the sink.

        After any exception, also one of the sink or of `context.advance`, all outputs of this run
        are aborted. A RobotError names the file; other exceptions are raised unchanged. Raises
        FileTooLargeError if the outputs exceed `context.max_output_bytes`, and InvalidOptionsError
        and RobotUnavailableError before the file is read.
        """
        self.check_available()
        if not isinstance(options, self.options):
            given = options.model_dump() if isinstance(options, RobotOptions) else options
            options = self.parse_options(given)
        name = safe_name(source.name)
        context = context or RobotContext()
        bytes_read = 0

        def advance(count: int) -> None:
            nonlocal bytes_read
            bytes_read += count
            context.advance(count)

        outputs = Outputs(sink, lambda: self._max_output_bytes(bytes_read, context))
        try:
            result = self.function(source, options, outputs, replace(context, advance=advance))
            outputs.commit()
        except BaseException as error:
            outputs.abort(error)
            if isinstance(error, RobotError) and error.file is None:
                error.file = name
            raise
        return replace(result, warnings=tuple(f"{name}: {text}" for text in result.warnings))

    def _max_output_bytes(self, bytes_read: int, context: RobotContext) -> float:
        own = max(SMALL_OUTPUT_BYTES, MAX_GROWTH * bytes_read)
        if context.max_output_bytes is not None:
            own = context.max_output_bytes
        elif self.limits_growth:
            return context.left_bytes
        return min(own, context.left_bytes)

    def _problems(self, error: ValidationError) -> list[OptionProblem]:
        known = ", ".join(sorted(self.options.model_fields)) or "none"
        return [
            OptionProblem(
                field=_path(detail["loc"]),
                reason=(
                    f"unknown option; known: {known}"
                    if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1
                    else _reason(detail["msg"])
                ),
            )
            for detail in error.errors(include_url=False, include_input=False)
        ]


def robot[OptionsT: RobotOptions](
    name: str,
    *,
    options: type[OptionsT],
    requires: Mapping[str, str] | None = None,
    limits_growth: bool = False,
    waits: bool = False,
) -> Callable[[RobotFunction[OptionsT]], Robot]:
    """Decorator that makes a function a robot.

    The function reads its input with `context.open(source)`, writes to `outputs`, raises a
    RobotError for a fault of the file, and returns a RobotResult. One that waits for a service says
    so by `waits`, and calls `context.report` with what is done, from 0 to 1, every few seconds.
    """

    def decorate(function: RobotFunction[OptionsT]) -> Robot:
        return Robot(name, options, function, requires or {}, limits_growth, waits)

    return decorate


def _path(location: tuple[int | str, ...]) -> str:
    """("accepts", "mime", 0) as `accepts.mime[0]`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".") or "options"


def _reason(message: str) -> str:
    """Pydantic's message without its prefix."""
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]
