"""Methods of dataclasses, compiled at build time: compiling them is most of what a class costs.

`dataclasses` writes a class's methods as one text and executes it. The texts of the classes that
ship are written here as it would write them, by a copy of it, from what their source says; in an
artifact `cold_start` finds the code by the text. A text that is not among them, because a class is
made of more than its source shows or another release of Python writes another one, is compiled as
ever.
"""

import ast
import dataclasses
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

MODULE = "cold_start_methods"
HEADER = '''\
"""Made at build time: what `dataclasses` executes for the classes that ship, by its text."""

NO_PLUGINS = {!r}
CODE = {{}}
'''
# What decides a text; a default is passed by name and may be any.
OF_CLASSES = frozenset({"init", "repr", "eq", "order", "unsafe_hash", "frozen", "kw_only"})
OF_FIELDS = frozenset({"init", "repr", "hash", "compare", "kw_only"})
MARKS = {"ClassVar": ClassVar[Any], "InitVar": dataclasses.InitVar, "KW_ONLY": dataclasses.KW_ONLY}


def compiled(contents: Mapping[str, Path | bytes], *, has_plugins: bool = True) -> str:
    """The source of the module with the methods of all dataclasses in these files.

    Args:
        has_plugins: whether a distribution has plugins for pydantic.
    """
    sources = (
        body if isinstance(body, bytes) else body.read_bytes()
        for name, body in contents.items()
        if name.endswith(".py")
    )
    found = {text for source in sources if b"dataclass" in source for text in texts(source)}
    entries = [f"\n{text}\nCODE[{text!r}] = __create_fn__.__code__\n" for text in sorted(found)]
    return HEADER.format(None if has_plugins else "1") + "".join(entries)


@cache
def texts(source: bytes) -> tuple[str, ...]:
    """The texts that `dataclasses` executes for the classes of a module."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # for another Python version; this one never imports it
        return ()
    writer = _Writer()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            writer.write(node)
    return tuple(writer.texts)


class _Writer:
    """Makes classes with the fields of others, with a copy of `dataclasses` that records them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._made: dict[str, type] = {}
        spec = importlib.util.find_spec("dataclasses")
        assert spec is not None
        assert spec.loader is not None
        library = importlib.util.module_from_spec(spec)
        vars(library)["exec"] = self._execute
        spec.loader.exec_module(library)
        self._library: Any = library

    def write(self, node: ast.ClassDef) -> None:
        """Apply the class's decorator."""
        decorators = [each for each in node.decorator_list if _is_called(each, "dataclass")]
        if not decorators:
            return
        named = [base.id for base in node.bases if isinstance(base, ast.Name)]
        bases = tuple(self._made[name] for name in named if name in self._made)
        decorate = self._library.dataclass(**_flags(decorators[0], OF_CLASSES))
        try:
            self._made[node.name] = decorate(type(node.name, bases, self._namespace(node)))
        except (
            TypeError,
            ValueError,
        ):  # the source does not show everything that the class is made from
            return

    def _execute(self, text: str, namespace: dict[str, Any], made: dict[str, Any]) -> None:
        self.texts.append(text)
        exec(text, namespace, made)  # noqa: S102 - as dataclasses does

    def _namespace(self, node: ast.ClassDef) -> dict[str, Any]:
        types: dict[str, Any] = {}
        namespace: dict[str, Any] = {"__doc__": node.name, "__annotations__": types}
        for statement in node.body:
            match statement:
                case ast.FunctionDef(name=name):
                    namespace[name] = ...
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    types[name] = _mark(annotation)
                    if value is not None and _is_called(value, "field"):
                        namespace[name] = self._field(value)
                    elif value is not None:
                        namespace[name] = None
        return namespace

    def _field(self, value: ast.expr) -> Any:
        given = {keyword.arg for keyword in getattr(value, "keywords", ())}
        default: dict[str, Any] = {"default": None} if "default" in given else {}
        factory = {"default_factory": list} if "default_factory" in given else {}
        return self._library.field(**_flags(value, OF_FIELDS), **default, **factory)


def _is_called(node: ast.expr, name: str) -> bool:
    """Whether it is this name, or an attribute of it, called or not."""
    match node.func if isinstance(node, ast.Call) else node:
        case ast.Name(id=found) | ast.Attribute(attr=found):
            return found == name
    return False


def _flags(node: ast.expr, known: frozenset[str]) -> dict[str, Any]:
    """The known keywords of a call that are constants."""
    return {
        keyword.arg: keyword.value.value
        for keyword in getattr(node, "keywords", ())
        if keyword.arg in known and isinstance(keyword.value, ast.Constant)
    }


def _mark(annotation: ast.expr) -> Any:
    """What `dataclasses` sees in an annotation: one of its marks, or just a type."""
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    return MARKS.get(str(text).partition("[")[0].rpartition(".")[2], object)
