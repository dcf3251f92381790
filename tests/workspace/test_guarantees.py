"""Each guarantee of docs/architecture.md names tests that hold it, and these exist."""

import ast
import re
from functools import cache

import pytest

from jobplane.tree.repository import Repository

ROOT = Repository.here().root
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> list[str]:
    """The rows of the tables whose last column is `test`."""
    found: list[str] = []
    is_within = False
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        is_within = line.startswith("|") and (is_within or line.endswith("| test |"))
        if is_within and not line.endswith(("| test |", "|---|")):
            found.append(line)
    return found


@cache
def names_in(module: str) -> frozenset[str]:
    """The names of a module's tests; none if the module does not exist."""
    path = ROOT / "tests" / module
    body = ast.parse(path.read_text()).body if path.is_file() else []
    functions = (each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(each.name for each in functions)


def test_the_tables_are_read() -> None:
    assert len(rows()) > 40
    assert "test_the_tables_are_read" in names_in("workspace/test_guarantees.py")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip()[:60])
def test_a_guarantee_names_tests_that_exist(row: str) -> None:
    what, *_, column = row.strip("| ").split(" | ")
    named = TEST.findall(column)
    assert named, f"name the tests that hold: {what}"
    assert "<br>".join(f"`{module}::{name}`" for module, name in named) == column
    missing = [f"{module}::{name}" for module, name in named if name not in names_in(module)]
    assert not missing, f"docs/architecture.md names tests that don't exist: {missing}"
