"""The assemblies' templates in templates/index.json, and the parameters of their webhooks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from jobplane.tree.repository import Repository

INDEX = Path("templates", "index.json")


@dataclass(frozen=True)
class AssemblyTemplate:
    id: str
    steps: dict[str, dict[str, Any]]
    settings: dict[str, str]
    """`webhook_url` and `webhook_secret`, if it has them."""

    @cached_property
    def flow(self) -> str:
        """Its steps in order: `hashed (/file/hash)`."""
        return ", ".join(f"{name} ({step['robot']})" for name, step in self.steps.items())

    def references(self, service: str, stage: str) -> dict[str, str]:
        """The settings with the names of a stage."""
        return {
            key: value.replace("{service}", service).replace("{stage}", stage)
            for key, value in self.settings.items()
        }


def templates(repository: Repository) -> list[AssemblyTemplate]:
    path = repository.root / INDEX
    if not path.is_file():
        return []
    try:
        return list(_read(json.loads(path.read_bytes())))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise click.ClickException(
            f"{INDEX} can't be read ({error!r}); docs/templates.md describes its format"
        ) from error


def webhook_parameters(repository: Repository, stage: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"webhook_url": set(), "webhook_secret": set()}
    for template in templates(repository):
        for setting, reference in template.references(repository.service, stage).items():
            kind, _, name = reference.partition(":")
            if kind == "ssm":
                found[setting].add(name)
    return found


def _read(index: Any) -> Iterator[AssemblyTemplate]:
    for entry in index["templates"]:
        settings = {key: entry[key] for key in ("webhook_url", "webhook_secret") if key in entry}
        yield AssemblyTemplate(entry["id"], entry["steps"], settings)
