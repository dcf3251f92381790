"""Alarms, the dashboard and schedules: what they watch exists, and everything is watched."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from workspace.templates import EMULATOR, WORKSPACE, Compiled, alarms_of, of_type

from e2e.test_alarms import FIRED
from jobplane import metrics
from jobplane.documents import with_tables
from jobplane.metrics import emitted
from jobplane.workspace import Function

DOCS = WORKSPACE.root / "docs" / "observing.md"
FUNCTIONS = WORKSPACE.functions()
NAMESPACE = WORKSPACE.names("").metrics
SEARCH = re.compile(
    r"SEARCH\('\{(?P<schema>[^}]+)\} MetricName=\"(?P<name>\w+)\" Environment=\"(?P<stage>\w+)\"', "
    r"'(?P<stat>\w+)', (?P<period>\d+)\)"
)
# AWS's own metrics that are in use, and the dimensions under which AWS publishes them.
AWS = {
    "AWS/Lambda": (
        {
            "ConcurrentExecutions",
            "Duration",
            "Errors",
            "Invocations",
            "IteratorAge",
            "Throttles",
        },
        {"FunctionName"},
    ),
    "AWS/SQS": (
        {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"},
        {"QueueName"},
    ),
    "AWS/ApiGateway": (
        {"4xx", "5xx", "Count", "ExecutionError", "IntegrationError", "MessageCount"},
        {"ApiId"},
    ),
    "AWS/States": (
        {
            "ExecutionsAborted",
            "ExecutionsFailed",
            "ExecutionsStarted",
            "ExecutionsSucceeded",
            "ExecutionsTimedOut",
        },
        {"StateMachineArn"},
    ),
}

# What stands for all alarms of a kind in the documentation.
KINDS = {"FunctionName": "function", "QueueName": "queue", "StateMachineArn": "flow"}

type Watched = tuple[str, str, frozenset[str]]
"""Namespace, metric, dimensions."""


def alarms(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Properties of the alarms by name, without the stage's prefix."""
    found = {}
    for resource in of_type(template, "AWS::CloudWatch::Alarm").values():
        properties = resource["Properties"]
        found[re.sub(rf"^{WORKSPACE.service}-[a-z]+-", "", properties["AlarmName"])] = properties
    return found


