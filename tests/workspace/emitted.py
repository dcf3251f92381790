"""The metrics in a function's log lines."""

from collections.abc import Iterable

from jobplane.reference.metrics import Metric
from jobplane.stage.log_lines import parse_line
from jobplane.tree.repository import Repository


def in_lines(lines: Iterable[str], function: str) -> set[Metric]:
    """The metrics of log lines in CloudWatch's embedded metric format.

    Each is published for the stage, and for the stage with all its dimensions: no other set.
    """
    found = set()
    for line in lines:
        fields = parse_line(line) or {}
        for directive in (fields.get("_aws") or {}).get("CloudWatchMetrics", ()):
            assert directive["Namespace"] == Repository.here().names("").metrics
            plain, *more = directive["Dimensions"]
            assert plain == ["Environment"]
            assert [each[:1] for each in more] in ([], [["Environment"]])
            # CloudWatch drops a metric that has a dimension without a value.
            assert all(1 <= len(fields[name]) <= 1024 for each in (plain, *more) for name in each)
            dimensions = frozenset(name for each in more for name in each[1:])
            for metric in directive["Metrics"]:
                service = fields.get("service", function)  # it may invoke another in its process
                found.add(Metric(metric["Name"], metric["Unit"], dimensions, service))
    return found
