"""A deployed stage's alarms, dashboard, metrics, traces and logs."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobplane.reference.metrics import emitted
from jobplane.stage.log_lines import parse_line
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, Receiver, unique, until
from tests.e2e.metric_lines import emitted_since, until_emitted
from tests.workspace.copies import jobplane

pytestmark = pytest.mark.e2e


@contextmanager
def listening(deployed: Deployed, topic: str) -> Iterator[str]:
    """The URL of a queue that receives the topic's notifications."""
    sqs, sns = deployed.sqs, deployed.stage.client("sns")
    url = sqs.create_queue(QueueName=unique("alarms"))["QueueUrl"]
    about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn = about["Attributes"]["QueueArn"]
    sender = {"Service": "sns.amazonaws.com"}
    allowed = {"Effect": "Allow", "Principal": sender, "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    subscription = sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True
    )["SubscriptionArn"]
    try:
        yield url
    finally:
        sns.unsubscribe(SubscriptionArn=subscription)
        sqs.delete_queue(QueueUrl=url)


def test_every_alarm_watches_a_deployed_resource(deployed: Deployed) -> None:
    physical = deployed.resources().values()
    queues = {url.rpartition("/")[2] for url in physical if url.startswith("http")}
    there = {deployed.stage.name, *physical, *queues}
    found = deployed.alarms()
    assert found
    for alarm in found:
        queries = alarm.get("Metrics", [])
        metrics = [q["MetricStat"]["Metric"] for q in queries if "MetricStat" in q]
        for metric in metrics or [alarm]:
            values = {dimension["Value"] for dimension in metric["Dimensions"]}
            assert values & there, alarm["AlarmName"]


def test_the_dashboard_is_json_without_references_and_shows_all_alarms(deployed: Deployed) -> None:
    name = deployed.stage.names.stack
    body = deployed.stage.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    widgets = json.loads(body)["widgets"]
    assert "${" not in body
    (status,) = [widget for widget in widgets if widget["type"] == "alarm"]
    assert set(status["properties"]["alarms"]) == {alarm["AlarmArn"] for alarm in deployed.alarms()}


async def test_an_alarm_notifies_the_topic_with_name_and_reason(deployed: Deployed) -> None:
    (errors,) = [alarm for alarm in deployed.alarms() if alarm.get("MetricName") == "5xx"]
    cloudwatch = deployed.stage.client("cloudwatch")
    (topic,) = errors["AlarmActions"]
    name = errors["AlarmName"]
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="a test begins")
    with listening(deployed, topic) as queue:
        cloudwatch.put_metric_data(
            Namespace=errors["Namespace"],
            MetricData=[{"MetricName": "5xx", "Dimensions": errors["Dimensions"], "Value": 3}],
        )

        def told() -> dict[str, Any] | None:
            received = deployed.sqs.receive_message(QueueUrl=queue)
            for message in received.get("Messages", ()):
                notice: dict[str, Any] = json.loads(json.loads(message["Body"])["Message"])
                if notice["AlarmName"] == name:
                    return notice
            return None

        notice = await until(told, "the alarm's notice")
    assert notice["NewStateValue"] == "ALARM"
    assert "docs/observing.md#http-errors" in notice["AlarmDescription"]


async def delivered(deployed: Deployed, user: str, request_id: str) -> str:
    """Run an assembly until its webhook is delivered; its id."""
    assembly_id = await deployed.complete(user, id=request_id)
    await until(
        lambda: deployed.assembly(assembly_id)["webhook"]["status"] == "delivered",
        "the delivery on the document",
    )
    return assembly_id


def lines_with(deployed: Deployed, **ids: str) -> list[dict[str, Any]]:
    """The output of `jobplane logs` for an id, each line with its function."""
    stage = deployed.stage
    done = jobplane(stage.repository, "logs", "--stage", stage.name, "--since", "2m", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    lines = [
        (parse_line(event["message"]) or {}) | {"function": event["function"]} for event in events
    ]
    return [line for line in lines if ids.items() <= line.items()]


async def lines_of(deployed: Deployed, functions: set[str], **ids: str) -> list[dict[str, Any]]:
    """The log lines with these ids, without metrics, once these functions have some."""

    def found() -> list[dict[str, Any]] | None:
        lines = [line for line in lines_with(deployed, **ids) if "level" in line]
        return lines if {line["function"] for line in lines} >= functions else None

    lines: list[dict[str, Any]] = await until(found, f"lines of {sorted(functions)} with {ids}")
    return lines


async def test_router_request_processor_webhook_and_receiver_share_a_trace(
    deployed: Deployed, webhooks: Receiver
) -> None:
    user, request_id = unique("user"), unique("req")
    assembly_id = await delivered(deployed, user, request_id)
    functions = {"router", "processor", "deliver-webhook"}
    found = await lines_of(deployed, functions, request_id=request_id)
    carried = deployed.row(user, request_id)["trace_header"]
    root = carried.partition("Root=")[2].partition(";")[0]
    assert re.fullmatch(r"1-[0-9a-f]{8}-[0-9a-f]{24}", root)
    assert {line["xray_trace_id"] for line in found} == {root}
    ((headers, _),) = webhooks.of(assembly_id)
    _, trace, parent, sampled = headers["traceparent"].split("-")
    assert trace == root[2:].replace("-", "")
    assert f"Parent={parent};Sampled={int(sampled)}" in carried


async def test_jobplane_logs_finds_all_lines_of_a_job_by_each_id(
    deployed: Deployed, webhooks: Receiver
) -> None:
    request_id = unique("req")
    assembly_id = await delivered(deployed, unique("user"), request_id)

    for ids in ({"request_id": request_id}, {"assembly_id": assembly_id}):
        lines = await lines_of(deployed, {"router", "processor", "deliver-webhook"}, **ids)
        messages = {(line["function"], line["message"]) for line in lines}
        assert messages >= {
            ("router", "request acknowledged"),
            ("processor", "request ended"),
            ("deliver-webhook", "webhook_delivery"),
        }
        (acknowledged,) = [line for line in lines if line["function"] == "router"]
        connection = {"connection_id": acknowledged["connection_id"]}
        await lines_of(deployed, {"connect", "router", "disconnect"}, **connection)


async def test_every_emitted_metric_matches_the_source(
    deployed: Deployed, webhooks: Receiver
) -> None:
    """Every metric of every function's real lines: its name, unit and set of dimensions.

    The dashboard is held against the same source by tests/workspace/test_observability.py.
    """
    user, began = unique("user"), time.time()
    assembly_id = await delivered(deployed, user, unique("req"))
    async with deployed.socket(user) as socket:
        await socket.run("delay", {"seconds": 0.1, "steps": 2, "fail_at": 1})
        await socket.ask({"action": "no_such_action"})
    async with deployed.http(user) as http:
        await http.get(f"/status/{assembly_id}")
    wanted = {
        "ConnectionEstablished", "ConnectionClosed", "QueueLatency", "ProcessingLatency",
        "RequestCompleted", "RequestFailed", "RequestRefused", "MessageAnswered", "StatusChecks",
        "StatusLatency", "WebhookAttempts", "WebhookDelivered",
    }  # fmt: skip
    await until_emitted(deployed, wanted, began)
    assert emitted_since(deployed, 0) <= emitted(Repository.here())
