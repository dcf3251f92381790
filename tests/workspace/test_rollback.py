"""`deploy --rollback` of functions and of the stack, on a local stage."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from jobplane.stage.stages import Stage
from tests.workspace.copies import (
    Built,
    Done,
    built_copy,
    command_environment,
    deploy,
    edit,
    jobplane,
    printed,
    stage_of,
    touch,
)

pytestmark = pytest.mark.e2e

NAME = "check-active-job"
SOURCE = "functions/check-active-job/check_active_job.py"
CONFIG = "functions/check-active-job/function.yml"


@pytest.fixture(scope="module")
def stage(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage of a copy of the workspace that tests may change."""
    repository = built_copy(built, tmp_path_factory.mktemp("rollback") / "copy")
    with stage_of(repository, "rollback") as there:
        yield there


def deployed(stage: Stage, *arguments: str) -> Done:
    done = deploy(stage, *arguments, "--yes")
    assert done.returncode == 0, done.stderr
    return done


def live(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.client("lambda").get_function_configuration(
        FunctionName=stage.names.of(NAME)
    )
    return found


def changed(stage: Stage) -> str:
    """Deploy another code of the function; its digest."""
    touch(stage.repository, SOURCE)
    deployed(stage, NAME)
    digest: str = live(stage)["CodeSha256"]
    return digest


def test_a_rollback_of_a_function_goes_one_version_back(stage: Stage) -> None:
    """A second one goes another one back, `--to` to a named one."""
    first: str = live(stage)["CodeSha256"]
    second, third = changed(stage), changed(stage)
    assert len({first, second, third}) == 3
    for digest in (second, first):
        done = deployed(stage, NAME, "--rollback")
        assert live(stage)["CodeSha256"] == digest
        assert done.stdout.splitlines()[-1].split()[:2] == [NAME, "deployed"]
    versions = stage.client("lambda").list_versions_by_function(FunctionName=stage.names.of(NAME))
    number = next(v["Version"] for v in versions["Versions"] if v["CodeSha256"] == third)
    deployed(stage, NAME, "--rollback", "--to", number)
    assert live(stage)["CodeSha256"] == third


def test_a_rollback_of_a_function_restores_its_settings(stage: Stage) -> None:
    before = live(stage)
    edit(stage.repository, CONFIG, "memorySize: 256", "memorySize: 320")
    changed(stage)
    assert live(stage)["MemorySize"] == 320
    deployed(stage, NAME, "--rollback")
    after = live(stage)
    assert [after["MemorySize"], after["CodeSha256"]] == [256, before["CodeSha256"]]
    edit(stage.repository, CONFIG, "memorySize: 320", "memorySize: 256")


def test_a_rollback_to_an_unknown_version_is_refused(stage: Stage) -> None:
    """As are contradicting options."""
    for arguments, message in (
        ((NAME, "--rollback", "--to", "999"), "has no version 999"),
        (("--rollback", "--to", "2001-01-01T00:00:00.000Z"), "has no deployment 2001-01-01"),
        (("--to", "1"), "--to needs --rollback"),
        (("--rollback", "--affected"), "--rollback excludes"),
    ):
        done = deploy(stage, *arguments, "--yes")
        assert done.returncode != 0
        assert message in done.stderr


def test_a_rollback_of_the_stack_restores_the_deployment_before(stage: Stage) -> None:
    """`deploy` then restores the newer one."""
    deployed(stage)  # a function's own deployment is not part of the stack's
    former = live(stage)
    edit(stage.repository, CONFIG, "timeout: 10", "timeout: 11")
    touch(stage.repository, SOURCE)
    deployed(stage)
    latest = live(stage)
    assert latest["Timeout"] == 11
    shown = printed(deploy(stage, "--rollback", "--dry-run", "--json"))
    assert shown["functions"][NAME]["changed"]
    assert live(stage)["Timeout"] == 11
    deployed(stage, "--rollback")
    assert [live(stage)[key] for key in ("Timeout", "CodeSha256")] == [10, former["CodeSha256"]]
    deployed(stage)
    assert [live(stage)[key] for key in ("Timeout", "CodeSha256")] == [11, latest["CodeSha256"]]


@pytest.mark.parametrize("verb", ["deploy", "up"])
def test_deploy_after_osls_rollback_deploys_again(stage: Stage, verb: str) -> None:
    timeout = live(stage)["Timeout"]
    edit(stage.repository, CONFIG, f"timeout: {timeout}", f"timeout: {timeout + 1}")
    deployed(stage)
    found = stage.client("cloudformation").describe_stack_resource(
        StackName=stage.names.stack, LogicalResourceId="ServerlessDeploymentBucket"
    )
    bucket = found["StackResourceDetail"]["PhysicalResourceId"]
    keys = stage.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    former = sorted({each["Key"].split("/")[3] for each in keys})[-2]
    osls(stage, "rollback", "-t", former.partition("-")[0])
    assert live(stage)["Timeout"] == timeout
    given = ["--yes"] if verb == "deploy" else []
    again = jobplane(stage.repository, verb, "--stage", stage.name, *given)
    assert again.returncode == 0, again.stderr
    assert live(stage)["Timeout"] == timeout + 1


def osls(stage: Stage, *arguments: str, **variables: str) -> None:
    """Run the framework's own command on the stage."""
    done = subprocess.run(
        ["node_modules/.bin/osls", *arguments, "-s", stage.name],
        cwd=stage.repository.root,
        env=command_environment(stage.repository) | stage.environment() | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_osls_deploy_function_builds_changed_sources_first(stage: Stage) -> None:
    before = live(stage)["CodeSha256"]
    touch(stage.repository, SOURCE)
    uv = stage.repository.root / "bin"
    uv.mkdir()
    (uv / "uv").write_text(
        '#!/bin/sh\n[ "$1" = run ] && shift 2 && exec python -m "$@"\nexec "$REAL_UV" "$@"\n'
    )
    (uv / "uv").chmod(0o755)
    real, path = shutil.which("uv"), os.environ["PATH"]
    assert real is not None
    osls(stage, "deploy", "function", "-f", NAME, PATH=f"{uv}:{path}", REAL_UV=real, UV=real)
    assert live(stage)["CodeSha256"] != before
    manifest = json.loads((stage.repository.dist / "manifest.json").read_text())
    assert manifest
