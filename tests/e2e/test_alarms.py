"""Every alarm goes off by its definition, after its cause was produced on the stage.

The points are the platform's own record of what happened, or real log lines. No test waits for
minutes: where a definition wants a condition to last, its record is repeated so much earlier, and
where it wants an age, the measurement's clock is set forward. Each test says which.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from jobplane.rules._steps import state_machines
from jobplane.tree.repository import Repository
from jobplane.tree.resolved import ResolvedStack
from jobplane_keys import iso_time, owner_key, to_item
from jobplane_keys.tracking import COUNTERS
from jobplane_leases.callbacks import new_token
from tests.alarm_states import MINUTE, Alarm, Metric, Point, State
from tests.e2e.deployed import Deployed, Message, client_once, unique, until
from tests.e2e.platform_records import (
    defined_alarms,
    emitted,
    ends,
    invocation,
    logged,
    newest_record,
    oldest_sent,
    published,
    scheduled_alarm,
    stalled,
    visible_messages,
    with_time_limit,
    without_concurrency,
    without_delivery,
)
from tests.e2e.test_flow import Flow
from tests.faults.network import between, stretch

pytestmark = pytest.mark.e2e

REPOSITORY = Repository.here()
FUNCTIONS = [function.name for function in REPOSITORY.functions()]
IN_FLOWS = {name for machine in state_machines(REPOSITORY) for name in machine.called}
# Functions with waiting callers: clients of the APIs, and state machines.
CALLED = [
    function.name
    for function in REPOSITORY.functions()
    if function.name in IN_FLOWS
    or any(
        "httpApi" in event or event.get("websocket", {}).get("route") in {"$connect", "$default"}
        for event in function.config.get("events", ())
    )
]
STACK = ResolvedStack(REPOSITORY)
TABLES = [
    STACK.short_name(table["TableName"]) for table in STACK.of_type("AWS::DynamoDB::Table").values()
]
UNKNOWN_WORKSPACE = "unknown#unknown"
UNKNOWN_CONNECTION = {"requestContext": {"connectionId": "unknown"}}
UNKNOWN_EXECUTION = "arn:aws:states:eu-west-1:000000000000:execution:job-flow:unknown"
# An invocation of each function that changes no data of other tests.
HARMLESS: dict[str, Any] = {
    "check-active-job": {"projectUserId": UNKNOWN_WORKSPACE, "threadId": "t"},
    "claim": {"operation": "renew", "projectUserId": UNKNOWN_WORKSPACE, "claimId": "c", "fence": 1},
    "connect": UNKNOWN_CONNECTION,
    "count-files": {"Records": []},
    "deliver-webhook": {"assembly_id": "nothing"},
    "disconnect": UNKNOWN_CONNECTION,
    "dispatch": {"Records": []},
    "handle-timeout": {
        "detail-type": "Step Functions Execution Status Change",
        "detail": {"executionArn": UNKNOWN_EXECUTION, "status": "SUCCEEDED"},
    },
    "intake": {"detail": {"object": {"key": "inbox/gone"}}},
    "processor": {"Records": []},
    "record-interruption": {
        "projectUserId": UNKNOWN_WORKSPACE,
        "messageId": "m",
        "interruptedClaimId": "c",
        "newThreadId": "t",
        "interruptingMessageId": "n",
    },
    "report-job": {"operation": "settle", "executionArn": UNKNOWN_EXECUTION, "input": "{}"},
    "jobs": {
        "routeKey": "POST /callbacks/{token}",
        "pathParameters": {"token": new_token("alarms#unknown", "unknown")[0]},
        "body": '{"result": 1}',
    },
    "router": UNKNOWN_CONNECTION,
    "send-interrupt": {
        "projectUserId": UNKNOWN_WORKSPACE,
        "target": {"claimId": "c", "fence": 1, "threadId": "t", "messageId": "m", "expiresAt": 1},
        "newThreadId": "n",
        "interruptingMessageId": "n",
    },
    "state-manager": {"operation": "get_stats"},
    "sweep-claims": {"sweep": "claims"},
    "status": {"assemblyId": "nothing", "userId": "unknown"},
    "upload-parts": {"routeKey": "GET /s3/upload", "headers": {}},
}
TIME_LIMIT = 2
# Seconds: a count has to leave so many to the stream that there is a part more, if not several.
TOO_SHORT_TO_COUNT = 23
# Whenever in the meantime an invocation begins, its limit is reached before.
BEYOND_LIMIT = 10 * TIME_LIMIT
QUARTER_OF_AN_HOUR = 900

FIRED: set[str] = set()
"""The alarms that the tests below have go off; tests/workspace/test_observability.py looks whether
one is missing.
"""

type Test = Callable[..., Any]


def fires(*names: str) -> Callable[[Test], Test]:
    """Note which alarms a test is about."""
    FIRED.update(names)
    return lambda test: test


@pytest.fixture(scope="module")
def alarms(deployed: Deployed) -> dict[str, Alarm]:
    """The alarms as they are deployed, by their names without the stage's prefix."""
    return defined_alarms(deployed)


