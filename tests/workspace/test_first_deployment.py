"""Deployments that break off, are repeated, and follow a removal.

The emulator's CloudFormation rolls back, keeps what a policy retains and refuses to delete what is
protected, as AWS's does. It lets a queue have the name of one deleted a moment ago, and makes any
resource at once: see test_recovery.py.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workspace.account import Cloud, account, packaged
from tests.workspace.copies import Built

pytestmark = pytest.mark.e2e

# Its function does not exist, so it can't be created.
BROKEN = {
    "Type": "Custom::Broken",
    "Properties": {"ServiceToken": "arn:aws:lambda:eu-west-1:000000000000:function:missing"},
}
SAMPLE = {"AWS::DynamoDB::Table", "AWS::IAM::Role", "AWS::S3::Bucket", "AWS::SQS::Queue"}
EUROPE = {"CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}
STATE = "serverless-state.json"


@pytest.fixture(scope="module")
def aws(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An account, and a workspace whose artifacts are built."""
    with account(built, tmp_path_factory.mktemp("first") / "copy") as opened:
        yield opened


def compiled(package: Path) -> dict[str, Any]:
    state = json.loads((package / STATE).read_text())
    template: dict[str, Any] = state["service"]["provider"]["compiledCloudFormationTemplate"]
    return template


def broken_after(package: Path, logical: str, to: Path) -> Path:
    """A copy of a package whose deployment fails after one resource."""
    shutil.copytree(package, to)
    state = json.loads((to / STATE).read_text())
    template = state["service"]["provider"]["compiledCloudFormationTemplate"]
    template["Resources"]["Broken"] = {**BROKEN, "DependsOn": logical}
    (to / STATE).write_text(json.dumps(state))
    return to


def protection(aws: Cloud, stage: str) -> set[bool]:
    client = aws.client("dynamodb")
    tables = [t for t in client.list_tables()["TableNames"] if t.startswith(f"jobplane-{stage}-")]
    assert tables
    return {
        client.describe_table(TableName=name)["Table"]["DeletionProtectionEnabled"]
        for name in tables
    }


def test_a_first_deployment_succeeds_after_a_failed_one(aws: Cloud, tmp_path: Path) -> None:
    """JOBPLANE_TEST_ALL=1 interrupts it after each kind of resource, not only after four."""
    aws.keep_secret("prod")
    package = packaged(aws, "prod", tmp_path / "package")
    first = {r["Type"]: name for name, r in reversed(compiled(package)["Resources"].items())}
    wanted = first.keys() if os.environ.get("JOBPLANE_TEST_ALL") else SAMPLE
    assert wanted <= first.keys()
    for number, kind in enumerate(sorted(wanted)):
        broken = broken_after(package, first[kind], tmp_path / str(number))
        done = aws.osls("deploy", "--stage", "prod", "--package", str(broken))
        assert done.returncode != 0, f"{kind}: {done.stdout}"
        assert "Broken" in done.stdout, done.stdout + done.stderr
        assert aws.named("prod") == set(), kind
    done = aws.osls("deploy", "--stage", "prod", "--package", str(package))
    assert done.returncode == 0, done.stderr
    assert protection(aws, "prod") == {True}
    again = aws.jobplane("deploy", "--stage", "prod", "--yes")
    assert (again.returncode, again.stdout) == (0, "nothing to deploy: prod is up to date\n")


def test_the_next_deployment_protects_a_table_that_was_left_unprotected(aws: Cloud) -> None:
    aws.keep_secret("late")
    assert aws.jobplane("deploy", "--stage", "late", "--yes", *PROD).returncode == 0
    aws.client("dynamodb").update_table(
        TableName="jobplane-late-requests", DeletionProtectionEnabled=False
    )
    done = aws.jobplane("deploy", "--stage", "late", "--yes", *PROD)
    assert done.returncode == 0, done.stderr
    assert "RequestsTable (not protected from deletion)" in done.stdout
    assert protection(aws, "late") == {True}


PROD = ("--param", "deletionPolicy=Retain", "--param", "deletionProtection=true")


