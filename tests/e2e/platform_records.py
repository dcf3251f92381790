"""The emulator's records of a stage, as the data points that AWS would publish.

The emulator publishes Lambda's metrics of invocations through its API itself. Of the rest it has
the facts: attributes of queues, records of streams, ends of executions, log lines of the functions.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobplane.stage import log_lines
from jobplane.tree.repository import Repository
from tests.alarm_states import Alarm, Point, embedded
from tests.e2e.deployed import Deployed, Message, is_alive
from tests.workspace.templates import alarms_of


def defined_alarms(deployed: Deployed) -> dict[str, Alarm]:
    """The deployed alarms by name, without the stage's prefix."""
    found = map(Alarm.of, deployed.alarms())
    return {deployed.stage.names.short(alarm.name): alarm for alarm in found}


def scheduled_alarm(deployed: Deployed, name: str) -> Alarm:
    """An alarm on schedules, which a local stage lacks, renamed to this stage."""
    stack = {"functions": {"state-manager": {"timeout": 300}}, "schedules": True}
    template = json.dumps(alarms_of(stack)).replace("${sls:stage}", deployed.stage.name)
    (found,) = (
        resource["Properties"]
        for resource in json.loads(template).values()
        if resource["Properties"].get("AlarmName") == deployed.stage.names.of(name)
    )
    return Alarm.of(found)


def published(deployed: Deployed, alarm: Alarm, since: float) -> list[Point]:
    """The emulator's data points of an alarm's metrics, by second."""
    return [
        metric.point(each["Timestamp"].timestamp(), each[metric.statistic])
        for metric in alarm.metrics.values()
        for each in deployed.stage.client("cloudwatch").get_metric_statistics(
            Namespace=metric.namespace,
            MetricName=metric.name,
            Dimensions=[{"Name": name, "Value": value} for name, value in metric.dimensions],
            StartTime=since,
            EndTime=time.time() + 60,
            Period=1,
            Statistics=[metric.statistic],
        )["Datapoints"]
    ]


def logged(deployed: Deployed, function: str, since: float) -> list[log_lines.LogEvent]:
    """The log lines of a function."""
    functions = Repository.here().select((function,))
    return log_lines.events(deployed.stage, functions, int(since * 1000))


def emitted(deployed: Deployed, function: str, since: float) -> list[Point]:
    """The points of a function's log lines in the embedded metric format."""
    documents = (event.document() or {} for event in logged(deployed, function, since))
    return [point for document in documents for point in embedded(document)]


def visible_messages(deployed: Deployed, queue: str) -> int:
    """The points of ApproximateNumberOfMessagesVisible."""
    told = deployed.sqs.get_queue_attributes(
        QueueUrl=deployed.info["queues"][queue], AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(told["Attributes"]["ApproximateNumberOfMessages"])


def oldest_sent(deployed: Deployed, queue: str) -> float | None:
    """When the oldest waiting message was sent, from which AWS computes its age."""
    found = deployed.sqs.receive_message(
        QueueUrl=deployed.info["queues"][queue],
        MessageSystemAttributeNames=["SentTimestamp"],
        MaxNumberOfMessages=10,
        VisibilityTimeout=0,
    ).get("Messages", [])
    return min((int(m["Attributes"]["SentTimestamp"]) / 1000 for m in found), default=None)


def newest_record(deployed: Deployed, table: str, keys: Mapping[str, Any]) -> float:
    """When the newest change came into a table's stream, in epoch seconds."""
    name = deployed.info["tables"][table]
    stream = deployed.dynamodb.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    client = deployed.stage.client("dynamodbstreams")
    found: list[Message] = []
    for shard in client.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]:
        place = client.get_shard_iterator(
            StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while place:
            page = client.get_records(ShardIterator=place)
            found += [each["dynamodb"] for each in page["Records"]]
            place = page.get("NextShardIterator") if page["Records"] else None
    times = (each["ApproximateCreationDateTime"] for each in found if each["Keys"] == keys)
    return float(max(times).timestamp())


def ends(deployed: Deployed, alarm: Alarm, executions: Iterable[str], status: str) -> list[Point]:
    """A point for each of these executions that ended with a status."""
    states = deployed.stage.client("stepfunctions")
    told = [states.describe_execution(executionArn=arn) for arn in executions]
    return [
        alarm.point(each["stopDate"].timestamp(), 1) for each in told if each["status"] == status
    ]


@dataclass(frozen=True)
class Invocation:
    """The result of an invocation."""

    answer: Any
    error: str | None
    """The class of the error, or Lambda's own code for what it refused or stopped."""


def invocation(deployed: Deployed, function: str, event: Any) -> Invocation:
    """Invoke a function once, whatever the result."""
    client = deployed.stage.invoker()
    name, payload = deployed.info["functions"][function], json.dumps(event).encode()
    try:
        done = client.invoke(FunctionName=name, Payload=payload)
    except client.exceptions.TooManyRequestsException as error:
        return Invocation(None, error.response["Error"]["Code"])
    answer = json.loads(done["Payload"].read())
    return Invocation(answer, answer["errorType"] if "FunctionError" in done else None)


@contextmanager
def without_concurrency(deployed: Deployed, function: str) -> Iterator[None]:
    """Refuse every invocation of a function within the block."""
    name = deployed.info["functions"][function]
    deployed.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        yield
    finally:
        deployed.functions.delete_function_concurrency(FunctionName=name)


@contextmanager
def with_time_limit(deployed: Deployed, function: str, seconds: int) -> Iterator[None]:
    """Set a function's time limit within the block."""
    name = deployed.info["functions"][function]
    before = deployed.configuration(function)["Timeout"]
    deployed.functions.update_function_configuration(FunctionName=name, Timeout=seconds)
    try:
        yield
    finally:
        deployed.functions.update_function_configuration(FunctionName=name, Timeout=before)


@contextmanager
def stalled(deployed: Deployed, function: str, seconds: float) -> Iterator[None]:
    """Stop a function's workers within the block, for at most so many seconds."""
    stopped = deployed.workers(function)
    assert stopped, f"{function} has no worker"
    for process in stopped:
        process.suspend()

    def go_on() -> None:
        for process in filter(is_alive, stopped):
            process.resume()

    timer = threading.Timer(seconds, go_on)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        go_on()


@contextmanager
def without_delivery(deployed: Deployed, function: str, source: str) -> Iterator[None]:
    """Disable the mapping whose source's ARN has this part, within the block."""
    name = deployed.info["functions"][function]
    found = deployed.functions.list_event_source_mappings(FunctionName=name)
    (mapping,) = (m for m in found["EventSourceMappings"] if source in m["EventSourceArn"])
    deployed.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        yield
    finally:
        deployed.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
