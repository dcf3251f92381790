"""The public interfaces of the libs: as their sources have them, and as recorded at a version.

A record is a stub, readable and diffable: `recorded/<module>.txt`. Run as a program, this writes
the records anew: `uv run python -m tests.workspace.interfaces [LIB…]`.
"""

import sys
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import griffe
from packaging.version import Version

from tests.workspace.lib_environments import LIBS, ROOT, project

BUILDER = "lambdapack"
ALL = [*LIBS, BUILDER]
RECORDS = Path(__file__).parent / "recorded"
ADVICE = "docs/reusing-libs.md tells how versions move, and how to record an interface"


class Record(NamedTuple):
    """A lib's interface at a version: stubs by module."""

    version: str
    stubs: dict[str, str]


def module_name(lib: str) -> str:
    """What a lib is imported as."""
    return lib if lib == BUILDER else f"jobplane_{lib}"


@cache
def package(lib: str) -> griffe.Module:
    """A lib's sources, which are parsed but not run."""
    found = griffe.load(
        module_name(lib),
        search_paths=[ROOT / "libs" / name / "src" for name in ALL],
        allow_inspection=False,
        resolve_aliases=True,
        resolve_external=True,
    )
    assert isinstance(found, griffe.Module)
    return found


def modules(lib: str) -> dict[str, griffe.Module]:
    """The package and its public modules, by path."""
    found = package(lib)
    public = {name: found.modules[name] for name in sorted(public_modules(lib))}
    return {found.path: found} | {module.path: module for module in public.values()}


def public_modules(lib: str) -> set[str]:
    """The modules of a package that users import by name."""
    return {name for name in package(lib).modules if not name.startswith("_")}


def exported(lib: str) -> set[str]:
    """Every name in an `__all__`."""
    return {str(name) for module in modules(lib).values() for name in module.exports or ()}


def names(lib: str) -> set[str]:
    """Every public name: modules, their contents, attributes and methods."""
    offered = _objects(lib)
    parts = {name for each in offered if each.is_class for name in each.all_members}
    return public_modules(lib) | {each.name for each in offered} | parts


def undocumented(lib: str) -> list[str]:
    """Public classes, functions and methods without a docstring."""
    found = [each for each in _objects(lib) if each.is_class or each.is_function]
    for each in tuple(found):
        if each.is_class:
            found += [part for name, part in each.functions.items() if not name.startswith("_")]
    return sorted(each.path for each in found if not each.has_docstring)


def recorded(lib: str) -> Record:
    """The interface at the last record."""
    texts = {path.stem: path.read_text() for path in RECORDS.glob(f"{module_name(lib)}*.txt")}
    (version,) = {text.partition("\n")[0].removeprefix("# ") for text in texts.values()}
    return Record(version, texts)


def breakages(lib: str) -> list[str]:
    """What breaks for users of the recorded interface."""
    present, found = stubs(lib), []
    for path, text in recorded(lib).stubs.items():
        if path not in present:
            found.append(f"{path}: module was removed")
            continue
        # Stub with stub: griffe does not look through a name that is imported on one side alone.
        once, now = _read(path, text), _read(path, present[path])
        changes = griffe.find_breaking_changes(once, now)
        found += [f"{change.obj.path}: {change.kind.value}" for change in changes]
        found += _other_types(once, now)
    return found


def _other_types(
    once: griffe.Object | griffe.Alias, now: griffe.Object | griffe.Alias
) -> Iterator[str]:
    """What has another type, which griffe does not compare. A parameter may take more than it did,
    and a function may return less.
    """
    for name, each in once.members.items():
        other = now.members.get(name)
        if other is None or other.kind is not each.kind:
            continue
        if each.is_class:
            yield from _other_types(each, other)
        elif each.is_attribute and _types(each.annotation) != _types(other.annotation):
            yield f"{each.path}: type was {each.annotation}, is {other.annotation}"
        elif each.is_type_alias and str(each.value) != str(other.value):
            yield f"{each.path}: type was {each.value}, is {other.value}"
        elif each.is_function:
            if not _types(each.returns) >= _types(other.returns):
                yield f"{each.path}: returned {each.returns}, returns {other.returns}"
            for taken in each.parameters:
                takes = other.parameters[taken.name] if taken.name in other.parameters else taken
                if not _types(taken.annotation) <= _types(takes.annotation):
                    yield (
                        f"{each.path}({taken.name}): took {taken.annotation}, "
                        f"takes {takes.annotation}"
                    )


