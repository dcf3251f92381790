"""Static data flow of AWS clients and environment variables in a function and its libs.

Nothing is executed. Values are followed through assignments, attributes, parameters and results,
across modules, until nothing new is found; in doubt a value has too many possibilities, not too
few. Code of a lib counts if the function refers to it, directly or through other code that counts.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

type Scope = ast.Module | ast.ClassDef | Definition | Comprehension
type Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
type Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
type Values = frozenset[object]

NOTHING: Values = frozenset()
PACKAGE_PREFIX = "jobplane_"
CLIENT_MAKERS = frozenset({"create_client", "client"})
TRANSACTION_KEYS = frozenset({"Put", "Update", "Delete", "ConditionCheck"})


@dataclass(frozen=True)
class Client:
    service: str


@dataclass(frozen=True)
class Text:
    text: str


BOTO3 = Text("module boto3")


@dataclass(frozen=True)
class Environment:
    """`os.environ`."""


@dataclass(frozen=True)
class Code:
    module: "Module"
    node: ast.AST

    def __repr__(self) -> str:
        return f"Code({self.module.path.name}:{getattr(self.node, 'name', '')})"


@dataclass(frozen=True)
class Place:
    path: Path
    line: int


@dataclass(frozen=True)
class Call:
    service: str
    method: str
    argument: str | None
    place: Place


@dataclass(frozen=True)
class Reading:
    """A read environment variable; `name` is None if it is computed, in the function `within`."""

    name: str | None
    required: bool
    within: str
    place: Place


@dataclass(eq=False)
class Module:
    path: Path
    name: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def binders(self) -> dict[str, list[ast.stmt]]:
        """Definitions and imports at top level, by name, including those under `if` and `try`."""
        found: dict[str, list[ast.stmt]] = defaultdict(list)
        for statement in self.tree.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[statement.name].append(statement)
                continue
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    for alias in inner.names:
                        name = alias.asname or alias.name
                        is_plain = isinstance(inner, ast.Import) and not alias.asname
                        found[name.partition(".")[0] if is_plain else name].append(inner)
        return found

    @cached_property
    def package(self) -> str:
        is_package = self.path.name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]


@dataclass
class Facts:
    calls: set[Call] = field(default_factory=set)
    readings: set[Reading] = field(default_factory=set)
    lost: dict[Place, str] = field(default_factory=dict)
    """Places where a client is passed to code outside of the analysis, and what that is."""
    transactions: set[str] = field(default_factory=set)
    """The kinds of items that are written in transactions."""
    raised: set[str] = field(default_factory=set)
    """The names of exception classes that are raised."""


class Program:
    """A function's file and the libs beside it.

    `loaded`: what it loads by its name at run time, such as `jobplane_acme:numbered`.
    """

    def __init__(self, source: Path, libs: Path, loaded: Iterable[str] = ()) -> None:
        self.source = source
        self.libs = libs
        self.loaded = tuple(loaded)
        self.main = Module(source, source.stem)
        self._modules: dict[str, Module | None] = {source.stem: self.main}
        self._variables: dict[tuple[ast.AST, str], set[object]] = defaultdict(set)
        self._attributes: dict[str, set[object]] = defaultdict(set)
        self._results: dict[ast.AST, set[object]] = defaultdict(set)
        self._methods: dict[str, list[Code]] = defaultdict(list)
        self._reached: dict[ast.AST, Module] = {}
        self._scopes: dict[ast.AST, Scope] = {}
        self._size = -1

    @cached_property
    def facts(self) -> Facts:
        """Analyse until nothing new is found."""
        self._reach(Code(self.main, self.main.tree))
        for definition in self.main.tree.body:
            if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._reach(Code(self.main, definition))
        for value in self.loaded:
            name, _, attribute = value.partition(":")
            if module := self.module(name):
                self._reach(Code(module, module.tree))
                if package := self.module(module.name.partition(".")[0]):
                    self._reach(Code(package, package.tree))
                for code in self.named_in(module, attribute):
                    if isinstance(code, Code):
                        self._reach(code)
        facts = Facts()
        while (size := self._known()) != self._size:
            self._size = size
            facts = Facts()
            for node, module in list(self._reached.items()):
                Walk(self, module, node, facts).walk()
        return facts

    @property
    def modules(self) -> list[Module]:
        self.facts  # noqa: B018 - learns
        return list({id(m): m for m in self._reached.values()}.values())

    def _known(self) -> int:
        tables: Iterable[set[object]] = (
            *self._variables.values(),
            *self._attributes.values(),
            *self._results.values(),
        )
        return len(self._reached) + sum(map(len, tables))

    def _reach(self, code: Code) -> None:
        node, module = code.node, code.module
        if node in self._reached:
            return
        self._reached[node] = module
        self._reached.setdefault(module.tree, module)
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._methods[part.name].append(Code(module, part))
                    self._scopes.setdefault(part, self._scopes.get(node, module.tree))
                    self._reach(Code(module, part))

    def module(self, name: str) -> Module | None:
        """A module of a lib by its dotted name; None for any other."""
        if name not in self._modules:
            self._modules[name] = self._find(name)
        return self._modules[name]

    def _find(self, name: str) -> Module | None:
        first, *rest = name.split(".")
        if not first.startswith(PACKAGE_PREFIX):
            return None
        lib = first.removeprefix(PACKAGE_PREFIX).replace("_", "-")
        base = self.libs.joinpath(lib, "src", first, *rest)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return Module(path, name)
        return None

    def named_in(self, module: Module, name: str) -> Values:
        """The value of a name at a module's top level."""
        known = set(self._variables.get((module.tree, name), ()))
        for statement in module.binders.get(name, ()):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                known |= self.imported(module, statement, name)
            else:
                known.add(Code(module, statement))
        if known or module is self.main:
            return frozenset(known)
        submodule = self.module(f"{module.name}.{name}")
        if submodule is not None:
            return frozenset({Code(submodule, submodule.tree)})
        return self._served_late(module, name) if module.path.stem == "__init__" else NOTHING

    def _served_late(self, module: Module, name: str) -> Values:
        """A name that a package's `__getattr__` finds in one of its modules."""
        found: set[object] = set()
        for path in sorted(module.path.parent.glob("_*.py")):
            inner = self.module(f"{module.name}.{path.stem}")
            if inner is not None and inner is not module:
                for statement in inner.tree.body:
                    if getattr(statement, "name", None) == name:
                        found.add(Code(inner, statement))
        return frozenset(found)

    def imported(self, module: Module, statement: ast.stmt, name: str) -> Values:
        """The value that an import statement binds, if it is in the program or in `os`."""
        found: set[object] = set()
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if (alias.asname or alias.name.partition(".")[0]) == name:
                    target = self.module(alias.name if alias.asname else name)
                    found.add(Code(target, target.tree) if target else Text(f"module {alias.name}"))
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    found |= self._imported_from(module, statement, alias.name)
        return frozenset(found)

    def _imported_from(self, module: Module, statement: ast.ImportFrom, name: str) -> Values:
        source = statement.module or ""
        if statement.level:
            package = module.package.split(".")
            base = package[: len(package) - statement.level + 1]
            source = ".".join([*base, *filter(None, [source])])
        target = self.module(source)
        if target is not None and target is not module:
            self._reach(Code(target, target.tree))
            return self.named_in(target, name)
        if source == "os" and name in ("environ", "environb"):
            return frozenset({Environment()})
        return frozenset({Text(f"module {source}.{name}")})


