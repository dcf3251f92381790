"""Actions of packages: each is an entry point of two groups.

`jobplane.payloads` names the model of its payload, which router reads before it queues a job, and
`jobplane.actions` the function that processor runs:

    [project.entry-points."jobplane.payloads"]
    transcribe = "jobplane_transcribe.payload:Transcribe"

    [project.entry-points."jobplane.actions"]
    transcribe = "jobplane_transcribe.job:transcribe"
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["PAYLOADS", "RUNS", "ActionConflictError", "action_names", "load_action"]

PAYLOADS = "jobplane.payloads"
RUNS = "jobplane.actions"


class ActionConflictError(Exception):
    """Two installed packages declare the same action."""

    def __init__(self, name: str, values: list[str]) -> None:
        super().__init__(f"the action {name!r} is declared twice: {' and '.join(values)}")
        self.name = name


def action_names(group: str = PAYLOADS) -> tuple[str, ...]:
    """The names of the actions that installed packages add; imports none of them."""
    return tuple(sorted(_points(group)))


def load_action(group: str, name: str) -> Any:
    """What a package declares for an action: a model, or a function. None without such an action.

    Raises ActionConflictError, and what the import of the package raises.
    """
    point = _points(group).get(name)
    return None if point is None else point.load()


@cache
def _points(group: str) -> "Mapping[str, EntryPoint]":
    # Imported here: most invocations run an action of the function's own.
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise ActionConflictError(point.name, [known.value, point.value])
    return found
