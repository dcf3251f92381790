"""Lost rows and lost tables come back from backups, by the script and commands of
docs/operating.md.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from jobplane.tree.repository import Repository
from jobplane_keys import owner_key
from tests.e2e.deployed import Deployed, Message, unique, until
from tests.e2e.documented import Terminal, blocks
from tests.e2e.platform_records import without_delivery
from tests.workspace.copies import copy_here, jobplane, share_wheels, stage_of, under_git

pytestmark = pytest.mark.e2e

USER = unique("user")
DELAY = {"seconds": 0, "steps": 1}
DOCUMENT = (Repository.here().root / "docs" / "operating.md").read_text(encoding="utf-8")
# To restore, to set what is not restored, to let the stack learn of a new stream.
_, RESTORE, SETTINGS, STREAM = blocks(
    DOCUMENT.partition("**The whole table was lost.**")[2].partition("CloudFormation has")[0]
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """put_back.py as documented."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    path = tmp_path_factory.mktemp("operating") / "put_back.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.fixture
def assemblies(deployed: Deployed) -> Iterator[list[str]]:
    """Two assemblies of a user, deleted afterwards."""
    ids = [deployed.put_assembly(USER) for _ in range(2)]
    yield ids
    for assembly_id in ids:
        deployed.delete("assemblies", assembly_id=assembly_id)


def test_a_deleted_row_is_restored_and_a_newer_one_is_kept(
    deployed: Deployed, assemblies: list[str], script: Path
) -> None:
    """From a backup."""
    dynamodb, table = deployed.dynamodb, deployed.info["tables"]["assemblies"]
    lost, changed = assemblies
    backup = dynamodb.create_backup(TableName=table, BackupName="before")["BackupDetails"]
    deployed.delete("assemblies", assembly_id=lost)
    deployed.update("assemblies", {"assembly_id": changed}, rev=2)
    assert status_of(deployed, lost) == 404

    restored = unique("restored")
    dynamodb.restore_table_from_backup(TargetTableName=restored, BackupArn=backup["BackupArn"])
    try:
        dynamodb.get_waiter("table_exists").wait(TableName=restored, WaiterConfig={"Delay": 1})
        environment = os.environ | deployed.stage.environment() | {"NO_PROXY": "127.0.0.1"}
        command = [sys.executable, script, restored, table]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    finally:
        dynamodb.delete_table(TableName=restored)
        dynamodb.delete_backup(BackupArn=backup["BackupArn"])

    assert (done.returncode, done.stdout) == (0, "1 rows put back\n"), done.stderr
    assert status_of(deployed, lost) == 200
    assert deployed.assembly(changed)["rev"] == 2


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A stage of a copy of the tree, whose tables may be lost."""
    repository = under_git(copy_here(tmp_path_factory.mktemp("lost") / "copy"))
    share_wheels(Repository.here(), repository)
    with stage_of(repository, "lost") as there:
        yield Deployed(there)


@pytest.fixture(scope="module")
def terminal(own: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A shell for the documented commands."""
    return Terminal.on(own.stage, tmp_path_factory.mktemp("programs"))


def test_a_lost_table_is_restored_with_its_indexes_and_settings(
    own: Deployed, terminal: Terminal
) -> None:
    table, assembly = own.info["tables"]["assemblies"], own.put_assembly(USER)
    before = properties(own, table)
    own.dynamodb.create_backup(TableName=table, BackupName="before")
    own.dynamodb.delete_table(TableName=table)
    assert status_of(own, assembly) == 500
    terminal.run(RESTORE, table=table)
    assert properties(own, table) != before
    terminal.run(SETTINGS, table=table)
    assert properties(own, table) == before
    assert recovers_to_a_point(own, table)
    assert status_of(own, assembly) == 200
    assert assembly in listed(own)


@dataclass(frozen=True)
class Loss:
    """A table of requests that was lost and restored, and its former content."""

    before: Message
    after: Message
    ended: str
    pending: str
    old_stream: str
    new_stream: str


@pytest.fixture(scope="module")
def loss(own: Deployed, terminal: Terminal) -> Loss:
    """The table of requests, lost after a backup and restored by the documented commands."""
    table = own.info["tables"]["requests"]
    before, old_stream = properties(own, table), stream_of(own, table)
    ended, pending = asyncio.run(lose_requests(own, table))
    terminal.run(RESTORE, SETTINGS, STREAM, table=table, file="resources/tables.yml")
    after, new_stream = properties(own, table), stream_of(own, table)
    return Loss(before, after, ended, pending, old_stream, new_stream)


