"""The policy that `jobplane policy` prints is sufficient and minimal."""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from jobplane.deploy import deployer
from jobplane.tree.names import Names
from tests.workspace.copies import copy_here, jobplane, printed
from tests.workspace.templates import DOMAINS, REPOSITORY, Compiled

ACCOUNT = "123456789012"
COMMITTED = REPOSITORY.root / "docs" / "deployer-policy.json"
# Ids that the service generates: their ARNs don't have a stage's names.
BY_ID = {"apigateway", "kms"}


@pytest.fixture
def document(compiled: Compiled) -> dict[str, Any]:
    return policy(compiled("prod"))


def policy(template: dict[str, Any], stage: str = "prod", **where: str) -> dict[str, Any]:
    given = {"account": ACCOUNT, "region": "eu-west-1", "partition": "aws"} | where
    return deployer.policy(template, REPOSITORY.names(stage), **given)


def actions(document: dict[str, Any]) -> set[str]:
    return {action for it in document["Statement"] for action in it["Action"]}


def test_the_copy_in_docs_is_current(document: dict[str, Any]) -> None:
    """uv run jobplane docs policy"""
    assert json.loads(COMMITTED.read_text()) == document


def test_the_policy_needs_no_artifacts_and_no_account(tmp_path: Path) -> None:
    clone = copy_here(tmp_path / "clone")
    assert printed(jobplane(clone, "policy", "--account", ACCOUNT)) == json.loads(
        COMMITTED.read_text()
    )
    assert not clone.dist.exists()


def test_the_policy_allows_each_resource(compiled: Compiled, document: dict[str, Any]) -> None:
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    granted = {action.lower() for action in actions(document)}
    for kind in {resource["Type"] for resource in compiled("prod")["Resources"].values()}:
        service = deployer.SERVICES[kind.split("::")[1]]
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema["handlers"]
        called = {action for each in handlers.values() for action in each["permissions"]}
        left_out = tuple(f"{service}:{name}" for name in deployer.NOT_NEEDED.get(service, ()))
        missing = {
            action
            for action in called
            if action.startswith(f"{service}:")
            and not action.startswith(left_out)
            and action.lower() not in granted
        }
        assert missing == set(), kind


def test_the_policy_allows_nothing_on_data(document: dict[str, Any]) -> None:
    data = (
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "kms:Decrypt",
        "ssm:GetParameter",
        "ssm:GetParameterHistory",
        "ssm:GetParameters",
        "ssm:GetParametersByPath",
    )
    assert actions(document).isdisjoint(data)
    for statement in document["Statement"]:
        if {"s3:GetObject", "s3:PutObject"} & set(statement["Action"]):
            assert all("serverlessdeploymentbuck" in each for each in statement["Resource"])
        if "s3:ListBucket" in statement["Action"]:
            assert "*" not in statement["Resource"]


def test_the_policy_allows_later_settings(compiled: Compiled, document: dict[str, Any]) -> None:
    later = compiled("prod", None, *DOMAINS, "alarmMail=team@example.org")
    warm = {"Resources": {**later["Resources"], "Warm": {"Type": "AWS::Lambda::Alias"}}}
    assert policy(warm) == document


@pytest.mark.parametrize(
    ("service", "bucket"),
    [
        ("jobplane", "jobplane-prod-serverlessdeploymentbucket-125ittyvyw7uz"),
        # As CloudFormation cuts a name of more than 63 characters.
        ("acme-background-jobs", "acme-background-jobs-pro-serverlessdeploymentbuck-125ittyvyw7u"),
        ("acme-background-jobs", "acme-background-jobs-prod-serverlessdeploymentbuck-125ittyvyw7"),
    ],
)
def test_the_policy_allows_the_deployment_bucket_with_a_shortened_name(
    compiled: Compiled, service: str, bucket: str
) -> None:
    where = {"account": ACCOUNT, "region": "eu-west-1", "partition": "aws"}
    found = deployer.policy(compiled("prod"), Names(service, "prod"), **where)
    for action, on in (
        ("s3:CreateBucket", bucket),
        ("s3:PutObject", f"{bucket}/serverless/{service}/prod/claim.zip"),
        ("s3:DeleteBucket", bucket),
    ):
        assert any(
            action in it["Action"]
            and any(fnmatchcase(f"arn:aws:s3:::{on}", arn) for arn in it["Resource"])
            for it in found["Statement"]
        ), action


def test_the_policy_allows_tags_of_event_source_mappings(document: dict[str, Any]) -> None:
    """Their ARNs have no function's name."""
    mapping = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:event-source-mapping:6ca1bb14"
    assert any(
        "lambda:TagResource" in it["Action"]
        and any(fnmatchcase(mapping, arn) for arn in it["Resource"])
        for it in document["Statement"]
    )


def test_every_resource_of_the_policy_is_of_the_stage(document: dict[str, Any]) -> None:
    assert not [action for action in actions(document) if "*" in action]
    for statement in document["Statement"]:
        service = statement["Action"][0].partition(":")[0]
        if statement["Resource"] == ["*"]:
            loose = [it for it in statement["Action"] if not deployer._is_on_all(it)]
            assert loose == []
        elif service not in BY_ID:
            names = REPOSITORY.names("prod")
            named = (names.stack, names.parameter(""), "event-source-mapping:")
            assert all(any(name in each for name in named) for each in statement["Resource"])


@pytest.mark.parametrize(
    ("region", "partition", "longest"),
    [("eu-west-1", "aws", 29), ("ap-southeast-5", "aws", 24), ("us-gov-west-1", "aws-us-gov", 25)],
)
def test_the_policy_fits_in_a_role(
    compiled: Compiled, region: str, partition: str, longest: int
) -> None:
    """10,240 characters for a role's inline policies, with the longest names of buckets."""
    names = Names("s" * (longest - len("-prod")), "prod")
    where = {"account": ACCOUNT, "region": region, "partition": partition}
    assert len(f"{names.of('quarantine')}-{ACCOUNT}-{region}") == 63
    document = deployer.policy(compiled("prod"), names, **where)
    assert len(json.dumps(document, separators=(",", ":"))) <= 10_240


def test_the_policys_arns_are_of_the_partition(compiled: Compiled) -> None:
    there = policy(compiled("prod"), "eu", region="cn-north-1", partition="aws-cn")
    arns = [arn for it in there["Statement"] for arn in it["Resource"] if arn != "*"]
    assert all(arn.startswith("arn:aws-cn:") for arn in arns)
    assert any(f"table/{REPOSITORY.names('eu').prefix}*" in arn for arn in arns)


def test_an_unknown_type_of_resource_is_an_error() -> None:
    template = {"Resources": {"It": {"Type": "AWS::Nothing::Thing"}}}
    with pytest.raises(deployer.UnknownTypeError, match="AWS::Nothing::Thing"):
        policy(template)
