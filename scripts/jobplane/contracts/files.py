"""The files of `contracts/`: their wanted content, and differences from it."""

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobplane.contracts.asyncapi import asyncapi_of
from jobplane.contracts.catalogue import catalogue, is_sent
from jobplane.contracts.json_schema import document_of
from jobplane.contracts.openapi import openapi_of
from jobplane.contracts.typescript import typescript_of
from jobplane.tree.repository import Repository
from jobplane.trying import case_files

SCHEMAS = "json-schema"
"""The folder with generated files only; others also contain files written by hand."""


@dataclass(frozen=True)
class Drift:
    """A file with wrong content; without `wanted` the file should not exist."""

    path: Path
    found: str | None
    wanted: str | None

    def diff(self) -> str:
        name = self.path.as_posix()
        return "".join(
            difflib.unified_diff(
                (self.found or "").splitlines(keepends=True),
                (self.wanted or "").splitlines(keepends=True),
                name if self.found is not None else "/dev/null",
                name if self.wanted is not None else "/dev/null",
            )
        )


def rendered(repository: Repository) -> dict[Path, str]:
    """The text of every generated file, by its path in the repository."""
    contracts = catalogue(repository)
    version = version_of(repository)
    folder = Path("contracts")
    files = {
        folder / SCHEMAS / f"{contract.name}.json": json_text(document_of(contract))
        for contract in contracts
    }
    stack = case_files.Stack.of(repository, *repository.functions())
    for kind, document in case_files.schemas(stack).items():
        files[folder / SCHEMAS / "cases" / f"{kind}.json"] = json_text(document)
    if is_sent("http/", repository):
        files[folder / "openapi.json"] = json_text(openapi_of(repository, version))
    if is_sent("socket/", repository):
        files[folder / "asyncapi.json"] = json_text(asyncapi_of(version, repository))
    files[folder / "typescript" / "jobplane.ts"] = typescript_of(contracts, repository)
    return dict(sorted(files.items()))


def version_of(repository: Repository) -> str:
    project = tomllib.loads((repository.root / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def json_text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def drift(repository: Repository, files: Mapping[Path, str]) -> list[Drift]:
    """The files that differ from the wanted ones."""
    root = repository.root
    made = [*(root / "contracts" / SCHEMAS).rglob("*.json"), *(root / "contracts").glob("*.json")]
    there = {path.relative_to(root) for path in made}
    found = []
    for path in sorted({*files, *there}):
        file = root / path
        text = file.read_text(encoding="utf-8") if file.is_file() else None
        if text != files.get(path):
            found.append(Drift(path, text, files.get(path)))
    return found


def settle(repository: Repository, drifted: Drift) -> None:
    """Write or remove one file."""
    path = repository.root / drifted.path
    if drifted.wanted is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drifted.wanted, encoding="utf-8")
