"""The IAM policy for deploying a stage, with CloudFormation and with the tools.

CloudFormation's schemas of the resource types list the actions that it needs; cfn-lint contains
these schemas. deployer.toml lists the actions that the tools need themselves.
"""

import json
import tomllib
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
LISTS = tomllib.loads(Path(__file__).with_name("deployer.toml").read_text(encoding="utf-8"))
SERVICES: dict[str, str] = LISTS["services"]
NOT_NEEDED = {service: tuple(names) for service, names in LISTS["not_needed"].items()}


class PolicyTooLargeError(click.ClickException):
    """The policy is larger than IAM allows for inline policies."""


class UnknownTypeError(click.ClickException):
    """cfn-lint has no schema of a resource type, or SERVICES lacks its service."""


def policy(
    template: Mapping[str, Any], names: Names, *, account: str, region: str, partition: str
) -> dict[str, Any]:
    """The policy document."""
    wanted: dict[str, set[str]] = defaultdict(set)
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    for kind in kinds.union(LISTS["later"]):
        for action in _of_type(kind):
            wanted[action.partition(":")[0]].add(action)
    for calls in (LISTS["tools"], LISTS["left_behind"]):
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
    statements.append(_statement("artifacts", LISTS["artifacts"], [bucket, f"{bucket}/*"]))
    document = {"Version": "2012-10-17", "Statement": statements}
    size = len(json.dumps(document, separators=(",", ":")))
    if size > LARGEST:
        raise PolicyTooLargeError(
            f"the policy has {size} characters, IAM allows {LARGEST}: split it into two policies"
        )
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
        raise UnknownTypeError(f"{kind}: add its service to scripts/jobplane/deploy/deployer.toml")
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
    return action in LISTS["on_all"] or action.partition(":")[2].startswith(("List", "Describe"))


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
    # Without duplicates that differ in case only.
    unique = {action.lower(): action for action in sorted(actions, key=str.lower)}
    return {
        "Sid": "".join(word.capitalize() for word in name.split("-")),
        "Effect": "Allow",
        "Action": list(unique.values()),
        "Resource": resources,
    }
