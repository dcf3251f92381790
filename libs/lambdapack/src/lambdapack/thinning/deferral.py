"""Imports that wait until their names are used, as Python 3.15's lazy imports do.

A module's top-level import is deferred if functions alone use its name, and so is a compiled
pattern. Before each statement that uses it stands a check that costs next to nothing once the name
is bound:

    try:
        urlsplit
    except NameError:
        _load_deferred('urlsplit')

The module's `__getattr__` loads the name for uses from outside. Nothing else changes; a
module in which nothing can wait stays as it is, to the byte.
"""

import ast
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path

HELPER = "cold_start"
LOAD = "_load_deferred"
MAKE = "_make"
# Calls that access a module's names without mentioning them.
SEEING = frozenset({"globals", "vars", "eval", "exec", "locals"})
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))

type Import = tuple[str, str | None, int]
type Values = dict[str, str | tuple[Import, ...]]
type Definition = ast.FunctionDef | ast.AsyncFunctionDef


class _Names(ast.NodeVisitor):
    """The names that a module's top level binds, and the names that its functions use."""

    def __init__(self, tree: ast.Module) -> None:
        self.imports: dict[str, list[Import]] = {}
        self.bound: list[str] = []
        self.used_at_once: set[str] = set()
        self.used_later: set[str] = set()
        self.chains: dict[str, set[str]] = {}
        self.sees_all = False
        self._depth = 0
        self._classes = 0
        self._strings = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
            for node in tree.body
        )
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, entry in _imports_of(node):
                    self.imports.setdefault(name, []).append(entry)
            else:
                self.visit(node)

    def visit_FunctionDef(self, node: Definition) -> None:
        self._bind(node.name)
        at_once: list[ast.AST] = [
            *node.decorator_list,
            *node.args.defaults,
            *filter(None, node.args.kw_defaults),
        ]
        at_once += node.type_params
        if not self._strings:
            at_once += [*_arguments(node.args), *filter(None, [node.returns])]
        for part in at_once:
            self.visit(part)
        self._depth += 1
        for statement in node.body:
            self.visit(statement)
        self._depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's own naming

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name)
        self._classes += 1
        self.generic_visit(node)
        self._classes -= 1

    def visit_Import(self, node: ast.Import) -> None:
        for name, _ in _imports_of(node):
            self._bind(name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for name, _ in _imports_of(node):
            self._bind(name)

    def visit_Global(self, node: ast.Global) -> None:
        self.bound += node.names

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._bind(node.id)
            return
        (self.used_later if self._depth else self.used_at_once).add(node.id)
        self.sees_all |= node.id in SEEING

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = _chain(node)
        if parts:
            self.chains.setdefault(parts[0], set()).add(".".join(parts))
        self.generic_visit(node)

    def _bind(self, name: str) -> None:
        if self._depth == self._classes == 0:
            self.bound.append(name)


class _Guards(ast.NodeTransformer):
    """Inserts a check before every statement of a function that uses a deferred name."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names
        self._parameters: list[frozenset[str]] = []

    def visit_FunctionDef(self, node: Definition) -> ast.AST:
        every = [*_arguments(node.args)]
        self._parameters.append(frozenset(argument.arg for argument in every))
        node.body = self._guarded(node.body)
        self._parameters.pop()
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's own naming

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = self._guarded(node.body)
        return node

    def _guarded(self, body: list[ast.stmt]) -> list[ast.stmt]:
        guarded: list[ast.stmt] = []
        for statement in body:
            if self._parameters:
                guarded += [_guard(name) for name in sorted(self._used_by(statement))]
            for block in _blocks(statement):
                block[:] = self._guarded(block)
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.visit(statement)
            guarded.append(statement)
        return guarded

    def _used_by(self, statement: ast.stmt) -> set[str]:
        return {
            node.id
            for node in _own_expressions(statement)
            if isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)
            and node.id in self.names
            and node.id not in self._parameters[-1]
        }


def defer_imports(
    source: str,
    *,
    package: str | None = None,
    modules: Collection[str] = (),
    eager: Collection[str] = (),
    is_starred: bool = False,
) -> str:
    """The module's source with everything deferred that can be.

    Args:
        source: of one module.
        package: its dotted name if it is a package's `__init__`.
        modules: the dotted names of all modules that ship with it.
        eager: names that stay as they are.
        is_starred: whether another module imports `*` from it: that takes what is bound by then,
            and asks for a name by `__getattr__` only if `__all__` lists it.
    """
    tree = ast.parse(source)
    if not defer(tree, package=package, modules=modules, eager=eager, is_starred=is_starred):
        return source
    return f"{leading_comments(source)}{ast.unparse(tree)}\n"


def defer(
    tree: ast.Module,
    *,
    package: str | None = None,
    modules: Collection[str] = (),
    eager: Collection[str] = (),
    is_starred: bool = False,
) -> bool:
    """defer_imports on a parsed module, in place; whether anything was deferred."""
    names = _Names(tree)
    if names.sees_all or "__getattr__" in names.bound:
        return False
    if is_starred and "__all__" not in names.bound:
        return False
    values: Values = dict(_functions_for_patterns(tree, names, eager))
    if values:
        names = _Names(tree)
    values |= _deferrable_imports(names, package, modules, eager)
    if not values:
        return False
    _drop_imports(tree, values)
    _Guards(values).visit(tree)
    _insert_helper(tree, values)
    return True


def starred(source: str, module: str, *, is_package: bool) -> set[str]:
    """The modules from which a module imports `*`, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            parts = module.split(".") if is_package else module.split(".")[:-1]
            parents = parts[: len(parts) - node.level + 1] if node.level else []
            found.add(".".join([*parents, *filter(None, [node.module])]))
    return found


def _deferrable_imports(
    names: _Names, package: str | None, modules: Collection[str], eager: Collection[str]
) -> Values:
    found: Values = {}
    submodules = {
        name: module
        for module in sorted(modules)
        for parent, _, name in [module.rpartition(".")]
        if parent == package and name != "__main__"
    }
    at_once = {*eager, *names.used_at_once, *names.bound, *submodules, "*"}
    for name, entries in names.imports.items():
        is_plain = any(attribute is None for _, attribute, _ in entries)
        if name in at_once or (is_plain and name not in names.used_later):
            continue  # used immediately, or imported for its side effects
        if is_plain:
            entries += _submodules(entries, names.chains.get(name, set()))
        found[name] = tuple(entries)
    # Other code relies on a submodule that something else has imported before.
    missing = submodules.keys() - {*found, *names.bound, *names.imports}
    return found | {name: ((submodules[name], "", 0),) for name in sorted(missing)}


def _functions_for_patterns(
    tree: ast.Module, names: _Names, eager: Collection[str]
) -> dict[str, str]:
    """Turn `NAME = re.compile(…)` into a function that makes it, where only functions use NAME."""
    once = {name for name in names.bound if names.bound.count(name) == 1} | set(names.imports)
    made = {}
    for index, node in enumerate(tree.body):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr="compile")) as call,
            ):
                parts = {part.id for part in ast.walk(call) if isinstance(part, ast.Name)}
                if name in eager or name in names.used_at_once or not parts | {name} <= once:
                    continue
                made[name] = f"_make_{name}"
                (function,) = ast.parse(f"def {made[name]}(): return 0").body
                assert isinstance(function, ast.FunctionDef)
                function.body = [ast.Return(call)]
                tree.body[index] = function
    return made


