"""The compiled template, for AWS and for the emulator."""

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


def test_key_name_and_handler_of_a_function_follow_from_its_folder(compiled: Compiled) -> None:
    deployed = functions_by_name(compiled("prod"))
    for function in REPOSITORY.functions():
        properties = deployed.pop(function.deployed_name("prod"))
        assert properties["Handler"] == function.handler
        assert properties["Runtime"] == "python3.13"
        assert properties["Architectures"] == ["arm64"]
        assert properties["TracingConfig"] == {"Mode": "Active"}
    assert not deployed


@pytest.mark.parametrize("function", REPOSITORY.functions(), ids=lambda function: function.name)
def test_a_function_has_a_role_with_its_statements(compiled: Compiled, function: Function) -> None:
    """Of function.yml, its log group, and X-Ray."""
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


def test_every_role_belongs_to_one_function_or_state_machine(compiled: Compiled) -> None:
    template = compiled("prod")
    used = [properties["Role"] for properties in functions_by_name(template).values()]
    machines = of_type(template, "AWS::StepFunctions::StateMachine").values()
    used += [machine["Properties"]["RoleArn"] for machine in machines]
    names = [reference["Fn::GetAtt"][0] for reference in used]
    assert sorted(names) == sorted(of_type(template, "AWS::IAM::Role"))


def test_the_emulators_template_omits_unsupported_types_and_guards(compiled: Compiled) -> None:
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


def test_WEBSOCKET_ENDPOINT_is_api_gateways_or_the_emulators(compiled: Compiled) -> None:

    def endpoint(template: dict[str, Any]) -> str:
        router = functions_by_name(template)[REPOSITORY.names("dev").of("router")]
        return json.dumps(router["Environment"]["Variables"]["WEBSOCKET_ENDPOINT"])

    assert ".execute-api." in endpoint(compiled("dev"))
    assert EMULATOR in endpoint(compiled("dev", EMULATOR))


@pytest.mark.parametrize(
    ("stage", "endpoint_url"),
    [("local", EMULATOR), ("dev", None), ("staging", None), ("prod", None)],
)
def test_cfn_lint_has_no_finding(compiled: Compiled, stage: str, endpoint_url: str | None) -> None:
    assert complaints(compiled(stage, endpoint_url), "eu-west-1") == []


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of a template with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, path)
    elif isinstance(value, str):
        yield path, value


def test_no_text_names_a_partition(compiled: Compiled) -> None:
    """ARNs and addresses differ in China and GovCloud."""
    found = {
        (path, text)
        for path, text in texts(compiled("prod"))
        if ("arn:aws" in text or ".amazonaws.com" in text)
        and not ("Principal" in path[-2:] and re.fullmatch(r"[a-z]+\.amazonaws\.com", text))
    }
    assert found == set()


def test_the_management_apis_address_is_in_the_own_partition(compiled: Compiled) -> None:
    router = functions_by_name(compiled("prod"))[REPOSITORY.names("prod").of("router")]
    (separator, parts) = router["Environment"]["Variables"]["WEBSOCKET_ENDPOINT"]["Fn::Join"]
    given = {"WebsocketsApi": "api", "AWS::Region": "cn-north-1", "AWS::URLSuffix": "x.cn"}
    made = separator.join(given[part["Ref"]] if isinstance(part, dict) else part for part in parts)
    assert made == "https://api.execute-api.cn-north-1.x.cn/prod"


@pytest.mark.parametrize("endpoint", [None, EMULATOR])
def test_cors_allows_and_exposes_headers_for_polling(
    compiled: Compiled, endpoint: str | None
) -> None:
    api = compiled("prod", endpoint)["Resources"]["HttpApi"]
    cors = api["Properties"]["CorsConfiguration"]
    assert {"etag", "retry-after"} <= set(cors["ExposeHeaders"])
    assert {"authorization", "content-type", "if-none-match"} <= set(cors["AllowHeaders"])


MAIL = ("mailDomains=mail.acme.example=acme", "mailRuleSet=default")


def test_ses_may_store_emails_of_the_named_rule_set_only(compiled: Compiled) -> None:
    def allowed(template: dict[str, Any]) -> list[dict[str, Any]]:
        policies = of_type(template, "AWS::S3::BucketPolicy").values()
        stated = [s for p in policies for s in p["Properties"]["PolicyDocument"]["Statement"]]
        return [each for each in stated if each["Effect"] == "Allow"]

    assert allowed(compiled("dev")) == []
    template = compiled("dev", None, *MAIL)
    (statement,) = allowed(template)
    assert statement["Principal"] == {"Service": "ses.amazonaws.com"}
    assert statement["Action"] == "s3:PutObject"
    bucket = {"Fn::GetAtt": ["FilesBucket", "Arn"]}
    assert statement["Resource"] == {"Fn::Join": ["", [bucket, "/inbox/*"]]}
    account = {"Ref": "AWS::AccountId"}
    (source,) = statement["Condition"]["ArnLike"].values()
    parts = ["arn:", {"Ref": "AWS::Partition"}, ":ses:*:", account]
    rules = ":receipt-rule-set/default:receipt-rule/*"
    assert source == {"Fn::Join": ["", [*parts, rules]]}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": account}
    assert complaints(template, "eu-west-1") == []


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (("mailRuleSet=default",), "mailRuleSet needs mailDomains"),
        ((MAIL[0], "mailRuleSet=*"), "mailRuleSet must be the name"),
    ],
)
def test_a_rule_set_that_opens_the_bucket_in_vain_or_to_all_is_refused(
    compiled: Compiled, parameters: tuple[str, ...], text: str
) -> None:
    with pytest.raises(AssertionError, match=text):
        compiled("dev", None, *parameters)


@pytest.mark.parametrize(
    ("stage", "endpoint"),
    [("dev", None), ("dev", EMULATOR), ("staging", None), ("prod", None), ("prod", EMULATOR)],
)
def test_no_secret_is_in_a_template(compiled: Compiled, stage: str, endpoint: str | None) -> None:
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
