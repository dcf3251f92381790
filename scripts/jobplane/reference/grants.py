"""The permissions of the compiled stack: of roles, and of resource policies.

Resources are written by logical id, `RequestsTable/index/by-tenant`; resources outside of the
template by the end of their ARN, `ssm:parameter/{service}/{stage}/webhooks/*`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobplane.deploy import compiled
from jobplane.reference.documents import table
from jobplane.stage.stages import Stage
from jobplane.tree.names import Names
from jobplane.tree.repository import Repository

DOCUMENT = Path("docs", "security.md")
STAGE = "prod"
"""The stage whose roles are listed; those of other stages differ only in the stage's name."""
# `arn:aws:sqs:eu-west-1:123456789012:name` → `sqs:name`: region and account are the stack's.
OWN_ARN = re.compile(
    r"^arn:{AWS::Partition}:([a-z0-9-]+):(?:{AWS::Region})?:(?:{AWS::AccountId})?:"
)
# Types with a resource policy: the property that contains it.
OPENINGS = {
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
    "AWS::SQS::QueuePolicy": "PolicyDocument",
}
EVERY_FUNCTION = "*every function*"


@dataclass(frozen=True, order=True)
class Grant:
    role: str
    """A function's name, or a state machine's logical id."""
    resource: str
    actions: tuple[str, ...]
    condition: str = ""

    def covers(self, action: str, resource: str) -> bool:
        """Whether it allows an action on a resource if its condition is met."""
        return any(_fits(action, each) for each in self.actions) and _fits(resource, self.resource)


@dataclass(frozen=True, order=True)
class Opening:
    """One statement of a resource's own policy."""

    resource: str
    effect: str
    principal: str
    actions: tuple[str, ...]
    condition: str = ""


def grants(template: Mapping[str, Any], names: Names) -> list[Grant]:
    resources = template["Resources"]
    holders = _holders(resources, names)
    named = _named(resources, names)
    found = []
    for logical, resource in resources.items():
        if resource["Type"] != "AWS::IAM::Role":
            continue
        if logical not in holders:
            raise ValueError(f"role {logical} belongs to no function or state machine")
        for statement in _statements(resource["Properties"]):
            if statement["Effect"] != "Allow" or not {"Action", "Resource"} <= statement.keys():
                raise ValueError(
                    f"{logical}: only Allow statements with Action and Resource are supported"
                )
            actions = tuple(sorted(_list(statement["Action"])))
            condition = _condition(statement, names)
            for expression in _list(statement["Resource"]):
                text = text_of(expression, names)
                granted = named.get(text, text)
                found.append(Grant(holders[logical], granted, actions, condition))
    return sorted(found)


def openings(template: Mapping[str, Any], names: Names) -> list[Opening]:
    found = []
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Lambda::Permission":
            source = properties.get("SourceArn") or properties.get("SourceAccount")
            condition = f"from {text_of(source, names)}" if source else ""
            function = text_of(properties["FunctionName"], names)
            actions = (str(properties["Action"]),)
            found.append(Opening(function, "Allow", properties["Principal"], actions, condition))
        elif resource["Type"] in OPENINGS:
            policy = properties[OPENINGS[resource["Type"]]]
            for statement in _list(policy["Statement"]):
                found += _of_policy(statement, _guarded(resource, names), names)
    return sorted(set(found))


def text_of(expression: Any, names: Names) -> str:
    text = OWN_ARN.sub(r"\1:", _joined(expression)).removeprefix("s3:")
    text = text.replace(names.prefix, "{service}-{stage}-")
    text = text.replace(names.parameter(""), "/{service}/{stage}/")
    return re.sub(rf"/{re.escape(names.stage)}(?=/|$)", "/{stage}", text)


def template_to_tell(repository: Repository) -> Mapping[str, Any]:
    return compiled.outline(Stage(repository, STAGE))


def tables(template: Mapping[str, Any], names: Names) -> dict[str, str]:
    rows = []
    by_holder: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for grant in _with_common(grants(template, names), template, names):
        by_holder[grant.role, grant.resource, grant.condition] |= set(grant.actions)
    for (role, resource, condition), actions in sorted(by_holder.items()):
        rows.append((role, f"`{resource}`", _listed(actions), condition or "–"))
    let_in = [
        (f"`{each.resource}`", each.effect.lower(), each.principal, _listed(each.actions),
         each.condition or "–")
        for each in openings(template, names)
    ]  # fmt: skip
    return {
        "grants": table(("role of", "resource", "actions", "condition"), rows),
        "openings": table(("resource", "effect", "whom", "actions", "condition"), let_in),
    }


def _holders(resources: Mapping[str, Any], names: Names) -> dict[str, str]:
    found = {}
    for logical, resource in resources.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Lambda::Function":
            name = names.short(properties["FunctionName"])
            found[properties["Role"]["Fn::GetAtt"][0]] = name
        elif resource["Type"] == "AWS::StepFunctions::StateMachine":
            found[properties["RoleArn"]["Fn::GetAtt"][0]] = logical
    return found


