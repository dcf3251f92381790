"""The files that `jobplane schema` writes are current, valid and complete."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator, Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from jobplane.contracts import files
from jobplane.contracts.catalogue import catalogue
from jobplane.contracts.openapi import deployed_routes
from jobplane.stage.framework import install_framework
from jobplane.tree.repository import Function, Repository
from jobplane.verbs import schema
from tests.published import is_published
from tests.workspace.typescript import compile_types

REPOSITORY = Repository.here()
CONTRACTS = REPOSITORY.root / "contracts"
SCHEMAS = sorted((CONTRACTS / "json-schema").rglob("*.json"))

type Made = dict[Path, str]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def references(document: Any) -> Iterator[str]:
    """Every `$ref` of a document."""
    if isinstance(document, dict):
        if isinstance(reference := document.get("$ref"), str):
            yield reference
        for part in document.values():
            yield from references(part)
    if isinstance(document, list):
        for part in document:
            yield from references(part)


def first(entries: dict[str, Any]) -> Any:
    return next(iter(entries.values()))


def leads_somewhere(document: Any, reference: str) -> bool:
    head, *names = reference.split("/")
    for name in names:
        document = document.get(name.replace("~1", "/"), {})
    return head == "#" and bool(document)


@pytest.fixture(scope="module")
def made() -> Made:
    """Every file as it would be written now."""
    install_framework(REPOSITORY)
    return files.rendered(REPOSITORY)


def test_contracts_are_those_of_the_models(made: Made) -> None:
    assert "".join(each.diff() for each in files.drift(REPOSITORY, made)) == ""


def test_contracts_are_the_same_in_another_process(made: Made) -> None:
    script = (
        "import hashlib\nfrom jobplane.contracts.files import rendered\n"
        "from jobplane.tree.repository import Repository\n"
        "print(hashlib.sha256(repr(rendered(Repository.here())).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == hashlib.sha256(repr(made).encode()).hexdigest()


def test_every_file_ends_with_one_line_break(made: Made) -> None:
    assert all(text.endswith("\n") and not text.endswith("\n\n") for text in made.values())


def test_a_changed_missing_or_extra_file_is_shown_and_corrected(made: Made, tmp_path: Path) -> None:
    other = Repository(tmp_path)
    shutil.copytree(CONTRACTS, tmp_path / "contracts")
    changed, missing = (path.relative_to(REPOSITORY.root) for path in SCHEMAS[:2])
    left_over = Path("contracts", "json-schema", "old.json")
    text = (tmp_path / changed).read_text().replace('"$id": "urn:', '"$id": "url:')
    (tmp_path / changed).write_text(text)
    (tmp_path / missing).unlink()
    (tmp_path / left_over).write_text("{}\n")

    drifted = files.drift(other, made)
    assert {each.path for each in drifted} == {changed, missing, left_over}
    diffs = {each.path: each.diff().splitlines() for each in drifted}
    assert [line[:14] for line in diffs[changed] if "$id" in line] == [
        '-  "$id": "url', '+  "$id": "urn',
    ]  # fmt: skip
    assert diffs[missing][0] == "--- /dev/null"
    assert diffs[left_over][1] == "+++ /dev/null"

    for each in drifted:
        files.settle(other, each)
    assert files.drift(other, made) == []


def test_check_fails_on_drift(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in made if path.suffix == ".json")
    before = (REPOSITORY.root / path).read_text()
    current = made | {path: before}
    monkeypatch.setattr(files, "rendered", lambda repository: current | {path: "{}\n"})
    drifted = CliRunner().invoke(schema.command, ["--check"])
    assert drifted.exit_code == 1
    assert "+{}" in drifted.output
    assert "run `jobplane schema`" in drifted.output
    assert (REPOSITORY.root / path).read_text() == before

    monkeypatch.setattr(files, "drift", lambda repository, rendered: [])
    assert CliRunner().invoke(schema.command, ["--check"]).exit_code == 0


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_a_schema_is_valid_by_the_metaschema(path: Path) -> None:
    document = read(path)
    Draft202012Validator.check_schema(document)
    jsonschema_rs.validator_for(document)
    name = path.relative_to(CONTRACTS / "json-schema").with_suffix("").as_posix()
    assert document["$id"] == f"urn:jobplane:{name.replace('/', ':')}"
    assert [ref for ref in references(document) if not leads_somewhere(document, ref)] == []


@pytest.mark.parametrize("path", sorted(CONTRACTS.glob("openapi.json")), ids=lambda path: path.name)
def test_openapi_json_is_valid(path: Path) -> None:
    document = read(path)
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    broken = copy.deepcopy(document)
    for operation in first(broken["paths"]).values():
        del first(operation["responses"])["description"]
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


@pytest.mark.parametrize(
    "path", sorted(CONTRACTS.glob("asyncapi.json")), ids=lambda path: path.name
)
def test_asyncapi_json_is_valid(path: Path, made: Made) -> None:
    published = REPOSITORY.root / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
    validator = Draft7Validator(read(published))
    document = read(path)
    assert [error.message for error in validator.iter_errors(document)] == []
    assert [ref for ref in references(document) if not leads_somewhere(document, ref)] == []
    broken = copy.deepcopy(document)
    first(broken["operations"])["action"] = "ask"
    assert list(validator.iter_errors(broken))


def test_openapi_has_exactly_the_deployed_routes() -> None:
    described = {
        (method.upper(), path)
        for document in map(read, CONTRACTS.glob("openapi.json"))
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described == deployed_routes(REPOSITORY), (
        "describe the routes in the function's openapi.yml and run `jobplane schema`"
    )


@pytest.mark.parametrize("function", REPOSITORY.functions(), ids=lambda function: function.name)
def test_every_function_has_contracts(function: Function) -> None:
    for name in ("input", "result"):
        assert is_published(f"functions/{function.name}/{name}"), (
            "name its types in its pyproject.toml, tool.jobplane.contracts; run `jobplane schema`"
        )


def test_every_title_has_one_type() -> None:
    """TypeScript types and components are named by it."""
    kinds: dict[str, list[Any]] = {}
    for contract in catalogue(REPOSITORY):
        kinds.setdefault(contract.title, []).append(contract.type)
    assert [
        title for title, found in kinds.items() if any(kind != found[0] for kind in found)
    ] == []


def test_types_compile(made: Made) -> None:
    done = compile_types(CONTRACTS / "typescript")
    assert done.returncode == 0, done.stdout
