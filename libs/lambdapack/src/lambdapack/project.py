"""A uv workspace, or a project of its own, as its uv.lock describes it."""

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lambdapack.artifacts import read_manifest
from lambdapack.errors import BuildError
from lambdapack.files import files_below
from lambdapack.statements import Statements

PYTHONS = ("3.13", "3.12")
"""Lambda's versions of Python that artifacts can be for; the first that a project allows."""
TABLE = "tool.lambdapack"
SETTINGS = frozenset({"sdk", "missing-imports"})
# Entries at the top of a member without a build system that its function does not read.
BESIDE_A_FUNCTION = re.compile(
    r"(?:pyproject\.toml|uv\.(?:lock|toml)|.*\.(?:md|rst|tf|tfvars|tfstate.*|lock|zip|whl)"
    r"|LICEN[CS]E.*|Makefile|Dockerfile.*|(?:docker-)?compose.*\.ya?ml|template\.(?:ya?ml|json)"
    r"|samconfig\..*|serverless\.(?:ya?ml|json|ts|js)|cdk\.(?:json|out|context\.json)|package.*\.json"
    r"|sst\.config\.ts|tests?|docs|build|dist|node_modules|venv|env|conftest\.py|(?:noxfile|tox)\..*)"
)


@dataclass(frozen=True)
class Member:
    """A member of a uv workspace that becomes an artifact."""

    root: Path
    name: str
    folder: str
    is_package: bool
    """Whether it has a build backend, which says what its wheel contains."""
    others: frozenset[str] = frozenset()
    """The folders of other members."""
    module: str | None = None
    allowed: Statements | None = None
    settings_in = TABLE

    @property
    def member(self) -> str:
        return self.name

    @property
    def statements(self) -> Sequence[Any] | None:
        return None if self.allowed is None else self.allowed.statements

    @property
    def statements_in(self) -> str:
        return "your IAM statements" if self.allowed is None else self.allowed.written_in

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        project = self.root / self.folder / "pyproject.toml"
        read: dict[str, Any] = tomllib.loads(project.read_text(encoding="utf-8"))
        found = read.get("tool", {}).get("lambdapack", {})
        missing = found.get("missing-imports", []) if isinstance(found, dict) else None
        if (
            not isinstance(missing, list)
            or not all(isinstance(each, str) for each in missing)
            or not found.keys() <= SETTINGS
        ):
            raise BuildError(
                f"{self.folder}/pyproject.toml: {TABLE} may have sdk, and missing-imports as a "
                "list of modules: correct what else it has"
            )
        settings: Mapping[str, Any] = found
        return settings

    def shipped_files(self) -> dict[str, Path]:
        """The files of its folder, or of `src` in it, if no build backend selects them."""
        if self.is_package:
            return {}
        folder = self.root / self.folder
        source = folder / "src"
        if source.is_dir() and not (source / "__init__.py").is_file():
            folder = source
            beside: frozenset[str] = frozenset()
        else:
            beside = frozenset(path.name for path in folder.iterdir() if self._is_beside(path))
        found = {p.relative_to(folder).as_posix(): p for p in files_below(folder, beside)}
        return dict(sorted(found.items()))

    def _is_beside(self, path: Path) -> bool:
        inside = path.relative_to(self.root).as_posix()
        return BESIDE_A_FUNCTION.fullmatch(path.name) is not None or any(
            PurePosixPath(other).is_relative_to(inside) for other in self.others
        )


@dataclass(frozen=True)
class Project:
    """A uv workspace: its lock, its members, and the folders of build results."""

    root: Path
    """The folder with uv.lock."""
    dist: Path
    """The folder for artifacts."""
    chosen: tuple[Member, ...] = field(default=())

    @classmethod
    def at(cls, folder: Path, dist: Path | None = None) -> "Project":
        """The workspace that a folder belongs to.

        Args:
            dist: the folder for artifacts; default: `dist` of the workspace.

        Raises:
            BuildError: neither the folder nor one above has a uv.lock.
        """
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - `..` has no parents
        for root in (folder, *folder.parents):
            if (root / "uv.lock").is_file():
                return cls(root, root / "dist" if dist is None else dist.absolute())
        raise BuildError(
            f"neither {folder} nor a folder above it has a uv.lock: run `uv lock` in the "
            "workspace, or name its folder by --project"
        )

    @property
    def scratch(self) -> Path:
        """Caches of this workspace, outside of it: its folder may be read-only."""
        caches = os.environ.get("LAMBDAPACK_CACHE_DIR") or Path(
            os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lambdapack"
        )
        return Path(caches).absolute() / hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]

    @property
    def manifest(self) -> Path:
        where = hashlib.sha256(os.fsencode(self.dist)).hexdigest()[:16]
        return self.scratch / f"built-{where}.json"

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """The parsed uv.lock."""
        path = self.root / "uv.lock"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise BuildError(f"{path} can't be read ({error}): run `uv lock`") from error

    @cached_property
    def members(self) -> dict[str, Member]:
        """All members by name; a project without a workspace is its only member."""
        named = self.lock.get("manifest", {}).get("members")
        found: dict[str, tuple[str, bool]] = {}
        for package in self.lock.get("package", []):
            for kind in ("editable", "virtual", "directory"):
                folder = package.get("source", {}).get(kind)
                if folder is not None and (
                    folder == "." if named is None else package["name"] in named
                ):
                    found[package["name"]] = (folder, kind != "virtual")
        folders = frozenset(folder for folder, _ in found.values())
        return {
            name: Member(self.root, name, folder, is_package, folders - {folder})
            for name, (folder, is_package) in sorted(found.items())
        }

    def functions(self) -> list[Member]:
        """The members that are built now, and those that were built before."""
        names = {member.name for member in self.chosen}
        before = [self.members[name] for name in read_manifest(self) if name in self.members]
        return [*self.chosen, *(member for member in before if member.name not in names)]

    def select(self, name: str | None = None, *, here: Path | None = None) -> Member:
        """A member by its name or its folder.

        Args:
            name: default: the member whose folder is `here`, or the only one.

        Raises:
            BuildError: no member has that name, or there are several.
        """
        known = ", ".join(self.members) or "none"
        if name is None:
            if len(self.members) == 1:
                return next(iter(self.members.values()))
            found = [each for each in self.members.values() if self._is_at(each, here)]
            if not found:
                raise BuildError(f"missing MEMBER; the members are: {known}")
            return found[0]
        by_name = self.members.get(canonicalize_name(name))
        if by_name is not None:
            return by_name
        for member in self.members.values():
            if self._is_at(member, (here or self.root) / name):
                return member
        raise BuildError(f"unknown member {name!r}; the members are: {known}")

    def _is_at(self, member: Member, folder: Path | None) -> bool:
        return folder is not None and (self.root / member.folder).resolve() == folder.resolve()

    def choosing(self, *members: Member) -> "Project":
        """This workspace, with the members that are built now."""
        return replace(self, chosen=members)

    def default_python(self) -> str:
        """The newest of Lambda's Pythons that the lock allows.

        Raises:
            BuildError: it allows none.
        """
        text = str(self.lock.get("requires-python", ""))
        allowed = SpecifierSet(text)
        for version in PYTHONS:
            if any(f"{version}.{patch}" in allowed for patch in (0, 99)):
                return version
        raise BuildError(
            f"uv.lock is for Python {text}; artifacts are for {' or '.join(PYTHONS)}: widen "
            "requires-python and run `uv lock`"
        )
