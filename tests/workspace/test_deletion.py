"""Deleting a function: the resources that go with it, and that nothing else breaks."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobplane.parts import Needs, _project, delete, parts, resources_of
from jobplane.tree.configuration import references
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment, uv_command
from tests.workspace.copies import jobplane, printed

HERE = Repository.here()
ALL = [function.name for function in HERE.functions()]
# With JOBPLANE_TEST_ALL=1 every function is deleted, and all unit tests of the others are run.
IS_WHOLE = "JOBPLANE_TEST_ALL" in os.environ
JOB_FLOW = [
    "EndedExecutionsPermission", "EndedExecutionsRule", "EndedJobsPermission", "EndedJobsRule",
    "ExecutionEventsDeadLetterQueuePolicy", "JobFlow", "JobFlowLogGroup", "JobFlowRole",
]  # fmt: skip
# Functions that invoke one another.
NEEDED_BY = {"deliver-webhook": ["status"], "handle-timeout": ["sweep-claims"]}
TEMPLATE = """
import json
from jobplane.deploy.compiled import outline
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
print(json.dumps(outline(Stage(Repository.here(), "prod"))))
"""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ALL if IS_WHOLE else ["claim"])
def test_the_project_works_after_a_function_is_deleted(name: str, tmp_path: Path) -> None:
    repository = copy_repository(HERE, tmp_path / "copy")
    names = [name, *NEEDED_BY.get(name, ())]
    resources = resources_of(HERE, names)
    done = jobplane(repository, "delete", *names, "--yes", "--json")
    assert printed(done) == {"functions": names, "resources": resources}
    assert not (repository.root / "functions" / name).exists()

    uv_run(repository, "jobplane", "check")
    uv_run(repository, "jobplane", "docs", "--check")
    uv_run(repository, "jobplane", "schema", "--check")
    assert dangling(json.loads(uv_run(repository, "python", "-c", TEMPLATE))) == set()
    uv_run(repository, "pytest", "--quiet", "--collect-only", "-n", "0")
    uv_run(repository, "pytest", "--quiet", "-n", "2", *unit_tests(repository, name))


def uv_run(repository: Repository, *command: str) -> str:
    done = subprocess.run(
        [uv_command(), "run", "--quiet", *command],
        cwd=repository.root, env=plain_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dangling(template: dict[str, Any]) -> set[str]:
    """References of a compiled template without a target."""
    there = template["Resources"].keys() | template.get("Parameters", {}).keys()
    return {id_ for id_ in references(template) - there if not id_.startswith("AWS::")}


def unit_tests(repository: Repository, name: str) -> list[str]:
    """All unit tests, or those of the functions of the same part."""
    if IS_WHOLE:
        return ["tests/unit"]
    (part,) = (part for part in parts(HERE).values() if name in part.functions)
    needs = Needs(repository)
    left_out = needs.unmet({name})
    files = (f"unit/test_{each.replace('-', '_')}.py" for each in part.functions - {name})
    return [f"tests/{file}" for file in files if needs.modules[file] not in left_out]


@pytest.mark.parametrize(
    ("names", "resources"),
    [
        (["claim"], JOB_FLOW),
        (
            ["handle-timeout", "sweep-claims"],
            [
                *JOB_FLOW,
                "HandleTimeoutFailures",
                "JobsDeadLetterQueue",
            ],  # fmt: skip
        ),
        (["processor"], []),
        (["dispatch"], ["LanesTable"]),
        (["dispatch", "processor"], ["JobsQueue", "LanesTable", "RequestsFailureQueue"]),
        (["disconnect"], []),
        (
            ["deliver-webhook", "status", "processor", "router", "jobs"],
            ["AssembliesTable", "WebhooksDeadLetterQueue", "WebhooksQueue"],
        ),
    ],
    ids=lambda given: " ".join(given[:2]),
)
def test_resources_without_users_are_deleted(names: list[str], resources: list[str]) -> None:
    assert resources_of(HERE, names) == sorted(resources)


def test_dangling_references_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_project, "_run", lambda *_: "")
    repository = copy_repository(HERE, tmp_path / "copy")
    for name, refers in (("claim", "JobFlow"), ("state-manager", "state-manager = ")):
        shutil.rmtree(repository.root / "functions" / name)
        delete(repository, [name])
        texts = [path.read_text() for path in repository.root.glob("resources/job-flow.yml")]
        texts.append((repository.root / "pyproject.toml").read_text())
        assert not [text for text in texts if f"{refers}:" in text or f"\n{refers}" in text]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["handle-timeout", "--yes"], "delete sweep-claims as well, or remove the reference"),
        (["claims", "--yes"], "unknown function 'claims'; known are: check-active-job, claim"),
        (["claim"], "stdin is not a terminal; pass --yes to delete"),
    ],
)
def test_a_wrong_call_deletes_nothing(arguments: list[str], said: str, tmp_path: Path) -> None:
    repository = copy_repository(HERE, tmp_path / "copy", without=("tests", "docs", "contracts"))
    done = jobplane(repository, "delete", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(repository.functions()) == len(ALL)
