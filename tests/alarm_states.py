"""The state of an alarm after given data points, by CloudWatch's documented rules.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html

An alarm is evaluated every minute, over whole periods that end with that minute. Two periods more
than it needs are looked at, so that a point that is missing may be made up for by an older one; how
many more CloudWatch takes is not documented, two are those of its examples.
"""

import ast
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, Self

type State = Literal["OK", "ALARM"]
type Dimensions = frozenset[tuple[str, str]]
type Series = dict[float, float]
"""Values by the ends of their periods."""
type Operand = Series | float

MINUTE = 60
MORE_PERIODS = 2
NO_DATA: Series = {}
STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "Average": fmean,
    "SampleCount": len,
    "p95": lambda values: percentile(values, 95),
}
COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
TREATMENTS = frozenset({"notBreaching", "breaching", "ignore"})
OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def percentile(values: list[float], percent: float) -> float:
    """The least of the values that so many percent of them do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


@dataclass(frozen=True)
class Point:
    """One value of one metric; `at` in epoch seconds."""

    namespace: str
    name: str
    dimensions: Dimensions
    at: float
    value: float

    def moved(self, seconds: float) -> Self:
        """The same value at another time."""
        return replace(self, at=self.at + seconds)


@dataclass(frozen=True)
class Metric:
    """A metric, and the statistic of it that an alarm watches."""

    namespace: str
    name: str
    dimensions: Dimensions
    statistic: str

    @classmethod
    def of(cls, definition: Mapping[str, Any], statistic: str | None) -> Self:
        """From CloudFormation's properties. Raises ValueError for other statistics."""
        if statistic not in STATISTICS:
            raise ValueError(f"the statistic {statistic} is not evaluated here")
        dimensions = frozenset((d["Name"], d["Value"]) for d in definition.get("Dimensions", ()))
        return cls(definition["Namespace"], definition["MetricName"], dimensions, statistic)

    def point(self, at: float, value: float) -> Point:
        """A value of the metric."""
        return Point(self.namespace, self.name, self.dimensions, at, value)

    def value(self, points: Iterable[Point], start: float, end: float) -> float | None:
        """The statistic of a period; None if no value lies in it."""
        watched = (self.namespace, self.name, self.dimensions)
        values = [
            point.value
            for point in points
            if start <= point.at < end
            and (point.namespace, point.name, point.dimensions) == watched
        ]
        return STATISTICS[self.statistic](values) if values else None


@dataclass(frozen=True)
class Alarm:
    """An alarm on one metric, or on an expression over several."""

    name: str
    metrics: Mapping[str, Metric]
    """By the ids that the expression has for them."""
    expression: str
    period: int
    periods: int
    points_to_alarm: int
    threshold: float
    comparison: str
    missing: str

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> Self:
        """From CloudFormation's properties or from DescribeAlarms, which have the same names.

        Raises ValueError for what is not evaluated here: other statistics, `missing`, percentiles
        that few samples leave as they are.
        """
        name = definition["AlarmName"]
        if definition.get("TreatMissingData") not in TREATMENTS:
            raise ValueError(f"{name}: no such treatment of missing data")
        if definition.get("EvaluateLowSampleCountPercentile", "evaluate") != "evaluate":
            raise ValueError(f"{name}: percentiles of few samples are evaluated")
        try:
            if "Metrics" in definition:
                metrics, expression, period = _math_of(definition["Metrics"])
            else:
                statistic = definition.get("ExtendedStatistic") or definition.get("Statistic")
                metrics, expression = {"only": Metric.of(definition, statistic)}, "only"
                period = definition["Period"]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return cls(
            name=name,
            metrics=metrics,
            expression=expression,
            period=period,
            periods=definition["EvaluationPeriods"],
            points_to_alarm=definition.get("DatapointsToAlarm", definition["EvaluationPeriods"]),
            threshold=definition["Threshold"],
            comparison=definition["ComparisonOperator"],
            missing=definition["TreatMissingData"],
        )

    @property
    def metric(self) -> Metric:
        """The metric of an alarm that watches one."""
        (metric,) = self.metrics.values()
        return metric

    def point(self, at: float, value: float) -> Point:
        """A value of the one metric that is watched."""
        return self.metric.point(at, value)

    def state(self, points: Iterable[Point], at: float, before: State = "OK") -> State:
        """The state at the end of the minute of `at`; `before` is what `ignore` may keep."""
        end = (at // MINUTE + 1) * MINUTE
        given = list(points)
        ends = [end - n * self.period for n in reversed(range(self.periods + MORE_PERIODS))]
        series = {
            name: {
                end: value
                for end in ends
                if (value := metric.value(given, end - self.period, end)) is not None
            }
            for name, metric in self.metrics.items()
        }
        values = evaluated(self.expression, series)
        breaches = COMPARISONS[self.comparison]
        real = [bool(breaches(values[end], self.threshold)) for end in ends if end in values]
        real = real[-self.periods :]
        filled = self.periods - len(real)
        if filled and self.missing == "ignore" and all(real):
            return "ALARM" if len(real) >= self.points_to_alarm else before
        if self.missing == "breaching":
            real += [True] * filled
        return "ALARM" if sum(real) >= self.points_to_alarm else "OK"


def _math_of(queries: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Metric], str, int]:
    """The metrics, the expression over them that counts, and the period of all."""
    metrics: dict[str, Metric] = {}
    expressions, periods = [], set()
    for query in queries:
        if given := query.get("MetricStat"):
            metrics[query["Id"]] = Metric.of(given["Metric"], given["Stat"])
            periods.add(given["Period"])
        elif query.get("ReturnData", True):
            expressions.append(query["Expression"])
    (expression,), (period,) = expressions, periods
    return metrics, expression, period


