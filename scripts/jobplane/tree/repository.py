"""The repository: its folders and its functions with their names and configuration."""

import tomllib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import click
import yaml

from jobplane import ROOT
from jobplane.tree.names import Names
from lambdapack.files import files_below

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Files of a function's folder that never ship.
NOT_SHIPPED = frozenset({"tests", "events", "pyproject.toml", "function.yml", "openapi.yml"})


def read_yaml(path: Path) -> Any:
    """The parsed document; `{}` for an empty one. It is cached: do not change it."""
    return _parsed(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=LOADER) or {}  # noqa: S506 - safe


@dataclass(frozen=True)
class Function:
    name: str
    directory: Path

    @property
    def folder(self) -> str:
        return f"functions/{self.name}"

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def member(self) -> str:
        return f"jobplane-{self.name}"

    @property
    def handler(self) -> str:
        return f"{self.module}.handler"

    @property
    def source(self) -> Path:
        return self.directory / f"{self.module}.py"

    @property
    def config_path(self) -> Path:
        return self.directory / "function.yml"

    @cached_property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = read_yaml(self.config_path)
        return config

    @property
    def statements(self) -> list[Any]:
        found: list[Any] = self.config.get("iamRoleStatements") or []
        return found

    @property
    def statements_in(self) -> str:
        return f"iamRoleStatements of {self.folder}/function.yml"

    def deployed_name(self, stage: str) -> str:
        return Repository(self.directory.parents[1]).names(stage).of(self.name)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`tool.jobplane` of its pyproject.toml."""
        project = tomllib.loads((self.directory / "pyproject.toml").read_text(encoding="utf-8"))
        settings: dict[str, Any] = project.get("tool", {}).get("jobplane", {})
        return settings

    @property
    def settings_in(self) -> str:
        return "tool.jobplane"

    @property
    def routes_path(self) -> Path:
        """Its routes of the HTTP API, as `paths` of OpenAPI."""
        return self.directory / "openapi.yml"

    @property
    def data(self) -> list[Path]:
        """Other folders of the repository that the artifact contains: `tool.jobplane.data`."""
        named = self.settings.get("data", [])
        return [self.directory.parents[1] / folder for folder in named]

    def shipped_files(self) -> dict[str, Path]:
        """The module and every data file by its name in the artifact, in a fixed order."""
        found = {
            path.relative_to(self.directory).as_posix(): path
            for path in files_below(self.directory, NOT_SHIPPED)
        }
        for folder in self.data:
            found |= {
                path.relative_to(folder.parent).as_posix(): path for path in files_below(folder)
            }
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Repository:
    root: Path

    @classmethod
    def here(cls) -> "Repository":
        return cls(ROOT)

    @property
    def service(self) -> str:
        return str(read_yaml(self.root / "serverless.yml")["service"])

    def names(self, stage: str) -> Names:
        return Names(self.service, stage)

    @property
    def dist(self) -> Path:
        return self.root / "dist"

    @property
    def manifest(self) -> Path:
        return self.dist / "manifest.json"

    @property
    def scratch(self) -> Path:
        """The folder for states of stages and build caches; not committed."""
        return self.root / ".jobplane"

    @property
    def resources(self) -> list[Path]:
        found = sorted((self.root / "resources").glob("*.yml"))
        return [path for path in found if not path.name.endswith(".asl.yml")]

    def functions(self) -> list[Function]:
        folders = sorted(path.parent for path in self.root.glob("functions/*/function.yml"))
        functions = [Function(folder.name, folder) for folder in folders]
        return [function for function in functions if function.source.is_file()]

    def select(self, names: tuple[str, ...]) -> list[Function]:
        """The named functions, or all of them."""
        known = {function.name: function for function in self.functions()}
        for name in names:
            if name not in known:
                raise click.UsageError(f"unknown function {name!r}; known are: {', '.join(known)}")
        return [known[name] for name in names] if names else list(known.values())

    def require(self, what: str, *names: str) -> None:
        there = {function.name for function in self.functions()}
        if missing := sorted(set(names) - there):
            raise click.UsageError(
                f"{what} needs the functions {', '.join(names)}; this project does not have "
                f"{', '.join(missing)}"
            )
