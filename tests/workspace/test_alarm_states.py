"""The evaluator of alarms in the end-to-end tests, by CloudWatch's examples."""

from dataclasses import replace
from typing import Any

import pytest

from tests.alarm_states import Alarm, Point, Series, State, embedded, evaluated

NOW = 1_795_330_800.0 - 1  # the last second of a minute
SYMBOLS = {"X": 2.0, "0": 0.0}


def alarm(**changes: Any) -> Alarm:
    """An alarm on at least one of something within five minutes."""
    return Alarm.of(
        {
            "AlarmName": "jobplane-test-errors",
            "Namespace": "AWS/Lambda",
            "MetricName": "Errors",
            "Dimensions": [{"Name": "FunctionName", "Value": "jobplane-test-claim"}],
            "Statistic": "Sum",
            "Period": 300,
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
        }
        | changes
    )


def rate(**changes: Any) -> Alarm:
    """An alarm on more than 1 % of at least 100 invocations within five minutes."""
    of_function = [{"Name": "FunctionName", "Value": "jobplane-test-claim"}]

    def query(name: str, metric: str) -> dict[str, Any]:
        watched = {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": of_function}
        stat = {"Metric": watched, "Period": 300, "Stat": "Sum"}
        return {"Id": name, "MetricStat": stat, "ReturnData": False}

    return Alarm.of(
        {
            "AlarmName": "jobplane-test-rate",
            "Metrics": [
                {
                    "Id": "result",
                    "Expression": "IF(invocations >= 100, 100 * errors / invocations, 0)",
                    "ReturnData": True,
                },
                query("invocations", "Invocations"),
                query("errors", "Errors"),
            ],
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        }
        | changes
    )


def drawn(watching: Alarm, picture: str) -> list[Point]:
    """Points from a text of periods, the newest on the right: X breaches, - is missing."""
    periods = reversed(list(enumerate(reversed(picture.split()))))
    return [
        watching.point(NOW - n * watching.period, SYMBOLS[symbol])
        for n, symbol in periods
        if symbol != "-"
    ]


@pytest.mark.parametrize(
    ("to_alarm", "picture", "ignore", "breaching", "not_breaching"),
    [
        (3, "0 - X - X", "OK", "OK", "OK"),
        (3, "0 - - - -", "OK", "OK", "OK"),
        (3, "- - - - -", "kept", "ALARM", "OK"),
        (3, "0 X X - X", "ALARM", "ALARM", "ALARM"),
        (3, "- - X - -", "kept", "ALARM", "OK"),
        (2, "0 - X - X", "ALARM", "ALARM", "ALARM"),
        (2, "0 0 X 0 X", "ALARM", "ALARM", "ALARM"),
        (2, "0 - X - -", "OK", "ALARM", "OK"),
        (2, "- - - - 0", "OK", "ALARM", "OK"),
        (2, "- - - X -", "kept", "ALARM", "OK"),
    ],
)
@pytest.mark.parametrize("before", ["OK", "ALARM"])
def test_missing_data_is_evaluated_as_in_cloudwatchs_tables(
    before: State, to_alarm: int, picture: str, ignore: str, breaching: str, not_breaching: str
) -> None:
    """Three periods, of which so many must breach."""
    wanted = {"ignore": ignore, "breaching": breaching, "notBreaching": not_breaching}
    for treatment, state in wanted.items():
        watching = alarm(
            EvaluationPeriods=3, DatapointsToAlarm=to_alarm, TreatMissingData=treatment
        )
        found = watching.state(drawn(watching, picture), NOW, before)
        assert found == (before if state == "kept" else state), treatment


@pytest.mark.parametrize(
    ("statistic", "value"),
    [("Sum", 6), ("Maximum", 3), ("Minimum", 1), ("Average", 2), ("SampleCount", 3)],
)
def test_a_statistic_covers_one_period(statistic: str, value: int) -> None:
    for threshold, state in ((value, "ALARM"), (value + 0.1, "OK")):
        watching = alarm(Statistic=statistic, Threshold=threshold)
        values = [watching.point(NOW - n, float(n)) for n in (1, 2, 3)]
        assert watching.state([watching.point(NOW - 301, 1000), *values], NOW) == state


@pytest.mark.parametrize(
    ("comparison", "states"),
    [
        ("GreaterThanOrEqualToThreshold", ["OK", "ALARM", "ALARM"]),
        ("GreaterThanThreshold", ["OK", "OK", "ALARM"]),
        ("LessThanThreshold", ["ALARM", "OK", "OK"]),
        ("LessThanOrEqualToThreshold", ["ALARM", "ALARM", "OK"]),
    ],
)
def test_comparisons_below_at_and_above_the_threshold(comparison: str, states: list[State]) -> None:
    watching = alarm(ComparisonOperator=comparison, Threshold=5)
    assert [watching.state([watching.point(NOW, v)], NOW) for v in (4, 5, 6)] == states


def test_a_point_stops_counting_a_minute_after_its_last_period() -> None:
    watching = alarm()
    points = [watching.point(NOW - 299, 1)]
    assert watching.state(points, NOW) == "ALARM"
    assert watching.state([*points, watching.point(NOW + 60, 0)], NOW + 60) == "OK"


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "Jobplane"},
        {"name": "Throttles"},
        {"dimensions": frozenset({("FunctionName", "jobplane-test-router")})},
        {"dimensions": frozenset()},
    ],
)
def test_a_metric_must_match_in_namespace_name_and_every_dimension(change: dict[str, Any]) -> None:
    watching = alarm()
    point = watching.point(NOW, 1)
    assert watching.state([point], NOW) == "ALARM"
    assert watching.state([replace(point, **change)], NOW) == "OK"


