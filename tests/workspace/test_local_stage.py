"""The local stage: `up`, and what the launcher adds to the emulator."""

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from websockets.sync.client import connect

from jobplane.bench._crowd import gathered
from jobplane.bench._remains import rows_of
from jobplane.bench._usage import sampled
from jobplane.deploy.templates import webhook_parameters
from jobplane.stage import emulator, log_lines
from jobplane.stage.gateway import RECEIVED, WEBHOOKS
from jobplane.stage.stages import Stage, State
from jobplane.tree.repository import Repository
from jobplane_client import mint_token
from jobplane_keys import to_item
from tests.e2e.deployed import client_once, unique, until
from tests.workspace.copies import jobplane, printed

pytestmark = pytest.mark.e2e

PROBE = """
import importlib.util, json, os, time
class LeaseLostError(Exception): pass
def read(record):
    image = record["dynamodb"]["NewImage"]
    return image["id"]["S"], image.get("does", {}).get("S")
def consume(records):
    given = [(*read(record), record["dynamodb"]["SequenceNumber"]) for record in records]
    table = records[0]["dynamodb"]["NewImage"]["table"]["S"]
    print(json.dumps({"table": table, "given": [id for id, _, _ in given]}))
    if any(does == "raise" for _, does, _ in given):
        raise ValueError("not with this one")
    for _, does, _ in given:
        while does and does.startswith("/") and not os.path.exists(does):
            time.sleep(0.1)
    print(json.dumps({"table": table, "done": [id for id, _, _ in given]}))
    failed = [number for _, does, number in given if does == "fail"]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}
def handler(event, context):
    if "Records" in event:
        return consume(event["Records"])
    for number in range(event.get("lines", 0)):
        print(event["run"], number)
    if event.get("raise"):
        raise LeaseLostError("another worker has it")
    print("probed")
    return {
        "botocore": importlib.util.find_spec("botocore") is not None,
        "hypercorn": importlib.util.find_spec("hypercorn") is not None,
        "variables": sorted(os.environ),
        "context": [type(context).__name__, context.get_remaining_time_in_millis()],
    }
"""


@pytest.fixture(scope="module")
def stage(stage_name: str) -> Stage:
    return Stage(Repository.here(), stage_name)


@pytest.fixture(scope="module")
def probe(stage: Stage) -> Iterator[str]:
    """A function of one file without dependencies, in addition to the stack's."""
    name = f"probe-{stage.name}"
    create_probe(stage, name)
    yield name
    stage.client("lambda").delete_function(FunctionName=name)


def create_probe(stage: Stage, name: str) -> None:
    client = stage.client("lambda")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("probe.py", PROBE)
    role = client.get_function_configuration(FunctionName=stage.names.of("connect"))["Role"]
    code = {"Role": role, "Code": {"ZipFile": archive.getvalue()}}
    client.create_function(FunctionName=name, Runtime="python3.13", Handler="probe.handler", **code)


def invoke(stage: Stage, name: str, event: dict[str, Any]) -> dict[str, Any]:
    response = stage.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    payload: dict[str, Any] = json.loads(response["Payload"].read())
    return payload


@pytest.fixture(scope="module")
def state(stage: Stage) -> State:
    state = stage.read_state()
    assert state is not None
    return state


def test_a_second_up_deploys_nothing(stage: Stage, state: State) -> None:
    """`up --json` prints one object; a second one keeps the emulator."""
    shown = printed(jobplane(stage.repository, "up", "--stage", stage.name, "--json"))
    assert {"endpoint_url", "websocket_url", "http_url", "management_url"} <= set(shown)
    assert list(shown["state_machines"].values()) == [shown["state_machine_arn"]]
    assert shown["tables"]["connections"] == stage.names.of("connections")
    after = stage.read_state()
    assert after is not None
    assert (state.pid, state.port) == (after.pid, after.port)


def test_the_emulator_listens_on_loopback_only(state: State) -> None:
    assert emulator.is_running(state)
    emulator._refuse_exposed(state)


