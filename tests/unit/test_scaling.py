"""docs/scaling.md: what each write of a job costs, and which limit of AWS is met at what load."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from jobplane.bench import _billing as billing
from jobplane.reference.documents import rows_of
from jobplane.trying.inprocess import InProcess
from jobplane_keys import item_size, lanes
from jobplane_keys.lanes import lane_rows, waiting_order
from jobplane_leases import (
    PAYLOAD_IN_ITEM_BYTES,
    Lease,
    RequestLease,
    enqueue_request,
    read_payload,
    store_payload,
)
from tests.unit.claims import NOW
from tests.unit.stack import OWNER, PREFIX, ROOT, Row, Stack

DOCUMENT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
TABLE = PREFIX + "requests"
ME = "0b9d5ae0-1111-2222-3333-444455556666"

# The load, of the whole stage; STARTS are those of one tenant with USERS.
RUNNING, STARTS, USERS, SOCKETS, JOBS_A_DAY = 10_000, 1_000, 10, 100_000, 1_000_000
REPORTS = RUNNING / 2  # a second: each running job reports every two seconds
PEAK = 10 * JOBS_A_DAY / 86_400  # starts a second, if the peak is ten times the average
PARTITION_WRITES, PARTITION_READS = 1_000, 3_000

AWS = "https://docs.aws.amazon.com/"
PARTITION = f"[DynamoDB]({AWS}amazondynamodb/latest/developerguide/bp-partition-key-design.html)"
TABLES = f"[DynamoDB]({AWS}amazondynamodb/latest/developerguide/ServiceQuotas.html)"
SOCKET = f"[API Gateway]({AWS}apigateway/latest/developerguide/limits.html)"
LAMBDA = f"[Lambda]({AWS}lambda/latest/dg/gettingstarted-limits.html)"
SCALING = f"[Lambda]({AWS}lambda/latest/dg/lambda-concurrency.html)"
POLLING = f"[Lambda]({AWS}lambda/latest/dg/services-sqs-scaling.html)"
QUEUE = f"[SQS]({AWS}AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html)"
FLOWS = f"[Step Functions]({AWS}step-functions/latest/dg/service-quotas.html)"

# Met by the load of the first page of the specification. Each has its remedy in docs/scaling.md.
MET = {"jobs that run at a time, on workers"}


class Writes:
    """The write units of one job's row: of the table, and of its indexes."""

    def __init__(self, stack: Stack, indexes: list[Row]) -> None:
        self.stack = stack
        self.indexes = indexes

    def seen(self) -> dict[str, Row]:
        """Each item of the table by its id, with the size of it and of its index entries."""
        found = {}
        for item in self.stack.dynamodb.scan(TableName=TABLE)["Items"]:
            entries = {}
            for index in self.indexes:
                keys = [part["AttributeName"] for part in index["KeySchema"]]
                if all(name in item for name in keys):
                    shown = {"owner", "request_id", *keys}
                    shown |= {*index["Projection"].get("NonKeyAttributes", ())}
                    part = {name: item[name] for name in sorted(shown & item.keys())}
                    key = json.dumps([item[name] for name in keys])
                    size, content = item_size(part), json.dumps(part)
                    entries[index["IndexName"]] = {"bytes": size, "key": key, "content": content}
            found[item["request_id"]["S"]] = {"bytes": item_size(item), "entries": entries}
        return found

    def of(self, write: Callable[[], Any]) -> str:
        """`table + indexes` of what a call writes."""
        before = self.seen()
        write()
        none: Row = {"bytes": 0, "entries": {}}
        table = indexes = 0
        for name, after in self.seen().items():
            old = before.get(name, none)
            if old == after and name != "job":
                continue
            units = billing.write_units(old["bytes"], after["bytes"])
            table += units
            whole = {"before": old, "after": after}
            indexes += billing.units_of_write(whole, in_transaction=False) - units
        return f"{table} + {indexes}"


@pytest.fixture(scope="module")
def prod() -> Any:
    with InProcess(stage="prod") as opened:
        yield opened


def units(stack: Stack, prod: InProcess, size: int, *, lane: bool) -> tuple[str, ...]:
    """What each write of a job costs whose payload has so many bytes."""
    tables = prod.template.of_type("AWS::DynamoDB::Table")
    writes = Writes(stack, tables["RequestsTable"]["GlobalSecondaryIndexes"])
    text = json.dumps({"a": "x" * (size - 10)}, separators=(",", ":"))
    objects: dict[str, bytes] = {}
    job = RequestLease(stack.dynamodb, TABLE, OWNER, "job")
    order = {"lane": "tenant#acme", "lane_limit": 10,
             "waiting_order": waiting_order("normal", "2026-11-22T10:15:30.250Z")}  # fmt: skip

    def enqueue() -> None:
        key = (OWNER, "job")
        place = store_payload(stack.dynamodb, TABLE, key, text, NOW, objects.__setitem__)
        row = {"owner": OWNER, "request_id": "job", "tenant_id": "acme", "action": "transcribe",
               "connection_id": "L0SM9cOFvHcCIhw=", **place, "metadata": {}, "max_attempts": 4,
               "on_disconnect": "detach", **(order if lane else {})}  # fmt: skip
        enqueue_request(stack.dynamodb, TABLE, row, NOW)
        assert read_payload(stack.dynamodb, TABLE, row, objects.__getitem__) == text

    progress = {"seq": 1, "percentage": 33.33, "message": "Step 1 of 3", "at": "x" * 24}
    step = {"steps": [{"name": "one", "result": "1"}], "step_count": 1}
    end = {"status": "COMPLETED", "seq": 2, "result": "{}"}
    lease, later = Lease(ME, int(NOW) + 120), Lease(ME, int(NOW) + 180)
    found = [
        writes.of(enqueue),
        writes.of(lambda: job.take(lease, NOW)),
        writes.of(lambda: job.renew(lease, NOW, progress, extend=False)),
        writes.of(lambda: job.renew(later, NOW)),
        writes.of(lambda: job.store_steps(ME, step, NOW)),
        writes.of(lambda: job.finish(ME, end, NOW)),
    ]
    if objects:
        found[0] += ", 1 PUT"
    return tuple(found)


