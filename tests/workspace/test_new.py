"""`jobplane new`: new functions pass all checks of this repository."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobplane.reference.documents import with_tables
from jobplane.rules import rule_names
from jobplane.scaffold import creating, triggers
from jobplane.scaffold.creating import TEMPLATES, NameRefusedError, check_name, check_package
from jobplane.scaffold.registering import LOADED_BY
from jobplane.scaffold.triggers import TRIGGERS
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Function, Repository
from jobplane.trying import cases
from jobplane.trying.cases import Case
from jobplane.verbs import new
from lambdapack.tools import ToolError
from tests.workspace.copies import Built, jobplane, run
from tests.workspace.made_functions import NAMES, made_in

NEW = sorted(NAMES.values())
HOSTILE_INPUTS = 200
# Tests of the whole tree that fail for a function without a contract or a row in a table.
OF_THE_TREE = (
    "test_contracts.py::test_every_function_has_contracts",
    "test_contracts.py::test_contracts_are_those_of_the_models",
    "test_contracts.py::test_openapi_has_exactly_the_deployed_routes",
    "test_contracts.py::test_every_title_has_one_type",
    "test_contracts.py::test_openapi_json_is_valid",
    "test_contracts.py::test_a_schema_is_valid_by_the_metaschema",
    "test_contracts_cases.py",
    "test_names.py",
    "test_observability.py::test_every_metric_is_documented",
)
GUIDED_RULES = (
    "names", "handlers", "environment", "imports", "permissions", "references", "errors",
    "artifacts", "budgets",
)  # fmt: skip


@pytest.fixture(scope="session")
def made(shared: Path, built: Built) -> Repository:
    return made_in(shared, built[0])


def sources() -> list[str]:
    tests = [f"tests/unit/test_{name.replace('-', '_')}.py" for name in NEW]
    return [f"functions/{name}" for name in NEW] + tests


def contents(repository: Repository) -> dict[Path, bytes]:
    """The content of every file."""
    return {path: path.read_bytes() for path in repository.root.rglob("*.*") if path.is_file()}


def test_new_creates_a_complete_member_for_every_trigger(made: Repository) -> None:
    folders = {path.name for path in TEMPLATES.iterdir()} - {*LOADED_BY}
    assert set(NAMES) == folders == {trigger.name for trigger in TRIGGERS}
    known = {function.name for function in made.functions()}
    assert set(NEW) <= known


def test_ruff_accepts_new_functions(made: Repository) -> None:
    """With names of any length."""
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = run(made, *command, *sources())
        assert done.returncode == 0, done.stdout


def test_mypy_strict_accepts_new_functions(made: Repository) -> None:
    listed = json.dumps((made.root / "pyproject.toml").read_text())
    assert "functions/*/*.py" in listed
    paths = [f"functions/{name}/{name.replace('-', '_')}.py" for name in NEW]
    done = run(made, "mypy", "--cache-dir", str(made.root / ".mypy_cache"), *paths)
    assert done.returncode == 0, done.stdout


def test_check_accepts_new_functions(made: Repository) -> None:
    """With the rules on artifacts and budgets."""
    done = jobplane(made, "check", *NEW)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_new_functions_pass(made: Repository) -> None:
    done = run(made, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *sources()[len(NEW) :])
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_schema_and_docs_add_new_functions(made: Repository) -> None:
    tests = [f"tests/workspace/{name}" for name in OF_THE_TREE]
    done = run(made, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout


def test_without_its_table_the_invoke_template_reads_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "run_quietly", lambda *_, **__: "")
    repository = copy_repository(Repository.here(), tmp_path / "copy")
    (repository.root / "resources" / "tables.yml").unlink()
    for function in repository.functions():
        shutil.rmtree(function.directory)
    with pytest.raises(creating.MissingResourceError, match="RequestsTable, .* --trigger invoke"):
        creating.create(repository, "show-request", "http")
    assert repository.functions() == []

    creating.create(repository, "count-words", "invoke")
    (function,) = repository.functions()
    for path in cases.case_paths(function).values():
        result = cases.run_in_process(Case.read(function, path), repository)
        assert result.passed, (result.problems, result.outcome)


@pytest.mark.parametrize("name", NEW)
def test_the_cases_of_new_functions_pass_in_process(made: Repository, name: str) -> None:
    function = Function(name, made.root / "functions" / name)
    paths = cases.case_paths(function)
    assert len(paths) >= 2
    for path in paths.values():
        case = Case.read(function, path)
        assert case.expect is not None
        result = cases.run_in_process(case, made)
        assert result.passed, (result.problems, result.outcome)


def test_new_functions_answer_or_refuse_hostile_events(made: Repository) -> None:
    hostile = ("--way", "hypothesis", "--inputs", str(HOSTILE_INPUTS), "--json")
    done = jobplane(made, "fuzz", *NEW, *hostile)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["function"] for report in reports] == NEW, done.stderr
    for report in reports:
        assert report["inputs"] == HOSTILE_INPUTS
        assert report["findings"] == [], report["function"]
    assert done.returncode == 0


def test_new_keeps_the_lock_current_without_other_registries(made: Repository) -> None:
    done = subprocess.run(["uv", "lock", "--check"], cwd=made.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    registries = {
        line
        for repository in (made, Repository.here())
        for line in (repository.root / "uv.lock").read_text().splitlines()
        if line.startswith("source = { registry")
    }
    assert len(registries) == 1


def test_new_functions_have_no_unfilled_placeholders(made: Repository) -> None:
    for path in sources() + ["resources"]:
        there = made.root / path
        found = [there] if path.endswith(".py") else there.rglob("*")
        for file in found:
            assert "__" not in file.name.replace("__pycache__", "")
            if file.is_file() and file.suffix != ".pyc":
                assert not any(
                    word in file.read_text()
                    for word in ("__NAME__", "__MODULE__", "__RESOURCE__", "__FUNCTION__")
                ), file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("claim", "functions/claim already exists"),
        ("keys", "libs/keys already exists"),
        ("models", "libs/models already exists"),
        ("webhooks-delivery", "tests/unit/test_webhooks_delivery.py already exists"),
        ("CountThings", "is not kebab-case"),
        ("count_things", "single hyphens): count-things?"),
        ("count--things", "is not kebab-case"),
        ("-count", "is not kebab-case"),
        ("9-lives", "is not kebab-case"),
        ("", "is not kebab-case"),
        ("../count", "is not kebab-case"),
        ("class", "is a keyword of Python"),
        ("json", "would hide a module of the standard library"),
        ("boto3", "would hide the module of an installed package"),
        ("jobplane-keys", "would hide the module of an installed package"),
        ("utils", "is too general"),
        ("a-name-of-twenty-char", "characters of 19"),
    ],
)
def test_a_malformed_name_is_refused_with_the_fault(name: str, said: str) -> None:
    with pytest.raises(NameRefusedError) as refused:
        check_name(Repository.here(), name)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("action", "delay", "there is an action 'delay' already"),
        ("action", "generate-report", "there is an action 'generate_report' already"),
        ("action", "robots", "libs/robots already exists"),
        ("robot", "archive", "there is a template tpl_archive already"),
        ("robot", "Number", "is not kebab-case"),
    ],
)
def test_a_taken_name_of_a_package_is_refused(kind: str, name: str, said: str) -> None:
    with pytest.raises(NameRefusedError) as refused:
        check_package(Repository.here(), name, kind)
    assert said in refused.value.message


def test_a_package_has_no_trigger() -> None:
    done = CliRunner().invoke(new.command, ["transcribe", "--action", "--trigger", "sqs"])
    assert done.exit_code == 2
    assert "--action has no trigger" in done.output


def test_a_refused_name_is_exit_code_2() -> None:
    """No file is created."""
    done = CliRunner().invoke(new.command, ["claim"])
    assert done.exit_code == 2
    assert "already exists" in done.output


def test_a_failed_lock_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv.lock is as it was."""
    repository = copy_repository(Repository.here(), tmp_path / "tree")
    before = contents(repository)

    def fail(*_: object, **__: object) -> str:
        (repository.root / "uv.lock").write_text("half of it")
        raise ToolError("uv lock failed", "no network")

    monkeypatch.setattr(creating, "run_quietly", fail)
    with pytest.raises(ToolError):
        creating.create(repository, "cancel-by-hand", "sqs")
    assert not (repository.root / "functions" / "cancel-by-hand").exists()
    assert contents(repository) == before


