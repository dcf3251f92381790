"""Alarms, dashboard and schedules: everything is watched, and everything watched exists."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from jobplane.reference import metrics
from jobplane.reference.documents import with_tables
from jobplane.reference.metrics import emitted
from jobplane.tree.repository import Function
from tests.e2e.test_alarms import CALLED, FIRED
from tests.workspace.templates import EMULATOR, REPOSITORY, Compiled, alarms_of, of_type

DOCS = REPOSITORY.root / "docs" / "observing.md"
FUNCTIONS = REPOSITORY.functions()
NAMESPACE = REPOSITORY.names("").metrics
SEARCH = re.compile(
    r"SEARCH\('\{(?P<schema>[^}]+)\} MetricName=\"(?P<name>\w+)\" \w+=\"(?P<of>[^\"]+)\"', "
    r"'(?P<stat>\w+)', (?P<period>\d+)\)"
)
# AWS's metrics in use, by their dimensions.
OF_A_TABLE = (
    "ConsumedReadCapacityUnits ConsumedWriteCapacityUnits ReadThrottleEvents WriteThrottleEvents"
)
AWS = {
    ("AWS/Lambda", "FunctionName"): (
        "ConcurrentExecutions Duration Errors Invocations IteratorAge Throttles"
    ),
    ("AWS/SQS", "QueueName"): "ApproximateAgeOfOldestMessage ApproximateNumberOfMessagesVisible",
    ("AWS/ApiGateway", "ApiId"): "4xx 5xx Count ExecutionError IntegrationError MessageCount",
    ("AWS/States", "StateMachineArn"): (
        "ExecutionsAborted ExecutionsFailed ExecutionsStarted ExecutionsSucceeded "
        "ExecutionsTimedOut"
    ),
    ("AWS/DynamoDB", "TableName"): OF_A_TABLE,
    ("AWS/DynamoDB", "TableName GlobalSecondaryIndexName"): OF_A_TABLE,
    ("AWS/DynamoDB", "TableName Operation"): (
        "SuccessfulRequestLatency SystemErrors ThrottledRequests"
    ),
}
SYMBOLS = {"GreaterThanOrEqualToThreshold": "≥", "GreaterThanThreshold": ">"}

# What stands for all alarms of a kind in the documentation: a word for their subject, which is what
# comes before the rest of their name.
KINDS = {
    "function": r"-(errors|error-rate|answered-errors|throttles|duration|latency|stream-age)$",
    "table": r"-(read|write)-throttles$",
    "queue": r"-(age|not-empty)$",
    "flow": r"-(failed|timed-out)$",
}
KIND_OF_SECTION = {
    **dict.fromkeys(["function-errors", "error-rates", "answered-errors", "latencies"], "function"),
    **dict.fromkeys(["throttles", "durations", "streams"], "function"),
    **dict.fromkeys(["dead-letters", "late-messages"], "queue"),
    "table-throttles": "table",
    "executions": "flow",
}
# The documented conditions of alarms on several metrics.
SEVERAL = {
    "answered-errors": "Sum of its [answered errors](#answered-errors)",
    "error-rates": (
        "`Errors`, and what callers were [answered](#answered-errors), in percent of at least 100 "
        "`Invocations`,"
    ),
    "table-throttles": "Sum of `{kind}ThrottleEvents` of the table and its indexes",
}

type Watched = tuple[str, str, frozenset[str]]
"""Namespace, metric, dimensions."""


def alarms(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Properties of the alarms by name, without the stage's prefix."""
    found = {}
    for resource in of_type(template, "AWS::CloudWatch::Alarm").values():
        properties = resource["Properties"]
        found[re.sub(rf"^{REPOSITORY.service}-[a-z]+-", "", properties["AlarmName"])] = properties
    return found


