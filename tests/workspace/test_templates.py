"""The shipped templates: their verb, their page, and their webhooks' parameters."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import click
import pytest
from click.testing import CliRunner
from moto import mock_aws

from jobplane.cli import jobplane as command
from jobplane.deploy.local_stage import make_webhook_settings
from jobplane.deploy.templates import templates, webhook_parameters
from jobplane.reference.documents import rows_of, with_tables
from jobplane.reference.templates import DOCUMENT, tables
from jobplane.stage.gateway import WEBHOOKS
from jobplane.tree.repository import Repository
from jobplane_robots import load_templates, robot_names
from jobplane_robots._templates import TEMPLATE_KEYS
from jobplane_webhooks import signing_key

REPOSITORY = Repository.here()
PAGE = (REPOSITORY.root / DOCUMENT).read_text(encoding="utf-8")


def column(heading: str) -> list[str]:
    """The first column of the page's table with this first heading."""
    _, *rows = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[1:]
    return [row.split("|")[1].strip("` ") for row in rows]


def test_the_pages_table_is_current() -> None:
    assert with_tables(PAGE, tables(REPOSITORY)) == PAGE
    known = load_templates(REPOSITORY.root / "templates" / "index.json")
    assert [row[0].strip("`") for row in rows_of(PAGE, "templates")] == list(known)


def test_the_page_lists_every_robot_and_key() -> None:
    assert sorted(column("robot")) == sorted(robot_names())
    assert sorted(column("key")) == sorted(TEMPLATE_KEYS)


def test_the_pages_example_is_a_valid_template() -> None:
    example = PAGE.partition("```json\n")[2].partition("```")[0]
    (template,) = load_templates(json.loads(example)).values()
    assert template.webhook_url == "ssm:/{service}/{stage}/webhooks/url"


def test_templates_prints_ids_robots_and_parameters() -> None:
    shown = CliRunner().invoke(command, ["templates", "--stage", "prod"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for each in ("tpl_archive", "compressed (/file/compress)", "ssm:/jobplane/prod/webhooks/url"):
        assert each in shown.stdout
    found = json.loads(CliRunner().invoke(command, ["templates", "--json"]).stdout)
    assert list(found) == [each.id for each in templates(REPOSITORY)]
    assert found["tpl_table"]["webhook_secret"] == "ssm:/jobplane/local/webhooks/secret"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"templates": [{"steps": {}}]}'])
def test_an_unreadable_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "index.json").write_text(text)
    with pytest.raises(click.ClickException, match=r"templates/index\.json can't be read .*docs/"):
        templates(Repository(tmp_path))


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """SSM."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("ssm", region_name="eu-west-1")


def make_settings(parameters: Any) -> None:
    stage = Mock(repository=REPOSITORY, endpoint_url="http://127.0.0.1:4566")
    stage.name, stage.client = "dev", lambda _service: parameters
    make_webhook_settings(stage)


def test_up_creates_every_parameter_of_the_templates_webhooks(parameters: Any) -> None:
    make_settings(parameters)
    named = webhook_parameters(REPOSITORY, "dev")
    values = {
        setting: parameters.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        for setting, names in named.items()
        for name in names
    }
    assert values["webhook_url"] == f"http://127.0.0.1:4566{WEBHOOKS}"
    assert len(signing_key(values["webhook_secret"])) == 32


def test_up_keeps_existing_parameters_of_webhooks(parameters: Any) -> None:
    own = {"Name": "/jobplane/dev/webhooks/url", "Type": "String"}
    parameters.put_parameter(Value="https://example.com/mine", **own)
    make_settings(parameters)
    found = parameters.get_parameter(Name=own["Name"])["Parameter"]["Value"]
    assert found == "https://example.com/mine"
