"""Deferred imports: which are deferred, and that a changed module behaves the same."""

import sys
import textwrap
from pathlib import Path

import pytest

from lambdapack.thinning import cold_start
from lambdapack.thinning.deferral import defer_imports, starred
from tests.workspace.copies import program, succeeded


def changed(source: str, **options: object) -> str:
    return defer_imports(textwrap.dedent(source), **options)  # type: ignore[arg-type]


def run(tmp_path: Path, script: str, **modules: str) -> str:
    """Run a script beside modules, each changed as an artifact's would be."""
    names = frozenset(name.replace("__init__", "").strip(".") for name in modules)
    (tmp_path / "cold_start.py").write_text(Path(cold_start.__file__).read_text())
    for name, source in modules.items():
        package = name.removesuffix(".__init__") if name.endswith("__init__") else None
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed(source, package=package, modules=names))
    code = f"import sys; sys.path.insert(0, '.')\n{textwrap.dedent(script)}"
    return succeeded(program(sys.executable, "-c", code, cwd=tmp_path))


def test_an_import_that_only_functions_use_is_deferred(tmp_path: Path) -> None:
    module = """
    import colorsys

    def convert():
        return colorsys.rgb_to_hsv(0, 0, 1)[2]
    """
    script = """
    import paint
    print("colorsys" in sys.modules)
    print(paint.convert(), paint.convert(), "colorsys" in paint.__dict__)
    """
    assert run(tmp_path, script, paint=module).split() == ["False", "1", "1", "True"]


@pytest.mark.parametrize(
    "use",
    [
        "class A(colorsys.B): pass",
        "VALUE = colorsys.x",
        "def f(a=colorsys.x): pass",
        "@colorsys.x\ndef f(): pass",
        "def f(a: colorsys.B): pass",
        "f = lambda: colorsys.x",
        "type A = colorsys.B",
        "def f():\n    global colorsys\n    colorsys = 1",
        "if 1:\n    import colorsys",
        "try:\n    x = 1\nexcept OSError as colorsys:\n    pass",
        "def f():\n    return globals()['colorsys']",
        "def __getattr__(name): return colorsys.x",
    ],
)
def test_an_import_used_at_import_time_is_unchanged(use: str) -> None:
    source = f"import colorsys\n{use}\n\ndef g():\n    return colorsys.x\n"
    assert defer_imports(source) == source


def test_other_modules_find_a_deferred_name(tmp_path: Path) -> None:
    """By `from module import name`, `module.name` and `*`."""
    module = """
    from colorsys import rgb_to_hsv as convert
    __all__ = ["convert"]
    """
    script = """
    from paint import *
    from paint import convert as again
    import paint
    print(convert is again is paint.convert, hasattr(paint, "other"))
    """
    assert run(tmp_path, script, paint=module).split() == ["True", "False"]


@pytest.mark.parametrize(
    ("imports", "calls", "printed"),
    [
        ("from shop.till import other", "shop.till.other(), shop.other()", "up up"),
        # The function, not the module.
        ("from shop.till import till, other", "shop.other(), shop.till()", "up rung"),
    ],
)
def test_a_package_gives_submodules_and_their_names(
    tmp_path: Path, imports: str, calls: str, printed: str
) -> None:
    till = "def till(): return 'rung'\ndef other(): return 'up'"
    modules = {"shop.__init__": imports, "shop.till": till}
    script = f"import shop\nprint({calls})"
    assert run(tmp_path, script, **modules) == f"{printed}\n"


def test_a_compiled_pattern_is_deferred(tmp_path: Path) -> None:
    module = """
    import re
    PART = "[a-z]+"
    WORD = re.compile(f"{PART}!", re.IGNORECASE)

    def shouts(text):
        return bool(WORD.match(text))
    """
    script = """
    import words
    print("WORD" in words.__dict__, words.shouts("HO!"), "WORD" in words.__dict__)
    """
    assert run(tmp_path, script, words=module).split() == ["False", "True", "True"]


