"""Robots by name: built-ins first, then entry points of the group `jobplane.robots`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from jobplane_robots._errors import (
    RobotConflictError,
    RobotUnavailableError,
    UnknownRobotError,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from jobplane_robots._robot import Robot

ENTRY_POINT_GROUP = "jobplane.robots"

# Robot → module in `_robots`; the robot has the name of its module there.
BUILT_IN = {
    "/file/hash": "file_hash",
    "/file/compress": "file_compress",
    "/file/decompress": "file_decompress",
    "/file/filter": "file_filter",
    "/file/verify": "file_verify",
    "/text/ndjson": "text_ndjson",
    "/csv/to-ndjson": "csv_to_ndjson",
    "/ndjson/to-csv": "ndjson_to_csv",
    "/document/split": "document_split",
    "/image/resize": "image_resize",
}


def get_robot(name: str) -> Robot:
    """The robot of this name; imports only its module.

    Raises UnknownRobotError; RobotConflictError when two packages, or a package and this one,
    declare the name; RobotUnavailableError when the package of the robot can't be imported.
    """
    if module := BUILT_IN.get(name):
        found: Robot = getattr(import_module(f"jobplane_robots._robots.{module}"), module)
        return found
    third_party = _third_party()
    if name not in third_party:
        raise UnknownRobotError(name, robot_names())
    return _load(third_party[name])


def robot_names() -> tuple[str, ...]:
    """The names of all robots, built-in ones first; imports no robot."""
    return (*BUILT_IN, *sorted(_third_party()))


def _third_party() -> dict[str, EntryPoint]:
    # Imported here: it takes half of the package's import time, and only these robots need it.
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in BUILT_IN:
            raise RobotConflictError(point.name, ["jobplane-robots", _distribution(point)])
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise RobotConflictError(point.name, [_distribution(known), _distribution(point)])
    return found


def _load(point: EntryPoint) -> Robot:
    from jobplane_robots._robot import Robot

    try:
        found = point.load()
    except ImportError as error:
        remedy = f"{_distribution(point)} can't be imported ({error})"
        raise RobotUnavailableError(point.name, remedy) from error
    if not isinstance(found, Robot) or found.name != point.name:
        remedy = f"{point.value} of {_distribution(point)} is not a Robot named {point.name}"
        raise RobotUnavailableError(point.name, remedy)
    return found


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
