"""`deploy` and `list` on a stage: changes, and refusals."""

import base64
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from jobplane.deploy import shipping
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from lambdapack.artifacts import Settings
from tests.workspace.copies import (
    Built,
    add_function,
    built_copy,
    command_environment,
    commit,
    copy_here,
    copy_of,
    deploy,
    edit,
    jobplane,
    printed,
    share_artifacts,
    stage_of,
    touch,
    under_git,
)

pytestmark = pytest.mark.e2e

MARKED = """

def handler(event: object, context: object) -> object:
    return {"mark": "MARK"}
"""
ASKED = "Deploy to "


@pytest.fixture(scope="module")
def stage(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage of a copy of the workspace, which tests may change as they like."""
    repository = built_copy(built, tmp_path_factory.mktemp("deploy") / "copy")
    with stage_of(under_git(repository), "deploy") as there:
        yield there


@pytest.fixture(autouse=True)
def as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo a test's edits in the tree; the stage stays as it is."""
    yield
    if "stage" in request.fixturenames:
        root = request.getfixturevalue("stage").repository.root
        subprocess.run(["git", "checkout", "--quiet", "."], cwd=root, check=True)
        subprocess.run(["git", "clean", "--quiet", "-fd"], cwd=root, check=True)


def digests(stage: Stage) -> dict[str, str]:
    client = stage.client("lambda")
    return {
        function.name: client.get_function_configuration(
            FunctionName=function.deployed_name(stage.name)
        )["CodeSha256"]
        for function in stage.repository.functions()
    }


def settings(stage: Stage, name: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.client("lambda").get_function_configuration(
        FunctionName=stage.names.of(name)
    )
    return found


def answer(stage: Stage, name: str) -> Any:
    response = stage.client("lambda").invoke(FunctionName=stage.names.of(name))
    return json.loads(response["Payload"].read())


def mark(stage: Stage, name: str, text: str) -> None:
    """Let a function answer every event with a text."""
    path = stage.repository.root / "functions" / name / f"{name.replace('-', '_')}.py"
    path.write_text(path.read_text() + MARKED.replace("MARK", text))


def test_one_function_is_deployed_alone(stage: Stage) -> None:
    before = digests(stage)
    mark(stage, "check-active-job", "first")
    done = deploy(stage, "check-active-job", "--yes")
    assert done.returncode == 0, done.stderr
    after = digests(stage)
    assert {name for name in after if after[name] != before[name]} == {"check-active-job"}
    assert answer(stage, "check-active-job") == {"mark": "first"}
    assert done.stdout.splitlines()[-1].split()[:2] == ["check-active-job", "deployed"]
    again = deploy(stage, "check-active-job", "--yes")
    assert again.returncode == 0
    assert again.stdout == f"nothing to deploy: {stage.name} is up to date\n"


def test_deploy_shows_digest_and_settings_before_and_after(stage: Stage) -> None:
    touch(stage.repository, "functions/connect/connect.py")
    edit(stage.repository, "functions/connect/function.yml", "memorySize: 512", "memorySize: 640")
    before = digests(stage)
    plan = printed(deploy(stage, "connect", "--dry-run", "--json"))
    step = plan["functions"]["connect"]
    assert step["configuration"] == ["MemorySize 512 → 640"]
    assert step["code"]["before"] != step["code"]["after"]
    assert plan["deployed"] is False
    shown = deploy(stage, "connect", "--dry-run").stdout
    assert f"{step['code']['before'][:12]} → {step['code']['after'][:12]}" in shown
    assert digests(stage) == before
    assert settings(stage, "connect")["MemorySize"] == 512


def test_deploy_without_a_terminal_needs_yes(stage: Stage) -> None:
    touch(stage.repository, "functions/connect/connect.py")
    before = digests(stage)
    done = deploy(stage, "connect")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert digests(stage) == before


@pytest.mark.parametrize(("reply", "code"), [("n", 1), ("y", 0)])
def test_deploy_asks_on_a_terminal(stage: Stage, reply: str, code: int) -> None:
    touch(stage.repository, "functions/disconnect/disconnect.py")
    before = digests(stage)
    ours, theirs = pty.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "jobplane", "deploy", "disconnect", "--stage", stage.name],
        cwd=stage.repository.root,
        env=command_environment(stage.repository),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.write(ours, f"{reply}\n".encode())
    _, said = asking.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert ASKED in said.decode()
    assert asking.returncode == code
    assert (digests(stage) != before) is (reply == "y")


def test_a_functions_memory_and_plain_variables_are_deployed_alone(stage: Stage) -> None:
    edit(stage.repository, "functions/claim/function.yml", "memorySize: 256", "memorySize: 384")
    edit(
        stage.repository,
        "functions/claim/function.yml",
        "environment:\n",
        "environment:\n  ADDED: 'yes'\n",
    )
    done = printed(deploy(stage, "claim", "--yes", "--json"))
    assert done["functions"]["claim"]["deployed"] is True
    assert done["functions"]["claim"]["configuration"] == [
        "MemorySize 256 → 384",
        "environment ADDED",
    ]
    live = settings(stage, "claim")
    assert live["MemorySize"] == 384
    variables = live["Environment"]["Variables"]
    assert variables["ADDED"] == "yes"
    assert variables["ACTIVE_JOBS_TABLE"] == stage.names.of("active-jobs")


@pytest.mark.parametrize("stack", [("deploy", "--yes"), ("up",)], ids=lambda verb: verb[0])
def test_the_stack_reverts_settings_that_left_the_tree(
    stage: Stage, stack: tuple[str, ...]
) -> None:
    edit(stage.repository, "functions/status/function.yml", "memorySize: 512", "memorySize: 768")
    assert deploy(stage, "status", "--yes").returncode == 0
    edit(stage.repository, "functions/status/function.yml", "memorySize: 768", "memorySize: 512")
    done = jobplane(stage.repository, *stack, "--stage", stage.name)
    assert done.returncode == 0, done.stderr
    assert settings(stage, "status")["MemorySize"] == 512
    again = deploy(stage, "--yes")
    assert again.stdout == f"nothing to deploy: {stage.name} is up to date\n"


def test_a_changed_role_needs_the_stack(stage: Stage) -> None:
    edit(stage.repository, "functions/send-interrupt/function.yml", "interrupts-*", "interrupts-a*")
    refused = deploy(stage, "send-interrupt", "--yes")
    assert refused.returncode == 1
    assert "SendInterruptRole (changed)" in refused.stderr
    assert f"jobplane deploy --stage {stage.name}" in refused.stderr
    done = deploy(stage, "--yes")
    assert done.returncode == 0, done.stderr
    assert "interrupts-a*" in json.dumps(_policies(stage, "send-interrupt"))


def test_code_is_deployed_without_its_changed_role_and_a_hint(stage: Stage) -> None:
    path = "functions/send-interrupt/function.yml"
    edit(stage.repository, path, "interrupts-*", "interrupts-b*")
    mark(stage, "send-interrupt", "without its role")
    done = deploy(stage, "send-interrupt", "--yes")
    assert done.returncode == 0, done.stderr
    assert "not included: send-interrupt: SendInterruptRole (changed)" in done.stderr
    assert "interrupts-b*" not in json.dumps(_policies(stage, "send-interrupt"))


def test_a_new_function_needs_the_stack(stage: Stage) -> None:
    add_function(stage.repository, "renew", like="claim")
    refused = deploy(stage, "renew", "--yes")
    assert refused.returncode == 1
    assert "renew is not in the stack yet" in refused.stderr
    assert f"jobplane deploy --stage {stage.name}" in refused.stderr
    done = deploy(stage, "--yes")
    assert done.returncode == 0, done.stderr
    assert "renew" in digests(stage)


def _policies(stage: Stage, name: str) -> list[Any]:
    client = stage.client("iam")
    role = settings(stage, name)["Role"].rpartition("/")[2]
    names = client.list_role_policies(RoleName=role)["PolicyNames"]
    return [
        client.get_role_policy(RoleName=role, PolicyName=each)["PolicyDocument"] for each in names
    ]


def test_concurrent_deployments_of_two_functions_are_both_recorded(stage: Stage) -> None:
    names = ("router", "handle-timeout")
    for name in names:
        touch(stage.repository, f"functions/{name}/{name.replace('-', '_')}.py")
    before = digests(stage)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "jobplane", "deploy", name, "--stage", stage.name, "--yes"],
            cwd=stage.repository.root,
            env=command_environment(stage.repository),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    after = digests(stage)
    assert {name for name in after if after[name] != before[name]} == set(names)
    state = stage.read_state()
    assert state is not None
    for name in names:
        assert base64.b64encode(bytes.fromhex(state.functions[name])).decode() == after[name]


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_param_architecture_decides_the_artifacts_architecture(architecture: str) -> None:
    there = Stage(Repository.here(), "prod")
    assert shipping.settings_for(there, {"architecture": architecture}) == Settings(architecture)