def test_data_kept_by_a_removal_is_imported_by_the_next_deployment(aws: Cloud) -> None:
    aws.keep_secret("kept")
    assert aws.jobplane("deploy", "--stage", "kept", "--yes", *PROD).returncode == 0
    row = {"owner": {"S": "tenant#user"}, "request_id": {"S": "r-1"}}
    aws.client("dynamodb").put_item(TableName="jobplane-kept-requests", Item=row)
    aws.client("s3").put_object(Bucket="jobplane-kept-files", Key="results/x", Body=b"x")
    removed = aws.jobplane("down", "--stage", "kept", "--yes")
    assert removed.returncode == 0, removed.stderr
    (kept,) = [line for line in removed.stdout.splitlines() if line.startswith("kept (")]
    assert "jobplane-kept-requests" in kept
    assert "jobplane-kept-files" in kept
    assert "/jobplane/kept/jwt-secret" in kept
    assert aws.status("kept") is None
    assert protection(aws, "kept") == {True}
    done = aws.jobplane("deploy", "--stage", "kept", "--yes", *PROD)
    assert done.returncode == 0, done.stderr
    assert aws.client("dynamodb").scan(TableName="jobplane-kept-requests")["Items"] == [row]
    assert aws.client("s3").get_object(Bucket="jobplane-kept-files", Key="results/x")
    resources = aws.client("cloudformation").describe_stack_resources(StackName="jobplane-kept")
    names = {resource["PhysicalResourceId"] for resource in resources["StackResources"]}
    assert {"jobplane-kept-requests", "jobplane-kept-files"} <= names


def test_osls_remove_and_osls_deploy_work_without_jobplane(aws: Cloud) -> None:
    aws.keep_secret("alone")
    for command in ("deploy", "remove", "deploy"):
        done = aws.osls(command, "--stage", "alone", *PROD)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_removing_with_the_data_deletes_everything_of_the_stage(aws: Cloud) -> None:
    """Protected tables, versioned objects, queues made on demand, secrets."""
    aws.keep_secret("all")
    assert aws.jobplane("deploy", "--stage", "all", "--yes", *PROD).returncode == 0
    s3, sqs = aws.client("s3"), aws.client("sqs")
    s3.put_bucket_versioning(
        Bucket="jobplane-all-files", VersioningConfiguration={"Status": "Enabled"}
    )
    for _ in range(2):
        s3.put_object(Bucket="jobplane-all-files", Key="results/x", Body=b"x")
    s3.delete_object(Bucket="jobplane-all-files", Key="results/x")
    aws.client("cloudformation").create_stack(
        StackName="jobplane-all-others",
        TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}),
    )
    # Retained by a stage that is gone, whose name begins with this one's.
    s3.create_bucket(Bucket="jobplane-all-gone-files", **EUROPE)
    sqs.create_queue(QueueName="jobplane-all-interrupts-project-user-hash")
    sqs.create_queue(QueueName="jobplane-all-others-interrupts-project-user-hash")
    aws.client("logs").create_log_group(logGroupName="/aws/lambda/jobplane-all-removed")
    shown = aws.jobplane("down", "--stage", "all", "--data", "--dry-run")
    assert "deletion protection ends for: jobplane-all-active-jobs" in shown.stdout
    assert aws.status("all") == "UPDATE_COMPLETE"
    unasked = aws.jobplane("down", "--stage", "all", "--data")
    assert unasked.returncode == 2
    assert "pass --yes" in unasked.stderr
    assert aws.status("all") == "UPDATE_COMPLETE"
    done = aws.jobplane("down", "--stage", "all", "--data", "--yes")
    assert done.returncode == 0, done.stderr
    assert aws.status("all") is None
    assert aws.named("all") == {
        "jobplane-all-gone-files",
        "jobplane-all-others-interrupts-project-user-hash",
    }
    assert aws.client("ssm").get_parameters_by_path(Path="/jobplane/all")["Parameters"] == []
    nothing = aws.jobplane("down", "--stage", "all", "--yes")
    assert "nothing to remove" in nothing.stdout


def test_a_stack_that_was_never_deployed_is_replaced(aws: Cloud) -> None:
    client = aws.client("cloudformation")
    for stage in ("failed", "review"):
        aws.keep_secret(stage)
    client.create_stack(
        StackName="jobplane-failed", TemplateBody=json.dumps({"Resources": {"Broken": BROKEN}})
    )
    client.create_change_set(
        StackName="jobplane-review",
        ChangeSetName="jobplane-review-change-set",
        ChangeSetType="CREATE",
        TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}),
    )
    end = time.monotonic() + 30
    while aws.status("failed") != "ROLLBACK_COMPLETE" and time.monotonic() < end:
        time.sleep(0.1)
    assert [aws.status("failed"), aws.status("review")] == [
        "ROLLBACK_COMPLETE",
        "REVIEW_IN_PROGRESS",
    ]
    for stage in ("failed", "review"):
        done = aws.jobplane("deploy", "--stage", stage, "--yes")
        assert done.returncode == 0, done.stderr
        assert aws.status(stage) == "UPDATE_COMPLETE"
