"""The pictures of the documentation."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from jobplane.reference.pictures import FOLDER, job_flow, pictures, system
from jobplane.stage.framework import install_framework
from jobplane.tree.repository import Repository

HERE = Repository.here()


@pytest.fixture(scope="module")
def drawn() -> dict[Path, str]:
    install_framework(HERE)
    return pictures(HERE)


def test_the_pictures_are_current(drawn: dict[Path, str]) -> None:
    """There is no other file."""
    assert {path.name for path in (HERE.root / FOLDER).glob("*.svg")} == {p.name for p in drawn}
    for path, svg in drawn.items():
        assert (HERE.root / path).read_text(encoding="utf-8") == svg, "run `jobplane docs pictures`"
        ElementTree.fromstring(svg)  # noqa: S314 - of our own making


def test_the_picture_of_the_system_has_every_function() -> None:
    dot = system(HERE)
    for function in HERE.functions():
        assert f'"{function.name}" [' in dot


def test_the_documentation_shows_every_picture(drawn: dict[Path, str]) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (HERE.root / "docs").glob("*.md"))
    for path in drawn:
        assert f"(pictures/{path.name})" in text


def test_the_picture_of_the_job_flow_has_choices_catches_and_ends() -> None:
    dot = job_flow(HERE)
    for edge in ('"IsClaimed" -> "WorkspaceBusy"', '"ReleaseClaim" -> "Completed"'):
        assert edge in dot
    assert '"SendToContainer" -> "RecordPreemption" [label="PREEMPTED"]' in dot
