"""Streaming file-processing steps: hash, compress, validate, convert, split, resize.

Importing this package loads neither pydantic nor the robots: each name loads its module at first
use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobplane_robots._errors import (
    FileDeclinedError,
    FileTooLargeError,
    InvalidOptionsError,
    InvalidTemplatesError,
    MalformedInputError,
    Md5MismatchError,
    OptionProblem,
    RobotConflictError,
    RobotError,
    RobotUnavailableError,
    TemplateProblem,
    UnknownRobotError,
)
from jobplane_robots._io import (
    InputStream,
    Output,
    Outputs,
    RobotContext,
    RobotInput,
    RobotResult,
    Sink,
    Writer,
)
from jobplane_robots._names import derived_name, safe_name, unique_name
from jobplane_robots._registry import get_robot, robot_names

if TYPE_CHECKING:
    from jobplane_robots._robot import Robot, RobotOptions, robot
    from jobplane_robots._s3 import S3Sink, StoredObject
    from jobplane_robots._sinks import DirectorySink, MemorySink
    from jobplane_robots._templates import Step, Template, load_templates

_LAZY = {
    "DirectorySink": "_sinks",
    "MemorySink": "_sinks",
    "Robot": "_robot",
    "RobotOptions": "_robot",
    "S3Sink": "_s3",
    "Step": "_templates",
    "StoredObject": "_s3",
    "Template": "_templates",
    "load_templates": "_templates",
    "robot": "_robot",
}

__all__ = [
    "DirectorySink",
    "FileDeclinedError",
    "FileTooLargeError",
    "InputStream",
    "InvalidOptionsError",
    "InvalidTemplatesError",
    "MalformedInputError",
    "Md5MismatchError",
    "MemorySink",
    "OptionProblem",
    "Output",
    "Outputs",
    "Robot",
    "RobotConflictError",
    "RobotContext",
    "RobotError",
    "RobotInput",
    "RobotOptions",
    "RobotResult",
    "RobotUnavailableError",
    "S3Sink",
    "Sink",
    "Step",
    "StoredObject",
    "Template",
    "TemplateProblem",
    "UnknownRobotError",
    "Writer",
    "derived_name",
    "get_robot",
    "load_templates",
    "robot",
    "robot_names",
    "safe_name",
    "unique_name",
]


def __getattr__(name: str) -> Any:
    if module := _LAZY.get(name):
        return getattr(import_module(f"jobplane_robots.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