def state_after(alarm: Alarm, points: list[Point], before: State = "OK") -> State:
    """The state in the minute of the newest point, with all points moved to that minute's end.

    CloudWatch's periods begin with full minutes: without that, what a test does within seconds lies
    in two of them whenever a minute ends meanwhile.
    """
    newest = max((point.at for point in points), default=time.time())
    moved = (newest // MINUTE + 1) * MINUTE - 1 - newest
    return alarm.state([point.moved(moved) for point in points], newest, before)


def repeated(points: list[Point], alarm: Alarm) -> list[Point]:
    """The same points in each of the periods that an alarm requires."""
    return [p.moved(-n * alarm.period) for n in range(alarm.periods) for p in points]


def with_limit(alarm: Alarm, before: int, now: int) -> Alarm:
    """An alarm on durations for another time limit, which its threshold is a part of."""
    return replace(alarm, threshold=alarm.threshold * now / before)


@dataclass(frozen=True)
class Stopped:
    """Functions that ran well once, and then were stopped at their time limit."""

    deployed: Deployed
    began: float
    well_at: dict[str, float]

    def points(self, function: str, alarm: Alarm) -> tuple[list[Point], list[Point]]:
        """The points of the good invocation, and of both."""
        points = published(self.deployed, alarm, self.began)
        well = [point for point in points if point.at <= self.well_at[function]]
        assert well
        return well, points


@pytest.fixture(scope="module")
def stopped(deployed: Deployed) -> Stopped:
    """Every function gets no processor time, as if it hung, under a limit of two seconds."""
    began = time.time()

    def hang(function: str) -> float:
        with with_time_limit(deployed, function, TIME_LIMIT):
            first = invocation(deployed, function, HARMLESS[function])
            assert first.error is None, (function, first.error)
            well = time.time()
            with stalled(deployed, function, BEYOND_LIMIT):
                second = invocation(deployed, function, HARMLESS[function])
        assert second.error == "Sandbox.Timedout", (function, second.error)
        return well

    with ThreadPoolExecutor(4) as pool:
        well_at = dict(zip(FUNCTIONS, pool.map(hang, FUNCTIONS), strict=True))
    return Stopped(deployed, began, well_at)


@fires(*(f"{function}-{kind}" for function in FUNCTIONS for kind in ("errors", "duration")))
@pytest.mark.parametrize("kind", ["errors", "duration"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_and_duration_alarms_go_off_for_a_function_stopped_at_its_limit(
    alarms: dict[str, Alarm], stopped: Stopped, function: str, kind: str
) -> None:
    """Not for an invocation that ends well; the limit is two seconds here."""
    given = alarms[f"{function}-{kind}"]
    limit = stopped.deployed.configuration(function)["Timeout"]
    alarm = with_limit(given, limit, TIME_LIMIT) if kind == "duration" else given
    well, points = stopped.points(function, alarm)
    assert state_after(given, well) == "OK"
    assert state_after(alarm, points) == "ALARM"


@fires(*(f"{function}-error-rate" for function in FUNCTIONS))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_error_rate_alarm_needs_two_errors_of_a_hundred_invocations(
    alarms: dict[str, Alarm], stopped: Stopped, function: str
) -> None:
    """Records of one good and one stopped invocation are repeated."""
    alarm = alarms[f"{function}-error-rate"]
    good, points = stopped.points(function, alarm)
    first = next(point.at for point in good if point.name == "Errors")
    last = next(point.at for point in points if point.name == "Errors" and point.value)
    well, failed = ([p for p in points if p.at == at] for at in (first, last))
    assert state_after(alarm, [*well * 2, *failed]) == "OK"
    assert state_after(alarm, [*well * 99, *failed]) == "OK"
    assert state_after(alarm, [*well * 98, *failed * 2]) == "ALARM"


@fires(*(f"{function}-latency" for function in CALLED if function != "status"))
@pytest.mark.parametrize("function", [name for name in CALLED if name != "status"])
def test_the_latency_alarm_needs_one_slow_call_of_twenty_in_three_periods(
    alarms: dict[str, Alarm], stopped: Stopped, function: str
) -> None:
    """The threshold is between the fastest call and the one that was stopped."""
    given = alarms[f"{function}-latency"]
    assert given.threshold == 5000
    _, durations = stopped.points(function, alarms[f"{function}-duration"])
    fast, slow = sorted(durations, key=lambda point: point.value)[:: len(durations) - 1]
    alarm = replace(given, threshold=(fast.value + slow.value) / 2)
    assert state_after(alarm, repeated([fast], alarm)) == "OK"
    assert state_after(alarm, [slow]) == "OK"
    assert state_after(alarm, repeated([fast] * 19 + [slow], alarm)) == "OK"
    assert state_after(alarm, repeated([fast] * 18 + [slow], alarm)) == "ALARM"


@fires("status-latency")
async def test_the_latency_alarm_of_status_goes_off_for_slow_look_ups(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """DynamoDB is so slow that a look-up is repeated, in three periods."""
    alarm = alarms["status-latency"]

    async def look_up() -> list[Point]:
        since = time.time()
        assert deployed.invoke("status", HARMLESS["status"])["statusCode"] == 404
        return await counted(deployed, "status", alarm, since)

    with between(deployed, "status") as network:
        fast = await look_up()
        network.trouble, network.every = "slow", 2
        slow = [*await look_up(), *await look_up()]
    assert max(point.value for point in slow) > alarm.threshold
    assert state_after(alarm, repeated(fast, alarm)) == "OK"
    assert state_after(alarm, slow) == "OK"
    assert state_after(alarm, repeated(slow, alarm)) == "ALARM"


def test_the_duration_alarm_goes_off_before_a_function_is_stopped(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """From nine tenths of the limit on, without an error."""
    limit, usual = 10, deployed.configuration("claim")["Timeout"]
    alarm, errors = with_limit(alarms["claim-duration"], usual, limit), alarms["claim-errors"]
    with with_time_limit(deployed, "claim", limit):
        invocation(deployed, "claim", HARMLESS["claim"])
        time.sleep(1)
        since = time.time()
        with stalled(deployed, "claim", 0.95 * limit):
            assert invocation(deployed, "claim", HARMLESS["claim"]).error is None
    assert state_after(alarm, published(deployed, alarm, since)) == "ALARM"
    assert state_after(errors, published(deployed, errors, since)) == "OK"


def test_the_errors_alarm_goes_off_for_an_exception(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """The log has its line, as in the runbook."""
    alarm, since = alarms["claim-errors"], time.time()
    assert invocation(deployed, "claim", {}).error == "ValidationError"
    assert state_after(alarm, published(deployed, alarm, since)) == "ALARM"
    lines = [event.document() or {} for event in logged(deployed, "claim", since)]
    (failed,) = [line for line in lines if line.get("message") == "invocation failed"]
    assert (failed["level"], failed["error"]) == ("ERROR", "ValidationError")


@fires(*(f"{function}-throttles" for function in FUNCTIONS))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_throttles_alarm_needs_a_refused_invocation_in_two_periods(
    deployed: Deployed, alarms: dict[str, Alarm], function: str
) -> None:
    """One record is used for both."""
    alarm, since = alarms[f"{function}-throttles"], time.time()
    with without_concurrency(deployed, function):
        assert invocation(deployed, function, {}).error == "TooManyRequestsException"
    points = published(deployed, alarm, since)
    assert state_after(alarm, points) == "OK"
    assert state_after(alarm, repeated(points, alarm)) == "ALARM"


async def counted(deployed: Deployed, function: str, alarm: Alarm, since: float) -> list[Point]:
    """The points of an alarm's metrics in a function's log."""
    names = {(metric.name, metric.dimensions) for metric in alarm.metrics.values()}

    def found() -> list[Point]:
        points = emitted(deployed, function, since)
        return [point for point in points if (point.name, point.dimensions) in names]

    points: list[Point] = await until(found, f"{names} in the log of {function}")
    return points


def handshake(deployed: Deployed) -> dict[str, Any]:
    """A handshake that connect accepts if it can store the connection."""
    token = deployed.token(unique("user"), "acme")
    return UNKNOWN_CONNECTION | {"queryStringParameters": {"token": token}}


PING = HARMLESS["router"] | {"body": '{"action": "ping"}'}
SERVER_ERRORS: dict[str, Callable[[Any], bool]] = {
    "connect": lambda answer: answer["statusCode"] == 500,
    "disconnect": lambda answer: answer["statusCode"] == 200,
    "jobs": lambda answer: answer["statusCode"] == 503,
    "router": lambda answer: json.loads(answer["body"])["error"]["code"] == "SERVICE_UNAVAILABLE",
    "state-manager": lambda answer: answer["statusCode"] == 500,
    "status": lambda answer: answer["statusCode"] == 500,
}


@fires(*(f"{function}-answered-errors" for function in SERVER_ERRORS))
@pytest.mark.parametrize("function", SERVER_ERRORS)
async def test_the_answered_errors_alarm_goes_off_although_the_function_succeeds(
    deployed: Deployed, alarms: dict[str, Alarm], function: str
) -> None:
    """DynamoDB fails, and the function answers with an error."""
    alarm, errors = alarms[f"{function}-answered-errors"], alarms[f"{function}-errors"]
    event = {"connect": handshake(deployed), "router": PING}.get(function, HARMLESS[function])
    since = time.time()
    with between(deployed, function) as network:
        # The first handshake reads the signing secret.
        assert invocation(deployed, function, event).error is None
        assert state_after(alarm, emitted(deployed, function, since)) == "OK"
        network.trouble, network.every = "server-error", 1
        done = invocation(deployed, function, event)
    assert done.error is None, done
    assert SERVER_ERRORS[function](done.answer), done.answer
    points = await counted(deployed, function, alarm, since)
    assert state_after(alarm, points) == "ALARM"
    assert state_after(errors, published(deployed, errors, since)) == "OK"


@fires("processor-answered-errors")
@pytest.mark.parametrize("fault", ["a sweep without DynamoDB", "a request that it stumbles over"])
async def test_the_answered_errors_alarm_goes_off_for_failures_of_the_service(
    deployed: Deployed, alarms: dict[str, Alarm], fault: str
) -> None:
    """Unreadable shards in a sweep, and a request with an unexpected error."""
    alarm, since = alarms["processor-answered-errors"], time.time()
    if fault == "a sweep without DynamoDB":
        with between(deployed, "processor") as network:
            network.trouble, network.every = "server-error", 1
            invocation(deployed, "processor", {"sweep": "leases"})
    else:
        put_broken_request(deployed)
    points = await counted(deployed, "processor", alarm, since)
    assert state_after(alarm, points) == "ALARM"


async def test_a_missing_upload_sets_off_no_alarm(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """It is a fault of the client."""
    alarm, since = alarms["processor-answered-errors"], time.time()
    put_broken_request(deployed, action="unheard-of")

    def failed() -> list[Point]:
        return [p for p in emitted(deployed, "processor", since) if p.name == "RequestFailed"]

    points = await until(failed, "the end of the request")
    assert state_after(alarm, points) == "OK"


def put_broken_request(deployed: Deployed, action: str = "delay") -> None:
    """A request with a payload that the router never writes."""
    now = time.time()
    at, user = iso_time(now), unique("user")
    whose = {"owner": owner_key("acme", user), "user_id": user, "tenant_id": "acme"}
    asked = {"connection_id": "unknown", "action": action, "payload": "{"}
    state = {"status": "PENDING", "attempts": 0, "max_attempts": 1, "seq": 0}
    times = {"created_at": at, "updated_at": at, "ttl": int(now) + 3600}
    lease = {"lease_shard": "lease-0", "lease_until": int(now) + 300}
    row: Message = {"request_id": unique("req"), **whose, **asked, **state, **times, **lease}
    deployed.put("requests", row)


@contextmanager
def throttling(deployed: Deployed) -> Iterator[Any]:
    """A client of a DynamoDB that throttles every request."""
    state = deployed.stage.read_state()
    assert state is not None
    with stretch(state.port) as network:
        network.trouble, network.every = "throttled", 1
        keys = {"AccessKeyId": "test", "SecretAccessKey": "test"}
        yield client_once("dynamodb", network.url, state.region, keys)


def refusal(deployed: Deployed, kind: str, metric: Metric) -> Point:
    """A refused request, as AWS counts it for the table or the index."""
    place = dict(metric.dimensions)
    index = place.pop("GlobalSecondaryIndexName", None)
    found = deployed.dynamodb.describe_table(TableName=place["TableName"])["Table"]
    assert index is None or index in {each["IndexName"] for each in found["GlobalSecondaryIndexes"]}
    with throttling(deployed) as client, pytest.raises(ClientError, match="ThrottlingException"):
        if kind == "write":
            client.put_item(Item={}, **place)
        else:
            client.scan(**place, **({"IndexName": index} if index else {}))
    return metric.point(time.time(), 1)


@fires(*(f"{table}-{kind}-throttles" for table in TABLES for kind in ("read", "write")))
@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("table", TABLES)
def test_the_throttles_alarm_of_a_table_needs_a_refusal_in_two_periods(
    deployed: Deployed, alarms: dict[str, Alarm], table: str, kind: str
) -> None:
    """Of the table, or of an index alone."""
    alarm = alarms[f"{table}-{kind}-throttles"]
    for metric in alarm.metrics.values():
        point = refusal(deployed, kind, metric)
        assert alarm.state([point], point.at) == "OK"
        assert alarm.state(repeated([point], alarm), point.at) == "ALARM"


def dead_notification(deployed: Deployed) -> None:
    """An unreadable message of the webhook queue, which fails seven times and is moved."""
    url = deployed.info["queues"]["webhooks"]
    deployed.sqs.send_message(QueueUrl=url, MessageBody=unique("no-json"))


def refused_record(deployed: Deployed) -> None:
    """A record of the stream that dispatch can't read."""
    record = {"eventName": "INSERT", "dynamodb": {"SequenceNumber": "1"}}
    deployed.invoke("dispatch", {"Records": [record]})


def timed_out_job(deployed: Deployed) -> None:
    """A job without heartbeats, as the flow passes it on."""
    ids = {"projectUserId": f"{unique('project')}#user", "messageId": unique("message")}
    deployed.invoke("handle-timeout", {**ids, "threadId": "thread", "kind": "heartbeat_lost"})


def undelivered_event(deployed: Deployed) -> None:
    """The end of an execution, put there as EventBridge does it after its last attempt.

    The emulator's tries once and drops what was refused.
    """
    url = deployed.info["queues"]["execution-events-dlq"]
    event = HARMLESS["handle-timeout"]
    lost = event | {"detail": event["detail"] | {"status": "FAILED", "input": "{}"}}
    deployed.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(lost))


def unread_message(deployed: Deployed) -> None:
    """An object that intake has failed on, put there as Lambda does it after its last attempt."""
    letter = {"requestPayload": HARMLESS["intake"]}
    url = deployed.info["queues"]["intake-dlq"]
    deployed.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(letter))


DEAD_LETTERS = {
    "webhooks-dlq": dead_notification,
    "requests-failed": refused_record,
    "jobs-dlq.fifo": timed_out_job,
    "execution-events-dlq": undelivered_event,
    "intake-dlq": unread_message,
}


@fires(*(f"{queue.removesuffix('.fifo')}-not-empty" for queue in DEAD_LETTERS))
@pytest.mark.parametrize("queue", DEAD_LETTERS)
async def test_the_alarm_of_a_dead_letter_queue_goes_off_for_one_message(
    deployed: Deployed, alarms: dict[str, Alarm], queue: str
) -> None:
    """Not for an empty queue."""
    alarm = alarms[f"{queue.removesuffix('.fifo')}-not-empty"]
    url = deployed.info["queues"][queue]

    def state() -> str:
        now = time.time()
        return alarm.state([alarm.point(now, visible_messages(deployed, queue))], now)

    deployed.sqs.purge_queue(QueueUrl=url)
    assert state() == "OK"
    DEAD_LETTERS[queue](deployed)
    await until(lambda: visible_messages(deployed, queue), f"a message in {queue}")
    assert state() == "ALARM"
    deployed.sqs.purge_queue(QueueUrl=url)
    assert state() == "OK"


QUEUES = {
    "jobs": ("processor", {"owner": UNKNOWN_WORKSPACE, "request_id": "gone"}),
    "webhooks": ("deliver-webhook", {"assembly_id": "gone"}),
}
"""The reader of a queue, and a message without effect."""


@fires(*(f"{queue}-age" for queue in QUEUES))
@pytest.mark.parametrize("queue", QUEUES)
async def test_the_age_alarm_of_a_queue_goes_off_after_a_quarter_of_an_hour(
    deployed: Deployed, alarms: dict[str, Alarm], queue: str
) -> None:
    """The clock of the measurement is moved."""
    alarm, (function, body) = alarms[f"{queue}-age"], QUEUES[queue]

    def state(at: float) -> str:
        sent = oldest_sent(deployed, queue)
        return alarm.state([] if sent is None else [alarm.point(at, at - sent)], at)

    with without_delivery(deployed, function, f":{deployed.stage.names.prefix}"):
        url = deployed.info["queues"][queue]
        deployed.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))
        await until(lambda: oldest_sent(deployed, queue), "the message in the queue")
        assert state(time.time()) == "OK"
        assert state(time.time() + QUARTER_OF_AN_HOUR) == "ALARM"
    await until(lambda: oldest_sent(deployed, queue) is None, "an empty queue")
    assert state(time.time() + QUARTER_OF_AN_HOUR) == "OK"


@contextmanager
def waiting_request(deployed: Deployed) -> Iterator[tuple[dict[str, Any], str]]:
    """A request in its table's stream; its key, and its text in the log."""
    key = {"owner": owner_key("acme", unique("user")), "request_id": unique("req")}
    deployed.put("requests", key | {"status": "PENDING", "lease_until": 0})
    yield to_item(key), key["request_id"]
    deployed.delete("requests", **key)


@contextmanager
def waiting_file(deployed: Deployed) -> Iterator[tuple[dict[str, Any], str]]:
    """A file in its table's stream; its key, and its text in the log."""
    key = {"date_prefix": "2026-11-22", "file_key": f"{unique('file')}.ndjson"}
    deployed.put("files", key | {"status": "pending#1"})
    yield to_item(key), "changes counted"
    deployed.delete("files", **key)


STREAMS = {"dispatch": ("requests", waiting_request), "count-files": ("files", waiting_file)}


@fires(*(f"{function}-stream-age" for function in STREAMS))
@pytest.mark.parametrize("function", STREAMS)
async def test_the_age_alarm_of_a_stream_goes_off_after_a_quarter_of_an_hour(
    deployed: Deployed, alarms: dict[str, Alarm], function: str
) -> None:
    """The clock of the measurement is moved."""
    alarm, (table, waiting) = alarms[f"{function}-stream-age"], STREAMS[function]

    def state(delivered: float, arrived: float) -> str:
        return alarm.state([alarm.point(delivered, (delivered - arrived) * 1000)], delivered)

    with without_delivery(deployed, function, f"/{deployed.stage.names.of(table)}/"):
        with waiting(deployed) as (key, text):
            arrived = newest_record(deployed, table, key)
            since = time.time()
            assert not [e for e in logged(deployed, function, since - 1) if text in e.text]
            assert state(time.time() + QUARTER_OF_AN_HOUR, arrived) == "ALARM"

    def delivered() -> float | None:
        texts = (e for e in logged(deployed, function, since) if text in e.text)
        return next((event.at / 1000 for event in texts), None)

    taken = await until(delivered, f"the change in the log of {function}")
    assert state(taken, arrived) == "OK"


@fires("job-flow-failed")
async def test_the_failed_alarm_needs_five_failed_executions(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """Malformed starts."""
    alarm = alarms["job-flow-failed"]
    started = [Flow(deployed).start("m", projectId="a/b") for _ in range(5)]
    await until(lambda: len(ends(deployed, alarm, started, "FAILED")) == 5, "five failures")
    points = ends(deployed, alarm, started, "FAILED")
    assert state_after(alarm, points[:4]) == "OK"
    assert state_after(alarm, points) == "ALARM"


@fires("job-flow-timed-out")
async def test_the_timed_out_alarm_goes_off_for_one_execution(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """The emulator ends none for its age, so a stopped one is counted."""
    alarm = alarms["job-flow-timed-out"]
    flow = Flow(deployed)
    running = flow.start("m")
    assert state_after(alarm, ends(deployed, alarm, [running], "ABORTED")) == "OK"
    flow.states.stop_execution(executionArn=running)
    await until(lambda: ends(deployed, alarm, [running], "ABORTED"), "the end of the execution")
    assert state_after(alarm, ends(deployed, alarm, [running], "ABORTED")) == "ALARM"


@fires("http-5xx")
async def test_the_5xx_alarm_goes_off_while_status_hangs(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """Not for other answers."""
    alarm = alarms["http-5xx"]
    points: list[Point] = []

    async def ask() -> int:
        async with deployed.http(unique("user")) as http:
            http.event_hooks = {}
            code = (await http.get("/status/nothing")).status_code
        points.append(alarm.point(time.time(), code >= 500))
        return code

    assert await ask() == 404
    assert state_after(alarm, points) == "OK"
    with with_time_limit(deployed, "status", TIME_LIMIT):
        assert await ask() == 404
        with stalled(deployed, "status", BEYOND_LIMIT):
            assert await ask() >= 500
    assert state_after(alarm, points) == "ALARM"


@fires("websocket-execution-errors")
async def test_the_execution_errors_alarm_goes_off_while_the_router_hangs(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """The client gets API Gateway's own error."""
    alarm = alarms["websocket-execution-errors"]
    points: list[Point] = []

    async def ask() -> None:
        await socket.send(json.dumps({"action": "ping"}))
        answer = await asyncio.wait_for(socket.recv(), 30)
        points.append(alarm.point(time.time(), not is_message(answer)))

    with with_time_limit(deployed, "router", TIME_LIMIT):
        async with connect(deployed.socket_url(unique("user"))) as socket:
            await ask()
            assert state_after(alarm, points) == "OK"
            with stalled(deployed, "router", BEYOND_LIMIT):
                await ask()
    assert state_after(alarm, points) == "ALARM"


def is_message(text: str | bytes) -> bool:
    """Whether a text is a message of the router."""
    try:
        return "type" in json.loads(text)
    except ValueError:
        return False


@fires("websocket-integration-errors")
async def test_the_integration_errors_alarm_needs_25_refused_handshakes_in_three_periods(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """Those of now count for the earlier periods."""
    alarm = alarms["websocket-integration-errors"]
    points: list[Point] = []
    for _ in range(25):
        with pytest.raises(InvalidStatus):
            async with connect(deployed.socket_url(token="forged")):
                pass
        points.append(alarm.point(time.time(), 1))
    assert state_after(alarm, points) == "OK"
    assert state_after(alarm, repeated(points[1:], alarm)) == "OK"
    assert state_after(alarm, repeated(points, alarm)) == "ALARM"


def managed(deployed: Deployed, **request: Any) -> list[Point]:
    """Run state-manager; the points in its log."""
    since = time.time()
    deployed.invoke("state-manager", request)
    return emitted(deployed, "state-manager", since)


def scheduled(deployed: Deployed, **request: Any) -> list[Point]:
    """Run state-manager as its schedule does; the points in its log."""
    return managed(deployed, source="jobplane.schedule", **request)


def spoil_counters(deployed: Deployed) -> None:
    """Count three pending files that do not exist."""
    deployed.dynamodb.update_item(
        TableName=deployed.info["tables"]["metrics"],
        Key=to_item({"metric_type": COUNTERS, "timestamp": 0}),
        UpdateExpression="ADD pending :three",
        ExpressionAttributeValues=to_item({":three": 3}),
    )


@fires("counters-drift")
async def test_the_drift_alarm_goes_off_once_for_wrong_counters(
    deployed: Deployed, alarms: dict[str, Alarm]
) -> None:
    """The weekly count corrects them."""
    alarm = alarms["counters-drift"]

    async def count() -> list[Point]:
        return await checked_count(deployed, alarm, source="jobplane.schedule")

    await count()
    spoil_counters(deployed)
    drifted = await count()
    assert [p.value for p in drifted if p.name == alarm.metric.name] == [3]
    assert state_after(alarm, drifted) == "ALARM"
    assert state_after(alarm, await count()) == "OK"


async def checked_count(deployed: Deployed, alarm: Alarm, **request: Any) -> list[Point]:
    """The points of a count during which no file arrived, so that it has the alarm's metric."""

    def count() -> list[Point] | None:
        points = managed(deployed, operation="get_stats", exact=True, **request)
        return points if any(point.name == alarm.metric.name for point in points) else None

    points: list[Point] = await until(count, "a count that nothing moved under", patience=120)
    return points


def unchecked_count(deployed: Deployed) -> list[Point]:
    """The points of a weekly count during which files arrive."""
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(scheduled, deployed, operation="get_stats", exact=True)
        while not counting.done():
            with waiting_file(deployed):
                time.sleep(0.2)
        return counting.result()


@fires("counters-unchecked")
async def test_the_unchecked_alarm_stays_until_a_count_has_checked_the_counters(
    deployed: Deployed,
) -> None:
    """Files arrive during the weekly count."""
    alarm = scheduled_alarm(deployed, "counters-unchecked")
    points = unchecked_count(deployed)
    assert [p.value for p in points if p.name == alarm.metric.name] == [1]
    assert state_after(alarm, points) == "ALARM"
    assert alarm.state([], time.time(), before="ALARM") == "ALARM"
    checked = await checked_count(deployed, alarm)
    assert state_after(alarm, checked, before="ALARM") == "OK"


async def test_the_unchecked_alarm_goes_off_for_a_count_that_was_cut(deployed: Deployed) -> None:
    alarm = scheduled_alarm(deployed, "counters-unchecked")
    with with_time_limit(deployed, "state-manager", TOO_SHORT_TO_COUNT):
        points = scheduled(deployed, operation="get_stats", exact=True)
    assert state_after(alarm, points) == "ALARM"


@contextmanager
def stuck_file(deployed: Deployed) -> Iterator[str]:
    """A file in processing for five hours; its key."""
    key = {"date_prefix": iso_time(time.time())[:10], "file_key": f"{unique('stuck')}.ndjson"}
    since = iso_time(time.time() - 5 * 3600)
    times = {"processing_start_time": since, "updated_at": since}
    deployed.put("files", key | times | {"status": "processing#1"})
    try:
        yield key["file_key"]
    finally:
        deployed.delete("files", **key)


@fires("orphans")
def test_the_orphans_alarm_needs_two_runs_that_find_orphans(deployed: Deployed) -> None:
    """The first run's line is moved six hours back."""
    alarm = scheduled_alarm(deployed, "orphans")

    def run() -> list[Point]:
        return scheduled(deployed, operation="find_orphans", max_processing_hours=2)

    with stuck_file(deployed):
        first, second = ([point.moved(-alarm.period) for point in run()], run())
    assert state_after(alarm, second) == "OK"
    assert state_after(alarm, [*first, *second]) == "ALARM"
    assert state_after(alarm, [*first, *run()], before="ALARM") == "OK"
