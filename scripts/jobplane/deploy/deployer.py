"""The IAM policy for deploying a stage, with CloudFormation and with the tools.

CloudFormation's schemas of the resource types list the actions that it needs; cfn-lint contains
these schemas. Actions that the tools need themselves are listed here.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from jobplane.tree.names import Names

DOCUMENT = Path("docs", "deployer-policy.json")
EXAMPLE_STAGE = "prod"
# The limit of characters in all inline policies of a role, without white space.
LARGEST = 10_240
# The number of characters of the stack's name that CloudFormation keeps when it shortens a name.
KEPT_OF_STACK = 24
SERVICES = {
    "ApiGatewayV2": "apigateway",
    "CloudWatch": "cloudwatch",
    "DynamoDB": "dynamodb",
    "Events": "events",
    "IAM": "iam",
    "KMS": "kms",
    "Lambda": "lambda",
    "Logs": "logs",
    "S3": "s3",
    "SNS": "sns",
    "SQS": "sqs",
    "StepFunctions": "states",
}
"""IAM's name of a service, by CloudFormation's name."""
# Actions of features that the stack doesn't use, and on rows and objects: deploying needs neither.
NOT_NEEDED = {
    "dynamodb": ("Batch", "DeleteItem", "GetItem", "PutItem", "Query", "Scan", "UpdateItem",
                 "ImportTable", "DescribeImport", "AssociateTableReplica", "CreateTableReplica",
                 "DescribeKinesis", "DisableKinesis", "EnableKinesis", "UpdateKinesis"),
    "iam": ("CreateServiceLinkedRole",),
    "kms": ("CreateGrant", "Decrypt", "Encrypt", "GenerateDataKey", "RevokeGrant"),
    "lambda": ("PassCapacityProvider",),
    "logs": ("PutLogEvents", "CreateLogStream"),
    "s3": ("DeleteObject", "GetObject", "PutObjectAcl", "CreateBucketMetadata",
           "DeleteBucketMetadata", "GetBucketMetadata", "UpdateBucketMetadata",
           "PutAccelerateConfiguration", "PutAnalyticsConfiguration", "PutBucketAbac",
           "PutBucketReplication", "PutBucketWebsite", "PutIntelligentTieringConfiguration",
           "PutInventoryConfiguration", "PutMetricsConfiguration", "PutReplicationConfiguration"),
}  # fmt: skip
# Actions that IAM does not limit to a resource, or that run before the resource has a name.
ON_ALL = (
    "List", "Describe", "kms:CreateKey", "s3:ListAllMyBuckets", "logs:CreateLogDelivery",
    "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
    "logs:PutResourcePolicy", "lambda:CreateEventSourceMapping", "lambda:GetEventSourceMapping",
    "lambda:UpdateEventSourceMapping", "lambda:DeleteEventSourceMapping", "sns:Unsubscribe",
    "sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes",
)  # fmt: skip
# Actions for optional settings: custom domains, alarm mails, provisioned concurrency.
LATER = (
    "AWS::ApiGatewayV2::ApiMapping", "AWS::ApiGatewayV2::DomainName", "AWS::Lambda::Alias",
)  # fmt: skip
# Actions that osls and `jobplane deploy` use themselves, besides CloudFormation.
TOOLS = {
    "cloudformation": (
        "ContinueUpdateRollback", "CreateChangeSet", "DeleteChangeSet", "DeleteStack",
        "DescribeChangeSet", "DescribeStackEvents", "DescribeStackResource",
        "DescribeStackResources", "DescribeStacks", "ExecuteChangeSet", "GetTemplate",
        "ListStackResources", "ListStacks", "ValidateTemplate",
    ),
    "dynamodb": ("DescribeTable", "UpdateTable"),
    "iam": ("GetRole", "PassRole"),
    "lambda": (
        "GetFunction", "GetFunctionConfiguration", "ListAliases", "ListVersionsByFunction",
        "PublishVersion", "UpdateFunctionCode", "UpdateFunctionConfiguration",
    ),
    # To see whether a secret exists, not to read it.
    "ssm": ("DescribeParameters",),
}  # fmt: skip
# On the deployment bucket only.
ARTIFACTS = (
    "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:GetObjectVersion",
    "s3:ListBucket", "s3:ListBucketVersions", "s3:PutObject",
)  # fmt: skip
# To remove what `jobplane down` deletes besides the stack.
LEFT_BEHIND = {
    "logs": ("DeleteLogGroup", "DescribeLogGroups"),
    "sqs": ("DeleteQueue", "ListQueues"),
    "ssm": ("DeleteParameter",),
}


class PolicyTooLargeError(click.ClickException):
    """The policy is larger than IAM allows for inline policies."""


class UnknownTypeError(click.ClickException):
    """cfn-lint has no schema of a resource type, or SERVICES lacks its service."""


def policy(
    template: Mapping[str, Any], names: Names, *, account: str, region: str, partition: str
) -> dict[str, Any]:
    """The policy document.

    Args:
        template: as compiled for the stage.

    Raises:
        UnknownTypeError: a resource type is unknown.
        PolicyTooLargeError: the document is larger than IAM allows.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for kind in {*LATER, *(resource["Type"] for resource in template["Resources"].values())}:
        for action in _of_type(kind):
            wanted[action.partition(":")[0]].add(action)
    for calls in (TOOLS, LEFT_BEHIND):
        for service, called in calls.items():
            wanted[service] |= {f"{service}:{name}" for name in called}
    where = f"{region}:{account}"
    statements = []
    for service, actions in sorted(wanted.items()):
        everywhere = {action for action in actions if _is_on_all(action)}
        resources = _resources(service, names, f"arn:{partition}:{service}", where)
        if actions - everywhere:
            statements.append(_statement(service, actions - everywhere, resources))
        if everywhere:
            statements.append(_statement(f"{service}-all", everywhere, ["*"]))
    bucket = _artifacts(names, partition)
    statements.append(_statement("artifacts", ARTIFACTS, [bucket, f"{bucket}/*"]))
    document = {"Version": "2012-10-17", "Statement": statements}
    _check_size(document)
    return document


