"""The IAM actions that authorise operations of botocore.

An action has the name of the operation, and its prefix is the name that the service signs requests
with: botocore's own models say both. What differs is written here, from the pages "Actions,
resources, and condition keys" of the Service Authorization Reference and, for S3, "Required
permissions for Amazon S3 API operations".
"""

import gzip
import json
import re
import zlib
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# IAM's prefix by botocore's folder, for services that sign with another name.
PREFIXES = {
    "cloudcontrol": "cloudformation",
    "cloudwatch": "cloudwatch",
    "iot-data": "iot",
    "iot-jobs-data": "iotjobsdata",
    "iotsecuretunneling": "iot",
    "mturk": "mechanicalturk",
    "partnercentral-account": "partnercentral",
    "partnercentral-benefits": "partnercentral",
    "partnercentral-channel": "partnercentral",
    "partnercentral-selling": "partnercentral",
    "resourcegroupstaggingapi": "tag",
}
# Further prefixes whose actions authorise operations of a folder.
ALSO_UNDER = {
    "iot-jobs-data": ("iot",),
    "kafka": ("kafka-cluster",),
    "rds": ("rds-db",),
    "s3": ("s3express", "s3-object-lambda", "s3-outposts"),
    "ssm": ("ec2messages", "ssmmessages"),
}
# Services whose actions are the methods of HTTP.
BY_METHOD = frozenset({"apigateway", "apigatewayv2"})

