"""The naming rules: one word for a function wherever it is named."""

import re
import tomllib

import pytest

from jobplane.template import Template
from jobplane.workspace import Function, Workspace, read_yaml

WORKSPACE = Workspace.here()
FOLDERS = sorted(path.parent for path in WORKSPACE.root.glob("functions/*/pyproject.toml"))
FUNCTIONS = WORKSPACE.functions()
FORBIDDEN = {"handler", "main", "app", "utils", "helpers", "common"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_folder_member_and_module_have_one_name(function: Function) -> None:
    """functions/<name> is the member jobplane-<name> with the module of the same words."""
    project = tomllib.loads((function.directory / "pyproject.toml").read_text())["project"]
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", function.name)
    assert project["name"] == function.member
    assert [path.name for path in function.directory.glob("*.py")] == [function.source.name]
    assert function.module not in FORBIDDEN
    assert "def handler(event" in function.source.read_text()


def test_every_member_is_a_function() -> None:
    """A folder of functions/ has a pyproject.toml, a function.yml and its module."""
    assert [folder.name for folder in FOLDERS] == [function.name for function in FUNCTIONS]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_configuration_is_plain(function: Function) -> None:
    """function.yml says what every function must say, and nothing that is derived."""
    config = function.config
    assert {"description", "memorySize", "timeout", "iamRoleStatements"} <= set(config)
    assert not {"handler", "name", "role", "package", "runtime"} & set(config)
    for statement in config["iamRoleStatements"]:
        assert set(statement) >= {"Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_environment_resolves(function: Function) -> None:
    """Every variable and reference of the environment leads somewhere."""
    environment = Template(WORKSPACE).environment(function)
    assert environment["TABLE_PREFIX"] == "jobplane-test-"
    assert not [value for value in environment.values() if "${" in value]


def test_framework_is_pinned() -> None:
    """package.json, its lock and serverless.yml name one version; the lock names no host."""
    import json

    package = json.loads((WORKSPACE.root / "package.json").read_text())
    lock = (WORKSPACE.root / "package-lock.json").read_text()
    version = package["devDependencies"]["osls"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert json.loads(lock)["packages"]["node_modules/osls"]["version"] == version
    assert read_yaml(WORKSPACE.root / "serverless.yml")["frameworkVersion"] == version
    assert '"resolved"' not in lock
