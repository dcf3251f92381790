"""Importing the module of a function by its file."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobplane.tree.modules import imported
from jobplane.tree.repository import Function


@pytest.fixture
def function(tmp_path: Path) -> Function:
    """One that is the first to import a library."""
    (tmp_path / "only_here.py").write_text("class Refused(Exception): ...\n")
    (tmp_path / "some_function.py").write_text("import only_here\n")
    return Function("some-function", tmp_path)


def test_a_library_that_a_function_imports_first_stays_the_only_copy(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(function.directory)
    with imported(function) as first:
        assert sys.modules["some_function"] is first
    with imported(function) as second:
        assert second is not first
        assert second.only_here.Refused is first.only_here.Refused
    assert sys.modules.pop("only_here") is first.only_here
    assert "some_function" not in sys.modules


def test_a_module_of_the_same_name_comes_back(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an error."""
    before = ModuleType("some_function")
    monkeypatch.setitem(sys.modules, "some_function", before)
    function.source.write_text("raise LookupError")
    with pytest.raises(LookupError), imported(function):
        pass
    assert sys.modules["some_function"] is before
