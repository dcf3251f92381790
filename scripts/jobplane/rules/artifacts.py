"""A built artifact holds what its function can import, and no more.

Every module that the function or a carried lib imports is in the zip or in the standard library;
every distribution in the zip is in the function's locked closure and is reached from its imports.
"""

import ast
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

from jobplane.requirements import closures
from jobplane.rules._imports import (
    Import,
    canonical,
    distributions_of,
    imports_in,
    imports_of,
    is_standard,
    requirements,
)
from jobplane.rules._tree import Finding, Findings, Member, Tree
from jobplane.workspace import Function


class Contents:
    """The modules of a zip, by their dotted names."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.modules: dict[str, str] = {}
        self.tops: set[str] = set()
        for name in archive.namelist():
            path = PurePosixPath(name)
            if "__pycache__" in path.parts or path.parts[0].endswith(".dist-info"):
                continue
            self.tops.add(path.parts[0].partition(".")[0])
            if path.suffix == ".py":
                parts = path.with_suffix("").parts
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                self.modules[".".join(parts)] = name
            elif path.suffix == ".so":
                self.modules[".".join([*path.parts[:-1], path.name.partition(".")[0]])] = ""

    def holds(self, found: Import) -> bool:
        return found.module in self.modules or is_standard(found.module)

    def has_modules(self, top: str) -> bool:
        return any(module.partition(".")[0] == top for module in self.modules)

    def reached(self, start: str) -> set[str]:
        """Every module that imports lead to, the lazy ones included."""
        known: set[str] = set()
        pending = [start]
        while pending:
            module = pending.pop()
            if module in known or module not in self.modules:
                continue
            known.add(module)
            pending += [module.rpartition(".")[0], *self._names(module)]
        return known

    def _names(self, module: str) -> tuple[str, ...]:
        name = self.modules[module]
        if not name:
            return ()
        package = module if name.endswith("/__init__.py") else module.rpartition(".")[0]
        return _names_in(self._archive.read(name), package)


@cache
def _names_in(source: bytes, package: str) -> tuple[str, ...]:
    """What a module may import: by a statement, or by a text that is a module's name."""
    found = set()
    for imported in imports_of(source, package):
        found |= {imported.module, *(f"{imported.module}.{name}" for name in imported.names)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if text.replace(".", "").isidentifier():
                found |= {text, f"{package}.{text}"}
    return tuple(found)


def findings(tree: Tree) -> Findings:
    found = closures(tree.workspace, tree.functions)
    for member in tree.members:
        function = member.function
        if function is None:
            continue
        path = tree.workspace.root / tree.artifacts[function.name].zip
        closure = found[function.name]
        allowed = {canonical(name) for name in closure.locked}
        allowed |= {f"jobplane-{PurePosixPath(lib).name}" for lib in closure.libs}
        with zipfile.ZipFile(path) as archive:
            contents = Contents(archive)
            own = {name.partition("/")[0].partition(".")[0] for name in function.shipped_files()}
            yield from _missing(tree, member, function, contents)
            yield from _foreign(member, contents, own, allowed)


def _missing(tree: Tree, member: Member, function: Function, contents: Contents) -> Findings:
    """By the sources, since a build may write an import in another way."""
    optional = {name for lib in tree.libs for names in _optional(lib).values() for name in names}
    for module in tree.program(function).modules:
        for found in imports_in(module.path):
            # What belongs to an extra is a matter of declared imports.
            if found.typing_only or contents.holds(found) or distributions_of(found.top) & optional:
                continue
            if not found.module or module.path == function.source and found.top == module.name:
                continue
            text = f"the zip of {member.name} has no {found.module}, which is imported here"
            yield Finding(
                module.path, found.line, f"{text}: declare what brings it", found.top, member
            )


def _optional(lib: Member) -> dict[str, set[str]]:
    extras = lib.project["project"].get("optional-dependencies", {})
    return {extra: set(requirements(texts)) for extra, texts in extras.items()}


def _foreign(member: Member, contents: Contents, own: set[str], allowed: set[str]) -> Findings:
    path = member.project_path
    reached = {module.partition(".")[0] for name in own for module in contents.reached(name)}
    for top in sorted(contents.tops - own):
        owners = distributions_of(top)
        if not owners and find_spec(f"jobplane.{top}") is not None:
            continue  # the build's own help at run time
        if not owners & allowed:
            text = f"the zip holds {top}, which no locked dependency of {member.name} brings"
            yield Finding(path, 1, f"{text}: build it again", top, member)
        elif top not in reached and contents.has_modules(top):
            name = sorted(owners & allowed)[0]
            text = f"the zip holds {top} of {name}, and nothing in it imports that"
            yield Finding(path, 1, f"{text}: drop the dependency that brings it", name, member)
