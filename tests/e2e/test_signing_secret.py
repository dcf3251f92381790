"""The secret that signs tokens: where it must not be, and what happens while it is unreadable."""

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobplane.stage.signing import jwt_secret, secret_name
from jobplane_client import mint_token
from tests.e2e.deployed import Deployed, unique, until

pytestmark = pytest.mark.e2e

SECRET = "the-secret-of-this-test-alone-0123456789abcdef"


def places(deployed: Deployed) -> Iterator[tuple[str, bytes]]:
    """Everything that a deployment writes, by name: bytes, with archives unpacked."""
    stack = deployed.stage.names.stack
    cloudformation = deployed.stage.client("cloudformation")
    template = cloudformation.get_template(StackName=stack)["TemplateBody"]
    yield "template", json.dumps(template).encode()
    described = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    yield "stack", json.dumps(described, default=str).encode()
    bucket = deployed.resources()["ServerlessDeploymentBucket"]
    for page in deployed.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page["Contents"]:
            body = deployed.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            yield f"{bucket}/{entry['Key']}", body
            if entry["Key"].endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(body)) as archive:
                    for name in archive.namelist():
                        yield f"{bucket}/{entry['Key']}/{name}", archive.read(name)
    for function in deployed.stage.repository.functions():
        name = deployed.stage.names.of(function.name)
        found = deployed.functions.get_function(FunctionName=name)
        yield name, json.dumps(found, default=str).encode()


def test_nothing_that_is_deployed_has_the_secret(deployed: Deployed) -> None:
    """Neither template, deployment bucket, nor a function's configuration."""
    secret = jwt_secret(deployed.stage).encode()
    sought = {secret, base64.b64encode(secret), json.dumps(secret.decode()).encode()}
    looked_at = dict(places(deployed))
    assert not [name for name, body in looked_at.items() if any(text in body for text in sought)]
    reference = f"ssm:{secret_name(deployed.stage)}".encode()
    configured = {name for name, body in looked_at.items() if reference in body}
    assert {"template", *map(deployed.stage.names.of, ("connect", "status"))} <= configured
    assert any(name.endswith("/status.py") for name in looked_at)


async def test_tokens_of_the_documented_issuer_are_accepted(
    deployed: Deployed, tmp_path: Path
) -> None:
    """By the socket and the HTTP API."""
    document = (deployed.stage.repository.root / "docs" / "deploying.md").read_text("utf-8")
    example = document.partition("### The issuer of tokens")[2].partition("```python\n")[2]
    program = tmp_path / "issue.py"
    program.write_text(example.partition("```")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program, secret_name(deployed.stage), "ann", "acme"],
        env={**os.environ, **deployed.stage.environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    token = done.stdout.strip()
    async with deployed.socket("", token=token) as socket:
        assert (await socket.ask({"action": "health"}))["type"] == "response"
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=deployed.http_url, trust_env=False) as http:
        assert (await http.get("/assemblies", headers=headers)).status_code == 200


class Copy:
    """A copy of a function of the stage with another parameter for its secret."""

    def __init__(self, deployed: Deployed, name: str, parameter: str) -> None:
        self._deployed = deployed
        self.name = name
        self.parameter = parameter

    def put(self, value: str) -> None:
        self._deployed.set_parameter(self.parameter, value)

    async def refuses(self, why: str) -> None:
        """It answers 500, and logs why the parameter can't be used."""
        status, body = self.ask()
        assert (status, body["error"]) == (500, "Internal error")
        assert set(body) <= {"error", "request_id"}
        wanted = f"SSM parameter {self.parameter} {why}"
        await until(lambda: self.logged(wanted), wanted)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The answer to a caller with a valid token."""
        token = mint_token(SECRET, user="ann", tenant="acme")
        event = {
            "requestContext": {"http": {"method": "GET"}},
            "rawPath": "/status/asm-1",
            "headers": {"authorization": f"Bearer {token}"},
        }
        done = self._deployed.functions.invoke(
            FunctionName=self.name, Payload=json.dumps(event).encode()
        )
        answer = json.loads(done["Payload"].read())
        return answer["statusCode"], json.loads(answer["body"])

    def logged(self, text: str) -> bool:
        """Whether an error line begins with a text."""
        logs = self._deployed.stage.client("logs")
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{self.name}")["events"]
        lines = [json.loads(e["message"]) for e in events if e["message"].startswith("{")]
        errors = [line["message"] for line in lines if line.get("level") == "ERROR"]
        return any(message.startswith(text) for message in errors)


@contextmanager
def copy_of_status(deployed: Deployed, parameter: str) -> Iterator[Copy]:
    """status with the role of deliver-webhook, which may read the webhooks' parameters."""
    lambdas, name = deployed.functions, unique(deployed.stage.names.of("copy"))
    known, other = map(deployed.configuration, ("status", "deliver-webhook"))
    variables = known["Environment"]["Variables"] | {"JWT_SECRET": f"ssm:{parameter}"}
    lambdas.create_function(
        FunctionName=name,
        Code={"ZipFile": (deployed.stage.repository.dist / "status.zip").read_bytes()},
        Environment={"Variables": variables},
        Role=other["Role"],
        **{key: known[key] for key in ("Runtime", "Handler", "Timeout", "MemorySize")},
    )
    try:
        lambdas.get_waiter("function_active_v2").wait(FunctionName=name)
        yield Copy(deployed, name, parameter)
    finally:
        lambdas.delete_function(FunctionName=name)
        deployed.ssm.delete_parameters(Names=[parameter])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "does not exist: aws ssm put-parameter --name {parameter} --type SecureString"),
        (" ", "is empty: put a secret of at least 32 bytes"),
        ("tiny-key", "holds a secret that is too short (number 1 of 1)"),
    ],
    ids=["missing", "empty", "too short"],
)
async def test_an_unusable_secret_is_a_500_until_it_is_corrected(
    deployed: Deployed, value: str | None, told: str
) -> None:
    """The log has parameter and remedy; no deployment is needed."""
    parameter = secret_name(deployed.stage).replace("jwt-secret", f"webhooks/{unique('test')}")
    with copy_of_status(deployed, parameter) as copy:
        if value is not None:
            copy.put(value)
        await copy.refuses(told.format(parameter=parameter))
        copy.put(SECRET)
        await until(lambda: copy.ask()[0] == 404, "the secret is found", every=1)


async def test_a_forbidden_secret_is_named_in_the_log(deployed: Deployed) -> None:
    """With the permission that is missing."""
    parameter = secret_name(deployed.stage).replace("jwt-secret", "another-secret")
    with copy_of_status(deployed, parameter) as copy:
        copy.put(SECRET)
        await copy.refuses("can't be read: allow this function's role")