def widgets(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The dashboard's widgets, references left as `${LogicalId}`."""
    (dashboard,) = of_type(template, "AWS::CloudWatch::Dashboard").values()
    body: dict[str, Any] = json.loads(dashboard["Properties"]["DashboardBody"]["Fn::Sub"])
    found: list[dict[str, Any]] = body["widgets"]
    return found


def lines(template: dict[str, Any]) -> Iterator[list[Any]]:
    """Every line of every graph."""
    for widget in widgets(template):
        yield from widget["properties"].get("metrics", ())


def watched_by(line: list[Any]) -> Watched | None:
    """What a graph's line shows; None for arithmetic over other lines."""
    if isinstance(line[0], dict):
        found = SEARCH.fullmatch(line[0]["expression"])
        if found is None:
            return None
        namespace, *dimensions = found["schema"].split(",")
        return namespace, found["name"], frozenset(dimensions)
    namespace, name, *rest = [part for part in line if isinstance(part, str)]
    return namespace, name, frozenset(rest[::2])


@cache
def known() -> set[Watched]:
    """What AWS and the functions publish."""
    ours = {
        (NAMESPACE, metric.name, frozenset({"Environment"}) | dimensions)
        for metric in emitted(WORKSPACE)
        for dimensions in (frozenset(), metric.dimensions)
    }
    theirs = {
        (namespace, name, frozenset(dimensions))
        for namespace, (names, dimensions) in AWS.items()
        for name in names
    }
    return ours | theirs


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_function_is_watched(compiled: Compiled, function: Function) -> None:
    """Errors, throttles and long runs of each function have an alarm, streams their age."""
    found = alarms(compiled("prod"))
    of_function = {
        properties["MetricName"]: properties
        for properties in found.values()
        if properties["Dimensions"]
        == [{"Name": "FunctionName", "Value": function.deployed_name("prod")}]
    }
    streams = any("stream" in event for event in function.config.get("events", ()))
    assert set(of_function) == {"Errors", "Throttles", "Duration"} | (
        {"IteratorAge"} if streams else set()
    )
    assert of_function["Errors"]["Threshold"] == 1
    limit = function.config["timeout"] * 1000
    assert 0.8 * limit <= of_function["Duration"]["Threshold"] < limit


def test_a_new_function_brings_its_alarms() -> None:
    """What is in function.yml and resources/ is all that the alarms are made of."""
    stack = {
        "functions": {
            "fresh": {
                "timeout": 10,
                "events": [
                    {"stream": {"type": "dynamodb"}},
                    {"sqs": {"arn": {"Fn::GetAtt": ["WorkQueue", "Arn"]}}},
                ],
            }
        },
        "queues": {
            "WorkQueue": {"Properties": {"QueueName": "${param:tablePrefix}work"}},
            "LostQueue": {"Properties": {"QueueName": "${param:tablePrefix}lost_work.fifo"}},
            "NamelessQueue": {},
        },
        "stateMachines": {"OtherFlow": {}},
    }
    assert set(alarms_of(stack)) - {"AlarmsKey", "AlarmsTopic", "AlarmsTopicPolicy"} == {
        "FreshErrorsAlarm",
        "FreshThrottlesAlarm",
        "FreshDurationAlarm",
        "FreshStreamAgeAlarm",
        "WorkAgeAlarm",
        "LostWorkNotEmptyAlarm",
        "NamelessQueueNotEmptyAlarm",
        "OtherFlowFailedAlarm",
        "OtherFlowTimedOutAlarm",
    }


def documented(section: str) -> list[str]:
    """The rows of a table in docs/observing.md, below its heading."""
    text = DOCS.read_text(encoding="utf-8").partition(f"<!-- {section}: ")[2]
    rows = text.partition("<!-- end -->")[0].splitlines()[1:]
    return rows[2:]


def test_the_metrics_are_documented() -> None:
    """The table has each metric of the functions' source, its unit, its dimensions, its sources."""
    text = DOCS.read_text(encoding="utf-8")
    assert text == with_tables(text, metrics.tables(WORKSPACE)), "run `jobplane docs metrics`"


def described(template: dict[str, Any]) -> list[str]:
    """The rows that the table of alarms must have: one for all functions, queues and so on."""
    limits = {
        properties["FunctionName"]: properties["Timeout"]
        for function in of_type(template, "AWS::Lambda::Function").values()
        if (properties := function["Properties"])
    }
    rows = {}
    for name, properties in alarms(template).items():
        (dimension,) = properties["Dimensions"]
        kind = KINDS.get(dimension["Name"], "")
        threshold = f"{properties['Threshold']}"
        subject = re.sub(r"-(errors|throttles|duration|stream-age)$", "", name)
        subject = re.sub(r"-(age|not-empty|failed|timed-out)$", "", subject)
        says, _, anchor = properties["AlarmDescription"].partition(" See docs/observing.md#")
        if properties["MetricName"] == "Duration":
            limit = limits[dimension["Value"]] * 1000
            threshold = f"{properties['Threshold'] / limit:g} × its time limit"
        if kind:
            name = name.replace(subject, f"{{{kind}}}", 1)
            says = says.replace(subject, f"{{{kind}}}", 1)
        minutes, times = properties["Period"] // 60, properties["EvaluationPeriods"]
        span = f"{minutes // 60} h" if minutes >= 60 else f"{minutes} min"
        condition = (
            f"{properties['Statistic']} of `{properties['MetricName']}` ≥ {threshold} "
            f"in {f'{times} × ' if times > 1 else ''}{span}"
        )
        rows[f"| `{name}` | {says} | {condition} | [{anchor}](#{anchor}) |"] = None
    return list(rows)


def test_the_alarms_are_documented(compiled: Compiled) -> None:
    """The table has each kind of alarm: what it says, when, and where to read on."""
    assert sorted(documented("alarms")) == sorted(described(compiled("prod")))


def test_every_alarm_tells_what_to_do(compiled: Compiled) -> None:
    """Its text is a sentence and a section that is there; CloudWatch takes 1024 characters."""
    headings = re.findall(r"^#+ (.+)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-").replace("'", "") for heading in headings}
    for name, properties in alarms(compiled("prod")).items():
        says, _, anchor = properties["AlarmDescription"].partition(" See docs/observing.md#")
        assert says.endswith("."), name
        assert anchor in anchors, name
        assert len(properties["AlarmDescription"]) <= 1024, name


