"""The metrics that the functions emit, read from their source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jobplane.reference.documents import Row, rows_of, table
from jobplane.tree.repository import Repository
from jobplane_keys import TERMINAL_STATUSES, RequestStatus

DOCUMENT = Path("docs", "observing.md")
SECTION = "metrics"
ANSWERED = "answered"
# Names that are computed at run time, by their expression in the source.
COMPOSED = {
    "f'Request{status.capitalize()}'": {
        f"Request{s.capitalize()}" for s in TERMINAL_STATUSES if s != RequestStatus.FAILED
    },
}


@dataclass(frozen=True)
class Metric:
    """The metric of one call of `telemetry.metric`."""

    name: str
    unit: str
    dimensions: frozenset[str]
    """Beside Environment."""
    function: str


@cache
def emitted(repository: Repository) -> set[Metric]:
    return {
        metric
        for function in repository.functions()
        for metric in _in_source(function.source, function.name)
    }


def tables(repository: Repository) -> dict[str, str]:
    """The tables of docs/observing.md, by section: metrics, and those that count answered errors.

    The descriptions in the page are kept; a new metric gets the description of its function.
    """
    document = (repository.root / DOCUMENT).read_text(encoding="utf-8")
    said = {row[:3]: row[4] for row in rows_of(document, SECTION)}
    purposes = {each.name: each.config["description"] for each in repository.functions()}
    rows = []
    for key, functions in _sources(repository).items():
        says = said.get(key) or purposes[functions[0]]
        rows.append((*key, ", ".join(functions), says))
    counts = {row[:3]: row[3] for row in rows_of(document, ANSWERED)}
    answered = [(*key, counts.get(key, "errors")) for key in _answered(repository)]
    return {
        SECTION: table(("metric", "unit", "dimensions", "from", "says"), rows),
        ANSWERED: table(("function", "metric", "of it", "counts"), answered),
    }


def _answered(repository: Repository) -> Iterator[tuple[str, str, str]]:
    """The metrics that `alarms.answeredErrors` names, with the value of a dimension."""
    for function in repository.functions():
        for given in (function.config.get("alarms") or {}).get("answeredErrors") or ():
            kinds = [f"{key}={value}" for key, value in given.items() if key != "metric"]
            yield function.name, f"`{given['metric']}`", ", ".join(kinds) or "–"


def _sources(repository: Repository) -> dict[Row, list[str]]:
    found: dict[Row, list[str]] = {}
    for metric in sorted(emitted(repository), key=lambda each: (each.name, each.function)):
        dimensions = ", ".join(sorted(metric.dimensions)) or "–"
        found.setdefault((metric.name, metric.unit, dimensions), []).append(metric.function)
    return dict(sorted(found.items()))


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