def test_a_function_can_not_import_the_emulators_packages(stage: Stage, probe: str) -> None:
    """Nor does it get the developer's environment."""
    seen = invoke(stage, probe, {})
    assert seen["botocore"] is False
    assert seen["hypercorn"] is False
    assert not {"VIRTUAL_ENV", "UV", "AWS_PROFILE", "USER"} & set(seen["variables"])


@pytest.mark.parametrize(
    "arguments",
    [("up", "--json"), ("info",), ("invoke", "connect", "accepted"), ("logs", "connect")],
    ids=lambda arguments: arguments[0],
)
def test_proxy_variables_are_ignored_for_a_local_stage(
    stage: Stage, arguments: tuple[str, ...]
) -> None:
    proxies = {f"{scheme}_PROXY": "http://127.0.0.1:1" for scheme in ("HTTP", "HTTPS", "ALL")}
    direct = {"NO_PROXY": "", "no_proxy": ""}
    done = jobplane(stage.repository, *arguments, "--stage", stage.name, **proxies, **direct)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_waits_for_a_long_invocation_without_repeating_it(stage: Stage) -> None:
    config = stage.invoker().meta.config
    assert config.read_timeout > 900
    assert config.retries["total_max_attempts"] == 1


def test_an_errors_class_is_the_answers_errorType(stage: Stage, probe: str) -> None:
    """Retry and Catch match it."""
    answer = invoke(stage, probe, {"raise": True})
    assert answer["errorType"] == "LeaseLostError"
    assert answer["errorMessage"] == "another worker has it"


def test_a_failed_invocation_leaves_its_whole_log(stage: Stage, probe: str) -> None:
    """Each of its lines, once, and nothing else of the worker."""
    for run in range(3):
        invoke(stage, probe, {"run": f"run-{run}", "lines": 300, "raise": True})
    pages = stage.client("logs").get_paginator("filter_log_events")
    found = [
        event["message"].strip()
        for page in pages.paginate(logGroupName=f"/aws/lambda/{probe}")
        for event in page["events"]
    ]
    lines = [line for line in found if line.startswith("run-")]
    assert sorted(lines) == sorted(f"run-{run} {line}" for run in range(3) for line in range(300))
    assert not [line for line in found if "\x1e" in line]


def test_an_invocations_context_has_the_remaining_time(stage: Stage, probe: str) -> None:
    """It is an object, not a new class for each invocation."""
    name, milliseconds = invoke(stage, probe, {})["context"]
    assert name == "SimpleNamespace"
    assert 0 < milliseconds <= 3000


@pytest.mark.timeout(120)
async def test_64_sockets_that_close_at_once_are_all_cleaned_up(stage: Stage, state: State) -> None:
    sockets, tenant = 90, unique("crowd")
    users = [f"user-{number}" for number in range(sockets)]
    async with gathered(users, lambda user: socket_url(state, user, tenant), 16) as crowd:
        await crowd.each(lambda member: member.open(), lambda _user: None)
        assert len(rows_of(stage, "connections", tenant)) == sockets
        with sampled(state.pid) as usage:
            await asyncio.gather(*(member.close() for member in crowd.members))
            while rows_of(stage, "connections", tenant):
                await asyncio.sleep(0.2)
    disconnect = stage.names.of("disconnect")
    assert 1 < max(len(sample.workers.get(disconnect, {})) for sample in usage.samples) <= 64


def socket_url(state: State, user: str, tenant: str) -> str:
    token = mint_token(state.jwt_secret, user=user, tenant=tenant)
    return f"{state.description['websocket_url']}?token={token}"


def test_the_log_of_a_websocket_routes_function_is_stored(stage: Stage, state: State) -> None:
    with connect(socket_url(state, "log-reader", "acme")):
        pass
    functions = stage.repository.select(("connect",))
    lines = [event.document() or {} for event in log_lines.events(stage, functions, since=0)]
    assert [line for line in lines if line.get("user_id") == "log-reader"]