def test_every_queue_is_watched(compiled: Compiled) -> None:
    """A queue that a function reads must not fall behind; any other must stay empty."""
    template = compiled("prod")
    read = {
        mapping["Properties"]["EventSourceArn"]["Fn::GetAtt"][0]
        for mapping in of_type(template, "AWS::Lambda::EventSourceMapping").values()
        if "Queue" in str(mapping["Properties"]["EventSourceArn"])
    }
    found = {
        properties["Dimensions"][0]["Value"]["Fn::GetAtt"][0]: properties
        for properties in alarms(template).values()
        if properties["Namespace"] == "AWS/SQS"
    }
    queues = of_type(template, "AWS::SQS::Queue")
    assert set(found) == set(queues)
    assert read
    for logical, properties in found.items():
        age = properties["MetricName"] == "ApproximateAgeOfOldestMessage"
        assert age == (logical in read), logical
        assert age or properties["Threshold"] == 1


def test_apis_and_executions_are_watched(compiled: Compiled) -> None:
    """Server errors, errors behind the sockets, executions that failed or timed out."""
    found = {
        (properties["Namespace"], properties["MetricName"])
        for properties in alarms(compiled("prod")).values()
    }
    assert {
        ("AWS/ApiGateway", "5xx"),
        ("AWS/ApiGateway", "ExecutionError"),
        ("AWS/ApiGateway", "IntegrationError"),
        ("AWS/States", "ExecutionsFailed"),
        ("AWS/States", "ExecutionsTimedOut"),
    } <= found


