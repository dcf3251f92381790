"""The imports of source files, and the distributions that they belong to."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

REQUIREMENT = re.compile(r"^\s*(?P<name>[A-Za-z0-9._-]+)\s*(\[(?P<extras>[^\]]*)\])?")
WORKSPACE_PACKAGE = "jobplane_"


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    typing_only: bool = False

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports_of(source: str) -> Iterator[Import]:
    """Every import of a module's source, except relative ones."""
    tree = ast.parse(source)
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        only = node in typing_only
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, only)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield Import(node.module or "", node.lineno, only)
        elif isinstance(node, ast.Call) and _name(node.func) == "import_module" and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and not str(named.value).startswith("."):
                yield Import(str(named.value), node.lineno)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def _installed() -> dict[str, set[str]]:
    return {
        top: {canonical(name) for name in names} for top, names in packages_distributions().items()
    }


def distributions_of(top: str) -> set[str]:
    """The installed distributions that contain a top-level module; possibly none."""
    if top.startswith(WORKSPACE_PACKAGE):
        return {canonical(top)}
    return _installed().get(top, set())


def requirements(texts: Iterable[str]) -> dict[str, set[str]]:
    """Distribution → extras, of requirement texts."""
    found: dict[str, set[str]] = {}
    for text in texts:
        match = REQUIREMENT.match(text)
        if match is not None:
            extras = {extra.strip() for extra in (match["extras"] or "").split(",")}
            found.setdefault(canonical(match["name"]), set()).update(extras - {""})
    return found


def imports_in(path: Path) -> list[Import]:
    """The imports of a member's file, without those of its own modules."""
    source = path.read_text(encoding="utf-8")
    return [found for found in imports_of(source) if found.top != "__future__"]
