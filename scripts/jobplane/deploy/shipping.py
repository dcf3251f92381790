"""Plan and make a deployment, of single functions or of the whole stack.

A plan compares with the stage itself: the digest of each function's code, its settings, and
CloudFormation's template. A single function gets code and settings; roles, triggers and shared
resources change with the stack only.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import click
from botocore.exceptions import BotoCoreError, ClientError

from jobplane.deploy import compiled, description
from jobplane.deploy.compiled import Package, StackTemplate
from jobplane.stage import emulator, framework
from jobplane.stage.signing import publish_secret
from jobplane.stage.stages import Stage, StageNotUpError, default_region
from jobplane.tree.configuration import logical_id
from jobplane.tree.repository import Function, Repository, read_yaml
from lambdapack.artifacts import Artifact, Builder, Settings, read_manifest, stale_functions
from lambdapack.requirements import PLATFORMS

# Properties of a function that can change without the stack.
SETTINGS = ("Description", "Handler", "MemorySize", "Runtime", "Timeout")
CODE_LIMIT = 50_000_000
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class StaleArtifactError(click.ClickException):
    """An artifact is older than its sources, or not built."""


class NoStackError(click.ClickException):
    """The stage's stack is not deployed yet."""


class NotDeployableAloneError(click.ClickException):
    """A function's change needs a deployment of the stack."""


