"""What packages of the workspace add to functions: entry points of their pyproject.toml."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobplane.tree.repository import Repository

PAYLOADS, ACTIONS, ROBOTS = "jobplane.payloads", "jobplane.actions", "jobplane.robots"
# Group → the function that loads its entry points.
LOADED_BY = {PAYLOADS: "router", ACTIONS: "processor", ROBOTS: "processor"}
# Both halves of an action.
HALVES = {PAYLOADS: ACTIONS, ACTIONS: PAYLOADS}


@dataclass(frozen=True)
class EntryPoint:
    group: str
    name: str
    value: str
    project: Path
    """The pyproject.toml that declares it."""
    distribution: str

    @property
    def module(self) -> str:
        return self.value.partition(":")[0]

    @property
    def attribute(self) -> str:
        return self.value.partition(":")[2]

    @property
    def loaded_by(self) -> str:
        return LOADED_BY[self.group]


def entry_points(repository: Repository) -> Iterator[EntryPoint]:
    """Those of the groups that functions load, by their packages."""
    for path in sorted(repository.root.glob("libs/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        declared = project.get("entry-points", {})
        for group in LOADED_BY:
            for name, value in sorted(declared.get(group, {}).items()):
                yield EntryPoint(group, name, value, path, str(project.get("name", "")))
