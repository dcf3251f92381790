"""The tree: where the functions are, what each is called and how it is configured."""

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

# What a function's folder holds beside its module and is never shipped.
NOT_SHIPPED = frozenset({"tests", "events", "pyproject.toml", "function.yml", "openapi.yml"})


def read_yaml(path: Path) -> Any:
    """The parsed document; `{}` for an empty one. Read once, so not to be changed."""
    return _parsed(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=LOADER) or {}  # noqa: S506 - safe


@dataclass(frozen=True)
class Function:
    """One microlambda: `functions/NAME`, member `jobplane-NAME`, artifact `dist/NAME.zip`."""

    name: str
    directory: Path

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
        """`function.yml` as written, variables unresolved."""
        config: dict[str, Any] = read_yaml(self.config_path)
        return config

    def deployed_name(self, stage: str) -> str:
        return Repository(self.directory.parents[1]).names(stage).of(self.name)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`tool.jobplane` of its pyproject.toml."""
        project = tomllib.loads((self.directory / "pyproject.toml").read_text(encoding="utf-8"))
        settings: dict[str, Any] = project.get("tool", {}).get("jobplane", {})
        return settings

    @property
    def routes_path(self) -> Path:
        """Its routes of the HTTP API, as `paths` of OpenAPI."""
        return self.directory / "openapi.yml"

    @property
    def data(self) -> list[Path]:
        """Folders of the workspace that the artifact holds as well: `tool.jobplane.data`."""
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
    """The repository, or a copy of it."""

    root: Path

    @classmethod
    def here(cls) -> "Repository":
        """The repository that this command was installed from."""
        return cls(ROOT)

    @property
    def service(self) -> str:
        """The project's name: what the names of everything that is deployed begin with."""
        return str(read_yaml(self.root / "serverless.yml")["service"])

    def names(self, stage: str) -> Names:
        return Names(self.service, stage)

    @property
    def dist(self) -> Path:
        return self.root / "dist"

    @property
    def scratch(self) -> Path:
        """State of stages and build caches; never committed."""
        return self.root / ".jobplane"

    @property
    def resources(self) -> list[Path]:
        found = sorted((self.root / "resources").glob("*.yml"))
        return [path for path in found if not path.name.endswith(".asl.yml")]

    def functions(self) -> list[Function]:
        """The functions that can be built and deployed: module and function.yml are there."""
        folders = sorted(path.parent for path in self.root.glob("functions/*/function.yml"))
        functions = [Function(folder.name, folder) for folder in folders]
        return [function for function in functions if function.source.is_file()]

    def select(self, names: tuple[str, ...]) -> list[Function]:
        """The named functions, or all of them.

        Raises:
            click.UsageError: a name is not a function's.
        """
        known = {function.name: function for function in self.functions()}
        for name in names:
            if name not in known:
                raise click.UsageError(f"no function {name!r}; there are: {', '.join(known)}")
        return [known[name] for name in names] if names else list(known.values())

    def require(self, what: str, *names: str) -> None:
        """Refuse what can't work without these functions.

        Raises:
            click.UsageError: the tree has not all of them.
        """
        there = {function.name for function in self.functions()}
        if missing := sorted(set(names) - there):
            raise click.UsageError(
                f"{what} works on {', '.join(names)}; this project does not have "
                f"{', '.join(missing)}"
            )