@pytest.mark.parametrize(
    "body",
    [
        "if colorsys.ONE_THIRD:\n        return 1",
        "try:\n        raise ValueError\n    except (colorsys.Error if 0 else ValueError):\n"
        "        return 1",
        "for _ in [colorsys.ONE_THIRD]:\n        return 1",
        "with colorsys_of(colorsys):\n        return 1",
        "def inner(a=colorsys.ONE_THIRD):\n        return 1\n    return inner()",
        "class Inner:\n        value = colorsys.ONE_THIRD\n    return 1",
        "match 1 / 3:\n        case colorsys.ONE_THIRD:\n            return 1",
        "if 0:\n        pass\n    elif colorsys.ONE_THIRD:\n        return 1",
        "return [1 for colorsys in [1]][0] * len([colorsys.ONE_THIRD])",
        "return (lambda: colorsys.ONE_THIRD and 1)()",
        "while colorsys.ONE_THIRD:\n        return 1",
    ],
)
def test_a_deferred_name_is_bound_wherever_a_function_uses_it(tmp_path: Path, body: str) -> None:
    module = f"""
import colorsys
import contextlib

def colorsys_of(value):
    return contextlib.nullcontext(value)

def f():
    {body}
"""
    script = """
    import module
    assert "colorsys" not in module.__dict__
    print(module.f())
    """
    assert run(tmp_path, script, module=module) == "1\n"


def test_a_deferred_import_of_a_missing_name_is_an_ImportError(tmp_path: Path) -> None:
    module = """
    from colorsys import nothing_like_it

    def f():
        return nothing_like_it
    """
    script = """
    import module
    try:
        module.f()
    except ImportError as error:
        print(error)
    """
    said = run(tmp_path, script, module=module)
    assert "cannot import name 'nothing_like_it' from 'colorsys'" in said


def test_an_already_changed_module_is_unchanged() -> None:
    """Comments at the top stay, such as a licence."""
    once = changed("# Licensed.\n\nimport colorsys\n\ndef f():\n    return colorsys.x\n")
    assert once.startswith("# Licensed.\n")
    assert "_load_deferred('colorsys')" in once
    assert defer_imports(once) == once


@pytest.mark.parametrize(
    ("module", "is_package", "line", "taken"),
    [
        ("paint.oil", True, "from .thin import *", {"paint.oil.thin"}),
        ("paint.oil", False, "from .thin import *", {"paint.thin"}),
        ("paint.oil.thin", False, "from ..chalk import *", {"paint.chalk"}),
        ("paint", True, "from . import *", {"paint"}),
        ("paint", True, "from chalk import *", {"chalk"}),
        ("paint", True, "from .chalk import white", set()),
    ],
)
def test_a_star_import_is_found(module: str, is_package: bool, line: str, taken: set[str]) -> None:
    assert starred(line, module, is_package=is_package) == taken


def test_a_module_with_star_imports_keeps_its_imports() -> None:
    source = "import colorsys\n\ndef f():\n    return colorsys.x\n"
    listed = f"__all__ = ['colorsys', 'f']\n{source}"
    assert defer_imports(source, is_starred=True) == source
    assert "_load_deferred('colorsys')" in defer_imports(listed, is_starred=True)


def test_a_methods_name_does_not_prevent_a_deferral() -> None:
    """`__getattr__`, or the name of an import."""
    source = (
        "import json\n\nclass A:\n\n    def __getattr__(self, json):\n        return json\n\n"
        "def text(value):\n    return json.dumps(value)\n"
    )
    changed = defer_imports(source)
    assert "import json" not in changed
    assert "_load_deferred('json')" in changed


def test_looking_up_a_packages_names_does_not_run_its_main_module() -> None:
    source = "import json\n\ndef text():\n    return json.dumps(1)\n"
    changed = defer_imports(source, package="p", modules=["p", "p.__main__", "p.part"])
    assert "p.part" in changed
    assert "__main__" not in changed