def test_an_unknown_architecture_is_refused_before_the_build() -> None:
    there = Stage(Repository.here(), "prod")
    with pytest.raises(click.UsageError, match="'arm'; known are: x86_64 and arm64"):
        shipping.settings_for(there, {"architecture": "arm"})


def test_a_function_changed_by_another_deployment_is_not_overwritten(stage: Stage) -> None:
    repository = stage.repository
    functions = repository.select(("record-interruption",))
    touch(repository, "functions/record-interruption/record_interruption.py")
    artifacts = shipping.build(repository, functions, shipping.settings_for(stage))
    with shipping.planned(stage, functions, artifacts, whole=False) as plan:
        stage.client("lambda").update_function_configuration(
            FunctionName=functions[0].deployed_name(stage.name), Description="by another deployment"
        )
        before = digests(stage)
        with pytest.raises(shipping.DeployFailedError, match="another deployment"):
            shipping.update_functions(plan, lambda _name: None)
    assert digests(stage) == before


def test_no_build_refuses_an_artifact_older_than_its_sources(stage: Stage) -> None:
    assert jobplane(stage.repository, "build").returncode == 0
    touch(stage.repository, "functions/claim/claim.py")
    before = digests(stage)
    done = deploy(stage, "claim", "--no-build", "--yes")
    assert done.returncode == 1
    assert "jobplane build claim" in done.stderr
    assert digests(stage) == before