class DeployFailedError(click.ClickException):
    """Some functions could not be deployed; the others were."""

    def __init__(self, message: str, deployed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.deployed = frozenset(deployed)


@dataclass(frozen=True)
class Live:
    """A deployed function, as Lambda describes it."""

    digest: str
    size: int
    revision: str
    properties: Mapping[str, Any]
    variables: Mapping[str, str]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Live":
        return cls(
            digest=cls.digest_of(found["CodeSha256"]),
            size=found["CodeSize"],
            revision=found["RevisionId"],
            properties=found,
            variables=found.get("Environment", {}).get("Variables", {}),
        )

    @staticmethod
    def digest_of(encoded: str) -> str:
        """Lambda's SHA-256, converted from base64 to hexadecimal."""
        return base64.b64decode(encoded).hex()


@dataclass(frozen=True)
class Step:
    name: str
    digest: str
    size: int
    live: Live | None
    """None if the function is not in the stack yet."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings to change, with the new values."""
    variables: Mapping[str, str] | None = None
    """All environment variables, if one of them changes."""
    changed_variables: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    """Differences that need a deployment of the stack."""
    alias: str | None = None
    """The alias that receives the requests, if any; only the stack can move it."""
    location: str | None = None
    """URL of the code, if it is not the one in dist/."""

    @property
    def code(self) -> bool:
        return self.live is None or self.live.digest != self.digest

    @property
    def configuration(self) -> list[str]:
        """The changed settings; names of variables only, because values may be secrets."""
        before = self.live.properties if self.live is not None else {}
        words = [f"{key} {before.get(key)} → {value}" for key, value in self.settings.items()]
        return words + [f"environment {name}" for name in self.changed_variables]

    @property
    def differs(self) -> bool:
        return bool(self.code or self.settings or self.changed_variables)

    @property
    def is_alone(self) -> bool:
        """Whether something can be deployed without the stack."""
        return self.live is not None and self.alias is None and self.differs


@dataclass(frozen=True)
class Plan:
    stage: Stage
    functions: list[Function]
    steps: list[Step]
    whole: bool
    """The whole stack, not single functions."""
    stack: list[str] = field(default_factory=list)
    """Resources of the template that differ; empty for single functions."""
    is_new: bool = False
    """The stack does not exist yet."""
    package: Package | None = None
    back_to: str | None = None
    """For a rollback of the stack: the timestamp of the former deployment."""

    @property
    def nothing(self) -> bool:
        if self.whole:
            return not (self.is_new or self.stack or any(step.differs for step in self.steps))
        return not any(step.is_alone for step in self.steps)

    @property
    def left(self) -> list[str]:
        """Differences that can't be deployed with single functions."""
        if self.whole:
            return []
        said = []
        for step in self.steps:
            if step.live is None:
                said.append(f"{step.name} is not in the stack yet")
            elif step.alias is not None and step.differs:
                said.append(f"{step.name}: requests go to a version, behind alias {step.alias}")
            elif step.beyond:
                said.append(f"{step.name}: {', '.join(step.beyond)}")
        return said


def where(stage: Stage) -> str:
    """Where a deployment goes: account and region, or the emulator's address."""
    local = stage.endpoint_url or loopback_endpoint()
    if local is not None:
        return f"the emulator at {local}"
    return f"AWS account {account_of(stage)}, {default_region(stage.repository)}"


def account_of(stage: Stage) -> str:
    account: str = stage.client("sts").get_caller_identity()["Account"]
    return account


def loopback_endpoint() -> str | None:
    """AWS_ENDPOINT_URL if it is an address of this machine: an emulator."""
    url = os.environ.get("AWS_ENDPOINT_URL", "")
    return url if urlsplit(url).hostname in LOOPBACK else None


def require(stage: Stage) -> Stage:
    """The stage, after checking that it can be deployed to."""
    state = stage.require().read_state()
    if state is not None:
        if not emulator.is_running(state):
            raise StageNotUpError(stage.name)
        return stage
    stage.client("sts").get_caller_identity()
    return stage


def settings_for(stage: Stage, parameters: Mapping[str, str] | None = None) -> Settings:
    if stage.is_local or loopback_endpoint() is not None:
        return Settings.local()
    service = read_yaml(stage.repository.root / "serverless.yml")
    stages = service["custom"]["stages"]
    chosen = stages["default"] | (stages.get(stage.name) or {}) | dict(parameters or {})
    architecture = chosen["architecture"]
    if architecture not in PLATFORMS:
        known = " and ".join(PLATFORMS)
        raise click.UsageError(f"unknown architecture {architecture!r}; known are: {known}")
    return Settings(architecture)


def build(repository: Repository, functions: list[Function], settings: Settings) -> list[Artifact]:
    """Build the chosen artifacts; build others only if they are missing."""
    wanted = {function.name: function for function in [*functions, *unbuilt(repository)]}
    made = {it.name: it for it in Builder(repository, settings).build(wanted.values())}
    return [made[function.name] for function in functions]


def unbuilt(repository: Repository) -> list[Function]:
    """The functions without an artifact; the stack can't be compiled until it is built."""
    manifest = read_manifest(repository)
    return [
        function
        for function in repository.functions()
        if function.name not in manifest
        or not (repository.root / manifest[function.name].zip).is_file()
    ]


def built(repository: Repository, functions: list[Function], settings: Settings) -> list[Artifact]:
    stale = stale_functions(repository, functions)
    stale += [f.name for f in unbuilt(repository) if f.name not in stale]
    manifest = read_manifest(repository)
    if stale:
        listed = ", ".join(stale)
        raise StaleArtifactError(
            f"out of date or not built: {listed}; run `jobplane build {' '.join(stale)}`"
        )
    artifacts = [manifest[function.name] for function in functions]
    other = [artifact.name for artifact in artifacts if artifact.arch != settings.arch]
    if other:
        raise StaleArtifactError(
            f"built for another architecture: {', '.join(other)}; "
            f"run `jobplane build --arch {settings.arch} {' '.join(other)}`"
        )
    return artifacts


@contextmanager
def planned(
    stage: Stage,
    functions: list[Function],
    artifacts: Iterable[Artifact],
    *,
    whole: bool,
    parameters: tuple[str, ...] = (),
) -> Iterator[Plan]:
    there = live_functions(stage, functions)
    with ExitStack() as resources:
        package = before = None
        if parameters or not _is_configured(stage):
            before = compiled.deployed(stage)
            if before is None and not whole:
                raise NoStackError(
                    f"stack {stage.names.stack} is not deployed on {where(stage)}; "
                    f"deploy all of it first: jobplane deploy --stage {stage.name}"
                )
            framework.install_framework(stage.repository)
            account = "" if stage.is_local else account_of(stage)
            package = resources.enter_context(compiled.package(stage, parameters, account))
            _require_secrets(stage, functions, package)
        steps = [
            step_for(function, artifact, there[function.name], package, before)
            for function, artifact in zip(functions, artifacts, strict=True)
        ]
        yield Plan(
            stage,
            functions,
            steps,
            whole,
            stack=[
                *differences(before, package.template),
                *_unprotected(stage, before, package.template),
            ]
            if whole and package
            else [],
            is_new=package is not None and before is None,
            package=package,
        )


def _require_secrets(stage: Stage, functions: Iterable[Function], package: Package) -> None:
    """Check that the secret's SSM parameter exists, by its name: deploying may not read secrets."""
    if stage.is_local:
        return
    compiled_functions = [package.raw["Resources"][logical_id(each)] for each in functions]
    variables = [
        each["Properties"].get("Environment", {}).get("Variables", {})
        for each in compiled_functions
    ]
    for secret in sorted({each["JWT_SECRET"] for each in variables if "JWT_SECRET" in each}):
        _require_parameter(stage, secret.removeprefix("ssm:"))


def _require_parameter(stage: Stage, name: str) -> None:
    client = stage.client("ssm")
    named = {"Key": "Name", "Option": "Equals", "Values": [name]}
    pages = client.get_paginator("describe_parameters").paginate(ParameterFilters=[named])
    try:
        exists = any(page["Parameters"] for page in pages)
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        return
    if not exists:
        raise click.ClickException(
            f"SSM parameter {name}, which holds the secret that signs tokens, does not exist; "
            f"create it: aws ssm put-parameter --name {name} --type SecureString "
            '--value "$(openssl rand -hex 32)"'
        )


def _is_configured(stage: Stage) -> bool:
    state = stage.read_state()
    if state is None:
        return False
    functions = stage.repository.functions()
    return state.config == framework.config_digest(
        stage.repository, functions
    ) and state.stack == description.stack_stamp(stage)


def live_functions(stage: Stage, functions: list[Function]) -> dict[str, Live | None]:
    client = stage.client("lambda")

    def one(function: Function) -> Live | None:
        try:
            return _settled(client, function.deployed_name(stage.name))
        except client.exceptions.ResourceNotFoundException:
            return None

    with ThreadPoolExecutor() as pool:
        found = pool.map(one, functions)
        return {function.name: live for function, live in zip(functions, found, strict=True)}


def _settled(client: Any, name: str) -> Live:
    """The function, after waiting until no update is in progress."""
    found = client.get_function_configuration(FunctionName=name)
    if found.get("LastUpdateStatus") == "InProgress":
        client.get_waiter("function_updated_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        found = client.get_function_configuration(FunctionName=name)
    return Live.of(found)


def step_for(
    function: Function,
    artifact: "Artifact | Step",
    live: Live | None,
    package: Package | None,
    before: StackTemplate | None,
) -> Step:
    step = Step(function.name, artifact.digest, artifact.size, live)
    if package is None or live is None:
        return step
    wanted = package.raw["Resources"][logical_id(function)]["Properties"]
    wanted = {"Description": "", **wanted}
    variables = wanted.get("Environment", {}).get("Variables", {})
    plain = {key: str(value) for key, value in variables.items() if not isinstance(value, dict)}
    # CloudFormation resolves references to resources.
    referring = {
        key: live.variables[key] for key in variables.keys() - plain if key in live.variables
    }
    return replace(
        step,
        **changes(live, wanted, plain | referring),
        beyond=tuple(_beyond(function, package.template, before)) if before is not None else (),
        alias=package.template.alias(function),
    )


def changes(live: Live, wanted: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a Step for settings and variables that differ from the live ones."""
    was, names = live.properties, variables.keys() | live.variables.keys()
    changed = sorted(n for n in names if variables.get(n) != live.variables.get(n))
    return {
        "settings": {k: wanted[k] for k in SETTINGS if k in wanted and wanted[k] != was.get(k)},
        "variables": variables if changed else None,
        "changed_variables": tuple(changed),
    }


def _beyond(function: Function, after: StackTemplate, before: StackTemplate) -> Iterator[str]:
    for logical in sorted(after.own(function) | before.own(function)):
        old, new = before.resources.get(logical), after.resources.get(logical)
        if logical == logical_id(function) and old is not None and new is not None:
            old, new = _without_settings(old), _without_settings(new)
        if old != new:
            yield _in_words(logical, old, new)


def _without_settings(resource: Mapping[str, Any]) -> dict[str, Any]:
    properties = {key: v for key, v in resource["Properties"].items() if key not in SETTINGS}
    variables = properties.pop("Environment", {}).get("Variables", {})
    referring = {key: value for key, value in variables.items() if isinstance(value, dict)}
    return {**resource, "Properties": {**properties, "Variables": referring}}


def differences(before: StackTemplate | None, after: StackTemplate) -> list[str]:
    there = before.resources if before is not None else {}
    found = [
        _in_words(logical, there.get(logical), after.resources.get(logical))
        for logical in sorted(there.keys() | after.resources.keys())
        if there.get(logical) != after.resources.get(logical)
    ]
    if before is not None and not found and before.body != after.body:
        return ["outputs (changed)"]
    return found


def _unprotected(stage: Stage, before: StackTemplate | None, after: StackTemplate) -> Iterator[str]:
    """Tables without deletion protection, left by an interrupted deployment."""
    if before is None:
        return
    client = stage.client("dynamodb")
    for logical, resource in after.resources.items():
        if logical not in before.resources or not compiled.is_protected(resource):
            continue
        name = resource["Properties"]["TableName"]
        if not client.describe_table(TableName=name)["Table"].get("DeletionProtectionEnabled"):
            yield f"{logical} (not protected from deletion)"


def _in_words(logical: str, old: object, new: object) -> str:
    how = "new" if old is None else "removed" if new is None else "changed"
    return f"{logical} ({how})"


type Reporter = Callable[[str], None]
"""Called with a function's name after its deployment."""


def update_functions(plan: Plan, done: Reporter) -> None:
    """Deploy code and settings of each function, in parallel."""
    try:
        _update_all(plan.stage, plan.steps, done)
    finally:
        state = plan.stage.read_state()
        if state is not None and any(s.settings or s.changed_variables for s in plan.steps):
            # The functions now differ from the template; the next `up` deploys the stack.
            state.config = ""
            plan.stage.write_state(state)


def _update_all(stage: Stage, steps: list[Step], done: Reporter) -> None:
    client = stage.client("lambda")
    alone = [step for step in steps if step.is_alone]
    problems: dict[str, str] = {}

    def update(step: Step) -> None:
        try:
            _update(client, stage, step)
        except click.ClickException as error:
            problems[step.name] = error.message
        except (BotoCoreError, ClientError) as error:
            problems[step.name] = str(error)
        finally:
            done(step.name)

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(update, alone))
    deployed = {step.name: step.digest for step in alone if step.name not in problems}
    state = stage.read_state()
    if state is not None:
        state.functions |= deployed
        stage.write_state(state)
    if problems:
        said = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        raise DeployFailedError(said, deployed)


def _update(client: Any, stage: Stage, step: Step) -> None:
    if step.live is None:
        raise ValueError(f"{step.name} is not in the stack")
    name = stage.names.of(step.name)
    # Publish the live code as a version, for a rollback; Lambda makes none if it exists already.
    digest = base64.b64encode(bytes.fromhex(step.live.digest)).decode()
    client.publish_version(FunctionName=name, CodeSha256=digest)
    if step.code:
        _update_code(client, name, _archive(stage, step), step.live.revision)
    wanted: dict[str, Any] = dict(step.settings)
    if step.variables is not None:
        wanted["Environment"] = {"Variables": dict(step.variables)}
    if wanted:
        client.update_function_configuration(FunctionName=name, **wanted)
    live = _settled(client, name)
    differing = [key for key, value in step.settings.items() if live.properties.get(key) != value]
    if step.variables is not None and live.variables != step.variables:
        differing.append("environment")
    if live.digest != step.digest:
        differing.append(f"code ({live.digest[:12]} instead of {step.digest[:12]})")
    if differing:
        raise DeployFailedError(f"not what was sent: {', '.join(differing)}")


def _archive(stage: Stage, step: Step) -> bytes:
    if step.location is not None:
        with urlopen(step.location) as response:  # noqa: S310 - Lambda's or S3's own answer
            archive: bytes = response.read()
    else:
        archive = (stage.repository.dist / f"{step.name}.zip").read_bytes()
    if hashlib.sha256(archive).hexdigest() != step.digest:
        raise StaleArtifactError("its artifact was rebuilt during the deployment; deploy again")
    if len(archive) > CODE_LIMIT:
        raise NotDeployableAloneError(
            f"too large for a direct update ({len(archive) / 1e6:.0f} MB); deploy the stack: "
            f"jobplane deploy --stage {stage.name}"
        )
    return archive


def _update_code(client: Any, name: str, archive: bytes, revision: str) -> None:
    try:
        client.update_function_code(FunctionName=name, ZipFile=archive, RevisionId=revision)
    except (
        client.exceptions.PreconditionFailedException,
        client.exceptions.ResourceConflictException,
    ) as error:
        raise DeployFailedError(
            "it was changed by another deployment at the same time; deploy again"
        ) from error
    _settled(client, name)


def update_stack(plan: Plan, parameters: tuple[str, ...] = ()) -> None:
    """Deploy the stack as it was compiled for the plan, or compile it now."""
    stage = plan.stage
    state = stage.read_state()
    if state is not None:
        publish_secret(stage, state)
    given = [option for parameter in parameters for option in ("--param", parameter)]
    framework.install_framework(stage.repository)
    if plan.back_to is not None:
        framework.osls(stage, "rollback", "--timestamp", plan.back_to)
    else:
        options = ["--package", str(plan.package.folder)] if plan.package else []
        # --force: the plan found differences that the framework's own check would not see.
        framework.osls(stage, "deploy", "--force", *options, *given)
    _remember_stack(plan, parameters)


def settle(plan: Plan) -> None:
    """After a deployment of the stack, check that all functions are live, and correct them.

    CloudFormation changes only what differs between two templates; functions that were deployed
    singly may differ from both.
    """
    there = live_functions(plan.stage, plan.functions)
    steps = [
        step_for(function, step, there[function.name], plan.package, None)
        for function, step in zip(plan.functions, plan.steps, strict=True)
    ]
    _update_all(plan.stage, steps, lambda _name: None)
    failed = [step.name for step in steps if step.differs and not step.is_alone]
    if failed:
        raise DeployFailedError(f"not live: {', '.join(failed)}")


def mend(stage: Stage, functions: list[Function], artifacts: Iterable[Artifact]) -> None:
    """Set the functions' settings to those of the stack."""
    with planned(stage, functions, artifacts, whole=False) as plan:
        settle(plan)


def last_event(stage: Stage) -> Callable[[], str]:
    """CloudFormation's latest event; empty if there is none yet."""
    client = stage.client("cloudformation")

    def latest() -> str:
        try:
            events = client.describe_stack_events(StackName=stage.names.stack)["StackEvents"]
        except (BotoCoreError, ClientError):
            return ""
        return f"{events[0]['LogicalResourceId']} {events[0]['ResourceStatus']}" if events else ""

    return latest


def _remember_stack(plan: Plan, parameters: tuple[str, ...]) -> None:
    stage = plan.stage
    state = stage.read_state()
    if state is None:
        return
    functions = stage.repository.functions()
    other = parameters or plan.back_to is not None
    state.config = "" if other else framework.config_digest(stage.repository, functions)
    state.functions = {step.name: step.digest for step in plan.steps}
    state.stack = description.stack_stamp(stage)
    state.description = description.describe(stage)
    stage.write_state(state)
    emulator.prune(stage.repository)
