"""What tests of the workspace share: a built copy, copies to change, compiled templates."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jobplane.tree.repository import Repository
from lambdapack.artifacts import Builder, Settings
from lambdapack.locks import exclusive
from tests.workspace import lib_environments
from tests.workspace.copies import Built, Copy, copy_here, share_wheels
from tests.workspace.templates import Compiled, package


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def built(shared: Path) -> Built:
    """A copy with every function built, and its artifacts; don't change it."""
    repository = Repository(shared / "built")
    with exclusive(Repository(shared / "locks"), "copy"):
        if not repository.root.is_dir():
            copy_here(repository.root)
            share_wheels(Repository.here(), repository)
    artifacts = Builder(repository, Settings.local()).build(repository.functions())
    return repository, {artifact.name: artifact for artifact in artifacts}


@pytest.fixture(scope="session")
def copied(built: Built) -> Copy:
    """Creates a copy of the workspace in a folder, with the installed wheels."""

    def copy(target: Path) -> Repository:
        repository = copy_here(target)
        share_wheels(built[0], repository)
        return repository

    return copy


@pytest.fixture(scope="session")
def compiled(shared: Path) -> Compiled:
    """The template of a stage, compiled once in a run, without credentials or a network."""

    @cache
    def template_of(
        stage: str, endpoint_url: str | None = None, *parameters: str, **variables: str
    ) -> dict[str, Any]:
        given = repr((endpoint_url, parameters, sorted(variables.items())))
        variant = hashlib.sha256(given.encode()).hexdigest()[:8]
        folder = shared / f"compiled-{stage}-{variant}"
        path = folder / "cloudformation-template-update-stack.json"
        with exclusive(Repository(shared), folder.name):
            if not path.is_file():
                package(stage, endpoint_url, parameters, variables, folder)
        template: dict[str, Any] = json.loads(path.read_text())
        return template

    return template_of


@pytest.fixture(scope="session")
def shelf(shared: Path) -> Path:
    """A folder with an sdist and a wheel of every lib."""
    folder = shared / "shelf"
    with exclusive(Repository(shared / "locks"), "shelf"):
        if not folder.is_dir():
            making = shared / "shelf-unfinished"
            making.mkdir(exist_ok=True)
            lib_environments.build(making)
            making.rename(folder)
    return folder
