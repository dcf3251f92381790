"""Every error of this package.

RobotError                    PROCESSING_ERROR     a step failed
├── MalformedInputError       PROCESSING_ERROR     the file is damaged, or of another format
├── FileTooLargeError         FILE_TOO_LARGE       the file, or its result, is above a limit
├── FileDeclinedError         FILE_DECLINED        `/file/filter` with `error_on_decline`
├── Md5MismatchError          MD5_MISMATCH         the md5 differs from the given one
├── InvalidOptionsError       OPTIONS_INVALID      a robot's options are invalid; lists all
├── InvalidTemplatesError     TEMPLATE_INVALID     a templates index is invalid; lists all
├── UnknownRobotError         ROBOT_UNKNOWN        no installed robot has this name
├── RobotUnavailableError     ROBOT_UNAVAILABLE    a package that the robot needs is missing
└── RobotConflictError        ROBOT_CONFLICT       two packages declare this name

The first five are faults of the file; their `message` may be shown to its sender. The others are
faults of the configuration or installation, raised before any file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class OptionProblem:
    """One invalid option of a robot; `field` is a path such as `accepts.mime[0]`."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """One fault of a templates index; `template` or `step` is "" if it is not in one."""

    template: str
    step: str
    field: str
    reason: str

    def __str__(self) -> str:
        places = (("template", self.template), ("step", self.step), ("", self.field))
        named = [f"{kind} {name}".strip() for kind, name in places if name]
        return f"{', '.join(named)}: {self.reason}" if named else self.reason


class RobotError(Exception):
    """Base class of all errors of this library: a step failed.

    `reason` is the cause, `file` the name of the input (set by `Robot.run`), and `where` the place
    in it by unit (line, row, byte; counted from 1), in the order of the message. `code` is the
    class's error code.
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
        """One sentence for an end user: file, place, reason."""
        places = [self.file] if self.file else []
        places += [f"{unit} {number}" for unit, number in self.where.items()]
        return f"{', '.join(places)}: {self.reason}" if places else self.reason

    def __str__(self) -> str:
        return self.message


class MalformedInputError(RobotError):
    """The file is damaged, or not of the format that the step needs."""


class FileTooLargeError(RobotError):
    """The file, or its result, is above a limit of the step."""

    code = "FILE_TOO_LARGE"


class FileDeclinedError(RobotError):
    """`/file/filter` declined the file, and its option `error_on_decline` is true."""

    code = "FILE_DECLINED"


class Md5MismatchError(RobotError):
    """The file's md5 differs from the given one; `actual` and `expected` are in hex."""

    code = "MD5_MISMATCH"

    def __init__(self, *, expected: str, actual: str, file: str | None = None) -> None:
        super().__init__(f"the content's md5 is {actual}, but {expected} was announced", file=file)
        self.expected = expected
        self.actual = actual


class InvalidOptionsError(RobotError):
    """A robot's options are invalid; `problems` lists all faults."""

    code = "OPTIONS_INVALID"

    def __init__(self, robot: str, problems: Iterable[OptionProblem]) -> None:
        self.robot = robot
        self.problems = tuple(problems)
        super().__init__(f"options of {robot}: " + "; ".join(map(str, self.problems)))


class InvalidTemplatesError(RobotError):
    """A templates index is invalid; `problems` lists all faults."""

    code = "TEMPLATE_INVALID"

    def __init__(self, problems: Iterable[TemplateProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["the templates index is invalid", *map(str, self.problems)]))


class UnknownRobotError(RobotError):
    """No built-in robot and no installed package has this name; `known` lists the names."""

    code = "ROBOT_UNKNOWN"

    def __init__(self, robot: str, known: Iterable[str]) -> None:
        self.robot = robot
        self.known = tuple(known)
        super().__init__(f"unknown robot {robot}; known are: {', '.join(self.known)}")


class RobotUnavailableError(RobotError):
    """The robot exists but can't run here; `remedy` says what to install or correct."""

    code = "ROBOT_UNAVAILABLE"

    def __init__(self, robot: str, remedy: str) -> None:
        self.robot = robot
        self.remedy = remedy
        super().__init__(f"robot {robot} is not available: {remedy}")


class RobotConflictError(RobotError):
    """Several packages declare the same robot; `claimants` are the distributions."""

    code = "ROBOT_CONFLICT"

    def __init__(self, robot: str, claimants: Iterable[str]) -> None:
        self.robot = robot
        self.claimants = tuple(claimants)
        super().__init__(
            f"robot {robot} is declared by several packages: {', '.join(self.claimants)}"
        )
