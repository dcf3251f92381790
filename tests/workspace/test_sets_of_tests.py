"""The two sets of tests: what `uv run pytest` runs, and what --everything runs as well."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import LONG, pytest_ignore_collect, unmet

LINES = [line for line in LONG.read_text().splitlines() if line and not line.startswith("#")]
MODULES = set(LONG.parent.rglob("test_*.py"))


def left_out(*, everything: bool) -> set[Any]:
    config: Any = SimpleNamespace(option=SimpleNamespace(everything=everything))
    return {module for module in MODULES if pytest_ignore_collect(module, config)}


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_long_txt_names_modules_that_no_other_names(line: str) -> None:
    """A module that was renamed would silently run in the short set."""
    named = set(LONG.parent.glob(line))
    assert named
    assert named <= MODULES
    for other in LINES:
        assert other == line or named.isdisjoint(LONG.parent.glob(other)), other


def test_what_the_short_set_leaves_out_runs_with_everything() -> None:
    """Nothing but modules of functions that are not in the tree is left out of both."""
    named = {module for line in LINES for module in LONG.parent.glob(line)}
    assert left_out(everything=True) == unmet()
    assert left_out(everything=False) == named | unmet()