def _imports_of(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, (node.module or "", alias.name, node.level)
        elif alias.asname:
            yield alias.asname, (alias.name, "", 0)
        else:
            yield alias.name.partition(".")[0], (alias.name, None, 0)


def _submodules(entries: Collection[Import], chains: Collection[str]) -> list[Import]:
    """Imports of the standard library's submodules that are used without being named."""
    named = {module for module, _, _ in entries}
    found = set()
    for chain in chains:
        parts = chain.split(".")
        for end in range(2, len(parts) + 1):
            name = ".".join(parts[:end])
            if STANDARD_LIBRARY.joinpath(*parts[:end]).with_suffix(".py").is_file():
                found.add(name)
    return [(name, None, 0) for name in sorted(found - named)]


def _drop_imports(tree: ast.Module, values: Collection[str]) -> None:
    body: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Import) or (
            isinstance(node, ast.ImportFrom) and node.module != "__future__"
        ):
            node.names = [
                alias
                for alias in node.names
                if (alias.asname or alias.name.partition(".")[0]) not in values
            ]
            if not node.names:
                continue
        body.append(node)
    tree.body = body


def _insert_helper(tree: ast.Module, values: Values) -> None:
    at = 0
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not is_docstring and not is_future:
            break
        at += 1
    tree.body[at:at] = ast.parse(
        f"from {HELPER} import deferred as _deferred\n"
        f"{LOAD}, __getattr__ = _deferred(globals(), {values!r})\n"
    ).body


def _guard(name: str) -> ast.stmt:
    (guard,) = ast.parse(f"try:\n {name}\nexcept NameError:\n {LOAD}({name!r})").body
    return guard


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The statement lists inside a statement that run as part of it."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for name in ("body", "orelse", "finalbody"):
        if isinstance(block := getattr(statement, name, None), list):
            yield block
    for part in [*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]:
        yield part.body


def _own_expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes that are evaluated where the statement stands, without its nested statements."""
    pending: list[ast.AST] = []
    nested = {id(inner) for block in _blocks(statement) for inner in block}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        nested = {id(inner) for inner in statement.body}
    pending.append(statement)
    while pending:
        node = pending.pop()
        yield node
        pending += [child for child in ast.iter_child_nodes(node) if id(child) not in nested]


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return every + [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]


def _chain(node: ast.Attribute) -> list[str]:
    parts = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    return [value.id, *reversed(parts)] if isinstance(value, ast.Name) else []


def leading_comments(source: str) -> str:
    """The comments above a module's code: its licence."""
    lines = []
    for line in source.splitlines(keepends=True):
        if not line.startswith("#") and line.strip():
            break
        lines.append(line)
    return "".join(lines)