QUERIES = ("neptune-db:ReadDataViaQuery", "neptune-db:WriteDataViaQuery")
# All actions that an operation needs, by botocore's folder.
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "apigatewaymanagementapi": {
        "DeleteConnection": ("execute-api:ManageConnections",),
        "GetConnection": ("execute-api:ManageConnections",),
        "PostToConnection": ("execute-api:ManageConnections",),
    },
    "bedrock-runtime": {
        "Converse": ("bedrock:InvokeModel",),
        "ConverseStream": ("bedrock:InvokeModelWithResponseStream",),
        "StartAsyncInvoke": ("bedrock:InvokeModel",),
    },
    "dynamodb": {
        "TransactGetItems": ("dynamodb:GetItem",),
    },
    "keyspaces": {
        "CreateKeyspace": ("cassandra:Create",),
        "CreateTable": ("cassandra:Create",),
        "CreateType": ("cassandra:Create",),
        "DeleteKeyspace": ("cassandra:Drop",),
        "DeleteTable": ("cassandra:Drop",),
        "DeleteType": ("cassandra:Drop",),
        "GetKeyspace": ("cassandra:Select",),
        "GetTable": ("cassandra:Select",),
        "GetTableAutoScalingSettings": ("cassandra:Select",),
        "GetType": ("cassandra:Select",),
        "ListKeyspaces": ("cassandra:Select",),
        "ListTables": ("cassandra:Select",),
        "ListTagsForResource": ("cassandra:Select",),
        "ListTypes": ("cassandra:Select",),
        "RestoreTable": ("cassandra:Restore",),
        "UpdateTable": ("cassandra:Alter",),
    },
    "lambda": {
        "Invoke": ("lambda:InvokeFunction",),
        "InvokeAsync": ("lambda:InvokeFunction",),
        "InvokeWithResponseStream": ("lambda:InvokeFunction",),
    },
    "neptunedata": {
        "ExecuteGremlinExplainQuery": QUERIES,
        "ExecuteGremlinProfileQuery": QUERIES,
        "ExecuteGremlinQuery": (*QUERIES, "neptune-db:DeleteDataViaQuery"),
        "ExecuteOpenCypherExplainQuery": QUERIES,
        "ExecuteOpenCypherQuery": (*QUERIES, "neptune-db:DeleteDataViaQuery"),
    },
    "s3": {
        "CompleteMultipartUpload": ("s3:PutObject",),
        "CopyObject": ("s3:GetObject", "s3:PutObject"),
        "CreateMultipartUpload": ("s3:PutObject",),
        "DeleteBucketCors": ("s3:PutBucketCORS",),
        "DeleteBucketEncryption": ("s3:PutEncryptionConfiguration",),
        "DeleteBucketLifecycle": ("s3:PutLifecycleConfiguration",),
        "DeleteBucketOwnershipControls": ("s3:PutBucketOwnershipControls",),
        "DeleteBucketReplication": ("s3:PutReplicationConfiguration",),
        "DeleteBucketTagging": ("s3:PutBucketTagging",),
        "DeleteObjects": ("s3:DeleteObject",),
        "DeletePublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
        "GetBucketAccelerateConfiguration": ("s3:GetAccelerateConfiguration",),
        "GetBucketEncryption": ("s3:GetEncryptionConfiguration",),
        "GetBucketLifecycle": ("s3:GetLifecycleConfiguration",),
        "GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
        "GetBucketNotificationConfiguration": ("s3:GetBucketNotification",),
        "GetBucketReplication": ("s3:GetReplicationConfiguration",),
        "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
        "GetPublicAccessBlock": ("s3:GetBucketPublicAccessBlock",),
        "HeadBucket": ("s3:ListBucket",),
        "HeadObject": ("s3:GetObject",),
        "ListBuckets": ("s3:ListAllMyBuckets",),
        "ListDirectoryBuckets": ("s3express:ListAllMyDirectoryBuckets",),
        "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
        "ListObjectVersions": ("s3:ListBucketVersions",),
        "ListObjects": ("s3:ListBucket",),
        "ListObjectsV2": ("s3:ListBucket",),
        "ListParts": ("s3:ListMultipartUploadParts",),
        "PutBucketAccelerateConfiguration": ("s3:PutAccelerateConfiguration",),
        "PutBucketEncryption": ("s3:PutEncryptionConfiguration",),
        "PutBucketLifecycle": ("s3:PutLifecycleConfiguration",),
        "PutBucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
        "PutBucketNotificationConfiguration": ("s3:PutBucketNotification",),
        "PutBucketReplication": ("s3:PutReplicationConfiguration",),
        "PutObjectLockConfiguration": ("s3:PutBucketObjectLockConfiguration",),
        "PutPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
        "SelectObjectContent": ("s3:GetObject",),
        "UploadPart": ("s3:PutObject",),
        "UploadPartCopy": ("s3:GetObject", "s3:PutObject"),
    },
    "sns": {"PublishBatch": ("sns:Publish",)},
    "sqs": {
        "ChangeMessageVisibilityBatch": ("sqs:ChangeMessageVisibility",),
        "DeleteMessageBatch": ("sqs:DeleteMessage",),
        "SendMessageBatch": ("sqs:SendMessage",),
    },
    "sts": {"GetCallerIdentity": ()},
    "timestream-query": {"Query": ("timestream:Select",)},
}
# Settings of a bucket in S3: each has operations to delete, get, list and put it.
for _kind in ("Analytics", "IntelligentTiering", "Inventory", "Metrics"):
    for _verb, _of in {"Get": "Get", "List": "Get", "Delete": "Put", "Put": "Put"}.items():
        _plural = "s" if _verb == "List" else ""
        ACTIONS["s3"][f"{_verb}Bucket{_kind}Configuration{_plural}"] = (
            f"s3:{_of}{_kind}Configuration",
        )
