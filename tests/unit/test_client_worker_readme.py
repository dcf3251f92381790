"""The README's example of a worker checks its fence."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from pytest import MonkeyPatch

from tests.unit.worker_services import PREFIX, WORKSPACE, Stand, until

README = Path(__file__).parents[2] / "libs" / "client" / "README.md"
PAGES = "pages"


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "JobWorker(" in block]
    return str(code)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The table that the example writes."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield boto3.resource("dynamodb").create_table(
            TableName=PAGES,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )


def run_example(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the example until its first job has ended and the platform stops it."""
    fakes = {"sqs": stand.sqs, "stepfunctions": stand.tasks, "lambda": stand.claims}
    monkeypatch.setattr(boto3, "client", lambda service, **options: fakes[service])
    monkeypatch.setenv("PAGES_TABLE", PAGES)
    monkeypatch.setenv("WORKSPACE", WORKSPACE.key)
    monkeypatch.setenv("CLAIM_FUNCTION", "claim")
    monkeypatch.setenv("TABLE_PREFIX", PREFIX)
    back = threading.Event()

    def platform() -> None:
        until(lambda: stand.tasks.ends, "the job to end")
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: back.is_set() or stand.clock.advance(1), "the program to end")

    thread = threading.Thread(target=platform)
    thread.start()
    exec(compile(example(), str(README), "exec", dont_inherit=True), {"__name__": "example"})  # noqa: S102  # ours
    back.set()
    thread.join()


def test_a_newer_claims_page_is_kept(stand: Stand, pages: Any, monkeypatch: MonkeyPatch) -> None:
    """The late job fails."""
    newer = {"id": "t1/1", "text": "newer", "fence": 2}
    pages.put_item(Item=newer)
    stand.order()
    run_example(stand, monkeypatch)
    assert stand.tasks.failures[0][0] == "ConditionalCheckFailedException"
    assert pages.get_item(Key={"id": "t1/1"})["Item"] == newer


@pytest.fixture
def stand() -> Stand:
    return Stand()