def _types(annotation: object) -> set[str]:
    """The members of a union. That an answer always has a field does not change its type."""
    text = str(annotation)
    if text.startswith("Annotated[") and text.endswith(", ALWAYS]"):
        text = text.removeprefix("Annotated[").removesuffix(", ALWAYS]")
    return set(text.split(" | "))


def is_compatible(old: str, new: str) -> bool:
    """Whether a version promises to serve those who use an older one: by semantic versioning, the
    same major version, and below 1.0 the same minor version.
    """
    places = 1 if Version(old).major else 2
    return (
        Version(new) >= Version(old)
        and Version(new).release[:places] == (Version(old).release[:places])
    )


def stubs(lib: str) -> dict[str, str]:
    """The current interface by module."""
    return {
        path: "\n".join(chain.from_iterable(map(_stub, _public(module)))) + "\n"
        for path, module in modules(lib).items()
    }


def record(lib: str) -> None:
    """Write a record of the current interface."""
    for path in RECORDS.glob(f"{module_name(lib)}*.txt"):
        path.unlink()
    for path, text in stubs(lib).items():
        (RECORDS / f"{path}.txt").write_text(f"# {project(lib)['version']}\n\n{text}")


def _read(path: str, stub: str) -> griffe.Module:
    return griffe.visit(path, filepath=RECORDS / f"{path}.txt", code=stub)


def _objects(lib: str) -> list[griffe.Object | griffe.Alias]:
    return [each for module in modules(lib).values() for each in _public(module)]


def _public(module: griffe.Module) -> list[griffe.Object | griffe.Alias]:
    """The public names of a module: its exports, or else its definitions."""
    names = module.exports
    if names is None:
        names = [
            name
            for name, each in module.members.items()
            if not (name.startswith("_") or each.is_alias or each.is_module)
        ]
    return [module.members[str(name)] for name in sorted(map(str, names))]


def _stub(each: griffe.Object | griffe.Alias) -> Iterator[str]:
    """The lines of an object's stub."""
    target = each.final_target if isinstance(each, griffe.Alias) else each
    if isinstance(target, griffe.Function):
        awaitable = "async " if "async" in target.labels else ""
        yield from (f"@{name}" for name in sorted(target.labels & {"classmethod", "staticmethod"}))
        yield f"{awaitable}def {_signature(target)}: ..."
    elif isinstance(target, griffe.Class):
        bases = ", ".join(map(str, target.bases))
        yield f"class {each.name}({bases}):" if bases else f"class {each.name}:"
        parts = [
            part
            for name, part in sorted(target.members.items())
            if name == "__init__" or not name.startswith("_")
        ]
        for line in chain.from_iterable(map(_stub, parts)) if parts else ("...",):
            yield indent(line, "    ")
        yield ""
    elif isinstance(target, griffe.TypeAlias):
        yield f"type {each.name} = {target.value}"
    elif isinstance(target, griffe.Attribute):
        if "property" in target.labels:
            yield "@property"
            yield f"def {each.name}(self) -> {target.annotation}: ..."
        else:
            annotation = f": {target.annotation}" if target.annotation is not None else ""
            value = f" = {target.value}" if target.value is not None else ""
            yield f"{each.name}{annotation}{value or ' = ...'}"


def _signature(function: griffe.Function) -> str:
    """The signature with `self`, which griffe omits."""
    text = str(function.signature(return_type=True))
    if not (function.parent and function.parent.is_class) or "staticmethod" in function.labels:
        return text
    first = "cls" if "classmethod" in function.labels else "self"
    return text.replace("(", f"({first}, ", 1).replace(", )", ")", 1)


if __name__ == "__main__":
    RECORDS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or ALL:
        record(name)
