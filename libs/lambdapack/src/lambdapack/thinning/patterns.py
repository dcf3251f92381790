"""Regular expressions compiled at build time: compiling them is a tenth of a cold start.

`re.compile(…)` of constants becomes a call that hands the engine its code. The code is of one
version of the engine; with any other, the call compiles the pattern as before.
"""

import _sre  # type: ignore[import-not-found]
import ast
import re
import struct
from re import _compiler, _parser  # type: ignore[attr-defined]
from typing import Any

from lambdapack.thinning.deferral import HELPER

PRECOMPILED = "_precompiled"
# What a constant may be computed with; nothing else is evaluated.
PLAIN = (
    ast.Constant, ast.Name, ast.Load, ast.Store, ast.BinOp, ast.operator, ast.JoinedStr,
    ast.FormattedValue, ast.Tuple, ast.List, ast.Dict, ast.Attribute, ast.ListComp,
    ast.GeneratorExp, ast.comprehension, ast.Subscript, ast.Slice, ast.UnaryOp, ast.unaryop,
    ast.keyword,
)  # fmt: skip
METHODS = frozenset({"join", "format"})


def precompile(tree: ast.Module) -> bool:
    """Replace calls that can be compiled now; whether there were any."""
    constants: dict[str, Any] = {"re": re}
    compiler = _Precompiler(constants)
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                constants.pop(name, None)
                if _is_plain(value):
                    _bind(constants, name, value)
        compiler.visit(node)
    if compiler.found:
        at = 0
        while at < len(tree.body) and _is_prologue(tree.body[at]):
            at += 1
        line = f"from {HELPER} import precompiled as {PRECOMPILED}"
        tree.body[at:at] = ast.parse(line).body
    return compiler.found


class _Precompiler(ast.NodeTransformer):
    def __init__(self, constants: dict[str, Any]) -> None:
        self.constants = constants
        self.found = False
        self._depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._inside(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node)

    def _inside(self, node: ast.AST) -> ast.AST:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr="compile"), args=arguments
            ) if arguments and all(map(_is_plain, arguments)) and not node.keywords:
                # Inside a function or a class, a name may be another one than the module's.
                known = self.constants if self._depth == 0 else {"re": re}
                values = [_value(argument, known) for argument in arguments]
                if None not in values and isinstance(values[0], str | bytes):
                    call = _call(*values)
                    self.found = self.found or call is not None
                    return call or node
        return node


def _call(pattern: str | bytes, flags: int = 0) -> ast.Call | None:
    """The call that compiles nothing; None if it would give another pattern than `re.compile`."""
    parsed = _parser.parse(pattern, int(flags))
    words = _compiler._code(parsed, int(flags))
    state = parsed.state
    indexes: list[str | None] = [None] * state.groups
    for name, index in state.groupdict.items():
        indexes[index] = name
    rest = (int(flags) | state.flags, state.groups - 1, state.groupdict, tuple(indexes))
    if _sre.compile(pattern, rest[0], words, *rest[1:]) != re.compile(pattern, flags):
        return None
    code = struct.pack(f"<{len(words)}I", *words)
    values = (pattern, int(flags), _sre.MAGIC, code, *rest)
    arguments = ", ".join(map(repr, values))
    expression = ast.parse(f"{PRECOMPILED}({arguments})", mode="eval").body
    assert isinstance(expression, ast.Call)
    return expression


def _bind(constants: dict[str, Any], name: str, value: ast.expr) -> None:
    result = _value(value, constants)
    if isinstance(result, str | bytes | int | tuple | list | dict):
        constants[name] = result


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    expression = compile(ast.Expression(node), "<constant>", "eval")
    try:
        return eval(expression, {"__builtins__": {}, **known})  # noqa: S307 - _is_plain alone
    except Exception:
        return None


def _is_plain(node: ast.expr) -> bool:
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            named = isinstance(part.func, ast.Attribute) and part.func.attr in METHODS
            if not named:
                return False
        elif not isinstance(part, PLAIN):
            return False
    return True


def _is_prologue(node: ast.stmt) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
