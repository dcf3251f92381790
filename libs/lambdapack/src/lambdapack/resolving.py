"""Check that the imports of an artifact's modules resolve in it or in the standard library.

Checked are imports that always run when a module is loaded: not those in a function, under a
condition, in a `try` or a `with suppress(…)`. In a Lambda function's own module, imports inside
functions are checked as well.
"""

import ast
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path, PurePosixPath

NOTES = ".imports.json"
# Modules that Lambda provides in addition to the standard library.
OF_THE_RUNTIME = frozenset({"awslambdaric", "snapshot_restore_py"})
# A module that mentions one of these may create modules at run time.
MAKES_MODULES = ("sys.modules", "__path__", "meta_path")

type Blocks = Iterator[ast.stmt]


@dataclass(frozen=True)
class Imports:
    """The imports of a module that always run, and whether it may create modules at run time."""

    names: tuple[str, ...]
    tries: tuple[str, ...]
    """Modules, or names within modules: from `from package import name`."""
    makes_modules: bool


@dataclass(frozen=True)
class Unresolved:
    """An unresolved import."""

    by: str
    """The importing module."""
    name: str


def module_name(path: PurePosixPath) -> tuple[str, bool]:
    """A file's dotted name, and whether it is a package."""
    parts = [*path.parts[:-1], path.name.partition(".")[0]]
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


def imports_of(source: bytes, module: str, *, is_package: bool, lazy: bool = False) -> Imports:
    """The imports that always run; with `lazy` also those inside functions."""
    text = decode_source(source)
    names: set[str] = set()
    tries: set[str] = set()
    for node in _certain(ast.parse(text).body, lazy):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            if base:
                names.add(base)
                tries.update(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    return Imports(
        tuple(sorted(names)), tuple(sorted(tries)), any(each in text for each in MAKES_MODULES)
    )


def _certain(body: Iterable[ast.stmt], lazy: bool) -> Blocks:
    for node in body:
        yield node
        match node:
            case ast.ClassDef(body=inner):
                yield from _certain(inner, lazy)
            case ast.With(items=items, body=inner) if not any(map(_suppresses, items)):
                yield from _certain(inner, lazy)
            case ast.FunctionDef(body=inner) | ast.AsyncFunctionDef(body=inner) if lazy:
                yield from _certain(inner, lazy)


def _suppresses(item: ast.withitem) -> bool:
    return "suppress" in ast.unparse(item.context_expr)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".") if is_package else module.split(".")[:-1]
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *filter(None, [node.module])])


def note(folder: Path, *, lazy: bool = False) -> None:
    """Record the imports of the modules of an installed distribution."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        name, is_package = module_name(PurePosixPath(path.relative_to(folder).as_posix()))
        try:
            imports = imports_of(path.read_bytes(), name, is_package=is_package, lazy=lazy)
        except (SyntaxError, ValueError):  # for another Python version; this one never imports it
            continue
        found[name] = [imports.names, imports.tries, imports.makes_modules]
    (folder / NOTES).write_text(json.dumps(found), encoding="utf-8")


def noted(folder: Path) -> dict[str, Imports]:
    """The imports that `note` recorded."""
    entries = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    return {
        name: Imports(tuple(names), tuple(tries), makes)
        for name, (names, tries, makes) in entries.items()
    }


def unresolved(
    starts: Iterable[str],
    files: Collection[str],
    imports: Mapping[str, Imports],
    given: Collection[str] = (),
) -> list[Unresolved]:
    """The unresolved imports that are reachable from a function's modules.

    Args:
        files: the artifact's.
        imports: by module.
        given: top-level names that are provided elsewhere.
    """
    modules = _Modules(files)
    known = sys.stdlib_module_names | OF_THE_RUNTIME | set(given)
    missing: list[Unresolved] = []
    seen: set[str] = set()
    pending = list(starts)
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        pending.append(module.rpartition(".")[0])
        found = imports.get(module)
        if found is None:
            continue
        pending += [name for name in found.tries if name in modules.files]
        for name in found.names:
            if name.partition(".")[0] in known:
                continue
            if name in modules.files or name in modules.folders:
                pending.append(name)
            elif not _is_made(name, modules, imports):
                missing.append(Unresolved(module, name))
    return sorted(missing, key=lambda each: (each.name, each.by))


class _Modules:
    def __init__(self, files: Collection[str]) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        for file in files:
            path = PurePosixPath(file)
            if path.suffix in (".py", ".pyc", ".so") and "__pycache__" not in path.parts:
                name = module_name(path)[0]
                self.files.add(name)
                parts = name.split(".")
                self.folders |= {".".join(parts[:end]) for end in range(1, len(parts))}


def _is_made(name: str, modules: _Modules, imports: Mapping[str, Imports]) -> bool:
    """Whether a parent module may create it at run time, as `six` creates `six.moves`."""
    above = name.rpartition(".")[0]
    while above:
        if above in modules.files:
            found = imports.get(above)
            if found is None or found.makes_modules:
                return True
        above = above.rpartition(".")[0]
    return False
