"""The stack's template: as the Serverless Framework compiles it, and as it is deployed."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from jobplane.stage.framework import install_framework, osls
from jobplane.stage.stages import Stage
from jobplane.tree.configuration import TRIGGERS, logical_id, references, role_id
from jobplane.tree.repository import Function

# Resources that get a new logical id with every change of code.
VERSION = "AWS::Lambda::Version"
DEPLOYMENT = "AWS::ApiGatewayV2::Deployment"
# Types that direct requests to a function; they count as its configuration.
LEADING = TRIGGERS | {"AWS::ApiGatewayV2::Integration", "AWS::Lambda::Alias", "AWS::Lambda::Url"}
ROUTE = "AWS::ApiGatewayV2::Route"
ALIAS = "AWS::Lambda::Alias"
NEVER_DEPLOYED = frozenset({"REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"})
RETAINING = frozenset({"Retain", "RetainExceptOnCreate"})


@dataclass(frozen=True)
class StackTemplate:
    """A CloudFormation template, normalised: builds of the same configuration are equal."""

    body: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "StackTemplate":
        """Remove names of builds and uploads; replace characters as GetTemplate does."""
        resources = body.get("Resources", {})
        names = {
            logical: kind
            for logical, resource in resources.items()
            if (kind := resource["Type"]) in (VERSION, DEPLOYMENT)
        }
        kept = {
            names.get(logical, logical): _without_key(resource)
            for logical, resource in resources.items()
            if names.get(logical) != VERSION
        }
        outputs = {
            logical: output
            for logical, output in body.get("Outputs", {}).items()
            if VERSION not in {names.get(used) for used in references(output)}
        }
        text = json.dumps({**body, "Resources": kept, "Outputs": outputs}, ensure_ascii=False)
        for logical, kind in names.items():
            text = text.replace(f'"{logical}"', f'"{kind}"')
        # GetTemplate returns a question mark for every character that is not ASCII.
        document = json.loads("".join(c if ord(c) < 128 else "?" for c in text))
        return cls(document)

    @cached_property
    def resources(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.body.get("Resources", {})
        return found

    def function(self, function: Function) -> dict[str, Any] | None:
        resource = self.resources.get(logical_id(function))
        return resource["Properties"] if resource is not None else None

    def own(self, function: Function) -> set[str]:
        """The logical ids of resources for this function only: role, log group, triggers."""
        name = logical_id(function)
        own = {name, role_id(function), f"{name.removesuffix('LambdaFunction')}LogGroup"}
        own |= {user for user in self._users(name) if self.resources[user]["Type"] in LEADING}
        routes = {
            user
            for leading in own
            for user in self._users(leading)
            if self.resources[user]["Type"] == ROUTE
        }
        return (own | routes) & self.resources.keys()

    def alias(self, function: Function) -> str | None:
        """The alias that receives the requests; None if they go to the latest code."""
        for user in self._users(logical_id(function)):
            if self.resources[user]["Type"] == ALIAS:
                return str(self.resources[user]["Properties"]["Name"])
        return None

    def _users(self, logical: str) -> list[str]:
        return [user for user, used in self._references.items() if logical in used]

    @cached_property
    def _references(self) -> dict[str, set[str]]:
        return {logical: references(resource) for logical, resource in self.resources.items()}


def is_retained(resource: Mapping[str, Any]) -> bool:
    return resource.get("DeletionPolicy") in RETAINING


def is_protected(resource: Mapping[str, Any]) -> bool:
    """Whether scripts/serverless/protection.js protects the table once it is deployed."""
    return bool(resource.get("Metadata", {}).get("ProtectedOnceDeployed"))


def _without_key(resource: Mapping[str, Any]) -> dict[str, Any]:
    if resource["Type"] != "AWS::Lambda::Function":
        return dict(resource)
    properties = {key: value for key, value in resource["Properties"].items() if key != "Code"}
    return {**resource, "Properties": properties}


@dataclass(frozen=True)
class Package:
    folder: Path
    raw: Mapping[str, Any]

    @cached_property
    def template(self) -> StackTemplate:
        return StackTemplate.of(self.raw)


@contextmanager
def package(
    stage: Stage, parameters: tuple[str, ...] = (), account: str = "", stand_in: str = ""
) -> Iterator[Package]:
    """Compile the stack into a temporary folder.

    Args:
        account: the account id to write into names; without it they contain a reference.
        stand_in: a file to use in place of all artifacts; without it they must be built.
    """
    with tempfile.TemporaryDirectory(prefix="jobplane-") as scratch:
        folder = Path(scratch) / "package"
        options = [option for given in parameters for option in ("--param", given)]
        variables = {"JOBPLANE_ACCOUNT": account, "JOBPLANE_STAND_IN": stand_in}
        osls(stage, "package", "--package", str(folder), *options, **variables)
        text = (folder / "cloudformation-template-update-stack.json").read_text(encoding="utf-8")
        yield Package(folder, json.loads(text))


def outline(stage: Stage) -> Mapping[str, Any]:
    """The template, compiled without artifacts and credentials: ids of versions differ."""
    install_framework(stage.repository)
    with tempfile.NamedTemporaryFile(prefix="jobplane-", suffix=".zip") as stand_in:
        with ZipFile(stand_in, "w"):
            pass
        stand_in.flush()
        with package(stage, stand_in=stand_in.name) as compiled:
            return compiled.raw


def status(stage: Stage) -> str | None:
    client = stage.client("cloudformation")
    try:
        (stack,) = client.describe_stacks(StackName=stage.names.stack)["Stacks"]
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        return None
    state: str = stack["StackStatus"]
    return None if state == "DELETE_COMPLETE" else state


def deployed(stage: Stage) -> StackTemplate | None:
    """The deployed template, from CloudFormation; None if the stack was never deployed."""
    if status(stage) in (None, *NEVER_DEPLOYED):
        return None
    answer = stage.client("cloudformation").get_template(StackName=stage.names.stack)
    body = answer["TemplateBody"]
    return StackTemplate.of(json.loads(body) if isinstance(body, str) else body)
