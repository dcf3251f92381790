"""The runbook of docs/observing.md: its commands as written show and correct faults on a stage."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.deployed import Deployed, unique, until
from tests.e2e.documented import ROOT, Terminal, blocks
from tests.e2e.platform_records import (
    invocation,
    oldest_sent,
    visible_messages,
    with_time_limit,
    without_concurrency,
    without_delivery,
)
from tests.e2e.test_alarms import (
    DEAD_LETTERS,
    HARMLESS,
    TOO_SHORT_TO_COUNT,
    scheduled,
    spoil_counters,
    stuck_file,
)
from tests.e2e.test_flow import Flow
from tests.faults.network import between

pytestmark = pytest.mark.e2e

DOCUMENT = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: blocks(section)
    for section in DOCUMENT.partition("## Alarms")[2].partition("\n## ")[0].split("\n### ")[1:]
}

type Shell = Callable[..., str]


@pytest.fixture
def shell(deployed: Deployed, tmp_path: Path) -> Shell:
    """Runs blocks of a section in one shell; their output."""
    terminal = Terminal.on(deployed.stage, tmp_path)

    def run(section: str, *numbers: int, name: str = "claim") -> str:
        return terminal.run(*(SECTIONS[section][number] for number in numbers), name=name)

    return run


def test_function_errors(deployed: Deployed, shell: Shell) -> None:
    """The log has the exception, and `list` shows whether other code would be deployed."""
    assert invocation(deployed, "claim", {}).error == "ValidationError"
    shown = shell("Function errors", 0)
    assert "invocation failed" in shown
    assert "ValidationError" in shown
    assert f"{deployed.stage.name} is up to date" in shell("Function errors", 1)


def test_error_rates(deployed: Deployed, shell: Shell) -> None:
    """Errors are counted by class, and `list` shows whether other code is deployed."""
    for _ in range(2):
        assert invocation(deployed, "claim", {}).error == "ValidationError"
    assert re.search(r"\d+  error=ValidationError", shell("Error rates", 0))


def test_answered_errors(deployed: Deployed, shell: Shell) -> None:
    """The log has the failed look-up with its cause."""
    with between(deployed, "status") as network:
        network.trouble, network.every = "server-error", 1
        assert deployed.invoke("status", HARMLESS["status"])["statusCode"] == 500
    shown = shell("Answered errors", 0, name="status")
    assert "status check failed" in shown
    assert f"{deployed.stage.name} is up to date" in shell("Answered errors", 1, name="status")


def test_latencies(deployed: Deployed, shell: Shell) -> None:
    """The longest calls, the time limit and the memory are shown."""
    invocation(deployed, "claim", {})
    shown = shell("Latencies", 0)
    times = [int(found) for found in re.findall(r"Duration: (\d+) ms", shown)]
    assert times == sorted(times, reverse=True)
    assert times
    assert f"{deployed.stage.name} is up to date" in shell("Latencies", 1)


async def test_table_throttles(deployed: Deployed, shell: Shell) -> None:
    """The table's settings and the busiest tenants are shown, and the table is warmed up."""
    async with deployed.socket(unique("user")) as socket:
        await socket.ask({"action": "echo", "payload": {}})
    shown = shell("Table throttles", 0)
    assert "PAY_PER_REQUEST" in shown
    assert re.search(r"\d+ tenant_id.+acme", shown)
    assert "ENABLING" in shell("Table throttles", 0, 1)


def test_throttles(deployed: Deployed, shell: Shell) -> None:
    """A limit of concurrency is shown and removed; reserved concurrency is set."""
    name = deployed.info["functions"]["claim"]
    with without_concurrency(deployed, "claim"):
        assert invocation(deployed, "claim", {}).error == "TooManyRequestsException"
        shown = shell("Throttles", 0)
        assert '"ReservedConcurrentExecutions": 0' in shown
        assert "ConcurrentExecutions" in shown
        shell("Throttles", 1)
        now = deployed.functions.get_function_concurrency(FunctionName=name)
        assert now["ReservedConcurrentExecutions"] == 5
        assert invocation(deployed, "claim", {}).error == "ValidationError"


def test_durations(deployed: Deployed, shell: Shell) -> None:
    """The platform's reports, the time limit and the memory are shown."""
    invocation(deployed, "claim", {})
    shown = shell("Durations", 0)
    assert "Duration: " in shown
    name = deployed.info["functions"]["claim"]
    limit = deployed.functions.get_function_configuration(FunctionName=name)["Timeout"]
    assert str(limit) in shown.splitlines()[-3]
    assert f"{deployed.stage.name} is up to date" in shell("Durations", 1)


async def test_streams(deployed: Deployed, shell: Shell) -> None:
    """A disabled mapping is shown and enabled, and the request ends."""
    request_id = unique("req")
    source = f"/{deployed.stage.names.of('requests')}/"
    async with deployed.socket(unique("user")) as socket:
        with without_delivery(deployed, "dispatch", source):
            asked = {"id": request_id, "action": "delay", "payload": {"seconds": 0, "steps": 1}}
            assert (await socket.ask(asked))["type"] == "acknowledgment"
            assert "Disabled" in shell("Streams", 0)
            assert "swept" in shell("Streams", 1)
            assert (await socket.end_of(request_id))["type"] == "complete"
            assert "Enabled" in shell("Streams", 0)


