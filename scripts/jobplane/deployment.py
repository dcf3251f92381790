"""The framework and the stacks: running osls, and bringing the emulator's to what the tree says."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from jobplane import emulator
from jobplane.artifacts import Artifact
from jobplane.console import INSTALL_HINTS, MissingToolError, note, run_quietly
from jobplane.environments import plain_environment
from jobplane.locks import exclusive
from jobplane.stages import Stage, State, default_region
from jobplane.workspace import Function, Workspace, read_yaml

NODE = (20, 19)
INSTALLED = "node_modules/.package-lock.json"
FRAMEWORK = "node_modules/.bin/osls"
PARAMETER = re.compile(r"\$\{param:\s*([^},\s]+)")


def install_framework(workspace: Workspace) -> None:
    """`npm ci`, when node_modules is missing or older than the lock."""
    if _is_installed(workspace):
        return
    _require_node(workspace)
    with exclusive(workspace, "npm-ci"):
        if _is_installed(workspace):
            return
        note("installing the Serverless Framework (npm ci); this takes a minute the first time")
        run_quietly(
            ["npm", "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=workspace.root,
            what="npm ci",
        )
        (workspace.root / INSTALLED).touch()


def _is_installed(workspace: Workspace) -> bool:
    lock, installed = workspace.root / "package-lock.json", workspace.root / INSTALLED
    # An installation that left the development dependencies out has no framework.
    return (
        (workspace.root / FRAMEWORK).exists()
        and installed.is_file()
        and installed.stat().st_mtime >= lock.stat().st_mtime
    )


def _require_node(workspace: Workspace) -> None:
    version = run_quietly(["node", "--version"], cwd=workspace.root, what="node --version").strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE:
        raise MissingToolError(f"{INSTALL_HINTS['node']} (this one is {version})")


def osls(stage: Stage, *arguments: str, **variables: str) -> str:
    """Run the framework against the stage; its output, when it succeeds.

    One at a time: whatever its package's folder, it works in `.serverless` as well.
    """
    binary = stage.workspace.root / FRAMEWORK
    with exclusive(stage.workspace, "osls"):
        return run_quietly(
            [binary, *arguments, "--stage", stage.name],
            cwd=stage.workspace.root,
            what=f"osls {arguments[0]}",
            env=framework_environment(stage) | variables,
        )


def framework_environment(stage: Stage) -> dict[str, str]:
    """This environment; for a local stage with nothing of the user's AWS account, and no proxy.

    The framework sends all its calls to the emulator, and knows no NO_PROXY.
    """
    built = {"JOBPLANE_BUILT": "1"}
    if not stage.is_local:
        return plain_environment(aws=True, AWS_REGION=default_region(stage.workspace), **built)
    kept = {
        key: value
        for key, value in plain_environment().items()
        if not key.upper().endswith("_PROXY")
    }
    return kept | stage.environment() | built | {"SLS_AWS_MONITORING_FREQUENCY": "100"}


def deploy(stage: Stage, functions: list[Function], artifacts: list[Artifact]) -> str:
    """Deploy what differs from what is there; one line that says what that was."""
    state = stage.read_state()
    if state is None:
        raise ValueError(f"stage {stage.name} has no emulator")
    digests = {artifact.name: artifact.digest for artifact in artifacts}
    config = config_digest(stage.workspace, functions)
    if state.config != config or state.stack != stack_stamp(stage):
        _deploy_everything(stage, state)
        if state.functions and not state.config:
            from jobplane import shipping

            shipping.mend(stage, functions, artifacts)
        done = f"deployed {len(digests)} functions"
    else:
        there = code_digests(stage, functions)
        changed = sorted(name for name, digest in digests.items() if there[name] != digest)
        if not changed:
            return "nothing to deploy"
        _deploy_code(stage, [f for f in functions if f.name in changed])
        done = f"deployed {', '.join(changed)}"
    state.config = config
    state.stack = stack_stamp(stage)
    state.functions = digests
    stage.write_state(state)
    emulator.prune(stage.workspace)
    return done


def stack_stamp(stage: Stage) -> str:
    """Which stack the stage has, and when it was last changed; empty without one."""
    client = stage.client("cloudformation")
    try:
        (stack,) = client.describe_stacks(StackName=stage.names.stack)["Stacks"]
    except client.exceptions.ClientError:
        return ""
    changed = stack.get("LastUpdatedTime") or stack["CreationTime"]
    return f"{stack['StackId']} {changed.isoformat()}"


def code_digests(stage: Stage, functions: Iterable[Function]) -> dict[str, str | None]:
    """SHA-256 of the code that is deployed, by function; None where there is no such function."""
    client = stage.client("lambda")

    def digest(function: Function) -> str | None:
        try:
            there = client.get_function_configuration(
                FunctionName=function.deployed_name(stage.name)
            )
        except client.exceptions.ResourceNotFoundException:
            return None
        return base64.b64decode(there["CodeSha256"]).hex()

    functions = list(functions)
    with ThreadPoolExecutor() as pool:
        found = pool.map(digest, functions)
        return {function.name: each for function, each in zip(functions, found, strict=True)}


def publish_secret(stage: Stage, state: State) -> None:
    """Put a local stage's secret where its template looks for it."""
    stage.client("ssm").put_parameter(
        Name=stage.secret_name, Value=state.jwt_secret, Type="SecureString", Overwrite=True
    )


