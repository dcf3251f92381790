"""The table of the actions and robots that packages of the repository add."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobplane.contracts.catalogue import socket_actions
from jobplane.reference.documents import table
from jobplane.tree.entry_points import PAYLOADS, ROBOTS, entry_points
from jobplane.tree.repository import Repository

DOCUMENT = Path("docs", "adding-a-job.md")


def tables(repository: Repository) -> dict[str, str]:
    rows = list(_rows(repository)) or [("none yet", "", "")]
    return {"packages": table(("action or robot", "what a client sends", "package"), rows)}


def _rows(repository: Repository) -> Iterator[tuple[str, str, str]]:
    requests = {each.name: each.request for each in socket_actions(repository)}
    for point in entry_points(repository):
        folder = f"`{point.project.parent.relative_to(repository.root).as_posix()}`"
        if point.group == PAYLOADS:
            payload: Any = requests[point.name].model_fields["payload"].annotation
            fields = payload.model_fields
            names = [name if each.is_required() else f"{name}?" for name, each in fields.items()]
            yield f"action `{point.name}`", f"`{{{', '.join(names)}}}`", folder
        elif point.group == ROBOTS:
            yield f"robot `{point.name}`", "files for a template that names it", folder