def _named(resources: Mapping[str, Any], names: Names) -> dict[str, str]:
    """The logical ids of functions and state machines, by their ARNs as texts."""
    kinds = {
        "AWS::Lambda::Function": ("FunctionName", "lambda:function"),
        "AWS::StepFunctions::StateMachine": ("StateMachineName", "states:stateMachine"),
    }
    found = {}
    for logical, resource in resources.items():
        if kind := kinds.get(resource["Type"]):
            found[f"{kind[1]}:{text_of(resource['Properties'][kind[0]], names)}"] = logical
    return found


def _with_common(
    found: Iterable[Grant], template: Mapping[str, Any], names: Names
) -> Iterator[Grant]:
    """The grants; one that every function has on its own resource is listed once."""
    found = list(found)
    functions = {
        names.short(resource["Properties"]["FunctionName"])
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function"
    }
    general: dict[tuple[str, tuple[str, ...], str], set[str]] = defaultdict(set)
    for grant in found:
        if grant.role in functions:
            general[_general(grant)].add(grant.role)
    common = {key for key, roles in general.items() if roles == functions}
    yield from (Grant(EVERY_FUNCTION, *key) for key in common)
    yield from (g for g in found if g.role not in functions or _general(g) not in common)


def _general(grant: Grant) -> tuple[str, tuple[str, ...], str]:
    resource = re.sub(rf"(?<=-){re.escape(grant.role)}(?=:)", "{function}", grant.resource)
    return resource, grant.actions, grant.condition


def _of_policy(statement: Mapping[str, Any], guarded: str, names: Names) -> Iterator[Opening]:
    resources = {text_of(each, names) for each in _list(statement["Resource"])}
    for resource in {guarded if each == "*" else each for each in resources}:
        for principal in _principals(statement["Principal"]):
            actions = tuple(sorted(_list(statement["Action"])))
            condition = _condition(statement, names)
            yield Opening(resource, statement["Effect"], principal, actions, condition)


def _guarded(resource: Mapping[str, Any], names: Names) -> str:
    """The resource of a policy, for statements with `*`."""
    properties = resource["Properties"]
    for key in ("Queues", "Topics"):
        if key in properties:
            return ", ".join(text_of(each, names) for each in properties[key])
    return text_of(properties["Bucket"], names) if "Bucket" in properties else "the key itself"


def _principals(principal: Any) -> list[str]:
    if isinstance(principal, str):
        return ["everyone"] if principal == "*" else [principal]
    texts = [_joined(each) for key in principal for each in _list(principal[key])]
    return ["the account" if text.endswith(":root") else text for text in texts]


def _condition(statement: Mapping[str, Any], names: Names) -> str:
    """`aws:SecureTransport is false`, of every condition of a statement."""
    said = []
    for operator, keys in sorted(statement.get("Condition", {}).items()):
        for key, values in sorted(keys.items()):
            texts = [
                json.dumps(each) if isinstance(each, bool) else text_of(each, names)
                for each in _list(values)
            ]
            texts = ["the account" if text == "{AWS::AccountId}" else text for text in texts]
            verb = {"StringLike": "like", "ArnLike": "like"}.get(operator, "is")
            said.append(f"{key} {verb} {' or '.join(f'`{text}`' for text in texts)}")
    return "; ".join(said)


def _joined(expression: Any) -> str:
    if isinstance(expression, str):
        return expression
    if not isinstance(expression, dict) or len(expression) != 1:
        raise ValueError(f"unsupported expression {expression!r}")
    ((function, argument),) = expression.items()
    if function == "Ref":
        return f"{{{argument}}}" if argument.startswith("AWS::") else str(argument)
    if function == "Fn::GetAtt":
        logical, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
        return str(logical) + {"Arn": "", "StreamArn": "/stream"}[attribute]
    if function == "Fn::Join":
        separator, parts = argument
        return str(separator).join(_joined(part) for part in parts)
    raise ValueError(f"unsupported function {function}")


def _statements(role: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if role.get("ManagedPolicyArns"):
        raise ValueError(
            "managed policies are not supported: their content can change; use inline statements"
        )
    for policy in role.get("Policies", ()):
        yield from _list(policy["PolicyDocument"]["Statement"])


def _fits(text: str, pattern: str) -> bool:
    """Match as IAM does: `*` is any text, `?` any character; all others match themselves."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _listed(actions: Iterable[str]) -> str:
    """Actions as text, each service once: `dynamodb:GetItem, PutItem`."""
    by_service: dict[str, list[str]] = defaultdict(list)
    for action in sorted(actions):
        service, _, name = action.partition(":")
        by_service[service].append(name)
    return "; ".join(f"{service}:{', '.join(names)}" for service, names in by_service.items())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