def _deploy_everything(stage: Stage, state: State) -> None:
    publish_secret(stage, state)
    note(f"deploying the stack to {stage.name} (osls deploy)")
    osls(stage, "deploy", "--force")
    state.description = describe(stage)


def _deploy_code(stage: Stage, functions: list[Function]) -> None:
    client = stage.client("lambda")

    def update(function: Function) -> None:
        client.update_function_code(
            FunctionName=function.deployed_name(stage.name),
            ZipFile=(stage.workspace.dist / f"{function.name}.zip").read_bytes(),
        )

    with ThreadPoolExecutor() as pool:
        list(pool.map(update, functions))


def config_digest(workspace: Workspace, functions: Iterable[Function]) -> str:
    """Changes when the compiled stack would: anything but the functions' code."""
    paths = [
        workspace.root / "serverless.yml",
        workspace.root / "package-lock.json",
        *sorted((workspace.root / "scripts" / "serverless").glob("*.js")),
        *sorted((workspace.root / "resources").glob("*.yml")),
        *(function.config_path for function in functions),
    ]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(workspace.root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def parameters(workspace: Workspace) -> list[str]:
    """What `--param` may set: what stages declare, and what the configuration asks for.

    A stage may be given what only another declares, as osls has it.
    """
    service = workspace.root / "serverless.yml"
    asking = [
        service,
        *(workspace.root / "resources").glob("*.yml"),
        *(function.config_path for function in workspace.functions()),
    ]
    asked = {name for path in asking for name in PARAMETER.findall(path.read_text("utf-8"))}
    return sorted(asked.union(*filter(None, read_yaml(service)["custom"]["stages"].values())))


def describe(stage: Stage) -> dict[str, Any]:
    """Where everything of a deployed stage is: URLs, and physical names by short name."""
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
    return {
        "stage": stage.name,
        "region": region,
        "endpoint_url": stage.endpoint_url,
        **_urls(stage, resources, region),
        "functions": by_short_name("AWS::Lambda::Function"),
        "tables": by_short_name("AWS::DynamoDB::Table"),
        "buckets": _buckets(by_short_name("AWS::S3::Bucket"), region),
        "queues": by_short_name("AWS::SQS::Queue"),
        "state_machines": machines,
        # The stack has one; a script need not know its name.
        "state_machine_arn": next(iter(machines.values()), None),
    }


def _buckets(found: dict[str, str], region: str) -> dict[str, str]:
    """On AWS a bucket's name ends in account and region, for it must be unique."""
    return {name.removesuffix(f"-{region}").rstrip("0123456789-"): v for name, v in found.items()}


def _urls(stage: Stage, resources: dict[str, Any], region: str) -> dict[str, str | None]:
    socket_api = resources.get("WebsocketsApi", {}).get("PhysicalResourceId")
    http_api = resources.get("HttpApi", {}).get("PhysicalResourceId")
    local = stage.endpoint_url
    if local is not None:
        base = f"{local.removeprefix('http://')}/_aws/execute-api"
        return {
            "websocket_url": f"ws://{base}/{socket_api}/{stage.name}" if socket_api else None,
            "http_url": f"http://{base}/{http_api}/$default" if http_api else None,
            "management_url": f"http://{base}/{socket_api}/{stage.name}" if socket_api else None,
        }
    host = _api_host(region)
    # Own names, of scripts/serverless/domains.js; connections are managed at API Gateway's.
    sockets, http = (
        resources.get(f"{kind}Domain", {}).get("PhysicalResourceId") for kind in ("Socket", "Http")
    )
    sockets = sockets or f"{socket_api}.{host}/{stage.name}"
    return {
        "websocket_url": f"wss://{sockets}" if socket_api else None,
        "http_url": f"https://{http or f'{http_api}.{host}'}" if http_api else None,
        "management_url": f"https://{socket_api}.{host}/{stage.name}" if socket_api else None,
    }


def _api_host(region: str) -> str:
    """What the addresses of a region's APIs end with, in whatever partition it lies."""
    import botocore.session

    session = botocore.session.get_session()
    client = session.create_client("apigatewaymanagementapi", region_name=region)
    return urlsplit(client.meta.endpoint_url).netloc
