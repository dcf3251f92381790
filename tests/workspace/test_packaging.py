"""Stages packaged for AWS: in every partition, and so that a deployment can be repeated.

What the emulator's CloudFormation is kinder in is held here, on the template.
"""

import json
import os
import re
import subprocess
from functools import cache
from typing import Any

import pytest

from tests.workspace.templates import REPOSITORY, Compiled, complaints, of_type

REGIONS = ("eu-west-1", "us-east-1", "ap-southeast-5", "cn-north-1", "us-gov-west-1")
STAGES = ("prod", "staging", "dev")
SAMPLE = [("prod", "ap-southeast-5"), ("staging", "cn-north-1"), ("dev", "us-gov-west-1")]
ACCOUNT = "123456789012"
ALL = [(stage, region) for stage in STAGES for region in REGIONS]


@pytest.mark.parametrize(
    ("stage", "region"), ALL if os.environ.get("JOBPLANE_TEST_ALL") else SAMPLE
)
def test_every_stage_can_be_packaged_in_every_partition(
    compiled: Compiled, stage: str, region: str
) -> None:
    """JOBPLANE_TEST_ALL=1 packages all fifteen, not only three."""
    template = compiled(stage, AWS_REGION=region, JOBPLANE_ACCOUNT=ACCOUNT)
    assert complaints(template, region) == []
    too_long = [
        value
        for resource in template["Resources"].values()
        for name, bound in schema(resource["Type"])["properties"].items()
        if isinstance(value := resource.get("Properties", {}).get(name), str)
        and name.endswith("Name")
        and len(value) > bound.get("maxLength", len(value))
    ]
    assert too_long == []


@cache
def schema(kind: str) -> dict[str, Any]:
    """CloudFormation's schema of a resource type, as cfn-lint has it."""
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    found: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-west-1", kind).schema
    return found


def longest_names() -> dict[str, tuple[str, int]]:
    """The plugin's limits."""
    script = "console.log(JSON.stringify(require('./scripts/serverless/name-limits').LIMITS))"
    found = subprocess.check_output(["node", "-e", script], cwd=REPOSITORY.root)
    limits: dict[str, tuple[str, int]] = json.loads(found)
    return limits


def test_the_plugins_limits_of_names_are_those_of_aws() -> None:
    for kind, (name, longest) in longest_names().items():
        # Some schemas have no bound, or one for ARNs as well.
        assert longest <= schema(kind)["properties"][name].get("maxLength", longest), kind


def test_every_type_with_a_name_has_a_limit(compiled: Compiled) -> None:
    limits = longest_names()
    stack = "jobplane-prod"
    for resource in compiled("prod")["Resources"].values():
        for name, value in resource.get("Properties", {}).items():
            own = isinstance(value, str) and value.startswith((stack, f"/aws/lambda/{stack}"))
            if own and name.endswith("Name") and schema(resource["Type"])["properties"][name]:
                is_reference = resource["Type"] not in limits and name in {"FunctionName"}
                assert is_reference or limits[resource["Type"]][0] == name, resource["Type"]


def package(stage: str, region: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["node_modules/.bin/osls", "package", "--stage", stage],
        cwd=REPOSITORY.root,
        env={k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        | {"AWS_REGION": region},
        capture_output=True,
        text=True,
    )


def test_a_stage_with_too_long_a_name_is_refused(compiled: Compiled) -> None:
    """With the name, its length and the longest possible stage."""
    compiled("prod")  # the artifacts and the framework exist
    stage = "preview-of-" + "everybody" * 5
    done = package(stage, "ap-southeast-5")
    assert done.returncode != 0
    said = re.search(
        r"has (\d+) characters, and AWS allows (\d+): use a stage name of at most (\d+)",
        done.stderr + done.stdout,
    )
    assert said is not None, done.stderr + done.stdout
    length, allowed, fits = map(int, said.groups())
    assert fits == len(stage) - (length - allowed)
    assert "    at " not in done.stderr + done.stdout


def test_a_failed_deployment_deletes_resources_that_it_created_with_retain(
    compiled: Compiled,
) -> None:
    """By RetainExceptOnCreate."""
    resources = compiled("prod")["Resources"].values()
    kept = [it for it in resources if it.get("DeletionPolicy", "Delete") != "Delete"]
    assert {it["DeletionPolicy"] for it in kept if it["Type"] != "AWS::Lambda::Version"} == {
        "RetainExceptOnCreate"
    }
    assert {it["Type"] for it in kept} >= {"AWS::DynamoDB::Table", "AWS::S3::Bucket"}
    # UpdateReplacePolicy has no such value.
    assert {it.get("UpdateReplacePolicy", "Retain") for it in kept} == {"Retain"}


def test_the_template_creates_tables_without_protection(compiled: Compiled) -> None:
    """A rollback can't delete a protected table."""
    for stage, marked in (("prod", True), ("dev", None)):
        for table in of_type(compiled(stage), "AWS::DynamoDB::Table").values():
            assert "DeletionProtectionEnabled" not in table["Properties"]
            assert table.get("Metadata", {}).get("ProtectedOnceDeployed") is marked
    recovery = {
        table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        for table in of_type(compiled("prod"), "AWS::DynamoDB::Table").values()
    }
    assert recovery == {True}


def test_every_retained_resource_has_a_literal_name_and_an_importable_type(
    compiled: Compiled,
) -> None:
    template = compiled("prod", JOBPLANE_ACCOUNT=ACCOUNT)
    for name, resource in template["Resources"].items():
        if resource.get("DeletionPolicy") != "RetainExceptOnCreate":
            continue
        described = schema(resource["Type"])
        assert "read" in described["handlers"]
        for path in described["primaryIdentifier"]:
            identifier = resource["Properties"][path.removeprefix("/properties/")]
            assert isinstance(identifier, str), name
