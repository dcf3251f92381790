"""The functions and libs that modules of tests/ need, derived from imports and names.

`tests/needs.toml` adds what can't be derived: words that stand for functions, and modules that need
more, or less, than they name.
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from jobplane.parts._functions import parts
from jobplane.tree.repository import Repository

LIST = Path("tests", "needs.toml")
# Calls whose arguments are never names of functions.
PLAIN_CALLS = frozenset({
    "StatusClient", "Telemetry", "ask", "create", "data", "delitem", "get", "git", "messages",
    "parametrize", "pop", "request", "setenv", "setitem", "to_thread",
})  # fmt: skip
VERBS = frozenset({"affected", "build", "check", "deploy", "event", "fuzz", "invoke", "logs"})


class Needs:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.folder = repository.root / "tests"
        self._known: dict[str, tuple[set[str], set[str]]] = {}

    @cached_property
    def known(self) -> frozenset[str]:
        """The functions of all parts, including those that the repository doesn't have."""
        return frozenset().union(*(part.functions for part in parts(self.repository).values()))

    @cached_property
    def absent(self) -> frozenset[str]:
        return self.known - {function.name for function in self.repository.functions()}

    @cached_property
    def modules(self) -> dict[str, Path]:
        return {
            path.relative_to(self.folder).as_posix(): path
            for path in sorted(self.folder.rglob("*.py"))
        }

    def of(self, name: str) -> frozenset[str]:
        """The functions and libs (`libs/robots`) that a module needs; its imports included."""
        found: set[str] = set()
        waiting, seen = [name], {name}
        while waiting:
            module = waiting.pop()
            if module not in self._known:
                self._known[module] = self._direct(module)
            own, imported = self._known[module]
            found |= own
            for other in imported - seen:
                seen.add(other)
                waiting.append(other)
        return frozenset(found)

    def of_the_whole(self) -> list[Path]:
        """The modules that test the command and the repository as a whole."""
        listed = self._listed.get("whole", {})
        taken = listed.get("taken", [])
        return [
            path
            for name, path in self.modules.items()
            if name not in taken and any(fnmatch(name, each) for each in listed.get("modules", []))
        ]

    def unused(self) -> list[Path]:
        """The modules that no test and no conftest.py imports, or starts by its file's name."""
        used = {
            name for name in self.modules if re.match(r"test_|conftest|__init__", Path(name).name)
        }
        waiting = set(used)
        while waiting:
            module = waiting.pop()
            tree = ast.parse(self.modules[module].read_text(encoding="utf-8"))
            waiting |= (self._imports(tree)[0] | self._started(module, tree)) - used
            used |= waiting
        return [path for name, path in self.modules.items() if name not in used]

    def _started(self, module: str, tree: ast.Module) -> set[str]:
        """The modules of its folder that a module names by their files, `parse.py`."""
        files = {
            Path(module).with_name(node.value).as_posix()
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"\w+\.py", node.value)
        }
        return files & self.modules.keys()

    def _direct(self, name: str) -> tuple[set[str], set[str]]:
        """What a module itself needs, and which modules of tests/ it imports."""
        text = self.modules[name].read_text(encoding="utf-8")
        tree = ast.parse(text)
        imported, libs = self._imports(tree)
        given = self._listed.get("modules", {}).get(name)
        if given is not None:
            # An entry written by hand includes the needs of its imports.
            return {*given, *libs}, set()
        found = {each for each in _mentioned(tree, self.known)} | libs
        for pattern, functions in self._listed.get("words", {}).items():
            if re.search(pattern, text):
                found |= set(functions)
        if subject := self._subject(name):
            found.add(subject)
        return found, imported

    def _subject(self, name: str) -> str | None:
        """The function that a module is named after: `unit/test_router_limits.py`."""
        stem = Path(name).stem.removeprefix("test_").replace("_", "-")
        fitting = [each for each in self.known if f"{stem}-".startswith(f"{each}-")]
        return (
            max(fitting, key=len) if fitting and name.startswith(("unit/", "property/")) else None
        )

    def _imports(self, tree: ast.Module) -> tuple[set[str], set[str]]:
        modules, libs = set(), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
            elif isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            else:
                continue
            for name in names:
                if name.startswith("tests."):
                    modules.add(name.removeprefix("tests.").replace(".", "/") + ".py")
                if name.startswith("jobplane_"):
                    libs.add(f"libs/{name.partition('.')[0].removeprefix('jobplane_')}")
        return modules & self.modules.keys(), libs

    @cached_property
    def _listed(self) -> dict[str, dict[str, list[str]]]:
        path = self.repository.root / LIST
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def unmet(self, absent: Iterable[str]) -> list[Path]:
        lost = frozenset(absent)
        return [path for name, path in self.modules.items() if self.of(name) & lost]


def _mentioned(tree: ast.Module, known: frozenset[str]) -> Iterator[str]:
    """The functions named in places where a function's name is expected."""
    folder = re.compile(rf"(?:functions|dist)/({'|'.join(sorted(known))})(?![a-z-])")
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            if not (isinstance(child, ast.Constant) and isinstance(child.value, str)):
                continue
            text = child.value
            yield from folder.findall(text)
            if text in known and ("-" in text or _names(parent, child, known)):
                yield text


def _names(parent: ast.AST, constant: ast.Constant, known: frozenset[str]) -> bool:
    """Whether a word such as `status` stands for the function."""
    if isinstance(parent, ast.Call):
        called = parent.func
        name = called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)
        return constant in parent.args and name not in PLAIN_CALLS
    if isinstance(parent, ast.Subscript):
        return re.search("function|artifact", ast.unparse(parent.value)) is not None
    if isinstance(parent, ast.Tuple | ast.List | ast.Set | ast.Dict):
        within = parent.keys if isinstance(parent, ast.Dict) else parent.elts
        if constant not in within:
            return False
        texts = [each.value if isinstance(each, ast.Constant) else None for each in within]
        is_asked = bool(VERBS.intersection(texts[: within.index(constant)]))
        return is_asked or len(known.intersection(texts)) > 1
    return False
