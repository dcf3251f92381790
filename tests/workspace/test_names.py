"""The configuration of every function."""

import json
import re

import pytest

from jobplane.tree.repository import Function, Repository, read_yaml
from jobplane.tree.resolved import ResolvedStack

REPOSITORY = Repository.here()
FUNCTIONS = REPOSITORY.functions()


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_function_yml_has_the_required_keys_and_no_derived_ones(function: Function) -> None:
    config = function.config
    assert {"description", "memorySize", "timeout", "iamRoleStatements"} <= set(config)
    assert not {"handler", "name", "role", "package", "runtime"} & set(config)
    for statement in config["iamRoleStatements"]:
        assert set(statement) >= {"Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_variable_and_reference_of_the_environment_resolves(function: Function) -> None:
    environment = ResolvedStack(REPOSITORY).environment(function)
    prefix = REPOSITORY.names("test").prefix
    assert environment.get("TABLE_PREFIX", prefix) == prefix
    assert not [value for value in environment.values() if "${" in value]


def test_the_frameworks_version_is_the_same_in_all_files() -> None:
    """The lock has no host."""
    package = json.loads((REPOSITORY.root / "package.json").read_text())
    lock = (REPOSITORY.root / "package-lock.json").read_text()
    version = package["devDependencies"]["osls"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert json.loads(lock)["packages"]["node_modules/osls"]["version"] == version
    assert read_yaml(REPOSITORY.root / "serverless.yml")["frameworkVersion"] == version
    assert '"resolved"' not in lock
