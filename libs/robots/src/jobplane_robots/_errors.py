"""Every error of this package.

RobotError                    PROCESSING_ERROR     a step failed
├── MalformedInputError       PROCESSING_ERROR     the file isn't what it claims to be
├── FileTooLargeError         FILE_TOO_LARGE       the file, or what it unpacks to, is above a limit
├── FileDeclinedError         FILE_DECLINED        `/file/filter` with `error_on_decline`
├── Md5MismatchError          MD5_MISMATCH         the bytes differ from their announced md5
├── InvalidOptionsError       OPTIONS_INVALID      a robot's options; lists every problem
├── InvalidTemplatesError     TEMPLATE_INVALID     a templates index; lists every problem
├── UnknownRobotError         ROBOT_UNKNOWN        nothing installed has this name
├── RobotUnavailableError     ROBOT_UNAVAILABLE    known, but a package it needs is missing
└── RobotConflictError        ROBOT_CONFLICT       its name is claimed twice

The first five are the file's fault, and `message` may be shown to its sender. The rest are
the operator's, and are raised before any file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class OptionProblem:
    """One thing wrong with a robot's options; `field` is a path such as `accepts.mime[0]`."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """One thing wrong with a templates index; `template` and `step` are "" above their level."""

    template: str
    step: str
    field: str
    reason: str

    def __str__(self) -> str:
        places = (("template", self.template), ("step", self.step), ("", self.field))
        named = [f"{kind} {name}".strip() for kind, name in places if name]
        return f"{', '.join(named)}: {self.reason}" if named else self.reason


class RobotError(Exception):
    """A step failed.

    `reason` says what is wrong, `file` which input (filled in by the runner), and `where` the place
    in it, in the order it should be read out: line, row, byte, all counted from 1.
    """

    code: ClassVar[str] = "PROCESSING_ERROR"

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        where: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file
        self.where = dict(where or {})

    @property
    def message(self) -> str:
        """One sentence for an end user: the file, the place, the reason."""
        places = [self.file] if self.file else []
        places += [f"{unit} {number}" for unit, number in self.where.items()]
        return f"{', '.join(places)}: {self.reason}" if places else self.reason

    def __str__(self) -> str:
        return self.message


class MalformedInputError(RobotError):
    """The file isn't what it claims to be, or is damaged."""


class FileTooLargeError(RobotError):
    """The file, or what it would become, is above a limit of the step."""

    code = "FILE_TOO_LARGE"


class FileDeclinedError(RobotError):
    """The file doesn't pass a filter that asks for an error."""

    code = "FILE_DECLINED"


class Md5MismatchError(RobotError):
    """The bytes differ from their announced md5; both are attributes, in hex."""

    code = "MD5_MISMATCH"

    def __init__(self, *, expected: str, actual: str, file: str | None = None) -> None:
        super().__init__(f"the content's md5 is {actual}, but {expected} was announced", file=file)
        self.expected = expected
        self.actual = actual


class InvalidOptionsError(RobotError):
    """A robot's options don't fit; `problems` has each of them."""

    code = "OPTIONS_INVALID"

    def __init__(self, robot: str, problems: Iterable[OptionProblem]) -> None:
        self.robot = robot
        self.problems = tuple(problems)
        super().__init__(f"options of {robot}: " + "; ".join(map(str, self.problems)))


class InvalidTemplatesError(RobotError):
    """A templates index doesn't hold; `problems` has each of them."""

    code = "TEMPLATE_INVALID"

    def __init__(self, problems: Iterable[TemplateProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["the templates index is invalid", *map(str, self.problems)]))


class UnknownRobotError(RobotError):
    """Neither a built-in nor an installed package has this robot."""

    code = "ROBOT_UNKNOWN"

    def __init__(self, robot: str, known: Iterable[str]) -> None:
        self.robot = robot
        self.known = tuple(known)
        super().__init__(f"unknown robot {robot}; known are: {', '.join(self.known)}")


class RobotUnavailableError(RobotError):
    """The robot exists but can't work here; `remedy` says what to install."""

    code = "ROBOT_UNAVAILABLE"

    def __init__(self, robot: str, remedy: str) -> None:
        self.robot = robot
        self.remedy = remedy
        super().__init__(f"robot {robot} is not available: {remedy}")


class RobotConflictError(RobotError):
    """A robot's name is claimed twice; `claimants` are the distributions."""

    code = "ROBOT_CONFLICT"

    def __init__(self, robot: str, claimants: Iterable[str]) -> None:
        self.robot = robot
        self.claimants = tuple(claimants)
        super().__init__(f"robot {robot} is claimed by {', '.join(self.claimants)}")
