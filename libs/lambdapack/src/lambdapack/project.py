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

from lambdapack.artifacts import HANDLERS, defined, read_manifest
from lambdapack.errors import BuildError
from lambdapack.files import files_below
from lambdapack.statements import Statements
from lambdapack.wheels import error_in

PYTHONS = ("3.13", "3.12")
"""Lambda's versions of Python that artifacts can be for; the first that a project allows."""
TABLE = "tool.lambdapack"
SETTINGS = frozenset({"sdk", "missing-imports"})
# Entries at the top of a member without a build system that its function does not read.
BESIDE_A_FUNCTION = re.compile(
    r"(?:pyproject\.toml|uv\.(?:lock|toml)|LICEN[CS]E.*|.*\.(?:tf|tfvars|tfstate.*)"
    r"|(?:README|CHANGELOG|CHANGES|HISTORY|CONTRIBUTING|SECURITY|AUTHORS|AGENTS|CLAUDE)\.(?:md|rst)"
    r"|Makefile|Dockerfile.*|(?:docker-)?compose(?:\.[\w-]+)?\.ya?ml|template\.(?:ya?ml|json)"
    r"|samconfig\..*|serverless\.(?:ya?ml|json|ts|js)|cdk\.(?:json|out|context\.json)"
    r"|package(?:-lock)?\.json|sst\.config\.ts|node_modules|conftest\.py|(?:noxfile|tox)\..*)"
)
# Others that it usually does not read; a build names them.
PERHAPS_BESIDE = re.compile(r"tests?|docs|build|dist|v?env|.*\.(?:lock|zip|whl)")


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
        folder, beside = self._selected()
        found = {p.relative_to(folder).as_posix(): p for p in files_below(folder, beside)}
        return dict(sorted(found.items()))

    def left_out(self) -> list[str]:
        """Entries at the top of its folder that do not ship, although a function may need them."""
        if self.is_package:
            return []
        folder, beside = self._selected()
        return sorted(
            name
            for name in beside
            if PERHAPS_BESIDE.fullmatch(name) and not (folder / name / "pyvenv.cfg").is_file()
        )

    def _selected(self) -> tuple[Path, frozenset[str]]:
        """The folder whose files ship, and the entries at its top that do not."""
        folder = self.root / self.folder
        source = folder / "src"
        is_package = (source / "__init__.py").is_file() or self._handlers_top() == "src"
        if source.is_dir() and not is_package and not any(map(self._is_its, folder.glob("*.py"))):
            return source, frozenset()
        return folder, frozenset(path.name for path in folder.iterdir() if self._is_beside(path))

    def _is_its(self, path: Path) -> bool:
        """Whether a module has its handler."""
        if self.module is not None:
            return path.stem == self._handlers_top()
        source = path.read_bytes()
        return error_in(source) is None and not HANDLERS.isdisjoint(defined(source))

    def _handlers_top(self) -> str:
        """The first part of the named handler."""
        return (self.module or "").replace("/", ".").partition(".")[0]

    def _is_beside(self, path: Path) -> bool:
        inside = path.relative_to(self.root).as_posix()
        is_beside = BESIDE_A_FUNCTION.fullmatch(path.name) or PERHAPS_BESIDE.fullmatch(path.name)
        return is_beside is not None or any(
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
        locked = [root for root in (folder, *folder.parents) if (root / "uv.lock").is_file()]
        for number, root in enumerate(locked):
            # a member may have a lock from before it was one; uv does not read it either
            if not any(cls(above, above)._has_member_at(root) for above in locked[number + 1 :]):
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

    def _has_member_at(self, folder: Path) -> bool:
        return any(self._is_at(member, folder) for member in self.members.values())

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