def evaluated(expression: str, series: Mapping[str, Series]) -> Series:
    """A math expression's series: arithmetic, comparisons and IF, as metric math has them.

    Raises ValueError for the rest of metric math.
    """
    found = _evaluated(ast.parse(expression, mode="eval").body, series)
    if not isinstance(found, dict):
        raise ValueError(f"{expression} is a number, and no series")
    return found


def _evaluated(node: ast.expr, series: Mapping[str, Series]) -> Operand:
    match node:
        case ast.Name(id=name):
            return series[name]
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _combined(op, _evaluated(left, series), _evaluated(right, series))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
            return _combined(op, _evaluated(left, series), _evaluated(right, series))
        case ast.Call(func=ast.Name(id="IF"), args=[condition, *branches]):
            return _chosen(*(_evaluated(each, series) for each in (condition, *branches)))
    raise ValueError(f"{ast.unparse(node)} is not evaluated here")


def _combined(op: ast.AST, left: Operand, right: Operand) -> Operand:
    """Where one of two series has a value, the other's is 0; what divides by 0 is dropped."""
    apply = OPERATORS[type(op)]
    if not isinstance(left, dict) and not isinstance(right, dict):
        return float(apply(left, right))
    times = {end for operand in (left, right) if isinstance(operand, dict) for end in operand}
    pairs = {end: (_at(left, end, 0.0), _at(right, end, 0.0)) for end in times}
    divides = isinstance(op, ast.Div)
    return {end: float(apply(a, b)) for end, (a, b) in pairs.items() if b or not divides}


def _chosen(condition: Operand, then: Operand, otherwise: Operand = NO_DATA) -> Series:
    """For each value of the condition that of a branch: `then` fills with 0, the other drops."""
    if not isinstance(condition, dict):
        raise ValueError("an IF whose condition is a number is not evaluated here")
    chosen = {
        end: _at(then, end, 0.0) if holds else _at(otherwise, end, None)
        for end, holds in condition.items()
    }
    return {end: value for end, value in chosen.items() if value is not None}


def _at[T](operand: Operand, end: float, missing: T) -> float | T:
    return operand.get(end, missing) if isinstance(operand, dict) else operand


def embedded(line: Mapping[str, Any]) -> Iterator[Point]:
    """The points that CloudWatch makes of a log line in its embedded metric format."""
    about = line.get("_aws")
    if about is None:
        return
    at = about["Timestamp"] / 1000
    for directive in about["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = frozenset((name, line[name]) for name in names)
            for name in (metric["Name"] for metric in directive["Metrics"]):
                for value in line[name] if isinstance(line[name], list) else [line[name]]:
                    yield Point(directive["Namespace"], name, dimensions, at, value)
