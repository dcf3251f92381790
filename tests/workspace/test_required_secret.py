"""`jobplane deploy` requires the parameter with the signing secret, without reading it."""

from pathlib import Path
from unittest.mock import Mock

import boto3
import click
import pytest
import yaml
from moto import mock_aws

from jobplane.deploy import shipping
from jobplane.deploy.compiled import Package
from jobplane.stage.signing import jwt_secret, secret_name
from jobplane.stage.stages import Stage, State
from jobplane.tree.configuration import logical_id
from jobplane.tree.repository import Repository
from tests.workspace.copies import copy_here, edit

FUNCTIONS = [it for it in Repository.here().functions() if it.name in ("claim", "status")]


def compiled_with(secret: str) -> Package:
    """A stack in which status verifies tokens, and claim does not."""
    variables = {"claim": {}, "status": {"JWT_SECRET": f"ssm:{secret}"}}
    resources = {
        logical_id(it): {"Properties": {"Environment": {"Variables": variables[it.name]}}}
        for it in FUNCTIONS
    }
    return Package(Path(), {"Resources": resources})


@mock_aws
def test_the_compiled_parameter_must_exist() -> None:
    """Also one of serverless.yml or --param; a name with the same prefix does not count."""
    ssm = boto3.client("ssm", region_name="eu-west-1")
    ssm.put_parameter(Name="/shared/signing-2", Value="x", Type="SecureString")
    read = Mock(side_effect=AssertionError("a value was read"))
    ssm.get_parameter = ssm.get_parameters = ssm.get_parameters_by_path = read
    stage = Mock(is_local=False, client={"ssm": ssm}.__getitem__)
    package = compiled_with("/shared/signing")
    with pytest.raises(click.ClickException, match="--name /shared/signing --type SecureString"):
        shipping._require_secrets(stage, FUNCTIONS, package)
    ssm.put_parameter(Name="/shared/signing", Value="x", Type="SecureString")
    shipping._require_secrets(stage, FUNCTIONS, package)


@mock_aws
def test_a_missing_parameter_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    ssm = boto3.client("ssm", region_name="eu-west-1")
    stage = Stage(Repository.here(), "prod")
    monkeypatch.setattr(Stage, "client", lambda _self, _service: ssm)
    ssm.put_parameter(Name=secret_name(stage), Value=" , ,", Type="SecureString")
    with pytest.raises(click.ClickException, match=f"{secret_name(stage)} is empty: put a secret"):
        jwt_secret(stage)
    ssm.put_parameter(Name=secret_name(stage), Value="new, old", Type="String", Overwrite=True)
    assert jwt_secret(stage) == "new"


@pytest.mark.parametrize(
    ("block", "value", "is_local", "name"),
    [
        ("default", "ssm:/${self:service}/${sls:stage}/other", False, "/jobplane/dev/other"),
        ("dev", "ssm:/shared/${self:custom.stages.default.branch}", False, "/shared/main"),
        ("emulated", "ssm:/emulated/${sls:stage}", True, "/emulated/dev"),
        ("emulated", "ssm:/emulated/plain", True, "/emulated/plain"),
        ("emulated", "ssm:/emulated/plain", False, "/jobplane/dev/jwt-secret"),
        ("staging", "ssm:/shared/signing", False, "/jobplane/dev/jwt-secret"),
    ],
)
def test_the_required_parameter_is_the_compiled_one(
    tmp_path: Path, block: str, value: str, is_local: bool, name: str
) -> None:
    """Of any block, with its variables resolved."""
    repository = copy_here(tmp_path)
    edit(repository, "serverless.yml", "    staging:\n", "    dev: {}\n    staging:\n")
    edit(repository, "serverless.yml", "      jwtSecret: ''\n", "")
    document = yaml.safe_load((repository.root / "serverless.yml").read_text())
    document["custom"]["stages"][block]["jwtSecret"] = value
    (repository.root / "serverless.yml").write_text(yaml.safe_dump(document))
    stage = Stage(repository, "dev")
    if is_local:
        state = State(pid=1, started="", port=1, region="eu-west-1", log="", jwt_secret="x")
        stage.write_state(state)
    assert secret_name(stage) == name
