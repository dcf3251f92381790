"""Lost rows come back from a backup, by the script of docs/operating.md."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.support import Deployed, unique
from jobplane_keys import from_item, to_item

pytestmark = pytest.mark.e2e

USER = unique("user")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """put_back.py as it is documented."""
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path_factory.mktemp("operating") / "put_back.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.fixture
def assemblies(deployed: Deployed) -> Iterator[list[str]]:
    """Two assemblies of one user, removed afterwards."""
    ids = [deployed.put_assembly(USER) for _ in range(2)]
    yield ids
    table = deployed.info["tables"]["assemblies"]
    for assembly_id in ids:
        deployed.dynamodb.delete_item(TableName=table, Key=to_item({"assembly_id": assembly_id}))


def test_what_was_lost_is_put_back_and_what_was_written_since_stays(
    deployed: Deployed, assemblies: list[str], script: Path
) -> None:
    """From a backup, a deleted row answers look-ups again; a row changed since is left alone."""
    dynamodb, table = deployed.dynamodb, deployed.info["tables"]["assemblies"]
    lost, changed = assemblies
    backup = dynamodb.create_backup(TableName=table, BackupName="before")["BackupDetails"]
    dynamodb.delete_item(TableName=table, Key=to_item({"assembly_id": lost}))
    dynamodb.update_item(
        TableName=table,
        Key=to_item({"assembly_id": changed}),
        UpdateExpression="SET rev = :new",
        ExpressionAttributeValues=to_item({":new": 2}),
    )
    assert status_of(deployed, lost) == 404

    restored = unique("restored")
    dynamodb.restore_table_from_backup(TargetTableName=restored, BackupArn=backup["BackupArn"])
    try:
        dynamodb.get_waiter("table_exists").wait(TableName=restored, WaiterConfig={"Delay": 1})
        environment = os.environ | deployed.stage.environment() | {"NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, script, restored, table],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        dynamodb.delete_table(TableName=restored)
        dynamodb.delete_backup(BackupArn=backup["BackupArn"])

    assert (done.returncode, done.stdout) == (0, "1 rows put back\n"), done.stderr
    assert status_of(deployed, lost) == 200
    found = dynamodb.get_item(TableName=table, Key=to_item({"assembly_id": changed}))
    assert from_item(found["Item"])["rev"] == 2


def status_of(deployed: Deployed, assembly_id: str) -> int:
    """What the HTTP API answers the assembly's user."""
    headers = {"Authorization": f"Bearer {deployed.token(USER, 'acme')}"}
    url = f"{deployed.http_url}/status/{assembly_id}"
    return httpx.get(url, headers=headers, trust_env=False).status_code
