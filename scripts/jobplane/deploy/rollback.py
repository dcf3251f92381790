"""Roll back a function to a former version, or the stack to a former deployment.

Lambda keeps a version of each function that the stack deployed; `jobplane deploy NAME` publishes a
version of the code that it replaces. The deployment bucket keeps templates and artifacts of the
last deployments.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from jobplane.deploy import compiled
from jobplane.deploy.compiled import Package, StackTemplate
from jobplane.deploy.shipping import (
    Live,
    NoStackError,
    Plan,
    Step,
    changes,
    differences,
    live_functions,
    step_for,
)
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Function

TEMPLATE = "compiled-cloudformation-template.json"
LINK_SECONDS = 900


class NothingToGoBackToError(click.ClickException):
    """The stage has no former version or deployment to go back to."""


@dataclass(frozen=True)
class _Deployment:
    """A deployment in the bucket; its keys contain `<milliseconds>-<time>`."""

    bucket: str
    folder: str

    @property
    def milliseconds(self) -> int:
        return int(self.folder.rpartition("/")[2].partition("-")[0])

    @property
    def time(self) -> str:
        return self.folder.rpartition("/")[2].partition("-")[2]


@contextmanager
def planned(
    stage: Stage, functions: list[Function], *, whole: bool, to: str | None
) -> Iterator[Plan]:
    """Plan a rollback; `to` is a version's number or a deployment's time, else the one before."""
    before = compiled.deployed(stage)
    if before is None:
        raise NoStackError(
            f"stack {stage.names.stack} is not deployed, so it can't be rolled back; "
            f"to deploy it: jobplane deploy --stage {stage.name}"
        )
    if whole:
        yield _of_stack(stage, functions, before, to)
    else:
        live = live_functions(stage, functions)
        steps = [_of_function(stage, function, live[function.name], to) for function in functions]
        yield Plan(stage, functions, steps, whole=False)


def _of_function(stage: Stage, function: Function, live: Live | None, to: str | None) -> Step:
    if live is None:
        raise NothingToGoBackToError(f"{function.name} is not deployed on {stage.name}")
    client = stage.client("lambda")
    name = function.deployed_name(stage.name)
    if aliases := client.list_aliases(FunctionName=name)["Aliases"]:
        raise NothingToGoBackToError(
            f"requests to {function.name} go to a version, behind alias {aliases[0]['Name']}: "
            f"roll back the stack: jobplane deploy --rollback --stage {stage.name}"
        )
    version = _former_version(_versions(client, name), live, to)
    if version is None:
        wanted = f"version {to}" if to is not None else "former version"
        raise NothingToGoBackToError(f"{function.name} has no {wanted} on {stage.name}")
    former = Live.of(version)
    found = client.get_function(FunctionName=name, Qualifier=version["Version"])
    return Step(
        function.name,
        former.digest,
        former.size,
        live,
        location=found["Code"]["Location"],
        **changes(live, version, former.variables),
    )


def _versions(client: Any, name: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=name)
    found = [version for page in pages for version in page["Versions"]]
    published = [version for version in found if version["Version"] != "$LATEST"]
    return sorted(published, key=lambda version: int(version["Version"]), reverse=True)


def _former_version(
    versions: list[dict[str, Any]], live: Live, to: str | None
) -> dict[str, Any] | None:
    """The named version, or the newest one that is older than the live code and differs."""
    if to is not None:
        return next((version for version in versions if version["Version"] == to), None)
    same = [place for place, each in enumerate(versions) if Live.of(each).digest == live.digest]
    older = versions[same[0] + 1 :] if same else versions
    return next((version for version in older if Live.of(version).digest != live.digest), None)


def _of_stack(
    stage: Stage, functions: list[Function], before: StackTemplate, to: str | None
) -> Plan:
    s3 = stage.client("s3")
    former = _former_deployment(stage, s3, to)
    raw = json.loads(
        s3.get_object(Bucket=former.bucket, Key=f"{former.folder}/{TEMPLATE}")["Body"].read()
    )
    package = Package(Path(), raw)
    known = [function for function in functions if package.template.function(function)]
    live = live_functions(stage, known)
    steps = []
    for function in known:
        key = f"{former.folder}/{function.name}.zip"
        head = s3.head_object(Bucket=former.bucket, Key=key)
        link = s3.generate_presigned_url(
            "get_object", Params={"Bucket": former.bucket, "Key": key}, ExpiresIn=LINK_SECONDS
        )
        stored = Live.digest_of(head["Metadata"]["filesha256"])
        artifact = Step(function.name, stored, head["ContentLength"], None)
        step = step_for(function, artifact, live[function.name], package, before)
        steps.append(replace(step, location=link))
    return Plan(
        stage,
        known,
        steps,
        whole=True,
        stack=differences(before, package.template),
        package=package,
        back_to=former.time,
    )


def _former_deployment(stage: Stage, s3: Any, to: str | None) -> _Deployment:
    deployments = list(_deployments(stage, s3))
    current = _current(stage)
    if to is not None:
        found = [each for each in deployments if to in (each.time, str(each.milliseconds))]
    else:
        found = [each for each in deployments if each.milliseconds < current]
    if not found:
        known = ", ".join(each.time for each in deployments) or "none"
        wanted = f"deployment {to}" if to is not None else "deployment before the present one"
        raise NothingToGoBackToError(f"{stage.name} has no {wanted}; kept are: {known}")
    return max(found, key=lambda each: each.milliseconds)


def _deployments(stage: Stage, s3: Any) -> Iterator[_Deployment]:
    client = stage.client("cloudformation")
    found = client.describe_stack_resource(
        StackName=stage.names.stack, LogicalResourceId="ServerlessDeploymentBucket"
    )
    bucket = found["StackResourceDetail"]["PhysicalResourceId"]
    prefix = f"serverless/{stage.names.service}/{stage.name}/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            folder, _, name = entry["Key"].rpartition("/")
            if name == TEMPLATE:
                yield _Deployment(bucket, folder)


def _current(stage: Stage) -> int:
    """The time of the deployment whose code the stack's functions have, in milliseconds."""
    body = stage.client("cloudformation").get_template(StackName=stage.names.stack)["TemplateBody"]
    template = json.loads(body) if isinstance(body, str) else body
    return max(
        _Deployment("", resource["Properties"]["Code"]["S3Key"].rpartition("/")[0]).milliseconds
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function"
    )