def test_the_documented_units_of_a_jobs_writes_are_right(stack: Stack, prod: InProcess) -> None:
    expected = []
    for size, shown in ((200, "0.2 KB"), (2_000, "2 KB"), (96_000, "96 KB")):
        for lane in (False, True):
            for item in stack.dynamodb.scan(TableName=TABLE)["Items"]:
                key = {name: item[name] for name in ("owner", "request_id")}
                stack.dynamodb.delete_item(TableName=TABLE, Key=key)
            lanes_note = "with a lane" if lane else ""
            made = units(stack, prod, size, lane=lane)
            assert made[2] == "1 + 0", "a progress write is one unit, and changes no index"
            expected.append((f"{shown} {lanes_note}".strip(), *made))
    assert rows_of(DOCUMENT, "writes") == expected


@pytest.mark.parametrize("region", billing.regions())
def test_an_item_is_cheaper_than_an_object_up_to_its_bound(region: str) -> None:
    prices = billing.Prices.read(region).of
    names = 168  # of its key and its other attributes

    def item(size: int) -> Decimal:
        whole = size + names
        reads = billing.read_units(whole, consistent=True)
        return billing.write_units(0, whole) * prices["write_units"] + reads * prices["read_units"]

    an_object = prices["puts"] + prices["gets"]
    assert item(PAYLOAD_IN_ITEM_BYTES) < an_object < item(PAYLOAD_IN_ITEM_BYTES + 1200)


class Limit(NamedTuple):
    """A limit of AWS, or of what the stage has of it, and the load on it."""

    what: str
    most: float
    load: float
    source: str

    @property
    def row(self) -> tuple[str, ...]:
        times = self.most / self.load
        met = f"{times:.1f} times the load" if times >= 1 else f"**{times:.2f} of the load**"
        return (self.what, f"{self.most:,.0f}", f"{self.load:,.0f}", met, self.source)


def limits(prod: InProcess) -> list[Limit]:
    """At the load above, with the parameters of `prod`."""
    stage: Mapping[str, Any] = prod.template.parameters
    shards, renewals = stage["inFlightShards"], 2 * RUNNING / (stage["leaseSeconds"] / 2)
    (stream,) = [
        event["stream"] for event in prod.function("dispatch").config["events"] if "stream" in event
    ]
    calls = stream["batchSize"] / prod.load("dispatch").MESSAGES_PER_CALL
    lane = len(lane_rows(lanes.MAX_LANE_SLOTS))
    posts = REPORTS + STARTS
    return [
        Limit("index `in-flight`: writes of a partition", PARTITION_WRITES,
              (4 * STARTS + renewals) / shards, PARTITION),
        Limit("index `by-tenant`: a tenant's starts a second",
              PARTITION_WRITES * stage["tenantShards"] / 3, STARTS, PARTITION),
        Limit("table `requests`: writes to one user's rows", PARTITION_WRITES,
              (3 * STARTS + REPORTS) / USERS, PARTITION),
        Limit("index `by-connection`: writes of one connection", PARTITION_WRITES,
              3 * STARTS / USERS, PARTITION),
        Limit("index `waiting`: writes of a partition of one lane", PARTITION_WRITES,
              2 * STARTS / lanes.WAITING_SHARDS, PARTITION),
        Limit("table `lanes`: writes to a row of one lane", PARTITION_WRITES,
              2 * STARTS / lane, PARTITION),
        Limit("table `lanes`: reads of a row of one lane", PARTITION_READS, 2 * STARTS, PARTITION),
        Limit("table `requests`: writes a second, without an increase", 40_000,
              3 * STARTS + REPORTS, TABLES),
        Limit("stream of `requests`: changes a second that four shards deliver",
              4 * stream["batchSize"] / (calls * 0.015), STARTS, PARTITION),
        Limit("queue `jobs`: messages in flight", 120_000, RUNNING, QUEUE),
        Limit("jobs that run at a time, on workers",
              stage["maximumConcurrency"] * stage["jobsPerInvocation"], RUNNING, POLLING),
        Limit("executions at a time of router, in an account with 1,000", 1_000,
              STARTS * 0.05, LAMBDA),
        Limit("new executions of a function in ten seconds", 1_000, STARTS * 0.05, SCALING),
        Limit("messages to and from sockets a second", 10_000,
              posts + STARTS + SOCKETS / 540, SOCKET),
        Limit("new connections a second, all sockets every two hours", 500,
              SOCKETS / 7200, SOCKET),
        Limit("new executions of the job flow a second, all jobs a day at ten times the average",
              150, PEAK, FLOWS),
    ]  # fmt: skip


def test_the_documented_limits_are_met_where_the_page_says(prod: InProcess) -> None:
    found = limits(prod)
    assert {limit.what for limit in found if limit.load >= limit.most} == MET
    assert rows_of(DOCUMENT, "scaling") == [
        limit.row for limit in sorted(found, key=lambda limit: limit.most / limit.load)
    ]


def test_the_page_names_a_remedy_for_each_limit_that_is_met() -> None:
    assert all(f"**{what}**" in DOCUMENT for what in MET)