def test_orphans_in_two_runs_are_told(compiled: Compiled) -> None:
    """Two periods of the schedule's length, both with an orphan; a late run changes nothing."""
    orphans = alarms(compiled("prod"))["orphans"]
    assert orphans["Period"] == 6 * 3600
    assert orphans["EvaluationPeriods"] == orphans["DatapointsToAlarm"] == 2
    assert orphans["Threshold"] == 1
    assert orphans["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert orphans["TreatMissingData"] == "ignore"


def test_no_data_is_no_alarm(compiled: Compiled) -> None:
    """Events that did not happen have no data; only what a run reports holds until the next."""
    for name, properties in alarms(compiled("prod")).items():
        held = name in {"counters-unchecked", "orphans"}
        assert properties["TreatMissingData"] == ("ignore" if held else "notBreaching"), name


@pytest.mark.parametrize(
    ("stage", "endpoint_url"), [("local", EMULATOR), ("staging", None), ("prod", None)]
)
def test_alarms_watch_what_is_published(
    compiled: Compiled, stage: str, endpoint_url: str | None
) -> None:
    """Every metric of an alarm is AWS's own, or emitted by a function with these dimensions."""
    found = alarms(compiled(stage, endpoint_url))
    assert found
    for name, properties in found.items():
        dimensions = frozenset(d["Name"] for d in properties["Dimensions"])
        watched = (properties["Namespace"], properties["MetricName"], dimensions)
        assert watched in known(), name
        if properties["Namespace"] == NAMESPACE:
            assert properties["Dimensions"] == [{"Name": "Environment", "Value": stage}]


def test_every_alarm_is_fired_by_a_test(compiled: Compiled) -> None:
    """What each watches is made to happen on a stage, and its definition is held against that."""
    assert set(alarms(compiled("prod"))) == FIRED


def test_alarms_tell_one_encrypted_topic(compiled: Compiled) -> None:
    """Alarm and all-clear go to a topic under a key that CloudWatch may use; AWS's own is none."""
    template = compiled("prod")
    for properties in alarms(template).values():
        assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": "AlarmsTopic"}]
    topic = template["Resources"]["AlarmsTopic"]["Properties"]
    (key_id, _) = topic["KmsMasterKeyId"]["Fn::GetAtt"]
    key = template["Resources"][key_id]["Properties"]
    allowed = {
        action: statement["Condition"]
        for statement in key["KeyPolicy"]["Statement"]
        if statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        for action in statement["Action"]
    }
    assert set(allowed) == {"kms:Decrypt", "kms:GenerateDataKey*"}
    (publish,) = template["Resources"]["AlarmsTopicPolicy"]["Properties"]["PolicyDocument"][
        "Statement"
    ]
    assert publish["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert publish["Action"] == "sns:Publish"
    for condition in (*allowed.values(), publish["Condition"]):
        assert condition == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_mail_is_a_parameter(compiled: Compiled) -> None:
    """Nobody is written to unless the stage names an address."""
    silent = compiled("prod")["Resources"]["AlarmsTopic"]["Properties"]
    assert "Subscription" not in silent
    told = compiled("prod", None, "alarmMail=ops@example.com")["Resources"]["AlarmsTopic"]
    assert told["Properties"]["Subscription"] == [
        {"Protocol": "email", "Endpoint": "ops@example.com"}
    ]


def test_a_stage_may_be_without_alarms(compiled: Compiled) -> None:
    """A stage of a developer has neither alarms nor topic, and its dashboard shows none."""
    template = compiled("dev")
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert not kinds & {"AWS::CloudWatch::Alarm", "AWS::SNS::Topic", "AWS::KMS::Key"}
    assert {widget["type"] for widget in widgets(template)} == {"text", "metric"}


def test_a_stage_may_be_without_a_dashboard(compiled: Compiled) -> None:
    """`dashboard: false` leaves it out."""
    template = compiled("dev", None, "dashboard=false")
    assert not of_type(template, "AWS::CloudWatch::Dashboard")


@pytest.mark.parametrize("name", ["counters-unchecked", "orphans"])
def test_scheduled_checks_are_watched_where_they_run(compiled: Compiled, name: str) -> None:
    """Without the schedules nothing would ever report, and the alarm could say nothing."""
    assert name in alarms(compiled("prod"))
    assert name not in alarms(compiled("staging"))


@pytest.mark.parametrize(
    ("stage", "endpoint_url"), [("local", EMULATOR), ("dev", None), ("prod", None)]
)
def test_the_dashboard_shows_what_is_published(
    compiled: Compiled, stage: str, endpoint_url: str | None
) -> None:
    """Every line is a metric of AWS or of a function, and no line is for another stage."""
    template = compiled(stage, endpoint_url)
    (dashboard,) = of_type(template, "AWS::CloudWatch::Dashboard").values()
    assert dashboard["Properties"]["DashboardName"] == WORKSPACE.names(stage).stack
    arithmetic = []
    for line in lines(template):
        watched = watched_by(line)
        if watched is None:
            arithmetic.append(line[0]["expression"])
            continue
        assert watched in known(), line
        if watched[0] == NAMESPACE:
            named = SEARCH.fullmatch(line[0]["expression"]) if isinstance(line[0], dict) else None
            assert (named["stage"] if named else line[3]) == stage, line
    ids = {part["id"] for line in lines(template) for part in line if "id" in part}
    for expression in arithmetic:
        assert set(re.findall(r"\b[a-z]\w*", expression)) <= ids, expression


def test_the_dashboard_names_what_the_stack_has(compiled: Compiled) -> None:
    """Functions stand under their deployed names, and every reference leads to a resource."""
    template = compiled("prod")
    (dashboard,) = of_type(template, "AWS::CloudWatch::Dashboard").values()
    text = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
    referred = set(re.findall(r"\$\{(\w+)(?:\.\w+)?\}", text))
    assert referred <= set(template["Resources"])
    functions = {line[3] for line in lines(template) if line[0] == "AWS/Lambda"}
    assert functions == {function.deployed_name("prod") for function in FUNCTIONS}


def test_the_dashboard_covers_what_an_operator_asks_for(compiled: Compiled) -> None:
    """Files, orphans, sockets, outcomes, queues, webhooks, functions, the job flow, alarms."""
    template = compiled("prod")
    shown = {watched[:2] for line in lines(template) if (watched := watched_by(line))}
    assert {
        *((NAMESPACE, name) for name in (
            "FilesByStatus", "OrphansByKind", "OldestPendingAgeSeconds",
            "ConnectionEstablished", "ConnectionClosed",
            "RequestCompleted", "RequestFailed", "RequestCancelled",
            "WebhookDelivered", "WebhookFailed",
        )),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage"),
        ("AWS/Lambda", "Errors"),
        ("AWS/Lambda", "Duration"),
        ("AWS/States", "ExecutionsFailed"),
    } <= shown  # fmt: skip
    (status,) = [widget for widget in widgets(template) if widget["type"] == "alarm"]
    assert len(status["properties"]["alarms"]) == len(alarms(template))


def test_widgets_do_not_overlap(compiled: Compiled) -> None:
    """Each cell of the 24 columns belongs to one widget at most."""
    taken: set[tuple[int, int]] = set()
    for widget in widgets(compiled("prod")):
        assert widget["x"] + widget["width"] <= 24
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not taken & cells, widget["properties"]
        taken |= cells


@pytest.mark.parametrize(
    ("stage", "endpoint_url", "enabled"),
    [
        ("local", EMULATOR, False),
        ("dev", None, False),
        ("staging", None, False),
        ("prod", None, True),
    ],
)
def test_schedules_are_the_stage_s_choice(
    compiled: Compiled, stage: str, endpoint_url: str | None, enabled: bool
) -> None:
    """state-manager's checks run where the stage says so; the sweeper of leases runs everywhere."""
    template = compiled(stage, endpoint_url)
    rules = {
        (properties["ScheduleExpression"], json.loads(target["Input"]).get("operation")): properties
        for rule in of_type(template, "AWS::Events::Rule").values()
        if "ScheduleExpression" in (properties := rule["Properties"])
        for target in properties["Targets"]
    }
    states = {key: properties["State"] for key, properties in rules.items()}
    checks = "ENABLED" if enabled else "DISABLED"
    assert states[("rate(1 minute)", None)] == "ENABLED"
    assert states[("rate(6 hours)", "find_orphans")] == checks
    assert states[("rate(1 hour)", "get_stats")] == checks
    assert states[("cron(0 3 ? * SUN *)", "get_stats")] == checks
    invoked = {
        json.dumps(permission["Properties"]["SourceArn"]): permission["Properties"]["FunctionName"]
        for permission in of_type(template, "AWS::Lambda::Permission").values()
        if permission["Properties"]["Principal"] == "events.amazonaws.com"
    }
    for logical, rule in of_type(template, "AWS::Events::Rule").items():
        (target,) = rule["Properties"]["Targets"]
        assert invoked[json.dumps({"Fn::GetAtt": [logical, "Arn"]})] == target["Arn"]


def test_schedules_say_what_is_to_be_done(compiled: Compiled) -> None:
    """A scheduled run is told that it is one; from which age on a file is stuck; to count all."""
    given = [
        json.loads(target["Input"])
        for rule in of_type(compiled("prod"), "AWS::Events::Rule").values()
        for target in rule["Properties"]["Targets"]
        if "Input" in target
    ]
    assert {
        "source": "jobplane.schedule",
        "operation": "find_orphans",
        "max_processing_hours": 2,
    } in given
    assert {"source": "jobplane.schedule", "operation": "get_stats", "exact": True} in given