def metrics_of(properties: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of an alarm."""
    if "Metrics" not in properties:
        return [properties]
    return [q["MetricStat"]["Metric"] for q in properties["Metrics"] if "MetricStat" in q]


def dimensions_of(metric: dict[str, Any]) -> dict[str, Any]:
    """The dimensions of a metric, by name."""
    return {each["Name"]: each["Value"] for each in metric["Dimensions"]}


def widgets(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The dashboard's widgets, with references as `${LogicalId}`."""
    (dashboard,) = of_type(template, "AWS::CloudWatch::Dashboard").values()
    body: dict[str, Any] = json.loads(dashboard["Properties"]["DashboardBody"]["Fn::Sub"])
    found: list[dict[str, Any]] = body["widgets"]
    return found


def lines(template: dict[str, Any]) -> Iterator[list[Any]]:
    """Every line of every graph."""
    for widget in widgets(template):
        yield from widget["properties"].get("metrics", ())


def watched_by(line: list[Any]) -> Watched | None:
    """The metric of a graph's line; None for arithmetic over other lines."""
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
    """The metrics that AWS and the functions publish."""
    ours = {
        (NAMESPACE, metric.name, frozenset({"Environment"}) | dimensions)
        for metric in emitted(REPOSITORY)
        for dimensions in (frozenset(), metric.dimensions)
    }
    theirs = {
        (namespace, name, frozenset(dimensions.split()))
        for (namespace, dimensions), names in AWS.items()
        for name in names.split()
    }
    return ours | theirs


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_function_has_alarms_on_errors_rate_throttles_and_duration(
    compiled: Compiled, function: Function
) -> None:
    of_function = {
        name.removeprefix(f"{function.name}-"): properties
        for name, properties in alarms(compiled("prod")).items()
        if re.sub(KINDS["function"], "", name) == function.name
    }
    streams = any("stream" in event for event in function.config.get("events", ()))
    answers = bool(function.config.get("alarms", {}).get("answeredErrors"))
    assert set(of_function) == {
        *("errors", "error-rate", "throttles", "duration"),
        *(["answered-errors"] if answers else []),
        *(["latency"] if function.name in CALLED else []),
        *(["stream-age"] if streams else []),
    }
    deployed = {"FunctionName": function.deployed_name("prod")}
    for name in ("errors", "throttles", "duration", *(["stream-age"] if streams else [])):
        assert dimensions_of(of_function[name]) == deployed
    assert of_function["errors"]["Threshold"] == 1
    limit = function.config["timeout"] * 1000
    assert 0.8 * limit <= of_function["duration"]["Threshold"] < limit


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_the_error_rate_alarm_needs_a_hundred_invocations(
    compiled: Compiled, function: Function
) -> None:
    """Answered errors count as well."""
    rate = alarms(compiled("prod"))[f"{function.name}-error-rate"]
    expression, *queries = rate["Metrics"]
    answered = function.config.get("alarms", {}).get("answeredErrors", [])
    counted = answered if function.name in CALLED else []
    assert {query["MetricStat"]["Metric"]["MetricName"] for query in queries} == {
        *("Invocations", "Errors"),
        *(given["metric"] for given in counted),
    }
    assert expression["Expression"].startswith("IF(invocations >= 100, 100 * (errors")
    assert (rate["Threshold"], rate["ComparisonOperator"]) == (1, "GreaterThanThreshold")
    assert {(q["MetricStat"]["Period"], q["MetricStat"]["Stat"]) for q in queries} == {(300, "Sum")}


def statuses_in(function: Function) -> set[int]:
    """The statuses from 500 to 599 in a function's source."""
    source = ast.walk(ast.parse(function.source.read_text(encoding="utf-8")))
    numbers = {node.value for node in source if isinstance(node, ast.Constant)}
    return {n for n in numbers if isinstance(n, int) and 500 <= n <= 599}


# Its 503 asks the client to come again while S3 joins the parts of a large file: no fault.
PATIENT = {"upload-parts"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_function_that_answers_errors_emits_their_metric(function: Function) -> None:
    answered = function.config.get("alarms", {}).get("answeredErrors", [])
    if statuses_in(function) & {500, 503} and function.name not in PATIENT:
        assert answered, "it answers 500 or 503: count that, and name the metric in function.yml"
    source = function.source.read_text(encoding="utf-8")
    for metric, *dimensions in (list(given.items()) for given in answered):
        wanted = (metric[1], function.name)
        found = {e.dimensions for e in emitted(REPOSITORY) if (e.name, e.function) == wanted}
        names = {name for name, _ in dimensions}
        assert any(names <= each for each in found), (metric, found)
        for _, value in dimensions:
            assert re.search(rf"[\"\.]{value}\b", source), value


def test_every_table_and_index_has_alarms_on_throttles(compiled: Compiled) -> None:
    template = compiled("prod")
    tables = of_type(template, "AWS::DynamoDB::Table")
    wanted = [{"TableName": {"Ref": logical}} for logical in tables]
    wanted += [
        {"TableName": {"Ref": logical}, "GlobalSecondaryIndexName": index["IndexName"]}
        for logical, table in tables.items()
        for index in table["Properties"].get("GlobalSecondaryIndexes", ())
    ]
    for kind in ("read", "write"):
        watched = [
            dimensions_of(each)
            for name, properties in alarms(template).items()
            if name.endswith(f"-{kind}-throttles")
            for each in metrics_of(properties)
            if each["MetricName"] == f"{kind.title()}ThrottleEvents"
        ]
        assert sorted(watched, key=str) == sorted(wanted, key=str)


def test_an_alarms_expressions_are_within_cloudwatchs_limits(compiled: Compiled) -> None:
    """Ten metrics, and ids that begin with a small letter."""
    for name, properties in alarms(compiled("prod")).items():
        assert len(metrics_of(properties)) <= 10, name
        for query in properties.get("Metrics", ()):
            assert re.fullmatch(r"[a-z][A-Za-z0-9_]*", query["Id"]), name


def test_new_functions_and_resources_get_their_alarms() -> None:
    def function(*events: dict[str, Any], **alarms: Any) -> dict[str, Any]:
        return {"timeout": 60, "events": events} | ({"alarms": alarms} if alarms else {})

    stack = {
        "functions": {
            "fresh": function(
                {"stream": {"type": "dynamodb"}},
                {"sqs": {"arn": {"Fn::GetAtt": ["WorkQueue", "Arn"]}}},
            ),
            "asked": function({"httpApi": {"path": "/"}}),
            "slow": function({"httpApi": {"path": "/"}}, latency={"seconds": 30}),
            "slowest": function({"websocket": {"route": "slow"}}, latency=False),
            "left": function({"websocket": {"route": "$disconnect"}}),
            "one-step": {"timeout": 10},
        },
        "tables": {
            "PlacesTable": {"Properties": {"TableName": "${param:tablePrefix}places"}},
            "NamelessTable": {"Properties": {}},
        },
        "queues": {
            "WorkQueue": {"Properties": {"QueueName": "${param:tablePrefix}work"}},
            "LostQueue": {"Properties": {"QueueName": "${param:tablePrefix}lost_work.fifo"}},
            "NamelessQueue": {},
        },
        "stateMachines": {
            "OtherFlow": {"Properties": {"S": {"Fn::GetAtt": ["OneDashstepLambdaFunction", "Arn"]}}}
        },
    }
    made = alarms_of(stack)
    always = ("Errors", "ErrorRate", "Throttles", "Duration")
    functions = ("Fresh", "Asked", "Slow", "Slowest", "Left", "OneStep")
    assert made["SlowLatencyAlarm"]["Properties"]["Threshold"] == 30_000
    assert set(made) - {"AlarmsKey", "AlarmsTopic", "AlarmsTopicPolicy"} == {
        *(f"{function}{kind}Alarm" for function in functions for kind in always),
        "FreshStreamAgeAlarm",
        "AskedLatencyAlarm",
        "SlowLatencyAlarm",
        "OneStepLatencyAlarm",
        "PlacesReadThrottlesAlarm",
        "PlacesWriteThrottlesAlarm",
        "NamelessTableReadThrottlesAlarm",
        "NamelessTableWriteThrottlesAlarm",
        "WorkAgeAlarm",
        "LostWorkNotEmptyAlarm",
        "NamelessQueueNotEmptyAlarm",
        *("Http5xxAlarm", "WebsocketExecutionErrorsAlarm", "WebsocketIntegrationErrorsAlarm"),
        "OtherFlowFailedAlarm",
        "OtherFlowTimedOutAlarm",
    }


def documented(section: str) -> list[str]:
    """The rows of a table in docs/observing.md below a heading."""
    text = DOCS.read_text(encoding="utf-8").partition(f"<!-- {section}: ")[2]
    rows = text.partition("<!-- end -->")[0].splitlines()[1:]
    return rows[2:]


def test_every_metric_is_documented() -> None:
    """And those that count answered errors."""
    text = DOCS.read_text(encoding="utf-8")
    assert text == with_tables(text, metrics.tables(REPOSITORY)), "run `jobplane docs metrics`"


def described(template: dict[str, Any]) -> list[str]:
    """The rows that the table of alarms must have, one for each kind."""
    limits = {
        properties["FunctionName"]: properties["Timeout"]
        for function in of_type(template, "AWS::Lambda::Function").values()
        if (properties := function["Properties"])
    }
    rows = {}
    for name, properties in alarms(template).items():
        says, _, anchor = properties["AlarmDescription"].partition(" See docs/observing.md#")
        if word := KIND_OF_SECTION.get(anchor):
            subject = re.sub(KINDS[word], "", name)
            name = name.replace(subject, f"{{{word}}}", 1)
            says = says.replace(subject, f"{{{word}}}", 1)
        threshold = f"{properties['Threshold']}"
        if anchor in SEVERAL:
            kind = "Read" if "-read-" in name else "Write"
            what = SEVERAL[anchor].format(kind=kind)
        else:
            statistic = properties.get("ExtendedStatistic") or properties["Statistic"]
            what = f"{statistic} of `{properties['MetricName']}`"
        if anchor == "durations":
            limit = limits[dimensions_of(properties)["FunctionName"]] * 1000
            threshold = f"{properties['Threshold'] / limit:g} × its time limit"
        math = [query["MetricStat"] for query in properties.get("Metrics", ())[1:]]
        seconds, times = (math or [properties])[0]["Period"], properties["EvaluationPeriods"]
        span = f"{seconds // 3600} h" if seconds >= 3600 else f"{seconds // 60} min"
        condition = (
            f"{what} {SYMBOLS[properties['ComparisonOperator']]} {threshold} "
            f"in {f'{times} × ' if times > 1 else ''}{span}"
        )
        rows[f"| `{name}` | {says} | {condition} | [{anchor}](#{anchor}) |"] = None
    return list(rows)


def test_the_documented_cost_of_alarms_is_right(compiled: Compiled) -> None:
    """CloudWatch bills each metric of an alarm."""
    watched = sum(len(metrics_of(properties)) for properties in alarms(compiled("prod")).values())
    (said,) = re.findall(r"alarms over (\d+) metrics", DOCS.read_text(encoding="utf-8"))
    assert watched <= int(said) * 1.1


def test_every_kind_of_alarm_is_documented(compiled: Compiled) -> None:
    assert sorted(documented("alarms")) == sorted(described(compiled("prod")))


def test_every_alarms_text_has_a_sentence_and_an_existing_section(compiled: Compiled) -> None:
    """At most 1024 characters."""
    headings = re.findall(r"^#+ (.+)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-").replace("'", "") for heading in headings}
    for name, properties in alarms(compiled("prod")).items():
        says, _, anchor = properties["AlarmDescription"].partition(" See docs/observing.md#")
        assert says.endswith("."), name
        assert anchor in anchors, name
        assert len(properties["AlarmDescription"]) <= 1024, name


def test_every_queue_has_an_alarm_on_age_or_content(compiled: Compiled) -> None:
    """By whether a function reads it."""
    template = compiled("prod")
    read = {
        mapping["Properties"]["EventSourceArn"]["Fn::GetAtt"][0]
        for mapping in of_type(template, "AWS::Lambda::EventSourceMapping").values()
        if "Queue" in str(mapping["Properties"]["EventSourceArn"])
    }
    found = {
        properties["Dimensions"][0]["Value"]["Fn::GetAtt"][0]: properties
        for properties in alarms(template).values()
        if properties.get("Namespace") == "AWS/SQS"
    }
    queues = of_type(template, "AWS::SQS::Queue")
    assert set(found) == set(queues)
    assert read
    for logical, properties in found.items():
        age = properties["MetricName"] == "ApproximateAgeOfOldestMessage"
        assert age == (logical in read), logical
        assert age or properties["Threshold"] == 1


def test_missing_data_is_good_except_for_metrics_of_runs(compiled: Compiled) -> None:
    for name, properties in alarms(compiled("prod")).items():
        held = name in {"counters-unchecked", "orphans"}
        assert properties["TreatMissingData"] == ("ignore" if held else "notBreaching"), name


@pytest.mark.parametrize(
    ("stage", "endpoint_url"), [("local", EMULATOR), ("staging", None), ("prod", None)]
)
def test_every_metric_of_an_alarm_is_published_with_its_dimensions(
    compiled: Compiled, stage: str, endpoint_url: str | None
) -> None:
    found = alarms(compiled(stage, endpoint_url))
    assert found
    for name, properties in found.items():
        for metric in metrics_of(properties):
            dimensions = dimensions_of(metric)
            watched = (metric["Namespace"], metric["MetricName"], frozenset(dimensions))
            assert watched in known(), name
            if metric["Namespace"] == NAMESPACE:
                assert dimensions["Environment"] == stage, name


def test_every_alarm_is_set_off_by_an_end_to_end_test(compiled: Compiled) -> None:
    assert set(alarms(compiled("prod"))) == FIRED


def test_every_alarm_notifies_one_topic_that_cloudwatch_can_encrypt_for(compiled: Compiled) -> None:
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


def test_only_a_stage_with_alarmMail_has_a_subscription(compiled: Compiled) -> None:
    silent = compiled("prod")["Resources"]["AlarmsTopic"]["Properties"]
    assert "Subscription" not in silent
    told = compiled("prod", None, "alarmMail=ops@example.com")["Resources"]["AlarmsTopic"]
    assert told["Properties"]["Subscription"] == [
        {"Protocol": "email", "Endpoint": "ops@example.com"}
    ]


def test_a_stage_without_alarms_has_no_topic_and_no_alarms_widget(compiled: Compiled) -> None:
    template = compiled("dev")
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert not kinds & {"AWS::CloudWatch::Alarm", "AWS::SNS::Topic", "AWS::KMS::Key"}
    assert {widget["type"] for widget in widgets(template)} == {"text", "metric"}


def test_dashboard_false_omits_the_dashboard(compiled: Compiled) -> None:
    template = compiled("dev", None, "dashboard=false")
    assert not of_type(template, "AWS::CloudWatch::Dashboard")


@pytest.mark.parametrize("name", ["counters-unchecked", "orphans"])
def test_a_stage_without_schedules_has_no_alarms_on_their_metrics(
    compiled: Compiled, name: str
) -> None:
    assert name in alarms(compiled("prod"))
    assert name not in alarms(compiled("staging"))


@pytest.mark.parametrize(
    ("stage", "endpoint_url"), [("local", EMULATOR), ("dev", None), ("prod", None)]
)
def test_every_line_of_the_dashboard_is_a_published_metric_of_this_stage(
    compiled: Compiled, stage: str, endpoint_url: str | None
) -> None:
    template = compiled(stage, endpoint_url)
    (dashboard,) = of_type(template, "AWS::CloudWatch::Dashboard").values()
    assert dashboard["Properties"]["DashboardName"] == REPOSITORY.names(stage).stack
    arithmetic = []
    for line in lines(template):
        watched = watched_by(line)
        if watched is None:
            arithmetic.append(line[0]["expression"])
            continue
        assert watched in known(), line
        if watched[0] == NAMESPACE:
            named = SEARCH.fullmatch(line[0]["expression"]) if isinstance(line[0], dict) else None
            assert (named["of"] if named else line[3]) == stage, line
    ids = {part["id"] for line in lines(template) for part in line if "id" in part}
    for expression in arithmetic:
        assert set(re.findall(r"\b[a-z]\w*", expression)) <= ids, expression


def test_every_name_and_reference_of_the_dashboard_exists(compiled: Compiled) -> None:
    template = compiled("prod")
    (dashboard,) = of_type(template, "AWS::CloudWatch::Dashboard").values()
    text = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
    referred = set(re.findall(r"\$\{(\w+)(?:\.\w+)?\}", text))
    assert referred <= set(template["Resources"])
    functions = {line[3] for line in lines(template) if line[0] == "AWS/Lambda"}
    assert functions == {function.deployed_name("prod") for function in FUNCTIONS}


def test_the_dashboard_has_its_sections(compiled: Compiled) -> None:
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
        *(("AWS/DynamoDB", name) for name in (
            "ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "ReadThrottleEvents",
            "WriteThrottleEvents", "ThrottledRequests", "SuccessfulRequestLatency", "SystemErrors",
        )),
    } <= shown  # fmt: skip
    (status,) = [widget for widget in widgets(template) if widget["type"] == "alarm"]
    assert len(status["properties"]["alarms"]) == len(alarms(template))


def test_widgets_do_not_overlap(compiled: Compiled) -> None:
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
def test_state_managers_schedules_are_a_parameter_of_the_stage(
    compiled: Compiled, stage: str, endpoint_url: str | None, enabled: bool
) -> None:
    """The sweeper of leases runs on every stage."""
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


def test_every_schedule_has_its_input(compiled: Compiled) -> None:
    """That it is scheduled, the age of stuck files, an exact count."""
    given = [
        json.loads(target["Input"])
        for rule in of_type(compiled("prod"), "AWS::Events::Rule").values()
        for target in rule["Properties"]["Targets"]
        if "Input" in target
    ]
    schedule = {"source": "jobplane.schedule"}
    assert schedule | {"operation": "find_orphans", "max_processing_hours": 2} in given
    assert schedule | {"operation": "get_stats", "exact": True} in given


def test_metrics_of_an_invocation_fit_in_one_document() -> None:
    """At most 100 metrics, and 30 dimensions."""
    together: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    for metric in emitted(REPOSITORY):
        together[metric.function, metric.dimensions].add(metric.name)
    assert together
    for (function, dimensions), names in together.items():
        assert len({"Environment", *dimensions}) <= 30, function
        assert len(names) <= 100, function