def series(text: str) -> Series:
    """A series as CloudWatch's documentation writes it: - is missing."""
    return {float(at): float(value) for at, value in enumerate(text.split(", ")) if value != "-"}


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("metric1 < metric2", "0, 0, 1, 0"),
        ("metric1 >= 30", "1, 0, 0, 0"),
        ("metric1 + metric2", "50, 20, 20, 0"),
        ("metric1 - metric2", "10, 20, -20, 0"),
        ("metric1 / metric2", "1.5, -, 0, -"),
        ("100 / metric2", "5, -, 5, -"),
        ("2 * 3 + metric2", "26, -, 26, -"),
    ],
)
def test_metric_math_operators_follow_cloudwatchs_example(expression: str, output: str) -> None:
    """A missing value is 0; a division by 0 is dropped."""
    given = {"metric1": series("30, 20, 0, 0"), "metric2": series("20, -, 20, -")}
    assert evaluated(expression, given) == series(output)


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("IF(metric1, metric2, metric3)", "30, 0, 20, -, -"),
        ("IF(metric1, 5, metric3)", "5, 5, 20, -, -"),
        ("IF(metric1, metric2, 5)", "30, 0, 5, 5, -"),
        ("IF(metric1, metric2)", "30, 0, -, -, -"),
    ],
)
def test_metric_math_conditions_follow_cloudwatchs_tables(expression: str, output: str) -> None:
    texts = {"metric1": "1, 1, 0, 0, -", "metric2": "30, -, 0, 0, 30", "metric3": "0, 0, 20, -, 20"}
    given = {name: series(text) for name, text in texts.items()}
    assert evaluated(expression, given) == series(output)


@pytest.mark.parametrize(
    "expression", ["FILL(metric1, 0)", "-metric1", "metric1 in metric1", "IF(1, metric1)", "1 + 1"]
)
def test_an_unsupported_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"evaluated here|is a number"):
        evaluated(expression, {"metric1": {0.0: 1.0}})


@pytest.mark.parametrize(
    ("invocations", "errors", "state"),
    [(3, 1, "OK"), (99, 99, "OK"), (100, 1, "OK"), (100, 2, "ALARM"), (400, 5, "ALARM")],
)
def test_metrics_of_an_expression_are_separate(invocations: int, errors: int, state: State) -> None:
    watching = rate()
    points = [
        watching.metrics[name].point(NOW - 1, 1)
        for name, number in (("invocations", invocations), ("errors", errors))
        for _ in range(number)
    ]
    assert watching.state(points, NOW) == state
    later = watching.metrics["invocations"].point(NOW + 300, 1)
    assert watching.state([*points, later], NOW + 300) == "OK"


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([5.0] * 95 + [6.0] * 5, "OK"),
        ([5.0] * 94 + [6.0] * 6, "ALARM"),
        ([5.0] * 18 + [6.0], "ALARM"),
        ([5.0] * 19 + [6.0], "OK"),
        ([6.0], "ALARM"),
    ],
)
def test_p95_is_a_value_that_95_percent_do_not_exceed(values: list[float], state: State) -> None:
    above = {"Threshold": 5, "ComparisonOperator": "GreaterThanThreshold"}
    watching = alarm(Statistic=None, ExtendedStatistic="p95", **above)
    assert watching.state([watching.point(NOW, value) for value in values], NOW) == state


def test_an_embedded_line_is_a_point_for_each_set_of_dimensions() -> None:
    line = {
        "_aws": {
            "Timestamp": 1_795_330_800_500,
            "CloudWatchMetrics": [
                {
                    "Namespace": "Jobplane",
                    "Dimensions": [["Environment"], ["Environment", "Action"]],
                    "Metrics": [{"Name": "Latency", "Unit": "Milliseconds"}],
                }
            ],
        },
        "Environment": "test",
        "Action": "ping",
        "user_id": "u",
        "Latency": [1.5, 2.5],
    }
    stage = frozenset({("Environment", "test")})
    assert set(embedded(line)) == {
        Point("Jobplane", "Latency", dimensions, 1_795_330_800.5, value)
        for dimensions in (stage, stage | {("Action", "ping")})
        for value in (1.5, 2.5)
    }
    assert list(embedded({"message": "x"})) == []


@pytest.mark.parametrize(
    "change",
    [
        {"Statistic": None},
        {"ExtendedStatistic": "p99"},
        {"EvaluateLowSampleCountPercentile": "ignore"},
        {"TreatMissingData": "missing"},
    ],
)
def test_an_unsupported_alarm_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="jobplane-test-errors"):
        alarm(**change)
