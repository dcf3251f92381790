"""An emulator outside of the workspace's stages, which the command takes for AWS."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobplane.stage import emulator
from jobplane.stage.stages import ROOT_CREDENTIALS, Stage, State
from jobplane.tree.repository import Repository
from tests.workspace.copies import Built, Done, built_copy, command_environment, jobplane


@dataclass(frozen=True)
class Cloud:
    """The emulator as an account, and a workspace to deploy from."""

    repository: Repository
    state: State

    @property
    def variables(self) -> dict[str, str]:
        return {
            **ROOT_CREDENTIALS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.state.port}",
            "AWS_REGION": self.state.region,
            "SLS_AWS_MONITORING_FREQUENCY": "100",
        }

    def jobplane(self, *arguments: str, **variables: str) -> Done:
        return jobplane(self.repository, *arguments, **self.variables, **variables)

    def osls(self, *arguments: str, **variables: str) -> Done:
        """Run the framework with artifacts that are built."""
        return subprocess.run(
            [self.repository.root / "node_modules/.bin/osls", *arguments],
            cwd=self.repository.root,
            env=command_environment(self.repository)
            | self.variables
            | {"JOBPLANE_BUILT": "1"}
            | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            region_name=self.state.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def status(self, stage: str) -> str | None:
        """The state of a stage's stack; None if there is none."""
        client = self.client("cloudformation")
        try:
            found: str = client.describe_stacks(StackName=f"jobplane-{stage}")["Stacks"][0][
                "StackStatus"
            ]
        except client.exceptions.ClientError:
            return None
        return found

    def keep_secret(self, stage: str) -> None:
        """Create the secret that signs the stage's tokens."""
        self.client("ssm").put_parameter(
            Name=f"/jobplane/{stage}/jwt-secret",
            Value="s" * 64,
            Type="SecureString",
            Overwrite=True,
        )

    def named(self, stage: str) -> set[str]:
        """The names of all resources that a stage's stack may have, without its own bucket."""
        prefix = f"jobplane-{stage}-"
        logs = self.client("logs").describe_log_groups()["logGroups"]
        queues = self.client("sqs").list_queues().get("QueueUrls", [])
        found = {
            *self.client("dynamodb").list_tables()["TableNames"],
            *(bucket["Name"] for bucket in self.client("s3").list_buckets()["Buckets"]),
            *(url.rpartition("/")[2] for url in queues),
            *(group["logGroupName"].rpartition("/")[2] for group in logs),
            *(role["RoleName"] for role in self.client("iam").list_roles()["Roles"]),
            *(it["FunctionName"] for it in self.client("lambda").list_functions()["Functions"]),
        }
        return {
            name for name in found if name.startswith(prefix) and "deploymentbucket" not in name
        }


@contextmanager
def account(built: Built, folder: Path) -> Iterator[Cloud]:
    """An empty account, and a copy of the workspace whose artifacts are built."""
    repository = built_copy(built, folder)
    # The name is not used by any test.
    holder = Stage(repository, f"cloud-{os.getpid()}")
    state = emulator.start(holder, None)
    try:
        yield Cloud(repository, state)
    finally:
        emulator.stop(holder)


def packaged(cloud: Cloud, stage: str, folder: Path) -> Path:
    """A stage's package for `osls deploy --package`."""
    done = cloud.osls("package", "--stage", stage, "--package", str(folder))
    assert done.returncode == 0, done.stderr
    return folder
