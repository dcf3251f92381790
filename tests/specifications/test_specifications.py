"""TLC checks each specification, and finds a broken promise for each condition that is left out.

It needs the dependency group `specifications`, and a Java runtime.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.specifications.test_conditions import TABLE
from tests.specifications.tlc import HERE, ToolMissingError, check, implied, java

CONDITIONS: list[tuple[str, str, Any]] = [
    (write.get("size", name), condition, entry)
    for name, actions in TABLE["writes"].items()
    for write in actions.values()
    for condition, entry in write["conditions"].items()
]
SIZES = sorted(
    path.stem for path in HERE.glob("*.cfg") if not path.stem.endswith(("_implied", "_large"))
)
NEEDED = [each for each in CONDITIONS if "breaks" in each[2]]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SIZES)
def test_a_specification_keeps_its_promises(name: str) -> None:
    found = check(name)
    assert found.broken == frozenset(), found.output


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "condition", "entry"), NEEDED, ids=[each[1] for each in NEEDED])
def test_a_condition_that_is_left_out_breaks_its_promise(
    name: str, condition: str, entry: Any
) -> None:
    """As conditions.toml says, which names the test of the code for it."""
    assert entry["breaks"] in check(name, dropped=[condition], processors=1).broken


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "reason", "group"),
    implied(),
    ids=[f"{name}-{reason}" for name, reason, _ in implied()],
)
def test_conditions_that_others_imply_can_be_left_out(
    name: str, reason: str, group: list[str]
) -> None:
    """All that are left out for one reason together, so the table does not claim it by mistake.

    A larger specification has a smaller size for that: NAME_implied.cfg.
    """
    smaller = f"{name}_implied"
    size = smaller if (HERE / f"{smaller}.cfg").exists() else name
    assert check(size, dropped=group).broken == frozenset(), reason


def test_a_missing_runtime_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match="--group specifications --group java"):
        java()
