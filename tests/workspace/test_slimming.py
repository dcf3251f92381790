"""What else is changed in third-party modules: patches, patterns, docstrings."""

import ast
import re
from pathlib import Path

import pytest

from jobplane import cold_start
from jobplane.patches import PATCHES, PatchError, check_modules, patched
from jobplane.patterns import precompile
from jobplane.sdk import cut_aliases, cut_handlers
from jobplane.trimming import trim

MODULE = Path("botocore/compat.py")


@pytest.mark.parametrize("times", [0, 2])
def test_a_place_that_is_not_there_once_ends_the_build(times: int) -> None:
    """A library that no longer has the place, or has it twice, is named with it."""
    ((old, _),) = PATCHES["botocore"][MODULE.as_posix()]
    with pytest.raises(PatchError, match=r"botocore/compat\.py has \d times what"):
        patched("botocore", MODULE, f"{old}\n" * times)


def test_a_module_that_is_gone_ends_the_build(tmp_path: Path) -> None:
    """A patched module that a library no longer has is named."""
    with pytest.raises(PatchError, match=r"urllib3 has no urllib3/util/connection\.py"):
        check_modules("urllib3", tmp_path)


def test_patterns_are_those_that_re_compiles() -> None:
    """A pattern from its parts, with flags and named groups, equals the one that re makes."""
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
    code = text.replace("from cold_start ", "from jobplane.cold_start ")
    exec(code, changed)  # noqa: S102 - the module above
    exec(source, original)  # noqa: S102 - the module above
    assert changed["WORD"] == original["WORD"]
    assert changed["PLAIN"] == original["PLAIN"]
    word = changed["WORD"]
    assert isinstance(word, re.Pattern)
    assert word.fullmatch("17")["id"] == "17"  # type: ignore[index]


def test_another_engine_compiles_the_pattern() -> None:
    """With another version of the engine the shipped code is not used."""
    pattern = cold_start.precompiled("a+", re.IGNORECASE, 0, b"", 0, 0, {}, ())
    assert pattern == re.compile("a+", re.IGNORECASE)


def test_patterns_of_unknown_parts_stay() -> None:
    """What can't be computed at build time is left to the program."""
    tree = ast.parse("import re\nfrom x import PART\nA = re.compile(PART)\n")
    assert not precompile(tree)


def test_a_reader_of_docstrings_keeps_them() -> None:
    """A module that looks at `__doc__` or annotations is not trimmed; others are."""
    reader = 'def f(a: int):\n    """D."""\nprint(f.__doc__)\n'
    other = 'def f(a: int) -> int:\n    """D."""\n'
    trees = {source: ast.parse(source) for source in (reader, other)}
    for source, tree in trees.items():
        trim(tree, source)
    assert "D." in ast.unparse(trees[reader])
    assert ast.unparse(trees[other]) == "def f(a):\n    pass"


def test_handlers_of_other_services_go() -> None:
    """Events of kept services and of all of them stay; other services' and documentation's go."""
    source = (
        "BUILTIN_HANDLERS = [('before-call.s3', a), ('before-call.ec2.X', b), ('docs.*.s3', c), "
        "('choose-signer', d), ('before-parse.*', e), ('new-kind.ec2', f)]\nREST = 1\n"
    )
    kept = re.findall(r"'([^']+)'", cut_handlers(source, {"s3"}))
    assert kept == ["before-call.s3", "choose-signer", "before-parse.*", "new-kind.ec2"]


def test_aliases_of_other_services_go() -> None:
    """An alias stays with the service that it stands for."""
    source = "EVENT_ALIASES = {'api.pricing': 'pricing', 'states': 'sfn'}\n"
    assert cut_aliases(source, {"sfn"}) == "EVENT_ALIASES = {'states': 'sfn'}\n"
