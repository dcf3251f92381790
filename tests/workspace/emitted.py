"""The metrics that a function's log lines carry."""

from collections.abc import Iterable

from jobplane.log_lines import parse_line
from jobplane.metrics import Metric


def in_lines(lines: Iterable[str], function: str) -> set[Metric]:
    """The metrics of log lines in CloudWatch's embedded metric format."""
    found = set()
    for line in lines:
        for directive in ((parse_line(line) or {}).get("_aws") or {}).get("CloudWatchMetrics", ()):
            dimensions = frozenset().union(*directive["Dimensions"]) - {"Environment"}
            for metric in directive["Metrics"]:
                found.add(Metric(metric["Name"], metric["Unit"], dimensions, function))
    return found
