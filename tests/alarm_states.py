"""The state of an alarm after given data points, by CloudWatch's documented rules.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html

An alarm is evaluated every minute, over whole periods that end with that minute. Two periods more
than it needs are looked at, so that a point that is missing may be made up for by an older one; how
many more CloudWatch takes is not documented, two are those of its examples.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, Self

type State = Literal["OK", "ALARM"]
type Dimensions = frozenset[tuple[str, str]]

MINUTE = 60
MORE_PERIODS = 2
STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "Average": fmean,
    "SampleCount": len,
}
COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
TREATMENTS = frozenset({"notBreaching", "breaching", "ignore"})


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
class Alarm:
    """An alarm on one metric."""

    name: str
    namespace: str
    metric: str
    dimensions: Dimensions
    statistic: str
    period: int
    periods: int
    points_to_alarm: int
    threshold: float
    comparison: str
    missing: str

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> Self:
        """From CloudFormation's properties or from DescribeAlarms, which have the same names.

        Raises ValueError for what is not evaluated here: other statistics, and `missing`.
        """
        if definition.get("Statistic") not in STATISTICS:
            raise ValueError(f"{definition['AlarmName']}: no such statistic")
        if definition.get("TreatMissingData") not in TREATMENTS:
            raise ValueError(f"{definition['AlarmName']}: no such treatment of missing data")
        return cls(
            name=definition["AlarmName"],
            namespace=definition["Namespace"],
            metric=definition["MetricName"],
            dimensions=frozenset((d["Name"], d["Value"]) for d in definition["Dimensions"]),
            statistic=definition["Statistic"],
            period=definition["Period"],
            periods=definition["EvaluationPeriods"],
            points_to_alarm=definition.get("DatapointsToAlarm", definition["EvaluationPeriods"]),
            threshold=definition["Threshold"],
            comparison=definition["ComparisonOperator"],
            missing=definition["TreatMissingData"],
        )

    def point(self, at: float, value: float) -> Point:
        """A value of the metric that is watched."""
        return Point(self.namespace, self.metric, self.dimensions, at, value)

    def state(self, points: Iterable[Point], at: float, before: State = "OK") -> State:
        """The state at the end of the minute of `at`; `before` is what `ignore` may keep."""
        end = (at // MINUTE + 1) * MINUTE
        own = [point for point in points if self._watches(point)]
        count = self.periods + MORE_PERIODS
        breaching = [self._is_breaching(own, end - n * self.period) for n in reversed(range(count))]
        real = [each for each in breaching if each is not None][-self.periods :]
        filled = self.periods - len(real)
        if filled and self.missing == "ignore" and all(real):
            return "ALARM" if len(real) >= self.points_to_alarm else before
        if self.missing == "breaching":
            real += [True] * filled
        return "ALARM" if sum(real) >= self.points_to_alarm else "OK"

    def _watches(self, point: Point) -> bool:
        watched = (self.namespace, self.metric, self.dimensions)
        return (point.namespace, point.name, point.dimensions) == watched

    def _is_breaching(self, points: list[Point], end: float) -> bool | None:
        """Whether a period's value breaches the threshold; None if it has none."""
        values = [point.value for point in points if end - self.period <= point.at < end]
        if not values:
            return None
        value = STATISTICS[self.statistic](values)
        return bool(COMPARISONS[self.comparison](value, self.threshold))


def embedded(line: Mapping[str, Any]) -> Iterator[Point]:
    """The points that CloudWatch makes of a log line in its embedded metric format."""
    about = line.get("_aws")
    if about is None:
        return
    for directive in about["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = frozenset((name, line[name]) for name in names)
            for metric in directive["Metrics"]:
                given = line[metric["Name"]]
                for value in given if isinstance(given, list) else [given]:
                    yield Point(
                        directive["Namespace"],
                        metric["Name"],
                        dimensions,
                        about["Timestamp"] / 1000,
                        value,
                    )
