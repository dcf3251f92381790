"""Encryption, public access, and the findings of a security linter."""

import json
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.workspace.templates import REPOSITORY, Compiled, of_type

HERE = REPOSITORY.root / "tests" / "workspace"
EXCEPTIONS = tomllib.loads((HERE / "security_exceptions.toml").read_text(encoding="utf-8"))

type Failure = tuple[str, str, str]
"""The check's id, the resource, what the check is."""


@pytest.fixture(scope="module")
def failures(compiled: Compiled, tmp_path_factory: pytest.TempPathFactory) -> list[Failure]:
    """The findings of checkov in the stack of prod."""
    return linted(compiled("prod"), tmp_path_factory.mktemp("lint"))


def linted(template: dict[str, Any], folder: Path) -> list[Failure]:
    path = folder / "template.json"
    path.write_text(json.dumps(template), encoding="utf-8")
    done = subprocess.run(
        ["uv", "run", "--quiet", "--locked", "--script", HERE / "security_lint.py", path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0
    return [
        (each["check_id"], each["resource"], each["check_name"])
        for each in report["results"]["failed_checks"]
    ]


def excuses(check: str, resource: str) -> list[str]:
    """The patterns of a check's exception that match a resource."""
    patterns = EXCEPTIONS.get(check, {}).get("resources", [])
    return [pattern for pattern in patterns if fnmatchcase(resource, pattern)]


def test_every_finding_of_the_linter_is_an_exception_with_a_reason(failures: list[Failure]) -> None:
    unexpected = [
        f"{c} {resource}: {what}" for c, resource, what in failures if not excuses(c, resource)
    ]
    assert not unexpected, "\n".join(unexpected)


def test_every_exception_has_its_finding(failures: list[Failure]) -> None:
    used = {(c, pattern) for c, resource, _ in failures for pattern in excuses(c, resource)}
    listed = {(c, pattern) for c, each in EXCEPTIONS.items() for pattern in each["resources"]}
    assert used == listed
    assert all(len(each["reason"].split()) > 5 for each in EXCEPTIONS.values())


def test_the_linter_finds_a_bucket_without_a_public_access_block(tmp_path: Path) -> None:
    template = {"Resources": {"Open": {"Type": "AWS::S3::Bucket", "Properties": {}}}}
    found = {check for check, _, _ in linted(template, tmp_path)}
    assert {"CKV_AWS_53", "CKV_AWS_54", "CKV_AWS_55", "CKV_AWS_56"} <= found - EXCEPTIONS.keys()


@pytest.mark.parametrize("stage", ["prod", "dev"])
def test_stores_are_encrypted_and_buckets_private(compiled: Compiled, stage: str) -> None:
    """Buckets and queues by their services, tables with the account's key, which logs its use."""
    template = compiled(stage)
    for logical, resource in of_type(template, "AWS::S3::Bucket").items():
        properties = resource["Properties"]
        blocked = properties["PublicAccessBlockConfiguration"]
        assert (len(blocked), set(blocked.values())) == (4, {True}), logical
        (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256", logical

    for logical, resource in of_type(template, "AWS::SQS::Queue").items():
        assert resource["Properties"]["SqsManagedSseEnabled"] is True, logical
    for logical, resource in of_type(template, "AWS::DynamoDB::Table").items():
        assert resource["Properties"]["SSESpecification"] == {"SSEEnabled": True}, logical
