"""Methods of dataclasses that are compiled at build time."""

import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from lambdapack.thinning import cold_start, methods

SHAPES = {
    "plain": """
        @dataclass
        class A:
            a: int
            b: str = "b"
        """,
    "called, with flags": """
        @dataclasses.dataclass(frozen=True, slots=True, order=True)
        class A:
            a: int
            b: "str | None" = None
        """,
    "without methods": """
        @dataclass(init=False, repr=False, eq=False)
        class A:
            a: int
        """,
    "keywords alone": """
        @dataclass(kw_only=True)
        class A:
            a: int = 1
            b: int
        """,
    "keywords from a mark on": """
        @dataclass
        class A:
            a: int
            _: KW_ONLY
            b: int = 2
        """,
    "made fields": """
        @dataclass
        class A:
            a: list[int] = field(default_factory=list)
            b: int = dataclasses.field(default=1, repr=False, compare=False)
            c: int = field(init=False)
            d: int = field(default=2, hash=False, kw_only=True)
        """,
    "annotations that are not fields": """
        @dataclass(frozen=True)
        class A:
            a: int
            NAMES: ClassVar[list[str]] = []
            limit: "typing.ClassVar[int]" = 3
            start: InitVar[int] = 4
            def __post_init__(self, start): ...
        """,
    "methods of its own": """
        @dataclass(unsafe_hash=True)
        class A:
            a: int
            def __repr__(self): return "A"
            def __eq__(self, other): return True
        """,
    "inherited fields": """
        @dataclass(frozen=True)
        class A:
            a: int
        @dataclass(frozen=True)
        class B(A):
            b: int = 0
        """,
    "inside a function": """
        def made():
            @dataclass
            class A:
                a: int
        made()
        """,
}
IMPORTS = """
import dataclasses, typing
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import ClassVar
"""


def module(source: str) -> str:
    return IMPORTS + textwrap.dedent(source)


def run(tmp_path: Path, source: str, script: str) -> str:
    """Run a script with a module and its compiled methods."""
    contents: dict[str, Path | bytes] = {"shapes.py": module(source).encode()}
    (tmp_path / "shapes.py").write_text(module(source))
    (tmp_path / f"{methods.MODULE}.py").write_text(methods.compiled(contents))
    (tmp_path / "cold_start.py").write_text(Path(cold_start.__file__).read_text())
    begun = f"import sys; sys.path.insert(0, '.')\nimport cold_start; cold_start.begin()\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", begun], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_methods_have_the_text_that_dataclasses_generates(
    monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    executed: list[str] = []

    def execute(text: str, namespace: dict[str, Any], made: dict[str, Any]) -> None:
        executed.append(text)
        exec(text, namespace, made)  # noqa: S102 - as dataclasses does

    source = module(SHAPES[shape])
    shapes = ModuleType("shapes")
    monkeypatch.setitem(sys.modules, "shapes", shapes)
    with patch.object(dataclasses, "exec", execute, create=True):
        exec(source, vars(shapes))  # noqa: S102 - the module above
    assert executed
    assert list(methods.texts(source.encode())) == executed


def test_a_module_without_dataclasses_has_no_compiled_methods() -> None:
    """Nor has an unreadable source."""
    assert methods.texts(b"class dataclass: pass\n") == ()
    assert methods.texts(b"dataclass = print 1\n") == ()


def test_a_class_with_compiled_methods_behaves_the_same(tmp_path: Path) -> None:
    script = """
import dataclasses, shapes
one, two = shapes.A(1), shapes.A(1, "b")
print(one == two, hash(one) == hash(two), one, dataclasses.replace(one, b="c").b)
try:
    one.a = 2
except dataclasses.FrozenInstanceError as error:
    print(error)
made = shapes.A.__init__
print(made.__qualname__, made.__module__, made.__annotations__["a"], made.__code__.co_filename)
"""
    shape = SHAPES["plain"].replace("@dataclass", "@dataclass(frozen=True, slots=True)")
    shown, refused, made = run(tmp_path, shape, script).splitlines()
    assert shown == "True True A(a=1, b='b') c"
    assert refused == "cannot assign to field 'a'"
    *told, file = made.split(maxsplit=4)
    assert told == ["A.__init__", "shapes", "<class", "'int'>"]
    assert file.endswith(f"{methods.MODULE}.py")


def test_a_class_without_a_source_is_compiled_at_run_time(tmp_path: Path) -> None:
    script = """
import dataclasses
made = dataclasses.make_dataclass("Made", ["x"])
print(made(3), made.__init__.__code__.co_filename)
"""
    assert run(tmp_path, "", script).split() == ["Made(x=3)", "<string>"]
