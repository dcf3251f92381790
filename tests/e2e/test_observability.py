"""What watches a stage, on the deployed stage: alarms and dashboard name what is really there."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.support import Deployed, unique, until
from jobplane.log_lines import parse_line

pytestmark = pytest.mark.e2e


def alarms(deployed: Deployed) -> list[dict[str, Any]]:
    pages = (
        deployed.stage.client("cloudwatch")
        .get_paginator("describe_alarms")
        .paginate(AlarmNamePrefix=f"jobplane-{deployed.stage.name}-")
    )
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


@contextmanager
def listening(deployed: Deployed, topic: str) -> Iterator[str]:
    """The URL of a queue that gets whatever the topic is told."""
    sqs, sns = deployed.sqs, deployed.stage.client("sns")
    url = sqs.create_queue(QueueName=unique("alarms"))["QueueUrl"]
    about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn = about["Attributes"]["QueueArn"]
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
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


def test_alarms_watch_what_was_deployed(deployed: Deployed) -> None:
    """The function, queue, API or state machine of each alarm is on the stage."""
    stack = deployed.stage.client("cloudformation").get_paginator("list_stack_resources")
    there = {deployed.stage.name}
    for page in stack.paginate(StackName=f"jobplane-{deployed.stage.name}"):
        for resource in page["StackResourceSummaries"]:
            physical = resource["PhysicalResourceId"]
            is_queue = resource["ResourceType"] == "AWS::SQS::Queue"
            there.add(physical.rpartition("/")[2] if is_queue else physical)
    found = alarms(deployed)
    assert found
    for alarm in found:
        (dimension,) = alarm["Dimensions"]
        assert dimension["Value"] in there, alarm["AlarmName"]


def test_the_dashboard_was_filled_in(deployed: Deployed) -> None:
    """Its text is JSON that no reference is left in, and shows all alarms."""
    name = f"jobplane-{deployed.stage.name}"
    body = deployed.stage.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    widgets = json.loads(body)["widgets"]
    assert "${" not in body
    (status,) = [widget for widget in widgets if widget["type"] == "alarm"]
    assert set(status["properties"]["alarms"]) == {alarm["AlarmArn"] for alarm in alarms(deployed)}


async def test_an_alarm_tells_the_topic(deployed: Deployed) -> None:
    """A value over the threshold changes the alarm's state, and the topic says which and why."""
    (drift,) = [alarm for alarm in alarms(deployed) if alarm["MetricName"] == "CountersDrift"]
    cloudwatch = deployed.stage.client("cloudwatch")
    (topic,) = drift["AlarmActions"]
    name = drift["AlarmName"]
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="a test begins")
    with listening(deployed, topic) as queue:
        cloudwatch.put_metric_data(
            Namespace=drift["Namespace"],
            MetricData=[
                {"MetricName": "CountersDrift", "Dimensions": drift["Dimensions"], "Value": 3}
            ],
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
    assert "docs/observing.md#counters" in notice["AlarmDescription"]


async def test_a_job_leaves_its_metrics(deployed: Deployed) -> None:
    """Opening a socket and one job emit what the dashboard draws, for this stage."""
    began = int(time.time() * 1000)
    async with deployed.socket(unique("user")) as socket:
        await socket.run("delay", {"seconds": 0.1, "steps": 1})
    logs = deployed.stage.client("logs")

    def emitted() -> set[str]:
        names: set[str] = set()
        for function in ("connect", "disconnect", "processor"):
            group = f"/aws/lambda/jobplane-{deployed.stage.name}-{function}"
            pages = logs.get_paginator("filter_log_events").paginate(
                logGroupName=group, startTime=began
            )
            for page in pages:
                for event in page["events"]:
                    document = parse_line(event["message"].rstrip()) or {}
                    for directive in document.get("_aws", {}).get("CloudWatchMetrics", ()):
                        assert directive["Namespace"] == "Jobplane"
                        assert document["Environment"] == deployed.stage.name
                        names |= {metric["Name"] for metric in directive["Metrics"]}
        return names

    wanted = {"ConnectionEstablished", "ConnectionClosed", "QueueLatency", "RequestCompleted"}
    await until(lambda: wanted <= emitted(), f"{wanted} in the logs")
