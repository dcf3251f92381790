"""Every deployed name has the `service` of serverless.yml."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobplane.stage.signing import secret_name
from jobplane.stage.stages import Stage
from jobplane.tree.names import Names
from jobplane.tree.repository import Repository
from jobplane_client import JobSocket, mint_token
from tests.workspace.copies import Copy, command_environment, edit, jobplane, stage_of

ROOT = Repository.here().root
NAME = "acme-jobs"
# Code and configuration that names things on a stage. Packages, modules and the command are
# called jobplane too; none of these patterns matches them.
NAMING = (
    "functions/**/*.py", "functions/**/*.yml", "functions/**/*.expect.json",
    "functions/**/*.given.json", "resources/*", "scripts/**/*.js", "scripts/**/*.py",
    "templates/*", "docs/observing.md", "docs/operating.md",
)  # fmt: skip
LITERAL = re.compile(
    r"""
      jobplane-(?:\\?\$|<|\{[^}]*stage|(?:prod|staging|dev|local|test)\b)
    | (?<!scripts)/jobplane/(?:\\?\$|<|\{[^}]*stage|(?:prod|staging|dev)\b)  # a parameter
    | ["']Jobplane["']  # the namespace of metrics
    """,
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def copy(copied: Copy, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy of the tree, renamed as documented."""
    repository = copied(tmp_path_factory.mktemp("renamed") / "copy")
    edit(repository, "serverless.yml", "service: jobplane\n", f"service: {NAME}\n")
    return repository


def test_stack_functions_parameters_and_metrics_have_the_services_name() -> None:
    names = Names(NAME, "prod")
    assert names.stack == "acme-jobs-prod"
    assert names.of("claim") == "acme-jobs-prod-claim"
    assert names.short("acme-jobs-prod-claim") == "claim"
    assert names.parameter("jwt-secret") == "/acme-jobs/prod/jwt-secret"
    assert names.metrics == "AcmeJobs"


@pytest.mark.parametrize("pattern", NAMING)
def test_no_file_has_a_literal_deployed_name(pattern: str) -> None:
    paths = [path for path in ROOT.glob(pattern) if path.is_file()]
    assert paths, pattern
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if LITERAL.search(line)
    ]
    assert not found, "use Names (scripts/jobplane/tree/names.py), or ${self:service}-${sls:stage}"


@pytest.mark.parametrize(
    "text",
    ["f'jobplane-{stage.name}-x'", "jobplane-$stage-x", "ssm:/jobplane/{stage}/x", "'Jobplane'",
     "`jobplane-\\${sls:stage}-x`", "/jobplane/${stage}/x", "jobplane-prod-claim"],
)  # fmt: skip
def test_a_literal_deployed_name_is_found(text: str) -> None:
    """In Python, JavaScript, YAML, JSON and shell."""
    assert LITERAL.search(text)


@pytest.mark.parametrize("text", ["jobplane-keys", "jobplane-{lib}", "scripts/jobplane/{x}"])
def test_names_of_packages_and_of_the_command_are_no_finding(text: str) -> None:
    assert not LITERAL.search(text)


@pytest.mark.parametrize("stage", ["prod", "dev"])
def test_a_renamed_stack_does_not_have_the_old_name(
    copy: Repository, stage: str, tmp_path: Path
) -> None:
    built = jobplane(copy, "build")
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        ["node_modules/.bin/osls", "package", "--stage", stage, "--package", tmp_path],
        cwd=copy.root, env=command_environment(copy), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    template = json.loads((tmp_path / "cloudformation-template-update-stack.json").read_text())
    assert list(spelt_out(template)) == []
    functions = [
        resource["Properties"]["FunctionName"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function"
    ]
    assert {name.rpartition(f"-{stage}-")[0] for name in functions} == {NAME}


def spelt_out(value: Any) -> Iterator[str]:
    """The texts with jobplane, without the schedules' inputs, where it is part of the protocol."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from spelt_out([key, item])
    elif isinstance(value, list):
        for item in value:
            yield from spelt_out(item)
    elif isinstance(value, str) and "jobplane" in value.replace("jobplane.schedule", "").lower():
        yield value


@pytest.fixture(scope="module")
def stage(copy: Repository) -> Iterator[Stage]:
    """A stage of the copy."""
    with stage_of(copy, "renamed") as started:
        yield started


@pytest.mark.e2e
def test_a_renamed_stage_runs_jobs(stage: Stage) -> None:
    """With the new name in all resources."""
    state = stage.read_state()
    assert state is not None
    up, token = state.description, mint_token(state.jwt_secret, user="u", tenant="t")

    async def answer() -> Any:
        async with JobSocket(up["websocket_url"], token) as socket:
            return await socket.run("delay", {"seconds": 0.1, "steps": 2})

    assert asyncio.run(answer())
    named = [*up["functions"].values(), *up["tables"].values(), *up["buckets"].values()]
    named += [url.rpartition("/")[2] for url in up["queues"].values()]
    assert {name.partition(f"-{stage.name}-")[0] for name in named} == {NAME}
    ssm = stage.client("ssm")
    found = ssm.get_parameters_by_path(Path=f"/{NAME}/{stage.name}", Recursive=True)
    assert secret_name(stage) in {parameter["Name"] for parameter in found["Parameters"]}


@pytest.mark.e2e
def test_verbs_work_on_a_renamed_stage(stage: Stage) -> None:
    done = jobplane(stage.repository, "invoke", "check-active-job", "none", "--stage", stage.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NAME}-{stage.name}-input-" in done.stdout
    logs = jobplane(stage.repository, "logs", "check-active-job", "--stage", stage.name)
    assert logs.returncode == 0, logs.stderr