@pytest.fixture
def three_kilobytes(stage: Stage) -> Iterator[str]:
    """A table with ten items of 3 KB in one partition, and an index of them."""
    client, name = stage.client("dynamodb"), f"units-{stage.name}"
    owner, item, kind = ({"AttributeName": key} for key in ("owner", "id", "kind"))
    by_kind = {"IndexName": "by-kind", "Projection": {"ProjectionType": "KEYS_ONLY"}}
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[key | {"AttributeType": "S"} for key in (owner, item, kind)],
        KeySchema=[owner | {"KeyType": "HASH"}, item | {"KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[by_kind | {"KeySchema": [kind | {"KeyType": "HASH"}]}],
    )
    for number in range(10):
        values = {"owner": "o", "id": str(number), "kind": "k", "text": "x" * 3000}
        client.put_item(TableName=name, Item=to_item(values))
    yield name
    client.delete_table(TableName=name)


def test_reads_consume_a_unit_for_4_kb(stage: Stage, three_kilobytes: str) -> None:
    """Half of it without consistency; of an index by its content."""
    client, table = stage.client("dynamodb"), three_kilobytes
    total: dict[str, Any] = {"TableName": table, "ReturnConsumedCapacity": "TOTAL"}
    owner: dict[str, Any] = {
        "KeyConditionExpression": "#key = :key",
        "ExpressionAttributeNames": {"#key": "owner"},
        "ExpressionAttributeValues": to_item({":key": "o"}),
    }
    names, values = {"#key": "kind"}, to_item({":key": "k"})
    named = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    kind = {**owner, "IndexName": "by-kind", **named}
    keys = [to_item({"owner": "o", "id": str(number)}) for number in range(3)]
    reads = {
        "a page": client.query(**total, **owner),
        "a consistent page": client.query(**total, **owner, ConsistentRead=True),
        "a count": client.query(**total, **owner, Select="COUNT"),
        "a short page": client.query(**total, **owner, Limit=2),
        "keys of an index": client.query(**total, **kind),
        "an item": client.get_item(**total, Key=keys[0], ConsistentRead=True),
        "a scan": client.scan(**total),
    }
    units = {name: answer["ConsumedCapacity"]["CapacityUnits"] for name, answer in reads.items()}
    assert units == {
        "a page": 4.0, "a consistent page": 8.0, "a count": 4.0, "a short page": 1.0,
        "keys of an index": 0.5, "an item": 1.0, "a scan": 4.0,
    }  # fmt: skip
    batch = client.batch_get_item(
        RequestItems={table: {"Keys": keys}}, ReturnConsumedCapacity="TOTAL"
    )
    assert [part["CapacityUnits"] for part in batch["ConsumedCapacity"]] == [1.5]


@dataclass(frozen=True)
class Consumed:
    """A stream that the probe reads: two lanes, up to ten records, three attempts."""

    stage: Stage
    table: str
    function: str
    failures: str

    def put(self, *ids: str, does: str | None = None) -> None:
        for item_id in ids:
            item = {"id": item_id, "table": self.table} | ({"does": does} if does else {})
            self.stage.client("dynamodb").put_item(TableName=self.table, Item=to_item(item))

    def lines(self, kind: str) -> list[list[str]]:
        """The batches that the probe received or processed, for this table."""
        found = self.stage.client("logs").filter_log_events(
            logGroupName=f"/aws/lambda/{self.function}", filterPattern=f'"{self.table}"'
        )["events"]
        said = [json.loads(event["message"]) for event in found]
        return [line[kind] for line in said if kind in line]

    def discarded(self) -> dict[str, Any] | None:
        """The mapping's messages about records that were given up."""
        client = self.stage.client("sqs")
        found = client.receive_message(QueueUrl=self.failures, WaitTimeSeconds=1)
        messages = found.get("Messages", [])
        return json.loads(messages[0]["Body"]) if messages else None


@pytest.fixture
def consumed(stage: Stage, probe: str) -> Iterator[Consumed]:
    tables, queues, functions = (stage.client(of) for of in ("dynamodb", "sqs", "lambda"))
    name = unique(f"consumed-{stage.name}")
    table = tables.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]
    url = queues.create_queue(QueueName=name)["QueueUrl"]
    described = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    mapping = functions.create_event_source_mapping(
        FunctionName=probe,
        EventSourceArn=table["LatestStreamArn"],
        StartingPosition="TRIM_HORIZON",
        BatchSize=10,
        ParallelizationFactor=2,
        MaximumRetryAttempts=2,
        BisectBatchOnFunctionError=True,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        DestinationConfig={"OnFailure": {"Destination": described["Attributes"]["QueueArn"]}},
    )
    yield Consumed(stage, name, probe, url)
    functions.delete_event_source_mapping(UUID=mapping["UUID"])
    tables.delete_table(TableName=name)
    queues.delete_queue(QueueUrl=url)


