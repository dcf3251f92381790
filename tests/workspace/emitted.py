"""The metrics that the functions emit, as their source says."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jobplane.log_lines import parse_line
from jobplane.workspace import Workspace
from jobplane_keys import TERMINAL_STATUSES

NAMESPACE = "Jobplane"
# Names that are put together at run time, as they stand in the source.
COMPOSED = {
    "f'Request{status.capitalize()}'": {f"Request{s.capitalize()}" for s in TERMINAL_STATUSES},
}


@dataclass(frozen=True)
class Metric:
    """What one call of `telemetry.metric` emits, for Environment alone and with its dimensions."""

    name: str
    unit: str
    dimensions: frozenset[str]
    """Beside Environment."""
    function: str


@cache
def emitted(workspace: Workspace) -> set[Metric]:
    """Every metric of every function."""
    return {
        metric
        for function in workspace.functions()
        for metric in _in_source(function.source, function.name)
    }


def _in_source(path: Path, function: str) -> Iterator[Metric]:
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "telemetry.metric"):
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        units = [*call.args[2:3], *([given["unit"]] if "unit" in given else [])]
        unit = ast.literal_eval(units[0]) if units else "Count"
        name = call.args[0]
        names = {name.value} if isinstance(name, ast.Constant) else COMPOSED[ast.unparse(name)]
        for text in names:
            yield Metric(str(text), unit, frozenset(given) - {"value", "unit"}, function)


def in_lines(lines: Iterable[str], function: str) -> set[Metric]:
    """The metrics of log lines in CloudWatch's embedded metric format."""
    found = set()
    for line in lines:
        for directive in ((parse_line(line) or {}).get("_aws") or {}).get("CloudWatchMetrics", ()):
            dimensions = frozenset().union(*directive["Dimensions"]) - {"Environment"}
            for metric in directive["Metrics"]:
                found.add(Metric(metric["Name"], metric["Unit"], dimensions, function))
    return found