async def test_late_messages(deployed: Deployed, shell: Shell) -> None:
    """A waiting message is shown, and processed after its mapping was enabled."""
    with without_delivery(deployed, "deliver-webhook", f":{deployed.stage.names.prefix}"):
        body = json.dumps({"assembly_id": unique("gone")})
        deployed.sqs.send_message(QueueUrl=deployed.info["queues"]["webhooks"], MessageBody=body)
        shown = shell("Late messages", 0)
        assert '"ApproximateNumberOfMessages": "1"' in shown
        assert "Disabled" in shown
        shell("Late messages", 1)
        await until(lambda: oldest_sent(deployed, "webhooks") is None, "an empty queue")


async def test_dead_letters(deployed: Deployed, shell: Shell) -> None:
    """Messages are shown and stay; an execution's end is passed on; a queue is purged."""
    for queue, provoke in DEAD_LETTERS.items():
        deployed.sqs.purge_queue(QueueUrl=deployed.info["queues"][queue])
        provoke(deployed)
    for queue in DEAD_LETTERS:
        await until(partial(visible_messages, deployed, queue), f"letters in {queue}")
    shown = shell("Dead letters", 0)
    for text in (
        "no-json",
        "record can't be parsed",
        "heartbeat_lost",
        "execution:job-flow:unknown",
    ):
        assert text in shown
    shell("Dead letters", 1)
    assert "superseded" in shell("Dead letters", 2, 3)
    left = {queue: visible_messages(deployed, queue) for queue in DEAD_LETTERS}
    assert left == dict.fromkeys(DEAD_LETTERS, 1) | {"execution-events-dlq": 0}


async def test_executions(deployed: Deployed, shell: Shell) -> None:
    """The failure is shown with its cause; its message is sent again, and that job stopped."""
    flow = Flow(deployed)
    failed = flow.start("message")
    flow.fail(await flow.receive(), "WorkerBroke", note="out of memory")
    await flow.end_of(failed)
    shown = shell("Executions", 0)
    assert failed.rpartition(":")[2] in shown
    assert "WorkerBroke" in shown
    assert "out of memory" in shown
    before = {each["executionArn"] for each in executions(flow)}
    shell("Executions", 0, 1, 2)
    (again,) = [each for each in executions(flow) if each["executionArn"] not in before]
    assert again["status"] == "ABORTED"


def executions(flow: Flow) -> list[dict[str, Any]]:
    """The newest executions."""
    found: list[dict[str, Any]] = flow.states.list_executions(stateMachineArn=flow.arn)[
        "executions"
    ]
    return found


def test_http_errors(deployed: Deployed, shell: Shell) -> None:
    """The log of status has the cause, and an invoke shows whether it works."""
    deployed.kill_workers("status")
    invocation(deployed, "status", {"Records": []})
    shown = shell("HTTP errors", 0)
    assert "invocation failed" in shown
    assert "Assembly not found" in shown


async def test_socket_errors(deployed: Deployed, shell: Shell) -> None:
    """Refused tokens, the router's failures and its permission are shown; a token is minted."""
    with pytest.raises(InvalidStatus):
        async with connect(deployed.socket_url(token="forged")):
            pass
    invocation(deployed, "router", {})
    shown = shell("Socket errors", 0)
    assert "token refused" in shown
    assert "invocation failed" in shown
    assert "apigateway.amazonaws.com" in shown
    made = shell("Socket errors", 1).split()[-1]
    async with deployed.socket("operator", token=made) as socket:
        assert (await socket.ask({"action": "ping"}))["type"] == "pong"


def test_orphans(deployed: Deployed, shell: Shell) -> None:
    """A stuck file is found; the first command is a dry run, the second one resets it."""
    with stuck_file(deployed) as key:
        shown = shell("Orphans", 0)
        assert "stuck_in_processing" in shown
        assert key in shown
        assert key in shell("Orphans", 1)
        assert key in shell("Orphans", 0)
        assert key in shell("Orphans", 2)
        assert key not in shell("Orphans", 0)


def test_counters(deployed: Deployed, shell: Shell) -> None:
    """A count finds and corrects wrong counters, and the log has the drift."""
    spoil_counters(deployed)
    invocation(deployed, "state-manager", {"operation": "get_stats", "exact": True})
    shown = shell("Counters", 0)
    assert "counters corrected" in shown
    assert "reconciled" in shown


def test_unchecked_counters(deployed: Deployed, shell: Shell) -> None:
    """A weekly count that was cut is shown, and completed part by part."""
    with with_time_limit(deployed, "state-manager", TOO_SHORT_TO_COUNT):
        scheduled(deployed, operation="get_stats", exact=True)
        assert "truncated=true" in shell("Unchecked counters", 0)
        shown = shell("Unchecked counters", 1)
    assert shown.count('"StatusCode": 200') > 1
    assert "reconciled" in shown


def test_every_section_of_the_runbook_has_a_test() -> None:
    """Named after it."""
    named = {f"test_{title.lower().replace(' ', '_')}" for title in SECTIONS}
    assert named <= globals().keys()
