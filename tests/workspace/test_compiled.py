"""What the Serverless Framework compiles, for AWS and for the emulator."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from jobplane.tree.repository import Function
from tests.workspace.templates import EMULATOR, REPOSITORY, Compiled, complaints, of_type

REFUSED = {"AWS::ApiGatewayV2::Deployment", "AWS::ApiGatewayV2::RouteResponse"}
# They refuse what comes without TLS, as everything does on loopback.
GUARDS = {"AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"}
SECRET = re.compile(r"secret|passw|token|credential|private|_key$", re.IGNORECASE)
PLATFORM_ACTIONS = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
}


def statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    (policy,) = role["Properties"]["Policies"]
    found: list[dict[str, Any]] = policy["PolicyDocument"]["Statement"]
    return found


def functions_by_name(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        resource["Properties"]["FunctionName"]: resource["Properties"]
        for resource in of_type(template, "AWS::Lambda::Function").values()
    }


def test_every_function_is_compiled_under_its_name(compiled: Compiled) -> None:
    """Key, deployed name and handler follow from the folder; tracing is on; arm64 on AWS."""
    deployed = functions_by_name(compiled("prod"))
    for function in REPOSITORY.functions():
        properties = deployed.pop(function.deployed_name("prod"))
        assert properties["Handler"] == function.handler
        assert properties["Runtime"] == "python3.13"
        assert properties["Architectures"] == ["arm64"]
        assert properties["TracingConfig"] == {"Mode": "Active"}
    assert not deployed


@pytest.mark.parametrize("function", REPOSITORY.functions(), ids=lambda function: function.name)
def test_each_function_has_a_role_of_its_own(compiled: Compiled, function: Function) -> None:
    """The role grants the statements of function.yml, its own log group, X-Ray: no more."""
    template = compiled("prod")
    properties = functions_by_name(template)[function.deployed_name("prod")]
    (logical, _) = properties["Role"]["Fn::GetAtt"]
    granted = {action for s in statements(template["Resources"][logical]) for action in s["Action"]}
    declared: set[str] = set()
    for statement in function.config["iamRoleStatements"]:
        action = statement["Action"]
        declared |= {action} if isinstance(action, str) else set(action)
    assert granted == declared | PLATFORM_ACTIONS
    users = [p for p in functions_by_name(template).values() if p["Role"] == properties["Role"]]
    assert len(users) == 1


def test_no_role_is_shared_or_left_over(compiled: Compiled) -> None:
    """Every role is that of one function or of one state machine."""
    template = compiled("prod")
    used = [properties["Role"] for properties in functions_by_name(template).values()]
    machines = of_type(template, "AWS::StepFunctions::StateMachine").values()
    used += [machine["Properties"]["RoleArn"] for machine in machines]
    names = [reference["Fn::GetAtt"][0] for reference in used]
    assert sorted(names) == sorted(of_type(template, "AWS::IAM::Role"))


def test_the_emulator_gets_what_it_understands(compiled: Compiled) -> None:
    """On a loopback endpoint refused types and guards are gone, and nothing depends on them."""
    on_aws, local = compiled("dev"), compiled("dev", EMULATOR)
    types = {resource["Type"] for resource in on_aws["Resources"].values()}
    assert types >= REFUSED
    # A version's logical id is a digest of its function's configuration.
    dropped = set(on_aws["Resources"]) - set(local["Resources"])
    dropped -= set(of_type(on_aws, "AWS::Lambda::Version"))
    assert {on_aws["Resources"][logical]["Type"] for logical in dropped} == REFUSED | GUARDS
    text = json.dumps(local["Resources"])
    assert not [logical for logical in dropped if f'"{logical}"' in text]
    for resource in of_type(local, "AWS::ApiGatewayV2::Stage").values():
        assert resource["Properties"]["AutoDeploy"] is True


def test_sockets_are_answered_at_the_right_place(compiled: Compiled) -> None:
    """WEBSOCKET_ENDPOINT is API Gateway's on AWS, and the emulator's own URL locally."""

    def endpoint(template: dict[str, Any]) -> str:
        router = functions_by_name(template)[REPOSITORY.names("dev").of("router")]
        return json.dumps(router["Environment"]["Variables"]["WEBSOCKET_ENDPOINT"])

    assert ".execute-api." in endpoint(compiled("dev"))
    assert EMULATOR in endpoint(compiled("dev", EMULATOR))


@pytest.mark.parametrize(
    ("stage", "endpoint_url"),
    [("local", EMULATOR), ("dev", None), ("staging", None), ("prod", None)],
)
def test_cfn_lint_has_nothing_to_say(
    compiled: Compiled, stage: str, endpoint_url: str | None
) -> None:
    """Neither errors nor warnings but those that are listed with their reason."""
    assert complaints(compiled(stage, endpoint_url), "eu-west-1") == []


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of a template, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, path)
    elif isinstance(value, str):
        yield path, value


def test_no_text_names_a_partition(compiled: Compiled) -> None:
    """ARNs and addresses differ in China and GovCloud; the names of services are the same there."""
    found = {
        (path, text)
        for path, text in texts(compiled("prod"))
        if ("arn:aws" in text or ".amazonaws.com" in text)
        and not ("Principal" in path[-2:] and re.fullmatch(r"[a-z]+\.amazonaws\.com", text))
    }
    assert found == set()


def test_sockets_are_posted_to_in_the_own_partition(compiled: Compiled) -> None:
    """The management API's address ends as the partition's addresses do."""
    router = functions_by_name(compiled("prod"))[REPOSITORY.names("prod").of("router")]
    (separator, parts) = router["Environment"]["Variables"]["WEBSOCKET_ENDPOINT"]["Fn::Join"]
    given = {"WebsocketsApi": "api", "AWS::Region": "cn-north-1", "AWS::URLSuffix": "x.cn"}
    made = separator.join(given[part["Ref"]] if isinstance(part, dict) else part for part in parts)
    assert made == "https://api.execute-api.cn-north-1.x.cn/prod"


@pytest.mark.parametrize("endpoint", [None, EMULATOR])
def test_browsers_can_poll_from_another_origin(compiled: Compiled, endpoint: str | None) -> None:
    """A page reads when to ask again and which version it has, and asks for a newer one alone."""
    api = compiled("prod", endpoint)["Resources"]["HttpApi"]
    cors = api["Properties"]["CorsConfiguration"]
    assert {"etag", "retry-after"} <= set(cors["ExposeHeaders"])
    assert {"authorization", "content-type", "if-none-match"} <= set(cors["AllowHeaders"])


@pytest.mark.parametrize(
    ("stage", "endpoint"),
    [("dev", None), ("dev", EMULATOR), ("staging", None), ("prod", None), ("prod", EMULATOR)],
)
def test_no_secret_is_in_a_template(compiled: Compiled, stage: str, endpoint: str | None) -> None:
    """Functions get the name of a parameter, on AWS and on the emulator; no other variable and no
    parameter of the stack is called like a secret, and CloudFormation fills in none.
    """
    template = compiled(stage, endpoint)
    given = {
        (variable, json.dumps(value))
        for each in functions_by_name(template).values()
        for variable, value in each.get("Environment", {}).get("Variables", {}).items()
    }
    name = REPOSITORY.names(stage).parameter("jwt-secret")
    secret = {(variable, value) for variable, value in given if SECRET.search(variable)}
    assert secret == {("JWT_SECRET", f'"ssm:{name}"')}
    assert not [key for key in template.get("Parameters", {}) if SECRET.search(key)]
    assert "{{resolve:" not in json.dumps(template)
