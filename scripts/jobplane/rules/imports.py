"""A member declares the distributions that it imports, and no others.

For functions and libs, extras included; a dependency of a dependency does not count as declared. A
lib's optional imports belong to its extras, and a function that uses one declares `lib[extra]`. A
dependency that is needed without an import is allowed by an entry with its name.
"""

import tomllib
from collections.abc import Mapping

from jobplane.rules._imports import Import, canonical, distributions_of, imports_in, is_standard
from jobplane.rules._tree import Finding, Findings, Member, Tree, line_of
from jobplane.tree.repository import Repository


def findings(tree: Tree) -> Findings:
    locked = _locked(tree.repository)
    for member in tree.members:
        declared, optional = member.declared, member.optional
        through = _closure(locked, member.distribution, set(declared))
        known = set(declared).union(*optional.values())
        used = _loaded(tree, member)
        for path in member.sources:
            for found in imports_in(path):
                owners = _owners(found, member)
                used |= owners
                if found.typing_only or not owners or owners & known:
                    continue
                text, subject = _undeclared(found, owners, through)
                yield Finding(path, found.line, text, subject, member)
        yield from _unused(member, set(declared), optional, used)
        yield from _extras(tree, member, declared)


def _loaded(tree: Tree, member: Member) -> set[str]:
    """The distributions whose entry points a function loads."""
    found = (each for each in tree.entry_points if member.function is not None)
    return {canonical(each.distribution) for each in found if each.loaded_by == member.name}


def _owners(found: Import, member: Member) -> set[str]:
    if is_standard(found.module) or distributions_of(found.top) == {canonical(member.distribution)}:
        return set()
    if member.function is not None and found.top == member.function.module:
        return set()
    return distributions_of(found.top) or {canonical(found.top)}


def _undeclared(found: Import, owners: set[str], through: set[str]) -> tuple[str, str]:
    name = sorted(owners)[0]
    if owners & through:
        return f"{found.top} is installed only as a dependency of another one: declare {name}", name
    if not distributions_of(found.top):
        return f"{found.top} is imported, but no locked distribution contains it: add it", name
    return f"{found.top} is imported, but {name} is not declared: add it to pyproject.toml", name


def _unused(
    member: Member, declared: set[str], optional: Mapping[str, set[str]], used: set[str]
) -> Findings:
    path = member.project_path
    for name in sorted(declared - used):
        line = _line_of_dependency(member, name)
        yield Finding(
            path, line, f"{name} is declared, but never imported: remove it", name, member
        )
    for extra, names in optional.items():
        for name in sorted(names - used):
            text = f"{name} of the extra {extra!r} is never imported: remove it"
            yield Finding(path, _line_of_dependency(member, name), text, name, member)


def _extras(tree: Tree, member: Member, declared: Mapping[str, set[str]]) -> Findings:
    if member.function is None:
        return
    reached = {module.path for module in tree.program(member.function).modules}
    for lib in tree.libs:
        optional = lib.optional
        needed = {
            extra
            for path in lib.sources
            if path in reached
            for found in imports_in(path)
            for extra, names in optional.items()
            if names & distributions_of(found.top) and not found.typing_only
        }
        name = canonical(lib.distribution)
        if name not in declared:
            continue
        line = _line_of_dependency(member, name)
        for extra in sorted(needed - declared[name]):
            text = f"the function uses code that needs the extra: declare {name}"
            subject = f"{name}[{extra}]"
            yield Finding(member.project_path, line, f"{text}[{extra}]", subject, member)
        for extra in sorted(declared[name] - needed):
            subject = f"{name}[{extra}]"
            fault = "has no such extra" if extra not in optional else "needs no such extra here"
            text = f"{subject} is declared and {name} {fault}: remove it"
            yield Finding(member.project_path, line, text, subject, member)


def _line_of_dependency(member: Member, name: str) -> int:
    start = line_of(member.project_path, "dependencies")
    return line_of(member.project_path, name, start)


def _locked(repository: Repository) -> dict[str, set[str]]:
    lock = tomllib.loads((repository.root / "uv.lock").read_text(encoding="utf-8"))
    return {
        canonical(package["name"]): {
            canonical(needed["name"]) for needed in package.get("dependencies", ())
        }
        for package in lock["package"]
    }


def _closure(locked: Mapping[str, set[str]], name: str, declared: set[str]) -> set[str]:
    found: set[str] = set()
    pending = [*declared, *locked.get(canonical(name), ())]
    while pending:
        for needed in locked.get(pending.pop(), set()) - found:
            found.add(needed)
            pending.append(needed)
    return found
