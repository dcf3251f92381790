"""Remove a stage from AWS: its stack, and resources outside of the stack.

Retained tables and buckets are found by their full names. Queues made on demand, log groups and
parameters are found by their prefix; a name that also begins with a longer stage's prefix belongs
to that stage.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import click

from jobplane.deploy import compiled
from jobplane.deploy.shipping import LOOPBACK, account_of
from jobplane.stage.stages import Stage

TABLE = "AWS::DynamoDB::Table"
BUCKET = "AWS::S3::Bucket"
QUEUE = "AWS::SQS::Queue"
LOG_GROUP = "AWS::Logs::LogGroup"
LOG_GROUPS = ("/aws/lambda/", "/aws/vendedlogs/states/")
BATCH = 1000
POLL_SECONDS = 5.0


class RemovalFailedError(click.ClickException):
    """The stack could not be deleted."""


@dataclass(frozen=True)
class Removal:
    stage: Stage
    has_stack: bool
    stack: list[str] = field(default_factory=list)
    """The resources of the stack: number and type."""
    buckets: list[str] = field(default_factory=list)
    """Buckets to empty, and to delete with the stack or after it."""
    tables: list[str] = field(default_factory=list)
    """Tables that the stack retains, to delete after it."""
    protected: list[str] = field(default_factory=list)
    """Those of them whose deletion protection must be switched off first."""
    queues: list[str] = field(default_factory=list)
    """URLs of queues made on demand."""
    log_groups: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What is kept: retained data, and the secrets of a stage that has such data."""

    @property
    def nothing(self) -> bool:
        named = (self.buckets, self.tables, self.queues, self.log_groups, self.parameters)
        return not (self.has_stack or any(named))

    def goes(self) -> Iterator[tuple[str, list[str]]]:
        yield f"stack {self.stage.names.stack}", self.stack or ["empty"] if self.has_stack else []
        yield "buckets, with all objects", self.buckets
        yield "tables, with all rows", self.tables
        yield "queues", [url.rpartition("/")[2] for url in self.queues]
        yield "log groups", self.log_groups
        yield "parameters", self.parameters


def survey(stage: Stage, *, data: bool) -> Removal:
    """List what removing the stage would remove and keep."""
    template = compiled.deployed(stage)
    there = _physical(stage) if template is not None else {}
    resources = template.resources if template is not None else {}
    retained = {name for id_, name in there.items() if compiled.is_retained(resources.get(id_, {}))}

    def in_stack(kind: str) -> set[str]:
        return {name for id_, name in there.items() if resources.get(id_, {}).get("Type") == kind}

    mine = _Mine.of(stage)
    tables, buckets = _declared(stage)
    tables &= set(_all_tables(stage))
    buckets &= set(_all_buckets(stage))
    # Without a stack they exist only if an earlier stack retained them.
    left_tables = (tables - in_stack(TABLE)) | (in_stack(TABLE) & retained)
    left_buckets = (buckets - in_stack(BUCKET)) | (in_stack(BUCKET) & retained)
    keeps = bool(left_tables or left_buckets) and not data
    parameters = sorted(_parameters(stage))
    kept = sorted(left_tables | left_buckets) + parameters if keeps else []
    gone = set() if keeps else left_tables
    return Removal(
        stage,
        has_stack=compiled.status(stage) is not None,
        stack=_counted(resource["Type"] for resource in resources.values()),
        buckets=sorted(in_stack(BUCKET) - retained | (set() if keeps else left_buckets)),
        tables=sorted(gone),
        protected=sorted(name for name in gone if _is_protected(stage, name)),
        queues=sorted(set(_queues(stage, mine)) - in_stack(QUEUE)),
        log_groups=sorted(set(_log_groups(stage, mine)) - in_stack(LOG_GROUP)),
        parameters=[] if keeps else parameters,
        kept=kept,
    )


def remove(removal: Removal) -> None:
    """Remove what the survey lists."""
    stage = removal.stage
    dynamodb, sqs = stage.client("dynamodb"), stage.client("sqs")
    logs, ssm = stage.client("logs"), stage.client("ssm")
    for name in removal.protected:
        dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
    for bucket in removal.buckets:
        _empty(stage, bucket)
    if removal.has_stack:
        _delete_stack(stage, removal.buckets)
    still_there = set(_all_buckets(stage))
    for bucket in removal.buckets:
        if bucket in still_there:
            # Functions may have written to it while the stack was removed.
            _empty(stage, bucket)
            stage.client("s3").delete_bucket(Bucket=bucket)
    for name in removal.tables:
        dynamodb.delete_table(TableName=name)
    for url in removal.queues:
        sqs.delete_queue(QueueUrl=url)
    for name in removal.log_groups:
        logs.delete_log_group(logGroupName=name)
    for name in removal.parameters:
        ssm.delete_parameter(Name=name)


@dataclass(frozen=True)
class _Mine:
    """Whether a name belongs to this stage, not to one whose name begins with this one's."""

    prefix: str
    others: tuple[str, ...]

    @classmethod
    def of(cls, stage: Stage) -> "_Mine":
        prefix = stage.names.prefix
        pages = stage.client("cloudformation").get_paginator("describe_stacks").paginate()
        others = [
            f"{stack['StackName']}-"
            for page in pages
            for stack in page["Stacks"]
            if stack["StackName"].startswith(prefix)
        ]
        return cls(prefix, tuple(others))

    def __call__(self, name: str) -> bool:
        return name.startswith(self.prefix) and not name.startswith(self.others)