def example(template: Mapping[str, Any], names: Names) -> str:
    """The policy in docs/, for the example account of AWS's documentation."""
    where = {"account": "123456789012", "region": "eu-west-1", "partition": "aws"}
    return json.dumps(policy(template, names, **where), indent=2) + "\n"


def _of_type(kind: str) -> Iterator[str]:
    """The actions that CloudFormation needs for a resource type: of its service, and on roles."""
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    service = SERVICES.get(kind.split("::")[1])
    if service is None:
        raise UnknownTypeError(
            f"{kind}: add its service to SERVICES in scripts/jobplane/deploy/deployer.py"
        )
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    for handler in schema.get("handlers", {}).values():
        for action in handler["permissions"]:
            owner, _, name = action.partition(":")
            if action == "iam:PassRole" and service != "s3":
                yield action
            elif owner == service and not name.startswith(NOT_NEEDED.get(service, ())):
                yield action
            elif service == "states" and owner == "logs":
                yield action  # delivery of its log


def _artifacts(names: Names, partition: str) -> str:
    """The deployment bucket. CloudFormation makes its name, and shortens it if necessary."""
    stack = names.stack if len(names.stack) <= KEPT_OF_STACK else names.stack[:KEPT_OF_STACK] + "*"
    return f"arn:{partition}:s3:::{stack}-serverlessdeploymentbuck*"


def _is_on_all(action: str) -> bool:
    if action == "s3:ListBucket":
        return False  # lists the objects of a bucket
    return action in ON_ALL or action.partition(":")[2].startswith(("List", "Describe"))


def _resources(service: str, names: Names, arn: str, where: str) -> list[str]:
    """ARNs of the stage's resources of a service, as narrow as IAM allows."""
    prefix, region = names.prefix, where.partition(":")[0]
    account = where.partition(":")[2]
    by_service = {
        # API Gateway makes the ids; its ARNs contain no account.
        "apigateway": [
            f"{arn}:{region}::/{kind}" for kind in ("apis", "apis/*", "domainnames*", "tags/*")
        ],
        "cloudformation": [f"{arn}:{where}:stack/{names.stack}/*"],
        "cloudwatch": [
            f"{arn}:{where}:alarm:{prefix}*",
            f"{arn}::{account}:dashboard/{names.stack}",
        ],
        "dynamodb": [f"{arn}:{where}:table/{prefix}*"],
        "events": [f"{arn}:{where}:rule/{prefix}*"],
        "iam": [f"{arn}::{account}:role/{prefix}*"],
        # Ids of keys are made by KMS.
        "kms": [f"{arn}:{where}:key/*"],
        # A mapping is known by its id only, but has the stack's tags.
        "lambda": [f"{arn}:{where}:function:{prefix}*", f"{arn}:{where}:event-source-mapping:*"],
        "logs": [
            f"{arn}:{where}:log-group:{group}{prefix}*"
            for group in ("/aws/lambda/", "/aws/vendedlogs/states/")
        ],
        "s3": [f"{arn}:::{prefix}*", _artifacts(names, arn.split(":")[1])],
        "sns": [f"{arn}:{where}:{prefix}*"],
        "sqs": [f"{arn}:{where}:{prefix}*"],
        "ssm": [f"{arn}:{where}:parameter{names.parameter('*')}"],
        "states": [f"{arn}:{where}:stateMachine:{prefix}*"],
    }
    return by_service[service]


def _statement(name: str, actions: Iterable[str], resources: list[str]) -> dict[str, Any]:
    sid = "".join(word.capitalize() for word in name.split("-"))
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": _shortened(sorted(actions, key=str.lower)),
        "Resource": resources,
    }


def _shortened(actions: list[str]) -> list[str]:
    """Actions without duplicates, ignoring case."""
    return list({action.lower(): action for action in actions}.values())


def _check_size(document: Mapping[str, Any]) -> None:
    size = len(json.dumps(document, separators=(",", ":")))
    if size > LARGEST:
        raise PolicyTooLargeError(
            f"the policy has {size} characters, IAM allows {LARGEST}: split it into two policies"
        )