async def test_a_failed_record_is_retried_and_then_given_up(consumed: Consumed) -> None:
    """The stream goes on."""
    consumed.put("bad", does="fail")
    told = await until(consumed.discarded, "word of a discarded batch", patience=60)
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["DDBStreamBatchInfo"]["batchSize"] == 1
    assert consumed.lines("given") == [["bad"]] * 3
    consumed.put("good")
    await until(lambda: ["good"] in consumed.lines("done"), "the next record")


async def test_a_stream_goes_on_after_its_function_was_replaced(consumed: Consumed) -> None:
    """Records that can't be delivered meanwhile are given up."""
    consumed.put("bad", does="fail")
    await until(lambda: consumed.lines("given"), "the first attempt")
    consumed.stage.client("lambda").delete_function(FunctionName=consumed.function)
    try:
        told = await until(consumed.discarded, "word of a discarded batch", patience=60)
    finally:
        create_probe(consumed.stage, consumed.function)
    assert told["requestContext"]["functionArn"].endswith(f":{consumed.function}")
    consumed.put("bad")
    await until(lambda: ["bad"] in consumed.lines("done"), "the same lane's next record")


async def test_a_failed_batch_is_bisected(consumed: Consumed) -> None:
    """Records beside the failed one are processed."""
    ids = [str(number) for number in range(8)]
    consumed.put(*ids[:4])
    consumed.put("bad", does="raise")
    consumed.put(*ids[4:])
    await until(consumed.discarded, "word of a discarded batch", patience=60)

    def done() -> bool:
        return sorted(sum(consumed.lines("done"), [])) == ids

    await until(done, "every other record, once")
    assert consumed.lines("given").count(["bad"]) == 3


async def test_a_slow_batch_delays_only_its_lane(consumed: Consumed, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    consumed.put("slow", does=str(gate))
    await until(lambda: ["slow"] in consumed.lines("given"), "the slow batch")
    consumed.put(*(str(number) for number in range(8)))
    await until(lambda: consumed.lines("done"), "a batch of the other lane")
    assert ["slow"] not in consumed.lines("done")
    gate.touch()
    await until(lambda: len(sum(consumed.lines("done"), [])) == 9, "all batches")


def test_an_unknown_access_key_is_refused(stage: Stage) -> None:
    keys = {"AccessKeyId": "unknown", "SecretAccessKey": "nothing"}
    client = client_once("dynamodb", f"{stage.endpoint_url}", "eu-west-1", keys)
    with pytest.raises(ClientError, match="UnrecognizedClient"):
        client.list_tables()


def test_the_stage_has_every_parameter_of_the_templates(stage: Stage) -> None:
    for names in webhook_parameters(stage.repository, stage.name).values():
        for name in names:
            assert stage.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def test_the_stages_receiver_appends_webhooks_to_a_file(stage: Stage) -> None:
    sent = {"assembly_id": unique("received")}
    answer = httpx.post(
        f"{stage.endpoint_url}{WEBHOOKS}", json=sent, headers={"webhook-id": "m"}, trust_env=False
    )
    assert answer.status_code == 204
    lines = [json.loads(line) for line in (stage.directory / RECEIVED).read_text().splitlines()]
    (line,) = [line for line in lines if sent["assembly_id"] in line["body"]]
    assert line["headers"]["webhook-id"] == "m"
