"""Custom domain names, versions behind an alias, and mail of alarms, as compiled."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from jobplane.tree.repository import Repository
from tests.workspace.copies import Built, command_environment, copy_of, share_artifacts
from tests.workspace.templates import CERTIFICATE, DOMAINS, Compiled, complaints, of_type


def test_each_domain_name_is_mapped_to_its_apis_stage(compiled: Compiled) -> None:
    template = compiled("prod", None, *DOMAINS)
    assert complaints(template, "eu-west-1") == []
    mappings = {
        name: (it["Properties"]["ApiId"]["Ref"], it["Properties"]["Stage"], it["DependsOn"])
        for name, it in of_type(template, "AWS::ApiGatewayV2::ApiMapping").items()
    }
    assert mappings == {
        "HttpDomainMapping": ("HttpApi", "$default", ["HttpApiStage"]),
        "SocketDomainMapping": ("WebsocketsApi", "prod", ["WebsocketsDeploymentStage"]),
    }
    for _, _, (stage,) in mappings.values():
        assert template["Resources"][stage]["Type"] == "AWS::ApiGatewayV2::Stage"
    targets = {name: output["Value"] for name, output in template["Outputs"].items()}
    for kind in ("Http", "Socket"):
        assert targets[f"{kind}DomainTarget"] == {
            "Fn::GetAtt": [f"{kind}Domain", "RegionalDomainName"]
        }
    assert not of_type(compiled("prod"), "AWS::ApiGatewayV2::DomainName")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (("httpDomain=api.example.org",), "httpDomain and httpCertificate go together"),
        ((f"socketCertificate={CERTIFICATE}",), "socketDomain and socketCertificate go together"),
        (("httpDomain=x.example", "socketDomain=x.example"), "use two names"),
    ],
)
def test_a_domain_without_a_certificate_is_refused(
    repository: Repository, parameters: tuple[str, ...], message: str
) -> None:
    done = packaged(repository, *parameters)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "    at " not in done.stdout + done.stderr


@pytest.mark.parametrize("parameter", ["jwtSecret", "parametersKeyArn"])
def test_a_secret_in_place_of_its_name_is_refused(repository: Repository, parameter: str) -> None:
    secret = secrets.token_hex(32)
    done = packaged(repository, f"{parameter}={secret}")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"{parameter} must" in said
    assert secret not in said
    assert ".js:" not in said
    for folder in (repository.root / "out", repository.root / ".serverless"):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in files if secret.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def repository(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A copy that tests may change."""
    copy = copy_of(built[0], tmp_path_factory.mktemp("packaged") / "copy")
    share_artifacts(built[0], copy)
    yield copy


def packaged(repository: Repository, *parameters: str) -> "subprocess.CompletedProcess[str]":
    given = [part for text in parameters for part in ("--param", text)]
    return subprocess.run(
        ["node_modules/.bin/osls", "package", "--stage", "prod", "--package", "out", *given],
        cwd=repository.root,
        env=command_environment(repository),
        capture_output=True,
        text=True,
        check=False,
    )


def template_with(repository: Repository, settings: dict[str, str]) -> dict[str, Any]:
    """The template when functions have a line more in their function.yml."""
    before = {}
    for name, line in settings.items():
        path = repository.root / "functions" / name / "function.yml"
        before[path] = path.read_text()
        path.write_text(f"{before[path]}{line}\n")
    try:
        done = packaged(repository)
        assert done.returncode == 0, done.stdout + done.stderr
        path = repository.root / "out" / "cloudformation-template-update-stack.json"
        template: dict[str, Any] = json.loads(path.read_text())
        return template
    finally:
        for path, text in before.items():
            path.write_text(text)


def test_events_of_a_function_with_warm_versions_go_to_its_alias(repository: Repository) -> None:
    template = template_with(
        repository,
        {
            "status": "provisionedConcurrency: 2",
            "deliver-webhook": "snapStart: true",
            "router": "snapStart: true",
            "dispatch": "snapStart: true",
            "processor": "snapStart: true",
        },
    )
    assert complaints(template, "eu-west-1") == []
    aliases = {
        name: it["Properties"]["Name"]
        for name, it in of_type(template, "AWS::Lambda::Alias").items()
    }
    assert sorted(aliases.values()) == ["provisioned", *["snapstart"] * 4]
    leading = {
        "RouterWebsocketsIntegration": "snapstart",
        "HttpApiIntegrationStatus": "provisioned",
        "DeliverDashwebhookEventSourceMappingSQSWebhooksQueue": "snapstart",
        "DispatchEventSourceMappingDynamodbRequestsTable": "snapstart",
        "ProcessorEventSourceMappingSQSJobsQueue": "snapstart",
        "ProcessorEventsRuleSchedule1": "snapstart",
        "RouterLambdaPermissionWebsockets": "snapstart",
    }
    for name, alias in leading.items():
        assert f'"{alias}"' in str(template["Resources"][name]).replace("'", '"'), name


def test_snapstart_and_provisioned_concurrency_exclude_each_other(repository: Repository) -> None:
    """AWS refuses both together."""
    path = repository.root / "functions" / "status" / "function.yml"
    before = path.read_text()
    path.write_text(f"{before}snapStart: true\nprovisionedConcurrency: 1\n")
    try:
        done = packaged(repository)
    finally:
        path.write_text(before)
    assert done.returncode != 0
    assert "does not support provisioned concurrency" in done.stdout + done.stderr


def test_alarmMail_subscribes_to_the_topic(compiled: Compiled) -> None:
    template = compiled("prod", None, "alarmMail=team@example.org")
    (topic,) = of_type(template, "AWS::SNS::Topic").values()
    subscriptions = [
        *topic["Properties"].get("Subscription", []),
        *(it["Properties"] for it in of_type(template, "AWS::SNS::Subscription").values()),
    ]
    assert [it["Endpoint"] for it in subscriptions] == ["team@example.org"]
