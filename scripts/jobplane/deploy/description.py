"""Describe a deployed stage: URLs, names, stack."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import botocore.session

from jobplane.stage.stages import Stage


def describe(stage: Stage) -> dict[str, Any]:
    cloudformation = stage.client("cloudformation")
    resources = {
        resource["LogicalResourceId"]: resource
        for page in cloudformation.get_paginator("list_stack_resources").paginate(
            StackName=stage.names.stack
        )
        for resource in page["StackResourceSummaries"]
    }
    region = cloudformation.meta.region_name

    def named(kind: str) -> Iterator[str]:
        for logical, resource in resources.items():
            if resource["ResourceType"] == kind and not logical.startswith("Serverless"):
                yield resource["PhysicalResourceId"]

    def by_short_name(kind: str) -> dict[str, str]:
        found = {}
        for name in sorted(named(kind)):
            short = name.rpartition(":")[2] if name.startswith("arn:") else name
            found[stage.names.short(short.rpartition("/")[2])] = name
        return found

    machines = by_short_name("AWS::StepFunctions::StateMachine")
    buckets = by_short_name("AWS::S3::Bucket").items()
    return {
        "stage": stage.name,
        "region": region,
        "endpoint_url": stage.endpoint_url,
        **_urls(stage, resources, region),
        "functions": by_short_name("AWS::Lambda::Function"),
        "tables": by_short_name("AWS::DynamoDB::Table"),
        # On AWS without account and region, which make a bucket's name unique.
        "buckets": {n.removesuffix(f"-{region}").rstrip("0123456789-"): v for n, v in buckets},
        "queues": by_short_name("AWS::SQS::Queue"),
        "state_machines": machines,
        # The stack has only one, so that scripts need not know its name.
        "state_machine_arn": next(iter(machines.values()), None),
    }


def stack_stamp(stage: Stage) -> str:
    """The id of the stage's stack and its last change; empty if there is no stack."""
    client = stage.client("cloudformation")
    try:
        (stack,) = client.describe_stacks(StackName=stage.names.stack)["Stacks"]
    except client.exceptions.ClientError:
        return ""
    changed = stack.get("LastUpdatedTime") or stack["CreationTime"]
    return f"{stack['StackId']} {changed.isoformat()}"


def _urls(stage: Stage, resources: dict[str, Any], region: str) -> dict[str, str | None]:
    socket_api = resources.get("WebsocketsApi", {}).get("PhysicalResourceId")
    http_api = resources.get("HttpApi", {}).get("PhysicalResourceId")
    if stage.endpoint_url is not None:
        base, secure = f"{stage.endpoint_url.removeprefix('http://')}/_aws/execute-api", ""
        management = sockets = f"{base}/{socket_api}/{stage.name}"
        http = f"{base}/{http_api}/$default"
    else:
        host, secure = _api_host(region), "s"
        management = f"{socket_api}.{host}/{stage.name}"
        # Custom domains (scripts/serverless/domains.js) don't manage connections.
        sockets, http = (
            resources.get(f"{kind}Domain", {}).get("PhysicalResourceId") or api
            for kind, api in (("Socket", management), ("Http", f"{http_api}.{host}"))
        )
    return {
        "websocket_url": f"ws{secure}://{sockets}" if socket_api else None,
        "http_url": f"http{secure}://{http}" if http_api else None,
        "management_url": f"http{secure}://{management}" if socket_api else None,
    }


def _api_host(region: str) -> str:
    """The domain of a region's API endpoints, which depends on its partition."""
    session = botocore.session.get_session()
    client = session.create_client("apigatewaymanagementapi", region_name=region)
    return urlsplit(client.meta.endpoint_url).netloc
