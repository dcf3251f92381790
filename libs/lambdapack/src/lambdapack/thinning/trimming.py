"""Remove docstrings, annotations and overloads, which are loaded at every start but not used."""

import ast
from collections.abc import Iterator

# Names that read annotations or docstrings at run time.
READERS = frozenset(
    {"__annotations__", "__doc__", "get_type_hints", "getdoc", "signature", "singledispatch"}
)


def trim(tree: ast.Module, source: str, *, reads_others: bool = False) -> None:
    """Remove them from a module that reads none of its own."""
    reads = any(reader in source for reader in READERS) and not READERS.isdisjoint(_names(tree))
    if reads and not reads_others:
        return
    _Trimmer().visit(tree)


def without_fields(tree: ast.Module) -> None:
    """Remove the fields of a module's TypedDicts: each creates a type at every start."""
    for node in tree.body:
        match node:
            case ast.ClassDef(bases=[ast.Name(id="TypedDict")]):
                node.body = [ast.Pass()]


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name


class _Trimmer(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(ast.unparse(base).endswith("NamedTuple") for base in node.bases):
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    field.annotation = ast.Constant(None)  # a text would be compiled
        return self._without_docstring(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Visit statements only: expressions have no docstrings."""
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                visited = [self.visit(part) for part in block]
                block[:] = [part for part in visited if part is not None]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
            return None
        node.returns = None
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in [*every, arguments.vararg, arguments.kwarg]:
            if argument is not None:
                argument.annotation = None
        return self._without_docstring(node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        return node