# The actions that a transaction needs, by the kinds of its items.
ITEM_ACTIONS = {
    "ConditionCheck": "dynamodb:ConditionCheckItem",
    "Delete": "dynamodb:DeleteItem",
    "Put": "dynamodb:PutItem",
    "Update": "dynamodb:UpdateItem",
}
# Operations for which an action suffices in some cases: of a version, by statement.
IN_SOME_FORMS = {
    "dynamodb:PartiQLDelete": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "dynamodb:PartiQLInsert": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "dynamodb:PartiQLSelect": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "dynamodb:PartiQLUpdate": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "neptune-graph:DeleteDataViaQuery": ("ExecuteQuery",),
    "neptune-graph:ReadDataViaQuery": ("ExecuteQuery",),
    "neptune-graph:WriteDataViaQuery": ("ExecuteQuery",),
    "s3:DeleteObjectVersion": ("DeleteObject", "DeleteObjects"),
    "s3:DeleteObjectVersionTagging": ("DeleteObjectTagging",),
    "s3:GetObjectVersion": ("GetObject", "HeadObject"),
    "s3:GetObjectVersionAcl": ("GetObjectAcl",),
    "s3:GetObjectVersionAttributes": ("GetObjectAttributes",),
    "s3:GetObjectVersionTagging": ("GetObjectTagging",),
    "s3:PutObjectVersionAcl": ("PutObjectAcl",),
    "s3:PutObjectVersionTagging": ("PutObjectTagging",),
    "s3express:CreateSession": (
        "AbortMultipartUpload", "CompleteMultipartUpload", "CopyObject", "CreateMultipartUpload",
        "DeleteObject", "DeleteObjects", "GetObject", "GetObjectAttributes", "HeadBucket",
        "HeadObject", "ListMultipartUploads", "ListObjectsV2", "ListParts", "PutObject",
        "UploadPart", "UploadPartCopy",
    ),
    "ses:SendBulkTemplatedEmail": ("SendBulkEmail",),
    "ses:SendRawEmail": ("SendEmail",),
    "ses:SendTemplatedEmail": ("SendEmail",),
    "timestream:SelectValues": ("Query",),
}  # fmt: skip

# The first kilobytes of a model hold its metadata.
HEAD = 8192


def _allowed() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for operations in ACTIONS.values():
        for operation, actions in operations.items():
            for action in actions:
                found[action].add(operation)
    for action in ITEM_ACTIONS.values():
        found[action].add("TransactWriteItems")
    for action, names in IN_SOME_FORMS.items():
        found[action].update(names)
    return {action: frozenset(names) for action, names in found.items()}


ALSO_ALLOWED = _allowed()
"""Operations that an action may authorise, besides the one with its name."""


@cache
def models() -> Path:
    """The folder of the installed botocore's service models."""
    spec = find_spec("botocore")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@cache
def services() -> tuple[str, ...]:
    """All services that botocore supports."""
    return tuple(sorted(path.name for path in models().iterdir() if path.is_dir()))


@cache
def prefix_of(service: str) -> str:
    """The prefix of a service's actions, before the colon."""
    return PREFIXES.get(service) or _signs_as(service)[0]


@cache
def prefixes_of(service: str) -> frozenset[str]:
    """Every prefix, in lower case, whose actions may authorise operations of a service."""
    named = (service, prefix_of(service), *_signs_as(service), *ALSO_UNDER.get(service, ()))
    return frozenset(name.lower() for name in named)


@cache
def operations_of(service: str) -> dict[str, str]:
    """HTTP method by operation."""
    file = _model_file(service)
    if file is None:
        return {}
    data = file.read_bytes()
    model: dict[str, Any] = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
    return {
        name: operation.get("http", {}).get("method", "POST")
        for name, operation in model["operations"].items()
    }


def _signs_as(service: str) -> tuple[str, ...]:
    """The names by which a service signs and is addressed, the signing one first."""
    file = _model_file(service)
    if file is None:
        return (service,)
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    if file.suffix == ".gz":
        head = zlib.decompressobj(wbits=31).decompress(head, HEAD)
    text = head.decode(errors="replace")
    found = [
        re.search(rf'"{key}"\s*:\s*"([^"]+)"', text) for key in ("signingName", "endpointPrefix")
    ]
    return tuple(match[1] for match in found if match is not None) or (service,)


def _model_file(service: str) -> Path | None:
    versions = sorted(models().joinpath(service).glob("*/service-2.json*"), reverse=True)
    return versions[0] if versions else None