class Walk:
    def __init__(self, program: Program, module: Module, node: ast.AST, facts: Facts) -> None:
        self.program = program
        self.module = module
        self.node = node
        self.facts = facts

    def walk(self) -> None:
        if isinstance(self.node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = self.node.args
            defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
            outer: Scope = self.program._scopes.get(self.node, self.module.tree)
            for default in (*self.node.decorator_list, *defaults):
                self.expression(default, outer)
            for parameter in ast.walk(arguments):
                if isinstance(parameter, ast.arg):
                    self.program._variables[self.node, parameter.arg] |= NOTHING
            self.statements(self.node.body, self.node)
        elif isinstance(self.node, ast.ClassDef):
            body = [s for s in self.node.body if not isinstance(s, ast.FunctionDef)]
            self.statements(body, self.node)
            for expression in (*self.node.decorator_list, *self.node.bases):
                self.expression(expression, self.module.tree)
        elif isinstance(self.node, ast.Module):
            self.statements(self.node.body, self.node)

    def place(self, node: ast.AST) -> Place:
        return Place(self.module.path, getattr(node, "lineno", 1))

    def statements(self, body: Iterable[ast.AST], scope: Scope) -> None:
        for statement in body:
            self.statement(statement, scope)

    def statement(self, node: ast.AST, scope: Scope) -> None:  # noqa: C901 - one case a kind
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.program._scopes.setdefault(node, scope)
                if not isinstance(scope, ast.Module):
                    self.program._variables[scope, node.name].add(Code(self.module, node))
                    self.program._reach(Code(self.module, node))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.bind(target, self.expression(value, scope), scope)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.bind(target, self.expression(value, scope), scope)
            case ast.AugAssign(target=target, value=value):
                self.bind(target, self.expression(value, scope), scope)
            case ast.For() | ast.AsyncFor():
                self.bind(node.target, self.expression(node.iter, scope), scope)
                self.statements([*node.body, *node.orelse], scope)
            case ast.Return(value=ast.expr() as value):
                self.program._results[scope] |= self.expression(value, scope)
            case ast.Raise():
                self.raised(node, scope)
            case ast.withitem(context_expr=value, optional_vars=target):
                values = self.expression(value, scope)
                if target is not None:
                    self.bind(target, values, scope)
            case ast.Import() | ast.ImportFrom():
                self.imports(node, scope)
            case ast.expr():
                self.expression(node, scope)
            case _:
                self.statements(ast.iter_child_nodes(node), scope)

    def imports(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            values = self.program.imported(self.module, node, name)
            for value in values:
                if isinstance(value, Code) and isinstance(value.node, ast.Module):
                    self.program._reach(value)
            if not isinstance(scope, ast.Module):
                self.program._variables[scope, name] |= values

    def raised(self, node: ast.Raise, scope: Scope) -> None:
        for part in (node.exc, node.cause):
            if part is not None:
                self.expression(part, scope)
        thrown = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(thrown, ast.Name):
            self.facts.raised.add(thrown.id)
        elif isinstance(thrown, ast.Attribute):
            self.facts.raised.add(thrown.attr)

    def bind(self, target: ast.expr, values: Values, scope: Scope) -> None:
        match target:
            case ast.Name(id=name):
                self.program._variables[scope, name] |= values
            case ast.Attribute(value=owner, attr=name):
                self.expression(owner, scope)
                self.program._attributes[name] |= values
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                # Only relevant values: a text in a tuple may be any of its elements.
                kept = frozenset(v for v in values if not isinstance(v, Text))
                for part in parts:
                    self.bind(part, kept, scope)
            case ast.Starred(value=inner):
                self.bind(inner, values, scope)
            case ast.Subscript(value=owner, slice=index):
                self.expression(index, scope)
                self.bind(owner, values, scope)

    def expression(self, node: ast.expr, scope: Scope) -> Values:  # noqa: C901 - one case a kind
        match node:
            case ast.Constant(value=str() as text):
                return frozenset({Text(text)})
            case ast.Name(id=name):
                return self.name(name, scope)
            case ast.Attribute():
                return self.attribute(node, scope, argument=None)
            case ast.Call():
                return self.call(node, scope)
            case ast.NamedExpr(target=target, value=value):
                values = self.expression(value, scope)
                self.bind(target, values, scope)
                return values
            case ast.Subscript(value=owner, slice=index):
                return self.subscript(node, self.expression(owner, scope), index, scope)
            case ast.Compare():
                return self.comparison(node, scope)
            case ast.Lambda():
                self.program._scopes.setdefault(node, scope)
                for parameter in ast.walk(node.args):
                    if isinstance(parameter, ast.arg):
                        self.program._variables[node, parameter.arg] |= NOTHING
                self.program._results[node] |= self.expression(node.body, node)
                return frozenset({Code(self.module, node)})
            case ast.Dict(keys=keys, values=values):
                self.transaction(node)
                parts = [*filter(None, keys), *values]
                return _union(self.expression(part, scope) for part in parts)
            case ast.JoinedStr() | ast.BinOp():
                self.inside(node, scope)
                return NOTHING
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self.program._scopes.setdefault(node, scope)
                for part in node.generators:
                    self.bind(part.target, self.expression(part.iter, node), node)
                return self.inside(node, node)
        return self.inside(node, scope)

    def inside(self, node: ast.AST, scope: Scope) -> Values:
        found: list[Values] = []
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                found.append(self.expression(child, scope))
            elif not isinstance(child, ast.expr_context | ast.operator):
                found.append(self.inside(child, scope))
        return _union(found)

    def name(self, name: str, scope: Scope) -> Values:
        current = scope
        while not isinstance(current, ast.Module):
            if (current, name) in self.program._variables:
                break
            current = self.program._scopes.get(current, self.module.tree)
        if isinstance(current, ast.Module):
            values = self.program.named_in(self.module, name)
        else:
            values = frozenset(self.program._variables[current, name])
        for value in values:
            if isinstance(value, Code):
                self.program._reach(value)
        return values

    def attribute(self, node: ast.Attribute, scope: Scope, argument: str | None) -> Values:
        owners = self.expression(node.value, scope)
        services = {owner.service for owner in owners if isinstance(owner, Client)}
        for service in services:
            self.facts.calls.add(Call(service, node.attr, argument, self.place(node)))
        if services:
            return NOTHING
        if Text("module os") in owners and node.attr in ("environ", "environb"):
            return frozenset({Environment()})
        found = set(self.program._attributes.get(node.attr, ()))
        for owner in owners:
            if isinstance(owner, Code) and isinstance(owner.node, ast.Module):
                found |= self.program.named_in(owner.module, node.attr)
        for method in self.program._methods.get(node.attr, ()):
            found.add(method)
            if any(_is_property(each) for each in getattr(method.node, "decorator_list", ())):
                found |= self.program._results[method.node]
        for value in found:
            if isinstance(value, Code):
                self.program._reach(value)
        return frozenset(found)

    def subscript(
        self, node: ast.Subscript, owners: Values, index: ast.expr, scope: Scope
    ) -> Values:
        keys = self.expression(index, scope)
        if Environment() in owners and isinstance(node.ctx, ast.Load):
            self.reading(node, keys, True, scope)
        return owners - {Environment()}

    def comparison(self, node: ast.Compare, scope: Scope) -> Values:
        values = [self.expression(part, scope) for part in (node.left, *node.comparators)]
        if len(values) == 2 and Environment() in values[1]:
            self.reading(node, values[0], False, scope)
        return NOTHING

    def reading(self, node: ast.AST, keys: Values, required: bool, scope: Scope) -> None:
        within = getattr(scope, "name", "")
        names: list[str | None] = [key.text for key in keys if isinstance(key, Text)]
        for name in names or [None]:
            self.facts.readings.add(Reading(name, required, within, self.place(node)))

    def transaction(self, node: ast.Dict) -> None:
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        for name in TRANSACTION_KEYS & keys:
            self.facts.transactions.add(name)

    def call(self, node: ast.Call, scope: Scope) -> Values:
        first = self.texts_of_first(node, scope)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if isinstance(node.func, ast.Attribute):
            if method in CLIENT_MAKERS and first:
                self.arguments(node, scope)
                self.expression(node.func.value, scope)
                return frozenset(Client(text) for text in first)
            owners = self.expression(node.func.value, scope)
            if method == "resource" and first:
                self.facts.lost[self.place(node)] = "boto3.resource"
            if method == "create_client" or (method == "client" and BOTO3 in owners):
                self.facts.lost[self.place(node)] = "a service that is computed"
            if Environment() in owners:
                return self.environment_call(node, method or "", scope)
            argument = first[0] if len(first) == 1 else None
            targets = self.attribute(node.func, scope, argument)
            if any(isinstance(owner, Client) for owner in owners):
                self.arguments(node, scope)
                return NOTHING
        else:
            targets = self.expression(node.func, scope)
        name = method or (node.func.id if isinstance(node.func, ast.Name) else "")
        if name == "getattr" and len(node.args) > 1:
            return self.dynamic_attribute(node, scope)
        if name == "getenv" and first:
            keys = frozenset(Text(text) for text in first)
            self.reading(node, keys, False, scope)
        if name == "partial" and node.args:
            return self.partial(node, scope)
        return self.hand_over(node, targets, scope, name)

    def texts_of_first(self, node: ast.Call, scope: Scope) -> list[str]:
        named = {"service_name", "operation_name", "waiter_name", "ClientMethod"}
        given = node.args[:1] + [k.value for k in node.keywords if k.arg in named]
        values = self.expression(given[0], scope) if given else NOTHING
        return sorted(v.text for v in values if isinstance(v, Text))

    def dynamic_attribute(self, node: ast.Call, scope: Scope) -> Values:
        owners, names = (self.expression(argument, scope) for argument in node.args[:2])
        for owner in owners:
            if isinstance(owner, Client):
                texts = [name.text for name in names if isinstance(name, Text)]
                for text in texts:
                    self.facts.calls.add(Call(owner.service, text, None, self.place(node)))
                if not texts:
                    self.facts.lost[self.place(node)] = "getattr"
        return NOTHING

    def environment_call(self, node: ast.Call, method: str, scope: Scope) -> Values:
        arguments = self.arguments(node, scope)
        if method in ("get", "pop", "setdefault", "__getitem__"):
            keys = arguments[0][1] if arguments else NOTHING
            self.reading(node, keys, method == "__getitem__", scope)
            return NOTHING
        return frozenset({Environment()}) if method == "copy" else NOTHING

    def partial(self, node: ast.Call, scope: Scope) -> Values:
        targets = self.expression(node.args[0], scope)
        rest = ast.Call(func=node.args[0], args=node.args[1:], keywords=node.keywords)
        ast.copy_location(rest, node)
        self.hand_over(rest, targets, scope, "partial")
        return targets

    def hand_over(self, node: ast.Call, targets: Values, scope: Scope, name: str) -> Values:
        """Bind the arguments to the parameters of all possible callees; their results."""
        arguments = self.arguments(node, scope)
        followed = [target for target in targets if isinstance(target, Code)]
        for target in followed:
            self.bind_parameters(target, arguments)
        if not followed:
            if any(isinstance(v, Client) for _, values in arguments for v in values):
                if name not in ("isinstance", "print", "type", "id", "repr", "bool"):
                    self.facts.lost[self.place(node)] = name or ast.unparse(node.func)
            if name in ("dict", "MappingProxyType", "cast", "copy"):
                return _union(values for _, values in arguments)
            return NOTHING
        results: set[object] = set()
        for target in followed:
            results |= self.program._results[target.node]
        return frozenset(results)

    def arguments(self, node: ast.Call, scope: Scope) -> list[tuple[str | int, Values]]:
        found: list[tuple[str | int, Values]] = []
        for index, argument in enumerate(node.args):
            found.append((index, self.expression(argument, scope)))
        for keyword in node.keywords:
            found.append((keyword.arg or "**", self.expression(keyword.value, scope)))
        return found

    def bind_parameters(self, target: Code, arguments: list[tuple[str | int, Values]]) -> None:
        node = target.node
        if isinstance(node, ast.ClassDef):
            made = [part for part in node.body if getattr(part, "name", "") == "__init__"]
            if made:
                self.bind_parameters(Code(target.module, made[0]), arguments)
            else:
                self.bind_fields(node, arguments)
            return
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        if names[:1] in (["self"], ["cls"]):
            names = names[1:]
        keywords = {*names, *(argument.arg for argument in node.args.kwonlyargs)}
        for key, values in arguments:
            name = key if isinstance(key, str) else names[key] if key < len(names) else None
            if name in keywords:
                self.program._variables[node, name] |= values
            elif node.args.vararg is not None and isinstance(key, int):
                self.program._variables[node, node.args.vararg.arg] |= values

    def bind_fields(self, node: ast.ClassDef, arguments: list[tuple[str | int, Values]]) -> None:
        """A dataclass: its parameters are its annotated fields."""
        fields = [
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        ]
        for key, values in arguments:
            name = key if isinstance(key, str) else fields[key] if key < len(fields) else None
            if name in fields:
                self.program._attributes[name] |= values


def _union(parts: Iterable[Values]) -> Values:
    return frozenset().union(*parts)


def _is_property(decorator: ast.expr) -> bool:
    name = decorator.attr if isinstance(decorator, ast.Attribute) else decorator
    text = name.id if isinstance(name, ast.Name) else name
    return text in ("property", "cached_property")
