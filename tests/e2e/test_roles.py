"""Each deployed role has exactly its grants, as the emulator evaluates them.

A role's session makes every call of the catalogue. What the role is granted by the documented
table must be let through; everything else must be refused.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from jobplane.deploy import compiled
from jobplane.reference.grants import Grant, grants
from jobplane.stage.stages import Stage
from jobplane.tree.configuration import Configuration, role_id
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, client_once
from tests.e2e.probes import DENIED, Clients, Probe, Stack, probes

pytestmark = pytest.mark.e2e

REPOSITORY = Repository.here()
FUNCTIONS = REPOSITORY.functions()
FLOWS = [
    name
    for name, declared in Configuration(REPOSITORY).resources.items()
    if declared.body["Type"] == "AWS::StepFunctions::StateMachine"
]
ROLES = [*(function.name for function in FUNCTIONS), *FLOWS]
# Actions whose call the emulator lacks: those of X-Ray, of the service that delivers logs, and one
# that lists the streams of all tables, which AWS authorises by no resource.
UNASKED = {
    "dynamodb:ListStreams",
    *(f"xray:Get{name}" for name in ("SamplingRules", "SamplingTargets")),
    *(f"xray:Put{name}" for name in ("TelemetryRecords", "TraceSegments")),
    *(f"logs:{verb}LogDelivery" for verb in ("Create", "Delete", "Get", "Update")),
    *("logs:DescribeLogGroups", "logs:DescribeResourcePolicies"),
    *("logs:ListLogDeliveries", "logs:PutResourcePolicy"),
}


@pytest.fixture(scope="module")
def stack(deployed: Deployed) -> Stack:
    """The deployed stack by its template and its resources."""
    stage = deployed.stage
    template = compiled.deployed(stage)
    assert template is not None
    physical = deployed.resources()
    for logical, resource in template.resources.items():
        if "StreamSpecification" in resource.get("Properties", {}):
            table = deployed.dynamodb.describe_table(TableName=physical[logical])["Table"]
            physical[f"{logical}/stream"] = table["LatestStreamArn"]
            physical[f"{logical}/iterator"] = iterator_of(table["LatestStreamArn"], stage)
    identity = stage.client("sts").get_caller_identity()
    state = stage.read_state()
    assert state is not None
    assert stage.endpoint_url is not None
    return Stack(
        template.body, stage.names, physical, stage.endpoint_url, identity["Account"], state.region
    )


def iterator_of(stream: str, stage: Stage) -> str:
    """An iterator at the end of a stream's first shard."""
    client = stage.client("dynamodbstreams")
    shard = client.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"][0]["ShardId"]
    at = {"StreamArn": stream, "ShardId": shard, "ShardIteratorType": "LATEST"}
    return str(client.get_shard_iterator(**at)["ShardIterator"])


@pytest.fixture(scope="module")
def granted(stack: Stack) -> list[Grant]:
    """The grants of all roles."""
    return grants(stack.template, stack.names)


@pytest.fixture(scope="module")
def catalogue(stack: Stack, granted: list[Grant]) -> list[Probe]:
    """Every call of the catalogue."""
    return list(probes(stack, granted))


def session_of(role: str, deployed: Deployed, stack: Stack) -> Clients:
    """Clients with the role's temporary credentials."""
    (name,) = (
        resource["Properties"]["Role" if kind.endswith("Function") else "RoleArn"]["Fn::GetAtt"][0]
        for kind in ("AWS::Lambda::Function", "AWS::StepFunctions::StateMachine")
        for logical, physical, _ in stack.of_type(kind)
        if role in (logical, stack.names.short(physical))
        for resource in [stack.template["Resources"][logical]]
    )
    assumed = deployed.assumed(stack.physical[name])

    @cache
    def client(service: str) -> Any:
        service, _, api = service.partition(" ")
        suffix = f"/_aws/execute-api/{api}/{stack.names.stage}" if api else ""
        return client_once(service, f"{stack.endpoint_url}{suffix}", stack.region, assumed)

    return client


def answers(wanted: list[Probe], clients: Clients) -> list[tuple[Probe, str]]:
    """Each probe with its answer."""
    # boto3 creates clients in one thread only; they can be used in any.
    for service in {probe.service for probe in wanted}:
        clients(service)
    with ThreadPoolExecutor(4) as pool:
        return list(zip(wanted, pool.map(lambda each: each.answer(clients), wanted), strict=True))


def of_role(role: str, granted: list[Grant]) -> list[Grant]:
    return [grant for grant in granted if grant.role == role]


def test_the_tested_roles_are_those_of_the_stack(granted: list[Grant]) -> None:
    assert {grant.role for grant in granted} == set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_allows_each_granted_action_on_its_resource(
    role: str, granted: list[Grant], catalogue: list[Probe], deployed: Deployed, stack: Stack
) -> None:
    own = of_role(role, granted)
    wanted = [probe for probe in catalogue if probe.is_granted(own)]
    untried = [
        f"{action} on {grant.resource}"
        for grant in own
        for action in grant.actions
        if action not in UNASKED
        and not any(probe.is_granted([replace(grant, actions=(action,))]) for probe in wanted)
    ]
    assert not untried, f"the catalogue has no call for: {', '.join(untried)}"
    refused = [
        f"{probe}: {answer}"
        for probe, answer in answers(wanted, session_of(role, deployed, stack))
        if answer not in probe.says
    ]
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_denies_every_other_call_of_the_catalogue(
    role: str, granted: list[Grant], catalogue: list[Probe], deployed: Deployed, stack: Stack
) -> None:
    """On other tables, prefixes, queues, parameters, functions and roles."""
    own = of_role(role, granted)
    foreign = [probe for probe in catalogue if not probe.is_granted(own)]
    assert len(foreign) > len(catalogue) / 2
    let_through = [
        f"{probe}: {answer}"
        for probe, answer in answers(foreign, session_of(role, deployed, stack))
        if answer not in DENIED
    ]
    assert not let_through, "\n".join(let_through)


def test_an_added_permission_is_found(
    granted: list[Grant], catalogue: list[Probe], deployed: Deployed, stack: Stack
) -> None:
    """With it, the call that was refused is allowed."""
    own = of_role(FUNCTIONS[0].name, granted)
    scan = next(p for p in catalogue if p.action == "dynamodb:Scan" and not p.is_granted(own))
    iam, role = deployed.stage.client("iam"), stack.physical[role_id(FUNCTIONS[0])]
    allowed = {"Effect": "Allow", "Action": "dynamodb:Scan", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    clients = session_of(FUNCTIONS[0].name, deployed, stack)
    before = scan.answer(clients)
    iam.put_role_policy(RoleName=role, PolicyName="too-many", PolicyDocument=document)
    try:
        widened = scan.answer(clients)
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="too-many")

    assert (before in DENIED, widened, scan.answer(clients) in DENIED) == (True, "done", True)