def test_new_prints_the_created_files_and_the_next_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = copy_repository(Repository.here(), tmp_path / "tree")
    monkeypatch.setattr(Repository, "here", lambda: repository)
    done = CliRunner().invoke(new.command, ["cancel-by-hand", "--trigger", "sqs"])
    assert done.exit_code == 0, done.output
    printed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("made")]
    assert all((tmp_path / "tree" / path).is_file() for path in printed)
    assert "functions/cancel-by-hand/cancel_by_hand.py" in printed
    assert "resources/cancel-by-hand.yml" in printed
    assert "uv run jobplane invoke cancel-by-hand --all --in-process" in done.stdout


def test_new_lists_triggers_with_their_example() -> None:
    done = CliRunner().invoke(new.command, ["--list"])
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == [each.name for each in TRIGGERS]


def named_in(text: str) -> list[str]:
    """The first cells of a text's tables, without paths."""
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    return [row for row in rows if "/" not in row]


def test_the_guide_has_a_row_for_each_trigger_and_rule() -> None:
    guide = (Repository.here().root / triggers.DOCUMENT).read_text()
    assert guide == with_tables(guide, triggers.tables()), "run `jobplane docs triggers`"
    assert named_in(guide.partition("\n## What is checked")[2]) == [*GUIDED_RULES]
    assert sorted(GUIDED_RULES) == rule_names()