def _physical(stage: Stage) -> dict[str, str]:
    pages = stage.client("cloudformation").get_paginator("list_stack_resources")
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in pages.paginate(StackName=stage.names.stack)
        for resource in page["StackResourceSummaries"]
        if "PhysicalResourceId" in resource
    }


def _counted(kinds: Iterable[str]) -> list[str]:
    return [f"{number} {kind}" for kind, number in sorted(Counter(kinds).items())]


def _declared(stage: Stage) -> tuple[set[str], set[str]]:
    """The names of the tables and buckets that the tree declares for the stage.

    Full names, because a name with the same prefix may be retained data of another stage.
    """
    client = stage.client("cloudformation")
    pseudo = {"AWS::AccountId": account_of(stage), "AWS::Region": client.meta.region_name}
    resources = compiled.outline(stage)["Resources"].values()

    def named(kind: str, key: str) -> set[str]:
        given = [it["Properties"].get(key) for it in resources if it["Type"] == kind]
        return {_text(value, pseudo) for value in given if value is not None}

    return named(TABLE, "TableName"), named(BUCKET, "BucketName")


def _text(value: Any, pseudo: Mapping[str, str]) -> str:
    """A name with references to account and region replaced by their values."""
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return pseudo[value["Ref"]]
    separator, parts = value["Fn::Join"]
    joined: str = separator.join(_text(part, pseudo) for part in parts)
    return joined


def _all_tables(stage: Stage) -> Iterator[str]:
    for page in stage.client("dynamodb").get_paginator("list_tables").paginate():
        yield from page["TableNames"]


def _all_buckets(stage: Stage) -> list[str]:
    return [bucket["Name"] for bucket in stage.client("s3").list_buckets()["Buckets"]]


def _queues(stage: Stage, mine: Callable[[str], bool]) -> Iterator[str]:
    pages = stage.client("sqs").get_paginator("list_queues")
    for page in pages.paginate(QueueNamePrefix=stage.names.prefix):
        yield from (url for url in page.get("QueueUrls", []) if mine(url.rpartition("/")[2]))


def _log_groups(stage: Stage, mine: Callable[[str], bool]) -> Iterator[str]:
    pages = stage.client("logs").get_paginator("describe_log_groups")
    for head in LOG_GROUPS:
        for page in pages.paginate(logGroupNamePrefix=f"{head}{stage.names.prefix}"):
            for group in page["logGroups"]:
                name: str = group["logGroupName"]
                if mine(name.removeprefix(head)):
                    yield name


def _parameters(stage: Stage) -> Iterator[str]:
    """The names of the stage's own parameters; `jwtSecret` may name a shared one, which is kept."""
    own = {"Key": "Name", "Option": "BeginsWith", "Values": [stage.names.parameter("")]}
    pages = stage.client("ssm").get_paginator("describe_parameters")
    for page in pages.paginate(ParameterFilters=[own]):
        yield from (parameter["Name"] for parameter in page["Parameters"])


def _is_protected(stage: Stage, table: str) -> bool:
    found = stage.client("dynamodb").describe_table(TableName=table)["Table"]
    return bool(found.get("DeletionProtectionEnabled"))


def _empty(stage: Stage, bucket: str) -> None:
    """Delete all versions of all objects, and the markers of deleted ones."""
    client = stage.client("s3")
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
        for start in range(0, len(objects), BATCH):
            answer = client.delete_objects(
                Bucket=bucket, Delete={"Objects": objects[start : start + BATCH], "Quiet": True}
            )
            for error in answer.get("Errors", [])[:1]:
                raise RemovalFailedError(
                    f"bucket {bucket} can't be emptied: {error['Key']}: {error['Message']}"
                )


def _delete_stack(stage: Stage, buckets: list[str]) -> None:
    client = stage.client("cloudformation")
    identity = client.describe_stacks(StackName=stage.names.stack)["Stacks"][0]["StackId"]
    # Try a second time, because objects may have been added during the first.
    for _ in range(2):
        client.delete_stack(StackName=identity)
        status = _settled(stage, client, identity)
        if status == "DELETE_COMPLETE":
            return
        for bucket in set(buckets) & set(_all_buckets(stage)):
            _empty(stage, bucket)
    events = client.describe_stack_events(StackName=identity)["StackEvents"]
    failed = next((e for e in events if e["ResourceStatus"] == "DELETE_FAILED"), None)
    reason = (
        f"{failed['LogicalResourceId']}: {failed.get('ResourceStatusReason', 'no reason given')}"
        if failed
        else f"state {status}"
    )
    raise RemovalFailedError(f"stack {stage.names.stack} could not be deleted: {reason}")


def _settled(stage: Stage, client: Any, identity: str) -> str:
    """The stack's status, after waiting until no operation is in progress."""
    while True:
        status: str = client.describe_stacks(StackName=identity)["Stacks"][0]["StackStatus"]
        if not status.endswith("_IN_PROGRESS"):
            return status
        time.sleep(0.2 if _is_loopback(stage) else POLL_SECONDS)


def _is_loopback(stage: Stage) -> bool:
    url: str = stage.client("cloudformation").meta.endpoint_url
    return urlsplit(url).hostname in LOOPBACK