def test_no_build_deploys_a_current_artifact(stage: Stage) -> None:
    touch(stage.repository, "functions/claim/claim.py")
    built = printed(jobplane(stage.repository, "build", "claim", "--json"))["claim"]["digest"]
    done = printed(deploy(stage, "claim", "--no-build", "--yes", "--json"))
    assert done["functions"]["claim"]["code"]["after"] == built
    assert base64.b64decode(digests(stage)["claim"]).hex() == built


def test_deploy_affected_deploys_code_alone_and_configuration_by_the_stack(stage: Stage) -> None:
    touch(stage.repository, "functions/claim/claim.py")
    plan = printed(deploy(stage, "--affected", "--dry-run", "--json"))
    assert list(plan["functions"]) == ["claim"]
    assert plan["whole_stack"] is False
    edit(stage.repository, "serverless.yml", "leaseSeconds: 15", "leaseSeconds: 16")
    plan = printed(deploy(stage, "--affected", "--dry-run", "--json"))
    assert plan["whole_stack"] is True
    assert plan["functions"]["processor"]["configuration"] == ["environment LEASE_SECONDS"]
    commit(stage.repository)
    done = deploy(stage, "--affected", "--yes")
    assert done.stdout == "nothing differs from HEAD\n"


def test_list_compares_sources_artifacts_and_stage(stage: Stage) -> None:
    assert deploy(stage, "disconnect", "--yes").returncode == 0
    touch(stage.repository, "functions/disconnect/disconnect.py")
    rows = printed(jobplane(stage.repository, "list", "--stage", stage.name, "--json"))
    assert rows["disconnect"]["state"] == "changed"
    assert "code" not in rows["disconnect"]["deployed"]
    assert jobplane(stage.repository, "build", "disconnect").returncode == 0
    rows = printed(jobplane(stage.repository, "list", "--stage", stage.name, "--json"))
    assert rows["disconnect"]["state"] == "current"
    assert "code" in rows["disconnect"]["deployed"]


def test_a_function_of_a_missing_stack_is_refused_with_the_remedy(
    stage: Stage, tmp_path: Path
) -> None:
    repository = copy_of(stage.repository, tmp_path / "elsewhere")
    share_artifacts(stage.repository, repository)
    done = jobplane(
        repository, "deploy", "claim", "--stage", "absent", "--yes", **stage.environment()
    )
    assert done.returncode == 1
    assert "stack jobplane-absent is not deployed on" in done.stderr
    assert "jobplane deploy --stage absent" in done.stderr
    back = jobplane(
        repository, "deploy", "--rollback", "--stage", "absent", "--yes", **stage.environment()
    )
    assert back.returncode == 1
    assert "stack jobplane-absent is not deployed, so it can't be rolled back" in back.stderr
    assert "jobplane deploy --stage absent" in back.stderr


def test_invoke_watch_deploys_and_invokes_after_a_save(stage: Stage) -> None:
    # Where tests run in the background the signal is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watching = subprocess.Popen(
        [
            *(sys.executable, "-m", "jobplane", "invoke", "check-active-job"),
            *("free", "--watch", "--json", "--stage", stage.name),
        ],
        cwd=stage.repository.root,
        env=command_environment(stage.repository),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    try:
        wait_for(watching, '"passed": true')
        wait_for(watching, "watching for changes")
        mark(stage, "check-active-job", "saved")
        assert '"mark": "saved"' in wait_for(watching, '"passed": ')
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert watching.returncode == 0


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """The next line of a process's output with a text in it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return line
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy without a stage and without artifacts."""
    return copy_here(tmp_path_factory.mktemp("untouched") / "copy")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("deploy", "nonsense"), 2, "known are: check-active-job, claim"),
        (("deploy", "claim", "--affected"), 2, "pass NAMES or --affected, not both"),
        (("deploy", "--since", "HEAD"), 2, "--since needs --affected"),
        (("deploy", "--stage", "Not A Name"), 2, "invalid stage name"),
        (("deploy", "claim"), 1, "jobplane up"),
        (("deploy", "claim", "--stage", "elsewhere"), 1, "no AWS credentials"),
        (("list", "--stage", "elsewhere"), 1, "no AWS credentials"),
        (("info", "--stage", "elsewhere"), 1, "no AWS credentials"),
        (("logs", "--stage", "elsewhere"), 1, "jobplane up --stage elsewhere"),
        (
            ("token", "--user", "u", "--tenant", "t", "--stage", "elsewhere"),
            1,
            "is not running locally",
        ),
        (
            ("invoke", "claim", "-", "--watch", "--in-process"),
            2,
            "--watch can't be used with stdin",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_call_gets_one_line_with_the_remedy(
    untouched: Repository, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = jobplane(untouched, *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
