"""`jobplane list`: triggers, dependencies, and the states of artifacts."""

import re
from pathlib import Path

import pytest

from jobplane.tree.configuration import Configuration
from jobplane.tree.repository import Repository
from jobplane.tree.triggers import triggers
from jobplane.verbs.list import direct_dependencies
from lambdapack.artifacts import read_manifest
from tests.workspace.copies import copy_here, edit, jobplane, printed, share_wheels, touch


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    copy = copy_here(tmp_path / "copy")
    share_wheels(Repository.here(), copy)
    return copy


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("connect", {"WebSocket $connect"}),
        ("dispatch", {"stream RequestsTable"}),
        ("processor", {"sqs JobsQueue", "schedule rate(1 minute)"}),
        ("status", {"GET /status/{assembly_id}"}),
        ("deliver-webhook", {"sqs WebhooksQueue"}),
        ("claim", {"Step Functions JobFlow"}),
        ("handle-timeout", {"rule EndedExecutionsRule"}),
    ],
)
def test_events_and_resources_that_invoke_a_function_are_its_triggers(
    name: str, expected: set[str]
) -> None:
    here = Repository.here()
    (function,) = here.select((name,))
    assert set(triggers(function, Configuration(here))) >= expected


def test_a_function_without_a_trigger_is_listed_as_invoked(repository: Repository) -> None:
    path = repository.root / "resources" / "job-flow.yml"
    path.write_text("Resources: {}\n")
    (function,) = repository.select(("claim",))
    assert triggers(function, Configuration(repository)) == ["invoke"]


def test_only_declared_dependencies_are_listed(repository: Repository) -> None:
    """Without versions and extras."""
    edit(repository, "functions/claim/pyproject.toml", '"botocore>=1.43"', '"botocore[crt]>=1"')
    (function,) = repository.select(("claim",))
    assert "botocore" in direct_dependencies(function)
    assert "jobplane-keys" in direct_dependencies(function)
    assert "urllib3" not in direct_dependencies(function)


def test_a_functions_state_is_not_built_current_or_changed(repository: Repository) -> None:

    def state() -> str:
        rows = printed(jobplane(repository, "list", "--json"))
        return str(rows["send-interrupt"]["state"])

    assert state() == "not built"
    assert jobplane(repository, "build", "send-interrupt").returncode == 0
    assert state() == "current"
    touch(repository, "libs/keys/src/jobplane_keys/_ids.py")
    assert state() == "changed"


def test_the_table_has_a_line_for_each_function(repository: Repository) -> None:
    """With trigger, dependencies, size and digest."""
    assert jobplane(repository, "build", "connect").returncode == 0
    artifact = read_manifest(repository)["connect"]
    lines = jobplane(repository, "list").stdout.splitlines()
    (connect,) = [line for line in lines if line.split()[:1] == ["connect"]]
    for cell in ("WebSocket $connect", "botocore", artifact.digest[:12], "current"):
        assert cell in connect
    named = {line.split()[0] for line in lines if line.split()}
    assert named >= {function.name for function in repository.functions()}


@pytest.mark.parametrize(("columns", "is_whole"), [("80", False), ("160", True)])
def test_a_narrow_terminal_omits_columns_instead_of_cutting_words(
    repository: Repository, columns: str, is_whole: bool
) -> None:
    """A note says where they are."""
    done = jobplane(repository, "list", TTY_COMPATIBLE="1", COLUMNS=columns)
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert max(map(len, text.splitlines())) <= int(columns)
    assert "\u2026" not in text
    assert ("botocore" in text) == is_whole
    assert ("--json" in done.stderr) == (not is_whole)
