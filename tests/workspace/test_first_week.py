"""docs/deploying.md from an empty account to prod, by its commands alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from jobplane.tree.repository import Repository
from tests.aws_cli import programs as installed
from tests.e2e.documented import UV, blocks
from tests.workspace.account import Cloud, account
from tests.workspace.copies import Built, command_environment, touch

pytestmark = pytest.mark.e2e

ROOT = Repository.here().root
DOCUMENT = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def aws(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An empty account."""
    with account(built, tmp_path_factory.mktemp("week") / "copy") as opened:
        yield opened


def section(heading: str) -> list[str]:
    """The blocks of commands below a heading."""
    return blocks(DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0])


def type_in(aws: Cloud, programs: Path, *scripts: str) -> str:
    """Run blocks in one shell, all of which must succeed."""
    for name, script in {"aws": f'exec {installed() / "aws"} "$@"', "uv": UV}.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    environment = command_environment(aws.repository) | aws.variables
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(scripts)],
        cwd=aws.repository.root,
        env=environment | {"PATH": f"{programs}:{environment['PATH']}", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_documented_commands_deploy_prod(aws: Cloud, tmp_path: Path) -> None:
    """As written: secret, role, policy, deployment and DNS targets."""
    secret, *_ = section("Secrets")
    first, *steps = section("From an empty account to prod")
    typed = [block for block in steps if "acm request-certificate" not in block]
    assert len(typed) == len(steps) - 1  # the emulator issues none
    printed = type_in(aws, tmp_path, first, secret, *typed)
    assert aws.status("prod") == "UPDATE_COMPLETE"
    assert "/prod" in printed
    given = aws.client("iam").get_role_policy(
        RoleName="deployer-jobplane-prod", PolicyName="deploy"
    )
    assert given["PolicyDocument"]["Statement"]


def test_the_policy_is_enough_and_holds(aws: Cloud) -> None:
    """Who has it alone deploys, rolls back, and reads neither rows nor secrets.

        The emulator checks each call that is made, but not those that CloudFormation makes:
        test_deployer_policy.py holds them. It has no TLS, without which the deployment bucket lets
    no role may list it: the stack can't be rolled back.
    """
    iam = aws.client("iam")
    iam.create_user(UserName="deployer")
    policy = (aws.repository.root / "policy.json").read_text()
    iam.put_user_policy(UserName="deployer", PolicyName="deploy", PolicyDocument=policy)
    key = iam.create_access_key(UserName="deployer")["AccessKey"]
    credentials = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    before = live(aws)
    touch(aws.repository, "functions/claim/claim.py")
    for arguments in (("claim",), (), ("claim", "--rollback")):
        done = run_as(aws, credentials, "deploy", *arguments, "--stage", "prod", "--yes")
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
    assert live(aws)["CodeSha256"] == before["CodeSha256"]
    session = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name="eu-west-1")
    address = aws.variables["AWS_ENDPOINT_URL"]
    with pytest.raises(ClientError, match="AccessDenied"):
        session.client("dynamodb", endpoint_url=address).scan(TableName="jobplane-prod-requests")
    with pytest.raises(ClientError, match="AccessDenied"):
        session.client("ssm", endpoint_url=address).get_parameter(Name="/jobplane/prod/jwt-secret")


def live(aws: Cloud) -> dict[str, Any]:
    found: dict[str, Any] = aws.client("lambda").get_function_configuration(
        FunctionName="jobplane-prod-claim"
    )
    return found


def run_as(
    aws: Cloud, credentials: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "jobplane", *arguments],
        cwd=aws.repository.root,
        env=command_environment(aws.repository) | aws.variables | credentials,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