async def lose_requests(own: Deployed, table: str) -> tuple[str, str]:
    """Lose the table while one request has ended and another one waits."""
    async with own.socket(USER) as socket:
        ended, pending = unique("req"), unique("req")
        assert (await socket.run("delay", DELAY, id=ended))["type"] == "complete"
        with without_delivery(own, "dispatch", f"/{table}/"):
            asked = {"id": pending, "action": "delay", "payload": DELAY}
            assert (await socket.ask(asked))["type"] == "acknowledgment"
            key = {"owner": owner_key("acme", USER), "request_id": pending}
            own.update("requests", key, lease_until=1)
            own.dynamodb.create_backup(TableName=table, BackupName="before")
            own.dynamodb.delete_table(TableName=table)
    return ended, pending


def test_a_lost_table_with_a_stream_is_restored_with_its_settings(loss: Loss) -> None:
    """Its stream is a new one."""
    assert loss.after == loss.before
    assert loss.new_stream != loss.old_stream


def test_mapping_and_role_name_the_new_stream(own: Deployed, loss: Loss) -> None:
    name = own.info["functions"]["dispatch"]
    mappings = own.functions.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    assert [mapping["EventSourceArn"] for mapping in mappings] == [loss.new_stream]
    role = own.configuration("dispatch")["Role"].rpartition("/")[2]
    iam = own.stage.client("iam")
    policies = [
        json.dumps(iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"])
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]
    assert any(loss.new_stream in policy for policy in policies)
    assert not any(loss.old_stream in policy for policy in policies)


def test_nothing_is_left_to_deploy_after_the_restore(own: Deployed, loss: Loss) -> None:
    done = jobplane(own.stage.repository, "deploy", "--stage", own.stage.name, "--yes")
    assert done.stdout == f"nothing to deploy: {own.stage.name} is up to date\n", done.stderr


async def test_requests_run_after_the_restore(own: Deployed, loss: Loss) -> None:
    """An ended one is still stored."""
    async with own.socket(USER) as socket:
        known = await socket.ask({"action": "status", "payload": {"request_id": loss.ended}})
        assert known["data"]["status"] == "COMPLETED"
        assert (await socket.run("delay", DELAY))["type"] == "complete"


async def test_an_open_request_of_the_backup_runs_after_the_restore(
    own: Deployed, loss: Loss
) -> None:
    """The sweeper finds its row."""
    own.sweep()
    await until(lambda: own.row(USER, loss.pending)["status"] == "COMPLETED", "its end")


def status_of(deployed: Deployed, assembly_id: str) -> int:
    """The HTTP API's answer to the assembly's user."""
    return get(deployed, f"/status/{assembly_id}").status_code


def listed(deployed: Deployed) -> list[str]:
    """The user's list of assemblies, from an index."""
    return [each["assembly_id"] for each in get(deployed, "/assemblies").json()["assemblies"]]


def get(deployed: Deployed, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {deployed.token(USER, 'acme')}"}
    return httpx.get(f"{deployed.http_url}{path}", headers=headers, trust_env=False)


def properties(deployed: Deployed, table: str) -> Message:
    """The template's properties of a table, as deployed."""
    dynamodb = deployed.dynamodb
    told = dynamodb.describe_table(TableName=table)["Table"]
    tags = dynamodb.list_tags_of_resource(ResourceArn=told["TableArn"])["Tags"]
    return {
        "attributes": {
            each["AttributeName"]: each["AttributeType"] for each in told["AttributeDefinitions"]
        },
        "key": told["KeySchema"],
        "billing": told["BillingModeSummary"]["BillingMode"],
        "indexes": {
            index["IndexName"]: (index["KeySchema"], index["Projection"])
            for index in told.get("GlobalSecondaryIndexes", [])
        },
        "stream": told.get("StreamSpecification"),
        "expiry": dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"],
        "tags": {tag["Key"]: tag["Value"] for tag in tags if not tag["Key"].startswith("aws:")},
    }


def recovers_to_a_point(deployed: Deployed, table: str) -> bool:
    told = deployed.dynamodb.describe_continuous_backups(TableName=table)
    point = told["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    return bool(point["PointInTimeRecoveryStatus"] == "ENABLED")


def stream_of(deployed: Deployed, table: str) -> str:
    return str(deployed.dynamodb.describe_table(TableName=table)["Table"]["LatestStreamArn"])
