"""A function has one name everywhere, and all functions' files have the same order.

Folders, members and verbs are kebab-case, modules are the same words with underscores. A function
is one file: docstring first (trigger, result; what the job flow calls also input and errors),
`handler(event, context)` last.
"""

import ast
import re

from jobplane.rules._steps import state_machines
from jobplane.rules._tree import Finding, Findings, Member, Tree, line_of
from jobplane.tree.repository import NOT_SHIPPED, Function

KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SNAKE = re.compile(r"_{0,2}[a-z][a-z0-9]*(_[a-z0-9]+)*(__)?")
FORBIDDEN = frozenset({"app", "common", "handler", "helpers", "main", "utils"})
# Keys that `function.yml` must not have, because they follow from the folder's name.
DERIVED = ("handler", "name", "role", "package", "runtime")
PARTS = {"trigger": r"Triggers?:", "result": r"(Result|Output):"}
PARTS_OF_A_STEP = PARTS | {"input": r"Input:", "errors": r"Errors?:"}


def findings(tree: Tree) -> Findings:
    called = {name for machine in state_machines(tree.repository) for name in machine.called}
    for member in tree.members:
        yield from _member(member)
        if member.function is not None:
            yield from _file(member, member.function)
            parts = PARTS_OF_A_STEP if member.name in called else PARTS
            yield from _source(member, member.function, parts)
            yield from _configuration(member, member.function)
    if tree.is_whole:
        yield from _folders(tree)
        yield from _verbs(tree)


def _member(member: Member) -> Findings:
    path = member.project_path
    if not KEBAB.fullmatch(member.name):
        yield Finding(path, 1, f"{member.name!r} is not kebab-case: rename the folder")
    if member.distribution != f"jobplane-{member.name}":
        text = f"the member of this folder is jobplane-{member.name}, not {member.distribution}"
        yield Finding(path, line_of(path, "name"), f"{text}: rename it")
    if member.function is None:
        package = f"jobplane_{member.name.replace('-', '_')}"
        if not (member.directory / "src" / package / "__init__.py").is_file():
            yield Finding(
                path,
                1,
                f"src/{package}/__init__.py does not exist: rename the package to {package}",
            )
    for source in member.sources:
        stem = source.stem
        if stem.strip("_") in FORBIDDEN:
            yield Finding(
                source, 1, f"{source.name} is too general: name the module by its subject"
            )
        elif not SNAKE.fullmatch(stem):
            yield Finding(source, 1, f"{source.name} is not snake_case: rename it")


def _file(member: Member, function: Function) -> Findings:
    for path in sorted(function.directory.rglob("*.py")):
        inside = path.relative_to(function.directory)
        if path != function.source and not NOT_SHIPPED.intersection(inside.parts):
            text = f"a function is one file, {function.source.name}: move this there or to a lib"
            yield Finding(path, 1, text, inside.as_posix(), member)


def _source(member: Member, function: Function, parts: dict[str, str]) -> Findings:
    path = function.source
    module = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(module) or ""
    for part, pattern in parts.items():
        if not re.search(rf"(^|\s){pattern}", docstring):
            text = f"the docstring does not describe the {part}: add `{part.capitalize()}: …`"
            yield Finding(path, 1, text, part, member)
    last = module.body[-1] if module.body else module
    if not (isinstance(last, ast.FunctionDef) and last.name == "handler"):
        line = getattr(last, "lineno", 1)
        yield Finding(path, line, "`handler` is not last: move what follows it above it")


def _configuration(member: Member, function: Function) -> Findings:
    path = function.config_path
    for key in ("description", "memorySize", "timeout"):
        if key not in function.config:
            yield Finding(path, 1, f"{key} is missing: every function must set it")
    for key in DERIVED:
        if key in function.config:
            text = f"{key} follows from the folder's name: remove it"
            yield Finding(path, line_of(path, key), text, key, member)


def _folders(tree: Tree) -> Findings:
    kept = ("pyproject.toml", "function.yml")
    files = tree.repository.root.glob("functions/*/*")
    for folder in sorted({path.parent for path in files if path.name in kept}):
        for needed in (*kept, f"{folder.name.replace('-', '_')}.py"):
            if not (folder / needed).is_file():
                text = f"the folder has no {needed}: a function has all three of {kept[0]}, "
                yield Finding(folder / needed, 1, f"{text}{kept[1]} and its module")


def _verbs(tree: Tree) -> Findings:
    for path in sorted((tree.repository.root / "scripts" / "jobplane" / "verbs").glob("*.py")):
        if not path.stem.startswith("_") and not SNAKE.fullmatch(path.stem):
            yield Finding(path, 1, f"{path.name} is not snake_case: the verb has the hyphens")
