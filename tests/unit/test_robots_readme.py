"""The README of the robots: its example and its table."""

from __future__ import annotations

import io
import re
from pathlib import Path

from jobplane_robots import MemorySink, Robot, RobotInput, get_robot, robot_names

README = Path(__file__).parents[2] / "libs/robots/README.md"
TEXT = README.read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def execute(code: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, str(README), "exec", dont_inherit=True), names)  # noqa: S102  # our own README
    return names


def test_the_example_of_the_readme_is_a_working_robot() -> None:
    head = execute(EXAMPLES[1])["head"]
    assert isinstance(head, Robot)
    sink = MemorySink()
    head.run(RobotInput("a.txt", lambda: io.BytesIO(b"hello"), 5), {"bytes": 2}, sink)
    assert sink.files[0].data == b"he"


def test_the_readmes_table_has_every_robot_and_option() -> None:
    rows = {row.split("`")[1]: row for row in TEXT.splitlines() if row.startswith("| `/")}
    assert rows.keys() == set(robot_names())
    for name, row in rows.items():
        for option in get_robot(name).options.model_fields:
            assert f"`{option}`" in row, (name, option)
