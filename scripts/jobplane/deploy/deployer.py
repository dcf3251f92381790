"""The policy of who deploys a stage: what CloudFormation needs for the stack, and the tools.

Actions come from CloudFormation's own schemas of the stack's resource types, which cfn-lint
carries: each says what its handlers call. What the tools call themselves is listed here.
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
# Inline policies of a role may have so many characters together, without white space.
LARGEST = 10_240
# Of a stack's name CloudFormation keeps so many characters in a name that it makes and has to cut.
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
"""IAM's word for a service, by CloudFormation's."""
# For features that the stack has not, and on rows and objects: who deploys needs no data.
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
# Actions that IAM authorises on no single resource, or before there is one with a name.
ON_ALL = (
    "List", "Describe", "kms:CreateKey", "s3:ListAllMyBuckets", "logs:CreateLogDelivery",
    "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
    "logs:PutResourcePolicy", "lambda:CreateEventSourceMapping", "lambda:GetEventSourceMapping",
    "lambda:UpdateEventSourceMapping", "lambda:DeleteEventSourceMapping", "sns:Unsubscribe",
    "sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes",
)  # fmt: skip
# What settings add to the stack later: the names of the APIs, the mail of alarms, warm functions.
LATER = (
    "AWS::ApiGatewayV2::ApiMapping", "AWS::ApiGatewayV2::DomainName", "AWS::Lambda::Alias",
)  # fmt: skip
# What osls and `jobplane deploy` call themselves, beside CloudFormation.
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
    # Whether a secret is there, not what it is.
    "ssm": ("DescribeParameters",),
}  # fmt: skip
# Of the deployment bucket alone.
ARTIFACTS = (
    "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:GetObjectVersion",
    "s3:ListBucket", "s3:ListBucketVersions", "s3:PutObject",
)  # fmt: skip
# What `jobplane down` removes that belongs to no stack.
LEFT_BEHIND = {
    "logs": ("DeleteLogGroup", "DescribeLogGroups"),
    "sqs": ("DeleteQueue", "ListQueues"),
    "ssm": ("DeleteParameter",),
}


class PolicyTooLargeError(click.ClickException):
    """IAM takes no inline policy of that size."""


class UnknownTypeError(click.ClickException):
    """A resource type of the stack has no schema here, or no known service."""


def policy(
    template: Mapping[str, Any], names: Names, *, account: str, region: str, partition: str
) -> dict[str, Any]:
    """The policy document.

    Args:
        template: as compiled for the stage.

    Raises:
        UnknownTypeError: a resource type is not known.
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
    """The policy that docs/ shows, of an account that AWS's own documentation uses."""
    where = {"account": "123456789012", "region": "eu-west-1", "partition": "aws"}
    return json.dumps(policy(template, names, **where), indent=2) + "\n"


def _of_type(kind: str) -> Iterator[str]:
    """What the handlers of a resource type call of its own service, and roles that it is given."""
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
                yield action  # it delivers its log


def _artifacts(names: Names, partition: str) -> str:
    """The deployment bucket. CloudFormation names it, and cuts what makes the name too long."""
    stack = names.stack if len(names.stack) <= KEPT_OF_STACK else names.stack[:KEPT_OF_STACK] + "*"
    return f"arn:{partition}:s3:::{stack}-serverlessdeploymentbuck*"


def _is_on_all(action: str) -> bool:
    if action == "s3:ListBucket":
        return False  # it lists the objects of a bucket
    return action in ON_ALL or action.partition(":")[2].startswith(("List", "Describe"))


def _resources(service: str, names: Names, arn: str, where: str) -> list[str]:
    """The resources of a service that the stage has, by their names as far as IAM allows."""
    prefix, region = names.prefix, where.partition(":")[0]
    account = where.partition(":")[2]
    by_service = {
        # API Gateway makes the ids; of its ARNs the account is no part.
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
        # A mapping has an id, and carries the stack's tags.
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
    """Actions, each once, whatever the case of its letters."""
    return list({action.lower(): action for action in actions}.values())


def _check_size(document: Mapping[str, Any]) -> None:
    size = len(json.dumps(document, separators=(",", ":")))
    if size > LARGEST:
        raise PolicyTooLargeError(
            f"the policy has {size} characters, and IAM allows {LARGEST}: split it in two policies"
        )
