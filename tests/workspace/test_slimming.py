"""Other changes of third-party modules: patches, patterns, docstrings."""

import ast
import platform
import re
from pathlib import Path

import botocore
import pytest

from lambdapack.thinning import cold_start
from lambdapack.thinning.patches import PATCHES, PatchError, patched
from lambdapack.thinning.patterns import precompile
from lambdapack.thinning.sdk import cut_aliases, cut_handlers
from lambdapack.thinning.slimming import CUT, begun_cold
from lambdapack.thinning.trimming import trim, without_fields

MODULE = Path("botocore/compat.py")
INSTALLED = Path(botocore.__file__).parents[1]


@pytest.mark.parametrize("times", [0, 2])
def test_a_patch_whose_place_does_not_occur_once_does_not_fit(times: int) -> None:
    old, _ = PATCHES["botocore"][MODULE.as_posix()][0]
    with pytest.raises(PatchError, match=r"botocore/compat\.py has \d times what"):
        patched("botocore", MODULE, f"{old}\n" * times)


@pytest.mark.parametrize("package", PATCHES)
def test_the_locked_versions_have_every_place(package: str) -> None:
    """Otherwise starts become slower, and only a line of the build says so."""
    for module in map(Path, PATCHES[package]):
        source = (INSTALLED / module).read_text(encoding="utf-8")
        assert patched(package, module, source) != source


def test_the_locked_versions_have_every_module_that_is_left_out() -> None:
    for modules in CUT.values():
        assert all((INSTALLED / module).exists() for module in modules)


def test_a_precompiled_pattern_equals_that_of_re() -> None:
    source = """
import re
PART = "[a-z]+"
ALL = "|".join([x % {"p": PART} for x in ["%(p)s-", "(?P<id>[0-9]+)"]])
WORD = re.compile(f"^(?:{ALL})$", re.IGNORECASE | re.VERBOSE)
PLAIN = re.compile(rb"[^\\x00]")
"""
    tree = ast.parse(source)
    assert precompile(tree)
    text = ast.unparse(tree)
    assert "re.compile" not in text
    changed: dict[str, object] = {}
    original: dict[str, object] = {}
    code = text.replace("from cold_start ", "from lambdapack.thinning.cold_start ")
    exec(code, changed)  # noqa: S102 - the module above
    exec(source, original)  # noqa: S102 - the module above
    assert changed["WORD"] == original["WORD"]
    assert changed["PLAIN"] == original["PLAIN"]
    word = changed["WORD"]
    assert isinstance(word, re.Pattern)
    assert word.fullmatch("17")["id"] == "17"  # type: ignore[index]


def test_another_version_of_the_engine_compiles_the_pattern_itself() -> None:
    pattern = cold_start.precompiled("a+", re.IGNORECASE, 0, b"", 0, 0, {}, ())
    assert pattern == re.compile("a+", re.IGNORECASE)


def test_a_pattern_with_unknown_parts_is_unchanged() -> None:
    tree = ast.parse("import re\nfrom x import PART\nA = re.compile(PART)\n")
    assert not precompile(tree)


def test_a_module_that_reads_docstrings_keeps_them() -> None:
    reader = 'def f(a: int):\n    """D."""\nprint(f.__doc__)\n'
    other = 'def f(a: int) -> int:\n    """D."""\n'
    assert "D." in trimmed(reader)
    assert trimmed(other) == "def f(a):\n    pass"


def test_event_handlers_of_other_services_are_removed() -> None:
    source = (
        "BUILTIN_HANDLERS = [('before-call.s3', a), ('before-call.ec2.X', b), ('docs.*.s3', c), "
        "('choose-signer', d), ('before-parse.*', e), ('new-kind.ec2', f)]\nREST = 1\n"
    )
    kept = re.findall(r"'([^']+)'", cut_handlers(source, {"s3"}))
    assert kept == ["before-call.s3", "choose-signer", "before-parse.*", "new-kind.ec2"]


def test_aliases_of_other_services_are_removed() -> None:
    source = "EVENT_ALIASES = {'api.pricing': 'pricing', 'states': 'sfn'}\n"
    assert cut_aliases(source, {"sfn"}) == "EVENT_ALIASES = {'states': 'sfn'}\n"


@pytest.mark.parametrize(
    "source",
    [
        '"""Docs."""\n\nfrom __future__ import annotations\n\nimport os\nx = 1\n',
        "from os import path\nx = 1\n",
        '"""Docs,\nin lines."""\nfrom os import (\n    path,\n)\nx = 1\n',
    ],
)
def test_a_functions_module_calls_the_helper_first_and_last(source: str) -> None:
    """Line numbers and docstring stay."""
    before, after = ast.parse(source), ast.parse(begun_cold(source.encode()))
    assert ast.get_docstring(after) == ast.get_docstring(before)
    assert after.body[-2].lineno == before.body[-1].lineno
    assert ast.unparse(after.body[-1]) == "__import__('cold_start').end()"
    first = next(
        n
        for n, node in enumerate(after.body)
        if ast.unparse(node) == "__import__('cold_start').begin()"
    )
    assert len(after.body) == len(before.body) + 2
    assert "import" in ast.unparse(after.body[first + 1])


def test_page_feeds_and_unicode_separators_are_no_line_ends() -> None:
    source = '\x0cimport os\nSEPARATORS = "\u2028\x85"\n'
    first, second, *_ = begun_cold(source.encode()).decode().split("\n")
    assert first == "\x0c__import__('cold_start').begin(); import os"
    assert second == 'SEPARATORS = "\u2028\x85"'


def test_a_function_without_imports_is_unchanged() -> None:
    source = '"""Docs."""\n\nx = 1\n'
    assert begun_cold(source.encode()) == source.encode()


@pytest.mark.parametrize(
    "name", ["machine", "node", "python_implementation", "python_version", "release", "system"]
)
def test_the_user_agent_equals_that_of_the_standard_library(name: str) -> None:
    assert getattr(cold_start.platform, name)() == getattr(platform, name)()


def test_fields_of_typed_dicts_are_removed() -> None:
    tree = ast.parse(
        "class A(TypedDict, total=False):\n    x: int\n\nclass B(Plain):\n    y: int\n"
    )
    without_fields(tree)
    assert ast.unparse(tree) == (
        "class A(TypedDict, total=False):\n    pass\n\nclass B(Plain):\n    y: int"
    )


def trimmed(source: str, **options: bool) -> str:
    tree = ast.parse(source)
    trim(tree, source, **options)
    return ast.unparse(tree)


def test_types_of_named_tuples_fields_are_removed() -> None:
    text = trimmed("class A(typing.NamedTuple):\n    x: 'Other | None'\n    y: int = 1\n")
    assert text == "class A(typing.NamedTuple):\n    x: None\n    y: None = 1"


def test_a_package_that_reads_its_users_docstrings_loses_its_own() -> None:
    source = 'def text(of) -> str:\n    """Docs."""\n    return of.__doc__\n'
    assert trimmed(source, reads_others=True) == "def text(of):\n    return of.__doc__"
