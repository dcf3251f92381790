"""Copies of a workspace: the files that git does not ignore, and the tools."""

from pathlib import Path

import pytest

from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository

WRITTEN = {".gitignore", "uv.lock", "functions/claim/claim.py", "docs/index.md"}
LEFT_OUT = {".git/HEAD", "dist/claim.zip", "functions/claim/__pycache__/claim.pyc", "a.egg-info/x"}


@pytest.fixture
def source(tmp_path: Path) -> Repository:
    """A tree with every kind of file."""
    root = tmp_path / "source"
    for name in WRITTEN | LEFT_OUT | {"node_modules/osls/package.json"}:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("dist/\n__pycache__/\n*.egg-info/\nnode_modules/\n")
    return Repository(root)


def names(repository: Repository) -> set[str]:
    """The files, without those behind links."""
    found = repository.root.rglob("*")
    return {path.relative_to(repository.root).as_posix() for path in found if path.is_file()}


def test_a_copy_omits_files_that_git_ignores(source: Repository, tmp_path: Path) -> None:
    """And folders by name; changes of a copy do not reach the source."""
    copy = copy_repository(source, tmp_path / "copy")
    assert names(copy) == WRITTEN
    assert (copy.root / "uv.lock").read_text() == "uv.lock"
    (copy.root / "uv.lock").write_text("changed")
    assert (source.root / "uv.lock").read_text() == "uv.lock"
    without = copy_repository(source, tmp_path / "without", without=("docs",))
    assert names(without) == WRITTEN - {"docs/index.md"}


def test_a_copy_of_a_copy_links_the_first_ones_tools(source: Repository, tmp_path: Path) -> None:
    first = copy_repository(source, tmp_path / "first")
    second = copy_repository(first, tmp_path / "second")
    assert (second.root / "node_modules").readlink() == source.root / "node_modules"
