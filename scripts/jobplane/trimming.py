"""Docstrings, annotations of functions and overloads: loaded at every start, read by nobody."""

import ast

# What looks at annotations or docstrings while a program runs.
READERS = frozenset(
    {"__annotations__", "__doc__", "get_type_hints", "getdoc", "signature", "singledispatch"}
)


def trim(tree: ast.Module) -> None:
    """Drop them from a module that doesn't read any."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if not READERS & names:
        _Trimmer().visit(tree)


class _Trimmer(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

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
