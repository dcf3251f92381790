"""An artifact contains what its function can import, and nothing else.

Every module that the function or a shipped lib imports is in the zip or in the standard library;
every distribution in the zip is in the function's locked closure and is imported.
"""

import marshal
import re
import zipfile
from functools import cache
from pathlib import PurePosixPath
from types import CodeType

from jobplane.rules._imports import Import, distributions_of, imports_in, is_standard
from jobplane.rules._tree import Finding, Findings, Member, Tree
from jobplane.tree.repository import Function
from lambdapack.artifacts import HELPERS, Settings
from lambdapack.requirements import closures


class Contents:
    """The modules of a zip by dotted name; a module may be bytecode without source."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.modules: dict[str, str] = {}
        self.tops: set[str] = set()
        for name in archive.namelist():
            path = PurePosixPath(name)
            if "__pycache__" in path.parts or path.parts[0].endswith((".dist-info", "bin")):
                continue
            self.tops.add(path.parts[0].partition(".")[0])
            if path.suffix in (".py", ".pyc", ".so"):
                parts = [*path.parts[:-1], path.name.partition(".")[0]]
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                self.modules.setdefault(".".join(parts), name)

    def holds(self, found: Import) -> bool:
        return found.module in self.modules or is_standard(found.module)

    def has_modules(self, top: str) -> bool:
        return any(module.partition(".")[0] == top for module in self.modules)

    def reached(self, start: str) -> set[str]:
        """Every module that is reachable by imports, including lazy ones.

        Imports are derived from a module's names and texts, because a build may defer an import:
        those that name modules beside it, above it, or inside what it imports.
        """
        known: set[str] = set()
        pending = [start]
        while pending:
            module = pending.pop()
            if module in known or module not in self.modules:
                continue
            known.add(module)
            names = self._names(module)
            bases = ["", *_ancestors(module)]
            bases += [f"{name}." for name in names if name in self.modules]
            pending += [f"{base}{name}" for base in bases for name in names]
            pending.append(module.rpartition(".")[0])
        return known

    def _names(self, module: str) -> frozenset[str]:
        name = self.modules[module]
        data = self._archive.read(name)
        if not name.endswith(".so"):
            return _names_in(data, name)
        # Of the names in compiled code, only those of modules are known.
        return frozenset(top for top in self.tops if re.search(rb"\b%b\b" % top.encode(), data))


def _ancestors(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) + "." for end in range(1, len(parts) + 1)]


@cache
def _names_in(data: bytes, name: str) -> frozenset[str]:
    """Every name and text of a module's code that could be a module's name."""
    is_bytecode = name.endswith(".pyc")
    code = marshal.loads(data[16:]) if is_bytecode else compile(data, name, "exec")  # noqa: S302
    found: set[str] = set()
    pending: list[object] = [code]
    while pending:
        match pending.pop():
            case CodeType() as inner:
                pending += [*inner.co_consts, *inner.co_names]
            case tuple() as several:
                pending += several
            case str() as text if text.replace(".", "").isidentifier():
                found.add(text)
    return frozenset(found)


def findings(tree: Tree) -> Findings:
    found = closures(tree.repository, tree.functions, Settings.local().arch)
    for member in tree.members:
        function = member.function
        if function is None:
            continue
        path = tree.repository.root / tree.artifacts[function.name].zip
        closure = found[function.name]
        allowed = set(closure.distributions)
        with zipfile.ZipFile(path) as archive:
            contents = Contents(archive)
            own = {name.partition("/")[0].partition(".")[0] for name in function.shipped_files()}
            yield from _missing(tree, member, function, contents)
            loaded = {value.partition(":")[0] for value in tree.loaded(function)}
            yield from _foreign(member, contents, own, loaded, allowed)


def _missing(tree: Tree, member: Member, function: Function, contents: Contents) -> Findings:
    """Checked in the sources, because a build may rewrite imports."""
    for module in tree.program(function).modules:
        own = [lib for lib in tree.libs if module.path.is_relative_to(lib.directory)]
        optional = {name for lib in own for names in lib.optional.values() for name in names}
        for found in imports_in(module.path):
            # The rule `imports` checks extras.
            if found.typing_only or contents.holds(found) or distributions_of(found.top) & optional:
                continue
            if not found.module or module.path == function.source and found.top == module.name:
                continue
            text = f"the zip of {member.name} has no {found.module}, which is imported here"
            yield Finding(
                module.path,
                found.line,
                f"{text}: declare the distribution that contains it",
                found.top,
                member,
            )


def _foreign(
    member: Member, contents: Contents, own: set[str], loaded: set[str], allowed: set[str]
) -> Findings:
    path = member.project_path
    reached = _reached(contents, own | loaded)
    for top in sorted(contents.tops - own):
        owners = distributions_of(top)
        if not owners and top in HELPERS:
            continue
        if not contents.has_modules(top):
            continue
        if not owners & allowed:
            text = f"the zip contains {top}, which belongs to no locked dependency of {member.name}"
            yield Finding(path, 1, f"{text}: build it again", top, member)
        elif top not in reached:
            name = sorted(owners & allowed)[0]
            text = f"the zip contains {top} of {name}, but no module imports it"
            remedy = "remove the dependency that adds it, or make it an extra that others declare"
            yield Finding(path, 1, f"{text}: {remedy}", name, member)


def _reached(contents: Contents, start: set[str]) -> set[str]:
    """The packages that are imported, and those of the same distributions: these come whole."""
    found: set[str] = set()
    pending = start
    while pending:
        found |= {module.partition(".")[0] for top in pending for module in contents.reached(top)}
        owners = {owner for top in found for owner in distributions_of(top)}
        pending = {top for top in contents.tops - found if distributions_of(top) & owners}
    return found
